//! The tables of one system, compiled for use: columns by property, keys by column index.
//!
//! Owns names and what follows from a definition; knows neither rows nor requests.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use anyhow::{Context, ensure};
use dualwright_odata::Literal;
use uuid::Uuid;

use crate::Dialect;
use crate::cell::{self, Cell, Unfit};
use crate::dataverse::system;
use crate::definition::{
    ColumnDefinition, ColumnKind, DeleteBehavior, KeyDefinition, NO_YES, OptionDefinition, TableDefinition,
    TargetDefinition, no_yes,
};
use crate::finops::package;
use crate::relation::{self, Relations};
use crate::render::{self, Group};

/// All tables.
#[derive(Debug, Default)]
pub(crate) struct Catalogue {
    by_set: BTreeMap<String, Arc<Table>>,
    by_name: HashMap<String, Arc<Table>>,
    /// Relationships by the table that lookups point to (Dataverse).
    relations: HashMap<String, Vec<Arc<Relation>>>,
    /// What the rows of intersect tables point to, by the table that they point to (Dataverse).
    joins: HashMap<String, Vec<Arc<Relation>>>,
    /// Relationships with many rows on either side, by the table from which they are seen (Dataverse).
    crossings: HashMap<String, Vec<Arc<Crossing>>>,
    pub enums: BTreeMap<String, Vec<OptionDefinition>>,
    /// What rows refer to, by the number of their table, and under which names it is reached (F&O).
    relations_of: HashMap<i64, Relations>,
}

/// A lookup and one table that it may point to, seen from both sides (Dataverse).
#[derive(Debug)]
pub(crate) struct Relation {
    pub schema_name: String,
    /// Logical name of the table with the lookup, and the lookup's place in it.
    pub referencing: String,
    pub column: usize,
    /// What `@odata.bind` and `$expand` call the row that is pointed to.
    pub navigation: String,
    /// Logical name of the table that is pointed to.
    pub referenced: String,
    /// What that table calls the rows that point to it.
    pub collection: String,
    pub on_delete: DeleteBehavior,
}

/// A relationship with many rows on either side, seen from one of them (Dataverse).
#[derive(Debug)]
pub(crate) struct Crossing {
    pub schema_name: String,
    /// What this side calls the rows of the other.
    pub name: String,
    /// The table on the other side.
    pub other: String,
    /// The table whose rows are the pairs.
    pub intersect: Arc<Table>,
    /// Its columns with the ids of this side and of the other.
    pub own_column: usize,
    pub other_column: usize,
}

/// How the rows of a collection hang on the row that has it (Dataverse).
#[derive(Debug, Clone)]
pub(crate) enum Link {
    /// By a lookup of theirs, at this place.
    Lookup(usize),
    /// By rows of an intersect table.
    Across(Arc<Crossing>),
}

impl Link {
    /// The lookup in the rows themselves.
    pub const fn lookup(&self) -> Option<usize> {
        match self {
            Self::Lookup(at) => Some(*at),
            Self::Across(_) => None,
        }
    }
}

/// One table.
#[derive(Debug)]
pub(crate) struct Table {
    pub dialect: Dialect,
    /// Its place in the store, never given to another table.
    pub number: i64,
    pub definition: TableDefinition,
    pub columns: Vec<Column>,
    /// Bytes of a sent row that are not in its cells.
    pub label_bytes: usize,
    /// The columns as whole rows are written.
    pub groups: Vec<Group>,
    by_property: HashMap<String, usize>,
    navigation: HashMap<String, (usize, Vec<String>)>,
    /// The id column (Dataverse).
    pub primary_id: Option<usize>,
    /// Key columns (F&O).
    pub key: Vec<usize>,
    /// Further unique keys (Dataverse).
    pub alternate_keys: Vec<(String, Vec<usize>)>,
    /// `dataAreaId` when it is part of the key (F&O).
    pub company: Option<usize>,
    pub server: ServerColumns,
    /// Receipts, fences, the change feed and data management: neither audited nor fed.
    pub is_bookkeeping: bool,
    /// Lookups of which the store knows what points where (Dataverse).
    pub linked: Vec<usize>,
    /// Amounts of money, each with the column that holds it in the base currency (Dataverse).
    pub amounts: Vec<(usize, usize)>,
    /// Something is compiled from its rows, and is made anew after they changed.
    pub is_configuration: bool,
    /// The column whose value is the row's own place, so that its order is the order of rows.
    pub clustered: Option<usize>,
}

#[derive(Debug)]
pub(crate) struct Column {
    pub definition: ColumnDefinition,
    /// Name on the wire: a lookup travels as `_name_value`.
    pub property: String,
    /// `"name":`, ready to be written.
    pub label: String,
    pub empty: Cell,
    /// A lookup of which the store knows what points where (Dataverse).
    pub linked: bool,
}

/// Columns that the system fills itself (Dataverse).
#[derive(Debug, Default, Clone, Copy)]
#[allow(dead_code, reason = "definitions come before what sets the columns")]
pub(crate) struct ServerColumns {
    pub version: Option<usize>,
    pub created: Option<usize>,
    pub modified: Option<usize>,
    pub state: Option<usize>,
    pub status: Option<usize>,
    /// What takes the place of `createdon` when a row is created.
    pub overridden_created: Option<usize>,
    pub created_by: Option<usize>,
    pub modified_by: Option<usize>,
    pub owner: Option<usize>,
    pub owning_user: Option<usize>,
    pub owning_team: Option<usize>,
    pub owning_business_unit: Option<usize>,
    pub organization: Option<usize>,
    pub currency: Option<usize>,
    pub exchange_rate: Option<usize>,
}

impl ServerColumns {
    /// Whether a column says when or how often a row was written, and not what is in it.
    pub fn is_stamp(&self, column: usize) -> bool {
        [self.version, self.created, self.modified].contains(&Some(column))
    }
}

impl Catalogue {
    pub fn by_set(&self, set: &str) -> Option<&Arc<Table>> {
        self.by_set.get(set)
    }

    pub fn by_name(&self, name: &str) -> Option<&Arc<Table>> {
        self.by_name.get(name)
    }

    pub fn tables(&self) -> impl Iterator<Item = &Arc<Table>> {
        self.by_set.values()
    }

    pub fn by_number(&self, number: i64) -> Option<&Arc<Table>> {
        self.tables().find(|table| table.number == number)
    }

    /// The relationships in which lookups point to a table (Dataverse).
    pub fn relations_to(&self, table: &str) -> &[Arc<Relation>] {
        self.relations.get(table).map_or(&[], Vec::as_slice)
    }

    /// All relationships (Dataverse).
    pub fn relations(&self) -> impl Iterator<Item = &Arc<Relation>> {
        let tables = self.tables().map(|table| table.name()).chain([OWNER]);
        tables.flat_map(|table| self.relations_to(table))
    }

    /// What the rows of intersect tables have to do with a table (Dataverse).
    pub fn joins_to(&self, table: &str) -> &[Arc<Relation>] {
        self.joins.get(table).map_or(&[], Vec::as_slice)
    }

    /// The relationships of a table with many rows on either side (Dataverse).
    pub fn crossings_of(&self, table: &str) -> &[Arc<Crossing>] {
        self.crossings.get(table).map_or(&[], Vec::as_slice)
    }

    /// One of them, by what the table calls the rows of the other side.
    pub fn crossing(&self, table: &str, name: &str) -> Option<(&Arc<Crossing>, &Arc<Table>)> {
        let crossing = self.crossings_of(table).iter().find(|crossing| crossing.name == name)?;
        Some((crossing, self.by_name(&crossing.other)?))
    }

    /// The collection with this name, however its rows hang on a row of `table`, and their table (Dataverse).
    pub fn related(&self, table: &str, name: &str) -> Option<(Link, &Arc<Table>)> {
        match self.collection(table, name) {
            Some((relation, referring)) => Some((Link::Lookup(relation.column), referring)),
            None => self.crossing(table, name).map(|(crossing, other)| (Link::Across(Arc::clone(crossing)), other)),
        }
    }

    /// The rows that point to a row of `table`, by what the table calls them (Dataverse).
    pub fn collection(&self, table: &str, name: &str) -> Option<(&Arc<Relation>, &Arc<Table>)> {
        let relation = self.relations_to(table).iter().find(|relation| relation.collection == name)?;
        Some((relation, self.by_name(&relation.referencing)?))
    }

    fn relate(&mut self) {
        self.cross();
        let mut relations: HashMap<String, Vec<Arc<Relation>>> = HashMap::new();
        for table in self.by_set.values() {
            for (place, column) in table.columns.iter().enumerate() {
                if column.definition.kind != ColumnKind::Lookup {
                    continue;
                }
                // Users and teams are owners both, and what they own is one relationship.
                let is_owner = column.definition.name == "ownerid" && column.definition.targets.len() > 1;
                for (target, navigation) in targets(&column.definition).take(if is_owner { 1 } else { usize::MAX }) {
                    let (schema_name, mut collection) =
                        system::relationship_names(table.name(), table.set(), &column.definition.name, target);
                    let referenced = if is_owner { OWNER } else { target.table.as_str() };
                    let of_target = relations.entry(referenced.to_owned()).or_default();
                    if of_target.iter().any(|other| other.collection == collection) {
                        collection = format!("{collection}_{}", column.definition.name);
                    }
                    of_target.push(Arc::new(Relation {
                        schema_name,
                        referencing: table.name().to_owned(),
                        column: place,
                        navigation: navigation.to_owned(),
                        referenced: referenced.to_owned(),
                        collection,
                        on_delete: target.on_delete.unwrap_or(if column.definition.required {
                            DeleteBehavior::Restrict
                        } else {
                            DeleteBehavior::RemoveLink
                        }),
                    }));
                }
            }
        }
        self.relations = relations;
    }

    fn cross(&mut self) {
        for table in self.by_set.values() {
            let Some(definition) = &table.definition.many_to_many else { continue };
            let columns = definition.sides.each_ref().map(|side| table.column(&side.column));
            let [Some(first), Some(second)] = columns else { continue };
            let places = [first, second];
            for (number, side) in definition.sides.iter().enumerate() {
                // Pairs go with either row.
                self.joins.entry(side.table.clone()).or_default().push(Arc::new(Relation {
                    schema_name: definition.name.clone(),
                    referencing: table.name().to_owned(),
                    column: places[number],
                    navigation: side.column.clone(),
                    referenced: side.table.clone(),
                    collection: side.navigation_property.clone(),
                    on_delete: DeleteBehavior::Cascade,
                }));
                self.crossings.entry(side.table.clone()).or_default().push(Arc::new(Crossing {
                    schema_name: definition.name.clone(),
                    name: side.navigation_property.clone(),
                    other: definition.sides[1 - number].table.clone(),
                    intersect: Arc::clone(table),
                    own_column: places[number],
                    other_column: places[1 - number],
                }));
            }
        }
    }

    /// Compiles the definitions with their numbers.
    pub fn new(
        dialect: Dialect,
        definitions: Vec<(i64, TableDefinition)>,
        choices: Vec<(String, Vec<OptionDefinition>)>,
    ) -> anyhow::Result<Self> {
        let mut catalogue = Self { enums: choices.into_iter().collect(), ..Self::default() };
        if dialect == Dialect::Finops {
            catalogue.enums.insert(NO_YES.to_owned(), no_yes());
        }
        for (number, definition) in definitions {
            for column in &definition.columns {
                if let Some(name) = &column.enumeration
                    && !column.options.is_empty()
                {
                    catalogue.enums.insert(name.clone(), column.options.clone());
                }
            }
            let name = definition.name.clone();
            let table = Arc::new(
                Table::new(dialect, number, definition).with_context(|| format!("table {name} does not fit"))?,
            );
            ensure!(
                catalogue.by_set.insert(table.definition.set.clone(), Arc::clone(&table)).is_none(),
                "two tables have the set {}",
                table.definition.set
            );
            ensure!(catalogue.by_name.insert(name, table).is_none(), "two tables have one name");
        }
        match dialect {
            Dialect::Dataverse => catalogue.relate(),
            Dialect::Finops => catalogue.relations_of = relation::all(&catalogue),
        }
        Ok(catalogue)
    }

    /// What the rows of a table refer to, and what refers to them (F&O).
    pub fn relations_of(&self, table: &Table) -> &Relations {
        static NONE: Relations = Relations::NONE;
        self.relations_of.get(&table.number).unwrap_or(&NONE)
    }
}

impl Table {
    fn new(dialect: Dialect, number: i64, definition: TableDefinition) -> anyhow::Result<Self> {
        definition.check()?;
        let columns = definition
            .columns
            .iter()
            .map(|column| {
                let property = match (dialect, column.kind) {
                    (Dialect::Dataverse, ColumnKind::Lookup) => format!("_{}_value", column.name),
                    _ => column.name.clone(),
                };
                Column {
                    label: format!("\"{property}\":"),
                    property,
                    empty: cell::empty(dialect, column),
                    linked: dialect == Dialect::Dataverse
                        && (system::is_linked(column) || definition.joins(&column.name)),
                    definition: column.clone(),
                }
            })
            .collect::<Vec<_>>();
        let index = |name: &str| columns.iter().position(|column| column.definition.name == name);
        let known = |name: &String| index(name).with_context(|| format!("its key names {name}, which is no column"));
        let key = definition.key.iter().map(known).collect::<anyhow::Result<Vec<_>>>()?;
        let alternate_keys = definition
            .alternate_keys
            .iter()
            .filter(|key| !key.failed)
            .map(|key| Ok((key.name.clone(), key.columns.iter().map(known).collect::<anyhow::Result<Vec<_>>>()?)))
            .collect::<anyhow::Result<Vec<_>>>()?;
        ensure!(dialect == Dialect::Dataverse || !key.is_empty(), "it has no key");
        ensure!(alternate_keys.len() < 256, "it has more keys than can be numbered");
        let server = match dialect {
            Dialect::Finops => ServerColumns::default(),
            Dialect::Dataverse => ServerColumns {
                version: index(VERSION),
                created: index(CREATED),
                modified: index(MODIFIED),
                state: index("statecode"),
                status: index("statuscode"),
                overridden_created: index("overriddencreatedon"),
                created_by: index("createdby"),
                modified_by: index("modifiedby"),
                owner: index("ownerid"),
                owning_user: index("owninguser"),
                owning_team: index("owningteam"),
                owning_business_unit: index("owningbusinessunit"),
                organization: index("organizationid"),
                currency: index("transactioncurrencyid"),
                exchange_rate: index("exchangerate"),
            },
        };
        let mut navigation: HashMap<String, (usize, Vec<String>)> = HashMap::new();
        for (at, column) in definition.columns.iter().enumerate() {
            for (target, name) in targets(column) {
                navigation.entry(name.to_owned()).or_insert_with(|| (at, Vec::new())).1.push(target.table.clone());
            }
        }
        let amounts = columns
            .iter()
            .enumerate()
            .filter_map(|(base, column)| Some((index(system::amount_of_base(&column.definition)?)?, base)))
            .filter(|_| dialect == Dialect::Dataverse)
            .collect();
        Ok(Self {
            dialect,
            number,
            label_bytes: columns.iter().map(|column| column.label.len() + 1 + column.empty.len()).sum(),
            groups: render::groups(&columns),
            linked: (0..columns.len()).filter(|&at| columns[at].linked).collect(),
            amounts,
            by_property: columns.iter().enumerate().map(|(at, column)| (column.property.clone(), at)).collect(),
            navigation,
            primary_id: definition.primary_id.as_deref().and_then(index),
            company: index("dataAreaId").filter(|at| key.contains(at)),
            key,
            alternate_keys,
            server,
            is_bookkeeping: LINK_PACKAGE.contains(&definition.set.as_str())
                || DATA_MANAGEMENT.contains(&definition.set.as_str()),
            is_configuration: dialect == Dialect::Dataverse && crate::dataverse::is_configuration(&definition.name),
            clustered: (definition.set == CHANGES).then(|| index("ControlNumber")).flatten(),
            definition,
            columns,
        })
    }

    pub fn set(&self) -> &str {
        &self.definition.set
    }

    pub fn name(&self) -> &str {
        &self.definition.name
    }

    /// The column behind a property on the wire.
    pub fn property(&self, name: &str) -> Option<usize> {
        self.by_property.get(name).copied()
    }

    /// The column behind a property that may be read.
    pub fn readable(&self, name: &str) -> Option<usize> {
        self.property(name).filter(|at| !self.columns[*at].definition.secret)
    }

    /// The lookup column behind a navigation property, and the table it points to: the first of them when there are
    /// more, as an owner is a user or a team.
    pub fn navigation(&self, name: &str) -> Option<(usize, &str)> {
        self.navigation.get(name).and_then(|(at, tables)| Some((*at, tables.first()?.as_str())))
    }

    /// The navigation properties that lead to one row.
    pub fn navigation_names(&self) -> impl Iterator<Item = &str> {
        self.navigation.keys().map(String::as_str)
    }

    /// The tables that a navigation property may point to.
    pub fn navigation_targets(&self, name: &str) -> &[String] {
        self.navigation.get(name).map_or(&[], |(_, tables)| tables.as_slice())
    }

    /// The lookup column with this logical name, or any column.
    pub fn column(&self, name: &str) -> Option<usize> {
        self.columns.iter().position(|column| column.definition.name == name)
    }

    /// The same, unless nobody may read it.
    pub fn readable_column(&self, name: &str) -> Option<usize> {
        self.column(name).filter(|at| !self.columns[*at].definition.secret)
    }

    /// Raises a JSON value to a cell of one of the columns.
    pub fn parse(&self, column: usize, json: &str) -> Result<Cell, Unfit> {
        self.borrow(column, json).map(|cell| Cell::Owned(cell.into_owned()))
    }

    /// [`Table::parse`] that copies nothing where the JSON is the cell already.
    pub fn borrow<'j>(&self, column: usize, json: &'j str) -> Result<Cow<'j, str>, Unfit> {
        let cell = cell::parse(self.dialect, &self.columns[column].definition, json)?;
        // Legal entities are kept in lower case, whatever was sent.
        Ok(if Some(column) == self.company { Cow::Owned(cell.to_lowercase()) } else { cell })
    }

    /// The cells of a stored row, those of younger columns included.
    pub fn cells<'a>(&'a self, data: &'a str, cells: &mut Vec<&'a str>) {
        cell::split(data, cells);
        for column in self.columns.iter().skip(cells.len()) {
            cells.push(&column.empty);
        }
    }

    /// A stored row to be changed.
    pub fn owned_cells(&self, data: &str) -> Vec<Cell> {
        let mut cells = Vec::with_capacity(self.columns.len());
        cell::split(data, &mut cells);
        let mut owned = cells.into_iter().map(|cell| Cell::Owned(cell.to_owned())).collect::<Vec<_>>();
        owned.extend(self.columns.iter().skip(owned.len()).map(|column| column.empty.clone()));
        owned
    }

    /// A stored row to be changed while its stored form is at hand.
    pub fn borrowed_cells<'a>(&'a self, data: &'a str) -> Vec<Cow<'a, str>> {
        let mut cells = Vec::with_capacity(self.columns.len());
        self.cells(data, &mut cells);
        cells.into_iter().map(Cow::Borrowed).collect()
    }

    pub fn empty_row(&self) -> Vec<Cell> {
        self.columns.iter().map(|column| column.empty.clone()).collect()
    }

    fn key_start(&self) -> Vec<u8> {
        let mut key = Vec::with_capacity(64);
        key.extend_from_slice(&u32::try_from(self.number).unwrap_or(u32::MAX).to_be_bytes());
        key
    }

    /// Where a row is in the store: by its id, or by its key cells.
    pub fn id_key(&self, id: Uuid) -> Vec<u8> {
        let mut key = self.key_start();
        key.extend_from_slice(id.as_bytes());
        key
    }

    pub fn row_key<C: AsRef<str>>(&self, cells: &[C]) -> Vec<u8> {
        match self.primary_id {
            Some(at) => self.id_key(self.id_of(&cells[at]).unwrap_or_default()),
            None => {
                let mut key = self.key_start();
                for &at in &self.key {
                    cell::push_key(&mut key, cells[at].as_ref());
                }
                key
            }
        }
    }

    pub fn id_of<C: AsRef<str>>(&self, cell: &C) -> Option<Uuid> {
        Uuid::parse_str(cell.as_ref().trim_matches('"')).ok()
    }

    /// The entry of one alternate key; `None` when a part is null, because such rows are not held apart.
    pub fn alternate_key<C: AsRef<str>>(&self, number: usize, cells: &[C]) -> Option<Vec<u8>> {
        let columns = &self.alternate_keys[number].1;
        if columns.iter().any(|&at| cells[at].as_ref() == cell::NULL) {
            return None;
        }
        Some(self.alternate_key_of(number, columns.iter().map(|&at| cells[at].as_ref())))
    }

    pub fn alternate_key_of<'a>(&self, number: usize, cells: impl Iterator<Item = &'a str>) -> Vec<u8> {
        let mut key = self.key_start();
        key.push(u8::try_from(number).unwrap_or(u8::MAX));
        for cell in cells {
            cell::push_key(&mut key, cell);
        }
        key
    }

    /// The cell of a value that stood in a key or filter; `None` when no row can have it.
    pub fn cell_of(&self, column: usize, literal: &Literal) -> Option<Cell> {
        self.parse(column, &cell::json_of(literal)).ok()
    }

    /// How a person writes the row's key: the id, or `dataAreaId='usmf',CustomerGroupId='10'`.
    pub fn shown_key<C: AsRef<str>>(&self, cells: &[C]) -> String {
        match self.primary_id {
            Some(at) => cells[at].as_ref().trim_matches('"').to_owned(),
            None => {
                let parts = self.key.iter().map(|&at| {
                    let literal = cell::literal(self.columns[at].definition.kind, cells[at].as_ref());
                    format!("{}={literal}", self.columns[at].property)
                });
                parts.collect::<Vec<_>>().join(",")
            }
        }
    }
}

/// What users and teams are together (Dataverse).
pub(crate) const OWNER: &str = "owner";
pub(crate) const VERSION: &str = "versionnumber";
pub(crate) const CREATED: &str = "createdon";
const MODIFIED: &str = "modifiedon";

/// The feed of row changes that the link installs on F&O.
pub(crate) const CHANGES: &str = "DualwrightChanges";
/// Receipts, by dialect: set and the column with the transaction id.
pub(crate) const RECEIPTS: [(&str, &str); 2] =
    [("DualwrightReceipts", "TransactionId"), ("dualwright_receipts", "dualwright_transactionid")];
const LINK_PACKAGE: [&str; 5] =
    ["DualwrightReceipts", "DualwrightFences", CHANGES, "dualwright_receipts", "dualwright_fences"];
/// What F&O knows of data management itself.
const DATA_MANAGEMENT: [&str; 3] = [package::PROJECTS, package::DETAILS, package::JOB_DETAILS];

fn column(name: &str, kind: ColumnKind) -> ColumnDefinition {
    ColumnDefinition { name: name.to_owned(), kind, ..ColumnDefinition::default() }
}

fn text(name: &str, max_length: u32, required: bool) -> ColumnDefinition {
    ColumnDefinition { max_length: Some(max_length), required, ..column(name, ColumnKind::Text) }
}

/// Adds what every table of the system has without saying so.
pub(crate) fn completed(dialect: Dialect, mut definition: TableDefinition) -> TableDefinition {
    let add = |definition: &mut TableDefinition, new: ColumnDefinition| {
        if !definition.columns.iter().any(|own| own.name == new.name) {
            definition.columns.push(new);
        }
    };
    match dialect {
        Dialect::Dataverse => {
            let id = definition.primary_id.clone().unwrap_or_else(|| format!("{}id", definition.name));
            add(&mut definition, column(&id, ColumnKind::Guid));
            definition.primary_id = Some(id);
            let is_bookkeeping = LINK_PACKAGE.contains(&definition.set.as_str());
            system::complete(&mut definition, is_bookkeeping);
            for own in &mut definition.columns {
                if own.kind == ColumnKind::Lookup && own.targets.is_empty() {
                    // A lookup to nowhere cannot be set; it still can be read.
                    own.read_only = true;
                }
                for target in &mut own.targets {
                    if target.navigation_property.is_none() {
                        target.navigation_property = Some(own.name.clone());
                    }
                }
            }
        }
        Dialect::Finops => {
            for name in definition.key.clone() {
                add(&mut definition, text(&name, if name == "dataAreaId" { 4 } else { 60 }, true));
            }
            // Every F&O knows this one, so a definition need not bring its members.
            for own in &mut definition.columns {
                if own.options.is_empty() && own.enumeration.as_deref() == Some(NO_YES) {
                    own.options = no_yes();
                }
            }
        }
    }
    definition
}

/// The tables that the link installs on each system.
pub(crate) fn link_package(dialect: Dialect) -> Vec<TableDefinition> {
    match dialect {
        Dialect::Dataverse => {
            let table = |name: &str, key: &str, columns: Vec<ColumnDefinition>| TableDefinition {
                name: name.to_owned(),
                set: format!("{name}s"),
                primary_id: Some(format!("{name}id")),
                primary_name: Some(key.to_owned()),
                alternate_keys: vec![KeyDefinition {
                    name: format!("{key}_key"),
                    columns: vec![key.to_owned()],
                    ..KeyDefinition::default()
                }],
                columns,
                ..TableDefinition::default()
            };
            vec![
                table(
                    "dualwright_receipt",
                    "dualwright_transactionid",
                    vec![text("dualwright_transactionid", 100, true), text("dualwright_tenant", 100, false)],
                ),
                table(
                    "dualwright_fence",
                    "dualwright_partition",
                    vec![text("dualwright_partition", 200, true), column("dualwright_epoch", ColumnKind::Bigint)],
                ),
            ]
        }
        Dialect::Finops => {
            let table = |name: &str, set: &str, key: &str, columns: Vec<ColumnDefinition>| TableDefinition {
                name: name.to_owned(),
                set: set.to_owned(),
                entity: Some(name.to_owned()),
                entity_name: Some(format!("{name}Entity")),
                key: vec![key.to_owned()],
                columns,
                ..TableDefinition::default()
            };
            let read_only = |mut column: ColumnDefinition| {
                column.read_only = true;
                column
            };
            vec![
                table(
                    "DualwrightReceipt",
                    "DualwrightReceipts",
                    "TransactionId",
                    vec![text("TransactionId", 100, true), text("Tenant", 100, false)],
                ),
                table(
                    "DualwrightFence",
                    "DualwrightFences",
                    "PartitionId",
                    vec![text("PartitionId", 200, true), column("Epoch", ColumnKind::Bigint)],
                ),
                table(
                    "DualwrightChange",
                    CHANGES,
                    "ControlNumber",
                    [
                        column("ControlNumber", ColumnKind::Bigint),
                        column("TransactionId", ColumnKind::Text),
                        column("TransactionSize", ColumnKind::Int),
                        column("Collection", ColumnKind::Text),
                        column("Operation", ColumnKind::Text),
                        column("Row", ColumnKind::Memo),
                        column("Before", ColumnKind::Memo),
                        column("Origin", ColumnKind::Text),
                    ]
                    .map(read_only)
                    .to_vec(),
                ),
            ]
            .into_iter()
            .chain(package::tables())
            .collect()
        }
    }
}

/// Takes away what a link installs, with its rows.
pub(crate) fn remove_link_package(store: &crate::store::Store) -> anyhow::Result<()> {
    store.write(false, |session| {
        for set in LINK_PACKAGE {
            if let Some(table) = session.catalogue.by_set(set).cloned() {
                session.drop_table(&table)?;
            }
        }
        anyhow::Ok(())
    })
}

/// The navigation properties of a lookup column.
pub(crate) fn targets(column: &ColumnDefinition) -> impl Iterator<Item = (&TargetDefinition, &str)> {
    column.targets.iter().map(|target| (target, target.navigation_property.as_deref().unwrap_or(&column.name)))
}

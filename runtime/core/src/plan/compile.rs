//! From a leg and two schemas to a plan, or to everything that is wrong with the leg.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::{
    AddressSource, Flow, FlowField, KeyAddress, KeyAddressSource, KeyField, KeyPart, KeySource, MapPlan, OnMissing,
    PlanInput, Read, Write, WriteSource,
};
use crate::change::SystemKind;
use crate::convert;
use crate::filter::Filter;
use crate::lookup::{LookupSlot, Missing, NameSlot, NameTarget, PartSource, SlotKey, SlotPart};
use crate::mapping::{FieldDirection, FieldMapping, Problem, Reference, Severity, Transform};
use crate::schema::{Column, Schema};
use crate::transform::{Complaint, Steps, ambiguous_values};
use crate::value::Kind;

/// The key column of `cdm_company`, by which every company is known (reference 1.9).
const COMPANY_CODE: &str = "cdm_companycode";

/// Where a row says its currency, in the code that both systems know it by.
const CURRENCY_CODE: &str = "transactioncurrencyid.isocurrencycode";

/// Entity set of the companies, where a lookup does not say it.
const COMPANY_SET: &str = "cdm_companies";

/// Required columns that Dataverse fills by itself.
const FILLED_BY_DATAVERSE: &[&str] = &["ownerid", "owneridtype", "statecode", "statuscode", "organizationid"];

/// A row of no map, to follow a key path that no row has.
const UNMAPPED: FieldMapping = FieldMapping {
    direction: FieldDirection::Both,
    finops: None,
    dataverse: None,
    transforms: Vec::new(),
    related_set: None,
};

/// Compiles a leg against both schemas. Fails with all problems at once, notices among them.
pub fn compile(input: &PlanInput<'_>) -> Result<MapPlan, Vec<Problem>> {
    let mut compiler = Compiler { input: *input, problems: Vec::new(), unmapped_sets: BTreeSet::new() };
    let plan = compiler.plan();
    let problems = compiler.problems;
    match plan {
        Some(mut plan) if problems.iter().all(|problem| problem.severity == Severity::Notice) => {
            plan.notices = problems;
            Ok(plan)
        }
        _ => Err(problems),
    }
}

struct Compiler<'a> {
    input: PlanInput<'a>,
    problems: Vec<Problem>,
    /// Told once each.
    unmapped_sets: BTreeSet<String>,
}

/// A field mapping with its columns found.
struct Row<'a> {
    mapping: &'a FieldMapping,
    place: String,
    finops: Option<usize>,
    dataverse: Option<End>,
}

/// Where a path on Dataverse leads.
#[derive(Clone)]
struct End {
    /// Column of the mapped table.
    column: usize,
    /// For a lookup: the key column in each table it can lead to.
    targets: Vec<EndTarget>,
}

#[derive(Clone)]
struct EndTarget {
    set: Arc<str>,
    path: Vec<Arc<str>>,
    column: Column,
}

/// The company of a table pair.
struct Company {
    specific: bool,
    /// The lookup on Dataverse that is stamped: column and entity set.
    own: Option<(usize, Arc<str>)>,
    /// Where a Dataverse row names its company: a lookup column and the way to the code.
    name: Option<NameSlot>,
}

impl<'a> Compiler<'a> {
    fn error(&mut self, place: &str, code: &'static str, message: impl Into<String>, remedy: impl Into<String>) {
        self.problems.push(Problem::error(place, message, remedy).foreign(code));
    }

    fn notice(&mut self, place: &str, code: &'static str, message: impl Into<String>, remedy: impl Into<String>) {
        self.problems.push(Problem::notice(place, message, remedy).foreign(code));
    }

    fn plan(&mut self) -> Option<MapPlan> {
        let PlanInput { leg, finops, dataverse, .. } = self.input;
        let rows = leg.fields.iter().filter_map(|mapping| self.row(mapping)).collect::<Vec<_>>();
        let key = self.key(&rows);
        self.check_key_size(&key);
        let company = self.company(&rows);
        self.check_company_is_stamped(&rows);
        self.check_flows();
        let finops_filter = self.filter(SystemKind::Finops, finops, &leg.finops_filter);
        let dataverse_filter = self.filter(SystemKind::Dataverse, dataverse, &leg.dataverse_filter);
        self.check_key(&key, &rows);
        let key_complete = self.check_entity_key(&key, &rows, &company);

        let mut columns = [BTreeSet::from_iter(finops.key.iter().copied()), BTreeSet::new()];
        columns[0].extend(finops.company);
        columns[0].extend(rows.iter().filter_map(|row| row.finops));
        columns[0].extend(finops_filter.columns());
        columns[1].extend(dataverse.primary_id);
        columns[1].extend(rows.iter().filter_map(|row| row.dataverse.as_ref()).map(|end| end.column));
        columns[1].extend(dataverse_filter.columns());
        columns[1].extend(company.own.iter().map(|(column, _)| *column));
        columns[1].extend(company.name.iter().map(|slot| slot.column));

        let goes_to = |target| leg.fields.iter().any(|mapping| mapping.direction.goes_to(target));
        let to_dataverse =
            goes_to(SystemKind::Dataverse).then(|| self.flow_to_dataverse(&rows, &key, &company, finops_filter));
        let to_finops =
            goes_to(SystemKind::Finops).then(|| self.flow_to_finops(&rows, &key, &company, dataverse_filter));
        let [finops_columns, dataverse_columns] = columns.map(|columns| columns.into_iter().collect());
        Some(MapPlan {
            to_dataverse: to_dataverse.flatten(),
            to_finops: to_finops.flatten(),
            company_specific: company.specific,
            key_fields: key.into_iter().map(|(field, _)| field).collect(),
            key_complete,
            finops_columns,
            dataverse_columns,
            notices: Vec::new(),
        })
    }

    // Columns of the rows.

    fn row(&mut self, mapping: &'a FieldMapping) -> Option<Row<'a>> {
        let place = format!("field {mapping}");
        let finops = match &mapping.finops {
            None => None,
            Some(name) => match self.input.finops.index_of(name) {
                Some(index) => Some(index),
                None => {
                    let table = Arc::clone(&self.input.finops.table);
                    let what = format!("finops has no column {name} in {table}");
                    self.error(&place, "DIPV1022", what, "correct the name, or refresh the tables");
                    return None;
                }
            },
        };
        let dataverse = match &mapping.dataverse {
            None => None,
            Some(_) => Some(self.end(mapping, &place)?),
        };
        Some(Row { mapping, place, finops, dataverse })
    }

    /// Follows a path on Dataverse from table to table.
    fn end(&mut self, mapping: &FieldMapping, place: &str) -> Option<End> {
        let path = mapping.dataverse.as_ref()?;
        let dataverse = self.input.dataverse;
        let Some(index) = dataverse.index_of(&path.column) else {
            let what = format!("dataverse has no column {} in {}", path.column, dataverse.table);
            self.error(place, "DIPV1025", what, "correct the name, or refresh the tables");
            return None;
        };
        let column = dataverse.column(index);
        let known = column.lookup.as_ref().map(|lookup| lookup.targets.as_slice()).unwrap_or_default();
        let starts = match &path.reference {
            Reference::None => return Some(End { column: index, targets: Vec::new() }),
            _ if column.kind != Kind::Lookup => {
                let what = format!("{} is a {:?} and leads nowhere", column.name, column.kind);
                self.error(place, "DIPV1030", what, "map the column itself, or name a lookup column");
                return None;
            }
            Reference::Path(steps) => {
                let set = match (&mapping.related_set, known) {
                    (Some(set), []) => Arc::from(set.as_str()),
                    (Some(set), known) => match known.iter().find(|to| to.set.eq_ignore_ascii_case(set)) {
                        Some(to) => Arc::clone(&to.set),
                        None => {
                            let sets = known.iter().map(|to| &*to.set).collect::<Vec<_>>().join(", ");
                            let what = format!("{} leads to {sets}, not to {set}", column.name);
                            self.error(place, "DIPV1020", what, "correct the related entity of the row");
                            return None;
                        }
                    },
                    (None, [only]) => Arc::clone(&only.set),
                    (None, []) => {
                        let what = format!("it is not known which table {} leads to", column.name);
                        self.error(place, "DIPV1020", what, "refresh the tables");
                        return None;
                    }
                    (None, _) => {
                        let what = format!("{} leads to several tables", column.name);
                        self.error(place, "DIPV1020", what, "write lookup.Table(key).Table(key)");
                        return None;
                    }
                };
                vec![(set, steps)]
            }
            Reference::ByTable(tables) => {
                let mut starts = Vec::with_capacity(tables.len());
                for (table, steps) in tables {
                    match known.iter().find(|to| to.table.eq_ignore_ascii_case(table)) {
                        Some(to) => starts.push((Arc::clone(&to.set), steps)),
                        None => {
                            let what = format!("{} does not lead to a table {table}", column.name);
                            self.error(place, "DIPV1020", what, "name the tables that the lookup leads to");
                            return None;
                        }
                    }
                }
                starts
            }
        };
        let mut targets = Vec::with_capacity(starts.len());
        for (set, steps) in starts {
            let (path, column) = self.follow(&set, steps, place)?;
            targets.push(EndTarget { set, path, column });
        }
        Some(End { column: index, targets })
    }

    /// The key column at the end of `steps`, and the steps as the tables spell them.
    fn follow(&mut self, set: &str, steps: &[String], place: &str) -> Option<(Vec<Arc<str>>, Column)> {
        let mut set = Arc::<str>::from(set);
        let mut path = Vec::with_capacity(steps.len());
        for (position, step) in steps.iter().enumerate() {
            let Some(table) = self.table(&set) else {
                self.error(place, "DIPV1020", format!("the table {set} is not known"), "refresh the tables");
                return None;
            };
            let Some(index) = table.index_of(step) else {
                let what = format!("dataverse has no column {step} in {}", table.table);
                self.error(place, "DIPV1025", what, "correct the name, or refresh the tables");
                return None;
            };
            let column = table.column(index);
            path.push(Arc::clone(&column.name));
            if position + 1 == steps.len() {
                if column.kind == Kind::Lookup {
                    let what = format!("{} of {} is itself a lookup", column.name, table.table);
                    self.error(place, "DIPV1015", what, "name the key column behind it");
                    return None;
                }
                return Some((path, column.clone()));
            }
            match column.lookup.as_ref().map(|lookup| lookup.targets.as_slice()) {
                Some([only]) => set = Arc::clone(&only.set),
                _ => {
                    let what = format!("{} of {} does not lead to one table", column.name, table.table);
                    self.error(place, "DIPV1020", what, "name a column that the table has itself");
                    return None;
                }
            }
        }
        None
    }

    fn table(&self, set: &str) -> Option<Arc<Schema>> {
        (self.input.tables)(set)
    }

    // What identifies a row.

    fn is_mapped(rows: &[Row<'_>], path: &str) -> bool {
        rows.iter().any(|row| row.is_path(path))
    }

    /// A path that names a company and is not a mapped field: the company of the row stands for it.
    fn is_company_path(rows: &[Row<'_>], path: &str) -> bool {
        names_company(path) && !Self::is_mapped(rows, path)
    }

    fn key(&mut self, rows: &[Row<'_>]) -> Vec<(KeyField, End)> {
        if self.input.integration_key.is_empty() {
            self.error(
                "integration key",
                "DIPV1003",
                "the map has no integration key",
                "name the Dataverse columns that identify a row",
            );
        }
        let paths = self.input.integration_key.iter().filter(|path| !Self::is_company_path(rows, path));
        let paths = paths.collect::<Vec<_>>();
        let mut fields = Vec::with_capacity(paths.len());
        for path in paths {
            let place = format!("integration key {path}");
            let parsed = match crate::mapping::DataversePath::parse(path) {
                Ok(parsed) => parsed,
                Err(message) => {
                    self.error(&place, "DIPV1003", message, "write a column path, as in a field mapping");
                    continue;
                }
            };
            let row = rows.iter().find(|row| row.is_path(path));
            let end = match row {
                Some(Row { dataverse: Some(end), .. }) => Some(end.clone()),
                _ => {
                    let dataverse = Some(parsed);
                    self.end(&FieldMapping { dataverse, ..UNMAPPED }, &place)
                }
            };
            let Some(end) = end else { continue };
            let column = end.value_column(self.input.dataverse).clone();
            let finops = rows
                .iter()
                .filter(|row| row.is_path(path))
                .find_map(|row| row.finops)
                .map(|index| Arc::clone(&self.input.finops.column(index).name));
            fields.push((KeyField { dataverse: Arc::from(path.as_str()), finops, column }, end));
        }
        fields
    }

    fn check_key(&mut self, key: &[(KeyField, End)], rows: &[Row<'_>]) {
        let directions = self.input.leg.fields.iter().map(|mapping| mapping.direction).collect::<Vec<_>>();
        let any_both = directions.contains(&FieldDirection::Both);
        for (field, _) in key {
            let place = format!("integration key {}", field.dataverse);
            let own = rows.iter().filter(|row| row.is_path(&field.dataverse)).collect::<Vec<_>>();
            let goes_to = |target| own.iter().any(|row| row.mapping.direction.goes_to(target));
            if own.is_empty() {
                // A row that could not be read was reported already; this one may be it.
                let code = if field.dataverse.contains('.') { "DIPV1015" } else { "DIPV1014" };
                self.error(&place, code, "the key column is not mapped", "map it to the key column of the entity");
            } else if any_both && !(goes_to(SystemKind::Dataverse) && goes_to(SystemKind::Finops)) {
                self.error(
                    &place,
                    "DIPV1004",
                    "the key column goes one way only, while other fields go both ways",
                    "map the key column both ways",
                );
            } else if directions.iter().any(|direction| direction.goes_to(SystemKind::Dataverse))
                && !goes_to(SystemKind::Dataverse)
            {
                self.error(
                    &place,
                    "DIPV1014",
                    "the key column does not go to Dataverse, while other fields do",
                    "map the key column in that direction too",
                );
            }
        }
    }

    /// Whether the integration key holds the key of the entity, as it must (reference 1.8, rule 1). Where it does not, two
    /// rows of the entity may have the same integration key, which is refused row by row.
    fn check_entity_key(&mut self, key: &[(KeyField, End)], rows: &[Row<'_>], company: &Company) -> bool {
        let PlanInput { finops, leg, .. } = self.input;
        let held = |index: usize| {
            let name = &finops.column(index).name;
            (company.specific && finops.company == Some(index))
                || key.iter().any(|(field, _)| {
                    field.finops.as_ref() == Some(name)
                        && rows
                            .iter()
                            .filter(|row| row.finops == Some(index) && row.is_path(&field.dataverse))
                            .all(|row| row.mapping.transforms.iter().all(keeps_apart))
                })
        };
        let missing = finops.key.iter().filter(|&&index| !held(index));
        let missing = missing.map(|&index| &*finops.column(index).name).collect::<Vec<_>>().join(", ");
        if missing.is_empty() {
            return true;
        }
        if leg.fields.iter().any(|mapping| mapping.direction.goes_to(SystemKind::Dataverse)) {
            let what = format!(
                "it does not hold all of the key of {}: {missing} is missing or not kept apart, so two of its rows may \
                 have the same integration key, and the second one is a failed record (DW-1009)",
                finops.table
            );
            let remedy =
                "map every key column of the entity as it is, and name its Dataverse column in integration_key";
            self.problems.push(Problem::notice("integration key", what, remedy));
        }
        false
    }

    /// The limits of a key of Dataverse (Microsoft Learn, "Define alternate keys for a table"), and whether it has one.
    fn check_key_size(&mut self, key: &[(KeyField, End)]) {
        const COLUMNS_MAX: usize = 16;
        const BYTES_MAX: u32 = 900;
        let dataverse = self.input.dataverse;
        let mut columns = Vec::<&Column>::new();
        for path in self.input.integration_key {
            let first = path.split('.').next().unwrap_or(path);
            if let Some(column) = dataverse.index_of(first).map(|index| dataverse.column(index))
                && !columns.iter().any(|own| own.name == column.name)
            {
                columns.push(column);
            }
        }
        if columns.len() > COLUMNS_MAX {
            let what = format!("the key has {} columns, and Dataverse takes {COLUMNS_MAX}", columns.len());
            self.error("integration key", "DIPV1003", what, "identify a row by fewer columns");
        }
        // Two bytes a character, 16 for a reference or a number, as the index stores them.
        let bytes_of = |column: &&Column| match column.kind {
            Kind::Text => column.length_max.map(|length| length * 2),
            _ => Some(16),
        };
        let bytes = columns.iter().map(bytes_of).sum::<Option<u32>>();
        if let Some(bytes) = bytes.filter(|bytes| *bytes > BYTES_MAX) {
            let what = format!("the key may be {bytes} bytes long, and an alternate key takes {BYTES_MAX}");
            self.notice("alternate key", "DIPV1003", what, "shorten the text columns of the key on Dataverse");
        }
        let names = columns.iter().map(|column| &column.name).collect::<BTreeSet<_>>();
        let enforced = dataverse.alternate_keys.iter().any(|own| own.columns.iter().collect::<BTreeSet<_>>() == names);
        if !enforced && !key.is_empty() && !columns.iter().any(|column| column.kind == Kind::Guid) {
            let what = format!("no alternate key of {} has the columns of the integration key", dataverse.table);
            let remedy = "define one: Dataverse then refuses a second row with the same key, and finds rows faster";
            self.notice("alternate key", "DIPV1003", what, remedy);
        }
    }

    /// The company of a row is written for it, from `dataAreaId`; a row of the map must not write it too.
    fn check_company_is_stamped(&mut self, rows: &[Row<'_>]) {
        let paths =
            self.input.integration_key.iter().filter(|path| names_company(path) && path.matches('.').count() == 1);
        for path in paths {
            for row in rows.iter().filter(|row| row.is_path(path)) {
                let what = "the company is part of the key and never a mapped field";
                self.error(&row.place, "DIPV1026", what, "delete the row; the company is stamped from dataAreaId");
            }
        }
    }

    /// What the map as a whole does not do.
    fn check_flows(&mut self) {
        let goes_to = |target| self.input.leg.fields.iter().any(|mapping| mapping.direction.goes_to(target));
        if goes_to(SystemKind::Finops) && self.input.dataverse.versioned == Some(false) {
            let what = format!("{} has no versionnumber, so its changes cannot be found", self.input.dataverse.table);
            let remedy = "use a standard table: virtual and elastic tables cannot be read for changes";
            self.error("table", "DIPV1019", what, remedy);
        } else if goes_to(SystemKind::Finops) && self.input.dataverse.tracked == Some(false) {
            let what =
                format!("change tracking is off for {}, so its changes cannot be found", self.input.dataverse.table);
            self.error("table", "DIPV1019", what, "turn on change tracking in the properties of the table");
        }
        if !goes_to(SystemKind::Dataverse) {
            let what = "no field goes to Dataverse, so changes on F&O go nowhere";
            self.notice("fields", "HC500", what, "nothing, if the map is to run one way only");
        }
    }

    fn company(&mut self, rows: &[Row<'_>]) -> Company {
        let PlanInput { finops, dataverse, integration_key, .. } = self.input;
        let paths = integration_key.iter().filter(|path| Self::is_company_path(rows, path)).collect::<Vec<_>>();
        let own_path = paths.iter().find(|path| path.matches('.').count() == 1);
        let own_column = match own_path.and_then(|path| path.split_once('.')) {
            Some((column, _)) => match dataverse.index_of(column) {
                Some(index) => Some(index),
                None => {
                    let what = format!("dataverse has no column {column} in {}", dataverse.table);
                    self.error("integration key", "DIPV1025", what, "correct the key, or refresh the tables");
                    None
                }
            },
            None => dataverse
                .company
                .filter(|&index| !rows.iter().filter_map(|row| row.dataverse.as_ref()).any(|end| end.column == index)),
        };
        let own = own_column.map(|index| (index, company_set(dataverse.column(index))));
        let name = match &own {
            Some((column, set)) => Some(NameSlot {
                column: *column,
                targets: vec![NameTarget { set: Arc::clone(set), path: vec![Arc::from(COMPANY_CODE)] }],
            }),
            None => paths.first().and_then(|path| self.company_behind(path)),
        };
        let on_dataverse = own.is_some() || !paths.is_empty();
        let on_finops = finops.company.is_some();
        // Without a key nothing says whether the Dataverse table belongs to companies.
        if on_dataverse != on_finops && !integration_key.is_empty() {
            let (specific, global) =
                if on_finops { (&finops.table, &dataverse.table) } else { (&dataverse.table, &finops.table) };
            let what = format!("{specific} belongs to companies, {global} does not");
            let remedy = "pair tables that are both global or both of a company; the key of a Dataverse table of a \
                          company holds the company";
            self.error("integration key", "DIPV1002", what, remedy);
        }
        Company { specific: on_dataverse && on_finops, own, name }
    }

    /// The company of a row without one of its own: that of the row it belongs to, as `salesorderid.msdyn_company`.
    fn company_behind(&mut self, path: &str) -> Option<NameSlot> {
        let mut steps = path.split('.');
        let first = steps.next()?;
        let steps = steps.map(str::to_owned).collect::<Vec<_>>();
        let index = self.input.dataverse.index_of(first)?;
        let lookup = self.input.dataverse.column(index).lookup.as_ref()?;
        let set = Arc::clone(&lookup.targets.first()?.set);
        let path = steps.iter().map(|step| Arc::from(step.as_str())).collect();
        Some(NameSlot { column: index, targets: vec![NameTarget { set, path }] })
    }

    fn filter(&mut self, system: SystemKind, schema: &Schema, text: &str) -> Filter {
        Filter::read_with(system, text, schema, self.input.settings.finops_nulls).unwrap_or_else(|error| {
            let problem = Problem::of_filter(system, text, &error);
            let inferred = error.column.is_some_and(|index| schema.column(index).inferred);
            self.problems.push(if inferred { problem.noticed() } else { problem });
            Filter::default()
        })
    }

    // Flows.

    /// One field in one direction; `None` when it cannot work.
    fn field(
        &mut self,
        row: &Row<'_>,
        target: SystemKind,
        source: Option<&Column>,
        read: Read,
        column: &Column,
    ) -> Option<FlowField> {
        // What was done last is taken back first.
        let backwards = row.mapping.direction == FieldDirection::Both && target == SystemKind::Finops;
        let mut transforms = row.mapping.transforms.iter().collect::<Vec<_>>();
        if backwards {
            transforms.reverse();
        }
        let maps = transforms.iter().any(|transform| matches!(transform, Transform::ValueMap { .. }));
        let mut complaints = Vec::new();
        let unmatched = self.input.settings.unmatched;
        let steps = Steps::compile(&transforms, target, source, column, unmatched, &mut complaints);
        let inferred = column.inferred || source.is_some_and(|source| source.inferred);
        let mut add = |code: &'static str, what: String, remedy: &str| {
            let problem = Problem::error(&row.place, what, remedy).foreign(code);
            self.problems.push(if inferred && code == "DIPV1030" { problem.noticed() } else { problem });
        };
        for Complaint { code, what } in complaints {
            add(code, what, "correct the transform");
        }
        if let Some(source) = source
            && !maps
            && !convert::is_compatible(source.kind, column.kind)
        {
            let what = format!("{} is a {:?} and {} is a {:?}", source.name, source.kind, column.name, column.kind);
            add("DIPV1030", what, "map columns of matching types, or add a value map");
            if !inferred {
                return None;
            }
        }
        let dotted = row.mapping.dataverse.as_ref().map(ToString::to_string);
        let in_key = dotted
            .as_deref()
            .is_some_and(|path| self.input.integration_key.iter().any(|key| key.eq_ignore_ascii_case(path)));
        Some(FlowField {
            finops: row.finops.map(|index| self.input.finops.column(index).name.to_string()),
            dataverse: dotted,
            column: column.clone(),
            source: source.cloned(),
            read,
            steps,
            backwards,
            chain: None,
            in_key,
            on_missing: OnMissing::Hold,
        })
    }

    fn check_source(&mut self, row: &Row<'_>, has_source: bool, target: &Column) -> bool {
        let has_default = row.mapping.transforms.iter().any(|transform| matches!(transform, Transform::Default { .. }));
        if !has_source && !has_default {
            let code = if target.required { "DIPV1031" } else { "DIPV1021" };
            self.error(&row.place, code, "there is neither a source column nor a default", "add a Default");
        }
        has_source || has_default
    }

    fn check_writable(&mut self, row: &Row<'_>, column: &Column, system: SystemKind) {
        if column.read_only {
            let what = format!("{} is kept by {system} and cannot be written", column.name);
            self.error(&row.place, "DIPV1011", what, "map the column in the other direction only");
        }
    }

    fn check_injective(&mut self, row: &Row<'_>) {
        if row.mapping.direction != FieldDirection::Both {
            return;
        }
        for transform in &row.mapping.transforms {
            let Transform::ValueMap { pairs, .. } = transform else { continue };
            let twice = ambiguous_values(pairs);
            if !twice.is_empty() {
                let what = format!("the value map goes both ways and lists {} twice", twice.join(", "));
                self.error(&row.place, "DIPV1029", what, "make the values unique, or map the field one way");
            }
        }
    }

    fn flow_to_dataverse(
        &mut self,
        rows: &[Row<'_>],
        key: &[(KeyField, End)],
        company: &Company,
        filter: Filter,
    ) -> Option<Flow> {
        let PlanInput { finops, dataverse, .. } = self.input;
        let mut fields = Vec::new();
        let mut targets = Vec::<usize>::new();
        let mut writes = Vec::<Write>::new();
        // Per lookup column: the row that names its tables, and its parts.
        let mut references = Vec::<(usize, &Row<'_>, Vec<(String, usize)>)>::new();
        let mut key_fields = vec![None; key.len()];
        let mut lookups = Vec::new();
        if let Some((column, set)) = &company.own {
            targets.push(*column);
            writes
                .push(Write { column: dataverse.column(*column).clone(), source: WriteSource::Lookup(lookups.len()) });
            lookups.push(self.company_slot(*column, set));
        }
        for row in rows.iter().filter(|row| row.mapping.direction.goes_to(SystemKind::Dataverse)) {
            let Some(end) = &row.dataverse else {
                self.error(
                    &row.place,
                    "DIPV1024",
                    "there is no column on Dataverse",
                    "name it, or turn the row around",
                );
                continue;
            };
            let own = dataverse.column(end.column);
            if !self.check_source(row, row.finops.is_some(), own) {
                continue;
            }
            self.check_writable(row, own, SystemKind::Dataverse);
            self.check_injective(row);
            let source = row.finops.map(|index| finops.column(index));
            if own.kind == Kind::Lookup
                && end.targets.is_empty()
                && source.is_none_or(|column| column.kind != Kind::Guid)
            {
                let what = format!("{} is a lookup, and no key column is named", own.name);
                self.error(&row.place, "DIPV1027", what, "write lookup.key, naming the key column of the other table");
                continue;
            }
            let read = row.finops.map_or(Read::Constant, Read::Column);
            let column = end.value_column(dataverse);
            let Some(field) = self.field(row, SystemKind::Dataverse, source, read, column) else { continue };
            let position = fields.len();
            for (part, (own_key, _)) in key.iter().enumerate() {
                if row.is_path(&own_key.dataverse) {
                    key_fields[part].get_or_insert(position);
                }
            }
            fields.push(field);
            let path = end.targets.first().map(|target| target.path.join(".")).unwrap_or_default();
            match references.iter_mut().find(|(column, ..)| *column == end.column) {
                Some((_, first, parts))
                    if !end.targets.is_empty()
                        && first.same_tables(row)
                        && !parts.iter().any(|(own, _)| *own == path) =>
                {
                    parts.push((path, position));
                }
                None if !targets.contains(&end.column) => {
                    targets.push(end.column);
                    let source = if end.targets.is_empty() {
                        WriteSource::Fields(vec![position])
                    } else {
                        references.push((end.column, row, vec![(path, position)]));
                        // Filled in when all its parts are known.
                        WriteSource::Lookup(usize::MAX)
                    };
                    writes.push(Write { column: own.clone(), source });
                }
                _ => {
                    let what = format!("{} is written by more than one row", own.name);
                    self.error(&row.place, "DIPV1026", what, "delete all rows but one");
                }
            }
        }
        for (column, row, parts) in references {
            let Some(slot) = self.slot(row, &parts, company) else { continue };
            for (target, write) in targets.iter().zip(&mut writes) {
                if *target == column {
                    write.source = WriteSource::Lookup(lookups.len());
                }
            }
            lookups.push(slot);
        }
        self.check_required(dataverse, &targets);
        let key = key
            .iter()
            .zip(key_fields)
            .filter_map(|((own, end), field)| {
                Some(KeyPart {
                    column: own.column.clone(),
                    source: KeySource::Field(field?),
                    reference: !end.targets.is_empty(),
                })
            })
            .collect();
        let mut address = Vec::<(Arc<str>, AddressSource)>::new();
        for path in self.input.integration_key {
            let first = path.split('.').next().unwrap_or(path);
            let Some(position) =
                targets.iter().position(|&target| dataverse.column(target).name.eq_ignore_ascii_case(first))
            else {
                continue;
            };
            let name = &dataverse.column(targets[position]).name;
            if !address.iter().any(|(own, _)| own == name) {
                address.push((Arc::clone(name), AddressSource::Written(position)));
            }
        }
        let currency = fields
            .iter()
            .position(|field| field.dataverse.as_ref().is_some_and(|path| path.eq_ignore_ascii_case(CURRENCY_CODE)));
        Some(Flow {
            target: SystemKind::Dataverse,
            fields,
            target_columns: targets,
            lookups,
            names: Vec::new(),
            filter,
            company_specific: company.specific,
            company: finops.company.filter(|_| company.specific).map(Read::Column),
            key,
            writes,
            address,
            address_in_key: None,
            currency,
        })
    }

    /// The lookup to the company, stamped from `dataAreaId`.
    fn company_slot(&self, column: usize, set: &Arc<str>) -> LookupSlot {
        let key = (self.input.key_of_set)(set);
        LookupSlot {
            column,
            sets: vec![Arc::clone(set)],
            complete: key.is_some_and(|key| matches!(key.as_slice(), [only] if only == COMPANY_CODE)),
            missing: Missing::Hold,
            late: false,
            name: Arc::clone(&self.input.dataverse.column(column).name),
            default: None,
            keys: vec![SlotKey {
                columns: Arc::from([Arc::from(COMPANY_CODE)]),
                parts: vec![SlotPart { source: PartSource::Company, is_company: false }],
            }],
        }
    }

    /// One lookup column with all its parts.
    fn slot(&mut self, row: &Row<'_>, parts: &[(String, usize)], company: &Company) -> Option<LookupSlot> {
        let end = row.dataverse.as_ref()?;
        let mut slot = LookupSlot {
            column: end.column,
            sets: Vec::with_capacity(end.targets.len()),
            complete: true,
            missing: Missing::Hold,
            late: false,
            name: Arc::clone(&self.input.dataverse.column(end.column).name),
            default: None,
            keys: Vec::with_capacity(end.targets.len()),
        };
        for target in &end.targets {
            let renamed;
            let parts = if end.targets.len() == 1 {
                parts
            } else {
                // Each table has its own key column, filled from the one field.
                renamed = [(target.path.join("."), parts.first()?.1)];
                &renamed
            };
            let (key, complete) = self.slot_key(row, &target.set, parts, company)?;
            slot.complete &= complete;
            slot.sets.push(Arc::clone(&target.set));
            slot.keys.push(key);
        }
        Some(slot)
    }

    /// The key of the referenced table, put together from what the rows supply and the company.
    fn slot_key(
        &mut self,
        row: &Row<'_>,
        set: &Arc<str>,
        parts: &[(String, usize)],
        company: &Company,
    ) -> Option<(SlotKey, bool)> {
        let table = self.table(set)?;
        let key = if **set == *self.input.dataverse.set {
            Some(self.input.integration_key.to_vec())
        } else {
            (self.input.key_of_set)(set)
        };
        let part = |path: &str| {
            let own = parts.iter().find(|(own, _)| own.eq_ignore_ascii_case(path));
            let is_company = names_company(path);
            let source = match own {
                Some((_, field)) => PartSource::Field(*field),
                None if is_company && company.specific => PartSource::Company,
                None => return None,
            };
            Some(SlotPart { source, is_company })
        };
        let slot_key = |paths: &[String]| {
            let parts = paths.iter().map(|path| part(path)).collect::<Option<Vec<_>>>()?;
            Some(SlotKey { columns: paths.iter().map(|path| Arc::from(path.as_str())).collect(), parts })
        };
        if let Some(slot_key) = key.as_deref().and_then(slot_key) {
            return Some((slot_key, true));
        }
        let by_alternate_key = table.alternate_keys.iter().find_map(|alternate| {
            let mut paths = Vec::new();
            for column in &alternate.columns {
                let behind = format!("{column}.");
                let company_code = format!("{column}.{COMPANY_CODE}");
                let own = parts
                    .iter()
                    .map(|(path, _)| path)
                    .filter(|path| path.eq_ignore_ascii_case(column) || path.to_lowercase().starts_with(&behind));
                let before = paths.len();
                paths.extend(own.cloned());
                if paths.len() == before {
                    let company = table.company.map(|index| &table.column(index).name);
                    if company != Some(column) {
                        return None;
                    }
                    part(&company_code)?;
                    paths.push(company_code);
                }
            }
            slot_key(&paths)
        });
        let Some(key) = key else {
            if **set != *COMPANY_SET && self.unmapped_sets.insert(set.to_string()) {
                self.problems.push(Problem::notice(
                    &row.place,
                    format!("no map writes {set}"),
                    "make sure that its rows are there, or add the map that writes it",
                ));
            }
            let mut paths = parts.iter().map(|(path, _)| path.clone()).collect::<Vec<_>>();
            if let Some(company) = table.company {
                let path = format!("{}.{COMPANY_CODE}", table.column(company).name);
                if part(&path).is_some() && !paths.contains(&path) {
                    paths.push(path);
                }
            }
            return by_alternate_key.or_else(|| slot_key(&paths)).map(|key| (key, false));
        };
        if by_alternate_key.is_none() && self.input.integration_key.is_empty() {
            // Whether the own company is there to fill the gap is not known either, and the missing key was told.
            return None;
        }
        if by_alternate_key.is_none() {
            let missing = key.iter().filter(|path| part(path).is_none()).map(String::as_str).collect::<Vec<_>>();
            let what = format!("the key of {set} is not covered: {} is missing", missing.join(", "));
            let remedy = "map every key column of the referenced table, each with a row of its own behind the lookup";
            self.error(&row.place, "DIPV1027", what, remedy);
        }
        by_alternate_key.map(|key| (key, false))
    }

    fn flow_to_finops(
        &mut self,
        rows: &[Row<'_>],
        key: &[(KeyField, End)],
        company: &Company,
        filter: Filter,
    ) -> Option<Flow> {
        let PlanInput { finops, dataverse, .. } = self.input;
        let mut fields = Vec::<FlowField>::new();
        let mut targets = Vec::<usize>::new();
        let mut writes = Vec::<Write>::new();
        let mut names = Vec::<NameSlot>::new();
        // Which row wrote a target column first.
        let mut writers = Vec::<Option<&Row<'_>>>::new();
        if let Some(column) = finops.company.filter(|_| company.specific) {
            targets.push(column);
            writers.push(None);
            writes.push(Write { column: finops.column(column).clone(), source: WriteSource::Company });
        }
        for row in rows.iter().filter(|row| row.mapping.direction.goes_to(SystemKind::Finops)) {
            let Some(index) = row.finops else {
                self.error(&row.place, "DIPV1024", "there is no column on F&O", "name it, or turn the row around");
                continue;
            };
            let column = finops.column(index);
            if !self.check_source(row, row.dataverse.is_some(), column) {
                continue;
            }
            self.check_writable(row, column, SystemKind::Finops);
            if let Some(end) = &row.dataverse
                && end.targets.is_empty()
                && dataverse.column(end.column).kind == Kind::Lookup
                && column.kind != Kind::Guid
            {
                let what = format!("{} is a lookup, and no key column is named", dataverse.column(end.column).name);
                self.error(&row.place, "DIPV1028", what, "write lookup.key, naming the key column of the other table");
                continue;
            }
            if row.mapping.direction == FieldDirection::ToFinops {
                self.check_injective(row);
            }
            let read = match &row.dataverse {
                None => Read::Constant,
                Some(end) => read_of(end, &mut names),
            };
            let source = row.dataverse.as_ref().map(|end| end.value_column(dataverse));
            let Some(field) = self.field(row, SystemKind::Finops, source, read, column) else { continue };
            let position = fields.len();
            fields.push(field);
            let Some(written) = targets.iter().position(|&target| target == index) else {
                targets.push(index);
                writers.push(Some(row));
                writes.push(Write { column: column.clone(), source: WriteSource::Fields(vec![position]) });
                continue;
            };
            let both_ways = |row: &Row<'_>| row.mapping.direction == FieldDirection::Both;
            match (&mut writes[written].source, writers[written]) {
                (WriteSource::Fields(own), Some(first)) if both_ways(first) && both_ways(row) => {
                    own.push(position);
                    let what = format!("{} is mapped both ways by more than one row", column.name);
                    let remedy = format!("the first one that has a value counts: {}", first.mapping);
                    self.problems.push(Problem::notice(&row.place, what, remedy).foreign("DIPV1023"));
                }
                (WriteSource::Company, _) => {
                    let what = format!("{} is the company and is stamped", column.name);
                    self.error(&row.place, "DIPV1026", what, "delete the row");
                }
                _ => {
                    let what = format!("{} is written by more than one row", column.name);
                    self.error(&row.place, "DIPV1026", what, "delete all rows but one");
                }
            }
        }
        self.check_required(finops, &targets);
        let parts = key
            .iter()
            .map(|(own, end)| KeyPart {
                column: own.column.clone(),
                source: KeySource::Read(read_of(end, &mut names)),
                reference: !end.targets.is_empty(),
            })
            .collect();
        let company_read = company
            .name
            .as_ref()
            .filter(|_| company.specific)
            .map(|slot| Read::Name(name_position(&mut names, slot.clone())));
        let address = self.finops_address(key, company, &targets);
        let address_in_key = address
            .iter()
            .map(|(name, source)| {
                let source = match source {
                    AddressSource::Company => KeyAddressSource::Company,
                    AddressSource::Written(_) => {
                        let is_it = |(own, _): &(KeyField, End)| own.finops.as_deref() == Some(name);
                        let part = key.iter().position(is_it)?;
                        let field = fields.iter().position(|field| {
                            *field.column.name == **name
                                && field
                                    .dataverse
                                    .as_deref()
                                    .is_some_and(|path| path.eq_ignore_ascii_case(&key[part].0.dataverse))
                        })?;
                        KeyAddressSource::Part { part, dataverse: key[part].0.column.clone(), field }
                    }
                };
                Some(KeyAddress { name: Arc::clone(name), source })
            })
            .collect();
        Some(Flow {
            target: SystemKind::Finops,
            fields,
            target_columns: targets,
            lookups: Vec::new(),
            names,
            filter,
            company_specific: company.specific,
            company: company_read,
            key: parts,
            writes,
            address,
            address_in_key,
            currency: None,
        })
    }

    /// The key of the entity; where the schema does not say it, the F&O columns of the integration key.
    fn finops_address(
        &mut self,
        key: &[(KeyField, End)],
        company: &Company,
        targets: &[usize],
    ) -> Vec<(Arc<str>, AddressSource)> {
        let finops = self.input.finops;
        let columns = if finops.key.is_empty() {
            let fields = key.iter().filter_map(|(field, _)| finops.index_of(field.finops.as_ref()?));
            finops.company.into_iter().chain(fields).collect::<Vec<_>>()
        } else {
            finops.key.clone()
        };
        let mut address = Vec::with_capacity(columns.len());
        for index in columns {
            let name = &finops.column(index).name;
            if finops.company == Some(index) && company.specific {
                address.push((Arc::clone(name), AddressSource::Company));
            } else if let Some(position) = targets.iter().position(|&target| target == index) {
                address.push((Arc::clone(name), AddressSource::Written(position)));
            } else if !self.input.integration_key.is_empty() {
                let what = format!("the key column {name} of {} is not written", finops.table);
                self.error("integration key", "DIPV1014", what, "map the key column to F&O, or map one way only");
            }
        }
        address
    }

    fn check_required(&mut self, schema: &Schema, targets: &[usize]) {
        for (index, column) in schema.columns().iter().enumerate() {
            let filled = targets.contains(&index)
                || schema.primary_id == Some(index)
                || schema.company == Some(index)
                // An unmapped key column is reported with the key.
                || schema.key.contains(&index)
                || (schema.system == SystemKind::Dataverse && FILLED_BY_DATAVERSE.contains(&&*column.name));
            if !column.required || column.read_only || filled {
                continue;
            }
            let place = format!("column {} of {}", column.name, schema.table);
            let what = format!("{} requires the column, and no row gives it a value", schema.system);
            let remedy = "map it, or add a row from none with a Default";
            self.problems.push(match schema.system {
                SystemKind::Finops => Problem::error(place, what, remedy).foreign("DIPV1010"),
                // Dataverse calls columns required that it numbers or presets itself, and does not say which.
                SystemKind::Dataverse => Problem::notice(place, what, remedy).foreign("DIPV1010"),
            });
        }
    }
}

impl Row<'_> {
    fn is_path(&self, path: &str) -> bool {
        self.mapping.dataverse.as_ref().is_some_and(|own| own.to_string().eq_ignore_ascii_case(path))
    }

    fn same_tables(&self, other: &Self) -> bool {
        match (&self.dataverse, &other.dataverse) {
            (Some(own), Some(other)) => {
                own.targets.len() == 1 && other.targets.len() == 1 && own.targets[0].set == other.targets[0].set
            }
            _ => false,
        }
    }
}

impl End {
    /// The column that holds the value: the own one, or the key column behind a lookup.
    fn value_column<'s>(&'s self, dataverse: &'s Schema) -> &'s Column {
        self.targets.first().map_or_else(|| dataverse.column(self.column), |target| &target.column)
    }
}

/// Whether two different values are still two different values after this transform. A key has no empty part that a
/// default could fill.
fn keeps_apart(transform: &Transform) -> bool {
    match transform {
        Transform::Default { .. } => true,
        Transform::ValueMap { pairs, default } => default.is_none() && ambiguous_values(pairs).is_empty(),
        Transform::Truncate { .. } => false,
    }
}

/// `msdyn_company.cdm_companycode`, by whatever name the lookup goes.
fn names_company(path: &str) -> bool {
    path.rsplit_once('.').is_some_and(|(_, last)| last.eq_ignore_ascii_case(COMPANY_CODE))
}

fn company_set(column: &Column) -> Arc<str> {
    let target = column.lookup.as_ref().and_then(|lookup| lookup.targets.first());
    target.map_or_else(|| Arc::from(COMPANY_SET), |target| Arc::clone(&target.set))
}

fn read_of(end: &End, names: &mut Vec<NameSlot>) -> Read {
    if end.targets.is_empty() {
        return Read::Column(end.column);
    }
    let targets = end
        .targets
        .iter()
        .map(|target| NameTarget { set: Arc::clone(&target.set), path: target.path.clone() })
        .collect();
    Read::Name(name_position(names, NameSlot { column: end.column, targets }))
}

fn name_position(names: &mut Vec<NameSlot>, slot: NameSlot) -> usize {
    names.iter().position(|own| *own == slot).unwrap_or_else(|| {
        names.push(slot);
        names.len() - 1
    })
}

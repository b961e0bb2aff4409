//! A script of edits on both sides, the same on every run: at least one row in twenty of every map is created, changed or
//! deleted on F&O, and as many on Dataverse where the map leads both ways.
//!
//! Owns the choice of rows. No row is edited on both sides, nothing that stays refers to something that goes, and new rows
//! refer only to rows that stay. An edit is a request to its system once [`Ids`] knows the Dataverse rows. The change sets
//! of a side are to be sent in their order; each is one transaction of at most [`CHANGE_SET_EDITS_MAX`] edits: whole new
//! customers and vendors with party, address, e-mail and phone, then changes, then deletes, children first.

use std::collections::{BTreeMap, HashMap, HashSet};

use dualwright_core::SystemKind;
use dualwright_emulator::{ColumnKind, TableDefinition};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use rust_decimal::Decimal;
use serde_json::Value;
use uuid::Uuid;

use super::dataverse::{Ids, Missing, RowName, Translation};
use super::maps::{DemoMap, by_dataverse_set};
use super::rows::{Build, FOR_EVER, shortened};
use super::tables::{Tables, column, finops_empty};
use super::{DataSource, DemoError, FinopsSet, Row, bad_rows};

/// Far below what a change set takes; small enough that one transaction is a moment's work.
pub const CHANGE_SET_EDITS_MAX: usize = 100;

/// One row in so many is edited on each side.
const ROWS_PER_EDIT: usize = 20;

/// Ids of rows that the edits create on Dataverse follow from their names.
const NAMESPACE: Uuid = Uuid::from_u128(0x6475_616c_7772_5967_8874_6465_6d6f_0001);

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum EditOperation {
    Create,
    Update,
    Delete,
}

/// One row that somebody creates, changes or deletes.
#[derive(Debug, Clone)]
pub struct Edit {
    pub system: SystemKind,
    /// Slug of the map that carries it over.
    pub map: &'static str,
    pub operation: EditOperation,
    /// Public collection or entity set.
    pub set: String,
    /// Which row, for Dataverse.
    pub name: Option<RowName>,
    /// Which row, for F&O: key properties as URL literals.
    pub key: Vec<(String, String)>,
    /// The whole row or what changes, as its system spells it.
    pub body: Row,
    /// Lookups to set, by navigation property (Dataverse); `None` empties one.
    pub binds: Vec<(String, Option<RowName>)>,
}

/// Edits that are to be applied together.
#[derive(Debug, Clone)]
pub struct ChangeSet {
    pub edits: Vec<Edit>,
}

/// The whole script.
#[derive(Debug, Clone)]
pub struct Edits {
    pub finops: Vec<ChangeSet>,
    pub dataverse: Vec<ChangeSet>,
}

impl Edits {
    #[must_use]
    pub fn of(&self, system: SystemKind) -> &[ChangeSet] {
        match system {
            SystemKind::Finops => &self.finops,
            SystemKind::Dataverse => &self.dataverse,
        }
    }

    /// How many edits of each kind a side has, by map.
    #[must_use]
    pub fn counts(&self, system: SystemKind) -> BTreeMap<(&'static str, EditOperation), usize> {
        let mut counts = BTreeMap::new();
        for edit in self.of(system).iter().flat_map(|set| &set.edits) {
            *counts.entry((edit.map, edit.operation)).or_default() += 1;
        }
        counts
    }
}

/// An edit as an HTTP request, or as one part of a change set.
#[derive(Debug, Clone, PartialEq)]
pub struct EditRequest {
    pub method: &'static str,
    /// From the root of the server.
    pub url: String,
    /// `If-Match` of a change, so that it never becomes a create.
    pub if_match: Option<&'static str>,
    pub body: Option<Row>,
}

impl Edit {
    /// The request. Fails for a Dataverse row that `ids` does not know.
    pub fn request(&self, ids: &Ids) -> Result<EditRequest, Missing> {
        let (row, suffix) = match &self.name {
            None => (self.finops_url(), "?cross-company=true"),
            Some(name) if self.operation == EditOperation::Create => {
                debug_assert!(name.id.is_some(), "a new row brings its id");
                (String::new(), "")
            }
            Some(name) => (format!("/api/data/v9.2/{}({})", self.set, ids.id_of(name)?), ""),
        };
        let mut body = self.body.clone();
        for (property, target) in &self.binds {
            let value = match target {
                None => Value::Null,
                Some(target) => Value::from(format!("/{}({})", target.set, ids.id_of(target)?)),
            };
            body.insert(format!("{property}@odata.bind"), value);
        }
        Ok(match self.operation {
            EditOperation::Create => EditRequest {
                method: "POST",
                url: match self.system {
                    SystemKind::Finops => format!("/data/{}{suffix}", self.set),
                    SystemKind::Dataverse => format!("/api/data/v9.2/{}", self.set),
                },
                if_match: None,
                body: Some(body),
            },
            EditOperation::Update => {
                EditRequest { method: "PATCH", url: format!("{row}{suffix}"), if_match: Some("*"), body: Some(body) }
            }
            EditOperation::Delete => {
                EditRequest { method: "DELETE", url: format!("{row}{suffix}"), if_match: None, body: None }
            }
        })
    }

    fn finops_url(&self) -> String {
        const SET: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~').remove(b'\'');
        let key = self.key.iter().map(|(name, literal)| format!("{name}={}", utf8_percent_encode(literal, SET)));
        format!("/data/{}({})", self.set, key.collect::<Vec<_>>().join(","))
    }
}

/// SplitMix64: small, good enough to shuffle, and the same everywhere.
struct Random(u64);

impl Random {
    const fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % bound.max(1) as u64).unwrap_or_default()
    }

    fn shuffle<T>(&mut self, list: &mut [T]) {
        for at in (1..list.len()).rev() {
            list.swap(at, self.below(at + 1));
        }
    }
}

/// A row: position of its set, and its position in that.
type Place = (usize, usize);

/// How many edits of a map a side is to make.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Quota {
    total: usize,
    creates: usize,
    deletes: usize,
}

impl Quota {
    fn of(rows: usize) -> Self {
        let total = rows.div_ceil(ROWS_PER_EDIT).max(3);
        Self { total, creates: (total / 5).max(1), deletes: (total / 5).max(1) }
    }
}

/// Rows that are edited together, as edits of one side, in the order in which they have to be applied.
type Unit = Vec<Edit>;

/// What one side does.
#[derive(Default)]
struct Script {
    creates: Vec<Unit>,
    updates: Vec<Unit>,
    deletes: Vec<Unit>,
    /// Creates and deletes by map.
    made: HashMap<&'static str, usize>,
}

impl Script {
    fn note(&mut self, unit: &[Edit]) {
        for edit in unit {
            *self.made.entry(edit.map).or_default() += 1;
        }
    }

    fn create(&mut self, unit: Unit) {
        self.note(&unit);
        self.creates.push(unit);
    }

    fn delete(&mut self, unit: Unit) {
        self.note(&unit);
        self.deletes.push(unit);
    }

    /// Units packed into change sets: few whole customers each, as many single rows as fit.
    fn packed(self) -> Vec<ChangeSet> {
        const WHOLE_UNITS_MAX: usize = 10;
        let mut sets = Vec::new();
        for units in [self.creates, self.updates, self.deletes] {
            let (mut edits, mut whole) = (Vec::new(), 0);
            for unit in units {
                let is_whole = unit.len() > 1;
                if edits.len() + unit.len() > CHANGE_SET_EDITS_MAX || (is_whole && whole == WHOLE_UNITS_MAX) {
                    sets.push(ChangeSet { edits: std::mem::take(&mut edits) });
                    whole = 0;
                }
                whole += usize::from(is_whole);
                edits.extend(unit);
            }
            if !edits.is_empty() {
                sets.push(ChangeSet { edits });
            }
        }
        sets
    }
}

struct Planner<'a> {
    tables: &'a Tables,
    maps: &'a [DemoMap],
    sets: &'a [FinopsSet],
    /// Rows by set and key.
    index: HashMap<(usize, String), usize>,
    /// How many rows refer to a row.
    referenced: HashMap<Place, usize>,
    /// Customers and vendors, links and contacts by party number; histories and links by location.
    users_of_party: HashMap<String, Vec<Place>>,
    rows_of_party: HashMap<String, Vec<Place>>,
    rows_of_location: HashMap<String, Vec<Place>>,
    /// Rows that an edit concerns already, or that bad rows lean on.
    taken: HashSet<Place>,
    gone: HashSet<Place>,
    random: Random,
}

/// Plans the script of a data set.
pub(super) fn plan(source: &DataSource) -> Result<Edits, DemoError> {
    let sets = source.good_rows();
    let mut planner = Planner::new(source, &sets);
    for (set, key) in bad_rows::leaned_on(&sets) {
        if let Some(place) = planner.find(set, &key) {
            planner.taken.insert(place);
        }
    }
    let mut scripts = [(SystemKind::Finops, Script::default()), (SystemKind::Dataverse, Script::default())];
    // Deletes first, for both sides: what is to go must not be chosen for anything else.
    for (system, script) in &mut scripts {
        planner.deletes(*system, script);
    }
    for (system, script) in &mut scripts {
        planner.creates(*system, script)?;
    }
    for (system, script) in &mut scripts {
        planner.updates(*system, script)?;
    }
    let [(_, finops), (_, dataverse)] = scripts;
    Ok(Edits { finops: finops.packed(), dataverse: dataverse.packed() })
}

fn text<'r>(row: &'r Row, name: &str) -> &'r str {
    row.get(name).and_then(Value::as_str).unwrap_or_default()
}

fn joined(parts: &[String]) -> String {
    parts.iter().map(|part| part.to_lowercase()).collect::<Vec<_>>().join("\u{1f}")
}

impl<'a> Planner<'a> {
    fn new(source: &'a DataSource, sets: &'a [FinopsSet]) -> Self {
        let tables = source.tables();
        let mut index = HashMap::new();
        for (at, set) in sets.iter().enumerate() {
            let Some(table) = tables.finops_table(set.set) else { continue };
            for (position, row) in set.rows.iter().enumerate() {
                let key = table.key.iter().map(|name| text(row, name).to_owned()).collect::<Vec<_>>();
                index.insert((at, joined(&key)), position);
            }
        }
        let mut planner = Self {
            tables,
            maps: source.maps(),
            sets,
            index,
            referenced: HashMap::new(),
            users_of_party: HashMap::new(),
            rows_of_party: HashMap::new(),
            rows_of_location: HashMap::new(),
            taken: HashSet::new(),
            gone: HashSet::new(),
            random: Random(0x0d0a_1c0d_e5ee_d001),
        };
        planner.note_references();
        planner
    }

    fn note_references(&mut self) {
        let maps = by_dataverse_set(self.maps);
        let mut referenced: HashMap<Place, usize> = HashMap::new();
        for map in self.maps {
            let Some(at) = self.set_index(map.facts.finops_collection) else { continue };
            let Some(table) = self.tables.finops_table(map.facts.finops_collection) else { continue };
            // By the real name of the property, and the collection that it leads to.
            let lookups = map
                .lookups()
                .filter_map(|(finops, set)| {
                    Some((column(table, finops)?.name.as_str(), maps.get(set)?.facts.finops_collection))
                })
                .collect::<Vec<_>>();
            for row in self.sets[at].rows.iter().filter(|row| map.takes(row)) {
                for (name, collection) in &lookups {
                    if let Some(place) = self.referred(row, text(row, name), collection) {
                        *referenced.entry(place).or_default() += 1;
                    }
                }
            }
        }
        self.referenced = referenced;
        self.users_of_party = self.grouped(&[("CustomersV3", "PartyNumber"), ("VendorsV2", "VendorPartyNumber")]);
        self.rows_of_party =
            self.grouped(&[("PartyContactsV3", "PartyNumber"), ("CDSPartyPostalAddressLocations", "PartyNumber")]);
        self.rows_of_location = self.grouped(&[
            ("CDSPartyPostalAddressLocations", "LocationId"),
            ("CDSPostalAddressHistoriesV2", "LocationId"),
        ]);
    }

    /// Rows of these sets by the value of one property.
    fn grouped(&self, properties: &[(&str, &str)]) -> HashMap<String, Vec<Place>> {
        let mut groups: HashMap<String, Vec<Place>> = HashMap::new();
        for (set, property) in properties {
            let Some(at) = self.set_index(set) else { continue };
            for (position, row) in self.sets[at].rows.iter().enumerate() {
                groups.entry(text(row, property).to_owned()).or_default().push((at, position));
            }
        }
        groups
    }

    fn set_index(&self, set: &str) -> Option<usize> {
        self.sets.iter().position(|own| own.set == set)
    }

    fn find(&self, set: &str, key: &[String]) -> Option<Place> {
        let at = self.set_index(set)?;
        Some((at, *self.index.get(&(at, joined(key)))?))
    }

    /// The row that `row` refers to by one value, in its own company where that table has companies.
    fn referred(&self, row: &Row, value: &str, collection: &str) -> Option<Place> {
        if value.is_empty() {
            return None;
        }
        let table = self.tables.finops_table(collection)?;
        let has_company = table.key.iter().any(|name| name == "dataAreaId");
        let company = has_company.then(|| text(row, "dataAreaId").to_owned());
        let key = company.into_iter().chain([value.to_owned()]).collect::<Vec<_>>();
        self.find(collection, &key)
    }

    fn row(&self, place: Place) -> &'a Row {
        &self.sets[place.0].rows[place.1]
    }

    fn map(&self, slug: &str) -> Option<&'a DemoMap> {
        self.maps.iter().find(|map| map.facts.slug == slug)
    }

    fn is_free(&self, place: Place) -> bool {
        !self.taken.contains(&place)
    }

    /// Untouched rows that a map takes, in random order.
    fn candidates(&mut self, slug: &str) -> Vec<Place> {
        let Some(map) = self.map(slug) else { return Vec::new() };
        let Some(at) = self.set_index(map.facts.finops_collection) else { return Vec::new() };
        let mut places = (0..self.sets[at].rows.len())
            .map(|position| (at, position))
            .filter(|place| self.is_free(*place) && map.takes(self.row(*place)))
            .collect::<Vec<_>>();
        self.random.shuffle(&mut places);
        places
    }

    fn quota(&self, slug: &str) -> Quota {
        let rows = self.map(slug).and_then(|map| {
            let at = self.set_index(map.facts.finops_collection)?;
            Some(self.sets[at].rows.iter().filter(|row| map.takes(row)).count())
        });
        Quota::of(rows.unwrap_or_default())
    }

    /// Maps whose rows a side may edit.
    fn is_edited(&self, slug: &str, system: SystemKind) -> bool {
        system == SystemKind::Finops || self.map(slug).is_some_and(|map| map.facts.both_ways)
    }

    // Deletes

    fn deletes(&mut self, system: SystemKind, script: &mut Script) {
        for slug in ["customers-contacts", "customers-accounts", "vendors"] {
            let wanted = self.quota(slug).deletes;
            let mut made = 0;
            for place in self.candidates(slug) {
                if made == wanted {
                    break;
                }
                if self.referenced.contains_key(&place) {
                    continue;
                }
                if let Some(places) = self.closure(place) {
                    self.give_up(&places);
                    let unit = places.iter().filter_map(|place| self.delete_of(system, *place)).collect::<Vec<_>>();
                    script.delete(unit);
                    made += 1;
                }
            }
        }
        if system == SystemKind::Finops {
            self.delete_products(script);
        }
        // Leaves beyond those that went with their customers.
        for slug in [
            "party-contacts",
            "party-postal-addresses",
            "postal-addresses",
            "vendor-groups",
            "customer-groups",
            "currencies",
            "units",
        ] {
            if !self.is_edited(slug, system) {
                continue;
            }
            let wanted = self.quota(slug).deletes;
            let mut made = script.deletes.iter().flatten().filter(|edit| edit.map == slug).count();
            for place in self.candidates(slug) {
                if made >= wanted {
                    break;
                }
                if self.referenced.contains_key(&place) {
                    continue;
                }
                self.give_up(&[place]);
                if let Some(edit) = self.delete_of(system, place) {
                    script.delete(vec![edit]);
                    made += 1;
                }
            }
        }
    }

    fn give_up(&mut self, places: &[Place]) {
        self.taken.extend(places);
        self.gone.extend(places);
    }

    /// A customer or vendor with its party, addresses and contacts, children first; only itself where others share its
    /// party. `None` when a part of it is taken.
    fn closure(&self, place: Place) -> Option<Vec<Place>> {
        let row = self.row(place);
        let party =
            [text(row, "PartyNumber"), text(row, "VendorPartyNumber")].into_iter().find(|own| !own.is_empty())?;
        let mut places = vec![place];
        let party_place = self.find("CDSParties", &[party.to_owned()])?;
        if self.users_of_party.get(party).is_some_and(|users| users.len() > 1) || !self.is_free(party_place) {
            return Some(places);
        }
        let own = self.rows_of_party.get(party).cloned().unwrap_or_default();
        places.extend(&own);
        let links = self.set_index("CDSPartyPostalAddressLocations")?;
        let mut locations = Vec::new();
        for link in own.iter().filter(|own| own.0 == links) {
            let location = text(self.row(*link), "LocationId");
            let users = self.rows_of_location.get(location).map(Vec::as_slice).unwrap_or_default();
            let is_shared = users.iter().any(|user| user.0 == links && !own.contains(user));
            if is_shared {
                continue;
            }
            places.extend(users.iter().filter(|user| user.0 != links));
            locations.push(self.find("CDSPostalAddressLocations", &[location.to_owned()])?);
        }
        places.extend(locations);
        places.push(party_place);
        places.iter().all(|place| self.is_free(*place)).then_some(places)
    }

    /// Products with the rows of all companies.
    fn delete_products(&mut self, script: &mut Script) {
        let Some(released) = self.set_index("ReleasedProductsV2") else { return };
        let mut releases: HashMap<&str, Vec<Place>> = HashMap::new();
        for (position, row) in self.sets[released].rows.iter().enumerate() {
            releases.entry(text(row, "ProductNumber")).or_default().push((released, position));
        }
        let wanted = self.quota("products").deletes;
        let mut made = 0;
        for place in self.candidates("products") {
            if made == wanted {
                break;
            }
            let own = releases.get(text(self.row(place), "ProductNumber")).cloned().unwrap_or_default();
            if own.iter().any(|release| self.referenced.contains_key(release) || !self.is_free(*release)) {
                continue;
            }
            let places = own.into_iter().chain([place]).collect::<Vec<_>>();
            self.give_up(&places);
            let unit = places.iter().filter_map(|place| self.delete_of(SystemKind::Finops, *place)).collect::<Vec<_>>();
            script.delete(unit);
            made += 1;
        }
    }

    fn delete_of(&self, system: SystemKind, place: Place) -> Option<Edit> {
        let row = self.row(place);
        let map =
            self.maps.iter().find(|map| map.facts.finops_collection == self.sets[place.0].set && map.takes(row))?;
        self.edit(system, map, EditOperation::Delete, row, &Row::new())
    }

    // Creates

    fn creates(&mut self, system: SystemKind, script: &mut Script) -> Result<(), DemoError> {
        let mut number = 0;
        for slug in ["vendors", "customers-accounts", "customers-contacts"] {
            for _ in 0..self.quota(slug).creates {
                number += 1;
                let rows = self.new_customer(system, slug, number);
                script.create(self.creation(system, rows)?);
            }
        }
        for slug in ["currencies", "customer-groups", "vendor-groups", "units", "products"] {
            if !self.is_edited(slug, system) {
                continue;
            }
            for number in 1..=self.quota(slug).creates {
                let rows = self.new_single(system, slug, number);
                script.create(self.creation(system, rows)?);
            }
        }
        Ok(())
    }

    fn creation(&self, system: SystemKind, rows: Vec<(&'static str, Row)>) -> Result<Unit, DemoError> {
        let mut created: HashSet<RowName> = HashSet::new();
        let mut unit = Vec::with_capacity(rows.len());
        for (slug, row) in rows {
            let mut edit = self
                .map(slug)
                .and_then(|map| self.edit(system, map, EditOperation::Create, &row, &row))
                .ok_or_else(|| self.broken(slug))?;
            // Rows of the same unit are named by the ids that they are given here.
            let known = |name: &mut RowName| {
                if created.contains(name) {
                    name.id = Some(id_of_new(name));
                }
            };
            for (_, target) in &mut edit.binds {
                if let Some(target) = target {
                    known(target);
                }
            }
            if let Some(name) = &mut edit.name {
                created.insert(name.clone());
                let id = id_of_new(name);
                name.id = Some(id);
                if let Some(table) = self.tables.dataverse_table(&name.set) {
                    let property = table.primary_id.clone().unwrap_or_else(|| format!("{}id", table.name));
                    edit.body.insert(property, Value::from(id.to_string()));
                }
            }
            unit.push(edit);
        }
        Ok(unit)
    }

    /// A company and, in it, a group that stays and the currency that its customers use.
    fn home(&mut self, set: &str, group: &str) -> (String, String, String) {
        let groups = self
            .set_index(set)
            .map(|at| (0..self.sets[at].rows.len()).map(|position| (at, position)).collect::<Vec<_>>())
            .unwrap_or_default();
        let groups = groups.into_iter().filter(|place| !self.gone.contains(place)).collect::<Vec<_>>();
        let chosen = groups.get(self.random.below(groups.len())).map(|place| self.row(*place));
        let (company, id) = chosen.map_or(("", ""), |row| (text(row, "dataAreaId"), text(row, group)));
        let customers = self.set_index("CustomersV3").map(|at| self.sets[at].rows.as_slice()).unwrap_or_default();
        let currency = customers
            .iter()
            .find(|row| text(row, "dataAreaId") == company)
            .map_or("USD", |row| text(row, "SalesCurrencyCode"));
        (company.to_owned(), id.to_owned(), currency.to_owned())
    }

    /// A whole new customer or vendor: party, address, e-mail, phone, and itself.
    fn new_customer(&mut self, system: SystemKind, slug: &'static str, number: usize) -> Vec<(&'static str, Row)> {
        let side = letter(system);
        let id = format!("{side}{number:06}");
        let is_vendor = slug == "vendors";
        let is_person = slug == "customers-contacts";
        let name = match number % 4 {
            0 => format!("Señor \"Bicicleta\" & Hijos {id}"),
            1 => format!("Drahtesel, Köln ({id}) 🚲"),
            2 => format!("O'Reilly's Wheels {id}"),
            _ => format!("自転車の店 {id}"),
        };
        let party = Build::new()
            .text("PartyNumber", format!("P{id}"))
            .text("PartyType", if is_person { "Person" } else { "Organization" })
            .text("LanguageId", ["en-us", "de", "fr-ca", "ja"][number % 4])
            .text("NameAlias", shortened(&name, 20))
            .text("KnownAs", &name);
        let party = if is_person {
            party
                .text("PersonFirstName", ["Zoë", "Łukasz", "Anaïs", "Jörg"][number % 4])
                .text("PersonLastName", format!("Neumann-{id}"))
                .text("PersonGender", ["Unknown", "Male", "Female", "Non-Specific"][number % 4])
                .int("PersonAnniversaryYear", 2025)
                .text("PersonAnniversaryMonth", "March")
        } else {
            party
                .text("OrganizationName", &name)
                .text("OrganizationABCCode", ["A", "B", "C", "None"][number % 4])
                .int("OrganizationNumOfEmployees", number as i64 * 7)
        };
        let location = Build::new().text("LocationId", format!("L{id}")).text("Description", "Neue Adresse");
        let history = Build::new()
            .text("LocationId", format!("L{id}"))
            .text("ValidFrom", "2025-03-01T08:30:00Z")
            .text("ValidTo", FOR_EVER)
            .text("Description", "Main Office")
            .text("Street", format!("Rue de l’Été {number}\nBâtiment \"C\""))
            .text("StreetNumber", number.to_string())
            .text("City", ["Montréal", "Köln", "Springfield", "Zürich"][number % 4])
            .text("CountryRegionId", ["CA", "DE", "US", "CH"][number % 4])
            .text("ZipCode", format!("{:05}", 10_000 + number));
        let link = Build::new()
            .text("LocationId", format!("L{id}"))
            .text("PartyNumber", format!("P{id}"))
            .yes("IsPrimary", true)
            .text("Purpose", "Main Office");
        // Whether a party owns a location is not told from Dataverse to F&O, so a row from there says no.
        let link = link.yes("IsLocationOwner", system == SystemKind::Finops);
        let contact = |kind: &str, id: String, locator: String| {
            Build::new()
                .text("ElectronicAddressId", id)
                .text("PartyNumber", format!("P{side}{number:06}"))
                .text("Type", kind)
                .text("Description", kind)
                .text("Locator", locator)
                .yes("IsPrimary", true)
                .row()
        };
        let email = contact("Email", format!("E{id}"), format!("office.{}@example.com", id.to_lowercase()));
        let phone = contact("Phone", format!("T{id}"), format!("+49 221 {:06}", 100_000 + number));
        let (set, group) =
            if is_vendor { ("VendorGroups", "VendorGroupId") } else { ("CustomerGroups", "CustomerGroupId") };
        let (company, group, currency) = self.home(set, group);
        let main = Build::new().text("dataAreaId", company);
        let main = if is_vendor {
            main.text("VendorAccountNumber", format!("V{id}"))
                .text("VendorGroupId", group)
                .text("VendorPartyType", "Organization")
                .text("VendorPartyNumber", format!("P{id}"))
                .text("CurrencyCode", currency)
                .decimal("CreditLimit", Decimal::new(number as i64 * 100_000 + 50, 2))
                .text("PrimaryURL", "https://example.com/été")
                .text("OnHoldStatus", "Payment")
                .text("VendorHoldReleaseDate", "2026-01-31")
        } else {
            let main = main
                .text("CustomerAccount", format!("C{id}"))
                .text("PartyType", if is_person { "Person" } else { "Organization" })
                .text("PartyNumber", format!("P{id}"))
                .text("CustomerGroupId", group)
                .text("SalesCurrencyCode", currency)
                .text("SalesMemo", format!("Neu seit März, \"{name}\"\nzweite Zeile"))
                .text("IdentificationNumber", format!("NEW-{id}"));
            if is_person {
                main
            } else {
                main.decimal("CreditLimit", Decimal::new(number as i64 * 1_000 + 25, 2))
                    .text("OnHoldStatus", "Invoice")
                    .int("PaymentTermsBaseDays", 30)
            }
        };
        vec![
            ("parties", party.row()),
            ("postal-address-locations", location.row()),
            ("postal-addresses", history.row()),
            ("party-postal-addresses", link.row()),
            ("party-contacts", email),
            ("party-contacts", phone),
            (slug, main.row()),
        ]
    }

    fn new_single(&mut self, system: SystemKind, slug: &'static str, number: usize) -> Vec<(&'static str, Row)> {
        let side = letter(system);
        let companies = self.set_index("LegalEntities").map(|at| self.sets[at].rows.as_slice()).unwrap_or_default();
        let company = companies.get(number % companies.len().max(1)).map_or("", |row| text(row, "LegalEntityId"));
        match slug {
            "currencies" => vec![(
                slug,
                Build::new()
                    .text("CurrencyCode", format!("{side}{number:02}"))
                    .text("Name", format!("Nouvelle monnaie n° {number}"))
                    .text("Symbol", "¤")
                    .row(),
            )],
            "customer-groups" => vec![(
                slug,
                Build::new()
                    .text("dataAreaId", company)
                    .text("CustomerGroupId", format!("NEW{side}{number}"))
                    .text("Description", format!("Großkunden, Stufe {number}"))
                    .yes("IsSalesTaxIncludedInPrice", number.is_multiple_of(2))
                    .row(),
            )],
            "vendor-groups" => vec![(
                slug,
                Build::new()
                    .text("dataAreaId", company)
                    .text("VendorGroupId", format!("NEW{side}{number}"))
                    .text("Description", format!("Fournisseurs nº {number}"))
                    .row(),
            )],
            "units" => vec![(
                slug,
                Build::new()
                    .text("UnitSymbol", format!("U{side}{number:03}"))
                    .text("UnitClass", "Quantity")
                    .text("SystemOfUnits", "None")
                    .text("UnitDescription", format!("Bündel zu {number}"))
                    .row(),
            )],
            _ => {
                let item = format!("NEW-{side}-{number:04}");
                let product = Build::new()
                    .text("ProductNumber", &item)
                    .text("ProductName", format!("Fahrrad \"Größe {number}\""))
                    .row();
                let released = Build::new()
                    .text("dataAreaId", company)
                    .text("ItemNumber", &item)
                    .text("ProductNumber", &item)
                    .text("ProductType", "Item")
                    .text("InventoryUnitSymbol", "EA")
                    .decimal("SalesPrice", Decimal::new(1_234_567 + number as i64, 4))
                    .text("SellStartDate", "2025-03-01")
                    .row();
                vec![("products", product), ("released-products", released)]
            }
        }
    }

    // Updates

    fn updates(&mut self, system: SystemKind, script: &mut Script) -> Result<(), DemoError> {
        for map in self.maps {
            let slug = map.facts.slug;
            if !self.is_edited(slug, system) {
                continue;
            }
            let made = script.made.get(slug).copied().unwrap_or_default();
            let wanted = self.quota(slug).total.saturating_sub(made).max(1);
            for (number, place) in self.candidates(slug).into_iter().take(wanted).enumerate() {
                self.taken.insert(place);
                let row = self.row(place);
                let changes = self.changes(system, slug, row, number);
                let edit = self.edit(system, map, EditOperation::Update, row, &changes);
                script.updates.push(vec![edit.ok_or_else(|| self.broken(slug))?]);
            }
        }
        Ok(())
    }

    /// What becomes of a row that is changed, in the words of F&O. Every second kind of change empties something.
    fn changes(&mut self, system: SystemKind, slug: &str, row: &Row, number: usize) -> Row {
        let mark = format!("{}{number}", letter(system));
        let other = |name: &str, choices: &[&'static str]| {
            let now = choices.iter().position(|choice| *choice == text(row, name)).unwrap_or_default();
            choices[(now + 1) % choices.len()]
        };
        let flipped = |name: &str| text(row, name) != "Yes";
        let build = Build::new();
        match slug {
            "legal-entities" => build.text("Name", format!("{} (neu)", text(row, "Name"))).row(),
            "units" => build
                .text("UnitDescription", format!("{} – geändert {mark}", text(row, "UnitDescription")))
                .int("DecimalPrecision", 5)
                .row(),
            "currencies" => {
                build.text("Name", format!("{} ({mark})", text(row, "Name").trim())).text("Symbol", "¤").row()
            }
            "parties" if text(row, "PartyType") == "Person" => {
                let mut row = build
                    .text("PersonMiddleName", format!("Éloïse {mark}"))
                    .text("PersonGender", other("PersonGender", &["Unknown", "Female", "Male"]))
                    .text("PersonAnniversaryMonth", other("PersonAnniversaryMonth", &["None", "July", "December"]))
                    .row();
                if number % 2 == 1 {
                    row.insert("KnownAs".to_owned(), Value::from(""));
                }
                row
            }
            "parties" => build
                .text("OrganizationName", shortened(&format!("{} ➜ {mark}", text(row, "OrganizationName").trim()), 100))
                .text("OrganizationABCCode", other("OrganizationABCCode", &["None", "A", "B", "C"]))
                .text("LanguageId", other("LanguageId", &["en-us", "en-gb", "zh-hans"]))
                .int("OrganizationNumOfEmployees", number as i64 + 1)
                .row(),
            "postal-address-locations" => build.text("Description", format!("Umgezogen, {mark}")).row(),
            "postal-addresses" => {
                let mut row = build
                    .text("Street", format!("{mark} Rue Neuve\n🏠 2ᵉ étage"))
                    .text("City", "Saint-Étienne")
                    .text("ZipCode", format!("{:05}", 42_000 + number % 1_000))
                    .row();
                if number % 2 == 1 {
                    row.insert("StreetNumber".to_owned(), Value::from(""));
                    row.insert("ValidTo".to_owned(), Value::from("2030-12-31T00:00:00Z"));
                }
                row
            }
            "party-postal-addresses" => {
                build.yes("IsPrimary", flipped("IsPrimary")).text("Purpose", format!("Business;Delivery;{mark}")).row()
            }
            "party-contacts" if text(row, "Type") == "Email" => build
                .text("Locator", format!("changed.{}@example.com", mark.to_lowercase()))
                .yes("IsPrivate", flipped("IsPrivate"))
                .row(),
            "party-contacts" => build
                .text("Locator", format!("+41 44 {:07}", 2_000_000 + number))
                .text("LocatorExtension", (number % 100).to_string())
                .yes("IsMobilePhone", flipped("IsMobilePhone"))
                .row(),
            "customer-groups" => build
                .text("Description", format!("Umbenannt, {mark}"))
                .yes("IsSalesTaxIncludedInPrice", flipped("IsSalesTaxIncludedInPrice"))
                .row(),
            "vendor-groups" => build.text("Description", format!("Umbenannt, {mark}")).row(),
            "vendors" => {
                let mut row = build
                    .decimal("CreditLimit", Decimal::new(number as i64 * 125_000 + 12_345, 2))
                    .text("OnHoldStatus", other("OnHoldStatus", &["No", "Payment", "Never"]))
                    .yes("IsOneTimeVendor", flipped("IsOneTimeVendor"))
                    .text("VendorHoldReleaseDate", "2026-02-28")
                    .row();
                if number % 2 == 1 {
                    row.insert("PrimaryURL".to_owned(), Value::from(""));
                }
                row
            }
            "customers-accounts" => {
                let mut row = build
                    .decimal("CreditLimit", Decimal::new(number as i64 * 1_025 + 75, 2))
                    .text("OnHoldStatus", other("OnHoldStatus", &["No", "Requisition", "All"]))
                    .text("CustomerGroupId", self.another_group(row))
                    .int("PaymentTermsBaseDays", number as i64 % 300 + 61)
                    .row();
                if number % 2 == 1 {
                    row.insert("SalesMemo".to_owned(), Value::from(""));
                    row.insert("InvoiceAccount".to_owned(), Value::from(""));
                }
                row
            }
            "customers-contacts" => build
                .text("SalesMemo", format!("Ruft gern an ☎ {mark},\n\"abends\""))
                .text("CustomerGroupId", self.another_group(row))
                .row(),
            "products" => {
                build.text("ProductName", shortened(&format!("{} {mark}", text(row, "ProductName")), 60)).row()
            }
            _ => build
                .decimal("SalesPrice", Decimal::new(number as i64 * 10_001 + 9_999, 4))
                .text("SalesPriceDate", "2025-03-01")
                .text("CarryingCostABCCode", other("CarryingCostABCCode", &["None", "A", "B", "C"]))
                .yes("IsScaleProduct", flipped("IsScaleProduct"))
                .row(),
        }
    }

    /// A customer group of the same company that stays.
    fn another_group(&mut self, row: &Row) -> String {
        let Some(at) = self.set_index("CustomerGroups") else { return String::new() };
        let company = text(row, "dataAreaId");
        let groups = (0..self.sets[at].rows.len())
            .map(|position| (at, position))
            .filter(|place| !self.gone.contains(place) && text(self.row(*place), "dataAreaId") == company)
            .collect::<Vec<_>>();
        let chosen = groups.get(self.random.below(groups.len())).map(|place| self.row(*place));
        chosen
            .map_or_else(|| text(row, "CustomerGroupId").to_owned(), |group| text(group, "CustomerGroupId").to_owned())
    }

    // Edits

    /// An edit of `row` as its side spells it; `changes` is what is written, in the words of F&O.
    fn edit(
        &self,
        system: SystemKind,
        map: &'a DemoMap,
        operation: EditOperation,
        row: &Row,
        changes: &Row,
    ) -> Option<Edit> {
        let translation = Translation::new(map, self.tables)?;
        let mut edit = Edit {
            system,
            map: map.facts.slug,
            operation,
            set: map.facts.finops_collection.to_owned(),
            name: None,
            key: Vec::new(),
            body: Row::new(),
            binds: Vec::new(),
        };
        match system {
            SystemKind::Finops => {
                edit.key = finops_key(translation.finops, row);
                edit.body = changes.clone();
            }
            SystemKind::Dataverse => {
                map.facts.dataverse_set.clone_into(&mut edit.set);
                edit.name = Some(translation.own_name(row));
                let columns = match operation {
                    EditOperation::Create => translation.new_row(row),
                    EditOperation::Update => translation.changed(row, changes),
                    EditOperation::Delete => super::dataverse::Columns::default(),
                };
                edit.body = columns.values;
                edit.binds = columns.binds;
            }
        }
        Some(edit)
    }

    fn broken(&self, slug: &str) -> DemoError {
        DemoError::Data { file: slug.to_owned(), message: "the map's tables are not among the demo's".to_owned() }
    }
}

const fn letter(system: SystemKind) -> char {
    match system {
        SystemKind::Finops => 'F',
        SystemKind::Dataverse => 'D',
    }
}

fn id_of_new(name: &RowName) -> Uuid {
    Uuid::new_v5(&NAMESPACE, name.to_string().to_lowercase().as_bytes())
}

/// The key properties of an F&O row as URL literals.
fn finops_key(table: &TableDefinition, row: &Row) -> Vec<(String, String)> {
    table
        .key
        .iter()
        .map(|name| {
            let kind = column(table, name).map(|column| column.kind);
            let value = row.get(name).cloned().or_else(|| column(table, name).map(finops_empty)).unwrap_or_default();
            let plain = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            let literal = match kind {
                Some(ColumnKind::Datetime | ColumnKind::Date | ColumnKind::Guid | ColumnKind::Int) => plain,
                _ => format!("'{}'", plain.replace('\'', "''")),
            };
            (name.clone(), literal)
        })
        .collect()
}

//! From what is known to advice. Pure.
//!
//! The numbers are the published limits of Dual-write where they hold here too, or the point where its users were hurt
//! (Microsoft Learn, "Considerations for initial sync" and "Dual-write limits").

use std::collections::{BTreeMap, BTreeSet};

use dualwright_core::SystemKind;
use dualwright_core::mapping::Reference;

use super::{Advice, Data, KnownMap, Measured, Need, Questions, Timeouts};
use crate::catalogue::{MapDirection, Threading};
use crate::pipeline::lookups::LOOKUPS_PER_READ_MAX;
use crate::report::thousands;

/// Rows of one transaction that F&O may send.
const TRANSACTION_ROWS_MAX: u64 = 1_000;
/// Rows of one initial sync, per legal entity.
const RUN_ROWS_MAX: u64 = 500_000;
/// Rows a second that a live link should be asked for.
const LIVE_ROWS_PER_SECOND_MAX: u64 = 1_000;
/// The goal of a plugin per transaction, in milliseconds.
const PLUGIN_GOAL_MS: u64 = 500;
/// Rows within ten minutes that no office types: an import under running maps. The documented pace of a link is a
/// hundred rows a minute.
const IMPORT_ROWS: u64 = 10_000;

/// Entity sets whose writes end in the shared tables of parties and addresses.
const ADDRESS_SETS: [&str; 8] = [
    "accounts",
    "contacts",
    "msdyn_vendors",
    "msdyn_parties",
    "msdyn_partypostaladdresses",
    "msdyn_partyelectronicaddresses",
    "msdyn_postaladdresses",
    "msdyn_postaladdresscollections",
];

/// The code of the table map health check for several maps of one entity.
const HC_SEVERAL_MAPS: &str = "HC1700";

/// The topic of what could not be measured.
pub(super) const NOT_MEASURED: &str = "not-measured";

/// What is said, in the order of the questions.
#[derive(Default)]
struct Said(Vec<Advice>);

impl Said {
    fn warn(&mut self, topic: &'static str, what: impl Into<String>, remedy: &str) {
        self.0.push(Advice { is_warning: true, topic, what: what.into(), remedy: remedy.to_owned() });
    }

    fn fine(&mut self, topic: &'static str, what: impl Into<String>, remedy: &str) {
        self.0.push(Advice { is_warning: false, topic, what: what.into(), remedy: remedy.to_owned() });
    }

    /// A number against its limit.
    fn limit(&mut self, topic: &'static str, number: u64, most: u64, what: String, remedy: &str) {
        if number > most { self.warn(topic, what, remedy) } else { self.fine(topic, what, "Nothing to do") }
    }
}

pub(super) fn judge(questions: &Questions, maps: &[KnownMap], measured: &Measured) -> Vec<Advice> {
    let mut said = Said::default();
    purpose(questions, &mut said);
    pace(questions, measured, &mut said);
    timeouts(questions, measured, &mut said);
    plugins(questions, measured, &mut said);
    rows(questions, maps, measured, &mut said);
    one_way(maps, &mut said);
    shared_tables(maps, measured, &mut said);
    one_entity(maps, &mut said);
    lookups(maps, &mut said);
    for what in &measured.left_out {
        said.fine(NOT_MEASURED, what.as_str(), "See that both systems answer, or answer by a flag");
    }
    said.0
}

/// The upper branches of the decision tree: what only people know.
fn purpose(questions: &Questions, said: &mut Said) {
    if questions.other_system {
        let remedy = "Use the APIs of the two systems, or a general integration service";
        said.warn("system", "a link keeps F&O and Dataverse in step, and no other system", remedy);
    }
    if questions.on_premises {
        let what = "Dual-write does not serve F&O on the premises; this runtime does, where its OData is reachable";
        said.fine("premises", what, "See that the connection test passes");
    }
    match questions.data {
        Some(Data::Master) => {
            let remedy = "Start from `dualwright map catalogue`";
            said.fine("data", "master data is what pre-built maps are for", remedy);
        }
        Some(Data::Transactions) => {
            let remedy = "Run the maps of their parents first: orders wait for customers and products";
            said.fine("data", "orders and invoices are carried live", remedy);
        }
        Some(Data::Other) => {
            let remedy = "Consider packages for files and bulk, or the APIs, before you write a map";
            said.warn("data", "neither master data nor transactions", remedy);
        }
        None => {}
    }
    match questions.need {
        Some(Need::BothWays) => {
            let remedy = "Choose conflict_winner, and fields that go one way where one side owns them";
            said.fine("need", "both sides write", remedy);
        }
        Some(Need::ReadOnly) => {
            let remedy = "Read through a virtual table: nothing is stored twice, and nothing can be late";
            said.warn("need", "one side only reads", remedy);
        }
        None => {}
    }
}

/// Transactions, rates and imports: as they were told, else as the store remembers them.
fn pace(questions: &Questions, measured: &Measured, said: &mut Said) {
    let transaction = match (questions.rows_per_transaction, measured.pace) {
        (Some(rows), _) => Some((rows, "")),
        (None, Some(pace)) if pace.transaction_rows_max > 0 => {
            Some((pace.transaction_rows_max, ", the largest that F&O sent"))
        }
        (None, _) => None,
    };
    if let Some((rows, which)) = transaction {
        let what = format!(
            "{} rows in one transaction{which}, of at most {}",
            thousands(rows),
            thousands(TRANSACTION_ROWS_MAX)
        );
        let remedy = if rows > RUN_ROWS_MAX {
            "This is a migration: import the rows on both sides by packages, then start without an initial sync"
        } else {
            "Commit after every 1,000 rows at the source"
        };
        said.limit("transaction", rows, TRANSACTION_ROWS_MAX, what, remedy);
    }
    if let Some(rows) = questions.rows {
        let what =
            format!("{} rows per legal entity, of at most {} in one run", thousands(rows), thousands(RUN_ROWS_MAX));
        let remedy = "Import the rows on both sides by packages, then start the maps without an initial sync";
        said.limit("initial-sync", rows, RUN_ROWS_MAX, what, remedy);
    }
    let rate = match (questions.rows_per_second, measured.pace) {
        (Some(rows), _) => Some((rows, "")),
        (None, Some(pace)) => Some((pace.rows_per_minute_max / 60, " in the busiest minute")),
        (None, None) => None,
    };
    if let Some((rows, when)) = rate {
        let most = LIVE_ROWS_PER_SECOND_MAX;
        let what = format!("{} rows a second{when}, of at most {} live", thousands(rows), thousands(most));
        said.limit("live-rate", rows, most, what, "Collect the changes and carry them in batches");
    }
    let remedy = "Stop the maps, import on both sides, and start them without an initial sync";
    match measured.pace {
        _ if questions.bulk_import => {
            said.warn("bulk-import", "an import under a running map is carried row by row", remedy);
        }
        Some(pace) if pace.rows_per_ten_minutes_max > IMPORT_ROWS => {
            let what = format!(
                "{} rows came within ten minutes while the maps ran, which looks like an import",
                thousands(pace.rows_per_ten_minutes_max)
            );
            said.warn("bulk-import", what, remedy);
        }
        _ => {}
    }
}

/// The last branch of the decision tree: what takes the time.
fn timeouts(questions: &Questions, measured: &Measured, said: &mut Said) {
    let remedy = "Give plugins less to do, map fewer columns, and commit fewer rows at once";
    if questions.timeouts == Some(Timeouts::Transaction) {
        said.warn("timeouts", "transactions do not end within their budget of 120 seconds", remedy);
    } else if measured.budget_spent > 0 {
        let what = format!("{} deliveries or records spent their budget [DW-2004]", thousands(measured.budget_spent));
        said.warn("timeouts", what, remedy);
    }
    if questions.timeouts == Some(Timeouts::InitialSync) {
        let remedy = "Hold the rows of each map against its limit, index what its filter reads, and leave out computed \
                      columns";
        said.warn("timeouts", "an initial sync does not end in time", remedy);
    }
}

fn plugins(questions: &Questions, measured: &Measured, said: &mut Said) {
    let remedy = "Give it fewer rows or columns, or do its work after the write";
    for (plugin, ms) in &questions.plugin_ms {
        let what = format!("{plugin} takes {ms} ms per transaction, of at most {PLUGIN_GOAL_MS}");
        said.limit("slow-plugin", *ms, PLUGIN_GOAL_MS, what, remedy);
    }
    let told = |plugin: &str| questions.plugin_ms.iter().any(|(own, _)| own == plugin);
    for time in measured.plugins.iter().filter(|time| !told(&time.plugin)) {
        let what = match time.over_goal {
            0 => format!("{} stays below {PLUGIN_GOAL_MS} ms per transaction", time.plugin),
            count => format!(
                "{} took longer than {PLUGIN_GOAL_MS} ms in {} transactions, up to {} ms in one call",
                time.plugin,
                thousands(count),
                time.max_ms
            ),
        };
        said.limit("slow-plugin", time.over_goal, 0, what, remedy);
    }
}

/// The rows of every map against what its table takes in one run.
fn rows(questions: &Questions, maps: &[KnownMap], measured: &Measured, said: &mut Said) {
    let remedy = "Import the rows on both sides by packages, then start the map without an initial sync";
    for map in maps {
        let told = questions.map_rows.iter().find(|(slug, _)| *slug == map.slug).map(|(_, rows)| *rows);
        let counted = measured.rows.iter().find(|rows| rows.slug == map.slug);
        let threading = Threading::of_set(&map.leg.dataverse_set);
        let per_entity = told.or_else(|| counted.and_then(|rows| rows.finops));
        // Threads matter where F&O writes, and what it would write are the rows of Dataverse.
        let on_dataverse = match (told, threading) {
            (None, Threading::Single) => counted.and_then(|rows| rows.dataverse),
            _ => None,
        };
        let single_most = Threading::Single.rows_max();
        let over = |rows: u64, what: String, most: u64| {
            (rows > most)
                .then(|| format!("{} has {} {what}, of at most {}", map.slug, thousands(rows), thousands(most)))
        };
        let most = threading.rows_max();
        let why = match threading {
            Threading::Single => "rows in a legal entity, in a table that is written row after row",
            Threading::Multi => "rows in a legal entity for one run",
        };
        let warnings = [
            per_entity.and_then(|rows| over(rows, why.to_owned(), most)),
            on_dataverse.and_then(|rows| {
                let why = "rows on Dataverse, in a table that F&O writes row after row";
                over(rows, why.to_owned(), single_most)
            }),
        ];
        if let Some(what) = warnings.into_iter().flatten().next() {
            said.warn("map-rows", what, remedy);
        }
    }
}

/// Copies that nobody writes to and nothing refers to: a virtual table shows the same.
fn one_way(maps: &[KnownMap], said: &mut Said) {
    let mut referred_to = BTreeSet::new();
    for map in maps {
        for field in &map.leg.fields {
            let set = field.related_set.as_deref().filter(|set| !set.eq_ignore_ascii_case(&map.leg.dataverse_set));
            referred_to.extend(set.map(str::to_lowercase));
            // A lookup that may lead to several tables names them instead of one set.
            let by_table = field.dataverse.as_ref().map(|path| &path.reference);
            if let Some(Reference::ByTable(tables)) = by_table {
                referred_to.extend(tables.iter().map(|(table, _)| format!("{}s", table.to_lowercase())));
            }
        }
    }
    for map in maps {
        // Every row of a company refers to the legal entities, though no field of a map says so.
        let set = map.leg.dataverse_set.to_lowercase();
        if MapDirection::of(&map.leg) != MapDirection::ToDataverse
            || referred_to.contains(&set)
            || set == "cdm_companies"
        {
            continue;
        }
        let what = format!("{} goes to Dataverse only, and no other map refers to its rows", map.slug);
        said.warn("one-way", what, "If Dataverse only shows the rows, a virtual table serves without a second copy");
    }
}

fn shared_tables(maps: &[KnownMap], measured: &Measured, said: &mut Said) {
    let shared = maps.iter().filter(|map| ADDRESS_SETS.contains(&map.leg.dataverse_set.to_lowercase().as_str()));
    let shared = shared.map(|map| map.slug.as_str()).collect::<Vec<_>>();
    if shared.len() < 2 {
        return;
    }
    let what = format!("{} write the same tables of parties and addresses", shared.join(", "));
    let is_copied = |slug: &&str| measured.copied.as_ref().is_some_and(|copied| copied.iter().any(|own| own == slug));
    if shared.iter().all(is_copied) {
        said.fine("shared-addresses", format!("{what}, and have all had their initial sync"), "Nothing to do");
    } else {
        said.warn("shared-addresses", what, "Pause the others while one of them makes its initial sync");
    }
}

fn one_entity(maps: &[KnownMap], said: &mut Said) {
    let mut entities = BTreeMap::<String, Vec<&KnownMap>>::new();
    for map in maps {
        entities.entry(map.leg.finops_entity.to_lowercase()).or_default().push(map);
    }
    for maps in entities.values().filter(|maps| maps.len() > 1) {
        let slugs = maps.iter().map(|map| map.slug.as_str()).collect::<Vec<_>>().join(", ");
        if maps.iter().all(|map| !map.leg.finops_filter.trim().is_empty()) {
            let what = format!("{slugs} read one F&O entity, each with a filter of its own [{HC_SEVERAL_MAPS}]");
            said.fine("one-entity", what, "Nothing to do");
            continue;
        }
        let what =
            format!("{slugs} read one F&O entity, so every change of it is looked at by each [{HC_SEVERAL_MAPS}]");
        said.warn("one-entity", what, "Give each map a filter, or join maps that need none");
    }
}

/// Dual-write refuses an initial sync from Dataverse with more lookups; here they are read in several rounds.
fn lookups(maps: &[KnownMap], said: &mut Said) {
    for map in maps {
        let fields = map.leg.fields.iter().filter(|field| field.direction.goes_to(SystemKind::Finops));
        let paths = fields.filter_map(|field| field.dataverse.as_ref());
        let columns = paths
            .filter(|path| !matches!(path.reference, Reference::None))
            .map(|path| path.column.to_lowercase())
            .collect::<BTreeSet<_>>();
        if columns.len() > LOOKUPS_PER_READ_MAX {
            let what = format!(
                "{} reads {} lookups from Dataverse, and one read takes {LOOKUPS_PER_READ_MAX}",
                map.slug,
                columns.len()
            );
            let remedy =
                "Leave out lookups that F&O does not need; the rest is read in several rounds, which takes longer";
            said.warn("lookups", what, remedy);
        }
    }
}

#[cfg(test)]
mod tests {
    use dualwright_core::mapping::Mapping;
    use dualwright_core::plan::checks;

    use super::super::{MapRows, Pace, PluginTime};
    use super::*;

    fn map(slug: &str, entity: &str, set: &str, direction: u8) -> KnownMap {
        map_with(slug, entity, set, direction, "", "a", "")
    }

    fn map_with(
        slug: &str,
        entity: &str,
        set: &str,
        direction: u8,
        filter: &str,
        path: &str,
        related: &str,
    ) -> KnownMap {
        let related = if related.is_empty() {
            String::new()
        } else {
            format!(r#","destinationLookupFieldRelatedEntity":"{related}""#)
        };
        let text = format!(
            r#"{{"legs":[{{"sourceSchema":"{entity}","destinationSchema":"{set}","sourceFilter":"{filter}",
            "fieldMappings":[{{"syncDirection":{direction},"sourceField":"A","destinationField":"{path}"{related}}}]}}]}}"#
        );
        let leg = Mapping::parse(&text).expect("a map").legs.remove(0);
        KnownMap { slug: slug.to_owned(), leg, collection: None, companies: vec!["usmf".to_owned()] }
    }

    /// The topics that are answered, warnings with a mark.
    fn told(questions: &Questions, maps: &[KnownMap], measured: &Measured) -> String {
        let advice = judge(questions, maps, measured);
        assert!(advice.iter().all(|one| !one.remedy.is_empty()));
        let told = advice.iter().map(|one| format!("{}{}", one.topic, if one.is_warning { "!" } else { "" }));
        told.collect::<Vec<_>>().join(" ")
    }

    fn asked() -> Questions {
        Questions::default()
    }

    fn at_pace(transaction_rows_max: u64, rows_per_minute_max: u64, rows_per_ten_minutes_max: u64) -> Measured {
        let pace = Pace { transaction_rows_max, rows_per_minute_max, rows_per_ten_minutes_max };
        Measured { pace: Some(pace), ..Measured::default() }
    }

    fn counted(slug: &str, finops: Option<u64>, dataverse: Option<u64>) -> Measured {
        Measured { rows: vec![MapRows { slug: slug.to_owned(), finops, dataverse }], ..Measured::default() }
    }

    #[test]
    fn every_branch_of_the_decision_tree_is_answered() {
        let cases = [
            (asked(), ""),
            (Questions { data: Some(Data::Master), ..asked() }, "data"),
            (Questions { data: Some(Data::Transactions), ..asked() }, "data"),
            (Questions { data: Some(Data::Other), ..asked() }, "data!"),
            (Questions { need: Some(Need::BothWays), ..asked() }, "need"),
            (Questions { need: Some(Need::ReadOnly), ..asked() }, "need!"),
            (Questions { on_premises: true, ..asked() }, "premises"),
            (Questions { other_system: true, ..asked() }, "system!"),
            (Questions { rows: Some(500_000), ..asked() }, "initial-sync"),
            (Questions { rows: Some(500_001), ..asked() }, "initial-sync!"),
            (Questions { timeouts: Some(Timeouts::Transaction), ..asked() }, "timeouts!"),
            (Questions { timeouts: Some(Timeouts::InitialSync), ..asked() }, "timeouts!"),
        ];
        for (questions, wanted) in cases {
            assert_eq!(told(&questions, &[], &Measured::default()), wanted, "{questions:?}");
        }
    }

    #[test]
    fn a_bulk_import_under_a_running_map_is_warned_of() {
        let flagged = Questions { bulk_import: true, ..asked() };
        assert_eq!(told(&flagged, &[], &Measured::default()), "bulk-import!");
        assert_eq!(told(&asked(), &[], &at_pace(1, 6_000, 10_001)), "transaction live-rate bulk-import!");
        assert_eq!(told(&asked(), &[], &at_pace(1, 6_000, 10_000)), "transaction live-rate");
    }

    #[test]
    fn a_transaction_over_1000_rows_is_warned_of() {
        for (rows, wanted) in [(1_000, "transaction"), (1_001, "transaction!")] {
            let flagged = Questions { rows_per_transaction: Some(rows), ..asked() };
            assert_eq!(told(&flagged, &[], &Measured::default()), wanted);
            assert_eq!(told(&asked(), &[], &at_pace(rows, 0, 0)), format!("{wanted} live-rate"));
        }
        // What was told goes before what was measured.
        let flagged = Questions { rows_per_transaction: Some(10), ..asked() };
        assert_eq!(told(&flagged, &[], &at_pace(5_000, 0, 0)), "transaction live-rate");
    }

    #[test]
    fn what_spent_its_budget_is_found_in_the_store() {
        let measured = Measured { budget_spent: 2, ..Measured::default() };
        assert_eq!(told(&asked(), &[], &measured), "timeouts!");
        // A migration is no transaction to be split.
        let advice = judge(&Questions { rows_per_transaction: Some(500_001), ..asked() }, &[], &Measured::default());
        assert!(advice[0].remedy.starts_with("This is a migration"), "{advice:?}");
    }

    #[test]
    fn more_lookups_than_one_read_takes_are_warned_of() {
        let with = |lookups: usize| {
            let fields = (0..lookups).map(|number| {
                format!(r#"{{"syncDirection":3,"sourceField":"F{number}","destinationField":"l{number}.name"}}"#)
            });
            let text = format!(
                r#"{{"legs":[{{"sourceSchema":"Things","destinationSchema":"things","fieldMappings":[{}]}}]}}"#,
                fields.collect::<Vec<_>>().join(",")
            );
            let leg = Mapping::parse(&text).expect("a map").legs.remove(0);
            told(&asked(), &[KnownMap { leg, ..map("things", "Things", "things", 3) }], &Measured::default())
        };
        assert_eq!(with(10), "");
        assert_eq!(with(11), "lookups!");
    }

    #[test]
    fn conflicting_maps_on_shared_address_tables_are_warned_of() {
        let maps = [map("customers", "Customers V3", "accounts", 3), map("vendors", "Vendors V2", "msdyn_vendors", 3)];
        let copied = |slugs: &[&str]| Measured {
            copied: Some(slugs.iter().map(|slug| (*slug).to_owned()).collect()),
            ..Measured::default()
        };
        assert_eq!(told(&asked(), &maps[..1], &Measured::default()), "");
        assert_eq!(told(&asked(), &maps, &Measured::default()), "shared-addresses!");
        assert_eq!(told(&asked(), &maps, &copied(&["customers"])), "shared-addresses!");
        assert_eq!(told(&asked(), &maps, &copied(&["customers", "vendors"])), "shared-addresses");
    }

    #[test]
    fn more_than_70000_rows_into_a_single_threaded_table_are_warned_of() {
        let maps = [map("warehouses", "Warehouses", "msdyn_warehouses", 3)];
        for (rows, wanted) in [(70_000, ""), (70_001, "map-rows!")] {
            let flagged = Questions { map_rows: vec![("warehouses".to_owned(), rows)], ..asked() };
            assert_eq!(told(&flagged, &maps, &Measured::default()), wanted);
            assert_eq!(told(&asked(), &maps, &counted("warehouses", Some(rows), None)), wanted);
            assert_eq!(told(&asked(), &maps, &counted("warehouses", Some(1), Some(rows))), wanted);
        }
        // What was told goes before both counts, and a table with many threads takes more.
        let flagged = Questions { map_rows: vec![("warehouses".to_owned(), 10)], ..asked() };
        assert_eq!(told(&flagged, &maps, &counted("warehouses", Some(90_000), Some(90_000))), "");
        let maps = [map("units", "Units", "uoms", 3)];
        assert_eq!(told(&asked(), &maps, &counted("units", Some(70_001), Some(70_001))), "");
    }

    #[test]
    fn more_than_500000_rows_per_run_and_legal_entity_are_warned_of() {
        let maps = [map("units", "Units", "uoms", 3)];
        for (rows, wanted) in [(500_000, ""), (500_001, "map-rows!")] {
            assert_eq!(told(&asked(), &maps, &counted("units", Some(rows), None)), wanted);
        }
        // Dataverse counts all legal entities together, which says nothing of one.
        assert_eq!(told(&asked(), &maps, &counted("units", Some(1), Some(900_000))), "");
    }

    #[test]
    fn more_than_1000_rows_a_second_are_warned_of() {
        for (rows, wanted) in [(1_000, "live-rate"), (1_001, "live-rate!")] {
            let flagged = Questions { rows_per_second: Some(rows), ..asked() };
            assert_eq!(told(&flagged, &[], &Measured::default()), wanted);
            assert_eq!(told(&asked(), &[], &at_pace(1, rows * 60, 0)), format!("transaction {wanted}"));
        }
    }

    #[test]
    fn slow_plugins_are_warned_of() {
        let time = |plugin: &str, over_goal| PluginTime { plugin: plugin.to_owned(), over_goal, max_ms: 900 };
        for (ms, wanted) in [(500, "slow-plugin"), (501, "slow-plugin!")] {
            let flagged = Questions { plugin_ms: vec![("p".to_owned(), ms)], ..asked() };
            assert_eq!(told(&flagged, &[], &Measured::default()), wanted);
        }
        let measured = Measured { plugins: vec![time("p", 0), time("q", 3)], ..Measured::default() };
        assert_eq!(told(&asked(), &[], &measured), "slow-plugin slow-plugin!");
        // What was told of a plugin goes before what was measured of it.
        let flagged = Questions { plugin_ms: vec![("q".to_owned(), 100)], ..asked() };
        assert_eq!(told(&flagged, &[], &measured), "slow-plugin slow-plugin");
    }

    #[test]
    fn one_way_reads_that_a_virtual_table_would_serve_are_warned_of() {
        let units = || map("units", "Units", "uoms", 1);
        let companies = map("companies", "Legal entities", "cdm_companies", 1);
        assert_eq!(told(&asked(), &[units(), companies], &Measured::default()), "one-way!");
        // A row that others refer to has to be there.
        let lines = map_with("lines", "Lines", "salesorderdetails", 3, "", "uomid.msdyn_symbol", "uoms");
        assert_eq!(told(&asked(), &[units(), lines], &Measured::default()), "");
        // A reference of a table to itself is none by others.
        let own = map_with("units", "Units", "uoms", 1, "", "baseuom.msdyn_symbol", "uoms");
        assert_eq!(told(&asked(), &[own], &Measured::default()), "one-way!");
    }

    #[test]
    fn maps_of_one_entity_are_warned_of_unless_each_has_a_filter() {
        assert!(checks::CHECKS.iter().any(|check| check.code == HC_SEVERAL_MAPS));
        let maps = [map("a", "Attachments", "annotations", 3), map("b", "attachments", "notes", 2)];
        assert_eq!(told(&asked(), &maps, &Measured::default()), "one-entity!");
        let filtered = |slug, set| map_with(slug, "Attachments", set, 3, "A == 1", "a", "");
        let maps = [filtered("a", "annotations"), filtered("b", "notes")];
        assert_eq!(told(&asked(), &maps, &Measured::default()), "one-entity");
    }

    #[test]
    fn what_was_not_measured_is_said_and_is_no_warning() {
        let measured = Measured { left_out: vec!["rows were not counted".to_owned()], ..Measured::default() };
        assert_eq!(told(&asked(), &[], &measured), NOT_MEASURED);
    }
}

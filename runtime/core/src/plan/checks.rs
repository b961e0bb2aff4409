//! The validation codes of Dual-write, and what becomes of each here. The documentation is made from this table.
//!
//! Sources: Microsoft Learn, "Error codes for the table map validation" (DIPV) and "Errors codes for the table map
//! health check" (here HC and the number). A code keeps its meaning here, so that people find what they know; a code of
//! Microsoft's own services says so instead of being imitated.

/// One code of Dual-write.
#[derive(Debug, Clone, Copy)]
pub struct Check {
    pub code: &'static str,
    /// When it is raised, in our words.
    pub trigger: &'static str,
    pub here: Here,
}

/// What becomes of a code here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Here {
    /// Raised for the same reason, by the same name.
    Same,
    /// Raised by the same name for the nearest thing that there is here.
    Nearest(&'static str),
    /// Told by another message, named here: it is no question of one map.
    Elsewhere(&'static str),
    /// Describes a service of Microsoft that has no part here.
    Foreign(&'static str),
}

use Here::{Elsewhere, Foreign, Nearest, Same};

/// Every code, in the order of the documentation.
pub const CHECKS: &[Check] = &[
    check(
        "DIPV1000",
        "a connection of the integration service is not valid",
        Elsewhere("the connection test and the start of a link name the system and what it refused"),
    ),
    check("DIPV1001", "the validation itself failed", Foreign("the service's own exception; see DW-5002 for ours")),
    check("DIPV1002", "one table belongs to companies and the other does not", Same),
    check(
        "DIPV1003",
        "there is no integration key",
        Nearest(
            "also, as a notice, when no alternate key of Dataverse enforces it, and when it is larger than one can be",
        ),
    ),
    check("DIPV1004", "fields go both ways and a key column does not", Same),
    check("DIPV1005", "the environment of a data set is not known", Foreign("a link names its two systems itself")),
    check("DIPV1006", "the validation itself failed", Foreign("the service's own exception; see DW-5002 for ours")),
    check("DIPV1007", "a task names an environment outside the connection set", Foreign("there are no tasks")),
    check(
        "DIPV1008",
        "a legal entity or business unit of the link is gone",
        Elsewhere("rows of a company that Dataverse does not have fail with DW-1006 and name it"),
    ),
    check(
        "DIPV1010",
        "a mandatory column of the target is not mapped",
        Nearest("a notice for Dataverse, which does not say which of its required columns it fills itself"),
    ),
    check("DIPV1011", "a read-only column of the target is mapped", Same),
    check("DIPV1012", "the filter on Dataverse cannot be read", Nearest("with a caret under the character")),
    check("DIPV1014", "a key column is not mapped", Same),
    check("DIPV1015", "a key column behind a lookup is not mapped", Same),
    check("DIPV1016", "the company mapping of the target is missing", Foreign("companies are matched by their codes")),
    check(
        "DIPV1017",
        "the company mapping of a related table is missing",
        Foreign("companies are matched by their codes"),
    ),
    check("DIPV1018", "the F&O entity is not known", Nearest("tables are read at every start, so none is stale")),
    check(
        "DIPV1019",
        "rows of the Dataverse table have no versionnumber",
        Nearest("also when change tracking is off; raised where a field goes to F&O, since only then changes are read"),
    ),
    check(
        "DIPV1020",
        "the Dataverse table is not known",
        Nearest("also when a lookup leads to a table that is not known, or to several without saying which"),
    ),
    check("DIPV1021", "a field has neither a source column nor a default", Same),
    check("DIPV1022", "a column of F&O is not known", Same),
    check(
        "DIPV1023",
        "two fields that go both ways share a column of F&O",
        Nearest("a notice: two shipped maps do so; on the way back the first field that has a value counts"),
    ),
    check("DIPV1024", "a field has no column on its target", Same),
    check("DIPV1025", "a column of Dataverse is not known", Same),
    check("DIPV1026", "two fields write one column", Nearest("also when a field writes the company, which is stamped")),
    check("DIPV1027", "a lookup that is written does not name the whole key of its table", Same),
    check("DIPV1028", "a lookup that is read does not name a key column of its table", Same),
    check(
        "DIPV1029",
        "a value map lists a value twice",
        Nearest("on either side where it goes both ways, and on the side that it starts from where it goes one way"),
    ),
    check(
        "DIPV1030",
        "the types of two columns do not match",
        Nearest(
            "also when a default or a mapped value does not fit its column; inferred types are not held against a map",
        ),
    ),
    check("DIPV1031", "a mandatory column of the target is mapped to nothing and has no default", Same),
    check("HC100", "the platform is too old", Foreign("any version that has the documented services will do")),
    check(
        "HC400",
        "F&O does not announce changes of the entity",
        Elsewhere("the feed of a running map is polled; a feed that does not answer is an event of the link"),
    ),
    check("HC500", "no field goes to Dataverse", Nearest("a notice, since it may be meant so")),
    check("HC900", "the filter on F&O cannot be read", Nearest("with a caret under the character")),
    check("HC1000", "shows the query behind the entity", Foreign("the query of a view is not given out by OData")),
    check(
        "HC1300",
        "virtual fields are mapped, whose changes are not tracked",
        Foreign("OData does not tell them apart"),
    ),
    check("HC1500", "a data source of the entity has no mapped field", Foreign("OData does not show data sources")),
    check("HC1600", "a data source of the entity has a range", Foreign("OData does not show data sources")),
    check(
        "HC1700",
        "several maps track one entity",
        Nearest("a notice at the start and of `dualwright advise`, unless each map has a filter of its own"),
    ),
];

const fn check(code: &'static str, trigger: &'static str, here: Here) -> Check {
    Check { code, trigger, here }
}

/// The table for people.
#[must_use]
pub fn documentation() -> String {
    let mut text = String::from(
        "# Validation codes\n\n\
         Made from `src/plan/checks.rs`; a test holds the two against each other.\n\n\
         | code | raised when | here |\n|---|---|---|\n",
    );
    for Check { code, trigger, here } in CHECKS {
        let here = match here {
            Same => "the same".to_owned(),
            Nearest(how) => format!("nearest: {how}"),
            Elsewhere(how) => format!("elsewhere: {how}"),
            Foreign(why) => format!("Microsoft's own services: {why}"),
        };
        text.push_str(&format!("| {code} | {trigger} | {here} |\n"));
    }
    text
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// The codes that a source text raises.
    fn raised(text: &str) -> BTreeSet<String> {
        let mut codes = BTreeSet::new();
        for quoted in text.split('"') {
            let is_code = |prefix: &str| {
                quoted
                    .strip_prefix(prefix)
                    .is_some_and(|rest| !rest.is_empty() && rest.bytes().all(|b| b.is_ascii_digit()))
            };
            if is_code("DIPV") || is_code("HC") {
                codes.insert(quoted.to_owned());
            }
        }
        codes
    }

    #[test]
    fn every_code_that_is_raised_is_listed_and_every_listed_one_is_raised() {
        // Codes that need a catalogue of tables or a whole configuration are raised by the host.
        const OF_THE_HOST: [&str; 2] = ["DIPV1018", "HC1700"];
        let mut raised = raised(concat!(
            include_str!("compile.rs"),
            include_str!("../mapping/mod.rs"),
            include_str!("../transform.rs")
        ));
        raised.extend(OF_THE_HOST.map(str::to_owned));
        let listed = CHECKS.iter().filter(|check| matches!(check.here, Same | Nearest(_)));
        let listed = listed.map(|check| check.code.to_owned()).collect::<BTreeSet<_>>();
        assert_eq!(raised, listed);
        let all = CHECKS.iter().map(|check| check.code).collect::<BTreeSet<_>>();
        assert_eq!(all.len(), CHECKS.len(), "a code is listed twice");
        // The documentation has all codes from 1000 to 1031 but 1009 and 1013.
        assert_eq!(CHECKS.iter().filter(|check| check.code.starts_with("DIPV")).count(), 30);
    }

    #[test]
    fn the_page_says_what_the_table_says() {
        let page = concat!(env!("CARGO_MANIFEST_DIR"), "/CHECKS.md");
        let wanted = documentation();
        if std::env::var_os("DUALWRIGHT_BLESS").is_some() {
            std::fs::write(page, &wanted).expect("the page can be written");
        }
        let current = std::fs::read_to_string(page).expect("the page");
        assert_eq!(current, wanted, "run the test with DUALWRIGHT_BLESS=1 and review what changed");
    }
}

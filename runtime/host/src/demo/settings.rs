//! The settings that tie the demo together: `dualwright.toml` and the maps beside it.
//!
//! Written as a person would write them, with every binding of the standard plugins and why it is there.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use super::{DataSource, DemoError};

/// Where the two systems answer.
#[derive(Debug, Clone)]
pub struct Urls {
    pub finops: String,
    pub dataverse: String,
}

/// One binding of a standard plugin: map, why it is there, and what the file says. A transform names field mappings as
/// the map does, a validator the columns of its target.
struct Bound {
    map: &'static str,
    why: &'static str,
    binding: &'static str,
}

/// Blanks at the ends and runs of blanks: what people type and nobody sees.
const CLEAN_DESCRIPTION: &str = r#"name = "text-cleanup"
stage = "transform"
field = "DESCRIPTION"
direction = "both"
parameters = { trim = true, collapse = true }
"#;

const STORED_EQUALS_SENT: &str = r#"name = "stored-equals-sent"
stage = "post-validate"
direction = "to-dataverse"
"#;

const PLUGINS: &[Bound] = &[
    Bound {
        map: "currencies",
        why: "Names are compared by people, so blanks that nobody sees do not count.",
        binding: r#"name = "text-cleanup"
stage = "transform"
field = "NAME"
direction = "both"
parameters = { trim = true, collapse = true }
"#,
    },
    Bound {
        map: "currencies",
        why: "Whatever server logic does to a currency in Dataverse is found out.",
        binding: STORED_EQUALS_SENT,
    },
    Bound {
        map: "parties",
        why: "Names come from many hands.",
        binding: r#"name = "text-cleanup"
stage = "transform"
fields = ["ORGANIZATIONNAME", "KNOWNAS"]
direction = "both"
parameters = { trim = true, collapse = true }
"#,
    },
    Bound {
        map: "party-contacts",
        why: "Only an electronic address of type e-mail (192350002) has to be one.",
        binding: r#"name = "email-validator"
stage = "pre-validate"
fields = ["LOCATOR", "TYPE"]
direction = "to-dataverse"
parameters = { columns = ["LOCATOR"], when-column = "TYPE", when-values = ["192350002"] }
"#,
    },
    Bound { map: "customer-groups", why: "Descriptions come from many hands.", binding: CLEAN_DESCRIPTION },
    Bound { map: "vendor-groups", why: "Descriptions come from many hands.", binding: CLEAN_DESCRIPTION },
    Bound {
        map: "vendors",
        why: "What was ordered adds up to fractions that no currency can pay.",
        binding: r#"name = "money-rounding"
stage = "transform"
field = "CREDITLIMIT"
direction = "both"
parameters = { currency = "CURRENCYCODE" }
"#,
    },
    Bound {
        map: "customers-accounts",
        why: "An equal share of a territory's sales has fractions that no currency can pay.",
        binding: r#"name = "money-rounding"
stage = "transform"
field = "CREDITLIMIT"
direction = "both"
parameters = { currency = "SALESCURRENCYCODE" }
"#,
    },
    Bound {
        map: "customers-accounts",
        why: "A slip of the pen must not become a credit.",
        binding: r#"name = "credit-limit"
stage = "pre-validate"
fields = ["CREDITLIMIT"]
direction = "to-dataverse"
parameters = { amount = "CREDITLIMIT", limit = 100000000 }
"#,
    },
    Bound {
        map: "customers-accounts",
        why: "Whatever server logic does to an account in Dataverse is found out.",
        binding: STORED_EQUALS_SENT,
    },
    Bound {
        map: "products",
        why: "Names come from many hands.",
        binding: r#"name = "text-cleanup"
stage = "transform"
field = "PRODUCTNAME"
direction = "to-dataverse"
parameters = { trim = true, collapse = true }
"#,
    },
];

pub(super) fn write(source: &DataSource, folder: &Path, urls: &Urls) -> Result<PathBuf, DemoError> {
    let write = |path: PathBuf, text: &str| {
        std::fs::write(&path, text).map_err(|source| DemoError::Write { file: path.clone(), source }).map(|()| path)
    };
    let maps = folder.join("maps");
    std::fs::create_dir_all(&maps).map_err(|source| DemoError::Write { file: maps.clone(), source })?;
    for map in source.maps() {
        write(maps.join(format!("{}.json", map.facts.slug)), &map.json)?;
    }
    write(folder.join("dualwright.toml"), &text(source, urls))
}

fn text(source: &DataSource, urls: &Urls) -> String {
    let companies = source.companies().iter().map(|company| quoted(company)).collect::<Vec<_>>().join(", ");
    let mut text = format!(
        "# One link between an F&O and a Dataverse environment, fifteen table maps, and the standard plugins.\n\
         tenant = \"default\"\n\
         state = \"state\"\n\n\
         [link]\n\
         slug = \"demo\"\n\
         companies = [{companies}]\n\
         conflict_winner = \"finops\"\n\
         finops.url = {}\n\
         dataverse.url = {}\n",
        quoted(&urls.finops),
        quoted(&urls.dataverse)
    );
    for map in source.maps() {
        let key = map.facts.integration_key.iter().map(|path| quoted(path)).collect::<Vec<_>>().join(", ");
        // Writing to a string cannot fail.
        let _ = write!(
            text,
            "\n[[map]]\nslug = \"{slug}\"\nfile = \"maps/{slug}.json\"\nintegration_key = [{key}]\nfinops_collection = \"{}\"\n",
            map.facts.finops_collection,
            slug = map.facts.slug,
        );
        for bound in PLUGINS.iter().filter(|bound| bound.map == map.facts.slug) {
            let _ = write!(text, "\n# {}\n[[map.plugin]]\n{}", bound.why, bound.binding);
        }
    }
    text
}

fn quoted(text: &str) -> String {
    toml::Value::from(text).to_string()
}

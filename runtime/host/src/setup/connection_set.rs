//! The connection set of Dual-write as a file: two environments and the legal entities between them.
//!
//! Owns that JSON: the members of a connection set as the Data Integrator keeps it, without anything secret. What
//! dualwright has no use for is left out of a link and named.

use std::collections::{BTreeMap, BTreeSet};

use dualwright_core::SystemKind;
use dualwright_core::value::format_timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::record::LinkRecord;
use crate::config::Config;

/// How a connection set calls the two products.
const FINOPS: &str = "AX";
const DATAVERSE: &str = "CRM";

/// A connection set. Members that are not named here are kept as they came.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ConnectionSet {
    pub name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub display_name: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created_date_time: Option<String>,
    #[serde(default)]
    pub for_dual_write: bool,
    pub environments: BTreeMap<String, Environment>,
    pub dual_write_detail: Detail,
    #[serde(flatten)]
    pub more: Map<String, Value>,
}

/// One environment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Environment {
    #[serde(default)]
    pub name: String,
    /// `AX` or `CRM`.
    pub target_type: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub environment_display_name: Option<String>,
    pub direct_url: String,
    #[serde(flatten)]
    pub more: Map<String, Value>,
}

/// What Dual-write adds to a connection set.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Detail {
    pub legal_entity_mappings: LegalEntityMappings,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub conflict_resolution: Option<ConflictResolution>,
    #[serde(flatten)]
    pub more: Map<String, Value>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LegalEntityMappings {
    /// Names of environments.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub left_environment: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub right_environment: Option<String>,
    pub mappings: Vec<LegalEntityMapping>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LegalEntityMapping {
    pub left: LegalEntity,
    pub right: LegalEntity,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LegalEntity {
    pub name: String,
    #[serde(default)]
    pub id: String,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ConflictResolution {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub option: Option<Value>,
    /// The environment whose value stands.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub master: Option<String>,
}

/// What a connection set says of a link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Told {
    pub name: String,
    pub finops_url: String,
    pub dataverse_url: String,
    /// Lower case.
    pub companies: BTreeSet<String>,
    pub conflict_winner: Option<SystemKind>,
    /// Members with something in them that a link has no place for.
    pub left_out: Vec<String>,
}

impl ConnectionSet {
    /// The connection set of a configuration. `record` is what is known of the link, `names` what companies are called.
    #[must_use]
    pub fn of(config: &Config, record: Option<&LinkRecord>, names: &BTreeMap<String, String>) -> Self {
        let link = &config.link;
        let environment = |kind: SystemKind, target_type: &str, url: &str| {
            let name = format!("{}-{kind}", link.slug);
            let more = json!({
                "connectionSetName": link.slug, "schemas": [], "isDevInstance": false,
                "needsIntegrationKey": kind == SystemKind::Dataverse,
            });
            let Value::Object(more) = more else { unreachable!("it was written as an object above") };
            let environment = Environment {
                name: name.clone(),
                target_type: target_type.to_owned(),
                environment_display_name: Some(name.clone()),
                direct_url: url.trim_end_matches('/').to_owned(),
                more,
            };
            (name, environment)
        };
        let left = environment(SystemKind::Finops, FINOPS, link.finops.base.as_str());
        let right = environment(SystemKind::Dataverse, DATAVERSE, link.dataverse.base.as_str());
        let (left_name, right_name) = (left.0.clone(), right.0.clone());
        let master = match link.conflict_winner {
            SystemKind::Finops => left_name.clone(),
            SystemKind::Dataverse => right_name.clone(),
        };
        let mappings = link.companies.iter().map(|company| {
            let name = names.get(company).cloned().unwrap_or_else(|| company.to_uppercase());
            let entity = LegalEntity { name, id: company.to_uppercase() };
            LegalEntityMapping { left: entity.clone(), right: entity }
        });
        Self {
            name: link.slug.clone(),
            display_name: Some(link.slug.clone()),
            id: record.map(|record| record.id.to_string()),
            tenant: Some(config.tenant.clone()),
            created_date_time: record.map(|record| format_timestamp(record.created_at)),
            for_dual_write: true,
            environments: [left, right].into(),
            dual_write_detail: Detail {
                legal_entity_mappings: LegalEntityMappings {
                    left_environment: Some(left_name),
                    right_environment: Some(right_name),
                    mappings: mappings.collect(),
                },
                conflict_resolution: Some(ConflictResolution { option: None, master: Some(master) }),
                more: Map::new(),
            },
            more: Map::new(),
        }
    }

    #[must_use]
    pub fn to_json(&self) -> String {
        let mut text = serde_json::to_string_pretty(self).unwrap_or_default();
        text.push('\n');
        text
    }

    /// What the set says of a link, or everything that keeps it from being one.
    pub fn told(&self) -> Result<Told, Vec<String>> {
        let mut problems = Vec::new();
        let mut url_of = |target_type: &str, product: &str| {
            let mut own = self.environments.values().filter(|one| one.target_type.eq_ignore_ascii_case(target_type));
            match (own.next(), own.next()) {
                (Some(one), None) => one.direct_url.trim_end_matches('/').to_owned(),
                (None, _) => {
                    problems.push(format!("environments: none has targetType {target_type}, which is {product}"));
                    String::new()
                }
                (Some(_), Some(_)) => {
                    problems.push(format!("environments: several have targetType {target_type}; a link has one"));
                    String::new()
                }
            }
        };
        let finops_url = url_of(FINOPS, "F&O");
        let dataverse_url = url_of(DATAVERSE, "Dataverse");
        let mut companies = BTreeSet::new();
        for (position, mapping) in self.dual_write_detail.legal_entity_mappings.mappings.iter().enumerate() {
            let (left, right) = (code_of(&mapping.left), code_of(&mapping.right));
            if left == right {
                companies.insert(left);
            } else {
                problems.push(format!(
                    "dualWriteDetail.legalEntityMappings.mappings[{position}]: {left} of F&O is paired with {right} of \
                     Dataverse; a link pairs a company with itself"
                ));
            }
        }
        if companies.is_empty() && problems.is_empty() {
            problems.push("dualWriteDetail.legalEntityMappings.mappings names no legal entity".to_owned());
        }
        if !problems.is_empty() {
            return Err(problems);
        }
        let master = self.dual_write_detail.conflict_resolution.as_ref().and_then(|one| one.master.as_deref());
        let conflict_winner = master.and_then(|master| {
            let of_name = |one: &&Environment| one.name.eq_ignore_ascii_case(master);
            let named = self.environments.get(master).or_else(|| self.environments.values().find(of_name));
            let target_type = named.map_or(master, |one| one.target_type.as_str());
            [(FINOPS, SystemKind::Finops), (DATAVERSE, SystemKind::Dataverse)]
                .into_iter()
                .find(|(name, _)| name.eq_ignore_ascii_case(target_type))
                .map(|(_, kind)| kind)
        });
        Ok(Told {
            name: self.name.clone(),
            finops_url,
            dataverse_url,
            companies,
            conflict_winner,
            left_out: self.left_out(),
        })
    }

    fn left_out(&self) -> Vec<String> {
        let holds_something = |value: &Value| match value {
            Value::Null | Value::Bool(false) => false,
            Value::Array(list) => !list.is_empty(),
            Value::Object(members) => !members.is_empty(),
            Value::String(text) => !text.is_empty(),
            _ => true,
        };
        let of = |place: &str, more: &Map<String, Value>| {
            let own = more.iter().filter(|(_, value)| holds_something(value));
            own.map(|(name, _)| format!("{place}{name}")).collect::<Vec<_>>()
        };
        [of("", &self.more), of("dualWriteDetail.", &self.dual_write_detail.more)].concat()
    }
}

/// The id names the company where there is one that can: Dual-write also keeps the id of a business unit there.
fn code_of(entity: &LegalEntity) -> String {
    // `dataAreaId` has four characters.
    const CODE_CHARS_MAX: usize = 4;
    let is_code = |text: &str| {
        !text.is_empty() && text.len() <= CODE_CHARS_MAX && text.bytes().all(|byte| byte.is_ascii_alphanumeric())
    };
    let named = [entity.id.as_str(), entity.name.as_str()].into_iter().find(|text| is_code(text));
    named.unwrap_or(&entity.name).to_lowercase()
}

/// The `[link]` of a new `dualwright.toml`, with what is still to be written.
#[must_use]
pub fn config_text(told: &Told, tenant: &str, slug: &str) -> String {
    let quoted = |text: &str| Value::String(text.to_owned()).to_string();
    let companies = told.companies.iter().map(|company| quoted(company)).collect::<Vec<_>>().join(", ");
    let winner = told.conflict_winner.unwrap_or(SystemKind::Finops);
    format!(
        "tenant = {}\nstate = \"state\"\n\n[link]\nslug = {}\ncompanies = [{companies}]\nconflict_winner = \"{winner}\"\n\n\
         [link.finops]\nurl = {}\n# auth = {{ token_url = \"…\", client_id = \"…\", client_secret = {{ env = \"FINOPS_SECRET\" }}, \
         scope = \"…/.default\" }}\n\n[link.dataverse]\nurl = {}\n# auth = {{ token_url = \"…\", client_id = \"…\", client_secret = \
         {{ env = \"DATAVERSE_SECRET\" }}, scope = \"…/.default\" }}\n\n\
         # Add the maps of the link, for instance:\n# [[map]]\n# slug = \"currencies\"\n# file = \"maps/currencies.json\"\n\
         # integration_key = [\"isocurrencycode\"]\n",
        quoted(tenant),
        quoted(slug),
        quoted(&told.finops_url),
        quoted(&told.dataverse_url),
    )
}

/// A slug that a name of people becomes.
#[must_use]
pub fn slug_of(name: &str) -> String {
    let slug = name.to_lowercase().chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect::<String>();
    let slug = slug.trim_matches('-').chars().take(63).collect::<String>();
    if slug.is_empty() { "link".to_owned() } else { slug }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As the Data Integrator gives one out, with business units on the right.
    const SET: &str = r#"{
        "name": "Contoso Prod", "owner": "somebody", "tags": [], "forDualWrite": true,
        "environments": {
            "ce": {"name": "ce", "targetType": "CRM", "directUrl": "https://contoso.crm.dynamics.com/", "schemas": []},
            "fo": {"name": "fo", "targetType": "AX", "directUrl": "https://contoso.operations.dynamics.com"}},
        "dualWriteDetail": {
            "legalEntityMappings": {"leftEnvironment": "fo", "rightEnvironment": "ce", "mappings": [
                {"left": {"name": "USMF", "id": "USMF"}, "right": {"name": "USMF", "id": "5f0c6a52-0000-0000-0000-000000000000"}},
                {"left": {"name": "Contoso Germany", "id": "DEMF"}, "right": {"name": "Contoso Germany", "id": "DEMF"}}]},
            "conflictResolution": {"option": 1, "master": "ce"},
            "alertSettings": [{"name": "many errors"}], "errorTableNames": []}}"#;

    #[test]
    fn a_set_of_dual_write_tells_a_link() {
        let set: ConnectionSet = serde_json::from_str(SET).expect("reads");
        let told = set.told().expect("it is one");
        assert_eq!(told.finops_url, "https://contoso.operations.dynamics.com");
        assert_eq!(told.dataverse_url, "https://contoso.crm.dynamics.com");
        assert_eq!(told.companies, ["demf".to_owned(), "usmf".to_owned()].into());
        assert_eq!(told.conflict_winner, Some(SystemKind::Dataverse));
        assert_eq!(told.left_out, ["owner", "dualWriteDetail.alertSettings"]);
        let text = config_text(&told, "default", &slug_of(&told.name));
        for part in ["slug = \"contoso-prod\"", "companies = [\"demf\", \"usmf\"]", "conflict_winner = \"dataverse\""] {
            assert!(text.contains(part), "{part} is not in\n{text}");
        }
        let again: ConnectionSet = serde_json::from_str(&set.to_json()).expect("reads again");
        assert_eq!(again, set, "nothing is lost on the way");
    }

    #[test]
    fn what_is_no_link_is_said_at_once() {
        for (from, to, said) in [
            ("\"CRM\"", "\"Other\"", "none has targetType CRM"),
            ("\"AX\"", "\"CRM\"", "several have targetType CRM"),
            ("\"right\": {\"name\": \"USMF\"", "\"right\": {\"name\": \"GBSI\"", "usmf of F&O is paired with gbsi"),
        ] {
            let set: ConnectionSet = serde_json::from_str(&SET.replacen(from, to, 1)).expect("reads");
            let problems = set.told().expect_err("refused").join("\n");
            assert!(problems.contains(said), "{said} is not in {problems}");
        }
    }

    #[test]
    fn names_become_slugs() {
        for (name, slug) in [("Contoso Prod", "contoso-prod"), ("  ", "link"), ("a_B", "a-b"), ("-x-", "x")] {
            assert_eq!(slug_of(name), slug);
        }
    }
}

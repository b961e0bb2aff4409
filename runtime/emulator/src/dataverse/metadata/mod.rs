//! Tables as Dataverse describes them, and how they are made: `EntityDefinitions` and its kin, and `$metadata`.
//!
//! Owns which documents there are and who answers for them. Everything in them comes from the catalogue, and what is
//! made through them goes there.

mod csdl;
mod read;
mod shape;
mod write;

use dualwright_odata::url::Resource;
use uuid::Uuid;

pub(super) use csdl::{csdl, edm_type};
pub(super) use read::read;
pub(super) use write::write;

const NAMESPACE: &str = "Microsoft.Dynamics.CRM.";

/// Whether a path leads to definitions, and not to rows.
pub(super) fn is_about_definitions(resource: &Resource) -> bool {
    resource.segments.first().is_some_and(|first| {
        let name = first.name.strip_prefix(NAMESPACE).unwrap_or(&first.name);
        matches!(name, "EntityDefinitions" | "RelationshipDefinitions" | "GlobalOptionSetDefinitions")
            || write::is_action(name)
    })
}

/// The id of a definition: the same for the same name in every store, so that clients can keep it.
fn metadata_id(name: &str) -> Uuid {
    Uuid::new_v5(&Uuid::NAMESPACE_OID, name.as_bytes())
}

fn attribute_id(table: &str, attribute: &str) -> Uuid {
    metadata_id(&format!("{table}.{attribute}"))
}

fn key_id(table: &str, key: &str) -> Uuid {
    metadata_id(&format!("{table} key {key}"))
}

fn relationship_id(schema_name: &str) -> Uuid {
    metadata_id(&format!("relationship {schema_name}"))
}

fn choice_id(name: &str) -> Uuid {
    metadata_id(&format!("choice {name}"))
}

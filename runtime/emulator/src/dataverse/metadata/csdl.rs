//! `$metadata`: the service as a strict OData client reads it (CSDL 4.0).
//!
//! Owns the XML of types, relationships, functions, actions and sets. Every name that is referred to is defined in the
//! document itself, because clients refuse a document with a loose end.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use dualwright_odata::batch::Response;

use crate::catalogue::{Catalogue, Column, OWNER, Table};
use crate::dataverse::system;
use crate::definition::ColumnKind;
use crate::exchange;

/// Functions and actions that are answered: parameters with their types, and what comes back.
struct Operation {
    name: &'static str,
    parameters: &'static [(&'static str, &'static str)],
    returns: Option<&'static str>,
}

const FUNCTIONS: &[Operation] = &[
    Operation { name: "WhoAmI", parameters: &[], returns: Some("mscrm.WhoAmIResponse") },
    Operation { name: "RetrieveVersion", parameters: &[], returns: Some("mscrm.RetrieveVersionResponse") },
    Operation {
        name: "RetrieveAvailableLanguages",
        parameters: &[],
        returns: Some("mscrm.RetrieveAvailableLanguagesResponse"),
    },
    Operation {
        name: "RetrieveCurrentOrganization",
        parameters: &[("AccessType", "mscrm.EndpointAccessType")],
        returns: Some("mscrm.RetrieveCurrentOrganizationResponse"),
    },
    Operation {
        name: "RetrieveTotalRecordCount",
        parameters: &[("EntityNames", "Collection(Edm.String)")],
        returns: Some("mscrm.RetrieveTotalRecordCountResponse"),
    },
];

const ACTIONS: &[Operation] = &[
    Operation { name: "PublishXml", parameters: &[("ParameterXml", "Edm.String")], returns: None },
    Operation { name: "PublishAllXml", parameters: &[], returns: None },
    Operation {
        name: "ReactivateEntityKey",
        parameters: &[("EntityLogicalName", "Edm.String"), ("EntityKeyLogicalName", "Edm.String")],
        returns: None,
    },
];

/// Bound to the collection of every table.
const BULK: &[(&str, Option<&str>)] =
    &[("CreateMultiple", Some("mscrm.CreateMultipleResponse")), ("UpdateMultiple", None), ("UpsertMultiple", None)];

const COMPLEX_TYPES: &[(&str, &[(&str, &str)])] = &[
    ("WhoAmIResponse", &[("BusinessUnitId", "Edm.Guid"), ("UserId", "Edm.Guid"), ("OrganizationId", "Edm.Guid")]),
    ("RetrieveVersionResponse", &[("Version", "Edm.String")]),
    ("RetrieveAvailableLanguagesResponse", &[("LocaleIds", "Collection(Edm.Int32)")]),
    ("RetrieveCurrentOrganizationResponse", &[("Detail", "mscrm.OrganizationDetail")]),
    (
        "OrganizationDetail",
        &[
            ("OrganizationId", "Edm.Guid"),
            ("FriendlyName", "Edm.String"),
            ("OrganizationVersion", "Edm.String"),
            ("EnvironmentId", "Edm.String"),
            ("DatacenterId", "Edm.Guid"),
            ("Geo", "Edm.String"),
            ("TenantId", "Edm.String"),
            ("UrlName", "Edm.String"),
            ("UniqueName", "Edm.String"),
            ("Endpoints", "mscrm.EndpointCollection"),
            ("State", "mscrm.OrganizationState"),
        ],
    ),
    (
        "EndpointCollection",
        &[
            ("Count", "Edm.Int32"),
            ("IsReadOnly", "Edm.Boolean"),
            ("Keys", "Collection(mscrm.EndpointType)"),
            ("Values", "Collection(Edm.String)"),
        ],
    ),
    ("RetrieveTotalRecordCountResponse", &[("EntityRecordCountCollection", "mscrm.EntityRecordCountCollection")]),
    (
        "EntityRecordCountCollection",
        &[
            ("Count", "Edm.Int32"),
            ("IsReadOnly", "Edm.Boolean"),
            ("Keys", "Collection(Edm.String)"),
            ("Values", "Collection(Edm.Int64)"),
        ],
    ),
    ("CreateMultipleResponse", &[("Ids", "Collection(Edm.Guid)")]),
];

const ENUM_TYPES: &[(&str, &[(&str, i32)])] = &[
    ("EndpointAccessType", &[("Default", 0), ("Internet", 1), ("Intranet", 2)]),
    ("EndpointType", &[("OrganizationService", 0), ("OrganizationDataService", 1), ("WebApplication", 2)]),
    ("OrganizationState", &[("Enabled", 0), ("Disabled", 1)]),
];

/// The whole document; with `annotated`, descriptions and what can only be read stand with each property.
pub(in crate::dataverse) fn csdl(catalogue: &Catalogue, annotated: bool) -> Response {
    let mut xml = String::with_capacity(64 * 1024);
    xml.push_str(
        "<?xml version=\"1.0\" encoding=\"utf-8\"?><edmx:Edmx Version=\"4.0\" \
         xmlns:edmx=\"http://docs.oasis-open.org/odata/ns/edmx\">",
    );
    for (name, uri) in [
        ("Org.OData.Core.V1", "https://oasis-tcs.github.io/odata-vocabularies/vocabularies/Org.OData.Core.V1.xml"),
        ("OData.Community.Keys.V1", "http://vocabularies.odata.org/OData.Community.Keys.V1"),
    ] {
        let _ = write!(xml, "<edmx:Reference Uri=\"{uri}\"><edmx:Include Namespace=\"{name}\"/></edmx:Reference>");
    }
    xml.push_str(
        "<edmx:DataServices><Schema Namespace=\"Microsoft.Dynamics.CRM\" Alias=\"mscrm\" \
         xmlns=\"http://docs.oasis-open.org/odata/ns/edm\"><EntityType Name=\"crmbaseentity\" Abstract=\"true\"/>",
    );
    principal(&mut xml, catalogue);
    for table in catalogue.tables() {
        entity_type(&mut xml, catalogue, table, annotated);
    }
    for (name, members) in ENUM_TYPES {
        let _ = write!(xml, "<EnumType Name=\"{name}\">");
        for (member, value) in *members {
            let _ = write!(xml, "<Member Name=\"{member}\" Value=\"{value}\"/>");
        }
        xml.push_str("</EnumType>");
    }
    for (name, properties) in COMPLEX_TYPES {
        let _ = write!(xml, "<ComplexType Name=\"{name}\">");
        for (property, kind) in *properties {
            let nullable =
                if kind.starts_with("Collection(") || matches!(*kind, "Edm.Guid" | "Edm.Int32" | "Edm.Boolean") {
                    " Nullable=\"false\""
                } else {
                    ""
                };
            let _ = write!(xml, "<Property Name=\"{property}\" Type=\"{kind}\"{nullable}/>");
        }
        xml.push_str("</ComplexType>");
    }
    operations(&mut xml, catalogue);
    container(&mut xml, catalogue);
    xml.push_str("</Schema></edmx:DataServices></edmx:Edmx>");
    let mut response = exchange::no_content(200);
    response.headers.push(("Content-Type".into(), "application/xml".into()));
    response.body = xml.into_bytes();
    response
}

/// Users and teams are owners: one base type with the key that both inherit, as `ownerid` points to either.
fn principal(xml: &mut String, catalogue: &Catalogue) {
    xml.push_str(
        "<EntityType Name=\"principal\" BaseType=\"mscrm.crmbaseentity\"><Key><PropertyRef Name=\"ownerid\"/></Key>\
         <Property Name=\"ownerid\" Type=\"Edm.Guid\" Nullable=\"false\"/>",
    );
    for relation in catalogue.relations_to(OWNER) {
        let _ = write!(
            xml,
            "<NavigationProperty Name=\"{}\" Type=\"Collection(mscrm.{})\" Partner=\"{}\"/>",
            relation.collection, relation.referencing, relation.navigation
        );
    }
    xml.push_str("</EntityType>");
}

fn is_principal(table: &Table) -> bool {
    matches!(table.name(), system::USER | system::TEAM)
}

fn entity_type(xml: &mut String, catalogue: &Catalogue, table: &Table, annotated: bool) {
    let key = table.definition.primary_id.as_deref().unwrap_or_default();
    // Writing to a string cannot fail, and names hold nothing that XML would have to escape.
    if is_principal(table) {
        let _ = write!(xml, "<EntityType Name=\"{}\" BaseType=\"mscrm.principal\">", table.name());
    } else {
        let _ = write!(
            xml,
            "<EntityType Name=\"{}\" BaseType=\"mscrm.crmbaseentity\"><Key><PropertyRef Name=\"{key}\"/></Key>",
            table.name()
        );
    }
    for (at, column) in table.columns.iter().enumerate() {
        property(xml, table, at, column, annotated);
    }
    let mut taken = table.columns.iter().map(|column| column.property.as_str()).collect::<BTreeSet<_>>();
    for column in &table.columns {
        let definition = &column.definition;
        let mut names = BTreeSet::new();
        for (target, navigation) in crate::catalogue::targets(definition) {
            if !names.insert(navigation) || !taken.insert(navigation) {
                continue;
            }
            let is_owner = definition.name == "ownerid" && definition.targets.len() > 1;
            let (target_type, referenced) = match catalogue.by_name(&target.table) {
                _ if is_owner => ("principal", "ownerid".to_owned()),
                Some(known) if is_principal(known) => (known.name(), "ownerid".to_owned()),
                Some(known) => (known.name(), known.definition.primary_id.clone().unwrap_or_default()),
                None => continue,
            };
            let partner = catalogue
                .relations_to(if is_owner { OWNER } else { target.table.as_str() })
                .iter()
                .find(|one| one.referencing == table.name() && one.navigation == navigation)
                .map(|relation| format!(" Partner=\"{}\"", relation.collection))
                .unwrap_or_default();
            let nullable = if definition.required { "false" } else { "true" };
            let _ = write!(
                xml,
                "<NavigationProperty Name=\"{navigation}\" Type=\"mscrm.{target_type}\" Nullable=\"{nullable}\"{partner}>\
                 <ReferentialConstraint Property=\"{}\" ReferencedProperty=\"{referenced}\"/></NavigationProperty>",
                column.property
            );
        }
    }
    for relation in catalogue.relations_to(table.name()) {
        if taken.insert(&relation.collection) {
            let _ = write!(
                xml,
                "<NavigationProperty Name=\"{}\" Type=\"Collection(mscrm.{})\" Partner=\"{}\"/>",
                relation.collection, relation.referencing, relation.navigation
            );
        }
    }
    for crossing in catalogue.crossings_of(table.name()) {
        if taken.insert(&crossing.name) {
            let partner = catalogue
                .crossings_of(&crossing.other)
                .iter()
                .find(|other| other.schema_name == crossing.schema_name && other.own_column == crossing.other_column);
            let _ = write!(
                xml,
                "<NavigationProperty Name=\"{}\" Type=\"Collection(mscrm.{})\" Partner=\"{}\"/>",
                crossing.name,
                crossing.other,
                partner.map_or(crossing.name.as_str(), |partner| partner.name.as_str())
            );
        }
    }
    if annotated && let Some(text) = &table.definition.description {
        describe(xml, text);
    }
    alternate_keys(xml, table);
    xml.push_str("</EntityType>");
}

fn property(xml: &mut String, table: &Table, at: usize, column: &Column, annotated: bool) {
    let definition = &column.definition;
    // What a principal inherits is not said again.
    if is_principal(table) && column.property == "ownerid" {
        return;
    }
    let kind = edm_type(definition.kind);
    let _ = write!(xml, "<Property Name=\"{}\" Type=\"{kind}\"", column.property);
    if Some(at) == table.primary_id && !is_principal(table) {
        xml.push_str(" Nullable=\"false\"");
    }
    match definition.kind {
        ColumnKind::Text => {
            if let Some(longest) = definition.max_length {
                let _ = write!(xml, " MaxLength=\"{longest}\"");
            }
        }
        ColumnKind::Memo => {
            let _ = write!(xml, " MaxLength=\"{}\"", definition.max_length.unwrap_or(1_048_576));
        }
        ColumnKind::Decimal | ColumnKind::Money => xml.push_str(" Scale=\"Variable\""),
        _ => {}
    }
    let is_computed = definition.read_only || definition.kind == ColumnKind::Lookup;
    if !annotated || (definition.description.is_none() && !is_computed) {
        xml.push_str("/>");
        return;
    }
    xml.push('>');
    if let Some(text) = &definition.description {
        describe(xml, text);
    }
    if is_computed {
        xml.push_str(
            "<Annotation Term=\"Org.OData.Core.V1.Computed\" Bool=\"true\"/>\
             <Annotation Term=\"Org.OData.Core.V1.Permissions\">\
             <EnumMember>Org.OData.Core.V1.PermissionType/Read</EnumMember></Annotation>",
        );
    }
    xml.push_str("</Property>");
}

fn describe(xml: &mut String, text: &str) {
    let text = text.replace('&', "&amp;").replace('<', "&lt;").replace('"', "&quot;");
    let _ = write!(xml, "<Annotation Term=\"Org.OData.Core.V1.Description\" String=\"{text}\"/>");
}

fn alternate_keys(xml: &mut String, table: &Table) {
    if table.alternate_keys.is_empty() {
        return;
    }
    xml.push_str("<Annotation Term=\"OData.Community.Keys.V1.AlternateKeys\"><Collection>");
    for (_, columns) in &table.alternate_keys {
        xml.push_str(
            "<Record Type=\"OData.Community.Keys.V1.AlternateKey\"><PropertyValue Property=\"Key\"><Collection>",
        );
        for at in columns {
            let name = &table.columns[*at].property;
            let _ = write!(
                xml,
                "<Record Type=\"OData.Community.Keys.V1.PropertyRef\"><PropertyValue Property=\"Alias\" String=\"{name}\"/>\
                 <PropertyValue Property=\"Name\" PropertyPath=\"{name}\"/></Record>"
            );
        }
        xml.push_str("</Collection></PropertyValue></Record>");
    }
    xml.push_str("</Collection></Annotation>");
}

fn operations(xml: &mut String, catalogue: &Catalogue) {
    let parameters = |xml: &mut String, operation: &Operation| {
        for (name, kind) in operation.parameters {
            let _ = write!(xml, "<Parameter Name=\"{name}\" Type=\"{kind}\" Nullable=\"false\"/>");
        }
        if let Some(kind) = operation.returns {
            let _ = write!(xml, "<ReturnType Type=\"{kind}\" Nullable=\"false\"/>");
        }
    };
    for function in FUNCTIONS {
        let _ = write!(xml, "<Function Name=\"{}\">", function.name);
        parameters(xml, function);
        xml.push_str("</Function>");
    }
    for action in ACTIONS {
        let _ = write!(xml, "<Action Name=\"{}\">", action.name);
        parameters(xml, action);
        xml.push_str("</Action>");
    }
    for table in catalogue.tables() {
        for (name, returns) in BULK {
            let of_rows = format!("Collection(mscrm.{})", table.name());
            let _ = write!(
                xml,
                "<Action Name=\"{name}\" IsBound=\"true\"><Parameter Name=\"entityset\" Type=\"{of_rows}\" \
                 Nullable=\"false\"/><Parameter Name=\"Targets\" Type=\"{of_rows}\" Nullable=\"false\"/>"
            );
            if let Some(kind) = returns {
                let _ = write!(xml, "<ReturnType Type=\"{kind}\" Nullable=\"false\"/>");
            }
            xml.push_str("</Action>");
        }
    }
}

fn container(xml: &mut String, catalogue: &Catalogue) {
    xml.push_str("<EntityContainer Name=\"System\">");
    for table in catalogue.tables() {
        let _ = write!(xml, "<EntitySet Name=\"{}\" EntityType=\"mscrm.{}\">", table.set(), table.name());
        let mut bound = table.columns.iter().map(|column| column.property.as_str()).collect::<BTreeSet<_>>();
        let bind = |xml: &mut String, path: &str, set: &str| {
            let _ = write!(xml, "<NavigationPropertyBinding Path=\"{path}\" Target=\"{set}\"/>");
        };
        for column in &table.columns {
            let definition = &column.definition;
            // An owner is in one of two sets, so there is no one set to bind to.
            let is_owner = definition.name == "ownerid" && definition.targets.len() > 1;
            for (target, navigation) in crate::catalogue::targets(definition).filter(|_| !is_owner) {
                if let Some(target) = catalogue.by_name(&target.table)
                    && bound.insert(navigation)
                {
                    bind(xml, navigation, target.set());
                }
            }
        }
        for relation in catalogue.relations_to(table.name()) {
            if let Some(target) = catalogue.by_name(&relation.referencing)
                && bound.insert(&relation.collection)
            {
                bind(xml, &relation.collection, target.set());
            }
        }
        for crossing in catalogue.crossings_of(table.name()) {
            if let Some(target) = catalogue.by_name(&crossing.other)
                && bound.insert(&crossing.name)
            {
                bind(xml, &crossing.name, target.set());
            }
        }
        xml.push_str("</EntitySet>");
    }
    for function in FUNCTIONS {
        let _ = write!(xml, "<FunctionImport Name=\"{0}\" Function=\"mscrm.{0}\"/>", function.name);
    }
    for action in ACTIONS {
        let _ = write!(xml, "<ActionImport Name=\"{0}\" Action=\"mscrm.{0}\"/>", action.name);
    }
    xml.push_str("</EntityContainer>");
}

pub(in crate::dataverse) const fn edm_type(kind: ColumnKind) -> &'static str {
    match kind {
        ColumnKind::Text | ColumnKind::Memo | ColumnKind::MultiChoice => "Edm.String",
        ColumnKind::Int | ColumnKind::Choice | ColumnKind::Enum => "Edm.Int32",
        ColumnKind::Bigint => "Edm.Int64",
        ColumnKind::Decimal | ColumnKind::Money => "Edm.Decimal",
        ColumnKind::Double => "Edm.Double",
        ColumnKind::Boolean => "Edm.Boolean",
        ColumnKind::Datetime => "Edm.DateTimeOffset",
        ColumnKind::Date => "Edm.Date",
        ColumnKind::Guid | ColumnKind::Lookup => "Edm.Guid",
    }
}

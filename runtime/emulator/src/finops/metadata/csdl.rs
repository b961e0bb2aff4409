//! `/data/$metadata`: the service as CSDL 4.0.
//!
//! Owns the XML. Types, keys, nullability and annotations are as F&O writes them: numbers, moments and keys are never
//! null, and what a client may do with a field stands in annotations of `Microsoft.Dynamics.OData.Core.V1`.

use std::fmt::Write as _;

use dualwright_odata::batch::Response;

use super::{edm_type, enumeration_of, is_nullable};
use crate::catalogue::{Catalogue, Column, Table};
use crate::definition::ColumnKind;
use crate::exchange;
use crate::finops::NAMESPACE;
use crate::finops::package::described;
use crate::finops::refusal::type_name;
use crate::finops::write::is_read_only;
use crate::relation::{Relation, Way};

const TERMS: &str = "Microsoft.Dynamics.OData.Core.V1";

pub(in crate::finops) fn csdl(catalogue: &Catalogue) -> Response {
    let mut xml = format!(
        "<?xml version=\"1.0\" encoding=\"utf-8\"?><edmx:Edmx Version=\"4.0\" \
         xmlns:edmx=\"http://docs.oasis-open.org/odata/ns/edmx\"><edmx:DataServices>\
         <Schema Namespace=\"{NAMESPACE}\" xmlns=\"http://docs.oasis-open.org/odata/ns/edm\">"
    );
    // Writing to a string cannot fail.
    for (name, members) in &catalogue.enums {
        let _ = write!(xml, "<EnumType Name=\"{}\">", escaped(name));
        for member in members {
            let symbol = escaped(&member.name);
            let _ = write!(xml, "<Member Name=\"{symbol}\" Value=\"{}\">", member.value);
            label(&mut xml, &member.name);
            xml.push_str("</Member>");
        }
        xml.push_str("</EnumType>");
    }
    for table in catalogue.tables() {
        entity_type(&mut xml, catalogue, table);
    }
    actions(&mut xml, catalogue);
    xml.push_str("<EntityContainer Name=\"Resources\">");
    for table in catalogue.tables() {
        let _ = write!(xml, "<EntitySet Name=\"{}\" EntityType=\"{}\"", table.set(), type_name(table.name()));
        let ways = &catalogue.relations_of(table).ways;
        if ways.is_empty() {
            xml.push_str("/>");
            continue;
        }
        xml.push('>');
        for (name, way) in ways {
            let target = match way {
                Way::To(number) => catalogue.relations_of(table).to[*number].target.set(),
                Way::From(other, _) => other.set(),
            };
            let _ = write!(xml, "<NavigationPropertyBinding Path=\"{}\" Target=\"{target}\"/>", escaped(name));
        }
        xml.push_str("</EntitySet>");
    }
    xml.push_str("</EntityContainer></Schema></edmx:DataServices></edmx:Edmx>");
    let mut response = exchange::no_content(200);
    response.headers.push(("Content-Type".into(), "application/xml".into()));
    response.body = xml.into_bytes();
    response
}

/// Actions are bound to a collection: they are posted to a set.
fn actions(xml: &mut String, catalogue: &Catalogue) {
    let (set, actions) = described();
    let Some(table) = catalogue.by_set(set) else { return };
    for action in actions {
        let _ = write!(
            xml,
            "<Action Name=\"{}\" IsBound=\"true\"><Parameter Name=\"{}\" Type=\"Collection({})\"/>",
            action.name,
            table.name(),
            type_name(table.name())
        );
        for (name, of) in action.parameters {
            let _ = write!(xml, "<Parameter Name=\"{name}\" Type=\"{of}\"/>");
        }
        if let Some(of) = action.returns {
            let _ = write!(xml, "<ReturnType Type=\"{of}\"/>");
        }
        xml.push_str("</Action>");
    }
}

fn entity_type(xml: &mut String, catalogue: &Catalogue, table: &Table) {
    let _ = write!(xml, "<EntityType Name=\"{}\"><Key>", table.name());
    for at in &table.key {
        let _ = write!(xml, "<PropertyRef Name=\"{}\"/>", table.columns[*at].property);
    }
    xml.push_str("</Key>");
    for (at, column) in table.columns.iter().enumerate() {
        property(xml, table, at, column);
    }
    for (name, way) in &catalogue.relations_of(table).ways {
        navigation(xml, catalogue, table, name, way);
    }
    label(xml, crate::finops::refusal::entity_label(table));
    if is_read_only(table) {
        flag(xml, "IsReadOnly", true);
    }
    xml.push_str("</EntityType>");
}

fn property(xml: &mut String, table: &Table, at: usize, column: &Column) {
    let definition = &column.definition;
    let is_key = table.key.contains(&at);
    let kind = match definition.kind {
        ColumnKind::Enum | ColumnKind::Choice => type_name(enumeration_of(definition)),
        other => edm_type(other).to_owned(),
    };
    let nullable = if is_key || !is_nullable(definition.kind) { " Nullable=\"false\"" } else { "" };
    let _ = write!(xml, "<Property Name=\"{}\" Type=\"{kind}\"{nullable}>", column.property);
    let ax_type = super::data_type(definition.kind);
    let _ = write!(xml, "<Annotation Term=\"{TERMS}.AXType\" EnumMember=\"{TERMS}.AXType/{ax_type}\"/>");
    if definition.required {
        flag(xml, "IsRequired", true);
    }
    if definition.read_only || is_key {
        flag(xml, "AllowEdit", false);
    }
    if definition.read_only {
        flag(xml, "AllowEditOnCreate", false);
    }
    label(xml, crate::finops::refusal::field_label(table, at));
    xml.push_str("</Property>");
}

fn navigation(xml: &mut String, catalogue: &Catalogue, table: &Table, name: &str, way: &Way) {
    // The same relation from the other side, where that has a name too.
    let partner = |other: &Table, is_partner: &dyn Fn(&Way) -> bool| {
        let ways = &catalogue.relations_of(other).ways;
        ways.iter()
            .find(|(_, way)| is_partner(way))
            .map(|(name, _)| format!(" Partner=\"{}\"", escaped(name)))
            .unwrap_or_default()
    };
    let name = escaped(name);
    match way {
        Way::To(number) => {
            let relation = &catalogue.relations_of(table).to[*number];
            let target = &relation.target;
            let partner = partner(
                target,
                &|way| matches!(way, Way::From(from, other) if from.number == table.number && other == number),
            );
            let of = type_name(target.name());
            let _ = write!(xml, "<NavigationProperty Name=\"{name}\" Type=\"{of}\"{partner}>");
            for (own, other) in constraints(table, relation) {
                let _ = write!(xml, "<ReferentialConstraint Property=\"{own}\" ReferencedProperty=\"{other}\"/>");
            }
            xml.push_str("</NavigationProperty>");
        }
        Way::From(from, number) => {
            let partner = partner(from, &|way| matches!(way, Way::To(other) if other == number));
            let of = type_name(from.name());
            let _ = write!(xml, "<NavigationProperty Name=\"{name}\" Type=\"Collection({of})\"{partner}/>");
        }
    }
}

/// Names of the columns that a relation holds together: of the row that refers, and of the other.
pub(super) fn constraints<'a>(from: &'a Table, relation: &'a Relation) -> impl Iterator<Item = (&'a str, &'a str)> {
    relation
        .pairs
        .iter()
        .chain(&relation.company)
        .map(|(own, other)| (from.columns[*own].property.as_str(), relation.target.columns[*other].property.as_str()))
}

fn flag(xml: &mut String, term: &str, is: bool) {
    let _ = write!(xml, "<Annotation Term=\"{TERMS}.{term}\" Bool=\"{is}\"/>");
}

fn label(xml: &mut String, text: &str) {
    let _ = write!(xml, "<Annotation Term=\"{TERMS}.LabelId\" String=\"{}\"/>", escaped(text));
}

fn escaped(text: &str) -> std::borrow::Cow<'_, str> {
    if text.contains(['&', '<', '>', '"', '\'']) {
        let text = text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
        text.replace('"', "&quot;").replace('\'', "&apos;").into()
    } else {
        text.into()
    }
}

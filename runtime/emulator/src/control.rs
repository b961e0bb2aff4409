//! Control information: how much an answer says about itself.
//!
//! Owns `odata.metadata` of the media type (OData JSON Format 4.0, 3.1). An answer is written with the minimum, and here
//! that is taken out of it or the rest is added: types, ids, edit links and links to what a row is related to.

use std::fmt::Write as _;

use dualwright_odata::batch::{Request, Response, header};
use dualwright_odata::escape::component;
use dualwright_odata::url;

use crate::Dialect;
use crate::batch::Site;
use crate::body::{self, Members};
use crate::catalogue::{Catalogue, Table};
use crate::cell;
use crate::definition::ColumnKind;
use crate::relation::Way;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Level {
    None,
    Minimal,
    Full,
}

impl Level {
    /// What the caller asks for: on F&O in `$format` before the header.
    pub fn of(dialect: Dialect, request: &Request) -> Self {
        let format = match dialect {
            Dialect::Finops if request.url.contains("format=") => url::parse(&request.url).ok(),
            _ => None,
        };
        let media = format.as_ref().and_then(|resource| resource.option("$format"));
        let Some(media) = media.or_else(|| header(&request.headers, "accept")) else { return Self::Minimal };
        let first = media.split(',').find(|media| media.contains("json")).unwrap_or_default();
        let named = first.split(';').find_map(|parameter| parameter.trim().strip_prefix("odata.metadata="));
        match named.map(|name| name.trim().trim_matches('"')) {
            Some("none") => Self::None,
            Some("full") => Self::Full,
            _ => Self::Minimal,
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Minimal => "minimal",
            Self::Full => "full",
        }
    }

    /// Takes out or adds what an answer in this level has less or more.
    pub fn apply(self, site: &Site, catalogue: &Catalogue, response: &mut Response) {
        const MINIMAL: &str = "odata.metadata=minimal";
        let media = response.headers.iter_mut().find(|(name, _)| name.eq_ignore_ascii_case("content-type"));
        let Some((_, media)) = media.filter(|(_, media)| self != Self::Minimal && media.contains(MINIMAL)) else {
            return;
        };
        let mut out = String::with_capacity(response.body.len() * 2);
        let Ok(text) = std::str::from_utf8(&response.body) else { return };
        let is_written = match self {
            Self::None => write_bare(&mut out, text).is_some(),
            Self::Minimal => return,
            Self::Full => Full { site, catalogue }.document(&mut out, text).is_some(),
        };
        if is_written {
            *media = media.replace(MINIMAL, &format!("odata.metadata={}", self.name()));
            response.body = out.into_bytes();
        }
    }
}

fn is_object(json: &str) -> bool {
    json.starts_with('{')
}

/// The elements of a list, each in its own JSON.
fn elements(json: &str) -> Option<Vec<&str>> {
    let all = body::read::<Vec<&serde_json::value::RawValue>>(json.as_bytes()).ok()?;
    Some(all.into_iter().map(serde_json::value::RawValue::get).collect())
}

fn push_member(out: &mut String, is_first: &mut bool, name: &str) {
    out.push_str(if *is_first { "" } else { "," });
    *is_first = false;
    out.push_str(&cell::quoted(name));
    out.push(':');
}

/// JSON without control information but what a client needs to go on: links to further rows, and counts.
fn write_bare(out: &mut String, json: &str) -> Option<()> {
    match json.as_bytes().first()? {
        b'{' => {
            let mut is_first = true;
            out.push('{');
            for (name, value) in Members::parse(json.as_bytes()).ok()?.0 {
                let control = name.split_once('@').and_then(|(_, control)| control.strip_prefix("odata."));
                if control.is_some_and(|control| !matches!(control, "nextLink" | "deltaLink" | "count")) {
                    continue;
                }
                push_member(out, &mut is_first, &name);
                write_bare(out, value)?;
            }
            out.push('}');
        }
        b'[' => {
            out.push('[');
            for (number, element) in elements(json)?.into_iter().enumerate() {
                out.push_str(if number > 0 { "," } else { "" });
                write_bare(out, element)?;
            }
            out.push(']');
        }
        _ => out.push_str(json),
    }
    Some(())
}

/// Writes documents with all control information.
struct Full<'a> {
    site: &'a Site,
    catalogue: &'a Catalogue,
}

impl Full<'_> {
    /// A document whose context names a set, its rows or one of them; any other is as it was.
    fn document(&self, out: &mut String, json: &str) -> Option<()> {
        let members = Members::parse(json.as_bytes()).ok()?;
        let context = members.get("@odata.context").and_then(cell::text_of)?;
        let fragment = context.split_once("$metadata#").map_or("", |(_, fragment)| fragment);
        let set = fragment.split(['(', '/']).next().unwrap_or_default();
        let table = self.catalogue.by_set(set);
        if let Some(table) = table.filter(|_| fragment.ends_with("/$entity")) {
            return self.row(out, table, members);
        }
        // `#accounts(6a8f…)/name` is a value, and `#Collection($ref)` no set.
        let is_list = members.get("value").is_some_and(|value| value.starts_with('['));
        let mut is_first = true;
        out.push('{');
        for (name, value) in members.0 {
            push_member(out, &mut is_first, &name);
            match table.filter(|_| is_list && name == "value") {
                Some(table) => self.list(out, table, value)?,
                None => out.push_str(value),
            }
        }
        out.push('}');
        Some(())
    }

    fn list(&self, out: &mut String, table: &Table, json: &str) -> Option<()> {
        out.push('[');
        for (number, element) in elements(json)?.into_iter().enumerate() {
            out.push_str(if number > 0 { "," } else { "" });
            match is_object(element) {
                true => self.row(out, table, Members::parse(element.as_bytes()).ok()?)?,
                false => out.push_str(element),
            }
        }
        out.push(']');
        Some(())
    }

    fn row(&self, out: &mut String, table: &Table, members: Members<'_>) -> Option<()> {
        let path = self.path(table, &members);
        let root = format!("{}{}", self.site.base, self.site.root);
        let mut is_first = true;
        let own = |out: &mut String, is_first: &mut bool| {
            push_member(out, is_first, "@odata.type");
            out.push_str(&cell::quoted(&format!("#{}.{}", namespace(table), table.name())));
            if let Some(path) = &path {
                push_member(out, is_first, "@odata.id");
                out.push_str(&cell::quoted(&format!("{root}/{path}")));
                push_member(out, is_first, "@odata.editLink");
                out.push_str(&cell::quoted(path));
            }
        };
        out.push('{');
        // The context is first wherever there is one.
        let mut is_said = false;
        for (name, value) in members.0 {
            if !is_said && name != "@odata.context" {
                own(out, &mut is_first);
                is_said = true;
            }
            if let Some(kind) = table.property(&name).filter(|_| value != cell::NULL).and_then(|at| kind(table, at)) {
                push_member(out, &mut is_first, &format!("{name}@odata.type"));
                let _ = write!(out, "\"#{kind}\"");
            }
            push_member(out, &mut is_first, &name);
            match self.behind(table, &name) {
                Some(target) if value.starts_with('[') => self.list(out, target, value)?,
                Some(target) if is_object(value) => self.row(out, target, Members::parse(value.as_bytes()).ok()?)?,
                _ => out.push_str(value),
            }
        }
        if let Some(path) = path {
            for name in self.navigation(table) {
                for (term, suffix) in [("associationLink", "/$ref"), ("navigationLink", "")] {
                    push_member(out, &mut is_first, &format!("{name}@odata.{term}"));
                    out.push_str(&cell::quoted(&format!("{root}/{path}/{name}{suffix}")));
                }
            }
        }
        out.push('}');
        Some(())
    }

    /// A row below the service root; `None` when its key was not selected.
    fn path(&self, table: &Table, members: &Members<'_>) -> Option<String> {
        if let Some(at) = table.primary_id {
            let id = members.get(&table.columns[at].property).and_then(cell::text_of)?;
            return Some(format!("{}({id})", table.set()));
        }
        let one = |at: &usize| {
            let column = &table.columns[*at];
            let literal = cell::literal(column.definition.kind, members.get(&column.property)?);
            let literal = component(&literal.to_string()).replace("%27", "'");
            Some(format!("{}={literal}", column.property))
        };
        Some(format!("{}({})", table.set(), table.key.iter().map(one).collect::<Option<Vec<_>>>()?.join(",")))
    }

    /// The table of what stands behind a navigation property.
    fn behind(&self, table: &Table, name: &str) -> Option<&Table> {
        if table.dialect == Dialect::Finops {
            let relations = self.catalogue.relations_of(table);
            return Some(match relations.ways.get(name)? {
                Way::To(number) => &relations.to.get(*number)?.target,
                Way::From(other, _) => other,
            });
        }
        match table.navigation(name) {
            Some((_, target)) => self.catalogue.by_name(target).map(AsRef::as_ref),
            None => self.catalogue.related(table.name(), name).map(|(_, referring)| referring.as_ref()),
        }
    }

    /// What a row can be related to, by name.
    fn navigation(&self, table: &Table) -> Vec<String> {
        let mut names = match table.dialect {
            Dialect::Finops => self.catalogue.relations_of(table).ways.keys().cloned().collect::<Vec<_>>(),
            Dialect::Dataverse => {
                let collections = self.catalogue.relations_to(table.name()).iter();
                let crossings = self.catalogue.crossings_of(table.name()).iter();
                let rows = table.navigation_names().map(str::to_owned);
                rows.chain(collections.map(|one| one.collection.clone()))
                    .chain(crossings.map(|one| one.name.clone()))
                    .collect()
            }
        };
        names.sort_unstable();
        names.dedup();
        names
    }
}

const fn namespace(table: &Table) -> &'static str {
    match table.dialect {
        Dialect::Dataverse => "Microsoft.Dynamics.CRM",
        Dialect::Finops => crate::finops::NAMESPACE,
    }
}

/// The type of a value whose JSON does not tell it.
fn kind(table: &Table, at: usize) -> Option<String> {
    let column = &table.columns[at].definition;
    let name = match column.kind {
        ColumnKind::Guid => "Guid",
        ColumnKind::Lookup if table.dialect == Dialect::Dataverse => "Guid",
        ColumnKind::Datetime => "DateTimeOffset",
        ColumnKind::Date if table.dialect == Dialect::Finops => "DateTimeOffset",
        ColumnKind::Date => "Date",
        ColumnKind::Decimal | ColumnKind::Money => "Decimal",
        ColumnKind::Bigint => "Int64",
        ColumnKind::Enum if table.dialect == Dialect::Finops => {
            return Some(format!("{}.{}", crate::finops::NAMESPACE, column.enumeration.as_ref()?));
        }
        _ => return None,
    };
    Some(name.to_owned())
}

//! What stands beside a value for people: formatted values, and what a lookup points to.
//!
//! Owns the annotations that a caller may ask for and the format of the organization: English, UTC, dollars where no
//! currency says otherwise. Does not decide which columns are sent.

use std::cell::RefCell;
use std::collections::HashMap;
use std::str::FromStr;
use std::sync::Arc;

use dualwright_odata::batch::Request;
use dualwright_odata::literal::{parse_date, parse_date_time};
use rust_decimal::{Decimal, RoundingStrategy};
use uuid::Uuid;

use super::condition::MICROS_PER_DAY;
use super::{span, system};
use crate::catalogue::{Column, Table};
use crate::cell;
use crate::definition::{ColumnDefinition, ColumnKind};
use crate::render::Surroundings;
use crate::store;

pub(crate) const FORMATTED: &str = "OData.Community.Display.V1.FormattedValue";
pub(crate) const LOOKUP_TABLE: &str = "Microsoft.Dynamics.CRM.lookuplogicalname";
pub(crate) const LOOKUP_NAVIGATION: &str = "Microsoft.Dynamics.CRM.associatednavigationproperty";

/// What `odata.include-annotations` asks for.
#[derive(Debug, Clone, Default)]
pub(crate) struct Annotations {
    /// As it was sent, for `Preference-Applied`; empty when it was not.
    pub text: String,
    pub formatted: bool,
    pub lookup_table: bool,
    pub lookup_navigation: bool,
}

impl Annotations {
    pub fn of(request: &Request) -> Self {
        let text = preferences(request)
            .into_iter()
            .find(|(name, _)| name.eq_ignore_ascii_case("odata.include-annotations"))
            .map(|(_, value)| value)
            .unwrap_or_default();
        Self {
            formatted: includes(&text, FORMATTED),
            lookup_table: includes(&text, LOOKUP_TABLE),
            lookup_navigation: includes(&text, LOOKUP_NAVIGATION),
            text,
        }
    }

    pub fn any(&self) -> bool {
        self.formatted || self.lookup_table || self.lookup_navigation
    }

    pub fn include(&self, term: &str) -> bool {
        includes(&self.text, term)
    }
}

/// Whether a list of terms, with stars and exclusions, includes one. The longest entry that fits decides.
fn includes(list: &str, term: &str) -> bool {
    let mut decided = (0, false);
    for entry in list.split(',').map(str::trim).filter(|entry| !entry.is_empty()) {
        let (wanted, entry) = entry.strip_prefix('-').map_or((true, entry), |entry| (false, entry));
        let fits = match entry.strip_suffix('*') {
            Some(stem) => term.starts_with(stem),
            None => term == entry,
        };
        if fits && entry.len() >= decided.0 {
            decided = (entry.len(), wanted);
        }
    }
    decided.1
}

/// All preferences, whose values may hold commas in quotes.
pub(crate) fn preferences(request: &Request) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for (_, value) in request.headers.iter().filter(|(name, _)| name.eq_ignore_ascii_case("prefer")) {
        let (mut start, mut quoted) = (0, false);
        let mut ends = Vec::new();
        for (at, byte) in value.bytes().enumerate() {
            match byte {
                b'"' => quoted = !quoted,
                b',' | b';' if !quoted => ends.push(at),
                _ => {}
            }
        }
        for end in ends.into_iter().chain([value.len()]) {
            let one = &value[start..end];
            start = (end + 1).min(value.len());
            let (name, value) = one.split_once('=').unwrap_or((one, ""));
            if !name.trim().is_empty() {
                found.push((name.trim().to_owned(), value.trim().trim_matches('"').to_owned()));
            }
        }
    }
    found
}

/// Where a lookup of one row leads.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    pub navigation: String,
    pub table: Arc<Table>,
    pub name: Option<String>,
}

/// Rows behind lookups that were looked at for one answer: a page often points to the same few.
#[derive(Debug, Default)]
pub(crate) struct Targets {
    found: RefCell<HashMap<(usize, i64, Uuid), Option<Target>>>,
    currencies: RefCell<HashMap<Uuid, Option<(String, u32)>>>,
}

impl Targets {
    pub fn of(&self, around: Surroundings<'_>, table: &Table, at: usize, cell: &str) -> Option<Target> {
        let id = table.id_of(&cell)?;
        let key = (at, table.number, id);
        if let Some(known) = self.found.borrow().get(&key) {
            return known.clone();
        }
        let definition = &table.columns[at].definition;
        let mut fallback = None;
        let mut found = None;
        for (target, navigation) in crate::catalogue::targets(definition) {
            let Some(target) = around.catalogue.by_name(&target.table) else { continue };
            let row = store::find(around.connection, &target.id_key(id)).ok().flatten();
            let name = row.as_ref().and_then(|row| name_of(target, &row.data));
            let is_there = row.is_some();
            let this = Target { navigation: navigation.to_owned(), table: Arc::clone(target), name };
            if is_there {
                found = Some(this);
                break;
            }
            fallback.get_or_insert(this);
        }
        let found = found.or(fallback);
        self.found.borrow_mut().insert(key, found.clone());
        found
    }

    /// Symbol and digits of a currency.
    fn currency(&self, around: Surroundings<'_>, id: Uuid) -> Option<(String, u32)> {
        if let Some(known) = self.currencies.borrow().get(&id) {
            return known.clone();
        }
        let read = || {
            let table = around.catalogue.by_name(system::CURRENCY)?;
            let row = store::find(around.connection, &table.id_key(id)).ok()??;
            let mut cells = Vec::new();
            table.cells(&row.data, &mut cells);
            let text = |name: &str| cell::text_of(cells[table.column(name)?]).map(std::borrow::Cow::into_owned);
            let digits = table.column("currencyprecision").and_then(|at| cells[at].parse().ok());
            Some((text("currencysymbol").or_else(|| text("isocurrencycode"))?, digits.unwrap_or(2)))
        };
        let found = read();
        self.currencies.borrow_mut().insert(id, found.clone());
        found
    }
}

/// The primary name in a stored row.
fn name_of(table: &Table, data: &str) -> Option<String> {
    let at = table.column(table.definition.primary_name.as_deref()?)?;
    let mut cells = Vec::with_capacity(table.columns.len());
    table.cells(data, &mut cells);
    cell::text_of(cells.get(at)?).map(std::borrow::Cow::into_owned)
}

/// How people read a value; `None` when it stands for itself.
pub(crate) fn formatted(
    around: Surroundings<'_>,
    targets: &Targets,
    table: &Table,
    cells: &[&str],
    at: usize,
) -> Option<String> {
    let column = &table.columns[at];
    let cell = cells.get(at).copied().filter(|cell| *cell != cell::NULL)?;
    match column.definition.kind {
        ColumnKind::Lookup => targets.of(around, table, at, cell)?.name,
        ColumnKind::Money => {
            // What is in the base currency is shown in it, whatever the row's own is.
            let id = if system::amount_of_base(&column.definition).is_some() {
                Some(system::base_currency_id())
            } else {
                table.server.currency.and_then(|at| table.id_of(&cells[at]))
            };
            Some(money(around, targets, id, cell))
        }
        _ => plain(column, cell),
    }
}

/// An amount with the symbol of its currency.
pub(crate) fn money(around: Surroundings<'_>, targets: &Targets, currency: Option<Uuid>, cell: &str) -> String {
    let currency = currency.and_then(|id| targets.currency(around, id));
    let (symbol, digits) = currency.unwrap_or_else(|| ("$".to_owned(), 2));
    let shown = grouped(cell, Some(digits));
    match shown.strip_prefix('-') {
        Some(positive) => format!("({symbol}{positive})"),
        None => format!("{symbol}{shown}"),
    }
}

/// What needs nothing beside the value itself.
pub(crate) fn plain(column: &Column, cell: &str) -> Option<String> {
    let definition = &column.definition;
    let label = |value: i64| definition.options.iter().find(|option| option.value == value).map(|one| one.name.clone());
    match definition.kind {
        ColumnKind::Choice | ColumnKind::Enum => label(cell.parse().ok()?),
        ColumnKind::MultiChoice => {
            let text = cell::text_of(cell)?;
            let labels = text.split(',').filter_map(|one| label(one.parse().ok()?)).collect::<Vec<_>>();
            Some(labels.join("; "))
        }
        ColumnKind::Boolean => {
            let value = i64::from(cell == "true");
            Some(label(value).unwrap_or_else(|| if value == 1 { "Yes" } else { "No" }.to_owned()))
        }
        ColumnKind::Int | ColumnKind::Bigint => Some(grouped(cell, Some(0))),
        ColumnKind::Decimal | ColumnKind::Double => {
            Some(grouped(cell, definition.precision.map(u32::from).or(Some(2))))
        }
        ColumnKind::Datetime | ColumnKind::Date => date(definition, cell),
        _ => None,
    }
}

/// A number as it is read in English: `-1,234.50`.
pub(crate) fn grouped(number: &str, digits: Option<u32>) -> String {
    let Ok(exact) = Decimal::from_str(number).or_else(|_| Decimal::from_scientific(number)) else {
        return number.to_owned();
    };
    let text = match digits {
        Some(digits) => {
            let mut rounded = exact.round_dp_with_strategy(digits, RoundingStrategy::MidpointAwayFromZero);
            rounded.rescale(digits);
            rounded.to_string()
        }
        None => exact.to_string(),
    };
    let (sign, text) = text.strip_prefix('-').map_or(("", text.as_str()), |rest| ("-", rest));
    let (whole, fraction) = text.split_once('.').map_or((text, None), |(whole, fraction)| (whole, Some(fraction)));
    let mut shown = String::from(sign);
    for (at, digit) in whole.chars().enumerate() {
        if at > 0 && (whole.len() - at) % 3 == 0 {
            shown.push(',');
        }
        shown.push(digit);
    }
    if let Some(fraction) = fraction {
        shown.push('.');
        shown.push_str(fraction);
    }
    shown
}

/// `4/7/2023 2:59 PM`, or the day alone.
fn date(definition: &ColumnDefinition, cell: &str) -> Option<String> {
    let text = cell::text_of(cell)?;
    let micros = match parse_date(&text) {
        Some(days) => i64::from(days) * MICROS_PER_DAY,
        None => parse_date_time(&text)?,
    };
    let is_day = definition.kind == ColumnKind::Date || definition.format.as_deref() == Some("DateOnly");
    Some(moment(micros, is_day))
}

pub(crate) fn moment(micros: i64, is_day: bool) -> String {
    let (year, month, day) = span::civil(micros.div_euclid(MICROS_PER_DAY));
    if is_day {
        return format!("{month}/{day}/{year}");
    }
    let minutes = micros.rem_euclid(MICROS_PER_DAY) / 60_000_000;
    let (hours, minutes) = (minutes / 60, minutes % 60);
    let half = if hours < 12 { "AM" } else { "PM" };
    let hours = if hours % 12 == 0 { 12 } else { hours % 12 };
    format!("{month}/{day}/{year} {hours}:{minutes:02} {half}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn annotations_are_asked_for_by_name_star_and_exclusion() {
        for (list, term, wanted) in [
            ("*", FORMATTED, true),
            ("OData.Community.Display.V1.FormattedValue", FORMATTED, true),
            ("Microsoft.Dynamics.CRM.*", FORMATTED, false),
            ("Microsoft.Dynamics.CRM.*", LOOKUP_TABLE, true),
            ("a,Microsoft.Dynamics.CRM.lookuplogicalname", LOOKUP_TABLE, true),
            ("*,-Microsoft.Dynamics.CRM.lookuplogicalname", LOOKUP_TABLE, false),
            ("", FORMATTED, false),
        ] {
            assert_eq!(includes(list, term), wanted, "{list} {term}");
        }
        let request = Request {
            headers: vec![("Prefer".into(), "odata.maxpagesize=5, odata.include-annotations=\"a.*,b\"".into())],
            ..Request::default()
        };
        let all = preferences(&request);
        assert_eq!(all[1], ("odata.include-annotations".to_owned(), "a.*,b".to_owned()));
    }

    #[test]
    fn numbers_and_moments_are_shown_as_in_english() {
        for (number, digits, wanted) in [
            ("1234567.5", Some(2), "1,234,567.50"),
            ("-1234.005", Some(2), "-1,234.01"),
            ("999", Some(0), "999"),
            ("100000", None, "100,000"),
            ("1e3", Some(0), "1,000"),
        ] {
            assert_eq!(grouped(number, digits), wanted, "{number}");
        }
        assert_eq!(moment(0, false), "1/1/1970 12:00 AM");
        assert_eq!(moment(43_200_000_000, false), "1/1/1970 12:00 PM");
        assert_eq!(moment(-60_000_000, false), "12/31/1969 11:59 PM");
        assert_eq!(moment(0, true), "1/1/1970");
    }
}

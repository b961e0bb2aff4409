//! Conditions on rows, compiled: what `$filter` and FetchXML filters have in common.
//!
//! Owns the three-valued logic, patterns, and which few rows a condition leaves when keys or links tell. Does not know in
//! which language a condition was written. A condition looks at a row, at rows behind its lookups, at rows that point to
//! it, and with FetchXML at the rows that were joined to it.

use std::sync::Arc;

use dualwright_odata::Literal;
use dualwright_odata::filter::{self, Comparison, compare};
use rusqlite::Connection;
use uuid::Uuid;

use crate::catalogue::{Catalogue, Crossing, Link, Table};
use crate::cell;
use crate::definition::ColumnKind;
use crate::query::by_keys;
use crate::store::{self, PLACE_BITS};

/// A condition whose columns are known.
#[derive(Debug)]
pub(crate) enum Condition {
    And(Vec<Condition>),
    Or(Vec<Condition>),
    Not(Box<Condition>),
    Constant(bool),
    Test {
        place: Place,
        test: Test,
    },
    /// Two columns against each other.
    Columns {
        left: Place,
        operator: Comparison,
        right: Place,
    },
    /// Rows that point to this one: whether any, or all of them, meet a condition.
    Related {
        own_id: Place,
        table: Arc<Table>,
        link: Link,
        all: bool,
        inner: Option<Box<Condition>>,
    },
}

/// A column of the row, of a row behind its lookups, or of a row that was joined.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    /// Which of the joined rows; 0 is the row itself.
    pub source: usize,
    /// Lookups to follow, with the tables where the row may be.
    pub hops: Vec<(usize, Vec<Arc<Table>>)>,
    pub column: usize,
    pub kind: ColumnKind,
}

#[derive(Debug)]
pub(crate) enum Test {
    Compare(Comparison, Literal),
    In(Vec<Literal>),
    Like(Pattern),
    /// From (inclusive) to (exclusive), in UTC microseconds.
    Span(i64, i64),
    Between(Literal, Literal),
    /// At least one of these options of a multi-select choice.
    ContainsAny(Vec<i64>),
    /// A quarter of any year, 1 to 4.
    Quarter(i64),
}

/// Rows that a condition looks at: one, or one per join.
pub(crate) type Rows<'a> = [Option<Vec<&'a str>>];

impl Condition {
    pub fn matches(&self, connection: &Connection, rows: &Rows<'_>) -> bool {
        self.evaluate(connection, rows) == Some(true)
    }

    fn evaluate(&self, connection: &Connection, rows: &Rows<'_>) -> Option<bool> {
        match self {
            Self::Constant(is) => Some(*is),
            Self::And(all) => filter::all_hold(all.iter().map(|one| one.evaluate(connection, rows))),
            Self::Or(any) => filter::one_holds(any.iter().map(|one| one.evaluate(connection, rows))),
            Self::Not(inner) => inner.evaluate(connection, rows).map(|is| !is),
            Self::Test { place, test } => test.evaluate(&place.literal(connection, rows)),
            Self::Columns { left, operator, right } => {
                Some(compare(&left.literal(connection, rows), *operator, &right.literal(connection, rows)))
            }
            Self::Related { own_id, table, link, all, inner } => match own_id.literal(connection, rows) {
                Literal::Guid(id) => {
                    let mut found = false;
                    let outcome = each_related(connection, table, link, id, 0, &mut |row| {
                        let fits = match inner {
                            None => true,
                            Some(inner) => {
                                let mut cells = Vec::with_capacity(table.columns.len());
                                table.cells(row.data, &mut cells);
                                inner.matches(connection, &[Some(cells)])
                            }
                        };
                        // One that fits decides `any`, one that does not decides `all`.
                        found = fits != *all;
                        Ok(!found)
                    });
                    outcome.ok()?;
                    Some(found != *all)
                }
                _ => Some(*all),
            },
        }
    }
}

/// A row on its way through a scan.
#[derive(Clone, Copy)]
pub(crate) struct Passing<'a> {
    pub id: i64,
    pub version: i64,
    pub data: &'a str,
}

/// Calls `each` with the rows of `table` whose lookup points to `target` and whose place is behind `after`, in the order
/// of their places, until it answers false.
pub(crate) fn each_referring(
    connection: &Connection,
    table: &Table,
    column: usize,
    target: Uuid,
    after: i64,
    each: &mut dyn FnMut(Passing<'_>) -> rusqlite::Result<bool>,
) -> rusqlite::Result<()> {
    if table.columns.get(column).is_some_and(|column| column.linked) {
        let (first, last) = store::places(table);
        let mut statement = connection.prepare_cached(
            "SELECT row.id, row.version, row.data FROM link JOIN row ON row.id = link.row
             WHERE link.target = ?1 AND link.row > ?2 AND link.row <= ?3 AND link.place = ?4 ORDER BY link.row",
        )?;
        let place = i64::try_from(column).unwrap_or(i64::MAX);
        let mut rows = statement.query(rusqlite::params![target.as_bytes().as_slice(), first + after, last, place])?;
        while let Some(row) = rows.next()? {
            let data = row.get_ref(2)?.as_str().map_err(rusqlite::Error::from)?;
            if !each(Passing { id: row.get(0)?, version: row.get(1)?, data })? {
                break;
            }
        }
        return Ok(());
    }
    let wanted = cell::guid_cell(target);
    store::scan(connection, table, after, i64::MAX, false, &mut |id, version, data| {
        let mut cells = Vec::with_capacity(table.columns.len());
        table.cells(data, &mut cells);
        if cells.get(column).is_some_and(|cell| *cell == wanted) {
            each(Passing { id, version, data })
        } else {
            Ok(true)
        }
    })
}

/// Calls `each` with the rows of a collection of the row with the id `of`, as [`each_referring`] does.
pub(crate) fn each_related(
    connection: &Connection,
    table: &Table,
    link: &Link,
    of: Uuid,
    after: i64,
    each: &mut dyn FnMut(Passing<'_>) -> rusqlite::Result<bool>,
) -> rusqlite::Result<()> {
    match link {
        Link::Lookup(column) => each_referring(connection, table, *column, of, after, each),
        Link::Across(crossing) => {
            let mut ids = Vec::new();
            each_across(connection, crossing, of, &mut |id| {
                ids.extend(store::find(connection, &table.id_key(id))?.map(|row| row.id));
                Ok(())
            })?;
            ids.sort_unstable();
            ids.dedup();
            for id in ids.into_iter().filter(|id| id & ((1 << PLACE_BITS) - 1) > after) {
                if let Some(row) = store::find_by_place(connection, id)?
                    && !each(Passing { id, version: row.version, data: &row.data })?
                {
                    break;
                }
            }
            Ok(())
        }
    }
}

/// Calls `each` with the ids that are joined to `of`.
pub(crate) fn each_across(
    connection: &Connection,
    crossing: &Crossing,
    of: Uuid,
    each: &mut dyn FnMut(Uuid) -> rusqlite::Result<()>,
) -> rusqlite::Result<()> {
    let intersect = &crossing.intersect;
    each_referring(connection, intersect, crossing.own_column, of, 0, &mut |row| match cell::nth(
        row.data,
        crossing.other_column,
    )
    .and_then(|cell| intersect.id_of(&cell))
    {
        Some(id) => each(id).map(|()| true),
        None => Ok(true),
    })
}

impl Place {
    pub fn own(table: &Table, column: usize) -> Self {
        Self { source: 0, hops: Vec::new(), column, kind: table.columns[column].definition.kind }
    }

    /// A property by its path: `primarycontactid/createdby/fullname`. With `by_name`, a lookup at the end stands for the
    /// primary name of the row behind it, as orders have it.
    pub fn of_path(catalogue: &Catalogue, table: &Arc<Table>, path: &str, by_name: bool) -> Option<Self> {
        let mut hops = Vec::new();
        let mut tables = vec![Arc::clone(table)];
        let mut parts = path.split('/').peekable();
        while let Some(part) = parts.next() {
            let table = Arc::clone(tables.first()?);
            if parts.peek().is_some() {
                let (column, _) = table.navigation(part)?;
                tables = known(catalogue, table.navigation_targets(part));
                hops.push((column, tables.clone()));
                continue;
            }
            let column = table.readable(part).or_else(|| table.navigation(part).map(|(at, _)| at))?;
            let definition = &table.columns[column].definition;
            if by_name && definition.kind == ColumnKind::Lookup {
                let names = definition.targets.iter().map(|target| target.table.clone()).collect::<Vec<_>>();
                let targets = known(catalogue, &names);
                let name = targets.first().and_then(|first| first.column(first.definition.primary_name.as_deref()?));
                if let Some(name) = name {
                    hops.push((column, targets));
                    return Some(Self { source: 0, hops, column: name, kind: ColumnKind::Text });
                }
            }
            return Some(Self { source: 0, hops, column, kind: definition.kind });
        }
        None
    }

    pub fn cell<'a>(&self, connection: &Connection, rows: &'a Rows<'_>) -> std::borrow::Cow<'a, str> {
        use std::borrow::Cow;
        let Some(Some(cells)) = rows.get(self.source) else { return Cow::Borrowed(cell::NULL) };
        let at = |column: usize| cells.get(column).copied().unwrap_or(cell::NULL);
        let Some(((first, tables), rest)) = self.hops.split_first() else { return Cow::Borrowed(at(self.column)) };
        let (mut cell, mut tables) = (at(*first).to_owned(), tables);
        for (column, next) in rest.iter().map(|(column, next)| (*column, Some(next))).chain([(self.column, None)]) {
            match follow(connection, tables, &cell, column) {
                Some(found) => cell = found,
                None => return Cow::Borrowed(cell::NULL),
            }
            if let Some(next) = next {
                tables = next;
            }
        }
        Cow::Owned(cell)
    }

    pub fn literal(&self, connection: &Connection, rows: &Rows<'_>) -> Literal {
        cell::literal(self.kind, &self.cell(connection, rows))
    }
}

fn known(catalogue: &Catalogue, names: &[String]) -> Vec<Arc<Table>> {
    names.iter().filter_map(|name| catalogue.by_name(name)).cloned().collect()
}

/// A cell of the row behind a lookup. The further tables of a lookup may have the column elsewhere, so it is looked up by
/// its name.
fn follow(connection: &Connection, tables: &[Arc<Table>], cell: &str, column: usize) -> Option<String> {
    let first = tables.first()?;
    for table in tables {
        let row = store::find(connection, &table.id_key(table.id_of(&cell)?)).ok()?;
        let Some(row) = row else { continue };
        let column = if Arc::ptr_eq(table, first) {
            column
        } else {
            let wanted = &first.columns.get(column)?.definition.name;
            let is_name = first.definition.primary_name.as_ref() == Some(wanted);
            table.column(if is_name { table.definition.primary_name.as_deref()? } else { wanted })?
        };
        let mut cells = Vec::with_capacity(table.columns.len());
        table.cells(&row.data, &mut cells);
        return cells.get(column).map(|cell| (*cell).to_owned());
    }
    None
}

impl Test {
    fn evaluate(&self, value: &Literal) -> Option<bool> {
        if let Self::Compare(operator, wanted) = self {
            return Some(compare(value, *operator, wanted));
        }
        if *value == Literal::Null {
            return None;
        }
        Some(match (self, value) {
            (Self::In(values), value) => values.iter().any(|one| compare(value, Comparison::Equal, one)),
            (Self::Like(pattern), Literal::Text(text)) => pattern.matches(text),
            (Self::Like(pattern), other) => pattern.matches(&other.to_string()),
            (Self::Between(low, high), value) => {
                compare(value, Comparison::GreaterOrEqual, low) && compare(value, Comparison::LessOrEqual, high)
            }
            (Self::Span(from, to), Literal::DateTime(at)) => *from <= *at && *at < *to,
            (Self::Span(from, to), Literal::Date(day)) => {
                // A day is in a span when it begins there.
                let at = i64::from(*day) * MICROS_PER_DAY;
                from.div_euclid(MICROS_PER_DAY).saturating_mul(MICROS_PER_DAY) <= at && at < *to
            }
            (Self::ContainsAny(wanted), Literal::Text(text)) => {
                text.split(',').filter_map(|one| one.parse::<i64>().ok()).any(|one| wanted.contains(&one))
            }
            (Self::Quarter(wanted), Literal::DateTime(at)) => quarter(at.div_euclid(MICROS_PER_DAY)) == *wanted,
            (Self::Quarter(wanted), Literal::Date(day)) => quarter(i64::from(*day)) == *wanted,
            _ => return None,
        })
    }
}

pub(crate) const MICROS_PER_DAY: i64 = 86_400_000_000;

fn quarter(days: i64) -> i64 {
    (super::span::civil(days).1 - 1) / 3 + 1
}

/// A pattern of SQL's LIKE: `%`, `_`, `[a-f]` and `[^a-f]`, without regard to case.
#[derive(Debug)]
pub(crate) struct Pattern(Vec<Piece>);

#[derive(Debug)]
enum Piece {
    Any,
    One,
    Set { negated: bool, ranges: Vec<(char, char)> },
    Exactly(char),
}

impl Pattern {
    pub fn new(text: &str) -> Self {
        let text = text.to_lowercase();
        let mut pieces = Vec::with_capacity(text.len());
        let mut letters = text.chars();
        while let Some(letter) = letters.next() {
            let piece = match letter {
                '%' if matches!(pieces.last(), Some(Piece::Any)) => continue,
                '%' => Piece::Any,
                '_' => Piece::One,
                '[' => match letters.as_str().split_once(']') {
                    Some((set, rest)) => {
                        letters = rest.chars();
                        let (negated, set) = set.strip_prefix('^').map_or((false, set), |set| (true, set));
                        Piece::Set { negated, ranges: ranges(set) }
                    }
                    None => Piece::Exactly('['),
                },
                other => Piece::Exactly(other),
            };
            pieces.push(piece);
        }
        Self(pieces)
    }

    pub fn matches(&self, text: &str) -> bool {
        let text = text.trim_end_matches(' ').to_lowercase().chars().collect::<Vec<_>>();
        let (mut at, mut piece) = (0, 0);
        // Where to go on when what follows the last `%` does not fit.
        let mut retry: Option<(usize, usize)> = None;
        loop {
            let fits = match (self.0.get(piece), text.get(at)) {
                (None, None) => return true,
                (Some(Piece::Any), _) => {
                    retry = Some((at, piece));
                    piece += 1;
                    continue;
                }
                (Some(Piece::One), Some(_)) => true,
                (Some(Piece::Exactly(wanted)), Some(letter)) => wanted == letter,
                (Some(Piece::Set { negated, ranges }), Some(letter)) => {
                    ranges.iter().any(|(low, high)| low <= letter && letter <= high) != *negated
                }
                _ => false,
            };
            if fits {
                at += 1;
                piece += 1;
                continue;
            }
            match retry {
                Some((from, any)) if from < text.len() => {
                    retry = Some((from + 1, any));
                    at = from + 1;
                    piece = any + 1;
                }
                _ => return false,
            }
        }
    }
}

fn ranges(set: &str) -> Vec<(char, char)> {
    let letters = set.chars().collect::<Vec<_>>();
    let mut ranges = Vec::new();
    let mut at = 0;
    while at < letters.len() {
        match letters.get(at + 1..at + 3) {
            Some(['-', high]) => {
                ranges.push((letters[at], *high));
                at += 3;
            }
            _ => {
                ranges.push((letters[at], letters[at]));
                at += 1;
            }
        }
    }
    ranges
}

/// Rows referring to one parent that are worth fetching one by one; with more, reading the table in order is faster.
const LINKED_MAX: usize = 2_000;

/// The ids of a few rows among which all matches are, when keys or links tell them.
pub(crate) fn candidates(
    connection: &Connection,
    table: &Table,
    condition: &Condition,
) -> rusqlite::Result<Option<Vec<i64>>> {
    match condition {
        Condition::Or(any) => {
            let mut ids = Vec::new();
            for one in any {
                match candidates(connection, table, one)? {
                    Some(found) => ids.extend(found),
                    None => return Ok(None),
                }
            }
            Ok(Some(ids))
        }
        Condition::And(all) => {
            let equal = all.iter().filter_map(equality).collect::<Vec<_>>();
            if let Some(ids) = by_keys(connection, table, &equal)? {
                return Ok(Some(ids));
            }
            for one in all.iter().filter(|one| {
                matches!(one, Condition::Or(_) | Condition::And(_) | Condition::Test { test: Test::In(_), .. })
            }) {
                if let Some(ids) = candidates(connection, table, one)? {
                    return Ok(Some(ids));
                }
            }
            by_links(connection, table, &equal)
        }
        Condition::Test { place, test: Test::In(values) } if place.source == 0 && place.hops.is_empty() => {
            let mut ids = Vec::new();
            for value in values {
                match by_keys(connection, table, &[(place.column, value)])? {
                    Some(found) => ids.extend(found),
                    None => return Ok(None),
                }
            }
            Ok(Some(ids))
        }
        one => match equality(one) {
            Some(equal) => match by_keys(connection, table, &[equal])? {
                Some(ids) => Ok(Some(ids)),
                None => by_links(connection, table, &[equal]),
            },
            None => Ok(None),
        },
    }
}

fn equality(condition: &Condition) -> Option<(usize, &Literal)> {
    match condition {
        Condition::Test { place, test: Test::Compare(Comparison::Equal, value) }
            if place.source == 0 && place.hops.is_empty() && *value != Literal::Null =>
        {
            Some((place.column, value))
        }
        _ => None,
    }
}

fn by_links(connection: &Connection, table: &Table, equal: &[(usize, &Literal)]) -> rusqlite::Result<Option<Vec<i64>>> {
    for (column, value) in equal {
        if let (true, Literal::Guid(id)) = (table.columns[*column].linked, value) {
            let links = store::links_to(connection, *id, LINKED_MAX + 1)?;
            if links.len() <= LINKED_MAX {
                let own = |place: &i64| place >> PLACE_BITS == table.number;
                let ids = links.into_iter().filter(|(_, at)| at == column).map(|(id, _)| id).filter(own);
                return Ok(Some(ids.collect()));
            }
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_as_sql_does() {
        for (pattern, text, wanted) in [
            ("%contoso%", "The Contoso Company", true),
            ("contoso", "Contoso ", true),
            ("c_nt%", "Contoso", true),
            ("c_nt", "Contoso", false),
            ("[a-d]%", "Contoso", true),
            ("[^a-d]%", "Contoso", false),
            ("%[0-9][0-9]", "Room 42", true),
            ("%[0-9][0-9]", "Room 4", false),
            ("%a%b%c", "xxaxxbxbxxc", true),
            ("%a%b%c", "xxaxxbxbxx", false),
            ("", "", true),
            ("%", "", true),
            ("[", "[", true),
            ("%ä%", "GÄRTNER", true),
        ] {
            assert_eq!(Pattern::new(pattern).matches(text), wanted, "{pattern} {text}");
        }
    }
}

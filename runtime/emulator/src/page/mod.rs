//! The pages of an emulator: its tables, their rows, the last requests, the audit and the faults in force.
//!
//! Owns what is looked at and where; `html` owns how it is written down. Pages are read-only and need nothing but themselves:
//! no script, no font, no picture.

mod html;
#[cfg(test)]
mod tests;

use dualwright_odata::batch::{Request, Response};
use dualwright_odata::escape::component;
use dualwright_odata::literal::format_date_time;
use dualwright_odata::url::{self, Resource};
use rusqlite::Connection;

use self::html::{Page, cell_text, escaped};
use crate::catalogue::Table;
use crate::store::{self, PLACE_BITS};
use crate::{Dialect, Inner, audit, dataverse, finops};

/// Rows on one page.
const ROWS: usize = 50;
/// Columns of a row that a list shows; the rest is on the row's own page.
const COLUMNS: usize = 8;
/// Entries of the audit, and requests, on one page.
const ENTRIES: usize = 200;

/// Answers a request for a page; `None` when there is no such page.
pub(crate) fn answer(inner: &Inner, path: &str, request: &Request) -> Option<Response> {
    let resource = url::parse(&request.url).ok();
    let number = |name: &str| {
        let given = resource.as_ref().and_then(|resource: &Resource| resource.option(name));
        given.and_then(|text| text.parse::<i64>().ok()).unwrap_or(0).max(0)
    };
    let page = match path {
        "" | "/" => tables(inner),
        "/page/requests" => Ok(Some(requests(inner))),
        "/page/audit" => audit_page(inner, number("before")),
        "/page/faults" => Ok(Some(faults(inner))),
        _ => {
            let set = path.strip_prefix("/page/tables/")?;
            match set.split_once('/') {
                None => rows(inner, set, number("after")),
                Some((set, "row")) => row(inner, set, number("place")),
                Some(_) => return None,
            }
        }
    };
    Some(match page {
        Ok(page) => page?.answer(200),
        Err(error) => {
            tracing::error!(%error, "a page could not be made");
            let mut page = Page::new(inner.store.dialect, "", "This page could not be made");
            page.paragraph("The store could not be read. The log of the emulator says why.");
            page.answer(500)
        }
    })
}

type Outcome = rusqlite::Result<Option<Page>>;

fn tables(inner: &Inner) -> Outcome {
    let dialect = inner.store.dialect;
    let catalogue = inner.store.catalogue();
    let counts = inner.store.read(|connection| {
        catalogue.tables().map(|table| store::count(connection, table)).collect::<rusqlite::Result<Vec<_>>>()
    })?;
    let mut page = Page::new(dialect, "/_emulator/", "Tables");
    let root = match dialect {
        Dialect::Dataverse => dataverse::ROOT,
        Dialect::Finops => finops::ROOT,
    };
    let total: i64 = counts.iter().sum();
    page.paragraph(&format!("{} tables with {} rows. The service is at {root}.", counts.len(), grouped(total)));
    page.table(&["Set", "Table", "Columns", "Rows"], &[2, 3], |out| {
        for (table, count) in catalogue.tables().zip(counts) {
            let set = table.set();
            out.row(&[
                link(&format!("/_emulator/page/tables/{}", component(set)), set),
                escaped(table.name()),
                table.columns.len().to_string(),
                grouped(count),
            ]);
        }
    });
    Ok(Some(page))
}

fn rows(inner: &Inner, set: &str, after: i64) -> Outcome {
    let catalogue = inner.store.catalogue();
    let Some(table) = catalogue.by_set(set) else { return Ok(None) };
    let (count, rows) = inner.store.read(|connection| {
        let mut rows = Vec::new();
        store::scan(connection, table, after, i64::MAX, false, &mut |id, _, data| {
            rows.push((id & ((1 << PLACE_BITS) - 1), data.to_owned()));
            Ok(rows.len() <= ROWS)
        })?;
        Ok::<_, rusqlite::Error>((store::count(connection, table)?, rows))
    })?;
    let shown = shown_columns(table, &rows);
    let mut page = Page::new(inner.store.dialect, "/_emulator/", set);
    page.paragraph(&format!("{} with {} columns and {} rows.", table.name(), table.columns.len(), grouped(count)));
    let mut heads = vec!["Row"];
    heads.extend(shown.iter().map(|&at| table.columns[at].property.as_str()));
    page.table(&heads, &[], |out| {
        for (place, data) in rows.iter().take(ROWS) {
            let mut cells = Vec::new();
            table.cells(data, &mut cells);
            let href = format!("/_emulator/page/tables/{}/row?place={place}", component(set));
            let mut line = vec![link(&href, &place.to_string())];
            line.extend(shown.iter().map(|&at| cell_text(cells[at], CELL_LETTERS)));
            out.row(&line);
        }
    });
    let next =
        (rows.len() > ROWS).then(|| format!("/_emulator/page/tables/{}?after={}", component(set), rows[ROWS - 1].0));
    let first = (after > 0).then(|| format!("/_emulator/page/tables/{}", component(set)));
    page.steps(first.as_deref(), next.as_deref());
    Ok(Some(page))
}

/// Letters of a value in a list.
const CELL_LETTERS: usize = 60;
/// Letters of a value on its row's own page: enough for any document, and not for a file.
const VALUE_LETTERS: usize = 20_000;

fn row(inner: &Inner, set: &str, place: i64) -> Outcome {
    let catalogue = inner.store.catalogue();
    let Some(table) = catalogue.by_set(set) else { return Ok(None) };
    let id = (table.number << PLACE_BITS) | (place & ((1 << PLACE_BITS) - 1));
    let found = inner.store.read(|connection: &Connection| store::find_by_place(connection, id))?;
    let Some(found) = found else { return Ok(None) };
    let mut cells = Vec::new();
    table.cells(&found.data, &mut cells);
    let mut page = Page::new(inner.store.dialect, "/_emulator/", &table.shown_key(&cells));
    page.back(&format!("/_emulator/page/tables/{}", component(set)), set);
    page.table(&["Column", "Value"], &[], |out| {
        for (column, cell) in table.columns.iter().zip(&cells) {
            let value = format!("<span class=value>{}</span>", cell_text(cell, VALUE_LETTERS));
            out.row(&[escaped(&column.property), value]);
        }
    });
    Ok(Some(page))
}

fn requests(inner: &Inner) -> Page {
    let mut page = Page::new(inner.store.dialect, "/_emulator/page/requests", "Requests");
    let requests = inner.requests.newest(ENTRIES);
    if requests.is_empty() {
        page.paragraph("Nobody has asked for anything yet.");
        return page;
    }
    page.paragraph("The newest first. Bodies, headers and tokens are not kept.");
    page.table(&["#", "Time", "Method", "URL", "Status", "ms", "Client"], &[0, 5], |out| {
        for entry in requests {
            let status = match entry.status {
                0 => html::badge("bad", "broken"),
                status @ 400.. => html::badge("bad", &status.to_string()),
                status => html::badge("good", &status.to_string()),
            };
            out.row(&[
                entry.seq.to_string(),
                time(entry.at),
                escaped(&entry.method),
                format!("<span class=url>{}</span>", escaped(&entry.url)),
                status,
                entry.ms.to_string(),
                escaped(entry.client.as_deref().unwrap_or_default()),
            ]);
        }
    });
    page
}

fn audit_page(inner: &Inner, before: i64) -> Outcome {
    let entries = inner.store.read(|connection| audit::newest(connection, before, ENTRIES))?;
    let mut page = Page::new(inner.store.dialect, "/_emulator/page/audit", "Audit");
    page.paragraph("Every write that was applied, the newest first. What was seeded is not a write.");
    page.table(&["#", "Set", "Key", "Operation", "Transaction", "Receipt"], &[0], |out| {
        for entry in &entries {
            let operation = if entry.equal_before { "Update, equal" } else { &entry.operation };
            out.row(&[
                entry.seq.to_string(),
                escaped(&entry.set),
                escaped(&entry.key),
                escaped(operation),
                format!("<code>{}</code>", escaped(&entry.transaction)),
                format!("<code>{}</code>", escaped(entry.receipt.as_deref().unwrap_or_default())),
            ]);
        }
    });
    let next = entries.last().filter(|last| entries.len() == ENTRIES && last.seq > 1);
    let next = next.map(|last| format!("/_emulator/page/audit?before={}", last.seq));
    page.steps((before > 0).then_some("/_emulator/page/audit"), next.as_deref());
    Ok(Some(page))
}

fn faults(inner: &Inner) -> Page {
    let mut page = Page::new(inner.store.dialect, "/_emulator/page/faults", "Faults");
    page.paragraph(&format!("The system says it is {}.", format_date_time(inner.clock.now())));
    let shown = inner.faults.shown();
    let rules = shown["rules"].as_array().cloned().unwrap_or_default();
    if rules.is_empty() && shown["random"].is_null() {
        page.paragraph("No faults are in force.");
        return page;
    }
    if !rules.is_empty() {
        page.table(&["Match", "Action", "Seen", "Struck"], &[2, 3], |out| {
            for rule in &rules {
                let code = |value: &serde_json::Value| format!("<code>{}</code>", escaped(&value.to_string()));
                out.row(&[
                    code(&rule["match"]),
                    code(&rule["action"]),
                    rule["seen"].to_string(),
                    rule["hits"].to_string(),
                ]);
            }
        });
    }
    if let Some(random) = shown["random"].as_object() {
        page.heading(&format!("By chance, from seed {}", random["seed"]));
        page.table(&["What", "Value"], &[], |out| {
            for (name, value) in random.iter().filter(|(name, _)| *name != "seed") {
                out.row(&[escaped(name), format!("<code>{}</code>", escaped(&value.to_string()))]);
            }
        });
    }
    page
}

/// The key, then what people call a row, then the columns that say something in these rows, without those that only say
/// when.
fn shown_columns(table: &Table, rows: &[(i64, String)]) -> Vec<usize> {
    let mut says_something = vec![false; table.columns.len()];
    let mut cells = Vec::new();
    for (_, data) in rows {
        cells.clear();
        table.cells(data, &mut cells);
        for ((says, cell), column) in says_something.iter_mut().zip(&cells).zip(&table.columns) {
            *says |= **cell != *column.empty;
        }
    }
    let named = table.definition.primary_name.as_deref();
    let name = named.and_then(|name| table.columns.iter().position(|column| column.definition.name == name));
    let first = table.primary_id.into_iter().chain(table.key.iter().copied()).chain(name);
    let mut shown = Vec::with_capacity(COLUMNS);
    let rest = (0..table.columns.len()).filter(|at| says_something[*at] && !table.server.is_stamp(*at));
    for at in first.chain(rest) {
        if !shown.contains(&at) && shown.len() < COLUMNS {
            shown.push(at);
        }
    }
    shown
}

fn link(href: &str, text: &str) -> String {
    format!("<a href=\"{}\">{}</a>", escaped(href), escaped(text))
}

fn time(micros: i64) -> String {
    let time = format_date_time(micros);
    let shown = time.replace('T', " ");
    // Thousandths of a second are enough for a person.
    format!("<time datetime=\"{time}\">{}</time>", shown.get(..23).unwrap_or(shown.trim_end_matches('Z')))
}

/// `12,345`.
fn grouped(number: i64) -> String {
    let digits = number.to_string();
    let mut grouped = String::with_capacity(digits.len() * 4 / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

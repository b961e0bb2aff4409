//! The same as tables for a person.

use comfy_table::presets::NOTHING;
use comfy_table::{CellAlignment, ContentArrangement, Table};

use super::{Difference, DifferenceKind, FailedReport, MapReport, PluginReport};

/// Rows of a list that are shown before the rest is only counted; `--json` has them all.
pub(super) const ROWS_SHOWN_MAX: usize = 40;

pub(super) fn table(header: &[&str], right_from: usize) -> Table {
    let mut table = Table::new();
    table.load_preset(NOTHING).set_content_arrangement(ContentArrangement::Disabled).set_header(header.to_vec());
    for (index, column) in table.column_iter_mut().enumerate() {
        column.set_padding((if index == 0 { 2 } else { 0 }, 2));
        if index >= right_from {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table
}

pub(super) fn render(table: &Table) -> String {
    let mut text = String::new();
    for line in table.to_string().lines() {
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// 12345 as `12,345`.
pub(crate) fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// Microseconds in the unit that reads best.
pub(crate) fn duration(micros: u64) -> String {
    match micros {
        0..1_000 => format!("{micros} µs"),
        1_000..1_000_000 => format!("{:.1} ms", micros as f64 / 1e3),
        _ => format!("{:.2} s", micros as f64 / 1e6),
    }
}

#[must_use]
pub fn maps_text(maps: &[MapReport]) -> String {
    let mut out = table(&["map", "direction", "rows", "created", "updated", "deleted", "skipped", "failed"], 2);
    let mut total = MapReport::default();
    for map in maps {
        out.add_row(cells(&map.map, &map.direction, map));
        total.rows += map.rows;
        total.created += map.created;
        total.updated += map.updated;
        total.deleted += map.deleted;
        total.skipped += map.skipped;
        total.failed += map.failed;
    }
    out.add_row(cells("total", "", &total));
    render(&out)
}

fn cells(name: &str, direction: &str, map: &MapReport) -> Vec<String> {
    let mut cells = vec![name.to_owned(), direction.to_owned()];
    cells.extend([map.rows, map.created, map.updated, map.deleted, map.skipped, map.failed].map(thousands));
    cells
}

#[must_use]
pub fn plugins_text(plugins: &[PluginReport]) -> String {
    if plugins.is_empty() {
        return "  no plugin was called\n".to_owned();
    }
    let header = [
        "plugin",
        "stage",
        "calls",
        "rows",
        "p50",
        "p95",
        "p99",
        "max",
        "guest",
        "host calls",
        "marshalling",
        "of budget",
        "over goal",
        "faults",
    ];
    let mut out = table(&header, 2);
    for plugin in plugins {
        out.add_row(vec![
            plugin.plugin.clone(),
            plugin.stage.clone(),
            thousands(plugin.calls),
            thousands(plugin.rows),
            duration(plugin.p50_us),
            duration(plugin.p95_us),
            duration(plugin.p99_us),
            duration(plugin.max_us),
            duration(plugin.guest_us),
            duration(plugin.host_call_us),
            duration(plugin.marshalling_us),
            format!("{:.3} %", plugin.budget_share_max * 100.0),
            thousands(plugin.over_goal),
            thousands(plugin.faults),
        ]);
    }
    render(&out)
}

/// As wide as `width` columns, where a person looks at it: reasons are sentences.
#[must_use]
pub fn failed_text(failed: &[FailedReport], width: Option<u16>) -> String {
    if failed.is_empty() {
        return "  no record failed\n".to_owned();
    }
    // Narrower than this every word stands on a line of its own.
    const WIDTH_MIN: u16 = 72;
    let mut out = table(&["id", "map", "record", "code", "why"], 5);
    if let Some(width) = width {
        out.set_content_arrangement(ContentArrangement::Dynamic).set_width(width.max(WIDTH_MIN));
    }
    for record in failed.iter().take(ROWS_SHOWN_MAX) {
        let column = record.column.as_deref().map(|column| format!(" [{column}]")).unwrap_or_default();
        out.add_row(vec![
            record.id.to_string(),
            record.map.clone(),
            record.key.clone(),
            record.code.clone(),
            match &record.foreign_code {
                Some(foreign) => format!("{} ({foreign}){column}: {}", record.reason, record.remedy),
                None => format!("{}{column}: {}", record.reason, record.remedy),
            },
        ]);
    }
    let mut text = render(&out);
    if failed.len() > ROWS_SHOWN_MAX {
        text.push_str(&format!("  … and {} more\n", failed.len() - ROWS_SHOWN_MAX));
    }
    text
}

#[must_use]
pub fn differences_text(differences: &[Difference]) -> String {
    if differences.is_empty() {
        return "  equal\n".to_owned();
    }
    let mut out = table(&["map", "record", "difference"], 3);
    for difference in differences.iter().take(ROWS_SHOWN_MAX) {
        out.add_row(vec![
            difference.map.clone(),
            difference.key.clone(),
            match difference.kind {
                DifferenceKind::OnlyFinops => "only in finops".to_owned(),
                DifferenceKind::OnlyDataverse => "only in dataverse".to_owned(),
                DifferenceKind::Different => format!("different: {}", difference.columns.join(", ")),
            },
        ]);
    }
    let mut text = render(&out);
    if differences.len() > ROWS_SHOWN_MAX {
        text.push_str(&format!("  … and {} more\n", differences.len() - ROWS_SHOWN_MAX));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_well() {
        for (number, text) in [(0, "0"), (999, "999"), (1_000, "1,000"), (1_234_567, "1,234,567")] {
            assert_eq!(thousands(number), text);
        }
        assert_eq!(duration(999), "999 µs");
        assert_eq!(duration(1_500), "1.5 ms");
        assert_eq!(duration(2_000_000), "2.00 s");
    }

    #[test]
    fn reasons_are_as_wide_as_the_terminal() {
        let record = FailedReport {
            id: 7,
            map: "customers".into(),
            direction: String::new(),
            key: "usmf/c1".into(),
            code: "DW-1101".into(),
            column: Some("creditlimit".into()),
            foreign_code: Some("credit-limit-exceeded".into()),
            reason: "the credit limit is over 1000 EUR, the highest allowed: lower it, or have the limit raised".into(),
            remedy: "correct the record at the source, then retry".into(),
            attempts: 1,
        };
        let lines = |width| failed_text(std::slice::from_ref(&record), width);
        let wide = lines(None);
        assert_eq!(wide.lines().count(), 2, "{wide}");
        assert!(wide.contains("raised (credit-limit-exceeded) [creditlimit]: correct"), "{wide}");
        for (width, most) in [(100, 100), (80, 80), (20, 72)] {
            let text = lines(Some(width));
            assert!(text.lines().all(|line| line.chars().count() <= most), "{width}\n{text}");
            assert!(text.lines().any(|line| line.contains("customers") && line.contains("usmf/c1")), "{text}");
        }
    }

    #[test]
    fn the_table_has_a_line_per_map_and_a_total() {
        let map = MapReport { map: "currencies".into(), rows: 1_050, created: 1_050, ..MapReport::default() };
        let text = maps_text(&[map.clone(), map]);
        assert_eq!(text.lines().count(), 4);
        assert!(text.lines().last().expect("total").contains("2,100"), "{text}");
    }
}

//! What a person and a script see: text that is asked for goes to standard output, everything else to standard error.

use std::io::{IsTerminal, Write};

/// Resolves at Ctrl-C or a polite end from outside.
pub(super) async fn interrupted() {
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        if let Ok(mut terminate) = signal(SignalKind::terminate()) {
            tokio::select! {
                _ = tokio::signal::ctrl_c() => {}
                _ = terminate.recv() => {}
            }
            return;
        }
    }
    let _ = tokio::signal::ctrl_c().await;
}

/// Whether bars and colours are welcome.
pub(super) fn is_for_a_person(json: bool) -> bool {
    !json && std::io::stderr().is_terminal()
}

pub(super) fn print_json(value: &impl serde::Serialize) -> anyhow::Result<()> {
    print(&json_text(value)?)
}

pub(super) fn json_text(value: &impl serde::Serialize) -> anyhow::Result<String> {
    Ok(format!("{}\n", serde_json::to_string_pretty(value)?))
}

/// A number with what it counts.
pub(super) fn counted(count: u64, one: &str, many: &str) -> String {
    format!("{} {}", crate::report::thousands(count), if count == 1 { one } else { many })
}

/// How wide the terminal is that shows what is printed; `None` where it is none.
pub(super) fn width() -> Option<u16> {
    console::Term::stdout().size_checked().map(|(_, columns)| columns)
}

/// Prints what was asked for. A reader that has seen enough (`| head`) is no error.
pub(super) fn print(text: &str) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}

/// What to say of a name that does not exist: what there is, and which of it was probably meant.
pub(super) fn there_is_no<'a>(what: &str, name: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    let known = known.into_iter().collect::<Vec<_>>();
    if known.is_empty() {
        return format!("there is no {what} {name}, and no other either");
    }
    let end =
        near(name, known.iter().copied()).map_or_else(|| ".".to_owned(), |near| format!("; did you mean {near}?"));
    format!("there is no {what} {name}{end} There are: {}", known.join(", "))
}

/// The name that was probably meant.
pub(super) fn near<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let (distance, near) = known.into_iter().map(|other| (distance(name, other), other)).min()?;
    // A slip in every third letter is still recognised; more is another word.
    (distance * 3 <= near.chars().count().max(3)).then_some(near)
}

/// Letters to insert, remove or replace, whatever their case.
fn distance(a: &str, b: &str) -> usize {
    let b = b.to_lowercase().chars().collect::<Vec<_>>();
    let mut row = (0..=b.len()).collect::<Vec<_>>();
    for (i, letter) in a.to_lowercase().chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, other) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(letter != *other);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(row[j + 1] + 1);
        }
    }
    row[b.len()]
}

/// A time that lies back, in the unit that reads best.
pub(super) fn ago(micros: i64) -> String {
    let seconds = micros.max(0) / 1_000_000;
    match seconds {
        0..120 => format!("{seconds} s ago"),
        120..7_200 => format!("{} min ago", seconds / 60),
        7_200..172_800 => format!("{} h ago", seconds / 3_600),
        _ => format!("{} days ago", seconds / 86_400),
    }
}

/// Columns of text under their headings, as wide as they need to be.
pub(super) fn columns(headings: &[&str], rows: Vec<Vec<String>>) -> String {
    use comfy_table::{ContentArrangement, Table, presets::NOTHING};
    let mut table = Table::new();
    table.load_preset(NOTHING).set_content_arrangement(ContentArrangement::Disabled).set_header(headings.to_vec());
    for (index, column) in table.column_iter_mut().enumerate() {
        column.set_padding((if index == 0 { 2 } else { 0 }, 2));
    }
    table.add_rows(rows);
    table.to_string().lines().map(|line| format!("{}\n", line.trim_end())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_of_the_pen_is_recognised() {
        let maps = ["currencies", "customer-groups", "customers"];
        for (name, said) in [
            (
                "custmers",
                "there is no map custmers; did you mean customers? There are: currencies, customer-groups, customers",
            ),
            (
                "Currencies",
                "there is no map Currencies; did you mean currencies? \
                 There are: currencies, customer-groups, customers",
            ),
            ("vendors", "there is no map vendors. There are: currencies, customer-groups, customers"),
        ] {
            assert_eq!(there_is_no("map", name, maps), said);
        }
        assert_eq!(there_is_no("map", "x", []), "there is no map x, and no other either");
    }

    #[test]
    fn letters_are_counted() {
        for (a, b, wanted) in
            [("", "", 0), ("a", "", 1), ("", "ab", 2), ("abc", "abc", 0), ("abc", "ACB", 2), ("kitten", "sitting", 3)]
        {
            assert_eq!(distance(a, b), wanted, "{a} {b}");
            assert_eq!(distance(b, a), wanted, "{b} {a}");
        }
    }

    #[test]
    fn times_read_well() {
        for (seconds, said) in
            [(-3, "0 s ago"), (119, "119 s ago"), (120, "2 min ago"), (7_200, "2 h ago"), (172_800, "2 days ago")]
        {
            assert_eq!(ago(seconds * 1_000_000), said);
        }
    }
}

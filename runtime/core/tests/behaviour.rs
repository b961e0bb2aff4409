//! The page that compares behaviours names tests; every one of them is there.

use std::path::Path;

#[test]
fn every_test_that_the_page_names_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let page = include_str!("../BEHAVIOUR.md");
    let mut named = 0;
    let rows = page.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| behaviour |"));
    for line in rows {
        let shown = line.trim_end_matches(" |").rsplit(" | ").next().unwrap_or_default();
        let tests = shown.split('`').filter_map(|quoted| quoted.split_once("::")).collect::<Vec<_>>();
        assert!(!tests.is_empty(), "no test shows this: {line}");
        for (file, name) in tests {
            let text = std::fs::read_to_string(root.join(file)).unwrap_or_else(|error| panic!("{file}: {error}"));
            let mut lines = text.lines().map(str::trim);
            let is_test = lines.any(|line| {
                line.strip_prefix("async ")
                    .unwrap_or(line)
                    .strip_prefix("fn ")
                    .is_some_and(|rest| rest.strip_prefix(name).is_some_and(|rest| rest.starts_with('(')))
            });
            assert!(is_test, "{file} has no {name}");
            named += 1;
        }
    }
    assert!(named >= 30, "the page was not read: {named}");
}

/// Whoever looks for a subject finds its section, and every section says something.
#[test]
fn every_subject_has_its_behaviours() {
    const SUBJECTS: &[&str] = &[
        "Link",
        "Maps",
        "Catalogue",
        "Transforms",
        "Lookups",
        "Filters",
        "Keys and companies",
        "Validation",
        "Drift",
        "Dry run",
        "Rows on their way",
    ];
    let page = include_str!("../BEHAVIOUR.md");
    let sections = page.split("\n## ").skip(1).collect::<Vec<_>>();
    for subject in SUBJECTS {
        let section = sections.iter().find(|section| section.lines().next() == Some(*subject));
        let rows = section.map(|section| section.lines().filter(|line| line.starts_with("| ")).count());
        assert!(rows.is_some_and(|rows| rows >= 2), "the section {subject} has no row, or is not there");
    }
}

//! What is wrong before anything starts: every problem at once, each with its file, place and remedy, and exit code 2.
//!
//! The real program against both systems; a case changes one text of a configuration or of a map that is right.

use std::path::Path;
use std::process::Command;

use dualwright_core::SystemKind;
use dualwright_tests::world::{Served, Settings, write_config};
use tempfile::TempDir;

const PROGRAM: &str = env!("CARGO_BIN_EXE_dualwright-under-test");

/// What is changed, and what has to be said about it.
struct Case {
    /// `dualwright.toml`, or a map beside it.
    file: &'static str,
    from: &'static str,
    to: &'static str,
    said: &'static [&'static str],
}

const CASES: &[Case] = &[
    Case { file: "dualwright.toml", from: "tenant", to: "tenent", said: &["line 1", "unknown field `tenent`"] },
    Case { file: "dualwright.toml", from: "[link]", to: "[link", said: &["DW-3004", "line"] },
    Case {
        file: "dualwright.toml",
        from: "companies = [\"usmf\", \"demf\"]",
        to: "companies = []",
        said: &["link.companies"],
    },
    Case {
        file: "dualwright.toml",
        from: "[\"isocurrencycode\"]",
        to: "[\"nosuchcolumn\"]",
        said: &["currencies.json", "nosuchcolumn"],
    },
    Case {
        file: "dualwright.toml",
        from: "currencies.json",
        to: "nothing.json",
        said: &["nothing.json", "cannot be read"],
    },
    Case { file: "currencies.json", from: "{", to: "", said: &["currencies.json"] },
    Case { file: "currencies.json", from: "\"NAME\"", to: "\"NAMES\"", said: &["currencies.json", "NAMES"] },
    Case {
        file: "currencies.json",
        from: "currencyname",
        to: "currencynames",
        said: &["currencies.json", "currencynames"],
    },
    Case {
        file: "currencies.json",
        from: "transactioncurrencies",
        to: "nosuchtable",
        said: &["currencies.json", "nosuchtable"],
    },
    Case {
        file: "currencies.json",
        from: "\"Currencies\",\n      \"dest",
        to: "\"Coins\",\n      \"dest",
        said: &["currencies.json", "Coins"],
    },
    Case {
        file: "currencies.json",
        from: "CURRENCYCODE !=",
        to: "CURRENCYCODE =!=",
        said: &["currencies.json", "ilter"],
    },
    Case {
        file: "currencies.json",
        from: "\"3\"",
        to: "\"7\"",
        said: &["currencies.json", "fieldMappings[0].syncDirection"],
    },
    Case { file: "currencies.json", from: "1.0000000000", to: "one", said: &["currencies.json", "exchangerate"] },
];

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_is_named_before_anything_starts() -> anyhow::Result<()> {
    let (left, finops) = Served::start(SystemKind::Finops, None).await?;
    let (right, dataverse) = Served::start(SystemKind::Dataverse, None).await?;
    for case in CASES {
        let folder = TempDir::new()?;
        lay_out(folder.path(), &finops.base, &dataverse.base)?;
        change(folder.path(), case)?;
        let (code, said) = run(folder.path())?;
        let place = format!("{} with {:?}", case.file, case.to);
        assert_eq!(code, Some(2), "{place}: {said}");
        for words in case.said {
            assert!(said.contains(words), "{place}: {words:?} is not in\n{said}");
        }
        assert!(said.contains("nothing was started"), "{place}: {said}");
    }
    // The same set-up without a change is fine, and several changes are several problems.
    let folder = TempDir::new()?;
    lay_out(folder.path(), &finops.base, &dataverse.base)?;
    let (code, said) = run(folder.path())?;
    assert_eq!(code, Some(0), "{said}");
    let together = [&CASES[6], &CASES[7], &CASES[12]];
    for case in together {
        change(folder.path(), case)?;
    }
    let (_, said) = run(folder.path())?;
    for words in together.iter().flat_map(|case| case.said) {
        assert!(said.contains(words), "{words:?} is not in\n{said}");
    }
    left.end().await?;
    right.end().await
}

/// Under the text of a filter stands a caret, under the character that cannot be read, wherever the filter is checked.
#[tokio::test(flavor = "multi_thread")]
async fn a_caret_points_at_the_character_of_a_filter() -> anyhow::Result<()> {
    let (left, finops) = Served::start(SystemKind::Finops, None).await?;
    let (right, dataverse) = Served::start(SystemKind::Dataverse, None).await?;
    let folder = TempDir::new()?;
    lay_out(folder.path(), &finops.base, &dataverse.base)?;
    let case = Case { file: "currencies.json", from: "CURRENCYCODE != ", to: "CURRENCYCODE ? ", said: &[] };
    change(folder.path(), &case)?;
    let map = folder.path().join("currencies.json");
    let checked = Command::new(PROGRAM).args(["map", "check"]).arg(map).output()?;
    let checked = (checked.status.code(), String::from_utf8_lossy(&checked.stdout).into_owned());
    for (code, said) in [run(folder.path())?, checked] {
        assert_eq!(code, Some(2), "{said}");
        let lines = said.lines().collect::<Vec<_>>();
        let caret = lines.iter().position(|line| line.trim() == "^").unwrap_or_else(|| panic!("no caret in\n{said}"));
        let column = lines[caret].find('^').expect("it is there");
        assert_eq!(lines[caret - 1].chars().nth(column), Some('?'), "{said}");
    }
    left.end().await?;
    right.end().await
}

/// A configuration that is right, with a map of its own beside it.
fn lay_out(folder: &Path, finops: &str, dataverse: &str) -> anyhow::Result<()> {
    let settings = Settings { maps: vec!["currencies".to_owned()], ..Settings::default() };
    let config = write_config(folder, &settings, finops, dataverse)?;
    let text = std::fs::read_to_string(&config)?;
    let line = text.lines().find(|line| line.starts_with("file = ")).unwrap_or_default();
    let map = line.trim_start_matches("file = ").trim_matches('"');
    std::fs::copy(map, folder.join("currencies.json"))?;
    std::fs::write(&config, text.replace(line, "file = \"currencies.json\""))?;
    Ok(())
}

fn change(folder: &Path, case: &Case) -> anyhow::Result<()> {
    let file = folder.join(case.file);
    let before = std::fs::read_to_string(&file)?;
    let after = before.replacen(case.from, case.to, 1);
    assert_ne!(before, after, "{:?} is not in {}", case.from, case.file);
    std::fs::write(&file, after)?;
    Ok(())
}

fn run(folder: &Path) -> anyhow::Result<(Option<i32>, String)> {
    let config = folder.join("dualwright.toml");
    let output = Command::new(PROGRAM).args(["run", "--once", "--config"]).arg(config).output()?;
    Ok((output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned()))
}

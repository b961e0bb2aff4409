//! Changes of `dualwright.toml` by a command: one value is replaced, and everything else stays as a person wrote it.
//!
//! Owns finding the place of a value in the text; whether the text still makes sense is for whoever reads it next.

use std::collections::BTreeSet;
use std::io::Write;
use std::ops::Range;
use std::path::Path;

use serde::Deserialize;
use toml::Spanned;

#[derive(Deserialize)]
struct Written {
    link: Link,
}

#[derive(Deserialize)]
struct Link {
    slug: Spanned<String>,
    companies: Spanned<Vec<String>>,
    conflict_winner: Option<Spanned<String>>,
    finops: Side,
    dataverse: Side,
}

#[derive(Deserialize)]
struct Side {
    url: Spanned<String>,
}

/// What a connection set or a command puts into the `[link]`.
#[derive(Debug, Default)]
pub struct LinkEdit {
    pub companies: Option<BTreeSet<String>>,
    pub conflict_winner: Option<String>,
    pub finops_url: Option<String>,
    pub dataverse_url: Option<String>,
}

/// The text with these values in the place of those before. Fails when it is no configuration of a link.
pub fn edited(text: &str, edit: &LinkEdit) -> Result<String, String> {
    let written: Written = toml::from_str(text).map_err(|error| error.message().to_owned())?;
    let link = &written.link;
    let mut places: Vec<(Range<usize>, String)> = Vec::new();
    if let Some(companies) = &edit.companies {
        let before = link.companies.get_ref();
        // Those that stay keep their spelling and their order.
        let kept = before.iter().filter(|one| companies.contains(&one.to_lowercase())).cloned();
        let is_new = |one: &&String| !before.iter().any(|own| own.eq_ignore_ascii_case(one));
        let all = kept.chain(companies.iter().filter(is_new).cloned()).map(|one| quoted(&one)).collect::<Vec<_>>();
        places.push((link.companies.span(), format!("[{}]", all.join(", "))));
    }
    for (wanted, current) in [(&edit.finops_url, &link.finops.url), (&edit.dataverse_url, &link.dataverse.url)] {
        places.extend(wanted.as_ref().map(|wanted| (current.span(), quoted(wanted))));
    }
    match (&edit.conflict_winner, &link.conflict_winner) {
        (Some(wanted), Some(current)) => places.push((current.span(), quoted(wanted))),
        (Some(wanted), None) => {
            let end = link.slug.span().end;
            let inline = text[end..].trim_start_matches([' ', '\t']).starts_with([',', '}']);
            let comma = if inline { ", " } else { "\n" };
            places.push((end..end, format!("{comma}conflict_winner = {}", quoted(wanted))));
        }
        (None, _) => {}
    }
    places.sort_by_key(|(place, _)| std::cmp::Reverse(place.start));
    let mut text = text.to_owned();
    for (place, value) in places {
        text.replace_range(place, &value);
    }
    Ok(text)
}

/// A basic string of TOML is one of JSON, for names and URLs.
fn quoted(text: &str) -> String {
    serde_json::Value::String(text.to_owned()).to_string()
}

/// Puts a text in the place of a file, whole or not at all.
pub fn replace(path: &Path, text: &str) -> std::io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut file = tempfile::NamedTempFile::new_in(folder)?;
    if let Ok(metadata) = std::fs::metadata(path) {
        file.as_file().set_permissions(metadata.permissions())?;
    }
    file.write_all(text.as_bytes())?;
    file.as_file().sync_all()?;
    file.persist(path).map(|_| ()).map_err(|error| error.error)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "# ours\n[link] # the only one\nslug = \"l\" # short\ncompanies = [\n  \"USMF\", # first\n  \"demf\",\n]\n\
                        finops.url = \"https://a\"\ndataverse = { url = 'https://b' }\n\n[[map]]\nslug = \"m\"\n";

    #[test]
    fn only_the_value_is_replaced() {
        let companies = |list: &[&str]| Some(list.iter().map(|one| (*one).to_owned()).collect());
        let edit = LinkEdit { companies: companies(&["usmf", "gbsi"]), ..LinkEdit::default() };
        let wanted = "# ours\n[link] # the only one\nslug = \"l\" # short\ncompanies = [\"USMF\", \"gbsi\"]\n\
                      finops.url = \"https://a\"\ndataverse = { url = 'https://b' }\n\n[[map]]\nslug = \"m\"\n";
        assert_eq!(edited(TEXT, &edit).expect("edits"), wanted);
        let edit = LinkEdit {
            conflict_winner: Some("dataverse".to_owned()),
            dataverse_url: Some("https://c".to_owned()),
            ..LinkEdit::default()
        };
        let text = edited(TEXT, &edit).expect("edits");
        assert!(text.contains("slug = \"l\"\nconflict_winner = \"dataverse\" # short\n"), "{text}");
        assert!(text.contains("dataverse = { url = \"https://c\" }"), "{text}");
        assert_eq!(edited(TEXT, &LinkEdit::default()).expect("edits"), TEXT);
        let inline = "link = { slug = \"l\", companies = [], finops.url = \"a\", dataverse.url = \"b\" }";
        let edit = LinkEdit { conflict_winner: Some("finops".to_owned()), ..LinkEdit::default() };
        assert!(edited(inline, &edit).expect("edits").contains("\"l\", conflict_winner = \"finops\", companies"));
        assert!(edited("tenant = 1", &edit).is_err());
    }

    #[test]
    fn a_file_is_replaced_as_a_whole() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("dualwright.toml");
        std::fs::write(&file, "before").expect("written");
        replace(&file, "after").expect("replaces");
        assert_eq!(std::fs::read_to_string(&file).expect("reads"), "after");
        assert_eq!(std::fs::read_dir(folder.path()).expect("a folder").count(), 1, "nothing else is left");
    }
}

//! The versions of a map that were imported: a folder per map, with the text of each version as it came.
//!
//! A version is written once and never again, so whatever runs is never edited. Which one is active is the content of
//! one small file, replaced as a whole: a runtime at work takes it up between two transactions, any other at its start.
//! Knows nothing of what a map means.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use dualwright_core::mapping::{MapVersion, VersionFacts};
use sha2::{Digest, Sha256};

/// The versions of one map.
#[derive(Debug, Clone)]
pub struct Versions {
    folder: PathBuf,
}

/// What is kept about a version, beside its text.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct KeptVersion {
    #[serde(flatten)]
    pub facts: VersionFacts,
    /// Of the text, in hexadecimal.
    pub sha256: String,
}

/// What became of an import.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Imported {
    New,
    /// The very same text is there under this version.
    AlreadyThere,
}

/// How the files of a version end: its text, and what is kept beside it.
const TEXT: &str = ".map.json";
const FACTS: &str = ".facts.json";

/// The file that names the active version.
const ACTIVE: &str = "active";

impl Versions {
    /// The versions of the map with this slug, below the state folder of a configuration.
    #[must_use]
    pub fn of(state: &Path, slug: &str) -> Self {
        Self { folder: state.join("maps").join(slug) }
    }

    /// The slugs of all maps that have versions.
    pub fn slugs(state: &Path) -> io::Result<Vec<String>> {
        let entries = match fs::read_dir(state.join("maps")) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        let mut slugs = Vec::new();
        for entry in entries {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                slugs.push(entry.file_name().to_string_lossy().into_owned());
            }
        }
        slugs.sort();
        Ok(slugs)
    }

    /// The file with the text of a version.
    #[must_use]
    pub fn file(&self, version: MapVersion) -> PathBuf {
        self.folder.join(format!("{version}{TEXT}"))
    }

    /// Every version, the oldest first.
    pub fn all(&self) -> io::Result<Vec<KeptVersion>> {
        let entries = match fs::read_dir(&self.folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        let mut all = Vec::new();
        for entry in entries {
            let path = entry?.path();
            if path.to_string_lossy().ends_with(FACTS) {
                let kept: KeptVersion = serde_json::from_slice(&fs::read(path)?)?;
                all.push(kept);
            }
        }
        all.sort_by_key(|kept| kept.facts.version);
        Ok(all)
    }

    pub fn active(&self) -> Option<MapVersion> {
        fs::read_to_string(self.folder.join(ACTIVE)).ok()?.trim().parse().ok()
    }

    /// The file of the active version; where there is none, a file that does not exist.
    #[must_use]
    pub fn active_file(&self) -> PathBuf {
        self.active().map_or_else(|| self.folder.join("no-active-version.map.json"), |version| self.file(version))
    }

    /// The text of a version, as it was imported. An error when it is not what was imported.
    pub fn text(&self, version: MapVersion) -> io::Result<String> {
        let text = fs::read_to_string(self.file(version))?;
        let kept = self.all()?.into_iter().find(|kept| kept.facts.version == version);
        match kept {
            Some(kept) if kept.sha256 == digest(&text) => Ok(text),
            _ => Err(edited(version)),
        }
    }

    /// Keeps a version. Fails with [`io::ErrorKind::AlreadyExists`] when another text has that version.
    pub fn import(&self, facts: &VersionFacts, text: &str) -> io::Result<Imported> {
        fs::create_dir_all(&self.folder)?;
        let file = self.file(facts.version);
        match fs::read_to_string(&file) {
            Ok(current) if current == text => return Ok(Imported::AlreadyThere),
            Ok(_) => return Err(io::ErrorKind::AlreadyExists.into()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        let kept = KeptVersion { facts: facts.clone(), sha256: digest(text) };
        // The facts first: without its text a version is not found, and an import that was cut short can be repeated.
        write_whole(&self.folder.join(format!("{}{FACTS}", facts.version)), &serde_json::to_string_pretty(&kept)?)?;
        write_whole(&file, text)?;
        Ok(Imported::New)
    }

    /// From now on the map is this version: for a runtime at work as soon as it has found nothing wrong with it.
    pub fn activate(&self, version: MapVersion) -> io::Result<()> {
        self.text(version)?;
        write_whole(&self.folder.join(ACTIVE), &format!("{version}\n"))
    }
}

/// The text of a map file. Of one that was imported, the text that was imported: an error when somebody edited it.
pub fn read(file: &Path) -> io::Result<String> {
    let text = fs::read_to_string(file)?;
    let facts = version_of(file).map(|version| file.with_file_name(format!("{version}{FACTS}")));
    // A map file of the user's own has no such companion.
    let Some(kept) = facts.and_then(|facts| fs::read(facts).ok()) else { return Ok(text) };
    let kept: KeptVersion = serde_json::from_slice(&kept)?;
    if kept.sha256 == digest(&text) { Ok(text) } else { Err(edited(kept.facts.version)) }
}

/// The version whose text this file is, by its name.
#[must_use]
pub fn version_of(file: &Path) -> Option<MapVersion> {
    file.file_name()?.to_str()?.strip_suffix(TEXT)?.parse().ok()
}

fn edited(version: MapVersion) -> io::Error {
    let what = format!("version {version} is not the text that was imported; import it under another version");
    io::Error::new(io::ErrorKind::InvalidData, what)
}

fn digest(text: &str) -> String {
    Sha256::digest(text.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A file that is there wholly or not at all, also after a crash.
fn write_whole(path: &Path, text: &str) -> io::Result<()> {
    let beside = path.with_extension(format!("{}.new", std::process::id()));
    let mut file = fs::File::create(&beside)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&beside, path)?;
    if let Some(folder) = path.parent() {
        fs::File::open(folder)?.sync_all()?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(version: &str) -> VersionFacts {
        VersionFacts {
            version: version.parse().expect("a version"),
            publisher: "sst".into(),
            ..VersionFacts::default()
        }
    }

    #[test]
    fn a_version_is_written_once() {
        let state = tempfile::tempdir().expect("a folder");
        let versions = Versions::of(state.path(), "customers");
        assert_eq!(versions.all().expect("none"), []);
        assert_eq!(Versions::slugs(state.path()).expect("none"), Vec::<String>::new());
        assert_eq!(versions.import(&facts("1.0.0.10"), "{\"a\":1}").expect("new"), Imported::New);
        assert_eq!(versions.import(&facts("1.0.0.9"), " {\"a\": 2} ").expect("new"), Imported::New);
        assert_eq!(versions.import(&facts("1.0.0.9"), " {\"a\": 2} ").expect("again"), Imported::AlreadyThere);
        let other = versions.import(&facts("1.0.0.9"), "{}").expect_err("another text");
        assert_eq!(other.kind(), io::ErrorKind::AlreadyExists);
        let all = versions.all().expect("two").into_iter().map(|kept| kept.facts.version.to_string());
        assert_eq!(all.collect::<Vec<_>>(), ["1.0.0.9", "1.0.0.10"]);
        assert_eq!(versions.text(facts("1.0.0.9").version).expect("the text"), " {\"a\": 2} ");
        assert_eq!(Versions::slugs(state.path()).expect("one"), ["customers"]);
    }

    #[test]
    fn what_was_edited_is_no_version_any_more() {
        let state = tempfile::tempdir().expect("a folder");
        let versions = Versions::of(state.path(), "customers");
        let version = facts("2.0").version;
        assert_eq!(versions.active(), None);
        assert!(!versions.active_file().exists());
        assert!(versions.activate(version).is_err(), "there is none");
        versions.import(&facts("2.0"), "{}").expect("new");
        versions.activate(version).expect("active");
        assert_eq!((versions.active(), versions.active_file()), (Some(version), versions.file(version)));
        assert_eq!(read(&versions.file(version)).expect("as it came"), "{}");
        fs::write(versions.file(version), "{ }").expect("edited");
        assert!(read(&versions.file(version)).is_err(), "nothing runs that was edited");
        assert!(versions.text(version).is_err());
        assert!(versions.activate(version).is_err());
    }
}

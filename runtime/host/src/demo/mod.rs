//! The data of the demo: what `dualwright demo` loads into both emulated systems and does to them.
//!
//! Owns the tables of both sides, the fifteen maps, the rows (an AdventureWorks folder, or a small set of its own in the
//! same files and columns), the bad rows that have to be rejected, a script of edits on both sides, and the settings that
//! tie it all together. Knows no pipeline, no store and no socket: everything here is data that others seed, send and
//! compare. The rules by which rows follow from files stand in [`rows`].
//!
//! There are no person names in AdventureWorks. An individual is called by the local part of its e-mail address (first
//! name) and by its account number (last name).

mod bad_rows;
mod dataverse;
mod edits;
mod maps;
mod records;
mod rows;
mod settings;
mod tables;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};

pub use bad_rows::BadRow;
pub use dataverse::{Ids, KeyPart, Missing, RowName};
pub use edits::{ChangeSet, Edit, EditOperation, EditRequest, Edits};
pub use maps::{DemoMap, MAPS, MapFacts};
pub(crate) use rows::Build;
pub use settings::Urls;
pub use tables::{DATAVERSE_TABLES, FINOPS_TABLES, Tables};

/// A row as JSON, by property name.
pub type Row = serde_json::Map<String, serde_json::Value>;

/// The rows of one F&O entity.
#[derive(Debug, Clone)]
pub struct FinopsSet {
    /// Public collection.
    pub set: &'static str,
    pub rows: Vec<Row>,
}

/// Why the demo has no data.
#[derive(Debug, thiserror::Error)]
pub enum DemoError {
    #[error("{} cannot be read", file.display())]
    Read { file: PathBuf, source: std::io::Error },
    #[error("{} cannot be written", file.display())]
    Write { file: PathBuf, source: std::io::Error },
    #[error("{} holds no AdventureWorks: neither Customer.csv nor adventureworks/Customer.csv is there", folder.display())]
    NoData { folder: PathBuf },
    #[error("the maps that belong to {} are missing: a folder `maps` is expected in it or beside it", folder.display())]
    NoMaps { folder: PathBuf },
    #[error("{file}: {message}")]
    Data { file: String, message: String },
}

/// Where the demo's rows and maps come from.
#[derive(Debug, Clone)]
pub struct DataSource {
    records: records::Records,
    maps: Vec<DemoMap>,
    tables: Tables,
}

impl DataSource {
    /// The small data set that the program brings along.
    pub fn embedded() -> Result<Self, DemoError> {
        Ok(Self {
            records: records::Records::read(&records::Files::Embedded)?,
            maps: maps::embedded()?,
            tables: Tables::read()?,
        })
    }

    /// A folder with the AdventureWorks files, or its parent; the maps are in `maps`, in the folder or beside it.
    pub fn folder(folder: &Path) -> Result<Self, DemoError> {
        let data = [folder.to_owned(), folder.join("adventureworks")]
            .into_iter()
            .find(|folder| records::is_data_folder(folder))
            .ok_or_else(|| DemoError::NoData { folder: folder.to_owned() })?;
        let maps = maps::folder_of(folder)
            .or_else(|| maps::folder_of(&data))
            .ok_or_else(|| DemoError::NoMaps { folder: folder.to_owned() })?;
        Ok(Self {
            records: records::Records::read(&records::Files::Folder(data))?,
            maps: maps::shipped(&maps)?,
            tables: Tables::read()?,
        })
    }

    /// The table definitions of both emulators.
    #[must_use]
    pub const fn tables(&self) -> &Tables {
        &self.tables
    }

    /// The maps, parents first.
    #[must_use]
    pub fn maps(&self) -> &[DemoMap] {
        &self.maps
    }

    /// The legal entities of the link, as `dataAreaId` spells them.
    #[must_use]
    pub fn companies(&self) -> Vec<String> {
        rows::World::new(&self.records).companies.into_iter().map(|company| company.id).collect()
    }

    /// The rows of F&O, set by set, parents first; the bad rows are the last of their sets.
    pub fn finops_rows(&self) -> Result<Vec<FinopsSet>, DemoError> {
        let mut sets = self.good_rows();
        let bad = bad_rows::planted(&sets)?;
        for row in bad {
            if let Some(set) = sets.iter_mut().find(|set| set.set == row.set) {
                set.rows.push(row.row);
            }
        }
        Ok(sets)
    }

    /// The rows of F&O without the bad ones.
    #[must_use]
    pub fn good_rows(&self) -> Vec<FinopsSet> {
        rows::World::new(&self.records).sets()
    }

    /// The bad rows: exactly these must be rejected.
    pub fn bad_rows(&self) -> Result<Vec<BadRow>, DemoError> {
        bad_rows::planted(&self.good_rows())
    }

    /// The edits on both sides.
    pub fn edits(&self) -> Result<Edits, DemoError> {
        edits::plan(self)
    }

    /// Writes `dualwright.toml` and its maps into a folder. `dualwright run --config` works on it.
    pub fn write_settings(&self, folder: &Path, urls: &Urls) -> Result<PathBuf, DemoError> {
        settings::write(self, folder, urls)
    }
}

//! Companies: which ones there are, and in which one a caller works.
//!
//! Owns the default company of each user and the check that a company exists. Companies are the rows of the entity
//! `LegalEntities` where it is defined and holds any; without it every code is taken.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use rusqlite::Connection;
use serde::{Deserialize, Serialize};

use crate::catalogue::Catalogue;
use crate::cell::Cell;
use crate::store;

/// The company of a user who was given none: that of the system itself.
const DEFAULT: &str = "dat";

/// Default companies. `GET` and `PUT /_emulator/companies` read and replace them:
/// `{"default":"usmf","users":{"<client id or user>":"ussi"}}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct DefaultCompanies {
    pub default: String,
    pub users: BTreeMap<String, String>,
}

impl Default for DefaultCompanies {
    fn default() -> Self {
        Self { default: DEFAULT.to_owned(), users: BTreeMap::new() }
    }
}

#[derive(Debug, Default)]
pub(crate) struct Companies(Mutex<DefaultCompanies>);

impl Companies {
    pub fn get(&self) -> DefaultCompanies {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub fn set(&self, mut companies: DefaultCompanies) {
        companies.default.make_ascii_lowercase();
        companies.users.values_mut().for_each(|company| company.make_ascii_lowercase());
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = companies;
    }

    /// The company in which a caller works who says nothing of companies.
    pub fn of(&self, caller: Option<&str>) -> String {
        let companies = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        caller.and_then(|caller| companies.users.get(caller)).unwrap_or(&companies.default).clone()
    }
}

/// Whether rows can be written for a company.
pub(crate) fn exists(connection: &Connection, catalogue: &Catalogue, company: &Cell) -> rusqlite::Result<bool> {
    let Some(entities) = catalogue.by_set("LegalEntities") else { return Ok(true) };
    let (Some(at), [key]) = (entities.property("LegalEntityId"), entities.key.as_slice()) else { return Ok(true) };
    if at != *key || !store::has_rows(connection, entities)? {
        return Ok(true);
    }
    let mut row = entities.empty_row();
    row[at] = company.clone();
    Ok(store::find(connection, &entities.row_key(&row))?.is_some())
}

//! Definitions that change while the system runs: what that does to the rows that are there.
//!
//! Owns the same transaction's view of it: a table that was made can be written by the next operation, and nothing of
//! it is left when the transaction fails. Knows nothing of how a change was asked for.

use std::sync::Arc;

use anyhow::Context;
use rusqlite::{Connection, params};

use crate::catalogue::{Catalogue, Table};
use crate::definition::{OptionDefinition, TableDefinition};
use crate::session::Session;
use crate::store;

impl Session<'_> {
    /// Puts a definition in force as it is, in place of the one before.
    pub fn redefine(&mut self, definition: TableDefinition) -> anyhow::Result<()> {
        definition.check()?;
        let before = self.catalogue.by_name(&definition.name).cloned();
        store::put_definition(self.connection(), &definition)?;
        let after = self.reload()?;
        let keys_differ = before.is_some_and(|before| before.definition.alternate_keys != definition.alternate_keys);
        if keys_differ && let Some(table) = after.by_name(&definition.name) {
            store::index_again(self.connection(), table)
                .with_context(|| format!("the rows of {} do not fit its keys", definition.name))?;
        }
        self.enter(after);
        Ok(())
    }

    /// [`Self::redefine`], unless the rows do not fit: then nothing has changed, and the answer is false.
    pub fn attempt(&mut self, definition: TableDefinition) -> rusqlite::Result<bool> {
        let completed = crate::catalogue::completed(crate::Dialect::Dataverse, definition);
        let catalogue = Arc::clone(&self.catalogue);
        self.connection().execute_batch("SAVEPOINT redefinition")?;
        let fits = self.redefine(completed).is_ok();
        if fits {
            self.connection().execute_batch("RELEASE redefinition")?;
        } else {
            self.connection().execute_batch("ROLLBACK TO redefinition; RELEASE redefinition")?;
            self.catalogue = catalogue;
        }
        Ok(fits)
    }

    pub fn drop_key(&mut self, table: &Table, name: &str) -> anyhow::Result<()> {
        let mut definition = table.definition.clone();
        definition.alternate_keys.retain(|key| key.name != name);
        self.redefine(definition)
    }

    /// Removes a table with its rows, and all that is known of them.
    pub fn drop_table(&mut self, table: &Table) -> rusqlite::Result<()> {
        let connection = self.connection();
        let (first, last) = store::places(table);
        drop_alternates(connection, table)?;
        connection.execute("DELETE FROM link WHERE row BETWEEN ?1 AND ?2", [first, last])?;
        connection.execute("DELETE FROM row WHERE id BETWEEN ?1 AND ?2", [first, last])?;
        connection.execute("DELETE FROM tombstone WHERE number = ?1", [table.number])?;
        connection.execute("DELETE FROM definition WHERE number = ?1", [table.number])?;
        self.reload_and_enter()
    }

    /// Removes a column from the definition and its cell from every row: cells are kept by their places.
    pub fn drop_column(&mut self, table: &Table, place: usize) -> anyhow::Result<()> {
        let mut definition = table.definition.clone();
        definition.columns.remove(place);
        let connection = self.connection();
        let (first, last) = store::places(table);
        let mut rows = Vec::new();
        store::scan(connection, table, 0, i64::MAX, false, &mut |id, _, data| {
            let mut cells = Vec::with_capacity(table.columns.len());
            table.cells(data, &mut cells);
            cells.remove(place);
            rows.push((id, crate::cell::join(cells)));
            Ok(true)
        })?;
        let mut update = connection.prepare("UPDATE row SET data = ?1 WHERE id = ?2")?;
        for (id, data) in rows {
            update.execute(params![data, id])?;
        }
        let place = i64::try_from(place)?;
        connection
            .execute("DELETE FROM link WHERE row BETWEEN ?1 AND ?2 AND place = ?3", params![first, last, place])?;
        connection.execute(
            "UPDATE link SET place = place - 1 WHERE row BETWEEN ?1 AND ?2 AND place > ?3",
            params![first, last, place],
        )?;
        drop(update);
        self.redefine(definition)
    }

    /// Adds a global choice, or replaces its options.
    pub fn put_choice(&mut self, name: &str, options: &[OptionDefinition]) -> rusqlite::Result<()> {
        let json = serde_json::to_string(options).unwrap_or_default();
        self.connection().execute("INSERT OR REPLACE INTO choice VALUES (?1, ?2)", params![name, json])?;
        self.reload_and_enter()
    }

    pub fn drop_choice(&mut self, name: &str) -> rusqlite::Result<()> {
        self.connection().execute("DELETE FROM choice WHERE name = ?1", [name])?;
        self.reload_and_enter()
    }

    fn reload(&self) -> anyhow::Result<Arc<Catalogue>> {
        let dialect = self.catalogue.tables().next().map_or(crate::Dialect::Dataverse, |table| table.dialect);
        Ok(Arc::new(store::load_catalogue(self.connection(), dialect)?))
    }

    fn reload_and_enter(&mut self) -> rusqlite::Result<()> {
        // Definitions that were read before can be read again.
        let after = self.reload().map_err(|error| rusqlite::Error::ToSqlConversionFailure(error.into()))?;
        self.enter(after);
        Ok(())
    }

    fn enter(&mut self, catalogue: Arc<Catalogue>) {
        self.catalogue = catalogue;
        self.redefined = true;
    }
}

/// Removes the entries of a table's alternate keys, which begin with its number.
fn drop_alternates(connection: &Connection, table: &Table) -> rusqlite::Result<()> {
    let number = u32::try_from(table.number).unwrap_or(u32::MAX);
    connection.execute(
        "DELETE FROM alternate WHERE key >= ?1 AND key < ?2",
        params![number.to_be_bytes().as_slice(), number.saturating_add(1).to_be_bytes().as_slice()],
    )?;
    Ok(())
}

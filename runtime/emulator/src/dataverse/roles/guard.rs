//! What is asked before a caller reads or writes.
//!
//! Owns the check of one right on one table, and the words of the refusal: error 0x80040220 of the "Web service error
//! codes" (<https://learn.microsoft.com/power-apps/developer/data-platform/reference/web-service-error-codes>).

use std::sync::Arc;

use dualwright_odata::batch::Response;
use uuid::Uuid;

use super::super::{error, system};
use super::{Caller, GLOBAL, TABLES, privilege_id, privilege_name, reach};
use crate::catalogue::Table;
use crate::observe::{Access, Observer, Right};
use crate::session::Session;

const MISSING: &str = "0x80040220";

/// Stands between a caller who is no administrator and row writes.
#[derive(Debug)]
pub(crate) struct Guard {
    pub caller: Arc<Caller>,
}

impl Observer for Guard {
    fn permit(&mut self, _session: &Session<'_>, access: &Access<'_>) -> Result<(), Response> {
        // Whoever may join rows was asked when they were joined.
        if access.table.definition.many_to_many.is_some() {
            return Ok(());
        }
        let right = match access.right {
            Right::Create => "Create",
            Right::Write => "Write",
            Right::Delete => "Delete",
            Right::Append => "Append",
            Right::AppendTo => "AppendTo",
            Right::Assign => "Assign",
        };
        let name = privilege_name(right, access.table);
        let depth = self.caller.depth(privilege_id(&name));
        match access.row {
            _ if depth == 0 => Err(missing(&self.caller, &name, Some(access.table))),
            // A row that is yet to be made is its maker's.
            Some(row) if !reach::reaches(&self.caller, depth, access.table, row) => {
                Err(reach::refused(&self.caller, access.table, row, &format!("{right}Access")))
            }
            _ => Ok(()),
        }
    }
}

/// Whether the caller may read rows of a table at all.
pub(crate) fn may_read(caller: &Caller, table: &Table) -> Result<(), Response> {
    reads(caller, table, 1)
}

/// Whether the caller may read all rows of a table, which change tracking needs.
pub(crate) fn may_read_all(caller: &Caller, table: &Table) -> Result<(), Response> {
    reads(caller, table, GLOBAL)
}

fn reads(caller: &Caller, table: &Table, depth: u8) -> Result<(), Response> {
    // Everybody may see who there is and what they may do: a client asks that first.
    if caller.is_administrator() || (depth < GLOBAL && TABLES.contains(&table.name())) {
        return Ok(());
    }
    if table.definition.many_to_many.is_some() && depth < GLOBAL {
        return Ok(());
    }
    let name = privilege_name("Read", table);
    if caller.depth(privilege_id(&name)) >= depth {
        return Ok(());
    }
    Err(missing(caller, &name, Some(table)))
}

/// Whether the caller has a privilege that is about no table.
pub(crate) fn require(caller: &Caller, privilege: &str) -> Result<(), Response> {
    if caller.depth(privilege_id(privilege)) > 0 {
        return Ok(());
    }
    Err(missing(caller, privilege, None))
}

/// Whether the caller may join a row of one table to a row of the other: roles are assigned, other rows appended.
pub(crate) fn may_join(caller: &Caller, table: &Table, other: &Table) -> Result<(), Response> {
    if caller.is_administrator() {
        return Ok(());
    }
    if [table, other].iter().any(|one| one.name() == "role") {
        return require(caller, super::ASSIGN_ROLE);
    }
    for (right, table) in [("Append", table), ("AppendTo", other)] {
        let name = privilege_name(right, table);
        if caller.depth(privilege_id(&name)) == 0 {
            return Err(missing(caller, &name, Some(table)));
        }
    }
    Ok(())
}

fn missing(caller: &Caller, privilege: &str, table: Option<&Table>) -> Response {
    // On somebody's behalf, the one of both who lacks it is named.
    let id = privilege_id(privilege);
    let user = if caller.user.depth(id) == 0 { &caller.user } else { &caller.initiating };
    let on = table.map_or_else(String::new, |table| {
        let label = table.definition.display_name.clone().unwrap_or_else(|| system::label_of(table.name()));
        let code = system::object_type_code(table.name(), table.number);
        format!(" on OTC={code} for entity '{}' (LocalizedName='{label}')", table.name())
    });
    let message = format!(
        "Principal user (Id={}, type=8, roleCount={}, privilegeCount={}, accessMode='{}', AADObjectId='{}', \
         MetadataCachePrivilegesCount={}, businessUnitId={}), is missing {privilege} privilege (Id={id}){on}. \
         context.Caller={}. Consider adding missed privilege to one of the principal (user/team) roles.",
        user.id,
        user.roles.len(),
        user.privileges.len(),
        user.access_mode,
        user.object_id.unwrap_or(Uuid::nil()),
        caller.directory.privileges.len(),
        user.business_unit,
        caller.user.id,
    );
    error(403, MISSING, &message)
}

//! How far a privilege reaches: the rows that its depth leaves to a caller.
//!
//! Owns what user, business unit and the units below it mean for the owner of a row
//! (<https://learn.microsoft.com/power-platform/admin/security-roles-privileges#privilege-scope-of-access>). A table whose
//! rows belong to the organization has no owners, and there every depth reaches all of it.

use std::sync::Arc;

use dualwright_odata::Literal;
use dualwright_odata::batch::Response;
use uuid::Uuid;

use super::super::condition::{Condition, Place, Test};
use super::super::rows::place;
use super::super::{error, system};
use super::{Caller, DEEP, GLOBAL, LOCAL, TABLES, privilege_id, privilege_name};
use crate::catalogue::Table;

/// `0x80048306`, which the message repeats as a number with its sign.
const OUT_OF_REACH: &str = "0x80048306";

impl Caller {
    /// The business units in which a privilege of that depth reaches rows of others.
    fn units(&self, depth: u8) -> Vec<Uuid> {
        let own = self.user.business_unit;
        match depth {
            LOCAL => vec![own],
            DEEP => self.directory.units_below(own),
            _ => Vec::new(),
        }
    }

    /// The user and the teams of the user.
    fn principals(&self) -> impl Iterator<Item = Uuid> {
        [self.user.id].into_iter().chain(self.user.teams.iter().copied())
    }
}

/// What the row with that number among the joined ones has to meet for the caller to read it; `None` where all of the
/// table are read. Whether the caller may read the table at all is asked elsewhere.
pub(crate) fn of(caller: &Caller, table: &Arc<Table>, source: usize) -> Option<Condition> {
    if caller.is_administrator() || TABLES.contains(&table.name()) {
        return None;
    }
    let depth = caller.depth(privilege_id(&privilege_name("Read", table)));
    if depth >= GLOBAL {
        return None;
    }
    let (owner, unit) = (place(table, "ownerid")?, place(table, "owningbusinessunit"));
    let one_of = |at: usize, ids: Vec<Uuid>| Condition::Test {
        place: Place { source, ..Place::own(table, at) },
        test: Test::In(ids.into_iter().map(Literal::Guid).collect()),
    };
    let mut any = vec![one_of(owner, caller.principals().collect())];
    let units = caller.units(depth);
    if let Some(unit) = unit.filter(|_| !units.is_empty()) {
        any.push(one_of(unit, units));
    }
    Some(Condition::Or(any))
}

/// Whether a privilege of that depth reaches the row.
pub(super) fn reaches(caller: &Caller, depth: u8, table: &Table, row: &[&str]) -> bool {
    if depth >= GLOBAL {
        return true;
    }
    let Some(owner) = place(table, "ownerid") else { return depth > 0 };
    let is_own = table.id_of(&row[owner]).is_none_or(|owner| caller.principals().any(|own| own == owner));
    let unit = place(table, "owningbusinessunit").and_then(|at| table.id_of(&row[at]));
    depth > 0 && (is_own || unit.is_some_and(|unit| caller.units(depth).contains(&unit)))
}

/// Refuses to let the caller read a row that is out of reach.
pub(crate) fn may_read_row(caller: &Caller, table: &Table, row: &[&str]) -> Result<(), Response> {
    if caller.is_administrator() || TABLES.contains(&table.name()) || table.definition.many_to_many.is_some() {
        return Ok(());
    }
    let depth = caller.depth(privilege_id(&privilege_name("Read", table)));
    if reaches(caller, depth, table, row) { Ok(()) } else { Err(refused(caller, table, row, "ReadAccess")) }
}

/// The answer to who has the privilege, but not so far.
pub(super) fn refused(caller: &Caller, table: &Table, row: &[&str], access: &str) -> Response {
    let id = |column: Option<usize>| column.and_then(|at| table.id_of(&row[at])).unwrap_or_default();
    let owner = id(place(table, "ownerid"));
    let owner_type =
        if place(table, "owningteam").is_some_and(|at| table.id_of(&row[at]) == Some(owner)) { 9 } else { 8 };
    let message = format!(
        "SecLib::AccessCheckEx failed. Returned hr = -2147187962, ObjectID: {}, OwnerId: {owner},  OwnerIdType: \
         {owner_type} and CallingUser: {}. ObjectTypeCode: {}, objectBusinessUnitId: {}, AccessRights: {access} ",
        id(table.primary_id),
        caller.user.id,
        system::object_type_code(table.name(), table.number),
        id(place(table, "owningbusinessunit")),
    );
    error(403, OUT_OF_REACH, &message)
}

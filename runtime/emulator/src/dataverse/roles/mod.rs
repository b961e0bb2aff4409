//! Who may do what: users, teams, security roles and privileges.
//!
//! Owns the tables of section "Security concepts" of the platform
//! (<https://learn.microsoft.com/power-platform/admin/wp-security-cds>) beside users themselves, the rows that every
//! organization starts with, and the roles that Dual-write needs
//! (<https://learn.microsoft.com/dynamics365/fin-ops-core/dev-itpro/data-entities/dual-write/security-roles>). Who a caller
//! is stands in `directory`, what is asked of a caller in `guard`, which rows a privilege reaches in `reach`, the messages in
//! `messages`.

mod directory;
mod guard;
mod messages;
mod reach;

use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::rows::scan;
use super::system;
use crate::catalogue::Table;
use crate::definition::{TableDefinition, read_tables};

pub(crate) use directory::{Caller, Directory};
pub(crate) use guard::{Guard, may_join, may_read, may_read_all, require};
pub(crate) use messages::{read, write};
pub(crate) use reach::{may_read_row, of as reach_of};

/// Tables whose rows decide about callers; they are compiled into the directory.
pub(crate) const TABLES: [&str; 9] = [
    system::BUSINESS_UNIT,
    system::USER,
    system::TEAM,
    "role",
    "privilege",
    "systemuserroles",
    "teamroles",
    "teammembership",
    "roleprivileges",
];

pub(crate) const ACT_ON_BEHALF: &str = "prvActOnBehalfOfAnotherUser";
pub(crate) const BYPASS_PLUGINS: &str = "prvBypassCustomPlugins";
pub(crate) const BYPASS_LOGIC: &str = "prvBypassCustomBusinessLogic";
pub(crate) const ASSIGN_ROLE: &str = "prvAssignRole";
const OTHER_PRIVILEGES: [&str; 4] = [ACT_ON_BEHALF, BYPASS_PLUGINS, BYPASS_LOGIC, ASSIGN_ROLE];

/// Every right on a table, with its number in `AccessRights`.
const RIGHTS: [(&str, i64); 8] = [
    ("Create", 32),
    ("Read", 1),
    ("Write", 2),
    ("Delete", 65_536),
    ("Append", 4),
    ("AppendTo", 16),
    ("Assign", 524_288),
    ("Share", 262_144),
];

/// How far a privilege reaches, as `privilegedepthmask` says it.
pub(crate) const BASIC: u8 = 1;
pub(crate) const LOCAL: u8 = 2;
pub(crate) const DEEP: u8 = 4;
pub(crate) const GLOBAL: u8 = 8;

/// The template of the role that may do everything, the same in every organization.
pub(crate) const ADMINISTRATOR_TEMPLATE: Uuid = Uuid::from_u128(0x6270_90ff_40a3_4053_8790_584e_dc5b_e201);
const CUSTOMIZER_TEMPLATE: Uuid = Uuid::from_u128(0x119f_245c_3cc8_4b62_b31c_d1a0_46ce_d15d);

pub(crate) const ADMINISTRATOR: &str = "System Administrator";
const CUSTOMIZER: &str = "System Customizer";
const DELEGATE: &str = "Delegate";
const DUAL_WRITE_RUNTIME: &str = "Dual-write runtime user";
const DUAL_WRITE_APP: &str = "Dual-write app user";

/// The applications through which Dual-write acts, which are users with the role of an administrator.
const DUAL_WRITE_APPLICATIONS: [(&str, u128); 2] = [
    ("Dynamics 365 Data Integrator", 0x2e49_aa60_1bd3_43b6_8ab6_03ad_a3d9_f08b),
    ("Microsoft Dynamics ERP", 0x0000_0015_0000_0000_c000_0000_0000_0000),
];

/// What the roles of Dual-write may read, as far as the tables are there.
const DUAL_WRITE_READS: [(&str, &[&str]); 2] = [
    (
        DUAL_WRITE_RUNTIME,
        &[
            "msdyn_dualwriteruntimeconfig",
            "msdyn_dualwriteentitymap",
            "msdyn_dualwriteconfig",
            "msdyn_dualwritesetting",
        ],
    ),
    (
        DUAL_WRITE_APP,
        &[
            "cdm_company",
            "transactioncurrency",
            "msdyn_currencyexchangeratepair",
            "msdyn_currencyexchangerate",
            "msdyn_exchangeratetype",
            "msdyn_exchangerate",
        ],
    ),
];

fn known_id(kind: &str, name: &str) -> Uuid {
    Uuid::new_v5(&Uuid::NAMESPACE_OID, format!("{kind}/{}", name.to_lowercase()).as_bytes())
}

/// The id of the privilege with this name.
pub(crate) fn privilege_id(name: &str) -> Uuid {
    known_id("privilege", name)
}

pub(crate) fn role_id(name: &str) -> Uuid {
    known_id("role", name)
}

/// `prvCreateAccount`.
pub(crate) fn privilege_name(right: &str, table: &Table) -> String {
    let written = table.definition.schema_name.clone().unwrap_or_else(|| system::schema_name(table.name()));
    format!("prv{right}{written}")
}

pub(crate) fn tables() -> anyhow::Result<Vec<TableDefinition>> {
    Ok(read_tables(include_str!("tables.json"))?.tables)
}

pub(crate) type Row = (&'static str, Map<String, Value>);

fn row(set: &'static str, columns: Value) -> Option<Row> {
    match columns {
        Value::Object(columns) => Some((set, columns)),
        _ => None,
    }
}

fn granted(role: &str, privilege: &str) -> Option<Row> {
    let (role, privilege) = (role_id(role), privilege_id(privilege));
    let id = known_id("role privilege", &format!("{role}{privilege}"));
    let columns = json!({
        "roleprivilegeid": id, "roleid": role, "privilegeid": privilege, "privilegedepthmask": GLOBAL,
    });
    row("roleprivilegescollection", columns)
}

fn privilege(name: &str, right: i64) -> Option<Row> {
    let columns = json!({
        "privilegeid": privilege_id(name), "name": name, "accessright": right, "canbebasic": right != 0,
        "canbelocal": right != 0, "canbedeep": right != 0, "canbeglobal": true,
    });
    row("privileges", columns)
}

/// The rows of a new organization, by set.
pub(crate) fn first_rows() -> Vec<Row> {
    let unit = system::business_unit_id();
    let role = |name: &str, template: Option<Uuid>| {
        row("roles", json!({"roleid": role_id(name), "name": name, "roletemplateid": template, "businessunitid": unit}))
    };
    let mut rows = vec![
        role(ADMINISTRATOR, Some(ADMINISTRATOR_TEMPLATE)),
        role(CUSTOMIZER, Some(CUSTOMIZER_TEMPLATE)),
        role(DELEGATE, None),
        role(DUAL_WRITE_RUNTIME, None),
        role(DUAL_WRITE_APP, None),
        has_role(system::user_id(), ADMINISTRATOR),
    ];
    rows.extend(OTHER_PRIVILEGES.iter().map(|name| privilege(name, 0)));
    rows.push(granted(DELEGATE, ACT_ON_BEHALF));
    rows.into_iter().flatten().collect()
}

fn has_role(user: Uuid, role: &str) -> Option<Row> {
    let id = known_id("user role", &format!("{user}{role}"));
    row("systemuserrolescollection", json!({"systemuserroleid": id, "systemuserid": user, "roleid": role_id(role)}))
}

/// The row by which one sees whether a table has its privileges already.
pub(crate) fn sign_of(table: &Table) -> Option<Uuid> {
    // Pairs of other tables' rows are those tables' matter.
    table.definition.many_to_many.is_none().then(|| privilege_id(&privilege_name("Read", table)))
}

/// The privileges on a table, and what the first roles may do with it.
pub(crate) fn rows_of(table: &Table) -> Vec<Row> {
    let mut rows =
        RIGHTS.iter().map(|(right, number)| privilege(&privilege_name(right, table), *number)).collect::<Vec<_>>();
    for (role, tables) in DUAL_WRITE_READS {
        if tables.contains(&table.name()) {
            rows.push(granted(role, &privilege_name("Read", table)));
        }
    }
    // A customizer works with every table that is not the system's own.
    if system::is_custom(table.name()) {
        rows.extend(RIGHTS.iter().map(|(right, _)| granted(CUSTOMIZER, &privilege_name(right, table))));
    }
    rows.into_iter().flatten().collect()
}

/// The applications of Dual-write as users, for an environment that a link shall find ready.
pub(crate) fn dual_write_users() -> Vec<Row> {
    let mut rows = Vec::new();
    for (name, application) in DUAL_WRITE_APPLICATIONS {
        let application = Uuid::from_u128(application);
        let user = known_id("application user", &application.to_string());
        rows.push(row(
            "systemusers",
            json!({
                "systemuserid": user, "fullname": name, "applicationid": application, "accessmode": 4,
                "isdisabled": false, "businessunitid": system::business_unit_id(),
            }),
        ));
        rows.push(has_role(user, ADMINISTRATOR));
    }
    rows.into_iter().flatten().collect()
}

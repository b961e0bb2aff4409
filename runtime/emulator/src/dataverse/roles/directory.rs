//! Users with what their roles add up to, and who a request comes from.
//!
//! Owns the way from a token's application, or from nothing, to a user, and from there to the user on whose behalf is
//! acted. Knows no table beside those of users and roles.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use dualwright_odata::batch::{Request, Response, header};
use rusqlite::Connection;
use uuid::Uuid;

use super::super::{BAD_QUERY, NOT_FOUND, error, system};
use super::{ACT_ON_BEHALF, ADMINISTRATOR_TEMPLATE, GLOBAL, privilege_id, require, scan};
use crate::catalogue::Catalogue;

/// Every user of the organization.
#[derive(Debug, Default)]
pub(crate) struct Directory {
    users: HashMap<Uuid, Arc<User>>,
    by_application: HashMap<Uuid, Uuid>,
    by_object: HashMap<Uuid, Uuid>,
    /// Business units with those right below them.
    units: HashMap<Uuid, Vec<Uuid>>,
    /// Of all privileges there are, by id.
    pub privileges: HashMap<Uuid, String>,
}

/// One user.
#[derive(Debug, Default)]
pub(crate) struct User {
    pub id: Uuid,
    pub object_id: Option<Uuid>,
    pub application: Option<Uuid>,
    pub business_unit: Uuid,
    pub is_disabled: bool,
    /// As the platform writes it: `0 Read-Write`.
    pub access_mode: String,
    pub teams: HashSet<Uuid>,
    pub roles: HashSet<Uuid>,
    /// Has a role that may do everything.
    pub is_administrator: bool,
    /// How far each privilege reaches.
    pub privileges: HashMap<Uuid, u8>,
}

impl User {
    /// How far a privilege reaches for this user; 0 when it is missing.
    pub fn depth(&self, privilege: Uuid) -> u8 {
        if self.is_administrator { GLOBAL } else { self.privileges.get(&privilege).copied().unwrap_or(0) }
    }
}

/// Who a request comes from.
#[derive(Debug, Clone)]
pub(crate) struct Caller {
    /// The user who acts.
    pub user: Arc<User>,
    /// The user who sent the request; another one when it acts on somebody's behalf.
    pub initiating: Arc<User>,
    /// What both were found in.
    pub directory: Arc<Directory>,
}

impl Caller {
    /// How far a privilege reaches: no further than for either user.
    pub fn depth(&self, privilege: Uuid) -> u8 {
        self.user.depth(privilege).min(self.initiating.depth(privilege))
    }

    pub fn is_administrator(&self) -> bool {
        self.user.is_administrator && self.initiating.is_administrator
    }

    /// For whom rows are written.
    pub fn in_session(&self) -> crate::session::Caller {
        let delegate = (self.initiating.id != self.user.id).then_some(self.initiating.id);
        crate::session::Caller { user: self.user.id, delegate }
    }

    /// The caller of one operation: with the user whom its headers name.
    pub fn acting(&self, request: &Request) -> Result<Self, Response> {
        let directory = &self.directory;
        let named = [("MSCRMCallerID", None), ("CallerObjectId", Some(&directory.by_object))];
        for (name, index) in named {
            let Some(text) = header(&request.headers, name) else { continue };
            let id = Uuid::parse_str(text.trim())
                .map_err(|_| error(400, BAD_QUERY, &format!("The value of the header {name} is not a valid GUID.")))?;
            let user = match index {
                None => Some(id),
                Some(index) => index.get(&id).copied(),
            };
            let user = user.and_then(|user| directory.users.get(&user)).cloned().ok_or_else(|| {
                error(404, NOT_FOUND, &format!("Entity '{}' With Id = {id} Does Not Exist", system::USER))
            })?;
            if user.id != self.initiating.id {
                let sender = Self { user: Arc::clone(&self.initiating), ..self.clone() };
                require(&sender, ACT_ON_BEHALF)?;
            }
            enabled(&user)?;
            return Ok(Self { user, ..self.clone() });
        }
        Ok(self.clone())
    }
}

fn enabled(user: &User) -> Result<(), Response> {
    if user.is_disabled {
        let message = format!("The specified user(Id = {}) is disabled. Consider enabling this user.", user.id);
        return Err(error(403, "0x80040225", &message));
    }
    Ok(())
}

impl Directory {
    pub fn load(connection: &Connection, catalogue: &Catalogue) -> rusqlite::Result<Self> {
        let mut directory = Self::default();
        let mut administrators = HashSet::new();
        let mut role_privileges: HashMap<Uuid, Vec<(Uuid, u8)>> = HashMap::new();
        let mut team_roles: HashMap<Uuid, Vec<Uuid>> = HashMap::new();
        let mut users = HashMap::new();
        scan(connection, catalogue, "privilege", |row| {
            if let Some(id) = row.own_id() {
                directory.privileges.insert(id, row.text("name"));
            }
        })?;
        scan(connection, catalogue, system::BUSINESS_UNIT, |row| {
            if let (Some(unit), Some(parent)) = (row.own_id(), row.id("parentbusinessunitid")) {
                directory.units.entry(parent).or_default().push(unit);
            }
        })?;
        scan(connection, catalogue, "role", |row| {
            if row.id("roletemplateid") == Some(ADMINISTRATOR_TEMPLATE) {
                administrators.extend(row.own_id());
            }
        })?;
        scan(connection, catalogue, "roleprivileges", |row| {
            if let (Some(role), Some(privilege)) = (row.id("roleid"), row.id("privilegeid")) {
                let depth = u8::try_from(row.number("privilegedepthmask")).unwrap_or(0);
                role_privileges.entry(role).or_default().push((privilege, depth));
            }
        })?;
        scan(connection, catalogue, "teamroles", |row| {
            if let (Some(team), Some(role)) = (row.id("teamid"), row.id("roleid")) {
                team_roles.entry(team).or_default().push(role);
            }
        })?;
        scan(connection, catalogue, system::USER, |row| {
            let Some(id) = row.own_id() else { return };
            let user = User {
                id,
                object_id: row.id("azureactivedirectoryobjectid"),
                application: row.id("applicationid"),
                business_unit: row.id("businessunitid").unwrap_or_else(system::business_unit_id),
                is_disabled: row.is("isdisabled"),
                access_mode: access_mode(row.number("accessmode")),
                ..User::default()
            };
            directory.by_application.extend(user.application.map(|application| (application, id)));
            directory.by_object.extend(user.object_id.map(|object| (object, id)));
            users.insert(id, user);
        })?;
        scan(connection, catalogue, "systemuserroles", |row| {
            if let (Some(user), Some(role)) =
                (row.id("systemuserid").and_then(|id| users.get_mut(&id)), row.id("roleid"))
            {
                user.roles.insert(role);
            }
        })?;
        scan(connection, catalogue, "teammembership", |row| {
            if let (Some(user), Some(team)) =
                (row.id("systemuserid").and_then(|id| users.get_mut(&id)), row.id("teamid"))
            {
                user.teams.insert(team);
                user.roles.extend(team_roles.get(&team).into_iter().flatten());
            }
        })?;
        for (id, mut user) in users {
            user.is_administrator = !user.roles.is_disjoint(&administrators);
            for (privilege, depth) in user.roles.iter().filter_map(|role| role_privileges.get(role)).flatten() {
                let own = user.privileges.entry(*privilege).or_default();
                *own = (*own).max(*depth);
            }
            directory.users.insert(id, Arc::new(user));
        }
        Ok(directory)
    }

    pub fn user(&self, id: Uuid) -> Option<&Arc<User>> {
        self.users.get(&id)
    }

    /// Who sends a request. Without a token that is the administrator, and so it is for every application as long as
    /// none is registered as a user: an emulator that nobody set up takes everybody.
    pub fn sender(self: &Arc<Self>, application: Option<Uuid>) -> Result<Caller, Response> {
        let user = match application {
            Some(application) if !self.by_application.is_empty() => self
                .by_application
                .get(&application)
                .and_then(|id| self.users.get(id))
                .ok_or_else(|| error(403, "0x80072560", "The user is not a member of the organization."))?,
            _ => match self.users.get(&system::user_id()) {
                Some(user) => user,
                // Somebody removed the row; the organization is still somebody's.
                None => &Arc::new(User {
                    id: system::user_id(),
                    business_unit: system::business_unit_id(),
                    is_administrator: true,
                    access_mode: access_mode(0),
                    ..User::default()
                }),
            },
        };
        enabled(user)?;
        Ok(Caller { user: Arc::clone(user), initiating: Arc::clone(user), directory: Arc::clone(self) })
    }

    /// A business unit and all below it.
    pub fn units_below(&self, unit: Uuid) -> Vec<Uuid> {
        let mut found = vec![unit];
        let mut at = 0;
        while let Some(unit) = found.get(at) {
            // Somebody may have made a circle of them.
            let below = self.units.get(unit).into_iter().flatten().copied();
            let below = below.filter(|unit| !found.contains(unit)).collect::<Vec<_>>();
            found.extend(below);
            at += 1;
        }
        found
    }

    pub fn name_of(&self, privilege: Uuid) -> &str {
        self.privileges.get(&privilege).map_or("", String::as_str)
    }

    /// Every privilege of a user and how far it reaches, by name.
    pub fn privileges_of(&self, user: &User) -> Vec<(Uuid, u8)> {
        let mut all = match user.is_administrator {
            true => self.privileges.keys().map(|id| (*id, GLOBAL)).collect::<Vec<_>>(),
            false => user.privileges.iter().map(|(id, depth)| (*id, *depth)).collect(),
        };
        all.sort_by_key(|(id, _)| self.name_of(*id));
        all
    }

    /// The privilege with this name, in any case.
    pub fn privilege(&self, name: &str) -> Option<Uuid> {
        let id = privilege_id(name);
        self.privileges.contains_key(&id).then_some(id)
    }
}

fn access_mode(number: i64) -> String {
    let name = match number {
        0 => "Read-Write",
        1 => "Administrative",
        2 => "Read",
        3 => "Support User",
        4 => "Non-interactive",
        5 => "Delegated Admin",
        _ => "",
    };
    format!("{number} {name}")
}

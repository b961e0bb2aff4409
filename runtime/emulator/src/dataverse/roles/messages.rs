//! Functions and actions of users and roles.
//!
//! Owns `WhoAmI` and the messages of roles and privileges
//! (<https://learn.microsoft.com/power-apps/developer/data-platform/webapi/reference/actions>). Everything else about
//! these tables is like any other table's.

use std::collections::HashSet;
use std::sync::Arc;

use dualwright_odata::Literal;
use dualwright_odata::batch::{Request, Response};
use dualwright_odata::url::{Key, Resource, Segment};
use serde::Deserialize;
use serde_json::{Value, json};
use uuid::Uuid;

use super::super::rows::{Cells, place, scan};
use super::super::{
    BAD_PAYLOAD, BAD_QUERY, Locator, NOT_FOUND, condition, error, failed, no_such_set, references, system,
};
use super::{BASIC, Caller, DEEP, GLOBAL, LOCAL, require};
use crate::batch::Site;
use crate::catalogue::Table;
use crate::exchange::{json as answer, no_content};
use crate::render::Surroundings;
use crate::session::{Refusal, Session};

const NAMESPACE: &str = "Microsoft.Dynamics.CRM.";

/// Answers a GET that is about users and roles; `None` when it is not.
pub(crate) fn read(
    site: &Site,
    caller: &Caller,
    around: Surroundings<'_>,
    resource: &Resource,
) -> Option<Result<Response, Response>> {
    match resource.segments.as_slice() {
        [one] if one.name == "WhoAmI" => Some(Ok(who_am_i(site, caller))),
        [one] if one.name == "RetrieveRolePrivilegesRole" => Some(role_privileges(site, caller, around, resource, one)),
        [set, rest @ ..] if set.key != Key::None => {
            let table = around.catalogue.by_set(&set.name)?;
            let (next, last) = rest.split_first()?;
            if let Some(function) = next.name.strip_prefix(NAMESPACE)
                && table.name() == system::USER
                && last.is_empty()
            {
                return user_function(site, caller, around, table, &set.key, function, next);
            }
            None
        }
        _ => None,
    }
}

fn who_am_i(site: &Site, caller: &Caller) -> Response {
    let body = json!({
        "@odata.context": format!("{}{}/$metadata#{NAMESPACE}WhoAmIResponse", site.base, site.root),
        "BusinessUnitId": caller.user.business_unit, "UserId": caller.user.id,
        "OrganizationId": system::organization_id(),
    });
    answer(200, body.to_string().into_bytes())
}

fn depth_name(depth: u8) -> &'static str {
    match depth {
        BASIC => "Basic",
        LOCAL => "Local",
        DEEP => "Deep",
        _ => "Global",
    }
}

/// Privileges as `RolePrivilege` says them.
fn listed(caller: &Caller, unit: Uuid, privileges: &[(Uuid, u8)]) -> Vec<Value> {
    let one = |(id, depth): &(Uuid, u8)| {
        json!({
            "Depth": depth_name(*depth), "PrivilegeId": id, "BusinessUnitId": unit,
            "PrivilegeName": caller.directory.name_of(*id), "RecordFilterId": Uuid::nil(), "RecordFilterUniqueName": "",
        })
    };
    privileges.iter().map(one).collect()
}

fn privileges_answer(site: &Site, name: &str, listed: &[Value]) -> Response {
    let context = format!("{}{}/$metadata#{NAMESPACE}{name}Response", site.base, site.root);
    answer(200, json!({"@odata.context": context, "RolePrivileges": listed}).to_string().into_bytes())
}

fn user_function(
    site: &Site,
    caller: &Caller,
    around: Surroundings<'_>,
    table: &Arc<Table>,
    key: &Key,
    function: &str,
    segment: &Segment,
) -> Option<Result<Response, Response>> {
    let wanted = match (function, &segment.key) {
        ("RetrieveUserPrivileges", Key::None | Key::Named(_)) => None,
        ("RetrieveUserPrivilegeByPrivilegeName", Key::Named(_)) => Some(text_parameter(segment, "PrivilegeName")?),
        _ => return None,
    };
    let id = match id_of(table, around, key) {
        Ok(id) => id,
        Err(refusal) => return Some(Err(refusal)),
    };
    let Some(user) = caller.directory.user(id) else {
        return Some(Err(Locator::Id(id).not_found(table)));
    };
    let mut privileges = caller.directory.privileges_of(user);
    if let Some(name) = wanted {
        let Some(wanted) = caller.directory.privilege(&name) else {
            let message = format!("Privilege with name {name} does not exist.");
            return Some(Err(error(404, NOT_FOUND, &message)));
        };
        privileges.retain(|(id, _)| *id == wanted);
    }
    Some(Ok(privileges_answer(site, function, &listed(caller, user.business_unit, &privileges))))
}

/// A parameter in brackets, or behind an alias: `(PrivilegeName=@p)?@p='prvReadAccount'` is resolved by its reader.
fn text_parameter(segment: &Segment, name: &str) -> Option<String> {
    let Key::Named(parameters) = &segment.key else { return None };
    parameters.iter().find(|(own, _)| own == name).and_then(|(_, value)| match value {
        Literal::Text(text) => Some(text.clone()),
        _ => None,
    })
}

fn role_privileges(
    site: &Site,
    caller: &Caller,
    around: Surroundings<'_>,
    resource: &Resource,
    segment: &Segment,
) -> Result<Response, Response> {
    let Key::Named(parameters) = &segment.key else {
        return Err(error(400, BAD_QUERY, "The function RetrieveRolePrivilegesRole needs a RoleId."));
    };
    let role = parameters.iter().find(|(name, _)| name == "RoleId").and_then(|(_, value)| match value {
        Literal::Guid(id) => Some(*id),
        Literal::Text(text) => Uuid::parse_str(text).ok(),
        _ => None,
    });
    let alias =
        || resource.options.iter().find(|(name, _)| name.starts_with('@')).and_then(|(_, id)| Uuid::parse_str(id).ok());
    let role = role.or_else(alias).ok_or_else(|| error(400, BAD_QUERY, "RoleId has to be a GUID."))?;
    let table = around.catalogue.by_name("role").ok_or_else(|| no_such_set("roles"))?;
    let locator = Locator::Id(role);
    let found = locator.find(around.connection, table).map_err(|error| failed(&error))?;
    let found = found.ok_or_else(|| locator.not_found(table))?;
    let row = Cells::of(table, &found.data);
    let unit = row.id("businessunitid").unwrap_or_else(system::business_unit_id);
    let mut privileges = Vec::new();
    if row.id("roletemplateid") == Some(super::ADMINISTRATOR_TEMPLATE) {
        privileges.extend(caller.directory.privileges.keys().map(|id| (*id, GLOBAL)));
    } else {
        scan(around.connection, around.catalogue, "roleprivileges", |row| {
            if row.id("roleid") == Some(role)
                && let Some(privilege) = row.id("privilegeid")
            {
                privileges.push((privilege, u8::try_from(row.number("privilegedepthmask")).unwrap_or(0)));
            }
        })
        .map_err(|error| failed(&error))?;
    }
    privileges.sort_by_key(|(id, _)| caller.directory.name_of(*id));
    Ok(privileges_answer(site, "RetrieveRolePrivilegesRole", &listed(caller, unit, &privileges)))
}

/// The id of the row with this key, which has to be there.
fn id_of(table: &Arc<Table>, around: Surroundings<'_>, key: &Key) -> Result<Uuid, Response> {
    let locator = Locator::new(table, key)?;
    let found = locator.find(around.connection, table).map_err(|error| failed(&error))?;
    let found = found.ok_or_else(|| locator.not_found(table))?;
    let mut cells = Vec::new();
    table.cells(&found.data, &mut cells);
    table.primary_id.and_then(|at| table.id_of(&cells[at])).ok_or_else(|| locator.not_found(table))
}

/// Answers a write that is about users and roles and no plain row; `None` when it is not.
pub(crate) fn write(
    caller: &Caller,
    session: &mut Session<'_>,
    resource: &Resource,
    request: &Request,
) -> Option<Result<Response, Response>> {
    let catalogue = Arc::clone(&session.catalogue);
    let [set, next, rest @ ..] = resource.segments.as_slice() else { return None };
    if set.key == Key::None {
        return None;
    }
    let table = catalogue.by_set(&set.name)?;
    if let Some(action) = next.name.strip_prefix(NAMESPACE)
        && table.name() == "role"
        && request.method == "POST"
        && rest.is_empty()
    {
        let way = match action {
            "AddPrivilegesRole" => Change::Add,
            "ReplacePrivilegesRole" => Change::Replace,
            "RemovePrivilegeRole" => Change::Remove,
            _ => return None,
        };
        return Some(change_privileges(caller, session, table, &set.key, way, request));
    }
    None
}

fn payload(message: &str) -> Response {
    error(400, BAD_PAYLOAD, &format!("Error identified in Payload provided by the user: {message}"))
}

fn refused(refusal: Refusal) -> Response {
    match refusal {
        Refusal::Observed(response) => *response,
        Refusal::Store(error) => failed(&error),
        refusal => error(400, BAD_PAYLOAD, &format!("The rows cannot be joined: {refusal:?}")),
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Change {
    Add,
    Replace,
    Remove,
}

/// How far a privilege shall reach: a name of `PrivilegeDepth`, or its number.
#[derive(Deserialize)]
#[serde(untagged)]
enum Depth {
    Name(String),
    Number(u8),
}

impl Depth {
    fn mask(&self) -> Option<u8> {
        match self {
            Self::Name(name) => match name.as_str() {
                "Basic" => Some(BASIC),
                "Local" => Some(LOCAL),
                "Deep" => Some(DEEP),
                "Global" => Some(GLOBAL),
                digits => Self::Number(digits.parse().ok()?).mask(),
            },
            Self::Number(number) => (*number <= 3).then(|| 1 << number),
        }
    }
}

fn change_privileges(
    caller: &Caller,
    session: &mut Session<'_>,
    table: &Arc<Table>,
    key: &Key,
    change: Change,
    request: &Request,
) -> Result<Response, Response> {
    #[derive(Deserialize)]
    struct One {
        #[serde(rename = "PrivilegeId", default)]
        id: Option<Uuid>,
        #[serde(rename = "PrivilegeName", default)]
        name: Option<String>,
        #[serde(rename = "Depth", default)]
        depth: Option<Depth>,
    }
    #[derive(Deserialize)]
    struct Body {
        #[serde(rename = "Privileges", default)]
        privileges: Vec<One>,
        #[serde(rename = "PrivilegeId", default)]
        one: Option<Uuid>,
    }
    require(caller, &super::privilege_name("Write", table))?;
    let catalogue = Arc::clone(&session.catalogue);
    let crossing = catalogue.crossing(table.name(), "roleprivileges_association");
    let (crossing, _) = crossing.ok_or_else(|| no_such_set("roleprivileges_association"))?;
    let join = Arc::clone(&crossing.intersect);
    let clock = session.clock.clone();
    let around = Surroundings { connection: session.connection(), catalogue: &catalogue, clock: &clock };
    let role = id_of(table, around, key)?;
    let body: Body = serde_json::from_slice(&request.body).map_err(|error| payload(&error.to_string()))?;
    if change == Change::Remove {
        let privilege = body.one.ok_or_else(|| payload("A PrivilegeId was expected."))?;
        references::part(session, crossing, role, privilege)?;
        return Ok(no_content(204));
    }
    let mut wanted = Vec::with_capacity(body.privileges.len());
    for one in &body.privileges {
        let by_name = || one.name.as_deref().and_then(|name| caller.directory.privilege(name));
        let id = one.id.filter(|id| !id.is_nil()).or_else(by_name);
        let id = id.filter(|id| caller.directory.privileges.contains_key(id)).ok_or_else(|| {
            let named = one.id.map(|id| id.to_string()).or_else(|| one.name.clone()).unwrap_or_default();
            error(404, NOT_FOUND, &format!("Entity 'privilege' With Id = {named} Does Not Exist"))
        })?;
        let depth = one.depth.as_ref().map_or(Some(GLOBAL), Depth::mask);
        wanted.push((id, depth.ok_or_else(|| payload("The Depth of a privilege is Basic, Local, Deep or Global."))?));
    }
    if change == Change::Replace {
        let kept = wanted.iter().map(|(id, _)| *id).collect::<HashSet<_>>();
        let mut had = Vec::new();
        let found = condition::each_across(session.connection(), crossing, role, &mut |privilege| {
            had.push(privilege);
            Ok(())
        });
        found.map_err(|error| failed(&error))?;
        for privilege in had.into_iter().filter(|privilege| !kept.contains(privilege)) {
            references::part(session, crossing, role, privilege)?;
        }
    }
    let depth_at = place(&join, "privilegedepthmask").ok_or_else(|| no_such_set(join.set()))?;
    for (privilege, depth) in wanted {
        references::join(session, crossing, role, privilege)?;
        if let Some(row) = references::find_join(session, crossing, role, privilege)? {
            let mut cells = join.owned_cells(&row.data);
            cells[depth_at] = depth.to_string().into();
            session.update(&join, &row, cells).map_err(refused)?;
        }
    }
    Ok(no_content(204))
}

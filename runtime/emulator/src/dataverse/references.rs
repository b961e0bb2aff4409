//! Links between rows: `@odata.bind`, and `$ref` on either side of a relationship.
//!
//! Owns what a link may say and where it may point ("Associate and disassociate table rows using the Web API" on
//! learn.microsoft.com).

use std::borrow::Cow;
use std::sync::Arc;

use dualwright_odata::batch::Response;
use dualwright_odata::url::{self, Key, Segment};
use uuid::Uuid;

use super::payload::{self, members};
use super::write::{Write, id_of};
use super::{BAD_QUERY, Locator, error, failed, no_such_set, roles};
use crate::batch::resolve;
use crate::body::Members;
use crate::catalogue::{Crossing, Relation, Table};
use crate::cell;
use crate::exchange::no_content;
use crate::session::Session;
use crate::store::{self, Found};

impl Write<'_, '_> {
    /// The id of the row that a link names, if the navigation property may point there.
    pub(super) fn linked(&mut self, table: &Table, navigation: &str, link: &str) -> Result<Uuid, Response> {
        let targets = table.navigation_targets(navigation);
        // The same few parents are named by row after row of a change set.
        let known = format!("{navigation} {} {link}", table.number);
        if let Some(id) = self.session.followed(&known) {
            return Ok(id);
        }
        let (linked, locator) = self.target(table, navigation, link)?;
        if !targets.iter().any(|target| target == linked.name()) {
            let message = format!(
                "A resource of type 'Microsoft.Dynamics.CRM.{}' was found in the link of '{navigation}', which expects \
                 one of: {}.",
                linked.name(),
                targets.join(", ")
            );
            return Err(payload::refuse(table, &message));
        }
        let id = match locator {
            Locator::Id(id) => {
                let is_there = store::exists(self.session.connection(), &linked.id_key(id));
                is_there.map_err(|error| failed(&error))?.then_some(id)
            }
            Locator::Alternate(..) => self.found(&linked, &locator)?.and_then(|row| id_of(&linked, &row)),
        };
        let id = id.ok_or_else(|| locator.not_found(&linked))?;
        // What an operation of the change set is called may mean another row in the next.
        if !link.trim_start_matches('/').starts_with('$') {
            self.session.follow(&known, id);
        }
        Ok(id)
    }

    /// The table and the key that a link names: whole, from the host, below the service root, or `$1`.
    fn target(&self, table: &Table, navigation: &str, link: &str) -> Result<(Arc<Table>, Locator), Response> {
        let below = url::below(&self.site.root, link).unwrap_or_else(|| link.trim_start_matches('/'));
        let path = resolve(self.references, below);
        if path.starts_with('$') {
            let message = format!("Content-ID Reference: '{path}' does not exist in the batch context.");
            return Err(payload::refuse(table, &message));
        }
        let malformed = || payload::refuse(table, &format!("The link of '{navigation}' cannot be read."));
        let resource = url::parse(&path).map_err(|_| malformed())?;
        let [segment] = resource.segments.as_slice() else { return Err(malformed()) };
        let linked = self.session.catalogue.by_set(&segment.name).cloned().ok_or_else(|| no_such_set(&segment.name))?;
        let locator = Locator::new(&linked, &segment.key)?;
        Ok((linked, locator))
    }

    /// `PUT` and `DELETE` of `accounts(…)/primarycontactid/$ref`; `POST` and `DELETE` of
    /// `accounts(…)/contact_customer_accounts/$ref`, the latter with `$id` or the key of the other row.
    pub(super) fn reference(
        &mut self,
        table: &Arc<Table>,
        key: &Key,
        navigation: &Segment,
    ) -> Result<Response, Response> {
        let name = &navigation.name;
        let catalogue = Arc::clone(&self.session.catalogue);
        if let Some((crossing, other)) = catalogue.crossing(table.name(), name) {
            return self.cross(table, key, navigation, crossing, other);
        }
        let locator = Locator::new(table, key)?;
        let collection = self.session.catalogue.collection(table.name(), name).map(|(relation, _)| relation.clone());
        if table.navigation(name).is_none() && collection.is_none() {
            return Err(no_such_set(name));
        }
        let row = self.found(table, &locator)?.ok_or_else(|| locator.not_found(table))?;
        self.check_conditions(table, &row, false)?;
        let request = self.request;
        let body = members(table, &request.body)?;
        let method = request.method.as_str();
        let given = || {
            let link = body.get("@odata.id").and_then(cell::text_of);
            link.ok_or_else(|| payload::refuse(table, "A member named @odata.id was expected."))
        };
        match (method, collection) {
            ("PUT", None) | ("DELETE", None) => {
                let value =
                    if method == "PUT" { Cow::Owned(cell::quoted(&given()?)) } else { Cow::Borrowed(cell::NULL) };
                let member = (Cow::Owned(format!("{name}@odata.bind")), value.as_ref());
                self.update(table, &row, &Members(vec![member]), None)?;
            }
            ("POST", Some(relation)) => self.attach(&relation, &given()?, id_of(table, &row))?,
            ("DELETE", Some(relation)) => {
                let link = match (&navigation.key, self.resource.option("$id")) {
                    (Key::None, Some(link)) => Cow::Borrowed(link),
                    (Key::None, None) => {
                        let message = "The row to be removed has to be named, by its key or by $id.";
                        return Err(error(400, BAD_QUERY, message));
                    }
                    (key, _) => {
                        let other = self.session.catalogue.by_name(&relation.referencing).cloned();
                        let other = other.ok_or_else(|| no_such_set(name))?;
                        let locator = Locator::new(&other, key)?;
                        let found = self.found(&other, &locator)?.ok_or_else(|| locator.not_found(&other))?;
                        return self.detach(&relation, &other, &found, &row, table);
                    }
                };
                let (other, locator) = self.target(table, name, &link)?;
                if other.name() != relation.referencing {
                    return Err(wrong_side(table, &relation, &other));
                }
                let found = self.found(&other, &locator)?.ok_or_else(|| locator.not_found(&other))?;
                return self.detach(&relation, &other, &found, &row, table);
            }
            _ => return Err(error(405, BAD_QUERY, &format!("The method {method} is not allowed for {name}/$ref."))),
        }
        Ok(no_content(204))
    }

    /// `POST` and `DELETE` of a collection whose rows can be in many.
    fn cross(
        &mut self,
        table: &Arc<Table>,
        key: &Key,
        navigation: &Segment,
        crossing: &Crossing,
        other: &Arc<Table>,
    ) -> Result<Response, Response> {
        let locator = Locator::new(table, key)?;
        let row = self.found(table, &locator)?.ok_or_else(|| locator.not_found(table))?;
        let own = id_of(table, &row).unwrap_or_default();
        let method = self.request.method.as_str();
        let adds = match method {
            "POST" => true,
            "DELETE" => false,
            _ => {
                let message = format!("The method {method} is not allowed for {}/$ref.", navigation.name);
                return Err(error(405, BAD_QUERY, &message));
            }
        };
        let locator = match (&navigation.key, self.resource.option("$id")) {
            (Key::None, link) => {
                let link = match (adds, link) {
                    (false, Some(link)) => Cow::Borrowed(link),
                    (false, None) => {
                        let message = "The row to be removed has to be named, by its key or by $id.";
                        return Err(error(400, BAD_QUERY, message));
                    }
                    (true, _) => {
                        let body = members(table, &self.request.body)?;
                        let link = body.get("@odata.id").and_then(cell::text_of).map(|link| link.into_owned());
                        let missing = || payload::refuse(table, "A member named @odata.id was expected.");
                        Cow::Owned(link.ok_or_else(missing)?)
                    }
                };
                let (linked, locator) = self.target(table, &navigation.name, &link)?;
                if linked.name() != other.name() {
                    return Err(wrong_type(table, &crossing.name, other.name(), &linked));
                }
                locator
            }
            (key, _) => Locator::new(other, key)?,
        };
        let found = self.found(other, &locator)?.ok_or_else(|| locator.not_found(other))?;
        let id = id_of(other, &found).unwrap_or_default();
        self.site.user.as_ref().map_or(Ok(()), |caller| roles::may_join(caller, table, other))?;
        match adds {
            true => join(self.session, crossing, own, id)?,
            false => part(self.session, crossing, own, id)?,
        }
        Ok(no_content(204))
    }

    /// Joins the row with the id `own` to those behind links.
    pub(super) fn join_all(
        &mut self,
        table: &Arc<Table>,
        crossing: &Crossing,
        own: Uuid,
        links: &[String],
    ) -> Result<(), Response> {
        for link in links {
            let (other, locator) = self.target(table, &crossing.name, link)?;
            if other.name() != crossing.other {
                return Err(wrong_type(table, &crossing.name, &crossing.other, &other));
            }
            let found = self.found(&other, &locator)?.ok_or_else(|| locator.not_found(&other))?;
            self.site.user.as_ref().map_or(Ok(()), |caller| roles::may_join(caller, table, &other))?;
            join(self.session, crossing, own, id_of(&other, &found).unwrap_or_default())?;
        }
        Ok(())
    }

    /// Makes the row behind a link point to the row with this id.
    pub(super) fn attach(&mut self, relation: &Relation, link: &str, to: Option<Uuid>) -> Result<(), Response> {
        let referenced = self.session.catalogue.by_name(&relation.referenced).cloned();
        let referenced = referenced.ok_or_else(|| no_such_set(&relation.collection))?;
        let (other, locator) = self.target(&referenced, &relation.collection, link)?;
        if other.name() != relation.referencing {
            return Err(wrong_side(&referenced, relation, &other));
        }
        let found = self.found(&other, &locator)?.ok_or_else(|| locator.not_found(&other))?;
        let cell = to.map_or(Cow::Borrowed(cell::NULL), cell::guid_cell);
        self.point(relation, &other, &found, cell)
    }

    /// Takes a row out of a collection, if it is in there.
    fn detach(
        &mut self,
        relation: &Relation,
        other: &Arc<Table>,
        found: &Found,
        row: &Found,
        table: &Table,
    ) -> Result<Response, Response> {
        let points_to = cell::nth(&found.data, relation.column).and_then(|cell| other.id_of(&cell));
        if points_to.is_some() && points_to == id_of(table, row) {
            self.point(relation, other, found, Cow::Borrowed(cell::NULL))?;
        }
        Ok(no_content(204))
    }

    fn point(
        &mut self,
        relation: &Relation,
        other: &Arc<Table>,
        found: &Found,
        cell: Cow<'_, str>,
    ) -> Result<(), Response> {
        let mut cells = other.borrowed_cells(&found.data);
        cells[relation.column] = cell;
        let named = [relation.column];
        payload::require(other, &cells, Some(&named))?;
        let outcome = self.session.update_named(other, found, cells, &named);
        outcome.map(|_| ()).map_err(|refusal| payload::refused(other, refusal))
    }
}

fn wrong_side(table: &Table, relation: &Relation, other: &Table) -> Response {
    wrong_type(table, &relation.collection, &relation.referencing, other)
}

fn wrong_type(table: &Table, collection: &str, holds: &str, found: &Table) -> Response {
    let message = format!(
        "A resource of type 'Microsoft.Dynamics.CRM.{}' was found where '{collection}' holds rows of '{holds}'.",
        found.name()
    );
    payload::refuse(table, &message)
}

/// The pair of two rows, if they are joined.
pub(super) fn find_join(
    session: &Session<'_>,
    crossing: &Crossing,
    own: Uuid,
    other: Uuid,
) -> Result<Option<Found>, Response> {
    let intersect = &crossing.intersect;
    let both = [crossing.own_column, crossing.other_column];
    let key = intersect
        .alternate_keys
        .iter()
        .position(|(_, places)| places.len() == both.len() && both.iter().all(|column| places.contains(column)));
    let Some(number) = key else { return Ok(None) };
    let cells = intersect.alternate_keys[number].1.iter();
    let cells = cells.map(|at| cell::guid_cell(if *at == crossing.own_column { own } else { other }));
    let cells = cells.collect::<Vec<_>>();
    let key = intersect.alternate_key_of(number, cells.iter().map(AsRef::as_ref));
    store::find_by_alternate(session.connection(), &key).map_err(|error| failed(&error))
}

/// Joins two rows. Rows that are joined already stay so.
pub(super) fn join(session: &mut Session<'_>, crossing: &Crossing, own: Uuid, other: Uuid) -> Result<(), Response> {
    if find_join(session, crossing, own, other)?.is_some() {
        return Ok(());
    }
    let intersect = Arc::clone(&crossing.intersect);
    let mut cells = intersect.empty_row();
    cells[crossing.own_column] = cell::guid_cell(own);
    cells[crossing.other_column] = cell::guid_cell(other);
    // A privilege that a role is given without a depth reaches everything.
    if let Some(at) = intersect.column("privilegedepthmask") {
        cells[at] = roles::GLOBAL.to_string().into();
    }
    session.insert(&intersect, cells).map(drop).map_err(|refusal| payload::refused(&intersect, refusal))
}

/// Parts two rows, if they are joined.
pub(super) fn part(session: &mut Session<'_>, crossing: &Crossing, own: Uuid, other: Uuid) -> Result<(), Response> {
    let intersect = Arc::clone(&crossing.intersect);
    match find_join(session, crossing, own, other)? {
        Some(row) => session.delete(&intersect, &row).map_err(|refusal| payload::refused(&intersect, refusal)),
        None => Ok(()),
    }
}

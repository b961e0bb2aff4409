//! Between HTTP and rows: who asks, whether it is too much, and who has a say in what is written.
//!
//! Owns what an environment keeps beside its rows: users and steps compiled from them, the counters of service
//! protection. Rows that every environment has for each of its tables (privileges, messages) are made here when a table
//! is new.

use std::borrow::Cow;
use std::sync::{Arc, Mutex, PoisonError};

use dualwright_odata::batch::{Request, Response, header};
use uuid::Uuid;

use super::limits::Limits;
use super::roles::{self, Directory, Guard};
use super::steps::{self, Pipeline, Registration, Registry, Wishes};
use super::{error, failed};
use crate::batch::{self, Site};
use crate::cached::Cached;
use crate::catalogue::Catalogue;
use crate::observe::Observer;
use crate::session::Session;
use crate::{Inner, body, store};

/// What stands beside the rows.
#[derive(Debug, Default)]
pub(crate) struct Environment {
    directory: Cached<Directory>,
    registry: Cached<Registry>,
    pub limits: Limits,
    /// The tables that have their privileges and messages.
    prepared: Mutex<Option<Arc<Catalogue>>>,
}

/// Whether something is compiled from the rows of a table.
pub(crate) fn is_configuration(table: &str) -> bool {
    roles::TABLES.contains(&table) || steps::TABLES.contains(&table)
}

/// Makes the rows that go with tables, for tables that are new.
pub(crate) fn prepare(inner: &Inner) -> anyhow::Result<()> {
    let catalogue = inner.store.catalogue();
    let mut prepared = inner.dataverse.prepared.lock().unwrap_or_else(PoisonError::into_inner);
    if prepared.as_ref().is_some_and(|known| Arc::ptr_eq(known, &catalogue)) {
        return Ok(());
    }
    inner.store.write(false, |session| {
        let mut rows = Vec::new();
        if !has(session, "role", Some(roles::role_id(roles::ADMINISTRATOR)))? {
            rows.extend(roles::first_rows());
            rows.extend(steps::first_rows());
        }
        for table in catalogue.tables() {
            if !has(session, "privilege", roles::sign_of(table))? {
                rows.extend(roles::rows_of(table));
            }
            if !has(session, "sdkmessagefilter", steps::sign_of(table))? {
                rows.extend(steps::rows_of(table));
            }
        }
        seed(session, rows)
    })?;
    *prepared = Some(catalogue);
    Ok(())
}

/// Whether a row is there; one that is not wanted counts as such.
fn has(session: &Session<'_>, table: &str, id: Option<Uuid>) -> rusqlite::Result<bool> {
    let (Some(table), Some(id)) = (session.catalogue.by_name(table), id) else { return Ok(true) };
    Ok(store::find(session.connection(), &table.id_key(id))?.is_some())
}

fn seed(session: &mut Session<'_>, rows: Vec<roles::Row>) -> anyhow::Result<()> {
    for (set, row) in rows {
        if let Some(table) = session.catalogue.by_set(set).cloned() {
            body::seed(session, &table, &row)?;
        }
    }
    Ok(())
}

/// Adds the application users that Dual-write has in an environment.
pub(crate) fn add_dual_write_users(inner: &Inner) -> anyhow::Result<()> {
    prepare(inner)?;
    inner.store.write(false, |session| seed(session, roles::dual_write_users()))
}

/// Answers a request.
pub(crate) fn answer(inner: &Inner, mut site: Site, request: &Request) -> Response {
    if let Err(refusal) = admit(inner, &mut site, request) {
        return refusal;
    }
    let user = site.user.as_ref().map(|caller| caller.initiating.id).unwrap_or_default();
    let limits = &inner.dataverse.limits;
    let admitted = match limits.enter(user, inner.clock.steady()) {
        Ok(admitted) => admitted,
        Err(refusal) => return refusal,
    };
    let mut response = batch::answer(inner, &site, request);
    limits.leave(admitted, inner.clock.steady(), &mut response);
    response
}

/// Puts the user behind the caller's application into the site.
fn admit(inner: &Inner, site: &mut Site, request: &Request) -> Result<(), Response> {
    prepare(inner).map_err(|failure| {
        tracing::error!(error = %format!("{failure:#}"), "the rows that go with tables were not made");
        error(500, "0x80040216", "An unexpected error occurred.")
    })?;
    let directory = inner.dataverse.directory.get(&inner.store, Directory::load).map_err(|error| failed(&error))?;
    // A client id of another form is no application's.
    let application = site.caller.as_deref().and_then(|client| Uuid::parse_str(client).ok());
    site.user = Some(Arc::new(directory.sender(application)?.acting(request)?));
    Ok(())
}

/// The site as one operation sees it: acting for the user whom its own headers name.
pub(crate) fn site_of<'a>(inner: &Inner, site: &'a Site, request: &Request) -> Result<Cow<'a, Site>, Response> {
    let Some(caller) = &site.user else { return Ok(Cow::Borrowed(site)) };
    inner.dataverse.limits.use_up(caller.initiating.id, inner.clock.steady(), request);
    let names_user = ["MSCRMCallerID", "CallerObjectId"].iter().any(|name| header(&request.headers, name).is_some());
    if !names_user {
        return Ok(Cow::Borrowed(site));
    }
    let user = Some(Arc::new(caller.acting(request)?));
    Ok(Cow::Owned(Site { user, ..site.clone() }))
}

/// Who has a say in the row writes of one operation. Nobody, as a rule, and then nothing is looked at.
pub(crate) fn observers(inner: &Inner, site: &Site, request: &Request) -> Result<Vec<Box<dyn Observer>>, Response> {
    let Some(caller) = &site.user else { return Ok(Vec::new()) };
    let mut observers: Vec<Box<dyn Observer>> = Vec::new();
    if !caller.is_administrator() {
        observers.push(Box::new(Guard { caller: Arc::clone(caller) }));
    }
    let registry = inner.dataverse.registry.get(&inner.store, Registry::load).map_err(|error| failed(&error))?;
    if Registration::concerns(request) {
        observers.push(Box::new(Registration { registry: Arc::clone(&registry) }));
    }
    let wishes = Wishes::of(request, caller)?;
    if !registry.is_empty() {
        observers.push(Box::new(Pipeline::new(registry, Arc::clone(&inner.post), Arc::clone(caller), wishes)));
    }
    Ok(observers)
}

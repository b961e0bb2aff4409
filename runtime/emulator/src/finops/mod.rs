//! The dialect of Finance & Operations.
//!
//! Owns what this system knows beside its rows (companies, number sequences, throttling) and the way of a request to what
//! answers it. There are no nulls here, keys are natural, and only the default company is seen unless a request crosses
//! companies. <https://learn.microsoft.com/dynamics365/fin-ops-core/dev-itpro/data-entities/odata>

pub(crate) mod caller;
mod company;
mod condition;
pub(crate) mod events;
pub(crate) mod expand;
#[cfg(test)]
mod fuzz;
mod key;
mod metadata;
pub(crate) mod package;
mod read;
mod refusal;
mod sequence;
mod throttle;
pub(crate) mod tracking;
mod validate;
mod watch;
mod write;

use std::sync::Arc;

use dualwright_odata::batch::{Request, Response};

use crate::batch::Site;
use crate::exchange::{self, json};
use crate::outlet::Outlet;
use crate::{Inner, batch};

pub(crate) use metadata::describe;
pub(crate) use read::read;
pub(crate) use refusal::{error, error_with_code};
pub use throttle::{Priority, ResourceLevel, ThrottleSettings};
pub(crate) use watch::observers;
pub(crate) use write::write;

pub(crate) const ROOT: &str = "/data";

/// What types of entities and enumerations are named in.
pub(crate) const NAMESPACE: &str = "Microsoft.Dynamics.DataEntities";

/// Operations in one batch ("Service protection API limits" in the documentation).
pub(crate) const BATCH_OPERATIONS_MAX: usize = 5_000;

const METADATA_ROOT: &str = "/metadata";

/// What F&O keeps beside its rows.
#[derive(Debug, Default)]
pub(crate) struct State {
    pub companies: company::Companies,
    pub sequences: sequence::Sequences,
    pub jobs: package::Jobs,
    pub watch: watch::Watch,
    pub throttle: throttle::Throttle,
}

/// The part of a path that is the service root, as it was written.
fn root<'a>(path: &'a str, root: &str) -> Option<&'a str> {
    let own = path.get(..root.len())?;
    (own.eq_ignore_ascii_case(root) && matches!(path.as_bytes().get(root.len()), None | Some(b'/'))).then_some(own)
}

/// Whether a path is below the root of one of the services.
pub(crate) fn is_service(path: &str) -> bool {
    root(path, ROOT).is_some() || root(path, METADATA_ROOT).is_some()
}

/// Answers a request to one of the services; `None` when the path belongs to neither.
pub(crate) fn answer(
    inner: &Inner,
    base: &str,
    client: Option<Arc<str>>,
    outlet: Option<Arc<Outlet>>,
    request: &Request,
) -> Option<Response> {
    // Where nobody checks tokens, what they say is believed.
    let claimed = if client.is_none() { caller::of(request) } else { None };
    let caller = client.as_deref().or(claimed.as_deref());
    let path = request.url.split('?').next().unwrap_or_default();
    if package::is_blob(path) {
        return Some(package::answer_blob(inner, request));
    }
    if package::is_connector(path) {
        return Some(package::answer_connector(inner, base, request));
    }
    let data = root(path, ROOT);
    let own_root = data.or_else(|| root(path, METADATA_ROOT))?;
    let company = inner.finops.companies.of(caller);
    let admitted = inner.finops.throttle.admit(&inner.clock, caller);
    let (base, root) = (base.to_owned(), own_root.to_owned());
    let site = Site { base, root, company, caller: client.clone(), user: None, outlet };
    let response = match admitted {
        Err(throttled) => throttled,
        Ok(_admitted) if data.is_none() => describe(&inner.store, &site, request),
        Ok(_admitted) if path[own_root.len()..].eq_ignore_ascii_case("/$batch") => {
            if request.method == "POST" {
                batch::whole(inner, &site, request)
            } else {
                refusal::bad_method(&request.method)
            }
        }
        Ok(_admitted) => batch::single(inner, &site, request),
    };
    if package::may_begin_job(path) {
        inner.finops.jobs.ring();
    }
    Some(response)
}

/// What only an emulator answers, below `/_emulator`; `None` when the path means nothing here.
pub(crate) fn own_route(inner: &Inner, path: &str, request: &Request) -> Option<Result<Response, String>> {
    let shown = |settings: serde_json::Result<Vec<u8>>| settings.map(|body| json(200, body)).map_err(|e| e.to_string());
    let state = &inner.finops;
    Some(match (request.method.as_str(), path) {
        ("GET", "/throttling") => shown(serde_json::to_vec(&state.throttle.settings())),
        ("PUT" | "POST", "/throttling") => serde_json::from_slice(&request.body)
            .map(|settings| {
                state.throttle.set(settings);
                exchange::no_content(204)
            })
            .map_err(|error| error.to_string()),
        ("GET", "/companies") => shown(serde_json::to_vec(&state.companies.get())),
        ("PUT" | "POST", "/companies") => serde_json::from_slice(&request.body)
            .map(|companies| {
                state.companies.set(companies);
                exchange::no_content(204)
            })
            .map_err(|error| error.to_string()),
        (_, path) if path.starts_with("/events") => return events::answer(inner, path, request),
        ("GET" | "PUT" | "POST", "/change-tracking") => tracking::route(inner, request),
        _ => return package::own_route(inner, path, request),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roots_are_found_in_any_case_and_only_whole() {
        for (path, wanted) in [
            ("/data", Some("/data")),
            ("/Data/Customers", Some("/Data")),
            ("/database", None),
            ("/dat", None),
            ("/metadata/DataEntities", None),
        ] {
            assert_eq!(root(path, ROOT), wanted, "{path}");
        }
    }
}

//! Answers to GET: sets, rows, what is behind a row, and the functions of the service.
//!
//! Owns the paths of the Web API and the documents around rows: contexts, counts, links to the next page. What a query
//! means, how a row is written and what definitions look like have files of their own.

use std::sync::Arc;

use dualwright_odata::Literal;
use dualwright_odata::batch::{Request, Response};
use dualwright_odata::url::{Key, Resource, Segment, read_list};
use rusqlite::Connection;
use serde_json::{Value, json};
use uuid::Uuid;

use super::display::Annotations;
use super::expand::{Shape, Writer};
use super::filter::Compiler;
use super::query::Query;
use super::{
    BAD_QUERY, Locator, NOT_FOUND, apply, context, delta, error, failed, fetchxml, metadata, no_such_set, resource,
    system,
};
use crate::batch::Site;
use crate::catalogue::{Catalogue, Link, Table};
use crate::cell;
use crate::clock::Clock;
use crate::exchange::{self, no_content, with_header};
use crate::render::{self, Surroundings};
use crate::store::{self, Found, Store};

/// What `$count` says at most.
const COUNT_MAX: i64 = 5_000;

/// Answers a GET.
pub(crate) fn read(store: &Store, site: &Site, connection: &Connection, request: &Request) -> Response {
    let catalogue = store.catalogue();
    let answered = resource(site, &request.url)
        .and_then(|resource| Reader::new(site, connection, &catalogue, &store.clock, request, &resource).answer());
    answered.unwrap_or_else(|refusal| refusal)
}

/// One row as a document of its own.
pub(super) fn entity(
    site: &Site,
    around: Surroundings<'_>,
    table: &Arc<Table>,
    row: &Found,
    resource: &Resource,
    request: &Request,
) -> Result<Vec<u8>, Response> {
    Reader { site, around, request, resource, annotations: Annotations::of(request) }.entity(table, row)
}

struct Reader<'a> {
    site: &'a Site,
    around: Surroundings<'a>,
    request: &'a Request,
    resource: &'a Resource,
    annotations: Annotations,
}

impl<'a> Reader<'a> {
    fn new(
        site: &'a Site,
        connection: &'a Connection,
        catalogue: &'a Catalogue,
        clock: &'a Clock,
        request: &'a Request,
        resource: &'a Resource,
    ) -> Self {
        let around = Surroundings { connection, catalogue, clock };
        Self { site, around, request, resource, annotations: Annotations::of(request) }
    }

    fn compiler(&self) -> Compiler<'a> {
        Compiler { catalogue: self.around.catalogue, site: self.site, now: self.around.clock.now() }
    }

    fn writer(&self, page_size: Option<usize>) -> Writer<'a> {
        Writer {
            around: self.around,
            site: self.site,
            annotations: self.annotations.clone(),
            targets: super::display::Targets::default(),
            page_size,
            is_representation: self.request.method != "GET",
        }
    }

    fn answer(&self) -> Result<Response, Response> {
        let catalogue = self.around.catalogue;
        let Some((first, rest)) = self.resource.segments.split_first() else { return Ok(self.service_document()) };
        if first.name == "$metadata" {
            let annotated = self.resource.option("annotations") == Some("true") || !self.annotations.text.is_empty();
            return Ok(metadata::csdl(catalogue, annotated));
        }
        if metadata::is_about_definitions(self.resource) {
            return metadata::read(catalogue, self.site, self.resource);
        }
        if let Some(caller) = &self.site.user
            && let Some(answer) = super::roles::read(self.site, caller, self.around, self.resource)
        {
            return answer;
        }
        if let Some(answer) = self.function(first, rest)? {
            return Ok(answer);
        }
        let table = catalogue.by_set(&first.name).ok_or_else(|| no_such_set(&first.name))?;
        super::permit(self.site, table)?;
        match (&first.key, rest) {
            (Key::None, []) => self.set(table),
            (Key::None, [count]) if count.name == "$count" => self.count(table, None),
            (Key::None, [next, ..]) => Err(no_such_set(&next.name)),
            (key, path) => {
                let locator = Locator::new(table, key)?;
                let row = locator.find(self.around.connection, table).map_err(|error| failed(&error))?;
                let row = row.ok_or_else(|| locator.not_found(table))?;
                self.behind(table, row, path)
            }
        }
    }

    fn document(&self, members: Value) -> Response {
        exchange::json(200, members.to_string().into_bytes())
    }

    fn context_url(&self, fragment: &str) -> String {
        format!("{}{}/$metadata#{fragment}", self.site.base, self.site.root)
    }

    fn service_document(&self) -> Response {
        let sets = self.around.catalogue.tables();
        let sets = sets.map(|table| json!({"name": table.set(), "kind": "EntitySet", "url": table.set()}));
        let context = format!("{}{}/$metadata", self.site.base, self.site.root);
        self.document(json!({"@odata.context": context, "value": sets.collect::<Vec<_>>()}))
    }

    /// The unbound functions; `None` when the segment is none of them.
    fn function(&self, segment: &Segment, rest: &[Segment]) -> Result<Option<Response>, Response> {
        let name = segment.name.strip_prefix("Microsoft.Dynamics.CRM.").unwrap_or(&segment.name);
        let context = self.context_url(&format!("Microsoft.Dynamics.CRM.{name}Response"));
        let argument = |wanted: &str| match &segment.key {
            Key::Named(pairs) => pairs.iter().find(|(name, _)| name == wanted).map(|(_, value)| value),
            _ => None,
        };
        let answer = match name {
            _ if !rest.is_empty() => return Ok(None),
            "WhoAmI" => json!({
                "@odata.context": context, "BusinessUnitId": system::business_unit_id(), "UserId": system::user_id(),
                "OrganizationId": system::organization_id(),
            }),
            "RetrieveAvailableLanguages" => json!({"@odata.context": context, "LocaleIds": [1_033]}),
            "RetrieveVersion" => json!({"@odata.context": context, "Version": VERSION}),
            "RetrieveCurrentOrganization" => {
                let url = format!("{}/", self.site.base);
                json!({"@odata.context": context, "Detail": {
                    "OrganizationId": system::organization_id(), "FriendlyName": "org", "OrganizationVersion": VERSION,
                    "EnvironmentId": system::organization_id(), "DatacenterId": Uuid::nil(), "Geo": "NA",
                    "TenantId": Uuid::nil(), "UrlName": "org", "UniqueName": "org", "State": "Enabled",
                    "Endpoints": {"Count": 1, "IsReadOnly": false, "Keys": ["WebApplication"], "Values": [url]},
                }})
            }
            "RetrieveTotalRecordCount" => {
                let Some(Literal::Text(names)) = argument("EntityNames") else {
                    return Err(error(400, BAD_QUERY, "The parameter EntityNames is missing."));
                };
                let names = read_list(names);
                let mut counts = Vec::with_capacity(names.len());
                for name in &names {
                    let table = self.around.catalogue.by_name(name).ok_or_else(|| {
                        error(404, NOT_FOUND, &format!("The entity with a name = '{name}' was not found."))
                    })?;
                    super::permit(self.site, table)?;
                    counts.push(store::count(self.around.connection, table).map_err(|error| failed(&error))?);
                }
                json!({"@odata.context": context, "EntityRecordCountCollection": {
                    "Count": names.len(), "IsReadOnly": false, "Keys": names, "Values": counts,
                }})
            }
            _ => return Ok(None),
        };
        Ok(Some(self.document(answer)))
    }

    fn set(&self, table: &Arc<Table>) -> Result<Response, Response> {
        for name in ["savedQuery", "userQuery"] {
            if let Some(id) = self.resource.option(name) {
                // There are no views, so none has that id.
                let message = format!("Entity '{}' With Id = {id} Does Not Exist", name.to_lowercase());
                return Err(error(404, NOT_FOUND, &message));
            }
        }
        if let Some(text) = self.resource.option("fetchXml") {
            let count = self.resource.option("$count") == Some("true");
            let body = fetchxml::answer(self.compiler(), &self.writer(None), table, text, count)?;
            return Ok(self.applied(exchange::json(200, body), None));
        }
        if let Some(text) = self.resource.resolved("$apply") {
            let body = apply::answer(self.compiler(), &self.writer(None), table, &text, self.resource)?;
            return Ok(self.applied(exchange::json(200, body), None));
        }
        if let Some(delta) = delta::Request::of(self.resource, self.request)? {
            return delta.answer(self.site, self.around, table, self.resource, self.request);
        }
        self.page(table, None, table.set())
    }

    /// One page of a set, or of the rows that point to a row.
    fn page(&self, table: &Arc<Table>, scope: Option<(Link, Uuid)>, path: &str) -> Result<Response, Response> {
        let query = Query::new(self.compiler(), table, self.resource, self.request, scope)
            .map_err(|error| error.dataverse(table))?;
        let names = query.shape.context(self.resource.option("$select"));
        let mut body = context(self.site, &format!("{}{names}", table.set()));
        let asks_count = self.resource.option("$count") == Some("true");
        if asks_count {
            let count = query.count(self.around.connection, COUNT_MAX + 1).map_err(|error| error.dataverse(table))?;
            body.extend_from_slice(format!(",\"@odata.count\":{}", count.min(COUNT_MAX)).as_bytes());
            self.totals(&mut body, Some(count));
        } else {
            self.totals(&mut body, None);
        }
        body.extend_from_slice(b",\"value\":[");
        let writer = self.writer(query.is_paged.then_some(query.page_size));
        let page = query.run(&writer, &mut body).map_err(|error| error.dataverse(table))?;
        body.push(b']');
        if let Some(token) = page.next {
            let link = exchange::link_query(self.resource, &[("$skiptoken", &token)]);
            let link = format!("{}{}/{path}{link}", self.site.base, self.site.root);
            body.extend_from_slice(format!(",\"@odata.nextLink\":{}", cell::quoted(&link)).as_bytes());
        }
        body.push(b'}');
        Ok(self.applied(exchange::json(200, body), query.is_paged.then_some(query.page_size)))
    }

    /// How many rows there are, for those who ask ("Count rows using OData"): -1 when nobody counted.
    fn totals(&self, body: &mut Vec<u8>, count: Option<i64>) {
        for (term, value) in [
            ("totalrecordcount", count.map_or(-1, |count| count.min(COUNT_MAX)).to_string()),
            ("totalrecordcountlimitexceeded", count.is_some_and(|count| count > COUNT_MAX).to_string()),
        ] {
            let term = format!("Microsoft.Dynamics.CRM.{term}");
            if self.annotations.include(&term) {
                body.extend_from_slice(format!(",\"@{term}\":{value}").as_bytes());
            }
        }
    }

    fn applied(&self, response: Response, page_size: Option<usize>) -> Response {
        let mut applied = Vec::new();
        if let Some(size) = page_size {
            applied.push(format!("odata.maxpagesize={size}"));
        }
        if !self.annotations.text.is_empty() {
            applied.push(format!("odata.include-annotations=\"{}\"", self.annotations.text));
        }
        if applied.is_empty() { response } else { with_header(response, "Preference-Applied", applied.join(",")) }
    }

    fn count(&self, table: &Arc<Table>, scope: Option<(Link, Uuid)>) -> Result<Response, Response> {
        if let Some(delta) = delta::Request::of(self.resource, self.request)? {
            return Ok(plain(delta.count(self.site, self.around, table)?.to_string().into_bytes()));
        }
        let query = Query::new(self.compiler(), table, self.resource, self.request, scope);
        let query = query.map_err(|error| error.dataverse(table))?;
        let count = query.count(self.around.connection, COUNT_MAX).map_err(|error| error.dataverse(table))?;
        Ok(plain(count.to_string().into_bytes()))
    }

    fn row(&self, table: &Arc<Table>, row: &Found) -> Result<Response, Response> {
        let etag = render::etag(table, row.stamp());
        if exchange::if_none_match(self.request).is_some_and(|header| exchange::names_etag(header, &etag)) {
            return Ok(no_content(304));
        }
        Ok(self.applied(with_header(exchange::json(200, self.entity(table, row)?), "ETag", etag), None))
    }

    fn entity(&self, table: &Arc<Table>, row: &Found) -> Result<Vec<u8>, Response> {
        let selected = self.resource.option("$select");
        let shape = Shape::new(self.compiler(), table, selected, self.resource.option("$expand"))
            .map_err(|error| error.dataverse(table))?;
        let mut body = context(self.site, &format!("{}{}/$entity", table.set(), shape.context(selected)));
        let at = body.len();
        let mut cells = Vec::with_capacity(table.columns.len());
        table.cells(&row.data, &mut cells);
        self.writer(None).row(&mut body, table, &cells, row.stamp(), &shape).map_err(|error| failed(&error))?;
        // The row's opening bracket becomes the comma behind the context.
        body[at] = b',';
        Ok(body)
    }

    /// Refuses to go on from a row that the caller cannot see.
    fn within_reach(&self, table: &Table, cells: &[&str]) -> Result<(), Response> {
        self.site.user.as_ref().map_or(Ok(()), |caller| super::roles::may_read_row(caller, table, cells))
    }

    /// What a path behind a row leads to: a property, a row, rows, or a reference.
    fn behind(&self, table: &Arc<Table>, row: Found, path: &[Segment]) -> Result<Response, Response> {
        let (mut table, mut row, mut path) = (Arc::clone(table), row, path);
        loop {
            let mut cells = Vec::with_capacity(table.columns.len());
            table.cells(&row.data, &mut cells);
            self.within_reach(&table, &cells)?;
            let Some((step, rest)) = path.split_first() else { return self.row(&table, &row) };
            if let Some(at) = table.readable(&step.name) {
                return self.property(&table, &cells, at, rest);
            }
            let own = table.primary_id.and_then(|at| table.id_of(&cells[at])).unwrap_or_default();
            if let Some((link, referring)) = self.around.catalogue.related(table.name(), &step.name) {
                super::permit(self.site, referring)?;
                let scope = Some((link, own));
                return match rest {
                    [] => self.page(referring, scope, &format!("{}({own})/{}", table.set(), step.name)),
                    [count] if count.name == "$count" => self.count(referring, scope),
                    [reference] if reference.name == "$ref" => self.references(referring, scope),
                    [next, ..] => Err(no_such_set(&next.name)),
                };
            }
            let (at, _) = table.navigation(&step.name).ok_or_else(|| no_such_set(&step.name))?;
            let id = table.id_of(&cells[at]).ok_or_else(|| no_content(204))?;
            let mut found = None;
            for name in table.navigation_targets(&step.name) {
                let Some(target) = self.around.catalogue.by_name(name) else { continue };
                let row = store::find(self.around.connection, &target.id_key(id)).map_err(|error| failed(&error))?;
                if let Some(row) = row {
                    super::permit(self.site, target)?;
                    found = Some((Arc::clone(target), row));
                    break;
                }
            }
            let Some((target, behind)) = found else {
                let target = table.navigation_targets(&step.name).first().map_or("", String::as_str);
                return Err(error(404, NOT_FOUND, &format!("Entity '{target}' With Id = {id} Does Not Exist")));
            };
            if let [reference] = rest
                && reference.name == "$ref"
            {
                let link = self.writer(None).link(&target, id);
                return Ok(self.document(json!({"@odata.context": self.context_url("$ref"), "@odata.id": link})));
            }
            (table, row, path) = (target, behind, rest);
        }
    }

    /// One property, with its context or as it is.
    fn property(&self, table: &Table, cells: &[&str], at: usize, rest: &[Segment]) -> Result<Response, Response> {
        if cells[at] == cell::NULL {
            return Ok(no_content(204));
        }
        match rest {
            [] => {
                let name = &table.columns[at].property;
                let mut body = context(self.site, &format!("{}({})/{name}", table.set(), table.shown_key(cells)));
                let writer = self.writer(None);
                if writer.annotations.any() {
                    writer.annotate(&mut body, table, cells, at, "value");
                }
                body.extend_from_slice(format!(",\"value\":{}}}", cells[at]).as_bytes());
                Ok(exchange::json(200, body))
            }
            [value] if value.name == "$value" => {
                let text = cell::text_of(cells[at]).map_or_else(|| cells[at].to_owned(), std::borrow::Cow::into_owned);
                Ok(plain(text.into_bytes()))
            }
            [next, ..] => Err(no_such_set(&next.name)),
        }
    }

    fn references(&self, table: &Arc<Table>, scope: Option<(Link, Uuid)>) -> Result<Response, Response> {
        let query = Query::new(self.compiler(), table, self.resource, self.request, scope);
        let query = query.map_err(|error| error.dataverse(table))?;
        let writer = self.writer(None);
        let mut links = Vec::new();
        let listed = query.each_match(self.around.connection, 0, &mut |_, rows| {
            let cells = rows.first().and_then(Option::as_deref).unwrap_or_default();
            if let Some(id) = table.primary_id.and_then(|at| table.id_of(&cells[at])) {
                links.push(json!({"@odata.id": writer.link(table, id)}));
            }
            Ok(links.len() < super::query::PAGE_MAX)
        });
        listed.map_err(|error| error.dataverse(table))?;
        Ok(self.document(json!({"@odata.context": self.context_url("Collection($ref)"), "value": links})))
    }
}

/// What the service calls itself.
const VERSION: &str = "9.2.0.0";

fn plain(body: Vec<u8>) -> Response {
    let mut response = with_header(no_content(200), "Content-Type", "text/plain");
    response.body = body;
    response
}

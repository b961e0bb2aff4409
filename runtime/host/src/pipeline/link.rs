//! One link, raised: both systems, every map compiled, every plugin installed. Built once at a start; never changes
//! while it runs.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use dualwright_core::plan::{Flow, MapPlan};
use dualwright_core::{Fault, RowKey, SystemKind, Value};
use dualwright_sandbox::{Installation, Sandbox};
use tokio::sync::Mutex;

use super::lookups::{Lookups, Sources};
use super::ownership::Claims;
use crate::config::{FaultPolicy, LeavingFilter, Limits, Stage};
use crate::connect::{Fence, System, Table};
use crate::engine::drift::FrozenMap;
use crate::store::{Scope, Store};

/// Everything that an attempt needs to know.
pub struct Link {
    pub scope: Scope,
    pub limits: Limits,
    /// Legal entities of the link, lower case.
    pub companies: BTreeSet<String>,
    /// Whose value stands when both sides changed a record.
    pub conflict_winner: SystemKind,
    pub finops: System,
    pub dataverse: System,
    pub store: Store,
    pub sandbox: Sandbox,
    pub lookups: Lookups,
    pub claims: Claims,
    /// In running order: a map comes after the maps that its lookups point to.
    pub maps: Vec<LinkMap>,
    /// Maps whose rows a plugin computes.
    pub table_maps: Vec<TableMap>,
    /// Dataverse tables that lookups point to, by entity set.
    pub tables: HashMap<Arc<str>, Arc<Table>>,
    /// Dataverse tables whose changes some map takes to F&O, with the columns of every such map.
    pub feed_tables: HashMap<Arc<str>, Arc<Table>>,
    /// The maps that write a Dataverse table, whose cross references know its rows.
    pub maps_of: HashMap<Arc<str>, Vec<Arc<str>>>,
    /// Maps of the configuration that carry nothing, because their tables changed.
    pub frozen: Vec<FrozenMap>,
}

/// One table map on this link.
pub struct LinkMap {
    pub slug: Arc<str>,
    pub role: Role,
    pub plan: MapPlan,
    pub finops: Side,
    pub dataverse: Side,
    pub to_dataverse: Vec<Binding>,
    pub to_finops: Vec<Binding>,
    /// One per lookup of the flow to Dataverse; empty where no lookup asks for placeholders.
    pub placeholders: Vec<Option<Placeholder>>,
    pub leaving_filter: LeavingFilter,
    /// Of the link's legal entities those that the map carries; `None` for all of them.
    pub companies: Option<BTreeSet<String>>,
}

/// How the row is made that a lookup refers to and that is not there.
#[derive(Debug, Clone)]
pub struct Placeholder {
    /// Index of the map that writes it.
    pub map: usize,
    /// Entity set of that map.
    pub set: Arc<str>,
    /// What it holds beside its key: fields of that map's flow to Dataverse.
    pub columns: Vec<(usize, Value)>,
}

/// What a map is to a plugin that maps tables. The number counts the link's table maps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Nothing: it pairs two real tables.
    Ordinary,
    /// It pairs the real F&O table with the row as the plugin sees it, which is nowhere on Dataverse.
    Source(usize),
    /// It pairs the row that the plugin gives, which is nowhere on F&O, with a real Dataverse table.
    Target(usize),
}

/// A plugin that makes rows of one table from rows of another, and perhaps the other way round.
pub struct TableMap {
    pub slug: Arc<str>,
    pub plugin: Arc<str>,
    /// Index of the map with [`Role::Source`].
    pub source: usize,
    /// Indices of the maps with [`Role::Target`], in the order of the installation's targets.
    pub targets: Vec<usize>,
    pub installation: Arc<Installation>,
    pub on_fault: FaultPolicy,
    /// Columns of the source map's F&O table, in the order of the installation's source.
    pub source_columns: Vec<usize>,
    /// For each target, what its columns are, in the order of the installation.
    pub target_columns: Vec<Vec<TargetColumn>>,
}

/// What a column of a target is to the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TargetColumn {
    /// A value: a column of the target map's F&O side.
    Value(usize),
    /// The company of the row.
    Company,
    /// A lookup that is set by reference: a column of the target map's Dataverse side.
    Reference(usize),
}

/// One side of a map: the table with only the columns that the map touches, and which of them count as content.
pub struct Side {
    pub table: Arc<Table>,
    pub columns: Vec<usize>,
}

/// One plugin at one place of a map, in one direction.
pub struct Binding {
    pub plugin: Arc<str>,
    pub stage: Stage,
    pub installation: Arc<Installation>,
    /// Transforms: positions in the flow's fields. Validators: positions in the flow's target columns. In the order of
    /// the installation's columns.
    pub inputs: Vec<usize>,
    /// Transforms: fields whose chain goes on behind this plugin, and the cut that each is at.
    pub cuts: Vec<(usize, usize)>,
    /// It takes back what the same binding does in the other direction.
    pub back: bool,
    pub on_fault: FaultPolicy,
}

impl Link {
    #[must_use]
    pub const fn system(&self, kind: SystemKind) -> &System {
        match kind {
            SystemKind::Finops => &self.finops,
            SystemKind::Dataverse => &self.dataverse,
        }
    }

    /// The source map that the rows of this map come from, when a plugin makes them.
    #[must_use]
    pub fn comes_from(&self, map: usize) -> Option<usize> {
        match self.maps[map].role {
            Role::Target(table_map) => Some(self.table_maps[table_map].source),
            _ => None,
        }
    }

    /// Whether the map carries rows of this legal entity (lower case).
    #[must_use]
    pub fn takes_company(&self, map: &LinkMap, company: &str) -> bool {
        self.companies.contains(company) && map.companies.as_ref().is_none_or(|own| own.contains(company))
    }

    /// The F&O rows of the legal entities of a map, and those that name none.
    #[must_use]
    pub fn company_query(&self, map: &LinkMap) -> Option<String> {
        self.company_query_of(map, None)
    }

    fn company_query_of(&self, map: &LinkMap, only: Option<&BTreeSet<String>>) -> Option<String> {
        let companies = self.companies_of(map)?;
        let is_meant = |company: &&String| only.is_none_or(|only| only.contains(*company));
        let companies = companies.iter().filter(is_meant);
        let mut terms =
            companies.map(|company| format!("dataAreaId eq '{}'", company.replace('\'', "''"))).collect::<Vec<_>>();
        terms.push("dataAreaId eq ''".to_owned());
        Some(terms.join(" or "))
    }

    /// The legal entities that the map carries; `None` where its rows belong to none.
    #[must_use]
    pub fn companies_of(&self, map: &LinkMap) -> Option<BTreeSet<String>> {
        let taken = self.companies.iter().filter(|company| self.takes_company(map, company)).cloned();
        map.plan.company_specific.then(|| taken.collect())
    }

    /// What F&O is asked for when rows of an ordinary map are read: those of its legal entities, and those that may
    /// pass its filter. Rows that name no legal entity are asked for too: they are errors that somebody has to see.
    #[must_use]
    pub fn finops_query(&self, map: &LinkMap) -> Option<String> {
        self.finops_query_of(map, None)
    }

    /// The same for some of the legal entities; `None` for all that the map carries.
    #[must_use]
    pub fn finops_query_of(&self, map: &LinkMap, only: Option<&BTreeSet<String>>) -> Option<String> {
        let mut conditions = self.company_query_of(map, only).into_iter().collect::<Vec<_>>();
        if map.role == Role::Ordinary
            && let Some(query) =
                map.plan.to_dataverse.as_ref().and_then(|flow| flow.remote_filter(&map.finops.table.schema))
        {
            conditions.push(query.text);
        }
        match conditions.len() {
            0 | 1 => conditions.pop(),
            _ => Some(conditions.iter().map(|one| format!("({one})")).collect::<Vec<_>>().join(" and ")),
        }
    }

    /// What Dataverse is asked for when rows of an ordinary map are read: those that may pass its filter. Rows that F&O
    /// rows stand for need not be among them, since a filter only says what goes to F&O.
    #[must_use]
    pub fn dataverse_query(&self, map: &LinkMap) -> Option<String> {
        let flow = map.plan.to_finops.as_ref().filter(|_| map.role == Role::Ordinary)?;
        Some(flow.remote_filter(&map.dataverse.table.schema)?.text)
    }

    /// What a search for ids or names needs.
    #[must_use]
    pub fn sources(&self, timeout: std::time::Duration) -> Sources<'_> {
        Sources {
            scope: &self.scope,
            store: &self.store,
            dataverse: &self.dataverse,
            tables: &self.tables,
            maps_of: &self.maps_of,
            timeout,
        }
    }
}

impl TableMap {
    /// Under this name the store keeps which row of a target belongs to which source row, by the source row's key.
    #[must_use]
    pub fn provenance(&self, link: &Link, target: usize) -> Arc<str> {
        Arc::from(format!("{}/{}", self.slug, link.maps[self.targets[target]].dataverse.table.schema.set))
    }
}

impl LinkMap {
    /// Whether changes of its F&O table are taken to Dataverse.
    #[must_use]
    pub const fn reads_finops(&self) -> bool {
        self.plan.to_dataverse.is_some() && !matches!(self.role, Role::Target(_))
    }

    /// Whether changes of its Dataverse table are taken to F&O.
    #[must_use]
    pub const fn reads_dataverse(&self) -> bool {
        self.plan.to_finops.is_some() && !matches!(self.role, Role::Source(_))
    }

    #[must_use]
    pub const fn side(&self, kind: SystemKind) -> &Side {
        match kind {
            SystemKind::Finops => &self.finops,
            SystemKind::Dataverse => &self.dataverse,
        }
    }

    /// The flow that leads to `target`, if the map has one.
    #[must_use]
    pub const fn flow(&self, target: SystemKind) -> Option<&Flow> {
        match target {
            SystemKind::Dataverse => self.plan.to_dataverse.as_ref(),
            SystemKind::Finops => self.plan.to_finops.as_ref(),
        }
    }

    #[must_use]
    pub fn bindings(&self, target: SystemKind) -> &[Binding] {
        match target {
            SystemKind::Dataverse => &self.to_dataverse,
            SystemKind::Finops => &self.to_finops,
        }
    }

    /// The id that a row gets when this runtime creates it: always the same one, so that whatever is repeated after a
    /// crash names the same row, and so that other rows of one change set can refer to it before it exists.
    #[must_use]
    pub fn new_id(&self, scope: &Scope, key: &RowKey) -> uuid::Uuid {
        // Made for this purpose; it only has to differ from every other namespace.
        const NAMESPACE: uuid::Uuid = uuid::uuid!("4f8c5b1e-6f0a-5a3c-9d55-0d6a2b1c7e90");
        let name = format!("{}\u{1f}{}\u{1f}{}\u{1f}{}", scope.tenant, scope.link, self.slug, key.as_str());
        let mut id = uuid::Uuid::new_v5(&NAMESPACE, name.as_bytes()).into_bytes();
        id[..3].copy_from_slice(&neighbourhood(key).to_be_bytes()[1..]);
        uuid::Builder::from_custom_bytes(id).into_uuid()
    }
}

/// A number of 24 bits that is near for rows whose keys follow each other. Their ids begin with it, so that rows that are
/// written together lie together in an index over ids: ids in no order touch all of such an index with every change set,
/// which is why Dataverse makes its own in sequence.
fn neighbourhood(key: &RowKey) -> u32 {
    const BITS: u32 = 24;
    // The number of a document, not that of its line.
    let numbered = key.parts().find(|part| part.bytes().any(|byte| byte.is_ascii_digit()));
    let Some(part) = numbered else {
        let text = key.parts().next().unwrap_or_default().bytes().chain(std::iter::repeat(0)).take(3);
        return text.fold(0, |number, byte| (number << 8) | u32::from(byte));
    };
    let part = part.as_bytes();
    let end = part.iter().rposition(u8::is_ascii_digit).map_or(0, |last| last + 1);
    let start = part[..end].iter().rposition(|byte| !byte.is_ascii_digit()).map_or(0, |before| before + 1);
    part[start..end].iter().fold(0, |number, digit| (number * 10 + u32::from(digit - b'0')) % (1 << BITS))
}

/// A place to write from. A fence admits one change set at a time, so work that is to run in parallel needs a lane
/// each.
pub struct Lane {
    partition: String,
    finops: Mutex<Option<Fence>>,
    dataverse: Mutex<Option<Fence>>,
}

impl Lane {
    /// The lane with this number. Taking its fences, at the first write, ends every older holder of them.
    #[must_use]
    pub fn new(scope: &Scope, number: usize) -> Self {
        Self {
            partition: format!("{}/{}/{number}", scope.tenant, scope.link),
            finops: Mutex::new(None),
            dataverse: Mutex::new(None),
        }
    }

    #[must_use]
    pub fn partition(&self) -> &str {
        &self.partition
    }

    /// Exclusive use of the fence on `target`; taken from whoever had it when it is not ours yet.
    pub async fn fence(
        &self,
        link: &Link,
        target: SystemKind,
        timeout: std::time::Duration,
    ) -> Result<tokio::sync::MappedMutexGuard<'_, Fence>, Fault> {
        let mut guard = match target {
            SystemKind::Finops => self.finops.lock().await,
            SystemKind::Dataverse => self.dataverse.lock().await,
        };
        if guard.is_none() {
            *guard = Some(link.system(target).open_fence(&self.partition, timeout).await?);
        }
        Ok(tokio::sync::MutexGuard::map(guard, |fence| fence.as_mut().expect("it was opened above")))
    }
}

#[cfg(test)]
mod tests {
    use dualwright_core::Value;

    use super::*;

    #[test]
    fn rows_whose_keys_follow_each_other_get_ids_that_lie_together() {
        let near = |parts: &[&str]| {
            let parts = parts.iter().map(Value::text).collect::<Vec<_>>();
            neighbourhood(&RowKey::new(Some("usmf"), &parts))
        };
        for (parts, wanted) in [
            (&["C0000123"] as &[&str], 123),
            (&["C0000124"], 124),
            (&["US-045/7b"], 7),
            (&["SO-12", "3"], 12),
            (&["Bikes", "17"], 17),
            (&["net30é"], 30),
            (&["16777217"], 1),
            (&["eur"], 0x0065_7572),
            (&["a"], 0x0061_0000),
            (&[""], 0),
        ] {
            assert_eq!(near(parts), wanted, "{parts:?}");
        }
        assert!(near(&["99999999999999999999"]) < 1 << 24);
    }
}

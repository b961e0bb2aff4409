//! What the systems and the store tell: rows of every map, the pace of changes, the times of plugins.
//!
//! Nothing here fails: what cannot be measured is left out, and said.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use dualwright_core::{Code, Fault, SystemKind};

use super::{KnownMap, MapRows, Measured, Pace, PluginTime};
use crate::config::Config;
use crate::connect::metadata::Catalogue;
use crate::connect::{System, Table};
use crate::report::PluginReport;
use crate::store::{FailedFilter, Scope, Store};

const TIMEOUT: Duration = Duration::from_secs(60);

/// What the store remembers, whether a runtime is at work there or not.
pub(super) async fn store(config: &Config, measured: &mut Measured) {
    // A configuration that never ran has none, and there is nothing to say of that.
    let Ok(store) = Store::open_read_only(&config.state) else { return };
    let scope = Scope { tenant: config.tenant.as_str().into(), link: config.link.slug.as_str().into() };
    if let Err(fault) = read_store(&store, &scope, config, measured).await {
        measured.left_out.push(format!("the store was not read: {fault}"));
    }
    store.close().await;
}

async fn read_store(store: &Store, scope: &Scope, config: &Config, measured: &mut Measured) -> Result<(), Fault> {
    measured.pace = store.pace(scope).await?.map(|pace| Pace {
        transaction_rows_max: pace.finops_rows_max,
        rows_per_minute_max: pace.rows_per_minute_max,
        rows_per_ten_minutes_max: pace.rows_per_ten_minutes_max,
    });
    for (_, timings) in store.plugin_timings(scope).await? {
        // What another version wrote and this one cannot read is not worth failing for.
        let Ok(timing) = serde_json::from_str::<PluginReport>(&timings) else { continue };
        let max_ms = timing.max_us.div_ceil(1_000);
        match measured.plugins.iter_mut().find(|own| own.plugin == timing.plugin) {
            Some(own) => {
                own.over_goal += timing.over_goal;
                own.max_ms = own.max_ms.max(max_ms);
            }
            None => {
                measured.plugins.push(PluginTime { plugin: timing.plugin, over_goal: timing.over_goal, max_ms });
            }
        }
    }
    // More than these would say nothing else.
    const RECORDS_MAX: u32 = 1_000;
    let failed = store.failed(scope, FailedFilter { limit: Some(RECORDS_MAX), ..FailedFilter::default() }).await?;
    let waiting = store.backlog(scope).await?.fault;
    let codes = failed.iter().map(|record| &record.fault).chain(&waiting).map(|fault| fault.code);
    measured.budget_spent = codes.filter(|code| *code == Code::BudgetSpent).count() as u64;
    let mut copied = Vec::new();
    for slug in config.map_slugs() {
        if crate::engine::has_had_initial_sync(store, scope, &slug).await? {
            copied.push(slug);
        }
    }
    measured.copied = Some(copied);
    Ok(())
}

/// Rows of every map on both systems.
pub(super) async fn systems(config: &Config, maps: &[KnownMap], measured: &mut Measured) {
    measured.rows = maps.iter().map(|map| MapRows { slug: map.slug.clone(), ..MapRows::default() }).collect();
    let finops = System::new(SystemKind::Finops, config.link.finops.clone());
    let dataverse = System::new(SystemKind::Dataverse, config.link.dataverse.clone());
    let (finops, dataverse) = match (finops, dataverse) {
        (Ok(finops), Ok(dataverse)) => (finops, dataverse),
        (finops, dataverse) => {
            for fault in [finops.err(), dataverse.err()].into_iter().flatten() {
                measured.left_out.push(format!("rows were not counted: {fault}"));
            }
            return;
        }
    };
    let (left, right) = tokio::join!(count_finops(&finops, maps), count_dataverse(&dataverse, maps));
    match left {
        Ok(counts) => {
            for (rows, count) in measured.rows.iter_mut().zip(counts) {
                match count {
                    Ok(count) => rows.finops = count,
                    Err(fault) => {
                        measured.left_out.push(format!("rows of {} were not counted on F&O: {fault}", rows.slug));
                    }
                }
            }
        }
        Err(fault) => measured.left_out.push(format!("rows were not counted on F&O: {fault}")),
    }
    match right {
        Ok(counts) => {
            for (rows, count) in measured.rows.iter_mut().zip(counts) {
                rows.dataverse = count;
            }
        }
        Err(fault) => measured.left_out.push(format!("rows were not counted on Dataverse: {fault}")),
    }
}

/// For every map the rows of the legal entity that has most; `None` where F&O does not know the entity, which
/// `dualwright run` says in more words.
async fn count_finops(finops: &System, maps: &[KnownMap]) -> Result<Vec<Result<Option<u64>, Fault>>, Fault> {
    let catalogue = finops.catalogue(TIMEOUT).await?;
    let mut counts = Vec::with_capacity(maps.len());
    for map in maps {
        counts.push(count_finops_map(finops, &catalogue, map).await);
    }
    Ok(counts)
}

async fn count_finops_map(finops: &System, catalogue: &Catalogue, map: &KnownMap) -> Result<Option<u64>, Fault> {
    let entity = map.leg.finops_distinct_name.as_deref().and_then(|name| catalogue.collection_of_entity(name));
    let entity = entity.or_else(|| catalogue.collection_of_entity(&map.leg.finops_entity));
    let Some(collection) = map.collection.as_deref().or(entity) else { return Ok(None) };
    let table = Table::new(Arc::new(finops.schema(catalogue, collection, TIMEOUT).await?));
    if table.schema.company.is_none() {
        return finops.count(&table, None, TIMEOUT).await;
    }
    let filters = map.companies.iter().map(|company| format!("dataAreaId eq '{}'", company.replace('\'', "''")));
    let filters = filters.collect::<Vec<_>>();
    let of_each = filters.iter().map(|filter| finops.count(&table, Some(filter), TIMEOUT));
    Ok(futures_util::future::try_join_all(of_each).await?.into_iter().flatten().max())
}

async fn count_dataverse(dataverse: &System, maps: &[KnownMap]) -> Result<Vec<Option<u64>>, Fault> {
    let catalogue = dataverse.catalogue(TIMEOUT).await?;
    let tables = maps.iter().map(|map| catalogue.table_of(&map.leg.dataverse_set)).collect::<Vec<_>>();
    let distinct = tables.iter().flatten().copied().collect::<BTreeSet<_>>().into_iter().collect::<Vec<_>>();
    let counted = dataverse.total_rows(&distinct, TIMEOUT).await?;
    Ok(tables.into_iter().map(|table| counted.get(table?).copied()).collect())
}

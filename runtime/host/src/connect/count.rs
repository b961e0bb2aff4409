//! How many rows Dataverse tables have, without a limit to the count.

use std::collections::HashMap;
use std::time::Duration;

use dualwright_core::{Code, Fault};
use dualwright_odata::escape::component;

use super::{System, dataverse};

/// Tables of one request: their names have to fit a URL.
const TABLES_AT_ONCE: usize = 50;

impl System {
    /// The rows of Dataverse tables by logical name, all owners and companies together: `RetrieveTotalRecordCount`,
    /// whose numbers may be a day old (Microsoft Learn, "RetrieveTotalRecordCount function").
    pub async fn total_rows(&self, tables: &[&str], timeout: Duration) -> Result<HashMap<String, u64>, Fault> {
        #[derive(serde::Deserialize)]
        #[serde(rename_all = "PascalCase")]
        struct Answer {
            entity_record_count_collection: Counts,
        }
        #[derive(serde::Deserialize)]
        #[serde(rename_all = "PascalCase")]
        struct Counts {
            keys: Vec<String>,
            values: Vec<u64>,
        }
        let mut counts = HashMap::with_capacity(tables.len());
        for tables in tables.chunks(TABLES_AT_ONCE) {
            let names = tables.iter().map(|table| format!("\"{table}\"")).collect::<Vec<_>>().join(",");
            let names = format!("[{names}]");
            let url = format!("{}/RetrieveTotalRecordCount(EntityNames=@p)?@p={}", dataverse::ROOT, component(&names));
            let body = self.get(&url, None, timeout).await?;
            let answer: Answer = serde_json::from_slice(&body).map_err(|error| {
                Fault::new(Code::Unavailable, format!("{} sent counts that cannot be read: {error}", self.kind))
            })?;
            let Counts { keys, values } = answer.entity_record_count_collection;
            counts.extend(keys.into_iter().zip(values));
        }
        Ok(counts)
    }
}

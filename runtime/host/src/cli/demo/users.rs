//! The people of the demo: they create, change and delete rows on both sides, in change sets of their own.

use anyhow::{Context, bail};
use dualwright_core::SystemKind;
use dualwright_odata::batch::{Item, Request, encode_requests, parse_responses};

use super::place::Place;
use super::systems::Systems;
use crate::demo::{ChangeSet, DataSource, Ids};

/// Plays the script, from where it was left. Returns the number of edited rows.
pub(super) async fn play(source: &DataSource, systems: &Systems, place: &mut Place) -> anyhow::Result<u64> {
    let edits = source.edits()?;
    let (mut left, mut right) = place.sent();
    if left >= edits.finops.len() && right >= edits.dataverse.len() {
        return Ok(0);
    }
    let mut ids = Ids::default();
    for map in source.maps() {
        let rows = systems.dataverse_rows(map.facts.dataverse_set)?;
        ids.learn(source.tables(), map.facts.dataverse_set, &rows);
    }
    let client = reqwest::Client::builder().no_proxy().build()?;
    let mut edited = 0;
    // The one change set that may have been applied without our knowing it.
    let mut doubtful = true;
    while left < edits.finops.len() || right < edits.dataverse.len() {
        if let Some(set) = edits.finops.get(left) {
            send(&client, &systems.finops, SystemKind::Finops, set, &ids, doubtful).await?;
            edited += set.edits.len() as u64;
            left += 1;
            place.set_sent((left, right))?;
        }
        if let Some(set) = edits.dataverse.get(right) {
            send(&client, &systems.dataverse, SystemKind::Dataverse, set, &ids, doubtful).await?;
            edited += set.edits.len() as u64;
            right += 1;
            place.set_sent((left, right))?;
        }
        doubtful = false;
    }
    Ok(edited)
}

/// Sends one change set. A refusal is fine when the set may be there already.
async fn send(
    client: &reqwest::Client,
    base: &str,
    system: SystemKind,
    set: &ChangeSet,
    ids: &Ids,
    doubtful: bool,
) -> anyhow::Result<()> {
    let mut requests = Vec::with_capacity(set.edits.len());
    for (number, edit) in set.edits.iter().enumerate() {
        let request = match edit.request(ids) {
            Ok(request) => request,
            // The row is gone because this very set deleted it.
            Err(_) if doubtful => return Ok(()),
            Err(missing) => return Err(missing).with_context(|| format!("an edit of {} cannot be sent", edit.set)),
        };
        let mut headers = vec![("Content-Type".to_owned(), "application/json".to_owned())];
        headers.extend(request.if_match.map(|value| ("If-Match".to_owned(), value.to_owned())));
        requests.push(Request {
            method: request.method.to_owned(),
            url: request.url,
            headers,
            body: request.body.map(|body| serde_json::to_vec(&body)).transpose()?.unwrap_or_default(),
            content_id: Some((number + 1).to_string()),
        });
    }
    let (content_type, body) = encode_requests(&[Item::ChangeSet(requests)]);
    let root = match system {
        SystemKind::Finops => "/data",
        SystemKind::Dataverse => "/api/data/v9.2",
    };
    let answer = client
        .post(format!("{base}{root}/$batch"))
        .header("content-type", content_type)
        .body(body)
        .send()
        .await
        .with_context(|| format!("{system} did not answer"))?;
    let content_type =
        answer.headers().get("content-type").and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned();
    let body = answer.bytes().await?;
    let answers = parse_responses(&content_type, &body).with_context(|| format!("{system} answered no batch"))?;
    let refused = answers
        .iter()
        .flat_map(|item| match item {
            Item::Single(answer) => std::slice::from_ref(answer),
            Item::ChangeSet(answers) => answers.as_slice(),
        })
        .find(|answer| !(200..300).contains(&answer.status));
    match refused {
        None => Ok(()),
        Some(_) if doubtful => Ok(()),
        Some(answer) => {
            let text = String::from_utf8_lossy(&answer.body);
            bail!("{system} refused an edit with {}: {}", answer.status, text.chars().take(400).collect::<String>())
        }
    }
}

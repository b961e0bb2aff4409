//! One change set with its receipt and its fence, and what became of it.
//!
//! The receipt is a row that is unique on the transaction id and stands in the same change set: a replay is refused
//! as a whole, and one GET settles an unknown outcome. The fence is a row that every change set updates under
//! If-Match: once it is bumped, a request that still lies somewhere on the way is refused by the system itself.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use dualwright_core::{Class, Code, Fault, SystemKind, TransactionId};
use reqwest::Method;
use uuid::Uuid;

use super::batch::{Part, PartAnswer};
use super::bulk::{self, Carried};
use super::http::{Answer, Purpose};
use super::{Action, Address, BATCH_OPERATIONS_MAX, Failure, System, WriteOperation, dataverse, finops, http};

/// Our hold on one partition of a system. Only one change set per fence can be under way.
#[derive(Debug, Clone)]
pub struct Fence {
    pub partition: String,
    pub epoch: i64,
    /// The etag that the next change set has to name.
    pub version: Arc<str>,
}

/// A row after it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WrittenRow {
    /// Empty for a delete.
    pub version: Arc<str>,
    pub id: Option<Uuid>,
}

/// What became of a change set. Nothing but `Applied` and `AlreadyApplied` changed the system, and nothing but
/// `Unknown` leaves a doubt.
#[derive(Debug, PartialEq)]
pub enum WriteOutcome {
    /// All of it, now. One entry per operation; the fence has moved on with it.
    Applied(Vec<WrittenRow>),
    /// All of it, by an earlier attempt: its receipt was there.
    AlreadyApplied,
    /// Nothing: the system refused the operation at this position, or, without one, the set as a whole. A row that
    /// the target has and should not, has not and should, or has in another version is a refusal of that row.
    Rejected { position: Option<usize>, fault: Fault },
    /// Nothing: somebody else holds the partition now, or an earlier request of ours has arrived after all. The fence
    /// has to be taken again.
    FenceLost(Fault),
    /// Nothing: the system wants us to wait, or cannot be reached.
    Wait { after: Duration, fault: Fault },
    /// Nobody knows yet. Bump the fence first, then ask for the receipt: what it says then stays true.
    Unknown(Fault),
}

/// A version that no row has: both systems number theirs from 1.
pub(super) const NO_VERSION: &str = "W/\"0\"";

/// Position of fence and receipt in the change set; rows follow.
const FENCE: usize = 0;
const RECEIPT: usize = 1;
const ROWS: usize = 2;

impl System {
    /// Takes a partition: creates its fence, or bumps it so that no older holder can write any more.
    pub async fn open_fence(&self, partition: &str, timeout: Duration) -> Result<Fence, Fault> {
        // Two takers can collide a few times; more is a defect of the system.
        const ATTEMPTS_MAX: usize = 8;
        for _ in 0..ATTEMPTS_MAX {
            if let Some(mut fence) = self.read_fence(partition, timeout).await? {
                fence.epoch += 1;
                if self.bump(&mut fence, timeout).await? {
                    return Ok(fence);
                }
                continue;
            }
            let part = match self.kind {
                SystemKind::Finops => finops::new_fence_part(partition),
                SystemKind::Dataverse => dataverse::new_fence_part(partition),
            };
            let answer = self.send_part(part, timeout).await?;
            if answer.status.is_success() {
                if let Some(fence) = fence_of(partition, &answer.body, answer.header("etag")) {
                    return Ok(fence);
                }
                continue;
            }
            let fault = answer.fault(self.kind.name());
            match fault.code {
                // Somebody else created it meanwhile.
                Code::DuplicateKey => {}
                Code::TargetGone | Code::TableUnknown => {
                    return Err(Fault::new(Code::TargetIncapable, format!("{} has no fence table", self.kind)));
                }
                _ => return Err(fault),
            }
        }
        Err(Fault::new(Code::Unavailable, format!("the fence {partition} of {} cannot be taken", self.kind)))
    }

    /// Makes every change set that named an earlier version of the fence impossible.
    pub async fn bump_fence(&self, fence: &mut Fence, timeout: Duration) -> Result<(), Fault> {
        *fence = self.open_fence(&fence.partition, timeout).await?;
        Ok(())
    }

    pub(super) async fn read_fence(&self, partition: &str, timeout: Duration) -> Result<Option<Fence>, Fault> {
        let url = match self.kind {
            SystemKind::Finops => finops::fence_url(partition),
            SystemKind::Dataverse => dataverse::fence_url(partition),
        };
        let answer = self
            .client
            .send(Purpose::Read, Method::GET, &url, &[], None, timeout)
            .await
            .map_err(Failure::into_fault)?;
        if !answer.status.is_success() {
            let fault = answer.fault(self.kind.name());
            return if fault.code == Code::TargetGone { Ok(None) } else { Err(fault) };
        }
        fence_of(partition, &answer.body, answer.header("etag"))
            .map(Some)
            .ok_or_else(|| Fault::new(Code::Unavailable, format!("{} sent no usable fence", self.kind)))
    }

    /// Writes the fence's epoch under its version; false when somebody was faster.
    async fn bump(&self, fence: &mut Fence, timeout: Duration) -> Result<bool, Fault> {
        let answer = self.send_part(self.fence_part(fence), timeout).await?;
        if !answer.status.is_success() {
            let fault = answer.fault(self.kind.name());
            return if matches!(fault.code, Code::VersionConflict | Code::TargetGone) { Ok(false) } else { Err(fault) };
        }
        match fence_of(&fence.partition, &answer.body, answer.header("etag")) {
            Some(bumped) => {
                *fence = bumped;
                Ok(true)
            }
            // The next read tells the version.
            None => Ok(false),
        }
    }

    /// Sends one operation by itself.
    async fn send_part(&self, part: Part, timeout: Duration) -> Result<Answer, Fault> {
        let method = Method::from_bytes(part.method.as_bytes())
            .map_err(|_| Fault::new(Code::Internal, format!("{} is not a method", part.method)))?;
        let headers = part.headers.iter().map(|(name, value)| (*name, value.as_ref())).collect::<Vec<_>>();
        self.client
            .send(Purpose::Write, method, &part.url, &headers, Some(Bytes::from(part.body)), timeout)
            .await
            .map_err(Failure::into_fault)
    }

    pub(super) fn fence_part(&self, fence: &Fence) -> Part {
        match self.kind {
            SystemKind::Finops => finops::fence_part(fence),
            SystemKind::Dataverse => dataverse::fence_part(fence),
        }
    }

    /// Whether one change set can hold all of `operations`, or why it cannot.
    pub fn fits(&self, operations: &[WriteOperation]) -> Result<(), Fault> {
        bulk::pack(self.kind, operations).map(|_| ())
    }

    /// Writes all of `operations`, or nothing. What does not fit one change set is refused, and not sent.
    ///
    /// The fence is borrowed for as long as the request is under way: a second change set on it could only be refused.
    pub async fn write(
        &self,
        tenant: &str,
        transaction: TransactionId,
        fence: &mut Fence,
        operations: &[WriteOperation],
        timeout: Duration,
    ) -> WriteOutcome {
        let carried = match bulk::pack(self.kind, operations) {
            Ok(carried) => carried,
            Err(fault) => return WriteOutcome::Rejected { position: None, fault },
        };
        let parts = match self.parts(tenant, transaction, fence, operations, &carried) {
            Ok(parts) => parts,
            Err((position, fault)) => return WriteOutcome::Rejected { position, fault },
        };
        let answers = match self.batch(Purpose::Write, &parts, timeout).await {
            Ok(answers) => answers,
            Err(failure) => return not_answered(failure),
        };
        if let Some(refused) = refused(&answers) {
            return match refusal(self.kind, refused) {
                Refusal::Settled(WriteOutcome::Rejected { position: Some(position), fault }) => {
                    match carried.get(position) {
                        None => WriteOutcome::Rejected { position: None, fault },
                        Some(Carried::One(row)) => WriteOutcome::Rejected { position: Some(*row), fault },
                        Some(Carried::Many(rows)) => {
                            let probe = Probe { tenant, transaction, fence, operations, before: &carried[..position] };
                            self.refused_among(&probe, rows, fault, timeout).await
                        }
                    }
                }
                Refusal::Settled(outcome) => outcome,
                Refusal::Unplaced(fault) => self.place(transaction, fence, fault, timeout).await,
            };
        }
        if answers.len() != parts.len() {
            let what = format!("{} answered {} of {} operations", self.kind, answers.len(), parts.len());
            return WriteOutcome::Unknown(Fault::new(Code::Unavailable, what));
        }
        let own = &answers[FENCE];
        match fence_of(&fence.partition, &own.body, own.etag.as_deref()) {
            Some(moved_on) => *fence = moved_on,
            // The next change set loses the fence and takes it again.
            None => fence.version = Arc::from(own.etag.as_deref().unwrap_or(NO_VERSION)),
        }
        WriteOutcome::Applied(written_rows(operations, &carried, &answers[ROWS..]))
    }

    /// Which of the rows that go together the system refuses, which it does not say. They are sent singly, after all that
    /// comes before them, in change sets whose last operation is refused for certain, so that nothing of them stays.
    async fn refused_among(&self, probe: &Probe<'_>, rows: &[usize], fault: Fault, timeout: Duration) -> WriteOutcome {
        // Beside fence, receipt, the rows that were tried already, and the operation that is refused.
        let room = BATCH_OPERATIONS_MAX.saturating_sub(ROWS + probe.before.len() + 2);
        let mut tried = 0;
        while tried < rows.len() && room > 0 {
            let next = &rows[tried..rows.len().min(tried + room)];
            let mut carried = probe.before.to_vec();
            carried.extend((tried > 0).then(|| Carried::Many(rows[..tried].to_vec())));
            let first = carried.len();
            carried.extend(next.iter().map(|&row| Carried::One(row)));
            let parts = self.parts(probe.tenant, probe.transaction, probe.fence, probe.operations, &carried);
            let mut parts = match parts {
                Ok(parts) => parts,
                Err((position, fault)) => return WriteOutcome::Rejected { position, fault },
            };
            let last = parts.len();
            parts.push(self.fence_part(&Fence { version: Arc::from(NO_VERSION), ..probe.fence.clone() }));
            let answers = match self.batch(Purpose::Write, &parts, timeout).await {
                Ok(answers) => answers,
                Err(failure) => return not_answered(failure),
            };
            let Some(refused) = refused(&answers) else {
                // A system that takes any version has applied it; its receipt tells.
                return WriteOutcome::Unknown(fault);
            };
            if refused.position != Some(last) {
                return match refusal(self.kind, refused) {
                    Refusal::Settled(WriteOutcome::Rejected { position: Some(position), fault }) => {
                        let row = position.checked_sub(first).and_then(|position| next.get(position)).copied();
                        WriteOutcome::Rejected { position: row, fault }
                    }
                    Refusal::Settled(outcome) => outcome,
                    Refusal::Unplaced(fault) => self.place(probe.transaction, probe.fence, fault, timeout).await,
                };
            }
            tried += next.len();
        }
        WriteOutcome::Rejected { position: None, fault }
    }

    /// What a refusal means that does not say which operation it is about: the receipt and the fence are looked at.
    async fn place(&self, transaction: TransactionId, fence: &Fence, fault: Fault, timeout: Duration) -> WriteOutcome {
        match self.has_receipt(transaction, timeout).await {
            Ok(true) => return WriteOutcome::AlreadyApplied,
            Ok(false) => {}
            Err(_) => return WriteOutcome::Unknown(fault),
        }
        match self.read_fence(&fence.partition, timeout).await {
            Ok(Some(now)) if now.version == fence.version => WriteOutcome::Rejected { position: None, fault },
            Ok(_) => WriteOutcome::FenceLost(fault),
            Err(_) => WriteOutcome::Unknown(fault),
        }
    }

    fn parts(
        &self,
        tenant: &str,
        transaction: TransactionId,
        fence: &Fence,
        operations: &[WriteOperation],
        carried: &[Carried],
    ) -> Result<Vec<Part>, (Option<usize>, Fault)> {
        let mut parts = Vec::with_capacity(carried.len() + ROWS + 1);
        parts.push(self.fence_part(fence));
        parts.push(match self.kind {
            SystemKind::Finops => finops::receipt_part(transaction, tenant),
            SystemKind::Dataverse => dataverse::receipt_part(transaction, tenant),
        });
        for carried in carried {
            parts.push(match carried {
                Carried::One(position) => {
                    let operation = &operations[*position];
                    let part = match self.kind {
                        SystemKind::Finops => finops::part_of(operation),
                        SystemKind::Dataverse => dataverse::part_of(operation),
                    };
                    part.map_err(|fault| (Some(*position), fault))?
                }
                Carried::Many(positions) => {
                    let rows = positions.iter().map(|&position| &operations[position]).collect::<Vec<_>>();
                    dataverse::create_multiple_part(&rows).map_err(|fault| (positions.first().copied(), fault))?
                }
            });
        }
        Ok(parts)
    }
}

/// A change set in which the refused row of a bulk operation is looked for.
struct Probe<'a> {
    tenant: &'a str,
    transaction: TransactionId,
    fence: &'a Fence,
    operations: &'a [WriteOperation],
    /// The operations before that one.
    before: &'a [Carried],
}

/// The answer that says why a change set was refused.
pub(super) fn refused(answers: &[PartAnswer]) -> Option<&PartAnswer> {
    // Some servers mark what they did not get to as a failed dependency; the reason is another one.
    let refused = |answer: &&PartAnswer| !answer.is_success();
    answers.iter().filter(refused).find(|answer| answer.status != 424).or(answers.iter().find(refused))
}

/// One entry per operation. A bulk operation tells no versions, so what it wrote is known by its content when it comes
/// back.
fn written_rows(operations: &[WriteOperation], carried: &[Carried], answers: &[PartAnswer]) -> Vec<WrittenRow> {
    let mut rows = operations
        .iter()
        .map(|operation| WrittenRow { version: Arc::from(""), id: written_id(operation) })
        .collect::<Vec<_>>();
    for (carried, answer) in carried.iter().zip(answers) {
        if let Carried::One(position) = carried {
            rows[*position].version = version_of(answer);
        }
    }
    rows
}

/// What it means that a change set got no answer of its own.
fn not_answered(failure: Failure) -> WriteOutcome {
    match failure {
        Failure::NotSent { fault, retry_after } if retry_after.is_some() || fault.class() == Class::Transient => {
            WriteOutcome::Wait { after: retry_after.unwrap_or(http::WAIT_UNSAID), fault }
        }
        Failure::NotSent { fault, .. } => WriteOutcome::Rejected { position: None, fault },
        Failure::Unknown(fault) => WriteOutcome::Unknown(fault),
    }
}

#[derive(Debug, PartialEq)]
enum Refusal {
    Settled(WriteOutcome),
    /// Something was there or had changed, and it may have been the receipt, the fence or a row.
    Unplaced(Fault),
}

/// What a refused operation says about its change set.
fn refusal(system: SystemKind, refused: &PartAnswer) -> Refusal {
    let fault = http::fault_of(system.name(), refused.status, &refused.body);
    Refusal::Settled(match (fault.code, refused.position) {
        (Code::Throttled | Code::Unavailable, _) => {
            let after = http::retry_after(refused.retry_after.as_deref(), http::unix_seconds());
            WriteOutcome::Wait { after, fault }
        }
        (Code::VersionConflict | Code::TargetGone, Some(FENCE)) => WriteOutcome::FenceLost(fault),
        (Code::DuplicateKey, Some(RECEIPT)) => WriteOutcome::AlreadyApplied,
        (Code::DuplicateKey | Code::VersionConflict, None) => return Refusal::Unplaced(fault),
        (Code::Unauthorized, Some(FENCE | RECEIPT)) => WriteOutcome::Rejected { position: None, fault },
        (_, Some(position @ (FENCE | RECEIPT))) => {
            let what = if position == FENCE { "fence" } else { "receipt" };
            let what = format!("{system} refused the {what}: {}", fault.message);
            let fault = Fault { code: Code::TargetIncapable, message: what, ..fault };
            WriteOutcome::Rejected { position: None, fault }
        }
        (_, position) => WriteOutcome::Rejected { position: position.map(|position| position - ROWS), fault },
    })
}

fn version_of(answer: &PartAnswer) -> Arc<str> {
    #[derive(serde::Deserialize)]
    struct Etag<'a> {
        #[serde(rename = "@odata.etag", borrow)]
        etag: Option<std::borrow::Cow<'a, str>>,
    }
    let body = serde_json::from_slice::<Etag<'_>>(&answer.body).ok();
    let from_body = body.as_ref().and_then(|body| body.etag.as_deref());
    Arc::from(from_body.or(answer.etag.as_deref()).unwrap_or_default())
}

const fn written_id(operation: &WriteOperation) -> Option<Uuid> {
    match (&operation.action, &operation.address) {
        (Action::Create { id }, _) => *id,
        (_, Address::Id(id)) => Some(*id),
        (_, Address::Key(_)) => None,
    }
}

/// The fence as a body shows it; the version may also stand in the ETag header.
fn fence_of(partition: &str, body: &[u8], etag: Option<&str>) -> Option<Fence> {
    #[derive(serde::Deserialize)]
    struct State {
        #[serde(rename = "@odata.etag")]
        etag: Option<String>,
        #[serde(alias = "dualwright_epoch", alias = "Epoch")]
        epoch: i64,
    }
    let state = serde_json::from_slice::<State>(body).ok()?;
    let version = state.etag.as_deref().or(etag).filter(|version| !version.is_empty())?;
    Some(Fence { partition: partition.to_owned(), epoch: state.epoch, version: Arc::from(version) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(status: u16, code: &str, position: Option<usize>) -> PartAnswer {
        let body = format!(r#"{{"error":{{"code":"{code}","message":"m"}}}}"#);
        PartAnswer { status, position, etag: None, retry_after: Some("7".to_owned()), body: Bytes::from(body) }
    }

    fn shown(outcome: &WriteOutcome) -> String {
        match outcome {
            WriteOutcome::Applied(rows) => format!("applied {}", rows.len()),
            WriteOutcome::AlreadyApplied => "already applied".to_owned(),
            WriteOutcome::Rejected { position, fault } => {
                format!(
                    "rejected {} {}",
                    position.map_or("all".to_owned(), |position| position.to_string()),
                    fault.code
                )
            }
            WriteOutcome::FenceLost(fault) => format!("fence lost {}", fault.code),
            WriteOutcome::Wait { after, fault } => format!("wait {after:?} {}", fault.code),
            WriteOutcome::Unknown(fault) => format!("unknown {}", fault.code),
        }
    }

    #[test]
    fn a_refusal_is_told_by_its_operation_and_code() {
        const DUPLICATE: &str = "0x80040237";
        const VERSION: &str = "0x80060882";
        for (status, code, position, wanted) in [
            (412, VERSION, Some(0), "fence lost DW-1204"),
            (404, "0x80040217", Some(0), "fence lost DW-1206"),
            (400, "0x80048d19", Some(0), "rejected all DW-3005"),
            (403, "", Some(0), "rejected all DW-3001"),
            (412, DUPLICATE, Some(1), "already applied"),
            (412, VERSION, Some(1), "rejected all DW-3005"),
            (400, "", Some(1), "rejected all DW-3005"),
            (401, "", Some(1), "rejected all DW-3001"),
            (412, DUPLICATE, Some(2), "rejected 0 DW-1203"),
            (412, VERSION, Some(3), "rejected 1 DW-1204"),
            (404, "0x80040217", Some(4), "rejected 2 DW-1206"),
            (400, "0x80044331", Some(999), "rejected 997 DW-1201"),
            (403, "", Some(2), "rejected 0 DW-3001"),
            (429, "0x80072322", Some(2), "wait 7s DW-2001"),
            (503, "", Some(0), "wait 7s DW-2002"),
            (500, "0x80044150", Some(5), "wait 7s DW-2002"),
            (400, "", None, "rejected all DW-1201"),
            (412, DUPLICATE, None, "unplaced DW-1203"),
            (412, VERSION, None, "unplaced DW-1204"),
            (413, "", None, "rejected all DW-3006"),
        ] {
            let shown = match refusal(SystemKind::Dataverse, &refused(status, code, position)) {
                Refusal::Settled(outcome) => shown(&outcome),
                Refusal::Unplaced(fault) => format!("unplaced {}", fault.code),
            };
            assert_eq!(shown, wanted, "{status} {code} {position:?}");
        }
    }

    #[test]
    fn a_request_that_got_no_answer_is_told_by_whether_it_was_sent() {
        let fault = |code| Fault::new(code, "x");
        let after = Some(Duration::from_secs(30));
        for (failure, wanted) in [
            (Failure::NotSent { fault: fault(Code::Throttled), retry_after: after }, "wait 30s DW-2001"),
            (Failure::not_sent(fault(Code::Unavailable)), "wait 1s DW-2002"),
            (Failure::not_sent(fault(Code::Unauthorized)), "rejected all DW-3001"),
            (Failure::Unknown(fault(Code::TimedOut)), "unknown DW-2003"),
            (Failure::Unknown(fault(Code::Unavailable)), "unknown DW-2002"),
        ] {
            assert_eq!(shown(&not_answered(failure)), wanted);
        }
    }

    #[test]
    fn a_fence_is_read_from_body_and_header() {
        let read = |body: &str, etag| fence_of("p", body.as_bytes(), etag).map(|fence| (fence.epoch, fence.version));
        for (body, etag, wanted) in [
            (r#"{"@odata.etag":"W/\"2\"","dualwright_epoch":3}"#, None, Some((3, "W/\"2\""))),
            (r#"{"Epoch":3}"#, Some("W/\"4\""), Some((3, "W/\"4\""))),
            (r#"{"Epoch":3}"#, None, None),
            ("", Some("W/\"4\""), None),
        ] {
            assert_eq!(read(body, etag), wanted.map(|(epoch, version)| (epoch, Arc::from(version))), "{body}");
        }
    }
}

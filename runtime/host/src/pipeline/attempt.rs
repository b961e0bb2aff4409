//! One attempt to carry a transaction or a batch to the other side.
//!
//! Everything between capture and settlement may be lost and repeated: writes are keyed and conditional, equal writes
//! are skipped, guests are pure. So an attempt holds no state of its own beyond its rows.

use std::time::{Duration, Instant};

use dualwright_core::{Class, Code, Fault, SystemKind, TransactionId};
use dualwright_sandbox::{CallContext, QueuedSession as Session};

use super::budget::Budget;
use super::captured::CapturedChange;
use super::link::{Lane, Link};
use super::row::{RowFate, RowWork};
use super::{guests, identify, table_map, target, write};

/// What is to be carried over.
#[derive(Debug, Clone)]
pub struct Work<'a> {
    pub transaction: TransactionId,
    pub source: SystemKind,
    /// All or nothing; otherwise a rejected row is set aside and the rest goes on.
    pub atomic: bool,
    pub changes: &'a [CapturedChange],
    /// 1 for the first attempt.
    pub attempt: u32,
    /// When the changes were captured, in microseconds since 1970: the `now` that guests see.
    pub captured_at: i64,
    /// Position among the changes of the link, so that an old change never overwrites a newer one; `None` where the
    /// row is what the source holds right now (initial sync).
    pub order: Option<i64>,
    /// Rows without a cross reference are probably not on the target, so they are created without a look first. A
    /// wrong guess costs a round trip and nothing else.
    pub assume_absent: bool,
    /// No row of the map was paired when the run that this belongs to began: cross references are not asked for, but for
    /// a row that turns out to be on the target.
    pub never_paired: bool,
    /// Only this map; otherwise every map of the changed table.
    pub only_map: Option<usize>,
    /// A new try of a failed record: what looks done is looked at again, since that is what the record doubts.
    pub again: bool,
    /// In thought only: what would be written, whatever the target holds and whatever was left before.
    pub dry: bool,
}

/// Nothing can be said of the rows now: the whole attempt is to be repeated.
#[derive(Debug, Clone)]
pub struct Hold {
    /// How long the target wants us to wait, when it says so.
    pub after: Option<Duration>,
    pub fault: Fault,
}

impl From<Fault> for Hold {
    fn from(fault: Fault) -> Self {
        Self { after: None, fault }
    }
}

#[derive(Debug)]
pub enum Verdict {
    /// Every row has its fate.
    Done,
    /// To be repeated with a new budget.
    Retry(Hold),
}

#[derive(Debug)]
pub struct Attempted {
    pub rows: Vec<RowWork>,
    pub verdict: Verdict,
}

/// Rows as they would be written.
#[derive(Debug)]
pub struct Prepared {
    /// Open ones have their values and their address; the others have a fate that needs no write.
    pub rows: Vec<RowWork>,
    /// Why nothing can be said now.
    pub hold: Option<Hold>,
}

/// The same path up to the write, without reading what the target holds: what compare and what-if questions need.
pub async fn prepare(link: &Link, work: &Work<'_>, budget: &Budget) -> Prepared {
    debug_assert!(work.dry, "a preparation writes nothing");
    let mut rows = identify::expand(link, work);
    let hold = ready(link, work, budget, &mut rows).await.err();
    Prepared { rows, hold }
}

async fn ready(link: &Link, work: &Work<'_>, budget: &Budget, rows: &mut Vec<RowWork>) -> Result<(), Hold> {
    identify::identify(link, work, rows, budget).await?;
    identify::recall(link, work, rows, budget).await?;
    let mut session = session(link, work, budget)?;
    carry(link, work, &mut session, rows, budget).await?;
    target::decide(link, work, rows, budget).await
}

/// An attempt up to the write, and nothing of it: what would be written to which rows, as they are now. Rows have the
/// fate that an attempt would give them, or are open and have their decision.
pub async fn rehearse(link: &Link, work: &Work<'_>, budget: &Budget) -> Prepared {
    let mut rows = identify::expand(link, work);
    let hold = match ready_to_write(link, work, budget, &mut rows).await {
        Ok(_) => None,
        Err(hold) => refused(&mut rows, hold),
    };
    if hold.is_none() {
        stands(work, &mut rows);
    }
    link.claims.give_back(&rows);
    Prepared { rows, hold }
}

/// What will be refused again is not worth a second attempt: whoever is still open shares the reason. What is worth
/// one is given back.
fn refused(rows: &mut [RowWork], hold: Hold) -> Option<Hold> {
    if !matches!(hold.fault.class(), Class::Rejected | Class::PluginFault) {
        return Some(hold);
    }
    for row in rows.iter_mut().filter(|row| row.is_open()) {
        row.fail(hold.fault.clone());
    }
    None
}

/// From what the source says to what the target is to hold, references apart.
async fn carry(
    link: &Link,
    work: &Work<'_>,
    session: &mut Session,
    rows: &mut Vec<RowWork>,
    budget: &Budget,
) -> Result<(), Hold> {
    if table_map::split(link, work, session, rows).await? {
        identify::identify(link, work, rows, budget).await?;
        identify::recall(link, work, rows, budget).await?;
    }
    target::project(link, work, rows);
    guests::transform(link, work, session, rows).await?;
    table_map::merge(link, work, session, rows, budget).await
}

/// Carries `work` over, as far as it goes inside `budget`.
pub async fn attempt(link: &Link, lane: &Lane, work: &Work<'_>, budget: &Budget) -> Attempted {
    let mut rows = identify::expand(link, work);
    let verdict = match drive(link, lane, work, budget, &mut rows).await {
        Ok(()) => Verdict::Done,
        Err(hold) => refused(&mut rows, hold).map_or(Verdict::Done, Verdict::Retry),
    };
    table_map::close(link, work, &mut rows);
    link.claims.give_back(&rows);
    Attempted { rows, verdict }
}

async fn drive(
    link: &Link,
    lane: &Lane,
    work: &Work<'_>,
    budget: &Budget,
    rows: &mut Vec<RowWork>,
) -> Result<(), Hold> {
    if let Some(mut session) = ready_to_write(link, work, budget, rows).await? {
        if !stands(work, rows) {
            return Ok(());
        }
        write::write(link, lane, work, rows, budget).await?;
        if !stands(work, rows) {
            return Ok(());
        }
        guests::post_validate(link, work, &mut session, rows, budget).await?;
    }
    stands(work, rows);
    if let Some(row) = rows.iter_mut().find(|row| row.is_open()) {
        return Err(Fault::new(Code::Internal, format!("record {} was left without a fate", row.readable_key())).into());
    }
    Ok(())
}

/// Everything before the write. `None` when there is nothing to write.
async fn ready_to_write(
    link: &Link,
    work: &Work<'_>,
    budget: &Budget,
    rows: &mut Vec<RowWork>,
) -> Result<Option<Session>, Hold> {
    identify::identify(link, work, rows, budget).await?;
    identify::recall(link, work, rows, budget).await?;
    if !rows.iter().any(RowWork::is_open) {
        return Ok(None);
    }
    let mut session = session(link, work, budget)?;
    carry(link, work, &mut session, rows, budget).await?;
    target::decide(link, work, rows, budget).await?;
    guests::pre_validate(link, work, &mut session, rows).await?;
    Ok(Some(session))
}

/// The transaction as guests see it, good until the write has to begin.
fn session(link: &Link, work: &Work<'_>, budget: &Budget) -> Result<Session, Hold> {
    budget.before_write(Instant::now())?;
    let context = CallContext {
        transaction: work.transaction,
        attempt: work.attempt,
        now_micros: work.captured_at,
        // The same for every repetition of this transaction, and different for every other one.
        seed: work.transaction.0.as_u64_pair().1,
        target: work.source.other(),
        deadline: budget.end_before_write(),
    };
    Ok(link.sandbox.queued_session(&link.scope.tenant, context))
}

/// Whether the work still stands. An atomic transaction falls with its first failed row: the others share its fate and
/// nothing is sent.
fn stands(work: &Work<'_>, rows: &mut [RowWork]) -> bool {
    if !work.atomic {
        return true;
    }
    let Some(guilty) = rows.iter().find(|row| matches!(row.fate, Some(RowFate::Failed(_)))) else { return true };
    let why = format!("record {} of the same transaction failed, so all of it was rolled back", guilty.readable_key());
    for row in rows.iter_mut().filter(|row| row.is_open()) {
        row.fail(Fault::new(Code::TransactionRolledBack, why.clone()));
    }
    false
}

//! The calls of one transaction of one tenant.
//!
//! An instance is made at the first call of an installation and lives until the session ends, so state that a guest
//! keeps is seen by the slices of one transaction and by nobody else. It is taken out before a call and put back only
//! after its answer was found valid: nothing that went wrong is ever entered again.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use dualwright_core::{Fault, Operation, SystemKind, TransactionId, Value};

use crate::batch::{About, Columns, Rows, slices};
use crate::bindings::{table_map_back, wit};
use crate::checked::answers::{Answerer, Mapped, MappedTable, Merged, Patch, RowIssue, Slice};
use crate::checked::{Invalid, printable};
use crate::clocks::Clocks;
use crate::fault::{CallFault, FaultKind, is_of_plugin};
use crate::guest::GuestState;
use crate::installation::{Functions, Installation, system};
use crate::limits::Limits;
use crate::plugin::ExtensionPoint;
use crate::sandbox::Sandbox;
use crate::tenant::Tenant;
use crate::timing::{CallFigures, Record};
use crate::warm::{Live, Shelf};
use crate::watch::Allowance;

/// A plugin that asks for more patience gets this much.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(3600);
const MESSAGE_BYTES_MAX: usize = 1024;

/// What every call of a session is told.
#[derive(Debug, Clone)]
pub struct CallContext {
    pub transaction: TransactionId,
    /// 1 for the first.
    pub attempt: u32,
    /// When the change was captured: microseconds since 1970-01-01T00:00:00Z.
    pub now_micros: i64,
    pub seed: u64,
    pub target: SystemKind,
    /// The end of the budget's part before the write.
    pub deadline: Instant,
}

/// What is known of a row besides its cells.
#[derive(Debug, Clone, Copy)]
pub struct RowInfo<'a> {
    pub operation: Operation,
    /// The target is known not to have the row.
    pub creating: bool,
    /// The legal entity; empty for a global row.
    pub company: &'a str,
}

/// Rows of one target table that take part in the way back.
#[derive(Debug, Clone, Copy)]
pub struct Part<'a> {
    /// Index in the installation's targets.
    pub table: usize,
    pub info: &'a [RowInfo<'a>],
    pub rows: &'a [&'a [Value]],
    /// The source row that each belongs to.
    pub source_rows: &'a [usize],
}

/// Calls installations for one transaction. Dropping it ends every instance and books the transaction.
pub struct Session {
    sandbox: Sandbox,
    tenant: Arc<Tenant>,
    context: CallContext,
    transaction: Arc<str>,
    /// Set when nobody waits for its calls any more.
    cancelled: Arc<AtomicBool>,
    live: HashMap<u64, Parked>,
    spent: Vec<Spent>,
    frames: Frames,
}

/// An instance between two calls of its transaction, and where it may go when that ends.
struct Parked {
    live: Live,
    shelf: Arc<Shelf>,
}

/// What one installation took in this session.
struct Spent {
    installation: u64,
    point: ExtensionPoint,
    record: Arc<Record>,
    label: Arc<str>,
    own: Duration,
    goal: Duration,
    /// Where the guest was when it went past its goal.
    slow_in: Option<String>,
}

/// Buffers that are filled for every call.
#[derive(Default)]
struct Frames {
    first: Columns,
    second: Columns,
    parts: Vec<Columns>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    Forth,
    Back,
}

impl Session {
    pub(crate) fn new(sandbox: Sandbox, tenant: Arc<Tenant>, context: CallContext) -> Self {
        Self {
            sandbox,
            tenant,
            transaction: context.transaction.to_string().into(),
            context,
            cancelled: Arc::default(),
            live: HashMap::new(),
            spent: Vec::new(),
            frames: Frames::default(),
        }
    }

    /// Whoever sets this ends the session's calls: nothing is entered any more, and what runs ends at the next tick.
    pub(crate) fn cancelled(&self) -> &Arc<AtomicBool> {
        &self.cancelled
    }

    /// The budget's part for the calls from now on: more than before once a reserve is free.
    pub fn set_deadline(&mut self, deadline: Instant) {
        self.context.deadline = deadline;
    }

    #[must_use]
    pub fn deadline(&self) -> Instant {
        self.context.deadline
    }

    /// The cells that a transform changes.
    pub fn transform(
        &mut self,
        installation: &Installation,
        info: &[RowInfo<'_>],
        rows: &[&[Value]],
    ) -> Result<Patch, CallFault> {
        self.patch(installation, Way::Forth, info, rows, &[])
    }

    /// The same, with the rows before the change for a plugin that asks for them
    /// ([`reads_before`](crate::Description::reads_before)).
    pub fn transform_changes(
        &mut self,
        installation: &Installation,
        info: &[RowInfo<'_>],
        rows: &[&[Value]],
        before: &[Option<&[Value]>],
    ) -> Result<Patch, CallFault> {
        self.patch(installation, Way::Forth, info, rows, before)
    }

    /// The cells that the way back of a transform changes.
    pub fn transform_back(
        &mut self,
        installation: &Installation,
        info: &[RowInfo<'_>],
        rows: &[&[Value]],
    ) -> Result<Patch, CallFault> {
        self.patch(installation, Way::Back, info, rows, &[])
    }

    fn patch(
        &mut self,
        installation: &Installation,
        way: Way,
        info: &[RowInfo<'_>],
        rows: &[&[Value]],
        before: &[Option<&[Value]>],
    ) -> Result<Patch, CallFault> {
        let before = if installation.plugin.description.reads_before { before } else { &[] };
        let grant = installation.source_grant();
        self.call(installation, rows.len(), |call, frames| {
            let mut patch = Patch::default();
            for slice in call.slices(info, &[&rows, &before])? {
                let start = slice.start;
                let pair = call.encode(frames, info, rows, before, slice)?;
                let answer = call.enter(|store, functions, context| {
                    pair.lend(|input, _| match (functions, way) {
                        (Functions::Transform(forth, _), Way::Forth) => Some(forth.call_apply(store, context, input)),
                        (Functions::Transform(_, Some(back)), Way::Back) => {
                            // Both ways answer with the same patch.
                            Some(back.call_apply(store, context, input))
                        }
                        _ => None,
                    })
                })?;
                let slice = Slice { start, rows: pair.rows };
                let answer = call.answered(answer)?;
                call.checked(|by| by.patch(answer, grant, slice, &mut patch))?;
            }
            Ok(patch)
        })
    }

    /// What a validator says before the write. `current` are the target's rows; empty where nothing was read.
    pub fn pre_validate(
        &mut self,
        installation: &Installation,
        info: &[RowInfo<'_>],
        current: &[Option<&[Value]>],
        proposed: &[&[Value]],
    ) -> Result<Vec<RowIssue>, CallFault> {
        self.validate(installation, info, proposed, current)
    }

    /// What a validator says after the write. `stored` are the target's rows read back.
    pub fn post_validate(
        &mut self,
        installation: &Installation,
        info: &[RowInfo<'_>],
        sent: &[&[Value]],
        stored: &[Option<&[Value]>],
    ) -> Result<Vec<RowIssue>, CallFault> {
        self.validate(installation, info, sent, stored)
    }

    fn validate(
        &mut self,
        installation: &Installation,
        info: &[RowInfo<'_>],
        rows: &[&[Value]],
        other: &[Option<&[Value]>],
    ) -> Result<Vec<RowIssue>, CallFault> {
        let columns = installation.spec.source.columns();
        self.call(installation, rows.len(), |call, frames| {
            let mut issues = Vec::new();
            for slice in call.slices(info, &[&rows, &other])? {
                let start = slice.start;
                let pair = call.encode(frames, info, rows, other, slice)?;
                let answer = call.enter(|store, functions, context| {
                    pair.lend_apart(|input, other| match functions {
                        Functions::Pre(guest) => Some(guest.call_check(store, context, input, other)),
                        Functions::Post(guest) => Some(guest.call_check(store, context, input, other)),
                        _ => None,
                    })
                })?;
                let slice = Slice { start, rows: pair.rows };
                let answer = call.answered(answer)?;
                call.checked(|by| by.issues(answer, columns, slice, &mut issues))?;
            }
            Ok(issues)
        })
    }

    /// The rows of the target tables.
    pub fn table_map(
        &mut self,
        installation: &Installation,
        info: &[RowInfo<'_>],
        rows: &[&[Value]],
    ) -> Result<Mapped, CallFault> {
        self.table_map_changes(installation, info, rows, &[])
    }

    /// The same, with the rows before the change for a plugin that asks for them.
    pub fn table_map_changes(
        &mut self,
        installation: &Installation,
        info: &[RowInfo<'_>],
        rows: &[&[Value]],
        before: &[Option<&[Value]>],
    ) -> Result<Mapped, CallFault> {
        let before = if installation.plugin.description.reads_before { before } else { &[] };
        let targets = installation.target_grants();
        self.call(installation, rows.len(), |call, frames| {
            let mut mapped = Mapped::default();
            mapped.tables.resize_with(installation.spec.targets.len(), MappedTable::default);
            for slice in call.slices(info, &[&rows, &before])? {
                let start = slice.start;
                let pair = call.encode(frames, info, rows, before, slice)?;
                let answer = call.enter(|store, functions, context| {
                    pair.lend(|input, _| match functions {
                        Functions::TableMap(forth, _) => Some(forth.call_apply(store, context, input)),
                        _ => None,
                    })
                })?;
                let slice = Slice { start, rows: pair.rows };
                let answer = call.answered(answer)?;
                let source = installation.spec.source.columns();
                call.checked(|by| by.mapped(answer, source, &targets, slice, &mut mapped))?;
            }
            Ok(mapped)
        })
    }

    /// The source rows that belong to rows of the target tables. `current` are the source's rows as they are now, one
    /// for each row to be computed. Never sliced: rows that belong together must stay together.
    pub fn table_map_back(
        &mut self,
        installation: &Installation,
        parts: &[Part<'_>],
        current: &[Option<&[Value]>],
    ) -> Result<Merged, CallFault> {
        if current.is_empty() {
            return Ok(Merged::default());
        }
        let parts: Vec<Part<'_>> = parts.iter().filter(|part| !part.rows.is_empty()).copied().collect();
        let rows = parts.iter().map(|part| part.rows.len()).sum();
        self.call(installation, rows, |call, frames| call.merge(frames, &parts, current))
    }

    /// Guest time and its host calls that the installation took in this session.
    #[must_use]
    pub fn spent(&self, installation: &Installation) -> Duration {
        let of = |spent: &&Spent| spent.installation == installation.id;
        self.spent.iter().find(of).map_or(Duration::ZERO, |spent| spent.own)
    }

    /// Runs the body with the installation's instance and books what it took.
    fn call<R>(
        &mut self,
        installation: &Installation,
        rows: usize,
        body: impl FnOnce(&mut Call<'_>, &mut Frames) -> Result<R, CallFault>,
    ) -> Result<R, CallFault> {
        let clocks = &self.sandbox.shared().clocks;
        let allowance = allowance(clocks, &self.context, &self.cancelled, installation)?;
        let (point, record) = (installation.spec.point, &installation.plugin.record);
        let live = match self.live.remove(&installation.id) {
            Some(parked) => parked.live,
            None => match installation.shelf.take(clocks.now()) {
                Some(mut live) => {
                    live.guest.begin_transaction(self.transaction.clone(), &self.cancelled);
                    live
                }
                None => {
                    let (transaction, cancelled) = (self.transaction.clone(), &self.cancelled);
                    let made = installation.instantiate(&self.sandbox, &self.tenant, cancelled, transaction, allowance);
                    match made {
                        Ok(mut live) => {
                            let setup = live.guest.store.data_mut().stopwatch.take();
                            add_spent(&mut self.spent, installation, setup.own(), live.guest.take_slow_in());
                            live
                        }
                        Err(fault) => {
                            let is_fault = is_of_plugin(&fault);
                            record.call(point, &CallFigures { rows, is_fault, ..CallFigures::default() });
                            return Err(fault);
                        }
                    }
                }
            },
        };
        let goal_left = installation.limits.goal.saturating_sub(self.spent(installation));
        let mut call = Call {
            installation,
            clocks,
            context: &self.context,
            cancelled: &self.cancelled,
            transaction: &self.transaction,
            goal_left,
            live,
            sound: true,
        };
        // The time in which the instance waited is nobody's.
        call.live.guest.store.data_mut().stopwatch.restart();
        let result = body(&mut call, &mut self.frames);
        let Call { mut live, sound, .. } = call;
        let fuel = live.guest.take_fuel();
        let slow_in = live.guest.take_slow_in();
        let state = live.guest.store.data_mut();
        let spans = state.stopwatch.take();
        let memory_bytes = state.limiter.memory_bytes();
        let is_fault = matches!(&result, Err(fault) if is_of_plugin(fault));
        record.call(point, &CallFigures { rows, spans, memory_bytes, is_fault, fuel });
        if sound {
            self.live.insert(installation.id, Parked { live, shelf: installation.shelf.clone() });
        }
        add_spent(&mut self.spent, installation, spans.own(), slow_in);
        result
    }
}

fn add_spent(spent: &mut Vec<Spent>, installation: &Installation, own: Duration, slow_in: Option<String>) {
    match spent.iter_mut().find(|spent| spent.installation == installation.id) {
        Some(spent) => {
            spent.own += own;
            spent.slow_in = spent.slow_in.take().or(slow_in);
        }
        None => spent.push(Spent {
            installation: installation.id,
            point: installation.spec.point,
            record: installation.plugin.record.clone(),
            label: installation.label.clone(),
            own,
            goal: installation.limits.goal,
            slow_in,
        }),
    }
}

impl Drop for Session {
    /// Judges each plugin by what all its installations took together, booked where it took most.
    fn drop(&mut self) {
        let now = self.sandbox.shared().clocks.now();
        let cancelled = self.cancelled.load(Ordering::Relaxed);
        for (_, Parked { live, shelf }) in self.live.drain().filter(|_| !cancelled) {
            shelf.put(live, now);
        }
        let budget = self.sandbox.settings().budget;
        let mut spent = std::mem::take(&mut self.spent);
        spent.sort_by_key(|spent| std::cmp::Reverse(spent.own));
        while let Some(first) = spent.first() {
            let (record, point, label, goal) = (first.record.clone(), first.point, first.label.clone(), first.goal);
            let slow_in =
                first.slow_in.as_ref().map_or_else(String::new, |frames| format!("; at the goal it was in {frames}"));
            let own: Duration = spent.iter().filter(|s| Arc::ptr_eq(&s.record, &record)).map(|s| s.own).sum();
            spent.retain(|spent| !Arc::ptr_eq(&spent.record, &record));
            let share = own.as_secs_f64() / budget.as_secs_f64().max(f64::MIN_POSITIVE);
            record.transaction(point, share.min(1.0), goal < own);
            if goal < own {
                let (transaction, millis, goal) = (&*self.transaction, own.as_millis(), goal.as_millis());
                tracing::warn!(
                    transaction,
                    "{label} is slow: {millis} ms in one transaction, the goal is {goal} ms{slow_in}"
                );
            }
        }
    }
}

/// How long the guest may run now, if it is worth beginning.
fn allowance(
    clocks: &Clocks,
    context: &CallContext,
    cancelled: &AtomicBool,
    installation: &Installation,
) -> Result<Allowance, CallFault> {
    let Limits { hard_limit, wall_limit, call_min, .. } = installation.limits;
    let label = &installation.label;
    if cancelled.load(Ordering::Relaxed) {
        return Err(FaultKind::Cancelled.fault(format!("{label} was not called: nobody waits for it any more")));
    }
    let left = context.deadline.saturating_duration_since(clocks.now());
    if left < call_min {
        let (left, least) = (left.as_millis(), call_min.as_millis());
        let message = format!(
            "{label} was not called: the transaction's budget is spent, with {left} ms left of the {least} ms that a \
             call needs at least"
        );
        return Err(FaultKind::Budget.fault(message));
    }
    Ok(Allowance { own: hard_limit, wall: wall_limit, budget: left })
}

/// One call of the host: an instance taken out of its session.
struct Call<'a> {
    installation: &'a Installation,
    clocks: &'a Clocks,
    context: &'a CallContext,
    cancelled: &'a AtomicBool,
    transaction: &'a str,
    goal_left: Duration,
    live: Live,
    /// The instance may be used again.
    sound: bool,
}

/// One or two sets of columns over the same rows, encoded.
struct Pair<'a> {
    rows: usize,
    about: About<'a>,
    first: &'a Columns,
    second: &'a Columns,
}

impl Pair<'_> {
    /// The second set as the batch's before image.
    fn lend<R>(&self, use_it: impl FnOnce(wit::Batch<'_>, ()) -> R) -> R {
        let (companies, first, second) = (self.about.companies(), self.first.lend(), self.second.lend());
        use_it(self.about.lend(self.rows, &companies, &first, &second), ())
    }

    /// The second set beside the batch.
    fn lend_apart<R>(&self, use_it: impl FnOnce(wit::Batch<'_>, &[wit::ColumnParam<'_>]) -> R) -> R {
        let (companies, first, second) = (self.about.companies(), self.first.lend(), self.second.lend());
        use_it(self.about.lend(self.rows, &companies, &first, &[]), &second)
    }
}

impl Call<'_> {
    /// Cuts the rows of the parts, which are as many as there are infos, or none.
    fn slices(&self, info: &[RowInfo<'_>], parts: &[&dyn Rows]) -> Result<Vec<std::ops::Range<usize>>, CallFault> {
        if parts[0].len() != info.len() || parts[1..].iter().any(|part| part.len() != 0 && part.len() != info.len()) {
            let message = format!("{} was to be called with sets of different length", self.installation.label);
            return Err(FaultKind::Internal.fault(message));
        }
        let slice_bytes_max = self.installation.limits.slice_bytes_max;
        Ok(slices(self.installation.spec.source.columns(), parts, info.len(), slice_bytes_max))
    }

    fn encode<'b>(
        &self,
        frames: &'b mut Frames,
        info: &[RowInfo<'b>],
        rows: &[&[Value]],
        other: &[Option<&[Value]>],
        slice: std::ops::Range<usize>,
    ) -> Result<Pair<'b>, CallFault> {
        let columns = self.installation.spec.source.columns();
        let at = |fault: Fault| self.not_sent(fault, slice.start);
        frames.first.encode(columns, &&rows[slice.clone()]).map_err(at)?;
        if other.is_empty() {
            frames.second.clear();
        } else {
            frames.second.encode(columns, &&other[slice.clone()]).map_err(at)?;
        }
        self.check_size(frames.first.bytes() + frames.second.bytes(), slice.start)?;
        Ok(Pair { rows: slice.len(), about: About::encode(&info[slice]), first: &frames.first, second: &frames.second })
    }

    /// A slice is larger than wanted only when it is a single row.
    fn check_size(&self, bytes: usize, row: usize) -> Result<(), CallFault> {
        let limits = &self.installation.limits;
        if bytes <= limits.slice_bytes_max.max(limits.transfer_in_bytes_max) {
            return Ok(());
        }
        let message = format!("row {row} has {bytes} bytes, more than {} takes at once", self.installation.label);
        Err(FaultKind::NotSent.fault(message))
    }

    fn not_sent(&self, mut fault: Fault, slice_start: usize) -> CallFault {
        fault.message = match slice_start {
            0 => format!("{} cannot be called: {}", self.installation.label, fault.message),
            start => {
                format!("{} cannot be called: after row {start}, {}", self.installation.label, fault.message)
            }
        };
        CallFault::not_sent(fault)
    }

    /// Enters the guest. `None` from the closure means that the installation is for something else.
    fn enter<R>(
        &mut self,
        call: impl FnOnce(&mut wasmtime::Store<GuestState>, &Functions, wit::Context<'_>) -> Option<wasmtime::Result<R>>,
    ) -> Result<R, CallFault> {
        let allowance = allowance(self.clocks, self.context, self.cancelled, self.installation)?;
        let context = wit::Context {
            transaction: self.transaction,
            attempt: self.context.attempt,
            now: self.context.now_micros,
            seed: self.context.seed,
            target: system(self.context.target),
            budget_ms: u32::try_from(allowance.most().as_millis()).unwrap_or(u32::MAX),
            extensions: &[],
        };
        self.sound = false;
        let Live { guest, functions, .. } = &mut self.live;
        let answer = guest.enter(allowance, self.goal_left, |store| call(store, functions, context).transpose())?;
        answer.ok_or_else(|| {
            FaultKind::Internal.fault(format!("{} has no function for this call", self.installation.label))
        })
    }

    /// A reported failure leaves the instance as it is.
    fn answered<R>(&mut self, answer: Result<R, wit::CallError>) -> Result<R, CallFault> {
        let error = match answer {
            Ok(answer) => return Ok(answer),
            Err(error) => error,
        };
        self.sound = true;
        let plugin = &self.installation.label;
        let failed = |kind: FaultKind, message: String| kind.fault(format!("{plugin} failed: {message}"));
        Err(match error {
            wit::CallError::RetryAfter(millis) => CallFault {
                retry_after: Some(Duration::from_millis(millis.into()).min(RETRY_AFTER_MAX)),
                ..failed(FaultKind::RetryAfter, format!("it asks to be called again after {millis} ms"))
            },
            wit::CallError::Failed(message) => failed(FaultKind::Failed, printable(&message, MESSAGE_BYTES_MAX)),
            wit::CallError::Other((name, message)) => {
                let fault = failed(FaultKind::Failed, printable(&message, MESSAGE_BYTES_MAX));
                CallFault { fault: fault.fault.foreign(printable(&name, 100)), ..fault }
            }
        })
    }

    /// Takes an answer through its check. Only a valid one leaves the instance usable.
    fn checked<R>(&mut self, check: impl FnOnce(Answerer<'_>) -> Result<R, Invalid>) -> Result<R, CallFault> {
        let plugin = &self.installation.plugin;
        let label = &self.installation.label;
        let answerer = Answerer { label, plugin: &plugin.name, description: &plugin.description };
        match check(answerer) {
            Ok(checked) => {
                self.sound = true;
                Ok(checked)
            }
            Err(invalid) => {
                self.sound = false;
                Err(CallFault { kind: FaultKind::Answer, fault: invalid.fault(label), retry_after: None })
            }
        }
    }

    fn merge(
        &mut self,
        frames: &mut Frames,
        parts: &[Part<'_>],
        current: &[Option<&[Value]>],
    ) -> Result<Merged, CallFault> {
        let rows = current.len();
        let internal = |what: &str| FaultKind::Internal.fault(format!("{}: {what}", self.installation.label));
        if frames.parts.len() < parts.len() {
            frames.parts.resize_with(parts.len(), Columns::default);
        }
        let mut bytes = 0;
        let mut about = Vec::with_capacity(parts.len());
        let mut source_rows = Vec::with_capacity(parts.len());
        for (part, frame) in parts.iter().zip(&mut frames.parts) {
            let Some(grant) = self.installation.target_grant(part.table) else {
                return Err(internal("a part of an unknown table"));
            };
            let fits = |set: usize| set == part.rows.len();
            if !fits(part.info.len())
                || !fits(part.source_rows.len())
                || part.source_rows.iter().any(|&row| rows <= row)
            {
                return Err(internal("a part whose sets do not fit together"));
            }
            frame.encode(grant.columns, &part.rows).map_err(|fault| self.not_sent(fault, 0))?;
            bytes += frame.bytes();
            about.push(About::encode(part.info));
            source_rows.push(part.source_rows.iter().flat_map(|&row| (row as u32).to_le_bytes()).collect::<Vec<u8>>());
        }
        let columns = self.installation.spec.source.columns();
        frames.first.encode(columns, &current).map_err(|fault| self.not_sent(fault, 0))?;
        self.check_size(bytes + frames.first.bytes(), 0)?;
        let companies: Vec<_> = about.iter().map(About::companies).collect();
        let lent: Vec<_> = frames.parts[..parts.len()].iter().map(Columns::lend).collect();
        let given: Vec<_> = (0..parts.len())
            .map(|part| table_map_back::Part {
                // An installation has at most `TARGETS_MAX` targets.
                table: parts[part].table as u16,
                rows: about[part].lend(parts[part].rows.len(), &companies[part], &lent[part], &[]),
                source_rows: &source_rows[part],
            })
            .collect();
        let current = frames.first.lend();
        let answer = self.enter(|store, functions, context| match functions {
            Functions::TableMap(_, Some(back)) => Some(back.call_apply(store, context, rows as u32, &given, &current)),
            _ => None,
        })?;
        let answer = self.answered(answer)?;
        let grant = self.installation.source_grant();
        self.checked(|by| by.merged(answer, grant, rows))
    }
}

#[cfg(test)]
mod tests {
    /// The host moves sessions to threads that may block, and shares the rest.
    #[test]
    fn sessions_move_and_sandboxes_are_shared() {
        fn moves<T: Send>() {}
        fn shared<T: Send + Sync>() {}
        moves::<super::Session>();
        shared::<crate::Sandbox>();
        shared::<crate::Installation>();
    }
}

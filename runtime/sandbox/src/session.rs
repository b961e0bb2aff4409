//! The calls of one transaction of one tenant.
//!
//! An instance is made at the first call of an installation and lives until the session ends, so state that a guest
//! keeps is seen by the slices of one transaction and by nobody else. It is taken out before a call and put back only
//! after its answer was found valid: nothing that went wrong is ever entered again.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use dualwright_core::{Class, Column, Fault, Operation, SystemKind, TransactionId, Value, error::Code};

use crate::batch::{About, Columns, Rows, slices};
use crate::bindings::{table_map, table_map_back, transform, wit};
use crate::checked::{self, Cell, Grant, Invalid, ROWS_PER_SOURCE_ROW_MAX, printable};
use crate::description::Severity;
use crate::guest::{Allowance, Guest, GuestState};
use crate::installation::{Functions, Installation, system};
use crate::limits::TenantMemory;
use crate::plugin::ExtensionPoint;
use crate::sandbox::{Sandbox, SandboxSettings};
use crate::timing::{Record, Spans};

/// With less than this a call is not begun: it would be ended before it could do anything.
const BUDGET_MIN: Duration = Duration::from_millis(10);
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

/// What a plugin has to say about one row.
#[derive(Debug, Clone, PartialEq)]
pub struct RowIssue {
    pub row: usize,
    /// Index in the installation's source.
    pub column: Option<usize>,
    pub severity: Severity,
    /// The plugin's own code is the foreign code; the message holds its arguments.
    pub fault: Fault,
}

/// The call as a whole came to nothing.
#[derive(Debug, Clone, PartialEq)]
pub struct CallFault {
    pub fault: Fault,
    /// The plugin asks for the same rows again after that time.
    pub retry_after: Option<Duration>,
}

impl From<Fault> for CallFault {
    fn from(fault: Fault) -> Self {
        Self { fault, retry_after: None }
    }
}

/// The answer of a transform.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Patch {
    /// Row, column and value of each cell that changes.
    pub cells: Vec<(usize, usize, Value)>,
    pub issues: Vec<RowIssue>,
}

/// The answer of a table map.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Mapped {
    /// One for each target of the installation, in its order.
    pub tables: Vec<MappedTable>,
    pub issues: Vec<RowIssue>,
}

#[derive(Debug, Clone, Default, PartialEq)]
pub struct MappedTable {
    pub rows: Vec<MappedRow>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct MappedRow {
    /// The source row it comes from.
    pub source: usize,
    pub operation: Operation,
    /// In the order of the target's schema; absent where the column is not written.
    pub values: Vec<Value>,
    pub references: Vec<MappedReference>,
}

/// A lookup to a row of the same answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MappedReference {
    /// The lookup column, an index in the schema of its own table.
    pub column: usize,
    /// The table that is referred to, an index in the installation's targets.
    pub table: usize,
    /// The row in that table of the answer.
    pub row: usize,
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

/// The answer of a table map's way back.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Merged {
    /// One per source row.
    pub rows: Vec<MergedRow>,
    pub issues: Vec<RowIssue>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct MergedRow {
    /// `None` where there is nothing to write.
    pub operation: Option<Operation>,
    /// In the order of the source's schema; absent where the column is not written.
    pub values: Vec<Value>,
}

/// Calls installations for one transaction. Dropping it ends every instance and books the transaction.
pub struct Session {
    sandbox: Sandbox,
    tenant: Arc<TenantMemory>,
    context: CallContext,
    transaction: Arc<str>,
    live: HashMap<u64, (Guest, Functions)>,
    spent: Vec<Spent>,
    frames: Frames,
}

/// What one installation took in this session.
struct Spent {
    installation: u64,
    point: ExtensionPoint,
    record: Arc<Record>,
    label: Arc<str>,
    own: Duration,
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
    pub(crate) fn new(sandbox: Sandbox, tenant: Arc<TenantMemory>, context: CallContext) -> Self {
        Self {
            sandbox,
            tenant,
            transaction: context.transaction.to_string().into(),
            context,
            live: HashMap::new(),
            spent: Vec::new(),
            frames: Frames::default(),
        }
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
                call.take_patch(answer, grant, pair.rows, start, &mut patch)?;
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
                let answer = call.answered(answer)?;
                call.take_issues(answer, columns, pair.rows, start, &mut issues)?;
                call.sound = true;
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
                call.take_mapped(answer, pair.rows, start, &mut mapped)?;
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
        let settings = &self.sandbox.shared().settings;
        let allowance = allowance(settings, &self.context, installation)?;
        let (point, record) = (installation.spec.point, &installation.plugin.record);
        let (guest, functions) = match self.live.remove(&installation.id) {
            Some(live) => live,
            None => {
                let made = installation.instantiate(&self.sandbox, &self.tenant, self.transaction.clone(), allowance);
                match made {
                    Ok(mut live) => {
                        let setup = live.0.store.data_mut().stopwatch.take();
                        add_spent(&mut self.spent, installation, setup.own());
                        live
                    }
                    Err(fault) => {
                        record.call(point, rows, Spans::default(), 0, fault.class() == Class::PluginFault);
                        return Err(fault.into());
                    }
                }
            }
        };
        let mut call = Call {
            installation,
            context: &self.context,
            transaction: &self.transaction,
            settings,
            guest,
            functions,
            sound: true,
        };
        // The time in which the instance waited is nobody's.
        call.guest.store.data_mut().stopwatch.restart();
        let result = body(&mut call, &mut self.frames);
        let state = call.guest.store.data_mut();
        let spans = state.stopwatch.take();
        let faulty = matches!(&result, Err(fault) if fault.fault.class() == Class::PluginFault);
        record.call(point, rows, spans, state.limits.memory_bytes(), faulty);
        let Call { guest, functions, sound, .. } = call;
        if sound {
            self.live.insert(installation.id, (guest, functions));
        }
        add_spent(&mut self.spent, installation, spans.own());
        result
    }
}

fn add_spent(spent: &mut Vec<Spent>, installation: &Installation, own: Duration) {
    match spent.iter_mut().find(|spent| spent.installation == installation.id) {
        Some(spent) => spent.own += own,
        None => spent.push(Spent {
            installation: installation.id,
            point: installation.spec.point,
            record: installation.plugin.record.clone(),
            label: installation.label.clone(),
            own,
        }),
    }
}

impl Drop for Session {
    /// Judges each plugin by what all its installations took together, booked where it took most.
    fn drop(&mut self) {
        self.live.clear();
        let SandboxSettings { goal, budget, .. } = self.sandbox.shared().settings;
        let mut spent = std::mem::take(&mut self.spent);
        spent.sort_by_key(|spent| std::cmp::Reverse(spent.own));
        while let Some(first) = spent.first() {
            let (record, point, label) = (first.record.clone(), first.point, first.label.clone());
            let own: Duration = spent.iter().filter(|s| Arc::ptr_eq(&s.record, &record)).map(|s| s.own).sum();
            spent.retain(|spent| !Arc::ptr_eq(&spent.record, &record));
            let share = own.as_secs_f64() / budget.as_secs_f64().max(f64::MIN_POSITIVE);
            record.transaction(point, share.min(1.0), goal < own);
            if goal < own {
                let (transaction, millis, goal) = (&*self.transaction, own.as_millis(), goal.as_millis());
                tracing::warn!(transaction, "{label} is slow: {millis} ms in one transaction, the goal is {goal} ms");
            }
        }
    }
}

/// How long the guest may run now, if it is worth beginning.
fn allowance(
    settings: &SandboxSettings,
    context: &CallContext,
    installation: &Installation,
) -> Result<Allowance, CallFault> {
    let left = context.deadline.saturating_duration_since(Instant::now());
    if left < BUDGET_MIN {
        let message = format!("{} was not called: the transaction's budget is spent", installation.label);
        return Err(Fault::new(Code::BudgetSpent, message).into());
    }
    Ok(Allowance { time: left.min(settings.hard_limit), from_budget: left < settings.hard_limit })
}

/// One call of the host: an instance taken out of its session.
struct Call<'a> {
    installation: &'a Installation,
    context: &'a CallContext,
    transaction: &'a str,
    settings: &'a SandboxSettings,
    guest: Guest,
    functions: Functions,
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
            return Err(Fault::new(Code::Internal, message).into());
        }
        Ok(slices(self.installation.spec.source.columns(), parts, info.len(), self.settings.slice_bytes_max))
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
        if bytes <= self.settings.slice_bytes_max.max(self.settings.transfer_bytes_max) {
            return Ok(());
        }
        let message = format!("row {row} has {bytes} bytes, more than {} takes at once", self.installation.label);
        Err(Fault::new(Code::TooLarge, message).into())
    }

    fn not_sent(&self, mut fault: Fault, slice_start: usize) -> CallFault {
        fault.message = match slice_start {
            0 => format!("{} cannot be called: {}", self.installation.label, fault.message),
            start => {
                format!("{} cannot be called: after row {start}, {}", self.installation.label, fault.message)
            }
        };
        fault.into()
    }

    /// Enters the guest. `None` from the closure means that the installation is for something else.
    fn enter<R>(
        &mut self,
        call: impl FnOnce(&mut wasmtime::Store<GuestState>, &Functions, wit::Context<'_>) -> Option<wasmtime::Result<R>>,
    ) -> Result<R, CallFault> {
        let allowance = allowance(self.settings, self.context, self.installation)?;
        let context = wit::Context {
            transaction: self.transaction,
            attempt: self.context.attempt,
            now: self.context.now_micros,
            seed: self.context.seed,
            target: system(self.context.target),
            budget_ms: u32::try_from(allowance.time.as_millis()).unwrap_or(u32::MAX),
            extensions: &[],
        };
        self.sound = false;
        let functions = &self.functions;
        let answer = self.guest.enter(allowance, |store| call(store, functions, context).transpose())?;
        answer.ok_or_else(|| {
            let message = format!("{} has no function for this call", self.installation.label);
            Fault::new(Code::Internal, message).into()
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
        let failed = |message: String| Fault::new(Code::PluginFailed, format!("{plugin} failed: {message}"));
        Err(match error {
            wit::CallError::RetryAfter(millis) => CallFault {
                fault: failed(format!("it asks to be called again after {millis} ms")),
                retry_after: Some(Duration::from_millis(millis.into()).min(RETRY_AFTER_MAX)),
            },
            wit::CallError::Failed(message) => failed(printable(&message, MESSAGE_BYTES_MAX)).into(),
            wit::CallError::Other((name, message)) => {
                failed(printable(&message, MESSAGE_BYTES_MAX)).foreign(printable(&name, 100)).into()
            }
        })
    }

    fn invalid(&self, invalid: Invalid) -> CallFault {
        invalid.fault(&self.installation.label).into()
    }

    fn take_patch(
        &mut self,
        answer: Result<transform::Patch, wit::CallError>,
        grant: Grant<'_>,
        rows: usize,
        start: usize,
        patch: &mut Patch,
    ) -> Result<(), CallFault> {
        let answer = self.answered(answer)?;
        let columns = checked::columns(&answer.columns, grant, rows).map_err(|invalid| self.invalid(invalid))?;
        patch.cells.reserve(columns.len() * rows);
        for column in &columns {
            for row in 0..rows {
                match column.cell(row).map_err(|invalid| self.invalid(invalid))? {
                    Cell::Absent => {}
                    Cell::Set(value) => patch.cells.push((start + row, column.index, value)),
                    Cell::TooLong(characters) => patch.issues.push(RowIssue {
                        column: Some(column.index),
                        ..self.too_long(column.column(), characters, start + row)
                    }),
                }
            }
        }
        self.take_issues(answer.issues, grant.columns, rows, start, &mut patch.issues)?;
        self.sound = true;
        Ok(())
    }

    fn take_issues(
        &self,
        given: Vec<wit::Issue>,
        columns: &[Column],
        rows: usize,
        start: usize,
        issues: &mut Vec<RowIssue>,
    ) -> Result<(), CallFault> {
        checked::issues(&given, columns, rows).map_err(|invalid| self.invalid(invalid))?;
        let plugin = &self.installation.plugin;
        issues.extend(given.into_iter().map(|issue| {
            let message = plugin.description.issue_message(&issue.code, &issue.args);
            let fault = Fault::new(Code::PluginRejected, format!("{}: {message}", plugin.name)).foreign(issue.code);
            let column = issue.column.map(usize::from);
            RowIssue {
                row: start + issue.row as usize,
                column,
                severity: issue.severity.into(),
                fault: match column {
                    Some(column) => fault.column(&columns[column].name),
                    None => fault,
                },
            }
        }));
        Ok(())
    }

    fn too_long(&self, column: &Column, characters: usize, row: usize) -> RowIssue {
        let message = format!(
            "{} gave {characters} characters for a column of {}",
            self.installation.label,
            column.length_max.unwrap_or_default()
        );
        RowIssue {
            row,
            column: None,
            severity: Severity::Error,
            fault: Fault::new(Code::TextTooLong, message).column(&column.name),
        }
    }

    fn take_mapped(
        &mut self,
        answer: Result<table_map::Mapped, wit::CallError>,
        rows: usize,
        start: usize,
        mapped: &mut Mapped,
    ) -> Result<(), CallFault> {
        let answer = self.answered(answer)?;
        let targets = self.installation.spec.targets.len();
        let rows_of = |table: usize| {
            answer.tables.iter().find(|given| usize::from(given.table) == table).map_or(0, |given| given.rows as usize)
        };
        // References count within the slice; earlier slices stand before them.
        let before: Vec<usize> = mapped.tables.iter().map(|table| table.rows.len()).collect();
        let mut seen = HashSet::new();
        for given in &answer.tables {
            let table = usize::from(given.table);
            let Some(grant) = self.installation.target_grant(table) else {
                return Err(self.invalid(Invalid::new(format!("target table {table} of {targets}"))));
            };
            if !seen.insert(table) {
                return Err(self.invalid(Invalid::new(format!("target table {table} is there twice"))));
            }
            let count = given.rows as usize;
            if ROWS_PER_SOURCE_ROW_MAX * rows < count {
                let what = format!("{count} rows for target table {table} from {rows} source rows");
                return Err(self.invalid(Invalid::new(what)));
            }
            let made = self.mapped_rows(given, grant, rows, start, &mut mapped.issues);
            let mut made = made.map_err(|invalid| self.invalid(invalid))?;
            check_references(given, grant, targets, &rows_of, &mut made, &before)
                .map_err(|invalid| self.invalid(invalid))?;
            mapped.tables[table].rows.extend(made);
        }
        let columns = self.installation.spec.source.columns();
        self.take_issues(answer.issues, columns, rows, start, &mut mapped.issues)?;
        self.sound = true;
        Ok(())
    }

    fn mapped_rows(
        &self,
        given: &table_map::TableRows,
        grant: Grant<'_>,
        source_rows: usize,
        start: usize,
        issues: &mut Vec<RowIssue>,
    ) -> Result<Vec<MappedRow>, Invalid> {
        let count = given.rows as usize;
        let sources = checked::indices(&given.source_rows, count, source_rows, "source row")?;
        let actions = checked::actions(&given.actions, count, 1, &[1, 2])?;
        let columns = checked::columns(&given.columns, grant, count)?;
        let mut made: Vec<MappedRow> = sources
            .into_iter()
            .zip(actions)
            .map(|(source, action)| MappedRow {
                source: start + source,
                operation: if action == 2 { Operation::Delete } else { Operation::Upsert },
                values: vec![Value::Absent; grant.columns.len()],
                references: Vec::new(),
            })
            .collect();
        for column in &columns {
            for (row, made) in made.iter_mut().enumerate() {
                match column.cell(row)? {
                    Cell::Absent => {}
                    Cell::Set(value) => made.values[column.index] = value,
                    Cell::TooLong(characters) => issues.push(self.too_long(column.column(), characters, made.source)),
                }
            }
        }
        Ok(made)
    }

    fn merge(
        &mut self,
        frames: &mut Frames,
        parts: &[Part<'_>],
        current: &[Option<&[Value]>],
    ) -> Result<Merged, CallFault> {
        let rows = current.len();
        let internal =
            |what: &str| CallFault::from(Fault::new(Code::Internal, format!("{}: {what}", self.installation.label)));
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
        let merged = self.merged(&answer, rows).map_err(|invalid| self.invalid(invalid))?;
        let mut merged = Merged { rows: merged.0, issues: merged.1 };
        self.take_issues(answer.issues, columns, rows, 0, &mut merged.issues)?;
        self.sound = true;
        Ok(merged)
    }

    fn merged(&self, answer: &table_map_back::Merged, rows: usize) -> Result<(Vec<MergedRow>, Vec<RowIssue>), Invalid> {
        let grant = self.installation.source_grant();
        let actions = checked::actions(&answer.actions, rows, 1, &[0, 1, 2])?;
        let columns = checked::columns(&answer.columns, grant, rows)?;
        let mut issues = Vec::new();
        let mut merged: Vec<MergedRow> = actions
            .into_iter()
            .map(|action| MergedRow {
                operation: match action {
                    0 => None,
                    2 => Some(Operation::Delete),
                    _ => Some(Operation::Upsert),
                },
                values: vec![Value::Absent; grant.columns.len()],
            })
            .collect();
        for column in &columns {
            for (row, merged) in merged.iter_mut().enumerate() {
                match column.cell(row)? {
                    Cell::Absent => {}
                    Cell::Set(value) => merged.values[column.index] = value,
                    Cell::TooLong(characters) => issues.push(RowIssue {
                        column: Some(column.index),
                        ..self.too_long(column.column(), characters, row)
                    }),
                }
            }
        }
        Ok((merged, issues))
    }
}

/// References go from an unwritten lookup column to a row of the same answer, at most one per cell.
fn check_references(
    given: &table_map::TableRows,
    grant: Grant<'_>,
    targets: usize,
    rows_of: &dyn Fn(usize) -> usize,
    made: &mut [MappedRow],
    before: &[usize],
) -> Result<(), Invalid> {
    for reference in &given.references {
        let (row, column) = (reference.row as usize, usize::from(reference.column));
        let (table, target_row) = (usize::from(reference.target_table), reference.target_row as usize);
        let Some(made) = made.get_mut(row) else {
            return Err(Invalid::new(format!("a reference in row {row} of {}", given.rows)));
        };
        let lookup = match grant.columns.get(column) {
            Some(lookup) if lookup.kind == dualwright_core::Kind::Lookup && grant.writable[column] => lookup,
            _ => return Err(Invalid::new(format!("a reference in column {column}, which is no writable lookup"))),
        };
        let what = if !made.values[column].is_absent() {
            "a reference beside a cell"
        } else if made.references.iter().any(|other| other.column == column) {
            "two references in one cell"
        } else if targets <= table || rows_of(table) <= target_row {
            "a reference to a row that is not there"
        } else {
            made.references.push(MappedReference { column, table, row: before[table] + target_row });
            continue;
        };
        return Err(Invalid { column: Some(lookup.name.clone()), what: format!("{what} in row {row}") });
    }
    Ok(())
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

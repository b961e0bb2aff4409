//! The plugins of a flow: called once per map and stage, and what their faults mean for the rows.
//!
//! Guests are synchronous and may use a core for up to their hard limit, so they run on the sandbox's own threads, in
//! the tenant's turns, and are awaited here. What a call is given it owns, because whoever awaits it may be gone first.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use dualwright_core::reconcile::Decision;
use dualwright_core::{Class, Code, Fault, Operation, SystemKind, Value};
use dualwright_sandbox::{CallFault, QueuedSession as Session, RowInfo, RowIssue, Session as Calls, Severity};

use super::attempt::{Hold, Work};
use super::budget::Budget;
use super::link::{Binding, Link};
use super::row::{RowFate, RowWork};
use crate::config::{FaultPolicy, Stage};
use crate::connect::Address;

/// Lets the transforms of every flow patch the fields.
pub(super) async fn transform(
    link: &Link,
    work: &Work<'_>,
    session: &mut Session,
    rows: &mut [RowWork],
) -> Result<(), Hold> {
    let target = work.source.other();
    for (map_index, binding) in bindings(link, work, Stage::Transform) {
        let own = open_rows(rows, map_index, |row| row.operation == Operation::Upsert && !row.fields.is_empty());
        if own.is_empty() {
            carry_on(link, map_index, target, &binding.cuts, rows);
            continue;
        }
        let inputs = Picked::new(own.iter().map(|&index| rows[index].fields.as_slice()), &binding.inputs);
        let given = Arc::new((inputs, Infos::of(rows, &own)));
        let (installation, back) = (Arc::clone(&binding.installation), binding.back);
        let answers = in_pieces(session, own.len(), || {
            let (installation, given) = (Arc::clone(&installation), Arc::clone(&given));
            move |calls: &mut Calls, piece: Piece| {
                let (inputs, infos) = &*given;
                let input = inputs.rows(piece.clone());
                let info = infos.lend(piece);
                match back {
                    false => calls.transform(&installation, &info, &input),
                    true => calls.transform_back(&installation, &info, &input),
                }
            }
        })
        .await;
        for (piece, answer) in answers {
            match answer {
                Ok(patch) => {
                    for (at, column, value) in patch.cells {
                        rows[own[piece.start + at]].fields[binding.inputs[column]] = value;
                    }
                    let names = |input: usize| field_name(link, map_index, target, binding.inputs[input]);
                    complain(rows, &own[piece], on_target(patch.issues, &names), false);
                }
                Err(fault) => faulted(rows, &own[piece], &binding.plugin, binding.on_fault, fault)?,
            }
        }
        carry_on(link, map_index, target, &binding.cuts, rows);
    }
    Ok(())
}

/// The map's own transforms behind a plugin, up to the next one or to the end.
fn carry_on(link: &Link, map: usize, target: SystemKind, cuts: &[(usize, usize)], rows: &mut [RowWork]) {
    let Some(flow) = link.maps[map].flow(target) else { return };
    for &(field, cut) in cuts {
        for row in rows.iter_mut().filter(|row| row.map == map && row.is_open() && !row.fields.is_empty()) {
            match flow.carry_on(field, cut, &row.fields[field]) {
                Ok(value) => row.fields[field] = value,
                // Its content does not matter.
                Err(_) if row.operation == Operation::Delete => row.fields[field] = Value::Absent,
                Err(fault) => row.fail(fault),
            }
        }
    }
}

/// Lets validators refuse rows before they are written.
pub(super) async fn pre_validate(
    link: &Link,
    work: &Work<'_>,
    session: &mut Session,
    rows: &mut [RowWork],
) -> Result<(), Hold> {
    let target = work.source.other();
    for (map_index, binding) in bindings(link, work, Stage::PreValidate) {
        // A placeholder is incomplete by its nature.
        let writes = |row: &RowWork| {
            matches!(row.decision, Some(Decision::Create | Decision::Update { .. })) && row.stands_in_for.is_none()
        };
        let own = open_rows(rows, map_index, writes);
        if own.is_empty() {
            continue;
        }
        let columns = target_columns(link, map_index, target, binding);
        let proposed = own.iter().map(|&index| pick(&rows[index].values, &binding.inputs)).collect::<Vec<_>>();
        let current = own
            .iter()
            .map(|&index| rows[index].current.as_ref().map(|current| pick(&current.values, &columns)))
            .collect::<Vec<_>>();
        let given = Arc::new((proposed, current, Infos::of(rows, &own)));
        let installation = Arc::clone(&binding.installation);
        let answers = in_pieces(session, own.len(), || {
            let (installation, given) = (Arc::clone(&installation), Arc::clone(&given));
            move |calls: &mut Calls, piece: Piece| {
                let (proposed, current, infos) = &*given;
                let proposed = proposed[piece.clone()].iter().map(Vec::as_slice).collect::<Vec<_>>();
                let current = current[piece.clone()].iter().map(Option::as_deref).collect::<Vec<_>>();
                let info = infos.lend(piece);
                calls.pre_validate(&installation, &info, &current, &proposed)
            }
        })
        .await;
        for (piece, answer) in answers {
            match answer {
                Ok(issues) => {
                    let names = |input: usize| column_name(link, map_index, target, columns[input]);
                    complain(rows, &own[piece], on_target(issues, &names), false);
                }
                Err(fault) => faulted(rows, &own[piece], &binding.plugin, binding.on_fault, fault)?,
            }
        }
    }
    Ok(())
}

/// Reads back what was written and lets validators judge it. The rows are written by now, so a complaint is kept with
/// the row and undoes nothing.
pub(super) async fn post_validate(
    link: &Link,
    work: &Work<'_>,
    session: &mut Session,
    rows: &mut [RowWork],
    budget: &Budget,
) -> Result<(), Hold> {
    let target = work.source.other();
    for (map_index, binding) in bindings(link, work, Stage::PostValidate) {
        let own = (0..rows.len())
            .filter(|&index| rows[index].map == map_index && rows[index].stands_in_for.is_none())
            // What an earlier attempt wrote was perhaps never judged, so a new try judges equal rows too.
            .filter(|&index| match rows[index].fate {
                Some(RowFate::Created | RowFate::Updated) => true,
                Some(RowFate::Equal) => work.again || work.attempt > 1,
                _ => false,
            })
            .filter(|&index| rows[index].operation == Operation::Upsert && !rows[index].values.is_empty())
            .filter(|&index| rows[index].address.is_some())
            .collect::<Vec<_>>();
        if own.is_empty() {
            continue;
        }
        let table = &link.maps[map_index].side(target).table;
        let addresses = own.iter().filter_map(|&index| rows[index].address.clone()).collect::<Vec<Address>>();
        let reads = addresses.iter().map(|address| (&**table, address)).collect::<Vec<_>>();
        // The rows are written: whatever goes wrong from here on is a complaint and holds nothing up.
        let stored = match budget.for_write(Instant::now()) {
            Ok(timeout) => link.system(target).read_rows(&reads, timeout).await,
            Err(fault) => Err(fault),
        };
        let stored = match stored {
            Ok(stored) => stored,
            Err(fault) => {
                for &index in &own {
                    let what = format!("what was written could not be read back: {}", fault.message);
                    rows[index].complaint = Some(Fault { message: what, ..fault.clone() });
                }
                continue;
            }
        };
        let columns = target_columns(link, map_index, target, binding);
        let sent = own.iter().map(|&index| pick(&rows[index].values, &binding.inputs)).collect::<Vec<_>>();
        let stored = stored
            .iter()
            .map(|stored| stored.as_ref().ok().and_then(Option::as_ref).map(|stored| pick(&stored.values, &columns)))
            .collect::<Vec<_>>();
        let given = Arc::new((sent, stored, Infos::of(rows, &own)));
        let installation = Arc::clone(&binding.installation);
        // What was kept in reserve for the write is theirs by now.
        session.set_deadline(budget.end());
        let answers = in_pieces(session, own.len(), || {
            let (installation, given) = (Arc::clone(&installation), Arc::clone(&given));
            move |calls: &mut Calls, piece: Piece| {
                let (sent, stored, infos) = &*given;
                let sent = sent[piece.clone()].iter().map(Vec::as_slice).collect::<Vec<_>>();
                let stored = stored[piece.clone()].iter().map(Option::as_deref).collect::<Vec<_>>();
                let info = infos.lend(piece);
                calls.post_validate(&installation, &info, &sent, &stored)
            }
        })
        .await;
        for (piece, answer) in answers {
            match answer {
                Ok(issues) => {
                    let names = |input: usize| column_name(link, map_index, target, columns[input]);
                    complain(rows, &own[piece], on_target(issues, &names), true);
                }
                // What is written stays written: a validator that broke is a complaint about each of its rows.
                Err(CallFault { fault, .. }) => {
                    for &index in &own[piece] {
                        rows[index].complaint = Some(fault.clone());
                    }
                }
            }
        }
    }
    Ok(())
}

fn bindings<'a>(link: &'a Link, work: &Work<'_>, stage: Stage) -> Vec<(usize, &'a Binding)> {
    link.maps
        .iter()
        .enumerate()
        .flat_map(|(index, map)| map.bindings(work.source.other()).iter().map(move |binding| (index, binding)))
        .filter(|(_, binding)| binding.stage == stage)
        .collect()
}

pub(super) fn open_rows(rows: &[RowWork], map: usize, also: impl Fn(&RowWork) -> bool) -> Vec<usize> {
    (0..rows.len()).filter(|&index| rows[index].map == map && rows[index].is_open() && also(&rows[index])).collect()
}

pub(super) fn pick(values: &[Value], positions: &[usize]) -> Vec<Value> {
    positions.iter().map(|&position| values[position].clone()).collect()
}

/// The columns of the target schema behind a validator's inputs.
fn target_columns(link: &Link, map: usize, target: SystemKind, binding: &Binding) -> Vec<usize> {
    let columns = link.maps[map].flow(target).map(|flow| flow.target_columns.as_slice()).unwrap_or_default();
    binding.inputs.iter().map(|&position| columns[position]).collect()
}

fn column_name(link: &Link, map: usize, target: SystemKind, column: usize) -> String {
    link.maps[map].side(target).table.schema.column(column).name.to_string()
}

/// The column that a field ends in; for a lookup the one of the referenced table.
fn field_name(link: &Link, map: usize, target: SystemKind, field: usize) -> String {
    link.maps[map].flow(target).map_or_else(String::new, |flow| flow.fields[field].column.name.to_string())
}

/// A guest knows a column as its binding calls it; a record names it as the target does, whoever found the fault.
fn on_target(mut issues: Vec<RowIssue>, names: &dyn Fn(usize) -> String) -> Vec<RowIssue> {
    for issue in &mut issues {
        if let Some(column) = issue.column {
            issue.fault.column = Some(names(column));
        }
    }
    issues
}

/// What guests are told of rows, apart from the rows themselves, which change while guests run. The companies are few,
/// and each is there once.
pub(super) struct Infos {
    /// Operation, whether it is being created, and the number of its company.
    rows: Vec<(Operation, bool, usize)>,
    companies: Vec<String>,
}

impl Infos {
    pub(super) fn of(rows: &[RowWork], own: &[usize]) -> Self {
        let mut companies: Vec<String> = Vec::new();
        let mut last = 0;
        let rows = own
            .iter()
            .map(|&index| {
                let row = &rows[index];
                let company = row.company.as_deref().unwrap_or_default();
                // Rows that follow each other mostly belong to one company.
                if companies.get(last).is_none_or(|known| known != company) {
                    last = companies.iter().position(|known| known == company).unwrap_or_else(|| {
                        companies.push(company.to_owned());
                        companies.len() - 1
                    });
                }
                let creating = row.base.as_ref().is_none_or(|base| base.deleted) && row.current.is_none();
                (row.operation, creating, last)
            })
            .collect();
        Self { rows, companies }
    }

    pub(super) fn lend(&self, piece: Piece) -> Vec<RowInfo<'_>> {
        let lend = |&(operation, creating, company): &(Operation, bool, usize)| {
            let company: &str = &self.companies[company];
            RowInfo { operation, creating, company }
        };
        self.rows[piece].iter().map(lend).collect()
    }
}

/// The cells of some columns, row after row in one list.
pub(super) struct Picked {
    cells: Vec<Value>,
    width: usize,
}

impl Picked {
    pub(super) fn new<'a>(rows: impl ExactSizeIterator<Item = &'a [Value]>, columns: &[usize]) -> Self {
        let width = columns.len();
        let mut cells = Vec::with_capacity(width * rows.len());
        for row in rows {
            cells.extend(columns.iter().map(|&column| row[column].clone()));
        }
        Self { cells, width }
    }

    pub(super) fn rows(&self, piece: Piece) -> Vec<&[Value]> {
        piece.map(|row| &self.cells[row * self.width..][..self.width]).collect()
    }
}

pub(super) type Piece = std::ops::Range<usize>;

/// Calls on all rows at once and, when the plugin breaks on them, on ever smaller pieces, so that the fault ends up
/// with the one record that causes it and the others go on. Each call waits for a turn of its own.
pub(super) async fn in_pieces<T, C>(
    session: &mut Session,
    rows: usize,
    mut call: impl FnMut() -> C,
) -> Vec<(Piece, Result<T, CallFault>)>
where
    T: Send + 'static,
    C: FnOnce(&mut Calls, Piece) -> Result<T, CallFault> + Send + 'static,
{
    // A guest that runs is ended by the sandbox itself, and its session stays; this is for calls that nobody ends.
    const GRACE: Duration = Duration::from_millis(250);
    let patience = (session.deadline() + GRACE).into();
    let mut pieces = Pieces::new(rows);
    while let Some(piece) = pieces.next() {
        let call = call();
        let asked = piece.clone();
        let turn = session.run(move |calls| call(calls, asked));
        let answer = match tokio::time::timeout_at(patience, turn).await {
            Ok(answer) => answer.and_then(|answer| answer),
            // The guest ends at its next tick, and the session with it.
            Err(_) => Err(session.abandoned()),
        };
        pieces.take(piece, answer);
    }
    pieces.answers
}

/// Which rows are asked about next, and what was answered so far.
struct Pieces<T> {
    open: Vec<Piece>,
    calls: usize,
    answers: Vec<(Piece, Result<T, CallFault>)>,
}

impl<T> Pieces<T> {
    /// Halving finds one guilty row of a thousand in some twenty calls; a plugin that breaks on every row is given up.
    const CALLS_MAX: usize = 64;

    fn new(rows: usize) -> Self {
        Self { open: std::iter::once(0..rows).collect(), calls: 0, answers: Vec::new() }
    }

    fn next(&mut self) -> Option<Piece> {
        self.open.pop()
    }

    fn take(&mut self, piece: Piece, answer: Result<T, CallFault>) {
        self.calls += 1;
        match answer {
            Err(fault) if is_of_some_row(&fault.fault) && piece.len() > 1 && self.calls < Self::CALLS_MAX => {
                let middle = piece.start + piece.len() / 2;
                self.open.push(middle..piece.end);
                self.open.push(piece.start..middle);
            }
            answer => self.answers.push((piece, answer)),
        }
    }
}

/// Whether a fault of a whole call may be the doing of one of its rows.
const fn is_of_some_row(fault: &Fault) -> bool {
    matches!(fault.class(), Class::PluginFault | Class::Rejected)
}

/// A plugin broke on these rows: its policy decides.
pub(super) fn faulted(
    rows: &mut [RowWork],
    own: &[usize],
    plugin: &str,
    on_fault: FaultPolicy,
    fault: CallFault,
) -> Result<(), Hold> {
    let CallFault { fault, retry_after, .. } = fault;
    if let Some(after) = retry_after {
        return Err(Hold { after: Some(after), fault });
    }
    match fault.class() {
        Class::PluginFault => {}
        // A value that cannot cross to the guest: the record is wrong, not the plugin.
        Class::Rejected => {
            for &index in own {
                rows[index].fail(fault.clone());
            }
            return Ok(());
        }
        Class::Transient | Class::Misconfigured => return Err(fault.into()),
    }
    match on_fault {
        FaultPolicy::PassThrough => {
            tracing::warn!(%plugin, %fault, rows = own.len(), "a plugin failed and its rows pass as they were");
        }
        FaultPolicy::SetAside => {
            for &index in own {
                rows[index].fail(fault.clone());
            }
        }
        FaultPolicy::Fail => {
            for row in rows.iter_mut().filter(|row| row.is_open()) {
                row.fail(Fault::new(
                    fault.code,
                    format!("plugin {plugin} failed and its policy fails the whole delivery: {}", fault.message),
                ));
            }
        }
    }
    Ok(())
}

/// What a plugin has to say about single rows. Only errors have consequences.
pub(super) fn complain(rows: &mut [RowWork], own: &[usize], issues: Vec<RowIssue>, written: bool) {
    let mut first: HashMap<usize, Fault> = HashMap::new();
    for issue in issues {
        if issue.severity == Severity::Error {
            first.entry(own[issue.row]).or_insert(issue.fault);
        } else {
            tracing::info!(fault = %issue.fault, "a plugin remarks on a record");
        }
    }
    for (index, mut fault) in first {
        if written {
            if fault.code == Code::PluginRejected {
                fault.code = Code::StoredDiffers;
            }
            rows[index].complaint = Some(fault);
        } else if rows[index].is_open() {
            rows[index].fail(fault);
        }
    }
}

#[cfg(test)]
mod tests {
    use dualwright_sandbox::FaultKind;

    use super::*;

    fn broken(code: Code) -> CallFault {
        CallFault { kind: FaultKind::Trap, fault: Fault::new(code, "x"), retry_after: None }
    }

    type Answers = Vec<(Piece, Result<(), CallFault>)>;

    /// The answers to `rows` rows, and how many calls they took.
    fn ask(rows: usize, mut call: impl FnMut(&Piece) -> Result<(), CallFault>) -> (Answers, usize) {
        let mut pieces = Pieces::new(rows);
        while let Some(piece) = pieces.next() {
            let answer = call(&piece);
            pieces.take(piece, answer);
        }
        (pieces.answers, pieces.calls)
    }

    #[test]
    fn a_fault_is_narrowed_down_to_the_record_that_causes_it() {
        for (rows, guilty, code) in [
            (1, vec![0], Code::PluginTrapped),
            (7, vec![3], Code::PluginTrapped),
            (1_000, vec![0, 999], Code::PluginTrapped),
            (1_000, vec![512], Code::WrongType),
        ] {
            let (answers, calls) =
                ask(
                    rows,
                    |piece| {
                        if guilty.iter().any(|row| piece.contains(row)) { Err(broken(code)) } else { Ok(()) }
                    },
                );
            let failed = answers.iter().filter(|(_, answer)| answer.is_err()).map(|(piece, _)| piece.clone());
            assert_eq!(failed.collect::<Vec<_>>(), guilty.iter().map(|&row| row..row + 1).collect::<Vec<_>>());
            assert_eq!(answers.iter().map(|(piece, _)| piece.len()).sum::<usize>(), rows);
            assert!(calls < 64);
        }
    }

    #[test]
    fn what_is_not_the_plugins_fault_is_not_searched_for() {
        let (answers, calls) = ask(1_000, |_| Err(broken(Code::BudgetSpent)));
        assert_eq!((answers.len(), calls), (1, 1));
    }

    #[test]
    fn a_plugin_that_breaks_on_everything_is_given_up() {
        let (answers, calls) = ask(100_000, |_| Err(broken(Code::PluginTrapped)));
        assert_eq!(answers.iter().map(|(piece, _)| piece.len()).sum::<usize>(), 100_000);
        assert!(calls <= 200, "{calls}");
    }
}

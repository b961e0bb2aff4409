//! Groups of rows and what is computed of them: what `$apply` and FetchXML aggregates have in common.
//!
//! Owns the functions, their exact sums, and the limit of rows ("Aggregate data"). Does not know where the values come
//! from.

use std::collections::{BTreeMap, HashSet};
use std::str::FromStr;

use dualwright_odata::Literal;
use dualwright_odata::batch::Response;
use rust_decimal::Decimal;

use super::error;
use super::query::nulls_first;
use crate::cell;

/// Rows that one aggregate looks at ("Limitations").
pub(super) const ROWS_MAX: usize = 50_000;

/// The refusal beyond that.
pub(super) fn too_many() -> Response {
    error(400, "0x8004e023", "AggregateQueryRecordLimit exceeded. Cannot perform this operation.")
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Function {
    Count,
    CountColumn,
    CountDistinct,
    Sum,
    Average,
    Minimum,
    Maximum,
}

impl Function {
    /// By its name in `$apply`, or in FetchXML.
    pub fn of(name: &str) -> Option<Self> {
        Some(match name {
            "sum" => Self::Sum,
            "avg" | "average" => Self::Average,
            "min" => Self::Minimum,
            "max" => Self::Maximum,
            "count" => Self::Count,
            "countcolumn" => Self::CountColumn,
            "countdistinct" => Self::CountDistinct,
            _ => return None,
        })
    }
}

/// One function over the rows of one group.
#[derive(Debug)]
struct State {
    count: u64,
    filled: u64,
    sum: Decimal,
    /// Cell and literal of the least or the greatest.
    best: Option<(String, Literal)>,
    distinct: HashSet<String>,
}

/// All groups, by the cells that they share; in the order of their values.
#[derive(Debug)]
pub(super) struct Groups {
    functions: Vec<Function>,
    groups: BTreeMap<Vec<String>, Vec<State>>,
    rows: usize,
    rows_max: usize,
}

impl Groups {
    pub fn new(functions: Vec<Function>, rows_max: usize) -> Self {
        Self { functions, groups: BTreeMap::new(), rows: 0, rows_max: rows_max.min(ROWS_MAX) }
    }

    /// Adds a row by the cells of its group, and one cell and literal per function; false beyond the limit.
    pub fn add(&mut self, group: Vec<String>, values: impl Iterator<Item = (String, Literal)>) -> bool {
        self.rows += 1;
        if self.rows > self.rows_max {
            return false;
        }
        let functions = &self.functions;
        let states = self.groups.entry(group).or_insert_with(|| functions.iter().map(|_| State::new()).collect());
        for ((state, function), (cell, literal)) in states.iter_mut().zip(functions).zip(values) {
            state.add(*function, cell, literal);
        }
        true
    }

    /// Every group with the cells of its functions. Without any rows there is still one group when nothing groups.
    pub fn finish(mut self, is_grouped: bool) -> Vec<(Vec<String>, Vec<String>)> {
        if self.groups.is_empty() && !is_grouped {
            self.groups.insert(Vec::new(), self.functions.iter().map(|_| State::new()).collect());
        }
        let functions = self.functions;
        self.groups
            .into_iter()
            .map(|(group, states)| {
                let cells = states.into_iter().zip(&functions).map(|(state, function)| state.cell(*function)).collect();
                (group, cells)
            })
            .collect()
    }
}

impl State {
    fn new() -> Self {
        Self { count: 0, filled: 0, sum: Decimal::ZERO, best: None, distinct: HashSet::new() }
    }

    fn add(&mut self, function: Function, cell: String, literal: Literal) {
        self.count += 1;
        if literal == Literal::Null {
            return;
        }
        self.filled += 1;
        match function {
            Function::Sum | Function::Average => {
                let number = Decimal::from_str(&cell).or_else(|_| Decimal::from_scientific(&cell)).unwrap_or_default();
                self.sum = self.sum.checked_add(number).unwrap_or(Decimal::MAX);
            }
            Function::Minimum | Function::Maximum => {
                let is_better = self.best.as_ref().is_none_or(|(_, best)| {
                    let order = nulls_first(&literal, best);
                    if function == Function::Minimum { order.is_lt() } else { order.is_gt() }
                });
                if is_better {
                    self.best = Some((cell, literal));
                }
            }
            Function::CountDistinct => {
                self.distinct.insert(cell.to_lowercase());
            }
            Function::Count | Function::CountColumn => {}
        }
    }

    fn cell(self, function: Function) -> String {
        match function {
            Function::Count => self.count.to_string(),
            Function::CountColumn => self.filled.to_string(),
            Function::CountDistinct => self.distinct.len().to_string(),
            // Of nothing there is a sum, but no average.
            Function::Sum => self.sum.normalize().to_string(),
            Function::Average if self.filled == 0 => cell::NULL.to_owned(),
            Function::Average => {
                let average = self.sum / Decimal::from(self.filled);
                average.round_dp(10).normalize().to_string()
            }
            Function::Minimum | Function::Maximum => self.best.map_or_else(|| cell::NULL.to_owned(), |(cell, _)| cell),
        }
    }
}

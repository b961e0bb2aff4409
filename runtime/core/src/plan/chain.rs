//! The chain of a field in one direction: its built-in transforms, and where plugins stand among them.
//!
//! A plan is compiled without plugins. Whoever has them cuts the chain at their places, and carries a value on from cut to
//! cut between their calls. In front of a value map a value is one of the source, behind it one of the target.

use super::{Flow, FlowField};
use crate::convert;
use crate::error::Fault;
use crate::schema::Column;
use crate::transform::{StepKind, Steps};
use crate::value::Value;

/// Where a plugin stands in a chain, on the way on which the chain is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Place {
    Before(StepKind),
    After(StepKind),
    Last,
}

/// What is done to a value behind the first plugin of its chain.
#[derive(Debug, Clone)]
pub(super) struct Chain {
    /// What the value is where the first plugin stands.
    pub first: Column,
    /// Steps up to the next plugin or the end, and what the value is there.
    pub later: Vec<(Steps, Column)>,
}

impl Flow {
    /// The place in the chain of a field, as the number of steps before it. `turned` for a place that is meant on the way
    /// to Dataverse while this flow walks the chain backwards.
    pub fn place_in_chain(&self, field: usize, place: Place, turned: bool) -> Result<usize, String> {
        let field = &self.fields[field];
        let kinds = field.steps.kinds().collect::<Vec<_>>();
        let turned = turned && field.backwards;
        // Before the first and after the last of several, as they are written.
        let position = |kind: StepKind, first: bool| {
            let found = if first {
                kinds.iter().position(|own| *own == kind)
            } else {
                kinds.iter().rposition(|own| *own == kind)
            };
            found.ok_or_else(|| format!("the map gives {} no {} to stand by", field.column.name, kind.name()))
        };
        match place {
            Place::Before(kind) if turned => Ok(position(kind, false)? + 1),
            Place::Before(kind) => position(kind, true),
            Place::After(kind) if turned => position(kind, true),
            Place::After(kind) => Ok(position(kind, false)? + 1),
            Place::Last if turned => Ok(0),
            Place::Last => Ok(kinds.len()),
        }
    }

    /// What a value is at a place in the chain of a field.
    #[must_use]
    pub fn column_in_chain(&self, field: usize, place: usize) -> &Column {
        let field = &self.fields[field];
        let maps_later = field.steps.kinds().skip(place).any(|kind| kind == StepKind::ValueMap);
        field.source.as_ref().filter(|_| maps_later).unwrap_or(&field.column)
    }

    /// The length of the chain of a field.
    #[must_use]
    pub fn chain_length(&self, field: usize) -> usize {
        self.fields[field].steps.kinds().len()
    }

    /// Cuts the chain of a field at these places, in ascending order: [`Flow::project`] ends at the first one, and
    /// [`Flow::carry_on`] leads from one to the next. Once per field; places are those of the whole chain.
    pub fn cut_chain(&mut self, field: usize, places: &[usize]) {
        let Some(&first) = places.first() else { return };
        let columns = places.iter().map(|&place| self.column_in_chain(field, place).clone()).collect::<Vec<_>>();
        let own = &mut self.fields[field];
        let mut later = Vec::with_capacity(places.len());
        for (number, &place) in places.iter().enumerate().rev() {
            let column = columns.get(number + 1).unwrap_or(&own.column).clone();
            later.push((own.steps.split_off(place), column));
        }
        later.reverse();
        debug_assert_eq!(own.steps.kinds().len(), first, "the places ascend");
        own.chain = Some(Box::new(Chain { first: columns[0].clone(), later }));
    }

    /// The value of a field from one cut, counted from 0, to the next or to the end.
    pub fn carry_on(&self, field: usize, cut: usize, value: &Value) -> Result<Value, Fault> {
        let mut place = Value::Absent;
        if let Some((steps, column)) = self.fields[field].chain.as_ref().and_then(|chain| chain.later.get(cut)) {
            steps.apply_into(value, column, &mut place).map_err(|fault| *fault)?;
        }
        Ok(place)
    }
}

impl FlowField {
    /// What the built-in transforms make of a value of the source, as if no plugin stood between them.
    pub(super) fn built_in(&self, value: Value) -> Result<Value, Fault> {
        let value = self.steps.apply(value, &self.column)?;
        let column = self.chain.as_ref().map_or(&self.column, |chain| &chain.first);
        self.rest_of_chain(convert::coerce(value, column)?)
    }

    /// The same from the first cut on.
    pub(super) fn rest_of_chain(&self, mut value: Value) -> Result<Value, Fault> {
        for (steps, column) in self.chain.iter().flat_map(|chain| &chain.later) {
            value = convert::coerce(steps.apply(value, column)?, column)?;
        }
        Ok(value)
    }
}

//! References that lead to no row: what a map's rules make of them.
//!
//! A rule is about one lookup of the map or about all of them. It is put on a compiled plan, since it changes neither
//! what the map reads nor what it writes. The company's own lookup is nobody's to change: a row of a company that is not
//! there waits for it.

use std::sync::Arc;

use uuid::Uuid;

use super::{Flow, FlowField, MapPlan, OnMissing, Read, Resolved, Write, WriteSource, is_blank};
use crate::convert;
use crate::error::{Code, Fault};
use crate::lookup::{LookupKey, LookupRule, LookupSlot, Missing, PartSource};
use crate::mapping::Problem;
use crate::schema::{Column, Schema};
use crate::value::Value;

/// A row as a set of a slot, by its position, and the values of its key parts.
type DefaultRow = (usize, Vec<Value>);

impl MapPlan {
    /// Puts rules on the plan; says what is wrong with them. `dataverse` is the schema the plan was compiled against.
    #[must_use]
    pub fn apply_lookup_rules(&mut self, rules: &[LookupRule], dataverse: &Schema) -> Vec<Problem> {
        let mut problems = Vec::new();
        let lookups = self.lookup_columns(dataverse);
        for rule in rules {
            let Some(field) = &rule.field else { continue };
            if !lookups.iter().any(|lookup| self.is_named(lookup, field)) {
                let known = lookups.iter().map(|lookup| &**lookup).collect::<Vec<_>>().join(", ");
                let remedy = match known.as_str() {
                    "" => "delete the rule: the map has no lookup".to_owned(),
                    known => format!("use one of: {known}"),
                };
                let what = format!("the map has no lookup {field}");
                problems.push(Problem::error(format!("lookup {field}"), what, remedy));
            }
        }
        for lookup in &lookups {
            let own = rules.iter().find(|rule| rule.field.as_ref().is_some_and(|field| self.is_named(lookup, field)));
            let Some(rule) = own.or_else(|| rules.iter().find(|rule| rule.field.is_none())) else { continue };
            self.apply(rule, lookup, &mut problems);
        }
        problems
    }

    /// The lookup columns of the map that a rule may be about.
    fn lookup_columns(&self, dataverse: &Schema) -> Vec<Arc<str>> {
        let mut columns = Vec::<Arc<str>>::new();
        let fields = [&self.to_dataverse, &self.to_finops].into_iter().flatten().flat_map(|flow| &flow.fields);
        for path in fields.filter_map(|field| field.dataverse.as_deref()) {
            let Some((first, _)) = path.split_once('.') else { continue };
            let Some(column) = dataverse.index_of(first).map(|index| &dataverse.column(index).name) else { continue };
            if !columns.contains(column) {
                columns.push(Arc::clone(column));
            }
        }
        columns
    }

    /// Whether `field` names the lookup column `lookup`: itself, a path through it, or an F&O column that fills it.
    #[must_use]
    pub fn is_named(&self, lookup: &str, field: &str) -> bool {
        lookup.eq_ignore_ascii_case(field)
            || [&self.to_dataverse, &self.to_finops]
                .into_iter()
                .flatten()
                .flat_map(|flow| flow.fields_behind(lookup))
                .any(|(_, own)| own.is_called(field))
    }

    fn apply(&mut self, rule: &LookupRule, lookup: &str, problems: &mut Vec<Problem>) {
        let place = format!("lookup {lookup}");
        let mut error = |what: String, remedy: &str| problems.push(Problem::error(&place, what, remedy));
        let in_key = [&self.to_dataverse, &self.to_finops]
            .into_iter()
            .flatten()
            .flat_map(|flow| flow.fields_behind(lookup))
            .any(|(_, field)| field.in_key);
        if rule.missing == Missing::Default && in_key {
            // A rule for all lookups means those that it can be about.
            if rule.field.is_some() {
                let what = "the lookup is part of the key, and another row's key is another row".to_owned();
                error(what, "use fail, hold or stub");
            }
            return;
        }
        let mut rule_default = rule.default.clone();
        if let Some(flow) = &mut self.to_dataverse
            && let Some(position) = flow.lookups.iter().position(|slot| *slot.name == *lookup)
        {
            match flow.default_of(position, &rule.default) {
                Ok(default) => flow.lookups[position].default = default,
                Err((what, remedy)) => {
                    error(what, remedy);
                    rule_default.clear();
                }
            }
            flow.lookups[position].missing = rule.missing;
        }
        if let Some(flow) = &mut self.to_finops {
            let behind = flow.fields_behind(lookup).map(|(position, _)| position).collect::<Vec<_>>();
            for position in behind {
                let field = &mut flow.fields[position];
                if !matches!(field.read, Read::Name(_)) {
                    continue;
                }
                field.on_missing = match rule.missing {
                    Missing::Fail => OnMissing::Fail,
                    // Which row is missing, only its id says: nothing could be made of it on F&O.
                    Missing::Hold | Missing::Stub => OnMissing::Hold,
                    Missing::Default => OnMissing::Value(field.default_name(&rule_default).unwrap_or(Value::Null)),
                };
            }
        }
    }
}

impl OnMissing {
    pub(super) fn answer(&self, fault: Fault) -> Result<Value, Fault> {
        match self {
            Self::Value(value) if fault.code == Code::LookupNotFound => Ok(value.clone()),
            Self::Fail if fault.code == Code::LookupNotFound => Err(Fault { code: Code::LookupRefused, ..fault }),
            _ => Err(fault),
        }
    }
}

impl FlowField {
    /// Whether this is a name of the field mapping, or of the lookup that it goes through.
    #[must_use]
    pub fn is_called(&self, name: &str) -> bool {
        [&self.finops, &self.dataverse].into_iter().flatten().any(|own| {
            own.eq_ignore_ascii_case(name)
                || own.split('.').next().is_some_and(|first| first.eq_ignore_ascii_case(name))
        })
    }

    /// The path behind the lookup.
    fn rest(&self) -> Option<&str> {
        self.dataverse.as_deref()?.split_once('.').map(|(_, rest)| rest)
    }

    fn default_name(&self, default: &[(String, String)]) -> Option<Value> {
        let rest = self.rest()?;
        let (_, text) = default.iter().find(|(path, _)| path.eq_ignore_ascii_case(rest))?;
        convert::parse_written(text, self.source.as_ref()?)
    }
}

impl Flow {
    fn fields_behind<'a>(&'a self, lookup: &'a str) -> impl Iterator<Item = (usize, &'a FlowField)> {
        self.fields.iter().enumerate().filter(move |(_, field)| {
            let path = field.dataverse.as_deref().and_then(|path| path.split_once('.'));
            path.is_some_and(|(first, _)| first.eq_ignore_ascii_case(lookup))
        })
    }

    /// The row that a rule names, as a set of the slot and the values of its key parts.
    fn default_of(
        &self,
        slot: usize,
        written: &[(String, String)],
    ) -> Result<Option<DefaultRow>, (String, &'static str)> {
        if written.is_empty() {
            return Ok(None);
        }
        let slot = &self.lookups[slot];
        'sets: for (set, key) in slot.keys.iter().enumerate() {
            let mut values = Vec::with_capacity(key.parts.len());
            let mut used = 0;
            for (part, path) in key.parts.iter().zip(&*key.columns) {
                let PartSource::Field(field) = part.source else {
                    values.push(Value::Absent);
                    continue;
                };
                let Some((_, text)) = written.iter().find(|(own, _)| own.eq_ignore_ascii_case(path)) else {
                    continue 'sets;
                };
                used += 1;
                let column = &self.fields[field].column;
                match convert::parse_written(text, column).filter(|value| !is_blank(value)) {
                    Some(value) => values.push(value),
                    None => {
                        let what = format!("the default gives {path} a value that it cannot hold");
                        return Err((what, "write a value of the key column"));
                    }
                }
            }
            if used == written.len() {
                return Ok(Some((set, values)));
            }
        }
        let keys = slot.keys.iter().map(|key| {
            let own = key.columns.iter().zip(&key.parts).filter(|(_, part)| part.source != PartSource::Company);
            own.map(|(path, _)| &**path).collect::<Vec<_>>().join(" and ")
        });
        let what = format!("the default names no row: the key is {}", keys.collect::<Vec<_>>().join(", or "));
        Err((what, "give each key column its value, or leave default out for no reference"))
    }

    /// The key of the row that the slot refers to when the one it is to refer to is not there.
    pub(super) fn default_key(&self, position: usize, company: Option<&str>) -> Result<Option<LookupKey>, Fault> {
        let slot = &self.lookups[position];
        let Some((set, values)) = &slot.default else { return Ok(None) };
        let key = &slot.keys[*set];
        let mut filled = values.clone();
        for (value, part) in filled.iter_mut().zip(&key.parts) {
            if part.source == PartSource::Company {
                *value = Value::text(company.unwrap_or_default());
            }
        }
        self.key_of(position, &slot.sets[*set], key, filled).map(Some)
    }

    /// What a reference becomes whose row is nowhere.
    pub(super) fn missing(
        &self,
        position: usize,
        key: &LookupKey,
        company: Option<&str>,
        ids: &dyn Fn(&LookupKey) -> Option<Uuid>,
    ) -> Result<Resolved, Fault> {
        let slot = &self.lookups[position];
        let what = || format!("{} has no row {} for {}", slot.sets.join(" or "), key.key, slot.name);
        match slot.missing {
            Missing::Hold | Missing::Stub => Err(Fault::new(Code::LookupNotFound, what()).column(&slot.name)),
            Missing::Fail => Err(Fault::new(Code::LookupRefused, what()).column(&slot.name)),
            Missing::Default => match self.default_key(position, company)? {
                None => Ok(Resolved::Nothing),
                Some(default) => match ids(&default) {
                    Some(id) => Ok(Resolved::Row(id, Arc::clone(&default.set))),
                    None => {
                        let what = format!("{}, and not the default {} either", what(), default.key);
                        Err(Fault::new(Code::LookupNotFound, what).column(&slot.name))
                    }
                },
            },
        }
    }

    /// Whether a row can be written without this reference at first: it is no part of the key, and not required.
    #[must_use]
    pub fn can_come_late(&self, slot: usize) -> bool {
        let in_key = self.fields_behind(&self.lookups[slot].name).any(|(_, field)| field.in_key);
        let is_company = self.fields_behind(&self.lookups[slot].name).next().is_none();
        let required =
            |write: &Write| matches!(write.source, WriteSource::Lookup(own) if own == slot) && write.column.required;
        !in_key && !is_company && !self.writes.iter().any(required)
    }

    /// [`Flow::finish`] with some references left as they are on the target, or empty on a new row.
    pub fn finish_without(
        &self,
        left_out: &[usize],
        fields: &[Value],
        company: Option<&str>,
        ids: &dyn Fn(&LookupKey) -> Option<Uuid>,
        creating: bool,
    ) -> Result<Vec<Value>, Vec<Fault>> {
        let mut values = Vec::new();
        values.resize_with(self.writes.len(), Value::default);
        let mut faults = Vec::new();
        for (write, place) in self.writes.iter().zip(&mut values) {
            if matches!(write.source, WriteSource::Lookup(slot) if left_out.contains(&slot)) {
                continue;
            }
            if let Err(fault) = self.finish_column(write, fields, company, ids, creating, place) {
                faults.push(*fault);
            }
        }
        if faults.is_empty() { Ok(values) } else { Err(faults) }
    }

    // Placeholders.

    /// The fields of a row of this flow's target that stands for one that is not there: the key by which others refer to
    /// it, what the setting gives, and what the map's own defaults give. Everything else stays unsaid.
    #[must_use]
    pub fn placeholder(&self, key: &LookupKey, given: &[(usize, Value)]) -> Vec<Value> {
        self.fields
            .iter()
            .enumerate()
            .map(|(position, field)| {
                let own = key.columns.iter().zip(&key.values).find(|(path, _)| field.is_path(path));
                let given = || given.iter().find(|(own, _)| *own == position).map(|(_, value)| value.clone());
                match own {
                    Some((_, value)) => value.clone(),
                    None => given().or_else(|| field.constant()).unwrap_or(Value::Absent),
                }
            })
            .collect()
    }

    /// The required columns that a placeholder would leave empty.
    #[must_use]
    pub fn placeholder_gaps(&self, slot: &LookupSlot, set: usize, given: &[(usize, Value)]) -> Vec<&str> {
        let filled = |field: usize| {
            let own = &self.fields[field];
            slot.keys[set].columns.iter().any(|path| own.is_path(path))
                || given.iter().any(|(position, _)| *position == field)
                || own.constant().is_some()
        };
        let is_filled = |write: &Write| match &write.source {
            WriteSource::Company => true,
            WriteSource::Fields(fields) => fields.iter().any(|&field| filled(field)),
            WriteSource::Lookup(slot) => self.lookups[*slot].keys.iter().all(|key| {
                key.parts.iter().all(|part| match part.source {
                    PartSource::Field(field) => filled(field),
                    PartSource::Company => true,
                })
            }),
        };
        let gaps = self.writes.iter().filter(|write| write.column.required && !is_filled(write));
        gaps.map(|write| &*write.column.name).collect()
    }

    /// The field that writes this column or path, and the value of a text for it.
    pub fn given_field(&self, path: &str, text: &str) -> Result<(usize, Value), String> {
        let Some(field) = self.fields.iter().position(|field| field.is_path(path)) else {
            return Err(format!("the map does not write {path}"));
        };
        let column: &Column = &self.fields[field].column;
        match convert::parse_written(text, column) {
            Some(value) if !is_blank(&value) => Ok((field, value)),
            _ => Err(format!("{path} cannot hold the value that it is given")),
        }
    }
}

impl FlowField {
    fn is_path(&self, path: &str) -> bool {
        self.dataverse.as_deref().is_some_and(|own| own.eq_ignore_ascii_case(path))
    }

    /// What the transforms make of no value.
    fn constant(&self) -> Option<Value> {
        let value = self.built_in(Value::Null).ok()?;
        (!is_blank(&value)).then_some(value)
    }
}

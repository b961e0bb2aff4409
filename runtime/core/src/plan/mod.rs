//! A leg of a table map, compiled against both schemas: what happens to a row on its way.
//!
//! Owns the meaning of a map: which column goes where and how, what identifies a row, which other rows it needs. Names
//! are resolved once, in [`compile`]; a row is handled by positions only. Rows are in the order of the schema that the
//! plan was compiled against. Knows no wire, no store and no plugin: plugins see the fields between
//! [`Flow::project`] and [`Flow::finish`].

pub mod chain;
pub mod checks;
mod compile;
mod missing;

use std::sync::Arc;

use uuid::Uuid;

use crate::change::{RowKey, SystemKind};
use crate::content::at_scale;
use crate::convert;
use crate::error::{Code, Fault};
use crate::filter::{Filter, Nulls, RemoteQuery};
use crate::lookup::{LookupKey, LookupNames, LookupSlot, NameSlot, PartSource, SlotKey, SlotPart};
use crate::mapping::{Leg, Problem};
use crate::schema::{Column, Schema};
use crate::transform::{Steps, Unmatched};
use crate::value::{self, Kind, Value};
use chain::Chain;

pub use compile::compile;

/// What a plan is compiled from.
#[derive(Clone, Copy)]
pub struct PlanInput<'a> {
    pub leg: &'a Leg,
    pub finops: &'a Schema,
    pub dataverse: &'a Schema,
    /// Dataverse column paths, the company's among them (reference 1.8).
    pub integration_key: &'a [String],
    /// A Dataverse table by its entity set.
    pub tables: &'a dyn Fn(&str) -> Option<Arc<Schema>>,
    /// The integration key of the map that writes that entity set, if any.
    pub key_of_set: &'a dyn Fn(&str) -> Option<Vec<String>>,
    pub settings: PlanSettings,
}

/// What a map leaves open, and the configuration decides. The defaults are what Dual-write does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PlanSettings {
    pub unmatched: Unmatched,
    /// What a missing value means to the filter on F&O.
    pub finops_nulls: Nulls,
}

/// A leg, compiled.
#[derive(Debug, Clone)]
pub struct MapPlan {
    /// `None` when no field goes that way.
    pub to_dataverse: Option<Flow>,
    pub to_finops: Option<Flow>,
    pub company_specific: bool,
    /// In the order of the integration key, the company left out.
    pub key_fields: Vec<KeyField>,
    /// The integration key tells any two rows of the F&O entity apart, because it holds the entity's own key.
    pub key_complete: bool,
    /// Every column of each side that the map touches: key, company, fields, filter; ascending.
    pub finops_columns: Vec<usize>,
    pub dataverse_columns: Vec<usize>,
    pub notices: Vec<Problem>,
}

/// One column of the integration key.
#[derive(Debug, Clone)]
pub struct KeyField {
    /// The dotted path on Dataverse.
    pub dataverse: Arc<str>,
    /// The column on F&O; `None` where a constant or another row supplies it.
    pub finops: Option<Arc<str>>,
    /// The Dataverse column that holds the value, at the end of the path.
    pub column: Column,
}

/// A leg in one direction.
#[derive(Debug, Clone)]
pub struct Flow {
    pub target: SystemKind,
    pub fields: Vec<FlowField>,
    /// Indices in the target schema, one per written column.
    pub target_columns: Vec<usize>,
    /// To Dataverse: references to resolve, the company's among them.
    pub lookups: Vec<LookupSlot>,
    /// To F&O: natural keys to read.
    pub names: Vec<NameSlot>,
    filter: Filter,
    company_specific: bool,
    company: Option<Read>,
    key: Vec<KeyPart>,
    /// One per target column.
    writes: Vec<Write>,
    /// What identifies the row on the target: column name and where its value comes from.
    address: Vec<(Arc<str>, AddressSource)>,
    /// To F&O: where the values of the address are in a row key.
    address_in_key: Option<Vec<KeyAddress>>,
    /// To Dataverse: the field that says the code of the row's currency.
    currency: Option<usize>,
}

/// One field mapping in one direction.
#[derive(Debug, Clone)]
pub struct FlowField {
    /// Column of the F&O entity; `None` when a constant goes to Dataverse.
    pub finops: Option<String>,
    /// Dotted path on Dataverse; `None` when a constant goes to F&O.
    pub dataverse: Option<String>,
    /// What the value must become: the target column or, for a lookup, the key column of the referenced table.
    pub column: Column,
    /// Where the value comes from: the source column or, for a lookup, the key column of the referenced table. `None` for
    /// a constant.
    pub source: Option<Column>,
    read: Read,
    steps: Steps,
    /// The steps are those of the way to Dataverse, from the last to the first.
    backwards: bool,
    /// Plugins stand between the steps: what is done before the first of them is in `steps`.
    chain: Option<Box<Chain>>,
    /// Part of the key, where a date keeps its empty value: a key with a hole identifies nothing.
    in_key: bool,
    on_missing: OnMissing,
}

/// What a natural key becomes when the row that has it is not there.
#[derive(Debug, Clone)]
enum OnMissing {
    Hold,
    Fail,
    /// As the source would say it.
    Value(Value),
}

/// Where a value comes from in a source row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Read {
    /// Nowhere: a Default supplies it.
    Constant,
    Column(usize),
    /// The natural key behind a lookup: position in `names`.
    Name(usize),
}

/// One part of the row key.
#[derive(Debug, Clone)]
struct KeyPart {
    /// The Dataverse column at the end of the path: both sides spell the key in its kind.
    column: Column,
    source: KeySource,
    /// A reference may be empty, a column of the table itself may not.
    reference: bool,
}

#[derive(Debug, Clone, Copy)]
enum KeySource {
    Field(usize),
    Read(Read),
}

/// What a target column is filled from.
#[derive(Debug, Clone)]
struct Write {
    column: Column,
    source: WriteSource,
}

#[derive(Debug, Clone)]
enum WriteSource {
    /// Positions in `fields`; the first that holds a value counts. One, but for a column that a map writes twice.
    Fields(Vec<usize>),
    /// Position in `lookups`.
    Lookup(usize),
    /// The company as text (F&O).
    Company,
}

#[derive(Debug, Clone, Copy)]
enum AddressSource {
    Company,
    /// Position in `target_columns`.
    Written(usize),
}

/// How one column of the F&O key follows from a row key.
#[derive(Debug, Clone)]
struct KeyAddress {
    name: Arc<str>,
    source: KeyAddressSource,
}

#[derive(Debug, Clone)]
enum KeyAddressSource {
    Company,
    /// Part of the row key in the kind of the Dataverse column, and the field that carries it to F&O.
    Part {
        part: usize,
        dataverse: Column,
        field: usize,
    },
}

impl MapPlan {
    /// What identifies an F&O row on its own side: the entity's own key, which the integration key may not hold.
    #[must_use]
    pub fn entity_key(finops: &Schema, row: &[Value]) -> RowKey {
        RowKey::new(None, finops.key.iter().map(|&index| row.get(index).unwrap_or(&Value::Absent)))
    }

    /// The key pairs of the F&O row with this [`MapPlan::entity_key`]. `None` when a part is not one of its column.
    #[must_use]
    pub fn entity_key_pairs(finops: &Schema, key: &RowKey) -> Option<Vec<(Arc<str>, Value)>> {
        let columns = finops.key.iter().map(|&index| finops.column(index));
        columns
            .zip(key.parts())
            .map(|(column, part)| Some((Arc::clone(&column.name), convert::parse_written(part, column)?)))
            .collect()
    }

    /// The key pairs of the F&O row that has this key, `dataAreaId` among them. Texts come in lower case, which F&O
    /// does not tell apart. `None` when the map does not lead to F&O, or the key of the entity cannot be told from
    /// the integration key.
    #[must_use]
    pub fn finops_key(&self, _finops: &Schema, key: &RowKey) -> Option<Vec<(Arc<str>, Value)>> {
        let flow = self.to_finops.as_ref()?;
        let parts = key.parts().collect::<Vec<_>>();
        let mut pairs = Vec::new();
        for address in flow.address_in_key.as_ref()? {
            let value = match &address.source {
                KeyAddressSource::Company => Value::text(key.company()),
                KeyAddressSource::Part { part, dataverse, field } => {
                    let field = &flow.fields[*field];
                    let text = *parts.get(*part)?;
                    let value = convert::parse_written(text, dataverse)?;
                    let value = field.built_in(value).ok()?;
                    if value.is_empty() { convert::finops_empty(&field.column) } else { value }
                }
            };
            pairs.push((Arc::clone(&address.name), value));
        }
        Some(pairs)
    }
}

impl Flow {
    /// Whether the filter of the source side takes the row.
    #[must_use]
    pub fn in_scope(&self, row: &[Value]) -> bool {
        self.filter.matches(row)
    }

    /// The filter of the source side as a query of that system; `source` is the schema the plan was compiled against.
    #[must_use]
    pub fn remote_filter(&self, source: &Schema) -> Option<RemoteQuery> {
        self.filter.remote(source)
    }

    /// Whether the filter of the source side takes every row.
    #[must_use]
    pub const fn takes_everything(&self) -> bool {
        self.filter.takes_everything()
    }

    /// The company of a source row in lower case. `None` for a global table, and for a row that names none.
    pub fn company(&self, row: &[Value], names: &dyn LookupNames) -> Option<String> {
        let named;
        let value = match self.company? {
            Read::Constant => return None,
            Read::Column(column) => row.get(column)?,
            Read::Name(slot) => {
                named = self.name(slot, row, names)?;
                &named
            }
        };
        let company = value.as_text()?.trim().to_lowercase();
        (!company.is_empty()).then_some(company)
    }

    /// The canonical key of a source row: equal from either side.
    pub fn key(&self, row: &[Value], names: &dyn LookupNames) -> Result<RowKey, Fault> {
        let company = if self.company_specific { self.company(row, names) } else { None };
        self.key_in(company.as_deref(), row, names)
    }

    /// The same for a row whose [`Flow::company`] is known.
    pub fn key_in(&self, company: Option<&str>, row: &[Value], names: &dyn LookupNames) -> Result<RowKey, Fault> {
        let company = company.filter(|_| self.company_specific);
        if self.company_specific && company.is_none() {
            return Err(Fault::new(Code::CompanyUnknown, "the row names no company"));
        }
        let mut parts = Vec::with_capacity(self.key.len());
        let mut filled = false;
        for part in &self.key {
            let value = match part.source {
                KeySource::Field(field) => {
                    let mut value = Value::Absent;
                    let field = &self.fields[field];
                    self.project_field(field, row, names, &mut value).map_err(|fault| *fault)?;
                    field.rest_of_chain(value)?
                }
                KeySource::Read(read) => self.read(read, row, names, &part.column.name)?,
            };
            let value = key_value(value, &part.column)?;
            let empty = is_blank(&value);
            if empty && !part.reference {
                let what = format!("the key column {} has no value", part.column.name);
                return Err(Fault::new(Code::KeyEmpty, what).column(&part.column.name));
            }
            filled |= !empty;
            parts.push(value);
        }
        if !filled {
            return Err(Fault::new(Code::KeyEmpty, "no key column has a value"));
        }
        Ok(RowKey::new(company, &parts))
    }

    /// One value per field, built-in transforms applied as far as the first plugin between them, in the kind of the
    /// column there: [`Flow::column_in_chain`]. References are still natural keys. What the source does not say stays
    /// absent.
    pub fn project(&self, row: &[Value], names: &dyn LookupNames) -> Result<Vec<Value>, Fault> {
        let mut values = Vec::new();
        values.resize_with(self.fields.len(), Value::default);
        for (field, place) in self.fields.iter().zip(&mut values) {
            self.project_field(field, row, names, place).map_err(|fault| *fault)?;
        }
        Ok(values)
    }

    #[inline]
    fn project_field(
        &self,
        field: &FlowField,
        row: &[Value],
        names: &dyn LookupNames,
        place: &mut Value,
    ) -> Result<(), Box<Fault>> {
        let value = match field.read {
            Read::Constant => &Value::Null,
            Read::Column(column) => row.get(column).unwrap_or(&Value::Absent),
            Read::Name(_) => &match self.read(field.read, row, names, &field.column.name) {
                Ok(value) => value,
                Err(fault) => field.on_missing.answer(fault)?,
            },
        };
        let is_date_of_key = field.in_key && matches!(value, Value::Timestamp(_) | Value::Date(_));
        let value = match self.target {
            SystemKind::Dataverse if !is_date_of_key && convert::is_finops_empty(value) => &Value::Null,
            _ => value,
        };
        let column = field.chain.as_ref().map_or(&field.column, |chain| &chain.first);
        field.steps.apply_into(value, column, place)
    }

    fn read(&self, read: Read, row: &[Value], names: &dyn LookupNames, column: &str) -> Result<Value, Fault> {
        match read {
            Read::Constant => Ok(Value::Null),
            Read::Column(column) => Ok(row.get(column).cloned().unwrap_or_default()),
            Read::Name(slot) => match row.get(self.names[slot].column) {
                None | Some(Value::Absent) => Ok(Value::Absent),
                Some(Value::Guid(_)) => self.name(slot, row, names).ok_or_else(|| {
                    let set = self.names[slot].targets.first().map(|target| &*target.set).unwrap_or_default();
                    Fault::new(Code::LookupNotFound, format!("{set} has no row with the id that the row refers to"))
                        .column(column)
                }),
                Some(_) => Ok(Value::Null),
            },
        }
    }

    fn name(&self, slot: usize, row: &[Value], names: &dyn LookupNames) -> Option<Value> {
        let slot = &self.names[slot];
        match row.get(slot.column) {
            Some(Value::Guid(id)) => names.name(slot, *id),
            _ => None,
        }
    }

    /// The references that this row needs; an empty one needs none. A polymorphic reference asks once per table.
    pub fn lookup_keys(&self, fields: &[Value], company: Option<&str>) -> Result<Vec<LookupKey>, Fault> {
        let mut keys = Vec::new();
        for (position, slot) in self.lookups.iter().enumerate() {
            for (set, key) in slot.sets.iter().zip(&slot.keys) {
                if let Reference::Key(key) = self.reference(position, set, key, fields, company)? {
                    keys.push(key);
                    if slot.default.is_some() {
                        keys.extend(self.default_key(position, company)?);
                    }
                }
            }
        }
        Ok(keys)
    }

    fn reference(
        &self,
        slot: usize,
        set: &Arc<str>,
        key: &SlotKey,
        fields: &[Value],
        company: Option<&str>,
    ) -> Result<Reference, Fault> {
        let name = &self.lookups[slot].name;
        let mut values = Vec::with_capacity(key.parts.len());
        for part in &key.parts {
            let value = match part.source {
                PartSource::Field(field) => {
                    let value = fields.get(field).cloned().unwrap_or_default();
                    if value.is_absent() {
                        return Ok(Reference::Unsaid);
                    }
                    coerced(value, &self.fields[field].column)?
                }
                PartSource::Company => match company {
                    Some(company) => Value::text(company),
                    None => {
                        let what = format!("{name} refers to a row of a company, and the row names none");
                        return Err(Fault::new(Code::CompanyUnknown, what).column(name));
                    }
                },
            };
            if is_blank(&value) {
                return Ok(Reference::Nothing);
            }
            values.push(value);
        }
        self.key_of(slot, set, key, values).map(Reference::Key)
    }

    fn key_of(&self, slot: usize, set: &Arc<str>, key: &SlotKey, values: Vec<Value>) -> Result<LookupKey, Fault> {
        // One value and perhaps the company: the usual case needs no list of its own.
        let row_key = match (key.parts.as_slice(), values.as_slice()) {
            ([part], [value]) if !part.is_company => RowKey::new(None, &[self.part_value(part, value)?]),
            ([part, company], [value, code]) if company.is_company && !part.is_company => {
                RowKey::new(code.as_text(), &[self.part_value(part, value)?])
            }
            _ => {
                let mut own_company = None;
                let mut parts = Vec::with_capacity(values.len());
                for (part, value) in key.parts.iter().zip(&values) {
                    if part.is_company {
                        own_company = value.as_text();
                    } else {
                        parts.push(self.part_value(part, value)?);
                    }
                }
                RowKey::new(own_company, &parts)
            }
        };
        Ok(LookupKey { slot, set: Arc::clone(set), key: row_key, columns: Arc::clone(&key.columns), values })
    }

    fn part_value(&self, part: &SlotPart, value: &Value) -> Result<Value, Fault> {
        match part.source {
            PartSource::Field(field) => key_value(value.clone(), &self.fields[field].column),
            PartSource::Company => Ok(value.clone()),
        }
    }

    /// The row behind one reference: the first table that has it.
    fn resolve(
        &self,
        position: usize,
        fields: &[Value],
        company: Option<&str>,
        ids: &dyn Fn(&LookupKey) -> Option<Uuid>,
    ) -> Result<Resolved, Fault> {
        let slot = &self.lookups[position];
        let mut asked = None;
        for (set, key) in slot.sets.iter().zip(&slot.keys) {
            match self.reference(position, set, key, fields, company)? {
                Reference::Unsaid => return Ok(Resolved::Unsaid),
                Reference::Nothing => {}
                Reference::Key(key) => match ids(&key) {
                    Some(id) => return Ok(Resolved::Row(id, Arc::clone(set))),
                    None => asked = asked.or(Some(key)),
                },
            }
        }
        match asked {
            None => Ok(Resolved::Nothing),
            Some(key) => self.missing(position, &key, company, ids),
        }
    }

    /// The values for `target_columns`, checked as the target will: type, length, range, option, required. All faults
    /// of the row are collected, the first one of each column. An absent value is not to be written.
    pub fn finish(
        &self,
        fields: &[Value],
        company: Option<&str>,
        ids: &dyn Fn(&LookupKey) -> Option<Uuid>,
        creating: bool,
    ) -> Result<Vec<Value>, Vec<Fault>> {
        self.finish_without(&[], fields, company, ids, creating)
    }

    fn finish_column(
        &self,
        write: &Write,
        fields: &[Value],
        company: Option<&str>,
        ids: &dyn Fn(&LookupKey) -> Option<Uuid>,
        creating: bool,
        place: &mut Value,
    ) -> Result<(), Box<Fault>> {
        let column = &write.column;
        match &write.source {
            WriteSource::Fields(own) => {
                let mut own = own.iter().filter_map(|&field| fields.get(field));
                let first = own.next().unwrap_or(&Value::Absent);
                let value = if is_blank(first) { own.find(|value| !is_blank(value)) } else { None };
                convert::coerce_into(value.unwrap_or(first), column, place)?;
                if let (Some(scales), Value::Decimal(amount)) = (&column.scale_of_currency, &*place)
                    && let Some(scale) = self.scale_of_currency(scales, fields)
                {
                    *place = Value::Decimal(at_scale(*amount, Some(scale)));
                }
            }
            WriteSource::Lookup(slot) => {
                *place = match self.resolve(*slot, fields, company, ids)? {
                    Resolved::Row(id, _) => Value::Guid(id),
                    Resolved::Nothing => Value::Null,
                    Resolved::Unsaid => Value::Absent,
                };
            }
            WriteSource::Company => match company {
                Some(company) => *place = Value::text(company),
                None => {
                    return Err(Fault::new(Code::CompanyUnknown, "the row names no company")
                        .column(&column.name)
                        .into());
                }
            },
        }
        let blank = is_blank(place);
        // An absent value leaves a stored one alone, but a new row has none.
        if blank && column.required && (creating || !place.is_absent()) {
            let what = format!("{} is required and has no value", column.name);
            return Err(Fault::new(Code::RequiredMissing, what).column(&column.name).into());
        }
        match (&*place, self.target) {
            (Value::Null, SystemKind::Finops) => *place = convert::finops_empty(column),
            (Value::Text(_), SystemKind::Dataverse) if blank => *place = Value::Null,
            (value, target) => convert::check(target, value, column)?,
        }
        Ok(())
    }

    /// The digits that an amount of this row keeps, where the row says its currency and that is known.
    fn scale_of_currency(&self, scales: &[(Arc<str>, u8)], fields: &[Value]) -> Option<u8> {
        let Value::Text(code) = fields.get(self.currency?)? else { return None };
        scales.iter().find(|(own, _)| own.eq_ignore_ascii_case(code.trim_end())).map(|(_, scale)| *scale)
    }

    /// Where each polymorphic lookup of a finished row leads: position in `target_columns`, and the entity set of the
    /// row it refers to. Other lookups lead to the only table they have.
    pub fn polymorphic_sets(
        &self,
        fields: &[Value],
        company: Option<&str>,
        ids: &dyn Fn(&LookupKey) -> Option<Uuid>,
    ) -> Vec<(usize, Arc<str>)> {
        let mut sets = Vec::new();
        for (position, write) in self.writes.iter().enumerate() {
            if let WriteSource::Lookup(slot) = write.source
                && self.lookups[slot].sets.len() > 1
                && let Ok(Resolved::Row(_, set)) = self.resolve(slot, fields, company, ids)
            {
                sets.push((position, set));
            }
        }
        sets
    }

    /// What identifies the row on the target, by its finished values: the key pairs of the entity, `dataAreaId` among
    /// them (F&O), or the columns of the integration key, lookups by id (Dataverse).
    #[must_use]
    pub fn target_key(&self, _fields: &[Value], values: &[Value], company: Option<&str>) -> Vec<(Arc<str>, Value)> {
        self.address
            .iter()
            .map(|(name, source)| {
                let value = match source {
                    AddressSource::Company => Value::text(company.unwrap_or_default()),
                    AddressSource::Written(position) => values.get(*position).cloned().unwrap_or_default(),
                };
                (Arc::clone(name), value)
            })
            .collect()
    }
}

/// A reference as the fields say it.
enum Reference {
    Key(LookupKey),
    Nothing,
    /// The source says nothing about it.
    Unsaid,
}

enum Resolved {
    Row(Uuid, Arc<str>),
    Nothing,
    Unsaid,
}

/// [`convert::coerce`], with a short way for values that are what the column takes.
#[inline]
fn coerced(value: Value, column: &Column) -> Result<Value, Fault> {
    match (&value, column.kind) {
        (Value::Absent | Value::Null, _)
        | (Value::Text(_), Kind::Text)
        | (Value::Int(_), Kind::Int64)
        | (Value::Boolean(_), Kind::Boolean)
        | (Value::Date(_), Kind::Date)
        | (Value::Timestamp(_), Kind::Timestamp)
        | (Value::Guid(_), Kind::Guid | Kind::Lookup) => Ok(value),
        _ => convert::coerce(value, column),
    }
}

fn is_blank(value: &Value) -> bool {
    match value {
        Value::Text(text) => convert::is_blank_text(text),
        other => other.is_empty(),
    }
}

/// A key value in its canonical form: the kind of the Dataverse column, dates as points in time, a missing date as the
/// one that F&O stores for it.
fn key_value(value: Value, column: &Column) -> Result<Value, Fault> {
    let value = match (&value, column.kind) {
        (Value::Text(_), Kind::Text) => value,
        _ => convert::coerce(value, column)?,
    };
    Ok(match value {
        Value::Date(days) => Value::Timestamp(i64::from(days) * value::MICROS_PER_DAY),
        Value::Null | Value::Absent if matches!(column.kind, Kind::Timestamp | Kind::Date) => {
            Value::Timestamp(value::NO_DATE_MICROS)
        }
        Value::Text(text) if text.bytes().any(|byte| byte < 0x20) => {
            let what = format!("the key column {} holds control characters", column.name);
            return Err(Fault::new(Code::TextInvalid, what).column(&column.name));
        }
        other => other,
    })
}

#[cfg(test)]
mod tests;

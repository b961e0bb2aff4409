//! The built-in transforms, compiled for one direction of one field mapping.
//!
//! A map spells its values as text; here they become values of the source and the target column, so that nothing is
//! parsed per row. A value map is inverted for the way from Dataverse to F&O (reference 1.5).

use std::collections::HashMap;
use std::sync::Arc;

use rust_decimal::Decimal;

use crate::change::SystemKind;
use crate::convert;
use crate::error::{Code, Fault};
use crate::mapping::Transform;
use crate::schema::Column;
use crate::value::{Kind, Value};

/// What becomes of a value that a value map does not list, where the map has no default.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Unmatched {
    /// The row fails and names the field, as with Dual-write.
    #[default]
    Fail,
    /// The value goes on as it is; it has to fit the target then.
    Keep,
    /// There is no value then.
    Clear,
}

/// A built-in transform of a field mapping, as a place in its chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum StepKind {
    Default,
    ValueMap,
    Truncate,
}

impl StepKind {
    /// As it is written in the configuration.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Default => "default",
            Self::ValueMap => "value-map",
            Self::Truncate => "truncate",
        }
    }
}

/// Something wrong with a transform: the code that Dual-write gives it, and words that follow the place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Complaint {
    pub code: &'static str,
    pub what: String,
}

impl Complaint {
    /// A value that its column cannot take.
    fn misfit(what: String) -> Self {
        Self { code: "DIPV1030", what }
    }
}

static NULL: Value = Value::Null;

/// The transforms of one field in one direction, in their order.
#[derive(Debug, Clone, Default)]
pub(crate) struct Steps(Vec<Step>);

#[derive(Debug, Clone)]
enum Step {
    Default(Value),
    Map(ValueTable),
    Truncate(usize),
}

/// A value map in one direction.
#[derive(Debug, Clone)]
struct ValueTable {
    texts: Vec<(String, Value)>,
    numbers: Vec<(Decimal, Value)>,
    booleans: [Option<Value>; 2],
    instants: Vec<(i64, Value)>,
    /// What no value becomes.
    blank: Option<Value>,
    default: Option<Value>,
    unmatched: Unmatched,
    /// A map of dates lists special dates only; every other date means itself.
    passes_unlisted: bool,
}

impl Step {
    const fn kind(&self) -> StepKind {
        match self {
            Self::Default(_) => StepKind::Default,
            Self::Map(_) => StepKind::ValueMap,
            Self::Truncate(_) => StepKind::Truncate,
        }
    }
}

impl Steps {
    /// What the steps are, in their order.
    pub(crate) fn kinds(&self) -> impl DoubleEndedIterator<Item = StepKind> + ExactSizeIterator {
        self.0.iter().map(Step::kind)
    }

    /// The steps from `at` on; the ones before it stay.
    pub(crate) fn split_off(&mut self, at: usize) -> Self {
        Self(self.0.split_off(at))
    }

    /// Compiles transforms for the way to `target`; says what is wrong with them, in words that follow the place.
    pub(crate) fn compile(
        transforms: &[&Transform],
        way: SystemKind,
        source: Option<&Column>,
        target: &Column,
        unmatched: Unmatched,
        complaints: &mut Vec<Complaint>,
    ) -> Self {
        let mut steps = Vec::with_capacity(transforms.len());
        for (position, transform) in transforms.iter().enumerate() {
            match transform {
                Transform::Default { value } => {
                    // In front of a value map a default is still a value of the source.
                    let maps_later =
                        transforms[position..].iter().any(|later| matches!(later, Transform::ValueMap { .. }));
                    let column = source.filter(|_| maps_later).unwrap_or(target);
                    match convert::parse_written(value, column) {
                        Some(value) => steps.push(Step::Default(value)),
                        None => {
                            let what = format!("the default {value:?} does not fit {}", describe(column));
                            complaints.push(Complaint::misfit(what));
                        }
                    }
                }
                Transform::ValueMap { pairs, default } => {
                    if let Some(source) = source
                        && let Some(table) =
                            ValueTable::compile(pairs, default.as_deref(), way, source, target, complaints)
                    {
                        steps.push(Step::Map(ValueTable { unmatched, ..table }));
                    }
                }
                Transform::Truncate { length } => steps.push(Step::Truncate(*length as usize)),
            }
        }
        Self(steps)
    }

    /// The value after all steps. An absent value stays absent.
    pub(crate) fn apply(&self, mut value: Value, target: &Column) -> Result<Value, Fault> {
        if value.is_absent() {
            return Ok(value);
        }
        for step in &self.0 {
            let becomes = match step {
                Step::Default(default) => value.is_empty().then(|| default.clone()),
                Step::Map(table) => Some(table.find(&value, target).map_err(|fault| *fault)?.clone()),
                Step::Truncate(length) => truncated(&value, *length).map(Value::text),
            };
            value = becomes.unwrap_or(value);
        }
        Ok(value)
    }

    /// [`Steps::apply`], then [`convert::coerce`], into the place of the value.
    #[inline]
    pub(crate) fn apply_into(&self, value: &Value, target: &Column, place: &mut Value) -> Result<(), Box<Fault>> {
        let value = match self.0.as_slice() {
            _ if value.is_absent() => value,
            [] => value,
            [Step::Default(default)] if value.is_empty() => default,
            [Step::Default(_)] => value,
            [Step::Map(table)] => table.find(value, target)?,
            [Step::Truncate(length)] => match truncated(value, *length) {
                Some(text) => &Value::text(text),
                None => value,
            },
            _ => &self.apply(value.clone(), target)?,
        };
        convert::coerce_into(value, target, place)
    }
}

/// Texts that two rows of one both-way value map share on either side: the map cannot be inverted. Case does not count.
pub(crate) fn ambiguous_values(pairs: &[(String, String)]) -> Vec<&str> {
    let mut seen = HashMap::new();
    let mut twice = Vec::new();
    for (finops, dataverse) in pairs {
        for (side, text) in [(0, finops), (1, dataverse)] {
            if seen.insert((side, text.trim().to_lowercase()), ()).is_some() {
                twice.push(text.as_str());
            }
        }
    }
    twice
}

fn describe(column: &Column) -> String {
    format!("{}, a column of kind {:?}", column.name, column.kind)
}

/// The beginning of a text that has more characters than `length`.
fn truncated(value: &Value, length: usize) -> Option<&str> {
    let text = value.as_text().filter(|text| text.len() > length)?;
    let end = match text.as_bytes()[..length].is_ascii() {
        true => Some(length),
        false => text.char_indices().nth(length).map(|(end, _)| end),
    };
    end.map(|end| &text[..end])
}

impl ValueTable {
    /// `None` when the map says nothing but that no value is no value.
    fn compile(
        pairs: &[(String, String)],
        default: Option<&str>,
        way: SystemKind,
        source: &Column,
        target: &Column,
        complaints: &mut Vec<Complaint>,
    ) -> Option<Self> {
        let mut table = Self {
            texts: Vec::new(),
            numbers: Vec::new(),
            booleans: [None, None],
            instants: Vec::new(),
            blank: None,
            default: None,
            unmatched: Unmatched::Fail,
            passes_unlisted: matches!(source.kind, Kind::Timestamp | Kind::Date),
        };
        if let Some(default) = default {
            table.default = convert::parse_written(default, target);
            if table.default.is_none() {
                let what = format!("the default {default:?} does not fit {}", describe(target));
                complaints.push(Complaint::misfit(what));
            }
        }
        let mut says_something = default.is_some();
        for (finops, dataverse) in pairs {
            let (from, to) = match way {
                SystemKind::Dataverse => (finops, dataverse),
                SystemKind::Finops => (dataverse, finops),
            };
            let written = match convert::parse_written(to, target) {
                // Without its options a symbol gets the capital that every F&O symbol has.
                Some(Value::Text(symbol)) if target.kind == Kind::Choice && target.options.is_empty() => {
                    Value::Text(capital(&symbol))
                }
                Some(value) => convert::from_finops(value),
                None => {
                    let what = format!("the value map gives {to:?}, which does not fit {}", describe(target));
                    complaints.push(Complaint::misfit(what));
                    continue;
                }
            };
            match table.insert(from, written.clone(), source) {
                Inserted::Value => says_something = true,
                Inserted::Blank => says_something |= !written.is_empty(),
                Inserted::Twice => {
                    complaints
                        .push(Complaint { code: "DIPV1029", what: format!("the value map lists {from:?} twice") });
                }
                Inserted::Misfit => {
                    let what = format!("the value map lists {from:?}, which {} never holds", describe(source));
                    complaints.push(Complaint::misfit(what));
                }
            }
        }
        says_something.then_some(table)
    }

    fn insert(&mut self, from: &str, to: Value, source: &Column) -> Inserted {
        fn push<K: PartialEq>(entries: &mut Vec<(K, Value)>, key: K, to: Value) -> Inserted {
            if entries.iter().any(|(own, _)| *own == key) {
                return Inserted::Twice;
            }
            entries.push((key, to));
            Inserted::Value
        }
        fn fill(place: &mut Option<Value>, to: Value, inserted: Inserted) -> Inserted {
            if place.is_some() {
                return Inserted::Twice;
            }
            *place = Some(to);
            inserted
        }
        match source.kind {
            _ if from.trim().is_empty() => fill(&mut self.blank, to, Inserted::Blank),
            Kind::Boolean => match convert::parse_boolean(from.trim()) {
                Some(value) => fill(&mut self.booleans[usize::from(value)], to, Inserted::Value),
                None => Inserted::Misfit,
            },
            Kind::Int64 | Kind::Decimal | Kind::Money | Kind::Float64 => match convert::parse_decimal(from) {
                Some(number) => push(&mut self.numbers, number, to),
                None => Inserted::Misfit,
            },
            Kind::Timestamp | Kind::Date => match convert::parse_written_timestamp(from) {
                Some(crate::value::NO_DATE_MICROS) => fill(&mut self.blank, to, Inserted::Blank),
                Some(micros) => push(&mut self.instants, micros, to),
                None => Inserted::Misfit,
            },
            Kind::Guid | Kind::Lookup | Kind::Bytes => Inserted::Misfit,
            Kind::Choice => match convert::coerce(Value::text(from.trim()), source) {
                Ok(Value::Text(symbol)) => push(&mut self.texts, symbol.to_lowercase(), to),
                // A symbol of another version of the enumeration: kept, since such a row may still be stored.
                _ => push(&mut self.texts, from.trim().to_lowercase(), to),
            },
            Kind::Text | Kind::Json | Kind::MultiChoice => push(&mut self.texts, from.trim().to_lowercase(), to),
        }
    }

    fn find<'a>(&'a self, value: &'a Value, target: &Column) -> Result<&'a Value, Box<Fault>> {
        let found = match value {
            Value::Text(text) => {
                let text = text.trim();
                if text.is_ascii() {
                    self.texts.iter().find(|(own, _)| own.eq_ignore_ascii_case(text)).map(|(_, to)| to)
                } else {
                    let text = text.to_lowercase();
                    self.texts.iter().find(|(own, _)| *own == text).map(|(_, to)| to)
                }
            }
            Value::Boolean(value) => self.booleans[usize::from(*value)].as_ref(),
            Value::Int(number) => self.number(Decimal::from(*number)),
            Value::Decimal(number) => self.number(*number),
            Value::Float(number) => Decimal::try_from(*number).ok().and_then(|number| self.number(number)),
            Value::Timestamp(micros) => self.instant(*micros),
            Value::Date(days) => self.instant(i64::from(*days) * crate::value::MICROS_PER_DAY),
            // What a map does not list cannot be wrong where nothing is.
            Value::Null | Value::Absent => return Ok(self.blank.as_ref().or(self.default.as_ref()).unwrap_or(&NULL)),
            Value::Guid(_) | Value::Bytes(_) => None,
        };
        match found.or(self.default.as_ref()) {
            Some(to) => Ok(to),
            None if self.passes_unlisted || self.unmatched == Unmatched::Keep => Ok(value),
            None if self.unmatched == Unmatched::Clear => Ok(&NULL),
            None => Err(self.unlisted(target)),
        }
    }

    #[cold]
    fn unlisted(&self, target: &Column) -> Box<Fault> {
        let what = format!("the value map of {} does not list the value", target.name);
        Fault::new(Code::ValueNotMapped, what).column(&target.name).into()
    }

    fn number(&self, number: Decimal) -> Option<&Value> {
        self.numbers.iter().find(|(own, _)| *own == number).map(|(_, to)| to)
    }

    fn instant(&self, micros: i64) -> Option<&Value> {
        self.instants.iter().find(|(own, _)| *own == micros).map(|(_, to)| to)
    }
}

enum Inserted {
    Value,
    Blank,
    Twice,
    Misfit,
}

fn capital(symbol: &Arc<str>) -> Arc<str> {
    let mut letters = symbol.chars();
    match letters.next() {
        Some(first) if first.is_ascii_lowercase() => {
            Arc::from(format!("{}{}", first.to_ascii_uppercase(), letters.as_str()))
        }
        _ => Arc::clone(symbol),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::value::parse_timestamp;

    fn choice(options: &[(&str, i64)]) -> Column {
        let options = options.iter().map(|(name, number)| (Arc::from(*name), *number)).collect();
        Column { options, ..Column::new("f", Kind::Choice) }
    }

    fn pairs(pairs: &[(&str, &str)]) -> Transform {
        let pairs = pairs.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect();
        Transform::ValueMap { pairs, default: None }
    }

    fn with_default(transform: Transform, default: &str) -> Transform {
        match transform {
            Transform::ValueMap { pairs, .. } => Transform::ValueMap { pairs, default: Some(default.to_owned()) },
            other => other,
        }
    }

    fn default(value: &str) -> Transform {
        Transform::Default { value: value.to_owned() }
    }

    fn run(
        transforms: &[Transform],
        way: SystemKind,
        source: &Column,
        target: &Column,
        value: Value,
    ) -> Result<Value, Code> {
        let mut complaints = Vec::new();
        let transforms = transforms.iter().collect::<Vec<_>>();
        let steps = Steps::compile(&transforms, way, Some(source), target, Unmatched::Fail, &mut complaints);
        assert_eq!(complaints, []);
        steps.apply(value, target).map_err(|fault| fault.code)
    }

    #[test]
    fn value_maps_lead_both_ways() {
        use SystemKind::{Dataverse, Finops};
        let on_hold = choice(&[("No", 0), ("Invoice", 1), ("All", 2)]);
        let no_yes = choice(&[("No", 0), ("Yes", 1)]);
        let open = choice(&[]);
        let (number, boolean) = (Column::new("d", Kind::Int64), Column::new("d", Kind::Boolean));
        let (text, date) = (Column::new("d", Kind::Text), Column::new("d", Kind::Timestamp));
        let hold = || pairs(&[("no", "806380000"), ("invoice", "806380001"), ("all", "806380002")]);
        let yes = || pairs(&[("no", "False"), ("yes", "true")]);
        let truth = || pairs(&[("false", "False"), ("true", "True")]);
        let no_date = || pairs(&[("1/1/1900", "")]);
        let blank = || pairs(&[("fulltime", "1"), ("", "2")]);
        let sales = || pairs(&[("salesLeadTime", "1")]);
        let day = Value::Timestamp(parse_timestamp("2024-01-02").expect("a day"));
        let cases = [
            (hold(), Dataverse, &on_hold, &number, Value::text("Invoice"), Ok(Value::Int(806_380_001))),
            (hold(), Dataverse, &on_hold, &number, Value::text("INVOICE "), Ok(Value::Int(806_380_001))),
            (hold(), Finops, &number, &on_hold, Value::Int(806_380_002), Ok(Value::text("All"))),
            (hold(), Finops, &number, &on_hold, Value::Int(7), Err(Code::ValueNotMapped)),
            (hold(), Finops, &number, &on_hold, Value::Null, Ok(Value::Null)),
            (hold(), Finops, &number, &on_hold, Value::Absent, Ok(Value::Absent)),
            (with_default(hold(), "no"), Finops, &number, &on_hold, Value::Int(7), Ok(Value::text("No"))),
            (with_default(hold(), "no"), Finops, &number, &on_hold, Value::Null, Ok(Value::text("No"))),
            (yes(), Dataverse, &no_yes, &boolean, Value::text("Yes"), Ok(Value::Boolean(true))),
            (yes(), Finops, &boolean, &no_yes, Value::Boolean(false), Ok(Value::text("No"))),
            (truth(), Dataverse, &no_yes, &boolean, Value::text("Yes"), Ok(Value::Boolean(true))),
            (truth(), Finops, &boolean, &no_yes, Value::Boolean(true), Ok(Value::text("Yes"))),
            (no_date(), Dataverse, &date, &date, Value::Null, Ok(Value::Null)),
            (no_date(), Dataverse, &date, &date, day.clone(), Ok(day.clone())),
            (no_date(), Finops, &date, &date, day.clone(), Ok(day)),
            (blank(), Dataverse, &text, &number, Value::Null, Ok(Value::Int(2))),
            (blank(), Finops, &number, &text, Value::Int(2), Ok(Value::Null)),
            (blank(), Dataverse, &text, &number, Value::text("FullTime"), Ok(Value::Int(1))),
            (sales(), Finops, &number, &open, Value::Int(1), Ok(Value::text("SalesLeadTime"))),
            (pairs(&[("Ä", "1")]), Dataverse, &text, &number, Value::text("ä"), Ok(Value::Int(1))),
        ];
        for (transform, way, source, target, value, wanted) in cases {
            let place = format!("{transform:?} to {way}: {value:?}");
            assert_eq!(run(&[transform], way, source, target, value), wanted, "{place}");
        }
    }

    #[test]
    fn defaults_and_truncation() {
        let (text, number) = (Column::new("d", Kind::Text), Column::new("d", Kind::Int64));
        let cut = |length| Transform::Truncate { length };
        let cases = [
            (vec![default("x")], &text, Value::Null, Value::text("x")),
            (vec![default("x")], &text, Value::text("a"), Value::text("a")),
            (vec![default("x")], &text, Value::Absent, Value::Absent),
            (vec![default("0")], &number, Value::Null, Value::Int(0)),
            (vec![default("")], &text, Value::Null, Value::Null),
            (vec![cut(2)], &text, Value::text("äöü"), Value::text("äö")),
            (vec![cut(9)], &text, Value::text("short"), Value::text("short")),
            (vec![cut(0)], &text, Value::text("a"), Value::text("")),
            (vec![cut(2)], &number, Value::Int(12_345), Value::Int(12_345)),
            (vec![default("abc"), cut(2)], &text, Value::Null, Value::text("ab")),
            // In front of a value map, a default is a value of the source.
            (vec![default("a"), pairs(&[("a", "1")])], &number, Value::Null, Value::Int(1)),
        ];
        for (transforms, target, value, wanted) in cases {
            let place = format!("{transforms:?}: {value:?}");
            assert_eq!(run(&transforms, SystemKind::Dataverse, &text, target, value), Ok(wanted), "{place}");
        }
    }

    #[test]
    fn what_cannot_be_a_value_is_said_when_compiling() {
        let (text, number) = (Column::new("f", Kind::Text), Column::new("d", Kind::Int64));
        let cases = [
            (default("x"), &text, &number, "the default \"x\" does not fit d"),
            (pairs(&[("a", "x")]), &text, &number, "the value map gives \"x\", which does not fit d"),
            (pairs(&[("a", "1")]), &number, &number, "the value map lists \"a\", which d"),
            (pairs(&[("a", "1"), ("A", "2")]), &text, &number, "the value map lists \"A\" twice"),
            (with_default(pairs(&[("a", "1")]), "x"), &text, &number, "the default \"x\" does not fit d"),
        ];
        for (transform, source, target, wanted) in cases {
            let mut complaints = Vec::new();
            let way = SystemKind::Dataverse;
            Steps::compile(&[&transform], way, Some(source), target, Unmatched::Fail, &mut complaints);
            assert_eq!(complaints.len(), 1, "{complaints:?}");
            assert!(complaints[0].what.starts_with(wanted), "{complaints:?}");
            let wanted = if wanted.ends_with("twice") { "DIPV1029" } else { "DIPV1030" };
            assert_eq!(complaints[0].code, wanted);
        }
    }

    #[test]
    fn what_a_value_map_does_not_list_follows_the_setting() {
        let (text, number) = (Column::new("f", Kind::Text), Column::new("d", Kind::Int64));
        let cases = [
            (Unmatched::Fail, pairs(&[("a", "x")]), &text, Err(Code::ValueNotMapped)),
            (Unmatched::Keep, pairs(&[("a", "x")]), &text, Ok(Value::text("z"))),
            // Whether it fits is for the column to say.
            (Unmatched::Keep, pairs(&[("a", "1")]), &number, Ok(Value::text("z"))),
            (Unmatched::Clear, pairs(&[("a", "x")]), &text, Ok(Value::Null)),
            (Unmatched::Fail, with_default(pairs(&[("a", "x")]), "y"), &text, Ok(Value::text("y"))),
            (Unmatched::Clear, with_default(pairs(&[("a", "x")]), "y"), &text, Ok(Value::text("y"))),
        ];
        for (unmatched, transform, target, wanted) in cases {
            let place = format!("{unmatched:?} {transform:?}");
            let mut complaints = Vec::new();
            let way = SystemKind::Dataverse;
            let steps = Steps::compile(&[&transform], way, Some(&text), target, unmatched, &mut complaints);
            assert_eq!(steps.apply(Value::text("z"), target).map_err(|fault| fault.code), wanted, "{place}");
            assert_eq!(
                steps.apply(Value::text(" A"), target).map_err(|fault| fault.code),
                Ok(steps.apply(Value::text("a"), target).expect("listed")),
                "{place}"
            );
        }
    }

    #[test]
    fn a_map_that_cannot_be_inverted_is_noticed() {
        let own = |list: &[(&str, &str)]| {
            let list = list.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect::<Vec<_>>();
            ambiguous_values(&list).iter().map(|text| (*text).to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(own(&[("a", "1"), ("b", "2")]), Vec::<String>::new());
        assert_eq!(own(&[("a", "1"), ("b", "1")]), ["1"]);
        assert_eq!(own(&[("a", "True"), ("A ", "true")]), ["A ", "true"]);
    }
}

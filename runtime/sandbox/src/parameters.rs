//! The parameters of an installation, judged against what the plugin declares, before the guest sees them.

use dualwright_core::Schema;
use rust_decimal::Decimal;
use serde_json::Value as Json;

use crate::bindings::wit;
use crate::description::{Description, Parameter, ParameterKind};

/// One parameter as the guest gets it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Setting {
    pub name: String,
    pub value: SettingValue,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum SettingValue {
    Boolean(bool),
    Integer(i64),
    Decimal(String),
    Text(String),
    Column(u16),
    Texts(Vec<String>),
    Columns(Vec<u16>),
    Pairs(Vec<(String, String)>),
    Json(String),
}

/// All that is wrong with the parameters, or what the guest gets: in the order of the declaration, defaults filled in.
pub(crate) fn resolve(
    description: &Description,
    given: &Json,
    source: Option<&Schema>,
) -> Result<Vec<Setting>, Vec<String>> {
    static EMPTY: std::sync::LazyLock<serde_json::Map<String, Json>> = std::sync::LazyLock::new(Default::default);
    let given = match given {
        Json::Object(given) => given,
        Json::Null => &*EMPTY,
        _ => return Err(vec!["the parameters are not a table of names and values".to_owned()]),
    };
    let mut problems = Vec::new();
    for name in given.keys() {
        if !description.parameters.iter().any(|parameter| parameter.name == *name) {
            let known: Vec<_> = description.parameters.iter().map(|parameter| parameter.name.as_str()).collect();
            problems.push(match known.is_empty() {
                true => format!("parameter {name} is unknown: the plugin has none"),
                false => format!("parameter {name} is unknown: there are {}", known.join(", ")),
            });
        }
    }
    let mut settings = Vec::with_capacity(description.parameters.len());
    for parameter in &description.parameters {
        let Some(value) = given.get(&parameter.name).or(parameter.default.as_ref()) else {
            if parameter.required {
                problems.push(format!("parameter {} is required: {}", parameter.name, parameter.text));
            }
            continue;
        };
        match parameter.resolve(value, source) {
            Ok(value) => settings.push(Setting { name: parameter.name.clone(), value }),
            Err(what) => problems.push(format!("parameter {} {what}", parameter.name)),
        }
    }
    if problems.is_empty() { Ok(settings) } else { Err(problems) }
}

impl Parameter {
    fn resolve(&self, value: &Json, source: Option<&Schema>) -> Result<SettingValue, String> {
        let text = |value: &Json| value.as_str().map(str::to_owned);
        let texts = |value: &Json| value.as_array()?.iter().map(text).collect::<Option<Vec<_>>>();
        let column = |name: &str| {
            let index = source.and_then(|source| source.index_of(name));
            match index.and_then(|index| u16::try_from(index).ok()) {
                Some(index) => Ok(index),
                None => Err(format!("names the column {name}, which is not granted or does not exist")),
            }
        };
        Ok(match self.kind {
            ParameterKind::Boolean => SettingValue::Boolean(value.as_bool().ok_or("must be true or false")?),
            ParameterKind::Integer => {
                let number = value.as_i64().ok_or("must be a whole number")?;
                self.in_range(Decimal::from(number))?;
                SettingValue::Integer(number)
            }
            ParameterKind::Decimal => {
                // A number of the configuration, or digits as text where a float would not be exact.
                let digits = match value {
                    Json::Number(number) => number.to_string(),
                    Json::String(digits) => digits.clone(),
                    _ => return Err("must be a number".to_owned()),
                };
                let number: Decimal = digits
                    .parse()
                    .or_else(|_| Decimal::from_scientific(&digits))
                    .map_err(|_| "must be a number of at most 28 digits".to_owned())?;
                self.in_range(number)?;
                SettingValue::Decimal(number.to_string())
            }
            ParameterKind::Text => SettingValue::Text(text(value).ok_or("must be a text")?),
            ParameterKind::Choice => match value.as_str() {
                Some(option) if self.options.iter().any(|known| known == option) => {
                    SettingValue::Text(option.to_owned())
                }
                _ => return Err(format!("must be one of {}", self.options.join(", "))),
            },
            ParameterKind::Column => SettingValue::Column(column(value.as_str().ok_or("must name a column")?)?),
            ParameterKind::Texts => SettingValue::Texts(texts(value).ok_or("must be a list of texts")?),
            ParameterKind::Columns => {
                let names = texts(value).ok_or("must be a list of columns")?;
                SettingValue::Columns(names.iter().map(|name| column(name)).collect::<Result<_, _>>()?)
            }
            ParameterKind::Pairs => {
                let pairs = value.as_object().and_then(|pairs| {
                    let pair = |(name, value): (&String, &Json)| match value {
                        Json::String(text) => Some((name.clone(), text.clone())),
                        Json::Number(number) => Some((name.clone(), number.to_string())),
                        Json::Bool(boolean) => Some((name.clone(), boolean.to_string())),
                        _ => None,
                    };
                    pairs.iter().map(pair).collect()
                });
                SettingValue::Pairs(pairs.ok_or("must be a table of names and texts")?)
            }
            ParameterKind::Json => SettingValue::Json(value.to_string()),
        })
    }

    fn in_range(&self, number: Decimal) -> Result<(), String> {
        match (self.minimum, self.maximum) {
            (Some(minimum), _) if number < minimum => Err(format!("must be at least {minimum}")),
            (_, Some(maximum)) if maximum < number => Err(format!("must be at most {maximum}")),
            _ => Ok(()),
        }
    }
}

/// Settings in the shape that crosses, borrowing from their owner.
pub(crate) struct Lent<'a> {
    texts: Vec<Vec<&'a str>>,
    pairs: Vec<Vec<(&'a str, &'a str)>>,
    settings: &'a [Setting],
}

impl<'a> Lent<'a> {
    pub fn new(settings: &'a [Setting]) -> Self {
        let mut lent = Self { texts: Vec::new(), pairs: Vec::new(), settings };
        for setting in settings {
            match &setting.value {
                SettingValue::Texts(texts) => lent.texts.push(texts.iter().map(String::as_str).collect()),
                SettingValue::Pairs(pairs) => {
                    lent.pairs.push(pairs.iter().map(|(name, text)| (name.as_str(), text.as_str())).collect());
                }
                _ => {}
            }
        }
        lent
    }

    pub fn lend(&self) -> Vec<wit::Setting<'_>> {
        let (mut texts, mut pairs) = (self.texts.iter(), self.pairs.iter());
        self.settings
            .iter()
            .map(|setting| wit::Setting {
                name: &setting.name,
                value: match &setting.value {
                    SettingValue::Boolean(value) => wit::SettingValue::Boolean(*value),
                    SettingValue::Integer(value) => wit::SettingValue::Integer(*value),
                    SettingValue::Decimal(value) => wit::SettingValue::Decimal(value),
                    SettingValue::Text(value) => wit::SettingValue::Text(value),
                    SettingValue::Column(value) => wit::SettingValue::Column(*value),
                    SettingValue::Texts(_) => wit::SettingValue::Texts(texts.next().map_or(&[], Vec::as_slice)),
                    SettingValue::Columns(value) => wit::SettingValue::Columns(value),
                    SettingValue::Pairs(_) => wit::SettingValue::Pairs(pairs.next().map_or(&[], Vec::as_slice)),
                    SettingValue::Json(value) => wit::SettingValue::Json(value),
                },
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use dualwright_core::{Column, Kind, SystemKind};
    use serde_json::json;

    use super::*;

    fn parameter(name: &str, kind: ParameterKind) -> Parameter {
        Parameter {
            name: name.into(),
            kind,
            required: false,
            default: None,
            options: vec![],
            minimum: None,
            maximum: None,
            text: "what it is for".into(),
        }
    }

    fn description() -> Description {
        use ParameterKind as P;
        Description {
            name: "p".into(),
            version: "1.0.0".into(),
            text: String::new(),
            parameters: vec![
                Parameter { required: true, ..parameter("limit", P::Decimal) },
                Parameter {
                    default: Some(json!(3)),
                    minimum: Some(1.into()),
                    maximum: Some(9.into()),
                    ..parameter("count", P::Integer)
                },
                Parameter { options: vec!["upper".into(), "lower".into()], ..parameter("case", P::Choice) },
                parameter("column", P::Column),
                parameter("columns", P::Columns),
                parameter("words", P::Texts),
                parameter("pairs", P::Pairs),
                parameter("strict", P::Boolean),
                parameter("rules", P::Json),
            ],
            columns: vec![],
            issues: vec![],
            idempotent: true,
            reads_before: false,
        }
    }

    fn source() -> Schema {
        Schema::new(
            SystemKind::Finops,
            "T",
            "Ts",
            vec![Column::new("Name", Kind::Text), Column::new("Currency", Kind::Text)],
        )
    }

    #[test]
    fn parameters_reach_the_guest_in_their_kind() {
        let given = json!({
            "limit": "12.50", "case": "upper", "column": "CURRENCY", "columns": ["Name"], "words": ["a", "b"],
            "pairs": {"JPY": 0, "EUR": "2"}, "strict": true, "rules": {"x": [1]},
        });
        let settings = resolve(&description(), &given, Some(&source())).unwrap();
        let shown: Vec<String> =
            settings.iter().map(|setting| format!("{} {:?}", setting.name, setting.value)).collect();
        assert_eq!(
            shown,
            [
                r#"limit Decimal("12.50")"#,
                "count Integer(3)",
                r#"case Text("upper")"#,
                "column Column(1)",
                "columns Columns([0])",
                r#"words Texts(["a", "b"])"#,
                r#"pairs Pairs([("EUR", "2"), ("JPY", "0")])"#,
                "strict Boolean(true)",
                r#"rules Json("{\"x\":[1]}")"#,
            ]
        );
        let lent = Lent::new(&settings);
        assert_eq!(lent.lend().len(), 9);
        assert_eq!(description().columns_in(&given), ["CURRENCY", "Name"]);
    }

    #[test]
    fn all_problems_are_reported_at_once() {
        let given = json!({
            "count": 12, "case": "title", "column": "Nmae", "columns": "Name", "words": [1], "pairs": {"a": []},
            "strict": "yes", "colour": 1,
        });
        let problems = resolve(&description(), &given, Some(&source())).unwrap_err();
        assert_eq!(
            problems,
            [
                "parameter colour is unknown: there are limit, count, case, column, columns, words, pairs, strict, rules",
                "parameter limit is required: what it is for",
                "parameter count must be at most 9",
                "parameter case must be one of upper, lower",
                "parameter column names the column Nmae, which is not granted or does not exist",
                "parameter columns must be a list of columns",
                "parameter words must be a list of texts",
                "parameter pairs must be a table of names and texts",
                "parameter strict must be true or false",
            ]
        );
        assert_eq!(
            resolve(&description(), &json!([]), None).unwrap_err(),
            ["the parameters are not a table of names and values"]
        );
    }
}

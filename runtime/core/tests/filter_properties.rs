//! What holds for every filter: reading never panics, writing loses nothing, and the query made of a filter never leaves
//! out a row that the filter takes.

mod entropy;

use std::sync::Arc;

use dualwright_core::filter::{
    ColumnName, Comparison, Expression, Filter, Literal, Nulls, Pattern, Place, parse_dataverse, parse_finops,
};
use dualwright_core::value::MICROS_PER_DAY;
use dualwright_core::{Column, Kind, Schema, SystemKind, Value};
use dualwright_odata::Literal as Remote;
use dualwright_odata::filter as remote;
use entropy::Entropy;
use rust_decimal::Decimal;
use uuid::Uuid;

const SYSTEMS: [SystemKind; 2] = [SystemKind::Finops, SystemKind::Dataverse];

fn parse(system: SystemKind, text: &str) -> Option<Expression> {
    match system {
        SystemKind::Finops => parse_finops(text).ok(),
        SystemKind::Dataverse => parse_dataverse(text).ok(),
    }
}

fn schema(system: SystemKind) -> Schema {
    let options: Arc<[(Arc<str>, i64)]> = Arc::from([(Arc::from("None"), 0), (Arc::from("Some"), 1)]);
    let choice = match system {
        SystemKind::Finops => {
            Column { options, enumeration: Some(Arc::from("E")), ..Column::new("choice", Kind::Choice) }
        }
        SystemKind::Dataverse => Column::new("choice", Kind::Int64),
    };
    Schema::new(
        system,
        "t",
        "ts",
        vec![
            Column::new("text", Kind::Text),
            Column { required: true, ..Column::new("key", Kind::Text) },
            Column::new("amount", Kind::Decimal),
            Column::new("count", Kind::Int64),
            Column::new("flag", Kind::Boolean),
            Column::new("day", Kind::Timestamp),
            Column::new("parent", Kind::Lookup),
            choice,
        ],
    )
}

const TEXT_COLUMNS: [&str; 2] = ["text", "key"];
const COMPARISONS: [Comparison; 6] = [
    Comparison::Equal,
    Comparison::NotEqual,
    Comparison::Less,
    Comparison::LessOrEqual,
    Comparison::Greater,
    Comparison::GreaterOrEqual,
];

/// A tree that a person could have written for [`schema`].
fn expression(entropy: &mut Entropy<'_>, system: SystemKind, depth: usize) -> Expression {
    let list = |entropy: &mut Entropy<'_>| {
        (0..2 + entropy.below(2)).map(|_| expression(entropy, system, depth - 1)).collect::<Vec<_>>()
    };
    match entropy.below(if depth == 0 { 2 } else { 5 }) {
        0 => comparison(entropy, system),
        1 => pattern(entropy, system),
        2 => Expression::And(list(entropy)),
        3 => Expression::Or(list(entropy)),
        _ => Expression::Not(Box::new(expression(entropy, system, depth - 1))),
    }
}

fn column(name: &str) -> ColumnName {
    ColumnName { name: name.to_owned(), at: Place::default() }
}

fn pattern(entropy: &mut Entropy<'_>, system: SystemKind) -> Expression {
    let text = entropy.text();
    let pattern = match (system, entropy.below(3)) {
        (SystemKind::Finops, 0) => Pattern::Like(format!("{text}*")),
        (SystemKind::Finops, 1) => Pattern::Like(format!("*{text}*")),
        (SystemKind::Finops, _) => Pattern::Like(text),
        (SystemKind::Dataverse, 0) => Pattern::StartsWith(text),
        (SystemKind::Dataverse, 1) => Pattern::Contains(text),
        (SystemKind::Dataverse, _) => Pattern::EndsWith(text),
    };
    Expression::Match { column: column(entropy.one_of(&TEXT_COLUMNS)), pattern }
}

fn comparison(entropy: &mut Entropy<'_>, system: SystemKind) -> Expression {
    let equality = |entropy: &mut Entropy<'_>| entropy.one_of(&COMPARISONS[..2]);
    let (name, comparison, literal) = match entropy.below(7) {
        0 => {
            let text = Literal::Text(entropy.text());
            (entropy.one_of(&TEXT_COLUMNS), entropy.one_of(&COMPARISONS), text)
        }
        1 => ("amount", entropy.one_of(&COMPARISONS), Literal::Number(Decimal::new(entropy.number(), 2))),
        2 => ("count", entropy.one_of(&COMPARISONS), Literal::Number(Decimal::from(entropy.number()))),
        3 => ("flag", equality(entropy), Literal::Boolean(entropy.flip())),
        4 => ("day", entropy.one_of(&COMPARISONS), Literal::Instant(entropy.number() * MICROS_PER_DAY)),
        5 if system == SystemKind::Dataverse => {
            ("parent", equality(entropy), Literal::Guid(Uuid::from_u128(entropy.below(3) as u128)))
        }
        6 if system == SystemKind::Dataverse => {
            let names = ["text", "amount", "count", "flag", "day", "parent"];
            (entropy.one_of(&names), equality(entropy), Literal::Null)
        }
        _ if system == SystemKind::Dataverse => ("choice", equality(entropy), Literal::Number(Decimal::ONE)),
        _ => {
            let symbol =
                Literal::Member { enumeration: "E".to_owned(), symbol: entropy.one_of(&["None", "some"]).to_owned() };
            ("choice", equality(entropy), symbol)
        }
    };
    Expression::Compare { column: column(name), comparison, literal, literal_at: Place::default() }
}

/// A row as each side judges it: its values here, and what the system itself compares.
fn row(entropy: &mut Entropy<'_>, system: SystemKind) -> (Vec<Value>, Vec<Remote>) {
    let (mut values, mut remotes) = (Vec::new(), Vec::new());
    for column in schema(system).columns() {
        // A missing value of F&O comes as the empty one, and is null in the view behind; a key is never missing.
        let missing = entropy.below(4) == 0 && !(system == SystemKind::Finops && column.required);
        let (value, remote) = match column.kind {
            _ if missing => (Value::Null, Remote::Null),
            Kind::Text => {
                let text = entropy.text();
                // Dataverse stores no blank texts.
                match (system, text.trim_end().is_empty()) {
                    (SystemKind::Dataverse, true) => (Value::Null, Remote::Null),
                    _ => (Value::text(&text), Remote::Text(text)),
                }
            }
            Kind::Decimal => {
                let number = Decimal::new(entropy.number(), 2);
                (Value::Decimal(number), Remote::Number(number))
            }
            Kind::Int64 => {
                let number = if &*column.name == "choice" { 1 } else { entropy.number() };
                (Value::Int(number), Remote::integer(number))
            }
            Kind::Boolean => {
                let value = entropy.flip();
                (Value::Boolean(value), Remote::Boolean(value))
            }
            Kind::Timestamp => {
                let micros = entropy.number() * MICROS_PER_DAY;
                (Value::Timestamp(micros), Remote::DateTime(micros))
            }
            Kind::Lookup => {
                let id = Uuid::from_u128(entropy.below(3) as u128);
                (Value::Guid(id), Remote::Guid(id))
            }
            _ => {
                let symbol = entropy.one_of(&["None", "Some"]);
                (Value::text(symbol), Remote::Text(symbol.to_owned()))
            }
        };
        values.push(value);
        remotes.push(remote);
    }
    (values, remotes)
}

#[test]
fn any_text_is_read_or_refused() {
    bolero::check!().with_type::<String>().for_each(|text| {
        for system in SYSTEMS {
            match Filter::read(system, text, &schema(system)) {
                Ok(filter) => {
                    let _ = filter.matches(&[]);
                    let _ = filter.remote(&schema(system));
                }
                Err(error) => {
                    assert!(error.at <= text.chars().count());
                    assert!(error.pointed(text).ends_with('^'));
                }
            }
        }
    });
}

/// Texts made of what filters are made of reach further into the readers than any text does.
#[test]
fn any_words_are_read_or_refused_and_written_again() {
    const WORDS: [&str; 40] = [
        "text",
        "amount",
        "choice",
        "day",
        "(",
        ")",
        "==",
        "!=",
        "=",
        "<",
        ">=",
        "!",
        "&&",
        "||",
        "like",
        ":",
        "..",
        ",",
        "\"a*\"",
        "'b'",
        "1",
        "-2.50",
        "23\\06\\2021",
        "E::Some",
        "eq",
        "ne",
        "gt",
        "and",
        "or",
        "not",
        "null",
        "true",
        "contains(",
        "startswith(",
        "2021-06-23",
        "00000000-0000-0000-0000-000000000001",
        "_parent_value",
        "a*",
        ">",
        "''",
    ];
    bolero::check!().with_type::<Vec<u8>>().for_each(|bytes| {
        let mut entropy = Entropy::new(bytes);
        let text = (0..bytes.len()).map(|_| entropy.one_of(&WORDS)).collect::<Vec<_>>().join(" ");
        for system in SYSTEMS {
            if let Some(tree) = parse(system, &text) {
                let written = tree.written(system).to_string();
                assert_eq!(parse(system, &written).as_ref(), Some(&tree), "{text} was written as {written}");
            }
        }
    });
}

#[test]
fn a_tree_that_is_written_and_read_is_the_same_tree() {
    bolero::check!().with_type::<Vec<u8>>().for_each(|bytes| {
        for system in SYSTEMS {
            let tree = expression(&mut Entropy::new(bytes), system, 3);
            let written = tree.written(system).to_string();
            assert_eq!(parse(system, &written).as_ref(), Some(&tree), "{written}");
        }
    });
}

#[test]
fn a_query_never_leaves_out_a_row_that_the_filter_takes() {
    bolero::check!().with_type::<(Vec<u8>, Vec<u8>)>().for_each(|(tree, cells)| {
        for (system, nulls) in [
            (SystemKind::Finops, Nulls::EmptyValue),
            (SystemKind::Finops, Nulls::Unknown),
            (SystemKind::Dataverse, Nulls::EmptyValue),
        ] {
            let schema = schema(system);
            let text = expression(&mut Entropy::new(tree), system, 2).written(system).to_string();
            let Ok(filter) = Filter::read_with(system, &text, &schema, nulls) else { continue };
            let Some(query) = filter.remote(&schema) else { continue };
            let asked =
                remote::parse(&query.text).unwrap_or_else(|error| panic!("{text} became {}: {error}", query.text));
            let (values, remotes) = row(&mut Entropy::new(cells), system);
            let cell = |name: &str| {
                let bare = name.strip_prefix('_').and_then(|name| name.strip_suffix("_value")).unwrap_or(name);
                schema.index_of(bare).map_or(Remote::Null, |index| remotes[index].clone())
            };
            let (here, there) = (filter.matches(&values), remote::matches(&with_wildcards(asked), &cell));
            assert!(there || !here, "{text} takes {values:?}, {} does not", query.text);
            assert!(!query.exact || here == there, "{} is not exactly {text} on {values:?}", query.text);
        }
    });
}

/// F&O takes a star at an end of a text for anything.
fn with_wildcards(expression: remote::Expression) -> remote::Expression {
    use remote::{Comparison, Expression, Operand, TextFunction};
    match expression {
        Expression::And(list) => Expression::And(list.into_iter().map(with_wildcards).collect()),
        Expression::Or(list) => Expression::Or(list.into_iter().map(with_wildcards).collect()),
        Expression::Not(inner) => Expression::Not(Box::new(with_wildcards(*inner))),
        Expression::Compare { left, operator: Comparison::Equal, right: Operand::Literal(Remote::Text(text)) }
            if text.trim_matches('*').len() < text.len() =>
        {
            let function = match (text.starts_with('*'), text.ends_with('*')) {
                (true, true) => TextFunction::Contains,
                (true, false) => TextFunction::EndsWith,
                _ => TextFunction::StartsWith,
            };
            let part = Operand::Literal(Remote::text(text.trim_matches('*')));
            Expression::Text { function, operand: left, part }
        }
        other => other,
    }
}

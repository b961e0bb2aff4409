//! What holds for every map, shipped or not: it is written and read again without a difference, in every encoding, and
//! validation answers instead of failing.

mod entropy;

use std::sync::Arc;

use dualwright_core::mapping::{
    DataversePath, Document, Encoding, FieldDirection, FieldMapping, Leg, Mapping, Transform, differences,
};
use dualwright_core::plan::{PlanInput, PlanSettings, compile};
use dualwright_core::schema::{Lookup, LookupTarget};
use dualwright_core::{Column, Kind, Schema, SystemKind, Value};
use entropy::Entropy;

const DIRECTIONS: [FieldDirection; 3] = [FieldDirection::ToDataverse, FieldDirection::ToFinops, FieldDirection::Both];
const FINOPS: [&str; 5] = ["ACCOUNT", "NAME", "AMOUNT", "STATUS", "DAY"];
const DATAVERSE: [&str; 8] =
    ["account", "name", "amount", "status", "day", "parent.account", "any.Thing(account).Other(name)", "nowhere"];

/// Trimmed and not empty, as a reader leaves a text that a map needs.
fn word(entropy: &mut Entropy<'_>) -> String {
    let text = entropy.text().trim().to_owned();
    if text.is_empty() { "x".to_owned() } else { text }
}

fn transform(entropy: &mut Entropy<'_>) -> Transform {
    match entropy.below(3) {
        0 => Transform::Default { value: entropy.text() },
        1 => Transform::Truncate { length: entropy.below(20) as u32 },
        _ => Transform::ValueMap {
            pairs: (0..entropy.below(4)).map(|_| (entropy.text(), entropy.text())).collect(),
            default: entropy.flip().then(|| word(entropy)),
        },
    }
}

fn field(entropy: &mut Entropy<'_>) -> FieldMapping {
    FieldMapping {
        direction: entropy.one_of(&DIRECTIONS),
        finops: (entropy.below(4) > 0).then(|| entropy.one_of(&FINOPS).to_owned()),
        dataverse: (entropy.below(6) > 0)
            .then(|| DataversePath::parse(entropy.one_of(&DATAVERSE)).expect("a path of the list")),
        transforms: (0..entropy.below(3)).map(|_| transform(entropy)).collect(),
        related_set: entropy.flip().then(|| word(entropy)),
    }
}

fn mapping(entropy: &mut Entropy<'_>) -> Mapping {
    let filter = |entropy: &mut Entropy<'_>, choices: &[&str]| entropy.one_of(choices).to_owned();
    let leg = |entropy: &mut Entropy<'_>| Leg {
        finops_entity: word(entropy),
        finops_distinct_name: entropy.flip().then(|| word(entropy)),
        dataverse_set: word(entropy),
        finops_filter: filter(entropy, &["", r#"(NAME != "a")"#, "AMOUNT: 1..2"]),
        dataverse_filter: filter(entropy, &["", "amount gt 1", "name eq"]),
        fields: (0..=entropy.below(5)).map(|_| field(entropy)).collect(),
    };
    Mapping { name: word(entropy), legs: (0..=entropy.below(2)).map(|_| leg(entropy)).collect() }
}

#[test]
fn a_map_that_is_written_and_read_is_the_same_map() {
    bolero::check!().with_type::<Vec<u8>>().for_each(|bytes| {
        let map = mapping(&mut Entropy::new(bytes));
        let text = map.to_json();
        let document = Document::parse(&text).unwrap_or_else(|problems| panic!("{problems:?}\n{text}"));
        assert_eq!(document.mapping(), &map);
        assert_eq!(differences(&map, document.mapping()), []);
        for encoding in [Encoding::Plain, Encoding::Double, Encoding::Row] {
            let exported = document.export(encoding, document.facts());
            let again = Document::parse(&exported).expect("what is exported is read");
            assert_eq!(again.mapping(), &map, "{exported}");
            assert_eq!(again.export(Encoding::Plain, again.facts()), text);
        }
    });
}

#[test]
fn two_maps_differ_in_words_when_they_differ() {
    bolero::check!().with_type::<(Vec<u8>, Vec<u8>)>().for_each(|(before, after)| {
        let (before, after) = (mapping(&mut Entropy::new(before)), mapping(&mut Entropy::new(after)));
        let sorted = |map: &Mapping| {
            let mut map = map.clone();
            map.legs.iter_mut().for_each(|leg| leg.fields.sort_by_key(|field| format!("{field:?}")));
            map
        };
        let same = sorted(&before) == sorted(&after);
        // Pairs of a value map have no order either.
        if same {
            assert_eq!(differences(&before, &after), []);
        } else if differences(&before, &after).is_empty() {
            let maps = |map: &Mapping| {
                let fields = map.legs.iter().flat_map(|leg| &leg.fields);
                fields.flat_map(|field| &field.transforms).any(|one| matches!(one, Transform::ValueMap { .. }))
            };
            assert!(maps(&before) && maps(&after), "{before:?}\n{after:?}");
        }
    });
}

#[test]
fn validation_answers_for_any_map_and_a_plan_carries_any_row() {
    let target = |table: &str| LookupTarget {
        table: Arc::from(table),
        set: Arc::from(format!("{}s", table.to_lowercase())),
        navigation_property: Arc::from(table),
    };
    let thing = Arc::new(Schema::new(
        SystemKind::Dataverse,
        "thing",
        "things",
        vec![
            Column::new("account", Kind::Text),
            Column { length_max: Some(5), ..Column::new("name", Kind::Text) },
            Column { scale: Some(2), ..Column::new("amount", Kind::Money) },
            Column::new("status", Kind::Int64),
            Column::new("day", Kind::Date),
            Column { lookup: Some(Lookup { targets: vec![target("Thing")] }), ..Column::new("parent", Kind::Lookup) },
            Column {
                lookup: Some(Lookup { targets: vec![target("Thing"), target("Other")] }),
                ..Column::new("any", Kind::Lookup)
            },
        ],
    ));
    let options: Arc<[(Arc<str>, i64)]> = Arc::from([(Arc::from("a"), 0), (Arc::from("b"), 1)]);
    let finops = Schema::new(
        SystemKind::Finops,
        "Thing",
        "Things",
        vec![
            Column::new("Account", Kind::Text),
            Column::new("Name", Kind::Text),
            Column::new("Amount", Kind::Decimal),
            Column { options, ..Column::new("Status", Kind::Choice) },
            Column::new("Day", Kind::Timestamp),
        ],
    );
    let key = ["account".to_owned()];
    bolero::check!().with_type::<(Vec<u8>, Vec<u8>)>().for_each(|(map, cells)| {
        for leg in mapping(&mut Entropy::new(map)).legs {
            let input = PlanInput {
                leg: &leg,
                finops: &finops,
                dataverse: &thing,
                integration_key: &key,
                tables: &|_| Some(Arc::clone(&thing)),
                key_of_set: &|_| Some(key.to_vec()),
                settings: PlanSettings::default(),
            };
            match compile(&input) {
                Err(problems) => assert!(problems.iter().all(|problem| !problem.remedy.is_empty())),
                Ok(plan) => {
                    let mut entropy = Entropy::new(cells);
                    for (flow, source) in [(&plan.to_dataverse, &finops), (&plan.to_finops, &*thing)] {
                        let Some(flow) = flow else { continue };
                        let row = source.columns().iter().map(|column| cell(&mut entropy, column)).collect::<Vec<_>>();
                        let _ = flow.key(&row, &());
                        if let Ok(fields) = flow.project(&row, &()) {
                            let _ = flow.finish(&fields, None, &|_| None, true);
                        }
                    }
                }
            }
        }
    });
}

fn cell(entropy: &mut Entropy<'_>, column: &Column) -> Value {
    match (entropy.below(4), column.kind) {
        (0, _) => Value::Null,
        (1, _) => Value::Absent,
        (_, Kind::Text | Kind::Choice) => Value::text(entropy.text()),
        (_, Kind::Decimal | Kind::Money) => Value::Decimal(rust_decimal::Decimal::new(entropy.number(), 3)),
        (_, Kind::Int64) => Value::Int(entropy.number()),
        (_, Kind::Date) => Value::Date(entropy.number() as i32),
        (_, Kind::Timestamp) => Value::Timestamp(entropy.number() * 1_000_003),
        _ => Value::Guid(uuid::Uuid::from_u128(7)),
    }
}

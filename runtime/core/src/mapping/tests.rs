//! Decision tables of the shape of a map.

use super::*;

/// A map with one leg whose field mappings are these.
fn with_fields(fields: &str) -> String {
    format!(
        r#"{{"name":"m","legs":[{{"sourceSchema":"Customers V3","destinationSchema":"accounts",
        "sourceFilter":null,"reversedSourceFilter":" a eq 1 ","fieldMappings":[{fields}]}}]}}"#
    )
}

fn one_field(field: &str) -> Result<FieldMapping, Vec<Problem>> {
    let map = Mapping::parse(&with_fields(field))?;
    Ok(map.legs[0].fields[0].clone())
}

#[test]
fn directions_in_every_spelling() {
    use FieldDirection::{Both, ToDataverse, ToFinops};
    let cases = [
        ("1", ToDataverse),
        ("2", ToFinops),
        ("3", Both),
        (r#""1""#, ToDataverse),
        (r#"" 3 ""#, Both),
        (r#""Bidirectional""#, Both),
        (r#""Forward""#, ToDataverse),
        (r#""CEOnly""#, ToFinops),
        (r#""><""#, Both),
    ];
    for (written, wanted) in cases {
        let field = format!(r#"{{"syncDirection":{written},"sourceField":"A","destinationField":"b"}}"#);
        assert_eq!(one_field(&field).expect(written).direction, wanted, "{written}");
    }
}

#[test]
fn paths() {
    let path = |column: &str, reference| DataversePath { column: column.to_owned(), reference };
    let list = |steps: &[&str]| steps.iter().map(|step| (*step).to_owned()).collect::<Vec<_>>();
    let cases = [
        ("accountnumber", path("accountnumber", Reference::None)),
        ("a.b", path("a", Reference::Path(list(&["b"])))),
        ("a.b.c", path("a", Reference::Path(list(&["b", "c"])))),
        (
            "customerid.Account(accountnumber).Contact(msdyn_contactpersonid)",
            path(
                "customerid",
                Reference::ByTable(vec![
                    ("Account".to_owned(), list(&["accountnumber"])),
                    ("Contact".to_owned(), list(&["msdyn_contactpersonid"])),
                ]),
            ),
        ),
    ];
    for (text, wanted) in cases {
        let parsed = DataversePath::parse(text).expect(text);
        assert_eq!(parsed, wanted);
        assert_eq!(parsed.to_string(), text);
    }
    for text in [
        "",
        ".",
        "a.",
        ".a",
        "a..b",
        "a b",
        "a.B(c",
        "a.B(c)d",
        "a.B()",
        "B(c)",
        "a.b.B(c)",
        "a.ä",
        "a.b.c.d.e.f.g.h.i",
    ] {
        assert!(DataversePath::parse(text).is_err(), "{text}");
    }
}

#[test]
fn columns_that_are_none() {
    let cases = [
        (r#""sourceField":"none","destinationField":"a""#, None, Some("a")),
        (r#""sourceField":"NONE","destinationField":"a""#, None, Some("a")),
        (r#""sourceField":null,"destinationField":"a""#, None, Some("a")),
        (r#""sourceField":"","destinationField":"a""#, None, Some("a")),
        (r#""sourceField":"A","destinationField":"none""#, Some("A"), None),
        (r#""sourceField":"A""#, Some("A"), None),
    ];
    for (columns, finops, dataverse) in cases {
        let field = format!(r#"{{"syncDirection":1,{columns}}}"#);
        let field = one_field(&field).expect(columns);
        let path = field.dataverse.map(|path| path.to_string());
        assert_eq!((field.finops.as_deref(), path.as_deref()), (finops, dataverse), "{columns}");
    }
}

#[test]
fn transforms() {
    let pair = |a: &str, b: &str| (a.to_owned(), b.to_owned());
    let cases = [
        ("null", vec![]),
        ("[]", vec![]),
        (
            r#"[{"transformType":"Default","valueMap":null,"defaultValue":3}]"#,
            vec![Transform::Default { value: "3".to_owned() }],
        ),
        (
            r#"[{"$type":"Microsoft.Dynamics.Integrator.ValueMapTransform","valueMap":{"no":false,"":"x","b":null,"no":"y"},"defaultValue":null}]"#,
            vec![Transform::ValueMap {
                pairs: vec![pair("no", "False"), pair("", "x"), pair("b", ""), pair("no", "y")],
                default: None,
            }],
        ),
        (
            r#"[{"transformType":"valueMap","valueMap":{"a":"1"},"defaultValue":"2"},{"transformType":"Truncate","maxLength":"7"}]"#,
            vec![
                Transform::ValueMap { pairs: vec![pair("a", "1")], default: Some("2".to_owned()) },
                Transform::Truncate { length: 7 },
            ],
        ),
    ];
    for (written, wanted) in cases {
        let field =
            format!(r#"{{"syncDirection":3,"sourceField":"A","destinationField":"b","valueTransforms":{written}}}"#);
        assert_eq!(one_field(&field).expect(written).transforms, wanted, "{written}");
    }
}

#[test]
fn encodings() {
    let text = with_fields(r#"{"syncDirection":3,"sourceField":"A","destinationField":"b"}"#);
    let map = Mapping::parse(&text).expect("a map");
    assert_eq!(map.legs[0].dataverse_filter, "a eq 1");
    assert_eq!(map.legs[0].fields[0].to_string(), "A = b");
    let double = serde_json::to_string(&text).expect("a text");
    let exported = format!(r#"{{"msdyn_name":"x","msdyn_mapping":{double}}}"#);
    for other in [&double, &exported, &format!("\u{feff}{text}")] {
        assert_eq!(Mapping::parse(other).as_ref(), Ok(&map), "{other}");
    }
}

#[test]
fn every_problem_is_told_with_its_place() {
    let cases = [
        ("", "map"),
        ("[]", "map"),
        ("7", "map"),
        (r#""\"\\\"7\\\"\"""#, "map"),
        (r#"{"name":"m"}"#, "legs"),
        (r#"{"legs":[]}"#, "legs"),
        (r#"{"legs":[7]}"#, "legs[0]"),
        (r#"{"legs":[{"sourceSchema":"A","destinationSchema":"b"}]}"#, "legs[0].fieldMappings"),
        (
            r#"{"legs":[{"sourceEnvironmentType":"CRM","destinationSchema":7,"sourceFilter":1,"fieldMappings":[
            {"syncDirection":4,"sourceField":"A.B","destinationField":"b."},
            {"syncDirection":"3","valueTransforms":[{"transformType":"Default"},{"transformType":"ValueMap"},{"transformType":"Truncate"},{"transformType":"Concat"},{}]},
            7]}]}"#,
            "legs[0].sourceEnvironmentType legs[0].sourceSchema legs[0].destinationSchema legs[0].sourceFilter \
             legs[0].fieldMappings[0].syncDirection legs[0].fieldMappings[0].sourceField \
             legs[0].fieldMappings[0].destinationField legs[0].fieldMappings[1] \
             legs[0].fieldMappings[1].valueTransforms[0].defaultValue \
             legs[0].fieldMappings[1].valueTransforms[1].valueMap \
             legs[0].fieldMappings[1].valueTransforms[2].length \
             legs[0].fieldMappings[1].valueTransforms[3].transformType \
             legs[0].fieldMappings[1].valueTransforms[4].transformType legs[0].fieldMappings[2]",
        ),
    ];
    for (text, places) in cases {
        let problems = Mapping::parse(text).expect_err(text);
        let told = problems.iter().map(|problem| problem.place.as_str()).collect::<Vec<_>>().join(" ");
        assert_eq!(told, places, "{text}");
        assert!(problems.iter().all(|problem| !problem.remedy.is_empty()));
    }
    let deep = format!("{}{}", "[".repeat(10_000), "]".repeat(10_000));
    assert!(Mapping::parse(&deep).is_err());
}

#[test]
fn a_document_is_given_out_as_it_came() {
    let plain =
        with_fields(r#"{"syncDirection": "3", "sourceField":"A","destinationField":"b", "xOwn": [1.0, {"k": null}]}"#)
            .replacen('{', r#"{"version": "2.1", "author": "Ada", "#, 1);
    let double = serde_json::to_string(&plain).expect("a text");
    let row = format!(
        r#"{{ "msdyn_name": "sst_[uoms - Units]", "msdyn_version":"3.0.0.9", "msdyn_mapping":{double}, "x": 1 }}"#
    );
    for (text, version, publisher, author) in
        [(&plain, "2.1.0.0", "", "Ada"), (&double, "2.1.0.0", "", "Ada"), (&row, "3.0.0.9", "sst", "Ada")]
    {
        let document = Document::parse(text).expect(text);
        let facts = document.facts().clone();
        assert_eq!(
            (facts.version.to_string().as_str(), facts.publisher.as_str(), facts.author.as_str()),
            (version, publisher, author),
            "{text}"
        );
        assert_eq!(&document.export(Encoding::AsImported, &facts), text);
        assert_eq!(document.export(Encoding::Plain, &facts), plain);
        assert_eq!(document.export(Encoding::Double, &facts), double);
        let row = Document::parse(&document.export(Encoding::Row, &facts)).expect("a row");
        assert_eq!((row.facts().version, &row.facts().publisher), (facts.version, &facts.publisher));
        assert_eq!(row.export(Encoding::Plain, &facts), plain);
    }
}

#[test]
fn versions_have_four_parts() {
    let version = |text: &str| text.parse::<MapVersion>();
    for (text, wanted) in [("1.0.0.7", [1, 0, 0, 7]), ("2", [2, 0, 0, 0]), (" 9.9.9.9 ", [9, 9, 9, 9])] {
        assert_eq!(version(text), Ok(MapVersion(wanted)));
    }
    for text in ["", "1.", "1.0.0.0.0", "a", "-1", "+1", "1.4294967296"] {
        assert!(version(text).is_err(), "{text}");
    }
    assert!(version("1.10").expect("one") > version("1.9.9.9").expect("another"));
    assert_eq!(MapVersion([1, 2, 3, u32::MAX]).next(), MapVersion([1, 2, 4, 0]));
    assert_eq!(serde_json::to_string(&MapVersion::FIRST).expect("JSON"), r#""1.0.0.0""#);
}

/// Each line: what the second map says instead of the first, and how that is told.
#[test]
fn versions_differ_in_words() {
    let map = |fields: &str| Mapping::parse(&with_fields(fields)).expect(fields);
    let field = |rest: &str| format!(r#"{{"sourceField":"A","destinationField":"b",{rest}}}"#);
    let values = |pairs: &str| {
        field(&format!(r#""syncDirection":3,"valueTransforms":[{{"transformType":"ValueMap",{pairs}}}]"#))
    };
    let both = field(r#""syncDirection":3"#);
    let cases = [
        (both.clone(), both.clone(), vec![]),
        (both.clone(), field(r#""syncDirection":1"#), vec!["the field A > b goes to Dataverse only; it went both ways"]),
        (
            both.clone(),
            r#"{"syncDirection":3,"sourceField":"A","destinationField":"c.d","destinationLookupFieldRelatedEntity":"cs"}"#
                .to_owned(),
            vec![
                "the field A = c.d maps c.d of Dataverse; it mapped b",
                "the field A = c.d refers to cs; it referred to no table by name",
            ],
        ),
        (
            both.clone(),
            r#"{"syncDirection":3,"sourceField":"Z","destinationField":"b"}"#.to_owned(),
            vec!["the field Z = b maps Z of F&O; it mapped A"],
        ),
        (
            format!(r#"{both},{{"syncDirection":2,"sourceField":"C","destinationField":"d"}}"#),
            format!(
                r#"{{"syncDirection":1,"destinationField":"e","valueTransforms":[{{"transformType":"Default","defaultValue":"3"}}]}},{both}"#
            ),
            vec!["the field C < d is gone", "the field none >> e is new, with a default of `3`"],
        ),
        (
            values(r#""valueMap":{"no":"0","yes":"1","old":"2"}"#),
            values(r#""valueMap":{"yes":"7","no":"0","new":"3"},"defaultValue":"0""#),
            vec![
                "the field A >< b maps the value `yes` to `7`; it was `1`",
                "the field A >< b maps the value `new` to `3`; it did not list it",
                "the field A >< b does not list the value `old` any more",
                "the field A >< b gives other values `0`; it gave them nothing",
            ],
        ),
        (
            values(r#""valueMap":{"no":"0"}"#),
            field(r#""syncDirection":3,"valueTransforms":[{"transformType":"Truncate","length":5}]"#),
            vec!["the field A >< b transforms by a cut at 5 characters; it did by a value map of 1 value"],
        ),
    ];
    for (before, after, wanted) in cases {
        let found = differences(&map(&before), &map(&after));
        let found = found.iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(found, wanted, "{before} | {after}");
    }
    let mut other = map(&both);
    other.legs[0].finops_filter = "A == 1".to_owned();
    other.name = "n".to_owned();
    let found = differences(&map(&both), &other);
    let found = found.iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(found, ["the name is `n`; it was `m`", "the filter on F&O is `A == 1`; it was nothing"]);
}

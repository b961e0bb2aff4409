use std::str::FromStr;
use std::sync::Arc;

use super::*;
use crate::value::parse_timestamp;

fn schema(system: SystemKind) -> Schema {
    let options = Arc::from([(Arc::from("Person"), 1), (Arc::from("Organization"), 2)]);
    let no_yes = Arc::from([(Arc::from("No"), 0), (Arc::from("Yes"), 1)]);
    Schema::new(
        system,
        "t",
        "ts",
        vec![
            Column::new("Name", Kind::Text),
            Column::new("Amount", Kind::Decimal),
            Column { options, ..Column::new("PartyType", Kind::Choice) },
            Column::new("ValidFrom", Kind::Timestamp),
            Column::new("sellable", Kind::Boolean),
            Column::new("msdyn_company", Kind::Lookup),
            Column { options: no_yes, ..Column::new("IsB2B", Kind::Choice) },
        ],
    )
}

/// A row of those columns.
fn row(name: &str, amount: &str, party: &str, date: &str, sellable: Option<bool>) -> Vec<Value> {
    let some = |text: &str, read: fn(&str) -> Value| if text.is_empty() { Value::Null } else { read(text) };
    vec![
        some(name, |text| Value::text(text)),
        some(amount, |text| Value::Decimal(Decimal::from_str(text).expect("a number"))),
        some(party, |text| Value::text(text)),
        some(date, |text| Value::Timestamp(parse_timestamp(text).expect("a date"))),
        sellable.map_or(Value::Null, Value::Boolean),
        Value::Guid(Uuid::from_u128(7)),
        Value::text("Yes"),
    ]
}

#[test]
fn rows_pass_or_not() {
    use SystemKind::{Dataverse, Finops};
    let full = row("Ärger  ", "10.50", "Organization", "2021-06-23", Some(true));
    let empty = row("", "", "", "", None);
    // filter, whether the full row passes, whether the empty row passes
    let cases = [
        (Finops, r#"((PartyType == "Organization"))"#, true, false),
        (Finops, r#"(partytype = 2)"#, true, false),
        (Finops, r#"PartyType == DirPartyType::person"#, false, true),
        (Finops, r#"PartyType != "Person""#, true, false),
        (Finops, r#"(IsB2B == 1)"#, true, true),
        (Finops, r#"IsB2B == NoYes::Yes && IsB2B == true"#, true, true),
        (Finops, r#"((NAME != "999"))"#, true, true),
        (Finops, r#"Name == "ärger""#, true, false),
        (Finops, r#"Name == 'ÄRGER '"#, true, false),
        (Finops, r#"(Name like "Ä*r")"#, true, false),
        (Finops, r#"(Name like "?rge?")"#, true, false),
        (Finops, r#"(Name like "*")"#, true, true),
        (Finops, r#"(!(Name like "*g*"))"#, false, true),
        (Finops, r#"(Name != "")"#, true, false),
        (Finops, r#"Name == """#, false, true),
        (Finops, r#"Name > "a" && Name < "z""#, false, false),
        (Finops, r#"((Amount > 10) && (Amount <= 10.5))"#, true, false),
        (Finops, r#"Amount == 0"#, false, true),
        (Finops, r#"Amount >= -1.5"#, true, true),
        (Finops, r#"Amount <> "10.5""#, false, true),
        (Finops, r#"(ValidFrom <= 23\06\2021)"#, true, true),
        (Finops, r#"(ValidFrom < 23\06\2021)"#, false, true),
        (Finops, r#"(ValidFrom == 1\1\1900)"#, false, true),
        (Finops, r#"Name == "x" || Amount == 10.5 && IsB2B == 1"#, true, false),
        (Finops, r#"(Name == "x" || Amount == 10.5) && IsB2B == 0"#, false, false),
        (Finops, r#"Name == "a\"b" || !(Amount == 1)"#, true, true),
        (Finops, r#"Amount: 10..11"#, true, false),
        (Finops, r#"Amount: ..10"#, false, true),
        (Finops, r#"Amount: 10.."#, true, false),
        (Finops, r#"Amount: 1, 10.5"#, true, false),
        (Finops, r#"Amount: >10"#, true, false),
        (Finops, r#"Amount: 0..20, !10.5"#, false, true),
        (Finops, r#"Amount: !0"#, true, false),
        (Finops, r#"Name: ä*, z*"#, true, false),
        (Finops, r#"Name: ?rger"#, true, false),
        (Finops, r#"Name: "ä*""#, false, false),
        (Finops, r#"Name: !*g*"#, false, true),
        (Finops, r#"Name: """#, false, true),
        (Finops, r#"Name: a..b"#, false, false),
        (Finops, r#"(PartyType: 2) && (IsB2B: yes)"#, true, false),
        (Finops, r#"PartyType: Person, 2"#, true, true),
        (Finops, r#"PartyType: !Person && Amount > 1"#, true, false),
        (Finops, r#"ValidFrom: 2021-01-01..2021-12-31"#, true, false),
        (Finops, r#"ValidFrom: 01\01\2021..31\12\2021"#, true, false),
        (Finops, r#"ValidFrom > 2021-06-22T23:59:59"#, true, false),
        (Finops, r#"IsB2B == "1""#, true, true),
        (Finops, "   ", true, true),
        (Dataverse, "name eq 'ärger'", true, false),
        (Dataverse, "name ne 'x'", true, true),
        (Dataverse, "name ne null", true, false),
        (Dataverse, "name eq null", false, true),
        (Dataverse, "name ne ''", true, false),
        (Dataverse, "name lt null", false, false),
        (Dataverse, "startswith(name, 'är')", true, false),
        (Dataverse, "endswith(name,'R')", true, false),
        (Dataverse, "contains(name,'rg') and not contains(name,'x')", true, false),
        (Dataverse, "not contains(name,'rg')", false, true),
        (Dataverse, "amount gt 10 and amount le 2000", true, false),
        (Dataverse, "amount eq 0", false, false),
        (Dataverse, "amount ne 0", true, true),
        (Dataverse, "amount lt 100", true, false),
        (Dataverse, "amount eq '10.50'", true, false),
        (Dataverse, "sellable eq true  and name ne null", true, false),
        (Dataverse, "(sellable eq false) or (amount ge 10.5)", true, false),
        (Dataverse, "sellable ne true", false, true),
        (Dataverse, "validfrom le '2021-06-23'", true, false),
        (Dataverse, "validfrom lt 2021-06-23T00:00:01Z", true, false),
        (Dataverse, "validfrom ge 2021-06-24", false, false),
        (Dataverse, "_msdyn_company_value eq 00000000-0000-0000-0000-000000000007", true, true),
        (Dataverse, "msdyn_company ne 00000000-0000-0000-0000-000000000007", false, false),
        (Dataverse, "name eq 'it''s' or not (amount eq 1)", true, true),
        (Dataverse, "", true, true),
    ];
    for (system, text, takes_full, takes_empty) in cases {
        let filter = Filter::read(system, text, &schema(system)).unwrap_or_else(|error| panic!("{text}: {error}"));
        assert_eq!(filter.matches(&full), takes_full, "{text} on the full row");
        assert_eq!(filter.matches(&empty), takes_empty, "{text} on the empty row");
    }
}

#[test]
fn errors_say_where() {
    use SystemKind::{Dataverse, Finops};
    let deep = format!("{}Name == 1{}", "(".repeat(100), ")".repeat(100));
    let nots = format!("{} name eq 'a'", "not ".repeat(100));
    let cases = [
        (Finops, r#"(Name == "a""#, 13, "a closing parenthesis is missing"),
        (Finops, r#"Name == "a"#, 9, "the text has no closing quote"),
        (Finops, "Name == a", 9, "a is not a value"),
        (Finops, "Name ~ 1", 6, "a comparison was expected"),
        (Finops, "Name like 1", 11, "like needs a text"),
        (Finops, "Name == \"a\")", 12, "unexpected ')'"),
        (Finops, "Name == \"a\" &&", 15, "a column was expected"),
        (Finops, "Äh == 1", 1, "a column was expected"),
        (Finops, "Customer.Name == \"a\"", 9, "a filter can use the columns of the entity only"),
        (Finops, "Amount == \"x\"", 11, "Amount is a Decimal"),
        (Finops, "ValidFrom == 31\\02\\2021", 14, "31\\02\\2021 is neither"),
        (Finops, "PartyType == \"Robot\"", 14, "PartyType has no option"),
        (Finops, "PartyType == 9", 14, "PartyType has no option 9"),
        (Finops, "PartyType > 1", 13, "PartyType is a Choice, which has no order"),
        (Finops, "PartyType == DirPartyType::", 28, "a symbol was expected"),
        (Finops, "Nowhere == 1", 1, "t has no column Nowhere"),
        (Finops, "Amount like \"1*\"", 1, "Amount is a Decimal"),
        (Finops, "Name: ", 7, "a value of the range was expected"),
        (Finops, "Name: a,", 9, "a value of the range was expected"),
        (Finops, "Amount: 1..x", 12, "Amount is a Decimal"),
        (Finops, "ValidFrom: 31\\02\\2021", 12, "31\\02\\2021 is not a date"),
        (Finops, "ValidFrom: Day(0)", 12, "the function Day is not taken"),
        (Finops, "ValidFrom: (Day(0))", 12, "an expression in brackets is no item"),
        (Finops, "ValidFrom == DayRange(-1,1)", 14, "the function DayRange is not taken"),
        (Finops, "dayRange(ValidFrom)", 1, "the function dayRange is not taken"),
        (Finops, deep.as_str(), 66, "the filter is nested"),
        (Dataverse, "name eq", 8, "a value was expected"),
        (Dataverse, "name eq 'a", 9, "the text has no closing quote"),
        (Dataverse, "name eq a", 9, "a is not a value"),
        (Dataverse, "name == 'a'", 6, "a comparison was expected"),
        (Dataverse, "name eq 'a' andd name eq 'b'", 13, "unexpected 'a'"),
        (Dataverse, "tolower(name) eq 'a'", 1, "the function tolower is not known"),
        (Dataverse, "contains(name 'a')", 15, "a comma was expected"),
        (Dataverse, "contains(name, a)", 16, "a text in single quotes"),
        (Dataverse, "owner/name eq 'a'", 6, "a filter can use the columns of the table only"),
        (Dataverse, "sellable eq 'perhaps'", 13, "sellable is a Boolean"),
        (Dataverse, "msdyn_company eq 'x'", 18, "msdyn_company is a Lookup"),
        (Dataverse, "(name eq 'ä' or nowhere eq 1)", 17, "t has no column nowhere"),
        (Dataverse, nots.as_str(), 260, "the filter is nested"),
    ];
    for (system, text, at, message) in cases {
        let error = Filter::read(system, text, &schema(system)).expect_err(text);
        assert!(error.message.starts_with(message), "{text}: {error}");
        assert_eq!(error.at + 1, at, "{text}: {error}");
        assert!(error.to_string().ends_with(&format!("at character {at}")));
    }
}

#[test]
fn a_filter_knows_its_columns() {
    let filter = Filter::read(
        SystemKind::Dataverse,
        "amount gt 1 and (name eq 'a' or amount lt 0)",
        &schema(SystemKind::Dataverse),
    );
    assert_eq!(filter.expect("a filter").columns(), [0, 1]);
}

#[test]
fn patterns() {
    let cases = [
        ("a*", "abc", true),
        ("*c", "abc", true),
        ("*b*", "abc", true),
        ("a?c", "abc", true),
        ("a?c", "ac", false),
        ("", "", true),
        ("", "a", false),
        ("**", "", true),
        ("*aab", "aaaab", true),
        ("*a*b*c", "xaybzc", true),
        ("*a*b*c", "xaybzcd", false),
    ];
    for (pattern, text, wanted) in cases {
        let chars = pattern.chars().collect::<Vec<_>>();
        assert_eq!(pattern::like(&chars, text.chars()), wanted, "{pattern} {text}");
        for text in [text.to_owned(), text.to_uppercase()] {
            assert_eq!(Test::new(&Pattern::Like(pattern.to_owned())).matches(&text), wanted, "{pattern} {text}");
        }
    }
}

#[test]
fn a_caret_points_at_the_character() {
    let schema = schema(SystemKind::Finops);
    let cases = [
        ("Name ~ 1", "Name ~ 1\n     ^"),
        ("(Name == \"Ä\"", "(Name == \"Ä\"\n            ^"),
        ("Name\t==\n7 7", "Name == 7 7\n          ^"),
    ];
    for (text, wanted) in cases {
        let error = Filter::read(SystemKind::Finops, text, &schema).expect_err(text);
        assert_eq!(error.pointed(text), wanted, "{text}");
    }
    let long = format!("{} && Nowhere == 1 && {}", vec!["Amount > 1"; 20].join(" && "), "Amount < 9");
    let error = Filter::read(SystemKind::Finops, &long, &schema).expect_err("no such column");
    let pointed = error.pointed(&long);
    let (line, caret) = pointed.split_once('\n').expect("two lines");
    let under = line.chars().skip(caret.chars().count() - 1).take(7).collect::<String>();
    assert_eq!(under, "Nowhere", "{pointed}");
    assert!(line.chars().count() < 110, "{pointed}");
}

/// What a missing value means to F&O: filter, row with everything, row with nothing, by either meaning.
#[test]
fn missing_values_of_finops_mean_what_the_setting_says() {
    let schema = schema(SystemKind::Finops);
    let (full, empty) = (row("A", "10", "Person", "2021-06-23", Some(true)), row("", "", "", "", None));
    let cases = [
        (r#"Name == """#, [false, true], [false, false]),
        (r#"Name != "A""#, [false, true], [false, false]),
        (r#"!(Name == "B")"#, [true, true], [true, false]),
        (r#"!(Name like "B*")"#, [true, true], [true, false]),
        (r#"Name == "B" || IsB2B == 1"#, [true, true], [true, true]),
        (r#"Amount < 1 && IsB2B == 0"#, [false, false], [false, false]),
        (r#"!(Amount < 1 && IsB2B == 0)"#, [true, true], [true, true]),
        (r#"Amount < 11"#, [true, true], [true, false]),
    ];
    for (text, empty_value, unknown) in cases {
        for (nulls, wanted) in [(Nulls::EmptyValue, empty_value), (Nulls::Unknown, unknown)] {
            let filter = Filter::read_with(SystemKind::Finops, text, &schema, nulls).expect(text);
            assert_eq!([filter.matches(&full), filter.matches(&empty)], wanted, "{text} {nulls:?}");
        }
    }
}

/// What is asked of the system for a filter: nothing that could leave out a row that passes.
#[test]
fn filters_become_queries() {
    use SystemKind::{Dataverse, Finops};
    let cases = [
        (
            Finops,
            r#"((PartyType == "Organization"))"#,
            "PartyType eq Microsoft.Dynamics.DataEntities.DirPartyType'Organization'",
            true,
        ),
        (Finops, r#"PartyType != 1"#, "PartyType ne Microsoft.Dynamics.DataEntities.DirPartyType'Person'", false),
        // What is not said cannot be left out: nobody knows the enumeration behind it.
        (Finops, r#"IsB2B == 1 && Amount > 5"#, "Amount gt 5", false),
        (Finops, r#"IsB2B == 1 || Amount > 5"#, "", false),
        (Finops, r#"Key != "999""#, "Key ne '999'", true),
        // A view may hold a null.
        (Finops, r#"Name != "999""#, "(Name ne '999' or Name eq null)", true),
        (Finops, r#"Name == "A'b""#, "Name eq 'A''b'", false),
        (Finops, r#"Name != "A""#, "", false),
        (Finops, r#"Name like "10*""#, "Name eq '10*'", true),
        (Finops, r#"Name like "*10""#, "", false),
        (
            Finops,
            r#"!(Name like "10*" || Amount <= 5)"#,
            "((not (Name eq '10*') or Name eq null) and Amount gt 5)",
            true,
        ),
        (Finops, r#"Amount < 1"#, "", false),
        (Finops, r#"Amount: 1..2, 7"#, "(Amount ge 1 or Amount eq 7)", false),
        (Finops, r#"ValidFrom > 23\06\2021"#, "ValidFrom gt 2021-06-23T00:00:00Z", true),
        (Dataverse, "customertypecode eq 3", "customertypecode eq 3", true),
        (Dataverse, "customertypecode ne 3", "(customertypecode ne 3 or customertypecode eq null)", true),
        (Dataverse, "customertypecode eq 3.5", "", false),
        (Dataverse, "sellable eq true  and name ne null", "(sellable eq true and name ne null)", true),
        (Dataverse, "name eq null", "(name eq null or name eq '')", true),
        (Dataverse, "name ne ''", "name ne null", true),
        (Dataverse, "name eq 'A'", "name eq 'A'", false),
        (Dataverse, "not (name eq 'A')", "", false),
        (Dataverse, "startswith(name,'10')", "startswith(name,'10')", true),
        (Dataverse, "not contains(name,'10')", "(not (contains(name,'10')) or name eq null or name eq '')", true),
        (Dataverse, "contains(name,'1_0')", "contains(name,'1_0')", false),
        (Dataverse, "endswith(name,'10')", "", false),
        (Dataverse, "name gt 'a' and amount le 5.50", "amount le 5.5", false),
        (
            Dataverse,
            "msdyn_company eq 00000000-0000-0000-0000-000000000007",
            "_msdyn_company_value eq 00000000-0000-0000-0000-000000000007",
            true,
        ),
        (Dataverse, "validfrom le '2021-06-23'", "validfrom le 2021-06-23T00:00:00Z", true),
    ];
    for (system, text, wanted, exact) in cases {
        let schema = queried(system);
        let filter = Filter::read(system, text, &schema).expect(text);
        let query = filter.remote(&schema);
        assert_eq!(query.as_ref().map_or("", |query| &query.text), wanted, "{text}");
        assert_eq!(query.is_some_and(|query| query.exact), exact, "{text}");
    }
    assert_eq!(Filter::default().remote(&queried(Finops)), None);
}

/// The columns of [`schema`], with what a query needs to know of them.
fn queried(system: SystemKind) -> Schema {
    let mut columns = schema(system).columns().to_vec();
    columns[2].enumeration = Some(Arc::from("DirPartyType"));
    columns.push(Column { required: true, ..Column::new("Key", Kind::Text) });
    columns.push(Column::new("customertypecode", Kind::Int64));
    if system == SystemKind::Dataverse {
        columns.iter_mut().for_each(|column| column.name = Arc::from(column.name.to_lowercase()));
    }
    Schema::new(system, "t", "ts", columns)
}

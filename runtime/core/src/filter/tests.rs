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
        assert_eq!(like(pattern, text), wanted, "{pattern} {text}");
    }
}

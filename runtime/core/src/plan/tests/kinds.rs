//! How a value of each kind crosses, a table per direction: what F&O has, what Dataverse has, and the other way round.
//!
//! Rounding is half away from zero, as SQL rounds. A day and a point in time meet at midnight UTC. Blanks at the end of a
//! text stay as they are sent; neither system tells them apart.

use super::*;

/// Carries one value over a map of the key and this pair of columns.
fn carried(finops: &str, dataverse: &str, way: SystemKind, value: Value) -> Result<Value, Code> {
    let finops = Schema::new(SystemKind::Finops, "F", "F", vec![column("K text"), column(&format!("X {finops}"))]);
    let dataverse =
        Schema::new(SystemKind::Dataverse, "d", "ds", vec![column("k text"), column(&format!("x {dataverse}"))]);
    let leg = leg("F", "ds", "K = k\n X = x");
    let plan = compile(&PlanInput {
        leg: &leg,
        finops: &finops,
        dataverse: &dataverse,
        integration_key: &["k".to_owned()],
        tables: &|_| None,
        key_of_set: &|_| None,
        settings: PlanSettings::default(),
    })
    .unwrap_or_else(|problems| panic!("{problems:?}"));
    let flow = match way {
        SystemKind::Dataverse => plan.to_dataverse,
        SystemKind::Finops => plan.to_finops,
    };
    let flow = flow.expect("a flow");
    let fields = flow.project(&[Value::text("1"), value], &()).map_err(|fault| fault.code)?;
    let values = flow.finish(&fields, None, &|_| None, true).map_err(|faults| faults[0].code)?;
    Ok(values[1].clone())
}

fn number(text: &str) -> Value {
    Value::Decimal(Decimal::from_str(text).expect(text))
}

fn time(text: &str) -> Value {
    Value::Timestamp(parse_timestamp(text).expect(text))
}

fn day(text: &str) -> Value {
    Value::Date(parse_date(text).expect(text))
}

fn check(way: SystemKind, cases: Vec<(&str, &str, Value, Result<Value, Code>)>) {
    for (finops, dataverse, value, wanted) in cases {
        let place = format!("{finops} | {dataverse} | {value:?} to {way}");
        assert_eq!(carried(finops, dataverse, way, value), wanted, "{place}");
    }
}

#[test]
fn values_of_every_kind_go_to_dataverse() {
    let text = Value::text;
    check(
        SystemKind::Dataverse,
        vec![
            ("text", "text", text("A"), Ok(text("A"))),
            ("text", "text", text("A  "), Ok(text("A  "))),
            ("text", "text", text("   "), Ok(Value::Null)),
            ("text", "text #3", text("abc  "), Ok(text("abc  "))),
            ("text", "text #3", text("abcd"), Err(Code::TextTooLong)),
            ("text", "text", text("a\nb\tc"), Ok(text("a\nb\tc"))),
            ("text", "text", text("a\u{0}"), Err(Code::TextInvalid)),
            ("text", "text", Value::Absent, Ok(Value::Absent)),
            // Points in time, days, and 1900.
            ("time", "time", time("2024-03-31T01:30:00Z"), Ok(time("2024-03-31T01:30:00Z"))),
            ("time", "time", time("1900-01-01T00:00:00Z"), Ok(Value::Null)),
            ("time", "time", time("1900-01-01T00:00:01Z"), Ok(time("1900-01-01T00:00:01Z"))),
            ("time", "date", time("2024-03-31T12:00:00Z"), Ok(day("2024-03-31"))),
            ("time", "date", time("2024-03-31T23:59:59Z"), Ok(day("2024-03-31"))),
            ("time", "date", time("1900-01-01T00:00:00Z"), Ok(Value::Null)),
            ("date", "date", day("2024-02-29"), Ok(day("2024-02-29"))),
            ("date", "time", day("2024-02-29"), Ok(time("2024-02-29T00:00:00Z"))),
            ("date", "date", day("1900-01-01"), Ok(Value::Null)),
            ("text", "date", text("2024-02-29"), Ok(day("2024-02-29"))),
            ("text", "date", text("soon"), Err(Code::WrongType)),
            // Numbers: 4 places, or 10 after the migration of an environment.
            ("decimal", "decimal /4", number("1.23455"), Ok(number("1.2346"))),
            ("decimal", "decimal /4", number("-1.23455"), Ok(number("-1.2346"))),
            ("decimal", "decimal /4", number("1.23454999"), Ok(number("1.2345"))),
            ("decimal", "decimal /10", number("1.23456789015"), Ok(number("1.2345678902"))),
            ("decimal", "decimal", number("0.0000000000000001"), Ok(number("0.0000000000000001"))),
            ("decimal", "decimal", number("0"), Ok(number("0"))),
            ("decimal", "money /2", number("2.345"), Ok(number("2.35"))),
            ("decimal", "money /0", number("2.5"), Ok(number("3"))),
            ("decimal", "float", number("0.5"), Ok(Value::Float(0.5))),
            ("decimal", "int", number("7.000"), Ok(Value::Int(7))),
            ("decimal", "int", number("7.5"), Err(Code::WrongType)),
            ("int", "int", Value::Int(i64::MAX), Ok(Value::Int(i64::MAX))),
            ("decimal", "int", number("9223372036854775808"), Err(Code::NumberOutOfRange)),
            ("int", "decimal /4", Value::Int(3), Ok(number("3"))),
            ("int", "text", Value::Int(3), Ok(text("3"))),
            // Options: a symbol on F&O, a number on Dataverse; a label where the number is not known.
            ("choice No:0,Yes:1", "bool", text("Yes"), Ok(Value::Boolean(true))),
            ("choice No:0,Yes:1", "bool", text("no"), Ok(Value::Boolean(false))),
            ("text", "int Gold:7,Tin:8", text("gold"), Ok(Value::Int(7))),
            ("text", "int Gold:7,Tin:8", text("8"), Ok(Value::Int(8))),
            ("text", "int Gold:7,Tin:8", text("9"), Err(Code::OptionUnknown)),
            ("text", "int Gold:7,Tin:8", text("silver"), Err(Code::WrongType)),
            ("choice No:0,Yes:1", "text", text("Yes"), Ok(text("Yes"))),
            ("text", "multi", text("1,2"), Ok(text("1,2"))),
            // Identities.
            ("guid", "guid", Value::Guid(id(7)), Ok(Value::Guid(id(7)))),
            ("guid", "guid", Value::Guid(Uuid::nil()), Ok(Value::Null)),
            ("text", "guid", text(&id(7).to_string()), Ok(Value::Guid(id(7)))),
            ("text", "guid", text("x"), Err(Code::WrongType)),
        ],
    );
}

#[test]
fn values_of_every_kind_go_to_finops() {
    let text = Value::text;
    check(
        SystemKind::Finops,
        vec![
            ("text", "text", text("A  "), Ok(text("A  "))),
            ("text", "text", Value::Null, Ok(text(""))),
            ("text", "text", Value::Absent, Ok(Value::Absent)),
            ("text #3", "text", text("abcd"), Err(Code::TextTooLong)),
            ("time", "time", time("2024-03-31T01:30:00Z"), Ok(time("2024-03-31T01:30:00Z"))),
            ("time", "time", Value::Null, Ok(time("1900-01-01T00:00:00Z"))),
            ("time", "date", day("2024-03-31"), Ok(time("2024-03-31T00:00:00Z"))),
            ("date", "time", time("2024-03-31T23:59:59Z"), Ok(day("2024-03-31"))),
            ("date", "date", Value::Null, Ok(day("1900-01-01"))),
            ("decimal /2", "decimal /10", number("1.005"), Ok(number("1.01"))),
            ("decimal", "money /4", number("2.3456"), Ok(number("2.3456"))),
            ("decimal", "money", Value::Null, Ok(number("0"))),
            ("decimal", "float", Value::Float(0.25), Ok(number("0.25"))),
            ("int", "decimal", number("7.0"), Ok(Value::Int(7))),
            ("int", "int", Value::Null, Ok(Value::Int(0))),
            ("choice No:0,Yes:1", "bool", Value::Boolean(true), Ok(text("Yes"))),
            ("choice No:0,Yes:1", "bool", Value::Null, Ok(text("No"))),
            ("choice A:0,B:1", "text", text("b"), Ok(text("B"))),
            ("choice A:0,B:1", "text", text("c"), Err(Code::OptionUnknown)),
            ("text", "multi", text("1,2"), Ok(text("1,2"))),
            ("text", "multi", Value::Null, Ok(text(""))),
            ("guid", "guid", Value::Null, Ok(Value::Guid(Uuid::nil()))),
            ("text", "guid", Value::Guid(id(7)), Ok(text(&id(7).to_string()))),
        ],
    );
}

/// A column of each kind of source: its own two digits, and those of the currency, of which the most are three.
#[test]
fn an_amount_keeps_the_digits_of_the_currency_of_its_row() {
    let scales = [("JPY", 0), ("EUR", 2), ("KWD", 3)].map(|(code, scale)| (Arc::from(code), scale));
    let by_currency = Column { scale_of_currency: Some(Arc::from(scales)), ..column("amount money /3") };
    let columns = vec![
        column("k text"),
        column("own money /2"),
        by_currency,
        column("transactioncurrencyid lookup >transactioncurrencies"),
    ];
    let dataverse = Schema::new(SystemKind::Dataverse, "d", "ds", columns);
    let currencies = Arc::new(Schema::new(
        SystemKind::Dataverse,
        "transactioncurrency",
        "transactioncurrencies",
        vec![column("isocurrencycode text")],
    ));
    let columns = ["K text", "Own decimal", "Amount decimal", "C text"].map(column).to_vec();
    let finops = Schema::new(SystemKind::Finops, "F", "F", columns);
    let leg = leg("F", "ds", "K = k\n Own = own\n Amount = amount\n C = transactioncurrencyid.isocurrencycode");
    let plan = compile(&PlanInput {
        leg: &leg,
        finops: &finops,
        dataverse: &dataverse,
        integration_key: &["k".to_owned()],
        tables: &|set| (set == "transactioncurrencies").then(|| Arc::clone(&currencies)),
        key_of_set: &|_| None,
        settings: PlanSettings::default(),
    })
    .unwrap_or_else(|problems| panic!("{problems:?}"));
    let flow = plan.to_dataverse.expect("a flow");
    let text = Value::text;
    for (currency, amount, wanted) in [
        (text("EUR"), "12.345", "12.35"),
        (text("eur "), "-12.345", "-12.35"),
        (text("JPY"), "12.5", "13"),
        (text("KWD"), "12.3455", "12.346"),
        (text("KWD"), "12.3", "12.3"),
        // Where the currency is not known, no digit is lost that any currency keeps.
        (text("XXX"), "12.34549", "12.345"),
        (text(""), "12.34549", "12.345"),
        (Value::Absent, "12.34549", "12.345"),
    ] {
        let place = format!("{amount} of {currency:?}");
        let row = [text("1"), number(amount), number(amount), currency];
        let fields = flow.project(&row, &()).expect("fields");
        let values = flow.finish(&fields, None, &|_| Some(id(7)), true).expect("values");
        assert_eq!(values[2], number(wanted), "{place}");
        let own = number(amount);
        let Value::Decimal(own) = own else { panic!("a number") };
        assert_eq!(values[1], Value::Decimal(at_scale(own, Some(2))), "{place}");
    }
}

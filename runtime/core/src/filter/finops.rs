//! The X++ range expressions of F&O, as far as shipped maps and their documentation use them (reference 1.7).

use rust_decimal::Decimal;

use super::{ColumnName, Comparison, Expression, FilterError, Literal, Pattern, Place, Reader, joined, range};
use crate::convert;
use crate::value;

/// Reads `((PartyType == "Person") && !(Name like "A*"))`. A column may also be given a range as F&O writes them in the
/// fields of its own filters, after a colon: `Amount: 10..20, !15`.
pub fn parse_finops(text: &str) -> Result<Expression, FilterError> {
    let mut reader = Reader::new(text);
    let expression = any(&mut reader)?;
    reader.end()?;
    Ok(expression)
}

fn any(reader: &mut Reader) -> Result<Expression, FilterError> {
    let mut list = vec![all(reader)?];
    loop {
        reader.skip_blanks();
        if !reader.take("||") {
            return Ok(joined(list, Expression::Or));
        }
        list.push(all(reader)?);
    }
}

fn all(reader: &mut Reader) -> Result<Expression, FilterError> {
    let mut list = vec![single(reader)?];
    loop {
        reader.skip_blanks();
        if !reader.take("&&") {
            return Ok(joined(list, Expression::And));
        }
        list.push(single(reader)?);
    }
}

fn single(reader: &mut Reader) -> Result<Expression, FilterError> {
    reader.skip_blanks();
    match reader.peek() {
        Some('!') => {
            reader.at += 1;
            reader.deeper()?;
            let inner = single(reader)?;
            reader.depth -= 1;
            Ok(Expression::Not(Box::new(inner)))
        }
        Some('(') => {
            reader.at += 1;
            reader.deeper()?;
            let inner = any(reader)?;
            reader.depth -= 1;
            reader.skip_blanks();
            if reader.take(")") { Ok(inner) } else { reader.error("a closing parenthesis is missing") }
        }
        Some(c) if c.is_ascii_alphabetic() || c == '_' => comparison(reader),
        Some(c) => reader.error(format!("a column was expected, not {c:?}")),
        None => reader.error("a column was expected"),
    }
}

fn is_name(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}

fn comparison(reader: &mut Reader) -> Result<Expression, FilterError> {
    let at = reader.at;
    let column = ColumnName { name: reader.word(is_name), at: Place(at) };
    if reader.peek() == Some('.') {
        return reader.error("a filter can use the columns of the entity only, without a path");
    }
    reader.skip_blanks();
    if reader.take(":") {
        return range::read(reader, &column);
    }
    // The longer symbol first.
    const SYMBOLS: [(&str, Comparison); 8] = [
        ("==", Comparison::Equal),
        ("!=", Comparison::NotEqual),
        ("<>", Comparison::NotEqual),
        ("<=", Comparison::LessOrEqual),
        (">=", Comparison::GreaterOrEqual),
        ("<", Comparison::Less),
        (">", Comparison::Greater),
        ("=", Comparison::Equal),
    ];
    for (symbol, comparison) in SYMBOLS {
        if reader.take(symbol) {
            reader.skip_blanks();
            let literal_at = Place(reader.at);
            let literal = literal(reader)?;
            return Ok(Expression::Compare { column, comparison, literal, literal_at });
        }
    }
    let symbol_at = reader.at;
    if reader.word(is_name).eq_ignore_ascii_case("like") {
        reader.skip_blanks();
        let quote = reader.peek();
        if !matches!(quote, Some('"' | '\'')) {
            return reader.error("like needs a text in quotes");
        }
        return Ok(Expression::Match { column, pattern: Pattern::Like(quoted(reader)?) });
    }
    reader.at = symbol_at;
    if reader.peek() == Some('(') {
        return Err(FilterError { column: None, at, message: no_functions(&column.name) });
    }
    reader.error("a comparison was expected: ==, !=, <, <=, >, >=, like, or a colon and a range")
}

/// A row does not change when the day does, so no change would say that it left or entered the filter.
pub(super) fn no_functions(name: &str) -> String {
    format!("the function {name} is not taken: what a filter takes may depend on the row only; write a value")
}

fn literal(reader: &mut Reader) -> Result<Literal, FilterError> {
    match reader.peek() {
        Some('"' | '\'') => quoted(reader).map(Literal::Text),
        Some(c) if c.is_ascii_digit() || c == '-' || c == '.' => number_or_date(reader),
        Some(c) if is_name(c) => {
            let at = reader.at;
            let word = reader.word(is_name);
            if reader.take("::") {
                let symbol = reader.word(is_name);
                if symbol.is_empty() {
                    return reader.error("a symbol was expected after ::");
                }
                return Ok(Literal::Member { enumeration: word, symbol });
            }
            if reader.peek() == Some('(') {
                return Err(FilterError { column: None, at, message: no_functions(&word) });
            }
            match word.to_ascii_lowercase().as_str() {
                "true" => Ok(Literal::Boolean(true)),
                "false" => Ok(Literal::Boolean(false)),
                _ => Err(FilterError {
                    column: None,
                    at,
                    message: format!("{word} is not a value; put a text in quotes"),
                }),
            }
        }
        Some(c) => reader.error(format!("a value was expected, not {c:?}")),
        None => reader.error("a value was expected"),
    }
}

pub(super) fn quoted(reader: &mut Reader) -> Result<String, FilterError> {
    let start = reader.at;
    let quote = reader.peek();
    reader.at += 1;
    let mut text = String::new();
    while let Some(c) = reader.peek() {
        reader.at += 1;
        if Some(c) == quote {
            return Ok(text);
        }
        // X++ escapes with a backslash.
        match (c, reader.peek()) {
            ('\\', Some(escaped)) => {
                reader.at += 1;
                text.push(escaped);
            }
            _ => text.push(c),
        }
    }
    Err(FilterError { column: None, at: start, message: "the text has no closing quote".to_owned() })
}

/// `12`, `-1.5`, a date as `23\06\2021`, or a point in time as `2021-06-23T08:00:00`.
fn number_or_date(reader: &mut Reader) -> Result<Literal, FilterError> {
    let at = reader.at;
    let word = reader.word(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '\\' | ':'));
    let literal = if word.contains('\\') {
        date(&word).map(Literal::Instant)
    } else {
        number(&word).or_else(|| value::parse_timestamp(&word).map(Literal::Instant))
    };
    literal.ok_or_else(|| FilterError {
        column: None,
        at,
        message: format!("{word} is neither a number nor a date like 23\\06\\2021"),
    })
}

fn number(word: &str) -> Option<Literal> {
    convert::parse_decimal(word).map(|number: Decimal| Literal::Number(number))
}

pub(super) fn date(word: &str) -> Option<i64> {
    let mut parts = word.split('\\');
    let (day, month, year) = (parts.next()?, parts.next()?, parts.next()?);
    if parts.next().is_some() {
        return None;
    }
    Some(i64::from(value::parse_date(&format!("{year}-{month}-{day}"))?) * value::MICROS_PER_DAY)
}

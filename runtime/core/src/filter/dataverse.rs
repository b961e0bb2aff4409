//! OData `$filter` as Dataverse takes it, as far as a filter over one row needs it (reference 1.7).

use uuid::Uuid;

use super::{ColumnName, Comparison, Expression, FilterError, Literal, Pattern, Place, Reader, joined};
use crate::convert;
use crate::value;

/// Reads `customertypecode eq 3 and not contains(name,'A')`.
pub fn parse_dataverse(text: &str) -> Result<Expression, FilterError> {
    let mut reader = Reader::new(text);
    let expression = any(&mut reader)?;
    reader.end()?;
    Ok(expression)
}

/// Takes a keyword: the word, and nothing of a longer one.
fn take_keyword(reader: &mut Reader, keyword: &str) -> bool {
    reader.skip_blanks();
    let start = reader.at;
    if reader.word(is_name).eq_ignore_ascii_case(keyword) {
        true
    } else {
        reader.at = start;
        false
    }
}

fn any(reader: &mut Reader) -> Result<Expression, FilterError> {
    let mut list = vec![all(reader)?];
    while take_keyword(reader, "or") {
        list.push(all(reader)?);
    }
    Ok(joined(list, Expression::Or))
}

fn all(reader: &mut Reader) -> Result<Expression, FilterError> {
    let mut list = vec![single(reader)?];
    while take_keyword(reader, "and") {
        list.push(single(reader)?);
    }
    Ok(joined(list, Expression::And))
}

fn single(reader: &mut Reader) -> Result<Expression, FilterError> {
    reader.skip_blanks();
    if reader.peek() == Some('(') {
        reader.at += 1;
        reader.deeper()?;
        let inner = any(reader)?;
        reader.depth -= 1;
        reader.skip_blanks();
        return if reader.take(")") { Ok(inner) } else { reader.error("a closing parenthesis is missing") };
    }
    let at = reader.at;
    let word = reader.word(is_name);
    if word.is_empty() {
        return match reader.peek() {
            Some(c) => reader.error(format!("a column was expected, not {c:?}")),
            None => reader.error("a column was expected"),
        };
    }
    if word.eq_ignore_ascii_case("not") {
        reader.deeper()?;
        let inner = single(reader)?;
        reader.depth -= 1;
        return Ok(Expression::Not(Box::new(inner)));
    }
    match reader.peek() {
        Some('/' | '.') => return reader.error("a filter can use the columns of the table only, without a path"),
        Some('(') => return function(reader, &word, at),
        _ => {}
    }
    comparison(reader, ColumnName { name: word, at: Place(at) })
}

fn is_name(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}

fn function(reader: &mut Reader, word: &str, at: usize) -> Result<Expression, FilterError> {
    let pattern = match word.to_ascii_lowercase().as_str() {
        "startswith" => Pattern::StartsWith,
        "endswith" => Pattern::EndsWith,
        "contains" => Pattern::Contains,
        _ => {
            let message = format!("the function {word} is not known; use startswith, endswith or contains");
            return Err(FilterError { column: None, at, message });
        }
    };
    reader.at += 1;
    reader.skip_blanks();
    let column_at = Place(reader.at);
    let column = ColumnName { name: reader.word(is_name), at: column_at };
    if column.name.is_empty() {
        return reader.error("a column was expected");
    }
    reader.skip_blanks();
    if !reader.take(",") {
        return reader.error("a comma was expected");
    }
    reader.skip_blanks();
    if reader.peek() != Some('\'') {
        return reader.error("a text in single quotes was expected");
    }
    let text = quoted(reader)?;
    reader.skip_blanks();
    if !reader.take(")") {
        return reader.error("a closing parenthesis is missing");
    }
    Ok(Expression::Match { column, pattern: pattern(text) })
}

fn comparison(reader: &mut Reader, column: ColumnName) -> Result<Expression, FilterError> {
    reader.skip_blanks();
    let word_at = reader.at;
    let comparison = match reader.word(is_name).to_ascii_lowercase().as_str() {
        "eq" => Comparison::Equal,
        "ne" => Comparison::NotEqual,
        "lt" => Comparison::Less,
        "le" => Comparison::LessOrEqual,
        "gt" => Comparison::Greater,
        "ge" => Comparison::GreaterOrEqual,
        _ => {
            reader.at = word_at;
            return reader.error("a comparison was expected: eq, ne, lt, le, gt or ge");
        }
    };
    reader.skip_blanks();
    let literal_at = Place(reader.at);
    let literal = literal(reader)?;
    Ok(Expression::Compare { column, comparison, literal, literal_at })
}

fn literal(reader: &mut Reader) -> Result<Literal, FilterError> {
    if reader.peek() == Some('\'') {
        return quoted(reader).map(Literal::Text);
    }
    let at = reader.at;
    let word = reader.word(|c| is_name(c) || matches!(c, '-' | '.' | ':' | '+'));
    let literal = match word.to_ascii_lowercase().as_str() {
        "" => None,
        "null" => Some(Literal::Null),
        "true" => Some(Literal::Boolean(true)),
        "false" => Some(Literal::Boolean(false)),
        _ => convert::parse_decimal(&word)
            .map(Literal::Number)
            .or_else(|| value::parse_timestamp(&word).map(Literal::Instant))
            .or_else(|| Uuid::parse_str(&word).ok().map(Literal::Guid)),
    };
    literal.ok_or_else(|| FilterError {
        column: None,
        at,
        message: if word.is_empty() {
            "a value was expected".to_owned()
        } else {
            format!("{word} is not a value; put a text in single quotes")
        },
    })
}

/// A text in single quotes; two of them stand for one.
fn quoted(reader: &mut Reader) -> Result<String, FilterError> {
    let start = reader.at;
    reader.at += 1;
    let mut text = String::new();
    while let Some(c) = reader.peek() {
        reader.at += 1;
        if c != '\'' {
            text.push(c);
        } else if reader.peek() == Some('\'') {
            reader.at += 1;
            text.push('\'');
        } else {
            return Ok(text);
        }
    }
    Err(FilterError { column: None, at: start, message: "the text has no closing quote".to_owned() })
}

//! Ranges as people write them in the filter fields of F&O: `A*..B*`, `10..20, !15`, `>=2021-01-01`, `""`.
//!
//! Items stand between commas. A row passes when one of the items takes it and no item after `!` does; with such items
//! alone, whatever they do not take passes (Microsoft Learn, "Advanced filtering and query syntax").

use super::finops::{date, quoted};
use super::{ColumnName, Comparison, Expression, FilterError, Literal, Pattern, Place, Reader, joined};

/// More than anybody writes by hand, few enough to evaluate on every row.
const ITEMS_MAX: usize = 1_000;

/// What follows the colon after a column.
pub(super) fn read(reader: &mut Reader, column: &ColumnName) -> Result<Expression, FilterError> {
    let (mut taken, mut left_out) = (Vec::new(), Vec::new());
    loop {
        reader.skip_blanks();
        if reader.take("!") {
            left_out.push(Expression::Not(Box::new(item(reader, column)?)));
        } else {
            taken.push(item(reader, column)?);
        }
        if taken.len() + left_out.len() > ITEMS_MAX {
            return reader.error(format!("a range has at most {ITEMS_MAX} items"));
        }
        reader.skip_blanks();
        if !reader.take(",") {
            break;
        }
    }
    if !taken.is_empty() {
        left_out.insert(0, joined(taken, Expression::Or));
    }
    Ok(joined(left_out, Expression::And))
}

fn item(reader: &mut Reader, column: &ColumnName) -> Result<Expression, FilterError> {
    reader.skip_blanks();
    const SYMBOLS: [(&str, Comparison); 4] = [
        ("<=", Comparison::LessOrEqual),
        (">=", Comparison::GreaterOrEqual),
        ("<", Comparison::Less),
        (">", Comparison::Greater),
    ];
    for (symbol, comparison) in SYMBOLS {
        if reader.take(symbol) {
            return Ok(bound(column, comparison, end(reader)?));
        }
    }
    if reader.peek() == Some('(') {
        return reader.error("an expression in brackets is no item of a range; join it with && instead");
    }
    if reader.take("..") {
        return Ok(bound(column, Comparison::LessOrEqual, end(reader)?));
    }
    let low = end(reader)?;
    if !reader.take("..") {
        return Ok(match low.value {
            Literal::Text(text) if !low.quoted && text.contains(['*', '?']) => {
                Expression::Match { column: column.clone(), pattern: Pattern::Like(text) }
            }
            value => bound(column, Comparison::Equal, End { value, ..low }),
        });
    }
    let lower = bound(column, Comparison::GreaterOrEqual, low);
    reader.skip_blanks();
    // Open at its end.
    if matches!(reader.peek(), None | Some(',' | ')' | '&' | '|')) {
        return Ok(lower);
    }
    Ok(Expression::And(vec![lower, bound(column, Comparison::LessOrEqual, end(reader)?)]))
}

/// One value of an item.
struct End {
    value: Literal,
    at: usize,
    quoted: bool,
}

fn bound(column: &ColumnName, comparison: Comparison, end: End) -> Expression {
    Expression::Compare { column: column.clone(), comparison, literal: end.value, literal_at: Place(end.at) }
}

fn end(reader: &mut Reader) -> Result<End, FilterError> {
    reader.skip_blanks();
    let at = reader.at;
    if matches!(reader.peek(), Some('"' | '\'')) {
        return Ok(End { value: Literal::Text(quoted(reader)?), at, quoted: true });
    }
    let mut word = String::new();
    while let Some(c) = reader.peek() {
        let ends = c.is_whitespace() || matches!(c, ',' | '(' | ')' | '&' | '|' | '!' | '"' | '\'');
        if ends || (c == '.' && reader.peek_after(1) == Some('.')) {
            break;
        }
        word.push(c);
        reader.at += 1;
    }
    if reader.peek() == Some('(') && !word.is_empty() {
        return Err(FilterError { column: None, at, message: super::finops::no_functions(&word) });
    }
    if word.is_empty() {
        return reader.error("a value of the range was expected");
    }
    if !word.contains('\\') {
        return Ok(End { value: Literal::Text(word), at, quoted: false });
    }
    match date(&word) {
        Some(micros) => Ok(End { value: Literal::Instant(micros), at, quoted: false }),
        None => Err(FilterError { column: None, at, message: format!("{word} is not a date like 23\\06\\2021") }),
    }
}

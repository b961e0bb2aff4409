//! `$filter`: from text to a tree, and whether a row matches it.
//!
//! Owns the grammar and the three-valued logic; knows neither rows nor columns, which come in by an accessor.

use std::borrow::Cow;
use std::cmp::Ordering;

use rust_decimal::prelude::ToPrimitive as _;
use thiserror::Error;

use crate::literal::{self, Literal};

/// A condition. Chains of `and` and `or` are flat, so only brackets and `not` make a tree deep.
#[derive(Debug, Clone, PartialEq)]
pub enum Expression {
    And(Vec<Expression>),
    Or(Vec<Expression>),
    Not(Box<Expression>),
    Compare {
        left: Operand,
        operator: Comparison,
        right: Operand,
    },
    In {
        operand: Operand,
        values: Vec<Literal>,
    },
    /// `contains(name,'A')` and its like.
    Text {
        function: TextFunction,
        operand: Operand,
        part: Operand,
    },
    /// A boolean by itself: `msdyn_sellable`, `true`.
    Boolean(Operand),
    /// `Account_Tasks/any(t:t/statecode eq 1)`. Without a condition: whether the collection holds anything.
    Lambda {
        collection: String,
        /// What the condition calls a member; its properties begin with it and a slash.
        variable: String,
        all: bool,
        inner: Option<Box<Expression>>,
    },
    /// A function with named arguments: `Microsoft.Dynamics.CRM.LastXDays(PropertyName='createdon',PropertyValue=7)`.
    Function {
        name: String,
        arguments: Vec<(String, Argument)>,
    },
}

#[derive(Debug, Clone, PartialEq)]
pub enum Argument {
    Literal(Literal),
    /// `["5","2000"]`.
    List(Vec<Literal>),
}

#[derive(Debug, Clone, PartialEq)]
pub enum Operand {
    /// A property by its name, as it was written; a path has slashes.
    Property(String),
    Literal(Literal),
    /// Two operands that make one.
    Arithmetic(Box<Arithmetic>),
}

#[derive(Debug, Clone, PartialEq)]
pub struct Arithmetic {
    pub left: Operand,
    pub operator: ArithmeticOperator,
    pub right: Operand,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ArithmeticOperator {
    Add,
    Subtract,
    Multiply,
    Divide,
    Modulo,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Comparison {
    Equal,
    NotEqual,
    Greater,
    GreaterOrEqual,
    Less,
    LessOrEqual,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TextFunction {
    Contains,
    StartsWith,
    EndsWith,
    /// The whole text, with `*` for any characters: what a star inside a value means to F&O. No grammar has it.
    Like,
}

/// A filter that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("the filter cannot be read at position {at}: {message}")]
pub struct FilterError {
    /// Byte offset in the filter.
    pub at: usize,
    pub message: String,
}

/// Deepest nesting of brackets and `not`; far beyond what a person writes, far below what a stack holds.
pub const DEPTH_MAX: usize = 64;

/// Reads a filter (decoded).
pub fn parse(text: &str) -> Result<Expression, FilterError> {
    let mut parser = Parser { text, at: 0, depth: 0 };
    let expression = parser.or()?;
    parser.skip_blanks();
    if parser.at < text.len() {
        return Err(parser.error("the end was expected"));
    }
    Ok(expression)
}

/// Whether a row matches; `property` gives the row's value by the name in the filter. A condition that is neither
/// true nor false, for instance `contains` on a null, does not match.
pub fn matches(expression: &Expression, property: &dyn Fn(&str) -> Literal) -> bool {
    evaluate(expression, property) == Some(true)
}

/// `and` of three values, where `None` is not known: false as soon as one is false.
#[must_use]
pub fn all_hold(conditions: impl IntoIterator<Item = Option<bool>>) -> Option<bool> {
    let mut all = Some(true);
    for condition in conditions {
        match condition {
            Some(true) => {}
            Some(false) => return Some(false),
            None => all = None,
        }
    }
    all
}

/// `or` of three values, where `None` is not known: true as soon as one is true.
#[must_use]
pub fn one_holds(conditions: impl IntoIterator<Item = Option<bool>>) -> Option<bool> {
    all_hold(conditions.into_iter().map(|one| one.map(|is| !is))).map(|is| !is)
}

fn evaluate(expression: &Expression, property: &dyn Fn(&str) -> Literal) -> Option<bool> {
    match expression {
        Expression::And(all) => all_hold(all.iter().map(|one| evaluate(one, property))),
        Expression::Or(any) => one_holds(any.iter().map(|one| evaluate(one, property))),
        Expression::Not(inner) => evaluate(inner, property).map(|is| !is),
        Expression::Compare { left, operator, right } => {
            Some(compare(&left.value(property), *operator, &right.value(property)))
        }
        Expression::In { operand, values } => {
            let value = operand.value(property);
            Some(values.iter().any(|one| compare(&value, Comparison::Equal, one)))
        }
        Expression::Text { function, operand, part } => {
            let (whole, part) = (operand.value(property), part.value(property));
            let (Literal::Text(whole), Literal::Text(part)) = (&*whole, &*part) else { return None };
            let (whole, part) = (whole.to_lowercase(), part.to_lowercase());
            Some(match function {
                TextFunction::Contains => whole.contains(&part),
                TextFunction::StartsWith => whole.starts_with(&part),
                TextFunction::Like => is_like(whole.trim_end_matches(' '), part.trim_end_matches(' ')),
                TextFunction::EndsWith => whole.trim_end_matches(' ').ends_with(part.trim_end_matches(' ')),
            })
        }
        Expression::Boolean(operand) => match &*operand.value(property) {
            Literal::Boolean(is) => Some(*is),
            _ => None,
        },
        // What they look at is not a property of the row: only a system that knows them can tell.
        Expression::Lambda { .. } | Expression::Function { .. } => None,
    }
}

impl Operand {
    fn value(&self, property: &dyn Fn(&str) -> Literal) -> Cow<'_, Literal> {
        match self {
            Self::Property(name) => Cow::Owned(property(name)),
            Self::Literal(literal) => Cow::Borrowed(literal),
            Self::Arithmetic(both) => {
                Cow::Owned(computed(&both.left.value(property), both.operator, &both.right.value(property)))
            }
        }
    }
}

/// The result of an operator; null where there is none, as behind a division by zero.
fn computed(left: &Literal, operator: ArithmeticOperator, right: &Literal) -> Literal {
    if let (Literal::Number(left), Literal::Number(right)) = (left, right) {
        let result = match operator {
            ArithmeticOperator::Add => left.checked_add(*right),
            ArithmeticOperator::Subtract => left.checked_sub(*right),
            ArithmeticOperator::Multiply => left.checked_mul(*right),
            ArithmeticOperator::Divide => left.checked_div(*right),
            ArithmeticOperator::Modulo => left.checked_rem(*right),
        };
        return result.map_or(Literal::Null, Literal::Number);
    }
    let float = |literal: &Literal| match literal {
        Literal::Number(number) => number.to_f64(),
        Literal::Double(number) => Some(*number),
        _ => None,
    };
    let (Some(left), Some(right)) = (float(left), float(right)) else { return Literal::Null };
    let result = match operator {
        ArithmeticOperator::Add => left + right,
        ArithmeticOperator::Subtract => left - right,
        ArithmeticOperator::Multiply => left * right,
        ArithmeticOperator::Divide => left / right,
        ArithmeticOperator::Modulo => left % right,
    };
    if result.is_finite() { Literal::Double(result) } else { Literal::Null }
}

/// Whether a text is what a pattern describes.
fn is_like(text: &str, pattern: &str) -> bool {
    let mut pieces = pattern.split('*');
    let first = pieces.next().unwrap_or_default();
    let Some(mut rest) = text.strip_prefix(first) else { return false };
    let Some(last) = pieces.next_back() else { return rest.is_empty() };
    // Every piece where it first fits: what comes later only gains by that.
    for piece in pieces {
        match rest.find(piece) {
            Some(at) => rest = &rest[at + piece.len()..],
            None => return false,
        }
    }
    rest.len() >= last.len() && rest.ends_with(last)
}

/// Null equals null alone and is neither greater nor less than anything (OData 4.01, 5.1.1.1).
#[must_use]
pub fn compare(left: &Literal, operator: Comparison, right: &Literal) -> bool {
    let both_null = *left == Literal::Null && *right == Literal::Null;
    let order = left.compare(right);
    match operator {
        Comparison::Equal => both_null || order == Some(Ordering::Equal),
        Comparison::NotEqual => !both_null && order != Some(Ordering::Equal),
        Comparison::Greater => order == Some(Ordering::Greater),
        Comparison::GreaterOrEqual => matches!(order, Some(Ordering::Greater | Ordering::Equal)),
        Comparison::Less => order == Some(Ordering::Less),
        Comparison::LessOrEqual => matches!(order, Some(Ordering::Less | Ordering::Equal)),
    }
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
    depth: usize,
}

impl<'a> Parser<'a> {
    fn error(&self, message: impl Into<String>) -> FilterError {
        FilterError { at: self.at, message: message.into() }
    }

    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    fn skip_blanks(&mut self) {
        self.at = self.text.len() - self.rest().trim_start().len();
    }

    /// Takes a symbol if it stands here.
    fn take(&mut self, symbol: char) -> bool {
        self.skip_blanks();
        let stands_here = self.rest().starts_with(symbol);
        if stands_here {
            self.at += symbol.len_utf8();
        }
        stands_here
    }

    fn expect(&mut self, symbol: char) -> Result<(), FilterError> {
        if self.take(symbol) { Ok(()) } else { Err(self.error(format!("'{symbol}' was expected"))) }
    }

    /// The word that stands here, without taking it: letters, digits, `_`, and inside a path `/` and `.`.
    fn word(&mut self) -> &'a str {
        self.skip_blanks();
        let rest = self.rest();
        if !rest.starts_with(|c: char| c.is_alphabetic() || c == '_' || c == '@') {
            return "";
        }
        let length =
            rest.find(|c: char| !(c.is_alphanumeric() || matches!(c, '_' | '/' | '.' | '@'))).unwrap_or(rest.len());
        &rest[..length]
    }

    fn take_word(&mut self, wanted: &str) -> bool {
        let stands_here = self.word() == wanted;
        if stands_here {
            self.at += wanted.len();
        }
        stands_here
    }

    fn deeper<T>(&mut self, inner: impl FnOnce(&mut Self) -> Result<T, FilterError>) -> Result<T, FilterError> {
        if self.depth == DEPTH_MAX {
            return Err(self.error(format!("more than {DEPTH_MAX} levels of brackets and not")));
        }
        self.depth += 1;
        let result = inner(self);
        self.depth -= 1;
        result
    }

    fn or(&mut self) -> Result<Expression, FilterError> {
        let first = self.and()?;
        let mut any = vec![first];
        while self.take_word("or") {
            any.push(self.and()?);
        }
        Ok(if any.len() == 1 { any.remove(0) } else { Expression::Or(any) })
    }

    fn and(&mut self) -> Result<Expression, FilterError> {
        let first = self.unary()?;
        let mut all = vec![first];
        while self.take_word("and") {
            all.push(self.unary()?);
        }
        Ok(if all.len() == 1 { all.remove(0) } else { Expression::And(all) })
    }

    fn unary(&mut self) -> Result<Expression, FilterError> {
        if self.take_word("not") {
            return self.deeper(Self::unary).map(|inner| Expression::Not(Box::new(inner)));
        }
        if self.take('(') {
            let inner = self.deeper(Self::or)?;
            self.expect(')')?;
            return Ok(inner);
        }
        self.condition()
    }

    fn condition(&mut self) -> Result<Expression, FilterError> {
        let function = match self.word() {
            "contains" => Some(TextFunction::Contains),
            "startswith" => Some(TextFunction::StartsWith),
            "endswith" => Some(TextFunction::EndsWith),
            _ => None,
        };
        if let Some(function) = function {
            let name = self.word();
            let before = self.at;
            self.at += name.len();
            if self.take('(') {
                return self.text_function(function);
            }
            // A property may have the name of a function.
            self.at = before;
        }
        let name = self.word();
        if self.rest()[name.len()..].trim_start().starts_with('(') {
            if let Some((collection, all)) = name
                .strip_suffix("/any")
                .map(|collection| (collection, false))
                .or_else(|| name.strip_suffix("/all").map(|collection| (collection, true)))
            {
                self.at += name.len();
                return self.lambda(collection, all);
            }
            if name.contains('.') {
                self.at += name.len();
                return self.function(name);
            }
        }
        let left = self.sum()?;
        let operator = match self.word() {
            "eq" => Comparison::Equal,
            "ne" => Comparison::NotEqual,
            "gt" => Comparison::Greater,
            "ge" => Comparison::GreaterOrEqual,
            "lt" => Comparison::Less,
            "le" => Comparison::LessOrEqual,
            "in" => {
                self.at += 2;
                return Ok(Expression::In { operand: left, values: self.list()? });
            }
            "" | "and" | "or" => return Ok(Expression::Boolean(left)),
            other => return Err(self.error(format!("'{other}' is not an operator that is supported"))),
        };
        self.at += 2;
        let right = self.sum()?;
        Ok(Expression::Compare { left, operator, right })
    }

    fn lambda(&mut self, collection: &str, all: bool) -> Result<Expression, FilterError> {
        self.expect('(')?;
        let collection = collection.to_owned();
        if self.take(')') {
            if all {
                return Err(self.error("all needs a condition"));
            }
            return Ok(Expression::Lambda { collection, variable: String::new(), all, inner: None });
        }
        let variable = self.word().to_owned();
        if variable.is_empty() || variable.contains(['/', '.']) {
            return Err(self.error("a name for the members of the collection was expected"));
        }
        self.at += variable.len();
        self.expect(':')?;
        let inner = self.deeper(Self::or)?;
        self.expect(')')?;
        Ok(Expression::Lambda { collection, variable, all, inner: Some(Box::new(inner)) })
    }

    fn function(&mut self, name: &str) -> Result<Expression, FilterError> {
        self.expect('(')?;
        let mut arguments = Vec::new();
        if !self.take(')') {
            loop {
                let argument = self.word().to_owned();
                if argument.is_empty() {
                    return Err(self.error("the name of a parameter was expected"));
                }
                self.at += argument.len();
                self.expect('=')?;
                arguments.push((argument, self.argument()?));
                if !self.take(',') {
                    self.expect(')')?;
                    break;
                }
            }
        }
        Ok(Expression::Function { name: name.to_owned(), arguments })
    }

    fn argument(&mut self) -> Result<Argument, FilterError> {
        if !self.take('[') {
            return self.list_item().map(Argument::Literal);
        }
        let mut values = Vec::new();
        if self.take(']') {
            return Ok(Argument::List(values));
        }
        loop {
            values.push(self.list_item()?);
            if !self.take(',') {
                self.expect(']')?;
                return Ok(Argument::List(values));
            }
        }
    }

    /// A literal, or a text in the double quotes of JSON.
    fn list_item(&mut self) -> Result<Literal, FilterError> {
        self.skip_blanks();
        if let Some(inner) = self.rest().strip_prefix('"') {
            let mut text = String::new();
            let mut letters = inner.char_indices();
            while let Some((at, letter)) = letters.next() {
                match letter {
                    '"' => {
                        self.at += at + 2;
                        return Ok(Literal::Text(text));
                    }
                    '\\' => text.extend(letters.next().map(|(_, escaped)| escaped)),
                    other => text.push(other),
                }
            }
            return Err(self.error("a text has no end"));
        }
        match self.operand()? {
            Operand::Literal(value) => Ok(value),
            Operand::Property(name) => Err(self.error(format!("a literal was expected, not {name}"))),
            Operand::Arithmetic(_) => Err(self.error("a literal was expected")),
        }
    }

    /// What follows the bracket of a text function, with an `eq true` that some clients add.
    fn text_function(&mut self, function: TextFunction) -> Result<Expression, FilterError> {
        let operand = self.operand()?;
        self.expect(',')?;
        let part = self.operand()?;
        self.expect(')')?;
        let call = Expression::Text { function, operand, part };
        let wanted = match self.word() {
            "eq" => true,
            "ne" => false,
            _ => return Ok(call),
        };
        self.at += 2;
        let is_true = match self.word() {
            "true" => true,
            "false" => false,
            _ => return Err(self.error("true or false was expected")),
        };
        self.at += if is_true { 4 } else { 5 };
        Ok(if wanted == is_true { call } else { Expression::Not(Box::new(call)) })
    }

    fn list(&mut self) -> Result<Vec<Literal>, FilterError> {
        self.expect('(')?;
        let mut values = Vec::new();
        loop {
            match self.operand()? {
                Operand::Literal(value) => values.push(value),
                Operand::Property(name) => return Err(self.error(format!("a literal was expected, not {name}"))),
                Operand::Arithmetic(_) => return Err(self.error("a literal was expected")),
            }
            if !self.take(',') {
                self.expect(')')?;
                return Ok(values);
            }
        }
    }

    /// Operands with arithmetic between them; what is stronger comes first.
    fn sum(&mut self) -> Result<Operand, FilterError> {
        self.chain(&[("add", ArithmeticOperator::Add), ("sub", ArithmeticOperator::Subtract)], Self::product)
    }

    fn product(&mut self) -> Result<Operand, FilterError> {
        const OPERATORS: [(&str, ArithmeticOperator); 3] = [
            ("mul", ArithmeticOperator::Multiply),
            ("div", ArithmeticOperator::Divide),
            ("mod", ArithmeticOperator::Modulo),
        ];
        self.chain(&OPERATORS, Self::operand)
    }

    fn chain(
        &mut self,
        operators: &[(&str, ArithmeticOperator)],
        next: fn(&mut Self) -> Result<Operand, FilterError>,
    ) -> Result<Operand, FilterError> {
        let mut left = next(self)?;
        let mut length = 1;
        loop {
            self.skip_blanks();
            let word = self.word();
            let Some((_, operator)) = operators.iter().find(|(name, _)| *name == word) else { return Ok(left) };
            // Every one of them is a level of the tree.
            length += 1;
            if length > DEPTH_MAX {
                return Err(self.error("there are too many operators"));
            }
            self.at += word.len();
            let right = next(self)?;
            left = Operand::Arithmetic(Box::new(Arithmetic { left, operator: *operator, right }));
        }
    }

    fn operand(&mut self) -> Result<Operand, FilterError> {
        self.skip_blanks();
        if let Some((literal, length)) = literal::read(self.rest()) {
            self.at += length;
            return Ok(Operand::Literal(literal));
        }
        let word = self.word();
        if word.is_empty() || matches!(word, "and" | "or" | "not" | "eq" | "ne" | "gt" | "ge" | "lt" | "le" | "in") {
            return Err(self.error("a property or a literal was expected"));
        }
        self.at += word.len();
        if self.rest().starts_with('(') {
            self.at -= word.len();
            return Err(self.error(format!("the function {word} is not supported")));
        }
        Ok(Operand::Property(word.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fmt::Write as _;

    /// The tree with a bracket around everything.
    fn shown(expression: &Expression) -> String {
        let operand = |operand: &Operand| match operand {
            Operand::Property(name) => name.clone(),
            Operand::Literal(literal) => literal.to_string(),
            Operand::Arithmetic(both) => {
                let side = |operand: &Operand| shown(&Expression::Boolean(operand.clone()));
                format!("{} {:?} {}", side(&both.left), both.operator, side(&both.right))
            }
        };
        let joined =
            |all: &[Expression], word: &str| format!("({})", all.iter().map(shown).collect::<Vec<_>>().join(word));
        match expression {
            Expression::And(all) => joined(all, " and "),
            Expression::Or(any) => joined(any, " or "),
            Expression::Not(inner) => format!("!{}", shown(inner)),
            Expression::Compare { left, operator, right } => {
                format!("[{} {operator:?} {}]", operand(left), operand(right))
            }
            Expression::In { operand: left, values } => {
                values.iter().fold(format!("[{} In", operand(left)), |mut text, value| {
                    let _ = write!(text, " {value}");
                    text
                }) + "]"
            }
            Expression::Text { function, operand: left, part } => {
                format!("[{function:?} {} {}]", operand(left), operand(part))
            }
            Expression::Boolean(left) => format!("[{}]", operand(left)),
            Expression::Lambda { collection, variable, all, inner } => {
                let inner = inner.as_deref().map(shown).unwrap_or_default();
                format!("{}{{{collection} {variable} {inner}}}", if *all { "all" } else { "any" })
            }
            Expression::Function { name, arguments } => format!("{name}{arguments:?}"),
        }
    }

    #[test]
    fn arithmetic() {
        let row = |name: &str| match name {
            "seven" => Literal::parse("7").expect("a number"),
            "half" => Literal::Double(0.5),
            "text" => Literal::text("7"),
            _ => Literal::Null,
        };
        for (text, wanted) in [
            ("seven add 1 eq 8", true),
            ("seven sub 1 mul 2 eq 5", true),
            ("seven div 2 eq 3.5", true),
            ("seven mod 4 eq 3", true),
            ("seven add half gt 7.4", true),
            ("seven mul half lt 3.6", true),
            ("8 eq seven add 1", true),
            ("seven div 0 eq 0", false),
            ("seven div 0 eq null", true),
            ("79228162514264337593543950335 add seven gt 0", false),
            ("text add 1 eq 8", false),
            ("nothing add 1 eq null", true),
        ] {
            let tree = parse(text).unwrap_or_else(|error| panic!("{text}: {error}"));
            assert_eq!(matches(&tree, &row), wanted, "{text}");
        }
        let long = format!("seven{} gt 0", " add 1".repeat(DEPTH_MAX));
        assert!(parse(&long).is_err());
    }

    #[test]
    fn three_values() {
        let (yes, no, unknown) = (Some(true), Some(false), None);
        for (conditions, all, one) in [
            (&[][..], yes, no),
            (&[yes, yes], yes, yes),
            (&[no, no], no, no),
            (&[yes, no], no, yes),
            (&[yes, unknown], unknown, yes),
            (&[unknown, yes], unknown, yes),
            (&[no, unknown], no, unknown),
            (&[unknown, no], no, unknown),
            (&[unknown], unknown, unknown),
        ] {
            let held = (all_hold(conditions.iter().copied()), one_holds(conditions.iter().copied()));
            assert_eq!(held, (all, one), "{conditions:?}");
        }
    }

    #[test]
    fn patterns_fit_whole_texts() {
        for (text, pattern, wanted) in [
            ("abc", "abc", true),
            ("abc", "ab", false),
            ("abc", "a*", true),
            ("abc", "*c", true),
            ("abc", "*b*", true),
            ("abc", "a*c", true),
            ("ab", "ab*b", false),
            ("aXbYbc", "a*b*c", true),
            ("aba", "ab*ba", false),
            ("", "*", true),
            ("", "", true),
            ("x", "", false),
            ("äöü", "*ö*", true),
            ("abcabc", "*abc", true),
        ] {
            assert_eq!(is_like(text, pattern), wanted, "{text} {pattern}");
        }
    }

    #[test]
    fn filters_are_read() {
        for (text, wanted) in [
            ("customertypecode eq 3", "[customertypecode Equal 3]"),
            (
                "msdyn_sellable eq true  and msdyn_contactpersonid ne null",
                "([msdyn_sellable Equal true] and [msdyn_contactpersonid NotEqual null])",
            ),
            ("a eq 1 or b eq 2 and not c gt 3", "([a Equal 1] or ([b Equal 2] and ![c Greater 3]))"),
            ("(a eq 1 or b eq 2) and c ge 3.5", "(([a Equal 1] or [b Equal 2]) and [c GreaterOrEqual 3.5])"),
            ("not contains(name,'A')", "![Contains name 'A']"),
            ("startswith(name, 'O''N') or endswith( name ,' x')", "([StartsWith name 'O''N'] or [EndsWith name ' x'])"),
            ("contains(name,'A') eq false", "![Contains name 'A']"),
            ("contains eq 'A'", "[contains Equal 'A']"),
            (
                "d le 2024-01-02T03:04:05Z and e lt 2024-01-02",
                "([d LessOrEqual 2024-01-02T03:04:05Z] and [e Less 2024-01-02])",
            ),
            ("t le '2021-06-23'", "[t LessOrEqual '2021-06-23']"),
            (
                "_msdyn_company_value eq 6a8f1f3c-5b1d-4f4e-9d0a-0123456789ab",
                "[_msdyn_company_value Equal 6a8f1f3c-5b1d-4f4e-9d0a-0123456789ab]",
            ),
            (
                "IsX eq Microsoft.Dynamics.DataEntities.NoYes'Yes'",
                "[IsX Equal Microsoft.Dynamics.DataEntities.NoYes'Yes']",
            ),
            ("code in ('A', 'B','C')", "[code In 'A' 'B' 'C']"),
            ("primarycontactid/fullname eq 'x'", "[primarycontactid/fullname Equal 'x']"),
            ("3 lt a", "[3 Less a]"),
            ("a add 1 gt 2", "[[a] Add [1] Greater 2]"),
            ("a add 2 mul b eq c sub 1 sub d", "[[a] Add [[2] Multiply [b]] Equal [[c] Subtract [1]] Subtract [d]]"),
            ("a div 2 ge 1 and b mod 2 ne 0", "([[a] Divide [2] GreaterOrEqual 1] and [[b] Modulo [2] NotEqual 0])"),
            ("address eq 1 and modal eq 2", "([address Equal 1] and [modal Equal 2])"),
            ("msdyn_sellable and not flag", "([msdyn_sellable] and ![flag])"),
            ("ordering eq 1 and android eq 2", "([ordering Equal 1] and [android Equal 2])"),
        ] {
            assert_eq!(parse(text).map(|tree| shown(&tree)).as_deref(), Ok(wanted), "{text}");
        }
    }

    #[test]
    fn errors_say_where() {
        let deep = format!("{}a eq 1{}", "(".repeat(65), ")".repeat(65));
        for (text, at, message) in [
            ("", 0, "a property or a literal was expected"),
            ("a eq", 4, "a property or a literal was expected"),
            ("a has 1", 2, "'has' is not an operator that is supported"),
            ("a eq 1 b", 7, "the end was expected"),
            ("(a eq 1", 7, "')' was expected"),
            ("a eq 'x", 5, "a property or a literal was expected"),
            ("a in (b)", 7, "a literal was expected, not b"),
            ("a in ()", 6, "a property or a literal was expected"),
            ("contains(a)", 10, "',' was expected"),
            ("year(d) eq 2024", 0, "the function year is not supported"),
            ("a eq 1 and", 10, "a property or a literal was expected"),
            ("a == 1", 2, "the end was expected"),
            (deep.as_str(), 65, "more than 64 levels of brackets and not"),
        ] {
            assert_eq!(parse(text), Err(FilterError { at, message: message.to_owned() }), "{text}");
        }
    }

    #[test]
    fn lambdas_and_functions_are_read() {
        for (text, wanted) in [
            ("Account_Tasks/any()", "any{Account_Tasks  }"),
            ("Account_Tasks/all(t:t/statecode eq 1)", "all{Account_Tasks t [t/statecode Equal 1]}"),
            (
                "a/any(c:c/j eq 'x' and c/b/any(o:o/d ne 'N')) and endswith(n,'I')",
                "(any{a c ([c/j Equal 'x'] and any{c/b o [o/d NotEqual 'N']})} and [EndsWith n 'I'])",
            ),
            (
                "not M.D.In(PropertyName='n',PropertyValues=[\"O'Brian\",'B', 3])",
                "!M.D.In[(\"PropertyName\", Literal(Text(\"n\"))), (\"PropertyValues\", List([Text(\"O'Brian\"), Text(\"B\"), Number(3)]))]",
            ),
            ("M.Today(PropertyName='c')", "M.Today[(\"PropertyName\", Literal(Text(\"c\")))]"),
        ] {
            assert_eq!(parse(text).map(|tree| shown(&tree)), Ok(wanted.to_owned()), "{text}");
        }
        for text in
            ["a/all()", "a/any(", "a/any(t)", "a/any(t:)", "M.F(", "M.F(a)", "M.F(a=)", "M.F(a=[\"x)", "M.F(a=[1)"]
        {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn rows_match() {
        let property = |name: &str| match name {
            "name" => Literal::text("Contoso Retail"),
            "number" => Literal::integer(3),
            "flag" => Literal::Boolean(true),
            "day" => Literal::Date(18_801),
            "symbol" => Literal::text("Yes"),
            _ => Literal::Null,
        };
        for (text, wanted) in [
            ("name eq 'CONTOSO retail '", true),
            ("name ne 'x'", true),
            ("number eq '3' and number in (1,3)", true),
            ("number gt 3 or number lt 3", false),
            ("day le '2021-06-23' and day ge 2021-06-23", true),
            ("symbol eq A.NoYes'Yes'", true),
            ("nothing eq null", true),
            ("nothing ne null", false),
            ("nothing ne 'x'", true),
            ("nothing gt 1 or nothing le 1", false),
            ("contains(name,'SO RE')", true),
            ("startswith(name,'con') and endswith(name,'RETAIL')", true),
            ("not contains(nothing,'A')", false),
            ("contains(nothing,'A') or flag", true),
            ("contains(nothing,'A') and flag", false),
            ("flag and not (number eq 4)", true),
            ("true", true),
        ] {
            assert_eq!(matches(&parse(text).expect(text), &property), wanted, "{text}");
        }
    }

    /// A long chain must neither recurse when it is read, nor when it is evaluated or dropped.
    #[test]
    fn long_chains_are_flat() {
        let text = vec!["a eq 1"; 20_000].join(" or ");
        let tree = parse(&text).expect("parses");
        assert!(!matches(&tree, &|_| Literal::Null));
    }
}

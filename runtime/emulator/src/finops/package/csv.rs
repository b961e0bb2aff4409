//! Delimited text: fields between commas, quoted where they have to be.
//!
//! Owns the grammar of the data files both ways (RFC 4180): whatever text stands in a field comes back as it was, with
//! quotes, separators and line breaks. Knows no encoding and no entity. A record that cannot be read is reported and
//! passed over; the rest of the file is read all the same.

use std::borrow::Cow;

/// One record, with the line on which it begins, counted from 1.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Record<'a> {
    pub line: usize,
    pub fields: Vec<Cow<'a, str>>,
}

/// A record that breaks the grammar.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Malformed {
    pub line: usize,
    pub message: &'static str,
}

/// Reads the records of a text one after the other.
#[derive(Debug)]
pub(super) struct Reader<'a> {
    text: &'a str,
    at: usize,
    line: usize,
}

/// What stands behind a field.
#[derive(PartialEq, Eq)]
enum After {
    Field,
    Record,
}

impl<'a> Reader<'a> {
    pub const fn new(text: &'a str) -> Self {
        Self { text, at: 0, line: 1 }
    }

    fn rest(&self) -> &'a [u8] {
        &self.text.as_bytes()[self.at..]
    }

    /// Steps over one line end, if there is one: `\r\n`, `\n` or `\r`.
    fn line_end(&mut self) -> bool {
        let length = match self.rest() {
            [b'\r', b'\n', ..] => 2,
            [b'\r' | b'\n', ..] => 1,
            _ => return false,
        };
        self.at += length;
        self.line += 1;
        true
    }

    fn plain_field(&mut self) -> &'a str {
        let length = self.rest().iter().position(|byte| matches!(byte, b',' | b'\r' | b'\n'));
        let start = self.at;
        self.at = length.map_or(self.text.len(), |length| start + length);
        &self.text[start..self.at]
    }

    /// The inside of a quoted field; the opening quote has been passed.
    fn quoted_field(&mut self) -> Result<Cow<'a, str>, &'static str> {
        let mut joined: Option<String> = None;
        loop {
            let Some(length) = self.rest().iter().position(|byte| *byte == b'"') else {
                self.at = self.text.len();
                return Err("a quoted field is not closed");
            };
            let part = &self.text[self.at..self.at + length];
            self.line += line_ends(part);
            self.at += length + 1;
            if self.rest().first() == Some(&b'"') {
                self.at += 1;
                let joined = joined.get_or_insert_default();
                joined.push_str(part);
                joined.push('"');
                continue;
            }
            return Ok(match joined {
                None => Cow::Borrowed(part),
                Some(mut joined) => {
                    joined.push_str(part);
                    Cow::Owned(joined)
                }
            });
        }
    }

    fn field(&mut self) -> Result<(Cow<'a, str>, After), &'static str> {
        let field = if self.rest().first() == Some(&b'"') {
            self.at += 1;
            self.quoted_field()?
        } else {
            Cow::Borrowed(self.plain_field())
        };
        if self.rest().first() == Some(&b',') {
            self.at += 1;
            return Ok((field, After::Field));
        }
        if self.line_end() || self.at == self.text.len() {
            return Ok((field, After::Record));
        }
        Err("text follows a closing quote")
    }
}

impl<'a> Iterator for Reader<'a> {
    type Item = Result<Record<'a>, Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        while self.line_end() {}
        if self.at == self.text.len() {
            return None;
        }
        let line = self.line;
        let mut fields = Vec::new();
        loop {
            match self.field() {
                Ok((field, after)) => {
                    fields.push(field);
                    if after == After::Record {
                        return Some(Ok(Record { line, fields }));
                    }
                }
                Err(message) => {
                    // What follows on this line belongs to the broken record.
                    while self.at < self.text.len() && !self.line_end() {
                        self.plain_field();
                        self.at += usize::from(self.rest().first() == Some(&b','));
                    }
                    return Some(Err(Malformed { line, message }));
                }
            }
        }
    }
}

fn line_ends(text: &str) -> usize {
    let bytes = text.as_bytes();
    let lone = |at: usize| bytes[at] == b'\n' || (bytes[at] == b'\r' && bytes.get(at + 1) != Some(&b'\n'));
    (0..bytes.len()).filter(|at| lone(*at)).count()
}

/// Adds a field to a record, quoted when it holds what could be taken for something else.
pub(super) fn push_field(out: &mut String, field: &str) {
    let is_special = |byte: u8| matches!(byte, b',' | b'"' | b'\r' | b'\n');
    // Blanks at the ends are data, though not every reader thinks so.
    let has_blank_end = field.starts_with([' ', '\t', '\u{feff}']) || field.ends_with([' ', '\t']);
    if !has_blank_end && !field.bytes().any(is_special) {
        out.push_str(field);
        return;
    }
    out.push('"');
    for (number, part) in field.split('"').enumerate() {
        if number > 0 {
            out.push_str("\"\"");
        }
        out.push_str(part);
    }
    out.push('"');
}

/// Adds a whole record with its line end.
pub(super) fn push_record<'f>(out: &mut String, fields: impl IntoIterator<Item = &'f str>) {
    let start = out.len();
    for (number, field) in fields.into_iter().enumerate() {
        if number > 0 {
            out.push(',');
        }
        push_field(out, field);
    }
    if out.len() == start {
        // A record of one empty field is not an empty line.
        out.push_str("\"\"");
    }
    out.push_str("\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> Vec<String> {
        Reader::new(text)
            .map(|record| match record {
                Ok(record) => format!("{}: {}", record.line, record.fields.join("|").escape_debug()),
                Err(broken) => format!("{}: {}!", broken.line, broken.message),
            })
            .collect()
    }

    #[test]
    fn records_are_read_and_broken_ones_reported() {
        for (text, wanted) in [
            ("", &[] as &[&str]),
            ("\r\n\n", &[]),
            ("a,b\r\n1,2\r\n", &["1: a|b", "2: 1|2"]),
            ("a,b\n1,2", &["1: a|b", "2: 1|2"]),
            ("a\r\n\r\nb", &["1: a", "3: b"]),
            (",\r\n", &["1: |"]),
            ("\"\"\r\n", &["1: "]),
            ("\"a,b\",c\r\n", &["1: a,b|c"]),
            ("\"say \"\"hi\"\"\",007\r\n", &["1: say \\\"hi\\\"|007"]),
            ("\"one\r\ntwo\nthree\rfour\",x\r\ny,z", &["1: one\\r\\ntwo\\nthree\\rfour|x", "5: y|z"]),
            ("a\"b,c\r\n", &["1: a\\\"b|c"]),
            ("\"a\"b,c\r\nd,e\r\n", &["1: text follows a closing quote!", "2: d|e"]),
            ("x\r\n\"never closed\r\n,y\r\n", &["1: x", "2: a quoted field is not closed!"]),
            ("\"\u{1F600}\",\u{fc}\r\n", &["1: \u{1F600}|\u{fc}"]),
        ] {
            assert_eq!(shown(text), wanted, "{text:?}");
        }
    }

    #[test]
    fn any_fields_come_back() {
        bolero::check!().with_type::<Vec<String>>().for_each(|fields| {
            if fields.is_empty() {
                return;
            }
            let mut text = String::new();
            push_record(&mut text, ["header"]);
            push_record(&mut text, fields.iter().map(String::as_str));
            push_record(&mut text, ["after"]);
            let records = Reader::new(&text).collect::<Result<Vec<_>, _>>().expect("well formed");
            assert_eq!(records.len(), 3, "{text:?}");
            assert_eq!(&records[1].fields, fields, "{text:?}");
        });
    }

    #[test]
    fn any_text_ends() {
        bolero::check!().with_type::<String>().for_each(|text| {
            assert!(Reader::new(text).count() <= text.len() + 1);
        });
    }
}

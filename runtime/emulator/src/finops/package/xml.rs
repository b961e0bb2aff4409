//! The XML of packages: manifests, and data files of the format XML-Element.
//!
//! Owns reading it without surprises: no document types, no entities but the predefined ones, bounded depth. Knows
//! elements and text and nothing of what they mean.

use std::fmt::Write as _;

use quick_xml::Reader;
use quick_xml::events::Event;

/// Packages nest six deep; more is an attack.
const DEPTH_MAX: usize = 32;

/// What comes next in a document.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Piece {
    /// The local name of an element.
    Open(String),
    Text(String),
    Close,
}

/// A document, read piece by piece.
pub(super) struct Document<'a> {
    reader: Reader<&'a [u8]>,
    depth: usize,
    /// An empty element was opened and is still to be closed.
    closes: bool,
    has_root: bool,
}

/// One element with what is in it.
#[derive(Debug, Default)]
pub(super) struct Element {
    pub name: String,
    pub text: String,
    pub children: Vec<Element>,
}

impl Element {
    pub fn child(&self, name: &str) -> Option<&Self> {
        self.children.iter().find(|child| child.name == name)
    }

    /// The text of a child, without blanks around it.
    pub fn text_of(&self, name: &str) -> Option<&str> {
        self.child(name).map(|child| child.text.trim())
    }
}

impl<'a> Document<'a> {
    pub fn new(text: &'a str) -> Self {
        Self { reader: Reader::from_str(text), depth: 0, closes: false, has_root: false }
    }

    /// The next piece; `None` at the end.
    pub fn next(&mut self) -> Result<Option<Piece>, String> {
        if std::mem::take(&mut self.closes) {
            return Ok(Some(self.close()));
        }
        loop {
            let position = self.reader.buffer_position();
            let broken = |message: &str| format!("{message} (at byte {position})");
            let event = self.reader.read_event().map_err(|error| broken(&error.to_string()))?;
            return Ok(Some(match event {
                Event::Start(start) => self.open(start.local_name().as_ref().to_owned())?,
                Event::Empty(start) => {
                    self.closes = true;
                    self.open(start.local_name().as_ref().to_owned())?
                }
                Event::End(_) => self.close(),
                Event::Text(text) => Piece::Text(text.xml10_content().into_owned()),
                Event::CData(text) => Piece::Text(text.xml10_content().into_owned()),
                Event::GeneralRef(reference) => {
                    let character = reference.resolve_char_ref().map_err(|error| broken(&error.to_string()))?;
                    let character = match (character, &*reference) {
                        (Some(character), _) => character,
                        (None, "lt") => '<',
                        (None, "gt") => '>',
                        (None, "amp") => '&',
                        (None, "quot") => '"',
                        (None, "apos") => '\'',
                        (None, _) => return Err(broken("Reference to an undeclared entity.")),
                    };
                    Piece::Text(character.to_string())
                }
                Event::DocType(_) => {
                    return Err(broken("For security reasons DTD is prohibited in this XML document."));
                }
                Event::Decl(_) | Event::PI(_) | Event::Comment(_) => continue,
                Event::Eof if self.depth > 0 => return Err(broken("Unexpected end of file.")),
                Event::Eof if !self.has_root => return Err("Root element is missing.".to_owned()),
                Event::Eof => return Ok(None),
            }));
        }
    }

    fn open(&mut self, name: String) -> Result<Piece, String> {
        if self.depth == 0 && std::mem::replace(&mut self.has_root, true) {
            return Err("There are multiple root elements.".to_owned());
        }
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            Err("The elements are nested too deeply.".to_owned())
        } else {
            Ok(Piece::Open(name))
        }
    }

    const fn close(&mut self) -> Piece {
        self.depth = self.depth.saturating_sub(1);
        Piece::Close
    }

    /// Reads up to the close of an element that was just opened.
    pub fn element(&mut self, name: String) -> Result<Element, String> {
        let mut element = Element { name, ..Element::default() };
        loop {
            match self.next()? {
                Some(Piece::Open(name)) => element.children.push(self.element(name)?),
                Some(Piece::Text(text)) => element.text.push_str(&text),
                Some(Piece::Close) | None => return Ok(element),
            }
        }
    }
}

/// The whole document.
pub(super) fn read(text: &str) -> Result<Element, String> {
    let mut document = Document::new(text);
    let mut root = None;
    while let Some(piece) = document.next()? {
        match piece {
            Piece::Open(name) => root = Some(document.element(name)?),
            Piece::Text(text) if text.trim().is_empty() => {}
            Piece::Text(_) | Piece::Close => return Err("There is text outside of the root element.".to_owned()),
        }
    }
    root.ok_or_else(|| "Root element is missing.".to_owned())
}

/// Adds text so that it comes back as it is, carriage returns and control characters too. Only U+0000 is left out, which
/// no XML document can hold.
pub(super) fn push_text(out: &mut String, text: &str) {
    for character in text.chars() {
        match character {
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '&' => out.push_str("&amp;"),
            '"' => out.push_str("&quot;"),
            '\n' | '\t' => out.push(character),
            '\0' => {}
            character if character.is_control() || matches!(character, '\u{2028}' | '\u{fffe}' | '\u{ffff}') => {
                // Writing to a string does not fail.
                let _ = write!(out, "&#x{:X};", u32::from(character));
            }
            character => out.push(character),
        }
    }
}

/// Adds `<name>text</name>`.
pub(super) fn push_element(out: &mut String, name: &str, text: &str) {
    let _ = write!(out, "<{name}>");
    push_text(out, text);
    let _ = write!(out, "</{name}>");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_are_read_or_refused() {
        for (text, wanted) in [
            ("<a><b>1</b><b/></a>", Ok("b=1 b=")),
            ("<?xml version=\"1.0\"?><!-- x --><n:a xmlns:n='u'><n:b>&lt;&#65;&amp;</n:b></n:a>", Ok("b=<A&")),
            ("<a><b><![CDATA[<x>]]></b></a>", Ok("b=<x>")),
            ("<a><b> 1\r\n2 </b></a>", Ok("b= 1\n2 ")),
            ("", Err("Root element is missing")),
            ("text", Err("outside of the root")),
            ("<a/><b/>", Err("multiple root")),
            ("<a><b></a>", Err("")),
            ("<a>", Err("")),
            ("<!DOCTYPE a [<!ENTITY x \"y\">]><a>&x;</a>", Err("DTD is prohibited")),
            ("<a>&x;</a>", Err("undeclared entity")),
            ("<a>&#xFFFFFFFF;</a>", Err("")),
        ] {
            let found = read(text).map(|root| {
                root.children.iter().map(|child| format!("{}={}", child.name, child.text)).collect::<Vec<_>>().join(" ")
            });
            match (found, wanted) {
                (Ok(found), Ok(wanted)) => assert_eq!(found, wanted, "{text}"),
                (Err(found), Err(wanted)) => assert!(found.contains(wanted), "{text}: {found}"),
                (found, wanted) => panic!("{text}: {found:?} and not {wanted:?}"),
            }
        }
        assert!(read(&"<a>".repeat(100_000)).is_err_and(|error| error.contains("nested")));
    }

    #[test]
    fn any_text_comes_back() {
        bolero::check!().with_type::<String>().for_each(|text| {
            let mut document = String::new();
            push_element(&mut document, "a", text);
            assert_eq!(read(&document).map(|root| root.text), Ok(text.replace('\0', "")), "{document:?}");
        });
    }

    #[test]
    fn any_document_is_read_or_refused() {
        bolero::check!().with_type::<String>().for_each(|text| {
            let _ = read(text);
        });
    }
}

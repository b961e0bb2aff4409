//! XML as a tree of elements, as far as a query needs it.
//!
//! Owns the limits of what is read; knows no element by name.

use std::borrow::Cow;

use quick_xml::events::{BytesStart, Event};

#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Element {
    pub name: String,
    attributes: Vec<(String, String)>,
    pub children: Vec<Element>,
    /// What stands between the tags, beside children.
    pub text: String,
}

/// Deepest nesting; filters are never that deep, and dropping a tree has to fit the stack.
const DEPTH_MAX: usize = 64;
/// Elements of one query: conditions are limited to 500, values of an `in` to some thousands.
const ELEMENTS_MAX: usize = 20_000;

impl Element {
    pub fn attribute(&self, name: &str) -> Option<&str> {
        self.attributes.iter().find(|(own, _)| own == name).map(|(_, value)| value.as_str())
    }

    fn new(start: &BytesStart<'_>) -> Result<Self, String> {
        let mut attributes = Vec::new();
        for attribute in start.attributes() {
            let attribute = attribute.map_err(|error| error.to_string())?;
            let value = quick_xml::escape::unescape(&attribute.value).map_err(|error| error.to_string())?;
            attributes.push((attribute.key.as_ref().to_owned(), value.into_owned()));
        }
        Ok(Self { name: start.name().as_ref().to_owned(), attributes, ..Self::default() })
    }
}

/// Reads a document with one root.
pub(crate) fn parse(text: &str) -> Result<Element, String> {
    let mut reader = quick_xml::Reader::from_str(text.trim());
    let mut open: Vec<Element> = Vec::new();
    let mut root = None;
    let mut count = 0;
    loop {
        let closed = match reader.read_event().map_err(|error| error.to_string())? {
            Event::Start(start) => {
                count += 1;
                if open.len() == DEPTH_MAX || count > ELEMENTS_MAX {
                    return Err("It is nested too deep, or too long.".to_owned());
                }
                open.push(Element::new(&start)?);
                None
            }
            Event::Empty(start) => {
                count += 1;
                if count > ELEMENTS_MAX {
                    return Err("It is too long.".to_owned());
                }
                Some(Element::new(&start)?)
            }
            Event::End(_) => open.pop(),
            Event::Text(text) => {
                if let Some(element) = open.last_mut() {
                    element.text.push_str(&text);
                }
                None
            }
            Event::CData(text) => {
                if let Some(element) = open.last_mut() {
                    element.text.push_str(&text);
                }
                None
            }
            Event::GeneralRef(name) => {
                if let Some(element) = open.last_mut() {
                    let reference = format!("&{};", &*name);
                    let text = quick_xml::escape::unescape(&reference).map_err(|error| error.to_string())?;
                    element.text.push_str(&text);
                }
                None
            }
            Event::Eof => break,
            Event::Comment(_) | Event::Decl(_) | Event::PI(_) => None,
            Event::DocType(_) => return Err("A document type is not allowed.".to_owned()),
        };
        if let Some(element) = closed {
            match open.last_mut() {
                Some(parent) => parent.children.push(element),
                None if root.is_none() => root = Some(element),
                None => return Err("There is more than one root.".to_owned()),
            }
        }
    }
    if !open.is_empty() {
        return Err("An element is not closed.".to_owned());
    }
    root.ok_or_else(|| "There is no root.".to_owned())
}

/// Text as the value of an attribute.
pub(crate) fn escaped(text: &str) -> Cow<'_, str> {
    quick_xml::escape::escape(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_become_trees_or_are_refused() {
        let root = parse("<?xml version='1.0'?><a b='1 &lt; 2'><c/>x &amp; y<!-- --></a>").expect("reads");
        assert_eq!((root.name.as_str(), root.attribute("b"), root.children.len()), ("a", Some("1 < 2"), 1));
        assert_eq!(root.text, "x & y");
        let deep = "<a>".repeat(100);
        for text in
            ["", "x", "<a>", "<a></b>", "<a/><b/>", "<a b=1/>", "<a b='1' b='2'/>", "<!DOCTYPE a []><a/>", &deep]
        {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}

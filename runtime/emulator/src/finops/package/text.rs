//! Data files as bytes: their formats and encodings.
//!
//! Owns what `CSV-Unicode`, `CSV` and `XML-Element` mean for a file. Knows no entity.

use std::fmt;

/// How a data file is written: the source data formats that every F&O has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SourceFormat {
    /// Commas, UTF-16 with a byte order mark.
    CsvUnicode,
    /// Commas, UTF-8.
    Csv,
    /// An element per record, with an element per field.
    XmlElement,
}

impl SourceFormat {
    pub fn of(name: &str) -> Option<Self> {
        [Self::CsvUnicode, Self::Csv, Self::XmlElement]
            .into_iter()
            .find(|format| format.to_string().eq_ignore_ascii_case(name.trim()))
    }

    pub const fn extension(self) -> &'static str {
        match self {
            Self::CsvUnicode | Self::Csv => "csv",
            Self::XmlElement => "xml",
        }
    }

    pub fn encode(self, text: &str) -> Vec<u8> {
        match self {
            Self::CsvUnicode => utf16(text),
            Self::Csv | Self::XmlElement => text.as_bytes().to_vec(),
        }
    }

    /// The text of a file; the error is what F&O says of the file.
    pub fn decode(self, bytes: &[u8]) -> Result<String, String> {
        match self {
            Self::CsvUnicode if !bytes.starts_with(&LITTLE) && !bytes.starts_with(&BIG) => {
                Err("Selected file is not Unicode.".to_owned())
            }
            Self::CsvUnicode | Self::Csv | Self::XmlElement => decoded(bytes),
        }
    }
}

impl fmt::Display for SourceFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::CsvUnicode => "CSV-Unicode",
            Self::Csv => "CSV",
            Self::XmlElement => "XML-Element",
        })
    }
}

const LITTLE: [u8; 2] = [0xff, 0xfe];
const BIG: [u8; 2] = [0xfe, 0xff];

/// UTF-16, little end first, behind a byte order mark.
pub(super) fn utf16(text: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(2 + text.len() * 2);
    bytes.extend_from_slice(&LITTLE);
    for unit in text.encode_utf16() {
        bytes.extend_from_slice(&unit.to_le_bytes());
    }
    bytes
}

/// The text of bytes in UTF-16 behind a byte order mark, or else in UTF-8.
pub(super) fn decoded(bytes: &[u8]) -> Result<String, String> {
    let unit: fn([u8; 2]) -> u16 = if bytes.starts_with(&LITTLE) {
        u16::from_le_bytes
    } else if bytes.starts_with(&BIG) {
        u16::from_be_bytes
    } else {
        let text = std::str::from_utf8(bytes).map_err(|error| format!("The file is not text in UTF-8: {error}."))?;
        return Ok(text.strip_prefix('\u{feff}').unwrap_or(text).to_owned());
    };
    let (pairs, rest) = bytes[2..].as_chunks::<2>();
    if !rest.is_empty() {
        return Err("The file ends inside a UTF-16 character.".to_owned());
    }
    char::decode_utf16(pairs.iter().map(|pair| unit(*pair)))
        .collect::<Result<String, _>>()
        .map_err(|error| format!("The file is not text in UTF-16: {error}."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_text_in_their_encoding() {
        let text = "a,\u{fc}\u{1F600}\r\n";
        assert_eq!(utf16("a\u{1F600}"), [0xff, 0xfe, b'a', 0, 0x3d, 0xd8, 0x00, 0xde]);
        for format in [SourceFormat::CsvUnicode, SourceFormat::Csv, SourceFormat::XmlElement] {
            assert_eq!(format.decode(&format.encode(text)).as_deref(), Ok(text), "{format}");
            assert_eq!(SourceFormat::of(&format.to_string().to_uppercase()), Some(format));
        }
        assert_eq!(SourceFormat::of("EXCEL"), None);
        for (format, bytes, wanted) in [
            (SourceFormat::CsvUnicode, b"plain".as_slice(), Err("not Unicode")),
            (SourceFormat::CsvUnicode, &[], Err("not Unicode")),
            (SourceFormat::CsvUnicode, &[0xff, 0xfe, b'a'], Err("ends inside")),
            (SourceFormat::CsvUnicode, &[0xff, 0xfe, 0x00, 0xd8], Err("not text in UTF-16")),
            (SourceFormat::CsvUnicode, &[0xfe, 0xff, 0, b'a'], Ok("a")),
            (SourceFormat::Csv, &[0xef, 0xbb, 0xbf, b'a'], Ok("a")),
            (SourceFormat::Csv, &[0xff], Err("not text in UTF-8")),
        ] {
            match (format.decode(bytes), wanted) {
                (Ok(found), Ok(wanted)) => assert_eq!(found, wanted),
                (Err(found), Err(wanted)) => assert!(found.contains(wanted), "{found}"),
                (found, wanted) => panic!("{bytes:?}: {found:?} and not {wanted:?}"),
            }
        }
    }
}

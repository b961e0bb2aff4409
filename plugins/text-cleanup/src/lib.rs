//! Trims, collapses, re-cases and truncates texts.
//!
//! Nearly all text of a business system is ASCII, so that is one pass over bytes without a branch per character; other
//! text goes character by character. Both give the same result, which a test holds them to.

use std::mem::MaybeUninit;

use dualwright_sdk::prelude::*;

/// What becomes of letters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Choice)]
pub enum Case {
    Keep,
    Lower,
    Upper,
    /// The first letter of each word upper case, the others lower case.
    Title,
}

#[derive(Debug, Clone, Settings)]
pub struct Cleanup {
    /// Remove blanks, tabs and line breaks at both ends.
    #[setting(default = true)]
    pub trim: bool,
    /// Make each run of blanks, tabs and line breaks one blank.
    #[setting(default = true)]
    pub collapse: bool,
    /// What becomes of letters: keep, lower, upper, or title for the first letter of each word.
    #[setting(default = "keep")]
    pub case: Case,
    /// Longest text in characters; 0 for any length. What is longer is cut, after everything else.
    #[setting(default = 0, minimum = 0, maximum = 1_000_000)]
    pub truncate: u32,
}

/// Appends the clean text to `out`.
pub fn clean(settings: &Cleanup, text: &str, out: &mut String) {
    let start = out.len();
    if !clean_ascii(settings, text.as_bytes(), out) {
        clean_characters(settings, text, out);
    }
    truncate(settings, start, out);
}

const fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r' | 0x0b | 0x0c)
}

/// What each ASCII byte becomes. Where blanks collapse, every blank becomes a space, and nothing else does.
type Table = [u8; 128];

const fn table(collapse: bool, lower: bool, upper: bool) -> Table {
    let mut table = [0; 128];
    let mut byte = 0;
    while byte < 128 {
        let letter = byte as u8;
        table[byte] = if collapse && is_blank(letter) {
            b' '
        } else if lower {
            letter.to_ascii_lowercase()
        } else if upper {
            letter.to_ascii_uppercase()
        } else {
            letter
        };
        byte += 1;
    }
    table
}

/// By whether blanks collapse.
static KEEP: [Table; 2] = [table(false, false, false), table(true, false, false)];
static LOWER: [Table; 2] = [table(false, true, false), table(true, true, false)];
static UPPER: [Table; 2] = [table(false, false, true), table(true, false, true)];

/// False, and nothing appended, when the text is not ASCII.
fn clean_ascii(settings: &Cleanup, text: &[u8], out: &mut String) -> bool {
    let text = if settings.trim { trim_ascii(text) } else { text };
    let collapse = settings.collapse;
    let tables = match settings.case {
        Case::Keep => &KEEP,
        Case::Lower | Case::Title => &LOWER,
        Case::Upper => &UPPER,
    };
    let table = &tables[usize::from(collapse)];
    if settings.case == Case::Title {
        let mut within_word = false;
        append_ascii(table, collapse, text, out, |byte, cell| {
            let cell = if within_word { cell } else { cell.to_ascii_uppercase() };
            within_word = is_word(char::from(byte));
            cell
        })
    } else {
        append_ascii(table, collapse, text, out, |_, cell| cell)
    }
}

fn trim_ascii(mut text: &[u8]) -> &[u8] {
    while let [first, rest @ ..] = text
        && is_blank(*first)
    {
        text = rest;
    }
    while let [rest @ .., last] = text
        && is_blank(*last)
    {
        text = rest;
    }
    text
}

/// Appends each byte through the table, then through `adjust`, which makes ASCII of ASCII. False, and nothing appended,
/// when a byte is not ASCII.
#[inline]
fn append_ascii(
    table: &Table,
    collapse: bool,
    text: &[u8],
    out: &mut String,
    mut adjust: impl FnMut(u8, u8) -> u8,
) -> bool {
    out.reserve(text.len());
    // SAFETY: the string is left as it is, or longer by the ASCII that the table and `adjust` gave.
    let bytes = unsafe { out.as_mut_vec() };
    let cells = bytes.spare_capacity_mut().as_mut_ptr();
    let collapse = usize::from(collapse);
    let (mut len, mut after_blank, mut seen) = (0, 0, 0);
    for &byte in text {
        seen |= byte;
        let cell = adjust(byte, table[usize::from(byte & 0x7f)]);
        // The cell is written in any case and kept only where it counts, which costs less than a branch.
        // SAFETY: `len` grows by at most one per byte, and that many cells were reserved.
        unsafe { cells.add(len).write(MaybeUninit::new(cell)) };
        let blank = collapse & usize::from(cell == b' ');
        len += 1 ^ (blank & after_blank);
        after_blank = blank;
    }
    if !seen.is_ascii() {
        return false;
    }
    let end = bytes.len() + len;
    // SAFETY: so many cells were written just now, all of them ASCII.
    unsafe { bytes.set_len(end) };
    true
}

/// Apostrophes and combining accents are within a word.
fn is_word(character: char) -> bool {
    character.is_alphanumeric() || matches!(character, '\'' | '’' | '\u{300}'..='\u{36f}')
}

fn clean_characters(settings: &Cleanup, text: &str, out: &mut String) {
    let text = if settings.trim { text.trim() } else { text };
    let mut after_blank = false;
    let mut within_word = false;
    for character in text.chars() {
        if settings.collapse && character.is_whitespace() {
            if !after_blank {
                out.push(' ');
            }
            after_blank = true;
            within_word = false;
            continue;
        }
        after_blank = false;
        match settings.case {
            Case::Keep => out.push(character),
            Case::Lower => out.extend(character.to_lowercase()),
            Case::Upper => out.extend(character.to_uppercase()),
            Case::Title if within_word => out.extend(character.to_lowercase()),
            Case::Title => {
                // Some letters become several, of which only the first starts the word: ß becomes Ss.
                let mut upper = character.to_uppercase();
                out.extend(upper.next());
                out.extend(upper.flat_map(char::to_lowercase));
            }
        }
        within_word = is_word(character);
    }
}

/// Cuts after that many characters, and the blanks that then stand at the end.
fn truncate(settings: &Cleanup, start: usize, out: &mut String) {
    let limit = settings.truncate as usize;
    if limit == 0 || out.len() - start <= limit {
        return;
    }
    if let Some((end, _)) = out[start..].char_indices().nth(limit) {
        out.truncate(start + end);
        if settings.trim {
            let trimmed = out[start..].trim_end().len();
            out.truncate(start + trimmed);
        }
    }
}

dualwright_sdk::plugin! {
    name: "text-cleanup",
    text: "Makes texts of both systems comparable: trims them, makes runs of blanks one blank, changes case, and cuts what \
           is too long. Changes every text column it is bound to.",
    state: Cleanup,
    idempotent: true,
    transform: text(clean),
}

#[cfg(test)]
mod tests {
    use dualwright_sdk::settings::SettingValue;
    use dualwright_sdk::testing::{Bench, column};

    use super::*;

    const ALL: Cleanup = Cleanup { trim: true, collapse: true, case: Case::Lower, truncate: 0 };

    fn cleaned(settings: &Cleanup, text: &str) -> String {
        let mut out = String::new();
        clean(settings, text, &mut out);
        out
    }

    #[test]
    fn what_becomes_of_texts() {
        let keep = Cleanup { case: Case::Keep, ..ALL };
        let table: &[(&Cleanup, &str, &str)] = &[
            (&keep, "", ""),
            (&keep, "   ", ""),
            (&keep, "  A  Bike\tStore \r\n", "A Bike Store"),
            (&keep, "a\u{a0}\u{2003}b", "a b"),
            (&Cleanup { trim: false, ..keep }, "  a  b  ", " a b "),
            (&Cleanup { collapse: false, ..keep }, "  a  b  ", "a  b"),
            (&Cleanup { trim: false, collapse: false, ..keep }, " a \n b ", " a \n b "),
            (&ALL, "ÄPFEL  GmbH", "äpfel gmbh"),
            (&ALL, "ΟΔΟΣ", "οδοσ"),
            (&Cleanup { case: Case::Upper, ..ALL }, "straße 1", "STRASSE 1"),
            (&Cleanup { case: Case::Title, ..ALL }, "o'NEIL  van-der BERG 2nd", "O'neil Van-Der Berg 2nd"),
            (&Cleanup { case: Case::Title, ..ALL }, "élan VITAL", "Élan Vital"),
            (&Cleanup { truncate: 4, ..keep }, "abc def", "abc"),
            (&Cleanup { truncate: 4, trim: false, ..keep }, "abc def", "abc "),
            (&Cleanup { truncate: 2, ..keep }, "🦀🦀🦀", "🦀🦀"),
            (&Cleanup { truncate: 3, ..keep }, "abc", "abc"),
        ];
        for (settings, text, wanted) in table {
            assert_eq!(cleaned(settings, text), *wanted, "{text:?} with {settings:?}");
        }
    }

    /// The pass over bytes and the pass over characters agree on ASCII, across chunk borders too, and doing it twice
    /// changes nothing more.
    #[test]
    fn both_passes_agree_and_are_idempotent() {
        let words = ["  Ab", "\t\t", "cD ", " e\n\nF", "'s ", "-", "0x", "     "];
        let mut seed = 7_u32;
        for case in [Case::Keep, Case::Lower, Case::Upper, Case::Title] {
            for (trim, collapse) in [(true, true), (true, false), (false, true), (false, false)] {
                for truncate in [0, 5, 70] {
                    let settings = Cleanup { trim, collapse, case, truncate };
                    for _ in 0..200 {
                        let mut text = String::new();
                        for _ in 0..seed % 40 {
                            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                            text.push_str(words[(seed >> 16) as usize % words.len()]);
                        }
                        seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                        let (mut bytes, mut characters) = (String::new(), String::new());
                        clean(&settings, &text, &mut bytes);
                        clean_characters(&settings, &text, &mut characters);
                        super::truncate(&settings, 0, &mut characters);
                        assert_eq!(bytes, characters, "{text:?} with {settings:?}");
                        assert_eq!(cleaned(&settings, &bytes), bytes, "{text:?} twice with {settings:?}");
                    }
                }
            }
        }
    }

    #[test]
    fn every_letter_is_clean_after_one_pass() {
        for case in [Case::Lower, Case::Upper, Case::Title] {
            let settings = Cleanup { case, ..ALL };
            // No letter beyond this plane has a case.
            for character in (0x80..=0x1_ffff).filter_map(char::from_u32) {
                let once = cleaned(&settings, &format!("{character}bc a{character}d"));
                assert_eq!(cleaned(&settings, &once), once, "{character:?} with {case:?}");
            }
        }
    }

    #[test]
    fn only_what_changes_is_in_the_patch() {
        let bench = Bench::new([column("Name", Kind::Text).writable(), column("City", Kind::Text)])
            .setting("case", SettingValue::Text("upper".to_owned()));
        let rows = [
            vec![" bike  shop".into(), " left alone ".into()],
            vec!["CLEAN".into(), Cell::Null],
            vec![Cell::Null],
            vec![Cell::Absent],
        ];
        assert_eq!(bench.transform::<Plugin>(&rows).expect("it runs"), ["Name=BIKE SHOP", "=", "=", "="]);
    }

    #[test]
    fn wrong_installations_are_refused() {
        let table = [
            (
                Bench::new([column("Name", Kind::Text)]),
                "installation: is bound to no column: name the field it shall change",
            ),
            (
                Bench::new([column("Limit", Kind::Money).writable()]),
                "Limit: is not text: bind this transform to text columns",
            ),
            (
                Bench::new([column("Name", Kind::Text).writable()])
                    .setting("case", SettingValue::Text("camel".to_owned())),
                "case: must be one of keep, lower, upper, title",
            ),
        ];
        for (bench, wanted) in table {
            let failure = bench.transform::<Plugin>(&[vec!["a".into()]]).expect_err("it is refused");
            assert_eq!(failure.reasons(), [wanted]);
        }
    }
}

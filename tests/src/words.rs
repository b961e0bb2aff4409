//! The words of a line of a story: `finops update Currencies CurrencyCode=EUR Name='Euro, "new"'`.

/// Splits a line at blanks. Single quotes keep blanks together and may stand anywhere in a word; inside them `\n`,
/// `\'`, `\\` and `\{x*4000}` (a text repeated) are understood.
pub fn split(line: &str) -> Result<Vec<String>, String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quoted = false;
    let mut rest = line.chars();
    while let Some(c) = rest.next() {
        match c {
            '\'' => {
                quoted = !quoted;
                word.get_or_insert_default();
            }
            '\\' if quoted => match rest.next() {
                Some('n') => word.get_or_insert_default().push('\n'),
                Some('{') => {
                    let inner = rest.by_ref().take_while(|&c| c != '}').collect::<String>();
                    let (text, times) = inner.rsplit_once('*').ok_or("a repetition is written \\{text*times}")?;
                    let times = times.parse().map_err(|_| format!("{times} is not a number of times"))?;
                    word.get_or_insert_default().push_str(&text.repeat(times));
                }
                Some(c @ ('\'' | '\\')) => word.get_or_insert_default().push(c),
                other => return Err(format!("\\{} means nothing", other.unwrap_or(' '))),
            },
            c if c.is_whitespace() && !quoted => words.extend(word.take()),
            c => word.get_or_insert_default().push(c),
        }
    }
    if quoted {
        return Err("a quote is not closed".to_owned());
    }
    words.extend(word);
    Ok(words)
}

/// `name=value`.
pub fn pair(word: &str) -> Result<(&str, &str), String> {
    word.split_once('=').ok_or_else(|| format!("`{word}` is not column=value"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_split_into_words() {
        for (line, wanted) in [
            ("", vec![]),
            ("  settle ", vec!["settle"]),
            ("a Name=Euro b", vec!["a", "Name=Euro", "b"]),
            ("Name='two words' x", vec!["Name=two words", "x"]),
            (r"Name='O\'Neil\n\\'", vec!["Name=O'Neil\n\\"]),
            ("Name=''", vec!["Name="]),
            (r"Name='<\{ab*3}>'", vec!["Name=<ababab>"]),
        ] {
            assert_eq!(split(line).expect(line), wanted, "{line}");
        }
        assert!(split("Name='open").is_err());
    }
}

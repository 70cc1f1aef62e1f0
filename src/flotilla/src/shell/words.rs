//! Cuts a line into commands and words.
//!
//! Spaces separate words, `;` separates commands. `"…"` and `'…'` keep both as they are; within `'…'` a backslash is an
//! ordinary character. Elsewhere a backslash protects the next character and stays in the word, since the escapes of keys and
//! values (`\x00`, `\n`, `\ `) are read later, per word. `x'00ff'` stays whole.

/// The commands of a line, each a list of words; empty commands are left out.
pub(super) fn split(line: &str) -> Result<Vec<Vec<String>>, String> {
    let mut commands = Vec::new();
    let mut words: Vec<String> = Vec::new();
    let mut word: Option<String> = None;
    let mut chars = line.chars();
    while let Some(c) = chars.next() {
        match c {
            c if c.is_whitespace() => words.extend(word.take()),
            ';' => {
                words.extend(word.take());
                commands.push(std::mem::take(&mut words));
            }
            '\\' => {
                let next = chars.next().ok_or("'\\' at the end of the line")?;
                word.get_or_insert_default().extend(['\\', next]);
            }
            '\'' if word.as_deref() == Some("x") => {
                let literal = quoted(&mut chars, '\'')?;
                word = Some(format!("x'{literal}'"));
            }
            '\'' => {
                // Read later as an escape, a backslash has to be one.
                let literal = quoted(&mut chars, '\'')?.replace('\\', "\\\\");
                word.get_or_insert_default().push_str(&literal);
            }
            '"' => {
                let literal = quoted(&mut chars, '"')?;
                word.get_or_insert_default().push_str(&literal);
            }
            c => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    commands.push(words);
    commands.retain(|words| !words.is_empty());
    Ok(commands)
}

/// Everything up to the closing quote. Within `"…"` a backslash protects the quote.
fn quoted(chars: &mut std::str::Chars<'_>, quote: char) -> Result<String, String> {
    let mut literal = String::new();
    while let Some(c) = chars.next() {
        match c {
            c if c == quote => return Ok(literal),
            '\\' if quote == '"' => {
                literal.push('\\');
                literal.extend(chars.next());
            }
            c => literal.push(c),
        }
    }
    Err(format!("a {quote} is not closed"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::parse;

    fn words(line: &str) -> Vec<Vec<String>> {
        split(line).unwrap()
    }

    #[test]
    fn words_and_commands() {
        assert_eq!(words("  put a 1; get a ;; "), [vec!["put", "a", "1"], vec!["get", "a"]]);
        assert_eq!(words(""), Vec::<Vec<String>>::new());
        assert_eq!(words("put a ''"), [["put", "a", ""]]);
    }

    #[test]
    fn quotes_and_escapes_reach_the_reader_of_keys() {
        let key = |line: &str| parse(&words(line)[0][1]).unwrap();
        assert_eq!(key("get 'a b;c'"), "a b;c");
        assert_eq!(key("get \"a b\""), "a b");
        assert_eq!(key("get a\\ b"), "a b");
        assert_eq!(key("get \\x00\\;"), &b"\x00;"[..]);
        assert_eq!(key("get 'a\\n'"), "a\\n");
        assert_eq!(key("get \"a\\n\\\"\""), "a\n\"");
    }

    #[test]
    fn literals_stay_whole() {
        assert_eq!(words("get x'00ff'"), [["get", "x'00ff'"]]);
    }

    #[test]
    fn what_is_not_closed_is_told() {
        assert!(split("get 'a").is_err());
        assert!(split("get \"a").is_err());
        assert!(split("get a\\").is_err());
    }
}

//! How keys and values are typed and printed.
//!
//! Printing shows printable text as it is and everything else as an escape; typing takes the same escapes back, so what one
//! command prints another accepts: `parse(&show(bytes)) == bytes` for all bytes.
//!
//! | typed | means |
//! |---|---|
//! | `\xNN` | the byte 0xNN |
//! | `\0` `\t` `\n` `\r` | NUL, tab, newline, carriage return |
//! | `\` and punctuation or a space | that character (`\\`, `\@`, `\-`, `\"`) |
//! | `x'00ff'` (the whole argument) | the bytes of the hex digits |
//! | anything else | its UTF-8 bytes |

use bytes::Bytes;

/// What is wrong with a typed key or value.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum TextError {
    /// The escape is not one of ours.
    #[error("unknown escape '\\{0}' (known: \\xNN \\0 \\t \\n \\r \\\\)")]
    UnknownEscape(char),
    /// The argument ends inside an escape.
    #[error("'\\' at the end (a backslash itself is '\\\\')")]
    Unfinished,
    /// Not a pair of hex digits.
    #[error("'{0}' is not a pair of hex digits")]
    NotHex(String),
}

/// The bytes of a typed key or value.
pub(crate) fn parse(typed: &str) -> Result<Bytes, TextError> {
    if let Some(digits) = typed.strip_prefix("x'").and_then(|rest| rest.strip_suffix('\'')) {
        return parse_hex(digits);
    }
    let mut bytes = Vec::with_capacity(typed.len());
    let mut chars = typed.chars();
    while let Some(c) = chars.next() {
        if c != '\\' {
            bytes.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
            continue;
        }
        match chars.next().ok_or(TextError::Unfinished)? {
            '0' => bytes.push(0),
            't' => bytes.push(b'\t'),
            'n' => bytes.push(b'\n'),
            'r' => bytes.push(b'\r'),
            'x' => {
                let digits: String = chars.by_ref().take(2).collect();
                bytes.push(hex_byte(&digits)?);
            }
            c if c.is_ascii_punctuation() || c == ' ' => bytes.push(c as u8),
            c => return Err(TextError::UnknownEscape(c)),
        }
    }
    Ok(bytes.into())
}

/// The bytes of a string of hex digits.
pub(crate) fn parse_hex(digits: &str) -> Result<Bytes, TextError> {
    let pairs = digits.as_bytes().chunks(2);
    pairs.map(|pair| hex_byte(&String::from_utf8_lossy(pair))).collect()
}

fn hex_byte(digits: &str) -> Result<u8, TextError> {
    let two = digits.len() == 2 && digits.bytes().all(|b| b.is_ascii_hexdigit());
    let byte = two.then(|| u8::from_str_radix(digits, 16).ok()).flatten();
    byte.ok_or_else(|| TextError::NotHex(digits.to_owned()))
}

/// The bytes as text that is safe on a terminal and that `parse` takes back.
pub(crate) fn show(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            show_char(c, &mut text);
        }
        chunk.invalid().iter().for_each(|byte| push_hex(*byte, &mut text));
    }
    // Plain text that looks like a hex literal must not be read as one.
    if text.starts_with("x'") && text.ends_with('\'') && text.len() > 2 {
        text.replace_range(..1, "\\x78");
    }
    text
}

fn show_char(c: char, text: &mut String) {
    match c {
        '\\' => text.push_str("\\\\"),
        '\0' => text.push_str("\\0"),
        '\t' => text.push_str("\\t"),
        '\n' => text.push_str("\\n"),
        '\r' => text.push_str("\\r"),
        ' '..='~' => text.push(c),
        // Rust's own notion of printable: no control, no combining mark on its own, no direction override.
        c if !c.is_ascii() && c.escape_debug().len() == 1 => text.push(c),
        c => c.encode_utf8(&mut [0; 4]).bytes().for_each(|byte| push_hex(byte, text)),
    }
}

fn push_hex(byte: u8, text: &mut String) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    text.push_str("\\x");
    text.push(char::from(DIGITS[usize::from(byte >> 4)]));
    text.push(char::from(DIGITS[usize::from(byte & 15)]));
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn text_stays_text_and_the_rest_is_escaped() {
        assert_eq!(show("grüße 東京".as_bytes()), "grüße 東京");
        assert_eq!(show(b"a\tb\n\0\\"), "a\\tb\\n\\0\\\\");
        assert_eq!(show(b"\xff\x00a"), "\\xff\\0a");
        assert_eq!(show("\u{202e}".as_bytes()), "\\xe2\\x80\\xae", "a direction override");
        assert_eq!(show(b"\x1b[31m"), "\\x1b[31m");
        assert_eq!(show(b"x'00'"), "\\x78'00'");
    }

    #[test]
    fn literals_and_escapes_are_read() {
        assert_eq!(parse("x'00fF'").as_deref(), Ok(&b"\x00\xff"[..]));
        assert_eq!(parse("x''").as_deref(), Ok(&b""[..]));
        assert_eq!(parse("x'").as_deref(), Ok(&b"x'"[..]));
        assert_eq!(parse("\\@a\\-\\ ").as_deref(), Ok(&b"@a- "[..]));
        assert_eq!(parse_hex("0aFF").as_deref(), Ok(&b"\x0a\xff"[..]));
    }

    #[test]
    fn mistakes_are_named() {
        assert_eq!(parse("a\\"), Err(TextError::Unfinished));
        assert_eq!(parse("\\q"), Err(TextError::UnknownEscape('q')));
        assert_eq!(parse("\\x1"), Err(TextError::NotHex("1".to_owned())));
        assert_eq!(parse("\\x+1"), Err(TextError::NotHex("+1".to_owned())));
        assert_eq!(parse("x'0g'"), Err(TextError::NotHex("0g".to_owned())));
        assert_eq!(parse_hex("abc"), Err(TextError::NotHex("c".to_owned())));
    }

    proptest! {
        #[test]
        fn what_is_printed_is_read_back(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let back = parse(&show(&bytes));
            prop_assert_eq!(back.as_deref(), Ok(&bytes[..]));
        }

        #[test]
        fn so_is_text(text in "\\PC{0,20}|x'[0-9a-f]{0,6}'|.{0,20}") {
            let back = parse(&show(text.as_bytes()));
            prop_assert_eq!(back.as_deref(), Ok(text.as_bytes()));
        }

        #[test]
        fn nothing_printed_can_steer_a_terminal(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            prop_assert!(!show(&bytes).chars().any(char::is_control));
        }
    }
}

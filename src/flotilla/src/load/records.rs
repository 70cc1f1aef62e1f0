//! Cuts input into records.
//!
//! | format | key | value |
//! |---|---|---|
//! | debian-stanzas | the content of a field (`Package`) | the stanza, to the last newline before the blank line |
//! | jsonl | `key` or `key_b64` | `value` or `value_b64`, as `export` writes them |
//! | tsv | up to the first TAB, escaped | the rest of the line, escaped, as `-o plain` prints it |

use std::io::BufRead;

use bytes::Bytes;
use client::Pair;
use proto::limits::VALUE_BYTES_MAX;
use serde_json::Value;

use crate::output::json_bytes;
use crate::text;

/// How the input is made up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Format {
    /// Paragraphs of `Field: content`, as in a Debian package index
    DebianStanzas,
    /// One JSON object per line
    Jsonl,
    /// One `key TAB value` per line
    Tsv,
}

/// A record that cannot be read.
#[derive(Debug, thiserror::Error)]
pub(super) enum RecordError {
    /// The input itself.
    #[error("line {line}: {error}")]
    Io {
        /// The line where it happened.
        line: u64,
        /// What.
        error: std::io::Error,
    },
    /// One record; the next one may be fine.
    #[error("line {line}: {reason}")]
    Bad {
        /// Its first line.
        line: u64,
        /// What is wrong with it.
        reason: String,
    },
}

/// The records of an input.
pub(super) struct Records<R> {
    input: R,
    format: Format,
    key_field: Vec<u8>,
    line: u64,
}

impl<R: BufRead> Records<R> {
    /// Nothing is read yet.
    pub(super) fn new(input: R, format: Format, key_field: &str) -> Records<R> {
        let key_field = format!("{key_field}:").to_ascii_lowercase().into_bytes();
        Records { input, format, key_field, line: 0 }
    }

    fn read_line(&mut self, into: &mut Vec<u8>) -> Result<usize, RecordError> {
        let line = self.line + 1;
        // A line longer than any value is no line of ours: do not read it whole into memory.
        let mut limited = std::io::Read::take(&mut self.input, 4 * VALUE_BYTES_MAX as u64);
        let read =
            limited.read_until(b'\n', into).map_err(|error| RecordError::Io { line, error })?;
        self.line = line;
        Ok(read)
    }

    fn next_line_record(&mut self) -> Option<Result<Pair, RecordError>> {
        loop {
            let mut line = Vec::new();
            match self.read_line(&mut line) {
                Ok(0) => return None,
                Ok(_) => {}
                Err(error) => return Some(Err(error)),
            }
            if line.ends_with(b"\n") {
                line.pop();
            }
            if line.is_empty() {
                continue;
            }
            let record = match self.format {
                Format::Tsv => parse_tsv(&line),
                Format::Jsonl | Format::DebianStanzas => parse_json(&line),
            };
            let at = self.line;
            return Some(record.map_err(|reason| RecordError::Bad { line: at, reason }));
        }
    }

    fn next_stanza(&mut self) -> Option<Result<Pair, RecordError>> {
        let mut stanza = Vec::new();
        let mut first_line = self.line + 1;
        loop {
            let before = stanza.len();
            let read = match self.read_line(&mut stanza) {
                Ok(read) => read,
                Err(error) => return Some(Err(error)),
            };
            let blank = stanza[before..].trim_ascii().is_empty();
            if !blank && read > 0 {
                if stanza.len() > VALUE_BYTES_MAX {
                    let reason = format!("the stanza exceeds {VALUE_BYTES_MAX} bytes");
                    return Some(Err(RecordError::Bad { line: first_line, reason }));
                }
                continue;
            }
            stanza.truncate(before);
            if !stanza.is_empty() {
                break;
            }
            if read == 0 {
                return None;
            }
            first_line = self.line + 1;
        }
        let key = self.field(&stanza).ok_or_else(|| {
            let field = String::from_utf8_lossy(&self.key_field).into_owned();
            RecordError::Bad { line: first_line, reason: format!("the stanza has no '{field}'") }
        });
        Some(key.map(|key| (key, Bytes::from(stanza))))
    }

    fn field(&self, stanza: &[u8]) -> Option<Bytes> {
        let length = self.key_field.len();
        let named = |line: &&[u8]| {
            line.len() >= length && line[..length].eq_ignore_ascii_case(&self.key_field)
        };
        let line = stanza.split(|byte| *byte == b'\n').find(named)?;
        let content = line[length..].trim_ascii();
        (!content.is_empty()).then(|| Bytes::copy_from_slice(content))
    }
}

impl<R: BufRead> Iterator for Records<R> {
    type Item = Result<Pair, RecordError>;

    fn next(&mut self) -> Option<Self::Item> {
        match self.format {
            Format::DebianStanzas => self.next_stanza(),
            Format::Jsonl | Format::Tsv => self.next_line_record(),
        }
    }
}

fn parse_tsv(line: &[u8]) -> Result<Pair, String> {
    let line =
        std::str::from_utf8(line).map_err(|_| "not UTF-8 (bytes are typed \\xNN)".to_owned())?;
    let (key, value) = line.split_once('\t').ok_or("there is no TAB")?;
    let bytes = |typed| text::parse(typed).map_err(|error| error.to_string());
    Ok((bytes(key)?, bytes(value)?))
}

fn parse_json(line: &[u8]) -> Result<Pair, String> {
    let parsed: Value = serde_json::from_slice(line).map_err(|error| error.to_string())?;
    let Value::Object(object) = parsed else { return Err("not a JSON object".to_owned()) };
    let key = json_bytes(&object, "key")?.ok_or("there is no \"key\"")?;
    let value = json_bytes(&object, "value")?.ok_or("there is no \"value\"")?;
    Ok((key, value))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn records(format: Format, input: &[u8]) -> Vec<Result<(String, String), String>> {
        let text = |bytes: Bytes| String::from_utf8_lossy(&bytes).into_owned();
        Records::new(input, format, "Package")
            .map(|record| {
                record.map(|(k, v)| (text(k), text(v))).map_err(|error| error.to_string())
            })
            .collect()
    }

    fn ok(key: &str, value: &str) -> Result<(String, String), String> {
        Ok((key.to_owned(), value.to_owned()))
    }

    #[test]
    fn stanzas_are_cut_at_blank_lines() {
        let input = b"\n\nPackage: a\nVersion: 1\n\n\npackage:  b \nDescription: x\n .\n y\n";
        let expected = [
            ok("a", "Package: a\nVersion: 1\n"),
            ok("b", "package:  b \nDescription: x\n .\n y\n"),
        ];
        assert_eq!(records(Format::DebianStanzas, input), expected);
        assert_eq!(records(Format::DebianStanzas, b"\n\n"), []);
    }

    #[test]
    fn a_stanza_without_the_field_is_told_with_its_line() {
        let got = records(Format::DebianStanzas, b"Package: a\n\nVersion: 2\nX: y\n\nPackage: c\n");
        let wrong = Err("line 3: the stanza has no 'package:'".to_owned());
        assert_eq!(got, [ok("a", "Package: a\n"), wrong, ok("c", "Package: c\n")]);
    }

    #[test]
    fn json_lines_carry_text_and_bytes() {
        let input = b"{\"key\":\"a\",\"value\":\"1\"}\n\n{\"key_b64\":\"AA==\",\"value\":\"\"}\n{\"key\":1}\n[]\n";
        let got = records(Format::Jsonl, input);
        assert_eq!(got[..2], [ok("a", "1"), ok("\0", "")]);
        assert!(got[2].as_ref().is_err_and(|error| error.starts_with("line 4:")));
        assert!(got[3].is_err());
    }

    #[test]
    fn tsv_is_what_plain_output_is() {
        let got = records(Format::Tsv, b"a\\t\tx\\ny\nno tab\nb\tlast");
        assert_eq!(got[0], ok("a\t", "x\ny"));
        assert_eq!(got[1], Err("line 2: there is no TAB".to_owned()));
        assert_eq!(got[2], ok("b", "last"));
    }
}

//! Completes verbs, and the flags of the verb that begins the line.

use std::collections::BTreeMap;

use rustyline::completion::Completer;
use rustyline::highlight::Highlighter;
use rustyline::hint::Hinter;
use rustyline::validate::Validator;
use rustyline::{Context, Helper, Result};

/// What can be completed.
pub(super) struct Completion {
    flags_of: BTreeMap<String, Vec<String>>,
}

impl Completion {
    /// Verbs with their flags.
    pub(super) fn new(verbs: impl Iterator<Item = (String, Vec<String>)>) -> Completion {
        let mut flags_of: BTreeMap<String, Vec<String>> = verbs.collect();
        flags_of.insert("help".to_owned(), Vec::new());
        Completion { flags_of }
    }

    /// Where the last word begins, and what it could become.
    fn candidates(&self, line: &str) -> (usize, Vec<String>) {
        let command_start = line.rfind(';').map_or(0, |at| at + 1);
        let command = &line[command_start..];
        let word_start = command.rfind(char::is_whitespace).map_or(0, |at| at + 1);
        let word = &command[word_start..];
        let first = command.split_whitespace().next().unwrap_or_default();
        let is_verb = command[..word_start].trim().is_empty();
        let fitting = |names: &mut dyn Iterator<Item = &String>| -> Vec<String> {
            names.filter(|name| name.starts_with(word)).cloned().collect()
        };
        let candidates = match is_verb || (first == "help" && !word.starts_with('-')) {
            true => fitting(&mut self.flags_of.keys()),
            false if word.starts_with('-') => {
                fitting(&mut self.flags_of.get(first).into_iter().flatten())
            }
            false => Vec::new(),
        };
        (command_start + word_start, candidates)
    }
}

impl Completer for Completion {
    type Candidate = String;

    fn complete(&self, line: &str, at: usize, _: &Context<'_>) -> Result<(usize, Vec<String>)> {
        Ok(self.candidates(&line[..at]))
    }
}

impl Hinter for Completion {
    type Hint = String;
}
impl Highlighter for Completion {}
impl Validator for Completion {}
impl Helper for Completion {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verbs_come_first_and_then_flags() {
        let flags = vec!["--prefix".to_owned(), "--limit".to_owned()];
        let verbs = [("scan".to_owned(), flags), ("status".to_owned(), vec![])];
        let completion = Completion::new(verbs.into_iter());
        let complete = |line| completion.candidates(line);
        assert_eq!(complete("s"), (0, vec!["scan".to_owned(), "status".to_owned()]));
        assert_eq!(complete("get a; sc"), (7, vec!["scan".to_owned()]));
        assert_eq!(complete("scan --p"), (5, vec!["--prefix".to_owned()]));
        assert_eq!(complete("help st"), (5, vec!["status".to_owned()]));
        assert_eq!(complete("scan a"), (5, vec![]));
    }
}

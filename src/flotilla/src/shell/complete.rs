//! Completes verbs, the verbs below them (`region sp…`), and the flags of what the line says so far.

use std::collections::BTreeMap;

use rustyline::completion::Completer;
use rustyline::highlight::Highlighter;
use rustyline::hint::Hinter;
use rustyline::validate::Validator;
use rustyline::{Context, Helper, Result};

/// The words that may follow a verb.
#[derive(Clone, Debug, Default)]
pub(super) struct Words {
    /// Verbs below it.
    verbs: BTreeMap<String, Words>,
    flags: Vec<String>,
}

impl Words {
    /// What a command knows, and what every command below `common` knows.
    pub(super) fn of(command: &clap::Command, common: &[String]) -> Words {
        let flags = command.get_arguments().filter_map(|flag| flag.get_long());
        let flags = flags.map(|flag| format!("--{flag}")).chain(common.iter().cloned());
        let below = command.get_subcommands();
        let verbs = below.map(|verb| (verb.get_name().to_owned(), Words::of(verb, common)));
        Words { verbs: verbs.collect(), flags: flags.collect() }
    }
}

/// What can be completed.
pub(super) struct Completion {
    words: Words,
}

impl Completion {
    /// The verbs of a line.
    pub(super) fn new(line: &clap::Command) -> Completion {
        let flags = line.get_arguments().filter_map(|flag| flag.get_long());
        let common: Vec<String> = flags.map(|flag| format!("--{flag}")).collect();
        let mut words = Words::of(line, &common);
        words.flags.clear();
        words.verbs.insert("help".to_owned(), Words { flags: Vec::new(), ..words.clone() });
        Completion { words }
    }

    /// Where the last word begins, and what it could become.
    fn candidates(&self, line: &str) -> (usize, Vec<String>) {
        let command_start = line.rfind(';').map_or(0, |at| at + 1);
        let command = &line[command_start..];
        let word_start = command.rfind(char::is_whitespace).map_or(0, |at| at + 1);
        let word = &command[word_start..];
        let mut words = &self.words;
        for said in command[..word_start].split_whitespace() {
            match words.verbs.get(said) {
                Some(below) => words = below,
                None => break,
            }
        }
        let known: Vec<&String> = match word.starts_with('-') {
            true => words.flags.iter().collect(),
            false => words.verbs.keys().collect(),
        };
        let fitting = known.into_iter().filter(|name| name.starts_with(word)).cloned();
        (command_start + word_start, fitting.collect())
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
    use clap::CommandFactory;

    use super::*;
    use crate::shell::Line;

    #[test]
    fn verbs_come_first_then_those_below_and_then_flags() {
        let completion = Completion::new(&Line::command());
        let complete = |line| {
            let (at, found) = completion.candidates(line);
            (at, found.join(" "))
        };
        assert_eq!(complete("sc"), (0, "scan".to_owned()));
        assert_eq!(complete("get a; sc"), (7, "scan".to_owned()));
        assert_eq!(complete("scan --p"), (5, "--prefix --plain-writes".to_owned()));
        assert_eq!(complete("help sta"), (5, "status".to_owned()));
        assert_eq!(complete("scan a"), (5, String::new()));
        assert_eq!(complete("region tr"), (7, "transfer-leader".to_owned()));
        assert_eq!(complete("store drain 4 --can"), (14, "--cancel".to_owned()));
        assert_eq!(complete("help region sp"), (12, "split".to_owned()));
        assert!(complete("balance ").1.contains("pause"));
    }
}

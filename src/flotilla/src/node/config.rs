//! `config default`, `config check`.

use std::io::Write;
use std::path::PathBuf;

use crate::context::note;
use crate::failure::Failure;
use crate::node::settings::{Process, commented, parse_file};
use crate::node::{scheduler, store};

/// What can be done with configuration files.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Verb {
    /// Print every setting with its default and what it is for
    Default {
        /// Of which process
        #[arg(value_enum)]
        process: Kind,
    },
    /// Check a file without running anything
    Check {
        /// Of which process
        #[arg(value_enum)]
        process: Kind,
        /// The file
        file: PathBuf,
    },
}

/// A server process.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
pub(crate) enum Kind {
    /// `flotilla store`
    Store,
    /// `flotilla scheduler`
    Scheduler,
}

/// Does it.
pub(crate) fn run(verb: Verb) -> Result<(), Failure> {
    match verb {
        Verb::Default { process } => {
            let text = match process {
                Kind::Store => commented::<store::Store>(),
                Kind::Scheduler => commented::<scheduler::Scheduler>(),
            };
            std::io::stdout().write_all(text.as_bytes()).map_err(Failure::io("stdout"))
        }
        Verb::Check { process, file } => {
            let shown = file.display().to_string();
            let text = std::fs::read_to_string(&file).map_err(Failure::io(shown.clone()))?;
            match process {
                Kind::Store => check::<store::Store>(&shown, &text)?,
                Kind::Scheduler => check::<scheduler::Scheduler>(&shown, &text)?,
            }
            note(&format!("{shown}: fine"));
            Ok(())
        }
    }
}

fn check<P: Process + Check>(path: &str, text: &str) -> Result<(), Failure> {
    let given = parse_file::<P>(text).map_err(|e| Failure::Usage(format!("{path}: {e}")))?;
    let mut table = crate::node::settings::defaults(P::SETTINGS);
    table.extend(given);
    P::check(table)
}

/// A process whose settings can be checked as a whole.
pub(crate) trait Check {
    /// Whether the process would start with them.
    fn check(table: toml::Table) -> Result<(), Failure>;
}

impl Check for store::Store {
    fn check(table: toml::Table) -> Result<(), Failure> {
        store::split(table).map(drop)
    }
}

impl Check for scheduler::Scheduler {
    fn check(table: toml::Table) -> Result<(), Failure> {
        scheduler::split(table).map(drop)
    }
}

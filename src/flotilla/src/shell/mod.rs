//! The shell: the same verbs, line by line, over one connection.
//!
//! `;` separates commands on a line; `help [verb]`, `timing on|off`, `exit`. Ctrl-C stops the running command, or clears the
//! line; Ctrl-D leaves. The history is the user's alone (mode 0600), and a line that begins with a space is not kept.

mod complete;
mod words;

use std::path::PathBuf;
use std::time::Instant;

use clap::{CommandFactory, Parser};
use rustyline::error::ReadlineError;
use rustyline::history::FileHistory;
use rustyline::{Config, Editor};
use tokio::runtime::Runtime;

use crate::cli::Global;
use crate::context::{Context, note};
use crate::endpoints;
use crate::failure::Failure;
use crate::verbs::{self, ClusterVerb, DataVerb};
use complete::Completion;

/// One command of a line.
#[derive(Debug, Parser)]
#[command(name = "", multicall = false, no_binary_name = true, disable_version_flag = true)]
#[command(max_term_width = 100, override_usage = "<verb> …")]
pub(crate) struct Line {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    verb: ShellVerb,
}

/// What a line can say.
#[derive(Debug, clap::Subcommand)]
enum ShellVerb {
    #[command(flatten)]
    Data(DataVerb),
    #[command(flatten)]
    Cluster(ClusterVerb),
    /// The stores of the cluster
    #[command(subcommand)]
    Store(verbs::store::Verb),
    /// Settings of the running cluster
    #[command(subcommand)]
    Config(verbs::cluster_config::Verb),
    /// Show how long every command takes
    Timing {
        /// on or off
        #[arg(value_enum, default_value = "on")]
        switch: Switch,
    },
    /// Leave the shell
    #[command(alias = "quit")]
    Exit,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Switch {
    On,
    Off,
}

impl ShellVerb {
    /// Does it, if it is about the cluster.
    async fn run(self, context: &mut Context) -> Result<(), Failure> {
        match self {
            ShellVerb::Data(verb) => verb.run(context).await,
            ShellVerb::Cluster(verb) => verb.run(context).await,
            ShellVerb::Store(verb) => verbs::store::run(context, verb).await,
            ShellVerb::Config(verb) => verbs::cluster_config::run(context, verb).await,
            // Handled by the shell itself.
            ShellVerb::Timing { .. } | ShellVerb::Exit => Ok(()),
        }
    }
}

/// Whether the shell goes on after a command.
enum After {
    Continue,
    Leave,
}

struct Shell<'a> {
    runtime: &'a Runtime,
    context: Context,
    timing: bool,
}

/// Reads and runs lines until the user leaves. The exit code is that of the last command, so that a script on stdin can tell.
pub(crate) fn run(runtime: &Runtime, context: Context) -> Result<(), Failure> {
    let mut shell = Shell { runtime, context, timing: false };
    let prompt = shell.connect();
    let mut editor = editor()?;
    let history = history_file();
    if let Some(path) = &history {
        // The first time there is none.
        let _ = editor.load_history(path);
    }
    let mut last = Ok(());
    loop {
        match editor.readline(&prompt) {
            Ok(line) => {
                let _ = editor.add_history_entry(&line);
                match shell.line(&line) {
                    Ok(After::Continue) => last = Ok(()),
                    Ok(After::Leave) => break,
                    Err(failure) => {
                        note(&format!("error: {failure}"));
                        last = Err(failure);
                    }
                }
            }
            Err(ReadlineError::Interrupted) => {}
            Err(ReadlineError::Eof) => break,
            Err(error) => return Err(Failure::Input(error.to_string())),
        }
    }
    if let Some(path) = &history
        && let Err(error) = save_history(&mut editor, path)
    {
        note(&format!("the history was not saved: {error}"));
    }
    match last {
        Err(failure) if failure.code() == Failure::Interrupted.code() => Ok(()),
        other => other.map_err(|failure| Failure::Child(failure.code())),
    }
}

impl Shell<'_> {
    /// Connects, and says to what. The shell starts without a cluster, too.
    fn connect(&mut self) -> String {
        let greeting = self.runtime.block_on(async {
            let client = self.context.client().await?;
            Ok::<_, Failure>(client.status().await?)
        });
        match greeting {
            Ok(status) => {
                let up = status.stores.iter().filter(|store| store.is_up()).count();
                note(&format!("cluster {}: 'help' shows what can be done", status.cluster_id));
                let state = if status.problems().is_empty() { "ok" } else { "unhealthy" };
                format!("flotilla({up} stores {state})> ")
            }
            Err(failure) => {
                note(&format!("{failure}; each command tries again"));
                "flotilla(not connected)> ".to_owned()
            }
        }
    }

    fn line(&mut self, line: &str) -> Result<After, Failure> {
        for words in words::split(line).map_err(Failure::Usage)? {
            let line = match Line::try_parse_from(words) {
                Ok(line) => line,
                Err(error) => {
                    // Also how clap hands over the text of `help`.
                    let is_help = !error.use_stderr();
                    let _ = error.print();
                    if is_help {
                        continue;
                    }
                    return Err(Failure::Usage("nothing was done".to_owned()));
                }
            };
            if let After::Leave = self.command(line)? {
                return Ok(After::Leave);
            }
        }
        Ok(After::Continue)
    }

    fn command(&mut self, line: Line) -> Result<After, Failure> {
        let verb = match line.verb {
            ShellVerb::Exit => return Ok(After::Leave),
            ShellVerb::Timing { switch } => {
                self.timing = matches!(switch, Switch::On);
                return Ok(After::Continue);
            }
            verb => verb,
        };
        let global = inherit(line.global, &self.context.global);
        let mut context = self.context.with_global(global);
        #[expect(clippy::disallowed_methods, reason = "the user asked how long it took")]
        let started = Instant::now();
        let outcome = self.runtime.block_on(async {
            // Kept for the next line, should this one be the first to get through.
            self.context.client().await?;
            context = self.context.with_global(context.global.clone());
            tokio::select! {
                outcome = verb.run(&mut context) => outcome,
                _ = tokio::signal::ctrl_c() => Err(Failure::Interrupted),
            }
        });
        self.context.keep(&context);
        if self.timing {
            note(&format!("{:.2} ms", started.elapsed().as_secs_f64() * 1e3));
        }
        outcome.map(|()| After::Continue)
    }
}

/// What a line does not say is as the shell was started.
fn inherit(line: Global, shell: &Global) -> Global {
    Global {
        endpoints: shell.endpoints.clone(),
        output: line.output.or(shell.output),
        timeout: if line.timeout == client::Settings::default().budget {
            shell.timeout
        } else {
            line.timeout
        },
        hex: line.hex || shell.hex,
        no_header: line.no_header || shell.no_header,
        null: line.null || shell.null,
        plain_writes: line.plain_writes || shell.plain_writes,
    }
}

fn editor() -> Result<Editor<Completion, FileHistory>, Failure> {
    let config = Config::builder().history_ignore_space(true).auto_add_history(false).build();
    let mut editor =
        Editor::with_config(config).map_err(|error| Failure::Input(error.to_string()))?;
    editor.set_helper(Some(Completion::new(&Line::command())));
    Ok(editor)
}

fn history_file() -> Option<PathBuf> {
    let dir = endpoints::state_dir()?;
    std::fs::create_dir_all(&dir).ok()?;
    Some(dir.join("history"))
}

/// Writes the history so that only its owner can read it.
fn save_history(
    editor: &mut Editor<Completion, FileHistory>,
    path: &PathBuf,
) -> Result<(), ReadlineError> {
    use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
    let file = std::fs::OpenOptions::new().create(true).append(true).mode(0o600).open(path)?;
    file.set_permissions(std::fs::Permissions::from_mode(0o600))?;
    editor.save_history(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lines_are_consistent() {
        Line::command().debug_assert();
    }

    #[test]
    fn a_line_is_a_verb_with_options() {
        let line = Line::try_parse_from(["scan", "--prefix", "a", "-o", "json"]).unwrap();
        assert!(matches!(line.verb, ShellVerb::Data(DataVerb::Scan(_))));
        assert!(Line::try_parse_from(["store"]).is_err(), "no servers from within the shell");
        let drain = Line::try_parse_from(["store", "drain", "4", "--yes"]).unwrap();
        assert!(matches!(drain.verb, ShellVerb::Store(_)));
        let quit = Line::try_parse_from(["quit"]).unwrap();
        assert!(matches!(quit.verb, ShellVerb::Exit));
    }
}

//! The command line: `flotilla [options] <verb>`; no verb on a terminal is the shell.

use std::time::Duration;

use clap::{Args, Parser, Subcommand};

#[cfg(feature = "rocksdb")]
use crate::bench;
use crate::output::Format;
use crate::{node, playground, verbs};

/// Flotilla: a sharded, replicated key-value store. Without a verb on a terminal: the shell.
#[derive(Debug, Parser)]
#[command(name = "flotilla", version, max_term_width = 100, after_help = EXIT_CODES)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) verb: Option<Verb>,
}

const EXIT_CODES: &str = "Exit codes: 0 ok, 1 failed, 2 usage, 3 not found, 4 cluster unreachable, 5 no answer in time \
(retryable), 7 unhealthy, 9 undetermined write, 130 interrupted.\n\
Keys and values: text with \\xNN \\0 \\t \\n \\r \\\\ escapes, or x'00ff', or hex digits with --hex.";

/// Options of every verb that talks to a cluster.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Common options")]
pub(crate) struct Global {
    /// Schedulers, as host:port,… [default: the newest running playground, else 127.0.0.1:2379]
    #[arg(long, short = 'e', global = true, env = "FLOTILLA_ENDPOINTS", value_delimiter = ',')]
    pub(crate) endpoints: Vec<String>,
    /// Output: table on a terminal, plain into a pipe
    #[arg(long, short, global = true, env = "FLOTILLA_OUTPUT", value_enum)]
    pub(crate) output: Option<Format>,
    /// Time budget of one operation, retries included: 10s, 500ms, 2m
    #[arg(long, global = true, env = "FLOTILLA_TIMEOUT", default_value = "10s", value_parser = duration)]
    pub(crate) timeout: Duration,
    /// Keys and values are typed as hex digits
    #[arg(long, global = true)]
    pub(crate) hex: bool,
    /// Leave out the header of tables and CSV
    #[arg(long, global = true)]
    pub(crate) no_header: bool,
    /// End records with NUL instead of a newline
    #[arg(long, short = '0', global = true)]
    pub(crate) null: bool,
    /// Write without a session: cheaper, but a lost answer leaves the write undetermined
    #[arg(long, global = true)]
    pub(crate) plain_writes: bool,
}

/// Everything the binary can do.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    #[command(flatten)]
    Data(verbs::DataVerb),
    #[command(flatten)]
    Cluster(verbs::ClusterVerb),
    /// Run a store; with a verb: the stores of the cluster
    Store(Store),
    /// Run a scheduler
    Scheduler(node::scheduler::Options),
    /// Configuration files of the processes; settings of the running cluster
    #[command(subcommand)]
    Config(Config),
    /// Run a whole cluster on this machine; with a verb: make its processes fail
    Playground(playground::Playground),
    /// Measure a cluster
    #[cfg(feature = "rocksdb")]
    Bench(bench::Args),
    /// The interactive shell
    Shell,
}

/// `store` alone runs one.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Store {
    #[command(subcommand)]
    pub(crate) verb: Option<verbs::store::Verb>,
    #[command(flatten)]
    pub(crate) options: node::store::Options,
}

/// Files and the cluster.
#[derive(Debug, Subcommand)]
pub(crate) enum Config {
    #[command(flatten)]
    File(node::config::Verb),
    #[command(flatten)]
    Cluster(verbs::cluster_config::Verb),
}

/// A duration as people write it: 500ms, 2s, 1m, 1h.
pub(crate) fn duration(typed: &str) -> Result<Duration, String> {
    let at = typed.find(|c: char| !c.is_ascii_digit()).unwrap_or(typed.len());
    let (digits, unit) = typed.split_at(at);
    let number: u64 =
        digits.parse().map_err(|_| format!("'{typed}' does not begin with a number"))?;
    let millis = match unit {
        "ms" => 1,
        "s" | "" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return Err(format!("'{unit}' is no unit of time (ms, s, m, h)")),
    };
    number
        .checked_mul(millis)
        .filter(|total| *total > 0)
        .map(Duration::from_millis)
        .ok_or_else(|| format!("'{typed}' is not a possible time"))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn durations_are_read_as_people_write_them() {
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(duration("2"), Ok(Duration::from_secs(2)));
        assert_eq!(duration("1m"), Ok(Duration::from_secs(60)));
        assert!(duration("0s").is_err());
        assert!(duration("s").is_err());
        assert!(duration("5 parsecs").is_err());
    }

    #[test]
    fn a_wrong_flag_names_the_right_one() {
        let error = Cli::try_parse_from(["flotilla", "scan", "--revers"]).unwrap_err().to_string();
        assert!(error.contains("--reverse"), "{error}");
        let error = Cli::try_parse_from(["flotilla", "scn"]).unwrap_err().to_string();
        assert!(error.contains("scan"), "{error}");
    }

    #[test]
    fn a_store_runs_or_is_looked_at() {
        let store = |words: &[&str]| match Cli::try_parse_from(words).map(|cli| cli.verb) {
            Ok(Some(Verb::Store(store))) => Ok(store.verb.is_some()),
            Ok(_) => panic!("{words:?}"),
            Err(error) => Err(error.to_string()),
        };
        assert_eq!(store(&["flotilla", "store", "--addr", "127.0.0.1:1"]), Ok(false));
        assert_eq!(store(&["flotilla", "store"]), Ok(false));
        assert_eq!(store(&["flotilla", "store", "ls", "-o", "json"]), Ok(true));
        assert_eq!(store(&["flotilla", "store", "drain", "4", "--yes", "--wait=2m"]), Ok(true));
        assert!(store(&["flotilla", "store", "--addr", "127.0.0.1:1", "ls"]).is_err());
        let config = Cli::try_parse_from(["flotilla", "config", "get", "x"]).map(|cli| cli.verb);
        assert!(matches!(config, Ok(Some(Verb::Config(Config::Cluster(_))))));
    }

    #[test]
    fn values_may_look_like_numbers_below_zero() {
        let cli = Cli::try_parse_from(["flotilla", "put", "k", "-5", "-o", "json"]).unwrap();
        assert_eq!(cli.global.output, Some(Format::Json));
        let cli = Cli::try_parse_from(["flotilla", "scan", "-0"]).unwrap();
        assert!(cli.global.null, "and flags like flags");
    }
}

//! Settings of a server process. One table per process names every setting, its default and what it is for; the flags, the
//! environment variables, the configuration file and `flotilla config default` are all made from it, so the names agree.
//!
//! A flag wins over the environment, the environment over the file, the file over the default. `tick_ms` is the key in the
//! file, `--tick-ms` the flag, `FLOTILLA_TICK_MS` the variable. An unknown key is an error that names the nearest one.

use std::collections::BTreeMap;
use std::path::PathBuf;

use clap::{Arg, ArgMatches, Command};
use serde::de::DeserializeOwned;
use toml::{Table, Value};

use crate::failure::Failure;

/// One setting.
#[derive(Debug)]
pub(crate) struct Setting {
    /// Its key in the file.
    pub(crate) name: &'static str,
    /// Its default, as TOML; empty if there is none.
    pub(crate) default: &'static str,
    /// What it is for, in one line.
    pub(crate) purpose: &'static str,
}

/// A process and all its settings.
pub(crate) trait Process {
    /// The verb that runs it.
    const VERB: &'static str;
    /// Its settings.
    const SETTINGS: &'static [Setting];
}

/// What the command line says about the settings of `P`.
#[derive(Clone, Debug)]
pub(crate) struct Given<P> {
    file: Option<PathBuf>,
    flags: BTreeMap<&'static str, String>,
    process: std::marker::PhantomData<P>,
}

impl<P: Process> Given<P> {
    /// Lays the sources over each other.
    pub(crate) fn resolve(&self) -> Result<Table, Failure> {
        let mut table = defaults(P::SETTINGS);
        if let Some(path) = &self.file {
            let shown = path.display().to_string();
            let text = std::fs::read_to_string(path).map_err(Failure::io(shown.clone()))?;
            for (name, value) in parse_file::<P>(&text).map_err(|e| in_file(&shown, &e))? {
                table.insert(name, value);
            }
        }
        for setting in P::SETTINGS {
            let variable = variable(setting.name);
            if let Ok(typed) = std::env::var(&variable) {
                let value = typed_value(setting, &typed);
                let value = value.map_err(|e| Failure::Usage(format!("{variable}: {e}")))?;
                table.insert(setting.name.to_owned(), value);
            }
            if let Some(typed) = self.flags.get(setting.name) {
                let value = typed_value(setting, typed)
                    .map_err(|e| Failure::Usage(format!("--{}: {e}", flag(setting.name))))?;
                table.insert(setting.name.to_owned(), value);
            }
        }
        Ok(table)
    }
}

impl<P: Process + Clone + Send + Sync + 'static> clap::Args for Given<P> {
    fn augment_args(command: Command) -> Command {
        let file = Arg::new("config")
            .long("config")
            .value_name("FILE")
            .env("FLOTILLA_CONFIG")
            .value_parser(clap::value_parser!(PathBuf))
            .help("Settings as TOML; `flotilla config default` prints them all");
        P::SETTINGS.iter().fold(command.arg(file), |command, setting| {
            let default = match setting.default {
                "" => String::new(),
                default => format!(" [default: {default}]"),
            };
            let arg = Arg::new(setting.name)
                .long(flag(setting.name))
                .value_name("VALUE")
                .help(format!("{}{default}", setting.purpose));
            command.arg(arg)
        })
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl<P: Process> clap::FromArgMatches for Given<P> {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let typed = |setting: &Setting| matches.get_one::<String>(setting.name).cloned();
        let flags = P::SETTINGS.iter().filter_map(|s| typed(s).map(|value| (s.name, value)));
        Ok(Given {
            file: matches.get_one::<PathBuf>("config").cloned(),
            flags: flags.collect(),
            process: std::marker::PhantomData,
        })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

/// The content of a configuration file of `P`, every key known.
pub(crate) fn parse_file<P: Process>(text: &str) -> Result<Table, String> {
    let mut table: Table = text.parse().map_err(|error: toml::de::Error| {
        let line = error.span().map_or(0, |span| text[..span.start].lines().count().max(1));
        format!("line {line}: {}", error.message())
    })?;
    for (name, value) in &mut table {
        if !P::SETTINGS.iter().any(|setting| setting.name == name) {
            let known = P::SETTINGS.iter().map(|setting| setting.name);
            return Err(format!("unknown setting `{name}`{}", suggestion(name, known)));
        }
        sized::<P>(name, value)?;
    }
    Ok(table)
}

/// Takes the settings called `names` out of the table.
pub(crate) fn take<T: DeserializeOwned>(table: &mut Table, names: &[&str]) -> Result<T, Failure> {
    let part: Table = names.iter().filter_map(|name| table.remove_entry(*name)).collect();
    into(part)
}

/// The table as a typed value; the error names the setting.
pub(crate) fn into<T: DeserializeOwned>(table: Table) -> Result<T, Failure> {
    table.try_into().map_err(|error: toml::de::Error| {
        let lines = error.to_string();
        let words: Vec<&str> = lines.split_whitespace().collect();
        Failure::Usage(format!("settings: {}", words.join(" ")))
    })
}

/// Every default.
pub(crate) fn defaults(settings: &[Setting]) -> Table {
    let given = settings.iter().filter(|setting| !setting.default.is_empty());
    given.map(|setting| (setting.name.to_owned(), literal(setting.default))).collect()
}

/// The whole file with defaults, commented.
pub(crate) fn commented<P: Process>() -> String {
    let mut text =
        format!("# Settings of `flotilla {}`. What is commented out is the default.\n", P::VERB);
    for Setting { name, default, purpose } in P::SETTINGS {
        let default = if default.is_empty() { "\"\"" } else { default };
        text.push_str(&format!("\n# {purpose}\n# {name} = {default}\n"));
    }
    text
}

fn in_file(path: &str, error: &str) -> Failure {
    Failure::Usage(format!("{path}: {error}"))
}

/// A literal of the tables above; that each one parses is tested.
fn literal(toml: &str) -> Value {
    let table: Table = format!("value = {toml}").parse().expect("defaults are TOML");
    table["value"].clone()
}

/// A flag's or a variable's text as the type that the default has.
fn typed_value(setting: &Setting, typed: &str) -> Result<Value, String> {
    let default = (!setting.default.is_empty()).then(|| literal(setting.default));
    match default {
        // Without a default to go by, what looks like a number is one.
        None => Ok(typed.parse().map_or_else(|_| Value::String(typed.to_owned()), Value::Integer)),
        Some(Value::String(_)) => Ok(Value::String(typed.to_owned())),
        Some(Value::Integer(_)) => {
            let number = match is_size(setting.name) {
                true => size(typed),
                false => typed.replace('_', "").parse().ok(),
            };
            number.map(Value::Integer).ok_or_else(|| format!("'{typed}' is not a number"))
        }
        Some(Value::Boolean(_)) => {
            let flag = typed.parse();
            flag.map(Value::Boolean).map_err(|_| format!("'{typed}' is neither true nor false"))
        }
        Some(Value::Array(_)) => {
            let items = typed.split(',').filter(|item| !item.is_empty());
            Ok(Value::Array(items.map(|item| Value::String(item.to_owned())).collect()))
        }
        Some(other) => Err(format!("a {} cannot be given here", other.type_str())),
    }
}

/// Sizes may have a unit, also in a file, where they are text then.
fn sized<P: Process>(name: &str, value: &mut Value) -> Result<(), String> {
    let setting = P::SETTINGS.iter().find(|setting| setting.name == name && is_size(name));
    if let (Some(setting), Value::String(typed)) = (setting, &value) {
        *value = typed_value(setting, typed).map_err(|error| format!("`{name}`: {error}"))?;
    }
    Ok(())
}

fn is_size(name: &str) -> bool {
    name.split('_').any(|word| word == "bytes")
}

/// A size as people write it: 4096, 64KiB, 1MiB, 2GiB.
pub(crate) fn size(typed: &str) -> Option<i64> {
    let at = typed.find(|c: char| !c.is_ascii_digit() && c != '_').unwrap_or(typed.len());
    let (digits, unit) = typed.split_at(at);
    let shift = match unit.trim() {
        "" | "B" => 0,
        "K" | "KiB" => 10,
        "M" | "MiB" => 20,
        "G" | "GiB" => 30,
        _ => return None,
    };
    digits.replace('_', "").parse::<i64>().ok()?.checked_mul(1 << shift)
}

fn flag(name: &str) -> String {
    name.replace('_', "-")
}

fn variable(name: &str) -> String {
    format!("FLOTILLA_{}", name.to_ascii_uppercase())
}

/// ", did you mean …?" if something is near.
pub(crate) fn suggestion<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> String {
    const NEAR: f64 = 0.75;
    let scored = known.map(|known| (strsim::jaro_winkler(name, known), known));
    match scored.max_by(|a, b| a.0.total_cmp(&b.0)) {
        Some((score, known)) if score >= NEAR => format!(", did you mean `{known}`?"),
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Clone, Debug)]
    struct Ship;
    impl Process for Ship {
        const VERB: &'static str = "ship";
        const SETTINGS: &'static [Setting] = &[
            Setting { name: "addr", default: "\"here:1\"", purpose: "Where." },
            Setting { name: "tick_ms", default: "50", purpose: "How often." },
            Setting { name: "friends", default: "[]", purpose: "Who." },
            Setting { name: "seed", default: "", purpose: "Luck." },
            Setting { name: "hold_bytes", default: "1024", purpose: "How much." },
        ];
    }

    fn resolve(args: &[&str]) -> Result<Table, Failure> {
        let command = <Given<Ship> as clap::Args>::augment_args(Command::new("ship"));
        let matches =
            command.try_get_matches_from(args).map_err(|e| Failure::Usage(e.to_string()))?;
        let given = <Given<Ship> as clap::FromArgMatches>::from_arg_matches(&matches).unwrap();
        given.resolve()
    }

    #[test]
    fn flags_win_over_the_file_and_the_file_over_defaults() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ship.toml");
        std::fs::write(&path, "tick_ms = 7\naddr = \"there:2\"\n").unwrap();
        let path = path.to_str().unwrap();
        let table = resolve(&["ship", "--config", path, "--tick-ms", "9", "--friends", "a:1,b:2"]);
        let table = table.unwrap();
        assert_eq!(table["addr"].as_str(), Some("there:2"));
        assert_eq!(table["tick_ms"].as_integer(), Some(9));
        assert_eq!(table["friends"].as_array().map(Vec::len), Some(2));
        assert!(!table.contains_key("seed"));
    }

    #[test]
    fn sizes_may_have_a_unit_everywhere() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ship.toml");
        std::fs::write(&path, "hold_bytes = \"64KiB\"\n").unwrap();
        let path = path.to_str().unwrap();
        let bytes = |args: &[&str]| {
            let table = resolve(args).map_err(|failure| failure.to_string())?;
            Ok::<_, String>(table["hold_bytes"].as_integer())
        };
        assert_eq!(bytes(&["ship", "--config", path]), Ok(Some(64 << 10)));
        assert_eq!(bytes(&["ship", "--hold-bytes", "1MiB"]), Ok(Some(1 << 20)));
        assert_eq!(bytes(&["ship", "--hold-bytes", "4_096"]), Ok(Some(4096)));
        assert!(bytes(&["ship", "--hold-bytes", "1 ton"]).is_err());
        assert!(resolve(&["ship", "--tick-ms", "1K"]).is_err(), "time has no such units");
    }

    #[test]
    fn an_unknown_key_names_the_nearest() {
        let error = parse_file::<Ship>("tick = 5").unwrap_err();
        assert!(error.contains("`tick`") && error.contains("`tick_ms`"), "{error}");
        let error = parse_file::<Ship>("zzz = 5").unwrap_err();
        assert!(!error.contains("did you mean"), "{error}");
    }

    #[test]
    fn a_wrong_type_is_told_with_its_source() {
        let Err(Failure::Usage(error)) = resolve(&["ship", "--tick-ms", "often"]) else {
            panic!("'often' is no number");
        };
        assert!(error.contains("--tick-ms") && error.contains("often"), "{error}");
    }

    #[test]
    fn the_commented_file_is_toml_and_complete() {
        let text = commented::<Ship>();
        assert!(parse_file::<Ship>(&text).unwrap().is_empty(), "all is commented out");
        let enabled: String = text
            .lines()
            .map(|l| l.strip_prefix("# ").filter(|l| l.contains(" = ")).unwrap_or(""))
            .fold(String::new(), |all, line| all + line + "\n");
        assert_eq!(parse_file::<Ship>(&enabled).unwrap().len(), Ship::SETTINGS.len());
    }
}

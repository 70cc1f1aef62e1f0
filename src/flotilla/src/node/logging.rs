//! Where a server process logs to: stderr, as text or JSON, without ever making the process wait for it.

use serde::Deserialize;
use slog::{Drain, Level, Logger, o};

use crate::failure::Failure;

/// The names of the settings below.
pub(crate) const NAMES: &[&str] = &["log_level", "log_format"];

/// Records that may wait to be written; more are dropped, and their number is told.
const CHANNEL_RECORDS: usize = 4_096;

/// What is logged, and how.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Settings {
    log_level: String,
    log_format: Format,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Format {
    Text,
    Json,
}

/// A logger that writes until its guard is dropped.
pub(crate) fn start(settings: &Settings) -> Result<(Logger, slog_async::AsyncGuard), Failure> {
    let level: Level = settings.log_level.parse().map_err(|()| {
        let reason = "is none of critical, error, warning, info, debug, trace";
        Failure::Usage(format!("log_level: '{}' {reason}", settings.log_level))
    })?;
    let (drain, guard) = match settings.log_format {
        Format::Text => {
            let decorator = slog_term::TermDecorator::new().stderr();
            let plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
            let decorator = if plain { decorator.force_plain() } else { decorator }.build();
            let drain = slog_term::FullFormat::new(decorator).use_utc_timestamp().build();
            slog_async::Async::new(drain.ignore_res()).chan_size(CHANNEL_RECORDS).build_with_guard()
        }
        Format::Json => {
            let drain = slog_json::Json::default(std::io::stderr());
            let drain = std::sync::Mutex::new(drain);
            slog_async::Async::new(drain.ignore_res()).chan_size(CHANNEL_RECORDS).build_with_guard()
        }
    };
    let drain = drain.filter_level(level).ignore_res();
    Ok((Logger::root(drain, o!()), guard))
}

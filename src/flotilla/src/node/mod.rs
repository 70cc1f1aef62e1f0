//! The server processes: settings from file, environment and flags; logging; the way down.

pub(crate) mod config;
pub(crate) mod logging;
pub(crate) mod scheduler;
pub(crate) mod settings;
pub(crate) mod shutdown;
pub(crate) mod store;

//! The end of a store: the first failure is told to the log, to the store loop and to whoever started the worker.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use parking_lot::Mutex;

use super::router::Router;
use crate::msg::StoreMsg;

/// Called with the reason.
type OnFatal = Box<dyn FnOnce(&str) + Send>;

/// Reports the first failure; later ones are only logged.
#[derive(Clone)]
pub(super) struct Fatal {
    router: Router,
    on_fatal: Arc<Mutex<Option<OnFatal>>>,
    log: slog::Logger,
}

impl Fatal {
    pub(super) fn new(router: Router, on_fatal: OnFatal, log: slog::Logger) -> Fatal {
        Fatal { router, on_fatal: Arc::new(Mutex::new(Some(on_fatal))), log }
    }

    /// The store cannot go on.
    pub(super) fn report(&self, thread: &'static str, reason: &str) {
        // If the loop is gone too, its queue is closed, and whoever waits is told by the reply itself.
        let _ = self.router.send(StoreMsg::WriteFailed { reason: reason.to_owned() });
        let first = self.on_fatal.lock().take();
        if let Some(on_fatal) = first {
            slog::crit!(self.log, "the store has stopped"; "thread" => thread, "reason" => reason);
            on_fatal(reason);
        } else {
            slog::warn!(self.log, "another failure"; "thread" => thread, "reason" => reason);
        }
    }

    /// Runs a thread to its end and reports how, if it is not a good one.
    pub(super) fn watch(
        &self,
        thread: &'static str,
        run: impl FnOnce() -> Result<(), String> + Send,
    ) {
        // Nothing the thread owned is used after a panic; what it shared is the engine, which poisons itself.
        match catch_unwind(AssertUnwindSafe(run)) {
            Ok(Ok(())) => {}
            Ok(Err(reason)) => self.report(thread, &reason),
            Err(panic) => self.report(thread, &format!("panic: {}", text(panic.as_ref()))),
        }
    }
}

fn text(panic: &(dyn Any + Send)) -> &str {
    if let Some(text) = panic.downcast_ref::<&str>() {
        text
    } else if let Some(text) = panic.downcast_ref::<String>() {
        text
    } else {
        "of unknown kind"
    }
}

//! When a server process ends: on SIGINT or SIGTERM, when its parent has gone, or at once when an invariant is broken.

use std::io::Read;

use tokio::signal::unix::{SignalKind, signal};

use crate::failure::Failure;

/// Resolves when the process has been told to stop, with the reason.
pub(crate) async fn requested(with_parent: bool) -> Result<&'static str, Failure> {
    let mut interrupt = signal(SignalKind::interrupt()).map_err(Failure::io("SIGINT"))?;
    let mut terminate = signal(SignalKind::terminate()).map_err(Failure::io("SIGTERM"))?;
    tokio::select! {
        _ = interrupt.recv() => Ok("SIGINT"),
        _ = terminate.recv() => Ok("SIGTERM"),
        () = parent_gone(with_parent) => Ok("the parent process has gone"),
    }
}

/// The parent holds the other end of stdin: when that closes, nobody is left to stop us.
async fn parent_gone(with_parent: bool) {
    if !with_parent {
        return std::future::pending().await;
    }
    let (gone, closed) = tokio::sync::oneshot::channel::<()>();
    #[expect(
        clippy::disallowed_methods,
        reason = "a read that cannot be cancelled must not hold up the runtime's end"
    )]
    std::thread::spawn(move || {
        let mut byte = [0];
        while matches!(std::io::stdin().lock().read(&mut byte), Ok(read) if read > 0) {}
        let _ = gone.send(());
    });
    let _ = closed.await;
}

/// A broken invariant stops the node loudly: the message goes to stderr, then the whole process aborts, whichever thread it
/// was. Half a store that goes on is worse than none.
pub(crate) fn abort_on_panic() {
    let default = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        default(info);
        std::process::abort();
    }));
}

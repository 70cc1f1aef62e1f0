//! `playground kill|stop|pause|resume|start NAME`: makes the processes of the running playground fail, and brings them back.
//!
//! Signals go to the process itself. Only its parent can start it again, so a running playground listens on a socket beside
//! its announcement: one line with a name in, one line with the outcome back.

use std::path::{Path, PathBuf};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{mpsc, oneshot};

use super::state::{self, Process, Running};
use crate::context::note;
use crate::failure::Failure;

/// Bytes of a request at most.
const REQUEST_BYTES_MAX: u64 = 256;

/// What can be done to the processes of a playground.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Verb {
    /// End it at once, as a crash does (SIGKILL)
    Kill {
        /// `store-2`, `scheduler-1`
        name: String,
    },
    /// End it in good order (SIGTERM)
    Stop {
        /// `store-2`, `scheduler-1`
        name: String,
    },
    /// Let it hang (SIGSTOP)
    Pause {
        /// `store-2`, `scheduler-1`
        name: String,
    },
    /// Let it go on (SIGCONT)
    Resume {
        /// `store-2`, `scheduler-1`
        name: String,
    },
    /// Start one that has ended, on the data it left
    Start {
        /// `store-2`, `scheduler-1`
        name: String,
    },
}

/// Does it to the playground that was started last.
pub(crate) async fn run(verb: Verb) -> Result<(), Failure> {
    let running = state::newest_running()
        .ok_or_else(|| Failure::NotFound("no playground runs on this machine".to_owned()))?;
    let (name, signal) = match verb {
        Verb::Start { name } => return start(&running, &name).await,
        Verb::Kill { name } => (name, Signal::SIGKILL),
        Verb::Stop { name } => (name, Signal::SIGTERM),
        Verb::Pause { name } => (name, Signal::SIGSTOP),
        Verb::Resume { name } => (name, Signal::SIGCONT),
    };
    let process = find(&running, &name)?;
    let pid = i32::try_from(process.pid).unwrap_or_default();
    if pid <= 0 || kill(Pid::from_raw(pid), signal).is_err() {
        return Err(refused(format!("{name} does not run")));
    }
    Ok(())
}

fn find<'a>(running: &'a Running, name: &str) -> Result<&'a Process, Failure> {
    running.processes.iter().find(|process| process.name == name).ok_or_else(|| {
        let known: Vec<&str> = running.processes.iter().map(|p| p.name.as_str()).collect();
        Failure::NotFound(format!("the playground has no '{name}', but {}", known.join(", ")))
    })
}

fn refused(reason: String) -> Failure {
    Failure::Client(client::Error::Refused(reason))
}

async fn start(running: &Running, name: &str) -> Result<(), Failure> {
    find(running, name)?;
    let path = state::socket(running.pid)
        .ok_or_else(|| Failure::NotFound("there is no home directory".to_owned()))?;
    let shown = path.display().to_string();
    let outcome = async {
        let mut stream = UnixStream::connect(&path).await?;
        stream.write_all(format!("{name}\n").as_bytes()).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        Ok(answer)
    };
    let answer = outcome.await.map_err(Failure::io(shown))?;
    match answer.trim() {
        "ok" => Ok(()),
        reason => Err(refused(reason.to_owned())),
    }
}

/// A wish to start a process, and who waits for the outcome.
pub(super) struct Wish {
    /// Which.
    pub(super) name: String,
    /// What is answered.
    pub(super) answer: oneshot::Sender<String>,
}

/// The socket of this playground; removed when dropped.
pub(super) struct Socket(PathBuf);

impl Drop for Socket {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Listens; wishes come out of the channel. Without a place for a socket there are none.
pub(super) fn listen() -> (Option<Socket>, mpsc::Receiver<Wish>) {
    let (wishes, queue) = mpsc::channel(16);
    let pid = i32::try_from(std::process::id()).unwrap_or_default();
    let Some(path) = state::socket(pid) else { return (None, queue) };
    let _ = path.parent().map(std::fs::create_dir_all);
    let _ = std::fs::remove_file(&path);
    match UnixListener::bind(&path) {
        Ok(listener) => {
            tokio::spawn(serve(listener, wishes));
            (Some(Socket(path)), queue)
        }
        Err(error) => {
            let shown = Path::display(&path);
            note(&format!("`playground start` will not work: {shown}: {error}"));
            (None, queue)
        }
    }
}

async fn serve(listener: UnixListener, wishes: mpsc::Sender<Wish>) {
    while let Ok((stream, _)) = listener.accept().await {
        let wishes = wishes.clone();
        tokio::spawn(async move {
            let (read, mut write) = stream.into_split();
            let mut line = String::new();
            let mut reader = BufReader::new(read.take(REQUEST_BYTES_MAX));
            if reader.read_line(&mut line).await.is_err() {
                return;
            }
            let (answer, answered) = oneshot::channel();
            let wish = Wish { name: line.trim().to_owned(), answer };
            let outcome = match wishes.send(wish).await {
                Ok(()) => answered.await.unwrap_or_else(|_| "the playground stops".to_owned()),
                Err(_) => "the playground stops".to_owned(),
            };
            // Whoever asked may have gone away.
            let _ = write.write_all(format!("{outcome}\n").as_bytes()).await;
        });
    }
}

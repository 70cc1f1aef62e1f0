//! The listening half of a process: one port, gRPC and a little HTTP/1.1, limits, a few small runtimes.
//!
//! A network thread is a runtime of one thread: on this kind of load it does 1.5 to 2 times the work of one runtime with
//! two, because a connection's lock and wake-ups never cross processors. More threads share the listening socket.
//!
//! # Limits
//! Streams per connection, header size and message size are bounded; whatever is beyond waits (streams) or is refused
//! (sizes). Nothing is shed under load: the published client takes a busy server's refusal as final. There is no timeout for
//! calls as such: long streams are the normal case, and unary calls carry their client's deadline.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::watch;
use tonic::service::Routes;
use tonic::transport::server::TcpIncoming;

/// Between the pings that find out that a client's machine is gone.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
/// How long an answer to a ping may take.
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);
/// Bytes of the headers of one call.
const HEADER_BYTES_MAX: u32 = 16 << 10;
/// Flow control of one stream: several full batches under way.
const STREAM_WINDOW_BYTES: u32 = 4 << 20;
/// Flow control of one connection.
const CONNECTION_WINDOW_BYTES: u32 = 16 << 20;
/// How long open calls may take to end once the process stops.
const GRACE: Duration = Duration::from_millis(300);

/// A bound port.
pub(crate) struct Port {
    listener: TcpListener,
    address: SocketAddr,
}

/// The threads that serve a port beside the main one.
pub(crate) struct Serving {
    stop: watch::Sender<bool>,
    main: tokio::task::JoinHandle<()>,
    others: Vec<JoinHandle<()>>,
}

impl Port {
    /// Listens on `addr`.
    pub(crate) fn bind(addr: &str) -> io::Result<Port> {
        let listener = TcpListener::bind(addr)?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        Ok(Port { listener, address })
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves `routes` on the current runtime and on `threads - 1` threads more.
    pub(crate) fn serve(
        self,
        routes: &Routes,
        threads: usize,
        streams_max: u32,
        log: &slog::Logger,
    ) -> io::Result<Serving> {
        let (stop, stopped) = watch::channel(false);
        let others = (1..threads).map(|number| {
            let listener = self.listener.try_clone()?;
            let (routes, stopped, log) = (routes.clone(), stopped.clone(), log.clone());
            std::thread::Builder::new().name(format!("network-{number}")).spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
                match runtime {
                    Ok(runtime) => {
                        runtime.block_on(accept(listener, routes, streams_max, stopped, log));
                    }
                    Err(error) => {
                        slog::crit!(log, "no network runtime"; "reason" => %error);
                    }
                }
            })
        });
        let others = others.collect::<io::Result<_>>()?;
        let (routes, log) = (routes.clone(), log.clone());
        let main = tokio::spawn(accept(self.listener, routes, streams_max, stopped, log));
        Ok(Serving { stop, main, others })
    }
}

impl Serving {
    /// Accepts no more connections, lets open calls end for a moment, then cuts them off.
    pub(crate) async fn stop(self) {
        let Serving { stop, main, others } = self;
        // Nobody listens any more if all have failed.
        let _ = stop.send(true);
        let _ = main.await;
        let joined = tokio::task::spawn_blocking(move || {
            for thread in others {
                // A panic there was told when it happened.
                let _ = thread.join();
            }
        });
        let _ = joined.await;
    }
}

async fn accept(
    listener: TcpListener,
    routes: Routes,
    streams_max: u32,
    stopped: watch::Receiver<bool>,
    log: slog::Logger,
) {
    let listener = match tokio::net::TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => {
            slog::crit!(log, "cannot listen"; "reason" => %error);
            return;
        }
    };
    let wait = |mut stopped: watch::Receiver<bool>| async move {
        let _ = stopped.wait_for(|stop| *stop).await;
    };
    let serving = tonic::transport::Server::builder()
        .accept_http1(true)
        .max_concurrent_streams(streams_max)
        .http2_keepalive_interval(Some(KEEPALIVE_INTERVAL))
        .http2_keepalive_timeout(Some(KEEPALIVE_TIMEOUT))
        .http2_max_header_list_size(HEADER_BYTES_MAX)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .add_routes(routes)
        .serve_with_incoming_shutdown(
            TcpIncoming::from(listener).with_nodelay(Some(true)),
            wait(stopped.clone()),
        );
    // Streams live as long as their clients; they are not waited for.
    let cut_off = async {
        wait(stopped).await;
        tokio::time::sleep(GRACE).await;
    };
    tokio::select! {
        ended = serving => if let Err(error) = ended {
            slog::error!(log, "the server has failed"; "reason" => %error);
        },
        () = cut_off => {}
    }
}

//! Which ports a playground uses.

use std::net::TcpListener;

use crate::context::note;
use crate::endpoints::SCHEDULER_PORT;
use crate::failure::Failure;

/// The port of the first store.
const STORE_PORT: u16 = 20160;

/// A port for every process.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Ports {
    pub(crate) scheduler: u16,
    pub(crate) stores: Vec<u16>,
}

impl Ports {
    /// The ports that were asked for, which must be free; else the usual ones if those are free, else any.
    pub(crate) fn choose(first: Option<u16>, stores: usize) -> Result<Ports, Failure> {
        match first {
            Some(0) => Ports::free(stores),
            Some(first) => {
                let ports = Ports::from(first, first.saturating_add(1), stores)?;
                match ports.taken() {
                    None => Ok(ports),
                    Some(taken) => Err(Failure::Usage(format!("port {taken} is taken"))),
                }
            }
            None => {
                let ports = Ports::from(SCHEDULER_PORT, STORE_PORT, stores)?;
                match ports.taken() {
                    None => Ok(ports),
                    Some(taken) => {
                        note(&format!("port {taken} is taken, using free ones"));
                        Ports::free(stores)
                    }
                }
            }
        }
    }

    fn from(scheduler: u16, first_store: u16, stores: usize) -> Result<Ports, Failure> {
        let last = usize::from(first_store) + stores;
        if last > usize::from(u16::MAX) {
            return Err(Failure::Usage(format!(
                "there are not {stores} ports from {first_store} on"
            )));
        }
        Ok(Ports { scheduler, stores: (first_store..).take(stores).collect() })
    }

    /// Whatever the system gives. All are held until all are known, so they differ.
    fn free(stores: usize) -> Result<Ports, Failure> {
        let held: Result<Vec<TcpListener>, _> =
            (0..=stores).map(|_| TcpListener::bind("127.0.0.1:0")).collect();
        let ports: Result<Vec<u16>, _> =
            held.and_then(|held| held.iter().map(|l| l.local_addr().map(|a| a.port())).collect());
        let mut ports = ports.map_err(Failure::io("no free port"))?;
        let scheduler = ports.remove(0);
        Ok(Ports { scheduler, stores: ports })
    }

    fn taken(&self) -> Option<u16> {
        self.all().find(|port| TcpListener::bind(("127.0.0.1", *port)).is_err())
    }

    fn all(&self) -> impl Iterator<Item = u16> {
        std::iter::once(self.scheduler).chain(self.stores.iter().copied())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_differ_and_a_taken_one_is_told() {
        let ports = Ports::choose(Some(0), 5).unwrap();
        let mut all: Vec<u16> = ports.all().collect();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), 6);

        let held = TcpListener::bind("127.0.0.1:0").unwrap();
        let taken = held.local_addr().unwrap().port();
        assert!(matches!(Ports::choose(Some(taken), 1), Err(Failure::Usage(_))));
        assert!(Ports::choose(Some(65_530), 15).is_err());
    }
}

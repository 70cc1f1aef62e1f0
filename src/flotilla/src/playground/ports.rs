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
    pub(crate) schedulers: Vec<u16>,
    pub(crate) stores: Vec<u16>,
}

/// How many of each.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Counts {
    pub(crate) schedulers: usize,
    pub(crate) stores: usize,
}

impl Ports {
    /// The ports that were asked for, which must be free; else the usual ones if those are free, else any.
    pub(crate) fn choose(first: Option<u16>, counts: Counts) -> Result<Ports, Failure> {
        match first {
            Some(0) => Ports::free(counts),
            Some(first) => {
                let schedulers = u16::try_from(counts.schedulers).unwrap_or(u16::MAX);
                let ports = Ports::from(first, first.saturating_add(schedulers), counts)?;
                match ports.taken() {
                    None => Ok(ports),
                    Some(taken) => Err(Failure::Usage(format!("port {taken} is taken"))),
                }
            }
            None => {
                let ports = Ports::from(SCHEDULER_PORT, STORE_PORT, counts)?;
                match ports.taken() {
                    None => Ok(ports),
                    Some(taken) => {
                        note(&format!("port {taken} is taken, using free ones"));
                        Ports::free(counts)
                    }
                }
            }
        }
    }

    fn from(first_scheduler: u16, first_store: u16, counts: Counts) -> Result<Ports, Failure> {
        let last = usize::from(first_store) + counts.stores;
        if last > usize::from(u16::MAX) {
            return Err(Failure::Usage(format!(
                "there are not {} ports from {first_store} on",
                counts.stores
            )));
        }
        let take = |first: u16, count| (first..).take(count).collect();
        Ok(Ports {
            schedulers: take(first_scheduler, counts.schedulers),
            stores: take(first_store, counts.stores),
        })
    }

    /// Whatever the system gives. All are held until all are known, so they differ.
    fn free(counts: Counts) -> Result<Ports, Failure> {
        let held: Result<Vec<TcpListener>, _> = (0..counts.schedulers + counts.stores)
            .map(|_| TcpListener::bind("127.0.0.1:0"))
            .collect();
        let ports: Result<Vec<u16>, _> =
            held.and_then(|held| held.iter().map(|l| l.local_addr().map(|a| a.port())).collect());
        let mut schedulers = ports.map_err(Failure::io("no free port"))?;
        let stores = schedulers.split_off(counts.schedulers);
        Ok(Ports { schedulers, stores })
    }

    fn taken(&self) -> Option<u16> {
        self.all().find(|port| TcpListener::bind(("127.0.0.1", *port)).is_err())
    }

    fn all(&self) -> impl Iterator<Item = u16> {
        self.schedulers.iter().chain(&self.stores).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_differ_and_a_taken_one_is_told() {
        let counts = Counts { schedulers: 3, stores: 5 };
        let ports = Ports::choose(Some(0), counts).unwrap();
        let mut all: Vec<u16> = ports.all().collect();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), 8);

        let held = TcpListener::bind("127.0.0.1:0").unwrap();
        let taken = held.local_addr().unwrap().port();
        assert!(matches!(Ports::choose(Some(taken), counts), Err(Failure::Usage(_))));
        assert!(Ports::choose(Some(65_530), counts).is_err());
    }
}

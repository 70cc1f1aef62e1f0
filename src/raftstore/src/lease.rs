//! How long a leader may answer reads without asking anybody.
//!
//! A quorum that answered a message sent at `t` refuses to elect anybody else until `t` + the election timeout (check-quorum
//! and pre-vote see to that). So the lease runs from the moment of *sending*, by the leader's monotonic clock, for less than
//! that timeout ([`crate::config`] has the bound).
//!
//! # Invariants
//! 1. A lease belongs to one term; it never carries over into another.
//! 2. It is extended only from the send time of something a quorum confirmed, never from the time of the confirmation (R12).
//! 3. Once a leader transfer has started it is void for the rest of the term, even if the transfer seems to have failed: the
//!    order to campaign, which overrides the quorum's patience, may still be under way (R17).
//!
//! Tests: below.

use std::time::Duration;

use raft::Term;

use crate::planted::{Bug, planted};
use crate::time::Instant;

/// The lease of one leadership.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Lease {
    term: Term,
    duration: Duration,
    until: Option<Instant>,
    void_for_good: bool,
}

impl Lease {
    /// A lease of the leadership of `term`, not held yet.
    pub(crate) fn new(term: Term, duration: Duration) -> Lease {
        Lease { term, duration, until: None, void_for_good: false }
    }

    /// A quorum has confirmed something sent at `sent` in `term`. Returns whether the lease became longer.
    pub(crate) fn renew(&mut self, term: Term, sent: Instant, now: Instant) -> bool {
        let from = if planted(Bug::LeaseFromReceiveTime) { now } else { sent };
        if term != self.term || self.void_for_good {
            return false;
        }
        let until = from + self.duration;
        let longer = self.until.is_none_or(|old| old < until);
        if longer {
            self.until = Some(until);
        }
        longer
    }

    /// A transfer of this leadership has started.
    pub(crate) fn void_for_transfer(&mut self) {
        if planted(Bug::LeaseKeptDuringTransfer) {
            return;
        }
        self.void_for_good = true;
        self.until = None;
    }

    /// The leader stops confirming its lead: nothing is held until a later round.
    pub(crate) fn suspend(&mut self) {
        self.until = None;
    }

    /// When it ends; `None` if it is not held.
    pub(crate) fn until(&self) -> Option<Instant> {
        self.until
    }

    /// Whether less than half of it is left.
    pub(crate) fn is_running_out(&self, now: Instant) -> bool {
        !self.void_for_good && self.until.is_none_or(|until| until < now + self.duration / 2)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEASE: Duration = Duration::from_millis(400);

    fn at(ms: u64) -> Instant {
        Instant::from_ms(ms)
    }

    #[test]
    fn it_runs_from_the_time_of_sending() {
        let mut lease = Lease::new(Term(3), LEASE);
        assert_eq!(lease.until(), None);
        assert!(lease.renew(Term(3), at(100), at(350)));
        assert_eq!(lease.until(), Some(at(500)));
        assert!(
            !lease.renew(Term(3), at(90), at(360)),
            "an older confirmation does not shorten it"
        );
        assert_eq!(lease.until(), Some(at(500)));
        assert!(!lease.is_running_out(at(290)));
        assert!(lease.is_running_out(at(310)));
    }

    #[test]
    fn a_confirmation_of_another_term_counts_for_nothing() {
        let mut lease = Lease::new(Term(3), LEASE);
        assert!(!lease.renew(Term(2), at(100), at(100)));
        assert_eq!(lease.until(), None);
    }

    #[test]
    fn a_transfer_voids_it_for_the_rest_of_the_term() {
        let mut lease = Lease::new(Term(3), LEASE);
        assert!(lease.renew(Term(3), at(100), at(100)));
        lease.void_for_transfer();
        assert_eq!(lease.until(), None);
        assert!(!lease.renew(Term(3), at(900), at(900)));
        assert!(!lease.is_running_out(at(900)), "nothing to renew");
    }
}

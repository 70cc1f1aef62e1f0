//! When each of the other peers was last heard, in ticks of the store. Kept by a leader.

use proto::ids::PeerId;
use proto::metapb;

/// See the module header.
#[derive(Debug, Default)]
pub(crate) struct Heard {
    last: Vec<(PeerId, u64)>,
}

impl Heard {
    /// Everybody counts as heard at `tick`: the lead was gained, or nobody had reason to speak until now.
    pub(crate) fn all_at(&mut self, tick: u64, region: &metapb::Region) {
        self.last = region.peers.iter().map(|peer| (PeerId::from(peer.id), tick)).collect();
    }

    /// The peers have changed. A newcomer has had no chance to speak before `tick`.
    pub(crate) fn follow(&mut self, tick: u64, region: &metapb::Region) {
        let last = |id: PeerId| self.last.iter().find(|(peer, _)| *peer == id).map(|(_, at)| *at);
        let ids = region.peers.iter().map(|peer| PeerId::from(peer.id));
        self.last = ids.map(|id| (id, last(id).unwrap_or(tick))).collect();
    }

    /// A message from a peer has come.
    pub(crate) fn note(&mut self, id: PeerId, tick: u64) {
        if let Some((_, at)) = self.last.iter_mut().find(|(peer, _)| *peer == id) {
            *at = tick;
        }
    }

    /// The store of a peer was heard at `tick`: so was the peer, if it was not heard since.
    pub(crate) fn note_store(&mut self, id: PeerId, tick: u64) {
        if let Some((_, at)) = self.last.iter_mut().find(|(peer, _)| *peer == id) {
            *at = tick.max(*at);
        }
    }

    /// For how many ticks a peer has been silent; not known of one that is no member.
    pub(crate) fn silent_ticks(&self, id: PeerId, tick: u64) -> Option<u64> {
        let found = self.last.iter().find(|(peer, _)| *peer == id);
        found.map(|(_, at)| tick.saturating_sub(*at))
    }

    /// Whether a peer was heard within an election timeout.
    pub(crate) fn is_live(&self, id: PeerId, tick: u64, timeout_ticks: u32) -> bool {
        self.silent_ticks(id, tick).is_some_and(|silent| silent < u64::from(timeout_ticks))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn region(ids: &[u64]) -> metapb::Region {
        let peers = ids.iter().map(|id| metapb::Peer { id: *id, ..Default::default() }).collect();
        metapb::Region { peers, ..Default::default() }
    }

    #[test]
    fn silence_is_counted_from_the_last_message_and_newcomers_start_fresh() {
        let mut heard = Heard::default();
        let (one, two, three) = (PeerId::from(1), PeerId::from(2), PeerId::from(3));
        heard.all_at(100, &region(&[1, 2]));
        heard.note(one, 110);
        heard.note(three, 110);
        assert_eq!(heard.silent_ticks(one, 115), Some(5));
        assert!(heard.is_live(one, 121, 12) && !heard.is_live(two, 112, 12));
        heard.follow(115, &region(&[2, 3]));
        assert_eq!(heard.silent_ticks(one, 115), None, "no member any more");
        assert_eq!(heard.silent_ticks(two, 115), Some(15));
        assert_eq!(heard.silent_ticks(three, 115), Some(0));
    }
}

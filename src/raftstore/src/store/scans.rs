//! What comes back from the scanner, and who asks for a comparison.

use proto::ids::RegionId;
use raft::LogIndex;

use super::Store;
use crate::msg::{ConsistencyHash, RequestHeader, SplitChecked};
use crate::reply::Reply;

impl Store {
    pub(super) fn on_split_checked(&mut self, checked: SplitChecked) {
        let region = RegionId::from(checked.check.region.id);
        self.with_peer(region, |peer, context| peer.on_split_checked(checked, context));
    }

    pub(super) fn on_check_consistency(
        &mut self,
        header: &RequestHeader,
        reply: Reply<ConsistencyHash>,
    ) {
        if !self.peers.contains_key(&header.region) {
            return reply.fail(self.no_peer(header));
        }
        let region = header.region;
        self.with_peer(region, |peer, context| peer.check_consistency(header, reply, context));
    }

    pub(super) fn on_hash_computed(&mut self, region: RegionId, index: LogIndex, hash: u64) {
        let compared =
            self.with_peer(region, |peer, context| peer.on_hash_computed(index, hash, context));
        self.end_comparison(compared);
    }

    pub(super) fn on_verify_hash(&mut self, region: RegionId, index: LogIndex, hash: u64) {
        let compared = self.with_peer(region, |peer, _| peer.on_verify_hash(index, hash));
        self.end_comparison(compared);
    }

    /// A store whose data differ from the leader's must not serve them.
    fn end_comparison(&mut self, compared: Option<Result<(), String>>) {
        if let Some(Err(reason)) = compared {
            self.poison(reason);
        }
    }
}

//! Changes of a region's peers, as their entries are applied.
//!
//! Both numbers of the epoch are compared with those the leader saw, and the change is decided anew by the function the
//! leader asked (`membership::changed`): every peer comes to the same verdict. A refused change leaves no trace but the
//! position; Raft sees by the applied index that it is over (R24).

use raft::Entry;

use super::ApplyError;
use super::region::{Context, RegionApply};
use super::task::Effect;
use crate::command::CommandDecodeError;
use crate::membership::{self, ChangePeers, ChangeRefusal};
use crate::planted::{Bug, planted};

impl RegionApply {
    /// Executes an entry that changes the peers, or does not.
    pub(super) fn change_peers(
        &mut self,
        entry: Entry,
        context: &mut Context<'_>,
    ) -> Result<(), ApplyError> {
        let next = self.region_after(&entry)?;
        if let Some(region) = &next {
            if !region.peers.iter().any(|peer| peer.id == self.peer.get()) {
                self.removed_at = self.removed_at.or(Some((entry.index, entry.term)));
            }
            self.set_region(region.clone(), context);
        }
        self.effects.push(Effect::ConfChange { entry, region: next });
        Ok(())
    }

    /// The region as the entry leaves it; nothing if it is refused.
    fn region_after(&self, entry: &Entry) -> Result<Option<proto::metapb::Region>, ApplyError> {
        let raft = raft::wire::decode_conf_change(entry);
        if entry.context.is_empty() {
            let leaves = raft.is_ok_and(|raft| raft.is_leave_joint());
            return Ok(leaves.then(|| membership::changed(self.region(), &[]).ok()).flatten());
        }
        let unknown = |source| ApplyError::UnknownEntry {
            region: self.id(),
            index: entry.index,
            source: CommandDecodeError::Malformed(source),
        };
        let ChangePeers { epoch, changes } =
            ChangePeers::decode(entry.context.clone()).map_err(unknown)?;
        let holds = epoch == self.epoch();
        if changes.is_empty() || !(holds || planted(Bug::StaleChangePeersApplied)) {
            return Ok(None);
        }
        let after = match raft {
            Ok(raft) if Ok(raft.clone()) == membership::raft_change(&changes) => {
                membership::changed(self.region(), &changes)
            }
            Ok(_) | Err(_) => Err(ChangeRefusal::Contradiction),
        };
        Ok(after.ok())
    }
}

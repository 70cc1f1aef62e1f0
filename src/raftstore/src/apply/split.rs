//! Cutting a region, when the command for it is applied.
//!
//! # Invariants
//! 1. The parts tile the region; the left-most keeps its id: a region keeps the start key it has, and gets another one only
//!    by taking over its left neighbour.
//! 2. Every part's version is the old one plus the number of cuts; so any two generations of overlapping regions can be told
//!    apart (M18).
//! 3. All records of all parts are written in one batch with the position after the command (M5). A part's hard state is not
//!    touched: a peer that was created by a message, and may have voted, keeps its promise (M2).
//! 4. A part whose peer has been removed from this store meanwhile is not brought back; its data are deleted (M3).
//!
//! A part starts like an initial region ([`crate::peer::INITIAL_INDEX`]), with the sessions of the whole, so that a retry finds its answer
//! on either side, and with a state hash that all its peers derive alike.

use bytes::Bytes;
use proto::flotillapb::PeerState;
use proto::ids::RegionId;
use proto::metapb::{self, PeerRole, RegionEpoch};

use super::region::{Context, RegionApply};
use super::state::ApplyState;
use super::{ApplyError, Effect};
use crate::command::Epoch;
use crate::keys::{self, Key};
use crate::msg::NewRegion;
use crate::peer::records::RegionRecord;
use crate::peer::{INITIAL_INDEX, INITIAL_TERM};
use crate::planted::{Bug, planted};

/// Why a region cannot be cut like this.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SplitRefusal {
    #[error("there is no key to cut at")]
    NoKeys,
    #[error("{count} keys to cut at; the limit is {SPLIT_KEYS_MAX}")]
    TooMany { count: usize },
    #[error("the key {key:?} is not a memcomparable encoding")]
    NotEncoded { key: Bytes },
    #[error("the key {key:?} is not behind the one before it, or not inside of the region")]
    Misplaced { key: Bytes },
    #[error("the region's membership is changing")]
    Joint,
    #[error("{regions} new regions for {keys} keys")]
    Count { keys: usize, regions: usize },
    #[error("a new region lacks an id, or has not one peer for each of the old")]
    Ids,
}

/// Cuts in one command.
pub(crate) const SPLIT_KEYS_MAX: usize = 256;

/// Whether `region` can be cut at `keys`.
pub(crate) fn check_keys(region: &metapb::Region, keys: &[Bytes]) -> Result<(), SplitRefusal> {
    let joint = |peer: &metapb::Peer| !matches!(peer.role(), PeerRole::Voter | PeerRole::Learner);
    if region.peers.iter().any(joint) {
        return Err(SplitRefusal::Joint);
    }
    if keys.is_empty() {
        return Err(SplitRefusal::NoKeys);
    }
    if keys.len() > SPLIT_KEYS_MAX {
        return Err(SplitRefusal::TooMany { count: keys.len() });
    }
    let mut before = &region.start_key;
    for key in keys {
        if proto::codec::decode(key).is_err() {
            return Err(SplitRefusal::NotEncoded { key: key.clone() });
        }
        if key <= before || (!region.end_key.is_empty() && *key >= region.end_key) {
            return Err(SplitRefusal::Misplaced { key: key.clone() });
        }
        before = key;
    }
    Ok(())
}

/// The regions that `region` becomes, in key order.
pub(crate) fn parts(
    region: &metapb::Region,
    keys: &[Bytes],
    new: &[NewRegion],
) -> Result<Vec<metapb::Region>, SplitRefusal> {
    check_keys(region, keys)?;
    if keys.len() != new.len() {
        return Err(SplitRefusal::Count { keys: keys.len(), regions: new.len() });
    }
    let complete = |new: &NewRegion| {
        let named = !new.region.is_none() && new.peers.iter().all(|peer| !peer.is_none());
        named && new.region.get() != region.id && new.peers.len() == region.peers.len()
    };
    if !new.iter().all(complete) {
        return Err(SplitRefusal::Ids);
    }
    let old = region.region_epoch.unwrap_or_default();
    let epoch = RegionEpoch { version: old.version + keys.len() as u64, ..old };
    let mut left = metapb::Region { region_epoch: Some(epoch), ..region.clone() };
    left.end_key = keys[0].clone();
    let mut parts = vec![left];
    for (at, (start, new)) in keys.iter().zip(new).enumerate() {
        let mut part = region.clone();
        part.id = new.region.get();
        part.start_key = start.clone();
        part.end_key = keys.get(at + 1).unwrap_or(&region.end_key).clone();
        part.region_epoch = Some(if planted(Bug::VersionNotBumped) { old } else { epoch });
        for (peer, id) in part.peers.iter_mut().zip(&new.peers) {
            peer.id = id.get();
        }
        parts.push(part);
    }
    Ok(parts)
}

impl RegionApply {
    /// Cuts the region, if it still can be. Returns the new parts that have a peer here; their records are in the batch.
    pub(super) fn split(
        &mut self,
        epoch: Epoch,
        keys: &[Bytes],
        new: &[NewRegion],
        context: &mut Context<'_>,
    ) -> Result<Vec<RegionApply>, ApplyError> {
        if epoch != self.epoch() || self.merging.is_some() {
            return Ok(Vec::new());
        }
        let Ok(parts) = parts(self.region(), keys, new) else { return Ok(Vec::new()) };
        let at = self.region().peers.iter().position(|peer| peer.id == self.peer.get());
        let mut created = Vec::new();
        for part in &parts[1..] {
            let me = at.map(|at| part.peers[at]);
            if let Some(me) = me
                && self.may_create(part, &me, context)?
            {
                created.push(self.part(part, me, context));
            } else {
                for (cf, range) in keys::data_ranges(part) {
                    context.batch.delete_range(cf, range);
                }
            }
        }
        self.set_region(parts[0].clone(), context);
        self.siblings = parts[1..].to_vec();
        let states = created.iter().map(|part| (part.id(), part.state)).collect();
        self.effects.push(Effect::Split { regions: parts, created: states });
        Ok(created)
    }

    /// Whether this store's peer of a new part may come to be.
    fn may_create(
        &self,
        part: &metapb::Region,
        me: &metapb::Peer,
        context: &Context<'_>,
    ) -> Result<bool, ApplyError> {
        if planted(Bug::SplitIgnoresTombstone) {
            return Ok(true);
        }
        let snapshot = context.engine.snapshot();
        let Some(known) = RegionRecord::read(snapshot.as_ref(), RegionId::from(part.id))? else {
            return Ok(true);
        };
        let known_id = known.peer.map_or(0, |peer| peer.id);
        match known.state {
            // Removed here before the cut reached this store.
            PeerState::Tombstone => Ok(known_id < me.id),
            // Created by a message: of this very peer, or of one that came after it was removed.
            PeerState::Normal if known.region.peers.is_empty() => Ok(known_id <= me.id),
            state => panic!(
                "region {}: the cut makes region {}, which lives here already ({state:?})",
                self.id(),
                part.id
            ),
        }
    }

    fn part(
        &self,
        region: &metapb::Region,
        me: metapb::Peer,
        context: &mut Context<'_>,
    ) -> RegionApply {
        let id = RegionId::from(region.id);
        let mut state = ApplyState::initial(INITIAL_INDEX, INITIAL_TERM);
        state.state_hash = self.hash_of_part(id);
        let record = RegionRecord::normal(region.clone(), Some(me));
        context.batch.put_local(Key::RegionState(id).encode(), record.encode().to_vec());
        let sessions = self.sessions.copy_to(id, context.batch);
        RegionApply::new(region.clone(), me.id.into(), state, sessions)
    }
}

#[cfg(test)]
mod tests {
    use proto::codec::encode;

    use super::*;

    fn region() -> metapb::Region {
        let peer = |id| metapb::Peer { id, store_id: id, ..Default::default() };
        metapb::Region {
            id: 2,
            start_key: encode(b"b"),
            end_key: encode(b"y"),
            region_epoch: Some(RegionEpoch { conf_ver: 3, version: 5 }),
            peers: vec![peer(21), peer(22)],
        }
    }

    fn new(id: u64) -> NewRegion {
        let peers = vec![(id * 10 + 1).into(), (id * 10 + 2).into()];
        NewRegion { region: id.into(), peers }
    }

    #[test]
    fn parts_tile_the_region_and_have_a_later_version() {
        let region = region();
        let parts = parts(&region, &[encode(b"g"), encode(b"p")], &[new(3), new(4)]).unwrap();
        let bounds: Vec<_> = parts.iter().map(|p| (&p.start_key, &p.end_key)).collect();
        let (b, g, p, y) = (encode(b"b"), encode(b"g"), encode(b"p"), encode(b"y"));
        assert_eq!(bounds, [(&b, &g), (&g, &p), (&p, &y)]);
        assert_eq!(parts.iter().map(|p| p.id).collect::<Vec<_>>(), [2, 3, 4]);
        let epoch = RegionEpoch { conf_ver: 3, version: 7 };
        assert!(parts.iter().all(|part| part.region_epoch == Some(epoch)));
        assert_eq!(
            parts[2].peers.iter().map(|p| (p.id, p.store_id)).collect::<Vec<_>>(),
            [(41, 21), (42, 22)]
        );
    }

    #[test]
    fn what_cannot_be_cut_is_refused_with_the_reason() {
        let region = region();
        let check = |keys: &[Bytes]| check_keys(&region, keys).unwrap_err().to_string();
        assert_eq!(check(&[]), "there is no key to cut at");
        let not_encoded = "the key b\"g\" is not a memcomparable encoding";
        assert_eq!(check(&[Bytes::from_static(b"g")]), not_encoded);
        for misplaced in [&b"a"[..], b"b", b"y", b"z"] {
            let text = check(&[encode(misplaced)]);
            assert!(text.contains("not inside of the region"), "{text}");
        }
        let text = check(&[encode(b"g"), encode(b"g")]);
        assert!(text.contains("not behind the one before it"), "{text}");
        assert!(check(&[encode(b"p"), encode(b"g")]).contains("not behind"));
        let many: Vec<_> = (0..257u32).map(|i| encode(format!("c{i:04}").as_bytes())).collect();
        assert_eq!(check(&many), "257 keys to cut at; the limit is 256");
        let mut joint = region.clone();
        joint.peers[0].set_role(PeerRole::DemotingVoter);
        assert_eq!(check_keys(&joint, &[encode(b"g")]), Err(SplitRefusal::Joint));
    }

    #[test]
    fn ids_that_do_not_fit_are_refused() {
        let refuse = |new: &[NewRegion]| parts(&region(), &[encode(b"g")], new).unwrap_err();
        assert_eq!(refuse(&[]), SplitRefusal::Count { keys: 1, regions: 0 });
        assert_eq!(refuse(&[new(0)]), SplitRefusal::Ids);
        assert_eq!(refuse(&[new(2)]), SplitRefusal::Ids, "the divided region's own");
        let short = NewRegion { region: 3.into(), peers: vec![31.into()] };
        assert_eq!(refuse(&[short]), SplitRefusal::Ids);
        let unnamed = NewRegion { region: 3.into(), peers: vec![31.into(), 0.into()] };
        assert_eq!(refuse(&[unnamed]), SplitRefusal::Ids);
    }
}

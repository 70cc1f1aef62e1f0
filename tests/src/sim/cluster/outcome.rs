//! What an attempt's answer means for its call and for what the client knows.
//!
//! An attempt that gets no answer, or one that says the command was overtaken, may still take effect. Calls that can be
//! repeated without harm (reads, and writes that name a session) are tried again; other writes end as
//! [`Outcome::Unknown`] right there, which is the honest answer. A session is opened only as long as no attempt of the write
//! can have taken effect: a region that has forgotten the session could otherwise apply it twice.

use super::calls::{Asked, OpenCall};
use crate::sim::call::{Call, Outcome};
use crate::sim::event::Answer;
use crate::sim::layout::store_id;
use client::core::cache::RegionCache;
use raftstore::command::WriteResult;
use raftstore::error::RegionError;

/// What to do after an attempt.
pub(super) enum Next {
    Finish(Outcome),
    /// The client knows better now, or goes on with the next region.
    AtOnce,
    /// After a pause.
    Later,
    /// After a pause, at another node of the scheduler's, this one if it is known.
    OtherNode(Option<usize>),
}

/// An answer has come.
pub(super) fn conclude(open: &mut OpenCall, cache: &mut RegionCache, answer: Answer) -> Next {
    match answer {
        Answer::Located(Some(found)) => {
            let (region, leader) = *found;
            cache.insert(region, leader);
            Next::AtOnce
        }
        Answer::Located(None) => Next::Later,
        Answer::NotLeading(hint) => Next::OtherNode(hint),
        Answer::Timestamps(..) | Answer::Ids(_) => Next::Later,
        Answer::Unreachable => {
            let Asked::Store(store, region) = &open.asked else { return Next::OtherNode(None) };
            cache.unset_leader(region.id.into(), store_id(*store));
            cache.doubt(region.id.into());
            Next::Later
        }
        Answer::Wrote(result) => after_write(open, result),
        Answer::Value(value) => Next::Finish(Outcome::Value(value)),
        Answer::Pairs(pairs) => {
            open.pairs.extend(pairs);
            match go_further(open) {
                true => Next::AtOnce,
                false => Next::Finish(Outcome::Pairs(std::mem::take(&mut open.pairs))),
            }
        }
        Answer::Error(error) => after_error(open, cache, error),
    }
}

/// Moves the cursor to the next region, if the call reaches so far.
fn go_further(open: &mut OpenCall) -> bool {
    let (Call::Scan { end, .. } | Call::DeleteRange { end, .. }) = &open.call else { return false };
    let Asked::Store(_, region) = &open.asked else { return false };
    let region_end = &region.end_key;
    if region_end.is_empty() || (!end.is_empty() && end <= region_end) {
        return false;
    }
    open.cursor = region_end.clone();
    true
}

fn after_write(open: &mut OpenCall, result: WriteResult) -> Next {
    match result {
        WriteResult::Applied if open.open_session => {
            open.open_session = false;
            Next::AtOnce
        }
        WriteResult::Applied | WriteResult::Appended { .. } => {
            if go_further(open) {
                // One part is done, whatever becomes of the others.
                open.tainted = true;
                return Next::AtOnce;
            }
            Next::Finish(Outcome::Written)
        }
        WriteResult::SessionExpired { .. } if open.tainted => Next::Finish(Outcome::Unknown),
        WriteResult::SessionExpired { .. } => {
            open.open_session = true;
            Next::AtOnce
        }
        refusal => Next::Finish(Outcome::Refused(refusal)),
    }
}

fn after_error(open: &mut OpenCall, cache: &mut RegionCache, error: RegionError) -> Next {
    let Asked::Store(store, region) = &open.asked else { return Next::Later };
    let id = region.id.into();
    match error {
        RegionError::NotLeader { leader: Some(leader), .. }
            if leader.store_id != store_id(*store).get() && cache.set_leader(id, leader) =>
        {
            Next::AtOnce
        }
        RegionError::NotLeader { leader, .. } => {
            cache.unset_leader(id, store_id(*store));
            if leader.is_some() || open.attempts.is_multiple_of(4) {
                cache.doubt(id);
            }
            Next::Later
        }
        RegionError::EpochNotMatch { current } => {
            let news = current.into_iter().filter(|region| cache.insert(region.clone(), None));
            match news.count() {
                0 => {
                    cache.doubt(id);
                    Next::Later
                }
                _ => Next::AtOnce,
            }
        }
        RegionError::StaleCommand | RegionError::StoreStopped { .. } => after_silence(open, cache),
        RegionError::RegionNotFound { .. }
        | RegionError::StoreNotMatch { .. }
        | RegionError::MismatchPeerId { .. }
        | RegionError::KeyNotInRegion { .. } => {
            cache.unset_leader(id, store_id(*store));
            cache.doubt(id);
            Next::Later
        }
        RegionError::ReadIndexNotReady { .. }
        | RegionError::RegionNotInitialized { .. }
        | RegionError::Merging { .. }
        | RegionError::Refused { .. } => Next::Later,
        RegionError::RaftEntryTooLarge { .. } => Next::Finish(Outcome::Failed),
    }
}

/// Nobody said whether it took effect.
pub(super) fn after_silence(open: &mut OpenCall, cache: &mut RegionCache) -> Next {
    let Asked::Store(store, region) = &open.asked else { return Next::OtherNode(None) };
    cache.unset_leader(region.id.into(), store_id(*store));
    cache.doubt(region.id.into());
    // Opening a session again changes nothing.
    open.tainted |= !open.open_session;
    if open.call.is_repeatable() || open.options.repeat_writes {
        Next::Later
    } else {
        Next::Finish(Outcome::Unknown)
    }
}

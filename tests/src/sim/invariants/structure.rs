//! What must hold inside one Raft node at any time (Raft thesis §3.5): applied ≤ commit ≤ last index, the log begins no later
//! than after the applied entries, and a leader's view of a member has `matched < next`.

use super::Broken;
use raft::{Role, Status};

/// Checks one node.
pub fn check(store: usize, region: u64, status: &Status) -> Result<(), Broken> {
    let fail = |what: String| {
        let what = format!("store {} region {region}: {what}", store + 1);
        Err(Broken::new("structure of a node", what))
    };
    let Status { commit, applied, persisted, first_index, last_index, .. } = *status;
    if applied > commit || commit > last_index || persisted > last_index {
        return fail(format!(
            "applied {applied}, commit {commit}, persisted {persisted}, last {last_index}"
        ));
    }
    if first_index.0 > commit.0 + 1 {
        return fail(format!("the log begins at {first_index}, beyond commit {commit}"));
    }
    if status.role != Role::Leader {
        return Ok(());
    }
    if let Some(member) = status.progress.iter().find(|member| member.next <= member.matched) {
        return fail(format!(
            "member {} matches up to {} but is sent from {}",
            member.id, member.matched, member.next
        ));
    }
    Ok(())
}

//! How ids, keys, sizes and ages of the cluster are shown, in cells and in JSON.
//!
//! In JSON, ids and counters are strings (a JSON number loses the low bits of a u64), keys are escaped text as the shell
//! reads it, sizes are bytes.

use indicatif::{BinaryBytes, HumanCount};
use proto::flotillapb::{Operator, OperatorState, StoreLife};
use proto::metapb::{Peer, PeerRole, Region, StoreLabel};
use serde_json::{Value, json};

use crate::output::Record;
use crate::text::show;

/// A region's bound; "-" where there is none.
pub(super) fn bound(key: &[u8]) -> String {
    if key.is_empty() { "-".to_owned() } else { show(key) }
}

/// Bytes as people read them.
pub(super) fn size(bytes: u64) -> String {
    BinaryBytes(bytes).to_string()
}

/// A count with separators.
pub(super) fn count(count: u64) -> String {
    HumanCount(count).to_string()
}

/// Milliseconds as people read them.
pub(super) fn age(ms: u64) -> String {
    match ms {
        0..1_000 => format!("{ms} ms"),
        1_000..120_000 => format!("{}.{} s", ms / 1_000, ms % 1_000 / 100),
        120_000..7_200_000 => format!("{} min", ms / 60_000),
        _ => format!("{} h", ms / 3_600_000),
    }
}

/// The store of a peer, with a letter for one that is not simply a voter: `4l` learns, `4+` comes, `4-` goes.
pub(super) fn peer(peer: &Peer) -> String {
    let mark = match peer.role() {
        PeerRole::Voter => "",
        PeerRole::Learner => "l",
        PeerRole::IncomingVoter => "+",
        PeerRole::DemotingVoter => "-",
    };
    format!("{}{mark}", peer.store_id)
}

/// The stores of a region's peers, in their order.
pub(super) fn peers(region: &Region) -> String {
    region.peers.iter().map(peer).collect::<Vec<_>>().join(" ")
}

/// Both numbers of the epoch.
pub(super) fn epoch(region: &Region) -> String {
    let epoch = region.region_epoch.unwrap_or_default();
    format!("{}.{}", epoch.conf_ver, epoch.version)
}

/// Labels as they are typed.
pub(super) fn labels(labels: &[StoreLabel]) -> String {
    labels.iter().map(|l| format!("{}={}", l.key, l.value)).collect::<Vec<_>>().join(",")
}

/// What people call the state of a store.
pub(super) fn life(life: StoreLife) -> &'static str {
    match life {
        StoreLife::Up => "up",
        StoreLife::Disconnected => "disconnected",
        StoreLife::Down => "down",
        StoreLife::Draining => "draining",
        StoreLife::Offline => "offline",
        StoreLife::Tombstone => "tombstone",
    }
}

/// What people call the state of an operator.
pub(super) fn state(state: OperatorState) -> &'static str {
    match state {
        OperatorState::Running => "running",
        OperatorState::Finished => "finished",
        OperatorState::Cancelled => "cancelled",
        OperatorState::TimedOut => "timed out",
        OperatorState::Overtaken => "overtaken",
    }
}

/// The columns of [`operator`].
pub(super) const OPERATOR_COLUMNS: [&str; 8] =
    ["id", "region", "what", "by", "step", "state", "age", "reason"];

/// An operator in a line.
pub(super) fn operator(operator: &Operator) -> Record {
    let steps = operator.steps.len();
    let cells = vec![
        operator.operator_id.to_string(),
        operator.region_id.to_string(),
        operator.description.clone(),
        operator.origin.clone(),
        format!("{}/{steps}", steps.min(operator.step as usize)),
        state(operator.state()).to_owned(),
        age(operator.age_ms),
        operator.reason.clone(),
    ];
    Record { cells, json: operator_json(operator) }
}

/// An operator for programs.
pub(super) fn operator_json(operator: &Operator) -> Value {
    json!({
        "id": operator.operator_id.to_string(),
        "region": operator.region_id.to_string(),
        "origin": operator.origin,
        "description": operator.description,
        "steps": operator.steps,
        "step": operator.step,
        "state": state(operator.state()),
        "reason": operator.reason,
        "age_ms": operator.age_ms.to_string(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_says_what_it_is() {
        let mut shown = Peer { store_id: 4, ..Peer::default() };
        assert_eq!(peer(&shown), "4");
        shown.set_role(PeerRole::Learner);
        assert_eq!(peer(&shown), "4l");
    }

    #[test]
    fn ages_are_read_at_a_glance() {
        let ages = [20, 1_500, 60_000, 600_000, 36_000_000].map(age);
        assert_eq!(ages, ["20 ms", "1.5 s", "60.0 s", "10 min", "10 h"]);
    }

    #[test]
    fn an_operator_has_a_cell_for_each_column() {
        let shown = operator(&Operator { step: 1, steps: vec!["a".into()], ..Operator::default() });
        assert_eq!(shown.cells.len(), OPERATOR_COLUMNS.len());
        assert_eq!(shown.cells[4], "1/1");
        assert_eq!(shown.json["id"], "0");
    }
}

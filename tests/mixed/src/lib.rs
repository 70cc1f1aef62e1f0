//! One Raft group whose members are partly our nodes and partly raft-rs 0.7 nodes.
//!
//! An independent implementation is the best judge of a protocol: the two sides share nothing but encoded `eraftpb` bytes, so
//! whatever they agree on under loss, reordering, restarts and membership changes, they agree on because both do it right.
//!
//! [`Peer`] is what the group sees of a member; [`ours`] and [`theirs`] drive the two implementations; [`group`] is the network,
//! the faults and the agreement that is checked. Tests: `tests/`.

pub mod group;
pub mod machine;
pub mod ours;
pub mod theirs;

/// A member's change of role in the group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// Make the node a voter.
    AddVoter(u64),
    /// Make the node a learner.
    AddLearner(u64),
    /// Remove the node.
    Remove(u64),
}

/// An encoded `eraftpb.Message` on its way.
#[derive(Clone, Debug)]
pub struct Packet {
    /// Sender.
    pub from: u64,
    /// Receiver.
    pub to: u64,
    /// The message.
    pub bytes: Vec<u8>,
    /// Whether it carries a snapshot: its sender wants to know what became of it.
    pub is_snapshot: bool,
}

/// A member of the group, whoever wrote it.
pub trait Peer {
    /// Its id.
    fn id(&self) -> u64;
    /// Which implementation it is.
    fn implementation(&self) -> &'static str;
    /// A tick of its clock.
    fn tick(&mut self);
    /// An encoded message has arrived.
    fn receive(&mut self, bytes: &[u8]);
    /// Offers a command; whether it was taken.
    fn propose(&mut self, data: &[u8]) -> bool;
    /// Offers a membership change; whether it was taken. More than one change goes through a joint membership.
    fn propose_change(&mut self, changes: &[Change]) -> bool;
    /// Asks the leader to hand over.
    fn transfer_leader(&mut self, to: u64);
    /// What became of a snapshot it sent.
    fn report_snapshot(&mut self, to: u64, arrived: bool);
    /// Drops the log up to what it has applied.
    fn compact(&mut self);
    /// Carries out everything it wants done and returns what it sends.
    fn drive(&mut self) -> Vec<Packet>;
    /// The process dies and comes back with what was durable.
    fn restart(&mut self);
    /// Whether it leads, and in which term.
    fn leads(&self) -> Option<u64>;
    /// Its state machine.
    fn machine(&self) -> &machine::Machine;
    /// Its state in words, for a failed test's message.
    fn describe(&self) -> String;
    /// How many snapshots it has installed.
    fn snapshots_installed(&self) -> usize;
}

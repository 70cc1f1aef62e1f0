//! What is asked of the scheduler and what it tells.

use bytes::Bytes;
use proto::ids::RegionId;
use proto::{flotillapb, metapb, pdpb};
use raftstore::msg::{NewRegion, SplitRequest};

/// Who asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asker {
    /// The store at this place.
    Store(usize),
    /// A client, with this attempt.
    Client(u64),
    /// The node itself, or somebody who wants no answer.
    Nobody,
}

/// A question on its way.
#[derive(Clone, Debug)]
pub struct Consult {
    /// Whose it is.
    pub from: Asker,
    /// What is asked.
    pub question: Question,
}

/// What is asked.
#[derive(Clone, Debug)]
pub enum Question {
    /// A leader's report.
    RegionHeartbeat(Box<pdpb::RegionHeartbeatRequest>),
    /// A store's report.
    StoreHeartbeat(pdpb::StoreStats),
    /// A store wants to be known.
    Register(metapb::Store),
    /// A leader wants ids for a split.
    AskSplit(SplitRequest),
    /// The parts of a split.
    ReportSplit(Vec<metapb::Region>),
    /// A peer wonders whether its region still wants it: who holds its start key?
    WhoHolds(RegionId, Bytes),
    /// A client looks for the region of a key.
    Locate(Bytes),
    /// A client wants timestamps.
    Timestamps(u32),
    /// Somebody wants so many ids.
    Ids(u64),
    /// An administrator's wish.
    Operate(Box<flotillapb::AddOperatorRequest>),
    /// What is to become of a store.
    ChangeStore(flotillapb::ChangeStoreRequest),
    /// New settings.
    Configure(flotillapb::ConfigRequest),
    /// Time has passed.
    Tick,
    /// Windows may have to be extended.
    Maintain,
}

/// What a store is told.
#[derive(Clone, Debug)]
pub enum Advice {
    /// A step of an operator.
    Instruction(Box<pdpb::RegionHeartbeatResponse>),
    /// Ids for a split.
    SplitIds(SplitRequest, Result<Vec<NewRegion>, String>),
    /// Who holds the start key of the region asked about.
    Holder(RegionId, metapb::Region),
    /// It is known now.
    Registered,
    /// Another node leads, perhaps this one.
    Redirect(Option<usize>),
}

//! What the scheduler's region holds when a run begins.

use super::FIRST_ID;
use bytes::Bytes;
use engine::{Cf, WriteBatch};
use prost::Message;
use proto::flotillapb::{InitialPlan, Settings};
use proto::metapb;
use raftstore::keys::{self, RawCf};
use scheduler::core::{FORMAT, Key};

/// What a cluster that has been planned already begins with: the first regions, and ids above theirs.
pub fn first_records(
    regions: &[metapb::Region],
    settings: &Settings,
    cluster_id: u64,
) -> WriteBatch {
    let mut batch = WriteBatch::new();
    let mut put = |key: Key, value: Bytes| {
        batch.put(Cf::Raw, keys::raw(RawCf::Default, &key.encode()), value);
    };
    let number = |n: u64| Bytes::copy_from_slice(&n.to_be_bytes());
    put(Key::Format, number(FORMAT));
    put(Key::ClusterId, number(cluster_id));
    put(Key::IdWindow, number(FIRST_ID));
    put(Key::Settings, settings.encode_to_vec().into());
    put(Key::Plan, InitialPlan { regions: regions.to_vec() }.encode_to_vec().into());
    for region in regions {
        put(Key::Region(region.id.into()), region.encode_to_vec().into());
    }
    batch
}

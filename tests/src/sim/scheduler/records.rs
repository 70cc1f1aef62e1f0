//! How the scheduler's records stand in its region: each under its own key, as a plain write.

use super::FIRST_ID;
use bytes::Bytes;
use engine::{Cf, Engine, Op, WriteBatch};
use prost::Message;
use proto::flotillapb::{InitialPlan, Settings};
use proto::metapb;
use raftstore::command::Mutation;
use raftstore::keys::{self, RawCf};
use scheduler::core::{Change, FORMAT, Key, Record};

/// The mutations that a change stands for.
pub fn mutations(change: &Change) -> Vec<Mutation> {
    let batch = change.batch(Cf::Default);
    let mutation = |op: &Op| match op {
        Op::Put { key, value, .. } => {
            Mutation::Put { cf: RawCf::Default, key: key.clone(), value: value.clone() }
        }
        Op::Delete { key, .. } => Mutation::Delete { cf: RawCf::Default, key: key.clone() },
        Op::DeleteRange { .. } => unreachable!("records are removed one by one"),
    };
    batch.ops().iter().map(mutation).collect()
}

/// Every record in the region.
pub fn load(engine: &dyn Engine) -> Vec<Record> {
    let snapshot = engine.snapshot();
    let mut iter = snapshot.iter(Cf::Raw, keys::raw_range(RawCf::Default, b"", b""));
    let mut records = Vec::new();
    let mut more = iter.seek_to_first().unwrap_or(false);
    while more {
        let record = Record::decode(keys::raw_user_key(iter.key()), iter.value());
        records.push(record.expect("the scheduler's region holds its records"));
        more = iter.next().unwrap_or(false);
    }
    records
}

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

//! Where regions can be cut, how large they are, and what the hash of their data sees.

use bytes::Bytes;
use engine::mem::MemEngine;
use engine::{Cf, Engine, WriteBatch};
use proptest::prelude::*;
use proto::ids::RegionId;
use proto::{codec, metapb};
use std::sync::Arc;

use super::*;
use crate::command::ClientId;
use crate::keys::{self, Key, RawCf};
use crate::msg::{SplitCheck, SplitChecked};

fn region(start: &[u8], end: &[u8]) -> metapb::Region {
    let boundary = |key: &[u8]| if key.is_empty() { Bytes::new() } else { codec::encode(key) };
    metapb::Region {
        id: 2,
        start_key: boundary(start),
        end_key: boundary(end),
        ..Default::default()
    }
}

fn engine_with<'a>(pairs: impl IntoIterator<Item = (RawCf, &'a [u8], usize)>) -> MemEngine {
    let (engine, mut batch) = (MemEngine::new(), WriteBatch::new());
    for (cf, key, value_bytes) in pairs {
        batch.put(Cf::Raw, keys::raw(cf, key), vec![7; value_bytes]);
    }
    engine.write(&batch).expect("write");
    engine
}

fn check(region: metapb::Region, part_bytes: u64, engine: &MemEngine) -> SplitChecked {
    let check = SplitCheck { region: Arc::new(region), part_bytes, part_keys: 0 };
    measure(check, engine.snapshot().as_ref()).expect("measure")
}

#[test]
fn boundaries_between_raw_keys_are_short_and_between_their_groups() {
    let between = |a: &str, b: &str| boundary_between(a.as_bytes(), b.as_bytes());
    assert_eq!(between("apple", "banana"), Some(codec::encode(b"b")));
    assert_eq!(between("user0001x", "user0002x"), Some(codec::encode(b"user0001")));
    assert_eq!(between("user0001a", "user0001b"), None, "the same eight bytes");
    assert_eq!(between("a", "a"), None);
    assert_eq!(boundary_between(b"12345678\xff\x01", b"12345679"), None, "0xff follows the group");
}

#[test]
fn boundaries_between_keys_of_transactions_are_their_own() {
    let key = |user: &str, timestamp: u64| {
        let mut key = codec::encode(user.as_bytes()).to_vec();
        key.extend_from_slice(&(!timestamp).to_be_bytes());
        key
    };
    let (a, b) = (key("account-0001", 9), key("account-0002", 9));
    assert_eq!(boundary_between(&a, &b), Some(codec::encode(b"account-0002")));
    assert_eq!(boundary_between(&key("account-0001", 9), &key("account-0001", 8)), None);
}

#[test]
fn a_region_is_measured_in_all_its_families_and_nowhere_else() {
    let put = |cf, key: &'static str| (cf, key.as_bytes(), 10);
    let engine = engine_with([
        put(RawCf::Default, "a"),
        put(RawCf::Default, "n"),
        put(RawCf::Lock, "o"),
        put(RawCf::Write, "p"),
        put(RawCf::Write, "z"),
    ]);
    let checked = check(region(b"m", b"y"), 0, &engine);
    assert_eq!((checked.bytes, checked.keys), (33, 3));
    assert_eq!(checked.split_keys, [codec::encode(b"n")], "a cut goes through all families");
}

#[test]
fn several_parts_are_cut_at_once_and_are_even() {
    let keys: Vec<String> = (0..20_000).map(|i| format!("{i:08}user")).collect();
    let engine = engine_with(keys.iter().map(|key| (RawCf::Default, key.as_bytes(), 88)));
    let checked = check(region(b"", b""), 250_000, &engine);
    assert_eq!((checked.bytes, checked.keys), (2_000_000, 20_000));
    assert_eq!(checked.split_keys.len(), 7);
    let mut parts = vec![0_u64; 8];
    for key in &keys {
        parts[checked.split_keys.partition_point(|cut| &cut[..] <= key.as_bytes())] += 100;
    }
    assert!(parts.iter().all(|part| (240_000..=260_000).contains(part)), "{parts:?}");
}

#[test]
fn keys_that_share_their_first_bytes_stay_together() {
    let keys: Vec<String> = (0..1000).map(|i| format!("constant-prefix-{i:04}")).collect();
    let engine = engine_with(keys.iter().map(|key| (RawCf::Default, key.as_bytes(), 100)));
    assert_eq!(check(region(b"", b""), 1000, &engine).split_keys, [] as [Bytes; 0]);
}

#[test]
fn a_sample_is_halved_where_keys_can_be_parted() {
    let sample =
        |keys: &[&str]| keys.iter().map(|key| Bytes::copy_from_slice(key.as_bytes())).collect();
    assert_eq!(cut_of_sample(sample(&["d", "a", "c", "b"])), Some(codec::encode(b"b")));
    assert_eq!(
        cut_of_sample(sample(&["a", "z", "z", "z", "z", "z", "z", "z"])),
        None,
        "one hot key"
    );
    assert_eq!(cut_of_sample(Vec::new()), None);
}

#[test]
fn the_data_hash_sees_every_byte_and_every_session() {
    let pairs = [(RawCf::Default, &b"a"[..], 3), (RawCf::Lock, &b"b"[..], 4)];
    let (region, engine) = (region(b"", b"x"), engine_with(pairs));
    let hash = |engine: &MemEngine| data_hash(&region, engine.snapshot().as_ref()).expect("hash");
    let before = hash(&engine);
    assert_eq!(before, hash(&engine_with(pairs)));
    let write = |cf, key: Bytes, value: &'static [u8]| {
        let mut batch = WriteBatch::new();
        batch.put(cf, key, value);
        engine.write(&batch).expect("write");
        hash(&engine)
    };
    assert_eq!(write(Cf::Raw, keys::raw(RawCf::Default, b"y"), b"1"), before, "another region's");
    assert_ne!(write(Cf::Raw, keys::raw(RawCf::Default, b"a"), &[7, 7, 6]), before);
    assert_eq!(write(Cf::Raw, keys::raw(RawCf::Default, b"a"), &[7, 7, 7]), before);
    let session = Key::Session(RegionId::from(2), ClientId(9)).encode();
    assert_ne!(write(Cf::Raft, session, b"s"), before);
}

/// Keys with common prefixes and bytes at the edges.
fn key() -> impl Strategy<Value = Vec<u8>> {
    let byte = prop_oneof![Just(0_u8), Just(b'a'), Just(b'b'), Just(0xfe), Just(0xff)];
    prop::collection::vec(byte, 0..12)
}

proptest! {
    #[test]
    fn a_boundary_lies_between_and_is_valid(a in key(), b in key()) {
        let (previous, next) = (a.clone().min(b.clone()), a.max(b));
        if let Some(boundary) = boundary_between(&previous, &next) {
            prop_assert!(previous[..] < boundary[..] && boundary[..] <= next[..]);
            prop_assert!(codec::is_boundary(&boundary));
        }
    }

    #[test]
    fn keys_that_differ_early_can_be_parted(a in key(), b in key()) {
        let (previous, next) = (a.clone().min(b.clone()), a.max(b));
        let differ = previous.len() >= 8 && next.len() >= 8 && previous[..8] != next[..8];
        if differ && previous.get(8) != Some(&0xff) {
            prop_assert!(boundary_between(&previous, &next).is_some());
        }
    }

    #[test]
    fn cuts_are_valid_inside_and_in_order(
        keys in prop::collection::btree_set(key(), 0..200),
        start in key(), end in key(),
        part_bytes in 0_u64..200,
    ) {
        let region = region(&start.clone().min(end.clone()), &start.max(end));
        let engine = engine_with(keys.iter().map(|key| (RawCf::Default, &key[..], 9)));
        let checked = check(region.clone(), part_bytes, &engine);
        prop_assert!(checked.split_keys.iter().all(|key| is_valid_cut(&region, key)));
        prop_assert!(checked.split_keys.is_sorted_by(|a, b| a < b));
        let inside = |key: &&Vec<u8>| {
            key[..] >= region.start_key[..]
                && (region.end_key.is_empty() || key[..] < region.end_key[..])
        };
        prop_assert_eq!(checked.keys, keys.iter().filter(inside).count() as u64);
        // No part is empty, and a part is too large only if it could not be cut.
        let mut part = 0_u64;
        let mut cuts = checked.split_keys.iter().peekable();
        let mut previous: Option<&Vec<u8>> = None;
        for key in keys.iter().filter(inside) {
            if let Some(cut) = cuts.next_if(|cut| cut[..] <= key[..]) {
                prop_assert!(part > 0 && previous.is_some_and(|before| before[..] < cut[..]));
                part = 0;
            }
            part += 1;
            previous = Some(key);
        }
        prop_assert!(cuts.next().is_none() && (part > 0 || checked.keys == 0));
    }
}

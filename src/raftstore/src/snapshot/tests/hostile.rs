//! Content that lies behind honest checksums: whatever it is, it is refused, or it stays inside its region.

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::apply::{Applier, ApplyTask};

fn good_content() -> Vec<u8> {
    let parts = parts(&sender(5, b"new"));
    let chunks = parts.into_iter().filter_map(|part| match part {
        Part::Data(chunk) => Some(chunk.data),
        Part::Header(_) | Part::Footer(_) => None,
    });
    chunks.flatten().collect()
}

/// Receives and, if it is accepted, installs; nothing of anybody else may change.
fn receive_and_install(content: &[u8]) {
    let files = MemFiles::new();
    let Ok(received) = receive(&files, forged(content)) else {
        assert_eq!(files.list().expect("list"), [], "what is refused leaves no file");
        return;
    };
    let (engine, what) = follower(received);
    let not_the_regions = |engine: &MemEngine| {
        let mut pairs = dump(engine);
        pairs.retain(|(cf, key, _)| {
            let inside = records::sections(&region()).into_iter();
            let mut inside = inside.filter(|(section, range)| section == cf && range.contains(key));
            let own = [Key::ApplyState, Key::RegionState, Key::PendingSnapshot]
                .map(|key| key(REGION.into()).encode());
            inside.next().is_none() && !own.contains(key)
        });
        pairs
    };
    let before = not_the_regions(&engine);
    let state = install(&engine, &files, &what);
    let state = state.expect("what was accepted can be installed");
    assert_eq!(not_the_regions(&engine), before);
    let register = ApplyTask::Register { region: region(), peer: PeerId::from(3), state };
    let opened = Applier::new(Arc::new(engine)).handle(vec![register]);
    assert!(opened.is_ok(), "what was installed can be opened: {opened:?}");
}

proptest! {
    #[test]
    fn random_bytes(content in vec(any::<u8>(), 1..400)) {
        receive_and_install(&content);
    }

    #[test]
    fn a_good_snapshot_with_some_bytes_changed(
        changes in vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        cut in any::<Option<prop::sample::Index>>(),
    ) {
        let mut content = good_content();
        for (at, byte) in changes {
            let at = at.index(content.len());
            content[at] = byte;
        }
        if let Some(cut) = cut {
            content.truncate(cut.index(content.len()).max(1));
        }
        receive_and_install(&content);
    }

    #[test]
    fn records_of_any_kind(
        records in vec((0..5usize, vec(any::<u8>(), 0..18), vec(any::<u8>(), 0..9)), 0..6),
    ) {
        let (cf, key, state) = state_record(90);
        let mut out = vec![(cf, key, &state[..])];
        for (cf, key, value) in &records {
            out.push((Cf::ALL[*cf], Bytes::from(key.clone()), &value[..]));
        }
        receive_and_install(&content(&out));
    }
}

//! Calls against hand-made answers, and against a model of regions that fail in every way the wire allows: answers lost before
//! or after the write took effect, requests that arrive late, leaders that move, sessions that are forgotten.

use std::collections::BTreeMap;

use bytes::Bytes;
use proto::errorpb;

use super::super::backoff::Jitter;
use super::super::lane::LanePool;
use super::super::request::Mutation;
use super::*;

const MS: u64 = 1_000_000;

fn peer(id: u64) -> Peer {
    Peer { id, store_id: id, ..Peer::default() }
}

fn region(id: u64, start: &'static str, end: &'static str, version: u64) -> Region {
    Region {
        id,
        start_key: Bytes::from(start),
        end_key: Bytes::from(end),
        region_epoch: Some(RegionEpoch { conf_ver: 1, version }),
        peers: vec![peer(1), peer(2), peer(3)],
    }
}

fn put() -> Arc<Request> {
    Arc::new(Request::Write(vec![Mutation::Put { key: "k".into(), value: "v".into() }]))
}

fn get() -> Arc<Request> {
    Arc::new(Request::Get { key: "k".into() })
}

fn core(write_mode: WriteMode) -> Core {
    let mut core = Core::new(Settings { write_mode, ..Settings::default() }, 1);
    core.regions.insert(region(1, "", "", 1), Some(peer(1)));
    core.lanes.add_client_ids(100..200);
    core
}

/// A lane that region 1 knows, of id 7, whose next write is its fourth.
fn known_lane(core: &mut Core) {
    core.lanes = LanePool::default();
    core.lanes.add_client_ids([7]);
    let lane = core.lanes.take_for_opening().expect("an id is there");
    core.lanes.opened(7, RegionId::from(1));
    core.lanes.put_back(Lane { next_sequence: 4, ..lane }, Some(RegionId::from(1)));
    core.lanes.add_client_ids(100..200);
}

fn session(send: &Send) -> Option<(u64, u64)> {
    match send.body {
        Body::Request { session, .. } => session,
        Body::OpenSession { client_id } => panic!("an opening of {client_id}"),
    }
}

fn opened(send: &Send) -> u64 {
    match send.body {
        Body::OpenSession { client_id } => client_id,
        ref other => panic!("expected an opening, got {other:?}"),
    }
}

fn epoch_not_match(current_regions: Vec<Region>) -> Attempt {
    let epoch = errorpb::EpochNotMatch { current_regions };
    let error = errorpb::Error { epoch_not_match: Some(epoch), ..Default::default() };
    Attempt::RegionError(Box::new(error))
}

fn sent(step: Step) -> Send {
    match step {
        Step::Send(send) => send,
        other => panic!("expected a message, got {other:?}"),
    }
}

/// Polls until there is something to send, letting time pass as asked.
fn next_send(call: &mut Call, core: &mut Core, now: &mut Instant) -> Send {
    loop {
        match call.poll(core, *now) {
            Step::Wait(until) => *now = until,
            Step::Ask(Question::Region(_)) => call.on_region(core, *now, Err("away".to_owned())),
            other => return sent(other),
        }
    }
}

fn not_leader(leader: Option<u64>) -> Attempt {
    let not_leader = errorpb::NotLeader { region_id: 1, leader: leader.map(peer) };
    Attempt::RegionError(Box::new(errorpb::Error {
        not_leader: Some(not_leader),
        ..Default::default()
    }))
}

fn lost(sent: bool) -> Attempt {
    Attempt::Lost { sent, reason: "connection reset".to_owned() }
}

#[test]
fn a_hint_is_followed_at_once_and_remembered() {
    let mut core = core(WriteMode::Plain);
    let mut call = Call::new(get(), &core.settings, Instant(0));
    assert_eq!(sent(call.poll(&mut core, Instant(0))).peer, peer(1));
    call.on_attempt(&mut core, Instant(0), not_leader(Some(3)));
    assert_eq!(sent(call.poll(&mut core, Instant(0))).peer, peer(3));
    call.on_attempt(&mut core, Instant(0), Attempt::Ok(Reply::Value(None)));
    assert_eq!(call.poll(&mut core, Instant(0)), Step::Done(Ok(Reply::Value(None))));
    let mut next = Call::new(get(), &core.settings, Instant(1));
    assert_eq!(sent(next.poll(&mut core, Instant(1))).peer, peer(3));
}

#[test]
fn peers_that_name_each_other_do_not_spin() {
    let mut core = core(WriteMode::Plain);
    let mut call = Call::new(get(), &core.settings, Instant(0));
    let mut attempts = 0;
    loop {
        match call.poll(&mut core, Instant(0)) {
            Step::Send(send) => {
                attempts += 1;
                let other = if send.peer.id == 1 { 2 } else { 1 };
                call.on_attempt(&mut core, Instant(0), not_leader(Some(other)));
            }
            Step::Wait(_) => break,
            other => panic!("unexpected {other:?}"),
        }
    }
    assert_eq!(attempts, HINTS_MAX + 1);
}

#[test]
fn a_dead_leader_is_passed_over_even_if_others_still_name_it() {
    let mut core = core(WriteMode::Plain);
    let mut now = Instant(0);
    let mut call = Call::new(get(), &core.settings, now);
    assert_eq!(sent(call.poll(&mut core, now)).peer.id, 1);
    call.on_attempt(&mut core, now, lost(true));
    let second = next_send(&mut call, &mut core, &mut now);
    assert_ne!(second.peer.id, 1);
    call.on_attempt(&mut core, now, not_leader(Some(1)));
    let third = next_send(&mut call, &mut core, &mut now);
    assert_ne!(third.peer.id, 1, "the hint names a store that has just failed");
    assert!(now.0 < 100 * MS);
}

#[test]
fn a_plain_write_is_repeated_only_while_it_cannot_have_been_applied() {
    let mut core = core(WriteMode::Plain);
    let mut now = Instant(0);
    let mut call = Call::new(put(), &core.settings, now);
    let first = next_send(&mut call, &mut core, &mut now);
    assert_eq!(first.timeout, core.settings.budget, "its only chance gets all the time");
    call.on_attempt(&mut core, now, lost(false));
    next_send(&mut call, &mut core, &mut now);
    call.on_attempt(&mut core, now, lost(true));
    assert!(matches!(call.poll(&mut core, now), Step::Done(Err(Error::Undetermined(_)))));
}

#[test]
fn an_exactly_once_write_is_repeated_under_its_session() {
    let mut core = core(WriteMode::ExactlyOnce);
    let mut now = Instant(0);
    let mut call = Call::new(put(), &core.settings, now);
    let open = next_send(&mut call, &mut core, &mut now);
    assert_eq!(open.body, Body::OpenSession { client_id: 100 });
    call.on_attempt(&mut core, now, Attempt::Ok(Reply::Written));
    for _ in 0..5 {
        let write = next_send(&mut call, &mut core, &mut now);
        assert!(matches!(write.body, Body::Request { session: Some((100, 1)), .. }));
        call.on_attempt(&mut core, now, lost(true));
    }
    next_send(&mut call, &mut core, &mut now);
    call.on_attempt(&mut core, now, Attempt::Ok(Reply::Written));
    assert_eq!(call.poll(&mut core, now), Step::Done(Ok(Reply::Written)));
    let mut next = Call::new(put(), &core.settings, now);
    let write = next_send(&mut next, &mut core, &mut now);
    assert!(matches!(write.body, Body::Request { session: Some((100, 2)), .. }));
}

#[test]
fn an_expired_session_is_replaced_only_if_nothing_was_lost_before() {
    let mut core = core(WriteMode::ExactlyOnce);
    let mut now = Instant(0);
    known_lane(&mut core);
    let mut call = Call::new(put(), &core.settings, now);
    assert_eq!(session(&next_send(&mut call, &mut core, &mut now)), Some((7, 4)));
    call.on_attempt(&mut core, now, Attempt::SessionExpired);
    assert_eq!(opened(&next_send(&mut call, &mut core, &mut now)), 100, "7 never wakes up again");
    call.on_attempt(&mut core, now, Attempt::Ok(Reply::Written));
    next_send(&mut call, &mut core, &mut now);
    call.on_attempt(&mut core, now, lost(true));
    next_send(&mut call, &mut core, &mut now);
    call.on_attempt(&mut core, now, Attempt::SessionExpired);
    assert!(matches!(call.poll(&mut core, now), Step::Done(Err(Error::Undetermined(_)))));
    let mut next = Call::new(put(), &core.settings, now);
    assert_eq!(opened(&next_send(&mut next, &mut core, &mut now)), 101, "nor does 100");
}

#[test]
fn a_lost_opening_costs_its_id() {
    let mut core = core(WriteMode::ExactlyOnce);
    let mut now = Instant(0);
    let mut call = Call::new(put(), &core.settings, now);
    assert_eq!(opened(&next_send(&mut call, &mut core, &mut now)), 100);
    call.on_attempt(&mut core, now, not_leader(None));
    assert_eq!(opened(&next_send(&mut call, &mut core, &mut now)), 100, "certainly not opened");
    call.on_attempt(&mut core, now, lost(true));
    assert_eq!(opened(&next_send(&mut call, &mut core, &mut now)), 101);
}

#[test]
fn a_split_regroups_a_write_and_its_sequence_is_used_up() {
    let mut core = core(WriteMode::ExactlyOnce);
    let mut now = Instant(0);
    let key = |key: &'static str| Mutation::Delete { key: key.into() };
    known_lane(&mut core);
    let both = Arc::new(Request::Write(vec![key("a"), key("x")]));
    let mut call = Call::new(both, &core.settings, now);
    assert_eq!(session(&sent(call.poll(&mut core, now))), Some((7, 4)));
    let parts = vec![region(9, "", "m", 2), region(1, "m", "", 2)];
    call.on_attempt(&mut core, now, epoch_not_match(parts));
    assert_eq!(call.poll(&mut core, now), Step::Regroup);
    for (part, sequence) in [("a", 5), ("x", 6)] {
        let part = Arc::new(Request::Write(vec![key(part)]));
        let mut call = Call::new(part, &core.settings, now);
        let send = next_send(&mut call, &mut core, &mut now);
        assert_eq!(session(&send), Some((7, sequence)), "both parts know the lane");
        call.on_attempt(&mut core, now, Attempt::Ok(Reply::Written));
        assert_eq!(call.poll(&mut core, now), Step::Done(Ok(Reply::Written)));
    }
}

#[test]
fn a_write_in_doubt_follows_its_key_under_the_same_sequence() {
    let mut core = core(WriteMode::ExactlyOnce);
    let mut now = Instant(0);
    known_lane(&mut core);
    let mut call = Call::new(put(), &core.settings, now);
    next_send(&mut call, &mut core, &mut now);
    call.on_attempt(&mut core, now, lost(true));
    next_send(&mut call, &mut core, &mut now);
    // The left part alone: who holds the key now is not known from this.
    call.on_attempt(&mut core, now, epoch_not_match(vec![region(1, "", "c", 2)]));
    let Step::Ask(Question::Region(_)) = call.poll(&mut core, now) else {
        panic!("nobody is known to hold the key");
    };
    call.on_region(&mut core, now, Ok(Some((region(9, "c", "", 3), Some(peer(2))))));
    let send = next_send(&mut call, &mut core, &mut now);
    assert_eq!((send.region.get(), session(&send)), (9, Some((7, 4))), "no opening in between");
    call.on_attempt(&mut core, now, Attempt::Ok(Reply::Written));
    assert_eq!(call.poll(&mut core, now), Step::Done(Ok(Reply::Written)));
}

#[test]
fn a_write_in_doubt_whose_keys_were_parted_stays_in_doubt() {
    let mut core = core(WriteMode::ExactlyOnce);
    let mut now = Instant(0);
    known_lane(&mut core);
    let key = |key: &'static str| Mutation::Delete { key: key.into() };
    let both = Arc::new(Request::Write(vec![key("a"), key("x")]));
    let mut call = Call::new(both, &core.settings, now);
    next_send(&mut call, &mut core, &mut now);
    call.on_attempt(&mut core, now, lost(true));
    next_send(&mut call, &mut core, &mut now);
    let parts = vec![region(9, "", "m", 2), region(1, "m", "", 2)];
    call.on_attempt(&mut core, now, epoch_not_match(parts));
    assert!(matches!(call.poll(&mut core, now), Step::Done(Err(Error::Undetermined(_)))));
    assert_eq!(core.lanes.take(RegionId::from(1)), None, "its sequence is still in question");
}

#[test]
fn a_refusal_uses_the_sequence_up() {
    let mut core = core(WriteMode::ExactlyOnce);
    let mut now = Instant(0);
    known_lane(&mut core);
    let mut call = Call::new(put(), &core.settings, now);
    next_send(&mut call, &mut core, &mut now);
    call.on_attempt(&mut core, now, Attempt::Refused("too large".to_owned()));
    assert!(matches!(call.poll(&mut core, now), Step::Done(Err(Error::Refused(_)))));
    let mut next = Call::new(put(), &core.settings, now);
    let send = next_send(&mut next, &mut core, &mut now);
    assert_eq!(session(&send), Some((7, 5)), "the region keeps the refusal as the answer to 4");
}

#[test]
fn a_lane_is_opened_in_every_region_before_its_first_write_there() {
    let mut core = core(WriteMode::ExactlyOnce);
    core.adopt([(region(1, "", "g", 2), None), (region(2, "g", "", 1), Some(peer(1)))]);
    let mut now = Instant(0);
    let write = |core: &mut Core, now: &mut Instant| {
        let mut call = Call::new(put(), &core.settings, *now);
        let mut bodies = Vec::new();
        loop {
            match call.poll(core, *now) {
                Step::Done(outcome) => {
                    assert_eq!(outcome, Ok(Reply::Written));
                    return bodies;
                }
                Step::Send(send) => {
                    bodies.push((send.region.get(), send.body));
                    call.on_attempt(core, *now, Attempt::Ok(Reply::Written));
                }
                other => panic!("unexpected {other:?}"),
            }
        }
    };
    let first = write(&mut core, &mut now);
    assert!(matches!(first[..], [(2, Body::OpenSession { client_id: 100 }), (2, _)]));
    assert_eq!(write(&mut core, &mut now).len(), 1, "known from now on");
    // Region 1 takes over region 2 and knows what that one knew.
    core.adopt([(region(1, "", "", 5), None)]);
    let moved = write(&mut core, &mut now);
    assert!(matches!(moved[..], [(1, Body::Request { session: Some((100, 3)), .. })]), "{moved:?}");
}

#[test]
fn a_call_that_nobody_waits_for_ends_its_lane() {
    let mut core = core(WriteMode::ExactlyOnce);
    let mut now = Instant(0);
    known_lane(&mut core);
    let mut call = Call::new(put(), &core.settings, now);
    next_send(&mut call, &mut core, &mut now);
    call.abandon(&mut core);
    let mut next = Call::new(put(), &core.settings, now);
    assert_eq!(opened(&next_send(&mut next, &mut core, &mut now)), 100);
}

#[test]
fn the_budget_ends_a_call_in_its_class() {
    let mut core = core(WriteMode::ExactlyOnce);
    let end = Instant(0) + core.settings.budget;
    let mut unreachable = Call::new(get(), &core.settings, Instant(0));
    let outcome = unreachable.poll(&mut core, end);
    assert!(matches!(outcome, Step::Done(Err(Error::Unreachable(_)))));

    let mut timeout = Call::new(get(), &core.settings, Instant(0));
    sent(timeout.poll(&mut core, Instant(0)));
    timeout.on_attempt(&mut core, Instant(0), not_leader(None));
    assert!(matches!(timeout.poll(&mut core, end), Step::Done(Err(Error::Timeout { .. }))));

    known_lane(&mut core);
    let mut undetermined = Call::new(put(), &core.settings, Instant(0));
    sent(undetermined.poll(&mut core, Instant(0)));
    undetermined.on_attempt(&mut core, Instant(0), lost(true));
    assert!(matches!(undetermined.poll(&mut core, end), Step::Done(Err(Error::Undetermined(_)))));
    assert_eq!(core.lanes.take(RegionId::from(1)), None, "its sequence is still in question");
}

#[test]
fn a_scheduler_without_the_region_does_not_spin() {
    let mut core = Core::new(Settings::default(), 1);
    let mut call = Call::new(get(), &core.settings, Instant(0));
    assert!(matches!(call.poll(&mut core, Instant(0)), Step::Ask(Question::Region(_))));
    call.on_region(&mut core, Instant(0), Ok(None));
    assert!(matches!(call.poll(&mut core, Instant(0)), Step::Wait(_)));
    let elsewhere = region(1, "x", "", 1);
    call.on_region(&mut core, Instant(0), Ok(Some((elsewhere, None))));
    assert!(matches!(call.poll(&mut core, Instant(0)), Step::Wait(_)));
}

/// One region as its log would leave it: how often the write took effect, and the sessions.
#[derive(Default)]
struct Model {
    leader: u64,
    applied: u32,
    sessions: BTreeMap<u64, u64>,
    late: Vec<Body>,
}

impl Model {
    fn apply(&mut self, body: &Body) -> Attempt {
        match body {
            Body::OpenSession { client_id } => {
                self.sessions.entry(*client_id).or_insert(0);
            }
            Body::Request { session: None, .. } => self.applied += 1,
            Body::Request { session: Some((client, sequence)), .. } => {
                let Some(last) = self.sessions.get_mut(client) else {
                    return Attempt::SessionExpired;
                };
                if *sequence < *last {
                    return Attempt::StaleSequence;
                }
                self.applied += u32::from(*sequence > *last);
                *last = *sequence;
            }
        }
        Attempt::Ok(Reply::Written)
    }

    /// What happens to one message: anything the wire, a crash or an election can do.
    fn deliver(&mut self, send: &Send, dice: &mut Jitter) -> Attempt {
        if !self.late.is_empty() && dice.next_u64().is_multiple_of(3) {
            let body = self.late.remove(0);
            self.apply(&body);
        }
        if dice.next_u64().is_multiple_of(6) {
            self.leader = dice.next_u64() % 3 + 1;
        }
        if dice.next_u64().is_multiple_of(25) {
            self.sessions.clear();
        }
        let stale =
            || errorpb::Error { stale_command: Some(Default::default()), ..Default::default() };
        match dice.next_u64() % 12 {
            0 => lost(false),
            1 => lost(true),
            2 => {
                self.apply(&send.body);
                lost(true)
            }
            3 => {
                self.late.push(send.body.clone());
                lost(true)
            }
            4 => {
                self.late.push(send.body.clone());
                Attempt::RegionError(Box::new(stale()))
            }
            5 => Attempt::RegionError(Box::new(stale())),
            6 => not_leader(None),
            7 => {
                let busy = errorpb::ServerIsBusy { backoff_ms: 5, ..Default::default() };
                Attempt::RegionError(Box::new(errorpb::Error {
                    server_is_busy: Some(busy),
                    ..Default::default()
                }))
            }
            _ if send.peer.id != self.leader => not_leader(Some(self.leader)),
            _ => self.apply(&send.body),
        }
    }
}

/// Runs one write to its end; the outcome, and how often it took effect once everything late has arrived.
fn run(seed: u64, write_mode: WriteMode) -> (Result<Reply>, u32) {
    let mut dice = Jitter::new(seed);
    let mut core = core(write_mode);
    let mut model = Model { leader: dice.next_u64() % 3 + 1, ..Model::default() };
    let (mut now, mut ids) = (Instant(0), 200);
    let mut call = Call::new(put(), &core.settings, now);
    let outcome = loop {
        match call.poll(&mut core, now) {
            Step::Done(outcome) => break outcome,
            Step::Wait(until) => {
                assert!(until > now, "a wait that does not pass");
                now = until;
            }
            Step::Ask(Question::Region(_)) => {
                let leader = peer(dice.next_u64() % 3 + 1);
                call.on_region(&mut core, now, Ok(Some((region(1, "", "", 1), Some(leader)))));
            }
            Step::Ask(Question::ClientIds) => {
                ids += 1;
                call.on_client_ids(&mut core, now, Ok(vec![ids]));
            }
            Step::Send(send) => {
                now = now + Duration::from_micros(300);
                let attempt = model.deliver(&send, &mut dice);
                call.on_attempt(&mut core, now, attempt);
            }
            Step::Regroup => panic!("one key cannot be regrouped"),
        }
    };
    for body in std::mem::take(&mut model.late) {
        model.apply(&body);
    }
    (outcome, model.applied)
}

#[test]
fn the_outcome_tells_the_truth_about_every_write() {
    let mut seen = [0u32; 3];
    for seed in 0..4_000 {
        for mode in [WriteMode::ExactlyOnce, WriteMode::Plain] {
            let (outcome, applied) = run(seed, mode);
            match outcome {
                Ok(_) => assert_eq!(applied, 1, "seed {seed} {mode:?}: acknowledged"),
                Err(Error::Undetermined(_)) => assert!(applied <= 1, "seed {seed} {mode:?}"),
                Err(ref error) => assert_eq!(applied, 0, "seed {seed} {mode:?}: {error}"),
            }
            seen[match (mode, outcome.is_ok()) {
                (WriteMode::ExactlyOnce, true) => 0,
                (WriteMode::Plain, true) => 1,
                _ => 2,
            }] += 1;
        }
    }
    let [exactly_once, plain, failed] = seen;
    assert!(exactly_once > 3 * plain / 2, "sessions are worth it: {exactly_once} against {plain}");
    assert!(plain > 500 && failed > 500, "the model has lost its teeth: {seen:?}");
}

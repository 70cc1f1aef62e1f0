//! Calls against hand-made answers, and against a model of regions that fail in every way the wire allows: answers lost before
//! or after the write took effect, requests that arrive late, leaders that move, sessions that are forgotten.

use bytes::Bytes;
use proto::errorpb;

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
    core.sessions.add_client_ids(100..200);
    core
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
    core.sessions.put_back(Session { region: RegionId::from(1), client_id: 7, next_sequence: 4 });
    let mut call = Call::new(put(), &core.settings, now);
    next_send(&mut call, &mut core, &mut now);
    call.on_attempt(&mut core, now, Attempt::SessionExpired);
    let open = next_send(&mut call, &mut core, &mut now);
    assert!(matches!(open.body, Body::OpenSession { client_id: 100 }));
    call.on_attempt(&mut core, now, Attempt::Ok(Reply::Written));
    next_send(&mut call, &mut core, &mut now);
    call.on_attempt(&mut core, now, lost(true));
    next_send(&mut call, &mut core, &mut now);
    call.on_attempt(&mut core, now, Attempt::SessionExpired);
    assert!(matches!(call.poll(&mut core, now), Step::Done(Err(Error::Undetermined(_)))));
}

#[test]
fn a_lost_opening_costs_its_id() {
    let mut core = core(WriteMode::ExactlyOnce);
    let mut now = Instant(0);
    let mut call = Call::new(put(), &core.settings, now);
    let opened = |send: Send| match send.body {
        Body::OpenSession { client_id } => client_id,
        other => panic!("expected an opening, got {other:?}"),
    };
    assert_eq!(opened(next_send(&mut call, &mut core, &mut now)), 100);
    call.on_attempt(&mut core, now, not_leader(None));
    assert_eq!(opened(next_send(&mut call, &mut core, &mut now)), 100, "certainly not opened");
    call.on_attempt(&mut core, now, lost(true));
    assert_eq!(opened(next_send(&mut call, &mut core, &mut now)), 101);
}

#[test]
fn a_split_regroups_a_write_and_keeps_its_session() {
    let mut core = core(WriteMode::ExactlyOnce);
    let now = Instant(0);
    let key = |key: &'static str| Mutation::Delete { key: key.into() };
    let session = Session { region: RegionId::from(1), client_id: 7, next_sequence: 4 };
    core.sessions.put_back(session.clone());
    let both = Arc::new(Request::Write(vec![key("a"), key("x")]));
    let mut call = Call::new(both, &core.settings, now);
    sent(call.poll(&mut core, now));
    let current_regions = vec![region(9, "", "m", 2), region(1, "m", "", 2)];
    let epoch = errorpb::EpochNotMatch { current_regions };
    let error = errorpb::Error { epoch_not_match: Some(epoch), ..Default::default() };
    call.on_attempt(&mut core, now, Attempt::RegionError(Box::new(error)));
    assert_eq!(call.poll(&mut core, now), Step::Regroup);
    assert_eq!(core.sessions.take(RegionId::from(1)), Some(session));
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

    core.sessions.put_back(Session { region: RegionId::from(1), client_id: 7, next_sequence: 4 });
    let mut undetermined = Call::new(put(), &core.settings, Instant(0));
    sent(undetermined.poll(&mut core, Instant(0)));
    undetermined.on_attempt(&mut core, Instant(0), lost(true));
    assert!(matches!(undetermined.poll(&mut core, end), Step::Done(Err(Error::Undetermined(_)))));
    assert_eq!(core.sessions.take(RegionId::from(1)), None, "its sequence is still in question");
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
    let mut now = Instant(0);
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
            Step::Ask(Question::ClientIds) => call.on_client_ids(&mut core, now, Ok(200..201)),
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

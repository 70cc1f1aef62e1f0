//! The checkers on planted violations, against each other and against brute force.

use super::append::{self, Append};
use super::register::RegisterModel;
use super::{ClientId, Moment, Operation, Register, Verdict, brute, register, wgl, zone};
use rand_chacha::ChaCha8Rng;
use rand_core::{RngCore, SeedableRng};

const BUDGET_STEPS: u64 = 1_000_000;

fn op<A>(client: u64, invoked: u64, responded: u64, action: A) -> Operation<A> {
    Operation {
        client: ClientId(client),
        invoked: Moment(invoked),
        responded: Moment(responded),
        action,
    }
}

const NEVER: u64 = u64::MAX;

/// Both register checkers must say the same, and brute force too when the history is short.
fn judge(history: &[Operation<Register>]) -> bool {
    let searched = wgl::check(&RegisterModel, history, BUDGET_STEPS);
    assert_ne!(searched, Verdict::Unknown);
    assert_eq!(searched.is_ok(), register::check(history, BUDGET_STEPS).is_ok(), "{history:#?}");
    if history.iter().all(|op| op.action != Delete) {
        assert_eq!(searched.is_ok(), zone::check(history).is_ok(), "{history:#?}");
    }
    if history.len() <= 8 {
        let expected = brute::is_linearizable(&RegisterModel, history);
        assert_eq!(searched.is_ok(), expected, "{history:#?}");
    }
    searched.is_ok()
}

use Register::{Delete, Get, Put};

#[test]
fn sequential_history_is_legal() {
    assert!(judge(&[
        op(1, 1, 2, Get(None)),
        op(1, 3, 4, Put(1)),
        op(2, 5, 6, Get(Some(1))),
        op(1, 7, 8, Delete),
        op(2, 9, 10, Get(None)),
    ]));
}

#[test]
fn stale_read_is_caught() {
    let history = [op(1, 1, 2, Put(1)), op(1, 3, 4, Put(2)), op(2, 5, 6, Get(Some(1)))];
    assert!(!judge(&history));
    // Concurrent with the second put, the old value is still legal.
    assert!(judge(&[op(1, 1, 2, Put(1)), op(1, 3, 7, Put(2)), op(2, 5, 6, Get(Some(1)))]));
}

#[test]
fn lost_write_is_caught() {
    assert!(!judge(&[op(1, 1, 2, Put(1)), op(2, 3, 4, Get(None))]));
}

#[test]
fn reordered_reads_are_caught() {
    let history = [
        op(1, 1, 2, Put(1)),
        op(1, 3, 20, Put(2)),
        op(2, 5, 6, Get(Some(2))),
        op(3, 7, 8, Get(Some(1))),
    ];
    assert!(!judge(&history));
}

#[test]
fn read_from_the_future_is_caught() {
    assert!(!judge(&[op(2, 1, 2, Get(Some(1))), op(1, 3, 4, Put(1))]));
}

#[test]
fn invented_value_is_caught() {
    assert!(!judge(&[op(1, 1, 2, Put(1)), op(2, 3, 4, Get(Some(9)))]));
}

#[test]
fn write_inside_a_held_value_is_caught() {
    // 2 is written and answered between two reads of 1 that follow each other.
    let history = [
        op(1, 1, 2, Put(1)),
        op(2, 3, 4, Get(Some(1))),
        op(1, 5, 6, Put(2)),
        op(2, 7, 8, Get(Some(1))),
    ];
    assert!(!judge(&history));
}

#[test]
fn resurrected_delete_is_caught() {
    let history = [
        op(1, 1, 2, Put(1)),
        op(1, 3, 4, Delete),
        op(2, 5, 6, Get(None)),
        op(2, 7, 8, Get(Some(1))),
    ];
    assert!(!judge(&history));
}

#[test]
fn lost_delete_is_caught() {
    assert!(!judge(&[op(1, 1, 2, Put(1)), op(1, 3, 4, Delete), op(2, 5, 6, Get(Some(1)))]));
}

#[test]
fn unknown_write_may_appear_or_not() {
    assert!(judge(&[op(1, 1, NEVER, Put(1)), op(2, 3, 4, Get(None)), op(2, 5, 6, Get(Some(1)))]));
    assert!(judge(&[op(1, 1, NEVER, Put(1)), op(2, 3, 4, Get(None))]));
    // Having appeared it may not vanish.
    let history = [op(1, 1, NEVER, Put(1)), op(2, 3, 4, Get(Some(1))), op(2, 5, 6, Get(None))];
    assert!(!judge(&history));
}

#[test]
fn unknown_delete_takes_effect_once() {
    let reappeared = [
        op(1, 1, 2, Put(1)),
        op(1, 3, NEVER, Delete),
        op(2, 5, 6, Get(None)),
        op(2, 7, 8, Get(Some(1))),
    ];
    assert!(!judge(&reappeared));
    let late = [
        op(1, 1, 2, Put(1)),
        op(1, 3, NEVER, Delete),
        op(2, 5, 6, Get(Some(1))),
        op(2, 7, 8, Get(None)),
    ];
    assert!(judge(&late));
}

/// A history made by a legal run of a register with `clients` concurrent clients; some answers are lost.
fn legal_history(rng: &mut ChaCha8Rng, size: usize, deletes: bool) -> Vec<Operation<Register>> {
    let clients = 1 + u64::from(rng.next_u32() % 4);
    let mut state = None;
    let mut open: Vec<Option<Operation<Register>>> = vec![None; clients as usize];
    let mut history = Vec::new();
    let mut moment = 0;
    let mut value = 0;
    let mut started = 0;
    while started < size || open.iter().any(Option::is_some) {
        moment += 1;
        let client = (u64::from(rng.next_u32()) % clients) as usize;
        let Some(mut done) = open[client].take() else {
            if started < size {
                started += 1;
                value += 1;
                let action = match rng.next_u32() % 6 {
                    0 if deletes => Delete,
                    0..=2 => Put(value),
                    _ => Get(None),
                };
                open[client] = Some(op(client as u64, moment, 0, action));
            }
            continue;
        };
        // Each operation takes effect at its response, which is one of the legal instants.
        let lost = rng.next_u32().is_multiple_of(10) && !matches!(done.action, Get(_));
        let happens = !lost || rng.next_u32().is_multiple_of(2);
        match &mut done.action {
            Get(seen) => *seen = state,
            Put(value) if happens => state = Some(*value),
            Delete if happens => state = None,
            Put(_) | Delete => {}
        }
        done.responded = if lost { Moment::NEVER } else { Moment(moment) };
        history.push(done);
    }
    history
}

/// Breaks the answer of one read, perhaps: the result may still be legal.
fn disturb(rng: &mut ChaCha8Rng, history: &mut [Operation<Register>]) {
    let values: Vec<Option<u64>> = history
        .iter()
        .filter_map(|op| if let Put(value) = op.action { Some(Some(value)) } else { None })
        .chain([None])
        .collect();
    let reads: Vec<usize> =
        (0..history.len()).filter(|place| matches!(history[*place].action, Get(_))).collect();
    if !reads.is_empty() {
        let read = reads[rng.next_u32() as usize % reads.len()];
        history[read].action = Get(values[rng.next_u32() as usize % values.len()]);
    }
}

#[test]
fn checkers_agree_with_brute_force_on_small_histories() {
    let mut illegal = 0;
    for seed in 0..6000 {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let size = 1 + (rng.next_u32() % 7) as usize;
        let mut history = legal_history(&mut rng, size, seed % 2 == 0);
        assert!(judge(&history), "a legal history was refused: {history:#?}");
        disturb(&mut rng, &mut history);
        illegal += u32::from(!judge(&history));
    }
    assert!(illegal > 500, "only {illegal} disturbed histories were illegal: a weak test");
}

#[test]
fn zone_and_search_agree_on_larger_histories() {
    let mut illegal = 0;
    for seed in 0..300 {
        let mut rng = ChaCha8Rng::seed_from_u64(1_000_000 + seed);
        let mut history = legal_history(&mut rng, 120, seed % 3 == 0);
        assert!(judge(&history));
        disturb(&mut rng, &mut history);
        illegal += u32::from(!judge(&history));
    }
    assert!(illegal > 100, "only {illegal} disturbed histories were illegal: a weak test");
}

#[test]
fn search_gives_up_within_its_budget() {
    let history: Vec<_> = (0..24)
        .map(|n| op(n, n + 1, 1000 + n, Put(n)))
        .chain([op(99, 2000, 2001, Get(None))])
        .collect();
    assert_eq!(wgl::check(&RegisterModel, &history, 1000), Verdict::Unknown);
}

#[test]
fn zone_check_is_fast_enough_for_long_histories() {
    let mut rng = ChaCha8Rng::seed_from_u64(7);
    let history = legal_history(&mut rng, 100_000, false);
    assert!(zone::check(&history).is_ok());
}

use Append::Add;

fn seen(tokens: &[u64]) -> Append {
    Append::Get(tokens.to_vec())
}

fn judge_append(history: &[Operation<Append>], last: &[u64]) -> bool {
    let verdict = append::check(history, last, BUDGET_STEPS);
    assert_ne!(verdict, Verdict::Unknown);
    verdict.is_ok()
}

#[test]
fn legal_appends_pass() {
    let history = [
        op(1, 1, 2, Add(1)),
        op(2, 3, 6, Add(2)),
        op(1, 4, 5, Add(3)),
        op(3, 7, 8, seen(&[1, 3, 2])),
        op(2, 9, NEVER, Add(4)),
        op(1, 10, NEVER, Add(5)),
    ];
    assert!(judge_append(&history, &[1, 3, 2, 5]));
    assert!(judge_append(&history, &[1, 3, 2]));
}

#[test]
fn duplicated_append_is_caught() {
    let history = [op(1, 1, 2, Add(1)), op(1, 3, 4, Add(2))];
    assert!(!judge_append(&history, &[1, 2, 1]));
}

#[test]
fn lost_append_is_caught() {
    assert!(!judge_append(&[op(1, 1, 2, Add(1)), op(1, 3, 4, Add(2))], &[2]));
}

#[test]
fn appends_of_one_client_out_of_order_are_caught() {
    assert!(!judge_append(&[op(1, 1, NEVER, Add(1)), op(1, 3, 4, Add(2))], &[2, 1]));
}

#[test]
fn append_out_of_real_time_order_is_caught() {
    assert!(!judge_append(&[op(1, 1, 2, Add(1)), op(2, 3, 4, Add(2))], &[2, 1]));
}

#[test]
fn read_that_misses_an_acknowledged_append_is_caught() {
    let history = [op(1, 1, 2, Add(1)), op(1, 3, 4, Add(2)), op(2, 5, 6, seen(&[1]))];
    assert!(!judge_append(&history, &[1, 2]));
}

#[test]
fn read_that_diverges_from_the_final_value_is_caught() {
    let history = [op(1, 1, 9, Add(1)), op(2, 2, 8, Add(2)), op(3, 3, 7, seen(&[2]))];
    assert!(!judge_append(&history, &[1, 2]));
}

#[test]
fn token_nobody_sent_is_caught() {
    assert!(!judge_append(&[op(1, 1, 2, Add(1))], &[1, 7]));
}

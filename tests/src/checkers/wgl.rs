//! The search for a linearization, for any sequential model: Wing & Gong's algorithm with Lowe's cache.
//!
//! At each step an operation may come next if no other pending operation responded before it was invoked. The search
//! goes depth first and remembers every pair (set of operations placed, state reached), so that orders which lead to
//! the same place are tried once. Unknown operations respond at [`Moment::NEVER`]: they hold nobody back and may stay
//! unplaced at the end.
//!
//! The worst case is exponential in the number of operations that overlap, hence the budget: when the steps run out the
//! verdict is [`Verdict::Unknown`].

use super::history::{Moment, Operation};
use super::{Verdict, Violation};
use std::collections::BTreeSet;

/// A sequential object: what one operation does when it runs alone.
pub trait Model {
    /// The object's value. Two histories that lead to equal states are interchangeable from there on.
    type State: Clone + Ord;
    /// What was asked and what was seen.
    type Action;

    /// The state before the first operation.
    fn initial(&self) -> Self::State;

    /// The state after `action`, or `None` when what it saw does not fit `state`.
    fn step(&self, state: &Self::State, action: &Self::Action) -> Option<Self::State>;
}

/// The set of placed operations. Early operations are soon all placed, so only the words after the full prefix are
/// kept in cache keys.
#[derive(Clone, Default)]
struct Placed {
    words: Vec<u64>,
}

/// The form of [`Placed`] in the cache: how many full words lead, and the words after them.
type PlacedKey = (usize, Vec<u64>);

impl Placed {
    fn new(size: usize) -> Placed {
        Placed { words: vec![0; size.div_ceil(64)] }
    }

    fn insert(&mut self, place: usize) {
        self.words[place / 64] |= 1 << (place % 64);
    }

    fn remove(&mut self, place: usize) {
        self.words[place / 64] &= !(1 << (place % 64));
    }

    fn contains(&self, place: usize) -> bool {
        self.words[place / 64] & (1 << (place % 64)) != 0
    }

    /// The set in its shortest form: how many full words lead, and the words after them up to the last that is not 0.
    fn key(&self) -> PlacedKey {
        let full = self.words.iter().take_while(|word| **word == u64::MAX).count();
        let used = self.words.iter().rposition(|word| *word != 0).map_or(full, |last| last + 1);
        (full, self.words[full..used.max(full)].to_vec())
    }
}

/// One placed operation and the state before it, to undo the step.
struct Step<S> {
    place: usize,
    before: S,
}

/// Searches for an order of `history` that `model` accepts, within `budget_steps` tried placements.
pub fn check<M: Model>(model: &M, history: &[Operation<M::Action>], budget_steps: u64) -> Verdict {
    let mut order: Vec<usize> = (0..history.len()).collect();
    order.sort_by_key(|place| history[*place].invoked);
    let mut search = Search {
        model,
        history,
        order,
        placed: Placed::new(history.len()),
        seen: BTreeSet::new(),
        state: model.initial(),
        known_left: history.iter().filter(|op| !op.is_unknown()).count(),
        first_open: 0,
        deepest: (0, 0),
    };
    search.run(budget_steps)
}

struct Search<'a, M: Model> {
    model: &'a M,
    history: &'a [Operation<M::Action>],
    /// Positions in `history` by invocation.
    order: Vec<usize>,
    /// By rank in `order`.
    placed: Placed,
    seen: BTreeSet<(PlacedKey, M::State)>,
    state: M::State,
    known_left: usize,
    /// No rank below this one is unplaced.
    first_open: usize,
    /// The most operations placed so far, and the rank that could not follow.
    deepest: (usize, usize),
}

impl<M: Model> Search<'_, M> {
    fn run(&mut self, budget_steps: u64) -> Verdict {
        let mut stack: Vec<Step<M::State>> = Vec::new();
        let mut next_rank = 0;
        let mut steps = 0;
        while self.known_left > 0 {
            steps += 1;
            if steps > budget_steps {
                return Verdict::Unknown;
            }
            match self.advance(next_rank) {
                Some(step) => {
                    stack.push(step);
                    next_rank = self.first_open;
                }
                None => {
                    if stack.len() >= self.deepest.0 {
                        self.deepest = (stack.len(), self.first_open);
                    }
                    let Some(step) = stack.pop() else { return self.verdict_illegal() };
                    next_rank = step.place + 1;
                    self.undo(step);
                }
            }
        }
        Verdict::Ok
    }

    /// Places the first operation from `rank` on that may come next and leads somewhere new.
    fn advance(&mut self, rank: usize) -> Option<Step<M::State>> {
        let horizon = self.horizon();
        for rank in rank..self.order.len() {
            let op = &self.history[self.order[rank]];
            if op.invoked > horizon {
                return None;
            }
            if self.placed.contains(rank) {
                continue;
            }
            let Some(after) = self.model.step(&self.state, &op.action) else { continue };
            self.placed.insert(rank);
            if !self.seen.insert((self.placed.key(), after.clone())) {
                self.placed.remove(rank);
                continue;
            }
            let before = std::mem::replace(&mut self.state, after);
            self.known_left -= usize::from(!op.is_unknown());
            while self.first_open < self.order.len() && self.placed.contains(self.first_open) {
                self.first_open += 1;
            }
            return Some(Step { place: rank, before });
        }
        None
    }

    fn undo(&mut self, step: Step<M::State>) {
        self.placed.remove(step.place);
        self.state = step.before;
        self.known_left += usize::from(!self.history[self.order[step.place]].is_unknown());
        self.first_open = self.first_open.min(step.place);
    }

    /// The earliest response among unplaced operations: whatever was invoked later must wait.
    fn horizon(&self) -> Moment {
        let mut horizon = Moment::NEVER;
        for rank in self.first_open..self.order.len() {
            let op = &self.history[self.order[rank]];
            if op.invoked > horizon {
                break;
            }
            if !self.placed.contains(rank) {
                horizon = horizon.min(op.responded);
            }
        }
        horizon
    }

    fn verdict_illegal(&self) -> Verdict {
        let (placed, rank) = self.deepest;
        let stuck = self.order.get(rank).copied().unwrap_or_default();
        let what = format!(
            "no order explains the history: after at most {placed} of {} operations, the one \
             invoked at {} cannot be placed",
            self.history.len(),
            self.history.get(stuck).map_or(Moment::START, |op| op.invoked),
        );
        Verdict::Illegal(Violation::new(what, vec![stuck]))
    }
}

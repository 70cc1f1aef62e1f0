//! The oracle of the checkers: tries every subset of unknown operations in every order. For seven operations or so.

use super::history::Operation;
use super::wgl::Model;

/// True when some order of `history` respects real time and `model`. Exponential; at most 12 operations.
pub fn is_linearizable<M: Model>(model: &M, history: &[Operation<M::Action>]) -> bool {
    assert!(history.len() <= 12, "{} operations are too many for brute force", history.len());
    let mut placed = vec![false; history.len()];
    place_next(model, history, &mut placed, &model.initial())
}

fn place_next<M: Model>(
    model: &M,
    history: &[Operation<M::Action>],
    placed: &mut [bool],
    state: &M::State,
) -> bool {
    if history.iter().zip(placed.iter()).all(|(op, done)| *done || op.is_unknown()) {
        return true;
    }
    for place in 0..history.len() {
        let may_come_next = !placed[place]
            && history
                .iter()
                .zip(placed.iter())
                .all(|(other, done)| *done || other.responded >= history[place].invoked);
        if !may_come_next {
            continue;
        }
        if let Some(after) = model.step(state, &history[place].action) {
            placed[place] = true;
            if place_next(model, history, placed, &after) {
                return true;
            }
            placed[place] = false;
        }
    }
    false
}

//! The zone check: linearizability of a register whose writes are unique, in `O(n log n)`.
//!
//! Gibbons & Korach, *Testing Shared Memories* (SIAM J. Computing 26, 1997), §4: when every read names its write, group
//! each write with its readers. The *zone* of a group spans from the first response in it to the last invocation in it.
//! When the first response comes before the last invocation the zone is *forward*: the value must have been held during
//! all of it. Otherwise it is *backward*: the whole group fits at one instant inside. The history is linearizable iff
//!
//! 1. every read follows its write (does not respond before the write is invoked),
//! 2. no two forward zones overlap,
//! 3. no backward zone lies inside a forward zone.
//!
//! The empty initial value is a write that responded before everything. Unknown writes that nobody read are left out:
//! they can always be placed after everything else.

use super::history::{Moment, Operation};
use super::{Register, Verdict, Violation};
use std::collections::BTreeMap;

/// One write (absent for the initial value), its readers, and its zone.
struct Group {
    value: Option<u64>,
    first_response: Moment,
    first_response_of: Option<usize>,
    last_invocation: Moment,
    last_invocation_of: Option<usize>,
}

impl Group {
    fn is_forward(&self) -> bool {
        self.first_response < self.last_invocation
    }

    fn low(&self) -> Moment {
        self.first_response.min(self.last_invocation)
    }

    fn high(&self) -> Moment {
        self.first_response.max(self.last_invocation)
    }

    fn operations(&self) -> Vec<usize> {
        self.first_response_of.into_iter().chain(self.last_invocation_of).collect()
    }

    fn describe(&self) -> String {
        match self.value {
            Some(value) => format!("value {value}"),
            None => "the initial absence".to_owned(),
        }
    }
}

/// Judges the history of one key that began empty and saw puts and gets.
///
/// # Panics
/// On a delete: absence does not name the delete that caused it. [`super::register::check`] dispatches.
pub fn check(history: &[Operation<Register>]) -> Verdict {
    match groups(history) {
        Ok(groups) => match overlap(&groups) {
            Some(violation) => Verdict::Illegal(violation),
            None => Verdict::Ok,
        },
        Err(violation) => Verdict::Illegal(violation),
    }
}

fn groups(history: &[Operation<Register>]) -> Result<Vec<Group>, Violation> {
    let mut groups = BTreeMap::<Option<u64>, (usize, Group)>::new();
    let initial = Group {
        value: None,
        first_response: Moment::START,
        first_response_of: None,
        last_invocation: Moment::START,
        last_invocation_of: None,
    };
    groups.insert(None, (usize::MAX, initial));
    for (place, op) in history.iter().enumerate() {
        let Register::Put(value) = op.action else { continue };
        let group = Group {
            value: Some(value),
            first_response: op.responded,
            first_response_of: Some(place),
            last_invocation: op.invoked,
            last_invocation_of: Some(place),
        };
        if let Some((other, _)) = groups.insert(Some(value), (place, group)) {
            let what = format!("value {value} was put twice: values must be unique");
            return Err(Violation::new(what, vec![other, place]));
        }
    }
    for (place, op) in history.iter().enumerate() {
        let seen = match op.action {
            Register::Get(seen) => seen,
            Register::Put(_) => continue,
            Register::Delete => panic!("the zone check cannot judge deletes"),
        };
        let Some((writer, group)) = groups.get_mut(&seen) else {
            let what = format!("a read saw {seen:?}, which nobody wrote");
            return Err(Violation::new(what, vec![place]));
        };
        if let Some(write) = history.get(*writer)
            && op.responded < write.invoked
        {
            let what = format!("{} was read before it was written", group.describe());
            return Err(Violation::new(what, vec![place, *writer]));
        }
        if op.responded < group.first_response {
            (group.first_response, group.first_response_of) = (op.responded, Some(place));
        }
        if op.invoked > group.last_invocation {
            (group.last_invocation, group.last_invocation_of) = (op.invoked, Some(place));
        }
    }
    let known = |group: &Group| group.first_response != Moment::NEVER;
    Ok(groups.into_values().map(|(_, group)| group).filter(known).collect())
}

/// The first pair of zones that cannot both hold.
fn overlap(groups: &[Group]) -> Option<Violation> {
    let (mut forward, mut backward): (Vec<&Group>, Vec<&Group>) =
        groups.iter().partition(|group| group.is_forward());
    forward.sort_by_key(|group| group.low());
    backward.sort_by_key(|group| group.low());
    for pair in forward.windows(2) {
        let [earlier, later] = pair else { continue };
        if later.low() < earlier.high() {
            let what = format!(
                "{} was held until {} at least, but {} was held from {} at the latest",
                earlier.describe(),
                earlier.high(),
                later.describe(),
                later.low(),
            );
            return Some(Violation::new(what, [earlier.operations(), later.operations()].concat()));
        }
    }
    for inner in backward {
        // The forward zones are disjoint, so only the last that starts before `inner` can contain it.
        let after = forward.partition_point(|outer| outer.low() <= inner.low());
        let Some(outer) = after.checked_sub(1).and_then(|place| forward.get(place)) else {
            continue;
        };
        if inner.high() <= outer.high() {
            let what = format!(
                "{} was written and gone within [{}, {}], while {} was held from {} to {}",
                inner.describe(),
                inner.low(),
                inner.high(),
                outer.describe(),
                outer.low(),
                outer.high(),
            );
            return Some(Violation::new(what, [inner.operations(), outer.operations()].concat()));
        }
    }
    None
}

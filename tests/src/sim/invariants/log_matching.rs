//! I2, log matching (Raft thesis fig. 3.2, §3.5): two logs that hold an entry of the same index and term hold the same entry
//! there, and are the same in everything before it.

use super::Broken;

/// One position of a log: index, term, digest of the content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// Index.
    pub index: u64,
    /// Term.
    pub term: u64,
    /// Digest of kind and data.
    pub content: u64,
}

/// Compares two logs of a region, each consecutive and ascending; their first parts may be compacted away.
pub fn check(region: u64, left: &[Position], right: &[Position]) -> Result<(), Broken> {
    let (Some(first), Some(other)) = (left.first(), right.first()) else { return Ok(()) };
    let start = first.index.max(other.index);
    let common = |log: &'_ [Position]| {
        let skipped = log.partition_point(|position| position.index < start);
        log[skipped..].to_vec()
    };
    let pairs: Vec<_> = common(left).into_iter().zip(common(right)).collect();
    let Some(agreed) = pairs.iter().rposition(|(a, b)| a.term == b.term) else { return Ok(()) };
    match pairs[..=agreed].iter().find(|(a, b)| a != b) {
        None => Ok(()),
        Some((a, b)) => {
            let what = format!(
                "two logs of region {region} agree at a later index but differ here: {a:?} {b:?}"
            );
            Err(Broken::new("I2 log matching", what))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log(first: u64, terms: &[u64]) -> Vec<Position> {
        let position = |(n, term): (usize, &u64)| Position {
            index: first + n as u64,
            term: *term,
            content: *term,
        };
        terms.iter().enumerate().map(position).collect()
    }

    #[test]
    fn logs_may_differ_only_after_the_last_common_term() {
        assert_eq!(check(1, &log(1, &[1, 1, 2]), &log(1, &[1, 1, 3, 3])), Ok(()));
        assert_eq!(check(1, &log(3, &[2, 2]), &log(1, &[1, 1, 2])), Ok(()));
        assert!(check(1, &log(1, &[1, 2, 3]), &log(1, &[1, 1, 3])).is_err());
        let mut other = log(1, &[1, 2]);
        other[1].content = 9;
        assert!(check(1, &log(1, &[1, 2]), &other).is_err());
    }
}

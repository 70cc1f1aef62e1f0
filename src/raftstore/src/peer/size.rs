//! About how large a region is, and when somebody should look.
//!
//! Every peer adds up what is applied; the leader has the region read through (a *look*, [`crate::scan`]) when enough has
//! changed since the last one, and knows it exactly again. A look that finds too much yields cuts, and the request for
//! their ids is repeated until the region has changed: a request, or its answer, may be lost (M22).
//!
//! Growth is counted upwards: overwriting counts as writing. So the estimate errs towards looking too early.

use bytes::Bytes;
use proto::metapb;

use super::{Context, Peer, TurnBuilder};
use crate::apply::Growth;
use crate::config::Config;
use crate::msg::{SplitCheck, SplitChecked, SplitRequest};
use crate::scan::is_valid_cut;

/// A look is taken when this share of the largest region has changed.
const LOOK_SHARE: u64 = 8;

/// Looks that were ordered and not answered are ordered again after so many periods of `split_check_ticks`.
const LOOK_RETRY_PERIODS: u64 = 60;

/// The same for cuts that were asked for and not made.
const CUT_RETRY_PERIODS: u64 = 10;

/// An amount of data.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Amount {
    pub(crate) bytes: u64,
    pub(crate) keys: u64,
}

/// See the module header.
#[derive(Debug, Default)]
pub(crate) struct Size {
    /// As of the last look.
    measured: Option<Amount>,
    /// Since then.
    growth: Growth,
    /// A look under way: when it was ordered, and what had grown by then.
    looking: Option<(u64, Growth)>,
    /// Where the region is to be cut, until that has happened. Rare.
    cuts: Option<Box<Cuts>>,
    /// For the next turn.
    due: Option<Due>,
}

#[derive(Debug)]
struct Cuts {
    keys: Vec<Bytes>,
    asked_tick: u64,
}

#[derive(Clone, Copy, Debug)]
enum Due {
    Look { part_bytes: u64, part_keys: u64 },
    Ask,
}

impl Size {
    /// The size as far as it is known.
    pub(crate) fn approximate(&self) -> Amount {
        let Amount { bytes, keys } = self.measured.unwrap_or_default();
        let Growth { written_bytes, written_keys, deleted_keys, .. } = self.growth;
        let (bytes, keys) = (bytes + written_bytes, keys + written_keys);
        let deleted_bytes = deleted_keys.saturating_mul(bytes / keys.max(1));
        Amount {
            bytes: bytes.saturating_sub(deleted_bytes),
            keys: keys.saturating_sub(deleted_keys),
        }
    }

    /// Entries have been applied.
    pub(super) fn grow(&mut self, growth: Growth) {
        self.growth += growth;
    }

    /// What a snapshot or another change of the range makes of it: nothing is known.
    pub(crate) fn forget(&mut self) {
        *self = Size::default();
    }

    /// The region was cut into `parts`: until it is looked at, soon, it counts as an even share.
    pub(super) fn divide(&mut self, parts: u64) {
        let Amount { bytes, keys } = self.approximate();
        *self = Size {
            measured: Some(Amount { bytes: bytes / parts.max(1), keys: keys / parts.max(1) }),
            growth: Growth { deleted_ranges: 1, ..Growth::default() },
            ..Size::default()
        };
    }

    /// Whether something is under way that a sleeping peer would forget.
    pub(super) fn is_busy(&self, config: &Config) -> bool {
        self.due.is_some() || self.looking.is_some() || self.cuts.is_some() || self.is_old(config)
    }

    /// Whether so much has changed that nobody knows the size any more.
    fn is_old(&self, config: &Config) -> bool {
        let Growth { written_bytes, written_keys, deleted_keys, deleted_ranges } = self.growth;
        self.measured.is_none()
            || deleted_ranges > 0
            || written_bytes >= config.region_max_bytes / LOOK_SHARE
            || written_keys + deleted_keys >= config.region_max_keys / LOOK_SHARE
    }

    fn has_due(&self) -> bool {
        self.due.is_some()
    }

    fn look(&mut self, part_bytes: u64, part_keys: u64, tick: u64) {
        self.due = Some(Due::Look { part_bytes, part_keys });
        self.looking = Some((tick, self.growth));
    }

    fn learn(&mut self, measured: Amount) {
        self.measured = Some(measured);
        let (_, before) = self.looking.take().unwrap_or_default();
        self.growth -= before;
    }
}

impl Peer {
    /// Whether a turn has something to ask for.
    pub(super) fn size_is_due(&self) -> bool {
        self.size.has_due()
    }

    /// A period of `split_check_ticks` has passed for the leader.
    pub(super) fn tick_size(&mut self, context: &Context<'_>) {
        let (config, tick) = (context.config, context.tick);
        let since = |then: u64| (tick - then) / u64::from(config.split_check_ticks);
        if let Some(cuts) = &self.size.cuts {
            if since(cuts.asked_tick) >= CUT_RETRY_PERIODS {
                self.ask_for_cuts(tick);
            }
            return;
        }
        let looking = self.size.looking.is_some_and(|(then, _)| since(then) < LOOK_RETRY_PERIODS);
        if self.size.is_old(config) && !looking {
            self.size.look(config.region_part_bytes, config.region_part_keys, tick);
        }
    }

    /// Orders a look that halves the region, whatever its size.
    pub(crate) fn look_to_halve(&mut self, context: &Context<'_>) {
        self.size.look(0, 0, context.tick);
    }

    /// A look has been taken.
    pub(crate) fn on_split_checked(&mut self, checked: SplitChecked, context: &Context<'_>) {
        let SplitChecked { check, bytes, keys, split_keys } = checked;
        let generation = |region: &metapb::Region| region.region_epoch.unwrap_or_default().version;
        if !self.is_leader() || generation(&check.region) != generation(&self.region) {
            // Of another range, or nobody's any more.
            self.size.looking = None;
            return;
        }
        self.size.learn(Amount { bytes, keys });
        let halve = check.part_bytes == 0 && check.part_keys == 0;
        let config = context.config;
        if halve || bytes > config.region_max_bytes || keys > config.region_max_keys {
            self.want_cuts(split_keys, context);
        }
    }

    /// Cuts are wanted: asks for ids until they are made.
    pub(crate) fn want_cuts(&mut self, mut keys: Vec<Bytes>, context: &Context<'_>) {
        keys.retain(|key| is_valid_cut(&self.region, key));
        if !keys.is_empty() && self.is_leader() {
            self.size.cuts = Some(Box::new(Cuts { keys, asked_tick: context.tick }));
            self.ask_for_cuts(context.tick);
        }
    }

    fn ask_for_cuts(&mut self, tick: u64) {
        if let Some(cuts) = &mut self.size.cuts {
            cuts.asked_tick = tick;
            self.size.due = Some(Due::Ask);
        }
    }

    /// The lead is lost, or the range has changed: what was wanted is void.
    pub(super) fn forget_cuts(&mut self) {
        self.size.cuts = None;
        self.size.due = None;
        self.size.looking = None;
    }

    /// Orders what is due.
    pub(super) fn turn_size(&mut self, out: &mut TurnBuilder) {
        let region = || self.region.clone();
        match self.size.due.take() {
            None => {}
            Some(Due::Look { part_bytes, part_keys }) => {
                let check = SplitCheck { region: region(), part_bytes, part_keys };
                out.turn.split_checks.push(check);
            }
            Some(Due::Ask) => {
                if let Some(cuts) = &self.size.cuts {
                    let keys = cuts.keys.clone();
                    out.turn.split_requests.push(SplitRequest { region: region(), keys });
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proto::ids::StoreId;

    use super::*;

    #[test]
    fn growth_adds_up_until_somebody_looks() {
        let config = Config::new(1, StoreId::from(1));
        let mut size = Size::default();
        assert!(size.is_old(&config), "never looked at");
        size.look(1, 1, 5);
        let write = Growth { written_bytes: 100, written_keys: 2, ..Growth::default() };
        size.grow(write);
        size.learn(Amount { bytes: 1000, keys: 20 });
        assert_eq!(size.approximate(), Amount { bytes: 1100, keys: 22 });
        assert!(!size.is_old(&config));
        size.grow(Growth { deleted_keys: 11, ..Growth::default() });
        assert_eq!(size.approximate(), Amount { bytes: 550, keys: 11 });
        size.grow(Growth { written_bytes: config.region_max_bytes / 8, ..Growth::default() });
        assert!(size.is_old(&config));
    }

    #[test]
    fn a_part_counts_as_a_share_and_is_looked_at() {
        let config = Config::new(1, StoreId::from(1));
        let mut size = Size::default();
        size.learn(Amount { bytes: 900, keys: 9 });
        size.divide(3);
        assert_eq!(size.approximate(), Amount { bytes: 300, keys: 3 });
        assert!(size.is_old(&config));
    }
}

//! Walks a key range region by region, forwards or in reverse, page by page.
//!
//! Each page is a linearizable read of its own; the scan as a whole is not a snapshot. A page ends at its region's
//! boundary. A store may cut an answer that would be too large, after at least one pair, or refuse it; so only an empty page
//! ends a region, and a refused page shrinks.

use bytes::Bytes;

use super::cache::RegionCache;
use super::request::{Anchor, Page, Pair, Wanted, successor};

/// Pairs asked for at first; the number adapts to the size of what comes back.
const PAGE_PAIRS_FIRST: u32 = 256;

/// Pairs asked for at most.
const PAGE_PAIRS_MAX: u32 = 4_096;

/// Bytes a page aims at.
const PAGE_BYTES_AIM: usize = 512 << 10;

/// Where a scan stands.
#[derive(Clone, Debug)]
pub struct Scan {
    start: Bytes,
    end: Bytes,
    remaining: Option<u64>,
    reverse: bool,
    keys_only: bool,
    page_pairs: u32,
    finished: bool,
}

/// What comes next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next {
    /// Ask for this page, then `on_page`.
    Page(Page),
    /// The regions there are not known.
    Missing(Missing),
    /// Nothing: the range or the limit is used up.
    Finished,
}

/// What a scan has to learn.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Missing {
    /// Upwards: these, as many as the scheduler tells at once.
    Ahead(Wanted),
    /// Downwards: the region just below this key; the scheduler knows no way to tell more at once.
    Below(Bytes),
}

impl Scan {
    /// A scan of [start, end), an empty end being +inf; at most `limit` pairs.
    pub fn new(start: Bytes, end: Bytes, limit: Option<u64>) -> Self {
        let finished = limit == Some(0) || (!end.is_empty() && start >= end);
        Scan {
            start,
            end,
            remaining: limit,
            reverse: false,
            keys_only: false,
            page_pairs: PAGE_PAIRS_FIRST,
            finished,
        }
    }

    /// From the highest key downwards.
    pub fn reverse(mut self, reverse: bool) -> Self {
        self.reverse = reverse;
        self
    }

    /// Without the values.
    pub fn keys_only(mut self, keys_only: bool) -> Self {
        self.keys_only = keys_only;
        self
    }

    /// The next page.
    pub fn next(&self, regions: &mut RegionCache) -> Next {
        if self.finished {
            return Next::Finished;
        }
        let anchor = match self.reverse {
            false => Anchor::At(self.start.clone()),
            true => Anchor::Before(self.end.clone()),
        };
        let Some(route) = anchor.locate(regions) else {
            return Next::Missing(match anchor {
                Anchor::At(from) => Missing::Ahead(Wanted { from, to: self.end.clone() }),
                Anchor::Before(end) => Missing::Below(end),
            });
        };
        let (region_start, region_end) = (&route.region.start_key, &route.region.end_key);
        let beyond = !region_end.is_empty() && (self.end.is_empty() || *region_end < self.end);
        let remaining = u32::try_from(self.remaining.unwrap_or(u64::MAX)).unwrap_or(u32::MAX);
        Next::Page(Page {
            start: self.start.clone().max(region_start.clone()),
            end: if beyond { region_end.clone() } else { self.end.clone() },
            limit: self.page_pairs.min(remaining),
            reverse: self.reverse,
            keys_only: self.keys_only,
        })
    }

    /// Moves on behind a page that was answered.
    pub fn on_page(&mut self, page: &Page, pairs: &[Pair]) {
        let count = pairs.len() as u64;
        let bytes: usize = pairs.iter().map(|(key, value)| key.len() + value.len()).sum();
        if let Some(remaining) = &mut self.remaining {
            *remaining = remaining.saturating_sub(count);
        }
        match pairs.last() {
            Some((last, _)) if self.reverse => self.end = last.clone(),
            Some((last, _)) => self.start = successor(last),
            None if self.reverse => {
                // The page began where the region or the range begins.
                self.finished = page.start == self.start;
                self.end = page.start.clone();
            }
            None => {
                self.finished = page.end == self.end;
                self.start = page.end.clone();
            }
        }
        let out_of_range = !self.end.is_empty() && self.start >= self.end;
        // A reverse scan that has come down to the empty key has nothing left below it.
        let at_bottom = self.reverse && self.end.is_empty() && !pairs.is_empty();
        self.finished |= self.remaining == Some(0) || out_of_range || at_bottom;
        if let Some(average) = bytes.checked_div(pairs.len()) {
            let fitting = u32::try_from(PAGE_BYTES_AIM / average.max(1)).unwrap_or(u32::MAX);
            let growth = self.page_pairs.saturating_mul(2);
            self.page_pairs = fitting.clamp(1, PAGE_PAIRS_MAX).min(growth);
        }
    }
}

impl Scan {
    /// The answer to `page` would be too large. False if the page was of one pair already.
    pub fn shrink(&mut self, page: &Page) -> bool {
        self.page_pairs = (page.limit / 2).max(1);
        page.limit > 1
    }
}

/// The range of all keys that begin with `prefix`: [prefix, end), an empty end being +inf.
pub fn prefix_range(prefix: Bytes) -> (Bytes, Bytes) {
    let end = match prefix.iter().rposition(|byte| *byte != 0xff) {
        Some(last) => {
            let mut end = prefix[..=last].to_vec();
            end[last] += 1;
            Bytes::from(end)
        }
        None => Bytes::new(),
    };
    (prefix, end)
}

#[cfg(test)]
#[path = "scan/tests.rs"]
mod tests;

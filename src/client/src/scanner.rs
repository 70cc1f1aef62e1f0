//! A walk over a range of keys.

use bytes::Bytes;

use crate::client::{Client, check_bound, unexpected};
use crate::core::scan::{Next, Scan};
use crate::core::{Page, Pair, Reply, Request};
use crate::error::{Error, Result};

/// What a scan walks over.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ScanOptions {
    /// The lowest key.
    pub start: Bytes,
    /// The first key beyond; empty is +inf.
    pub end: Bytes,
    /// At most so many pairs.
    pub limit: Option<u64>,
    /// From the highest key downwards.
    pub reverse: bool,
    /// Leave the values out (they come back empty).
    pub keys_only: bool,
}

impl ScanOptions {
    /// All keys of [start, end); an empty end is +inf.
    pub fn range(start: impl Into<Bytes>, end: impl Into<Bytes>) -> ScanOptions {
        ScanOptions { start: start.into(), end: end.into(), ..ScanOptions::default() }
    }

    /// All keys that begin with `prefix`.
    pub fn prefix(prefix: impl Into<Bytes>) -> ScanOptions {
        let (start, end) = crate::core::scan::prefix_range(prefix.into());
        ScanOptions { start, end, ..ScanOptions::default() }
    }
}

/// A scan under way. Uses the client's budget for each page, not for the whole.
#[derive(Debug)]
pub struct Scanner {
    client: Client,
    options: ScanOptions,
    scan: Scan,
}

impl Scanner {
    pub(crate) fn new(client: Client, options: ScanOptions) -> Scanner {
        let ScanOptions { start, end, limit, reverse, keys_only } = options.clone();
        let scan = Scan::new(start, end, limit).reverse(reverse).keys_only(keys_only);
        Scanner { client, options, scan }
    }

    /// The next pairs, in order; `None` at the end. Never an empty list.
    pub async fn next_page(&mut self) -> Result<Option<Vec<Pair>>> {
        check_bound(&self.options.start)?;
        check_bound(&self.options.end)?;
        let Client { driver, settings, .. } = self.client.clone();
        let deadline = driver.deadline(&settings);
        loop {
            let page = match driver.with_core(|core| self.scan.next(&mut core.regions)) {
                Next::Finished => return Ok(None),
                Next::Missing(missing) => {
                    driver.learn_for_scan(&missing, &settings, deadline).await?;
                    continue;
                }
                Next::Page(page) => page,
            };
            let pairs = match driver.one(Request::Scan(page.clone()), &settings, deadline).await {
                Ok(Some(Reply::Pairs(pairs))) => pairs,
                Ok(Some(other)) => return Err(unexpected(&other)),
                Ok(None) => continue,
                // The answer would be too large.
                Err(Error::Refused(_)) if self.scan.shrink(&page) => continue,
                Err(Error::Refused(_)) if !page.keys_only => {
                    // `None`: deleted in between, so the next page may fit.
                    let Some(pairs) = self.large_pair(&page).await? else { continue };
                    pairs
                }
                Err(error) => return Err(error),
            };
            self.scan.on_page(&page, &pairs);
            if !pairs.is_empty() {
                return Ok(Some(pairs));
            }
        }
    }

    /// Everything that is left, in memory.
    pub async fn collect(&mut self) -> Result<Vec<Pair>> {
        let mut all = Vec::new();
        while let Some(pairs) = self.next_page().await? {
            all.extend(pairs);
        }
        Ok(all)
    }

    /// One pair whose value does not fit into the answer of a scan: its key by a scan, its value by a get.
    async fn large_pair(&self, page: &Page) -> Result<Option<Vec<Pair>>> {
        let Client { driver, settings, .. } = &self.client;
        let deadline = driver.deadline(settings);
        let keys = Request::Scan(Page { keys_only: true, ..page.clone() });
        let Some(Reply::Pairs(pairs)) = driver.one(keys, settings, deadline).await? else {
            return Ok(None);
        };
        let Some((key, _)) = pairs.into_iter().next() else { return Ok(None) };
        let value = self.client.get(key.clone()).await?;
        Ok(value.map(|value| vec![(key, value)]))
    }
}

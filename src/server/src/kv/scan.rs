//! Ranges of one region: `RawScan`, `RawBatchScan`.
//!
//! Forward: `[start, end)` upwards. Reverse: from below `start` (exclusive) down to `end` (inclusive). An empty bound is
//! open. The client does not cut ranges at regions, so a scan is clipped here: it gives the region's part, and the client
//! goes on at the region's edge. A limit of 0 gives no row.
//!
//! The message of a reply cannot say that it is only a part of what was asked for. A unary scan that would exceed
//! [`REPLY_BYTES_MAX`] is therefore refused: its clients take missing rows for absent ones. On a batched stream it is cut
//! after the last row that fits (at least one): a client there asks on from the last row of a large page.

use bytes::{Bytes, BytesMut};
use proto::kvrpcpb::{
    KeyRange, KvPair, RawBatchScanRequest, RawBatchScanResponse, RawScanRequest, RawScanResponse,
};
use raftstore::RequestHeader;
use raftstore::keys::{RawCf, raw_user_key};

use super::keyspace::KeyForm;
use super::sink::Overflow;
use super::{Failure, ReadVerb, address};
use crate::backend::{Frozen, View};
use crate::limits::{REPLY_BYTES_MAX, Refusal, check_cf, check_range_count, check_scan_limit};

/// What every scan of a request has in common.
struct Shape {
    cf: RawCf,
    form: KeyForm,
    limit: u32,
    key_only: bool,
    reverse: bool,
}

/// One range, in stored keys: `[lower, upper)`.
struct Bounds {
    lower: Bytes,
    upper: Bytes,
}

impl Shape {
    /// The bounds a client means by `start` and `end`, in this shape's direction.
    fn bounds(&self, start: Bytes, end: Bytes) -> Result<Bounds, Refusal> {
        let start = self.form.bound("start_key", start)?;
        let end = self.form.bound("end_key", end)?;
        let (lower, upper) = if self.reverse { (end, start) } else { (start, end) };
        Ok(Bounds { lower, upper })
    }

    fn scan(&self, frozen: &Frozen<'_>, bounds: &Bounds, rows: &mut Rows) -> Result<(), Failure> {
        let mut iter = frozen.iter(self.cf, &bounds.lower, &bounds.upper);
        let mut left = self.limit;
        if left == 0 {
            return Ok(());
        }
        let mut valid = if self.reverse { iter.seek_to_last()? } else { iter.seek_to_first()? };
        while valid {
            let value = if self.key_only { &[] } else { iter.value() };
            match rows.push(self.form, raw_user_key(iter.key()), value)? {
                Pushed::Row => {
                    frozen.count(raw_user_key(iter.key()), value.len());
                    left -= 1;
                }
                Pushed::Hidden => {}
                Pushed::Full => break,
            }
            if left == 0 {
                break;
            }
            valid = if self.reverse { iter.prev()? } else { iter.next()? };
        }
        Ok(())
    }
}

/// The rows of one reply. Their bytes live in one buffer, which the pairs share: a row costs no allocation of its own.
struct Rows {
    verb: &'static str,
    overflow: Overflow,
    buffer: BytesMut,
    /// Where the key and the value of each row end.
    ends: Vec<(usize, usize)>,
}

/// What became of a row.
enum Pushed {
    /// It is in.
    Row,
    /// Its key is of a form this client cannot see.
    Hidden,
    /// It is left out, and so is everything after it.
    Full,
}

impl Rows {
    fn new(verb: &'static str, overflow: Overflow) -> Rows {
        Rows { verb, overflow, buffer: BytesMut::new(), ends: Vec::new() }
    }

    fn push(&mut self, form: KeyForm, key: &[u8], value: &[u8]) -> Result<Pushed, Refusal> {
        let decoded = match form {
            KeyForm::Plain => None,
            KeyForm::Encoded => match form.load(key) {
                Some(key) => Some(key),
                None => return Ok(Pushed::Hidden),
            },
        };
        let key = decoded.as_deref().unwrap_or(key);
        if self.buffer.len() + key.len() + value.len() > REPLY_BYTES_MAX {
            match self.overflow {
                Overflow::Refuse => return Err(Refusal::reply_too_large(self.verb)),
                Overflow::Cut if self.ends.is_empty() => {}
                Overflow::Cut => return Ok(Pushed::Full),
            }
        }
        self.buffer.extend_from_slice(key);
        let key_end = self.buffer.len();
        self.buffer.extend_from_slice(value);
        self.ends.push((key_end, self.buffer.len()));
        Ok(Pushed::Row)
    }

    fn into_pairs(self) -> Vec<KvPair> {
        let buffer = self.buffer.freeze();
        let mut start = 0;
        let pair = |(key_end, end)| {
            let (key, value) = (buffer.slice(start..key_end), buffer.slice(key_end..end));
            start = end;
            KvPair { error: None, key, value }
        };
        self.ends.into_iter().map(pair).collect()
    }
}

/// `RawScan`.
pub(crate) struct Scan {
    shape: Shape,
    bounds: Bounds,
}

impl ReadVerb for Scan {
    type Request = RawScanRequest;
    type Response = RawScanResponse;

    fn admit(request: RawScanRequest) -> Result<(RequestHeader, Scan), Refusal> {
        let RawScanRequest { context, start_key, limit, key_only, cf, reverse, end_key } = request;
        let (header, form) = address(context)?;
        check_scan_limit("limit", limit)?;
        let shape = Shape { cf: check_cf(&cf)?, form, limit, key_only, reverse };
        let bounds = shape.bounds(start_key, end_key)?;
        Ok((header, Scan { shape, bounds }))
    }

    fn run(&self, view: &View<'_>, overflow: Overflow) -> Result<RawScanResponse, Failure> {
        let mut rows = Rows::new("RawScan", overflow);
        self.shape.scan(&view.freeze(), &self.bounds, &mut rows)?;
        Ok(RawScanResponse { region_error: None, kvs: rows.into_pairs() })
    }
}

/// `RawBatchScan`: the limit counts for every range; rows come in the order of the ranges.
pub(crate) struct BatchScan {
    shape: Shape,
    ranges: Vec<Bounds>,
}

impl ReadVerb for BatchScan {
    type Request = RawBatchScanRequest;
    type Response = RawBatchScanResponse;

    fn admit(request: RawBatchScanRequest) -> Result<(RequestHeader, BatchScan), Refusal> {
        let RawBatchScanRequest { context, ranges, each_limit, key_only, cf, reverse } = request;
        let (header, form) = address(context)?;
        check_range_count("ranges", ranges.len())?;
        check_scan_limit("each_limit", each_limit)?;
        let shape = Shape { cf: check_cf(&cf)?, form, limit: each_limit, key_only, reverse };
        let mut bounds = Vec::with_capacity(ranges.len());
        for KeyRange { start_key, end_key } in ranges {
            bounds.push(shape.bounds(start_key, end_key)?);
        }
        Ok((header, BatchScan { shape, ranges: bounds }))
    }

    fn run(&self, view: &View<'_>, _: Overflow) -> Result<RawBatchScanResponse, Failure> {
        let frozen = view.freeze();
        let mut rows = Rows::new("RawBatchScan", Overflow::Refuse);
        for bounds in &self.ranges {
            self.shape.scan(&frozen, bounds, &mut rows)?;
        }
        Ok(RawBatchScanResponse { region_error: None, kvs: rows.into_pairs() })
    }
}

//! What clients do to a region: counted for the scheduler, and sampled to find a cut when it is too much.
//!
//! Writes are counted where they are queued and, in bytes, where they are applied; reads by the readers themselves, in the
//! delegate ([`crate::local_reader`]). A region that is busier than the threshold for [`BUSY_PERIODS`] in a row is cut where
//! the newest sampled keys are halved, if there is such a place: one hot key cannot be shared out.

use bytes::Bytes;

use super::{Context, Peer};
use crate::apply::Growth;
use crate::command::{Mutation, Request};
use crate::msg::Flow;
use crate::read_load::{KeySample, ReadLoad};
use crate::scan::cut_of_sample;
use crate::time::Instant;

/// Periods of `split_check_ticks` above the threshold before a busy region is cut.
const BUSY_PERIODS: u32 = 10;

/// One in so many writes is sampled.
const SAMPLE_EVERY: u64 = 16;

/// See the module header. Counted only while leading.
#[derive(Debug, Default)]
pub(super) struct Load {
    flow: Flow,
    flow_since: Instant,
    /// Requests since `period_since`.
    requests: u64,
    period_since: Instant,
    busy_periods: u32,
    /// Only of regions that are written or read.
    sample: Option<Box<KeySample>>,
}

impl Load {
    pub(super) fn written(&mut self, request: &Request) {
        self.requests += 1;
        if self.requests.is_multiple_of(SAMPLE_EVERY)
            && let Some(key) = first_key(request)
        {
            self.sample.get_or_insert_default().add(key.clone());
        }
    }

    pub(super) fn applied(&mut self, growth: &Growth) {
        self.flow.bytes_written += growth.written_bytes;
        self.flow.keys_written += growth.written_keys + growth.deleted_keys;
    }

    fn read(&mut self, load: ReadLoad) {
        self.requests += load.reads;
        self.flow.keys_read += load.keys;
        self.flow.bytes_read += load.bytes;
        if !load.sample.is_empty() {
            let sample = self.sample.get_or_insert_default();
            load.sample.into_iter().for_each(|key| sample.add(key));
        }
    }

    /// What was done since the last call.
    fn take_flow(&mut self, now: Instant) -> Flow {
        let interval_ms = now.since(self.flow_since).as_millis() as u64;
        self.flow_since = now;
        Flow { interval_ms, ..std::mem::take(&mut self.flow) }
    }

    /// Ends a period. Sampled keys if the region has been too busy for too long.
    fn end_period(&mut self, now: Instant, limit_per_second: u64) -> Option<Vec<Bytes>> {
        let ms = now.since(self.period_since).as_millis() as u64;
        let requests = std::mem::take(&mut self.requests);
        self.period_since = now;
        let busy = limit_per_second > 0
            && requests.saturating_mul(1000) > limit_per_second.saturating_mul(ms.max(1));
        if !busy {
            self.busy_periods = 0;
            // An idle region keeps nothing.
            if requests == 0 {
                self.sample = None;
            }
            return None;
        }
        self.busy_periods += 1;
        if self.busy_periods < BUSY_PERIODS {
            return None;
        }
        self.busy_periods = 0;
        self.sample.take().map(|sample| sample.into_keys())
    }
}

fn first_key(request: &Request) -> Option<&Bytes> {
    let Request::Mutate { mutations, .. } = request else { return None };
    mutations.first().map(|mutation| match mutation {
        Mutation::Put { key, .. } | Mutation::Delete { key, .. } | Mutation::Append { key, .. } => {
            key
        }
        Mutation::DeleteRange { start, .. } => start,
    })
}

impl Peer {
    /// Counting begins anew with a leadership.
    pub(super) fn restart_load(&mut self, now: Instant) {
        self.load = Load { flow_since: now, period_since: now, ..Load::default() };
    }

    /// Takes over what readers have counted.
    pub(super) fn collect_reads(&mut self) {
        if let Some(load) = self.delegate.as_ref().and_then(|delegate| delegate.take_load()) {
            self.load.read(load);
        }
    }

    /// What clients did since the last report.
    pub(super) fn take_flow(&mut self, now: Instant) -> Flow {
        self.collect_reads();
        self.load.take_flow(now)
    }

    /// A period of `split_check_ticks` has passed for the leader.
    pub(super) fn tick_load(&mut self, context: &Context<'_>) {
        self.collect_reads();
        let limit = context.config.split_requests_per_second;
        if let Some(sample) = self.load.end_period(context.now, limit)
            && let Some(cut) = cut_of_sample(sample)
        {
            self.want_cuts(vec![cut], context);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(key: String) -> Request {
        let mutation = Mutation::Put {
            cf: Default::default(),
            key: key.into(),
            value: Bytes::from_static(b"v"),
        };
        Request::Mutate { mutations: vec![mutation], session: None }
    }

    #[test]
    fn only_a_region_that_stays_busy_yields_its_sample() {
        let mut load = Load::default();
        let second = |load: &mut Load, number: u64, requests: u64| {
            (0..requests).for_each(|i| load.written(&put(format!("{:02}-key", i % 100))));
            load.end_period(Instant::from_ms(1000 * number), 1000)
        };
        for number in 1..10 {
            assert_eq!(second(&mut load, number, 2000), None);
        }
        assert_eq!(second(&mut load, 10, 900), None, "a pause");
        for number in 11..20 {
            assert_eq!(second(&mut load, number, 2000), None);
        }
        let sample = second(&mut load, 20, 2000).expect("busy for ten seconds");
        assert!(sample.len() >= 64);
        assert!(cut_of_sample(sample).is_some());
    }

    #[test]
    fn the_flow_is_what_came_since_the_last_report() {
        let mut load = Load::default();
        load.applied(&Growth { written_bytes: 10, written_keys: 1, ..Growth::default() });
        load.read(ReadLoad { reads: 1, keys: 3, bytes: 30, sample: Vec::new() });
        let flow = load.take_flow(Instant::from_ms(500));
        let expected = Flow {
            bytes_written: 10,
            keys_written: 1,
            bytes_read: 30,
            keys_read: 3,
            interval_ms: 500,
        };
        assert_eq!(flow, expected);
        assert_eq!(
            load.take_flow(Instant::from_ms(600)),
            Flow { interval_ms: 100, ..Flow::default() }
        );
    }
}

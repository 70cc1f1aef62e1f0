//! The writers of a load: each has a queue of records and sends them in batches, one batch at a time.

use bytes::{BufMut, Bytes, BytesMut};
use client::{Client, Pair};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::Source;
use super::bad_record;
use super::progress::Progress;
use super::records::RecordError;
use crate::context::note;
use crate::failure::Failure;

/// Bytes of one batch: what one request of one region carries in any case.
const BATCH_BYTES_MAX: usize = 512 << 10;

/// Records that wait for each writer.
const QUEUE_RECORDS: usize = 512;

/// How much goes on at once.
pub(super) struct Limits {
    /// Batches on their way.
    pub(super) writers: usize,
    /// Records of one batch.
    pub(super) records: usize,
}

/// The writers of one load. Dropped, they stop.
pub(super) struct Writers {
    queues: Vec<mpsc::Sender<Pair>>,
    tasks: JoinSet<Result<(), Failure>>,
    progress: Progress,
}

impl Writers {
    /// Starts them.
    pub(super) fn start(client: &Client, limits: &Limits, progress: &Progress) -> Writers {
        let mut tasks = JoinSet::new();
        let mut queues = Vec::with_capacity(limits.writers);
        for _ in 0..limits.writers {
            let (queue, records) = mpsc::channel(QUEUE_RECORDS);
            queues.push(queue);
            let writer = write_all(client.clone(), records, limits.records, progress.clone());
            tasks.spawn(writer);
        }
        Writers { queues, tasks, progress: progress.clone() }
    }

    /// Reads to the end, and waits until everything is acknowledged or something fails.
    pub(super) async fn feed(
        self,
        records: Source,
        prefix: Bytes,
        skip_bad: bool,
        path: String,
    ) -> Result<(), Failure> {
        let Writers { queues, mut tasks, progress } = self;
        let reading = tokio::task::spawn_blocking(move || {
            read_all(records, &queues, &prefix, |error| match error {
                RecordError::Bad { .. } if skip_bad => {
                    progress.skipped();
                    note(&format!("skipped: {path}: {error}"));
                    Ok(())
                }
                _ => Err(bad_record(&path, error)),
            })
        });
        // The reader stops by itself when a writer has gone, so waiting for the writers first is enough.
        while let Some(ended) = tasks.join_next().await {
            ended.unwrap_or_else(|error| Err(Failure::Input(error.to_string())))?;
        }
        reading.await.unwrap_or_else(|error| Err(Failure::Input(error.to_string())))
    }
}

fn read_all(
    records: Source,
    queues: &[mpsc::Sender<Pair>],
    prefix: &[u8],
    on_bad: impl Fn(&RecordError) -> Result<(), Failure>,
) -> Result<(), Failure> {
    for record in records {
        let (key, value) = match record {
            Ok(record) => record,
            Err(error) => {
                on_bad(&error)?;
                continue;
            }
        };
        let key = prefixed(prefix, key);
        let queue = &queues[hash(&key) as usize % queues.len()];
        if queue.blocking_send((key, value)).is_err() {
            // That writer has failed, and says why.
            return Ok(());
        }
    }
    Ok(())
}

fn prefixed(prefix: &[u8], key: Bytes) -> Bytes {
    if prefix.is_empty() {
        return key;
    }
    let mut whole = BytesMut::with_capacity(prefix.len() + key.len());
    whole.put_slice(prefix);
    whole.put_slice(&key);
    whole.freeze()
}

/// FNV-1a: which writer a key belongs to.
fn hash(key: &[u8]) -> u32 {
    key.iter().fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193))
}

async fn write_all(
    client: Client,
    mut records: mpsc::Receiver<Pair>,
    records_max: usize,
    progress: Progress,
) -> Result<(), Failure> {
    let mut waiting = Vec::with_capacity(records_max);
    let mut batch = Vec::new();
    loop {
        if waiting.is_empty() && records.recv_many(&mut waiting, records_max).await == 0 {
            return Ok(());
        }
        let mut bytes = 0;
        let fitting = waiting.iter().take_while(|(key, value)| {
            let fits = bytes == 0 || bytes + key.len() + value.len() <= BATCH_BYTES_MAX;
            bytes += if fits { key.len() + value.len() } else { 0 };
            fits
        });
        let count = fitting.count();
        batch.extend(waiting.drain(..count));
        client.batch_put(std::mem::take(&mut batch)).await?;
        progress.written(count as u64, bytes as u64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_always_has_the_same_writer_and_keys_spread() {
        let writers = |count: u32| -> Vec<u32> {
            let mut used: Vec<u32> =
                (0..200).map(|n| hash(format!("key{n}").as_bytes()) % count).collect();
            used.sort_unstable();
            used.dedup();
            used
        };
        assert_eq!(writers(16).len(), 16);
        assert_eq!(prefixed(b"p/", Bytes::from("k")), "p/k");
    }
}

//! The one seam between a decision and its durability.

use std::fmt::Debug;
use std::sync::Arc;

use engine::{Cf, Engine, KeyRange};

use crate::core::{Change, Record, RecordError};

/// Where changes become durable.
pub trait Journal: Send + Sync + Debug {
    /// Makes a change durable, as a whole or not at all, in the order of the calls. After an error
    /// nobody knows which it was: the caller must stop and read everything back.
    fn commit(&self, change: &Change) -> Result<(), JournalError>;

    /// Everything committed so far.
    fn load(&self) -> Result<Vec<Record>, JournalError>;
}

/// Why the journal cannot go on. Always final.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// The disk or the engine failed.
    #[error("scheduler state cannot be stored: {0}")]
    Engine(#[from] engine::Error),
    /// What is on the disk is not what a scheduler writes.
    #[error("scheduler state cannot be read: {0}")]
    Record(#[from] RecordError),
}

/// A journal of one process: a synced write to an engine.
#[derive(Debug)]
pub struct EngineJournal {
    engine: Arc<dyn Engine>,
}

impl EngineJournal {
    /// The column family that holds the scheduler's records, alone.
    const CF: Cf = Cf::Default;

    /// A journal over an engine of the scheduler's own.
    pub fn new(engine: Arc<dyn Engine>) -> Self {
        Self { engine }
    }
}

impl Journal for EngineJournal {
    fn commit(&self, change: &Change) -> Result<(), JournalError> {
        self.engine.write(&change.batch(Self::CF))?;
        self.engine.sync()?;
        Ok(())
    }

    fn load(&self) -> Result<Vec<Record>, JournalError> {
        let snapshot = self.engine.snapshot();
        let mut rows = snapshot.iter(Self::CF, KeyRange::all());
        let mut records = Vec::new();
        let mut valid = rows.seek_to_first()?;
        while valid {
            records.push(Record::decode(rows.key(), rows.value())?);
            valid = rows.next()?;
        }
        Ok(records)
    }
}

//! Where received snapshots are spooled: a directory, or memory with a model of a crash.
//!
//! A name is built from numbers alone, never from anything a peer sent as text, and a file is created only if none of its
//! name exists (`O_EXCL`), so nothing can be overwritten or reached outside the directory.

mod dir;
mod mem;

use std::fmt;
use std::io::{self, Read};
use std::str::FromStr;

use proto::ids::RegionId;
use raft::{LogIndex, Term};

pub use dir::DirFiles;
pub use mem::MemFiles;

const SUFFIX: &str = ".snapshot";

/// The name of a spool file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SnapshotFileId {
    /// Of which region.
    pub region: RegionId,
    /// The snapshot's term.
    pub term: Term,
    /// The snapshot's index.
    pub index: LogIndex,
    /// Tells tries to receive the same snapshot apart.
    pub number: u64,
}

impl fmt::Display for SnapshotFileId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let SnapshotFileId { region, term, index, number } = self;
        write!(f, "{region}_{term}_{index}_{number}{SUFFIX}")
    }
}

/// Text that is not the name of a spool file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not the name of a snapshot file")]
pub struct NotASnapshotFile(pub String);

impl FromStr for SnapshotFileId {
    type Err = NotASnapshotFile;

    fn from_str(name: &str) -> Result<SnapshotFileId, NotASnapshotFile> {
        let refuse = || NotASnapshotFile(name.chars().take(100).collect());
        let stem = name.strip_suffix(SUFFIX).ok_or_else(refuse)?;
        let numbers: Vec<u64> =
            stem.split('_').map(str::parse).collect::<Result<_, _>>().map_err(|_| refuse())?;
        let &[region, term, index, number] = numbers.as_slice() else { return Err(refuse()) };
        let id = SnapshotFileId {
            region: region.into(),
            term: Term(term),
            index: LogIndex(index),
            number,
        };
        // `007` and `+7` are numbers too, but not names we write.
        if id.to_string() == name { Ok(id) } else { Err(refuse()) }
    }
}

/// A place for spool files.
pub trait SnapshotFiles: Send + Sync + fmt::Debug {
    /// Creates an empty file under a name of its own.
    fn create(
        &self,
        region: RegionId,
        term: Term,
        index: LogIndex,
    ) -> io::Result<(SnapshotFileId, Box<dyn SpoolWriter>)>;

    /// Opens a file for reading.
    fn open(&self, id: SnapshotFileId) -> io::Result<Box<dyn Read + Send>>;

    /// Deletes a file; one that does not exist is fine.
    fn remove(&self, id: SnapshotFileId) -> io::Result<()>;

    /// The names of all files.
    fn list(&self) -> io::Result<Vec<SnapshotFileId>>;
}

/// A file being written. Dropped unfinished, it stays behind incomplete; whoever gives up removes it.
pub trait SpoolWriter: Send {
    /// Adds bytes.
    fn append(&mut self, bytes: &[u8]) -> io::Result<()>;

    /// Makes the file and its name durable.
    fn finish(self: Box<Self>) -> io::Result<()>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_four_numbers_and_nothing_else_is_a_name() {
        let id = SnapshotFileId {
            region: 2.into(),
            term: Term(6),
            index: LogIndex(u64::MAX),
            number: 0,
        };
        assert_eq!(id.to_string(), "2_6_18446744073709551615_0.snapshot");
        assert_eq!(id.to_string().parse(), Ok(id));
        let hostile = [
            "",
            "2_6_7.snapshot",
            "2_6_7_0",
            "../2_6_7_0.snapshot",
            "2_6_7_0.snapshot/..",
            "/2_6_7_0.snapshot",
            "02_6_7_0.snapshot",
            "+2_6_7_0.snapshot",
            "2_6_7_0_1.snapshot",
            "2_6_7_0\0.snapshot",
            "2_6_7_18446744073709551616.snapshot",
        ];
        for name in hostile {
            assert!(name.parse::<SnapshotFileId>().is_err(), "{name}");
        }
        assert!("9".repeat(4096).parse::<SnapshotFileId>().is_err());
    }
}

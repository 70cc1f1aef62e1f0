//! Spool files in memory, with a model of a crash.

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use proto::ids::RegionId;
use raft::{LogIndex, Term};

use super::{SnapshotFileId, SnapshotFiles, SpoolWriter};

/// Spool files in memory. A crash keeps finished files; of unfinished ones it leaves nothing, or a torn beginning.
#[derive(Clone, Debug, Default)]
pub struct MemFiles {
    state: Arc<Mutex<MemState>>,
}

#[derive(Debug, Default)]
struct MemState {
    files: BTreeMap<SnapshotFileId, MemFile>,
    fail_next: Option<io::ErrorKind>,
}

#[derive(Clone, Debug, Default)]
struct MemFile {
    content: Vec<u8>,
    durable: bool,
}

impl MemState {
    fn fault(&mut self) -> io::Result<()> {
        self.fail_next.take().map_or(Ok(()), |kind| Err(kind.into()))
    }
}

impl MemFiles {
    /// No files.
    pub fn new() -> MemFiles {
        MemFiles::default()
    }

    /// What a loss of power leaves: all that is durable and, if `torn`, the first half of everything else.
    pub fn crash(&self, torn: bool) -> MemFiles {
        let state = self.state.lock();
        let survive = |(id, file): (&SnapshotFileId, &MemFile)| {
            let kept = match (file.durable, torn) {
                (true, _) => file.content.len(),
                (false, true) => file.content.len() / 2,
                (false, false) => return None,
            };
            Some((*id, MemFile { content: file.content[..kept].to_vec(), durable: true }))
        };
        let files = state.files.iter().filter_map(survive).collect();
        MemFiles { state: Arc::new(Mutex::new(MemState { files, fail_next: None })) }
    }

    /// The next operation that can fail, does.
    pub fn fail_next(&self, kind: io::ErrorKind) {
        self.state.lock().fail_next = Some(kind);
    }

    /// Flips one bit of a file. Does nothing if there is no such byte.
    pub fn damage(&self, id: SnapshotFileId, offset: usize) {
        let mut state = self.state.lock();
        if let Some(byte) = state.files.get_mut(&id).and_then(|f| f.content.get_mut(offset)) {
            *byte ^= 1;
        }
    }

    /// Cuts a file to `length` bytes.
    pub fn truncate(&self, id: SnapshotFileId, length: usize) {
        if let Some(file) = self.state.lock().files.get_mut(&id) {
            file.content.truncate(length);
        }
    }

    /// The length of a file, if it exists.
    pub fn size_bytes(&self, id: SnapshotFileId) -> Option<usize> {
        self.state.lock().files.get(&id).map(|file| file.content.len())
    }
}

impl SnapshotFiles for MemFiles {
    fn create(
        &self,
        region: RegionId,
        term: Term,
        index: LogIndex,
    ) -> io::Result<(SnapshotFileId, Box<dyn SpoolWriter>)> {
        let mut state = self.state.lock();
        state.fault()?;
        let mut id = SnapshotFileId { region, term, index, number: 0 };
        while state.files.contains_key(&id) {
            id.number += 1;
        }
        state.files.insert(id, MemFile::default());
        Ok((id, Box::new(MemWriter { id, files: self.clone() })))
    }

    fn open(&self, id: SnapshotFileId) -> io::Result<Box<dyn Read + Send>> {
        let mut state = self.state.lock();
        state.fault()?;
        let file = state.files.get(&id).ok_or(io::ErrorKind::NotFound)?;
        Ok(Box::new(io::Cursor::new(Bytes::copy_from_slice(&file.content))))
    }

    fn remove(&self, id: SnapshotFileId) -> io::Result<()> {
        let mut state = self.state.lock();
        state.fault()?;
        state.files.remove(&id);
        Ok(())
    }

    fn list(&self) -> io::Result<Vec<SnapshotFileId>> {
        let mut state = self.state.lock();
        state.fault()?;
        Ok(state.files.keys().copied().collect())
    }
}

struct MemWriter {
    id: SnapshotFileId,
    files: MemFiles,
}

impl SpoolWriter for MemWriter {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut state = self.files.state.lock();
        state.fault()?;
        let file = state.files.get_mut(&self.id).ok_or(io::ErrorKind::NotFound)?;
        file.content.extend_from_slice(bytes);
        Ok(())
    }

    fn finish(self: Box<Self>) -> io::Result<()> {
        let mut state = self.files.state.lock();
        state.fault()?;
        state.files.get_mut(&self.id).ok_or(io::ErrorKind::NotFound)?.durable = true;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_crash_keeps_finished_files_and_tears_others() {
        let files = MemFiles::new();
        let write = |index| {
            let (id, mut writer) =
                files.create(2.into(), Term(5), LogIndex(index)).expect("create");
            writer.append(b"abcd").expect("append");
            (id, writer)
        };
        let (done, writer) = write(7);
        writer.finish().expect("finish");
        let (open, _writer) = write(8);
        let after = files.crash(false);
        assert_eq!((after.size_bytes(done), after.size_bytes(open)), (Some(4), None));
        assert_eq!(files.crash(true).size_bytes(open), Some(2));
    }

    #[test]
    fn tries_of_one_snapshot_get_names_of_their_own() {
        let files = MemFiles::new();
        let create = || files.create(2.into(), Term(5), LogIndex(7)).expect("create").0;
        let (first, second) = (create(), create());
        assert_eq!(files.list().expect("list"), [first, second]);
    }
}

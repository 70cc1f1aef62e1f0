//! Where received snapshots are spooled: a directory, or memory with a model of a crash.
//!
//! A name is built from numbers alone, never from anything a peer sent as text, and a file is created only if none of its
//! name exists (`O_EXCL`), so nothing can be overwritten or reached outside the directory.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use proto::ids::RegionId;
use raft::{LogIndex, Term};

/// How many files of one snapshot may exist: tries that a crash left behind.
const TRIES_MAX: u64 = 1000;
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

/// Spool files in a directory.
#[derive(Debug)]
pub struct DirFiles {
    directory: PathBuf,
}

impl DirFiles {
    /// Files in `directory`, which is created if it does not exist.
    pub fn open(directory: impl Into<PathBuf>) -> io::Result<DirFiles> {
        let directory = directory.into();
        fs::create_dir_all(&directory)?;
        // The directory's own name must not vanish with the power either.
        let parent = directory.parent().filter(|parent| !parent.as_os_str().is_empty());
        sync_directory(parent.unwrap_or(Path::new(".")))?;
        Ok(DirFiles { directory })
    }

    fn path(&self, id: SnapshotFileId) -> PathBuf {
        self.directory.join(id.to_string())
    }
}

impl SnapshotFiles for DirFiles {
    fn create(
        &self,
        region: RegionId,
        term: Term,
        index: LogIndex,
    ) -> io::Result<(SnapshotFileId, Box<dyn SpoolWriter>)> {
        for number in 0..TRIES_MAX {
            let id = SnapshotFileId { region, term, index, number };
            match OpenOptions::new().write(true).create_new(true).open(self.path(id)) {
                Ok(file) => {
                    let directory = self.directory.clone();
                    return Ok((id, Box::new(DirWriter { file, directory })));
                }
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
            }
        }
        Err(io::Error::new(io::ErrorKind::AlreadyExists, "too many tries of one snapshot"))
    }

    fn open(&self, id: SnapshotFileId) -> io::Result<Box<dyn Read + Send>> {
        Ok(Box::new(io::BufReader::with_capacity(64 << 10, File::open(self.path(id))?)))
    }

    fn remove(&self, id: SnapshotFileId) -> io::Result<()> {
        match fs::remove_file(self.path(id)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    fn list(&self) -> io::Result<Vec<SnapshotFileId>> {
        let mut ids = Vec::new();
        for entry in fs::read_dir(&self.directory)? {
            let name = entry?.file_name();
            ids.extend(name.to_str().and_then(|name| name.parse::<SnapshotFileId>().ok()));
        }
        ids.sort();
        Ok(ids)
    }
}

struct DirWriter {
    file: File,
    directory: PathBuf,
}

impl SpoolWriter for DirWriter {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all(bytes)
    }

    fn finish(self: Box<Self>) -> io::Result<()> {
        self.file.sync_all()?;
        sync_directory(&self.directory)
    }
}

/// A new name is durable only when the directory is (hazard D7).
fn sync_directory(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}

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

    #[test]
    fn a_directory_holds_what_was_written_and_never_overwrites() {
        let directory = tempfile::tempdir().expect("a directory");
        let files = DirFiles::open(directory.path().join("snapshots")).expect("open");
        let (first, mut writer) = files.create(2.into(), Term(5), LogIndex(7)).expect("create");
        writer.append(b"abcd").expect("append");
        writer.finish().expect("finish");
        let (second, _writer) = files.create(2.into(), Term(5), LogIndex(7)).expect("create");
        assert_ne!(first, second);
        assert_eq!(files.list().expect("list"), [first, second]);
        let mut content = String::new();
        files.open(first).expect("open").read_to_string(&mut content).expect("read");
        assert_eq!(content, "abcd");
        files.remove(first).expect("remove");
        files.remove(first).expect("removing twice is fine");
        assert_eq!(files.list().expect("list"), [second]);
    }

    #[cfg(unix)]
    #[test]
    fn a_link_laid_in_the_way_is_not_followed() {
        let directory = tempfile::tempdir().expect("a directory");
        let precious = directory.path().join("precious");
        fs::write(&precious, "data").expect("write");
        let files = DirFiles::open(directory.path().join("snapshots")).expect("open");
        let link = directory.path().join("snapshots/2_5_7_0.snapshot");
        std::os::unix::fs::symlink(&precious, link).expect("link");
        let (id, mut writer) = files.create(2.into(), Term(5), LogIndex(7)).expect("create");
        writer.append(b"evil").expect("append");
        assert_eq!(id.number, 1);
        assert_eq!(fs::read(&precious).expect("read"), b"data");
    }
}

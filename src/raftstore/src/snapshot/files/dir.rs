//! Spool files in a directory.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use proto::ids::RegionId;
use raft::{LogIndex, Term};

use super::{SnapshotFileId, SnapshotFiles, SpoolWriter};

/// How many files of one snapshot may exist: tries that a crash left behind.
const TRIES_MAX: u64 = 1000;

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

#[cfg(test)]
mod tests {
    use super::*;

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

//! Bulk loading: pairs → one SST file → linked into the database.
//!
//! The file is named from a counter alone, never from anything a peer sent.

use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;

use bytes::Bytes;
use rocksdb::{IngestExternalFileOptions, SstFileWriter};

use super::{RocksEngine, classify, handle, io_error};
use crate::{Cf, Error, Result};

/// Directory of files on their way in, below the data directory.
const INGEST_DIR: &str = "ingest";

/// What ended a file before it was complete.
enum Incomplete {
    /// The pairs were at fault; the engine is unharmed.
    Source(Error),
    /// The disk was.
    Disk(Error),
}

impl RocksEngine {
    pub(super) fn ingest_sorted(
        &self,
        cf: Cf,
        sorted: &mut dyn Iterator<Item = Result<(Bytes, Bytes)>>,
    ) -> Result<()> {
        let number = self.ingest_number.fetch_add(1, Ordering::Relaxed);
        let file = self.path.join(INGEST_DIR).join(format!("{number}.sst"));
        let outcome = self
            .write_file(cf, sorted, &file)
            .and_then(|pairs| if pairs == 0 { Ok(()) } else { self.link_file(cf, &file) });
        match outcome {
            Ok(()) => Ok(()),
            Err(Incomplete::Source(error)) => {
                // What stays behind is removed at the next start at the latest.
                let _ = std::fs::remove_file(&file);
                Err(error)
            }
            Err(Incomplete::Disk(error)) => Err(self.poison_with(error)),
        }
    }

    /// Writes and syncs the file; answers how many pairs it holds. There is no file when that is none.
    fn write_file(
        &self,
        cf: Cf,
        sorted: &mut dyn Iterator<Item = Result<(Bytes, Bytes)>>,
        file: &Path,
    ) -> std::result::Result<u64, Incomplete> {
        let disk = |error| Incomplete::Disk(classify("write a file to ingest", error));
        let options = self.tuning.family_options(cf);
        let mut writer = SstFileWriter::create(&options);
        let (mut pairs, mut last) = (0, Bytes::new());
        for pair in sorted {
            let (key, value) = pair.map_err(Incomplete::Source)?;
            if pairs == 0 {
                writer.open(file).map_err(disk)?;
            } else if key <= last {
                return Err(Incomplete::Source(Error::Unsorted { position: pairs }));
            }
            writer.put(&key, &value).map_err(disk)?;
            (pairs, last) = (pairs + 1, key);
        }
        if pairs > 0 {
            writer.finish().map_err(disk)?;
        }
        Ok(pairs)
    }

    fn link_file(&self, cf: Cf, file: &PathBuf) -> std::result::Result<(), Incomplete> {
        let mut options = IngestExternalFileOptions::default();
        options.set_move_files(true);
        self.db
            .ingest_external_file_cf_opts(handle(&self.db, cf), &options, vec![file])
            .map_err(|error| Incomplete::Disk(classify("ingest a file", error)))?;
        self.ingests.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }
}

/// Removes what bulk loads cut short by a crash have left, and makes the directory.
pub(super) fn clear_leftovers(path: &Path) -> Result<()> {
    let directory = path.join(INGEST_DIR);
    if directory.exists() {
        std::fs::remove_dir_all(&directory).map_err(|e| io_error("clear ingest files", &e))?;
    }
    std::fs::create_dir(&directory).map_err(|e| io_error("create the ingest directory", &e))
}

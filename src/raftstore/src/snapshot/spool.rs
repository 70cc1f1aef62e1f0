//! The layout of a spool file.
//!
//! ```text
//! magic "FLTLSNP1" | chunk* | footer
//! chunk   length u32 (not 0) | crc32 of the data u32 | data
//! footer  0 u32 | chunks u64 | content bytes u64 | crc32 of the content u32 | crc32 of these three u32
//! ```
//! Big-endian. A file without its footer was never finished; bytes after it are damage as much as bytes missing.

use std::io::{self, Read};

use bytes::{BufMut, Bytes, BytesMut};
use crc32fast::Hasher;
use proto::limits::SNAPSHOT_CHUNK_BYTES_MAX;

const MAGIC: &[u8; 8] = b"FLTLSNP1";
const FOOTER_BYTES: usize = 8 + 8 + 4 + 4;

/// Where chunks come from.
pub(super) trait ChunkSource {
    /// The next chunk, checked; `None` after the last one, once the totals have been checked too.
    fn next_chunk(&mut self) -> Result<Option<Bytes>, SpoolError>;
}

/// What is wrong with a spool file.
#[derive(Debug, thiserror::Error)]
pub enum SpoolError {
    /// It cannot be read.
    #[error("snapshot file cannot be read: {0}")]
    Io(#[from] io::Error),
    /// It is not what was written.
    #[error("snapshot file is damaged: {0}")]
    Damaged(&'static str),
}

/// Number, length and checksum of chunks, added up.
#[derive(Clone, Debug, Default)]
pub(super) struct Totals {
    pub(super) chunks: u64,
    pub(super) bytes: u64,
    crc: Hasher,
}

impl Totals {
    pub(super) fn add(&mut self, data: &[u8]) {
        self.chunks += 1;
        self.bytes += data.len() as u64;
        self.crc.update(data);
    }

    pub(super) fn crc32(&self) -> u32 {
        self.crc.clone().finalize()
    }
}

/// What a file begins with.
pub(super) fn magic() -> &'static [u8] {
    MAGIC
}

/// What precedes a chunk's data.
pub(super) fn chunk_prefix(data: &[u8], crc32: u32) -> [u8; 8] {
    let length = u32::try_from(data.len()).expect("chunks are bounded");
    let mut prefix = [0; 8];
    prefix[..4].copy_from_slice(&length.to_be_bytes());
    prefix[4..].copy_from_slice(&crc32.to_be_bytes());
    prefix
}

/// What a file ends with.
pub(super) fn footer(totals: &Totals) -> Bytes {
    let mut out = BytesMut::with_capacity(4 + FOOTER_BYTES);
    out.put_u32(0);
    out.put_u64(totals.chunks);
    out.put_u64(totals.bytes);
    out.put_u32(totals.crc32());
    let check = crc32fast::hash(&out[4..]);
    out.put_u32(check);
    out.freeze()
}

/// Reads a file's chunks, checking all there is to check.
#[derive(Debug)]
pub(super) struct SpoolReader<R> {
    file: R,
    totals: Totals,
    done: bool,
}

impl<R: Read> SpoolReader<R> {
    pub(super) fn open(mut file: R) -> Result<SpoolReader<R>, SpoolError> {
        let mut magic = [0; MAGIC.len()];
        read_exact(&mut file, &mut magic)?;
        if magic != *MAGIC {
            return Err(SpoolError::Damaged("it does not begin as one"));
        }
        Ok(SpoolReader { file, totals: Totals::default(), done: false })
    }

    fn number(&mut self) -> Result<u32, SpoolError> {
        let mut bytes = [0; 4];
        read_exact(&mut self.file, &mut bytes)?;
        Ok(u32::from_be_bytes(bytes))
    }

    fn check_end(&mut self) -> Result<(), SpoolError> {
        let mut found = [0; FOOTER_BYTES];
        read_exact(&mut self.file, &mut found)?;
        if footer(&self.totals)[4..] != found {
            return Err(SpoolError::Damaged("its totals do not match its chunks"));
        }
        if self.file.read(&mut [0])? != 0 {
            return Err(SpoolError::Damaged("it goes on after its end"));
        }
        Ok(())
    }
}

impl<R: Read> ChunkSource for SpoolReader<R> {
    fn next_chunk(&mut self) -> Result<Option<Bytes>, SpoolError> {
        if self.done {
            return Ok(None);
        }
        let length = self.number()? as usize;
        if length == 0 {
            self.check_end()?;
            self.done = true;
            return Ok(None);
        }
        if length > SNAPSHOT_CHUNK_BYTES_MAX {
            return Err(SpoolError::Damaged("a chunk is longer than any may be"));
        }
        let crc32 = self.number()?;
        let mut data = BytesMut::zeroed(length);
        read_exact(&mut self.file, &mut data)?;
        if crc32fast::hash(&data) != crc32 {
            return Err(SpoolError::Damaged("the checksum of a chunk does not match"));
        }
        self.totals.add(&data);
        Ok(Some(data.freeze()))
    }
}

fn read_exact(file: &mut impl Read, bytes: &mut [u8]) -> Result<(), SpoolError> {
    file.read_exact(bytes).map_err(|error| match error.kind() {
        io::ErrorKind::UnexpectedEof => SpoolError::Damaged("it ends too early"),
        _ => SpoolError::Io(error),
    })
}

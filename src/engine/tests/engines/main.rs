//! Both engines side by side. One test binary, because linking RocksDB takes longer than running the tests.

mod agreement;
mod golden;
mod lab;
#[cfg(feature = "rocksdb")]
mod rocks;

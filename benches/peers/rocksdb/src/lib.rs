//! What limitador's disk storage names of RocksDB, with nothing behind it: no database can be opened.
//!
//! limitador 0.14.0 does not compile without its disk storage (`keys::bin` is only there with it).
#![forbid(unsafe_code)]

use std::{fmt, marker::PhantomData, path::Path};

/// Why no database is there.
#[derive(Debug)]
pub struct Error;

impl Error {
    /// Always [`ErrorKind::NotSupported`].
    pub fn kind(&self) -> ErrorKind {
        ErrorKind::NotSupported
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("this build has no RocksDB")
    }
}

impl std::error::Error for Error {}

/// The kinds that limitador tells apart, and the one that occurs.
#[derive(Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum ErrorKind {
    NotSupported,
    TimedOut,
    TryAgain,
}

/// The mode that limitador uses.
#[derive(Debug)]
pub struct MultiThreaded;

/// A database that nobody can open.
#[derive(Debug)]
pub struct DBWithThreadMode<T>(PhantomData<T>);

/// The database of limitador.
pub type DB = DBWithThreadMode<MultiThreaded>;

/// An entry of an iteration.
type Entry = Result<(Box<[u8]>, Box<[u8]>), Error>;

impl<T> DBWithThreadMode<T> {
    /// Fails.
    pub fn open(_: &Options, _: impl AsRef<Path>) -> Result<Self, Error> {
        Err(Error)
    }

    /// Fails.
    pub fn get(&self, _: impl AsRef<[u8]>) -> Result<Option<Vec<u8>>, Error> {
        Err(Error)
    }

    /// Fails.
    pub fn merge(&self, _: impl AsRef<[u8]>, _: impl AsRef<[u8]>) -> Result<(), Error> {
        Err(Error)
    }

    /// Fails.
    pub fn delete(&self, _: impl AsRef<[u8]>) -> Result<(), Error> {
        Err(Error)
    }

    /// Fails at its first entry.
    pub fn iterator(&self, _: IteratorMode) -> impl Iterator<Item = Entry> {
        std::iter::once(Err(Error))
    }

    /// Fails at its first entry.
    pub fn prefix_iterator(&self, _: impl AsRef<[u8]>) -> impl Iterator<Item = Entry> {
        std::iter::once(Err(Error))
    }
}

/// Where an iteration begins.
#[derive(Debug)]
#[allow(missing_docs)]
pub enum IteratorMode {
    Start,
}

/// How blocks are compressed.
#[derive(Debug)]
#[allow(missing_docs)]
pub enum DBCompressionType {
    None,
    Bz2,
}

/// What becomes of an entry.
#[derive(Debug)]
#[allow(missing_docs)]
pub enum CompactionDecision {
    Keep,
    Remove,
}

/// The operands of a merge.
#[derive(Debug)]
pub struct MergeOperands(());

impl<'a> IntoIterator for &'a MergeOperands {
    type Item = &'a [u8];
    type IntoIter = std::iter::Empty<&'a [u8]>;

    fn into_iter(self) -> Self::IntoIter {
        std::iter::empty()
    }
}

/// Options that nobody looks at.
#[derive(Debug, Default)]
#[allow(missing_docs)]
pub struct Options;

#[allow(missing_docs)]
impl Options {
    pub fn set_compression_type(&mut self, _: DBCompressionType) {}

    pub fn set_compaction_filter<F>(&mut self, _: &str, _: F)
    where
        F: FnMut(u32, &[u8], &[u8]) -> CompactionDecision + Send + 'static,
    {
    }

    pub fn set_merge_operator_associative<F>(&mut self, _: &str, _: F)
    where
        F: Fn(&[u8], Option<&[u8]>, &MergeOperands) -> Option<Vec<u8>> + Send + Sync + Clone + 'static,
    {
    }

    pub fn create_if_missing(&mut self, _: bool) {}
}

//! What stops a stage (as opposed to a bad row or a failed record, which are counted).

use super::jsonl::RowError;
use std::io;
use std::path::{Path, PathBuf};

/// Why a stage can't start or go on. Everything finished so far is on disk.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{}: {source}", path.display())]
    Io { path: PathBuf, source: io::Error },

    #[error(
        "{} is being written by another process: wait for it to end, or choose another output",
        path.display()
    )]
    Locked { path: PathBuf },

    #[error(
        "{} was begun with other settings:{changes}\nrepeat the old settings, choose another \
         output, or start over with --force (or by deleting the file and its .journal)",
        path.display()
    )]
    Settings {
        path: PathBuf,
        /// One line for each setting that differs.
        changes: String,
    },

    #[error(
        "{} was not written by this program, or its {} is gone: choose another output, or move \
         the file away",
        path.display(), meta.display()
    )]
    NotOurs { path: PathBuf, meta: PathBuf },

    #[error(
        "{}: record {id:?} {why}: choose another output, or start over with --force",
        path.display()
    )]
    OtherInput { path: PathBuf, id: String, why: &'static str },

    #[error("{0}\nthis file was written by longreward and changed since: mend or delete the line")]
    Damaged(RowError),

    #[error("{}:{line}: the row changed while the file was being worked on", path.display())]
    Moved { path: PathBuf, line: u64 },

    #[error("the model stopped working: {0}")]
    Broken(String),

    #[error("{0}")]
    Tools(String),
}

impl Error {
    /// Turns an input/output error at `path` into ours.
    pub(crate) fn io(path: &Path) -> impl FnOnce(io::Error) -> Error + use<> {
        let path = path.to_owned();
        move |source| Error::Io { path, source }
    }
}

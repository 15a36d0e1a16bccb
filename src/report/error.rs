//! What stops a report (as opposed to a bad row, which is listed).

use crate::pipeline;
use std::io;
use std::path::{Path, PathBuf};

/// Why there is no page.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Files(#[from] pipeline::Error),

    #[error("{}: no row can be shown{problems}", path.display())]
    NothingToShow {
        path: PathBuf,
        /// One line for each bad row, the first ones only.
        problems: String,
    },

    #[error("{}: is no JSON object: {why}", path.display())]
    Agree { path: PathBuf, why: String },

    #[error("the page's template: {0}")]
    Template(#[from] minijinja::Error),

    #[error("the page's data: {0}")]
    Json(#[from] serde_json::Error),
}

/// Turns an input/output error at `path` into ours.
pub fn io(path: &Path) -> impl FnOnce(io::Error) -> pipeline::Error + use<> {
    let path = path.to_owned();
    move |source| pipeline::Error::Io { path, source }
}

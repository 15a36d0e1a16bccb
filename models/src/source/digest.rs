//! What a checkpoint is, whatever its name: SHA-256 over the contents of its files.

use super::{POOLING, Places, Source, SourceError};
use rayon::prelude::*;
use sha2::{Digest, Sha256};
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

/// Ends of names of the files that a model is made of.
const KINDS: [&str; 4] = ["json", "safetensors", "model", "jinja"];

/// Of a GGUF file what `sha256sum` prints; of a folder the SHA-256 of the lines (digest, two
/// spaces, name) that `sha256sum` prints for its configuration, weight and tokenizer files, among them
/// an embedder's `1_Pooling/config.json`, in the order of their names.
///
/// Reading all weights takes a while, so the digest of a file is remembered in the user's cache
/// together with its length and the time of its last change, and taken from there while these are the
/// same.
///
/// # Errors
/// A file that can't be read.
pub fn digest(source: &Source) -> Result<String, SourceError> {
    digest_in(source, &Places::from_env())
}

fn digest_in(source: &Source, places: &Places) -> Result<String, SourceError> {
    let one = |path: &PathBuf| remembered(path, places).map_err(SourceError::io(path));
    match source {
        Source::Gguf(file) => one(file),
        Source::Folder(folder) => {
            let files = files_of(folder).map_err(SourceError::io(folder))?;
            let digests = files.par_iter().map(one).collect::<Result<Vec<_>, _>>()?;
            let mut hasher = Sha256::new();
            for (path, digest) in files.iter().zip(digests) {
                let name = path.strip_prefix(folder).unwrap_or(path).display();
                hasher.update(format!("{digest}  {name}\n"));
            }
            Ok(hex(&hasher.finalize()))
        }
    }
}

fn files_of(folder: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in folder.read_dir()? {
        let path = entry?.path();
        let kind = path.extension().and_then(|extension| extension.to_str());
        if kind.is_some_and(|kind| KINDS.contains(&kind)) && path.is_file() {
            files.push(path);
        }
    }
    files.extend(Some(folder.join(POOLING)).filter(|path| path.is_file()));
    files.sort();
    Ok(files)
}

/// The digest of a file, computed if it is not known from an earlier run.
fn remembered(path: &Path, places: &Places) -> std::io::Result<String> {
    let path = path.canonicalize()?;
    let metadata = path.metadata()?;
    let changed = metadata.modified()?.duration_since(UNIX_EPOCH).unwrap_or_default();
    let state = format!("{} bytes, changed {} ns", metadata.len(), changed.as_nanos());
    let name = hex(&Sha256::digest(path.as_os_str().as_encoded_bytes()));
    let note = places.own.join("digests").join(&name[..32]);
    let known = std::fs::read_to_string(&note).unwrap_or_default();
    if let Some((digest, then)) = known.split_once(' ')
        && then == state
    {
        return Ok(digest.to_owned());
    }
    let digest = sha256(&path)?;
    // Only the next run would be slower without the note.
    if places.own_is_told {
        let _ = write_note(&note, &format!("{digest} {state}"));
    }
    Ok(digest)
}

fn write_note(note: &Path, text: &str) -> std::io::Result<()> {
    let folder = note.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(folder)?;
    let partial = note.with_extension(std::process::id().to_string());
    std::fs::write(&partial, text)?;
    std::fs::rename(&partial, note)
}

/// SHA-256 of a file's contents, hexadecimal.
pub(super) fn sha256(path: &Path) -> std::io::Result<String> {
    let mut hasher = Sha256::new();
    let mut file = File::open(path)?;
    let mut buffer = vec![0; 1 << 20];
    loop {
        match file.read(&mut buffer)? {
            0 => break,
            count => hasher.update(&buffer[..count]),
        }
    }
    Ok(hex(&hasher.finalize()))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use tempfile::TempDir;

    fn places(folder: &TempDir) -> Places {
        Places::new(&|name| (name == "LONGREWARD_CACHE").then(|| folder.path().into()))
    }

    #[test]
    fn a_file_has_its_published_digest_and_a_folder_that_of_the_list() {
        let folder = TempDir::new().unwrap();
        let places = places(&folder);
        let model = folder.path().join("model");
        std::fs::create_dir(&model).unwrap();
        std::fs::write(model.join("config.json"), "abc").unwrap();
        std::fs::write(model.join("README.md"), "not part of it").unwrap();
        const ABC: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        let file = Source::Gguf(model.join("config.json"));
        assert_eq!(digest_in(&file, &places).unwrap(), ABC);
        let list = hex(&Sha256::digest(format!("{ABC}  config.json\n")));
        assert_eq!(digest_in(&Source::Folder(model.clone()), &places).unwrap(), list);
        std::fs::write(model.join("a.safetensors"), "abc").unwrap();
        assert_ne!(digest_in(&Source::Folder(model.clone()), &places).unwrap(), list);
        std::fs::remove_file(model.join("a.safetensors")).unwrap();
        std::fs::create_dir(model.join("1_Pooling")).unwrap();
        std::fs::write(model.join(POOLING), "abc").unwrap();
        let list =
            hex(&Sha256::digest(format!("{ABC}  1_Pooling/config.json\n{ABC}  config.json\n")));
        assert_eq!(digest_in(&Source::Folder(model), &places).unwrap(), list);
    }

    #[test]
    fn a_changed_file_is_read_again_and_an_unchanged_one_is_not() {
        let folder = TempDir::new().unwrap();
        let places = places(&folder);
        let file = folder.path().join("m.gguf");
        std::fs::write(&file, "one").unwrap();
        let source = Source::Gguf(file.clone());
        let one = digest_in(&source, &places).unwrap();
        std::fs::write(&file, "other").unwrap();
        let other = digest_in(&source, &places).unwrap();
        assert_ne!(one, other);
        // The note is believed: it is what makes the second run fast.
        let notes = folder.path().join("digests");
        let note = notes.read_dir().unwrap().next().unwrap().unwrap().path();
        let text = std::fs::read_to_string(&note).unwrap();
        std::fs::write(&note, text.replace(&other, "remembered")).unwrap();
        assert_eq!(digest_in(&source, &places).unwrap(), "remembered");
        std::fs::write(&note, "nonsense").unwrap();
        assert_eq!(digest_in(&source, &places).unwrap(), other);
    }
}

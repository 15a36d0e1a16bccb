//! Repos of the Hugging Face hub, through their standard cache.
//!
//! ```text
//! <hub>/models--org--name/refs/<revision>              holds a commit
//! <hub>/models--org--name/snapshots/<commit>/<file>    links into blobs/
//! ```

use super::places::Places;
use super::{POOLING, Resolved, Source, SourceError};
use crate::checkpoint::read_index;
use crate::error::ModelError;
use hf_hub::api::sync::{Api, ApiBuilder, ApiError};
use hf_hub::{Cache, Repo, RepoType};
use std::collections::BTreeSet;
use std::fs::File;
use std::path::{Path, PathBuf};

/// `org/name` at a revision: a branch, a tag or a commit.
#[derive(Debug, PartialEq)]
pub(super) struct RepoId {
    repo: String,
    revision: String,
}

impl RepoId {
    /// `None` unless `spec` is `org/name` or `org/name@revision`.
    pub fn parse(spec: &str) -> Option<Self> {
        let (repo, revision) = spec.split_once('@').unwrap_or((spec, "main"));
        let (org, name) = repo.split_once('/')?;
        let word = |text: &str| {
            let allowed = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
            text.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_')
                && text.chars().all(allowed)
                && !text.contains("..")
        };
        let branch = revision.split('/').all(word);
        let file = name.to_ascii_lowercase().ends_with(".gguf");
        (word(org) && word(name) && branch && !file)
            .then(|| Self { repo: repo.to_owned(), revision: revision.to_owned() })
    }

    fn at(&self, revision: &str) -> Repo {
        Repo::with_revision(self.repo.clone(), RepoType::Model, revision.to_owned())
    }

    fn resolved(&self, folder: PathBuf, commit: String) -> Resolved {
        let source = Source::Folder(folder);
        Resolved { source, name: self.repo.clone(), revision: Some(commit) }
    }
}

/// Files beside the weights that may matter, where a repo has them.
const SMALL_FILES: [&str; 11] = [
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
    "modules.json",
    "sentence_bert_config.json",
    POOLING,
    INDEX,
];
const INDEX: &str = "model.safetensors.index.json";
const WEIGHTS: &str = "model.safetensors";

/// Files without which something is assumed: the first of `any_of`, unless another of them is
/// there.
struct Assumption {
    any_of: &'static [&'static str],
    assumed: &'static str,
}

const ASSUMPTIONS: [Assumption; 2] = [
    Assumption {
        any_of: &["tokenizer_config.json"],
        assumed: "the chat template is one written for the family, and its end of turn is not known",
    },
    Assumption {
        any_of: &["generation_config.json"],
        assumed: "replies end with the tokens of config.json alone",
    },
];
/// What only embedders have.
const OF_EMBEDDERS: Assumption =
    Assumption { any_of: &[POOLING, "modules.json"], assumed: "vectors are means over all tokens" };

/// The repo's folder in the cache, fetched as far as it isn't there.
pub(super) fn obtain(id: &RepoId, places: &Places) -> Result<Resolved, SourceError> {
    let cache = Cache::new(places.hub.clone());
    let mut missing = "nothing of it is there".to_owned();
    if let Some(commit) = cached_commit(id, &cache) {
        let folder = cache.repo(id.at(&commit)).pointer_path(&commit);
        match lacks(&folder) {
            None => {
                complete(id, &commit, &folder, places, &cache);
                return Ok(id.resolved(folder, commit));
            }
            Some(file) => missing = format!("{file} is missing"),
        }
    }
    let (repo, revision) = (id.repo.clone(), id.revision.clone());
    if places.offline {
        return Err(SourceError::Offline { repo, revision, cache: places.hub.clone(), missing });
    }
    if !places.hub_is_told {
        return Err(SourceError::NoPlace { spec: repo, variable: "HF_HOME" });
    }
    fetch(id, places, &cache)
}

/// The commit that a revision stood for when it was fetched.
fn cached_commit(id: &RepoId, cache: &Cache) -> Option<String> {
    let home = cache.path().join(id.at(&id.revision).folder_name());
    let snapshots = home.join("snapshots");
    let reference = home.join("refs").join(&id.revision);
    match std::fs::read_to_string(reference) {
        Ok(commit) => Some(commit.trim().to_owned()),
        Err(_) => snapshots.join(&id.revision).is_dir().then(|| id.revision.clone()),
    }
}

/// The first file that a folder needs and doesn't have.
fn lacks(folder: &Path) -> Option<String> {
    let has = |file: &str| folder.join(file).is_file();
    if !has("config.json") {
        return Some("config.json".into());
    }
    if !has("tokenizer.json") && !has("tokenizer.model") {
        return Some("tokenizer.json".into());
    }
    if has(INDEX) {
        match shards(&folder.join(INDEX)) {
            Ok(shards) => return shards.into_iter().find(|shard| !has(shard)),
            Err(_) => return Some(INDEX.into()),
        }
    }
    (!has(WEIGHTS)).then(|| WEIGHTS.into())
}

/// Files that a folder lacks, without anybody having said that the repo has none, and what is
/// assumed then.
fn unknown(folder: &Path) -> Vec<(&'static str, &'static str)> {
    let is_embedder = std::fs::read_to_string(folder.join("config.json"))
        .is_ok_and(|config| config.contains("\"BertModel\""));
    let of_embedders = is_embedder.then_some(&OF_EMBEDDERS);
    let all = ASSUMPTIONS.iter().chain(of_embedders);
    let known = |file: &&&str| {
        folder.join(file).is_file() || absent_mark(folder, file).is_some_and(|mark| mark.is_file())
    };
    all.filter(|one| !one.any_of.iter().any(|file| known(&file)))
        .map(|one| (one.any_of[0], one.assumed))
        .collect()
}

/// Where the cache notes that a commit has no such file, as `huggingface_hub` does.
fn absent_mark(folder: &Path, file: &str) -> Option<PathBuf> {
    let commit = folder.file_name()?;
    Some(folder.parent()?.parent()?.join(".no_exist").join(commit).join(file))
}

/// Fetches the small files that a commit in the cache lacks, as others leave them out; where that
/// can't be done, says what is assumed without them. Weights and tokenizer are there.
fn complete(id: &RepoId, commit: &str, folder: &Path, places: &Places, cache: &Cache) {
    if unknown(folder).is_empty() {
        return;
    }
    let mut why = "HF_HUB_OFFLINE forbids to fetch it".to_owned();
    if !places.offline {
        why = match fetch_small(id, commit, folder, places, cache) {
            Ok(()) => return,
            Err(error) => format!("it can't be fetched ({error})"),
        };
    }
    for (file, assumed) in unknown(folder) {
        tracing::warn!(
            "{}@{commit}: {file} is not in the cache, and {why}: {assumed}, which may be wrong",
            id.repo
        );
    }
}

fn fetch_small(
    id: &RepoId,
    commit: &str,
    folder: &Path,
    places: &Places,
    cache: &Cache,
) -> Result<(), SourceError> {
    let hub_error = |error: ApiError| hub_error(id, error);
    let _lock = lock(id, places)?;
    let api = api(places).map_err(hub_error)?;
    let pinned = api.repo(id.at(commit));
    let info = pinned.info().map_err(hub_error)?;
    let listed: BTreeSet<String> = info.siblings.into_iter().map(|file| file.rfilename).collect();
    debug_assert!(folder.starts_with(cache.path()));
    for file in SMALL_FILES.iter().filter(|file| !folder.join(file).is_file()) {
        if listed.contains(*file) {
            pinned.get(file).map_err(hub_error)?;
        }
    }
    mark_absent(folder, &listed);
    Ok(())
}

/// Notes which small files a repo has not, so that nobody need ask again.
fn mark_absent(folder: &Path, listed: &BTreeSet<String>) {
    for file in SMALL_FILES.iter().filter(|file| !listed.contains(**file)) {
        let Some(mark) = absent_mark(folder, file) else { continue };
        // Where that can't be written, the repo is asked again.
        let _ = mark.parent().map(std::fs::create_dir_all);
        let _ = File::create(mark);
    }
}

fn hub_error(id: &RepoId, error: ApiError) -> SourceError {
    let (repo, revision) = (id.repo.clone(), id.revision.clone());
    SourceError::Hub { repo, revision, reason: error.to_string() }
}

/// Held by the one of several processes that fetches.
fn lock(id: &RepoId, places: &Places) -> Result<File, SourceError> {
    let locks = places.hub.join(".locks");
    let path = locks.join(format!("{}.lock", id.at("").folder_name()));
    std::fs::create_dir_all(&locks).map_err(SourceError::io(&locks))?;
    let lock = File::create(&path).map_err(SourceError::io(&path))?;
    lock.lock().map_err(SourceError::io(&path))?;
    Ok(lock)
}

/// The weight files that an index lists.
fn shards(index: &Path) -> Result<BTreeSet<String>, ModelError> {
    Ok(read_index(index)?.into_values().collect())
}

/// Fetches one commit's files. Of several processes one fetches, the others wait.
fn fetch(id: &RepoId, places: &Places, cache: &Cache) -> Result<Resolved, SourceError> {
    let hub_error = |error: ApiError| hub_error(id, error);
    let _lock = lock(id, places)?;

    let api = api(places).map_err(hub_error)?;
    let info = api.repo(id.at(&id.revision)).info().map_err(hub_error)?;
    let commit = info.sha;
    let listed: BTreeSet<String> = info.siblings.into_iter().map(|file| file.rfilename).collect();
    tracing::info!("fetching {}@{commit} from the hub", id.repo);
    // By commit, so that no push in between can mix two of them.
    let pinned = api.repo(id.at(&commit));
    let get = |file: &str| pinned.get(file).map_err(hub_error);
    for file in SMALL_FILES.iter().filter(|file| listed.contains(**file)) {
        get(file)?;
    }
    let folder = cache.repo(id.at(&commit)).pointer_path(&commit);
    let index = folder.join(INDEX);
    let weights = match index.is_file() {
        true => shards(&index)?,
        false => listed.iter().filter(|file| *file == WEIGHTS).cloned().collect(),
    };
    for file in &weights {
        get(file)?;
    }
    mark_absent(&folder, &listed);
    let reference = cache.repo(id.at(&id.revision));
    reference.create_ref(&commit).map_err(SourceError::io(&places.hub))?;
    match lacks(&folder) {
        None => Ok(id.resolved(folder, commit)),
        Some(file) => Err(SourceError::Incomplete {
            repo: id.repo.clone(),
            revision: commit,
            missing: format!("the repo has no {file}"),
        }),
    }
}

fn api(places: &Places) -> Result<Api, ApiError> {
    let mut builder = ApiBuilder::from_cache(Cache::new(places.hub.clone()))
        .with_token(places.token.clone())
        .with_retries(3);
    if let Some(endpoint) = &places.endpoint {
        builder = builder.with_endpoint(endpoint.clone());
    }
    builder.build()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{BufRead, BufReader, Write};
    use std::net::TcpListener;
    use tempfile::TempDir;

    const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";
    const SHARDED: &str = r#"{"weight_map": {"a": "s-1.safetensors", "b": "s-2.safetensors"}}"#;

    fn places(folder: &TempDir, endpoint: Option<&str>) -> Places {
        Places::new(&|name| match name {
            "HF_HUB_CACHE" => Some(folder.path().into()),
            "HF_HUB_OFFLINE" => endpoint.is_none().then(|| "1".into()),
            "HF_ENDPOINT" => endpoint.map(Into::into),
            _ => None,
        })
    }

    /// Lays files of a commit into the cache as `huggingface_hub` does.
    fn lay(folder: &TempDir, files: &[(&str, &str)]) {
        let repo = folder.path().join("models--org--name");
        std::fs::create_dir_all(repo.join("refs")).unwrap();
        std::fs::write(repo.join("refs/main"), COMMIT).unwrap();
        let snapshot = repo.join("snapshots").join(COMMIT);
        std::fs::create_dir_all(&snapshot).unwrap();
        for (name, content) in files {
            std::fs::write(snapshot.join(name), content).unwrap();
        }
    }

    fn id(spec: &str) -> RepoId {
        RepoId::parse(spec).unwrap()
    }

    #[test]
    fn repo_ids() {
        let parsed = RepoId::parse("meta-llama/Llama-3.1-8B@refs/pr/1").unwrap();
        assert_eq!(
            (parsed.repo.as_str(), parsed.revision.as_str()),
            ("meta-llama/Llama-3.1-8B", "refs/pr/1")
        );
        assert_eq!(id("a/b").revision, "main");
        for spec in
            ["a", "a/b/c", "a/b@", "../b", "a/..", "a/b@../x", "a/b c", "a/b.gguf", "a/b@x@y"]
        {
            assert_eq!(RepoId::parse(spec), None, "{spec}");
        }
    }

    #[test]
    fn a_cached_commit_needs_no_network() {
        let folder = TempDir::new().unwrap();
        let places = places(&folder, None);
        lay(&folder, &[("config.json", "{}"), ("tokenizer.json", "{}"), (WEIGHTS, "")]);
        let by_branch = obtain(&id("org/name"), &places).unwrap();
        assert_eq!(by_branch.name, "org/name");
        assert_eq!(by_branch.revision.as_deref(), Some(COMMIT));
        assert!(by_branch.source.path().ends_with(format!("snapshots/{COMMIT}")));
        assert_eq!(obtain(&id(&format!("org/name@{COMMIT}")), &places).unwrap(), by_branch);
    }

    #[test]
    fn offline_errors_tell_what_is_missing() {
        let folder = TempDir::new().unwrap();
        let places = places(&folder, None);
        let error = || obtain(&id("org/name"), &places).unwrap_err().to_string();
        assert!(error().contains("nothing of it is there"), "{}", error());
        assert!(error().contains("HF_HUB_OFFLINE"), "{}", error());
        lay(&folder, &[("config.json", "{}"), ("tokenizer.model", ""), (INDEX, SHARDED)]);
        assert!(error().contains("(s-1.safetensors is missing)"), "{}", error());
        lay(&folder, &[("s-1.safetensors", ""), ("s-2.safetensors", "")]);
        obtain(&id("org/name"), &places).unwrap();
    }

    /// Serves a repo as the hub does, for as long as the test runs; returns the address.
    fn serve(files: Vec<(&'static str, &'static str)>) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let mut lines =
                    BufReader::new(stream.try_clone().unwrap()).lines().map_while(Result::ok);
                let request = lines.next().unwrap_or_default();
                let first_byte = lines
                    .by_ref()
                    .take_while(|line| !line.is_empty())
                    .any(|line| line.eq_ignore_ascii_case("range: bytes=0-0"));
                stream.write_all(answer(&files, &request, first_byte).as_bytes()).unwrap();
            }
        });
        address
    }

    fn answer(files: &[(&str, &str)], request: &str, first_byte: bool) -> String {
        let path = request.split(' ').nth(1).unwrap_or_default();
        if ["main", COMMIT].iter().any(|at| path == format!("/api/models/org/name/revision/{at}")) {
            let names: Vec<String> =
                files.iter().map(|(name, _)| format!(r#"{{"rfilename": "{name}"}}"#)).collect();
            let body = format!(r#"{{"sha": "{COMMIT}", "siblings": [{}]}}"#, names.join(","));
            return response("200 OK", "", &body);
        }
        let resolve = format!("/org/name/resolve/{COMMIT}/");
        let name = path.strip_prefix(&resolve);
        let Some((name, content)) = files.iter().find(|file| Some(file.0) == name) else {
            return response("404 Not Found", "", "");
        };
        let end = if first_byte { 1 } else { content.len() };
        let size = content.len();
        let headers = format!(
            "etag: \"{name}\"\r\nx-repo-commit: {COMMIT}\r\ncontent-range: bytes 0-{}/{size}\r\n",
            end - 1
        );
        response("206 Partial Content", &headers, &content[..end])
    }

    fn response(status: &str, headers: &str, body: &str) -> String {
        let length = body.len();
        format!(
            "HTTP/1.1 {status}\r\nconnection: close\r\ncontent-length: {length}\r\n{headers}\r\n{body}"
        )
    }

    #[test]
    fn a_repo_is_fetched_once_and_only_what_matters() {
        let folder = TempDir::new().unwrap();
        let address = serve(vec![
            ("config.json", "{}"),
            ("README.md", "not wanted"),
            ("pytorch_model.bin", "not wanted"),
            ("tokenizer.json", "tokens"),
            (INDEX, SHARDED),
            ("s-1.safetensors", "one"),
            ("s-2.safetensors", "two"),
        ]);
        let found = obtain(&id("org/name"), &places(&folder, Some(&address))).unwrap();
        assert_eq!(found.revision.as_deref(), Some(COMMIT));
        let read = |file: &str| std::fs::read_to_string(found.source.path().join(file)).ok();
        assert_eq!(read("s-2.safetensors").as_deref(), Some("two"));
        assert_eq!(read("tokenizer.json").as_deref(), Some("tokens"));
        assert_eq!((read("README.md"), read("pytorch_model.bin")), (None, None));
        assert_eq!(obtain(&id("org/name"), &places(&folder, None)).unwrap(), found);
    }

    #[test]
    fn without_a_folder_for_it_nothing_is_fetched() {
        let error = obtain(&id("org/name"), &Places::new(&|_| None)).unwrap_err().to_string();
        assert!(error.contains("org/name: ") && error.contains("HOME, or HF_HOME"), "{error}");
    }

    #[test]
    fn shards_outside_of_the_folder_are_not_asked_for() {
        let folder = TempDir::new().unwrap();
        let address = serve(vec![
            ("config.json", "{}"),
            ("tokenizer.json", "tokens"),
            (INDEX, r#"{"weight_map": {"a": "../x.safetensors"}}"#),
        ]);
        let error = obtain(&id("org/name"), &places(&folder, Some(&address))).unwrap_err();
        let error = error.to_string();
        assert!(error.contains("key `weight_map.a`: \"../x.safetensors\" is not"), "{error}");
    }

    #[test]
    fn a_commit_that_others_fetched_in_part_is_completed_once() {
        let folder = TempDir::new().unwrap();
        lay(&folder, &[("config.json", "{}"), ("tokenizer.json", "{}"), (WEIGHTS, "")]);
        let offline = obtain(&id("org/name"), &places(&folder, None)).unwrap();
        let snapshot = offline.source.path();
        let lacking = || unknown(snapshot).into_iter().map(|(file, _)| file).collect::<Vec<&str>>();
        assert_eq!(lacking(), ["tokenizer_config.json", "generation_config.json"]);
        // Nobody answers: what is there is used.
        let nobody = obtain(&id("org/name"), &places(&folder, Some("http://127.0.0.1:1"))).unwrap();
        assert_eq!((nobody.source.path(), lacking().len()), (snapshot, 2));
        let address = serve(vec![("config.json", "{}"), ("tokenizer_config.json", "template")]);
        obtain(&id("org/name"), &places(&folder, Some(&address))).unwrap();
        let template = std::fs::read_to_string(snapshot.join("tokenizer_config.json")).unwrap();
        assert_eq!((template.as_str(), lacking()), ("template", vec![]));
    }

    #[test]
    fn a_repo_without_safetensors_or_at_all_is_an_error() {
        let folder = TempDir::new().unwrap();
        let address = serve(vec![("config.json", "{}"), ("tokenizer.json", "tokens")]);
        let places = places(&folder, Some(&address));
        let error = obtain(&id("org/name"), &places).unwrap_err().to_string();
        assert!(error.ends_with("the repo has no model.safetensors"), "{error}");
        let error = obtain(&id("org/other"), &places).unwrap_err().to_string();
        assert!(error.contains("org/other@main: ") && error.contains("HF_TOKEN"), "{error}");
    }
}

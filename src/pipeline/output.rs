//! A stage's output file: which records it holds already, adding records, and its final form.
//!
//! Beside `OUT` lies `OUT.meta.json` with the settings that its records were made with, and as long as
//! it is worked on `OUT.lock`, which its writer holds.

use super::Error;
use super::data::Seen;
use super::jsonl::{Appender, Lock, Row, Span, make_folder, read_rows, read_span, replace};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ffi::OsString;
use std::fs::File;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

/// What a result depends on, by name: model, prompts, seed, temperature. Names are shown to users.
pub type Settings = BTreeMap<String, String>;

/// What stands in `OUT.meta.json`.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
struct Meta {
    settings: Settings,
}

/// An output file that is open for work. It stays locked until it is dropped.
#[derive(Debug)]
pub struct Output {
    path: PathBuf,
    _lock: Lock,
    appender: Appender,
    records: HashMap<String, Span>,
    /// What was deleted to start over.
    discarded: Option<String>,
}

/// What is done about an output that was made with other settings or from other input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnMismatch {
    Refuse,
    /// The old records are deleted, if the same stage wrote them.
    StartOver,
}

/// What the records of an output must have been made from.
pub struct Inputs<'a> {
    /// The ids that may stand in it, each with the hash of the texts.
    pub hashes: HashMap<String, String>,
    /// Why a record of an id was made from something else all the same, if it was.
    pub strange: &'a dyn Fn(&str, &Row) -> Option<&'static str>,
}

impl Output {
    /// Refuses before a long wait what [`open`](Self::open) would refuse without a look at the
    /// records. Nothing is made or changed.
    ///
    /// # Errors
    /// As of [`open`](Self::open).
    pub fn precheck(
        path: &Path,
        settings: &Settings,
        on_mismatch: OnMismatch,
    ) -> Result<(), Error> {
        let lock = with_suffix(path, ".lock");
        if lock.exists() {
            drop(Lock::take(&lock, path)?);
        }
        match check_meta(path, settings) {
            Err(error) if on_mismatch == OnMismatch::StartOver && is_mismatch(&error) => {
                check_stage(path, settings)
            }
            checked => checked,
        }
    }

    /// Opens or makes the file. A torn last line is cut off.
    ///
    /// # Errors
    /// [`Error::NotOurs`]; [`Error::Settings`], [`Error::OtherInput`] and [`Error::Damaged`], these only
    /// with [`OnMismatch::Refuse`]; [`Error::Tools`] if it would have to start over with what another
    /// stage wrote; [`Error::Locked`]; [`Error::Io`].
    pub fn open(
        path: &Path,
        settings: &Settings,
        inputs: &Inputs,
        on_mismatch: OnMismatch,
    ) -> Result<Self, Error> {
        make_folder(path)?;
        let _lock = Lock::take(&with_suffix(path, ".lock"), path)?;
        let checked = check_meta(path, settings)
            .and_then(|()| Ok((Appender::open(path)?, read_records(path, inputs)?)));
        let (appender, records, discarded) = match checked {
            Ok((appender, records)) => (appender, records, None),
            Err(error) if on_mismatch == OnMismatch::Refuse || !is_mismatch(&error) => {
                return Err(error);
            }
            Err(_) => {
                let discarded = discard(path, settings)?;
                (Appender::open(path)?, HashMap::new(), Some(discarded))
            }
        };
        write_meta(path, settings)?;
        Ok(Self { path: path.to_owned(), _lock, appender, records, discarded })
    }

    /// What was deleted because it was made otherwise, to be told.
    pub fn discarded(&self) -> Option<&str> {
        self.discarded.as_deref()
    }

    /// Whether there is a record of this id.
    pub fn contains(&self, id: &str) -> bool {
        self.records.contains_key(id)
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Adds a record, `line` being its JSON.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn append(&mut self, id: String, line: &str) -> Result<(), Error> {
        let span = Span { offset: self.appender.len(), len: line.len() };
        self.appender.append(line)?;
        self.records.insert(id, span);
        Ok(())
    }

    /// Waits until all records are on disk.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn sync(&mut self) -> Result<(), Error> {
        self.appender.sync()
    }

    /// Brings the records into the order of `ids`, in one step, and lets go of the file. If there
    /// is a record of each id, the journal is no longer needed and is removed.
    ///
    /// # Errors
    /// [`Error::Io`]; then the file is as it was.
    pub fn finish(self, ids: &[String]) -> Result<(), Error> {
        let Self { path, _lock, appender, records, .. } = self;
        // Some systems replace no file that is open.
        drop(appender);
        let spans: Vec<Span> = ids.iter().filter_map(|id| records.get(id).copied()).collect();
        if !spans.is_sorted_by_key(|span| span.offset) {
            rewrite(&path, &spans)?;
        }
        match spans.len() == ids.len() {
            true => remove(&journal_path(&path)),
            false => Ok(()),
        }
    }
}

/// `OUT.journal`, where a stage keeps what it has of unfinished records.
pub(super) fn journal_path(out: &Path) -> PathBuf {
    with_suffix(out, ".journal")
}

fn meta_path(out: &Path) -> PathBuf {
    with_suffix(out, ".meta.json")
}

pub(super) fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(suffix);
    name.into()
}

fn remove(path: &Path) -> Result<(), Error> {
    match std::fs::remove_file(path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(Error::io(path)(e)),
        _ => Ok(()),
    }
}

/// Writes the records at `spans`, in this order, in the place of the file.
fn rewrite(path: &Path, spans: &[Span]) -> Result<(), Error> {
    let mut old = File::open(path).map_err(Error::io(path))?;
    replace(path, |new| {
        for &span in spans {
            let mut bytes = read_span(&mut old, span).map_err(Error::io(path))?;
            bytes.push(b'\n');
            new.write_all(&bytes).map_err(Error::io(path))?;
        }
        Ok(())
    })
}

/// An output that holds something must have been made with these settings.
fn check_meta(path: &Path, settings: &Settings) -> Result<(), Error> {
    if path.is_dir() {
        let path = path.display();
        return Err(Error::Tools(format!("{path}: is a folder: name a file for the output")));
    }
    if !holds_something(path) && !holds_something(&journal_path(path)) {
        return Ok(());
    }
    let meta = meta_path(path);
    let text = match std::fs::read(&meta) {
        Err(e) if e.kind() == ErrorKind::NotFound => Vec::new(),
        read => read.map_err(Error::io(&meta))?,
    };
    match serde_json::from_slice::<Meta>(&text) {
        Ok(stored) => check_settings(path, &stored.settings, settings),
        Err(_) => Err(Error::NotOurs { path: path.to_owned(), meta }),
    }
}

/// Whether an output is ours, but made otherwise.
pub(super) fn is_mismatch(error: &Error) -> bool {
    matches!(error, Error::Settings { .. } | Error::OtherInput { .. } | Error::Damaged(_))
}

/// Refuses to delete what another stage wrote.
fn check_stage(path: &Path, settings: &Settings) -> Result<(), Error> {
    const STAGE: &str = "stage";
    let stored = stored_settings(path)?;
    if stored.get(STAGE) == settings.get(STAGE) {
        return Ok(());
    }
    let stage = stored.get(STAGE).map_or("another command", String::as_str);
    Err(Error::Tools(format!(
        "{} was written by {stage}, and --force deletes only what the same command wrote: choose \
         another output",
        path.display()
    )))
}

/// Deletes records that were made otherwise, and what was noted for more of them; says so.
fn discard(path: &Path, settings: &Settings) -> Result<String, Error> {
    check_stage(path, settings)?;
    let bytes = std::fs::metadata(path).map_or(0, |found| found.len());
    remove(path)?;
    remove(&journal_path(path))?;
    let path = path.display();
    Ok(format!("{path} was made otherwise: its {bytes} bytes of records were deleted (--force)"))
}

fn holds_something(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|metadata| metadata.len() > 0)
}

/// Refuses other settings than those that a file was begun with, and says which differ.
pub(super) fn check_settings(path: &Path, stored: &Settings, now: &Settings) -> Result<(), Error> {
    let changes = changes(stored, now);
    match changes.is_empty() {
        true => Ok(()),
        false => Err(Error::Settings { path: path.to_owned(), changes }),
    }
}

/// In which settings a finished file differs from those of now: a line for each.
///
/// # Errors
/// [`Error::NotOurs`] if there is no note of them; [`Error::Io`].
pub fn changed_settings(path: &Path, now: &Settings) -> Result<String, Error> {
    Ok(changes(&stored_settings(path)?, now))
}

/// What a file was made with.
///
/// # Errors
/// [`Error::NotOurs`] if there is no note of it.
pub fn stored_settings(path: &Path) -> Result<Settings, Error> {
    let meta = meta_path(path);
    let not_ours = || Error::NotOurs { path: path.to_owned(), meta: meta.clone() };
    let text = std::fs::read_to_string(&meta).map_err(|_| not_ours())?;
    let stored: Meta = serde_json::from_str(&text).map_err(|_| not_ours())?;
    Ok(stored.settings)
}

/// Where a model was asked, which may change: what it is is said by the others.
pub const URL: &str = "url";

/// What a model was called, which says nothing where the checkpoint is known.
const MODEL: &str = "model";
const CHECKPOINT: &str = "checkpoint";

fn changes(stored: &Settings, now: &Settings) -> String {
    let checkpoint = stored.get(CHECKPOINT);
    let same_model = checkpoint.is_some() && checkpoint == now.get(CHECKPOINT);
    let counts = |name: &&String| *name != URL && !(same_model && *name == MODEL);
    let names = stored.keys().chain(now.keys()).filter(counts);
    let names: BTreeSet<&String> = names.collect();
    let show = |value: Option<&String>| value.map_or("not set".to_owned(), |v| format!("{v:?}"));
    names
        .into_iter()
        .filter(|name| stored.get(*name) != now.get(*name))
        .map(|name| {
            let (then, now) = (show(stored.get(name)), show(now.get(name)));
            format!("\n  {name}: was {then}, is now {now}")
        })
        .collect()
}

/// Replaced in one step: records without it would be those of somebody else.
fn write_meta(path: &Path, settings: &Settings) -> Result<(), Error> {
    let path = meta_path(path);
    let text = serde_json::to_string_pretty(&Meta { settings: settings.clone() });
    let text = text.map_err(|e| Error::io(&path)(e.into()))? + "\n";
    if std::fs::read(&path).is_ok_and(|old| old == text.as_bytes()) {
        return Ok(());
    }
    replace(&path, |file| file.write_all(text.as_bytes()).map_err(Error::io(&path)))
}

/// Why a record is refused whose id the input lacks.
pub(super) const NOT_IN_INPUT: &str = "is not in the input";

/// The records of an output, by id.
fn read_records(path: &Path, inputs: &Inputs) -> Result<HashMap<String, Span>, Error> {
    let mut records = HashMap::new();
    let mut seen = Seen::default();
    let mut strange = None;
    let problems = read_rows(path, |mut row| {
        let id = match row.take("idx")? {
            Value::String(id) => id,
            other => other.to_string(),
        };
        let hash = row.take_optional_string("input_hash")?;
        let why = match inputs.hashes.get(&id) {
            None => Some(NOT_IN_INPUT),
            Some(input) if hash.as_ref() != Some(input) => Some("was made from another input"),
            Some(_) => (inputs.strange)(&id, &row),
        };
        if let Some(why) = why {
            strange.get_or_insert(Error::OtherInput { path: path.to_owned(), id: id.clone(), why });
        }
        seen.insert(id.clone(), &row.place)?;
        records.insert(id, row.span);
        Ok(())
    })?;
    match problems.into_iter().next().map(Error::Damaged).or(strange) {
        None => Ok(records),
        Some(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(seed: &str) -> Settings {
        [("model", "m"), ("seed", seed)].map(|(k, v)| (k.to_owned(), v.to_owned())).into()
    }

    fn inputs() -> Inputs<'static> {
        let hashes = (1..=3).map(|idx| (idx.to_string(), format!("h{idx}"))).collect();
        Inputs { hashes, strange: &|_, _| None }
    }

    fn open(path: &Path, on_mismatch: OnMismatch) -> Result<Output, Error> {
        Output::open(path, &settings("1"), &inputs(), on_mismatch)
    }

    fn row(idx: u32) -> String {
        format!(r#"{{"idx":{idx},"input_hash":"h{idx}"}}"#)
    }

    fn filled(path: &Path, order: &[u32]) -> Output {
        let mut output = open(path, OnMismatch::Refuse).unwrap();
        for &idx in order {
            output.append(idx.to_string(), &row(idx)).unwrap();
        }
        output
    }

    #[test]
    fn records_end_in_the_order_of_the_input() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("new/out.jsonl");
        let output = filled(&path, &[3, 1, 2]);
        std::fs::write(journal_path(&path), "x").unwrap();
        output.finish(&["1", "2", "3"].map(str::to_owned)).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(text, [row(1), row(2), row(3), String::new()].join("\n"));
        assert!(!journal_path(&path).exists());
        let output = open(&path, OnMismatch::Refuse).unwrap();
        assert!(output.contains("3") && !output.contains("4"));
    }

    #[test]
    fn other_settings_are_refused_by_name() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("out.jsonl");
        drop(filled(&path, &[1]));
        let mut other = settings("2");
        other.insert("lang".to_owned(), "en".to_owned());
        let open = |on| Output::open(&path, &other, &inputs(), on);
        let message = open(OnMismatch::Refuse).unwrap_err().to_string();
        assert!(message.contains("lang: was not set, is now \"en\""), "{message}");
        assert!(message.contains("seed: was \"1\", is now \"2\""), "{message}");
        assert!(!message.contains("model") && message.contains("--force"), "{message}");
        let anew = open(OnMismatch::StartOver).unwrap();
        assert!(!anew.contains("1") && anew.discarded().unwrap().contains("deleted"));
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "");
    }

    #[test]
    fn another_name_of_the_same_checkpoint_is_no_other_setting() {
        let settings = |model: &str, checkpoint: Option<&str>| -> Settings {
            let checkpoint = checkpoint.map(|checkpoint| (CHECKPOINT, checkpoint));
            let both = [Some((MODEL, model)), checkpoint].into_iter().flatten();
            both.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
        };
        assert_eq!(changes(&settings("smollm2", Some("c")), &settings("m.gguf", Some("c"))), "");
        for checkpoints in [[Some("c"), Some("d")], [Some("c"), None], [None, None]] {
            let [was, is] = checkpoints;
            let told = changes(&settings("smollm2", was), &settings("m.gguf", is));
            assert!(told.contains("model: was \"smollm2\""), "{told}");
        }
    }

    #[test]
    fn another_address_is_noted_without_a_moment_in_which_nothing_is() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("out.jsonl");
        drop(filled(&path, &[1]));
        let mut before = File::open(meta_path(&path)).unwrap();
        let mut moved = settings("1");
        moved.insert(URL.to_owned(), "http://elsewhere".to_owned());
        let open = || Output::open(&path, &moved, &inputs(), OnMismatch::Refuse);
        assert!(open().unwrap().contains("1"));
        assert_eq!(stored_settings(&path).unwrap(), moved);
        // Whoever had the file open still sees the whole old one.
        let mut old = String::new();
        std::io::Read::read_to_string(&mut before, &mut old).unwrap();
        assert!(!old.contains("elsewhere") && old.ends_with("}\n"), "{old}");
        let names = std::fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name());
        assert!(names.into_iter().all(|name| !name.to_string_lossy().ends_with(".lock")));
    }

    #[test]
    fn only_what_the_same_stage_wrote_is_deleted() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("out.jsonl");
        let of = |stage: &str| {
            let mut settings = settings("1");
            settings.insert("stage".to_owned(), stage.to_owned());
            settings
        };
        let mut output = Output::open(&path, &of("sample"), &inputs(), OnMismatch::Refuse).unwrap();
        output.append("1".to_owned(), &row(1)).unwrap();
        drop(output);
        let refused = Output::open(&path, &of("score"), &inputs(), OnMismatch::StartOver);
        assert!(refused.unwrap_err().to_string().contains("was written by sample"));
        std::fs::remove_file(meta_path(&path)).unwrap();
        let refused = Output::open(&path, &of("sample"), &inputs(), OnMismatch::StartOver);
        assert!(matches!(refused.unwrap_err(), Error::NotOurs { .. }));
        assert_eq!(std::fs::read_to_string(&path).unwrap(), row(1) + "\n");
    }

    #[test]
    fn an_empty_output_takes_any_settings() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("out.jsonl");
        drop(open(&path, OnMismatch::Refuse).unwrap());
        std::fs::write(meta_path(&path), "{\"settings\":{\"se").unwrap();
        assert!(Output::open(&path, &settings("2"), &inputs(), OnMismatch::Refuse).is_ok());
    }

    #[test]
    fn files_of_others_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("out.jsonl");
        std::fs::write(&path, row(1) + "\n").unwrap();
        let refused = open(&path, OnMismatch::Refuse).unwrap_err();
        assert!(matches!(refused, Error::NotOurs { .. }));
        assert_eq!(std::fs::read_to_string(&path).unwrap(), row(1) + "\n");
    }

    #[test]
    fn records_of_other_inputs_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        for (line, why) in [
            (r#"{"idx":9,"input_hash":"h9"}"#, "\"9\" is not in the input"),
            (r#"{"idx":1,"input_hash":"h2"}"#, "\"1\" was made from another input"),
            (r#"{"idx":3,"input_hash":"h3"}"#, "same as on line 1"),
            ("{", "not JSON"),
        ] {
            let path = dir.path().join("out.jsonl");
            drop(filled(&path, &[3]));
            let mut file = std::fs::OpenOptions::new().append(true).open(&path).unwrap();
            file.write_all(format!("{line}\n").as_bytes()).unwrap();
            let message = open(&path, OnMismatch::Refuse).unwrap_err().to_string();
            assert!(message.contains(why), "{message}");
            drop(open(&path, OnMismatch::StartOver).unwrap());
        }
    }

    #[test]
    fn a_folder_is_refused_as_such() {
        let dir = tempfile::tempdir().unwrap();
        let told = open(dir.path(), OnMismatch::StartOver).unwrap_err().to_string();
        assert!(told.contains("is a folder"), "{told}");
    }

    #[test]
    fn one_writer_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("out.jsonl");
        let first = filled(&path, &[1]);
        assert!(matches!(open(&path, OnMismatch::StartOver), Err(Error::Locked { .. })));
        drop(first);
        assert!(open(&path, OnMismatch::Refuse).unwrap().contains("1"));
    }
}

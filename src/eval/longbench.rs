//! LongBench's files: `data/<set>.jsonl` or `<set>.jsonl`, LongBench-E's `<set>_e.jsonl`.

use super::metrics::{Metric, names_paragraph};
use super::prompts::Prompts;
use super::suite::{Bins, Inputs, Item, RowFile, RowPlace, Rows, Set, Suite, text_hash};
use super::tasks::{Protocol, Task};
use crate::pipeline::Error;
use crate::pipeline::jsonl::{Row, RowError, read_rows};
use crate::pipeline::records::input_hash;
use serde_json::Value;
use std::fs::File;
use std::path::{Path, PathBuf};

/// What of LongBench is run.
#[derive(Debug, Clone)]
pub struct Selection {
    pub data: PathBuf,
    pub protocol: Protocol,
    /// LongBench-E.
    pub e: bool,
    /// All that the folder has, if empty.
    pub sets: Vec<String>,
    /// So many good rows of each set at most.
    pub limit: Option<usize>,
}

/// Reads and checks the files; documents stay on disk.
///
/// # Errors
/// [`Error::Tools`] for a set that the protocol or the folder does not have, or a folder without any;
/// [`Error::Io`].
pub fn open(selection: &Selection, prompts: &Prompts) -> Result<Suite, Error> {
    let (tasks, absent) = tasks(selection)?;
    let Selection { protocol, e, limit, .. } = selection;
    let mut reader = Reader { limit: *limit, rows: Rows::default(), items: Vec::new() };
    let (mut sets, mut problems) = (Vec::new(), Vec::new());
    for (task, path) in tasks {
        let Some(prompt) = prompts.get(task.name) else { continue };
        let file = File::open(&path).map_err(Error::io(&path))?;
        let trim = *protocol == Protocol::LongReward;
        let pattern = prompt.pattern.clone();
        reader.rows.files.push(RowFile { path: path.clone(), file, pattern, trim });
        problems.extend(reader.read(task, sets.len(), &path)?);
        sets.push(set(task, *protocol, prompt.max_new_tokens, prompt.pattern.hash()));
    }
    Ok(Suite {
        name: if *e { "longbench-e" } else { "longbench" },
        protocol: protocol.name(),
        sets,
        items: reader.items,
        problems,
        absent,
        bins: Bins::Suite,
        inputs: Inputs::Rows(reader.rows),
        settings: prompts.settings().collect(),
    })
}

fn set(task: &Task, protocol: Protocol, max_new_tokens: usize, prompt: &str) -> Set {
    let own = protocol == Protocol::LongBench;
    let stop = if own { task.stop } else { &[] };
    Set {
        name: task.name.to_owned(),
        class: task.class,
        metric: Some(task.metric),
        first_line: own && task.first_line,
        rubric: task.rubric(),
        max_new_tokens,
        stop: stop.iter().map(|text| (*text).to_owned()).collect(),
        chat_template: task.chat_template || !own,
        prompt: Some(prompt.to_owned()),
    }
}

type Found = Vec<(&'static Task, PathBuf)>;

/// The sets to run, with their files, and the names of those that are not there.
fn tasks(selection: &Selection) -> Result<(Found, Vec<String>), Error> {
    let Selection { data, protocol, e, sets, .. } = selection;
    let unknown = |set: &&String| !protocol.tasks(*e).any(|task| task.name == **set);
    if let Some(set) = sets.iter().find(unknown) {
        let known: Vec<&str> = protocol.tasks(*e).map(|task| task.name).collect();
        let (protocol, known) = (protocol.name(), known.join(", "));
        let why = format!("the protocol {protocol} has no set {set:?}; it has {known}");
        return Err(Error::Tools(why));
    }
    let wanted = |task: &&Task| sets.is_empty() || sets.iter().any(|set| set == task.name);
    let (mut found, mut absent) = (Vec::new(), Vec::new());
    for task in protocol.tasks(*e).filter(wanted) {
        match file_of(data, task.name, *e) {
            Some(path) => found.push((task, path)),
            None => absent.push(task.name.to_owned()),
        }
    }
    let missing = match (found.is_empty(), sets.is_empty()) {
        (false, true) => return Ok((found, absent)),
        (_, false) if absent.is_empty() => return Ok((found, absent)),
        _ => absent.join(", "),
    };
    let (folder, end) = (data.display(), if *e { "_e.jsonl" } else { ".jsonl" });
    Err(Error::Tools(format!(
        "{folder} has no file for {missing}: a set is looked for as data/<set>{end} and <set>{end}"
    )))
}

fn file_of(data: &Path, set: &str, e: bool) -> Option<PathBuf> {
    let name = if e { format!("{set}_e.jsonl") } else { format!("{set}.jsonl") };
    [data.join("data").join(&name), data.join(&name)].into_iter().find(|path| path.is_file())
}

struct Reader {
    limit: Option<usize>,
    rows: Rows,
    items: Vec<Item>,
}

impl Reader {
    fn read(&mut self, task: &Task, set: usize, path: &Path) -> Result<Vec<RowError>, Error> {
        let before = self.items.len();
        read_rows(path, |row| {
            if self.limit.is_some_and(|limit| self.items.len() - before >= limit) {
                return Ok(());
            }
            let (place, span) = (row.place.clone(), row.span);
            let (item, hash) = item(row, task, set)?;
            self.items.push(item);
            self.rows.places.push(RowPlace { file: set, place, span, hash });
            Ok(())
        })
    }
}

/// The item, and the hash of what its prompt is made of.
fn item(mut row: Row, task: &Task, set: usize) -> Result<(Item, String), RowError> {
    let query = row.take_string("input")?;
    let context = row.take_string("context")?;
    if context.trim().is_empty() {
        return Err(row.error(Some("context"), "is empty"));
    }
    let references = strings(&mut row, "answers")?;
    if references.is_empty() {
        return Err(row.error(Some("answers"), "is empty"));
    }
    let classes = match row.fields.get("all_classes") {
        None | Some(Value::Null) => Vec::new(),
        Some(_) => strings(&mut row, "all_classes")?,
    };
    check_answers(&row, task, &references, &classes)?;
    let length = row.take_index("length")?;
    let row_id = row.take_optional_string("_id")?;
    let hash = {
        let length = length.to_string();
        let mut texts = vec![context.as_str(), &query, &length];
        texts.extend(references.iter().chain(&classes).map(String::as_str));
        input_hash(&texts)
    };
    let idx = format!("{}/{}", task.name, row.place.line);
    let (length, examples) = (Some(length), Vec::new());
    let texts = text_hash(&context, &query);
    Ok((Item { idx, set, row_id, query, references, classes, length, examples, hash }, texts))
}

/// What the measure needs must be there.
fn check_answers(
    row: &Row,
    task: &Task,
    references: &[String],
    classes: &[String],
) -> Result<(), RowError> {
    let paragraph = matches!(task.metric, Metric::Retrieval | Metric::RetrievalZh);
    if let Some(answer) = references.iter().find(|one| paragraph && names_paragraph(one).is_none())
    {
        let why = format!("should name a paragraph by its number, but has {answer:?}");
        return Err(row.error(Some("answers"), why));
    }
    if task.metric == Metric::Classification && classes.is_empty() {
        return Err(row.error(Some("all_classes"), "is empty, but the answer is one of them"));
    }
    Ok(())
}

fn strings(row: &mut Row, field: &str) -> Result<Vec<String>, RowError> {
    let value = row.take(field)?;
    let Value::Array(items) = value else {
        return Err(row.wrong_type(field, "an array of strings", &value));
    };
    let text = |item| match item {
        Value::String(text) => Ok(text),
        other => Err(row.wrong_type(field, "an array of strings, all of them", &other)),
    };
    items.into_iter().map(text).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn row(input: &str, answers: &[&str]) -> Value {
        json!({"input": input, "context": "The mill.", "answers": answers, "length": 4100,
               "dataset": "x", "language": "en", "all_classes": null, "_id": "f00"})
    }

    struct Folder(tempfile::TempDir);

    impl Folder {
        fn new() -> Self {
            Self(tempfile::tempdir().unwrap())
        }

        fn write(&self, name: &str, rows: &[Value]) {
            let path = self.0.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            let text: String = rows.iter().map(|row| format!("{row}\n")).collect();
            std::fs::write(path, text).unwrap();
        }

        fn open(&self, protocol: Protocol, e: bool, sets: &[&str]) -> Result<Suite, Error> {
            let data = self.0.path().to_owned();
            let sets = sets.iter().map(|set| (*set).to_owned()).collect();
            let selection = Selection { data, protocol, e, sets, limit: Some(2) };
            open(&selection, &Prompts::load(protocol, None).unwrap())
        }
    }

    #[test]
    fn files_are_found_in_both_places() {
        let folder = Folder::new();
        folder.write(
            "data/qasper.jsonl",
            &[row(" Why? ", &["so"]), row("b", &["c"]), row("d", &["e"])],
        );
        folder.write("lcc.jsonl", &[row("", &["return"])]);
        folder.write("qasper_e.jsonl", &[row("E?", &["e"])]);
        let mut suite = folder.open(Protocol::LongReward, false, &[]).unwrap();
        let names: Vec<&str> = suite.sets.iter().map(|set| set.name.as_str()).collect();
        assert_eq!((names, suite.absent.len()), (vec!["qasper"], 11));
        assert_eq!(
            suite.items.iter().map(|i| i.idx.as_str()).collect::<Vec<_>>(),
            ["qasper/1", "qasper/2"]
        );
        assert_eq!(suite.inputs.load(0).unwrap(), "The mill.\n\nWhy?");
        assert_eq!(suite.items[0].row_id.as_deref(), Some("f00"));
        let mut suite = folder.open(Protocol::LongBench, false, &[]).unwrap();
        assert_eq!(suite.sets.len(), 2);
        assert!(suite.sets[0].chat_template && !suite.sets[1].chat_template);
        assert!(suite.inputs.load(0).unwrap().contains("The question:  Why? \n"));
        assert!(suite.inputs.load(2).unwrap().starts_with("Write the line"));
        let mut suite = folder.open(Protocol::LongReward, true, &[]).unwrap();
        assert_eq!(suite.inputs.load(0).unwrap(), "The mill.\n\nE?");
    }

    #[test]
    fn sets_that_are_not_there_are_named() {
        let folder = Folder::new();
        let error =
            |sets: &[&str]| folder.open(Protocol::LongReward, false, sets).unwrap_err().to_string();
        assert!(error(&["trec"]).contains("has no set \"trec\"; it has narrativeqa, "));
        assert!(error(&[]).contains("no file for narrativeqa, "));
        folder.write("qasper.jsonl", &[]);
        assert!(
            error(&["qasper", "qmsum"])
                .contains("no file for qmsum: a set is looked for as data/<set>.jsonl")
        );
    }

    #[test]
    fn bad_rows_name_their_field() {
        let folder = Folder::new();
        let mut rows = vec![row("q", &[]), row("q", &["nine"]), row("q", &["Paragraph 9"])];
        rows[1]["length"] = json!("4100");
        rows.push(json!({"input": "q", "context": "c", "answers": "a"}));
        rows.push(json!({"input": "q", "context": " ", "answers": ["a"]}));
        rows.push(json!({"input": "q", "context": "c", "answers": ["Paragraph 1"], "length": -1}));
        folder.write("passage_retrieval_en.jsonl", &rows);
        folder.write("trec.jsonl", &[row("q", &["City"])]);
        let suite = folder.open(Protocol::LongBench, false, &[]).unwrap();
        assert_eq!(
            suite.problems.iter().map(RowError::brief).collect::<Vec<_>>(),
            [
                "1 all_classes: is empty, but the answer is one of them",
                "1 answers: is empty",
                "2 answers: should name a paragraph by its number, but has \"nine\"",
                "4 answers: should be an array of strings, but is a string",
                "5 context: is empty",
                "6 length: should be an integer of at least 0, but is the number -1",
            ]
        );
        assert_eq!(suite.items.len(), 1);
    }

    #[test]
    fn a_file_that_changes_meanwhile_is_noticed() {
        let folder = Folder::new();
        folder.write("qasper.jsonl", &[row("q", &["a"])]);
        let mut suite = folder.open(Protocol::LongReward, false, &[]).unwrap();
        for other in [row("Q", &["a"]), json!({"something": "else, which is long".repeat(20)})] {
            folder.write("qasper.jsonl", &[other]);
            assert!(matches!(suite.inputs.load(0), Err(Error::Moved { line: 1, .. })));
        }
    }
}

//! LongBench-Chat's files: `test_cases.json` and `few_shots.json`.

use super::prompts::EXAMPLES;
use super::suite::{Bins, Example, Inputs, Item, Set, Suite};
use super::tasks::{Class, LONG_REPLY, Rubric};
use crate::agree::labels::read_array;
use crate::pipeline::Error;
use crate::pipeline::jsonl::{Row, RowError};
use crate::pipeline::records::input_hash;
use serde::Deserialize;
use serde_json::{Number, Value};
use std::path::Path;

/// An answer in `few_shots.json`.
#[derive(Deserialize)]
struct Rated {
    answer: String,
    score: Score,
}

/// Some are written as texts.
#[derive(Deserialize)]
#[serde(untagged)]
enum Score {
    Number(Number),
    Text(String),
}

/// Reads and checks both files. The examples of a case stand at its `idx` in `few_shots.json`, counted
/// from 1.
///
/// # Errors
/// [`Error::Io`]; [`Error::Tools`] for examples that can't be read.
pub fn open(data: &Path, limit: Option<usize>) -> Result<Suite, Error> {
    let path = data.join("few_shots.json");
    let examples = read_examples(&path)?;
    let path = data.join("test_cases.json");
    let text = std::fs::read_to_string(&path).map_err(Error::io(&path))?;
    let (mut items, mut prompts): (Vec<Item>, Vec<String>) = (Vec::new(), Vec::new());
    let problems = read_array(&path, &text, |row| {
        if limit.is_some_and(|limit| items.len() >= limit) {
            return Ok(());
        }
        let place = row.place.clone();
        let (item, prompt) = case(row, &examples)?;
        if items.iter().any(|other| other.idx == item.idx) {
            return Err(place.error(Some("idx"), "is that of an earlier case"));
        }
        items.push(item);
        prompts.push(prompt);
        Ok(())
    });
    Ok(Suite {
        name: NAME,
        protocol: NAME,
        sets: vec![set()],
        items,
        problems,
        absent: Vec::new(),
        bins: Bins::Tokens,
        inputs: Inputs::Held(prompts),
        settings: vec![("new tokens".to_owned(), LONG_REPLY.to_string())],
    })
}

const NAME: &str = "longbench-chat";

fn set() -> Set {
    Set {
        name: NAME.to_owned(),
        class: Class::Chat,
        metric: None,
        first_line: false,
        rubric: Some(Rubric::Chat),
        max_new_tokens: LONG_REPLY,
        stop: Vec::new(),
        chat_template: true,
        prompt: None,
    }
}

fn read_examples(path: &Path) -> Result<Vec<Vec<Rated>>, Error> {
    let text = std::fs::read_to_string(path).map_err(Error::io(path))?;
    serde_json::from_str(&text).map_err(|why| {
        Error::Tools(format!(
            "{}: should be an array with, for each case, an array of {{\"answer\", \"score\"}}: {why}",
            path.display()
        ))
    })
}

fn case(mut row: Row, examples: &[Vec<Rated>]) -> Result<(Item, String), RowError> {
    let idx = row.take_index("idx")?;
    let prompt = row.take_string("prompt")?;
    if prompt.trim().is_empty() {
        return Err(row.error(Some("prompt"), "is empty"));
    }
    let query = row.take_string("query")?;
    let reference = row.take_string("answer")?;
    let place = idx.checked_sub(1).and_then(|at| usize::try_from(at).ok());
    let examples = place.and_then(|at| examples.get(at)).ok_or_else(|| {
        row.error(Some("idx"), format!("is {idx}, but few_shots.json has 1 to {}", examples.len()))
    })?;
    if examples.len() != EXAMPLES {
        let count = examples.len();
        let why = format!("is {idx}, for which few_shots.json has {count} answers, not {EXAMPLES}");
        return Err(row.error(Some("idx"), why));
    }
    let examples: Vec<Example> = examples.iter().map(example).collect();
    let mut texts = vec![prompt.as_str(), &query, &reference];
    texts.extend(examples.iter().flat_map(|one| [one.answer.as_str(), &one.score]));
    let hash = input_hash(&texts);
    let item = Item {
        idx: format!("{NAME}/{idx}"),
        set: 0,
        row_id: None,
        query,
        references: vec![reference],
        classes: Vec::new(),
        length: None,
        examples,
        hash,
    };
    Ok((item, prompt))
}

fn example(rated: &Rated) -> Example {
    let score = match &rated.score {
        Score::Number(number) => Value::Number(number.clone()).to_string(),
        Score::Text(text) => text.clone(),
    };
    Example { answer: rated.answer.clone(), score }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(dir: &tempfile::TempDir, cases: &str, examples: &str) {
        std::fs::write(dir.path().join("test_cases.json"), cases).unwrap();
        std::fs::write(dir.path().join("few_shots.json"), examples).unwrap();
    }

    const THREE: &str =
        r#"[{"answer":"a","score":1},{"answer":"b","score":"5"},{"answer":"c","score":9.5}]"#;

    #[test]
    fn cases_have_their_examples() {
        let dir = tempfile::tempdir().unwrap();
        let cases = r#"[{"idx":2,"prompt":"doc\n\nq","query":"q","answer":"r"},
            {"idx":1,"prompt":"doc","query":"q","answer":"r"}]"#;
        let other = THREE.replace("\"a\"", "\"x\"");
        write(&dir, cases, &format!("[{THREE},{other}]"));
        let mut suite = open(dir.path(), None).unwrap();
        assert_eq!((suite.items.len(), suite.problems.len()), (2, 0));
        let Item { idx, examples, references, .. } = &suite.items[0];
        assert_eq!((idx.as_str(), references[0].as_str()), ("longbench-chat/2", "r"));
        let scores: Vec<&str> = examples.iter().map(|one| one.score.as_str()).collect();
        assert_eq!((examples[0].answer.as_str(), scores), ("x", vec!["1", "5", "9.5"]));
        assert_eq!(suite.inputs.load(0).unwrap(), "doc\n\nq");
        assert_eq!(open(dir.path(), Some(1)).unwrap().items.len(), 1);
    }

    #[test]
    fn bad_cases_name_their_field() {
        let dir = tempfile::tempdir().unwrap();
        let cases = "[{\"idx\":1,\"prompt\":\" \",\"query\":\"q\",\"answer\":\"r\"},\n\
            {\"idx\":0,\"prompt\":\"p\",\"query\":\"q\",\"answer\":\"r\"},\n\
            {\"idx\":2,\"prompt\":\"p\",\"query\":\"q\",\"answer\":\"r\"},\n\
            {\"idx\":1,\"prompt\":\"p\",\"query\":\"q\",\"answer\":\"r\"},\n\
            {\"idx\":1,\"prompt\":\"p\",\"query\":\"q\",\"answer\":\"r\"},\n\
            {\"idx\":1,\"prompt\":\"p\",\"query\":\"q\"}]";
        write(&dir, cases, &format!("[{THREE},[]]"));
        let suite = open(dir.path(), None).unwrap();
        assert_eq!(
            suite.problems.iter().map(RowError::brief).collect::<Vec<_>>(),
            [
                "1 prompt: is empty",
                "2 idx: is 0, but few_shots.json has 1 to 2",
                "3 idx: is 2, for which few_shots.json has 0 answers, not 3",
                "5 idx: is that of an earlier case",
                "6 answer: is missing",
            ]
        );
        write(&dir, cases, "{}");
        assert!(
            open(dir.path(), None).unwrap_err().to_string().contains("few_shots.json: should be")
        );
    }
}

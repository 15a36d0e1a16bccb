//! Checking a file of scores: a sample of its records is made once more and must come out the same.

use super::Error;
use super::jsonl::{read_rows, read_span, replace};
pub use super::output::changed_settings;
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::Write;
use std::path::Path;

/// A value that came out otherwise.
#[derive(Debug, Clone, PartialEq)]
pub struct Difference {
    /// Place in the record: `details.helpfulness.score`.
    pub field: String,
    /// As it stands in the file; `None` if it is not there.
    pub was: Option<Value>,
    pub is: Option<Value>,
}

/// A record that was made once more.
#[derive(Debug, Clone, PartialEq)]
pub struct Checked {
    pub id: String,
    /// Empty if the records are the same.
    pub differences: Vec<Difference>,
}

/// Writes the rows of `responses` whose records are to be checked to `to`: `count` of those that
/// are in `scored`, chosen by `seed` alone. With early stop a record depends on the other answers to
/// its prompt, so that these are made once more as well (`whole_prompts`).
///
/// # Errors
/// [`Error::Io`]; [`Error::Damaged`] if a line of `scored` is no record; [`Error::Tools`] if no
/// record belongs to a response.
pub fn choose(
    scored: &Path,
    responses: &Path,
    to: &Path,
    count: usize,
    seed: u64,
    whole_prompts: bool,
) -> Result<(), Error> {
    let mut records = HashSet::new();
    each_record(scored, |id, _| _ = records.insert(id))?;
    let mut found = Vec::new();
    read_rows(responses, |mut row| {
        let id = row.take_string("idx")?;
        if records.contains(&id) {
            let prompt = id.rsplit_once('-').map_or(id.as_str(), |(prompt, _)| prompt).to_owned();
            found.push((rank(&id, seed), prompt, row.span));
        }
        Ok(())
    })?;
    if found.is_empty() {
        let (scored, responses) = (scored.display(), responses.display());
        return Err(Error::Tools(format!("{scored}: no record belongs to a row of {responses}")));
    }
    found.sort_unstable_by_key(|(rank, ..)| *rank);
    let rest = found.split_off(count.min(found.len()));
    if whole_prompts {
        let prompts: HashSet<String> = found.iter().map(|(_, prompt, _)| prompt.clone()).collect();
        found.extend(rest.into_iter().filter(|(_, prompt, _)| prompts.contains(prompt)));
    }
    found.sort_unstable_by_key(|(.., span)| span.offset);
    let mut file = File::open(responses).map_err(Error::io(responses))?;
    replace(to, |new| {
        for (.., span) in found {
            let mut line = read_span(&mut file, span).map_err(Error::io(responses))?;
            line.push(b'\n');
            new.write_all(&line).map_err(Error::io(to))?;
        }
        Ok(())
    })
}

/// A place in an order that says nothing about the id.
fn rank(id: &str, seed: u64) -> [u8; 32] {
    Sha256::new().chain_update(seed.to_le_bytes()).chain_update(id).finalize().into()
}

/// Compares the records of `again` with those of `scored`.
///
/// # Errors
/// [`Error::Io`]; [`Error::Damaged`].
pub fn compare(scored: &Path, again: &Path) -> Result<Vec<Checked>, Error> {
    let mut now = HashMap::new();
    each_record(again, |id, record| _ = now.insert(id, record))?;
    // Of a large file only these are held.
    let mut before = HashMap::new();
    each_record(scored, |id, record| {
        if now.contains_key(&id) {
            before.insert(id, record);
        }
    })?;
    let mut all: Vec<Checked> = now
        .into_iter()
        .map(|(id, now)| {
            let mut differences = Vec::new();
            differ(String::new(), before.get(&id), Some(&now), &mut differences);
            Checked { id, differences }
        })
        .collect();
    all.sort_by(|a, b| a.id.cmp(&b.id));
    Ok(all)
}

/// Passes each record of a file on, with its id.
fn each_record(path: &Path, mut take: impl FnMut(String, Value)) -> Result<(), Error> {
    let problems = read_rows(path, |mut row| {
        let id = row.take_string("idx")?;
        take(id, Value::Object(row.fields));
        Ok(())
    })?;
    match problems.into_iter().next() {
        None => Ok(()),
        Some(problem) => Err(Error::Damaged(problem)),
    }
}

fn differ(field: String, was: Option<&Value>, is: Option<&Value>, all: &mut Vec<Difference>) {
    let within = |name: &str| match field.is_empty() {
        true => name.to_owned(),
        false => format!("{field}.{name}"),
    };
    match (was, is) {
        (was, is) if was == is => {}
        (Some(Value::Object(a)), Some(Value::Object(b))) => {
            let added = b.keys().filter(|name| !a.contains_key(*name));
            for name in a.keys().chain(added) {
                differ(within(name), a.get(name), b.get(name), all);
            }
        }
        (Some(Value::Array(a)), Some(Value::Array(b))) => {
            for i in 0..a.len().max(b.len()) {
                differ(within(&i.to_string()), a.get(i), b.get(i), all);
            }
        }
        (was, is) => all.push(Difference { field, was: was.cloned(), is: is.cloned() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn lines(path: &Path, rows: &[Value]) {
        let text: String = rows.iter().map(|row| format!("{row}\n")).collect();
        std::fs::write(path, text).unwrap();
    }

    #[test]
    fn a_sample_depends_on_the_seed_and_on_what_was_scored() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        let row = |k: u64| json!({"idx": format!("1-{k}"), "answer": "a"});
        lines(&path("responses"), &(0..40).map(row).collect::<Vec<_>>());
        lines(&path("scored"), &(10..30).map(row).collect::<Vec<_>>());
        let sample = |seed| {
            choose(&path("scored"), &path("responses"), &path("to"), 5, seed, false).unwrap();
            std::fs::read_to_string(path("to")).unwrap()
        };
        let first = sample(1);
        assert_eq!(first.lines().count(), 5);
        assert_eq!(sample(1), first);
        assert_ne!(sample(2), first);
        for line in first.lines() {
            let row: Value = serde_json::from_str(line).unwrap();
            let k: u64 = row["idx"].as_str().unwrap()[2..].parse().unwrap();
            assert!((10..30).contains(&k), "{k}");
        }
        lines(&path("scored"), &[json!({"idx": "7-0"})]);
        let error =
            choose(&path("scored"), &path("responses"), &path("to"), 5, 1, false).unwrap_err();
        assert!(error.to_string().contains("no record belongs to a row"), "{error}");
    }

    #[test]
    fn a_sample_takes_whole_prompts_where_answers_depend_on_each_other() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        let row = |i: u64| json!({"idx": format!("{}-{}", i / 4, i % 4), "answer": "a"});
        let rows: Vec<Value> = (0..40).map(row).collect();
        lines(&path("responses"), &rows);
        lines(&path("scored"), &rows);
        choose(&path("scored"), &path("responses"), &path("to"), 1, 3, true).unwrap();
        let text = std::fs::read_to_string(path("to")).unwrap();
        let prompt = |line: &str| line.split('-').next().unwrap().to_owned();
        assert_eq!(text.lines().count(), 4);
        assert!(text.lines().all(|line| prompt(line) == prompt(text.lines().next().unwrap())));
    }

    #[test]
    fn differences_are_named_by_their_place() {
        let dir = tempfile::tempdir().unwrap();
        let (before, now) = (dir.path().join("a"), dir.path().join("b"));
        let same = json!({"idx": "1-0", "scores": {"total": 8.0}});
        let old =
            json!({"idx": "1-1", "scores": {"total": 8}, "details": [{"x": 1}, 2], "gone": 1});
        let new = json!({"idx": "1-1", "scores": {"total": 9}, "details": [{"x": 1}, 3, 4]});
        lines(&before, &[old, same.clone()]);
        lines(&now, &[new, same]);
        let checked = compare(&before, &now).unwrap();
        assert_eq!(checked[0], Checked { id: "1-0".into(), differences: Vec::new() });
        let shown: Vec<String> = checked[1]
            .differences
            .iter()
            .map(|d| format!("{} {:?} {:?}", d.field, d.was, d.is))
            .collect();
        assert_eq!(
            shown,
            [
                "scores.total Some(Number(8)) Some(Number(9))",
                "details.1 Some(Number(2)) Some(Number(3))",
                "details.2 None Some(Number(4))",
                "gone Some(Number(1)) None",
            ]
        );
    }
}

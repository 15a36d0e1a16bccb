//! `OUT.journal`: each finished unit of work (a verdict, a sampled text) is one line, so that a
//! killed run loses at most what was in flight. The first line holds the settings.

use super::jsonl::{Appender, Row, Span, parse_span, read_rows, read_span};
use super::output::{Settings, check_settings, journal_path};
use super::{Error, jsonl::Place};
use crate::chat::Finish;
use crate::judge::Verdict;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::fs::File;
use std::path::{Path, PathBuf};

/// The result of a unit of work.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Finding {
    Verdict(Verdict),
    Sample { text: String, finish: Finish },
}

impl Finding {
    /// The verdict, if it is one; the error says that it is none.
    pub fn verdict(self) -> Result<Verdict, String> {
        match self {
            Finding::Verdict(verdict) => Ok(verdict),
            Finding::Sample { .. } => Err("a sampled text stands where a verdict should".into()),
        }
    }
}

#[derive(Serialize)]
struct Header<'a> {
    settings: &'a Settings,
}

#[derive(Serialize)]
struct Entry<'a> {
    unit: &'a str,
    call: &'a str,
    finding: &'a Finding,
}

/// The journal of one output, which must be open (and so locked) as long as this is.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    appender: Appender,
    /// Where the findings of an earlier run lie, by unit; findings of this run are not needed.
    found: HashMap<String, Found>,
}

#[derive(Debug)]
struct Found {
    place: Place,
    span: Span,
    /// The hash of the unit's first call: a finding for another call is of no use.
    call: String,
}

impl Journal {
    /// Opens or makes the journal of `out`. A torn last line is cut off.
    ///
    /// # Errors
    /// [`Error::Settings`] if it was begun with other settings; [`Error::Damaged`];
    /// [`Error::Io`].
    pub fn open(out: &Path, settings: &Settings) -> Result<Self, Error> {
        let path = journal_path(out);
        let mut appender = Appender::open(&path)?;
        if appender.is_empty() {
            appender.append(&json(&Header { settings })?)?;
        }
        let found = read_findings(&path, settings)?;
        Ok(Self { path, appender, found })
    }

    /// The finding of an earlier run for a unit whose first call has the hash `call`.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::Damaged`].
    pub fn take(&mut self, unit: &str, call: &str) -> Result<Option<Finding>, Error> {
        let Some(found) = self.found.remove(unit).filter(|found| found.call == call) else {
            return Ok(None);
        };
        let mut file = File::open(&self.path).map_err(Error::io(&self.path))?;
        let bytes = read_span(&mut file, found.span).map_err(Error::io(&self.path))?;
        let row = parse_span(&found.place, found.span, bytes);
        row.and_then(|row| row.map(finding).transpose()).map_err(Error::Damaged)
    }

    /// Notes a finding. It is on disk after the next [`sync`](Journal::sync).
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn add(&mut self, unit: &str, call: &str, finding: &Finding) -> Result<(), Error> {
        self.appender.append(&json(&Entry { unit, call, finding })?)
    }

    /// # Errors
    /// [`Error::Io`].
    pub fn sync(&mut self) -> Result<(), Error> {
        self.appender.sync()
    }
}

/// A record's JSON.
pub(super) fn json(record: &impl Serialize) -> Result<String, Error> {
    serde_json::to_string(record).map_err(|e| Error::Tools(format!("a record is no JSON: {e}")))
}

fn finding(mut row: Row) -> Result<Finding, super::jsonl::RowError> {
    let value = row.take("finding")?;
    serde_json::from_value(value).map_err(|e| row.error(Some("finding"), e.to_string()))
}

fn read_findings(path: &Path, settings: &Settings) -> Result<HashMap<String, Found>, Error> {
    let mut found = HashMap::new();
    let mut checked = Ok(());
    let problems = read_rows(path, |mut row| {
        if row.place.line == 1 {
            let stored = row.take("settings")?;
            let stored: Settings = serde_json::from_value(stored)
                .map_err(|e| row.error(Some("settings"), e.to_string()))?;
            checked = check_settings(path, &stored, settings);
            return Ok(());
        }
        let (unit, call) = (row.take_string("unit")?, row.take_string("call")?);
        found.insert(unit, Found { place: row.place, span: row.span, call });
        Ok(())
    })?;
    checked?;
    match problems.into_iter().next() {
        None => Ok(found),
        Some(problem) => Err(Error::Damaged(problem)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(text: &str) -> Finding {
        Finding::Sample { text: text.to_owned(), finish: Finish::Stop }
    }

    fn settings(seed: &str) -> Settings {
        [("seed".to_owned(), seed.to_owned())].into()
    }

    #[test]
    fn findings_come_back_for_the_same_call_alone() {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("out.jsonl");
        let mut journal = Journal::open(&out, &settings("1")).unwrap();
        journal.add("1-0", "aa", &sample("x")).unwrap();
        journal.add("1-1", "bb", &sample("y\n")).unwrap();
        journal.add("1-1", "cc", &sample("z\n")).unwrap();
        let mut journal = Journal::open(&out, &settings("1")).unwrap();
        assert_eq!(journal.take("1-0", "other").unwrap(), None);
        assert_eq!(journal.take("1-1", "cc").unwrap(), Some(sample("z\n")));
        assert_eq!(journal.take("1-2", "dd").unwrap(), None);
    }

    #[test]
    fn a_torn_journal_keeps_its_whole_lines() {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("out.jsonl");
        let mut journal = Journal::open(&out, &settings("1")).unwrap();
        journal.add("1-0", "aa", &sample("x")).unwrap();
        journal.add("1-1", "bb", &sample("汉字")).unwrap();
        let whole = std::fs::read(journal_path(&out)).unwrap();
        let lines: Vec<usize> =
            whole.iter().enumerate().filter(|(_, b)| **b == b'\n').map(|(i, _)| i + 1).collect();
        for cut in 0..=whole.len() {
            std::fs::write(journal_path(&out), &whole[..cut]).unwrap();
            let mut journal = Journal::open(&out, &settings("1")).unwrap();
            let kept = |line: usize| cut >= lines[line];
            assert_eq!(journal.take("1-0", "aa").unwrap().is_some(), kept(1), "{cut}");
            assert_eq!(journal.take("1-1", "bb").unwrap().is_some(), kept(2), "{cut}");
        }
    }

    #[test]
    fn other_settings_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("out.jsonl");
        drop(Journal::open(&out, &settings("1")).unwrap());
        let message = Journal::open(&out, &settings("2")).unwrap_err().to_string();
        assert!(message.contains("seed: was \"1\", is now \"2\""), "{message}");
    }
}

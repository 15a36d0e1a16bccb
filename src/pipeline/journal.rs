//! `OUT.journal`: each reply of the model is one line, so that a killed run loses at most the calls
//! that were in flight. The first line holds the settings.
//!
//! A reply is found again by the hash of its call, seed and prompt included. What a unit makes of
//! its replies is not kept: it is worked out again from them.

use super::Error;
use super::jsonl::{Appender, Place, Row, RowError, Span, parse_span, read_rows, read_span};
use super::output::{Settings, check_settings, journal_path};
use crate::chat::Reply;
use crate::chat::kept::Kept;
use serde::Serialize;
use std::collections::HashMap;
use std::fs::File;
use std::path::{Path, PathBuf};

#[derive(Serialize)]
struct Header<'a> {
    settings: &'a Settings,
}

#[derive(Serialize)]
struct Entry<'a> {
    /// For people who look into the file.
    unit: &'a str,
    call: &'a str,
    reply: Kept,
}

/// The journal of one output, which must be open (and so locked) as long as this is.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    appender: Appender,
    /// Where the replies of earlier runs lie, by the hash of their call; those of this run are not
    /// asked for again.
    replies: HashMap<String, (Place, Span)>,
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
        let replies = read_replies(&path, settings)?;
        Ok(Self { path, appender, replies })
    }

    /// What an earlier run was told on the call of this hash.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::Damaged`].
    pub fn get(&self, call: &str) -> Result<Option<Reply>, Error> {
        let Some((place, span)) = self.replies.get(call) else { return Ok(None) };
        let mut file = File::open(&self.path).map_err(Error::io(&self.path))?;
        let bytes = read_span(&mut file, *span).map_err(Error::io(&self.path))?;
        let row = parse_span(place, *span, bytes);
        row.and_then(|row| row.map(reply).transpose()).map_err(Error::Damaged)
    }

    /// Notes a reply. It is on disk after the next [`sync`](Journal::sync).
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn add(&mut self, unit: &str, call: &str, reply: &Reply) -> Result<(), Error> {
        self.appender.append(&json(&Entry { unit, call, reply: reply.into() })?)
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

fn reply(mut row: Row) -> Result<Reply, RowError> {
    let value = row.take("reply")?;
    let error = |why: String| row.error(Some("reply"), why);
    let kept: Kept = serde_json::from_value(value).map_err(|e| error(e.to_string()))?;
    kept.try_into().map_err(|e: std::num::ParseFloatError| error(e.to_string()))
}

fn read_replies(path: &Path, settings: &Settings) -> Result<HashMap<String, (Place, Span)>, Error> {
    let mut replies = HashMap::new();
    let mut checked = Ok(());
    let problems = read_rows(path, |mut row| {
        if row.place.line == 1 {
            let stored = row.take("settings")?;
            let stored: Settings = serde_json::from_value(stored)
                .map_err(|e| row.error(Some("settings"), e.to_string()))?;
            checked = check_settings(path, &stored, settings);
            return Ok(());
        }
        replies.insert(row.take_string("call")?, (row.place, row.span));
        Ok(())
    })?;
    checked?;
    match problems.into_iter().next() {
        None => Ok(replies),
        Some(problem) => Err(Error::Damaged(problem)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chat::{Finish, Usage};

    fn text(text: &str) -> Reply {
        let (text, usage) = (text.to_owned(), Usage::default());
        Reply::Text { text, finish: Finish::Stop, usage }
    }

    fn settings(seed: &str) -> Settings {
        [("seed".to_owned(), seed.to_owned())].into()
    }

    #[test]
    fn replies_come_back_exactly() {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("out.jsonl");
        let logprobs = vec![-1.0 / 3.0, f64::NEG_INFINITY, -0.1 - 0.2, -1e-300];
        let scores = Reply::Scores { logprobs, usage: Usage::default() };
        let mut journal = Journal::open(&out, &settings("1")).unwrap();
        journal.add("1-0", "aa", &text("x")).unwrap();
        journal.add("1-1", "bb", &text("y\n汉\u{0}")).unwrap();
        journal.add("1-1", "cc", &scores).unwrap();
        let journal = Journal::open(&out, &settings("1")).unwrap();
        assert_eq!(journal.get("bb").unwrap(), Some(text("y\n汉\u{0}")));
        assert_eq!(journal.get("cc").unwrap(), Some(scores));
        assert_eq!(journal.get("dd").unwrap(), None);
    }

    #[test]
    fn a_torn_journal_keeps_its_whole_lines() {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("out.jsonl");
        let mut journal = Journal::open(&out, &settings("1")).unwrap();
        journal.add("1-0", "aa", &text("x")).unwrap();
        journal.add("1-1", "bb", &text("汉字")).unwrap();
        let whole = std::fs::read(journal_path(&out)).unwrap();
        let ends = whole.iter().enumerate().filter(|(_, byte)| **byte == b'\n');
        let ends: Vec<usize> = ends.map(|(at, _)| at + 1).collect();
        for cut in 0..=whole.len() {
            std::fs::write(journal_path(&out), &whole[..cut]).unwrap();
            let journal = Journal::open(&out, &settings("1")).unwrap();
            for (call, line) in [("aa", 1), ("bb", 2)] {
                let there = journal.get(call).unwrap().is_some();
                assert_eq!(there, cut >= ends[line], "{call}, cut at {cut}");
            }
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

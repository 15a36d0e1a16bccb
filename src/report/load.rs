//! The result files, checked and grouped by prompt.
//!
//! Documents are read one after the other and not held: a page needs a document's length and where
//! the passages stand in it. A passage that many statements rest on is held once.

use super::candidate::{Candidate, SCORES, Verdicts};
use super::locate::{Position, locate};
use super::pairs::{Pair, read_pairs};
use super::{Error, Options};
use crate::judge::{Completeness, Dimension, Evidence};
use crate::pipeline::Cost;
use crate::pipeline::data::{Prompts, Seen, prompt_of, read_chunk_info};
use crate::pipeline::jsonl::{Place, Row, RowError, read_rows};
use crate::pipeline::records::{ChunkInfo, Details, EarlyStop, SampleId, ScoreBy};
use serde::Serialize;
use serde_json::{Map, Value};
use std::collections::HashMap;
use std::path::Path;

/// All that a report shows.
#[derive(Debug)]
pub struct Input {
    /// Prompts with a scored candidate, in the order of the data.
    pub prompts: Vec<Prompt>,
    /// Good rows of the data, those without a candidate included.
    pub prompts_in_data: usize,
    /// `None` without a file of pairs.
    pub pairs: Option<Vec<Pair>>,
    /// What the scores were made with, by name: the settings beside the scored file, if they are.
    pub settings: Vec<(String, String)>,
    /// What the scores took, if that is known.
    pub cost: Option<Cost>,
    /// Bad rows of all files.
    pub problems: Vec<RowError>,
}

/// A prompt with its candidates, in the order of their ids.
#[derive(Debug, Default)]
pub struct Prompt {
    pub idx: u64,
    pub query: String,
    /// Characters of the document.
    pub chars: usize,
    pub passages: Vec<Passage>,
    /// The different lists of extracts that candidates were judged by: one, as a rule.
    pub extracts: Vec<Vec<Extract>>,
    pub candidates: Vec<Candidate>,
}

/// A chunk of the document that statements were checked against.
#[derive(Debug, Serialize)]
pub struct Passage {
    /// The chunk's number in the document, from 0.
    pub number: usize,
    pub text: String,
    /// First token, token after the last, tokens of the document.
    pub tokens: [usize; 3],
    pub position: Position,
}

/// What a chunk of the document says on the question.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Extract {
    /// `0% - 12%`.
    pub place: String,
    pub text: String,
    pub forced: bool,
    /// By its budget.
    pub cut: bool,
}

impl Input {
    /// All candidates, in the order in which they stand on the page.
    pub fn candidates(&self) -> impl Iterator<Item = &Candidate> {
        self.prompts.iter().flat_map(|prompt| &prompt.candidates)
    }
}

/// Reads all files.
///
/// # Errors
/// A file that can't be read; no scored row that can be shown.
pub fn load(options: &Options) -> Result<Input, Error> {
    let (mut prompts, mut problems) = Prompts::open(&options.data)?;
    let (scored, more) = read_scored(&options.scored, &prompts)?;
    problems.extend(more);
    let mut chunk_info = HashMap::new();
    if let Some(path) = &options.chunk_info {
        let (entries, more) = read_chunk_info(path, &prompts)?;
        chunk_info = entries;
        problems.extend(more);
    }
    let mut shown = Vec::new();
    for (position, rows) in scored.into_iter().enumerate().filter(|(_, rows)| !rows.is_empty()) {
        let prompt = prompts.load(position)?;
        let info = chunk_info.get(&prompt.idx);
        shown.push(group(prompt.idx, prompt.query, &prompt.context, rows, info));
    }
    if shown.is_empty() {
        return Err(nothing(&options.scored, &problems));
    }
    let mut pairs = None;
    if let Some(path) = &options.pairs {
        let (found, more) = read_pairs(path, &shown)?;
        pairs = Some(found);
        problems.extend(more);
    }
    let settings = settings(&options.scored);
    let prompts_in_data = prompts.rows().len();
    let cost = Cost::read(&options.scored);
    Ok(Input { prompts: shown, prompts_in_data, pairs, settings, cost, problems })
}

fn nothing(scored: &Path, problems: &[RowError]) -> Error {
    const SHOWN: usize = 10;
    let lines = problems.iter().take(SHOWN).map(|problem| format!("\n  {problem}"));
    Error::NothingToShow { path: scored.to_owned(), problems: lines.collect() }
}

/// A row of `scored_responses.jsonl`.
#[derive(Debug)]
struct ScoredRow {
    id: SampleId,
    answer: String,
    scores: [Option<f64>; 5],
    stopped: Option<EarlyStop>,
    cut: bool,
    details: Details,
}

/// The rows by position of their prompt.
fn read_scored(
    path: &Path,
    prompts: &Prompts,
) -> Result<(Vec<Vec<ScoredRow>>, Vec<RowError>), Error> {
    let mut rows: Vec<Vec<ScoredRow>> = prompts.rows().iter().map(|_| Vec::new()).collect();
    let mut seen = Seen::default();
    let problems = read_rows(path, |mut row| {
        let place = row.place.clone();
        let query = row.take_string("query")?;
        let scored = scored_row(row)?;
        prompt_of(prompts, scored.id.prompt, &query, &place)?;
        seen.insert(scored.id, &place)?;
        if let Some(position) = prompts.position(scored.id.prompt) {
            rows[position].push(scored);
        }
        Ok(())
    })?;
    Ok((rows, problems))
}

fn scored_row(mut row: Row) -> Result<ScoredRow, RowError> {
    let text = row.take_string("idx")?;
    let id = text.parse().map_err(|why: String| row.error(Some("idx"), why))?;
    let answer = row.take_string("answer")?;
    let stopped = EarlyStop::take(&mut row)?;
    let scores = row.take_object("scores")?;
    let details = Details::take(&mut row)?;
    let found = details.scores(ScoreBy::Rating);
    let mut read = [None; 5];
    for (i, (score, (name, most))) in read.iter_mut().zip(SCORES).enumerate() {
        if is_skipped(stopped.as_ref(), i) {
            continue;
        }
        if found.get(i).is_some_and(Option::is_none) {
            return Err(row.error(Some(&format!("details.{name}")), "is missing"));
        }
        *score = Some(read_score(&scores, name, most, &row.place)?);
    }
    let cut = row.fields.get("finish").and_then(Value::as_str) == Some("length");
    Ok(ScoredRow { id, answer, scores: read, stopped, cut, details })
}

/// Whether an answer that was stopped early lacks the score at this place.
fn is_skipped(stopped: Option<&EarlyStop>, score: usize) -> bool {
    let lacks = |stopped: &EarlyStop| match Dimension::ALL.get(score) {
        Some(dimension) => stopped.skipped.contains(dimension),
        None => true,
    };
    stopped.is_some_and(lacks)
}

fn read_score(
    scores: &Map<String, Value>,
    name: &str,
    most: f64,
    place: &Place,
) -> Result<f64, RowError> {
    let field = format!("scores.{name}");
    let error = |message: String| place.error(Some(&field), message);
    let number = scores.get(name).and_then(Value::as_f64);
    let number = number.ok_or_else(|| error("should be a number".to_owned()))?;
    match (0.0..=most).contains(&number) {
        true => Ok(number),
        false => Err(error(format!("should be 0 to {most}, but is {number}"))),
    }
}

/// A prompt with its rows, told apart from its document.
fn group(
    idx: u64,
    query: String,
    context: &str,
    mut rows: Vec<ScoredRow>,
    info: Option<&ChunkInfo>,
) -> Prompt {
    rows.sort_by_key(|row| row.id);
    let chars = context.chars().count();
    let mut prompt = Prompt { idx, query, chars, ..Prompt::default() };
    let mut known = HashMap::new();
    for row in rows {
        let ScoredRow { id, answer, scores, stopped, cut, details } = row;
        let forced = details.forced();
        let list = details.completeness.as_ref().map(|found| extracts(found, info));
        let list = list.map(|list| position_or_push(&mut prompt.extracts, list));
        let passage = |evidence| number_of(evidence, context, &mut known, &mut prompt.passages);
        let verdicts = Verdicts::new(details, stopped.clone(), list, passage);
        let candidate = Candidate { id, answer, scores, stopped, forced, cut, verdicts };
        prompt.candidates.push(candidate);
    }
    prompt
}

/// The extracts that a row holds, else those of the file of extracts.
fn extracts(completeness: &Completeness, info: Option<&ChunkInfo>) -> Vec<Extract> {
    let own = &completeness.info_list;
    let (list, forced, cut) = match info {
        Some(info) if own.is_empty() => (&info.info_list, &info.forced, &info.cut),
        _ => (own, &completeness.forced_extracts, &completeness.cut_extracts),
    };
    let extract = |(place, text): (&String, &Value)| Extract {
        place: place.clone(),
        text: text.as_str().unwrap_or_default().to_owned(),
        forced: forced.contains(place),
        cut: cut.contains(place),
    };
    list.iter().map(extract).collect()
}

fn position_or_push<T: PartialEq>(list: &mut Vec<T>, item: T) -> usize {
    let found = list.iter().position(|other| *other == item);
    found.unwrap_or_else(|| {
        list.push(item);
        list.len() - 1
    })
}

/// The number of a passage among those of its prompt; a new one is looked up in the document.
fn number_of(
    evidence: Evidence,
    context: &str,
    known: &mut HashMap<(usize, String), usize>,
    passages: &mut Vec<Passage>,
) -> usize {
    let Evidence { c_idx, content, start_idx, end_idx, total_token } = evidence;
    *known.entry((c_idx, content)).or_insert_with_key(|(_, content)| {
        let tokens = [start_idx, end_idx, total_token];
        let position = locate(context, content, tokens);
        passages.push(Passage { number: c_idx, text: content.clone(), tokens, position });
        passages.len() - 1
    })
}

/// The settings in `SCORED.meta.json`; none where there is no such file, as beside files of other
/// programs.
fn settings(scored: &Path) -> Vec<(String, String)> {
    let mut name = scored.as_os_str().to_owned();
    name.push(".meta.json");
    let text = std::fs::read_to_string(name).unwrap_or_default();
    let meta: Map<String, Value> = serde_json::from_str(&text).unwrap_or_default();
    let Some(Value::Object(settings)) = meta.get("settings") else { return Vec::new() };
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    settings.iter().map(|(name, value)| (name.clone(), text(value))).collect()
}

//! The result files, checked and grouped by prompt.
//!
//! Documents are read one after the other and not held: a page needs a document's length and where
//! the passages stand in it. A passage that many statements rest on is held once.

use super::locate::{Position, locate};
use super::pairs::{Pair, read_pairs};
use super::{Error, Options};
use crate::judge::{Evidence, Faithfulness, Rated, Supported};
use crate::pipeline::data::{Prompts, Seen, prompt_of, read_chunk_info};
use crate::pipeline::jsonl::{Place, Row, RowError, read_rows};
use crate::pipeline::records::{ChunkInfo, CompletenessDetails, Details, EarlyStop, SampleId};
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
}

/// A scored answer.
#[derive(Debug)]
pub struct Candidate {
    pub id: SampleId,
    pub answer: String,
    /// Helpfulness, logicality, faithfulness, completeness, total.
    pub scores: [f64; 5],
    /// Whether any of its verdicts was forced.
    pub forced: bool,
    /// Whether the answer says that it was cut off.
    pub cut: bool,
    pub verdicts: Verdicts,
}

/// What the scores rest on.
#[derive(Debug, Serialize)]
pub struct Verdicts {
    pub helpfulness: Rated,
    pub logicality: Rated,
    pub completeness: Rated,
    /// Which of the prompt's lists of extracts.
    pub extracts: usize,
    pub faithfulness: Listing,
    pub statements: Vec<Statement>,
}

/// Faithfulness but for the statements themselves.
#[derive(Debug, Serialize)]
pub struct Listing {
    pub analysis: String,
    pub attempts: u32,
    pub forced: bool,
    pub no_statements: bool,
    pub expected: Option<f64>,
}

/// A statement, its evidence given by number.
#[derive(Debug, Serialize)]
pub struct Statement {
    pub fact: String,
    pub analysis: String,
    /// 1 fully, 0.5 partially, 0 not supported.
    pub score: f64,
    pub attempts: u32,
    pub forced: bool,
    /// Probabilities of fully, partially, not supported.
    pub distribution: Vec<f64>,
    pub expected: Option<f64>,
    /// Which of the prompt's passages.
    pub passages: Vec<usize>,
}

impl Input {
    /// All candidates, in the order in which they stand on the page.
    pub fn candidates(&self) -> impl Iterator<Item = &Candidate> {
        self.prompts.iter().flat_map(|prompt| &prompt.candidates)
    }
}

impl Candidate {
    /// Characters of the answer.
    pub fn chars(&self) -> usize {
        self.answer.chars().count()
    }

    /// The replies that all verdicts took.
    pub fn replies(&self) -> u32 {
        let Verdicts { helpfulness, logicality, completeness, faithfulness, statements, .. } =
            &self.verdicts;
        let rated: u32 = [helpfulness, logicality, completeness].iter().map(|r| r.attempts).sum();
        let checked: u32 = statements.iter().map(|statement| statement.attempts).sum();
        rated + faithfulness.attempts + checked
    }

    /// How many statements have this degree of support.
    pub fn supported(&self, score: f64) -> usize {
        self.verdicts.statements.iter().filter(|statement| statement.score == score).count()
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
    Ok(Input { prompts: shown, prompts_in_data, pairs, settings, problems })
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
    scores: [f64; 5],
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
        if EarlyStop::is_in(&row) {
            return Err(row.error(Some("early_stop"), "passed this answer over: it has no total"));
        }
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
    let scores = row.take_object("scores")?;
    let scores = read_scores(&scores, &row.place)?;
    let details = row.take("details")?;
    let details = serde_json::from_value(details).map_err(|e| {
        row.error(Some("details"), format!("is not as this program writes it: {e}"))
    })?;
    let cut = row.fields.get("finish").and_then(Value::as_str) == Some("length");
    Ok(ScoredRow { id, answer, scores, cut, details })
}

fn read_scores(scores: &Map<String, Value>, place: &Place) -> Result<[f64; 5], RowError> {
    let mut read = [0.0; 5];
    for (value, (name, most)) in read.iter_mut().zip(SCORES) {
        let field = format!("scores.{name}");
        let error = |message: String| place.error(Some(&field), message);
        let number = scores.get(name).and_then(Value::as_f64);
        let number = number.ok_or_else(|| error("should be a number".to_owned()))?;
        if !(0.0..=most).contains(&number) {
            return Err(error(format!("should be 0 to {most}, but is {number}")));
        }
        *value = number;
    }
    Ok(read)
}

/// Scores and their largest values, in the order of [`Candidate::scores`].
pub const SCORES: [(&str, f64); 5] = [
    ("helpfulness", 10.0),
    ("logicality", 10.0),
    ("faithfulness", 10.0),
    ("completeness", 10.0),
    ("total", 40.0),
];

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
        let passage = |evidence: Evidence, prompt: &mut Prompt| {
            number_of(evidence, context, &mut known, &mut prompt.passages)
        };
        let candidate = candidate(row, info, &mut prompt, passage);
        prompt.candidates.push(candidate);
    }
    prompt
}

fn candidate(
    row: ScoredRow,
    info: Option<&ChunkInfo>,
    prompt: &mut Prompt,
    mut passage: impl FnMut(Evidence, &mut Prompt) -> usize,
) -> Candidate {
    let ScoredRow { id, answer, scores, cut, details } = row;
    let forced = details.forced();
    let Details { helpfulness, logicality, faithfulness, completeness } = details;
    let extracts = extracts(&completeness, info);
    let extracts = position_or_push(&mut prompt.extracts, extracts);
    let Faithfulness { analysis, attempts, forced: listed, no_statements, expected, .. } =
        faithfulness;
    let listing = Listing { analysis, attempts, forced: listed, no_statements, expected };
    let statements = faithfulness.details.into_iter().map(|supported| {
        let Supported { fact, analysis, score, attempts, forced, expected, .. } = supported;
        let distribution = rounded(supported.distribution);
        let passages = supported.evidences.into_iter().map(|e| passage(e, prompt)).collect();
        Statement { fact, analysis, score, attempts, forced, distribution, expected, passages }
    });
    let statements = statements.collect();
    let verdicts = Verdicts {
        helpfulness: compact(helpfulness),
        logicality: compact(logicality),
        completeness: compact(completeness.completeness.rated),
        extracts,
        faithfulness: listing,
        statements,
    };
    Candidate { id, answer, scores, forced, cut, verdicts }
}

/// As many digits as a screen can show.
fn rounded(distribution: Vec<f64>) -> Vec<f64> {
    distribution.into_iter().map(|p| (p * 1e4).round() / 1e4).collect()
}

fn compact(rated: Rated) -> Rated {
    Rated { distribution: rounded(rated.distribution), ..rated }
}

/// The extracts that a row holds, else those of the file of extracts.
fn extracts(completeness: &CompletenessDetails, info: Option<&ChunkInfo>) -> Vec<Extract> {
    let own = &completeness.completeness.info_list;
    let (list, forced) = match info {
        Some(info) if own.is_empty() => (&info.info_list, &info.forced),
        _ => (own, &completeness.forced_extracts),
    };
    let extract = |(place, text): (&String, &Value)| Extract {
        place: place.clone(),
        text: text.as_str().unwrap_or_default().to_owned(),
        forced: forced.contains(place),
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

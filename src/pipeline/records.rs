//! The rows on disk: names and types as in LongReward's own files. Extra fields are welcome in all
//! of them.

use super::jsonl::{Row, RowError};
use crate::chat::{Finish, Message, Role};
use crate::hexadecimal::hexadecimal;
use crate::judge::{Calibrations, Completeness, Dimension, Faithfulness, Rated, rounded};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize, Serializer};
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};
use std::fmt;
use std::str::FromStr;

/// Fields that a row has besides the ones that we know, in their order.
pub type Extra = Map<String, Value>;

/// Names a response: `"<prompt idx>-<k>"`, k from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SampleId {
    pub prompt: u64,
    pub k: u64,
}

impl fmt::Display for SampleId {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{}-{}", self.prompt, self.k)
    }
}

impl FromStr for SampleId {
    type Err = String;

    /// Each id has one spelling, so `"07-1"` and `"7-+1"` are refused.
    fn from_str(text: &str) -> Result<Self, String> {
        let id = text.split_once('-').and_then(|(prompt, k)| {
            Some(Self { prompt: prompt.parse().ok()?, k: k.parse().ok()? })
        });
        id.filter(|id| id.to_string() == text)
            .ok_or_else(|| format!("should be \"<prompt idx>-<number>\", but is {text:?}"))
    }
}

impl Serialize for SampleId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// A row of `sft.jsonl`. The reference `answer`, if there is one, is not used.
#[derive(Debug, Clone, PartialEq)]
pub struct Prompt {
    pub idx: u64,
    pub query: String,
    pub context: String,
    pub extra: Extra,
}

impl Prompt {
    /// # Errors
    /// If a field is missing or has another type, or the context is empty.
    pub fn from_row(mut row: Row) -> Result<Self, RowError> {
        let idx = row.take_index("idx")?;
        let query = row.take_string("query")?;
        let context = row.take_string("context")?;
        if context.trim().is_empty() {
            return Err(row.error(Some("context"), "is empty"));
        }
        Ok(Self { idx, query, context, extra: row.fields })
    }

    /// The user's message that a policy answers: document, blank line, question.
    pub fn message(&self) -> String {
        format!("{}\n\n{}", self.context, self.query)
    }

    /// Tells apart what was worked on under the same idx.
    pub fn hash(&self) -> String {
        input_hash(&[&self.context, &self.query])
    }
}

/// The first 16 hexadecimal digits of a SHA-256 over texts and their lengths.
pub fn input_hash(texts: &[&str]) -> String {
    let mut hasher = Sha256::new();
    for text in texts {
        hasher.update((text.len() as u64).to_le_bytes());
        hasher.update(text.as_bytes());
    }
    hexadecimal(&hasher.finalize()[..8])
}

/// A row of `sampled_responses.jsonl`, as it is read.
#[derive(Debug, Clone, PartialEq)]
pub struct Response {
    pub idx: SampleId,
    pub query: String,
    pub answer: String,
    /// [`Prompt::hash`]; absent in files of other programs.
    pub input_hash: Option<String>,
    pub extra: Extra,
}

impl Response {
    /// # Errors
    /// If a field is missing or has another type.
    pub fn from_row(mut row: Row) -> Result<Self, RowError> {
        let idx = take_sample_id(&mut row)?;
        let query = row.take_string("query")?;
        let answer = row.take_string("answer")?;
        let input_hash = row.take_optional_string("input_hash")?;
        Ok(Self { idx, query, answer, input_hash, extra: row.fields })
    }
}

fn take_sample_id(row: &mut Row) -> Result<SampleId, RowError> {
    let value = row.take("idx")?;
    let wanted = "a string, \"<prompt idx>-<number>\"";
    let text = value.as_str().ok_or_else(|| row.wrong_type("idx", wanted, &value))?;
    text.parse().map_err(|why: String| row.error(Some("idx"), why))
}

/// A row of `sampled_responses.jsonl`, as it is written.
#[derive(Debug, Clone, Serialize)]
pub struct Sampled<'a> {
    pub idx: SampleId,
    pub query: &'a str,
    pub answer: &'a str,
    /// Whether the model came to an end or was cut off.
    pub finish: Finish,
    /// [`Prompt::hash`].
    pub input_hash: &'a str,
}

/// A row of `chunk_info.jsonl`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ChunkInfo {
    pub idx: u64,
    pub query: String,
    /// `"0% - 12%"` to text, in document order.
    pub info_list: Map<String, Value>,
    /// Places whose extract was forced.
    pub forced: Vec<String>,
    /// Places whose extract was cut off by its budget.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub cut: Vec<String>,
    /// [`Prompt::hash`]; absent in files of other programs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub input_hash: Option<String>,
}

impl ChunkInfo {
    /// # Errors
    /// If a field is missing or has another type.
    pub fn from_row(mut row: Row) -> Result<Self, RowError> {
        let idx = row.take_index("idx")?;
        let query = row.take_string("query")?;
        let info_list = row.take_object("info_list")?;
        if let Some((place, other)) = info_list.iter().find(|(_, text)| !text.is_string()) {
            return Err(row.wrong_type(&format!("info_list.{place}"), "a string", other));
        }
        let mut places = |field: &str| match row.fields.shift_remove(field) {
            None => Ok(Vec::new()),
            Some(value) => serde_json::from_value(value)
                .map_err(|_| row.error(Some(field), "should be an array of strings")),
        };
        let (forced, cut) = (places("forced")?, places("cut")?);
        let input_hash = row.take_optional_string("input_hash")?;
        Ok(Self { idx, query, info_list, forced, cut, input_hash })
    }
}

/// The four scores of a response, 0 to 10 each.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Scores {
    pub helpfulness: f64,
    pub logicality: f64,
    pub faithfulness: f64,
    pub completeness: f64,
    /// Their sum, 0 to 40.
    pub total: f64,
    /// Their mean, 0 to 10.
    pub reward: f64,
}

impl Scores {
    /// In the order of the fields. All are rounded to six decimals, so that they are read back
    /// from JSON exactly, and equal totals are equal.
    pub fn new([helpfulness, logicality, faithfulness, completeness]: [f64; 4]) -> Self {
        let sum = helpfulness + logicality + faithfulness + completeness;
        Self {
            helpfulness: rounded(helpfulness),
            logicality: rounded(logicality),
            faithfulness: rounded(faithfulness),
            completeness: rounded(completeness),
            total: rounded(sum),
            reward: rounded(sum / 4.0),
        }
    }
}

/// One value for each dimension, in their order.
pub(super) fn by_dimension<T>(value: impl FnMut(Dimension) -> T) -> [T; 4] {
    Dimension::ALL.map(value)
}

/// A row of `scored_responses.jsonl` of an answer that early stop passed over: it can be neither the
/// best nor the worst of its prompt, so that it was not judged in all dimensions.
#[derive(Debug, Clone, Serialize)]
pub struct StoppedRow<'a> {
    pub idx: SampleId,
    pub query: &'a str,
    pub answer: &'a str,
    #[serde(flatten)]
    pub extra: Extra,
    pub scores: PartialScores,
    pub early_stop: EarlyStop,
    pub details: Details,
    /// Whether any of its verdicts was forced, extracts included.
    pub forced: bool,
    /// Over the document, the question and the answer.
    pub input_hash: &'a str,
}

/// The scores that are there; there is never a total.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct PartialScores {
    pub helpfulness: Option<f64>,
    pub logicality: Option<f64>,
    pub faithfulness: Option<f64>,
    pub completeness: Option<f64>,
    pub total: Option<f64>,
    pub reward: Option<f64>,
}

impl PartialScores {
    /// In the order of the fields.
    pub fn new([helpfulness, logicality, faithfulness, completeness]: [Option<f64>; 4]) -> Self {
        Self { helpfulness, logicality, faithfulness, completeness, total: None, reward: None }
    }
}

/// What is known of an answer that was passed over.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EarlyStop {
    /// Dimensions that it was not judged in.
    pub skipped: Vec<Dimension>,
    /// Whatever they had come to, its total would be at least this, 0 to 40 …
    pub total_at_least: f64,
    /// … and at most this.
    pub total_at_most: f64,
}

impl EarlyStop {
    pub fn new(skipped: Vec<Dimension>, least: f64, most: f64) -> Self {
        Self { skipped, total_at_least: rounded(least), total_at_most: rounded(most) }
    }

    /// Takes the field `early_stop` of a row, which only answers have that were passed over.
    ///
    /// # Errors
    /// If it has another type.
    pub fn take(row: &mut Row) -> Result<Option<Self>, RowError> {
        let Some(value) = row.fields.shift_remove("early_stop") else { return Ok(None) };
        let wrong =
            |e| row.error(Some("early_stop"), format!("is not as this program writes it: {e}"));
        serde_json::from_value(value).map(Some).map_err(wrong)
    }

    /// Whether a row of `scored_responses.jsonl` is one of an answer that was passed over.
    pub fn is_in(row: &Row) -> bool {
        row.fields.contains_key("early_stop")
    }
}

/// A row of `scored_responses.jsonl`, as it is written.
#[derive(Debug, Clone, Serialize)]
pub struct ScoredRow<'a> {
    pub idx: SampleId,
    pub query: &'a str,
    pub answer: &'a str,
    #[serde(flatten)]
    pub extra: Extra,
    pub scores: Scores,
    pub details: Details,
    /// Whether any of its verdicts was forced, extracts included.
    pub forced: bool,
    /// Over the document, the question and the answer.
    pub input_hash: &'a str,
}

/// What the scores of an answer rest on; dimensions that it was not judged in are missing.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Details {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub helpfulness: Option<Rated>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub logicality: Option<Rated>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub faithfulness: Option<Faithfulness>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub completeness: Option<Completeness>,
}

/// What of a verdict counts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum ScoreBy {
    /// What the judge says, as published.
    #[default]
    Rating,
    /// The mean of the distribution over ratings; what the judge says where it has none.
    Expected,
}

impl ScoreBy {
    pub(super) fn of(self, rating: f64, expected: Option<f64>) -> f64 {
        match self {
            Self::Rating => rating,
            Self::Expected => expected.unwrap_or(rating),
        }
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Rating => "rating",
            Self::Expected => "expected",
        }
    }
}

impl Details {
    /// Takes the field `details` of a row.
    ///
    /// # Errors
    /// It is missing, or a dimension in it is no verdict.
    pub fn take(row: &mut Row) -> Result<Self, RowError> {
        let mut details = row.take_object("details")?;
        Ok(Self {
            helpfulness: take_verdict(row, &mut details, Dimension::Helpfulness)?,
            logicality: take_verdict(row, &mut details, Dimension::Logicality)?,
            faithfulness: take_verdict(row, &mut details, Dimension::Faithfulness)?,
            completeness: take_verdict(row, &mut details, Dimension::Completeness)?,
        })
    }

    /// In the order of the fields.
    pub fn scores(&self, by: ScoreBy) -> [Option<f64>; 4] {
        let rated = |rated: &Rated| by.of(rated.score, rated.expected);
        let Self { helpfulness, logicality, faithfulness, completeness } = self;
        [
            helpfulness.as_ref().map(rated),
            logicality.as_ref().map(rated),
            faithfulness.as_ref().map(|found| by.of(found.score, found.expected)),
            completeness.as_ref().map(|found| rated(&found.rated)),
        ]
    }

    /// Corrects distributions and expected values; the judge's own stand beside them.
    pub fn calibrate(&mut self, by: &Calibrations) {
        let Self { helpfulness, logicality, faithfulness, completeness } = self;
        helpfulness.iter_mut().for_each(|one| by.rated(Dimension::Helpfulness, one));
        logicality.iter_mut().for_each(|one| by.rated(Dimension::Logicality, one));
        faithfulness.iter_mut().for_each(|one| by.faithfulness(one));
        completeness.iter_mut().for_each(|one| by.completeness(one));
    }

    /// Whether any verdict was forced, extracts included.
    pub fn forced(&self) -> bool {
        let rated = |rated: &Option<Rated>| rated.as_ref().is_some_and(|rated| rated.forced);
        rated(&self.helpfulness)
            || rated(&self.logicality)
            || self.faithfulness.as_ref().is_some_and(|found| found.forced)
            || self.completeness.as_ref().is_some_and(Completeness::forced)
    }
}

fn take_verdict<T: DeserializeOwned>(
    row: &Row,
    details: &mut Map<String, Value>,
    dimension: Dimension,
) -> Result<Option<T>, RowError> {
    let Some(value) = details.remove(dimension.name()) else { return Ok(None) };
    let field = format!("details.{}", dimension.name());
    let wrong = |e: serde_json::Error| row.error(Some(&field), format!("is no verdict: {e}"));
    serde_json::from_value(value).map(Some).map_err(wrong)
}

/// Which answer a row of `scored_responses.jsonl` is on, and its scores; those that an answer was
/// not judged in are missing.
#[derive(Debug, Clone, PartialEq)]
pub struct KnownScores {
    pub idx: SampleId,
    /// In the order of dimensions.
    pub scores: [Option<f64>; 4],
}

impl KnownScores {
    /// # Errors
    /// If a field is missing or has another type.
    pub fn from_row(mut row: Row) -> Result<Self, RowError> {
        let idx = take_sample_id(&mut row)?;
        let scores = row.take_object("scores")?;
        let score = |dimension: Dimension| scores.get(dimension.name()).and_then(Value::as_f64);
        Ok(Self { idx, scores: by_dimension(score) })
    }
}

/// The head of a row of `scored_responses.jsonl`: which answer it is on.
#[derive(Debug, Clone, PartialEq)]
pub struct ScoredHead {
    pub idx: SampleId,
    pub query: String,
    pub answer: String,
    /// Over the document, the question and the answer; absent in files of other programs.
    pub input_hash: Option<String>,
}

impl ScoredHead {
    /// # Errors
    /// If a field is missing or has another type.
    pub fn from_row(mut row: Row) -> Result<Self, RowError> {
        Ok(Self {
            idx: take_sample_id(&mut row)?,
            query: row.take_string("query")?,
            answer: row.take_string("answer")?,
            input_hash: row.take_optional_string("input_hash")?,
        })
    }
}

/// What pairing needs of a row of `scored_responses.jsonl`.
#[derive(Debug, Clone, PartialEq)]
pub struct Scored {
    pub idx: SampleId,
    pub query: String,
    pub answer: String,
    /// `scores.total`.
    pub total: f64,
}

impl Scored {
    /// # Errors
    /// If a field is missing or has another type, or a score is outside 0 to 10 or the total outside 0 to 40.
    pub fn from_row(mut row: Row) -> Result<Self, RowError> {
        let idx = take_sample_id(&mut row)?;
        let query = row.take_string("query")?;
        let answer = row.take_string("answer")?;
        let scores = row.take_object("scores")?;
        for name in Dimension::ALL.map(Dimension::name) {
            score(&row, &scores, name, 10.0)?;
        }
        let total = score(&row, &scores, "total", 40.0)?;
        let total = total.ok_or_else(|| row.error(Some("scores.total"), "is missing"))?;
        Ok(Self { idx, query, answer, total })
    }
}

/// A score from 0 to `most`, if it is there.
fn score(
    row: &Row,
    scores: &Map<String, Value>,
    name: &str,
    most: f64,
) -> Result<Option<f64>, RowError> {
    let Some(value) = scores.get(name) else { return Ok(None) };
    let field = format!("scores.{name}");
    let number = value.as_f64().ok_or_else(|| row.wrong_type(&field, "a number", value))?;
    match (0.0..=most).contains(&number) {
        true => Ok(Some(number)),
        false => Err(row.error(Some(&field), format!("should be 0 to {most}, but is {number}"))),
    }
}

/// A row of `preference_pairs.jsonl` in LongReward's format.
#[derive(Debug, Clone, Serialize)]
pub struct Pair<'a> {
    pub idx: u64,
    pub context: &'a str,
    pub query: &'a str,
    pub win_response: &'a str,
    pub lose_response: &'a str,
    pub win_idx: SampleId,
    pub lose_idx: SampleId,
    pub win_total: f64,
    pub lose_total: f64,
}

/// A row for TRL's `DPOTrainer`: the conversational form.
#[derive(Debug, Clone, Serialize)]
pub struct TrlPair {
    pub prompt: [Message; 1],
    pub chosen: [Message; 1],
    pub rejected: [Message; 1],
}

impl TrlPair {
    pub fn new(prompt: &Prompt, chosen: &str, rejected: &str) -> Self {
        let answer = |text: &str| Message { role: Role::Assistant, content: text.to_owned() };
        Self {
            prompt: [Message::user(prompt.message())],
            chosen: [answer(chosen)],
            rejected: [answer(rejected)],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pipeline::jsonl::{Place, Span};
    use std::path::Path;

    fn row(json: &str) -> Row {
        let fields = serde_json::from_str(json).unwrap();
        let place = Place { path: Path::new("F").into(), line: 3 };
        Row { place, span: Span { offset: 0, len: 0 }, fields }
    }

    #[test]
    fn sample_ids_have_one_spelling() {
        let id: SampleId = "11-7".parse().unwrap();
        assert_eq!(id, SampleId { prompt: 11, k: 7 });
        assert_eq!(id.to_string(), "11-7");
        for bad in ["11", "11-", "-7", "011-7", "11-07", "11-+7", "11-7-1", "11 - 7", "a-b", ""] {
            assert!(bad.parse::<SampleId>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_candidate_without_a_string_for_its_idx_is_told_what_it_should_be() {
        let bad = Response::from_row(row(r#"{"idx":3,"query":"q","answer":"a"}"#)).unwrap_err();
        let told =
            "F:3: field \"idx\" should be a string, \"<prompt idx>-<number>\", but is the number 3";
        assert_eq!(bad.to_string(), told);
    }

    #[test]
    fn prompts_need_a_context() {
        let bad = Prompt::from_row(row(r#"{"idx":1,"query":"q","context":" \n"}"#)).unwrap_err();
        assert_eq!(bad.to_string(), "F:3: field \"context\" is empty");
        let prompt = row(r#"{"idx":1,"answer":"a","query":"q","context":"c","b":2}"#);
        let prompt = Prompt::from_row(prompt).unwrap();
        assert_eq!(prompt.extra.keys().collect::<Vec<_>>(), ["answer", "b"]);
        assert_eq!(prompt.message(), "c\n\nq");
    }

    #[test]
    fn hashes_tell_texts_and_their_borders_apart() {
        assert_ne!(input_hash(&["ab", "c"]), input_hash(&["a", "bc"]));
        assert_eq!(input_hash(&["ab", "c"]).len(), 16);
    }

    #[test]
    fn chunk_info_of_other_programs_is_read() {
        let json = r#"{"idx":1,"query":"q","info_list":{"50% - 100%":"b","0% - 50%":"a"}}"#;
        let info = ChunkInfo::from_row(row(json)).unwrap();
        assert_eq!(info.info_list.keys().collect::<Vec<_>>(), ["50% - 100%", "0% - 50%"]);
        assert_eq!(info.forced, Vec::<String>::new());
        let json = r#"{"idx":1,"query":"q","info_list":{"0% - 50%":7}}"#;
        let bad = ChunkInfo::from_row(row(json)).unwrap_err();
        assert_eq!(bad.field.unwrap(), "info_list.0% - 50%");
    }

    #[test]
    fn expected_values_count_where_they_are_there() {
        assert_eq!(ScoreBy::Rating.of(7.0, Some(6.5)), 7.0);
        assert_eq!(ScoreBy::Expected.of(7.0, Some(6.5)), 6.5);
        assert_eq!(ScoreBy::Expected.of(7.0, None), 7.0);
    }

    #[test]
    fn scores_are_summed_and_averaged() {
        let scores = Scores::new([1.0, 2.0, 10.0 / 3.0, 4.0]);
        assert_eq!((scores.faithfulness, scores.total), (3.333333, 10.333333));
        assert_eq!(scores.reward, 2.583333);
    }

    #[test]
    fn totals_outside_the_scale_are_refused() {
        let json = |total| format!(r#"{{"idx":"1-0","query":"","answer":"","scores":{total}}}"#);
        let field = |total| Scored::from_row(row(&json(total))).unwrap_err().to_string();
        assert!(field(r#"{"total":85}"#).contains("should be 0 to 40"));
        assert!(field(r#"{"total":"8"}"#).contains("should be a number, but is a string"));
        assert!(field("{}").contains("\"scores.total\" is missing"));
        let told = field(r#"{"total":8,"helpfulness":-3}"#);
        assert!(told.contains("\"scores.helpfulness\" should be 0 to 10, but is -3"), "{told}");
        assert_eq!(Scored::from_row(row(&json(r#"{"total":8}"#))).unwrap().total, 8.0);
    }

    #[test]
    fn trl_rows_are_conversations() {
        let prompt = Prompt { idx: 1, query: "q".into(), context: "c".into(), extra: Extra::new() };
        assert_eq!(
            serde_json::to_string(&TrlPair::new(&prompt, "w", "l")).unwrap(),
            r#"{"prompt":[{"role":"user","content":"c\n\nq"}],"chosen":[{"role":"assistant","content":"w"}],"rejected":[{"role":"assistant","content":"l"}]}"#
        );
    }
}

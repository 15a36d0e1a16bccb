//! Stage `score`: four scores for each answer.
//!
//! The answers to one prompt are worked on together, since they share the document: it is cut into
//! chunks once, its passages are indexed once, and its extracts are asked for once.

mod ahead;
mod answer;
mod document;
mod waves;

use super::data::{Prompts, ResponseRow, Responses, read_chunk_info, read_responses};
use super::drive::{Finding, Finished, Session, Stage, Unit};
use super::jsonl::{Row, keep_inputs, read_rows};
use super::outlook::{ByKind, WEIGHED, add};
use super::output::{Output, Settings, is_mismatch, with_suffix};
use super::plan::{Judging, Opened, Plan, Target, after, with};
use super::progress::Summary;
use super::records::{ChunkInfo, KnownScores, SampleId, ScoreBy};
use super::{Error, Evidencing, OnMismatch, Tokens, chunk_info};
use crate::judge::Calibrations;
use crate::retrieval::Retriever;
use crate::retrieval::chunk::{CutAt, Cutting};
use ahead::Seen;
use document::{Document, Given, Part};
use std::collections::{HashMap, HashSet, VecDeque};
use std::path::{Path, PathBuf};
use waves::Recorded;

/// LongReward's size of a passage that statements are checked against, in tokens.
pub const PASSAGE_TOKENS: usize = 128;

/// What is to be scored, how, and where it goes.
#[derive(Debug, Clone)]
pub struct Options {
    /// `sft.jsonl`.
    pub data: PathBuf,
    /// `sampled_responses.jsonl`.
    pub responses: PathBuf,
    /// `scored_responses.jsonl`.
    pub out: PathBuf,
    /// Extracts that were made before; only read. Extracts that it lacks are computed, and stand
    /// in the scored responses alone.
    pub chunk_info: Option<PathBuf>,
    /// Without such a file, extracts are kept here ([`beside`] `out`, as a rule), where
    /// [`chunk_info`] would put the same ones.
    pub extracts: PathBuf,
    pub judging: Judging,
    /// Names the way of finding passages: `bm25`, or the embedder and its revision.
    pub retriever: String,
    /// How documents are cut into passages.
    pub cutting: Cutting,
    /// What statements are checked against.
    pub evidence: Evidencing,
    pub score_by: ScoreBy,
    /// Corrects distributions and expected values.
    pub calibration: Option<Calibrations>,
    /// Answers that can no longer be the best or the worst of their prompt are not judged in the
    /// dimensions that remain.
    pub early_stop: bool,
    /// As of [`sample::Options`](super::sample::Options).
    pub limit: Option<usize>,
    pub on_mismatch: OnMismatch,
}

/// What scoring needs besides a model.
pub struct Tools<'a> {
    /// The judge's own tokens.
    pub tokens: &'a Tokens<'a>,
    pub retriever: &'a mut Retriever,
}

/// How documents are cut and statements looked up.
#[derive(Debug, Clone)]
struct Method {
    judging: Judging,
    cutting: Cutting,
    evidence: Evidencing,
    score_by: ScoreBy,
    calibration: Option<Calibrations>,
}

/// The stage with its files open and checked.
pub type ScorePlan = Opened<Answers>;

/// The answers that are missing, and what is there on their documents.
#[derive(Debug)]
pub struct Answers {
    prompts: Prompts,
    responses: Vec<ResponseRow>,
    /// See [`Responses`].
    foreign: usize,
    /// Extracts that are there, by prompt.
    extracts: HashMap<u64, ChunkInfo>,
    recorded: Option<RecordedRows>,
    groups: VecDeque<Group>,
    method: Method,
}

/// With early stop, by prompt: the answers that have their rows already.
type RecordedRows = HashMap<u64, Vec<Recorded>>;

/// The answers to one prompt that are not scored yet.
#[derive(Debug)]
struct Group {
    /// Position of the prompt.
    prompt: usize,
    /// Positions of the answers, in the order of their file.
    responses: Vec<usize>,
}

impl ScorePlan {
    /// Checks the input and opens the outputs.
    ///
    /// # Errors
    /// Any [`Error`] but [`Error::Broken`].
    pub fn open(options: Options) -> Result<Self, Error> {
        check_paths(&options)?;
        let settings = settings(&options);
        let Options {
            data, responses, out, extracts: by_product, judging, limit, on_mismatch, ..
        } = options;
        let (prompts, mut problems) = Prompts::open(&data)?;
        let Responses { rows: responses, foreign, problems: more } =
            read_responses(&responses, &prompts).map_err(|error| after(error, &problems))?;
        problems.extend(more);
        let inputs = responses.iter().map(|row| (row.response.idx.to_string(), row.hash.clone()));
        let extracts = |rule| chunk_info::target(&by_product, &judging, &prompts, rule);
        let has_kept = options.chunk_info.is_none() && chunk_info::made(&by_product);
        // Before anything is deleted.
        let kept = has_kept.then(|| extracts(OnMismatch::Refuse)).transpose();
        let kept = kept.map_err(|error| after(kept_extracts(error, on_mismatch), &problems))?;
        let source = options.chunk_info.as_ref().unwrap_or(&by_product);
        let known = extracts_in(source, &prompts)?;
        let strange =
            |id: &str, row: &Row| rests_on_others(id, row, &known).then_some(OTHER_EXTRACTS);
        let target = Target::open_unless(&out, &settings, inputs, &strange, on_mismatch)
            .map_err(|error| after(error, &problems))?;
        let beyond: HashSet<u64> = prompts.beyond(limit).iter().map(|row| row.idx).collect();
        let ids = responses.iter().map(|row| row.response.idx);
        let beyond = ids.filter(|idx| beyond.contains(&idx.prompt)).map(|idx| idx.to_string());
        let target = target.without(beyond);
        let groups = group(&responses, &prompts, &target);
        let recorded = options.early_stop.then(|| read_recorded(&out)).transpose()?;
        let mut targets = vec![target];
        match kept {
            Some(kept) => targets.push(kept),
            None if options.chunk_info.is_none() => {
                targets.push(extracts(on_mismatch).map_err(|error| after(error, &problems))?);
            }
            None => {}
        }
        let source = options.chunk_info.unwrap_or(by_product);
        let (extracts, more) = read_chunk_info(&source, &prompts)?;
        problems.extend(more);
        let plan = Plan { stage: "score", settings, seed: judging.seed, targets, problems };
        let Options { cutting, evidence, score_by, calibration, .. } = options;
        let method = Method { judging, cutting, evidence, score_by, calibration };
        let work = Answers { prompts, responses, foreign, extracts, recorded, groups, method };
        Ok(Self { plan, work })
    }

    /// Scores what is missing.
    ///
    /// # Errors
    /// [`Error::Broken`], [`Error::Io`], [`Error::Moved`], [`Error::Damaged`].
    pub fn run(self, tools: Tools, session: &mut Session) -> Result<Summary, Error> {
        let keeps_extracts = self.plan.targets.len() > 1;
        let (seen, foreign) = (Seen::default(), self.work.foreign);
        let scorer = Scorer { work: self.work, tools, keeps_extracts, seen };
        Ok(Summary { foreign, ..self.plan.run(scorer, session)? })
    }
}

/// Refuses before a long wait what [`ScorePlan::open`] would refuse without a look at input and records.
///
/// # Errors
/// As of [`ScorePlan::open`].
pub fn precheck(options: &Options) -> Result<(), Error> {
    check_paths(options)?;
    let rule = options.on_mismatch;
    Output::precheck(&options.out, &settings(options), rule)?;
    if options.chunk_info.is_some() {
        return Ok(());
    }
    let by_product = &options.extracts;
    let own_rule = if chunk_info::made(by_product) { OnMismatch::Refuse } else { rule };
    let checked = chunk_info::precheck(by_product, &options.judging, own_rule);
    checked.map_err(|error| kept_extracts(error, rule))
}

/// Outputs must be no inputs.
fn check_paths(options: &Options) -> Result<(), Error> {
    let Options { data, responses, out, chunk_info, extracts, .. } = options;
    let mut inputs = vec![data.as_path(), responses];
    inputs.extend(chunk_info.as_deref());
    keep_inputs(out, &inputs)?;
    match chunk_info {
        Some(_) => Ok(()),
        None => keep_inputs(extracts, &inputs),
    }
}

const OTHER_EXTRACTS: &str = "was scored with other extracts (--chunk-info, else the file kept beside it) than its prompt has now";

/// The extracts that are there before anything is changed, by prompt.
fn extracts_in(source: &Path, prompts: &Prompts) -> Result<HashMap<u64, ChunkInfo>, Error> {
    match source.exists() {
        true => Ok(read_chunk_info(source, prompts)?.0),
        false => Ok(HashMap::new()),
    }
}

/// Whether a scored row holds other extracts than are known of its prompt.
fn rests_on_others(id: &str, row: &Row, known: &HashMap<u64, ChunkInfo>) -> bool {
    let prompt = id.parse().map(|id: SampleId| id.prompt);
    let known = prompt.ok().and_then(|prompt| known.get(&prompt));
    let details = row.fields.get("details");
    let scored =
        details.and_then(|details| details.pointer("/completeness/info_list")?.as_object());
    known.zip(scored).is_some_and(|(known, scored)| known.info_list != *scored)
}

/// Extracts that were made for themselves are not deleted along with scores.
fn kept_extracts(error: Error, on_mismatch: OnMismatch) -> Error {
    match error {
        error if on_mismatch == OnMismatch::StartOver && is_mismatch(&error) => {
            Error::Tools(format!(
                "{error}\n(they were made by chunk-info, so that --force does not delete them: move them \
             away, or choose another output)"
            ))
        }
        error => error,
    }
}

/// Where the extracts of an output are kept that shares its folder with others: `scored.chunk_info.jsonl`
/// beside `scored.jsonl`. They rest on the judge and its settings as the scores do.
pub fn beside(out: &Path) -> PathBuf {
    match out.extension().is_some_and(|extension| extension == "jsonl") {
        true => out.with_extension("chunk_info.jsonl"),
        false => with_suffix(out, ".chunk_info.jsonl"),
    }
}

fn settings(options: &Options) -> Settings {
    let mut settings = with(
        &options.judging.verdict_settings(),
        [
            ("stage", "score".to_owned()),
            ("retriever", options.retriever.clone()),
            ("score_by", options.score_by.name().to_owned()),
        ],
    );
    if let Some(calibration) = &options.calibration {
        settings.insert("calibration".to_owned(), calibration.hash.clone());
    }
    settings.extend(evidence_settings(options.cutting, options.evidence));
    if options.early_stop {
        settings.insert("early_stop".to_owned(), "true".to_owned());
    }
    settings
}

/// How evidence is found, by name: as published, and of the rest what differs from that.
pub(crate) fn evidence_settings(cutting: Cutting, evidence: Evidencing) -> Settings {
    let Cutting { size, overlap, at } = cutting;
    let sentences = (at == CutAt::Sentences).then(|| "sentences".to_owned());
    let overlap = (overlap > 0).then(|| overlap.to_string());
    let context = evidence.whole_document.map(|tokens| format!("within {tokens} tokens"));
    let settings = [
        ("passage_tokens", Some(size.to_string())),
        ("passages", Some(evidence.passages.to_string())),
        ("passage_overlap", overlap),
        ("passage_cut", sentences),
        ("whole_document", context),
    ];
    settings.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))).collect()
}

/// The scores in the rows of the output, which was checked when it was opened.
fn read_recorded(out: &Path) -> Result<RecordedRows, Error> {
    let mut rows = RecordedRows::new();
    let problems = read_rows(out, |row| {
        let KnownScores { idx, scores } = KnownScores::from_row(row)?;
        rows.entry(idx.prompt).or_default().push(Recorded::new(scores));
        Ok(())
    })?;
    match problems.into_iter().next() {
        None => Ok(rows),
        Some(problem) => Err(Error::Damaged(problem)),
    }
}

/// Groups the answers without a record by prompt, in the order in which prompts first come up.
fn group(responses: &[ResponseRow], prompts: &Prompts, done: &Target) -> VecDeque<Group> {
    let mut groups: VecDeque<Group> = VecDeque::new();
    let mut places = HashMap::new();
    for (position, row) in responses.iter().enumerate() {
        let idx = row.response.idx;
        let Some(prompt) = prompts.position(idx.prompt) else { continue };
        if !done.lacks(&idx.to_string()) {
            continue;
        }
        let place = *places.entry(prompt).or_insert(groups.len());
        if place == groups.len() {
            groups.push_back(Group { prompt, responses: Vec::new() });
        }
        groups[place].responses.push(position);
    }
    groups
}

struct Scorer<'a> {
    work: Answers,
    tools: Tools<'a>,
    /// Whether extracts go to a file of their own, target 1.
    keeps_extracts: bool,
    /// For telling how much is ahead.
    seen: Seen,
}

impl Answers {
    fn load(&mut self, group: &Group, tokens: &Tokens) -> Result<Document, Error> {
        let prompt = self.prompts.load(group.prompt)?;
        let tokens = tokens(&prompt.context);
        let extracts = self.extracts.remove(&prompt.idx);
        let rows = group.responses.iter().map(|&position| &self.responses[position]);
        let recorded = self.recorded.as_mut();
        let recorded = recorded.map(|rows| rows.remove(&prompt.idx).unwrap_or_default());
        let hash = &self.prompts.rows()[group.prompt].hash;
        let extracts = extracts.as_ref();
        let given = Given { prompt, hash, tokens: &tokens, extracts, recorded };
        Ok(Document::new(given, rows, &self.method))
    }
}

impl Stage for Scorer<'_> {
    type Job = Document;
    type Part = Part;

    fn open(&mut self) -> Option<Result<Document, Error>> {
        let group = self.work.groups.pop_front()?;
        let document = self.work.load(&group, self.tools.tokens);
        if let Ok(document) = &document {
            self.seen.cut(document.chunks());
            document.sentences().for_each(|count| self.seen.opened(count));
            document.expect(&mut self.tools, &self.work.method);
        }
        Some(document)
    }

    fn next(&mut self, job: &mut Document) -> Option<Unit<Part>> {
        job.next(&self.work.method)
    }

    fn take(
        &mut self,
        job: &mut Document,
        part: Part,
        found: Result<Finding, String>,
    ) -> Result<Vec<Finished>, Error> {
        let taken = found.and_then(|finding| {
            job.take(part, finding.verdict()?, &mut self.tools, &self.work.method)
        });
        let mut finished = match taken {
            Ok(()) => {
                if let Some((sentences, checks)) = job.checks(part) {
                    self.seen.listed(sentences, checks);
                }
                Vec::new()
            }
            Err(why) => job.fail(part, &why),
        };
        if self.keeps_extracts {
            finished.extend(job.extracts_row()?);
        }
        job.advance(&self.work.method);
        finished.extend(job.scored_rows(&self.work.method)?);
        Ok(finished)
    }

    fn ahead(&self, open: &mut dyn Iterator<Item = &Document>) -> Option<ByKind> {
        let judge = &self.work.method.judging.judge;
        let groups = &self.work.groups;
        let answers = groups.iter().map(|group| group.responses.len()).sum();
        let per_call = judge.settings().statements_per_call;
        let mut ahead = self.seen.unopened(groups.len(), answers, per_call);
        for more in open.map(|document| document.ahead(&self.seen, judge)) {
            add(&mut ahead, more);
        }
        ahead[WEIGHED] *= judge.settings().voting.count as f64;
        Some(ahead)
    }
}

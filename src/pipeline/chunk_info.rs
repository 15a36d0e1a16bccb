//! Stage `chunk-info`: what each document says on its question, once for all answers.

use super::cost::Cost;
use super::data::Prompts;
use super::drive::{Finding, Finished, Session, Stage, Unit, Work};
use super::extracts::Extracts;
use super::jsonl::keep_inputs;
use super::output::{Output, Settings, journal_path};
use super::plan::{Judging, Opened, Plan, Target, after, with};
use super::progress::Summary;
use super::records::Prompt;
use super::{Error, OnMismatch, Tokens};
use std::collections::VecDeque;
use std::path::{Path, PathBuf};

/// What is to be extracted, and where it goes.
#[derive(Debug, Clone)]
pub struct Options {
    /// `sft.jsonl`.
    pub data: PathBuf,
    /// `chunk_info.jsonl`.
    pub out: PathBuf,
    pub judging: Judging,
    /// As of [`sample::Options`](super::sample::Options).
    pub limit: Option<usize>,
    pub on_mismatch: OnMismatch,
}

/// The stage with its files open and checked.
pub type ChunkInfoPlan = Opened<Documents>;

/// The documents that are missing.
#[derive(Debug)]
pub struct Documents {
    prompts: Prompts,
    /// Positions of prompts.
    jobs: VecDeque<usize>,
    judging: Judging,
}

impl ChunkInfoPlan {
    /// Checks the input and opens the output.
    ///
    /// # Errors
    /// Any [`Error`] but [`Error::Broken`].
    pub fn open(options: Options) -> Result<Self, Error> {
        let Options { data, out, judging, limit, on_mismatch } = options;
        keep_inputs(&out, &[&data])?;
        let (prompts, problems) = Prompts::open(&data)?;
        let beyond = prompts.beyond(limit).iter().map(|row| row.idx.to_string());
        let target = target(&out, &judging, &prompts, on_mismatch)
            .map_err(|error| after(error, &problems))?
            .without(beyond);
        let rows = prompts.rows().iter().enumerate();
        let missing = rows.filter(|(_, row)| target.lacks(&row.idx.to_string()));
        let jobs = missing.map(|(position, _)| position).collect();
        let (settings, targets) = (settings(&judging), vec![target]);
        let plan = Plan { stage: "chunk-info", settings, seed: judging.seed, targets, problems };
        Ok(Self { plan, work: Documents { prompts, jobs, judging } })
    }

    /// Extracts what is missing; `tokens` are the judge's own.
    ///
    /// # Errors
    /// [`Error::Broken`], [`Error::Io`], [`Error::Moved`], [`Error::Damaged`].
    pub fn run(self, tokens: &Tokens, session: &mut Session) -> Result<Summary, Error> {
        self.plan.run(Extractor { documents: self.work, tokens }, session)
    }
}

/// Whether a file was written by this stage, not by `score`, which keeps no account and no journal of it.
pub(super) fn made(out: &Path) -> bool {
    Cost::read(out).is_some() || journal_path(out).exists()
}

/// `chunk_info.jsonl`, which the stage `score` also writes: for the same judge, the same file.
pub(super) fn target(
    out: &Path,
    judging: &Judging,
    prompts: &Prompts,
    on_mismatch: OnMismatch,
) -> Result<Target, Error> {
    let inputs = prompts.rows().iter().map(|row| (row.idx.to_string(), row.hash.clone()));
    Target::open(out, &settings(judging), inputs, on_mismatch)
}

/// Refuses before a long wait what [`target`] would refuse without a look at the records.
pub(super) fn precheck(
    out: &Path,
    judging: &Judging,
    on_mismatch: OnMismatch,
) -> Result<(), Error> {
    Output::precheck(out, &settings(judging), on_mismatch)
}

fn settings(judging: &Judging) -> Settings {
    with(&judging.settings(), [("stage", "chunk-info".to_owned())])
}

struct Extractor<'a> {
    documents: Documents,
    tokens: &'a Tokens<'a>,
}

struct Job {
    prompt: Prompt,
    hash: String,
    extracts: Extracts,
    /// Chunks that were not asked about yet.
    ready: VecDeque<usize>,
    failed: bool,
}

impl Stage for Extractor<'_> {
    type Job = Job;
    type Part = usize;

    fn open(&mut self) -> Option<Result<Job, Error>> {
        let Documents { prompts, jobs, judging } = &mut self.documents;
        let position = jobs.pop_front()?;
        Some(prompts.load(position).map(|prompt| {
            let tokens = (self.tokens)(&prompt.context);
            let extracts = Extracts::cut(&prompt.context, &tokens, judging.chunk_tokens);
            let ready = extracts.missing().collect();
            let hash = prompts.rows()[position].hash.clone();
            Job { prompt, hash, extracts, ready, failed: false }
        }))
    }

    fn next(&mut self, job: &mut Job) -> Option<Unit<usize>> {
        let part = job.ready.pop_front()?;
        let Prompt { idx, query, context, .. } = &job.prompt;
        let ask = job.extracts.ask(&self.documents.judging, context, query, part);
        Some(Unit { part, key: Extracts::key(*idx, part), work: Work::Judge(ask) })
    }

    fn take(
        &mut self,
        job: &mut Job,
        part: usize,
        found: Result<Finding, String>,
    ) -> Result<Vec<Finished>, Error> {
        let Prompt { idx, query, .. } = &job.prompt;
        let put = found.and_then(|finding| job.extracts.put(part, &finding.verdict()?));
        let finished = match put {
            Err(_) if job.failed => None,
            Err(why) => {
                job.failed = true;
                job.ready.clear();
                let reason = format!("extract at {}: {why}", job.extracts.place(part));
                Some(Finished::failed(idx, reason))
            }
            Ok(()) if !job.failed && job.extracts.is_complete() => {
                let row = job.extracts.row(*idx, query, &job.hash);
                Some(Finished::record(0, idx, &row)?)
            }
            Ok(()) => None,
        };
        Ok(finished.into_iter().collect())
    }
}

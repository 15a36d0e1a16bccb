//! Stage `sample`: n answers of a policy to each prompt.

use super::data::Prompts;
use super::drive::{Finding, Finished, Session, Stage, Unit, Work};
use super::jsonl::keep_inputs;
use super::output::{NOT_IN_INPUT, Settings};
use super::plan::{Opened, Plan, Target, after, with};
use super::progress::Summary;
use super::records::{Prompt, SampleId, Sampled};
use super::{Error, OnMismatch};
use crate::chat::Sampling;
use serde_json::Value;
use std::collections::VecDeque;
use std::path::PathBuf;

/// LongReward's number of answers to a prompt.
pub const SAMPLES: u64 = 10;

/// What is to be sampled, and where it goes.
#[derive(Debug, Clone)]
pub struct Options {
    /// `sft.jsonl`.
    pub data: PathBuf,
    /// `sampled_responses.jsonl`.
    pub out: PathBuf,
    /// Names the model: checkpoint, revision, type, chat template and the like.
    pub model: Settings,
    /// Answers to each prompt. It may grow later; then only the new ones are sampled.
    pub n: u64,
    /// How; every answer has a seed of its own that is derived from this one.
    pub sampling: Sampling,
    /// Prompts that are worked on, from the first; all if not given. It may change later.
    pub limit: Option<usize>,
    pub on_mismatch: OnMismatch,
}

/// The stage with its files open and checked.
pub type SamplePlan = Opened<Sampler>;

impl SamplePlan {
    /// Checks the input and opens the output.
    ///
    /// # Errors
    /// Any [`Error`] but [`Error::Broken`].
    pub fn open(options: Options) -> Result<Self, Error> {
        keep_inputs(&options.out, &[&options.data])?;
        let (prompts, problems) = Prompts::open(&options.data)?;
        let settings = settings(&options);
        let ids = |idx| (0..options.n).map(move |k| SampleId { prompt: idx, k });
        let rows = prompts.rows().iter();
        let inputs = rows.flat_map(|row| ids(row.idx).map(|id| (id.to_string(), row.hash.clone())));
        let target = Target::open(&options.out, &settings, inputs, options.on_mismatch)
            .map_err(|error| after(fewer(error, &prompts, options.n), &problems))?;
        let beyond = prompts.beyond(options.limit).iter();
        let beyond = beyond.flat_map(|row| ids(row.idx).map(|id| id.to_string()));
        let target = target.without(beyond);
        let missing = |idx| {
            let wanted = ids(idx).filter(|id| target.lacks(&id.to_string()));
            wanted.map(|id| id.k).collect::<Vec<u64>>()
        };
        let rows = prompts.rows().iter().enumerate();
        let jobs = rows.map(|(position, row)| (position, missing(row.idx)));
        let jobs = jobs.filter(|(_, missing)| !missing.is_empty()).collect();
        let seed = options.sampling.seed;
        let targets = vec![target];
        let plan = Plan { stage: "sample", settings, seed, targets, problems };
        Ok(Self { plan, work: Sampler { prompts, jobs, sampling: options.sampling } })
    }

    /// Samples what is missing.
    ///
    /// # Errors
    /// [`Error::Broken`], [`Error::Io`], [`Error::Moved`], [`Error::Damaged`].
    pub fn run(self, session: &mut Session) -> Result<Summary, Error> {
        self.plan.run(self.work, session)
    }
}

/// An output that holds more answers to a prompt than are asked for: that it could be deleted is no
/// advice then.
fn fewer(error: Error, prompts: &Prompts, n: u64) -> Error {
    match error {
        Error::OtherInput { path, id, why: NOT_IN_INPUT }
            if id.parse().is_ok_and(|id: SampleId| prompts.get(id.prompt).is_some()) =>
        {
            let path = path.display();
            Error::Tools(format!(
                "{path}: holds candidate {id}, which is more than {n} of a prompt: give -n as large \
                 as before, or choose another output"
            ))
        }
        error => error,
    }
}

/// Everything that an answer depends on, but for the prompt. Not how many there are.
fn settings(options: &Options) -> Settings {
    let mut settings = with(&options.model, [("stage", "sample".to_owned())]);
    // A struct of plain fields always becomes an object.
    if let Ok(Value::Object(sampling)) = serde_json::to_value(&options.sampling) {
        settings.extend(sampling.into_iter().map(|(name, value)| (name, value.to_string())));
    }
    settings
}

/// The answers that are missing.
#[derive(Debug)]
pub struct Sampler {
    prompts: Prompts,
    /// Positions of prompts, with the answers that are missing.
    jobs: VecDeque<(usize, Vec<u64>)>,
    sampling: Sampling,
}

/// A prompt whose answers are being sampled.
#[derive(Debug)]
pub struct Job {
    prompt: Prompt,
    hash: String,
    missing: VecDeque<u64>,
}

impl Stage for Sampler {
    type Job = Job;
    type Part = u64;

    fn open(&mut self) -> Option<Result<Job, Error>> {
        let (position, missing) = self.jobs.pop_front()?;
        Some(self.prompts.load(position).map(|prompt| {
            let hash = self.prompts.rows()[position].hash.clone();
            Job { prompt, hash, missing: missing.into() }
        }))
    }

    fn next(&mut self, job: &mut Job) -> Option<Unit<u64>> {
        let part = job.missing.pop_front()?;
        let key = SampleId { prompt: job.prompt.idx, k: part }.to_string();
        let (message, sampling) = (job.prompt.message(), self.sampling.clone());
        Some(Unit { part, key, work: Work::Sample { message, sampling } })
    }

    fn take(
        &mut self,
        job: &mut Job,
        part: u64,
        found: Result<Finding, String>,
    ) -> Result<Vec<Finished>, Error> {
        let idx = SampleId { prompt: job.prompt.idx, k: part };
        let (query, input_hash) = (&job.prompt.query, &job.hash);
        let finished = match found {
            Ok(Finding::Sample { text, finish }) => {
                let row = Sampled { idx, query, answer: &text, finish, input_hash };
                Finished::record(0, idx, &row)?
            }
            Ok(Finding::Verdict(_)) => {
                Finished::failed(idx, "a verdict stands where a sampled text should")
            }
            Err(reason) => Finished::failed(idx, reason),
        };
        Ok(vec![finished])
    }
}

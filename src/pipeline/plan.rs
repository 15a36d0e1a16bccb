//! What the stages that ask a model have in common: what is wanted, what is there, how it ends.

use super::cost::Cost;
use super::drive::{Session, Stage, Store, Tally, drive};
use super::journal::Journal;
use super::jsonl::{Row, RowError};
use super::output::{Inputs, NOT_IN_INPUT, Output, Settings};
use super::progress::{Status, Summary, first_of};
use super::{Error, OnMismatch};
use crate::judge::Judge;
use std::collections::HashSet;
use std::path::Path;
use std::time::Instant;

/// What judging depends on.
#[derive(Debug, Clone)]
pub struct Judging {
    pub judge: Judge,
    /// Names the model: checkpoint, revision, type, chat template and the like.
    pub model: Settings,
    /// Every call has a seed of its own that is derived from this one.
    pub seed: u64,
    /// Tokens of a chunk that extracts are taken from.
    pub chunk_tokens: usize,
}

/// LongReward's size of a chunk that extracts are taken from, in tokens.
pub const CHUNK_TOKENS: usize = 4096;

impl Judging {
    /// All of this by name.
    pub(crate) fn settings(&self) -> Settings {
        let judge = self.judge.settings();
        let budget = judge.max_reply_tokens.map_or("by prompt".to_owned(), |n| n.to_string());
        let own = [
            ("lang", format!("{:?}", judge.lang).to_lowercase()),
            ("max_reply_tokens", budget),
            ("seed", self.seed.to_string()),
            ("chunk_tokens", self.chunk_tokens.to_string()),
        ];
        let mut settings = with(&self.model, own);
        let prompts = self.judge.prompts().hashes().iter();
        settings.extend(prompts.map(|(place, hash)| (format!("prompt {place}"), hash.clone())));
        settings
    }

    /// All of this and what only ratings and labels depend on: of that, what is not as published.
    pub(crate) fn verdict_settings(&self) -> Settings {
        let judge = self.judge.settings();
        let mut settings = self.settings();
        let mut set = |name: &str, value: String| settings.insert(name.to_owned(), value);
        if judge.verdict_first {
            set("verdict_first", "true".to_owned());
        }
        if judge.voting.count > 1 {
            set("votes", judge.voting.count.to_string());
            set("vote_by", judge.voting.by.name().to_owned());
        }
        if judge.statements_per_call > 1 {
            set("statements_per_call", judge.statements_per_call.to_string());
        }
        for kind in judge.more_prompts() {
            for (place, hash) in self.judge.prompts().hashes_of(kind) {
                set(&format!("prompt {place}"), hash.clone());
            }
        }
        settings
    }
}

/// Settings with more of them.
pub(crate) fn with<const N: usize>(settings: &Settings, more: [(&str, String); N]) -> Settings {
    let mut settings = settings.clone();
    settings.extend(more.map(|(name, value)| (name.to_owned(), value)));
    settings
}

/// An output with all ids that it should come to hold, in the order of the input.
#[derive(Debug)]
pub(crate) struct Target {
    pub output: Output,
    pub ids: Vec<String>,
    /// Those of the ids that are not asked for yet; records that are there stay.
    beyond: HashSet<String>,
}

impl Target {
    /// Opens the output; `inputs` are the ids and the hashes of what they are made from.
    pub fn open(
        path: &Path,
        settings: &Settings,
        inputs: impl Iterator<Item = (String, String)>,
        on_mismatch: OnMismatch,
    ) -> Result<Self, Error> {
        Self::open_unless(path, settings, inputs, &|_, _| None, on_mismatch)
    }

    /// As [`open`](Self::open); `strange`: see [`Inputs`].
    pub fn open_unless(
        path: &Path,
        settings: &Settings,
        inputs: impl Iterator<Item = (String, String)>,
        strange: &dyn Fn(&str, &Row) -> Option<&'static str>,
        on_mismatch: OnMismatch,
    ) -> Result<Self, Error> {
        let inputs: Vec<(String, String)> = inputs.collect();
        let ids = inputs.iter().map(|(id, _)| id.clone()).collect();
        let inputs = Inputs { hashes: inputs.into_iter().collect(), strange };
        let output = Output::open(path, settings, &inputs, on_mismatch)?;
        Ok(Self { output, ids, beyond: HashSet::new() })
    }

    /// Leaves these ids for later.
    pub fn without(self, beyond: impl Iterator<Item = String>) -> Self {
        Self { beyond: beyond.collect(), ..self }
    }

    /// Whether a record is asked for and not there yet.
    pub fn lacks(&self, id: &str) -> bool {
        !self.output.contains(id) && !self.beyond.contains(id)
    }

    fn finish(self) -> Result<(), Error> {
        self.output.finish(&self.ids)
    }
}

/// An error about a record or rows that the input lacks, after the bad rows, which may be why.
pub(super) fn after(error: Error, problems: &[RowError]) -> Error {
    match error {
        Error::OtherInput { why: NOT_IN_INPUT, .. } | Error::Tools(_) if !problems.is_empty() => {
            let lines = first_of(problems.iter().map(ToString::to_string));
            Error::Tools(format!("{}\n{error}", lines.join("\n")))
        }
        error => error,
    }
}

/// A stage with its files open and checked, and `W`, the work that is left. How it is opened and run
/// is the stage's own.
#[derive(Debug)]
pub struct Opened<W> {
    pub(crate) plan: Plan,
    pub(crate) work: W,
}

impl<W> Opened<W> {
    /// Records that are not there yet. If there are none, [`close`](Self::close) does without a model.
    pub fn todo(&self) -> usize {
        self.plan.todo()
    }

    /// What the records depend on, by name.
    pub fn settings(&self) -> &Settings {
        &self.plan.settings
    }

    /// Ends a stage that has nothing to do.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn close(self) -> Result<Summary, Error> {
        self.plan.close()
    }
}

/// What a stage is to make, and where it goes.
#[derive(Debug)]
pub(crate) struct Plan {
    pub stage: &'static str,
    pub settings: Settings,
    pub seed: u64,
    /// The stage's own output, then those of by-products; never empty.
    pub targets: Vec<Target>,
    pub problems: Vec<RowError>,
}

impl Plan {
    fn own(&self) -> &Target {
        &self.targets[0]
    }

    /// Records that are not there yet.
    pub fn todo(&self) -> usize {
        self.own().ids.iter().filter(|id| self.own().lacks(id)).count()
    }

    /// Brings the outputs into their final form without a model, for when there is nothing to do.
    pub fn close(self) -> Result<Summary, Error> {
        let summary = self.summary();
        self.targets.into_iter().try_for_each(Target::finish)?;
        Ok(summary)
    }

    /// Works through the stage and brings the outputs into their final form, unless it was
    /// cancelled.
    pub fn run(mut self, stage: impl Stage, session: &mut Session) -> Result<Summary, Error> {
        for problem in first_of(self.problems.iter().map(ToString::to_string)) {
            session.progress.warn(&problem);
        }
        for discarded in self.targets.iter().filter_map(|target| target.output.discarded()) {
            session.progress.warn(discarded);
        }
        let journal = Journal::open(self.own().output.path(), &self.settings)?;
        let before = self.summary();
        let status = self.status(&before);
        let mut store = Store { targets: std::mem::take(&mut self.targets), journal };
        let (used, began) = (session.chat.usage(), Instant::now());
        let (tally, worked) = drive(stage, self.seed, status, session, &mut store);
        let (usage, seconds) = (session.chat.usage() - used, began.elapsed().as_secs_f64());
        let anew = before.reused == 0 && tally.reused_calls == 0;
        let Tally { calls, kept_calls, .. } = tally;
        let noted = Cost { runs: 1, calls, kept_calls, usage, seconds }.add(&before.out, anew);
        worked.and(noted)?;
        if !tally.cancelled {
            store.targets.into_iter().try_for_each(Target::finish)?;
        }
        Ok(before.with(tally))
    }

    fn status(&self, before: &Summary) -> Status {
        let Summary { reused, total, .. } = *before;
        Status {
            stage: self.stage,
            done: reused,
            failed: 0,
            total,
            calls: 0,
            in_flight: 0,
            calls_left: None,
        }
    }

    fn summary(&self) -> Summary {
        let (own, todo) = (self.own(), self.todo());
        let reused = own.ids.iter().filter(|id| own.output.contains(id)).count();
        Summary {
            stage: self.stage,
            out: self.own().output.path().to_owned(),
            total: reused + todo,
            reused,
            added: 0,
            failures: Vec::new(),
            problems: self.problems.clone(),
            foreign: 0,
            calls: 0,
            reused_calls: 0,
            cancelled: false,
        }
    }
}

impl Summary {
    fn with(self, tally: Tally) -> Self {
        let Tally { added, failures, calls, reused_calls, cancelled, .. } = tally;
        Self { added, failures, calls, reused_calls, cancelled, ..self }
    }
}

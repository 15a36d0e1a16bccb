//! The stage that asks the policy: an answer to each item.

use super::cut::{Fitted, Window, cut_middle};
use super::records::Prediction;
use super::suite::{Inputs, Item, Set, Suite};
use crate::chat::{Finish, Sampling};
use crate::pipeline::{
    Error, Finding, Finished, OnMismatch, Opened, Plan, Session, Settings, Stage, Summary, Target,
    Tokens, Unit, Work, with,
};
use std::collections::{BTreeSet, VecDeque};
use std::path::PathBuf;

/// Tokens of a document, at least, that a prompt must have room for.
const DOCUMENT: usize = 16;

/// How predictions are made, and where they go.
#[derive(Debug, Clone)]
pub struct Options {
    /// `predictions.jsonl`.
    pub out: PathBuf,
    /// Names the model: checkpoint, revision, type, chat template and the like.
    pub model: Settings,
    pub window: Window,
    /// 0 is greedy.
    pub temperature: f32,
    pub seed: u64,
    pub on_mismatch: OnMismatch,
}

/// The stage with its files open and checked.
pub type PredictPlan = Opened<Items>;

/// The items of a suite, and those that are missing.
#[derive(Debug)]
pub struct Items {
    sets: Vec<Set>,
    items: Vec<Item>,
    inputs: Inputs,
    /// Items without a prediction.
    jobs: VecDeque<usize>,
    options: Options,
}

impl PredictPlan {
    /// Opens the output for a suite, whose sets and items stay behind.
    ///
    /// # Errors
    /// Any [`Error`] but [`Error::Broken`].
    pub fn open(suite: Suite, options: Options) -> Result<Self, Error> {
        let settings = settings(&suite, &options);
        let Suite { sets, items, inputs, problems, .. } = suite;
        let ids = items.iter().map(|item| (item.idx.clone(), item.hash.clone()));
        let target = Target::open(&options.out, &settings, ids, options.on_mismatch)?;
        let missing = |position: &usize| !target.output.contains(&items[*position].idx);
        let jobs = (0..items.len()).filter(missing).collect();
        let (seed, targets) = (options.seed, vec![target]);
        let plan = Plan { stage: "predict", settings, seed, targets, problems };
        Ok(Self { plan, work: Items { sets, items, inputs, jobs, options } })
    }

    /// Whether prompts have room for their document, or a piece of it, beside the reply. `tokens` are the policy's own.
    ///
    /// # Errors
    /// [`Error::Tools`] for a set that has none.
    pub fn check_room(&self, tokens: &Tokens) -> Result<(), Error> {
        let Items { sets, items, inputs, jobs, options } = &self.work;
        let Window { context, max_input, .. } = options.window;
        let asked: BTreeSet<usize> = jobs.iter().map(|&item| items[item].set).collect();
        for set in asked {
            let (Set { name, max_new_tokens, .. }, frame) =
                (&sets[set], tokens(&inputs.frame(set)).len());
            let limit = options.window.input(*max_new_tokens);
            if limit < frame + DOCUMENT {
                return Err(Error::Tools(format!(
                    "{name}: beside {max_new_tokens} new tokens the model's context of {context} and an input of at most \
                     {max_input} tokens leave {limit} for a prompt, whose own words take {frame}: nothing would be left \
                     of the document"
                )));
            }
        }
        Ok(())
    }

    /// Predicts what is missing. `tokens` are the policy's own.
    ///
    /// # Errors
    /// [`Error::Broken`], [`Error::Io`], [`Error::Moved`], [`Error::Damaged`].
    pub fn run(self, tokens: &Tokens, session: &mut Session) -> Result<Summary, Error> {
        self.plan.run(Predictor { work: self.work, tokens }, session)
    }
}

/// Everything that a prediction depends on, but for its item. Not which sets there are.
fn settings(suite: &Suite, options: &Options) -> Settings {
    let Options { window, temperature, seed, .. } = options;
    let mut settings = with(
        &options.model,
        [
            ("stage", "predict".to_owned()),
            ("suite", suite.name.to_owned()),
            ("protocol", suite.protocol.to_owned()),
            ("temperature", temperature.to_string()),
            ("seed", seed.to_string()),
            ("max_input_tokens", window.max_input.to_string()),
            ("context_tokens", window.context.to_string()),
        ],
    );
    settings.extend(suite.settings.iter().cloned());
    settings
}

struct Predictor<'a> {
    work: Items,
    tokens: &'a Tokens<'a>,
}

struct Job {
    item: usize,
    input_tokens: usize,
    cut_tokens: usize,
    /// Until it is asked.
    work: Option<Work>,
    /// The same without what ends a prediction: asked if one ends before it begins.
    again: Option<Work>,
    /// Whether that is asked.
    is_again: bool,
}

impl Predictor<'_> {
    fn begin(&mut self, item: usize) -> Result<Job, Error> {
        let set = &self.work.sets[self.work.items[item].set];
        let limit = self.work.options.window.input(set.max_new_tokens);
        let prompt = self.work.inputs.load(item)?;
        let Fitted { text, tokens, cut } = cut_middle(prompt, limit, self.tokens);
        let sampling = Sampling {
            max_new_tokens: set.max_new_tokens,
            temperature: self.work.options.temperature,
            stop: set.stop.clone(),
            ..Sampling::default()
        };
        let work = |sampling: Sampling, text: String| match set.chat_template {
            true => Work::Sample { message: text, sampling },
            false => Work::Continue { text, sampling },
        };
        let unstopped = Sampling { stop: Vec::new(), ..sampling.clone() };
        let again = (!set.stop.is_empty()).then(|| work(unstopped, text.clone()));
        let work = Some(work(sampling, text));
        let is_again = false;
        Ok(Job { item, input_tokens: tokens, cut_tokens: cut, work, again, is_again })
    }

    /// A prediction up to the first of its set's stops behind the beginning. The suite's own generation
    /// lets nothing end a prediction before its first token.
    fn cut<'t>(&self, job: &Job, text: &'t str) -> &'t str {
        if !job.is_again {
            return text;
        }
        let stops = &self.work.sets[self.work.items[job.item].set].stop;
        let begin = |text: &'t str| stops.iter().find_map(|stop| text.strip_prefix(stop.as_str()));
        let mut text = text;
        while let Some(rest) = begin(text) {
            text = rest;
        }
        let end = stops.iter().filter_map(|stop| text.find(stop.as_str())).min();
        &text[..end.unwrap_or(text.len())]
    }
}

impl Stage for Predictor<'_> {
    type Job = Job;
    type Part = ();

    fn open(&mut self) -> Option<Result<Job, Error>> {
        let item = self.work.jobs.pop_front()?;
        Some(self.begin(item))
    }

    fn next(&mut self, job: &mut Job) -> Option<Unit<()>> {
        let work = job.work.take()?;
        let idx = &self.work.items[job.item].idx;
        let key = if job.is_again { format!("{idx}/again") } else { idx.clone() };
        Some(Unit { part: (), key, work })
    }

    fn take(
        &mut self,
        job: &mut Job,
        (): (),
        found: Result<Finding, String>,
    ) -> Result<Vec<Finished>, Error> {
        let item = &self.work.items[job.item];
        let finished = match found {
            Ok(Finding::Sample { text, finish: Finish::Stop })
                if text.is_empty() && job.again.is_some() =>
            {
                (job.work, job.is_again) = (job.again.take(), true);
                return Ok(Vec::new());
            }
            Ok(Finding::Sample { text, finish }) => {
                let pred = self.cut(job, &text).to_owned();
                let finish = if pred.len() < text.len() { Finish::Stop } else { finish };
                let prediction = Prediction {
                    idx: item.idx.clone(),
                    dataset: self.work.sets[item.set].name.clone(),
                    row_id: item.row_id.clone(),
                    query: item.query.clone(),
                    pred,
                    answers: item.references.clone(),
                    all_classes: Some(item.classes.clone()).filter(|classes| !classes.is_empty()),
                    length: item.length,
                    input_tokens: job.input_tokens,
                    cut_tokens: job.cut_tokens,
                    finish,
                    input_hash: item.hash.clone(),
                };
                Finished::record(0, &item.idx, &prediction)?
            }
            Ok(Finding::Verdict(_)) => {
                Finished::failed(&item.idx, "a verdict stands where a sampled text should")
            }
            Err(reason) => Finished::failed(&item.idx, reason),
        };
        Ok(vec![finished])
    }
}

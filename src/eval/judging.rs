//! The stage that asks the judge: a rating of each prediction against each of its references.

use super::prompts::JudgePrompts;
use super::records::{Judged, Prediction};
use super::suite::{Example, Item, Set};
use super::tasks::Rubric;
use crate::judge::{Ask, AskKind, Lang, LangChoice, Rated, Voting};
use crate::pipeline::records::input_hash;
use crate::pipeline::{
    Error, Finding, Finished, OnMismatch, Opened, Plan, Session, Settings, Stage, Summary, Target,
    Unit, Work, with,
};
use std::collections::{HashMap, VecDeque};
use std::path::PathBuf;

/// What judging depends on, and where it goes.
#[derive(Debug, Clone)]
pub struct Options {
    /// `verdicts.jsonl`.
    pub out: PathBuf,
    /// Names the judge.
    pub model: Settings,
    pub prompts: JudgePrompts,
    pub lang: LangChoice,
    /// Tokens of a reply.
    pub max_reply_tokens: usize,
    pub seed: u64,
    pub on_mismatch: OnMismatch,
}

/// Tokens of the judge's reply, if nothing else is said.
pub const REPLY_TOKENS: usize = 512;

/// The stage with its files open and checked.
pub type JudgingPlan = Opened<Panel>;

impl JudgingPlan {
    /// Opens the output for predictions of these items. Sets without a rubric are passed over.
    ///
    /// # Errors
    /// Any [`Error`] but [`Error::Broken`].
    pub fn open(
        sets: &[Set],
        items: &[Item],
        predictions: Vec<Prediction>,
        options: Options,
    ) -> Result<Self, Error> {
        let settings = settings(&options);
        let items: HashMap<&str, &Item> =
            items.iter().map(|item| (item.idx.as_str(), item)).collect();
        let case = |prediction: Prediction| {
            let item = items.get(prediction.idx.as_str())?;
            let rubric = sets[item.set].rubric?;
            let hash = input_hash(&[&item.hash, &prediction.pred]);
            Some(Case { rubric, prediction, examples: item.examples.clone(), hash })
        };
        let cases: Vec<Case> = predictions.into_iter().filter_map(case).collect();
        let ids = cases.iter().map(|case| (case.prediction.idx.clone(), case.hash.clone()));
        let target = Target::open(&options.out, &settings, ids, options.on_mismatch)?;
        let missing = |at: &usize| !target.output.contains(&cases[*at].prediction.idx);
        let jobs = (0..cases.len()).filter(missing).collect();
        let (seed, targets) = (options.seed, vec![target]);
        let plan = Plan { stage: "judge", settings, seed, targets, problems: Vec::new() };
        Ok(Self { plan, work: Panel { cases, jobs, options } })
    }

    /// Judges what is missing.
    ///
    /// # Errors
    /// [`Error::Broken`], [`Error::Io`], [`Error::Damaged`].
    pub fn run(self, session: &mut Session) -> Result<Summary, Error> {
        self.plan.run(self.work, session)
    }
}

/// Everything that a verdict depends on, but for what is judged.
fn settings(options: &Options) -> Settings {
    let mut settings = with(
        &options.model,
        [
            ("stage", "judge".to_owned()),
            ("lang", format!("{:?}", options.lang).to_lowercase()),
            ("max_reply_tokens", options.max_reply_tokens.to_string()),
            ("seed", options.seed.to_string()),
        ],
    );
    settings.extend(options.prompts.settings());
    settings
}

/// The predictions to be judged.
#[derive(Debug)]
pub struct Panel {
    cases: Vec<Case>,
    jobs: VecDeque<usize>,
    options: Options,
}

/// A prediction to be judged.
#[derive(Debug)]
struct Case {
    rubric: Rubric,
    prediction: Prediction,
    examples: Vec<Example>,
    hash: String,
}

impl Case {
    fn ask(&self, reference: usize, options: &Options) -> Ask {
        let Prediction { query, pred, answers, .. } = &self.prediction;
        let reference = &answers[reference];
        let lang: Lang = options.lang.resolve(&[query, reference]);
        let pattern = options.prompts.get(self.rubric, lang);
        let prompt = match self.rubric {
            Rubric::Qa | Rubric::Summary => pattern.fill(&[query, reference, pred]),
            Rubric::Chat => {
                let mut values = vec![query.as_str(), reference];
                values
                    .extend(self.examples.iter().flat_map(|one| [one.answer.as_str(), &one.score]));
                values.push(pred);
                pattern.fill(&values)
            }
        };
        let (low, high) = self.rubric.scale();
        Ask {
            kind: AskKind::Scale { low, high },
            prompt,
            max_new_tokens: options.max_reply_tokens,
            opening: None,
            voting: Voting::default(),
        }
    }
}

/// A prediction that is being judged.
#[derive(Debug)]
pub struct Job {
    case: usize,
    /// The next reference to be asked about.
    next: usize,
    /// By reference.
    verdicts: Vec<Option<Rated>>,
    /// A verdict failed, so that there will be no record.
    failed: bool,
}

impl Stage for Panel {
    type Job = Job;
    /// A reference.
    type Part = usize;

    fn open(&mut self) -> Option<Result<Job, Error>> {
        let case = self.jobs.pop_front()?;
        let verdicts = vec![None; self.cases[case].prediction.answers.len()];
        Some(Ok(Job { case, next: 0, verdicts, failed: false }))
    }

    fn next(&mut self, job: &mut Job) -> Option<Unit<usize>> {
        if job.failed || job.next == job.verdicts.len() {
            return None;
        }
        let part = job.next;
        job.next += 1;
        let case = &self.cases[job.case];
        let key = format!("{}/reference/{part}", case.prediction.idx);
        Some(Unit { part, key, work: Work::Judge(case.ask(part, &self.options)) })
    }

    fn take(
        &mut self,
        job: &mut Job,
        part: usize,
        found: Result<Finding, String>,
    ) -> Result<Vec<Finished>, Error> {
        if job.failed {
            return Ok(Vec::new());
        }
        let case = &self.cases[job.case];
        let id = &case.prediction.idx;
        let rated = found.and_then(Finding::verdict).and_then(|verdict| {
            Rated::new(verdict).ok_or_else(|| "the verdict is no rating".to_owned())
        });
        match rated {
            Ok(rated) => job.verdicts[part] = Some(rated),
            Err(why) => {
                job.failed = true;
                return Ok(vec![Finished::failed(id, why)]);
            }
        }
        let verdicts: Option<Vec<Rated>> = job.verdicts.iter().cloned().collect();
        let Some(verdicts) = verdicts else { return Ok(Vec::new()) };
        Ok(vec![Finished::record(0, id, &judged(case, verdicts))?])
    }
}

fn judged(case: &Case, verdicts: Vec<Rated>) -> Judged {
    let mut best = 0;
    for (reference, verdict) in verdicts.iter().enumerate() {
        if verdict.score > verdicts[best].score {
            best = reference;
        }
    }
    Judged {
        idx: case.prediction.idx.clone(),
        dataset: case.prediction.dataset.clone(),
        score: case.rubric.share(verdicts[best].score),
        best,
        forced: verdicts[best].forced,
        verdicts,
        input_hash: case.hash.clone(),
    }
}

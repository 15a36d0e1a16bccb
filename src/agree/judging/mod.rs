//! Brings labelled rows to verdicts, as scoring would.
//!
//! A claim is checked against the passages of its evidence that are nearest to it. Answers are
//! rated one by one, never side by side: of two answers the one with the higher mean is preferred.
//! So the order in which two answers are given can't matter, and there is no bias of position to
//! measure: every seed hangs on the answer's text, not its place.

mod answers;
mod claim;
mod record;

pub use record::{Details, Found, Judged, Score, Variant, read_judged};

use super::labels::{Format, Item, Kind, Labels};
use super::passages::Cut;
use crate::agree::padding::padded;
use crate::judge::{Dimension, Lang, LangChoice, Verdict};
use crate::pipeline::jsonl::RowError;
use crate::pipeline::score::evidence_settings;
use crate::pipeline::{
    ByKind, Error, Evidencing, Finding, Finished, Judging, OnMismatch, Opened, PLAIN, Plan,
    Session, Settings, Stage, Summary, Target, Tokens, Unit, WEIGHED, Work, add, with,
};
use crate::retrieval::Retriever;
use crate::retrieval::chunk::Cutting;
use answers::{Answers, verdicts_on};
use claim::ClaimWork;
use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What is judged, how, and where it goes.
#[derive(Debug, Clone)]
pub struct Options {
    /// The file of labels.
    pub labels: PathBuf,
    pub format: Format,
    /// So many good rows of it at most.
    pub limit: Option<usize>,
    pub out: PathBuf,
    pub judging: Judging,
    /// Every row is judged so often, each time with other seeds. The number may grow later.
    pub runs: usize,
    pub variants: Variants,
    pub method: Method,
    /// Names the way of finding passages: `bm25`, or the embedder and its revision.
    pub retriever: String,
    pub on_mismatch: OnMismatch,
}

/// Ways in which rows are judged once more; like runs, they may be added later.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Variants {
    /// Answers with sentences added that say nothing.
    pub padded: bool,
    /// With prompts in each of these languages.
    pub langs: Vec<Lang>,
}

/// How texts are cut, and answers are judged.
#[derive(Debug, Clone, PartialEq)]
pub struct Method {
    /// What passage a claim is checked against.
    pub claim_passage: Cut,
    /// How documents are cut into the passages that the statements of an answer are checked against.
    pub cutting: Cutting,
    /// What claims and statements are checked against.
    pub evidence: Evidencing,
    /// In which answers are judged. Those that need a document are passed over where a row has
    /// none.
    pub dimensions: Vec<Dimension>,
}

/// What judging needs besides a model.
pub struct Tools<'a> {
    /// The judge's own tokens.
    pub tokens: &'a Tokens<'a>,
    pub retriever: &'a mut Retriever,
}

/// The stage with its files open and checked.
pub type JudgingPlan = Opened<Rows>;

/// The rows of labels, and what is missing of them.
#[derive(Debug)]
pub struct Rows {
    items: Arc<[Item]>,
    /// Rows and runs that are not there yet.
    jobs: VecDeque<Task>,
    judging: Judging,
    method: Method,
}

/// One record to be made.
#[derive(Debug, Clone, Copy)]
struct Task {
    /// Of the row, among the good ones.
    item: usize,
    run: usize,
    variant: Variant,
}

impl JudgingPlan {
    /// Checks the input and opens the output.
    ///
    /// # Errors
    /// Any [`Error`] but [`Error::Broken`].
    pub fn open(options: Options) -> Result<Self, Error> {
        let settings = settings(&options);
        let Options { labels, format, limit, out, judging, method, on_mismatch, .. } = options;
        let (runs, variants) = (options.runs, options.variants);
        let Labels { items, problems } = Labels::read(&labels, format, limit)?;
        check_not_empty(&labels, &items, &problems)?;
        check_contexts(&items, &method.dimensions)?;
        let lang = judging.judge.settings().lang;
        let all = tasks(&items, runs, &variants, lang);
        let id = |task: &Task| Judged::id(&items[task.item].idx, task.run, task.variant);
        let inputs = all.iter().map(|task| (id(task), items[task.item].hash()));
        let target = Target::open(&out, &settings, inputs, on_mismatch)?;
        let missing = all.iter().filter(|job| !target.output.contains(&id(job)));
        let jobs = missing.copied().collect();
        let (seed, targets) = (judging.seed, vec![target]);
        let plan = Plan { stage: "agree", settings, seed, targets, problems };
        Ok(Self { plan, work: Rows { items: items.into(), jobs, judging, method } })
    }

    /// The good rows of the labels.
    pub fn items(&self) -> Arc<[Item]> {
        self.work.items.clone()
    }

    /// Judges what is missing.
    ///
    /// # Errors
    /// [`Error::Broken`], [`Error::Io`], [`Error::Damaged`].
    pub fn run(self, tools: Tools, session: &mut Session) -> Result<Summary, Error> {
        let mut unopened = [0.0; 2];
        self.work.jobs.iter().for_each(|task| add(&mut unopened, self.work.verdicts(*task)));
        self.plan.run(Panel { work: self.work, tools, unopened }, session)
    }
}

/// Runs of each row as it is, then its variants. Prompts in the language that they would be in
/// anyway are no variant.
fn tasks(items: &[Item], runs: usize, variants: &Variants, lang: LangChoice) -> Vec<Task> {
    let of_item = |(item, row): (usize, &Item)| {
        let plain = (0..runs).map(|run| Task { item, run, variant: Variant::Plain }).collect();
        let own = row.lang(lang);
        let langs = variants.langs.iter().filter(|lang| own != Some(**lang));
        let has_answers = !matches!(row.kind, Kind::Support(_));
        let padded = (variants.padded && has_answers).then_some(Variant::Padded);
        let others = padded.into_iter().chain(langs.map(|lang| Variant::of(*lang)));
        let others = others.map(|variant| Task { item, run: 0, variant });
        [plain, others.collect::<Vec<Task>>()].concat()
    };
    items.iter().enumerate().flat_map(of_item).collect()
}

fn check_not_empty(labels: &Path, items: &[Item], problems: &[RowError]) -> Result<(), Error> {
    if !items.is_empty() {
        return Ok(());
    }
    let problems: String = problems.iter().map(|problem| format!("\n{problem}")).collect();
    Err(Error::Tools(format!("{} has no good row{problems}", labels.display())))
}

/// Every answer must have a dimension that it can be judged in.
fn check_contexts(items: &[Item], dimensions: &[Dimension]) -> Result<(), Error> {
    let without = |item: &&Item| match &item.kind {
        Kind::Support(_) => false,
        Kind::Pairwise(pair) => pair.context.is_none(),
        Kind::Rating(rating) => rating.context.is_none(),
    };
    if dimensions.iter().any(|dimension| !needs_document(*dimension)) {
        return Ok(());
    }
    match items.iter().find(without) {
        None => Ok(()),
        Some(item) => Err(Error::Tools(format!(
            "the row {:?} has no context, but faithfulness and completeness need one: add \
             helpfulness or logicality to the dimensions",
            item.idx
        ))),
    }
}

fn needs_document(dimension: Dimension) -> bool {
    matches!(dimension, Dimension::Faithfulness | Dimension::Completeness)
}

/// Everything that a verdict depends on. Not how many there are.
fn settings(options: &Options) -> Settings {
    let Method { claim_passage, cutting, evidence, dimensions } = &options.method;
    let dimensions: Vec<&str> = dimensions.iter().map(|dimension| dimension.name()).collect();
    let mut settings = with(
        &options.judging.verdict_settings(),
        [
            ("stage", "agree".to_owned()),
            ("retriever", options.retriever.clone()),
            ("claim_passage", claim_passage.to_string()),
            ("dimensions", dimensions.join(",")),
        ],
    );
    settings.extend(evidence_settings(*cutting, *evidence));
    settings
}

/// A unit of the work on a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    /// Check the claim.
    Claim,
    Answers(answers::Part),
}

struct Panel<'a> {
    work: Rows,
    tools: Tools<'a>,
    /// About how many verdicts the rows take that are not begun.
    unopened: ByKind,
}

/// The work on one row in one run.
struct Job {
    task: Task,
    /// As the task's variant has it.
    judging: Judging,
    work: RowWork,
    /// Its record is written, or it has failed.
    settled: bool,
}

impl Rows {
    /// About how many verdicts a task takes.
    fn verdicts(&self, task: Task) -> ByKind {
        let mut verdicts = [0.0; 2];
        let (answers, context) = match &self.items[task.item].kind {
            Kind::Support(_) => {
                verdicts[WEIGHED] = 1.0;
                return verdicts;
            }
            Kind::Pairwise(pair) => (&pair.responses[..], &pair.context),
            Kind::Rating(rating) => (std::slice::from_ref(&rating.answer), &rating.context),
        };
        let applies = |dimension: &&Dimension| context.is_some() || !needs_document(**dimension);
        for &dimension in self.method.dimensions.iter().filter(applies) {
            for answer in answers {
                verdicts[WEIGHED] += verdicts_on(dimension, answer);
            }
            // A list of statements for each answer; extracts from a chunk at least.
            verdicts[PLAIN] += match dimension {
                Dimension::Faithfulness => answers.len() as f64,
                Dimension::Completeness => 1.0,
                _ => 0.0,
            };
        }
        verdicts
    }
}

enum RowWork {
    Claim(Box<ClaimWork>),
    Answers(Box<Answers>),
}

impl Panel<'_> {
    /// How the task's variant is judged.
    fn judging(&self, task: Task) -> Judging {
        let lang = match task.variant {
            Variant::Plain | Variant::Padded => return self.work.judging.clone(),
            Variant::En => LangChoice::En,
            Variant::Zh => LangChoice::Zh,
        };
        Judging { judge: self.work.judging.judge.with_lang(lang), ..self.work.judging.clone() }
    }

    fn begin(&mut self, task: Task, judging: &Judging) -> Result<RowWork, Error> {
        let Self { work: Rows { items, method, .. }, tools, .. } = self;
        let (query, context, answers) = match &items[task.item].kind {
            Kind::Support(claim) => {
                let work = ClaimWork::new(claim, judging, method, tools);
                return work.map(|work| RowWork::Claim(Box::new(work))).map_err(Error::Tools);
            }
            Kind::Pairwise(pair) => (&pair.query, &pair.context, pair.responses.to_vec()),
            Kind::Rating(row) => (&row.query, &row.context, vec![row.answer.clone()]),
        };
        let as_asked = |answer: &String| match task.variant {
            Variant::Padded => padded(answer),
            _ => answer.clone(),
        };
        let answers: Vec<String> = answers.iter().map(as_asked).collect();
        let answers: Vec<&str> = answers.iter().map(String::as_str).collect();
        let work = Answers::new(query, context.as_deref(), &answers, judging, method, tools);
        Ok(RowWork::Answers(Box::new(work)))
    }

    fn put(&mut self, job: &mut Job, part: Part, verdict: Verdict) -> Result<(), String> {
        match (&mut job.work, part) {
            (RowWork::Claim(work), Part::Claim) => work.put(verdict),
            (RowWork::Answers(work), Part::Answers(part)) => {
                work.put(part, verdict, &self.work.judging, &self.work.method, &mut self.tools)
            }
            _ => Err("a verdict came for a row of another kind".to_owned()),
        }
    }

    fn id(&self, Task { item, run, variant }: Task) -> String {
        Judged::id(&self.work.items[item].idx, run, variant)
    }

    /// The record, if all verdicts are there.
    fn record(&self, job: &Job) -> Option<Judged> {
        let Task { item, run, variant } = job.task;
        let item = &self.work.items[item];
        let (found, forced) = match &job.work {
            RowWork::Claim(work) => {
                let details = work.found()?;
                let forced = details.forced;
                (Found::Support { details }, forced)
            }
            RowWork::Answers(work) => found(work.found()?)?,
        };
        Some(Judged {
            idx: Judged::id(&item.idx, run, variant),
            item: item.idx.clone(),
            run,
            variant,
            found,
            forced,
            input_hash: item.hash(),
        })
    }
}

/// One answer was rated, or two compared.
fn found(answers: Vec<Details>) -> Option<(Found, bool)> {
    let forced = answers.iter().any(Details::forced);
    let mut answers = answers.into_iter();
    let first = answers.next()?;
    let found = match answers.next() {
        Some(b) => Found::Pairwise { a: first.into(), b: b.into() },
        None => Found::Rating { details: first.into() },
    };
    Some((found, forced))
}

impl Stage for Panel<'_> {
    type Job = Job;
    type Part = Part;

    fn open(&mut self) -> Option<Result<Job, Error>> {
        let task = self.work.jobs.pop_front()?;
        let opened = self.work.verdicts(task);
        add(&mut self.unopened, opened.map(|count| -count));
        let judging = self.judging(task);
        let begun = self.begin(task, &judging);
        Some(begun.map(|work| Job { task, judging, work, settled: false }))
    }

    fn next(&mut self, job: &mut Job) -> Option<Unit<Part>> {
        if job.settled {
            return None;
        }
        let record = self.id(job.task);
        let (part, key, ask) = match &mut job.work {
            RowWork::Claim(work) => (Part::Claim, "support".to_owned(), work.next()?),
            RowWork::Answers(work) => {
                let (part, key, ask) = work.next(&job.judging)?;
                (Part::Answers(part), key, ask)
            }
        };
        Some(Unit { part, key: format!("{record}/{key}"), work: Work::Judge(ask) })
    }

    fn take(
        &mut self,
        job: &mut Job,
        part: Part,
        found: Result<Finding, String>,
    ) -> Result<Vec<Finished>, Error> {
        if job.settled {
            return Ok(Vec::new());
        }
        let id = self.id(job.task);
        let taken = found.and_then(|finding| self.put(job, part, finding.verdict()?));
        if let Err(why) = taken {
            if let (RowWork::Answers(work), Part::Answers(part)) = (&mut job.work, part)
                && work.ask_instead(part)
            {
                return Ok(Vec::new());
            }
            job.settled = true;
            return Ok(vec![Finished::failed(id, why)]);
        }
        let Some(record) = self.record(job) else { return Ok(Vec::new()) };
        job.settled = true;
        Ok(vec![Finished::record(0, id, &record)?])
    }

    fn ahead(&self, open: &mut dyn Iterator<Item = &Job>) -> Option<ByKind> {
        let mut ahead = self.unopened;
        for job in open.filter(|job| !job.settled) {
            match &job.work {
                RowWork::Claim(work) => {
                    ahead[WEIGHED] += f64::from(u8::from(work.is_to_be_asked()))
                }
                RowWork::Answers(work) => add(&mut ahead, work.ahead()),
            }
        }
        ahead[WEIGHED] *= self.work.judging.judge.settings().voting.count as f64;
        Some(ahead)
    }
}

#[cfg(test)]
mod tests;

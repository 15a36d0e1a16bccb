//! A small data set, a model that answers by hashing, and a folder to run stages in.

use super::records::ScoreBy;
use super::score::{ScorePlan, Tools};
use super::{
    Error, Evidencing, Judging, OnMismatch, Quiet, Session, Summary, chunk_info, pairs, run,
    sample, score,
};
use crate::chat::{Call, CallId, Chat, ChatError, Finish, Reply, Sampling, Task, Usage};
use crate::judge::{Judge, LangChoice, Prompts, Settings};
use crate::pipeline::chunk_info::ChunkInfoPlan;
use crate::pipeline::sample::SamplePlan;
use crate::retrieval::Retriever;
use crate::retrieval::chunk::Cutting;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

/// The first word of each says what it asks for.
const PROMPTS: [(&str, &str); 13] = [
    ("helpfulness_few_shot", "HELPFULNESS\n<<question>>\n<<answer>>"),
    ("logicality_few_shot", "LOGICALITY\n<<question>>\n<<answer>>"),
    ("find_fact_few_shot", "STATEMENTS\n<<question>>\n<<answer>>"),
    ("faithfulness_few_shot", "SUPPORT\n<<context>>\n<<statement>>"),
    ("completeness_few_shot", "COMPLETENESS\n<<context>>\n<<question>>\n<<answer>>"),
    ("extract_info_en", "EXTRACT\n<<context>>\n<<question>>"),
    ("extract_info_zh", "EXTRACT\n<<context>>\n<<question>>"),
    ("helpfulness_verdict", "HELPFULNESS\nbare\n<<question>>\n<<answer>>"),
    ("logicality_verdict", "LOGICALITY\nbare\n<<question>>\n<<answer>>"),
    ("support_verdict", "SUPPORT\nbare\n<<context>>\n<<statement>>"),
    ("completeness_verdict", "COMPLETENESS\nbare\n<<context>>\n<<question>>\n<<answer>>"),
    ("supports", "SUPPORTS\n<<context>>\n<<statement>>"),
    ("supports_verdict", "SUPPORTS\nbare\n<<context>>\n<<statement>>"),
];

/// Words of the document of each prompt.
const DOCUMENTS: [usize; 3] = [25, 7, 40];

fn hash(text: &str) -> u64 {
    let digest = Sha256::digest(text.as_bytes());
    digest.iter().take(8).fold(0, |hash, &byte| (hash << 8) | u64::from(byte))
}

/// What a call asks for: the first word of a judge's prompt.
pub fn kind(call: &Call) -> &str {
    let first = call.messages[0].content.lines().next().unwrap();
    if first.chars().all(char::is_uppercase) { first } else { "SAMPLE" }
}

/// What every rating is of an answer that begins with one of these words.
const FIXED: [(&str, u64); 3] = [("Superb:", 10), ("Middling:", 5), ("Dreadful:", 0)];

fn fixed_rating(call: &Call) -> Option<u64> {
    let rated = matches!(kind(call), "HELPFULNESS" | "LOGICALITY" | "COMPLETENESS");
    let says = |word: &str| rated && call.messages[0].content.contains(word);
    FIXED.iter().find(|(word, _)| says(word)).map(|(_, rating)| *rating)
}

/// A reply that depends on the call alone. One judge's reply in four can't be read, and one prompt
/// in eight never gets a readable one.
pub fn answer(call: &Call) -> Result<Reply, ChatError> {
    let n = hash(&format!("{call:?}"));
    let usage = Usage::default();
    let text = match (&call.task, kind(call)) {
        (Task::Score { continuations, .. }, _) => {
            let fixed = fixed_rating(call).map(|rating| rating.to_string());
            let logprob = |text: &String| match &fixed {
                Some(rating) if rating == text => 0.0,
                Some(_) => -30.0,
                None => -((hash(&format!("{n}{text}")) % 100) as f64) / 10.0,
            };
            let logprobs = continuations.iter().map(logprob).collect();
            return Ok(Reply::Scores { logprobs, usage });
        }
        _ if fixed_rating(call).is_some() => {
            format!("Clearly: [[{}]]", fixed_rating(call).unwrap_or_default())
        }
        (_, "SAMPLE") => format!("Answer {n}. It is one of {}.", n % 9),
        _ if n.is_multiple_of(4) || hash(&call.messages[0].content).is_multiple_of(8) => {
            "Hm.".to_owned()
        }
        (_, "STATEMENTS") => {
            let fact = |i: u64| format!("<statement>word{} is {n}</statement>", (n + i) % 30);
            (0..n % 3 + 1).map(fact).collect::<Vec<_>>().join("\n")
        }
        (_, "SUPPORT") => {
            let labels = ["[[Fully supported]]", "[[Partially supported]]", "[[No support]]"];
            format!("So: {}", labels[n as usize / 4 % 3])
        }
        // One label in five is forgotten.
        (_, "SUPPORTS") => {
            let labels = ["[[Fully supported]]", "[[Partially supported]]", "[[No support]]"];
            let lines = (0..6u64).filter(|i| !(n + i).is_multiple_of(5));
            let line = |i: u64| format!("{}: {}", i + 1, labels[((n + i) / 5 % 3) as usize]);
            lines.map(line).collect::<Vec<_>>().join("\n")
        }
        (_, "EXTRACT") => format!("It says {n}."),
        _ => format!("Because of {n}: [[{}]]", n / 4 % 11),
    };
    Ok(Reply::Text { text, finish: Finish::Stop, usage })
}

/// What [`Model::wait`] does instead of replying when its replies are used up.
#[derive(Clone, Copy, PartialEq)]
pub enum End {
    /// Unwinds without a word, as a killed process stops.
    Killed,
    Broken,
}

type Answer = dyn FnMut(&Call) -> Result<Reply, ChatError>;

/// Answers by a function, out of order.
pub struct Model {
    reply: Box<Answer>,
    pub appetite: usize,
    /// Changes the order in which calls are finished; 0 finishes all that are queued at once.
    shuffle: u64,
    /// Replies left before the end.
    left: Option<(usize, End)>,
    queue: BTreeMap<CallId, Call>,
    /// Calls that were answered, in order.
    pub seen: Vec<Call>,
    /// Calls in the order of their submission.
    pub submitted: Vec<Call>,
}

impl Model {
    pub fn new() -> Self {
        Self {
            reply: Box::new(answer),
            appetite: 8,
            shuffle: 0,
            left: None,
            queue: BTreeMap::new(),
            seen: Vec::new(),
            submitted: Vec::new(),
        }
    }

    pub fn replying(reply: impl FnMut(&Call) -> Result<Reply, ChatError> + 'static) -> Self {
        Self { reply: Box::new(reply), ..Self::new() }
    }

    pub fn with(appetite: usize, shuffle: u64) -> Self {
        Self { appetite, shuffle, ..Self::new() }
    }

    pub fn ending(after: usize, end: End) -> Self {
        Self { left: Some((after, end)), shuffle: 7, ..Self::new() }
    }

    fn finish(&mut self) -> Option<(CallId, Result<Reply, ChatError>)> {
        let at = hash(&format!("{}/{}", self.shuffle, self.seen.len())) as usize;
        let at = if self.shuffle == 0 { 0 } else { at % self.queue.len().max(1) };
        let id = *self.queue.keys().nth(at)?;
        let call = self.queue.remove(&id)?;
        if let Some((left, end)) = &mut self.left {
            match (*left, *end) {
                (0, End::Killed) => resume_unwind(Box::new(())),
                (0, End::Broken) => return Some((id, Err(ChatError::Broken("gone".into())))),
                _ => *left -= 1,
            }
        }
        let reply = (self.reply)(&call);
        self.seen.push(call);
        Some((id, reply))
    }
}

impl Chat for Model {
    fn submit(&mut self, id: CallId, call: Call) {
        self.submitted.push(call.clone());
        assert!(self.queue.insert(id, call).is_none(), "call {id} is in flight already");
        assert!(self.queue.len() <= self.appetite, "more calls in flight than wanted");
    }

    fn wait(&mut self) -> Vec<(CallId, Result<Reply, ChatError>)> {
        let at_once = if self.shuffle == 0 { usize::MAX } else { self.seen.len() % 3 + 1 };
        (0..at_once).map_while(|_| self.finish()).collect()
    }

    fn appetite(&self) -> usize {
        self.appetite
    }

    fn usage(&self) -> Usage {
        Usage::default()
    }
}

/// Words are tokens.
pub fn tokens(text: &str) -> Vec<(u32, Range<usize>)> {
    let starts = text.split_inclusive(' ').scan(0, |start, word| {
        *start += word.len();
        Some(*start - word.len()..*start)
    });
    starts.map(|range| (0, range)).collect()
}

/// A folder with the data set.
pub struct Lab {
    _dir: tempfile::TempDir,
    pub dir: PathBuf,
    pub seed: u64,
    pub on_mismatch: OnMismatch,
}

impl Lab {
    /// With data and three answers to each prompt, the prompts' order mixed.
    pub fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().to_owned();
        let on_mismatch = OnMismatch::Refuse;
        let lab = Self { dir: path, _dir: dir, seed: 1, on_mismatch };
        std::fs::create_dir(lab.file("prompts")).unwrap();
        for (name, text) in PROMPTS {
            lab.write(&format!("prompts/{name}.txt"), text);
        }
        lab.write("sft.jsonl", &data());
        lab.write("sampled_responses.jsonl", &responses());
        lab
    }

    pub fn file(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    pub fn write(&self, name: &str, text: &str) {
        std::fs::write(self.file(name), text).unwrap();
    }

    pub fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.file(name)).unwrap()
    }

    pub fn rows(&self, name: &str) -> Vec<serde_json::Value> {
        self.read(name).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// Names of the files that a stage left besides its outputs and their settings.
    pub fn leftovers(&self) -> Vec<String> {
        let names = std::fs::read_dir(&self.dir).unwrap();
        let names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.filter(|name| name.ends_with(".journal") || name.ends_with(".tmp")).collect()
    }

    pub fn judging(&self) -> Judging {
        self.judging_by(Settings::default())
    }

    /// With other settings of the judge, but for its language.
    pub fn judging_by(&self, settings: Settings) -> Judging {
        let prompts = Prompts::from_dir(&self.file("prompts")).unwrap();
        let settings = Settings { lang: LangChoice::En, ..settings };
        let model = [("model".to_owned(), "test".to_owned())].into();
        Judging { judge: Judge::new(prompts, settings), model, seed: self.seed, chunk_tokens: 10 }
    }

    pub fn score_options(&self) -> score::Options {
        score::Options {
            data: self.file("sft.jsonl"),
            responses: self.file("sampled_responses.jsonl"),
            out: self.file("scored_responses.jsonl"),
            chunk_info: None,
            extracts: self.file("chunk_info.jsonl"),
            judging: self.judging(),
            retriever: "bm25".to_owned(),
            cutting: Cutting::tokens(4),
            evidence: Evidencing { passages: 2, whole_document: None },
            score_by: ScoreBy::default(),
            calibration: None,
            early_stop: false,
            limit: None,
            on_mismatch: self.on_mismatch,
        }
    }

    pub fn score(&self, model: &mut Model) -> Result<Summary, Error> {
        self.score_with(self.score_options(), model)
    }

    pub fn score_with(&self, options: score::Options, model: &mut Model) -> Result<Summary, Error> {
        run_score(ScorePlan::open(options)?, model)
    }

    /// Scores until the model's replies are used up; nothing is tidied up.
    pub fn score_killed(&self, after: usize) {
        let mut model = Model::ending(after, End::Killed);
        let run = AssertUnwindSafe(|| self.score(&mut model).map(|_| ()));
        assert!(catch_unwind(run).is_err(), "the run ended before {after} replies");
    }

    pub fn chunk_info(&self, model: &mut Model) -> Result<Summary, Error> {
        self.chunk_info_of(None, model)
    }

    /// Extracts of the first prompts.
    pub fn chunk_info_of(&self, limit: Option<usize>, model: &mut Model) -> Result<Summary, Error> {
        let options = chunk_info::Options {
            data: self.file("sft.jsonl"),
            out: self.file("chunk_info.jsonl"),
            judging: self.judging(),
            limit,
            on_mismatch: self.on_mismatch,
        };
        let cancel = AtomicBool::new(false);
        let mut session = Session { chat: model, progress: &mut Quiet, cancel: &cancel };
        ChunkInfoPlan::open(options)?.run(&tokens, &mut session)
    }

    pub fn sample_options(&self, n: u64) -> sample::Options {
        sample::Options {
            data: self.file("sft.jsonl"),
            out: self.file("sampled_responses.jsonl"),
            model: [("model".to_owned(), "policy".to_owned())].into(),
            n,
            sampling: Sampling { seed: self.seed, ..Sampling::default() },
            limit: None,
            on_mismatch: self.on_mismatch,
        }
    }

    pub fn sample(&self, n: u64, model: &mut Model) -> Result<Summary, Error> {
        run_sample(SamplePlan::open(self.sample_options(n))?, model)
    }

    pub fn pairs_options(&self) -> pairs::Options {
        pairs::Options {
            data: self.file("sft.jsonl"),
            scored: self.file("scored_responses.jsonl"),
            out: self.file("preference_pairs.jsonl"),
            format: pairs::Format::LongReward,
            min_scored: 3,
            min_margin: 0.0,
            max_length_ratio: None,
        }
    }

    /// All stages in a row.
    pub fn run(&self, policy: &mut Model, judge: &mut Model) -> Result<run::RunSummary, Error> {
        let options = run::Options {
            sample: self.sample_options(4),
            score: self.score_options(),
            pairs: self.pairs_options(),
        };
        run::run(options, |plan| run_sample(plan, policy), |plan| run_score(plan, judge), None)
    }
}

pub fn run_sample(plan: SamplePlan, model: &mut Model) -> Result<Summary, Error> {
    let cancel = AtomicBool::new(false);
    plan.run(&mut Session { chat: model, progress: &mut Quiet, cancel: &cancel })
}

pub fn run_score(plan: ScorePlan, model: &mut dyn Chat) -> Result<Summary, Error> {
    let mut retriever = Retriever::Bm25;
    let tools = Tools { tokens: &tokens, retriever: &mut retriever };
    let cancel = AtomicBool::new(false);
    plan.run(tools, &mut Session { chat: model, progress: &mut Quiet, cancel: &cancel })
}

fn data() -> String {
    let mut text = String::new();
    for (idx, &words) in DOCUMENTS.iter().enumerate() {
        let words: Vec<String> = (0..words).map(|word| format!("word{word}")).collect();
        let row = serde_json::json!({
            "idx": idx + 5, "query": format!("What of {idx}?"), "answer": "", "context": words.join(" "),
        });
        text += &format!("{row}\n");
    }
    text
}

fn responses() -> String {
    let mut text = String::new();
    for k in [2, 0, 1] {
        for idx in [1, 0, 2] {
            let answer = format!("Answer {k}: word{k} is known. So is word{}.", k + idx);
            let row = serde_json::json!({
                "idx": format!("{}-{k}", idx + 5), "query": format!("What of {idx}?"),
                "answer": answer, "note": k,
            });
            text += &format!("{row}\n");
        }
    }
    text
}

/// Copies the files of a folder into another.
pub fn copy(from: &Path, to: &Path) {
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_file() {
            std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
        }
    }
}

//! The stages end to end on a scripted model: resuming, refusals, and what a policy and a judge are
//! asked.

use super::cut::Window;
use super::judging::{self, JudgingPlan};
use super::longbench::{self, Selection};
use super::predict::{self, PredictPlan};
use super::prompts::{JudgePrompts, Prompts};
use super::records::{Judged, Prediction, read};
use super::suite::Suite;
use super::summary::{About, Summary};
use super::tasks::Protocol;
use crate::agree::metrics::Bootstrap;
use crate::chat::{Call, Chat, ChatError, Finish, Reply, Scripted, Task, Usage};
use crate::judge::LangChoice;
use crate::pipeline::{self, Error, OnMismatch, Quiet, Session, Settings};
use serde_json::json;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

struct World(tempfile::TempDir);

impl World {
    fn new() -> Self {
        let world = Self(tempfile::tempdir().unwrap());
        for (set, answers) in [("qasper", vec!["mill", "river"]), ("multi_news", vec!["a mill"])] {
            let row = |line: usize| {
                let (context, input) = ("word ".repeat(40 * line), format!("Where is {line}?"));
                json!({"input": input, "context": context, "answers": answers, "length": 4000 * line,
                       "all_classes": null, "_id": format!("{set}{line}")})
            };
            world.write(set, (1..=3).map(|line| row(line).to_string() + "\n").collect());
        }
        let dialogue = json!({"input": "Dialogue: hi\nSummary:", "context": "Examples.",
            "answers": ["They greet."], "length": 100, "all_classes": null, "_id": "s"});
        world.write("samsum", dialogue.to_string());
        world
    }

    fn write(&self, set: &str, text: String) {
        std::fs::write(self.path(&format!("{set}.jsonl")), text).unwrap();
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn suite(&self, protocol: Protocol, sets: &[&str]) -> Suite {
        let sets = sets.iter().map(|set| (*set).to_owned()).collect();
        let data = self.0.path().to_owned();
        let selection = Selection { data, protocol, e: false, sets, limit: None };
        longbench::open(&selection, &Prompts::load(protocol, None).unwrap()).unwrap()
    }
}

fn predicting(out: &Path, seed: u64) -> predict::Options {
    predict::Options {
        out: out.join("predictions.jsonl"),
        model: Settings::new(),
        window: Window { context: 4000, template: 4, max_input: 1000 },
        temperature: 0.0,
        seed,
        on_mismatch: OnMismatch::Refuse,
    }
}

fn judging(out: &Path) -> judging::Options {
    judging::Options {
        out: out.join("verdicts.jsonl"),
        model: Settings::new(),
        prompts: JudgePrompts::load(None).unwrap(),
        lang: LangChoice::Auto,
        max_reply_tokens: 64,
        seed: 0,
        on_mismatch: OnMismatch::Refuse,
    }
}

/// Every character is a token.
fn characters(text: &str) -> Vec<(u32, Range<usize>)> {
    text.char_indices().map(|(at, c)| (0, at..at + c.len_utf8())).collect()
}

/// Runs a stage, and cancels it after so many replies.
fn run<T>(
    model: impl FnMut(&Call) -> Result<Reply, ChatError>,
    replies: usize,
    stage: impl FnOnce(&mut Session) -> Result<T, Error>,
) -> (T, Vec<Call>) {
    let cancel = AtomicBool::new(false);
    let (mut model, mut seen) = (model, 0);
    let mut chat = Scripted::new(|call: &Call| {
        seen += 1;
        cancel.fetch_or(seen >= replies, Ordering::Relaxed);
        model(call)
    });
    let session =
        &mut Session { chat: &mut chat as &mut dyn Chat, progress: &mut Quiet, cancel: &cancel };
    let done = stage(session).unwrap();
    (done, std::mem::take(&mut chat.seen))
}

fn text(text: &str) -> Result<Reply, ChatError> {
    let (text, usage) = (text.to_owned(), Usage::default());
    Ok(Reply::Text { text, finish: Finish::Stop, usage })
}

/// Predicts what it is asked for at the end of the prompt.
fn policy(call: &Call) -> Result<Reply, ChatError> {
    let prompt = call.messages.first().map_or(&call.prefix, |message| &message.content);
    match prompt.contains("Where is 2?") || prompt.starts_with("Articles:") {
        true => text("the mill"),
        false => text("nothing"),
    }
}

/// Rates the mill best, and can't bring itself to rate nothing.
fn judge(call: &Call) -> Result<Reply, ChatError> {
    let prompt = &call.messages[0].content;
    let of = |part: &str| {
        prompt.split(part).nth(1).unwrap().split("</").next().unwrap().contains("mill")
    };
    match &call.task {
        Task::Score { continuations, .. } => {
            let logprobs = (0..continuations.len()).map(|n| -(n as f64) - 1.0).collect();
            Ok(Reply::Scores { logprobs, usage: Usage::default() })
        }
        Task::Generate(_) if !of("<assistant_") => text("I can't say."),
        Task::Generate(_) if of("<reference_") => text("As it stands there. [[3]]"),
        Task::Generate(_) => text("Something else. [[1]]"),
    }
}

fn predict(
    world: &World,
    suite: Suite,
    out: &Path,
    replies: usize,
) -> (pipeline::Summary, Vec<Call>) {
    let plan = PredictPlan::open(suite, predicting(&world.path("").join(out), 0)).unwrap();
    run(policy, replies, |session| plan.run(&characters, session))
}

#[test]
fn a_prompt_must_have_room_for_some_of_its_document() {
    let world = World::new();
    let checked = |context: usize| {
        let mut options = predicting(&world.path(&context.to_string()), 0);
        options.window.context = context;
        let plan =
            PredictPlan::open(world.suite(Protocol::LongReward, &["qasper"]), options).unwrap();
        plan.check_room(&characters).map_err(|error| error.to_string())
    };
    let (reply, template, seam, newlines, document) = (1024, 4, 16, 2, 16);
    let least = reply + template + seam + newlines + document;
    assert_eq!(checked(least), Ok(()));
    let refused = checked(least - 1).unwrap_err();
    assert!(refused.starts_with("qasper: beside 1024 new tokens"), "{refused}");
    assert!(refused.contains("context of 1061"), "{refused}");
    assert!(checked(100).is_err());
}

#[test]
fn a_policy_is_asked_as_longreward_asks() {
    let world = World::new();
    let suite = world.suite(Protocol::LongReward, &[]);
    let (summary, calls) = predict(&world, suite, &world.path("out"), usize::MAX);
    assert!(summary.is_complete());
    assert_eq!((summary.total, calls.len()), (6, 6));
    let prompt = &calls[0].messages[0].content;
    assert_eq!(*prompt, format!("{}\n\nWhere is 1?", "word ".repeat(40)));
    let Task::Generate(sampling) = &calls[0].task else { panic!() };
    assert_eq!(
        (sampling.max_new_tokens, sampling.temperature, sampling.stop.len()),
        (1024, 0.0, 0)
    );
    let predictions: Vec<Prediction> = read(&world.path("out/predictions.jsonl")).unwrap();
    let ids: Vec<&str> = predictions.iter().map(|one| one.idx.as_str()).collect();
    let expected =
        ["qasper/1", "qasper/2", "qasper/3", "multi_news/1", "multi_news/2", "multi_news/3"];
    assert_eq!(ids, expected);
    assert_eq!(predictions[0].cut_tokens, 0);
    assert_eq!(
        (predictions[1].pred.as_str(), predictions[1].row_id.as_deref()),
        ("the mill", Some("qasper2"))
    );
}

#[test]
fn a_policy_is_asked_as_the_suite_asks() {
    let world = World::new();
    let suite = world.suite(Protocol::LongBench, &[]);
    let (_, calls) = predict(&world, suite, &world.path("out"), usize::MAX);
    let Call { messages, prefix, task } = calls.last().unwrap();
    assert!(messages.is_empty() && prefix.ends_with("Dialogue: hi\nSummary:"), "{prefix}");
    let Task::Generate(sampling) = task else { panic!() };
    assert_eq!((sampling.max_new_tokens, &sampling.stop[..]), (128, &["\n".to_owned()][..]));
    assert!(calls[0].messages[0].content.ends_with("The question: Where is 1?\n\nThe answer:"));
}

#[test]
fn a_line_break_does_not_end_a_prediction_before_it_begins() {
    let world = World::new();
    let out = world.path("out");
    let suite = world.suite(Protocol::LongBench, &["samsum"]);
    let plan = PredictPlan::open(suite, predicting(&out, 0)).unwrap();
    let policy = |call: &Call| match &call.task {
        Task::Generate(sampling) if sampling.stop.is_empty() => text("\n\nThey greet.\nDialogue:"),
        _ => text(""),
    };
    let (_, calls) = run(policy, usize::MAX, |session| plan.run(&characters, session));
    assert_eq!(calls.len(), 2);
    let predictions: Vec<Prediction> = read(&out.join("predictions.jsonl")).unwrap();
    assert_eq!(
        (predictions[0].pred.as_str(), predictions[0].finish),
        ("They greet.", Finish::Stop)
    );
}

#[test]
fn long_inputs_lose_their_middle() {
    let world = World::new();
    let out = world.path("out");
    let mut options = predicting(&out, 0);
    options.window.max_input = 300;
    let plan = PredictPlan::open(world.suite(Protocol::LongReward, &["qasper"]), options).unwrap();
    let (_, calls) = run(policy, usize::MAX, |session| plan.run(&characters, session));
    let lengths: Vec<usize> = calls.iter().map(|call| call.messages[0].content.len()).collect();
    assert_eq!(lengths, [213, 300, 300]);
    assert!(calls[2].messages[0].content.ends_with("Where is 3?"));
    let predictions: Vec<Prediction> = read(&out.join("predictions.jsonl")).unwrap();
    assert_eq!((predictions[2].input_tokens, predictions[2].cut_tokens), (613, 313));
}

#[test]
fn interrupted_runs_end_with_the_same_bytes() {
    let world = World::new();
    let whole = |name: &str, replies: usize| {
        let out = world.path(name);
        loop {
            let suite = world.suite(Protocol::LongReward, &[]);
            let (sets, items) = (suite.sets.clone(), suite.items.clone());
            if predict(&world, suite, &out, replies).0.cancelled {
                continue;
            }
            let predictions = read(&out.join("predictions.jsonl")).unwrap();
            let plan = JudgingPlan::open(&sets, &items, predictions, judging(&out)).unwrap();
            if !run(judge, replies, |session| plan.run(session)).0.cancelled {
                break;
            }
        }
        ["predictions", "verdicts"]
            .map(|file| std::fs::read(out.join(format!("{file}.jsonl"))).unwrap())
    };
    let reference = whole("a", usize::MAX);
    assert_eq!(whole("b", 1), reference);
    assert_eq!(whole("c", 4), reference);
}

#[test]
fn verdicts_are_the_best_over_references_and_forced_ones_are_marked() {
    let world = World::new();
    let out = world.path("out");
    let suite = world.suite(Protocol::LongReward, &[]);
    let (about, sets, items) = (About::of(&suite), suite.sets.clone(), suite.items.clone());
    predict(&world, suite, &out, usize::MAX);
    let predictions: Vec<Prediction> = read(&out.join("predictions.jsonl")).unwrap();
    let plan = JudgingPlan::open(&sets, &items, predictions.clone(), judging(&out)).unwrap();
    let judge_settings = Some(plan.settings().clone());
    let (summary, calls) = run(judge, usize::MAX, |session| plan.run(session));
    assert!(summary.is_complete());
    let ratings = |call: &Call| match &call.task {
        Task::Score { continuations, .. } => continuations.len(),
        Task::Generate(_) => 0,
    };
    assert!([3, 5].iter().all(|n| calls.iter().any(|call| ratings(call) == *n)));
    let verdicts: Vec<Judged> = read(&out.join("verdicts.jsonl")).unwrap();
    let Judged { score, best, forced, verdicts: against, .. } = &verdicts[1];
    assert_eq!((*score, *best, *forced, against.len()), (1.0, 0, false, 2));
    assert_eq!((against[0].score, against[1].score), (3.0, 1.0));
    assert_eq!(
        (verdicts[0].score, verdicts[0].forced, verdicts[0].verdicts[0].attempts),
        (0.0, true, 5)
    );
    // Of a summary 3 of 5 is the middle.
    assert_eq!(verdicts[4].score, 0.5);
    let about = About { judge_settings, ..about };
    let summary =
        Summary::new(about, &predictions, &verdicts, Bootstrap { resamples: 20, seed: 0 });
    let line = &summary.lines[0];
    assert_eq!((line.n, line.judged, line.forced), (3, 3, 2));
    assert_eq!(line.bins.iter().map(|bin| bin.n).collect::<Vec<_>>(), [0, 1, 2]);
    assert!(summary.to_string().contains("single-document QA"), "{summary}");
}

#[test]
fn other_settings_are_refused_by_name() {
    let world = World::new();
    let suite = || world.suite(Protocol::LongReward, &["qasper"]);
    predict(&world, suite(), &world.path("out"), 1);
    let open = |suite, options| PredictPlan::open(suite, options).unwrap_err().to_string();
    let error = open(suite(), predicting(&world.path("out"), 7));
    assert!(error.contains("seed: was \"0\", is now \"7\""), "{error}");
    let error =
        open(world.suite(Protocol::LongBench, &["qasper"]), predicting(&world.path("out"), 0));
    assert!(error.contains("protocol: was \"longreward\", is now \"longbench\""), "{error}");
    assert!(error.contains("prompt qasper: was"), "{error}");
    // More sets are no other settings.
    let more = world.suite(Protocol::LongReward, &[]);
    assert_eq!(PredictPlan::open(more, predicting(&world.path("out"), 0)).unwrap().todo(), 5);
}

#[test]
fn verdicts_on_other_predictions_are_refused() {
    let world = World::new();
    let out = world.path("out");
    let suite = world.suite(Protocol::LongReward, &["qasper"]);
    let (sets, items) = (suite.sets.clone(), suite.items.clone());
    predict(&world, suite, &out, usize::MAX);
    let mut predictions: Vec<Prediction> = read(&out.join("predictions.jsonl")).unwrap();
    let plan = JudgingPlan::open(&sets, &items, predictions.clone(), judging(&out)).unwrap();
    run(judge, usize::MAX, |session| plan.run(session));
    predictions[0].pred.push('!');
    let error = JudgingPlan::open(&sets, &items, predictions, judging(&out)).unwrap_err();
    assert!(error.to_string().contains("\"qasper/1\" was made from another input"), "{error}");
}

#[test]
fn a_row_that_fails_is_told_and_left_out() {
    let world = World::new();
    let suite = world.suite(Protocol::LongReward, &["qasper"]);
    let about = About::of(&suite);
    let plan = PredictPlan::open(suite, predicting(&world.path("out"), 0)).unwrap();
    let model = |call: &Call| match call.messages[0].content.contains("Where is 3?") {
        true => Err(ChatError::Refused("no room".to_owned())),
        false => policy(call),
    };
    let (summary, _) = run(model, usize::MAX, |session| plan.run(&characters, session));
    assert_eq!(summary.failures[0].to_string(), "qasper/3: no room");
    let predictions: Vec<Prediction> = read(&world.path("out/predictions.jsonl")).unwrap();
    let summary = Summary::new(about, &predictions, &[], Bootstrap::default());
    assert_eq!((summary.lines[0].rows, summary.lines[0].n), (3, 2));
    assert!(summary.to_string().contains("rows without a prediction, left out: 1"));
}

//! Labelled rows to verdicts, with a model that answers by hashing.

use super::*;
use crate::chat::{Call, ChatError};
use crate::pipeline::Quiet;
use crate::pipeline::testing::{End, Lab, Model, answer, kind, tokens};
use serde_json::{Value, json};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::AtomicBool;

const LABELS: &str = "labels.jsonl";
const OUT: &str = "agree.jsonl";

fn sentences() -> Vec<String> {
    (0..12).map(|i| format!("Sentence {i} speaks of word{i} and word{}.", i * 7 % 12)).collect()
}

fn rows() -> Vec<Value> {
    let mut rows = Vec::new();
    for (i, label) in ["supported", "partially_supported", "not_supported"].iter().enumerate() {
        rows.push(json!({
            "idx": format!("c{i}"), "claim": format!("It speaks of word{i}."),
            "evidence": sentences(), "label": label, "supporting": [i],
        }));
    }
    for (i, label) in ["a", "b", "tie"].iter().enumerate() {
        rows.push(json!({
            "idx": format!("p{i}"), "query": format!("What of {i}?"), "label": label,
            "response_a": format!("Short {i}."), "response_b": format!("A longer answer {i}."),
        }));
    }
    rows[4]["context"] = json!(sentences().join(" "));
    rows.push(json!({"idx": "r", "query": "What?", "answer": "This.", "rating": 4}));
    rows
}

fn text(rows: &[Value]) -> String {
    rows.iter().map(|row| format!("{row}\n")).collect()
}

fn lab() -> Lab {
    let lab = Lab::new();
    lab.write(LABELS, &text(&rows()));
    lab
}

fn options(lab: &Lab) -> Options {
    Options {
        labels: lab.file(LABELS),
        format: Format::Auto,
        limit: None,
        out: lab.file(OUT),
        judging: lab.judging(),
        runs: 1,
        variants: Variants::default(),
        method: Method {
            claim_passage: Cut::Chunks(Cutting::tokens(6)),
            cutting: Cutting::tokens(6),
            evidence: Evidencing { passages: 2, whole_document: None },
            dimensions: Dimension::ALL.to_vec(),
        },
        retriever: "bm25".to_owned(),
        on_mismatch: lab.on_mismatch,
    }
}

fn run(options: Options, model: &mut Model) -> Result<Summary, Error> {
    let mut retriever = Retriever::Bm25;
    let tools = Tools { tokens: &tokens, retriever: &mut retriever };
    let cancel = AtomicBool::new(false);
    let mut session = Session { chat: model, progress: &mut Quiet, cancel: &cancel };
    JudgingPlan::open(options)?.run(tools, &mut session)
}

fn records(lab: &Lab) -> Vec<Judged> {
    let (records, problems) = read_judged(&lab.file(OUT)).unwrap();
    assert_eq!(problems, []);
    records
}

fn whole() -> (String, u64) {
    let lab = lab();
    let summary = run(options(&lab), &mut Model::new()).unwrap();
    (lab.read(OUT), summary.calls)
}

fn dimensions(answered: &Details) -> Vec<Dimension> {
    answered.verdicts().iter().map(|score| score.dimension).collect()
}

#[test]
fn every_row_gets_a_verdict_of_its_kind() {
    let lab = lab();
    let summary = run(options(&lab), &mut Model::new()).unwrap();
    assert!(summary.is_complete() && summary.added == 7, "{summary}");
    assert_eq!(lab.leftovers(), Vec::<String>::new());
    let records = records(&lab);
    let ids: Vec<&str> = records.iter().map(|record| record.idx.as_str()).collect();
    assert_eq!(ids, ["c0#0", "c1#0", "c2#0", "p0#0", "p1#0", "p2#0", "r#0"]);
    for (i, record) in records.iter().enumerate() {
        match &record.found {
            Found::Support { details } => {
                assert!(i < 3 && details.fact == format!("It speaks of word{i}."));
                assert_eq!((details.evidences.len(), details.distribution.len()), (2, 3));
                assert!(details.evidences.iter().any(|e| e.content.contains(&format!("word{i}"))));
            }
            Found::Pairwise { a, b } => {
                // Only the row with a context is judged in all of them.
                let expected = if i == 4 { &Dimension::ALL[..] } else { &Dimension::ALL[..2] };
                assert_eq!((&dimensions(a)[..], &dimensions(b)[..]), (expected, expected));
            }
            Found::Rating { details } => assert_eq!((i, details.verdicts().len()), (6, 2)),
        }
    }
}

#[test]
fn neither_order_nor_interruption_shows() {
    let (expected, calls) = whole();
    for (appetite, shuffle) in [(1, 0), (5, 1), (1000, 2)] {
        let lab = lab();
        run(options(&lab), &mut Model::with(appetite, shuffle)).unwrap();
        assert!(lab.read(OUT) == expected, "appetite {appetite}");
    }
    for after in (0..calls as usize).step_by(4) {
        let lab = lab();
        let mut model = Model::ending(after, End::Killed);
        let killed = AssertUnwindSafe(|| run(options(&lab), &mut model).map(|_| ()));
        assert!(catch_unwind(killed).is_err());
        let summary = run(options(&lab), &mut Model::with(8, after as u64)).unwrap();
        assert!(lab.read(OUT) == expected, "killed after {after} replies");
        assert!(summary.calls + after as u64 <= calls + 2, "killed after {after} replies");
        assert_eq!(lab.leftovers(), Vec::<String>::new());
    }
}

#[test]
fn the_order_of_two_answers_changes_nothing_but_their_order() {
    let mut swapped = rows();
    for row in &mut swapped[3..6] {
        let a = row["response_a"].take();
        row["response_a"] = row["response_b"].take();
        row["response_b"] = a;
    }
    let (one, other) = (lab(), Lab::new());
    other.write(LABELS, &text(&swapped));
    run(options(&one), &mut Model::new()).unwrap();
    run(options(&other), &mut Model::with(3, 5)).unwrap();
    for (one, other) in records(&one).into_iter().zip(records(&other)) {
        match (one.found, other.found) {
            (Found::Pairwise { a, b }, Found::Pairwise { a: c, b: d }) => {
                assert_eq!((a, b), (d, c));
            }
            (one, other) => assert_eq!(one, other),
        }
    }
}

#[test]
fn more_runs_are_added_to_those_that_are_there() {
    let lab = lab();
    let first = run(options(&lab), &mut Model::new()).unwrap();
    let more = Options { runs: 3, ..options(&lab) };
    let summary = run(more.clone(), &mut Model::new()).unwrap();
    assert_eq!((summary.reused, summary.added, summary.total), (7, 14, 21));
    assert!(summary.calls > first.calls);
    let records = records(&lab);
    let runs: Vec<usize> = records.iter().map(|record| record.run).collect();
    assert_eq!(runs[..6], [0, 1, 2, 0, 1, 2]);
    assert!(records.chunks(3).any(|runs| runs[0].found != runs[1].found));
    assert_eq!(JudgingPlan::open(more).unwrap().todo(), 0);
}

#[test]
fn a_changed_label_needs_no_new_verdict_but_a_changed_text_does() {
    let lab = lab();
    run(options(&lab), &mut Model::new()).unwrap();
    let mut changed = rows();
    changed[0]["label"] = json!("not_supported");
    lab.write(LABELS, &text(&changed));
    assert_eq!(JudgingPlan::open(options(&lab)).unwrap().todo(), 0);
    changed[0]["claim"] = json!("Other.");
    lab.write(LABELS, &text(&changed));
    let refused = JudgingPlan::open(options(&lab)).unwrap_err().to_string();
    assert!(refused.contains("\"c0#0\" was made from another input"), "{refused}");
}

#[test]
fn other_dimensions_are_refused_by_name() {
    let lab = lab();
    run(options(&lab), &mut Model::new()).unwrap();
    let mut other = options(&lab);
    other.method.dimensions = vec![Dimension::Logicality];
    let refused = JudgingPlan::open(other).unwrap_err().to_string();
    assert!(refused.contains("dimensions: was"), "{refused}");
}

#[test]
fn no_row_is_passed_over_for_want_of_a_document() {
    let lab = lab();
    let mut needing = options(&lab);
    needing.method.dimensions = vec![Dimension::Faithfulness];
    let refused = JudgingPlan::open(needing.clone()).unwrap_err().to_string();
    assert!(refused.contains("the row \"p0\" has no context"), "{refused}");
    lab.write(LABELS, &text(&rows()[4..5]));
    assert!(run(needing, &mut Model::new()).unwrap().is_complete());
    let Found::Pairwise { a, .. } = &records(&lab)[0].found else { panic!() };
    assert_eq!(dimensions(a), [Dimension::Faithfulness]);
}

#[test]
fn documents_that_no_dimension_reads_are_not_encoded() {
    let lab = Lab::new();
    lab.write(LABELS, &text(&rows()[4..5]));
    let encoded = |dimension: Dimension| {
        let mut options = options(&lab);
        options.out = lab.file(dimension.name());
        options.method.dimensions = vec![dimension];
        let texts = std::cell::Cell::new(0);
        let tokens = |text: &str| {
            texts.set(texts.get() + usize::from(!text.is_empty()));
            tokens(text)
        };
        let (mut retriever, mut model) = (Retriever::Bm25, Model::new());
        let tools = Tools { tokens: &tokens, retriever: &mut retriever };
        let cancel = AtomicBool::new(false);
        let mut session = Session { chat: &mut model, progress: &mut Quiet, cancel: &cancel };
        JudgingPlan::open(options).unwrap().run(tools, &mut session).unwrap();
        texts.get()
    };
    assert_eq!(encoded(Dimension::Helpfulness), 0);
    assert!(encoded(Dimension::Faithfulness) > 0);
}

#[test]
fn labels_without_a_good_row_are_an_error_that_says_why() {
    let lab = Lab::new();
    lab.write(LABELS, "[{\"claim\": \"c\"");
    let refused = JudgingPlan::open(options(&lab)).unwrap_err().to_string();
    assert!(
        refused.contains("has no good row") && refused.contains("the array has no end"),
        "{refused}"
    );
    assert!(!lab.file(OUT).exists());
}

#[test]
fn bad_rows_and_failed_verdicts_are_counted_and_the_rest_goes_on() {
    let lab = Lab::new();
    lab.write(LABELS, &(text(&rows()) + "{\"claim\":\"c\"}\n"));
    let refuses = |call: &Call| match kind(call) {
        "HELPFULNESS" if call.messages[0].content.contains("Short 0") => {
            Err(ChatError::TooLong { tokens: 9, limit: 5, why: "context".to_owned() })
        }
        _ => answer(call),
    };
    let summary = run(options(&lab), &mut Model::replying(refuses)).unwrap();
    assert_eq!((summary.added, summary.problems.len(), summary.failures.len()), (6, 1, 1));
    assert_eq!(summary.failures[0].id, "p0#0");
    assert!(!summary.is_complete());
    // The others' verdicts are kept, and the failed one is tried again.
    let again = run(options(&lab), &mut Model::new()).unwrap();
    assert_eq!((again.reused, again.added), (6, 1));
    assert!(lab.read(OUT) == whole().0);
}

#[test]
fn a_limit_can_grow() {
    let lab = lab();
    let limited = Options { limit: Some(2), ..options(&lab) };
    assert_eq!(run(limited, &mut Model::new()).unwrap().added, 2);
    assert_eq!(run(options(&lab), &mut Model::new()).unwrap().added, 5);
    assert!(lab.read(OUT) == whole().0);
}

#[test]
fn variants_are_added_to_what_is_there_and_change_only_what_they_say() {
    let lab = lab();
    run(options(&lab), &mut Model::new()).unwrap();
    let plain = records(&lab);
    let variants = Variants { padded: true, langs: vec![Lang::En, Lang::Zh] };
    let more = Options { variants, ..options(&lab) };
    let mut model = Model::new();
    let summary = run(more.clone(), &mut model).unwrap();
    // All rows are English: each once more in Chinese, and the four with answers padded.
    assert_eq!((summary.reused, summary.added), (7, 7 + 4));
    let all = records(&lab);
    let kept: Vec<Judged> = all.iter().filter(|one| one.variant.is_plain()).cloned().collect();
    assert_eq!(kept, plain);
    let ids: Vec<&str> = all.iter().map(|one| one.idx.as_str()).collect();
    assert_eq!(ids[..2], ["c0#0", "c0#0+zh"]);
    assert_eq!(ids[6..9], ["p0#0", "p0#0+padded", "p0#0+zh"]);
    let asked =
        |needle: &str| model.seen.iter().any(|call| call.messages[0].content.contains(needle));
    assert!(asked(&padded("Short 0.")) && asked("HELPFULNESS"));
    assert_eq!(JudgingPlan::open(more).unwrap().todo(), 0);
}

//! The options of scoring, from files to files: what they change, and that their results hang on
//! nothing but the input.

use super::testing::{End, Lab, Model, answer, copy, kind};
use super::{Error, Evidencing, pairs, score};
use crate::chat::{Call, ChatError, Task};
use crate::judge::{Settings, VoteBy, Voting};
use crate::pipeline::records::ScoreBy;
use crate::retrieval::chunk::{CutAt, Cutting};
use serde_json::Value;
use std::panic::{AssertUnwindSafe, catch_unwind};

const SCORED: &str = "scored_responses.jsonl";
const CHUNKS: &str = "chunk_info.jsonl";

/// A way to score, by name.
type Set = fn(&Lab) -> score::Options;

fn with(lab: &Lab, settings: Settings) -> score::Options {
    score::Options { judging: lab.judging_by(settings), ..lab.score_options() }
}

fn votes(lab: &Lab) -> score::Options {
    with(lab, Settings { voting: Voting { count: 3, by: VoteBy::Mean }, ..Settings::default() })
}

fn verdict_first(lab: &Lab) -> score::Options {
    with(lab, Settings { verdict_first: true, ..Settings::default() })
}

fn several(lab: &Lab) -> score::Options {
    with(lab, Settings { statements_per_call: 2, ..Settings::default() })
}

fn fast(lab: &Lab) -> score::Options {
    let settings = Settings { statements_per_call: 2, verdict_first: true, ..Settings::default() };
    score::Options { score_by: ScoreBy::Expected, ..with(lab, settings) }
}

fn careful(lab: &Lab) -> score::Options {
    let voting = Voting { count: 3, by: VoteBy::Median };
    let settings = Settings { statements_per_call: 2, voting, ..Settings::default() };
    let cutting = Cutting { size: 5, overlap: 2, at: CutAt::Sentences };
    score::Options { cutting, ..with(lab, settings) }
}

/// Two of the three documents fit.
fn whole_document(lab: &Lab) -> score::Options {
    let evidence = Evidencing { passages: 2, whole_document: Some(512 + 128 + 32) };
    score::Options { evidence, ..lab.score_options() }
}

fn early_stop(lab: &Lab) -> score::Options {
    many(lab);
    score::Options { early_stop: true, ..lab.score_options() }
}

fn early_stop_fast(lab: &Lab) -> score::Options {
    many(lab);
    score::Options { early_stop: true, ..fast(lab) }
}

/// Ten answers to each prompt, of which most lie between one good and one bad for certain.
fn many(lab: &Lab) {
    let mut text = String::new();
    for k in 0..10 {
        for idx in 0..3 {
            let word = match k {
                3 => "Superb",
                7 => "Dreadful",
                5 => "Answer",
                _ => "Middling",
            };
            let answer = format!("{word}: {k}. word{k} is known. So is word{}.", k + idx);
            let row = serde_json::json!({
                "idx": format!("{}-{k}", idx + 5), "query": format!("What of {idx}?"),
                "answer": answer,
            });
            text += &format!("{row}\n");
        }
    }
    lab.write("sampled_responses.jsonl", &text);
}

const ALL: [(&str, Set); 8] = [
    ("votes", votes),
    ("verdict_first", verdict_first),
    ("several", several),
    ("fast", fast),
    ("careful", careful),
    ("whole_document", whole_document),
    ("early_stop", early_stop),
    ("early_stop_fast", early_stop_fast),
];

fn outputs(lab: &Lab) -> [String; 2] {
    [lab.read(SCORED), lab.read(CHUNKS)]
}

/// Both outputs of an uninterrupted run, and its number of calls.
fn whole(set: Set) -> ([String; 2], u64) {
    let lab = Lab::new();
    let summary = lab.score_with(set(&lab), &mut Model::new()).unwrap();
    assert!(summary.is_complete(), "{summary}");
    (outputs(&lab), summary.calls)
}

fn scored(set: Set) -> (Vec<Value>, Vec<Call>) {
    let lab = Lab::new();
    let mut model = Model::new();
    let summary = lab.score_with(set(&lab), &mut model).unwrap();
    assert!(summary.is_complete(), "{summary}");
    (lab.rows(SCORED), model.seen)
}

fn facts(row: &Value) -> &Vec<Value> {
    row["details"]["faithfulness"]["details"].as_array().unwrap()
}

#[test]
fn the_order_of_replies_changes_nothing() {
    for (name, set) in ALL {
        let (expected, calls) = whole(set);
        for (appetite, shuffle) in [(1, 0), (16, 2), (1000, 4)] {
            let lab = Lab::new();
            let summary = lab.score_with(set(&lab), &mut Model::with(appetite, shuffle)).unwrap();
            assert_eq!(summary.calls, calls, "{name}");
            assert!(outputs(&lab) == expected, "{name}, appetite {appetite}, shuffle {shuffle}");
        }
    }
}

#[test]
fn a_killed_run_is_resumed_to_the_same_bytes() {
    for (name, set) in ALL {
        let (expected, calls) = whole(set);
        for after in (1..calls as usize).step_by(calls as usize / 4) {
            let lab = Lab::new();
            let mut model = Model::ending(after, End::Killed);
            let run = AssertUnwindSafe(|| lab.score_with(set(&lab), &mut model).map(|_| ()));
            assert!(catch_unwind(run).is_err(), "{name}: ended before {after} replies");
            let summary = lab.score_with(set(&lab), &mut Model::with(8, after as u64)).unwrap();
            assert!(outputs(&lab) == expected, "{name}, killed after {after} replies");
            assert_eq!(lab.leftovers(), Vec::<String>::new());
            assert!(summary.calls + after as u64 <= calls + 2, "{name}, killed after {after}");
        }
    }
}

#[test]
fn other_settings_are_refused_by_name() {
    for (name, set) in ALL {
        let lab = Lab::new();
        let options = set(&lab);
        lab.score(&mut Model::new()).unwrap();
        let Err(Error::Settings { changes, .. }) = lab.score_with(options, &mut Model::new())
        else {
            panic!("{name} was mixed in");
        };
        let names = match name {
            "votes" => &["votes: was not set, is now \"3\"", "vote_by: was not set"][..],
            "verdict_first" => {
                &["verdict_first: was not set", "prompt en/support_verdict: was not"]
            }
            "several" => {
                &["statements_per_call: was not set, is now \"2\"", "prompt zh/supports: "]
            }
            "fast" => &["score_by: was \"rating\", is now \"expected\""],
            "careful" => &["passage_overlap: was not set, is now \"2\"", "passage_cut: was not"],
            "whole_document" => &["whole_document: was not set, is now \"within 672 tokens\""],
            _ => &["early_stop: was not set, is now \"true\""],
        };
        assert!(names.iter().all(|name| changes.contains(name)), "{name}: {changes}");
        // What a document says does not depend on how answers are rated.
        assert!(lab.chunk_info(&mut Model::new()).unwrap().calls == 0);
    }
}

#[test]
fn votes_are_independent_and_all_of_them_are_recorded() {
    let (rows, calls) = scored(votes);
    let rated = |call: &&Call| kind(call) == "LOGICALITY" && matches!(call.task, Task::Generate(_));
    let seeds: std::collections::BTreeSet<u64> = calls.iter().filter(rated).map(seed).collect();
    assert_eq!(seeds.len(), calls.iter().filter(rated).count());
    assert!(seeds.len() >= 27);
    for row in &rows {
        let rated = &row["details"]["logicality"];
        let votes = rated["votes"]["each"].as_array().unwrap();
        assert_eq!(votes.len(), 3);
        let scores: Vec<f64> = votes.iter().map(|vote| vote["score"].as_f64().unwrap()).collect();
        let mean = scores.iter().sum::<f64>() / 3.0;
        assert!((rated["score"].as_f64().unwrap() - mean).abs() < 1e-6);
        assert_eq!(rated["score"], row["scores"]["logicality"]);
        assert!(facts(row).iter().all(|fact| fact["votes"]["each"].as_array().unwrap().len() == 3));
    }
    let spread = |row: &Value| row["details"]["logicality"]["votes"]["spread"].as_f64().unwrap();
    assert!(rows.iter().any(|row| spread(row) > 0.0));
}

fn seed(call: &Call) -> u64 {
    match &call.task {
        Task::Generate(sampling) => sampling.seed,
        Task::Score { .. } => panic!("not sampled"),
    }
}

#[test]
fn without_analysis_only_statements_and_extracts_are_sampled() {
    let (rows, calls) = scored(verdict_first);
    for call in &calls {
        let sampled = matches!(call.task, Task::Generate(_));
        assert_eq!(sampled, matches!(kind(call), "STATEMENTS" | "EXTRACT"), "{call:?}");
        assert!(sampled || (call.prefix == "[[" && call.messages[0].content.contains("bare")));
    }
    for row in rows {
        let rated = &row["details"]["helpfulness"];
        assert_eq!((&rated["attempts"], &rated["forced"]), (&Value::from(0), &Value::from(false)));
        assert_eq!(rated["distribution"].as_array().unwrap().len(), 11);
    }
}

#[test]
fn statements_share_calls_and_none_is_lost() {
    let (single, _) = scored(Lab::score_options);
    let (rows, calls) = scored(several);
    let groups = calls.iter().filter(|call| kind(call) == "SUPPORTS").count();
    assert!(groups > 0);
    let mut together = 0;
    for (row, single) in rows.iter().zip(&single) {
        let texts = |row: &Value| facts(row).iter().map(|f| f["fact"].clone()).collect::<Vec<_>>();
        assert_eq!(texts(row), texts(single));
        for fact in facts(row) {
            assert!(fact["score"].as_f64().is_some());
            together += usize::from(fact["statements_in_call"] == 2);
        }
    }
    let alone = rows.iter().flat_map(facts).filter(|f| f["statements_in_call"].is_null()).count();
    // Some labels are forgotten by the model, and some statements are the last of an odd number.
    assert!(together > 0 && alone > 0);
    let (_, calls) = scored(fast);
    let grouped = calls.iter().filter(|call| kind(call) == "SUPPORTS");
    assert!(grouped.clone().count() > 0);
    assert!(grouped.clone().all(|call| matches!(call.task, Task::Score { .. })));
    assert!(grouped.clone().any(|call| call.prefix == "陈述2：[["));
}

#[test]
fn a_group_that_does_not_fit_is_asked_one_by_one() {
    for set in [several as Set, fast] {
        let lab = Lab::new();
        let mut model = Model::replying(|call: &Call| match kind(call) {
            "SUPPORTS" => Err(ChatError::TooLong { tokens: 9, limit: 5, why: "context".into() }),
            _ => answer(call),
        });
        let summary = lab.score_with(set(&lab), &mut model).unwrap();
        assert!(summary.is_complete(), "{summary}");
        let rows = lab.rows(SCORED);
        assert!(rows.iter().flat_map(facts).all(|fact| fact["statements_in_call"].is_null()));
    }
}

#[test]
fn the_whole_document_is_evidence_where_it_fits() {
    let (rows, calls) = scored(whole_document);
    for row in &rows {
        // The third document has 40 words, more than fit.
        let fits = !row["idx"].as_str().unwrap().starts_with('7');
        for fact in facts(row) {
            assert_eq!(fact["whole_document"], fits, "{fact}");
            assert_eq!(fact["evidences"].as_array().unwrap().is_empty(), fits);
        }
    }
    let checks = calls.iter().filter(|call| kind(call) == "SUPPORT");
    assert!(checks.clone().any(|call| {
        call.messages[0].content.contains("word0 word1 word2 word3 word4 word5 word6")
    }));
}

#[test]
fn early_stop_leaves_the_pairs_as_they_are() {
    let mut passed_over = 0;
    for set in [early_stop as Set, early_stop_fast] {
        let made = |stops: bool| {
            let lab = Lab::new();
            let options = score::Options { early_stop: stops, ..set(&lab) };
            let calls = lab.score_with(options, &mut Model::new()).unwrap().calls;
            let options = pairs::Options { min_scored: 10, ..lab.pairs_options() };
            (
                lab.rows(SCORED),
                pairs::run(&options, None).unwrap(),
                lab.read("preference_pairs.jsonl"),
                calls,
            )
        };
        let (rows, all, full_pairs, full_calls) = made(false);
        let (stopped_rows, some, pairs, calls) = made(true);
        assert_eq!((some.pairs, pairs), (all.pairs, full_pairs));
        assert!(calls < full_calls * 2 / 3, "{calls} of {full_calls}");
        passed_over += some.passed_over;
        for (row, full) in stopped_rows.iter().zip(&rows) {
            assert_eq!(row["idx"], full["idx"]);
            let Some(stop) = row["early_stop"].as_object() else {
                assert_eq!(row, full);
                continue;
            };
            assert!(row["scores"]["total"].is_null() && row["scores"]["reward"].is_null());
            let total = full["scores"]["total"].as_f64().unwrap();
            let [least, most] =
                ["total_at_least", "total_at_most"].map(|name| stop[name].as_f64().unwrap());
            assert!(least <= total && total <= most);
            let skipped = stop["skipped"].as_array().unwrap();
            assert!(!skipped.is_empty() && skipped.contains(&"faithfulness".into()));
            for name in ["helpfulness", "logicality", "faithfulness", "completeness"] {
                let is_skipped = skipped.contains(&name.into());
                assert_eq!(row["scores"][name].is_null(), is_skipped);
                assert_eq!(row["details"].get(name).is_none(), is_skipped);
                assert!(is_skipped || row["scores"][name] == full["scores"][name]);
            }
        }
    }
    // The middling ones.
    assert!(passed_over >= 2 * 3 * 7, "{passed_over}");
}

#[test]
fn rows_of_a_prompt_that_are_there_take_part_in_the_decision() {
    let (expected, _) = whole(early_stop);
    let rows: Vec<&str> = expected[0].lines().collect();
    for missing in (0..rows.len()).step_by(3) {
        let lab = Lab::new();
        lab.score_with(early_stop(&lab), &mut Model::new()).unwrap();
        let rest = rows.iter().enumerate().filter(|(i, _)| *i != missing).map(|(_, row)| *row);
        lab.write(SCORED, &rest.map(|row| format!("{row}\n")).collect::<String>());
        lab.score_with(early_stop(&lab), &mut Model::new()).unwrap();
        assert!(outputs(&lab) == expected, "row {missing}");
    }
}

#[test]
fn if_an_answer_fails_those_that_it_stopped_go_on() {
    let bad = |call: &Call| {
        let content = &call.messages[0].content;
        kind(call) == "STATEMENTS" && content.contains("What of 1") && content.contains("Superb")
    };
    let lab = Lab::new();
    let options = early_stop(&lab);
    let mut model = Model::replying(move |call| match bad(call) {
        true => Err(ChatError::TooLong { tokens: 9, limit: 5, why: "context".into() }),
        false => answer(call),
    });
    let summary = lab.score_with(options, &mut model).unwrap();
    assert_eq!(summary.failures.len(), 1, "{summary}");
    // Without the best one, any of the middling ones may be the best.
    let stopped = |row: &&Value| row["early_stop"].is_object();
    let of_prompt = |rows: &[Value], prompt: &str| {
        let of = |row: &&Value| row["idx"].as_str().unwrap().starts_with(prompt);
        rows.iter().filter(of).filter(stopped).count()
    };
    let rows = lab.rows(SCORED);
    assert_eq!(of_prompt(&rows, "6-"), 0);
    assert!(of_prompt(&rows, "5-") >= 7);
    let again = lab.score_with(early_stop(&lab), &mut Model::with(5, 3)).unwrap();
    assert!(again.is_complete());
    assert_eq!(again.added, 1);
    assert_eq!(of_prompt(&lab.rows(SCORED), "6-"), 0);
}

#[test]
fn a_run_without_early_stop_is_not_mixed_with_one() {
    let lab = Lab::new();
    let options = early_stop(&lab);
    lab.score_with(options, &mut Model::new()).unwrap();
    let copied = Lab::new();
    copy(&lab.dir, &copied.dir);
    let refused = copied.score(&mut Model::new()).unwrap_err().to_string();
    assert!(refused.contains("early_stop: was \"true\", is now not set"), "{refused}");
}

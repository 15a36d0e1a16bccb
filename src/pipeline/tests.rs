//! The stages from files to files.

use super::jsonl::Lock;
use super::sample::{self, SamplePlan};
use super::score::{self, ScorePlan, Tools};
use super::testing::{End, Lab, Model, answer, copy, kind, run_score, tokens};
use super::{Error, OnMismatch, Quiet, Session, pairs};
use crate::chat::{Call, ChatError, Reply};
use crate::retrieval::{Embed, EmbedError, Retriever};
use std::cell::{Cell, RefCell};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};

const SCORED: &str = "scored_responses.jsonl";
const CHUNKS: &str = "chunk_info.jsonl";

/// Both outputs of an uninterrupted run, and its number of calls.
fn whole() -> ([String; 2], u64) {
    let lab = Lab::new();
    let summary = lab.score(&mut Model::new()).unwrap();
    assert!(summary.is_complete(), "{summary}");
    (outputs(&lab), summary.calls)
}

fn outputs(lab: &Lab) -> [String; 2] {
    [lab.read(SCORED), lab.read(CHUNKS)]
}

fn ids(lab: &Lab, name: &str) -> Vec<String> {
    lab.rows(name).iter().map(|row| row["idx"].to_string().replace('"', "")).collect()
}

#[test]
fn every_answer_gets_four_scores_in_the_order_of_the_input() {
    let lab = Lab::new();
    let summary = lab.score(&mut Model::new()).unwrap();
    assert_eq!((summary.total, summary.added, summary.reused), (9, 9, 0));
    assert_eq!(ids(&lab, SCORED), ids(&lab, "sampled_responses.jsonl"));
    assert_eq!(ids(&lab, CHUNKS), ["5", "6", "7"]);
    assert_eq!(lab.leftovers(), Vec::<String>::new());
    for row in lab.rows(SCORED) {
        let score = |name: &str| row["scores"][name].as_f64().unwrap();
        let names = ["helpfulness", "logicality", "faithfulness", "completeness"];
        let sum: f64 = names.iter().map(|name| score(name)).sum();
        assert!(names.iter().all(|name| (0.0..=10.0).contains(&score(name))), "{row}");
        assert!((sum - score("total")).abs() < 1e-5 && (sum / 4.0 - score("reward")).abs() < 1e-5);
        assert_eq!(row["details"]["helpfulness"]["distribution"].as_array().unwrap().len(), 11);
        let facts = row["details"]["faithfulness"]["details"].as_array().unwrap();
        assert!(facts.iter().all(|fact| !fact["evidences"].as_array().unwrap().is_empty()));
        let keys: Vec<&String> = row.as_object().unwrap().keys().collect();
        let expected =
            ["idx", "query", "answer", "note", "scores", "details", "forced", "input_hash"];
        assert_eq!(keys, expected);
    }
    assert!(lab.rows(SCORED).iter().any(|row| row["forced"] == true));
    assert!(lab.rows(SCORED).iter().any(|row| row["forced"] == false));
}

#[test]
fn extracts_are_asked_for_once_per_chunk() {
    let lab = Lab::new();
    let mut model = Model::new();
    lab.score(&mut model).unwrap();
    let first = |call: &&Call| kind(call) == "EXTRACT" && format!("{call:?}").contains("0.01");
    assert_eq!(model.seen.iter().filter(first).count(), 3 + 1 + 4);
    let rows = lab.rows(CHUNKS);
    let places: Vec<&String> = rows[0]["info_list"].as_object().unwrap().keys().collect();
    assert_eq!(places, ["0% - 40%", "40% - 80%", "80% - 100%"]);
    let scored = lab.rows(SCORED);
    assert_eq!(scored[1]["details"]["completeness"]["info_list"], rows[0]["info_list"]);
}

#[test]
fn the_order_of_replies_changes_nothing() {
    let (expected, calls) = whole();
    for (appetite, shuffle) in [(1, 0), (3, 1), (16, 2), (64, 3), (1000, 4)] {
        let lab = Lab::new();
        let summary = lab.score(&mut Model::with(appetite, shuffle)).unwrap();
        assert_eq!(summary.calls, calls);
        assert!(outputs(&lab) == expected, "appetite {appetite}, shuffle {shuffle}");
    }
}

#[test]
fn the_same_command_again_does_nothing() {
    let lab = Lab::new();
    lab.score(&mut Model::new()).unwrap();
    let before = outputs(&lab);
    let plan = ScorePlan::open(lab.score_options()).unwrap();
    assert_eq!(plan.todo(), 0);
    let summary = plan.close().unwrap();
    assert!(summary.to_string().contains("nothing to do, all 9 records"), "{summary}");
    let mut model = Model::new();
    assert_eq!(lab.score(&mut model).unwrap().calls, 0);
    assert_eq!(model.submitted, []);
    assert!(outputs(&lab) == before);
    assert_eq!(lab.leftovers(), Vec::<String>::new());
}

#[test]
fn a_killed_run_is_resumed_to_the_same_bytes() {
    let (expected, calls) = whole();
    for after in (0..calls as usize).step_by(5) {
        let lab = Lab::new();
        lab.score_killed(after);
        let summary = lab.score(&mut Model::with(8, after as u64)).unwrap();
        assert!(outputs(&lab) == expected, "killed after {after} replies");
        assert_eq!(lab.leftovers(), Vec::<String>::new());
        // What is lost: replies of the last batch, which was not noted yet.
        assert!(summary.calls + after as u64 <= calls + 2, "killed after {after} replies");
    }
}

#[test]
fn a_run_killed_again_and_again_ends_with_the_same_bytes() {
    let (expected, calls) = whole();
    let lab = Lab::new();
    for _ in 0..calls / 2 {
        let mut model = Model::ending(3, End::Broken);
        match lab.score(&mut model) {
            Err(Error::Broken(_)) => {}
            ended => {
                assert!(ended.unwrap().is_complete());
                assert!(outputs(&lab) == expected);
                return;
            }
        }
    }
    panic!("no run came to an end");
}

/// Cuts `name` of a run that was killed after some replies, at every fifth byte of its tail.
fn cut_everywhere(name: &str, after: impl Fn(u64) -> u64) {
    const TAIL: usize = 400;
    let (expected, calls) = whole();
    let killed = Lab::new();
    killed.score_killed(after(calls) as usize);
    let bytes = std::fs::read(killed.file(name)).unwrap();
    assert!(!bytes.is_empty(), "nothing to cut in {name}");
    for cut in (bytes.len().saturating_sub(TAIL)..bytes.len()).step_by(5) {
        let lab = Lab::new();
        copy(&killed.dir, &lab.dir);
        std::fs::write(lab.file(name), &bytes[..cut]).unwrap();
        let summary = lab.score(&mut Model::with(1000, 0)).unwrap();
        assert!(summary.is_complete() && outputs(&lab) == expected, "{name} cut at {cut}");
        assert_eq!(lab.leftovers(), Vec::<String>::new());
    }
}

#[test]
fn a_journal_may_be_torn_anywhere() {
    let journal = format!("{SCORED}.journal");
    cut_everywhere(&journal, |calls| calls / 2);
    // Near its header.
    cut_everywhere(&journal, |_| 4);
}

#[test]
fn an_output_may_be_torn_anywhere() {
    cut_everywhere(SCORED, |calls| calls - 5);
    cut_everywhere(CHUNKS, |calls| calls / 3);
}

#[test]
fn stopping_leaves_all_finished_work_on_disk() {
    let (expected, calls) = whole();
    let lab = Lab::new();
    let cancel = Rc::new(AtomicBool::new(false));
    let (flag, mut replies) = (Rc::clone(&cancel), 0);
    let mut model = Model::replying(move |call| {
        replies += 1;
        flag.fetch_or(replies == 40, Ordering::Relaxed);
        answer(call)
    });
    let tools = Tools { tokens: &tokens, retriever: &mut Retriever::Bm25 };
    let mut session = Session { chat: &mut model, progress: &mut Quiet, cancel: &cancel };
    let plan = ScorePlan::open(lab.score_options()).unwrap();
    let summary = plan.run(tools, &mut session).unwrap();
    assert!(summary.cancelled && !summary.is_complete() && summary.calls < 50);
    assert!(summary.to_string().contains("the same command goes on"), "{summary}");
    let summary = lab.score(&mut Model::new()).unwrap();
    assert!(summary.reused_calls > 0 && summary.calls < calls - 20);
    assert!(outputs(&lab) == expected);
}

#[test]
fn bad_rows_are_counted_and_the_rest_is_scored() {
    let (expected, _) = whole();
    let lab = Lab::new();
    let data = lab.read("sft.jsonl").replacen('\n', "\r\n{\"idx\": 8}\n\n{\n", 1);
    lab.write("sft.jsonl", &data);
    let mut responses = lab.read("sampled_responses.jsonl");
    responses += "{\"idx\":\"9-0\",\"query\":\"\",\"answer\":\"\"}\n";
    responses += "{\"idx\":\"5-0\",\"query\":\"What of 0?\",\"answer\":\"\"}\n";
    lab.write("sampled_responses.jsonl", &responses);
    let summary = lab.score(&mut Model::new()).unwrap();
    let lines: Vec<u64> = summary.problems.iter().map(|problem| problem.line).collect();
    assert_eq!((&lines[..], summary.foreign), (&[2, 4, 11][..], 1));
    assert!(!summary.is_complete());
    assert!(summary.to_string().contains("bad input rows: 3"), "{summary}");
    assert!(outputs(&lab) == expected);
}

/// Refuses the calls that `bad` picks.
fn refusing(bad: impl Fn(&Call) -> bool + 'static) -> Model {
    Model::replying(move |call| match bad(call) {
        true => Err(ChatError::TooLong { tokens: 9, limit: 5, why: "context".to_owned() }),
        false => answer(call),
    })
}

#[test]
fn a_failed_record_does_not_stop_the_others_and_can_be_made_later() {
    let (expected, calls) = whole();
    let lab = Lab::new();
    let bad = |call: &Call| kind(call) == "LOGICALITY" && format!("{call:?}").contains("What of 1");
    let summary = lab.score(&mut refusing(bad)).unwrap();
    assert_eq!((summary.added, summary.failures.len()), (6, 3));
    let text = summary.to_string();
    assert!(text.contains("6-2: logicality: the prompt has 9 tokens, but at most 5 fit"), "{text}");
    let done = ids(&lab, SCORED);
    assert_eq!(done, ["5-2", "7-2", "5-0", "7-0", "5-1", "7-1"]);
    let summary = lab.score(&mut Model::new()).unwrap();
    assert_eq!((summary.added, summary.reused), (3, 6));
    assert!(summary.calls < calls / 3 && summary.is_complete());
    assert!(outputs(&lab) == expected);
    assert_eq!(lab.leftovers(), Vec::<String>::new());
}

#[test]
fn a_failed_extract_fails_the_answers_to_its_prompt() {
    let lab = Lab::new();
    let bad = |call: &Call| kind(call) == "EXTRACT" && format!("{call:?}").contains("word39");
    let summary = lab.score(&mut refusing(bad)).unwrap();
    let ids: Vec<&str> = summary.failures.iter().map(|f| f.id.as_str()).collect();
    assert_eq!(ids, ["7-2", "7-0", "7-1"]);
    assert!(summary.failures[0].reason.starts_with("extract at 75% - 100%: the prompt has"));
    assert_eq!(lab.rows(CHUNKS).len(), 2);
}

#[test]
fn a_limit_may_change_from_run_to_run() {
    let (expected, calls) = whole();
    let lab = Lab::new();
    let limited = || score::Options { limit: Some(1), ..lab.score_options() };
    let some = lab.score_with(limited(), &mut Model::new()).unwrap();
    assert!(some.is_complete());
    assert_eq!((some.total, some.added), (3, 3));
    assert_eq!(ids(&lab, SCORED), ["5-2", "5-0", "5-1"]);
    assert_eq!(ScorePlan::open(limited()).unwrap().todo(), 0);
    let rest = lab.score(&mut Model::new()).unwrap();
    assert_eq!((rest.total, rest.reused, rest.added), (9, 3, 6));
    assert_eq!(some.calls + rest.calls, calls);
    let none = ScorePlan::open(limited()).unwrap().close().unwrap();
    assert_eq!((none.total, none.reused), (9, 9));
    assert!(outputs(&lab) == expected);
    assert_eq!(lab.leftovers(), Vec::<String>::new());
}

#[test]
fn samples_and_extracts_of_the_first_prompts_are_gone_on_from() {
    let whole = Lab::new();
    std::fs::remove_file(whole.file("sampled_responses.jsonl")).unwrap();
    whole.sample(2, &mut Model::new()).unwrap();
    whole.chunk_info(&mut Model::new()).unwrap();
    let lab = Lab::new();
    std::fs::remove_file(lab.file("sampled_responses.jsonl")).unwrap();
    let limited = sample::Options { limit: Some(1), ..lab.sample_options(2) };
    let plan = SamplePlan::open(limited).unwrap();
    assert_eq!(plan.todo(), 2);
    super::testing::run_sample(plan, &mut Model::new()).unwrap();
    assert_eq!(ids(&lab, "sampled_responses.jsonl"), ["5-0", "5-1"]);
    lab.sample(2, &mut Model::new()).unwrap();
    assert_eq!(lab.read("sampled_responses.jsonl"), whole.read("sampled_responses.jsonl"));
    lab.chunk_info_of(Some(2), &mut Model::new()).unwrap();
    assert_eq!(ids(&lab, CHUNKS), ["5", "6"]);
    lab.chunk_info(&mut Model::new()).unwrap();
    assert_eq!(lab.read(CHUNKS), whole.read(CHUNKS));
}

#[test]
fn a_broken_model_stops_the_stage() {
    let lab = Lab::new();
    let broken = lab.score(&mut Model::ending(30, End::Broken)).unwrap_err();
    assert_eq!(broken.to_string(), "the model stopped working: gone");
    assert!(lab.score(&mut Model::new()).unwrap().reused_calls > 0);
    assert!(outputs(&lab) == whole().0);
}

#[test]
fn other_settings_are_refused_unless_forced() {
    let mut lab = Lab::new();
    lab.score_killed(100);
    lab.seed = 2;
    let refused = lab.score(&mut Model::new()).unwrap_err().to_string();
    assert!(refused.contains("seed: was \"1\", is now \"2\""), "{refused}");
    lab.on_mismatch = OnMismatch::StartOver;
    assert_eq!(lab.score(&mut Model::new()).unwrap().reused_calls, 0);
    let mut fresh = Lab::new();
    fresh.seed = 2;
    fresh.score(&mut Model::new()).unwrap();
    assert!(outputs(&lab) == outputs(&fresh) && outputs(&lab) != whole().0);
}

#[test]
fn extracts_of_their_own_are_not_deleted_with_scores() {
    let mut lab = Lab::new();
    lab.chunk_info(&mut Model::new()).unwrap();
    lab.score(&mut Model::new()).unwrap();
    let before = outputs(&lab);
    lab.seed = 2;
    lab.on_mismatch = OnMismatch::StartOver;
    let refused = lab.score(&mut Model::new()).unwrap_err().to_string();
    assert!(refused.contains("made by chunk-info"), "{refused}");
    assert!(outputs(&lab) == before);
    // They are where that is asked for.
    lab.chunk_info(&mut Model::new()).unwrap();
    lab.score(&mut Model::new()).unwrap();
    assert!(outputs(&lab) != before);
}

#[test]
fn no_stage_writes_over_what_it_reads() {
    let mut lab = Lab::new();
    lab.score(&mut Model::new()).unwrap();
    lab.on_mismatch = OnMismatch::StartOver;
    let before = ["sft.jsonl", "sampled_responses.jsonl", SCORED].map(|name| lab.read(name));
    let refused = |ended: Result<(), Error>| {
        let told = ended.unwrap_err().to_string();
        assert!(told.contains("choose another output"), "{told}");
    };
    for name in ["sft.jsonl", "sampled_responses.jsonl"] {
        let options = score::Options { out: lab.file(name), ..lab.score_options() };
        refused(ScorePlan::open(options).map(drop));
    }
    let options = score::Options { responses: lab.file(CHUNKS), ..lab.score_options() };
    refused(ScorePlan::open(options).map(drop));
    let options = sample::Options { out: lab.file("sft.jsonl"), ..lab.sample_options(2) };
    refused(SamplePlan::open(options).map(drop));
    for name in ["sft.jsonl", SCORED] {
        let options = pairs::Options { out: lab.file(name), ..lab.pairs_options() };
        refused(pairs::run(&options, None).map(drop));
    }
    let after = ["sft.jsonl", "sampled_responses.jsonl", SCORED].map(|name| lab.read(name));
    assert!(after == before);
}

#[test]
fn replies_beside_the_one_that_ends_a_run_are_kept() {
    let lab = Lab::new();
    let mut replies = 0;
    let mut model = Model::replying(move |call| {
        replies += 1;
        if replies == 3 { Err(ChatError::Broken("gone".to_owned())) } else { answer(call) }
    });
    // Its first replies come all at once.
    model.appetite = 8;
    lab.score(&mut model).unwrap_err();
    let asked = model.seen.len() as u64;
    let summary = lab.score(&mut Model::new()).unwrap();
    assert_eq!(summary.reused_calls, asked - 1);
    assert!(outputs(&lab) == whole().0);
}

#[test]
fn a_share_of_the_prompts_passes_over_the_responses_to_others() {
    let lab = Lab::new();
    let data = lab.read("sft.jsonl");
    lab.write("sft.jsonl", data.lines().next().unwrap());
    let scored = lab.score(&mut Model::new()).unwrap();
    assert!(scored.is_complete() && (scored.total, scored.foreign) == (3, 6), "{scored}");
    assert!(scored.to_string().contains("no good row for, passed over: 6"), "{scored}");
    let mut all = Lab::new();
    all.seed = lab.seed;
    all.score(&mut Model::new()).unwrap();
    let options = pairs::Options { scored: all.file(SCORED), ..lab.pairs_options() };
    let paired = pairs::run(&options, None).unwrap();
    assert!(paired.is_complete() && (paired.scored, paired.foreign) == (3, 6), "{paired}");
    assert!(paired.to_string().contains("passed over: 6"), "{paired}");
    // A row that went bad, and what was scored of it.
    all.write("sft.jsonl", &data.replacen("\"idx\":5", "\"idx\":-5", 1));
    let refused = all.score(&mut Model::new()).unwrap_err().to_string();
    assert!(refused.contains("sft.jsonl:1: field \"idx\" should be"), "{refused}");
    assert!(refused.contains("record \"5-2\" is not in the input"), "{refused}");
    // No prompt of theirs at all.
    let other = data.lines().next().unwrap().replacen("\"idx\":5", "\"idx\":9", 1);
    lab.write("sft.jsonl", &(other + "\n{}"));
    let score = ScorePlan::open(lab.score_options()).map(drop);
    for refused in [score, pairs::run(&options, None).map(drop)] {
        let told = refused.unwrap_err().to_string();
        let first = told.contains("sft.jsonl:2: ");
        assert!(first && told.contains("jsonl: holds no usable row"), "{told}");
    }
}

#[test]
fn a_run_whose_sampling_leaves_nothing_ends_there() {
    let lab = Lab::new();
    std::fs::remove_file(lab.file("sampled_responses.jsonl")).unwrap();
    let mut policy = Model::replying(|_| Err(ChatError::Refused("no".to_owned())));
    let summary = lab.run(&mut policy, &mut Model::new()).unwrap();
    assert!(summary.scored.is_none() && !summary.cancelled() && !summary.is_complete());
}

#[test]
fn an_edited_prompt_file_is_another_setting() {
    let lab = Lab::new();
    lab.score_killed(100);
    lab.write("prompts/logicality_few_shot.txt", "LOGICALITY\nnew\n<<question>>\n<<answer>>");
    let refused = lab.score(&mut Model::new()).unwrap_err().to_string();
    assert!(refused.contains("prompt en/logicality: was"), "{refused}");
}

#[test]
fn a_changed_document_is_refused_although_its_idx_is_the_same() {
    let lab = Lab::new();
    lab.score(&mut Model::new()).unwrap();
    lab.write("sft.jsonl", &lab.read("sft.jsonl").replacen("word3", "WORD3", 1));
    let refused = lab.score(&mut Model::new()).unwrap_err().to_string();
    assert!(refused.contains("was made from another input"), "{refused}");
}

#[test]
fn more_input_adds_records_to_what_is_there() {
    let (expected, calls) = whole();
    let lab = Lab::new();
    let all = lab.read("sampled_responses.jsonl");
    let few: String = all.lines().take(4).map(|line| format!("{line}\n")).collect();
    lab.write("sampled_responses.jsonl", &few);
    lab.score(&mut Model::new()).unwrap();
    lab.write("sampled_responses.jsonl", &all);
    let summary = lab.score(&mut Model::new()).unwrap();
    assert_eq!((summary.reused, summary.added), (4, 5));
    assert!(summary.calls < calls * 2 / 3);
    assert!(outputs(&lab) == expected);
}

#[test]
fn extracts_made_before_are_the_same_and_are_used() {
    let (expected, calls) = whole();
    let lab = Lab::new();
    let extracted = lab.chunk_info(&mut Model::with(3, 9)).unwrap();
    assert!(lab.read(CHUNKS) == expected[1]);
    let mut model = Model::new();
    assert_eq!(lab.score(&mut model).unwrap().calls, calls - extracted.calls);
    assert!(model.seen.iter().all(|call| kind(call) != "EXTRACT"));
    assert!(outputs(&lab) == expected);
}

#[test]
fn given_extracts_are_read_only_and_need_not_be_ours() {
    let lab = Lab::new();
    let given = r#"{"idx":5,"query":"What of 0?","info_list":{"0% - 100%":"Given."}}"#;
    lab.write("given.jsonl", given);
    let mut options = lab.score_options();
    options.chunk_info = Some(lab.file("given.jsonl"));
    let mut model = Model::new();
    let summary = lab.score_with(options, &mut model).unwrap();
    assert!(summary.is_complete());
    assert_eq!(lab.read("given.jsonl"), given);
    assert!(!lab.file(CHUNKS).exists());
    let rows = lab.rows(SCORED);
    let list = |row: usize| rows[row]["details"]["completeness"]["info_list"].clone();
    assert_eq!(list(1), serde_json::json!({"0% - 100%": "Given."}));
    assert_eq!(list(2).as_object().unwrap().len(), 4);
}

#[test]
fn records_that_rest_on_other_extracts_are_refused() {
    let extract = |idx: u64, text: &str| {
        let query = format!("What of {}?", idx - 5);
        let list = serde_json::json!({ "0% - 100%": text });
        format!("{}\n", serde_json::json!({"idx": idx, "query": query, "info_list": list}))
    };
    let mut lab = Lab::new();
    let score = |lab: &Lab, given: &str| {
        lab.write("given.jsonl", given);
        let chunk_info = Some(lab.file("given.jsonl"));
        lab.score_with(score::Options { chunk_info, ..lab.score_options() }, &mut Model::new())
    };
    let all = lab.read("sampled_responses.jsonl");
    let few: String = all.lines().take(2).map(|line| format!("{line}\n")).collect();
    lab.write("sampled_responses.jsonl", &few);
    score(&lab, &extract(5, "one")).unwrap();
    lab.write("sampled_responses.jsonl", &all);
    let before = lab.read(SCORED);
    let refused = score(&lab, &extract(5, "other")).unwrap_err().to_string();
    assert!(refused.contains("record \"5-2\" was scored with other extracts"), "{refused}");
    assert!(lab.read(SCORED) == before);
    // A file that grew.
    let grown = extract(5, "one") + &extract(7, "more");
    assert_eq!(score(&lab, &grown).unwrap().reused, 2);
    lab.on_mismatch = OnMismatch::StartOver;
    assert_eq!(score(&lab, &extract(5, "other")).unwrap().reused, 0);
}

#[test]
fn records_that_rest_on_other_extracts_beside_them_are_refused() {
    let lab = Lab::new();
    lab.score(&mut Model::new()).unwrap();
    let says = |text: &str| text.replacen("It says ", "It says not ", 1);
    assert_ne!(says(&lab.read(CHUNKS)), lab.read(CHUNKS));
    lab.write(CHUNKS, &says(&lab.read(CHUNKS)));
    let refused = lab.score(&mut Model::new()).unwrap_err().to_string();
    assert!(refused.contains("was scored with other extracts"), "{refused}");
}

#[test]
fn outputs_in_one_folder_have_extracts_of_their_own() {
    let names = ["d/a.jsonl", "a.b", "-"].map(|name| score::beside(Path::new(name)));
    let expected = ["d/a.chunk_info.jsonl", "a.b.chunk_info.jsonl", "-.chunk_info.jsonl"];
    assert_eq!(names, expected.map(PathBuf::from));
    let mut lab = Lab::new();
    let score = |lab: &Lab, name: &str| {
        let out = lab.file(name);
        let extracts = score::beside(&out);
        lab.score_with(score::Options { out, extracts, ..lab.score_options() }, &mut Model::new())
    };
    score(&lab, "first.jsonl").unwrap();
    lab.seed = 2;
    lab.on_mismatch = OnMismatch::StartOver;
    assert!(score(&lab, "second.jsonl").unwrap().calls > 0);
    lab.seed = 1;
    lab.on_mismatch = OnMismatch::Refuse;
    assert_eq!(score(&lab, "first.jsonl").unwrap().calls, 0);
}

#[test]
fn a_run_tells_before_it_samples_which_outputs_it_can_not_use() {
    for name in [SCORED, CHUNKS, "preference_pairs.jsonl"] {
        let mut lab = Lab::new();
        std::fs::remove_file(lab.file("sampled_responses.jsonl")).unwrap();
        lab.write(name, "theirs\n");
        for on_mismatch in [OnMismatch::Refuse, OnMismatch::StartOver] {
            lab.on_mismatch = on_mismatch;
            let mut policy = Model::new();
            let refused = lab.run(&mut policy, &mut Model::new()).unwrap_err().to_string();
            assert!(refused.contains(name) && policy.submitted.is_empty(), "{refused}");
        }
    }
    // Made with other settings, and in use.
    let mut lab = Lab::new();
    lab.score(&mut Model::new()).unwrap();
    std::fs::remove_file(lab.file("sampled_responses.jsonl")).unwrap();
    lab.seed = 2;
    let mut policy = Model::new();
    let refused = lab.run(&mut policy, &mut Model::new()).unwrap_err();
    assert!(matches!(refused, Error::Settings { .. }) && policy.submitted.is_empty());
    lab.on_mismatch = OnMismatch::StartOver;
    let lock = lab.file(&format!("{SCORED}.lock"));
    let held = Lock::take(&lock, &lab.file(SCORED)).unwrap();
    let refused = lab.run(&mut policy, &mut Model::new()).unwrap_err();
    assert!(matches!(refused, Error::Locked { .. }) && policy.submitted.is_empty());
    drop(held);
    assert!(lab.run(&mut policy, &mut Model::new()).unwrap().is_complete());
}

#[test]
fn calls_of_one_kind_stand_together_and_documents_overlap() {
    let lab = Lab::new();
    let mut model = Model::with(1000, 0);
    lab.score(&mut model).unwrap();
    let kinds: Vec<&str> = model.submitted.iter().take(17 + 14).map(kind).collect();
    let mut runs = kinds.clone();
    runs.dedup();
    let one = ["STATEMENTS", "EXTRACT", "HELPFULNESS", "LOGICALITY"];
    assert_eq!(runs[..8], [one, one].concat());
    // All that is ready of all documents was there before the first reply.
    let ready = model.submitted.iter().take(3 * 9 + 8);
    let first = |call: &Call| format!("{call:?}").contains("temperature: 0.01");
    assert!(ready.clone().all(first));
    assert!(ready.clone().any(|call| format!("{call:?}").contains("What of 2")));
}

/// Counts how many texts it embeds.
struct Counting(Rc<Cell<usize>>);

impl Embed for Counting {
    fn embed(&mut self, texts: &[&str]) -> Result<Vec<Vec<f32>>, EmbedError> {
        self.0.set(self.0.get() + texts.len());
        Ok(texts.iter().map(|text| vec![text.len() as f32, 1.0]).collect())
    }
}

#[test]
fn passages_are_embedded_once_per_document() {
    let lab = Lab::new();
    let count = Rc::new(Cell::new(0));
    let mut retriever = Retriever::Embeddings(Box::new(Counting(Rc::clone(&count))));
    let tools = Tools { tokens: &tokens, retriever: &mut retriever };
    let cancel = AtomicBool::new(false);
    let mut model = Model::new();
    let mut session = Session { chat: &mut model, progress: &mut Quiet, cancel: &cancel };
    let plan = ScorePlan::open(lab.score_options()).unwrap();
    plan.run(tools, &mut session).unwrap();
    let facts = |row: &serde_json::Value| {
        row["details"]["faithfulness"]["details"].as_array().unwrap().len()
    };
    let facts: usize = lab.rows(SCORED).iter().map(facts).sum();
    assert_eq!(count.get(), 7 + 2 + 10 + facts);
}

/// Notes what it is told to expect, and then asked for.
struct Expecting(Rc<RefCell<Vec<(bool, usize)>>>);

impl Embed for Expecting {
    fn embed(&mut self, texts: &[&str]) -> Result<Vec<Vec<f32>>, EmbedError> {
        self.0.borrow_mut().push((false, texts.len()));
        Ok(texts.iter().map(|text| vec![text.len() as f32, 1.0]).collect())
    }

    fn expect(&mut self, texts: &[&str]) {
        self.0.borrow_mut().push((true, texts.len()));
    }
}

#[test]
fn an_embedder_hears_of_a_document_when_it_is_opened() {
    for (whole_document, expected) in [(None, 3), (Some(100_000), 0)] {
        let lab = Lab::new();
        let noted = Rc::new(RefCell::new(Vec::new()));
        let mut retriever = Retriever::Embeddings(Box::new(Expecting(Rc::clone(&noted))));
        let tools = Tools { tokens: &tokens, retriever: &mut retriever };
        let (cancel, mut model) = (AtomicBool::new(false), Model::new());
        let mut session = Session { chat: &mut model, progress: &mut Quiet, cancel: &cancel };
        let mut options = lab.score_options();
        options.evidence.whole_document = whole_document;
        ScorePlan::open(options).unwrap().run(tools, &mut session).unwrap();
        let noted = noted.borrow();
        let at = |wanted| noted.iter().position(|one| *one == wanted);
        let documents: Vec<_> = noted.iter().filter(|(is_expected, _)| *is_expected).collect();
        assert_eq!(documents.len(), expected);
        for (_, passages) in documents {
            assert!(at((true, *passages)) < at((false, *passages)), "{noted:?}");
        }
    }
}

#[test]
fn sampling_resumes_grows_and_keeps_the_order() {
    let whole = Lab::new();
    std::fs::remove_file(whole.file("sampled_responses.jsonl")).unwrap();
    assert_eq!(whole.sample(4, &mut Model::new()).unwrap().calls, 12);
    assert_eq!(ids(&whole, "sampled_responses.jsonl")[..5], ["5-0", "5-1", "5-2", "5-3", "6-0"]);
    let lab = Lab::new();
    let refused = lab.sample(2, &mut Model::new()).unwrap_err();
    assert!(matches!(refused, Error::NotOurs { .. }));
    std::fs::remove_file(lab.file("sampled_responses.jsonl")).unwrap();
    lab.sample(2, &mut Model::ending(3, End::Broken)).unwrap_err();
    let summary = lab.sample(2, &mut Model::with(2, 4)).unwrap();
    assert_eq!((summary.reused, summary.added), (3, 3));
    let summary = lab.sample(4, &mut Model::with(5, 6)).unwrap();
    assert_eq!((summary.reused, summary.added), (6, 6));
    assert!(lab.read("sampled_responses.jsonl") == whole.read("sampled_responses.jsonl"));
    let answers = whole.rows("sampled_responses.jsonl");
    assert_ne!(answers[0]["answer"], answers[1]["answer"]);
    assert_eq!(answers[0]["finish"], "stop");
    let fewer = lab.sample(2, &mut Model::new()).unwrap_err().to_string();
    assert!(fewer.contains("candidate 5-2, which is more than 2 of a prompt: give -n"), "{fewer}");
    assert!(!fewer.contains("--force"), "{fewer}");
}

#[test]
fn all_stages_run_in_a_row_and_again_without_work() {
    let lab = Lab::new();
    std::fs::remove_file(lab.file("sampled_responses.jsonl")).unwrap();
    let summary = lab.run(&mut Model::new(), &mut Model::new()).unwrap();
    assert!(summary.is_complete(), "{summary}");
    assert_eq!(summary.pairs.as_ref().unwrap().prompts, 3);
    assert!(summary.to_string().contains("pairs: 3 from 3 prompts"), "{summary}");
    let pairs = lab.read("preference_pairs.jsonl");
    let idle = |_: &Call| -> Result<Reply, ChatError> { panic!("a model was asked") };
    let again = lab.run(&mut Model::replying(idle), &mut Model::replying(idle)).unwrap();
    assert!(again.to_string().matches("nothing to do").count() == 2, "{again}");
    assert_eq!(lab.read("preference_pairs.jsonl"), pairs);
}

#[test]
fn a_second_writer_is_refused() {
    let lab = Lab::new();
    let first = ScorePlan::open(lab.score_options()).unwrap();
    let second = ScorePlan::open(lab.score_options()).unwrap_err();
    assert!(matches!(second, Error::Locked { .. }));
    assert!(run_score(first, &mut Model::new()).is_ok());
}

//! The page as a whole.

use super::testing::{Lab, scored_row};
use super::{Error, run};
use serde_json::{Value, json};
use std::io::Read;

/// What must never become markup.
const HOSTILE: &str = "</script><script>window.hacked=1</script><img src=x onerror=alert(1)>\
    <!-- {{ 7*7 }} & \u{2028}\u{202e}مرحبا 🙂";

fn lab() -> Lab {
    let lab = Lab::new();
    let context = format!("first part. {HOSTILE} second part.");
    lab.write_rows(
        "sft.jsonl",
        &[
            json!({"idx": 2, "query": HOSTILE, "answer": "", "context": context}),
            json!({"idx": 1, "query": "plain", "answer": "", "context": "plain"}),
        ],
    );
    lab.write_rows(
        "scored_responses.jsonl",
        &[
            scored_row("2-1", HOSTILE, HOSTILE, HOSTILE),
            scored_row("2-0", HOSTILE, "short", "second part."),
        ],
    );
    lab
}

/// The text of the script element with this id.
fn element<'a>(page: &'a str, id: &str) -> &'a str {
    let at = page.find(&format!("id=\"{id}\">")).unwrap();
    let text = &page[at + id.len() + 6..];
    &text[..text.find("</script>").unwrap()]
}

fn block(page: &str, position: usize) -> Value {
    let text = element(page, &format!("block-{position}"));
    let letters = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let six = |letter: u8| letters.iter().position(|&l| l == letter).map(|i| i as u32);
    let mut bytes = Vec::new();
    for group in text.as_bytes().chunks(4) {
        let bits = group.iter().fold(0, |bits, &l| (bits << 6) | six(l).unwrap_or(0));
        bytes.extend_from_slice(&bits.to_be_bytes()[1..]);
    }
    let mut json = String::new();
    flate2::read::ZlibDecoder::new(bytes.as_slice()).read_to_string(&mut json).unwrap();
    serde_json::from_str(&json).unwrap()
}

#[test]
fn texts_stay_texts() {
    let lab = lab();
    let (summary, page) = lab.report(&lab.options());
    assert!(summary.is_complete());
    assert_eq!((summary.prompts, summary.candidates, summary.pairs), (1, 2, None));
    assert_eq!(summary.bytes, page.len() as u64);
    assert!(!page.contains("window.hacked=1</script>") && !page.contains("<img"));
    let answers: Vec<String> = serde_json::from_str(element(&page, "answers")).unwrap();
    assert_eq!(answers, ["short", HOSTILE]);
    let index: Value = serde_json::from_str(element(&page, "index")).unwrap();
    assert_eq!(index["prompts"][0]["query"], HOSTILE);
    assert_eq!(index["candidates"]["scores"][2], json!([5.0, 5.0]));
    assert_eq!(index["candidates"]["cut"], json!([1, 1]));
}

#[test]
fn blocks_hold_what_single_views_show() {
    let lab = lab();
    let (_, page) = lab.report(&lab.options());
    let block = block(&page, 0);
    let statement = &block["candidates"][1]["statements"][0];
    assert_eq!(statement["fact"], HOSTILE);
    let passage = &block["passages"][statement["passages"][0].as_u64().unwrap() as usize];
    assert_eq!((&passage["text"], &passage["position"]["offset"]), (&json!(HOSTILE), &json!(12)));
    assert_eq!(block["extracts"][0][0]["text"], "short");
    assert_eq!(block["extracts"][1][0]["place"], "0% - 100%");
}

#[test]
fn numbers_that_scripts_would_round_are_texts() {
    let (lab, idx) = (Lab::new(), (1u64 << 53) + 1);
    let prompt = json!({"idx": idx, "query": "q", "answer": "", "context": "plain"});
    lab.write_rows("sft.jsonl", &[prompt]);
    let row = scored_row(&format!("{idx}-{idx}"), "q", "x", "plain");
    lab.write_rows("scored_responses.jsonl", &[row]);
    let (_, page) = lab.report(&lab.options());
    let index: Value = serde_json::from_str(element(&page, "index")).unwrap();
    let text = json!("9007199254740993");
    assert_eq!((&index["prompts"][0]["idx"], &index["candidates"]["k"][0]), (&text, &text));
}

#[test]
fn the_same_files_give_the_same_bytes() {
    let lab = lab();
    let (_, first) = lab.report(&lab.options());
    let (_, second) = lab.report(&lab.options());
    assert!(first == second);
}

#[test]
fn nothing_is_loaded_and_only_our_script_may_run() {
    let lab = lab();
    let (_, page) = lab.report(&lab.options());
    let policy = page.split("http-equiv=\"Content-Security-Policy\" content=\"").nth(1).unwrap();
    let policy = policy.split('"').next().unwrap();
    for part in ["default-src &#x27;none&#x27;", "script-src &#x27;sha256-"] {
        assert!(policy.contains(part), "{policy}");
    }
    assert!(!policy.contains("unsafe"));
    for outside in ["src=\"", "url(", "@import", "<link", "<iframe"] {
        assert!(!page.contains(outside), "{outside}");
    }
}

#[test]
fn bad_rows_are_named_and_the_rest_is_shown() {
    let lab = lab();
    let good = std::fs::read_to_string(lab.path("scored_responses.jsonl")).unwrap();
    let mut other = scored_row("1-0", "plain", "x", "plain");
    other["scores"]["total"] = json!(85);
    let mut without = scored_row("1-1", "plain", "x", "plain");
    without["details"]["logicality"] = json!({});
    let orphan = scored_row("9-0", "plain", "x", "plain");
    let bad = format!("{good}{other}\n{without}\n{{\n{orphan}\n");
    lab.write("scored_responses.jsonl", &bad);
    let (summary, page) = lab.report(&lab.options());
    let lines: Vec<_> = summary.problems.iter().map(|p| (p.line, p.field.as_deref())).collect();
    let want =
        [(3, Some("scores.total")), (4, Some("details.logicality")), (5, None), (6, Some("idx"))];
    assert_eq!(lines, want);
    assert_eq!(summary.candidates, 2);
    assert!(page.contains("scored_responses.jsonl:5"));
}

/// A row as early stop leaves it: judged in helpfulness and logicality alone.
fn stopped_row(idx: &str, answer: &str) -> Value {
    let mut row = scored_row(idx, HOSTILE, answer, "second part.");
    for missing in ["faithfulness", "completeness"] {
        row["details"].as_object_mut().unwrap().remove(missing);
        row["scores"][missing] = Value::Null;
    }
    (row["scores"]["total"], row["scores"]["reward"]) = (Value::Null, Value::Null);
    row["early_stop"] = json!({"skipped": ["faithfulness", "completeness"],
                               "total_at_least": 13.0, "total_at_most": 33.0});
    row
}

#[test]
fn who_was_stopped_early_is_shown_as_what_it_is() {
    let lab = lab();
    let mut broken = stopped_row("2-4", "broken");
    broken["early_stop"]["skipped"] = json!(["completeness"]);
    let best = scored_row("2-1", HOSTILE, HOSTILE, HOSTILE);
    let mut worst = scored_row("2-0", HOSTILE, "short", "second part.");
    worst["scores"]["total"] = json!(12.0);
    let rows = [best, worst, stopped_row("2-3", "between"), broken];
    lab.write_rows("scored_responses.jsonl", &rows);
    let (summary, page) = lab.report(&lab.options());
    let problems: Vec<_> = summary.problems.iter().map(|p| (p.line, p.field.as_deref())).collect();
    assert_eq!(problems, [(4, Some("details.faithfulness"))]);
    let index: Value = serde_json::from_str(element(&page, "index")).unwrap();
    assert_eq!(index["candidates"]["scores"][0], json!([6.0, 6.0, 6.0]));
    assert_eq!(index["candidates"]["scores"][4], json!([12.0, 22.0, null]));
    assert_eq!(index["candidates"]["stopped"], json!([null, null, [13.0, 33.0]]));
    assert_eq!(index["pairs"], json!([[1, 0]]));
    assert!(page.contains("1 of 3 candidates were stopped early"));
    let verdicts = &block(&page, 0)["candidates"][2];
    assert_eq!((&verdicts["faithfulness"], &verdicts["extracts"]), (&Value::Null, &Value::Null));
    assert_eq!(verdicts["stopped"]["skipped"], json!(["faithfulness", "completeness"]));
}

#[test]
fn votes_calibration_estimates_and_whole_documents_reach_the_page() {
    let lab = lab();
    let mut row = scored_row("2-0", HOSTILE, "short", "second part.");
    let vote = |score: f64| json!({"score": score, "analysis": HOSTILE, "attempts": 1, "forced": false, "expected": score});
    let votes = |a: f64, b: f64| json!({"mean": (a + b) / 2.0, "median": (a + b) / 2.0, "spread": 0.5, "each": [vote(a), vote(b)]});
    let was = json!({"distribution": [0.5, 0.5], "expected": 0.5});
    let helpfulness = &mut row["details"]["helpfulness"];
    helpfulness["votes"] = votes(5.0, 7.0);
    (helpfulness["uncalibrated"], helpfulness["estimate"]) = (was, json!("echo"));
    let statement = &mut row["details"]["faithfulness"]["details"][0];
    (statement["votes"], statement["score"]) = (votes(1.0, 0.5), json!(0.75));
    (statement["evidences"], statement["whole_document"]) = (json!([]), json!(true));
    lab.write_rows("scored_responses.jsonl", &[row]);
    let (summary, page) = lab.report(&lab.options());
    assert!(summary.is_complete());
    let verdicts = &block(&page, 0)["candidates"][0];
    let rated = &verdicts["helpfulness"];
    assert_eq!(rated["votes"]["each"][1]["analysis"], HOSTILE);
    assert_eq!(
        (&rated["uncalibrated"]["expected"], &rated["estimate"]),
        (&json!(0.5), &json!("echo"))
    );
    let statement = &verdicts["statements"][0];
    assert_eq!(
        (&statement["degree"], &statement["whole_document"]),
        (&json!("partial"), &json!(true))
    );
    for note in [
        "2 of 4 ratings and labels are made of 2 votes",
        "from echoed prompts",
        "1 of 1 statements were",
    ] {
        assert!(page.contains(note), "{note}");
    }
}

#[test]
fn nothing_to_show_is_an_error() {
    let lab = lab();
    lab.write("scored_responses.jsonl", "{\n");
    let error = run(&lab.options()).unwrap_err();
    assert!(matches!(error, Error::NothingToShow { .. }));
    assert!(error.to_string().contains("scored_responses.jsonl:1"), "{error}");
    assert!(!lab.options().out.exists());
}

#[test]
fn agreement_and_settings_are_shown_where_they_are() {
    let lab = lab();
    let options = super::Options {
        agree: Some(lab.write("a.json", r#"{"kappa <b>": 0.5, "rows": [{"n": 1}]}"#)),
        ..lab.options()
    };
    lab.write("scored_responses.jsonl.meta.json", r#"{"settings": {"model": "m<i>", "seed": 7}}"#);
    let (_, page) = lab.report(&options);
    assert!(page.contains("kappa &lt;b&gt;") && page.contains("0.500"));
    assert!(page.contains("m&lt;i&gt;"));
    let (_, page) = lab.report(&lab.options());
    assert!(!page.contains("0.500"));
}

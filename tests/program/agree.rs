//! The judge beside people, from outside.

use crate::harness::World;
use serde_json::{Value, json};

const SENTENCES: [&str; 4] = [
    "The old mill stands on the river.",
    "It was built in 1874 by two brothers.",
    "A flood in 1903 broke the wheel.",
    "The town paid 400 crowns for a new one.",
];

/// Two claims, two pairs and two ratings.
fn labels() -> String {
    let rows = [
        json!({"claim": "Two brothers built the mill.", "evidence": SENTENCES,
               "label": "supported", "supporting": [1]}),
        json!({"claim": "The mill burned down.", "evidence": SENTENCES, "label": "not_supported"}),
        json!({"query": "When was it built?", "response_a": "In 1874.", "response_b": "I don't know.",
               "labels": ["a", "a", "tie"]}),
        json!({"query": "When was it built?", "response_a": "Late.", "response_b": "In 1874.",
               "labels": ["b", "b", "b"]}),
        json!({"query": "Who built it?", "answer": "Two brothers.", "rating": 9}),
        json!({"query": "Who built it?", "answer": "The town.", "rating": 2}),
    ];
    rows.iter().map(|row| format!("{row}\n")).collect()
}

fn agree(out: &str, more: &str) -> String {
    format!(
        "agree --labels labels.jsonl --model model --embedder bm25 --max-reply-tokens 8 \
         --resamples 50 --out {out}.jsonl {more}"
    )
}

fn world() -> World {
    let world = World::new();
    world.write("labels.jsonl", labels());
    world
}

fn summary(world: &World, out: &str) -> Value {
    serde_json::from_str(&world.read(&format!("{out}.summary.json"))).unwrap()
}

#[test]
fn every_kind_of_label_is_measured_and_measured_again_the_same() {
    let world = world();
    let printed = world.expect(0, &agree("a", "--threads 1 --seeds 2"));
    for words in ["support: 2 claims", "pairwise: 2 pairs", "rating: 2 answers", "over 2 seeds"] {
        assert!(printed.contains(words), "no {words:?} in\n{printed}");
    }
    for baseline in ["majority class", "longest wins", "word overlap", "people", "length"] {
        assert!(printed.contains(baseline), "no {baseline:?} in\n{printed}");
    }
    world.expect(0, &agree("b", "--seeds 2 --batch-tokens 100 --max-sequences 3"));
    assert_eq!(world.read("a.jsonl"), world.read("b.jsonl"));
    assert_eq!(world.read("a.summary.json"), world.read("b.summary.json"));
    let again = world.expect(0, &agree("a", "--seeds 2"));
    assert!(again.contains("nothing to do"), "{again}");
    assert_eq!(world.read("a.summary.json"), world.read("b.summary.json"));
    let summary = summary(&world, "a");
    assert_eq!(summary["support"]["items"], 2);
    assert_eq!(summary["support"]["reading"]["verdicts"], 4);
    assert_eq!(summary["pairwise"]["spread"]["runs"], 2);
    assert_eq!(summary["recall"][0]["metrics"]["recall"]["value"], 1.0);
}

#[test]
fn bad_rows_are_named_and_the_rest_is_measured() {
    let world = world();
    world.write(
        "labels.jsonl",
        labels() + "{\"claim\": \"c\", \"evidence\": [], \"label\": \"supported\"}\n",
    );
    let printed = world.expect(3, &agree("a", ""));
    assert!(printed.contains("labels.jsonl:7: field \"evidence\" is empty"), "{printed}");
    assert_eq!(summary(&world, "a")["support"]["items"], 2);
    let refused = world.expect(1, &agree("a", "--dimensions logicality"));
    assert!(refused.contains("dimensions: was \"helpfulness,logicality\""), "{refused}");
}

#[test]
fn retrieval_is_measured_without_a_judge() {
    let world = world();
    let args = "agree --labels labels.jsonl --embedder bm25 --recall-only --resamples 0";
    let printed = world.expect(0, args);
    assert!(printed.contains("bm25, 1 of sentences"), "{printed}");
    let printed = world.expect(0, &format!("{args} --model model --out r.jsonl"));
    assert!(printed.contains("bm25, 5 of 128 tokens"), "{printed}");
    assert_eq!(summary(&world, "r")["recall"].as_array().unwrap().len(), 8);
}

#[test]
fn two_judges_are_compared() {
    let world = world();
    world.expect(0, &agree("a", ""));
    world.expect(0, &agree("b", "--lang zh"));
    let printed = world.expect(0, "agree --compare a.jsonl b.jsonl --out c.jsonl --resamples 50");
    assert!(printed.contains("8 answers to 6 prompts"), "{printed}");
    let summary = summary(&world, "c");
    let names: Vec<&str> =
        summary["scores"].as_array().unwrap().iter().map(|s| s["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["support", "helpfulness", "logicality", "mean"]);
    let same = world.expect(0, "agree --compare a.jsonl a.jsonl --resamples 0");
    assert!(same.contains("0.000"), "{same}");
}

#[test]
fn biases_are_measured_where_they_are_asked_for() {
    let world = world();
    world.write(
        "labels.jsonl",
        labels().replace(
            "\"response_a\"",
            "\"author_a\": \"model\", \"author_b\": \"x\", \"response_a\"",
        ),
    );
    let plain = world.expect(0, &agree("a", ""));
    assert!(plain.contains("position: answers are judged one by one"), "{plain}");
    assert!(
        !plain.contains("padding:") && plain.contains("own answers: pairwise, 2 rows"),
        "{plain}"
    );
    let all = world.expect(0, &agree("a", "--padding --langs en,zh"));
    for words in ["padding: 6 answers, 2 pairs", "support, 2 rows, accuracy", "same verdict"] {
        assert!(all.contains(words), "no {words:?} in\n{all}");
    }
    let bias = &summary(&world, "a")["bias"];
    assert!(bias["padding"]["metrics"]["shift"]["low"].is_number(), "{bias}");
    assert_eq!(bias["languages"].as_array().unwrap().len(), 3);
    assert!(bias["self_preference"][0]["metrics"]["excess"]["value"].is_number(), "{bias}");
    let others = world.expect(0, &agree("b", "--own x"));
    assert!(!others.contains("own answers"), "both are its own\n{others}");
}

#[test]
fn scores_that_are_there_are_compared_with_labels() {
    let world = world();
    world.expect(0, &crate::harness::score("s", ""));
    let rows = [
        json!({"query": "When was the mill built?", "label": "a",
               "response_a": "It was built in 1874. Two brothers built it.",
               "response_b": "It is not known."}),
        json!({"query": "When was the mill built?", "rating": 3,
               "answer": "The flood of 1903 broke the wheel."}),
        json!({"query": "When was the mill built?", "answer": "Never.", "rating": 0}),
    ];
    world.write("scored_labels.jsonl", rows.map(|row| format!("{row}\n")).concat());
    let args = "agree --labels scored_labels.jsonl --scored s/scored_responses.jsonl --out m.jsonl";
    let said = world.expect(3, args);
    assert!(said.contains("1 labelled rows without scores, the first is \"3\""), "{said}");
    assert!(!said.contains("warning"), "{said}");
    let summary = summary(&world, "m");
    assert_eq!(
        (&summary["pairwise"]["items"], &summary["rating"]["items"]),
        (&json!(1), &json!(1))
    );
    assert!(summary["settings"]["checkpoint"].is_string());
    let scored = world.read("s/scored_responses.jsonl");
    let mut rows: Vec<Value> =
        scored.lines().map(|row| serde_json::from_str(row).unwrap()).collect();
    rows[0]["details"].as_object_mut().unwrap().remove("faithfulness").unwrap();
    rows[1]["early_stop"] = json!({});
    let rows: String = rows.iter().map(|row| format!("{row}\n")).collect();
    world.write("mixed.jsonl", rows);
    let said = world.expect(3, &args.replace("s/scored_responses", "mixed"));
    assert!(said.contains("warning: not all answers were judged in the same dimensions"), "{said}");
    assert!(said.contains("1 labelled rows with an answer that --early-stop left"), "{said}");
    world.write("none.jsonl", "{\"query\": \"q\", \"answer\": \"a\", \"rating\": 1}\n");
    let refused = world.expect(1, &args.replace("scored_labels", "none"));
    assert!(refused.contains("no labelled answer was scored"), "{refused}");
    // The rows that can't be read are told, since they may be why.
    world.write("none.jsonl", "[{\"query\": \"q\"");
    let refused = world.expect(1, &args.replace("scored_labels", "none"));
    assert!(refused.contains("the array has no end"), "{refused}");
    let refused = world.expect(1, "agree --labels none.jsonl --recall-only --embedder bm25");
    assert!(refused.contains("the array has no end"), "{refused}");
    let refused = world.expect(1, "agree --compare none.jsonl s/scored_responses.jsonl");
    assert!(
        refused.contains("none.jsonl:1: is no") && refused.contains("no answer in common"),
        "{refused}"
    );
}

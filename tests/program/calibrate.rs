//! Verdicts corrected by labels, from outside.

use crate::harness::{World, score};
use serde_json::{Value, json};

fn world() -> World {
    let world = World::new();
    let row = |i: usize| {
        // Each on a document of its own.
        let flood = format!("A flood broke it in {}.", 1900 + i);
        let evidence = ["The mill stands on the river.", "It was built in 1874.", &flood];
        let label = ["supported", "not_supported", "partially_supported"][i * i % 3];
        let claim = format!("The mill was built in {}.", 1870 + i);
        format!("{}\n", json!({"claim": claim, "evidence": evidence, "label": label}))
    };
    let rating = |i: usize| {
        let answer = format!("It was built in {}.", 1870 + i);
        let query = format!("When was mill {i} built?");
        format!("{}\n", json!({"query": query, "answer": answer, "rating": 1 + i % 5}))
    };
    world.write("labels.jsonl", (0..8).map(row).chain((0..8).map(rating)).collect::<String>());
    world
}

const AGREE: &str = "agree --labels labels.jsonl --model model --embedder bm25 \
                     --max-reply-tokens 8 --resamples 20 --out agree.jsonl";
const FIT: &str = "calibrate --labels labels.jsonl --judged agree.jsonl --resamples 20 \
                   --rating-scale 1 5 --out c.json";

fn json_of(world: &World, name: &str) -> Value {
    serde_json::from_str(&world.read(name)).unwrap()
}

fn row(world: &World, name: &str) -> Value {
    serde_json::from_str(world.read(name).lines().next().unwrap()).unwrap()
}

#[test]
fn corrections_are_fitted_written_and_applied() {
    let world = world();
    world.expect(0, AGREE);
    let said = world.expect(0, FIT);
    for words in ["support: 8 support labels on 8 prompts, temperature", "helpfulness: 8 rating"] {
        assert!(said.contains(words), "no {words:?} in\n{said}");
    }
    let file = json_of(&world, "c.json");
    assert!(file["judge"]["checkpoint"].is_string());
    assert!(file["kinds"]["support"]["losses"]["log_loss_gain"]["low"].is_number(), "{file}");
    // Once more, the same bytes.
    let first = world.read("c.json");
    world.expect(0, FIT);
    assert_eq!(world.read("c.json"), first);

    world.expect(0, &score("plain", "--score-by expected"));
    world.expect(0, &score("fitted", "--calibration c.json"));
    let (plain, fitted) =
        (row(&world, "plain/scored_responses.jsonl"), row(&world, "fitted/scored_responses.jsonl"));
    let (was, is) = (&plain["details"]["helpfulness"], &fitted["details"]["helpfulness"]);
    assert_eq!(is["uncalibrated"]["expected"], was["expected"]);
    assert_eq!(is["uncalibrated"]["distribution"], was["distribution"]);
    assert_eq!(fitted["scores"]["helpfulness"], is["expected"]);
    assert_eq!((&is["analysis"], &is["score"]), (&was["analysis"], &was["score"]));
    let meta = json_of(&world, "fitted/scored_responses.jsonl.meta.json");
    assert_eq!(meta["settings"]["calibration"].as_str().unwrap().len(), 64);
    let refused = world.expect(1, &score("fitted", "--score-by expected"));
    assert!(refused.contains("calibration: was"), "{refused}");

    let measured = world.expect(0, &format!("{AGREE} --calibration c.json"));
    assert!(measured.contains("was fitted to these labels"), "{measured}");
    let summary = json_of(&world, "agree.summary.json");
    assert_eq!(summary["settings"]["calibration"], meta["settings"]["calibration"]);
    assert!(row(&world, "agree.jsonl")["details"].get("uncalibrated").is_none());
}

#[test]
fn corrections_of_another_judge_are_refused_by_name() {
    let world = world();
    world.expect(0, AGREE);
    world.expect(0, FIT);
    let mut file = json_of(&world, "c.json");
    file["judge"]["checkpoint"] = json!("0123");
    world.write("other.json", file.to_string());
    let refused = world.expect(1, &score("a", "--calibration other.json"));
    assert!(refused.contains("other.json was fitted to another judge"), "{refused}");
    assert!(refused.contains("checkpoint was 0123"), "{refused}");
    assert!(refused.contains("with --any-calibration"), "{refused}");
    let forced = world.expect(0, &score("a", "--calibration other.json --any-calibration"));
    assert!(forced.contains("warning: other.json"), "{forced}");
    let warned = world.expect(0, &score("b", "--calibration c.json --lang en"));
    assert!(warned.contains("other settings of: lang"), "{warned}");
}

#[test]
fn what_can_not_be_fitted_is_told() {
    let world = world();
    world.expect(0, AGREE);
    let refused = world.expect(1, &FIT.replace("agree.jsonl", "labels.jsonl"));
    assert!(refused.contains("labels.jsonl"), "{refused}");
    let outside = world.expect(3, &FIT.replace("1 5", "1 4"));
    assert!(outside.contains("the rating 5 is outside 1 to 4"), "{outside}");
    world.expect(0, &format!("{FIT} --method isotonic"));
    assert_eq!(json_of(&world, "c.json")["kinds"]["support"]["method"], "isotonic");
}

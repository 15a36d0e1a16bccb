//! The same bytes, whatever happens on the way.

use crate::harness::{World, calls, score};
use std::time::Duration;

const FILES: [&str; 4] = [
    "sampled_responses.jsonl",
    "chunk_info.jsonl",
    "scored_responses.jsonl",
    "preference_pairs.jsonl",
];

fn run(out: &str, more: &str) -> String {
    format!(
        "run --judge model --data sft.jsonl --out-dir {out} -n 3 --max-new-tokens 12 \
         --embedder bm25 --max-reply-tokens 8 --min-scored 2 {more}"
    )
}

#[test]
fn threads_and_batches_do_not_show() {
    let world = World::new();
    world.expect(0, &run("a", "--threads 1"));
    world.expect(0, &run("b", "--threads 2 --batch-tokens 100 --max-sequences 5"));
    for file in FILES {
        assert_eq!(world.read(&format!("a/{file}")), world.read(&format!("b/{file}")), "{file}");
    }
    let again = world.expect(0, &run("a", ""));
    assert_eq!(again.matches("nothing to do").count(), 2, "{again}");
}

#[test]
fn another_seed_gives_other_candidates_and_is_not_mixed_in() {
    let world = World::new();
    world.expect(0, &run("a", ""));
    let refused = world.expect(1, &run("a", "--seed 1"));
    assert!(refused.contains("seed"), "{refused}");
    world.expect(0, &run("b", "--seed 1"));
    assert_ne!(world.read("a/sampled_responses.jsonl"), world.read("b/sampled_responses.jsonl"));
}

#[test]
fn every_score_is_there_and_forced_ones_say_so() {
    let world = World::new();
    world.expect(0, &score("out", ""));
    let rows: Vec<serde_json::Value> = world
        .read("out/scored_responses.jsonl")
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(rows.len(), 6);
    for row in &rows {
        let names = ["helpfulness", "logicality", "faithfulness", "completeness"];
        let scores = names.map(|name| row["scores"][name].as_f64().unwrap());
        assert!(scores.iter().all(|s| (0.0..=10.0).contains(s)), "{row}");
        let total = row["scores"]["total"].as_f64().unwrap();
        assert!((scores.iter().sum::<f64>() - total).abs() < 1e-5, "{row}");
        // Random weights do not write ratings.
        assert_eq!(row["forced"], true, "{row}");
        let helpfulness = &row["details"]["helpfulness"];
        assert_eq!(helpfulness["forced"], true, "{helpfulness}");
        let distribution = helpfulness["distribution"].as_array().unwrap();
        let sum: f64 = distribution.iter().map(|p| p.as_f64().unwrap()).sum();
        assert_eq!(distribution.len(), 11);
        assert!((sum - 1.0).abs() < 1e-4, "{sum}");
    }
}

#[test]
fn a_program_killed_again_and_again_ends_with_the_same_file() {
    let world = World::new();
    let all = calls(&world.expect(0, &score("whole", "--threads 1")));
    let run = score("killed", "--threads 1");
    let resumed = world.kill_as_it_grows(&run, "killed/scored_responses.jsonl", all, 20);
    assert!(resumed > 0);
    let told = world.expect(0, &run);
    assert!(told.contains("replies were found in the journal of an earlier run"), "{told}");
    for file in ["scored_responses.jsonl", "scored_responses.chunk_info.jsonl"] {
        assert_eq!(world.read(&format!("killed/{file}")), world.read(&format!("whole/{file}")));
    }
    assert!(!world.path("killed/scored_responses.jsonl.journal").exists());
}

#[cfg(unix)]
#[test]
fn a_hangup_stops_it_only_if_hangups_are_not_ignored() {
    let world = World::new();
    let ends_with = |mut child: std::process::Child| {
        for _ in 0..20 {
            std::thread::sleep(Duration::from_millis(20));
            let hangup = ["-HUP", &child.id().to_string()].map(String::from);
            std::process::Command::new("kill").args(hangup).output().unwrap();
        }
        child.wait().unwrap().code()
    };
    assert_eq!(ends_with(world.start_without_hangups(&score("a", "--threads 1"))), Some(0));
    let ended = ends_with(world.start(&score("b", "--threads 1")));
    assert_eq!(ended == Some(0), hangups_are_ignored(), "{ended:?}");
}

/// Whether these tests themselves were started so that hangups do nothing, which programs inherit.
#[cfg(unix)]
fn hangups_are_ignored() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let ignored = ignored.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    ignored.is_some_and(|mask| mask & 1 == 1)
}

#[test]
fn kept_replies_give_the_same_bytes_without_the_model() {
    let world = World::new();
    world.expect(0, &score("plain", ""));
    let first = world.expect(0, &score("first", "--cache calls"));
    let again = world.expect(0, &score("again", "--cache calls"));
    assert!(first.contains("\n0 replies came from calls"), "{first}");
    assert!(again.contains(&format!("\n{} replies came from calls", calls(&first))), "{again}");
    assert_eq!(calls(&again), 0);
    for out in ["first", "again"] {
        for file in ["scored_responses.jsonl", "scored_responses.chunk_info.jsonl"] {
            let plain = world.read(&format!("plain/{file}"));
            assert_eq!(world.read(&format!("{out}/{file}")), plain, "{out}/{file}");
        }
    }
}

#[test]
fn scores_are_verified_by_making_some_once_more() {
    let world = World::new();
    world.expect(0, &score("out", ""));
    let verify = "verify out/scored_responses.jsonl --model model --data sft.jsonl --responses \
                  sampled_responses.jsonl --embedder bm25 --max-reply-tokens 8 --sample 3";
    let same = world.expect(0, verify);
    assert!(same.contains("3 of 3 records came out the same"), "{same}");
    world.write("pairs.jsonl", "{\"idx\": 3}\n");
    let told = world.expect(1, &verify.replace("out/scored_responses.jsonl", "pairs.jsonl"));
    assert!(told.contains("pairs.jsonl: was not written by score"), "{told}");
    let changed =
        world.read("out/scored_responses.jsonl").replace("\"attempts\":5", "\"attempts\":4");
    world.write("out/scored_responses.jsonl", changed);
    let found = world.expect(3, verify);
    assert!(found.contains("0 of 3 records came out the same"), "{found}");
    assert!(found.contains("details.helpfulness.attempts: was 4, is 5"), "{found}");
    let other = world.expect(3, &format!("{verify} --seed 1"));
    assert!(other.contains("seed: was \"0\", is now \"1\""), "{other}");
    // Scores from extracts that were made otherwise are verified from the same.
    let extracts =
        "chunk-info --model model --data sft.jsonl --out short.jsonl --max-reply-tokens 3";
    world.expect(0, extracts);
    world.expect(0, &score("given", "--chunk-info short.jsonl"));
    let verify = verify.replacen("out/", "given/", 1);
    let same = world.expect(0, &format!("{verify} --chunk-info short.jsonl"));
    assert!(same.contains("3 of 3 records came out the same"), "{same}");
    world.expect(3, &verify);
}

#[test]
fn expected_values_count_if_asked_for() {
    let world = World::new();
    world.expect(0, &score("out", "--score-by expected --passages 2 --passage-tokens 64"));
    for line in world.read("out/scored_responses.jsonl").lines() {
        let row: serde_json::Value = serde_json::from_str(line).unwrap();
        for name in ["helpfulness", "logicality", "faithfulness", "completeness"] {
            let expected = row["details"][name]["expected"].as_f64().unwrap();
            assert!((row["scores"][name].as_f64().unwrap() - expected).abs() < 1e-6, "{row}");
        }
        assert_ne!(row["scores"]["helpfulness"], row["details"]["helpfulness"]["score"]);
        let facts = row["details"]["faithfulness"]["details"].as_array().unwrap();
        assert!(facts.iter().all(|fact| fact["evidences"].as_array().unwrap().len() <= 2));
    }
    let refused = world.expect(1, &score("out", ""));
    assert!(refused.contains("score_by: was \"expected\", is now \"rating\""), "{refused}");
}

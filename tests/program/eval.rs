//! LongBench and LongBench-Chat, from outside.

use crate::harness::World;
use crate::server::Server;
use serde_json::{Value, json};
use std::time::{Duration, Instant};

const CONTEXT: &str = "The old mill stands on the river. It was built in 1874 by two brothers. ";

fn row(input: &str, answers: &[&str], length: usize, repeat: usize) -> Value {
    json!({"input": input, "context": CONTEXT.repeat(repeat), "answers": answers, "length": length,
           "dataset": "x", "language": "en", "all_classes": ["City", "Mill"], "_id": input})
}

/// Three sets, one of them without chat template.
fn world() -> World {
    let world = World::new();
    let rows = |rows: &[Value]| rows.iter().map(|row| format!("{row}\n")).collect::<String>();
    let qa = [
        row("When was the mill built?", &["1874", "in 1874"], 100, 4),
        row("Who built it?", &["two brothers"], 5000, 5),
        row("Where is it?", &["on the river"], 9000, 100),
    ];
    world.write("LongBench/data/qasper.jsonl", rows(&qa));
    world.write("LongBench/data/gov_report.jsonl", rows(&[row("", &["A mill of 1874."], 4100, 6)]));
    world.write("LongBench/data/trec.jsonl", rows(&[row("Question: x\nType:", &["City"], 10, 1)]));
    world
}

fn longbench(out: &str, more: &str) -> String {
    format!(
        "eval longbench --data LongBench --model model --protocol longbench --resamples 50 \
         --max-input-tokens 1000 --max-reply-tokens 8 --out-dir {out} {more}"
    )
}

fn result(world: &World, out: &str) -> Value {
    serde_json::from_str(&world.read(&format!("{out}/result.json"))).unwrap()
}

const FILES: [&str; 6] = [
    "predictions.jsonl",
    "predictions.jsonl.meta.json",
    "verdicts.jsonl",
    "verdicts.jsonl.meta.json",
    "result.json",
    "report.html",
];

fn files(world: &World, out: &str) -> [String; 6] {
    FILES.map(|file| world.read(&format!("{out}/{file}")))
}

#[test]
fn sets_are_predicted_judged_and_measured() {
    let world = world();
    let printed = world.expect(0, &longbench("a", "--judge model --threads 1"));
    for words in
        ["5 predictions, 3 of 21 sets", "qasper", "= few-shot", "= all sets", "no file for"]
    {
        assert!(printed.contains(words), "no {words:?} in\n{printed}");
    }
    let result = result(&world, "a");
    let qasper = &result["lines"][0];
    assert_eq!(
        (&qasper["n"], &qasper["judged"], &qasper["cut"]),
        (&json!(3), &json!(3), &json!(1))
    );
    assert_eq!(qasper["bins"][1]["n"], 1);
    assert!(qasper["scores"]["judge"]["low"].is_number());
    assert!(result["lines"][2]["scores"]["judge"].is_null());
    assert!(world.read("a/report.html").contains("qasper&#x2f;1"));
    let again = world.expect(0, &longbench("a", "--judge model"));
    assert_eq!(again.matches("nothing to do").count(), 2, "{again}");
    // Without a judge there are the suite's measures alone.
    world.expect(0, &longbench("b", "--batch-tokens 100 --max-sequences 2"));
    assert_eq!(world.read("a/predictions.jsonl"), world.read("b/predictions.jsonl"));
    let refused = world.expect(1, &longbench("b", "--seed 3"));
    assert!(refused.contains("seed: was \"0\", is now \"3\""), "{refused}");
}

#[test]
fn a_killed_run_goes_on_to_the_same_bytes() {
    let world = world();
    world.expect(0, &longbench("whole", "--judge model"));
    let args = longbench("killed", "--judge model");
    let mut kills = 0;
    // The first at once, so that there is one on any machine.
    for pause in (0..).map(|n| Duration::from_millis((5 << n) - 5)) {
        let mut child = world.start(&args);
        let started = Instant::now();
        while started.elapsed() < pause && child.try_wait().unwrap().is_none() {
            std::thread::sleep(Duration::from_millis(2));
        }
        if child.try_wait().unwrap().is_some() {
            break;
        }
        child.kill().unwrap();
        child.wait().unwrap();
        kills += 1;
    }
    world.expect(0, &args);
    assert!(kills > 0);
    assert!(files(&world, "killed") == files(&world, "whole"));
}

#[test]
fn models_behind_a_server_give_the_same_files() {
    let world = world();
    world.expect(0, &longbench("here", "--judge model"));
    let server = Server::start(&world, "");
    let url = server.url();
    let models = format!(
        "--policy-url {url} --policy-model model --judge-url {url} --judge-model model \
         --tokenizer model"
    );
    world.expect(0, &longbench("there", &models).replacen("--model model ", "", 1));
    for file in ["predictions.jsonl", "verdicts.jsonl"] {
        assert_eq!(world.read(&format!("there/{file}")), world.read(&format!("here/{file}")));
    }
}

#[test]
fn bad_rows_are_named_and_the_rest_is_measured() {
    let world = world();
    let good = world.read("LongBench/data/trec.jsonl");
    let bad = "{\"input\": \"q\", \"context\": \"c\", \"answers\": \"a\"}\n";
    world.write("LongBench/data/trec.jsonl", format!("{bad}{good}not JSON\n"));
    let printed = world.expect(3, &longbench("a", "--sets trec"));
    for words in ["trec.jsonl:1: field \"answers\" should be", "trec.jsonl:3: is not JSON"] {
        assert!(printed.contains(words), "no {words:?} in\n{printed}");
    }
    assert_eq!(result(&world, "a")["lines"][0]["n"], 1);
    let printed = world.expect(1, &longbench("b", "--sets trec,lcc"));
    assert!(printed.contains("no file for lcc"), "{printed}");
}

#[test]
fn longbench_chat_is_rated_beside_examples() {
    let world = world();
    let case = |idx: u32| {
        json!({"idx": idx, "prompt": format!("{}\n\nWho built it?", CONTEXT.repeat(30)),
               "query": "Who built it?", "answer": "Two brothers."})
    };
    let rated = |score: u32| json!({"answer": "Someone.", "score": score});
    let examples = [rated(2), rated(5), rated(8)];
    world.write("chat/test_cases.json", json!([case(1), case(2)]).to_string());
    world.write("chat/few_shots.json", json!([examples, examples]).to_string());
    let args = "eval longbench-chat --data chat --model model --judge model --max-reply-tokens 8 \
                --limit 1 --max-input-tokens 200 --resamples 20 --out-dir c";
    let printed = world.expect(0, args);
    assert!(printed.contains("1 predictions, 1 of 1 sets"), "{printed}");
    let line = &result(&world, "c")["lines"][0];
    assert_eq!(
        (&line["judged"], &line["cut"], &line["prompt"]),
        (&json!(1), &json!(1), &Value::Null)
    );
    let score = line["scores"]["judge"]["value"].as_f64().unwrap();
    assert!((10.0..=100.0).contains(&score), "{score}");
}

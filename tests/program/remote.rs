//! The judge behind a server: what comes out is what comes out at home.

use crate::harness::{PATIENCE, World, calls, score, score_at};
use crate::server::Server;
use serde_json::Value;
use std::io::{BufRead, BufReader};
use std::time::{Duration, Instant};

#[test]
fn a_judge_behind_a_server_gives_the_same_files() {
    let world = World::new();
    world.expect(0, &score("here", ""));
    let server = Server::start(&world, "");
    world.expect(0, &score_at(&server.url(), "there", "--concurrency 5"));
    for file in ["scored_responses.jsonl", "scored_responses.chunk_info.jsonl"] {
        assert_eq!(world.read(&format!("there/{file}")), world.read(&format!("here/{file}")));
    }
    let meta = |out: &str| -> Value {
        serde_json::from_str(&world.read(&format!("{out}/scored_responses.jsonl.meta.json")))
            .unwrap()
    };
    let (here, there) = (&meta("here")["settings"], &meta("there")["settings"]);
    for name in ["checkpoint", "tokenizer", "template", "model", "dtype", "seed"] {
        assert_eq!(here[name], there[name], "{name}");
    }
    assert_eq!(there["url"], format!("{}/v1", server.url()));
    assert_eq!(there["scoring"], "exact");

    // Elsewhere the same model goes on; another one does not.
    drop(server);
    let server = Server::start(&world, "");
    let again = world.expect(0, &score_at(&server.url(), "there", ""));
    assert!(again.contains("nothing to do"), "{again}");
    let told = world.expect(1, &score("there", ""));
    assert!(told.contains("scoring"), "{told}");
}

/// A small encoder.
const EMBEDDER: &str = r#"{
  "architectures": ["BertModel"], "model_type": "bert", "hidden_act": "gelu", "hidden_size": 32,
  "intermediate_size": 64, "layer_norm_eps": 1e-12, "max_position_embeddings": 64,
  "num_attention_heads": 2, "num_hidden_layers": 2, "position_embedding_type": "absolute",
  "type_vocab_size": 2, "vocab_size": 1008
}"#;

#[test]
fn passages_are_embedded_meanwhile_on_any_number_of_threads() {
    let world = World::new();
    models::dummy::write_encoder_checkpoint(&world.path("embedder"), EMBEDDER, 3).unwrap();
    std::fs::copy(world.path("model/tokenizer.json"), world.path("embedder/tokenizer.json"))
        .unwrap();
    let told = world.expect(0, "inspect embedder");
    assert!(told.contains("of 32 numbers") && told.contains("64 tokens"), "{told}");
    let by_embedder = |run: String| run.replace("bm25", "embedder --passage-tokens 16");
    world.expect(0, &by_embedder(score("here", "")));
    let server = Server::start(&world, "");
    for threads in [1, 2] {
        let out = format!("there{threads}");
        world.expect(
            0,
            &by_embedder(score_at(&server.url(), &out, &format!("--threads {threads}"))),
        );
        let [here, there] = ["here", &out].map(|out| format!("{out}/scored_responses.jsonl"));
        assert_eq!(world.read(&there), world.read(&here));
    }
}

#[test]
fn all_stages_run_with_both_models_behind_servers() {
    let world = World::new();
    let run = |models: &str, out: &str| {
        let told = format!(
            "run {models} --data sft.jsonl --out-dir {out} -n 3 --max-new-tokens 12 --embedder \
             bm25 --max-reply-tokens 8 --min-scored 2 --top-k 30 --temperature 0.9 --seed 4"
        );
        world.expect(0, &told);
    };
    run("--judge model", "here");
    let server = Server::start(&world, "--alias other");
    let url = server.url();
    let judge = format!("--judge-url {url} --judge-model model --tokenizer model");
    run(&format!("{judge} --policy-url {url}/v1 --policy-model other"), "there");
    run(&judge, "one");
    let files = [
        "sampled_responses.jsonl",
        "chunk_info.jsonl",
        "scored_responses.jsonl",
        "preference_pairs.jsonl",
    ];
    for (out, file) in ["there", "one"].into_iter().flat_map(|out| files.map(|file| (out, file))) {
        let here = world.read(&format!("here/{file}"));
        assert_eq!(world.read(&format!("{out}/{file}")), here, "{out}/{file}");
    }
}

#[test]
fn a_run_that_is_killed_goes_on_and_so_it_does_without_its_server() {
    let world = World::new();
    let all = calls(&world.expect(0, &score("whole", "")));
    let out = "killed/scored_responses.jsonl";
    let mut server = Server::start(&world, "");
    let run = score_at(&server.url(), "killed", "--concurrency 3");
    assert!(world.kill_as_it_grows(&run, out, all, 8) > 0);
    // The server dies, too.
    let run = score_at(&server.url(), "killed", "--concurrency 3 --request-attempts 2");
    let mut child = world.start_until(&run, out, world.journaled(out) + 1);
    drop(server);
    assert_eq!(child.wait().unwrap().code(), Some(1));
    server = Server::start(&world, "");
    let told = world.expect(0, &score_at(&server.url(), "killed", ""));
    assert!(told.contains("found in the journal"), "{told}");
    for file in ["scored_responses.jsonl", "scored_responses.chunk_info.jsonl"] {
        assert_eq!(world.read(&format!("killed/{file}")), world.read(&format!("whole/{file}")));
    }
    assert!(!world.path("killed/scored_responses.jsonl.journal").exists());
}

#[test]
fn a_full_server_is_waited_for() {
    let world = World::new();
    world.expect(0, &score("here", ""));
    let server = Server::start(&world, "--max-open 2 --max-sequences 2");
    world.expect(0, &score_at(&server.url(), "there", "--concurrency 6 --request-attempts 100"));
    let file = "scored_responses.jsonl";
    assert_eq!(world.read(&format!("there/{file}")), world.read(&format!("here/{file}")));
}

#[test]
fn the_key_comes_from_the_environment_and_stays_there() {
    let world = World::new();
    world.write("key.txt", "s3cret\n");
    let server = Server::start(&world, "--api-key-file key.txt");
    let run = score_at(&server.url(), "out", "-vv");
    let told = world.expect(1, &run);
    assert!(told.contains("LONGREWARD_JUDGE_API_KEY or OPENAI_API_KEY"), "{told}");
    let done = world.run_with(("LONGREWARD_JUDGE_API_KEY", "s3cret"), &run);
    let told = String::from_utf8_lossy(&[done.stdout, done.stderr].concat()).into_owned();
    assert_eq!(done.status.code(), Some(0), "{told}");
    assert!(!told.contains("s3cret"), "{told}");
    for file in std::fs::read_dir(world.path("out")).unwrap() {
        let text = std::fs::read_to_string(file.unwrap().path()).unwrap();
        assert!(!text.contains("s3cret"));
    }
}

#[test]
fn wrong_names_and_addresses_are_told() {
    let world = World::new();
    let server = Server::start(&world, "");
    let url = server.url();
    let told =
        world.expect(1, &score_at(&url, "a", "").replace("--judge-model model", "--judge-model x"));
    assert!(told.contains("it has: model"), "{told}");
    let told = world.expect(1, &score_at(&url, "a", "").replace("--tokenizer model", ""));
    assert!(told.contains("--tokenizer"), "{told}");
    let told = world.expect(1, &score_at("http://127.0.0.1:9", "a", "--request-attempts 2"));
    assert!(told.contains("http://127.0.0.1:9/v1/models"), "{told}");
    let told = world.expect(1, &score_at("http://me:s3cret@127.0.0.1:9", "a", ""));
    assert!(told.contains("environment") && !told.contains("s3cret"), "{told}");
    world.expect(2, &format!("{} --model model", score_at(&url, "a", "")));
}

#[cfg(unix)]
#[test]
fn reaching_a_server_can_be_interrupted() {
    let world = World::new();
    let mut child = world.start(&score_at("http://127.0.0.1:9", "out", "-v"));
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok);
    assert!(lines.any(|line| line.contains("attempt 1")), "it tries");
    let (start, id) = (Instant::now(), child.id().to_string());
    std::process::Command::new("kill").args(["-INT", &id]).status().unwrap();
    while child.try_wait().unwrap().is_none() {
        assert!(start.elapsed() < PATIENCE, "it does not stop");
        std::thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(child.wait().unwrap().code(), Some(130));
    // With pauses that double, all attempts would have taken longer.
    assert!(start.elapsed() < Duration::from_secs(10));
    assert!(!lines.any(|line| line.contains("error")), "it was asked to");
}

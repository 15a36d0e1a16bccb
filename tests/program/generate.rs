//! `generate`, `tokenize`, `inspect` and `bench`.

use crate::harness::{World, score};
use serde_json::Value;

fn json(text: &str) -> Value {
    let line = text.lines().find(|line| line.starts_with('{')).unwrap_or_else(|| panic!("{text}"));
    serde_json::from_str(line).unwrap()
}

#[test]
fn json_holds_tokens_logprobs_and_usage() {
    let world = World::new();
    world.write("prompt.txt", "The old mill");
    let args = "generate --model model --prompt-file prompt.txt --raw --max-new-tokens 5 -n 2 \
                --seed 4 --logprobs 3 --prompt-logprobs --json";
    let object = json(&world.expect(0, args));
    let prompt = object["prompt_tokens"].as_array().unwrap();
    let logprobs = object["prompt_logprobs"].as_array().unwrap();
    assert_eq!(prompt.len(), logprobs.len());
    assert!(logprobs[0].is_null() && logprobs[1..].iter().all(|p| p.as_f64().unwrap() < 0.0));
    let outputs = object["outputs"].as_array().unwrap();
    assert_eq!(outputs.len(), 2);
    assert_ne!(outputs[0]["tokens"], outputs[1]["tokens"]);
    for output in outputs {
        let tokens = output["tokens"].as_array().unwrap().len();
        assert_eq!(output["logprobs"].as_array().unwrap().len(), tokens);
        assert_eq!(output["logprobs"][0]["top"].as_array().unwrap().len(), 3);
    }
    assert_eq!(object["usage"]["prompt_tokens"], prompt.len());

    // Sample k of n is the single sample with its seed.
    let alone = "generate --model model --prompt-file prompt.txt --raw --max-new-tokens 5 \
                 --seed 5 --json";
    assert_eq!(json(&world.expect(0, alone))["outputs"][0]["tokens"], outputs[1]["tokens"]);
}

#[test]
fn a_stop_string_ends_the_text_before_it() {
    let world = World::new();
    let args = "generate --model model --prompt Mill --raw --max-new-tokens 30 --seed 3 --json";
    let whole = json(&world.expect(0, args))["outputs"][0].clone();
    let text = whole["text"].as_str().unwrap();
    let pairs = text.char_indices().skip(6).map(|(at, _)| &text[at..]);
    let stop = pairs.filter_map(|rest| Some(&rest[..rest.char_indices().nth(2)?.0]));
    let plain = |stop: &&str| stop.chars().all(|c| !c.is_whitespace() && c != '\u{FFFD}');
    let stop = stop.into_iter().find(plain).unwrap();
    let cut = json(&world.expect(0, &format!("{args} --stop={stop}")))["outputs"][0].clone();
    assert_eq!(cut["text"].as_str(), text.split(stop).next());
    assert_eq!(cut["finish_reason"], "stop");
    // The tokens are those that were sampled, to the one that completes the stop string.
    let tokens = |output: &Value| output["tokens"].as_array().unwrap().clone();
    let (cut, whole) = (tokens(&cut), tokens(&whole));
    assert!(cut.len() < whole.len() && cut == whole[..cut.len()]);
}

#[test]
fn tokens_of_a_file_are_listed() {
    let world = World::new();
    world.write("text.txt", "The mill 磨坊 <|eot_id|>");
    let object = json(&world.expect(0, "tokenize --model model --file text.txt --json"));
    let tokens = object["tokens"].as_array().unwrap();
    assert_eq!(object["count"], tokens.len());
    assert!(tokens.iter().all(|t| t.as_u64().unwrap() < 1000), "no control tokens: {object}");
}

#[test]
fn a_tokenizer_that_is_larger_than_the_model_is_refused_before_weights_are_read() {
    let world = World::new();
    let config = world.read("model/config.json").replace("1008", "900");
    world.write("model/config.json", config);
    for args in ["inspect model", &score("run", "")] {
        let told = world.expect(1, args);
        assert!(told.contains("model: token 10") && told.contains("are for 900 tokens"), "{told}");
    }
}

#[test]
fn inspect_and_bench_print_what_they_find() {
    let world = World::new();
    let told = world.expect(0, "inspect model");
    assert!(told.contains("12000 tokens") && told.contains("tokens that fit"), "{told}");
    let args = "bench --dummy smollm2-135m --dummy-factor 0.1 --prefill 64 --decode 2 \
                --context 32 --new-tokens 4 --json";
    let object = json(&world.expect(0, args));
    let found = object["measurements"].as_array().unwrap();
    assert_eq!((found.len(), &found[1]["tokens"]), (2, &8.into()));
    let shared = "bench --dummy smollm2-135m --dummy-factor 0.1 --prefill 64 --decode 3 \
                  --context 32 --new-tokens 4 --repeats 1 --shared";
    assert!(world.expect(0, shared).contains("decode shared"));
    // What does not fit is said, and the rest measured.
    let told = world.expect(3, &format!("{shared} --max-sequences 2"));
    assert!(told.contains("--max-sequences") && told.contains("prefill"), "{told}");
    let large = "bench --dummy smollm2-135m --dummy-factor 0.1 --prefill 64 --decode 64,1 \
                 --context 8000 --own 100 --shared --new-tokens 4 --repeats 1 --json";
    let object = json(&world.expect(0, large));
    assert_eq!(object["measurements"].as_array().map(Vec::len), Some(3), "all but 100 are common");
    let told = world.expect(3, &large.replace("--own 100 --shared ", ""));
    assert!(told.contains("take 32384 blocks") && told.contains("--kv-memory"), "{told}");
    let object = json(&told);
    let (found, missed) = (&object["measurements"], &object["missed"]);
    assert_eq!((found[1]["batch"].as_u64(), missed[0]["batch"].as_u64()), (Some(1), Some(64)));
}

#[test]
fn the_judges_workload_can_be_measured_with_random_weights() {
    let world = World::new();
    let args = "bench --dummy smollm2-135m --dummy-factor 0.1 --model model --data sft.jsonl \
                --responses sampled_responses.jsonl --embedder bm25 --max-reply-tokens 40 \
                --calls calls.jsonl --json";
    let object = json(&world.expect(0, args));
    assert_eq!((object["responses"].as_u64(), object["preemptions"].as_u64()), (Some(6), Some(0)));
    let calls = world.read("calls.jsonl");
    let calls: Vec<Value> = calls.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    // Replies are read at the first attempt, after a quarter of their budget.
    let sampled = calls.iter().filter(|call| call["new_tokens"] == 10).count();
    let scored = calls.iter().filter(|call| call["new_tokens"] == 0).count();
    assert_eq!(
        (sampled + scored, object["calls"].as_u64()),
        (calls.len(), Some(calls.len() as u64))
    );
    assert!(sampled > 6 * 4 && scored > 0, "{sampled} {scored}");
    let told = world.expect(1, &args.replace("0.1", "0.01"));
    assert!(told.contains("a larger --dummy-factor"), "{told}");
    let given = "bench --dummy smollm2-135m --dummy-factor 0.1 --requests calls.jsonl --json";
    let tokens = &json(&world.expect(0, given))["measurements"][0]["tokens"];
    assert_eq!(tokens.as_u64(), Some(10 * sampled as u64));
}

#[test]
fn accuracy_is_that_of_predictions_and_of_replies() {
    let world = World::new();
    world.write("text.txt", "The mill stood by the river, and the river rose. ".repeat(40));
    let args =
        "bench --model model --quality text.txt --quality-tokens 300 --quality-replies 2 --json";
    let object = json(&world.expect(0, &format!("{args} --dtype f32")));
    let (predictions, replies) = (&object["predictions"], &object["replies"]);
    assert_eq!(
        (predictions["predictions"].as_u64(), replies["count"].as_u64()),
        (Some(299), Some(2))
    );
    assert_eq!(
        (predictions["top1_agreement"].as_f64(), replies["equal"].as_u64()),
        (Some(1.0), Some(2))
    );
    assert_eq!(replies["mean_equal_tokens"].as_f64(), Some(64.0));
}

#[test]
fn a_dummy_file_can_be_measured() {
    let world = World::new();
    let told = world.expect(0, "dummy smollm2-135m --factor 0.1 --gguf dummy.gguf --type q4_1");
    assert!(told.contains("dummy.gguf: ") && told.contains("iB"), "{told}");
    let plan = world.expect(0, "inspect dummy.gguf");
    assert!(plan.contains("tokenizer       none") && plan.contains("tokens that fit"), "{plan}");
    let told = world.expect(1, "dummy smollm2-135m --gguf other.gguf --type q4_k");
    assert!(told.contains("q8_0 and q4_1 have 32"), "{told}");
    let args =
        "bench --model dummy.gguf --prefill 16 --decode 1 --context 16 --new-tokens 2 --json";
    let object = json(&world.expect(0, args));
    for m in object["measurements"].as_array().unwrap() {
        let share = m["limit_share"].as_f64().unwrap();
        assert!(share > 0.0 && share.is_finite(), "{m}");
    }
    assert!(object["peak"]["int8_gops"].as_f64().unwrap() > 0.0);
}

#[test]
fn what_is_missing_is_named() {
    let world = World::new();
    let told = world.expect(1, "generate --model nowhere --prompt x");
    assert!(told.contains("nowhere"), "{told}");
    world.expect(2, "generate --model model");
    std::fs::remove_file(world.path("model/model.safetensors")).unwrap();
    let told = world.expect(1, "generate --model model --prompt x");
    assert!(told.contains("model.safetensors"), "{told}");
}

#[cfg(unix)]
#[test]
fn a_reader_that_goes_away_ends_it_without_a_panic() {
    let world = World::new();
    world.write("long.txt", "one two three ".repeat(20_000));
    let program = env!("CARGO_BIN_EXE_longreward");
    let line = format!("{program} tokenize --model model --file long.txt | head -n 1");
    let output = std::process::Command::new("sh")
        .args(["-c", &line])
        .current_dir(world.path(""))
        .output()
        .unwrap();
    assert_eq!(output.stdout.iter().filter(|byte| **byte == b'\n').count(), 1);
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
}

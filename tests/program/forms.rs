//! Replies of a given form, from a model of random weights that would never write one by itself.

use crate::harness::World;
use crate::server::Server;
use serde_json::{Value, json};

const CHAT: &str = "/v1/chat/completions";

fn ask(seed: u64, fields: Value) -> Value {
    let mut request = json!({"messages": [{"role": "user", "content": "Rate the answer."}],
        "max_tokens": 200, "seed": seed, "temperature": 1.5});
    for (name, value) in fields.as_object().unwrap() {
        request[name] = value.clone();
    }
    request
}

fn content(answer: &Value) -> &str {
    answer["choices"][0]["message"]["content"].as_str().unwrap()
}

fn schema() -> Value {
    let schema = json!({
        "type": "object",
        "properties": {
            "verdict": {"enum": ["good", "bad"]},
            "score": {"type": "integer", "minimum": 0, "maximum": 10},
            "why": {"type": "string", "maxLength": 20},
            "parts": {"type": "array", "items": {"type": "boolean"}, "maxItems": 3},
        },
        "required": ["verdict", "score", "why", "parts"],
        "additionalProperties": false,
    });
    json!({"response_format": {"type": "json_schema",
        "json_schema": {"name": "verdict", "strict": true, "schema": schema}}})
}

#[track_caller]
fn keeps_to_the_schema(text: &str) {
    let value: Value = serde_json::from_str(text).unwrap_or_else(|e| panic!("{e}: {text}"));
    assert_eq!(value.as_object().unwrap().len(), 4, "{text}");
    assert!(["good", "bad"].contains(&value["verdict"].as_str().unwrap()), "{text}");
    assert!((0..=10).contains(&value["score"].as_i64().unwrap()), "{text}");
    assert!(value["why"].as_str().unwrap().chars().count() <= 20, "{text}");
    let parts = value["parts"].as_array().unwrap();
    assert!(parts.len() <= 3 && parts.iter().all(Value::is_boolean), "{text}");
}

#[test]
fn replies_parse_and_keep_to_their_schema_whatever_the_seed() {
    let world = World::new();
    let server = Server::start(&world, "");
    for seed in 0..30 {
        let answer = server.post(CHAT, &ask(seed, schema())).expect(200).json();
        assert_eq!(answer["choices"][0]["finish_reason"], "stop", "{answer}");
        keeps_to_the_schema(content(&answer));
    }
    let any = json!({"response_format": {"type": "json_object"}, "temperature": 0});
    let answer = server.post(CHAT, &ask(0, any)).expect(200).json();
    assert!(content(&answer).starts_with('{'), "{answer}");
}

#[test]
fn a_choice_is_one_of_the_list_in_every_spelling() {
    let world = World::new();
    let server = Server::start(&world, "");
    let choices = ["Fully supported", "No support", "7", "10", "磨坊"];
    let mut seen = std::collections::HashSet::new();
    for seed in 0..20 {
        for fields in [
            json!({"guided_choice": choices}),
            json!({"structured_outputs": {"choice": choices}, "n": 3}),
        ] {
            let answer = server.post(CHAT, &ask(seed, fields)).expect(200).json();
            for choice in answer["choices"].as_array().unwrap() {
                let text = choice["message"]["content"].as_str().unwrap();
                assert!(choices.contains(&text), "{text:?}");
                assert_eq!(choice["finish_reason"], "stop");
                seen.insert(text.to_owned());
            }
        }
    }
    assert!(seen.len() > 2, "{seen:?}");
    let plain = json!({"prompt": "Rating: ", "guided_regex": "\\[\\[[0-9]\\]\\]", "seed": 4});
    let answer = server.post("/v1/completions", &plain).expect(200).json();
    let text = answer["choices"][0]["text"].as_str().unwrap();
    assert!(text.starts_with("[[") && text.ends_with("]]") && text.len() == 5, "{text:?}");
}

#[test]
fn a_stream_of_a_form_joined_is_the_answer() {
    let world = World::new();
    let server = Server::start(&world, "");
    for seed in 0..5 {
        let whole = server.post(CHAT, &ask(seed, schema())).expect(200).json();
        let mut streaming = ask(seed, schema());
        streaming["stream"] = json!(true);
        let chunks = server.post(CHAT, &streaming).expect(200).chunks();
        let text: String = chunks
            .iter()
            .filter_map(|chunk| chunk["choices"][0]["delta"]["content"].as_str())
            .collect();
        assert_eq!(text, content(&whole));
    }
}

#[test]
fn other_requests_of_the_batch_do_not_notice() {
    let world = World::new();
    let server = Server::start(&world, "--max-sequences 16 --batch-tokens 100");
    let request = |k: u64| match k % 3 {
        0 => ask(k, schema()),
        1 => ask(k, json!({"guided_choice": ["yes", "no"]})),
        _ => ask(k, json!({"max_tokens": 20})),
    };
    let answer = |k: u64| content(&server.post(CHAT, &request(k)).expect(200).json()).to_owned();
    let alone: Vec<String> = (0..30).map(answer).collect();
    let together: Vec<String> = std::thread::scope(|scope| {
        let clients: Vec<_> = (0..30).map(|k| scope.spawn(move || answer(k))).collect();
        clients.into_iter().map(|client| client.join().unwrap()).collect()
    });
    assert_eq!(together, alone);
}

#[test]
fn log_probabilities_are_those_of_the_model_without_the_form() {
    let world = World::new();
    let server = Server::start(&world, "");
    let fields = json!({"guided_choice": ["7"], "logprobs": true, "top_logprobs": 20});
    let answer = server.post(CHAT, &ask(1, fields)).expect(200).json();
    let token = &answer["choices"][0]["logprobs"]["content"][0];
    // Being the only choice does not make it likely.
    assert!(token["logprob"].as_f64().unwrap() < -1.0, "{token}");
    let free = json!({"max_tokens": 1, "logprobs": true, "top_logprobs": 20});
    let free = server.post(CHAT, &ask(1, free)).expect(200).json();
    assert_eq!(free["choices"][0]["logprobs"]["content"][0]["top_logprobs"], token["top_logprobs"]);
}

#[test]
fn forms_that_can_not_be_kept_to_are_refused_with_the_reason() {
    let world = World::new();
    let server = Server::start(&world, "");
    let of = |schema: Value| json!({"response_format": {"type": "json_schema", "json_schema": {"schema": schema}}});
    for (fields, param) in [
        (of(json!({"type": "thing"})), "response_format"),
        (of(json!({"if": {"type": "string"}, "then": {"maxLength": 3}})), "response_format"),
        (of(json!({"type": "integer", "minimum": 2, "maximum": 1})), "response_format"),
        (of(json!({"$ref": "https://example.com/x.json"})), "response_format"),
        (json!({"response_format": {"type": "yaml"}}), "response_format"),
        (json!({"guided_choice": []}), "guided_choice"),
        (json!({"guided_choice": [""]}), "guided_choice"),
        (json!({"guided_regex": "("}), "guided_regex"),
        (json!({"guided_choice": ["a"], "ignore_eos": true}), "ignore_eos"),
        (json!({"guided_choice": "a"}), "guided_choice"),
    ] {
        let error = server.post(CHAT, &ask(0, fields.clone())).expect(400).json()["error"].clone();
        assert_eq!(error["param"], param, "{fields}: {error}");
        assert!(error["message"].as_str().unwrap().len() > param.len() + 5, "{error}");
    }
    server.post(CHAT, &ask(0, schema())).expect(200);
}

#[test]
fn a_function_that_is_named_is_called() {
    let world = World::new();
    let server = Server::start(&world, "");
    let parameters = json!({"type": "object", "properties": {"best": {"enum": ["a", "b"]}},
        "required": ["best"], "additionalProperties": false});
    let tool = json!({"type": "function", "function": {"name": "rank", "description": "Ranks.",
        "strict": true, "parameters": parameters}});
    let choice = json!({"type": "function", "function": {"name": "rank"}});
    let request = ask(4, json!({"tools": [tool], "tool_choice": choice, "n": 2}));
    let answer = server.post(CHAT, &request).expect(200).json();
    // Called by name, a reply ends as others do.
    let reasons = |answer: &Value| [0, 1].map(|k| answer["choices"][k]["finish_reason"].clone());
    assert_eq!(reasons(&answer), ["stop", "stop"]);
    let mut required = request.clone();
    required["tool_choice"] = json!("required");
    assert_eq!(reasons(&server.post(CHAT, &required).expect(200).json()), ["tool_calls"; 2]);
    required["stream"] = json!(true);
    let chunks = server.post(CHAT, &required).expect(200).chunks();
    let ends = chunks.iter().filter_map(|c| c["choices"][0]["finish_reason"].as_str());
    assert_eq!(ends.collect::<Vec<_>>(), ["tool_calls"; 2]);
    for choice in answer["choices"].as_array().unwrap() {
        let call = &choice["message"]["tool_calls"][0];
        assert!(choice["message"]["content"].is_null() && call["id"].is_string(), "{choice}");
        assert_eq!(
            (&call["type"], &call["function"]["name"]),
            (&json!("function"), &json!("rank"))
        );
        let arguments = call["function"]["arguments"].as_str().unwrap();
        let arguments: Value = serde_json::from_str(arguments).unwrap();
        assert!(["a", "b"].contains(&arguments["best"].as_str().unwrap()), "{arguments}");
    }
    let mut streamed = request;
    streamed["stream"] = json!(true);
    let chunks = server.post(CHAT, &streamed).expect(200).chunks();
    for (k, whole) in answer["choices"].as_array().unwrap().iter().enumerate() {
        let calls = || {
            let choices = chunks.iter().map(|chunk| &chunk["choices"][0]);
            let own = choices.filter(|choice| choice["index"] == k);
            own.filter_map(|choice| choice["delta"]["tool_calls"].get(0))
        };
        assert_eq!(calls().next().unwrap()["function"]["name"], "rank");
        let arguments: String =
            calls().filter_map(|call| call["function"]["arguments"].as_str()).collect();
        assert_eq!(arguments, whole["message"]["tool_calls"][0]["function"]["arguments"]);
    }
}

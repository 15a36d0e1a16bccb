//! The server: shapes, streams, many clients at once, and clients that misbehave.

use crate::harness::{PATIENCE, World, score};
use crate::server::{Server, read};
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::time::{Duration, Instant};

const CHAT: &str = "/v1/chat/completions";
const PLAIN: &str = "/v1/completions";

fn ask(text: &str) -> Value {
    json!({"messages": [{"role": "user", "content": text}], "max_tokens": 12, "seed": 3})
}

/// With some fields set.
fn with(mut request: Value, fields: Value) -> Value {
    for (name, value) in fields.as_object().unwrap() {
        request[name] = value.clone();
    }
    request
}

/// Without what differs from answer to answer.
fn lasting(mut answer: Value) -> Value {
    for name in ["id", "created", "usage"] {
        answer.as_object_mut().unwrap().remove(name);
    }
    answer
}

#[test]
fn a_chat_has_the_fields_that_clients_read() {
    let world = World::new();
    let server = Server::start(&world, "--alias gpt-4 --alias judge");
    let names: Vec<Value> = server.get("/v1/models").expect(200).json()["data"]
        .as_array()
        .unwrap()
        .iter()
        .map(|model| model["id"].clone())
        .collect();
    assert_eq!(names, ["model", "gpt-4", "judge"]);
    server.get("/v1/models/gpt-4").expect(200);
    server.get("/v1/models/gpt-5").expect(404);

    let request = with(
        ask("When was the mill built?"),
        json!({"model": "gpt-4", "n": 2, "logprobs": true, "top_logprobs": 20, "user": {"x": 1},
            "store": false, "parallel_tool_calls": true, "nobody_knows": [{"this": null}]}),
    );
    let answer = server.post(CHAT, &request).expect(200).json();
    assert_eq!((&answer["object"], &answer["model"]), (&"chat.completion".into(), &"gpt-4".into()));
    assert_eq!(answer["choices"].as_array().unwrap().len(), 2);
    for choice in answer["choices"].as_array().unwrap() {
        assert_eq!(choice["message"]["role"], "assistant");
        assert_eq!(choice["finish_reason"], "length");
        let tokens = choice["logprobs"]["content"].as_array().unwrap();
        assert_eq!(tokens.len(), 12);
        assert!(tokens.iter().all(|t| t["top_logprobs"].as_array().unwrap().len() == 20));
    }
    let usage = &answer["usage"];
    assert_eq!(usage["completion_tokens"], 24);
    let total = usage["prompt_tokens"].as_u64().unwrap() + 24;
    assert_eq!(usage["total_tokens"], total);

    // What a message spells is text, not the end of the turn.
    let spelled = server.post(CHAT, &ask("<|eot_id|>")).expect(200).json();
    let plain = server.post(CHAT, &ask("x")).expect(200).json();
    let tokens = |answer: &Value| answer["usage"]["prompt_tokens"].as_u64().unwrap();
    assert!(tokens(&spelled) > tokens(&plain) + 3);
}

#[test]
fn a_completion_says_what_generate_says() {
    let world = World::new();
    world.write("prompt.txt", "The old mill 磨坊");
    let told = world.expect(
        0,
        "generate --model model --prompt-file prompt.txt --raw --max-new-tokens 5 -n 2 --seed 4 \
         --logprobs 3 --prompt-logprobs --json",
    );
    let line = told.lines().find(|line| line.starts_with('{')).unwrap();
    let local: Value = serde_json::from_str(line).unwrap();
    let server = Server::start(&world, "");
    let tokens = &local["prompt_tokens"];
    let fields = json!({"max_tokens": 5, "n": 2, "seed": 4, "logprobs": 3, "echo": true});
    for prompt in [json!("The old mill 磨坊"), tokens.clone(), json!([tokens])] {
        let request = with(json!({"prompt": prompt}), fields.clone());
        let answer = server.post(PLAIN, &request).expect(200).json();
        for (choice, output) in
            answer["choices"].as_array().unwrap().iter().zip(local["outputs"].as_array().unwrap())
        {
            let text = format!("The old mill 磨坊{}", output["text"].as_str().unwrap());
            assert_eq!(choice["text"].as_str().unwrap().trim(), text.trim());
            let mut wanted = local["prompt_logprobs"].as_array().unwrap().clone();
            let more = output["logprobs"].as_array().unwrap().iter().map(|t| t["logprob"].clone());
            wanted.extend(more);
            let found = choice["logprobs"]["token_logprobs"].as_array().unwrap();
            // `generate` writes them with the digits of double precision.
            let single = |x: &Value| x.as_f64().map(|x| x as f32);
            assert!(found.iter().map(single).eq(wanted.iter().map(single)), "{found:?}");
            let tops = choice["logprobs"]["top_logprobs"].as_array().unwrap();
            assert!(tops[0].is_null());
            // The likeliest come first, and the token itself is among them in the same digits.
            for (top, own) in tops[1..].iter().zip(&found[1..]) {
                assert!(top.as_object().unwrap().values().any(|x| x == own), "{own}: {top}");
            }
        }
    }
}

#[test]
fn a_log_likelihood_is_asked_for_in_batches_of_tokens() {
    let world = World::new();
    let server = Server::start(&world, "");
    let prompts = json!([[1000, 5, 6, 7], [1000, 9, 10], [1000, 5, 6, 8, 11]]);
    let ask = |max_tokens: u64| {
        let request = json!({"prompt": prompts, "max_tokens": max_tokens, "temperature": 0,
            "logprobs": 1, "seed": 1234, "echo": true, "model": "model"});
        server.post(PLAIN, &request).expect(200).json()["choices"].as_array().unwrap().clone()
    };
    let (none, one) = (ask(0), ask(1));
    for (k, len) in [4, 3, 5].into_iter().enumerate() {
        let read =
            |choice: &Value| choice["logprobs"]["token_logprobs"].as_array().unwrap().clone();
        assert_eq!((none[k]["index"].as_u64(), read(&none[k]).len()), (Some(k as u64), len));
        assert_eq!(read(&one[k]).len(), len + 1);
        assert_eq!(read(&none[k]), read(&one[k])[..len]);
    }
    // Where the model would end, that is told as a token too, so that nothing shifts.
    let end = json!({"prompt": [1000, 5, 6], "max_tokens": 1, "temperature": 0, "logprobs": 1,
        "echo": true, "logit_bias": {"1001": 100}});
    let answer = server.post(PLAIN, &end).expect(200).json();
    let choice = &answer["choices"][0];
    assert_eq!(choice["finish_reason"], "stop");
    assert_eq!(choice["logprobs"]["tokens"].as_array().unwrap().len(), 4);
    assert_eq!(answer["usage"]["completion_tokens"], 0);
}

#[test]
fn a_stream_joined_is_the_answer() {
    let world = World::new();
    let server = Server::start(&world, "");
    let fields = json!({"n": 2, "max_tokens": 40, "seed": 11, "stream_options": null});
    let streaming = json!({"stream": true, "stream_options": {"include_usage": true}});
    let whole = server.post(CHAT, &with(ask("Mill?"), fields.clone())).expect(200).json();
    // A stop string from the middle of the reply, so that it must be held back.
    let text = whole["choices"][0]["message"]["content"].as_str().unwrap();
    let stop: String = text.chars().skip(20).take(3).collect();
    for stop in [json!(null), json!([stop, "never found"])] {
        let chat =
            with(ask("Mill?"), with(fields.clone(), json!({"stop": stop, "logprobs": true})));
        let whole = server.post(CHAT, &chat).expect(200).json();
        let chunks = server.post(CHAT, &with(chat, streaming.clone())).expect(200).chunks();
        let usage = chunks.last().unwrap()["usage"]["completion_tokens"].clone();
        assert_eq!(usage, whole["usage"]["completion_tokens"]);
        let has_null = |chunk: &Value| chunk.get("usage").is_some_and(Value::is_null);
        assert!(chunks[..chunks.len() - 1].iter().all(has_null));
        for k in 0..2 {
            let of_choice = || {
                let choices = chunks.iter().filter_map(|chunk| chunk["choices"].get(0));
                choices.filter(move |choice| choice["index"] == k)
            };
            let text: String =
                of_choice().filter_map(|choice| choice["delta"]["content"].as_str()).collect();
            let choice = &whole["choices"][k as usize];
            assert_eq!(text, choice["message"]["content"]);
            let end = of_choice().next_back().unwrap();
            assert_eq!(end["finish_reason"], choice["finish_reason"]);
            let tokens: Vec<Value> = of_choice()
                .filter_map(|choice| choice["logprobs"]["content"].as_array())
                .flatten()
                .cloned()
                .collect();
            assert_eq!(Value::from(tokens), choice["logprobs"]["content"]);
        }

        let plain =
            json!({"prompt": ["The mill", "磨坊"], "echo": true, "logprobs": 2, "stop": stop});
        let plain = with(plain, fields.clone());
        let whole = server.post(PLAIN, &plain).expect(200).json();
        let chunks = server.post(PLAIN, &with(plain, streaming.clone())).expect(200).chunks();
        assert!(chunks[..chunks.len() - 1].iter().all(has_null));
        for choice in whole["choices"].as_array().unwrap() {
            let parts: Vec<&Value> = chunks
                .iter()
                .flat_map(|chunk| chunk["choices"].as_array().unwrap())
                .filter(|part| part["index"] == choice["index"])
                .collect();
            let text: String = parts.iter().filter_map(|part| part["text"].as_str()).collect();
            assert_eq!(text, choice["text"]);
            for list in ["tokens", "token_logprobs", "text_offset", "top_logprobs"] {
                let joined: Vec<Value> = parts
                    .iter()
                    .filter_map(|part| part["logprobs"][list].as_array())
                    .flatten()
                    .cloned()
                    .collect();
                assert_eq!(Value::from(joined), choice["logprobs"][list], "{list}");
            }
        }
    }
}

#[test]
fn what_else_is_asked_at_the_same_time_does_not_show() {
    let world = World::new();
    let server = Server::start(&world, "--max-sequences 16 --batch-tokens 100");
    let request = |k: usize| {
        let text = format!("{} Question {k}?", "The mill. ".repeat(k % 7));
        with(
            ask(&text),
            json!({"seed": k, "stream": k.is_multiple_of(3), "max_tokens": 5 + k % 11}),
        )
    };
    let answer = |k: usize| {
        let answer = server.post(CHAT, &request(k)).expect(200);
        if k.is_multiple_of(3) {
            let chunks = answer.chunks().into_iter();
            let text = |c: Value| c["choices"][0]["delta"]["content"].as_str().map(str::to_owned);
            json!(chunks.filter_map(text).collect::<String>())
        } else {
            lasting(answer.json())
        }
    };
    let alone: Vec<Value> = (0..64).map(answer).collect();
    let together: Vec<Value> = std::thread::scope(|scope| {
        let clients: Vec<_> = (0..64).map(|k| scope.spawn(move || answer(k))).collect();
        clients.into_iter().map(|client| client.join().unwrap()).collect()
    });
    assert_eq!(together, alone);
    // Without a seed two answers differ, at temperature 0 they do not.
    let fresh = json!({"prompt": ["The mill", "The mill"], "max_tokens": 20});
    let texts = |request: &Value| {
        let answer = server.post(PLAIN, request).expect(200).json();
        [0, 1].map(|k| answer["choices"][k]["text"].clone())
    };
    let [a, b] = texts(&fresh);
    assert_ne!(a, b);
    let [a, b] = texts(&with(fresh, json!({"temperature": 0})));
    assert_eq!(a, b);
}

#[test]
fn a_full_house_says_when_to_come_again() {
    let world = World::new();
    let server = Server::start(&world, "--max-open 2");
    let long =
        with(ask("Tell me all."), json!({"max_tokens": 11000, "ignore_eos": true, "stream": true}));
    let streams = [(); 2].map(|()| server.begin(CHAT, &long.to_string()));
    server.wait_for("open_samples", |open| open == 2);
    let refused = server.post(CHAT, &ask("And me?")).expect(429);
    assert!(refused.head.contains("retry-after: "), "{refused:?}");
    assert_eq!(refused.json()["error"]["type"], "rate_limit_error");
    assert!(refused.body.contains("rate limit"), "{refused:?}");
    // More than there ever is room for is another matter.
    server.post(CHAT, &with(ask("x"), json!({"n": 3}))).expect(400);
    // Prompts are counted before they are looked at.
    let many = json!({"prompt": [[1], [2], [999_999]]});
    let error = server.post(PLAIN, &many).expect(400).json()["error"].clone();
    assert_eq!(error["param"], "prompt");
    assert!(error["message"].as_str().unwrap().contains("3 prompts with n = 1"), "{error}");
    // Clients that go make room.
    drop(streams);
    server.wait_for("open_samples", |open| open == 0);
    server.wait_for("cancelled_total", |cancelled| cancelled == 2);
    server.wait_for("kv_blocks_used", |used| used == 0);
    server.post(CHAT, &ask("And me?")).expect(200);
}

#[test]
fn what_can_not_be_served_is_refused_by_field() {
    let world = World::new();
    let server = Server::start(&world, "--max-body 100000");
    let refused = |path: &str, request: Value, status: u16, field: &str| {
        let error = server.post(path, &request).expect(status).json()["error"].clone();
        assert!(!error["message"].as_str().unwrap().is_empty());
        let found = error["param"].as_str().unwrap_or_default();
        assert_eq!(found, field, "{request}: {error}");
        error
    };
    for (fields, field) in [
        (json!({"messages": "hello"}), "messages"),
        (json!({"messages": []}), "messages"),
        (json!({"messages": [{"role": "user", "content": 5}]}), "messages[0].content"),
        (json!({"messages": [{"role": "robot", "content": "x"}]}), "messages[0].role"),
        (json!({"temperature": "hot"}), "temperature"),
        (json!({"temperature": 3}), "temperature"),
        (json!({"top_p": 0}), "top_p"),
        (json!({"repetition_penalty": 1e-38}), "repetition_penalty"),
        (json!({"n": 0}), "n"),
        (json!({"n": 1.5}), "n"),
        (json!({"max_tokens": -1}), "max_tokens"),
        (json!({"stop": [1]}), "stop"),
        (json!({"top_logprobs": 2}), "top_logprobs"),
        (json!({"logprobs": true, "top_logprobs": 21}), "top_logprobs"),
        (json!({"logit_bias": {"x": 1}}), "logit_bias.x"),
        (json!({"logit_bias": {"5": 101}}), "logit_bias.5"),
        (json!({"stream_options": {"include_usage": true}}), "stream_options"),
        (json!({"tools": [{"type": "function"}]}), "tools[0]"),
        (json!({"tools": [{"type": "function", "function": {"name": "f"}}]}), "tools"),
        (json!({"functions": [{"name": "f"}], "function_call": "auto"}), "functions"),
        (json!({"function_call": {"name": "f"}}), "function_call"),
        (json!({"guided_grammar": "root ::= \"a\""}), "guided_grammar"),
        (json!({"structured_outputs": {"grammar": "g"}}), "structured_outputs.grammar"),
        (json!({"structured_outputs": {"json_object": true}}), "structured_outputs.json_object"),
        (json!({"stop_token_ids": [5]}), "stop_token_ids"),
        (json!({"min_tokens": 5}), "min_tokens"),
    ] {
        refused(CHAT, with(ask("x"), fields), 400, field);
    }
    // What these ask for by default is nothing.
    let nothing = json!({"functions": [], "function_call": "none", "guided_grammar": null,
        "structured_outputs": {"grammar": null, "disable_fallback": false},
        "stop_token_ids": [], "min_tokens": 0});
    server.post(CHAT, &with(ask("x"), nothing)).expect(200);
    let echoed = json!({"prompt": vec![5; 4000], "n": 64, "echo": true, "logprobs": 20});
    let error = refused(PLAIN, with(echoed, json!({"max_tokens": 1})), 400, "echo");
    assert!(error["message"].as_str().unwrap().contains("5376000 tokens"), "{error}");
    let error = refused(CHAT, with(ask("x"), json!({"model": "gpt-5"})), 404, "model");
    assert_eq!(error["code"], "model_not_found");
    refused(PLAIN, json!({"prompt": [1, 1008]}), 400, "prompt");
    refused(PLAIN, json!({"prompt": []}), 400, "prompt");
    refused(PLAIN, json!({"max_tokens": 3}), 400, "prompt");
    refused("/v1/embeddings", json!({"input": "x"}), 501, "");
    refused("/v1/embeddings", json!({"input": "x", "dimensions": 3}), 400, "dimensions");
    for request in [ask(&"word ".repeat(15_000)), with(ask("x"), json!({"max_tokens": 12000}))] {
        let error = refused(CHAT, request, 400, "");
        let message = error["message"].as_str().unwrap();
        assert!(message.contains("maximum context length") && message.contains("Please reduce"));
        assert_eq!(error["code"], "context_length_exceeded");
    }
    server.get("/v2").expect(404).json();
    server.get(CHAT).expect(405).json();
    for body in ["", "{", "[]", "{\"messages\": [}", "null", "\u{1F4A5}"] {
        read(server.begin(CHAT, body)).expect(400).json();
    }
    let huge = read(server.begin(CHAT, &"x".repeat(500_000))).expect(413);
    assert_eq!(huge.json()["error"]["type"], "invalid_request_error");
    server.post(CHAT, &ask("Still there?")).expect(200);
}

#[test]
fn slow_clients_are_dropped_and_harm_nobody() {
    let world = World::new();
    let server = Server::start(&world, "--client-timeout 1");
    let mut idle: Vec<_> = (0..50).map(|_| server.connect()).collect();
    for stream in &mut idle {
        stream.write_all(b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\n").unwrap();
    }
    let mut slow = server.connect();
    let head = "POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\
                Content-Type: application/json\r\nContent-Length: 1000\r\n\r\n{";
    slow.write_all(head.as_bytes()).unwrap();
    server.post(CHAT, &ask("And me?")).expect(200);
    read(slow).expect(408).json();
    for stream in &mut idle {
        let mut rest = Vec::new();
        // It ends, with or without a word.
        let _ = stream.read_to_end(&mut rest);
    }
    server.post(CHAT, &ask("And me?")).expect(200);
}

#[cfg(unix)]
#[test]
fn a_client_that_does_not_read_is_dropped() {
    let world = World::new();
    let mut server = Server::start(&world, "--client-timeout 1");
    let fields = json!({"max_tokens": 3000, "ignore_eos": true, "stream": true, "logprobs": true,
        "top_logprobs": 20});
    let deaf = server.begin(CHAT, &with(ask("Tell me all."), fields).to_string());
    server.wait_for("completion_tokens_total", |tokens| tokens > 2000);
    server.post(CHAT, &ask("And me?")).expect(200);
    // With the deaf one still there this would take as long as the deadline.
    server.terminate();
    assert_eq!(server.ended().code(), Some(0));
    drop(deaf);
}

#[test]
fn a_deadline_ends_a_request_and_frees_its_memory() {
    let world = World::new();
    let server = Server::start(&world, "--deadline 1 --max-sequences 1");
    let long = with(ask("Tell me all."), json!({"max_tokens": 11000, "ignore_eos": true, "n": 8}));
    let start = Instant::now();
    let answer = server.post(CHAT, &long).expect(504);
    assert!(start.elapsed() < Duration::from_secs(20));
    assert_eq!(answer.json()["error"]["code"], "timeout");
    let streamed = server.post(CHAT, &with(long, json!({"stream": true}))).expect(200);
    assert!(streamed.body.contains("timeout_error"), "the stream tells it");
    server.wait_for("kv_blocks_used", |used| used == 0);
}

#[cfg(unix)]
#[test]
fn a_polite_kill_lets_running_requests_end() {
    let world = World::new();
    let mut server = Server::start(&world, "");
    let request = |k: u64| {
        with(ask("Tell me all."), json!({"max_tokens": 1500, "ignore_eos": true, "seed": k}))
    };
    let whole = server.post(CHAT, &request(1)).expect(200).json();
    let mut clients: Vec<_> =
        (0..20).map(|k| server.begin(CHAT, &request(k).to_string())).collect();
    server.wait_for("open_samples", |open| open == 20);
    server.terminate();
    while server.listens() {
        std::thread::sleep(Duration::from_millis(5));
    }
    let answers: Vec<Value> = clients.drain(..).map(|c| read(c).expect(200).json()).collect();
    assert_eq!(lasting(answers[1].clone()), lasting(whole));
    assert_eq!(server.ended().code(), Some(0));

    // The second one does not wait.
    let mut server = Server::start(&world, "");
    let _stream = server.begin(
        CHAT,
        &with(request(1), json!({"max_tokens": 11000, "ignore_eos": true})).to_string(),
    );
    server.wait_for("open_samples", |open| open == 1);
    server.terminate();
    while server.listens() {
        std::thread::sleep(Duration::from_millis(5));
    }
    server.terminate();
    assert_eq!(server.ended().code(), Some(130));
}

#[test]
fn other_addresses_need_a_key() {
    let world = World::new();
    let told = world.expect(1, "serve --model model --host 0.0.0.0 --port 0");
    assert!(told.contains("--api-key-file") && told.contains("--allow-open"), "{told}");
    world.write("key.txt", "secret\n");
    let server = Server::start(&world, "--host 127.0.0.1 --api-key-file key.txt");
    server.get("/health").expect(200);
    for headers in ["", "Authorization: Bearer wrong\r\n", "Authorization: Basic secret\r\n"] {
        let answer = server.get_with("/v1/models", headers).expect(401);
        assert_eq!(answer.json()["error"]["code"], "invalid_api_key");
    }
    server.get_with("/v1/models", "Authorization: Bearer secret\r\n").expect(200);
    server.post(CHAT, &ask("x")).expect(401);
}

#[test]
fn pages_of_others_reach_nothing_without_a_key() {
    let world = World::new();
    let server = Server::start(&world, "");
    let evil = "Origin: https://evil.example\r\n";
    server.get_with("/v1/models", evil).expect(403).json();
    server.get_with("/health", evil).expect(200);
    server.get_with("/v1/models", "Origin: http://localhost:3000\r\n").expect(200);
    let send = |server: &Server, head: &str| {
        let mut stream = server.connect();
        stream.write_all(format!("{head}\r\nConnection: close\r\n\r\n").as_bytes()).unwrap();
        read(stream)
    };
    // A name of somebody else that leads to this machine.
    let rebound = "GET /v1/models HTTP/1.1\r\nHost: evil.example:8000";
    let told = send(&server, rebound).expect(403).json()["error"]["message"].to_string();
    assert!(told.contains("evil.example:8000") && told.contains("--allow-open"), "{told}");
    // What a page can send without asking says nothing of JSON.
    let bare = "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0";
    send(&server, bare).expect(415);
    let server = Server::start(&world, "--allow-open");
    server.get_with("/v1/models", evil).expect(200);
    send(&server, rebound).expect(200);
}

#[cfg(unix)]
#[test]
fn a_hangup_does_not_end_what_was_started_to_outlive_it() {
    let world = World::new();
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let serve = format!("serve --model model --port {port}");
    let mut child = world.start_without_hangups(&serve);
    let start = Instant::now();
    while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
        assert!(start.elapsed() < PATIENCE && child.try_wait().unwrap().is_none());
        std::thread::sleep(Duration::from_millis(10));
    }
    // It listens before it is ready; the answer says that it is.
    let mut stream = std::net::TcpStream::connect(("127.0.0.1", port)).unwrap();
    let head = "GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    stream.write_all(head.as_bytes()).unwrap();
    read(stream).expect(200);
    let signal = |name: &str| {
        let id = child.id().to_string();
        std::process::Command::new("kill").args([name, &id]).status().unwrap();
    };
    for _ in 0..5 {
        signal("-HUP");
        std::thread::sleep(Duration::from_millis(50));
    }
    assert!(std::net::TcpStream::connect(("127.0.0.1", port)).is_ok(), "it has ended");
    signal("-TERM");
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[test]
fn a_score_is_that_of_the_stage() {
    let world = World::new();
    world.expect(0, &score("out", ""));
    let rows = world.read("out/scored_responses.jsonl");
    let prompts: Vec<Value> =
        world.read("sft.jsonl").lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let server = Server::start(&world, "--max-reply-tokens 8");
    for (row, k) in rows.lines().zip([0, 1, 2]) {
        let row: Value = serde_json::from_str(row).unwrap();
        let request = json!({"context": prompts[0]["context"], "query": row["query"],
            "answer": row["answer"], "idx": 3, "k": k});
        let scored = server.post("/longreward/score", &request).expect(200).json();
        assert_eq!((&scored["scores"], &scored["details"]), (&row["scores"], &row["details"]));
    }
    let empty = json!({"context": "c", "query": "q", "answer": " "});
    server.post("/longreward/score", &empty).expect(400);
    let long = json!({"context": "c", "query": "q", "answer": "word ".repeat(15_000)});
    let told = server.post("/longreward/score", &long).expect(400).json()["error"].to_string();
    assert!(told.contains("the prompt has") && told.contains("longer context"), "{told}");
}

#[test]
fn options_of_score_are_options_of_a_request() {
    let world = World::new();
    let soft = |kind: &str| format!(r#""{kind}":{{"method":"temperature","temperature":3.0}}"#);
    let kinds = format!("{},{}", soft("support"), soft("helpfulness"));
    let fitted = format!(r#"{{"judge":{{"model":"m"}},"labels_hash":"x","kinds":{{{kinds}}}}}"#);
    world.write("calibration.json", &fitted);
    let calibration = "--calibration calibration.json --any-calibration";
    let refused = world.expect(1, "serve --model model --port 0 --calibration calibration.json");
    assert!(refused.contains("was fitted to another judge"), "{refused}");
    let server = Server::start(&world, &format!("--max-reply-tokens 8 --passages 2 {calibration}"));
    let cases = [
        ("--votes 3 --vote-by mean", json!({"votes": 3, "vote_by": "mean", "score_by": "rating"})),
        ("--preset fast --passage-tokens 20", json!({"preset": "fast", "passage_tokens": 20})),
        ("--whole-document", json!({"whole_document": true})),
        (
            "--passage-overlap 8 --passage-cut sentences --passage-tokens 24",
            json!({"passage_overlap": 8, "passage_cut": "sentences", "passage_tokens": 24}),
        ),
    ];
    let prompts: Vec<Value> =
        world.read("sft.jsonl").lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    for (i, (flags, options)) in cases.iter().enumerate() {
        world.expect(0, &score(&format!("out{i}"), &format!("--passages 2 {calibration} {flags}")));
        let rows = world.read(&format!("out{i}/scored_responses.jsonl"));
        let line = rows.lines().next().unwrap();
        let row: Value = serde_json::from_str(line).unwrap();
        let request = json!({"context": prompts[0]["context"], "query": row["query"],
            "answer": row["answer"], "idx": 3, "k": 0, "options": options});
        let scored = server.post("/longreward/score", &request).expect(200);
        assert_eq!(scored.body.trim_end(), line, "{flags}");
    }
    let refused = |options: Value| {
        let request = json!({"context": "c", "query": "q", "answer": "a", "options": options});
        server.post("/longreward/score", &request).expect(400).json()["error"].to_string()
    };
    let misplaced = json!({"context": "c", "query": "q", "answer": "a", "votes": 3});
    let error = server.post("/longreward/score", &misplaced).expect(400);
    assert!(error.body.contains("votes"), "{error:?}");
    assert!(refused(json!({"vote": 3})).contains("vote"));
    assert!(refused(json!({"votes": "3"})).contains("options.votes"));
    let both = refused(json!({"votes": 3, "verdict_first": true}));
    assert!(both.contains("a verdict without analysis is not sampled"), "{both}");
    let both = refused(json!({"votes": 3, "vote_by": "median"}));
    assert!(both.contains("--vote-by median and --calibration"), "{both}");
    assert!(refused(json!({"embedder": "minilm"})).contains("start the server with --embedder"));
}

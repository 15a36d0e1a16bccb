//! Against a server that does what a script says.

use super::call::prompts_of_an_answer;
use super::line::Patience;
use super::{Key, Remote, RemoteError, Settings, Tokens};
use crate::chat::{
    Call, CallId, Chat, ChatError, Estimate, Finish, Message, Reply, Sampling, Task,
};
use crate::tokenizer::{Tokenizer, testing};
use serde_json::{Value, json};
use std::collections::{BTreeMap, HashSet};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// What a script's server does with a request.
enum Act {
    Answer(u16, &'static str, String),
    /// Hangs up: before a word, or within the answer.
    HangUp,
    HangUpWithin(String),
    /// Says nothing for so long.
    Sleep(Duration),
}

/// A request as it came.
#[derive(Clone)]
struct Asked {
    path: String,
    head: String,
    body: Value,
}

/// Opens it, whatever happens meanwhile.
fn reach(settings: Settings, tokens: Option<Tokens>) -> Result<Remote, RemoteError> {
    Remote::open(settings, tokens, &AtomicBool::new(false))
}

/// A server; it ends with the process.
struct Scripted {
    address: SocketAddr,
    asked: Arc<Mutex<Vec<Asked>>>,
}

impl Scripted {
    fn start(script: impl Fn(&Asked) -> Act + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (script, seen) = (Arc::new(script), asked.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (script, seen) = (script.clone(), seen.clone());
                std::thread::spawn(move || serve(stream.unwrap(), &*script, &seen));
            }
        });
        Self { address, asked }
    }

    fn settings(&self) -> Settings {
        Settings {
            key_variables: &["A_KEY", "ANOTHER_KEY"],
            concurrency: 4,
            timeout: Duration::from_secs(5),
            patience: Patience {
                attempts: 6,
                first: Duration::from_millis(2),
                longest: Duration::from_millis(20),
                longest_asked: Duration::from_secs(5),
            },
            ..Settings::of(format!("http://{}", self.address), "m")
        }
    }

    fn open(&self) -> Remote {
        reach(self.settings(), None).unwrap()
    }

    fn count(&self, path: &str) -> usize {
        self.asked.lock().unwrap().iter().filter(|asked| asked.path == path).count()
    }
}

fn serve(stream: TcpStream, script: &dyn Fn(&Asked) -> Act, seen: &Mutex<Vec<Asked>>) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut stream = stream;
    while let Some(asked) = read(&mut reader) {
        seen.lock().unwrap().push(asked.clone());
        match script(&asked) {
            Act::Answer(status, headers, body) => {
                let head = format!(
                    "HTTP/1.1 {status} X\r\nContent-Length: {}\r\n{headers}\r\n",
                    body.len()
                );
                if stream.write_all((head + &body).as_bytes()).is_err() {
                    return;
                }
            }
            Act::HangUp => return,
            Act::HangUpWithin(body) => {
                let head = format!("HTTP/1.1 200 X\r\nContent-Length: {}\r\n\r\n", body.len());
                let _ = stream.write_all((head + &body[..body.len() / 2]).as_bytes());
                return;
            }
            Act::Sleep(pause) => std::thread::sleep(pause),
        }
    }
}

fn read(reader: &mut BufReader<TcpStream>) -> Option<Asked> {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if reader.read_line(&mut head).ok()? == 0 {
            return None;
        }
    }
    let length = head.lines().find_map(|line| {
        line.to_lowercase().strip_prefix("content-length: ").map(|n| n.trim().parse().unwrap())
    });
    let mut body = vec![0; length.unwrap_or(0)];
    reader.read_exact(&mut body).ok()?;
    let path = head.split(' ').nth(1)?.to_owned();
    Some(Asked { path, head, body: serde_json::from_slice(&body).unwrap_or_default() })
}

const CHAT: &str = "/v1/chat/completions";

fn answer(text: &str) -> Act {
    let body = json!({
        "choices": [{"message": {"role": "assistant", "content": text}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 7, "completion_tokens": 2, "total_tokens": 9},
    });
    Act::Answer(200, "", body.to_string())
}

fn refuse(status: u16, headers: &'static str, message: &str) -> Act {
    Act::Answer(status, headers, json!({"error": {"message": message}}).to_string())
}

fn models() -> Act {
    Act::Answer(200, "", json!({"data": [{"id": "m"}, {"id": "n"}]}).to_string())
}

/// Answers what is asked at the start, and leaves the rest to `chat`.
fn script(chat: impl Fn(&Asked) -> Act) -> impl Fn(&Asked) -> Act {
    move |asked| match asked.path.as_str() {
        "/v1/models" => models(),
        _ if asked.body["max_tokens"] == 4 => answer("eight"),
        CHAT => chat(asked),
        _ => refuse(404, "", "nothing here"),
    }
}

fn generate(text: &str) -> Call {
    let sampling = Sampling { max_new_tokens: 100, seed: 5, ..Sampling::default() };
    let task = Task::Generate(sampling);
    Call { messages: vec![Message::user(text)], prefix: String::new(), task }
}

fn verdict() -> Call {
    let continuations = (0..=10).map(|n| n.to_string()).collect();
    let task = Task::Score { continuations, closing: "]".into() };
    Call { messages: vec![Message::user("Rate it.")], prefix: "Good. [[".into(), task }
}

type Replies = BTreeMap<CallId, Result<Reply, ChatError>>;

/// Waits for the replies to all calls.
#[track_caller]
fn all(remote: &mut Remote, calls: impl IntoIterator<Item = Call>) -> Replies {
    let mut count = 0;
    for (id, call) in calls.into_iter().enumerate() {
        remote.submit(id as u64, call);
        count += 1;
    }
    let (mut replies, start) = (BTreeMap::new(), Instant::now());
    while replies.len() < count {
        assert!(start.elapsed() < Duration::from_secs(60), "{replies:?}");
        replies.extend(remote.wait());
    }
    replies
}

fn one(remote: &mut Remote, call: Call) -> Result<Reply, ChatError> {
    all(remote, [call]).remove(&0).unwrap()
}

fn said(reply: &Result<Reply, ChatError>) -> &str {
    match reply {
        Ok(Reply::Text { text, .. }) => text,
        other => panic!("{other:?}"),
    }
}

#[test]
fn nothing_is_lost_on_a_server_that_fails_in_every_way() {
    let tries = Mutex::new(BTreeMap::<String, usize>::new());
    let server = Scripted::start(script(move |asked| {
        let text = asked.body["messages"][0]["content"].as_str().unwrap().to_owned();
        let mut tries = tries.lock().unwrap();
        let tried = tries.entry(text.clone()).or_default();
        *tried += 1;
        let k: usize = text.parse().unwrap();
        match (k % 7, *tried) {
            (0, 1) => refuse(429, "Retry-After: 0\r\n", "slow down"),
            (1, 1 | 2) => refuse(500, "", "oh"),
            (2, 1 | 2) => Act::HangUp,
            (3, 1) => Act::HangUpWithin("x".repeat(1000)),
            (4, 1) => Act::Answer(200, "", "<html>busy</html>".into()),
            (5, 1 | 2) => refuse(503, "retry-after-ms: 3\r\n", "starting"),
            _ => answer(&format!("reply to {k}")),
        }
    }));
    let mut remote = server.open();
    let replies = all(&mut remote, (0..70).map(|k| generate(&k.to_string())));
    for (id, reply) in &replies {
        assert_eq!(said(reply), format!("reply to {id}"));
    }
    // Each was asked just as often as it failed, and once more.
    assert_eq!(server.count(CHAT), 3 + 10 * (2 + 3 + 3 + 2 + 2 + 3 + 1));
    assert_eq!(remote.usage().prompt_tokens, 70 * 7);
}

#[test]
fn at_most_so_many_requests_are_on_their_way() {
    let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let seen = most.clone();
    let server = Scripted::start(script(move |_| {
        most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
        std::thread::sleep(Duration::from_millis(5));
        now.fetch_sub(1, Ordering::SeqCst);
        answer("x")
    }));
    all(&mut server.open(), (0..40).map(|k| generate(&k.to_string())));
    let most = seen.load(Ordering::SeqCst);
    assert!((2..=4).contains(&most), "{most}");
}

#[test]
fn a_server_with_two_places_is_soon_asked_by_two() {
    let (now, refused) = (AtomicUsize::new(0), Arc::new(AtomicUsize::new(0)));
    let counted = refused.clone();
    let server = Scripted::start(script(move |_| {
        let taken = now.fetch_add(1, Ordering::SeqCst);
        std::thread::sleep(Duration::from_millis(5));
        now.fetch_sub(1, Ordering::SeqCst);
        if taken < 2 {
            return answer("x");
        }
        refused.fetch_add(1, Ordering::SeqCst);
        refuse(429, "Retry-After: 0\r\n", "full")
    }));
    let mut remote = server.open();
    let replies = all(&mut remote, (0..200).map(|k| generate(&k.to_string())));
    assert!(replies.values().all(Result::is_ok));
    // A third one tries from time to time: after 32 answers.
    let refused = counted.load(Ordering::SeqCst);
    assert!((1..=30).contains(&refused), "{refused}");
}

#[test]
fn a_server_that_wants_to_be_left_alone_is_by_everybody() {
    let told = Arc::new(Mutex::new(None::<Instant>));
    let (early, when) = (Arc::new(AtomicUsize::new(0)), told.clone());
    let counted = early.clone();
    let server = Scripted::start(script(move |_| {
        let mut told = when.lock().unwrap();
        match *told {
            None => {
                *told = Some(Instant::now());
                refuse(429, "Retry-After: 1\r\n", "not now")
            }
            Some(then) if then.elapsed() < Duration::from_millis(900) => {
                early.fetch_add(1, Ordering::SeqCst);
                // So long the one that was refused has to tell the others.
                std::thread::sleep(Duration::from_millis(250));
                answer("early")
            }
            Some(_) => answer("x"),
        }
    }));
    let mut remote = server.open();
    let start = Instant::now();
    all(&mut remote, (0..40).map(|k| generate(&k.to_string())));
    assert!(start.elapsed() >= Duration::from_millis(950));
    // Only those that were on their way.
    assert!(counted.load(Ordering::SeqCst) < 4);
}

#[test]
fn tries_end_and_say_whether_others_were_answered() {
    let server = Scripted::start(script(|asked| match asked.body["messages"][0]["content"] {
        ref text if text == "bad" => refuse(500, "", "it burns"),
        _ => answer("x"),
    }));
    let mut remote = server.open();
    let mut calls = vec![generate("bad")];
    calls.extend((0..30).map(|k| generate(&k.to_string())));
    let mut replies = all(&mut remote, calls);
    let lost = replies.remove(&0).unwrap().unwrap_err();
    let ChatError::Lost(why) = lost else { panic!("{lost:?}") };
    assert!(why.contains("status 500: it burns (after 6 attempts)"), "{why}");
    assert!(why.contains(&server.address.to_string()));
    assert!(replies.values().all(Result::is_ok));
    let before = server.count(CHAT);
    let broken = one(&mut remote, generate("bad")).unwrap_err();
    assert!(matches!(&broken, ChatError::Broken(why) if why.contains("again")), "{broken:?}");
    assert_eq!(server.count(CHAT) - before, 6);
}

#[test]
fn a_server_that_says_nothing_times_out() {
    let tries = AtomicUsize::new(0);
    let server = Scripted::start(script(move |_| match tries.fetch_add(1, Ordering::SeqCst) {
        0 => Act::Sleep(Duration::from_secs(3)),
        _ => answer("at last"),
    }));
    let settings = Settings { timeout: Duration::from_millis(300), ..server.settings() };
    let mut remote = reach(settings, None).unwrap();
    let start = Instant::now();
    assert_eq!(said(&one(&mut remote, generate("x"))), "at last");
    assert!(start.elapsed() < Duration::from_secs(2));
}

#[test]
fn nothing_is_sent_after_the_end() {
    let server = Scripted::start(script(|_| refuse(429, "Retry-After: 2\r\n", "wait")));
    let mut remote = server.open();
    (0..20).for_each(|k| remote.submit(k, generate(&k.to_string())));
    std::thread::sleep(Duration::from_millis(200));
    drop(remote);
    let then = server.count(CHAT);
    std::thread::sleep(Duration::from_millis(2500));
    assert_eq!(server.count(CHAT), then);
}

#[test]
fn refusals_say_what_to_do() {
    let open = |act: fn() -> Act| {
        let server = Scripted::start(move |asked| match asked.path.as_str() {
            "/v1/models" => models(),
            _ => act(),
        });
        reach(server.settings(), None).err().unwrap().to_string()
    };
    let told = open(|| refuse(401, "", "who are you"));
    assert!(told.contains("who are you") && told.contains("A_KEY or ANOTHER_KEY"), "{told}");
    let told = open(|| refuse(404, "", "no such model"));
    assert!(told.contains("no such model") && told.contains("m, n"), "{told}");
    let told = open(|| refuse(400, "", "messages: bad"));
    assert!(told.contains("status 400: messages: bad"), "{told}");
    let told = open(|| Act::Answer(307, "Location: http://elsewhere/\r\n", String::new()));
    assert!(told.contains("status 307"), "{told}");

    let server = Scripted::start(|_| models());
    let other = Settings { model: "gpt".into(), ..server.settings() };
    let told = reach(other, None).err().unwrap();
    let names = vec!["m".to_owned(), "n".to_owned()];
    let (url, model) = (format!("http://{}/v1", server.address), "gpt".to_owned());
    assert_eq!(told, RemoteError::Model { url, model, names });
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let settings = Settings { url: format!("http://{nobody}"), ..server.settings() };
    let told = reach(settings, None).err().unwrap().to_string();
    assert!(told.contains(&nobody.to_string()) && told.contains("6 attempts"), "{told}");
}

#[test]
fn an_overflow_is_too_long_and_a_reply_that_only_just_fits_is_cut() {
    let server = Scripted::start(script(|asked| {
        let asked_for = asked.body["max_tokens"].as_u64().unwrap();
        match asked.body["messages"][0]["content"].as_str().unwrap() {
            "all" => refuse(
                400,
                "",
                "This model's maximum context length is 50 tokens. However, \
                your request has 60 input tokens.",
            ),
            _ if asked_for > 10 => refuse(
                400,
                "",
                "This model's maximum context length is 50 \
                tokens. However, you requested 140 tokens (40 in the messages, 100 in the \
                completion).",
            ),
            _ => answer("short"),
        }
    }));
    let mut remote = server.open();
    let error = one(&mut remote, generate("all")).unwrap_err();
    let ChatError::TooLong { tokens: 60, limit: 50, .. } = error else { panic!("{error:?}") };
    assert_eq!(said(&one(&mut remote, generate("some"))), "short");
}

#[test]
fn the_key_is_sent_and_shown_nowhere() {
    let server = Scripted::start(script(|_| answer("x")));
    let key = Key::new("s3cret", "A_KEY").unwrap();
    let settings = Settings { key: Some(key), ..server.settings() };
    assert!(!format!("{settings:?}").contains("s3cret"));
    let remote = reach(settings, None).unwrap();
    assert!(!format!("{:?}", remote.about()).contains("s3cret"));
    for asked in server.asked.lock().unwrap().iter() {
        assert!(asked.head.to_lowercase().contains("authorization: bearer s3cret"));
    }
    assert_eq!(Key::new("a b", "A_KEY"), Err(RemoteError::Key { variable: "A_KEY" }));
}

#[test]
fn only_what_every_server_knows_is_sent_unasked() {
    let own = ["model", "messages", "seed", "temperature", "top_p", "max_tokens"];
    let more = ["top_k", "min_p", "stop"];
    for (refuses, answers, filters) in [(-1, 400, "the server's own"), (0, 500, "as asked")] {
        // The one knows no top_k, the other breaks on -1.
        let server = Scripted::start(move |asked| match asked.body["top_k"].as_i64() {
            _ if asked.path == "/v1/models" => models(),
            Some(top_k @ (-1 | 0)) if refuses == -1 || top_k == -1 => refuse(answers, "", "top_k?"),
            _ => answer("x"),
        });
        let mut remote = server.open();
        assert_eq!(remote.about()["filters"], filters);
        one(&mut remote, generate("plain")).unwrap();
        let mut call = generate("more");
        if let Task::Generate(sampling) = &mut call.task {
            (sampling.top_k, sampling.min_p, sampling.stop) = (4, 0.5, vec!["end".into()]);
        }
        one(&mut remote, call).unwrap();
        let asked = server.asked.lock().unwrap();
        let bodies = asked.iter().map(|asked| &asked.body);
        let bodies: Vec<&Value> = bodies.filter(|body| body["max_tokens"] == 100).collect();
        let names = |body: &Value| -> HashSet<String> {
            body.as_object().unwrap().keys().cloned().collect()
        };
        let all = own.into_iter().chain(more).map(str::to_owned);
        assert_eq!(names(bodies[1]), all.collect::<HashSet<_>>());
        assert_eq!((&bodies[1]["top_k"], &bodies[1]["min_p"]), (&json!(4), &json!(0.5)));
        let known =
            own.into_iter().chain(if refuses == 0 { &more[..2] } else { &[] }.iter().copied());
        assert_eq!(names(bodies[0]), known.map(str::to_owned).collect::<HashSet<_>>());
        assert!(bodies[0]["top_k"].is_null() || bodies[0]["top_k"] == 0);
    }
    // A server that knows the length by its other name only.
    let strict = Scripted::start(|asked| match asked.path.as_str() {
        "/v1/models" => models(),
        _ if asked.body["max_tokens"].is_null() => answer("x"),
        _ => refuse(400, "", "Unsupported parameter: 'max_tokens'"),
    });
    assert_eq!(said(&one(&mut strict.open(), generate("x"))), "x");
}

/// An answer whose tokens come with the likeliest ones.
fn telling(tokens: &[(&str, &[(&str, f64)])]) -> Act {
    let top = |list: &[(&str, f64)]| -> Vec<Value> {
        list.iter().map(|(token, p)| json!({"token": token, "logprob": p.ln()})).collect()
    };
    let content: Vec<Value> = tokens
        .iter()
        .map(|(token, list)| json!({"token": token, "logprob": -0.5, "top_logprobs": top(list)}))
        .collect();
    let text: String = tokens.iter().map(|(token, _)| *token).collect();
    let choice = json!({"message": {"content": text}, "finish_reason": "stop",
        "logprobs": {"content": content}});
    Act::Answer(200, "", json!({"choices": [choice]}).to_string())
}

#[test]
fn another_server_is_asked_for_the_verdict_alone() {
    let server = Scripted::start(|asked| match asked.path.as_str() {
        "/v1/models" => models(),
        CHAT if asked.body["max_tokens"] == 4 => telling(&[("8", &[("8", 0.9), ("6", 0.1)])]),
        CHAT => telling(&[("7", &[("7", 0.6), ("8", 0.3), ("Well", 0.1)])]),
        _ => refuse(404, "", "nothing here"),
    });
    let mut remote = server.open();
    assert_eq!(remote.about()["scoring"], "first token");
    let reply = one(&mut remote, verdict()).unwrap();
    let Reply::Estimates { logprobs, way: Estimate::FirstToken, .. } = reply else { panic!() };
    assert!((logprobs[7].exp() - 0.6).abs() < 1e-6 && (logprobs[8].exp() - 0.3).abs() < 1e-6);
    assert_eq!(logprobs[0], f64::NEG_INFINITY);
    let asked = server.asked.lock().unwrap().last().unwrap().body.clone();
    let roles: Vec<_> = asked["messages"].as_array().unwrap().iter().map(|m| &m["role"]).collect();
    assert_eq!(roles, ["user", "assistant", "user"]);
    assert_eq!(asked["messages"][1]["content"], "Good.");
}

#[test]
fn a_server_that_tells_nothing_gives_no_verdict() {
    let server = Scripted::start(script(|_| answer("x")));
    let mut remote = server.open();
    assert_eq!(remote.about()["scoring"], "no");
    let refused = one(&mut remote, verdict()).unwrap_err();
    assert!(matches!(refused, ChatError::Refused(_)), "{refused:?}");
    // Nor one whose words are no verdict.
    let server = Scripted::start(|asked| match asked.path.as_str() {
        "/v1/models" => models(),
        CHAT => telling(&[("Well", &[("Well", 0.9), ("I", 0.1)])]),
        _ => refuse(404, "", "nothing here"),
    });
    let refused = one(&mut server.open(), verdict()).unwrap_err();
    assert!(matches!(refused, ChatError::Refused(_)), "{refused:?}");
}

#[test]
fn filters_and_ends_are_told_apart() {
    let ends = |reason: &'static str| {
        let server = Scripted::start(script(move |_| {
            let choice = json!({"message": {"content": "x"}, "finish_reason": reason});
            Act::Answer(200, "", json!({"choices": [choice]}).to_string())
        }));
        one(&mut server.open(), generate("x"))
    };
    // What a server does not tell it may write as null.
    let server = Scripted::start(script(|_| {
        let body = r#"{"usage": null, "choices": [{"message": {"content": "x", "refusal": null},
            "logprobs": {"content": null}, "finish_reason": null}]}"#;
        Act::Answer(200, "", body.to_owned())
    }));
    assert_eq!(said(&one(&mut server.open(), generate("x"))), "x");
    let finish = |reply| match reply {
        Ok(Reply::Text { finish, .. }) => finish,
        other => panic!("{other:?}"),
    };
    assert_eq!(finish(ends("stop")), Finish::Stop);
    assert_eq!(finish(ends("length")), Finish::Length);
    for reason in ["content_filter", "abort", "error"] {
        assert!(matches!(ends(reason), Err(ChatError::Refused(_))), "{reason}");
    }
}

#[test]
fn a_model_that_only_thought_has_said_nothing() {
    let server = Scripted::start(script(|asked| {
        let prompt = asked.body["messages"][0]["content"].to_string();
        let message = match prompt.contains("spider") {
            true => json!({"content": "8"}),
            false => json!({"content": null, "reasoning_content": "Well", "reasoning": "Well"}),
        };
        let choice = json!({"message": message, "finish_reason": "length"});
        // What some servers write of tokens that they did not count.
        let usage = json!({"prompt_tokens": 7, "prompt_tokens_details": {"cached_tokens": null}});
        Act::Answer(200, "", json!({"choices": [choice], "usage": usage}).to_string())
    }));
    let Err(ChatError::Refused(why)) = one(&mut server.open(), generate("x")) else { panic!() };
    assert!(why.contains("thought for 4 characters"), "{why}");
}

/// Answers of servers hold only so much.
#[test]
fn long_prompts_are_echoed_a_few_at_a_time() {
    assert!(prompts_of_an_answer(500, 20) > 11);
    let few = prompts_of_an_answer(10_000, 20);
    assert!((2..11).contains(&few), "{few}");
    assert_eq!(prompts_of_an_answer(1 << 20, 20), 1);
}

/// Answers as a server that echoes prompts: each token costs 0.25, and `]` likely comes next.
fn echoing(asked: &Asked, tokenizer: &Tokenizer) -> Act {
    let prompts: Vec<Vec<u32>> = serde_json::from_value(asked.body["prompt"].clone()).unwrap();
    let choices = prompts.iter().enumerate().map(|(index, prompt)| {
        let mut tokens: Vec<String> = prompt.iter().map(|&id| tokenizer.decode(&[id])).collect();
        tokens.push("]".into());
        let mut logprobs = vec![json!(-0.25); tokens.len()];
        logprobs[0] = Value::Null;
        let top = vec![json!({"]": -0.5, "]]": -1.5, "x": -3.0}); tokens.len()];
        json!({"index": index, "text": "", "finish_reason": "length", "logprobs": {
            "tokens": tokens, "token_logprobs": logprobs, "top_logprobs": top, "text_offset": []}})
    });
    let choices: Vec<Value> = choices.rev().collect();
    Act::Answer(200, "", json!({"choices": choices}).to_string())
}

#[test]
fn a_server_that_echoes_prompts_scores_continuations() {
    for (name, tokenizer, template) in testing::all() {
        let tokens = Tokens { tokenizer: Arc::new(tokenizer), template: Arc::new(template) };
        let theirs = tokens.tokenizer.clone();
        let server = Scripted::start(move |asked| match asked.path.as_str() {
            "/v1/completions" => echoing(asked, &theirs),
            "/v1/models" => models(),
            _ => answer("8"),
        });
        let mut remote = reach(server.settings(), Some(tokens.clone())).unwrap();
        assert_eq!(remote.about()["scoring"], "echo", "{name}");
        let reply = one(&mut remote, verdict()).unwrap();
        let Reply::Estimates { logprobs, way: Estimate::Echo, .. } = reply else { panic!() };
        let closing = ((-0.5f64).exp() + (-1.5f64).exp()).ln();
        for (n, logprob) in logprobs.iter().enumerate() {
            let count = tokens.tokenizer.encode_continuation(&n.to_string()).len();
            assert!((logprob - (closing - 0.25 * count as f64)).abs() < 1e-6, "{name} {n}");
        }
        // Without knowing its tokens there is no such way.
        assert_eq!(server.open().about()["scoring"], "no");
    }
}

#[test]
fn whoever_waits_for_a_server_can_stop() {
    let cancel = Arc::new(AtomicBool::new(false));
    let stop = |settings: Settings| {
        let (cancel, start) = (cancel.clone(), Instant::now());
        cancel.store(false, Ordering::Relaxed);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                std::thread::sleep(Duration::from_millis(150));
                cancel.store(true, Ordering::Relaxed);
            });
            let stopped = Remote::open(settings, None, &cancel).err();
            assert_eq!(stopped, Some(RemoteError::Stopped));
        });
        assert!(start.elapsed() < Duration::from_secs(5));
    };
    // One that is not there, and is tried again and again; one that says nothing.
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut settings = Settings::of(format!("http://{nobody}"), "m");
    settings.patience.first = Duration::from_secs(60);
    stop(settings);
    let silent = Scripted::start(|_| Act::Sleep(Duration::from_secs(60)));
    stop(Settings { timeout: Duration::from_secs(600), ..silent.settings() });
}

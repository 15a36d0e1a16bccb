//! A folder with a model and data, and the program run in it.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Small, and long enough for the judge's prompts.
const CONFIG: &str = r#"{
  "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu",
  "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1,
  "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 16,
  "max_position_embeddings": 12000, "rms_norm_eps": 1e-5, "rope_theta": 10000.0,
  "tie_word_embeddings": false, "torch_dtype": "float32", "vocab_size": 1008,
  "bos_token_id": 1000, "eos_token_id": [1001, 1005]
}"#;

const ENGLISH: &str = "The old mill stands on the river. It was built in 1874 by two brothers. \
    A flood in 1903 broke the wheel, and the town paid 400 crowns for a new one. ";
const CHINESE: &str =
    "老磨坊在河边。它建于一八七四年。一九零三年的洪水冲坏了水轮，镇上花了四百元修好。";

/// Longer than anything takes here.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Commands that run no model.
const WITHOUT_ENGINE: [&str; 7] =
    ["pairs", "report", "calibrate", "tokenize", "pull", "dummy", "prompts"];

/// The folder; it goes with the value.
pub struct World {
    folder: TempDir,
}

impl World {
    /// A model, two prompts (English and Chinese) and three candidates for each.
    pub fn new() -> Self {
        let world = Self { folder: tempfile::tempdir().unwrap() };
        let model = world.path("model");
        models::dummy::write_checkpoint(&model, CONFIG, 5).unwrap();
        let goldens = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/goldens/tokens/llama3");
        for file in ["tokenizer.json", "tokenizer_config.json"] {
            std::fs::copy(goldens.join(file), model.join(file)).unwrap();
        }
        world.write("sft.jsonl", world.prompts());
        world.write("sampled_responses.jsonl", world.candidates());
        world
    }

    fn prompts(&self) -> String {
        let row = |idx: u64, query: &str, context: String| {
            let row = serde_json::json!({
                "idx": idx, "query": query, "answer": "unused", "context": context,
            });
            format!("{row}\n")
        };
        row(3, "When was the mill built?", ENGLISH.repeat(12))
            + &row(7, "磨坊建于哪一年？", CHINESE.repeat(8))
    }

    fn candidates(&self) -> String {
        let answers = [
            "It was built in 1874. Two brothers built it.",
            "The flood of 1903 broke the wheel.",
            "It is not known.",
        ];
        let mut rows = String::new();
        for (prompt, query) in [(3, "When was the mill built?"), (7, "磨坊建于哪一年？")] {
            for (k, answer) in answers.iter().enumerate() {
                let idx = format!("{prompt}-{k}");
                let row = serde_json::json!({"idx": idx, "query": query, "answer": answer});
                rows.push_str(&format!("{row}\n"));
            }
        }
        rows
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    }

    pub fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).unwrap_or_else(|e| panic!("{name}: {e}"))
    }

    fn command(&self, args: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_longreward"));
        command.args(args.split_whitespace());
        if !WITHOUT_ENGINE.iter().any(|name| args.starts_with(name)) {
            command.args(["--kv-memory", "200MB"]);
        }
        command.current_dir(self.folder.path()).stdout(Stdio::piped()).stderr(Stdio::piped());
        // Not the user's, in which the digests of these models would stay.
        command.env("LONGREWARD_CACHE", self.folder.path().join("cache"));
        command
    }

    /// Runs `longreward ARGS` in the folder.
    pub fn run(&self, args: &str) -> Output {
        self.command(args).output().unwrap()
    }

    /// Runs it with an environment variable.
    pub fn run_with(&self, (name, value): (&str, &str), args: &str) -> Output {
        self.command(args).env(name, value).output().unwrap()
    }

    /// Starts it.
    pub fn start(&self, args: &str) -> Child {
        self.command(args).spawn().unwrap()
    }

    /// How many replies the journal of `out` holds.
    pub fn journaled(&self, out: &str) -> usize {
        let journal = std::fs::read(self.path(&format!("{out}.journal"))).unwrap_or_default();
        journal.iter().filter(|byte| **byte == b'\n').count().saturating_sub(1)
    }

    /// Starts it and waits until the journal of `out` holds so many replies, or it has ended.
    pub fn start_until(&self, args: &str, out: &str, replies: usize) -> Child {
        let (mut child, start) = (self.start(args), Instant::now());
        while child.try_wait().unwrap().is_none() && self.journaled(out) < replies {
            assert!(start.elapsed() < PATIENCE, "longreward {args} does not get on");
            std::thread::sleep(Duration::from_millis(2));
        }
        child
    }

    /// Kills it again and again, each time a little later: when the journal of `out` has grown towards
    /// `all` replies; up to three quarters of them. Gives the number of runs that had a journal to go on
    /// from.
    pub fn kill_as_it_grows(&self, args: &str, out: &str, all: usize, kills: usize) -> usize {
        let mut resumed = 0;
        for kill in 1..=kills {
            let before = self.journaled(out);
            let replies = (before + 1).max(all * 3 * kill / (4 * kills));
            let mut child = self.start_until(args, out, replies);
            child.kill().unwrap();
            if child.wait().unwrap().success() {
                break;
            }
            resumed += usize::from(before > 0 && self.journaled(out) > before);
        }
        resumed
    }

    /// Starts it as `nohup` would.
    #[cfg(unix)]
    pub fn start_without_hangups(&self, args: &str) -> Child {
        let plain = self.command(args);
        let mut command = Command::new("sh");
        command.args(["-c", "trap '' HUP; exec \"$0\" \"$@\""]);
        command.arg(plain.get_program()).args(plain.get_args());
        command.current_dir(self.folder.path()).stdout(Stdio::null()).stderr(Stdio::null());
        command.spawn().unwrap()
    }

    /// Runs it and expects the exit code; gives what it printed.
    #[track_caller]
    pub fn expect(&self, code: i32, args: &str) -> String {
        let output = self.run(args);
        let text = [output.stdout, output.stderr].concat();
        let text = String::from_utf8_lossy(&text).into_owned();
        assert_eq!(output.status.code(), Some(code), "longreward {args}\n{text}");
        text
    }
}

/// Scores the candidates of `sft.jsonl` into `OUT/scored_responses.jsonl`.
pub fn score(out: &str, more: &str) -> String {
    format!(
        "score --model model --data sft.jsonl --responses sampled_responses.jsonl --embedder bm25 \
         --max-reply-tokens 8 --out {out}/scored_responses.jsonl {more}"
    )
}

/// The same with the judge behind a server.
pub fn score_at(url: &str, out: &str, more: &str) -> String {
    let server = format!("--judge-url {url} --judge-model model --tokenizer model");
    score(out, more).replace("--model model", &server)
}

/// How many calls a stage says that it made.
pub fn calls(said: &str) -> usize {
    let before = said.split(" calls)").next().unwrap();
    before.rsplit(' ').next().unwrap().parse().unwrap()
}

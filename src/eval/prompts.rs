//! The prompts of an evaluation: our own, or a user's files named as in the public code.
//!
//! | file in `--prompts DIR` | what it is |
//! |---|---|
//! | `dataset2prompt.json` | set to prompt, with the holes `{context}` and `{input}` |
//! | `dataset2maxlen.json` | set to number of new tokens, in LongBench's protocol |
//! | `judge_qa.txt`, `judge_summary.txt` | the judge's prompts, with `$Q$` question, `$A$` reference, `$P$` prediction |
//! | `prompt_fs.txt` | LongBench-Chat's: nine `{}` for question, reference, three answers each with its score, prediction |
//!
//! What the folder does not have is taken from our own.

use super::pattern::Pattern;
use super::tasks::{LONG_REPLY, Protocol, Rubric, Task};
use crate::judge::Lang;
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Rated answers that LongBench-Chat's judge sees.
pub const EXAMPLES: usize = 3;

const CONTEXT_AND_INPUT: [&str; 2] = ["context", "input"];
const QUESTION_REFERENCE_PREDICTION: [&str; 3] = ["Q", "A", "P"];

/// Why prompt files can't be used.
#[derive(Debug, thiserror::Error)]
pub enum PromptError {
    #[error("prompt file {}: {source}", path.display())]
    Read { path: PathBuf, source: std::io::Error },
    #[error("prompt file {}: {why}", path.display())]
    Content { path: PathBuf, why: String },
    #[error(
        "{} has none of {}: name the files as in the public code", dir.display(), FILES.join(", ")
    )]
    Nothing { dir: PathBuf },
}

const PROMPTS: &str = "dataset2prompt.json";
const NEW_TOKENS: &str = "dataset2maxlen.json";
const CHAT: &str = "prompt_fs.txt";
const FILES: [&str; 5] = [PROMPTS, NEW_TOKENS, "judge_qa.txt", "judge_summary.txt", CHAT];

/// What a set's prompts are made of, and how long replies may be.
#[derive(Debug, Clone, PartialEq)]
pub struct SetPrompt {
    pub pattern: Pattern,
    pub max_new_tokens: usize,
}

/// The policy's prompts of a protocol, for every set that it has.
#[derive(Debug, Clone)]
pub struct Prompts(BTreeMap<&'static str, SetPrompt>);

impl Prompts {
    /// Our own, with what `dir` has instead.
    ///
    /// # Errors
    /// [`PromptError`] that names the file and the set.
    pub fn load(protocol: Protocol, dir: Option<&Path>) -> Result<Self, PromptError> {
        check_folder(dir)?;
        let own = match protocol {
            Protocol::LongReward => include_str!("prompts/longreward.json"),
            Protocol::LongBench => include_str!("prompts/longbench.json"),
        };
        let own_path = Path::new("our own prompts");
        let own: BTreeMap<String, String> = json(own_path, own)?;
        let theirs: Option<BTreeMap<String, String>> = read_json(dir, PROMPTS)?;
        let tokens: Option<BTreeMap<String, usize>> = read_json(dir, NEW_TOKENS)?;
        let prompt = |task: &'static Task| {
            let path = match &theirs {
                Some(_) => dir.unwrap_or(Path::new("")).join(PROMPTS),
                None => own_path.to_owned(),
            };
            let text = theirs.as_ref().unwrap_or(&own).get(task.name);
            let pattern = text.map_or(Err("is missing".to_owned()), |text| pattern(text));
            let pattern = pattern.map_err(|why| {
                let why = format!("set {:?}: {why}", task.name);
                PromptError::Content { path, why }
            })?;
            let theirs = tokens.as_ref().and_then(|tokens| tokens.get(task.name)).copied();
            let max_new_tokens = match protocol {
                Protocol::LongReward => LONG_REPLY,
                Protocol::LongBench => theirs.unwrap_or(task.max_new_tokens).max(1),
            };
            Ok((task.name, SetPrompt { pattern, max_new_tokens }))
        };
        protocol.tasks(false).map(prompt).collect::<Result<_, _>>().map(Self)
    }

    /// The prompt of a set; every set of the protocol has one.
    pub fn get(&self, set: &str) -> Option<&SetPrompt> {
        self.0.get(set)
    }

    /// Hash and number of new tokens by set, for the settings.
    pub fn settings(&self) -> impl Iterator<Item = (String, String)> {
        self.0.iter().map(|(set, prompt)| {
            let SetPrompt { pattern, max_new_tokens } = prompt;
            (format!("prompt {set}"), format!("{}, {max_new_tokens} new tokens", pattern.hash()))
        })
    }
}

/// The document must be in it.
fn pattern(text: &str) -> Result<Pattern, String> {
    let pattern = Pattern::braces(text, &CONTEXT_AND_INPUT)?;
    match pattern.holes().contains(&0) {
        true => Ok(pattern),
        false => Err("has no {context}: put it where the document belongs".to_owned()),
    }
}

/// The judge's prompts, English and Chinese.
#[derive(Debug, Clone)]
pub struct JudgePrompts {
    qa: [Pattern; 2],
    summary: [Pattern; 2],
    chat: [Pattern; 2],
}

/// Our own texts.
const JUDGE: [[&str; 2]; 3] = [
    [include_str!("prompts/judge_qa.en.txt"), include_str!("prompts/judge_qa.zh.txt")],
    [include_str!("prompts/judge_summary.en.txt"), include_str!("prompts/judge_summary.zh.txt")],
    [include_str!("prompts/judge_chat.en.txt"), include_str!("prompts/judge_chat.zh.txt")],
];

impl JudgePrompts {
    /// Our own, with what `dir` has instead; its files hold for both languages.
    ///
    /// # Errors
    /// [`PromptError`] that names the file.
    pub fn load(dir: Option<&Path>) -> Result<Self, PromptError> {
        check_folder(dir)?;
        let load = |own: usize, file: &str, cut: fn(&str) -> Result<Pattern, String>| {
            let theirs = read(dir, file)?;
            let pair = [0, 1].map(|lang| theirs.as_deref().unwrap_or(JUDGE[own][lang]));
            let path = || match (&theirs, dir) {
                (Some(_), Some(dir)) => dir.join(file),
                _ => PathBuf::from(file),
            };
            let cut = |text| cut(text).map_err(|why| PromptError::Content { path: path(), why });
            Ok::<_, PromptError>([cut(pair[0])?, cut(pair[1])?])
        };
        Ok(Self {
            qa: load(0, FILES[2], |text| compared(text, &[0, 1, 2]))?,
            summary: load(1, FILES[3], |text| compared(text, &[1, 2]))?,
            chat: load(2, CHAT, examples)?,
        })
    }

    /// The prompt for a rubric and a language.
    pub fn get(&self, rubric: Rubric, lang: Lang) -> &Pattern {
        let pair = match rubric {
            Rubric::Qa => &self.qa,
            Rubric::Summary => &self.summary,
            Rubric::Chat => &self.chat,
        };
        &pair[lang as usize]
    }

    /// Hashes by name, for the settings.
    pub fn settings(&self) -> impl Iterator<Item = (String, String)> {
        let all = [("qa", &self.qa), ("summary", &self.summary), ("chat", &self.chat)];
        all.into_iter().flat_map(|(name, pair)| {
            let named = |(lang, pattern): (&str, &Pattern)| {
                (format!("prompt {lang}/judge_{name}"), pattern.hash().to_owned())
            };
            ["en", "zh"].into_iter().zip(pair).map(named).collect::<Vec<_>>()
        })
    }
}

fn compared(text: &str, required: &[usize]) -> Result<Pattern, String> {
    let pattern = Pattern::dollars(text, &QUESTION_REFERENCE_PREDICTION);
    let holes = pattern.holes();
    match required.iter().find(|hole| !holes.contains(hole)) {
        None => Ok(pattern),
        Some(&hole) => {
            let name = QUESTION_REFERENCE_PREDICTION[hole];
            Err(format!("has no ${name}$: put it where the text belongs"))
        }
    }
}

fn examples(text: &str) -> Result<Pattern, String> {
    let pattern = Pattern::braces(text, &[])?;
    let (holes, wanted) = (pattern.holes().len(), 3 + 2 * EXAMPLES);
    match holes == wanted {
        true => Ok(pattern),
        false => Err(format!(
            "has {holes} holes {{}}, but {wanted} are filled: question, reference, three answers each \
             with its score, prediction"
        )),
    }
}

fn check_folder(dir: Option<&Path>) -> Result<(), PromptError> {
    match dir {
        Some(dir) if FILES.iter().all(|file| !dir.join(file).exists()) => {
            Err(PromptError::Nothing { dir: dir.to_owned() })
        }
        _ => Ok(()),
    }
}

/// A file of the folder, if it is there.
fn read(dir: Option<&Path>, file: &str) -> Result<Option<String>, PromptError> {
    let Some(path) = dir.map(|dir| dir.join(file)).filter(|path| path.exists()) else {
        return Ok(None);
    };
    let text = std::fs::read_to_string(&path);
    text.map(Some).map_err(|source| PromptError::Read { path, source })
}

fn read_json<T: DeserializeOwned>(
    dir: Option<&Path>,
    file: &str,
) -> Result<Option<T>, PromptError> {
    let path = dir.unwrap_or(Path::new("")).join(file);
    read(dir, file)?.map(|text| json(&path, &text)).transpose()
}

fn json<T: DeserializeOwned>(path: &Path, text: &str) -> Result<T, PromptError> {
    serde_json::from_str(text.trim_start_matches('\u{feff}')).map_err(|why| {
        let why = format!("should be a JSON object of one value for each set: {why}");
        PromptError::Content { path: path.to_owned(), why }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::judge::parse;

    #[test]
    fn every_set_has_a_prompt_of_our_own() {
        for protocol in [Protocol::LongReward, Protocol::LongBench] {
            let prompts = Prompts::load(protocol, None).unwrap();
            for task in protocol.tasks(false) {
                let prompt = prompts.get(task.name).unwrap();
                let text = prompt.pattern.fill(&["DOCUMENT", "QUESTION"]);
                assert!(text.contains("DOCUMENT"), "{}", task.name);
                let asks = !matches!(
                    task.name,
                    "gov_report" | "multi_news" | "vcsum" | "lcc" | "passage_count"
                );
                assert_eq!(text.contains("QUESTION"), asks, "{}", task.name);
            }
        }
        let prompts = Prompts::load(Protocol::LongReward, None).unwrap();
        assert_eq!(prompts.get("qasper").unwrap().pattern.fill(&["d", "q"]), "d\n\nq");
        assert_eq!(prompts.get("qasper").unwrap().max_new_tokens, 1024);
        assert_eq!(prompts.settings().count(), 12);
    }

    #[test]
    fn the_judge_is_shown_ratings_that_it_can_give() {
        let judge = JudgePrompts::load(None).unwrap();
        for rubric in [Rubric::Qa, Rubric::Summary, Rubric::Chat] {
            let (low, high) = rubric.scale();
            for lang in [Lang::En, Lang::Zh] {
                let values = ["QUESTION", "REFERENCE", "PREDICTION"];
                let chat = ["QUESTION", "REFERENCE", "a", "2", "b", "4", "c", "8", "PREDICTION"];
                let values = if rubric == Rubric::Chat { &chat[..] } else { &values[..] };
                let text = judge.get(rubric, lang).fill(values);
                assert!(text.contains("REFERENCE") && text.contains("PREDICTION"));
                assert_eq!(text.contains("QUESTION"), rubric != Rubric::Summary);
                assert!(parse::rating_within(&text, low, high).is_some(), "{text}");
            }
        }
        assert_eq!(judge.settings().count(), 6);
    }

    #[test]
    fn files_of_the_public_layout_replace_our_own() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
        let load = |protocol| Prompts::load(protocol, Some(dir.path()));
        assert!(load(Protocol::LongBench).unwrap_err().to_string().contains("dataset2prompt.json"));
        let sets: BTreeMap<&str, String> = Protocol::LongBench
            .tasks(false)
            .map(|task| (task.name, format!("{}: {{context}} {{input}}", task.name)))
            .collect();
        write(PROMPTS, &serde_json::to_string(&sets).unwrap());
        write(NEW_TOKENS, "{\"qasper\": 7}");
        write("judge_qa.txt", "$P$ $A$ $Q$");
        let prompts = load(Protocol::LongBench).unwrap();
        assert_eq!(prompts.get("musique").unwrap().pattern.fill(&["c", "i"]), "musique: c i");
        let tokens = |set| prompts.get(set).unwrap().max_new_tokens;
        assert_eq!((tokens("qasper"), tokens("musique")), (7, 32));
        let long = load(Protocol::LongReward).unwrap();
        assert_eq!(long.get("qasper").unwrap().max_new_tokens, 1024);
        let judge = JudgePrompts::load(Some(dir.path())).unwrap();
        assert_eq!(judge.get(Rubric::Qa, Lang::Zh).fill(&["q", "a", "p"]), "p a q");
        assert!(judge.get(Rubric::Summary, Lang::En).fill(&[]).len() > 100);
    }

    #[test]
    fn broken_files_are_named() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
        let judge = || JudgePrompts::load(Some(dir.path())).unwrap_err().to_string();
        write(CHAT, "{} {}");
        assert!(judge().contains("prompt_fs.txt: has 2 holes {}, but 9"), "{}", judge());
        write("judge_qa.txt", "$Q$ $A$");
        assert!(judge().contains("judge_qa.txt: has no $P$"), "{}", judge());
        let sets = || Prompts::load(Protocol::LongBench, Some(dir.path())).unwrap_err().to_string();
        write(PROMPTS, "{\"narrativeqa\": \"{contxt}\"}");
        assert!(sets().contains("dataset2prompt.json: set \"narrativeqa\": line 1: unknown hole"));
        write(PROMPTS, "{\"narrativeqa\": \"{context}\"}");
        assert!(sets().contains("set \"qasper\": is missing"), "{}", sets());
        write(PROMPTS, "[]");
        assert!(sets().contains("one value for each set"), "{}", sets());
    }
}

//! The judge's prompts: our own in two languages, or a user's files named as in LongReward's
//! public code.

use super::dimension::{PUBLISHED, PromptKind, Row, TABLE};
use super::lang::Lang;
use super::template::{PromptError, Template};
use super::{NO_RELEVANT_INFORMATION, parse};
use crate::hexadecimal::hexadecimal;
use sha2::{Digest, Sha256};
use std::path::Path;

/// Our own texts: English and Chinese, in the order of the table.
const BUILT_IN: [[&str; 2]; 12] = [
    [include_str!("prompts/en/helpfulness.txt"), include_str!("prompts/zh/helpfulness.txt")],
    [include_str!("prompts/en/logicality.txt"), include_str!("prompts/zh/logicality.txt")],
    [include_str!("prompts/en/statements.txt"), include_str!("prompts/zh/statements.txt")],
    [include_str!("prompts/en/support.txt"), include_str!("prompts/zh/support.txt")],
    [include_str!("prompts/en/completeness.txt"), include_str!("prompts/zh/completeness.txt")],
    [include_str!("prompts/en/extract.txt"), include_str!("prompts/zh/extract.txt")],
    [
        include_str!("prompts/en/helpfulness_verdict.txt"),
        include_str!("prompts/zh/helpfulness_verdict.txt"),
    ],
    [
        include_str!("prompts/en/logicality_verdict.txt"),
        include_str!("prompts/zh/logicality_verdict.txt"),
    ],
    [
        include_str!("prompts/en/support_verdict.txt"),
        include_str!("prompts/zh/support_verdict.txt"),
    ],
    [
        include_str!("prompts/en/completeness_verdict.txt"),
        include_str!("prompts/zh/completeness_verdict.txt"),
    ],
    [include_str!("prompts/en/supports.txt"), include_str!("prompts/zh/supports.txt")],
    [
        include_str!("prompts/en/supports_verdict.txt"),
        include_str!("prompts/zh/supports_verdict.txt"),
    ],
];

/// How passages and extracts are headed inside `<<context>>`; part of what a prompt's examples
/// show, so it belongs to the prompts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Headings {
    /// Stands around a passage's number, from 1.
    passage: [&'static str; 2],
    /// Stands around an extract's place, `0% - 12%`.
    extract: [&'static str; 2],
    /// Stands around the number of one of several statements, from 1, in the reply.
    statement: [&'static str; 2],
    /// Whether chunks that hold nothing of use are listed all the same.
    lists_empty: bool,
}

const OWN: [Headings; 2] = [
    Headings {
        passage: ["[Passage ", "]"],
        extract: ["[Document ", "]"],
        statement: ["Statement ", ": "],
        lists_empty: false,
    },
    Headings {
        passage: ["[文段", "]"],
        extract: ["[文档", "部分]"],
        statement: ["陈述", "："],
        lists_empty: false,
    },
];

const PUBLIC: Headings = Headings {
    passage: ["[文段", "]"],
    extract: ["[文档", "部分的有关信息]"],
    statement: ["陈述", "："],
    lists_empty: true,
};

impl Headings {
    /// A prompt whose examples are headed as in `self`, headed as in `other`.
    fn replaced_by(&self, other: &Headings, prompt: &str) -> String {
        let pairs = [
            (self.passage, other.passage),
            (self.extract, other.extract),
            (self.statement, other.statement),
        ];
        let changed = |line: &str| {
            pairs.iter().find_map(|([before, after], [new_before, new_after])| {
                let (number, rest) = line.strip_prefix(before)?.split_once(after)?;
                let is_heading = number.starts_with(|c: char| c.is_ascii_digit());
                is_heading.then(|| format!("{new_before}{number}{new_after}{rest}"))
            })
        };
        let lines = prompt.split('\n').map(|line| changed(line).unwrap_or_else(|| line.to_owned()));
        lines.collect::<Vec<_>>().join("\n")
    }

    /// The evidence for a statement: passages numbered from 1, one blank line between.
    pub fn passages(&self, passages: &[&str]) -> String {
        let [before, after] = self.passage;
        let headed = passages.iter().zip(1..);
        join(headed.map(|(text, number)| format!("{before}{number}{after}\n{text}")))
    }

    /// The extracts, each headed by its place, one blank line between. Never empty.
    pub fn extracts(&self, extracts: &[(&str, &str)]) -> String {
        let [before, after] = self.extract;
        let listed = extracts.iter().filter(|(_, text)| self.lists_empty || holds_something(text));
        let notes = join(listed.map(|(place, text)| format!("{before}{place}{after}\n{text}")));
        if notes.is_empty() { NO_RELEVANT_INFORMATION.to_owned() } else { notes }
    }

    /// What a reply on several statements says before its label on the one at `index`.
    pub fn opening(&self, index: usize) -> String {
        let [before, after] = self.statement;
        format!("{before}{}{after}[[", index + 1)
    }
}

/// Statements numbered from 1, each on one line, so that none can pass for two.
pub fn numbered(statements: &[&str]) -> String {
    let one_line = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    let lines = statements.iter().zip(1..).map(|(text, n)| format!("{n}. {}", one_line(text)));
    lines.collect::<Vec<_>>().join("\n")
}

fn join(texts: impl Iterator<Item = String>) -> String {
    texts.collect::<Vec<_>>().join("\n\n")
}

fn holds_something(extract: &str) -> bool {
    matches!(parse::extract(extract), Some(Some(_)))
}

/// A checked set of prompts.
#[derive(Debug, Clone)]
pub struct Prompts {
    /// English and Chinese, in the order of the table; of those that the published method has not,
    /// a user's folder may lack some.
    templates: Vec<Option<[Template; 2]>>,
    headings: [Headings; 2],
    hashes: Vec<(String, String)>,
}

impl Prompts {
    /// Our own prompts.
    ///
    /// # Errors
    /// [`PromptError`] if a file of ours lacks a hole, which a test rules out.
    pub fn built_in() -> Result<Self, PromptError> {
        Self::read(OWN, |row, lang| {
            let file = format!("prompts/{}/{}.txt", ["en", "zh"][lang], row.file);
            Ok(Some((file, BUILT_IN[row.kind as usize][lang].to_owned())))
        })
    }

    /// The files of a folder, named as in the public code: one file for both languages, except
    /// for the extraction prompt. Prompts that the published method has not may be absent.
    ///
    /// # Errors
    /// [`PromptError`] that names the file if one is absent, is not UTF-8, lacks a hole or has an
    /// unknown one.
    pub fn from_dir(dir: &Path) -> Result<Self, PromptError> {
        Self::read([PUBLIC; 2], |row, lang| {
            let path = dir.join(format!("{}.txt", row.public_files[lang]));
            match path.exists() {
                true => Ok(Some((path.display().to_string(), read_text(&path)?))),
                false if row.kind as usize >= PUBLISHED => Ok(None),
                false => Err(PromptError::NoFile { path, wanted: wanted() }),
            }
        })
    }

    /// Our own prompts as files that [`from_dir`](Self::from_dir) reads, each with its name. One for both
    /// languages is in `lang`; the examples are headed as that layout heads them.
    pub fn public_files(lang: Lang) -> Vec<(String, String)> {
        let file = |row: &Row, lang: Lang| {
            let text = BUILT_IN[row.kind as usize][lang as usize];
            let name = format!("{}.txt", row.public_files[lang as usize]);
            (name, OWN[lang as usize].replaced_by(&PUBLIC, text))
        };
        let files = |row: &Row| match row.public_files {
            [en, zh] if en == zh => vec![file(row, lang)],
            _ => vec![file(row, Lang::En), file(row, Lang::Zh)],
        };
        TABLE.iter().flat_map(files).collect()
    }

    /// Language and place (`en/logicality`) and SHA-256 (hexadecimal) of each prompt of the
    /// published method, wherever its file lies.
    pub fn hashes(&self) -> &[(String, String)] {
        &self.hashes[..2 * PUBLISHED]
    }

    /// As [`hashes`](Self::hashes), of one prompt.
    pub fn hashes_of(&self, kind: PromptKind) -> impl Iterator<Item = &(String, String)> {
        let file = kind.row().file;
        self.hashes.iter().filter(move |(place, _)| place.ends_with(&format!("/{file}")))
    }

    /// # Errors
    /// [`PromptError::Absent`] if one of these prompts is not there.
    pub fn check(&self, kinds: &[PromptKind]) -> Result<(), PromptError> {
        match kinds.iter().find(|&&kind| self.templates[kind as usize].is_none()) {
            None => Ok(()),
            Some(kind) => {
                Err(PromptError::Absent { file: format!("{}.txt", kind.row().public_files[0]) })
            }
        }
    }

    /// `None` only if [`check`](Self::check) says so.
    pub(super) fn template(&self, kind: PromptKind, lang: Lang) -> Option<&Template> {
        self.templates[kind as usize].as_ref().map(|pair| &pair[lang as usize])
    }

    pub(super) fn headings(&self, lang: Lang) -> &Headings {
        &self.headings[lang as usize]
    }

    /// `text` gives the file name and the content for a row and a language, if there is one.
    fn read(
        headings: [Headings; 2],
        text: impl Fn(&Row, usize) -> Result<Option<(String, String)>, PromptError>,
    ) -> Result<Self, PromptError> {
        let mut prompts = Self { templates: Vec::new(), headings, hashes: Vec::new() };
        for row in &TABLE {
            let mut template = |lang: Lang| {
                let Some((file, text)) = text(row, lang as usize)? else { return Ok(None) };
                let template = Template::parse(&file, &text, row.required, row.optional)?;
                let place = format!("{}/{}", ["en", "zh"][lang as usize], row.file);
                prompts.hashes.push((place, sha256(text.as_bytes())));
                Ok::<_, PromptError>(Some(template))
            };
            let pair = (template(Lang::En)?, template(Lang::Zh)?);
            prompts.templates.push(match pair {
                (Some(en), Some(zh)) => Some([en, zh]),
                _ => None,
            });
        }
        Ok(prompts)
    }
}

/// The files that a folder must have.
fn wanted() -> String {
    let mut names: Vec<&str> = TABLE[..PUBLISHED].iter().flat_map(|row| row.public_files).collect();
    names.dedup();
    names.iter().map(|name| format!("{name}.txt")).collect::<Vec<_>>().join(", ")
}

fn read_text(path: &Path) -> Result<String, PromptError> {
    let bytes = std::fs::read(path)
        .map_err(|source| PromptError::Read { path: path.to_owned(), source })?;
    String::from_utf8(bytes).map_err(|error| PromptError::Encoding {
        path: path.to_owned(),
        at: error.utf8_error().valid_up_to(),
    })
}

fn sha256(bytes: &[u8]) -> String {
    hexadecimal(Sha256::digest(bytes))
}

#[cfg(test)]
mod tests {
    use super::super::{Judge, Settings};
    use super::*;

    #[test]
    fn our_own_prompts_have_their_holes() {
        let prompts = Prompts::built_in().unwrap();
        assert_eq!(prompts.hashes().len(), 12);
        assert_eq!(prompts.hashes()[1].0, "zh/helpfulness");
        assert_eq!(prompts.hashes()[0].1.len(), 64);
    }

    #[test]
    fn our_own_prompts_show_the_headings_that_the_code_writes() {
        let text = |kind: PromptKind, lang| BUILT_IN[kind as usize][lang as usize];
        for lang in [Lang::En, Lang::Zh] {
            let [before, after] = OWN[lang as usize].passage;
            assert!(text(PromptKind::Support, lang).contains(&format!("{before}1{after}\n")));
            for kind in [PromptKind::Supports, PromptKind::SupportsVerdict] {
                let opening = OWN[lang as usize].opening(1);
                let shown = opening.trim_end_matches("[[");
                assert!(text(kind, lang).contains(&format!("\n{shown}")), "{shown}");
            }
            let [before, after] = OWN[lang as usize].extract;
            let heading = format!("{before}50% - 75%{after}\n");
            assert!(text(PromptKind::Completeness, lang).contains(&heading));
        }
    }

    #[test]
    fn our_own_prompts_show_replies_that_the_parsers_accept() {
        for texts in [0, 1].map(|lang| BUILT_IN.map(|pair| pair[lang])) {
            for kind in [PromptKind::Helpfulness, PromptKind::Logicality, PromptKind::Completeness]
            {
                assert!(parse::rating(texts[kind as usize]).is_some());
            }
            for kind in [PromptKind::Helpfulness, PromptKind::Logicality, PromptKind::Completeness]
            {
                assert!(parse::rating(texts[kind.verdict_first() as usize]).is_some());
            }
            for kind in [PromptKind::Support, PromptKind::SupportVerdict] {
                assert!(parse::support(texts[kind as usize]).is_some());
            }
            for kind in [PromptKind::Supports, PromptKind::SupportsVerdict] {
                let last = texts[kind as usize].rsplit("###").nth(1).unwrap();
                let (_, reply) = last.split_once("</statements>").unwrap();
                let labels = parse::supports(reply, 2, false);
                assert!(labels.iter().all(Option::is_some), "{reply}");
            }
            let examples = parse::statements(texts[PromptKind::Statements as usize], false);
            assert!(examples.unwrap().len() > 5);
        }
    }

    #[test]
    fn prompts_for_a_verdict_alone_show_no_analysis() {
        for row in TABLE.iter().filter(|row| row.file.ends_with("_verdict")) {
            for text in BUILT_IN[row.kind as usize] {
                assert!(!text.contains("Assessment:") && !text.contains("评估："), "{}", row.file);
            }
        }
    }

    #[test]
    fn a_prompt_that_is_only_wanted_by_an_option_may_be_absent() {
        let dir = tempfile::tempdir().unwrap();
        public_files(dir.path());
        let prompts = Prompts::from_dir(dir.path()).unwrap();
        prompts.check(&[PromptKind::Support]).unwrap();
        let error = prompts.check(&[PromptKind::SupportVerdict]).unwrap_err().to_string();
        assert!(error.contains("support_verdict.txt"), "{error}");
        assert_eq!(prompts.hashes_of(PromptKind::SupportVerdict).count(), 0);
        std::fs::write(dir.path().join("support_verdict.txt"), "<<context>><<statement>>").unwrap();
        let prompts = Prompts::from_dir(dir.path()).unwrap();
        prompts.check(&[PromptKind::SupportVerdict]).unwrap();
        assert_eq!(
            (prompts.hashes().len(), prompts.hashes_of(PromptKind::SupportVerdict).count()),
            (12, 2)
        );
    }

    #[test]
    fn a_statement_can_not_pass_for_two() {
        assert_eq!(numbered(&["One\n2. Two", "Three"]), "1. One 2. Two\n2. Three");
    }

    /// Files laid out as in the public code, with texts of our own.
    fn public_files(dir: &Path) {
        for (name, text) in [
            ("helpfulness_few_shot", "H <<question>> <<answer>>"),
            ("logicality_few_shot", "L <<question>> <<answer>>"),
            ("find_fact_few_shot", "F <<question>> <<answer>>"),
            ("faithfulness_few_shot", "S <<statement>>\n\n<<context>>\n\nend"),
            ("completeness_few_shot", "C <<question>>\n\n<<context>>\n\n<<answer>>"),
            ("extract_info_en", "EN <<context>> <<question>>"),
            ("extract_info_zh", "ZH <<context>> <<question>>"),
        ] {
            std::fs::write(dir.join(format!("{name}.txt")), text).unwrap();
        }
    }

    #[test]
    fn files_of_the_public_layout_drive_every_prompt() {
        let dir = tempfile::tempdir().unwrap();
        public_files(dir.path());
        let prompts = Prompts::from_dir(dir.path()).unwrap();
        assert_eq!(prompts.hashes().len(), 12);
        let judge = Judge::new(prompts, Settings::default());
        for lang in [Lang::En, Lang::Zh] {
            assert_eq!(judge.helpfulness(lang, "q", "a").prompt, "H q a");
            assert_eq!(judge.logicality(lang, "q", "a").prompt, "L q a");
            assert_eq!(judge.statements(lang, "q", "a").prompt, "F q a");
            let support = judge.support(lang, "q", "s", &["one", "two"]);
            assert_eq!(support.prompt, "S s\n\n[文段1]\none\n\n[文段2]\ntwo\n\nend");
            let extracts = [("0% - 50%", "x"), ("50% - 100%", NO_RELEVANT_INFORMATION)];
            assert_eq!(
                judge.completeness(lang, "q", "a", &extracts).prompt,
                "C q\n\n[文档0% - 50%部分的有关信息]\nx\n\n\
                 [文档50% - 100%部分的有关信息]\nNo relevant information\n\na"
            );
        }
        assert_eq!(judge.extract(Lang::En, "q", "c").prompt, "EN c q");
        assert_eq!(judge.extract(Lang::Zh, "q", "c").prompt, "ZH c q");
    }

    #[test]
    fn a_missing_or_broken_file_is_named() {
        let dir = tempfile::tempdir().unwrap();
        public_files(dir.path());
        let broken = dir.path().join("extract_info_zh.txt");
        std::fs::write(&broken, b"<<context>> \xff").unwrap();
        let error = Prompts::from_dir(dir.path()).unwrap_err().to_string();
        assert!(error.contains("extract_info_zh.txt") && error.contains("byte 12"), "{error}");
        std::fs::write(&broken, "<<context>>").unwrap();
        let error = Prompts::from_dir(dir.path()).unwrap_err().to_string();
        assert!(error.contains("extract_info_zh.txt has no <<question>>"), "{error}");
        std::fs::remove_file(&broken).unwrap();
        let error = Prompts::from_dir(dir.path()).unwrap_err();
        assert!(matches!(&error, PromptError::NoFile { path, .. } if *path == broken), "{error}");
        assert!(error.to_string().contains("logicality_few_shot.txt, find_fact_few_shot.txt"));
    }

    #[test]
    fn our_own_prompts_can_be_written_as_files_of_the_public_layout() {
        for lang in [Lang::En, Lang::Zh] {
            let dir = tempfile::tempdir().unwrap();
            for (name, text) in Prompts::public_files(lang) {
                std::fs::write(dir.path().join(name), text).unwrap();
            }
            let prompts = Prompts::from_dir(dir.path()).unwrap();
            prompts.check(&TABLE.each_ref().map(|row| row.kind)).unwrap();
            let text = |name| std::fs::read_to_string(dir.path().join(name)).unwrap();
            assert!(text("faithfulness_few_shot.txt").contains("\n[文段2]\n"));
            let extract = "\n[文档50% - 75%部分的有关信息]\n";
            assert!(text("completeness_few_shot.txt").contains(extract));
            assert!(text("supports.txt").contains("\n陈述2："));
            assert_eq!(text("extract_info_zh.txt"), BUILT_IN[PromptKind::Extract as usize][1]);
        }
    }

    #[test]
    fn our_own_completeness_prompt_leaves_out_empty_extracts() {
        let extracts = [("0% - 50%", "No relevant information."), ("50% - 100%", "- x")];
        assert_eq!(OWN[0].extracts(&extracts), "[Document 50% - 100%]\n- x");
        assert_eq!(OWN[1].extracts(&extracts[1..]), "[文档50% - 100%部分]\n- x");
        assert_eq!(OWN[0].extracts(&extracts[..1]), NO_RELEVANT_INFORMATION);
        assert_eq!(PUBLIC.extracts(&[]), NO_RELEVANT_INFORMATION);
    }
}

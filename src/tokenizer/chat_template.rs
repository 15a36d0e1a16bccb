//! From a conversation to the prompt that a checkpoint was trained on.
//!
//! Templates are Jinja as `transformers` runs it. Two things differ, both on purpose: today's
//! date is a constant, because a prompt that changes every day can't be reproduced or cached; and
//! what the messages say can't spell control tokens ([`ChatTemplate::encode`]).

use super::files;
use super::gguf::Metadata;
use super::{Piece, Tokenizer, TokenizerError, sha256_hex};
use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Kwargs, Value};
use minijinja::{Environment, ErrorKind, UndefinedBehavior, context};
use models::source::Source;
use serde::Serialize;
use std::path::Path;

/// One turn of a conversation.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Turn<'a> {
    /// `system`, `user` or `assistant`.
    pub role: &'a str,
    pub content: &'a str,
}

impl<'a> Turn<'a> {
    /// A user's turn.
    pub fn user(content: &'a str) -> Self {
        Self { role: "user", content }
    }
}

/// A template, compiled.
pub struct ChatTemplate {
    environment: Environment<'static>,
    name: String,
    source: String,
    bos: Option<String>,
    eos: Option<String>,
    raw_prefix: String,
}

/// Name under which the one template is kept in its environment.
const ENTRY: &str = "chat_template";

/// Templates written here, for checkpoints that bring none: the name, tokens that tell the
/// family, and the template. The first whose tokens are all there is taken.
const BUILT_IN: [(&str, &[&str], &str); 4] = [
    (
        "built-in llama-3.1",
        &["<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"],
        include_str!("templates/llama-3.1.jinja"),
    ),
    (
        "built-in glm-4",
        &["[gMASK]", "<sop>", "<|user|>", "<|assistant|>"],
        include_str!("templates/glm-4.jinja"),
    ),
    ("built-in chatml", &["<|im_start|>", "<|im_end|>"], include_str!("templates/chatml.jinja")),
    ("built-in plain", &[], include_str!("templates/plain.jinja")),
];

impl ChatTemplate {
    /// The checkpoint's own template: `chat_template.jinja`, `chat_template` of
    /// `tokenizer_config.json` (the one named `default` of several), or `tokenizer.chat_template`
    /// of a GGUF file.
    ///
    /// A checkpoint without one gets a template written here, chosen by its control tokens:
    /// Llama-3.1, GLM-4 or ChatML. A base model that has none of their tokens gets `plain`: what
    /// the tokenizer puts before any text, then each message and a blank line.
    ///
    /// # Errors
    /// Files that can't be read, and templates that don't compile.
    pub fn load(source: &Source, tokenizer: &Tokenizer) -> Result<Self, TokenizerError> {
        let own = match source {
            Source::Folder(folder) => template_of_folder(folder)?,
            Source::Gguf(path) => Metadata::read(path)?
                .text("tokenizer.chat_template")
                .map(|text| ("tokenizer.chat_template".to_owned(), text.to_owned())),
        };
        let (name, text) = own.unwrap_or_else(|| built_in(tokenizer));
        Self::new(name, text, tokenizer)
    }

    pub(super) fn new(
        name: String,
        source: String,
        tokenizer: &Tokenizer,
    ) -> Result<Self, TokenizerError> {
        let mut environment = environment();
        environment.add_template_owned(ENTRY, without_generation_tags(&source)).map_err(
            |error| TokenizerError::Template { name: name.clone(), reason: text(&error) },
        )?;
        let [bos, eos] = tokenizer.bos_and_eos();
        let written = tokenizer.raw_prefix().iter().flat_map(|&id| tokenizer.token_bytes(id));
        let written: Vec<u8> = written.collect();
        let raw_prefix = String::from_utf8_lossy(&written).into_owned();
        Ok(Self { environment, name, source, bos, eos, raw_prefix })
    }

    /// The prompt as text, up to where the assistant's reply begins.
    ///
    /// # Errors
    /// What the template itself complains of, such as roles that don't alternate.
    pub fn render(&self, turns: &[Turn]) -> Result<String, TokenizerError> {
        self.render_as(turns, true)
    }

    /// With or without the beginning of a reply.
    pub(super) fn render_as(
        &self,
        turns: &[Turn],
        with_reply: bool,
    ) -> Result<String, TokenizerError> {
        let variables = context! {
            messages => turns.iter().map(message).collect::<Vec<Value>>(),
            add_generation_prompt => with_reply,
            bos_token => defined(&self.bos),
            eos_token => defined(&self.eos),
            raw_prefix => &self.raw_prefix,
            tools => (),
            documents => (),
            // Models that can think before they answer (Qwen3): replies have budgets that are meant for answers.
            enable_thinking => false,
        };
        let template = self.environment.get_template(ENTRY);
        template.and_then(|template| template.render(variables)).map_err(|error| {
            TokenizerError::Template { name: self.name.clone(), reason: text(&error) }
        })
    }

    /// The prompt as tokens, followed by those of `prefix`, with which the reply begins.
    ///
    /// Control tokens come from the template alone: whatever a message or `prefix` spells is
    /// ordinary text. The tokens of the prompt don't depend on `prefix`.
    ///
    /// # Errors
    /// As [`ChatTemplate::render`].
    pub fn encode(
        &self,
        tokenizer: &Tokenizer,
        turns: &[Turn],
        prefix: &str,
    ) -> Result<Vec<u32>, TokenizerError> {
        let specials = &tokenizer.specials;
        let mark = self.unused_character(turns);
        let marked: Vec<String> =
            turns.iter().map(|turn| specials.mark(self.without_thoughts(turn), mark)).collect();
        let marked: Vec<Turn> =
            turns.iter().zip(&marked).map(|(turn, content)| Turn { content, ..*turn }).collect();
        let text = self.render(&marked)?;
        let pieces: Vec<Piece> = specials.split(&text);
        let mut ids = tokenizer.encode_pieces(&pieces, |text| text.replace(mark, ""));
        if !prefix.is_empty() {
            ids.extend(tokenizer.encode_continuation(prefix));
        }
        Ok(ids)
    }

    /// What is left of an earlier reply where the template cuts thoughts out: marked, it would not find their end.
    fn without_thoughts<'t>(&self, turn: &Turn<'t>) -> &'t str {
        const END: &str = "</think>";
        match turn.content.rsplit_once(END) {
            Some((_, said)) if turn.role == "assistant" && self.source.contains(END) => said,
            _ => turn.content,
        }
    }

    /// A character of the private use areas that neither messages nor template contain.
    fn unused_character(&self, turns: &[Turn]) -> char {
        let used =
            |c: char| self.source.contains(c) || turns.iter().any(|turn| turn.content.contains(c));
        ('\u{E000}'..='\u{F8FF}')
            .chain('\u{F0000}'..='\u{10FFFD}')
            .find(|&c| !used(c))
            .unwrap_or('\u{10FFFF}')
    }

    /// Where the template comes from.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// SHA-256 of the template and its begin and end tokens (hexadecimal).
    pub fn hash(&self) -> String {
        let [bos, eos] = [&self.bos, &self.eos].map(|token| token.as_deref().unwrap_or_default());
        sha256_hex(&[self.source.as_bytes(), bos.as_bytes(), eos.as_bytes()])
    }
}

fn template_of_folder(folder: &Path) -> Result<Option<(String, String)>, TokenizerError> {
    let path = folder.join("chat_template.jinja");
    if path.is_file() {
        let text = String::from_utf8(files::read(&path)?)
            .map_err(|error| TokenizerError::invalid(&path, error))?;
        return Ok(Some(("chat_template.jinja".into(), text)));
    }
    let path = folder.join("tokenizer_config.json");
    let config = files::read_json(&path)?;
    let template = &config["chat_template"];
    if let Some(text) = template.as_str() {
        return Ok(Some(("tokenizer_config.json".into(), text.into())));
    }
    let Some(list) = template.as_array() else { return Ok(None) };
    let default = list.iter().find(|entry| entry["name"] == "default").or(list.first());
    match default.and_then(|entry| entry["template"].as_str()) {
        Some(text) => Ok(Some(("tokenizer_config.json".into(), text.into()))),
        None => {
            let reason = "field chat_template: expected a list of {name, template}";
            Err(TokenizerError::invalid(&path, reason))
        }
    }
}

fn built_in(tokenizer: &Tokenizer) -> (String, String) {
    let known = |tokens: &[&str]| tokens.iter().all(|text| tokenizer.special_id(text).is_some());
    let fits = BUILT_IN.iter().find(|(_, tokens, _)| known(tokens));
    let (name, _, text) = fits.unwrap_or(&BUILT_IN[BUILT_IN.len() - 1]);
    (name.to_string(), text.to_string())
}

/// A token that a checkpoint doesn't have is undefined, which writes nothing.
fn defined(token: &Option<String>) -> Value {
    token.as_ref().map_or(Value::UNDEFINED, Value::from)
}

/// A turn as templates see it.
fn message(turn: &Turn) -> Value {
    Value::from_pairs([("role", turn.role), ("content", turn.content)])
}

/// Jinja as `transformers` sets it up.
fn environment() -> Environment<'static> {
    let mut environment = Environment::new();
    let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
    environment.set_syntax(syntax.expect("the delimiters are the default ones"));
    environment.set_undefined_behavior(UndefinedBehavior::Lenient);
    environment.set_auto_escape_callback(|_| minijinja::AutoEscape::None);
    environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
    environment.add_filter("tojson", to_json);
    environment.add_function("raise_exception", |message: String| -> Result<Value, _> {
        Err(minijinja::Error::new(ErrorKind::InvalidOperation, message))
    });
    environment.add_function("strftime_now", format_today);
    environment
}

/// `{% generation %}` marks, for training, what the assistant said; here it has no effect.
fn without_generation_tags(source: &str) -> String {
    let mut text = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(start) = rest.find("{%") {
        let Some(end) = rest[start..].find("%}").map(|at| start + at) else { break };
        let inside = &rest[start + 2..end];
        let word = inside.trim_matches(['-', '+']).trim();
        text.push_str(&rest[..start + 2]);
        // A block that always runs keeps the white-space control of the tag.
        match word {
            "generation" => text.push_str(&inside.replace(word, "if true")),
            "endgeneration" => text.push_str(&inside.replace(word, "endif")),
            _ => text.push_str(inside),
        }
        text.push_str("%}");
        rest = &rest[end + 2..];
    }
    text.push_str(rest);
    text
}

/// JSON as Python's `json.dumps(value, ensure_ascii=False)` writes it.
fn to_json(value: Value, options: Kwargs) -> Result<Value, minijinja::Error> {
    let indent: Option<usize> = options.get("indent")?;
    options.get::<Option<bool>>("ensure_ascii")?;
    options.assert_all_used()?;
    let mut bytes = Vec::new();
    let written = match indent {
        Some(width) => {
            let indent = " ".repeat(width);
            let formatter = serde_json::ser::PrettyFormatter::with_indent(indent.as_bytes());
            value.serialize(&mut serde_json::Serializer::with_formatter(&mut bytes, formatter))
        }
        None => value.serialize(&mut serde_json::Serializer::with_formatter(&mut bytes, OneLine)),
    };
    let error = |e: &dyn std::fmt::Display| {
        minijinja::Error::new(ErrorKind::BadSerialization, format!("tojson: {e}"))
    };
    written.map_err(|e| error(&e))?;
    String::from_utf8(bytes).map(Value::from).map_err(|e| error(&e))
}

/// Python's separators: `", "` and `": "`.
struct OneLine;

impl serde_json::ser::Formatter for OneLine {
    fn begin_array_value<W>(&mut self, writer: &mut W, first: bool) -> std::io::Result<()>
    where
        W: ?Sized + std::io::Write,
    {
        if first { Ok(()) } else { writer.write_all(b", ") }
    }

    fn begin_object_key<W>(&mut self, writer: &mut W, first: bool) -> std::io::Result<()>
    where
        W: ?Sized + std::io::Write,
    {
        if first { Ok(()) } else { writer.write_all(b", ") }
    }

    fn begin_object_value<W>(&mut self, writer: &mut W) -> std::io::Result<()>
    where
        W: ?Sized + std::io::Write,
    {
        writer.write_all(b": ")
    }
}

/// Formats the constant date Friday, 26 July 2024, which Llama-3.1's template assumes as well.
fn format_today(format: &str) -> Result<String, minijinja::Error> {
    let mut text = String::new();
    let mut characters = format.chars();
    while let Some(c) = characters.next() {
        if c != '%' {
            text.push(c);
            continue;
        }
        text.push_str(match characters.next() {
            Some('d') => "26",
            Some('b') => "Jul",
            Some('B') => "July",
            Some('m') => "07",
            Some('Y') => "2024",
            Some('y') => "24",
            Some('a') => "Fri",
            Some('A') => "Friday",
            Some('j') => "208",
            Some('H' | 'M' | 'S') => "00",
            Some('%') => "%",
            other => {
                let directive = other.map(String::from).unwrap_or_default();
                let message = format!("strftime_now: %{directive} isn't supported");
                return Err(minijinja::Error::new(ErrorKind::InvalidOperation, message));
            }
        });
    }
    Ok(text)
}

/// An error with the line it stands in, without the name of the one template there is.
fn text(error: &minijinja::Error) -> String {
    let what = error.detail().map_or_else(|| error.kind().to_string(), str::to_owned);
    match error.line() {
        Some(line) => format!("line {line}: {what}"),
        None => what,
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use super::*;

    fn chatml() -> (Tokenizer, ChatTemplate) {
        load_gguf(&byte_level_metadata("smollm", &CHATML)).unwrap()
    }

    fn render(source: &str, turns: &[Turn]) -> Result<String, TokenizerError> {
        let (tokenizer, _) = chatml();
        ChatTemplate::new("test".into(), source.into(), &tokenizer)?.render(turns)
    }

    const TURNS: [Turn; 3] = [
        Turn { role: "system", content: " S " },
        Turn { role: "user", content: " U\n" },
        Turn { role: "assistant", content: "A" },
    ];

    #[test]
    fn can_be_shared_between_threads() {
        fn check<T: Send + Sync>() {}
        check::<ChatTemplate>();
        check::<Tokenizer>();
    }

    #[test]
    fn built_in_chatml() {
        let (_, template) = chatml();
        assert_eq!(template.name(), "built-in chatml");
        assert_eq!(
            template.render(&TURNS).unwrap(),
            "<|im_start|>system\n S <|im_end|>\n<|im_start|>user\n U\n<|im_end|>\n\
             <|im_start|>assistant\nA<|im_end|>\n<|im_start|>assistant\n"
        );
    }

    #[test]
    fn built_in_glm_4() {
        let (_, template) = load_folder(&[("tokenizer.model", &tiktoken_file())]).unwrap();
        assert_eq!(
            template.render(&TURNS).unwrap(),
            "[gMASK]<sop><|system|>\n S <|user|>\n U\n<|assistant|>\nA<|assistant|>"
        );
    }

    #[test]
    fn built_in_llama_trims_and_always_has_a_system_turn() {
        let mut metadata = byte_level_metadata("llama-bpe", &LLAMA);
        let first = ranked_tokens().len() as u32;
        let key = "tokenizer.ggml.bos_token_id";
        metadata.push((key, candle_core::quantized::gguf_file::Value::U32(first)));
        let (_, template) = load_gguf(&metadata).unwrap();
        let head = "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\n\
                    Cutting Knowledge Date: December 2023\nToday Date: 26 Jul 2024\n\n";
        let user = "<|eot_id|><|start_header_id|>user<|end_header_id|>\n\nU<|eot_id|>";
        let reply = "<|start_header_id|>assistant<|end_header_id|>\n\n";
        assert_eq!(
            template.render(&TURNS).unwrap(),
            format!("{head}S{user}{reply}A<|eot_id|>{reply}")
        );
        assert_eq!(template.render(&TURNS[1..2]).unwrap(), format!("{head}{user}{reply}"));
    }

    #[test]
    fn base_models_get_plain_text_after_their_raw_prefix() {
        let (tokenizer, template) = load_gguf(&sentence_piece_metadata()).unwrap();
        assert_eq!(template.name(), "built-in plain");
        assert_eq!(template.render(&[Turn::user("hello")]).unwrap(), "<s>hello\n\n");
        assert_eq!(template.encode(&tokenizer, &[Turn::user("hello")], "").unwrap()[0], 1);
    }

    #[test]
    fn white_space_control_follows_transformers() {
        let source = "  {% for m in messages %}\n  {{ m.role }}\n  {% endfor %}\nend\n";
        assert_eq!(render(source, &TURNS[..2]).unwrap(), "  system\n  user\nend");
    }

    #[test]
    fn pythonisms_work() {
        for (source, expected) in [
            ("{{ messages[1]['content'].strip() }}", "U"),
            ("{{ messages[-1].content.lower() }}", "a"),
            ("{{ 'a/b'.split('/')[-1] }}", "b"),
            ("{{ {'a': [1, 2], 'b': '<é>'} | tojson }}", r#"{"a": [1, 2], "b": "<é>"}"#),
            ("{{ [1, {'k': none}] | tojson(indent=2) }}", "[\n  1,\n  {\n    \"k\": null\n  }\n]"),
            ("{{ strftime_now('%d %B %Y') }}", "26 July 2024"),
            (
                "{% for m in messages %}{% if loop.index == 2 %}{% break %}{% endif %}x{% endfor %}",
                "x",
            ),
            ("{{ undefined_name }}{{ messages[0].missing }}|", "|"),
            ("{{ '<a & b>' }}", "<a & b>"),
            ("{{ tools is none }}{{ bos_token is defined }}", "TrueFalse"),
            ("{% set n = namespace(i=0) %}{% set n.i = 3 %}{{ n.i }}", "3"),
            ("a {%- generation -%} b {%- endgeneration %} c", "ab c"),
        ] {
            assert_eq!(render(source, &TURNS).unwrap(), expected, "{source}");
        }
    }

    #[test]
    fn complaints_of_a_template_name_template_and_line() {
        let error = render("a\n{{ raise_exception('roles must alternate') }}", &TURNS).unwrap_err();
        assert_eq!(error.to_string(), "chat template test: line 2: roles must alternate");
        let error = render("{% for %}", &TURNS).unwrap_err().to_string();
        assert!(error.starts_with("chat template test: line 1: "), "{error}");
    }

    #[test]
    fn the_checkpoint_s_own_template_wins() {
        let tiktoken = tiktoken_file();
        let config = r#"{"chat_template": [{"name": "tool_use", "template": "t"},
            {"name": "default", "template": "d{{ eos_token }}"}], "eos_token": "<|user|>"}"#;
        let vocabulary = ("tokenizer.model", tiktoken.as_str());
        let (_, template) = load_folder(&[vocabulary, ("tokenizer_config.json", config)]).unwrap();
        assert_eq!(template.render(&TURNS).unwrap(), "d<|user|>");
        let files =
            [vocabulary, ("tokenizer_config.json", config), ("chat_template.jinja", "file")];
        let (_, template) = load_folder(&files).unwrap();
        assert_eq!(template.name(), "chat_template.jinja");
        assert_eq!(template.render(&TURNS).unwrap(), "file");
    }
}

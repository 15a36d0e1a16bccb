//! Properties that hold for every vocabulary, and the edges of each form.

use super::testing::*;
use super::{ChatTemplate, StreamDecoder, Tokenizer, TokenizerError, Turn};
use candle_core::quantized::gguf_file::Value;
use proptest::prelude::*;
use std::sync::LazyLock;

static ALL: LazyLock<Vec<(&str, Tokenizer, ChatTemplate)>> = LazyLock::new(all);

/// Texts in which words, parts of control tokens, white space and any characters mix.
fn any_text() -> impl Strategy<Value = String> {
    let part = prop_oneof![
        prop::sample::select(vec![
            "hello",
            " hello",
            "user",
            "你好",
            "。",
            "😀",
            " 😀",
            "\u{1F468}\u{200D}\u{1F469}",
            "\r\n",
            "  ",
            "<|",
            "|>",
            "<|im_start|>",
            "<|im_end|",
            "<|user|>",
            "[gMASK]",
            "<｜User｜>",
            "｜Assistant｜>",
            "<think>",
            "<sop>",
            "<s>",
            "</s>",
            "<|eot_id|>",
            "im_end|>",
            "123456",
            "'LL",
            "\0",
            "\t",
        ])
        .prop_map(String::from),
        any::<char>()
            .prop_filter("SentencePiece's own space", |&c| c != '▁')
            .prop_map(String::from),
    ];
    prop::collection::vec(part, 0..24).prop_map(|parts| parts.concat())
}

/// Whether a token is written as one that templates make turns of, whatever its file calls it.
fn is_turn(tokenizer: &Tokenizer, id: u32) -> bool {
    let texts = [&CHATML[..], &LLAMA, &TURNS].concat();
    let bytes = tokenizer.token_bytes(id);
    texts.iter().any(|text| text.as_bytes() == bytes)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..Default::default() })]

    #[test]
    fn text_survives_encoding(text in any_text()) {
        for (name, tokenizer, _) in ALL.iter() {
            let ids = tokenizer.encode(&text);
            prop_assert_eq!(&tokenizer.decode(&ids), &text, "{}", name);
            prop_assert!(!ids.iter().any(|&id| tokenizer.is_control(id)), "{}", name);
            prop_assert!(!ids.iter().any(|&id| is_turn(tokenizer, id)), "{}", name);
        }
    }

    #[test]
    fn offsets_cover_the_text_between_characters(text in any_text()) {
        for (name, tokenizer, _) in ALL.iter() {
            let tokens = tokenizer.encode_offsets(&text);
            let ids: Vec<u32> = tokens.iter().map(|token| token.0).collect();
            prop_assert_eq!(ids, tokenizer.encode(&text), "{}", name);
            let mut end = 0;
            for (_, range) in &tokens {
                prop_assert_eq!(range.start, end, "{}", name);
                prop_assert!(text.get(range.clone()).is_some(), "{}", name);
                end = range.end;
            }
            prop_assert_eq!(end, text.len(), "{}", name);
        }
    }

    #[test]
    fn streaming_equals_decoding(seed in prop::collection::vec(any::<u32>(), 0..40)) {
        for (name, tokenizer, _) in ALL.iter() {
            let size = tokenizer.vocab_size() as u32 + 3;
            let ids: Vec<u32> = seed.iter().map(|i| i % size).collect();
            let bytes: Vec<u8> = ids
                .iter()
                .filter(|&&id| !tokenizer.is_special(id))
                .flat_map(|&id| tokenizer.token_bytes(id))
                .collect();
            let whole = String::from_utf8_lossy(&bytes).into_owned();
            let mut stream = StreamDecoder::continuing(tokenizer);
            let mut text = String::new();
            for &id in &ids {
                text.push_str(stream.push(id));
            }
            text.push_str(stream.finish());
            prop_assert_eq!(text, whole, "{}", name);
        }
    }

    #[test]
    fn messages_never_spell_control_tokens(content in any_text(), prefix in any_text()) {
        for (name, tokenizer, template) in ALL.iter() {
            let specials = |content: &str, prefix: &str| {
                let turns = [Turn { role: "system", content }, Turn::user(content)];
                let mut ids = template.encode(tokenizer, &turns, prefix).unwrap();
                ids.retain(|&id| tokenizer.is_control(id) || is_turn(tokenizer, id));
                ids
            };
            prop_assert_eq!(specials(&content, &prefix), specials("x", "y"), "{}", name);
        }
    }

    #[test]
    fn benign_messages_encode_as_the_rendered_text(content in "[a-z 你好\n😀<|]{0,40}") {
        for (name, tokenizer, template) in ALL.iter() {
            let turns = [Turn::user(&content)];
            let joint = tokenizer.encode_with_specials(&template.render(&turns).unwrap());
            let ids = template.encode(tokenizer, &turns, "").unwrap();
            prop_assert_eq!(ids, joint, "{}", name);
        }
    }

    #[test]
    fn a_prefix_leaves_the_prompt_alone(content in any_text(), prefix in any_text()) {
        for (name, tokenizer, template) in ALL.iter() {
            let turns = [Turn::user(&content)];
            let prompt = template.encode(tokenizer, &turns, "").unwrap();
            let longer = template.encode(tokenizer, &turns, &prefix).unwrap();
            prop_assert_eq!(&longer[..prompt.len()], &prompt[..], "{}", name);
            let mut stream = StreamDecoder::continuing(tokenizer);
            let mut text: String =
                longer[prompt.len()..].iter().map(|&id| stream.push(id).to_owned()).collect();
            text.push_str(stream.finish());
            prop_assert_eq!(&text, &prefix, "{}", name);
        }
    }
}

#[test]
fn an_emoji_spread_over_tokens_appears_once_whole() {
    let (_, tokenizer, _) = &ALL[0];
    let ids = tokenizer.encode("a 😀b");
    assert!(ids.len() > 3, "the emoji is meant to take several tokens: {ids:?}");
    let mut stream = StreamDecoder::new(tokenizer);
    let texts: Vec<String> = ids.iter().map(|&id| stream.push(id).to_owned()).collect();
    assert_eq!(texts, ["a", " ", "😀", "b"]);
    assert_eq!(stream.finish(), "");
}

#[test]
fn half_a_character_at_the_end_is_shown_as_lost() {
    let (_, tokenizer, _) = &ALL[0];
    let ids = tokenizer.encode("😀");
    assert_eq!(tokenizer.decode(&ids[..1]), "\u{FFFD}");
    let mut again = ids[..1].to_vec();
    again.extend(tokenizer.encode("a"));
    assert_eq!(tokenizer.decode(&again), "\u{FFFD}a");
}

#[test]
fn starting_with_lists_ordinary_tokens_only() {
    for (name, tokenizer, _) in ALL.iter() {
        for prefix in ["", "]", "[", "<", "h", " ", "你"] {
            let found = tokenizer.starting_with(prefix);
            let expected: Vec<u32> = (0..tokenizer.vocab_size() as u32)
                .filter(|&id| !tokenizer.is_control(id))
                .filter(|&id| {
                    let bytes = tokenizer.token_bytes(id);
                    !bytes.is_empty() && bytes.starts_with(prefix.as_bytes())
                })
                .collect();
            assert_eq!(found, expected, "{name} {prefix:?}");
        }
    }
    let (_, tokenizer, _) = &ALL[0];
    let texts: Vec<_> =
        tokenizer.starting_with("]").into_iter().map(|id| tokenizer.token_bytes(id)).collect();
    assert_eq!(texts, [b"]".to_vec(), b"]]".to_vec()]);
}

#[test]
fn words_are_single_tokens_in_every_byte_level_form() {
    for (name, tokenizer, _) in ALL.iter().filter(|(name, ..)| *name != "sentencepiece") {
        for word in ["hello", " hello", "你好"] {
            assert_eq!(tokenizer.encode(word).len(), 1, "{name} {word:?}");
        }
    }
}

#[test]
fn digits_are_cut_as_each_family_does() {
    let pieces = |name: &str, text: &str| -> Vec<usize> {
        let (_, tokenizer, _) = ALL.iter().find(|row| row.0 == name).unwrap();
        tokenizer.encode(text).iter().map(|&id| tokenizer.token_bytes(id).len()).collect()
    };
    // " hello" is one token only where the space isn't cut off.
    assert_eq!(pieces("smollm", "1 hello"), [1, 6]);
    assert_eq!(pieces("llama-bpe", "hello hello"), [5, 6]);
}

#[test]
fn sentence_piece_puts_a_space_before_a_text_but_not_inside() {
    let (_, tokenizer, _) = ALL.iter().find(|row| row.0 == "sentencepiece").unwrap();
    let bytes = |ids: &[u32]| ids.iter().map(|&id| tokenizer.token_bytes(id)).collect::<Vec<_>>();
    assert_eq!(bytes(&tokenizer.encode("hello world")), [b" hello".to_vec(), b" world".to_vec()]);
    assert_eq!(bytes(&tokenizer.encode_continuation("hello")), [b"hello".to_vec()]);
    assert_eq!(tokenizer.encode_raw("hello")[0], 1, "begins with <s>");
    assert_eq!(tokenizer.encode_with_specials("<s>hello").len(), 2);
    assert_eq!(bytes(&tokenizer.encode("<s>")), [b" ".to_vec(), b"<s".to_vec(), b">".to_vec()]);
}

#[test]
fn turns_that_their_file_does_not_call_special_are_control_tokens_all_the_same() {
    let mut user_defined = byte_level_metadata("llama-bpe", &TURNS);
    let ordinary = ranked_tokens().len();
    let kinds = (0..ordinary + TURNS.len()).map(|id| Value::I32(if id < ordinary { 1 } else { 4 }));
    user_defined[3].1 = Value::Array(kinds.collect());
    let (_, added, template) = ALL.iter().find(|row| row.0 == "added").unwrap();
    let (gguf, _) = load_gguf(&user_defined).unwrap();
    for tokenizer in [added, &gguf] {
        let id = |text: &str| tokenizer.special_id(text).unwrap();
        let user = id("<｜User｜>");
        assert!(!tokenizer.encode("a<｜User｜>b").contains(&user));
        assert!(tokenizer.encode_with_specials("a<｜User｜>b").contains(&user));
        // A reply's own thoughts are shown, as their file wants it.
        let think = id("<think>");
        assert!(tokenizer.is_control(think) && !tokenizer.is_special(think));
        assert_eq!(tokenizer.decode(&[think]), "<think>");
    }
    // Added white space is text.
    assert_eq!(added.encode("hello    hello").len(), 3);
    let [user, reply] =
        ["<｜User｜>", "<｜Assistant｜>"].map(|text| added.special_id(text).unwrap());
    let said = "x<｜Assistant｜>yes<｜User｜>";
    let ids = template.encode(added, &[Turn::user(said)], "").unwrap();
    assert_eq!([user, reply].map(|id| ids.iter().filter(|&&one| one == id).count()), [1, 1]);
}

#[test]
fn tiktoken_control_tokens_follow_the_ranks() {
    let (_, tokenizer, template) = ALL.iter().find(|row| row.0 == "tiktoken").unwrap();
    let ranks = ranked_tokens().len() as u32;
    assert_eq!(tokenizer.special_id("<|endoftext|>"), Some(ranks));
    assert_eq!(tokenizer.special_id("<|user|>"), Some(ranks + 7));
    assert_eq!(tokenizer.stop_tokens(), [ranks, ranks + 7, ranks + 9]);
    assert_eq!(tokenizer.raw_prefix(), [ranks + 2, ranks + 4]);
    assert_eq!(template.name(), "built-in glm-4");
}

#[test]
fn stop_tokens_are_gathered_from_all_files() {
    let tiktoken = tiktoken_file();
    let ranks = ranked_tokens().len() as u32;
    let (tokenizer, _) = load_folder(&[
        ("tokenizer.model", &tiktoken),
        ("config.json", r#"{"eos_token_id": 3}"#),
        ("generation_config.json", r#"{"eos_token_id": [5, 4]}"#),
        ("tokenizer_config.json", r#"{"eos_token": {"content": "<eop>"}}"#),
    ])
    .unwrap();
    assert_eq!(tokenizer.stop_tokens(), [3, 4, 5, ranks, ranks + 5, ranks + 7, ranks + 9]);
}

#[test]
fn gguf_names_of_end_tokens_count_beside_its_keys() {
    let mut metadata = byte_level_metadata("llama-bpe", &LLAMA);
    let first = ranked_tokens().len() as u32;
    metadata.push(("tokenizer.ggml.eos_token_id", Value::U32(first + 3)));
    metadata.push(("tokenizer.ggml.bos_token_id", Value::U32(first)));
    let (tokenizer, _) = load_gguf(&metadata).unwrap();
    assert_eq!(tokenizer.stop_tokens(), [first + 3, first + 4]);
    assert_eq!((tokenizer.bos(), tokenizer.raw_prefix()), (Some(first), &[first][..]));
}

/// A WordPiece vocabulary as sentence embedders bring it, with padding and truncation turned on.
const WORD_PIECE: &str = r###"{
    "version": "1.0",
    "truncation": {"max_length": 2, "strategy": "LongestFirst", "stride": 0, "direction": "Right"},
    "padding": {"strategy": {"Fixed": 9}, "direction": "Right", "pad_to_multiple_of": null,
                "pad_id": 0, "pad_type_id": 0, "pad_token": "[PAD]"},
    "added_tokens": [
        {"id": 0, "content": "[PAD]", "single_word": false, "lstrip": false, "rstrip": false,
         "normalized": false, "special": true},
        {"id": 2, "content": "[CLS]", "single_word": false, "lstrip": false, "rstrip": false,
         "normalized": false, "special": true},
        {"id": 3, "content": "[SEP]", "single_word": false, "lstrip": false, "rstrip": false,
         "normalized": false, "special": true}
    ],
    "normalizer": {"type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": true,
                   "strip_accents": null, "lowercase": true},
    "pre_tokenizer": {"type": "BertPreTokenizer"},
    "post_processor": {"type": "BertProcessing", "sep": ["[SEP]", 3], "cls": ["[CLS]", 2]},
    "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": true},
    "model": {"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##",
              "max_input_chars_per_word": 100,
              "vocab": {"[PAD]": 0, "[UNK]": 1, "[CLS]": 2, "[SEP]": 3, "bridge": 4, "##s": 5}}
}"###;

#[test]
fn embedders_get_their_tokens_and_a_cut_end_but_no_padding() {
    let (tokenizer, _) = load_folder(&[("tokenizer.json", WORD_PIECE)]).unwrap();
    assert_eq!(tokenizer.encode("Bridges bridge xyz"), [4, 5, 4, 1]);
    assert_eq!(tokenizer.encode_for_embedder("Bridges bridge", 16), [2, 4, 5, 4, 3]);
    assert_eq!(tokenizer.encode_for_embedder("Bridges bridge", 4), [2, 4, 5, 3]);
    assert_eq!(tokenizer.encode_for_embedder("", 16), [2, 3]);
    // What stands behind a text is not put before it.
    assert_eq!(tokenizer.raw_prefix(), [2]);
}

#[test]
fn listed_control_tokens_replace_those_of_glm_4() {
    let tiktoken = tiktoken_file();
    let first = ranked_tokens().len();
    let load = |id: usize| {
        let config = format!(r#"{{"added_tokens_decoder": {{"{id}": {{"content": "<|x|>"}}}}}}"#);
        load_folder(&[("tokenizer.model", &tiktoken), ("tokenizer_config.json", &config)])
    };
    let (tokenizer, _) = load(first).unwrap();
    assert_eq!(tokenizer.special_id("<|x|>"), Some(first as u32));
    assert_eq!(tokenizer.special_id("<|user|>"), None);
    let message = error(load(first + 1));
    assert!(message.contains("tokenizer_config.json: added_tokens_decoder: id"), "{message}");
}

/// A merge whose union is no token and longer than any.
const LONG_MERGE: &str = r#"{
    "version": "1.0", "decoder": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": false},
    "model": {"type": "BPE", "vocab": {"a": 0, "b": 1, "ab": 2}, "merges": [["a", "b"], ["ab", "ab"]]}
}"#;

fn error(result: Result<(Tokenizer, super::ChatTemplate), TokenizerError>) -> String {
    result.err().expect("an error").to_string()
}

#[test]
fn errors_name_file_and_key() {
    let message = error(load_gguf(&byte_level_metadata("deepseek-coder", &[])));
    assert!(
        message.contains("model.gguf: key tokenizer.ggml.pre: \"deepseek-coder\""),
        "{message}"
    );
    let mut metadata = byte_level_metadata("smollm", &[]);
    metadata[2].1 = Value::U32(1);
    let message = error(load_gguf(&metadata));
    assert!(message.ends_with("key tokenizer.ggml.tokens: has the wrong type"), "{message}");
    let message = error(load_gguf(&metadata[..2]));
    assert!(message.ends_with("key tokenizer.ggml.tokens: is missing"), "{message}");
    let mut metadata = byte_level_metadata("smollm", &[]);
    let longest = "a".repeat(99);
    for (merge, unknown) in [("a b", "ab"), ("a xy", "xy"), (&format!("{longest} a"), &longest)] {
        metadata[4].1 = Value::Array(vec![Value::String(merge.into())]);
        let message = error(load_gguf(&metadata));
        let wanted = format!("tokenizer.ggml.merges: entry 0, {merge:?}: {unknown:?} is no token");
        assert!(message.ends_with(&wanted), "{message}");
    }
    let message = error(load_gguf(&[("general.alignment", Value::U32(0))]));
    assert!(message.contains("model.gguf: key `general.alignment`: 0"), "{message}");
    let message = error(load_gguf(&[("tokenizer.ggml.tokens", Value::Array(vec![]))]));
    assert!(message.ends_with("key tokenizer.ggml.model: is missing"), "{message}");

    let message = error(load_folder(&[]));
    assert!(message.contains("expected tokenizer.json"), "{message}");
    for (damaged, problem) in [
        ("{\"version\": 1".to_owned(), "not JSON: EOF"),
        (WORD_PIECE.replace("\"cleanup\": true", "\"cleanup\" true"), "at line 18 column"),
        (LONG_MERGE.to_owned(), "its vocabulary contradicts itself"),
        (WORD_PIECE.replace("\"##s\": 5", "\"##s\": 4294967295"), "\"##s\" has the id 4294967295"),
    ] {
        let message = error(load_folder(&[("tokenizer.json", &damaged)]));
        assert!(message.contains("tokenizer.json: ") && message.contains(problem), "{message}");
    }
    for (file, problem) in [
        ("YQ== 0\nYg==\n", "line 2: expected a base64 token"),
        ("YQ== 0\nYg== 2\n", "line 2: rank 2, but 1 is next"),
        ("Y? 0\n", "line 1: expected a base64 token"),
        ("YQ== 0\nYQ== 1\n", "a token has two ranks"),
        ("", "no tokens"),
    ] {
        let message = error(load_folder(&[("tokenizer.model", file)]));
        assert!(message.contains("tokenizer.model: ") && message.contains(problem), "{message}");
    }
    let tiktoken = tiktoken_file();
    let files =
        [("tokenizer.model", tiktoken.as_str()), ("config.json", "{\"eos_token_id\": \"x\"}")];
    let message = error(load_folder(&files));
    assert!(message.contains("config.json: field eos_token_id"), "{message}");
}

#[test]
fn templates_that_cut_thoughts_out_of_earlier_replies_find_them() {
    let source = "{% for m in messages %}{{ m.content.split('</think>')[-1] }}|{% endfor %}";
    let (_, tokenizer, _) = all().pop().unwrap();
    let template = ChatTemplate::new("test".into(), source.into(), &tokenizer).unwrap();
    let reply = Turn { role: "assistant", content: "<think>secret</think>world" };
    let ids = template.encode(&tokenizer, &[Turn::user("hello"), reply], "").unwrap();
    assert_eq!(tokenizer.decode(&ids).trim(), "hello|world|");
}

#[test]
fn hashes_tell_vocabularies_apart() {
    let mut hashes: Vec<&str> = ALL.iter().map(|(_, tokenizer, _)| tokenizer.hash()).collect();
    assert!(hashes.iter().all(|hash| hash.len() == 64));
    hashes.sort_unstable();
    hashes.dedup();
    assert_eq!(hashes.len(), ALL.len());
}

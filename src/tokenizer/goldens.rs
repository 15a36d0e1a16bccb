//! Ids and prompts as the reference programs make them (`tests/goldens/tokens`).

use super::{ChatTemplate, Tokenizer, Turn, testing};
use models::source::{Source, cached};
use serde_json::Value;
use std::path::PathBuf;

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/goldens/tokens")
}

fn read(name: &str) -> Value {
    serde_json::from_slice(&std::fs::read(folder().join(name)).unwrap()).unwrap()
}

fn ids(value: &Value) -> Vec<u32> {
    value.as_array().unwrap().iter().map(|id| id.as_u64().unwrap() as u32).collect()
}

/// Checks every case; returns how many there were.
fn check(tokenizer: &Tokenizer, golden: &Value) -> usize {
    let cases = golden["cases"].as_array().unwrap();
    for case in cases {
        let (name, text) = (&case["name"], case["text"].as_str().unwrap());
        assert_eq!(tokenizer.encode(text), ids(&case["ids"]), "{name}");
        let special = case.get("ids_with_specials").unwrap_or(&case["ids"]);
        assert_eq!(tokenizer.encode_with_specials(text), ids(special), "{name} with specials");
    }
    for case in golden["decoded"].as_array().unwrap() {
        let (text, expected) =
            (written(tokenizer, &ids(&case["ids"])), case["text"].as_str().unwrap());
        // `tokenizers` gives up a whole run of byte tokens for one bad byte in it; here, as with
        // the other vocabularies, the good characters of the run stay.
        if !(tokenizer.bytes.strips_leading_space && expected.contains('\u{FFFD}')) {
            assert_eq!(text, expected);
        }
    }
    cases.len()
}

/// As [`Tokenizer::decode`], but with control tokens, as the goldens have it.
fn written(tokenizer: &Tokenizer, ids: &[u32]) -> String {
    let bytes: Vec<u8> = ids.iter().flat_map(|&id| tokenizer.token_bytes(id)).collect();
    let strip = tokenizer.bytes.strips_leading_space;
    let bytes = if strip { bytes.strip_prefix(b" ").unwrap_or(&bytes) } else { &bytes };
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn small_vocabularies_agree() {
    for name in ["llama3", "glm4", "llama2"] {
        let tokenizer = Tokenizer::load(&Source::Folder(folder().join(name))).unwrap();
        assert!(check(&tokenizer, &read(&format!("{name}.json"))) > 20, "{name}");
    }
}

/// As [`small_vocabularies_agree`], where spaces are the business of the pre-tokenizer `Metaspace`.
#[test]
fn metaspace_agrees() {
    let golden = read("metaspace.json");
    for scheme in golden["schemes"].as_array().unwrap() {
        let name = scheme["prepend_scheme"].as_str().unwrap();
        let mut file = read("llama2/tokenizer.json");
        file["normalizer"] = Value::Null;
        file["pre_tokenizer"] = scheme["pre_tokenizer"].clone();
        let file = file.to_string();
        let (tokenizer, _) = testing::load_folder(&[("tokenizer.json", &file)]).unwrap();
        let cases = scheme["cases"].as_array().unwrap();
        assert!(cases.len() > 5);
        for case in cases {
            let text = case["text"].as_str().unwrap();
            assert_eq!(tokenizer.encode(text), ids(&case["ids"]), "{name} {text:?}");
            assert_eq!(tokenizer.encode_raw(text), ids(&case["raw"]), "{name} {text:?} raw");
            let special = tokenizer.encode_with_specials(text);
            assert_eq!(special, ids(&case["ids_with_specials"]), "{name} {text:?} with specials");
        }
    }
}

#[test]
#[ignore = "needs the file of the alias smollm2 in the cache (longreward pull smollm2)"]
fn smollm2_agrees() {
    let source = cached("smollm2").expect("smollm2 is not in the cache");
    let tokenizer = Tokenizer::load(&source).unwrap();
    let golden = read("smollm2.json");
    check(&tokenizer, &golden);
    let template = ChatTemplate::load(&source, &tokenizer).unwrap();
    check_rendered(&template, &golden["rendered"], &read("templates.json")["conversations"]);
}

#[test]
fn templates_agree() {
    let golden = read("templates.json");
    let tokenizer = Tokenizer::load(&Source::Folder(folder().join("llama3"))).unwrap();
    let rendered = golden["rendered"].as_array().unwrap();
    for name in ["chatml", "features", "glm-4", "llama-3.1"] {
        let path = folder().join("templates").join(format!("{name}.jinja"));
        let source = std::fs::read_to_string(path).unwrap();
        let template = ChatTemplate::new(name.into(), source, &tokenizer).unwrap();
        let of_this = rendered.iter().filter(|case| case["template"] == name).cloned().collect();
        check_rendered(&template, &Value::Array(of_this), &golden["conversations"]);
    }
}

fn check_rendered(template: &ChatTemplate, rendered: &Value, conversations: &Value) {
    let rendered = rendered.as_array().unwrap();
    assert!(!rendered.is_empty());
    for case in rendered {
        let name = case["conversation"].as_str().unwrap();
        let turns: Vec<Turn> = conversations[name].as_array().unwrap().iter().map(turn).collect();
        let with_reply = case["add_generation_prompt"].as_bool().unwrap();
        let text = template.render_as(&turns, with_reply).unwrap();
        assert_eq!(text, case["text"].as_str().unwrap(), "{} {name}", template.name());
    }
}

fn turn(message: &Value) -> Turn<'_> {
    Turn { role: message["role"].as_str().unwrap(), content: message["content"].as_str().unwrap() }
}

//! The page: template, style sheet, script and data in one file, under a policy that lets nothing
//! run but that script and nothing load at all.

use super::Error;
use super::agree::Agree;
use super::agreement::Agreement;
use super::embed::{answers, base64, blocks, index, script_json};
use super::load::Input;
use super::overview::{Overview, overview};
use minijinja::{AutoEscape, Environment};
use serde::Serialize;
use serde_json::Value;
use sha2::{Digest, Sha256};

const TEMPLATE: &str = include_str!("assets/page.html");
pub(super) const STYLE: &str = include_str!("assets/style.css");

/// In the order in which they are put together into one script.
const SCRIPTS: [&str; 11] = [
    include_str!("assets/dom.js"),
    include_str!("assets/data.js"),
    include_str!("assets/charts.js"),
    include_str!("assets/table.js"),
    include_str!("assets/candidates.js"),
    include_str!("assets/prompts.js"),
    include_str!("assets/verdict.js"),
    include_str!("assets/candidate.js"),
    include_str!("assets/diff.js"),
    include_str!("assets/compare.js"),
    include_str!("assets/main.js"),
];

/// What the template fills in.
#[derive(Serialize)]
struct View<'a> {
    policy: String,
    style: &'a str,
    script: &'a str,
    index: String,
    answers: String,
    overview: Overview,
    settings: &'a [(String, String)],
    agree: Option<&'a Value>,
    agreement: Option<&'a Agreement>,
    problems: Vec<String>,
    version: &'static str,
}

/// The whole page.
///
/// # Errors
/// A fault in the template or in packing the data.
pub fn render(input: &Input, agree: Option<&Agree>) -> Result<String, Error> {
    let (style, script) = (unix(STYLE), script());
    let problems = input.problems.iter().map(|problem| problem.to_string()).collect();
    let view = View {
        policy: policy(&script, &style),
        style: &style,
        script: &script,
        index: script_json(&index(input))?,
        answers: script_json(&answers(input))?,
        overview: overview(input),
        settings: &input.settings,
        agree: agree.map(|agree| &agree.tables),
        agreement: agree.and_then(|agree| agree.charts.as_ref()),
        problems,
        version: env!("CARGO_PKG_VERSION"),
    };
    let mut environment = Environment::new();
    environment.set_auto_escape_callback(|_| AutoEscape::Html);
    environment.set_undefined_behavior(minijinja::UndefinedBehavior::Strict);
    let page = environment.render_str(TEMPLATE, minijinja::value::Serde(view))?;
    Ok(with_blocks(&page, &blocks(&input.prompts)?))
}

/// Puts the prompts' blocks before the end of the body. They are letters of base 64 only.
fn with_blocks(page: &str, blocks: &[String]) -> String {
    let end = page.rfind("</body>").unwrap_or(page.len());
    let size: usize = blocks.iter().map(|block| block.len() + 60).sum();
    let mut whole = String::with_capacity(page.len() + size);
    whole.push_str(&page[..end]);
    for (position, block) in blocks.iter().enumerate() {
        whole.push_str(&format!("<script type=\"text/plain\" id=\"block-{position}\">{block}"));
        whole.push_str("</script>\n");
    }
    whole + &page[end..]
}

/// One function, so that nothing of it is global.
fn script() -> String {
    format!("(() => {{\n\"use strict\";\n{}}})();\n", unix(&SCRIPTS.concat()))
}

/// A browser hashes what it has read, and it reads every line break as one character.
pub(super) fn unix(text: &str) -> String {
    text.replace("\r\n", "\n")
}

/// Nothing may load, and of scripts and styles only ours may be used. `script` and `style` are the
/// exact text between their tags.
fn policy(script: &str, style: &str) -> String {
    let hash = |text: &str| base64(&Sha256::digest(text.as_bytes()));
    format!(
        "default-src 'none'; script-src 'sha256-{}'; style-src 'sha256-{}'; base-uri 'none'; \
         form-action 'none'",
        hash(script),
        hash(style)
    )
}

/// As [`policy`], for a page that has no script.
pub(super) fn policy_without_script(style: &str) -> String {
    let hash = base64(&Sha256::digest(style.as_bytes()));
    format!("default-src 'none'; style-src 'sha256-{hash}'; base-uri 'none'; form-action 'none'")
}

/// A text as it stands in an attribute or between tags.
pub fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            other => escaped.push(other),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_of_a_text_is_markup() {
        assert_eq!(
            escape("<a href=\"x\" & 'y'>é"),
            "&lt;a href=&quot;x&quot; &amp; &#39;y&#39;&gt;é"
        );
    }

    #[test]
    fn the_assets_can_stand_in_a_page() {
        for text in [script(), unix(STYLE)] {
            assert!(!text.contains("</") && !text.contains("<!--") && !text.contains('\r'));
        }
        // Texts become text nodes; nothing in the script may turn one into markup or code.
        let script = script().replace("http://www.w3.org/2000/svg", "");
        for word in ["innerHTML", "outerHTML", "insertAdjacent", "document.write", "eval(", "http"]
        {
            assert!(!script.contains(word), "{word}");
        }
    }

    #[test]
    fn blocks_stand_at_the_end_of_the_body() {
        let page = with_blocks("<body>x</body></html>", &["QQ==".to_owned()]);
        let block = "<script type=\"text/plain\" id=\"block-0\">QQ==</script>\n";
        assert_eq!(page, format!("<body>x{block}</body></html>"));
    }
}

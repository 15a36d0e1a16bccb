//! How likely continuations are, read from what servers tell about tokens.

use crate::chat::Message;
use crate::chat::wire::{ChatMessage, ChatToken, CompletionLogprobs, TopToken};

/// The score of a continuation of `len` tokens from the log-probabilities of a prompt that ends with it, of which
/// the first `prompt` tokens stand before it, and of the token after it: the continuation's, and
/// that of all likeliest next tokens together which begin with `closing`. `None` if tokens are
/// missing.
pub fn closed(told: &CompletionLogprobs, prompt: usize, len: usize, closing: &str) -> Option<f64> {
    let all = prompt + len + 1;
    if told.token_logprobs.len() != all || told.top_logprobs.len() != all {
        return None;
    }
    let own = told.token_logprobs[prompt..all - 1].iter().map(|logprob| logprob.map(f64::from));
    let own: f64 = own.sum::<Option<f64>>()?;
    if closing.is_empty() {
        return Some(own);
    }
    let next = told.top_logprobs.last()?.as_ref()?;
    let begins = |(token, _): &(&String, _)| token.starts_with(closing);
    let all: f64 = next.iter().filter(begins).filter_map(|(_, p)| p.as_f64()).map(f64::exp).sum();
    Some(own + all.ln())
}

/// The conversation that asks for one of the continuations and nothing else.
pub fn verdict_only(
    messages: &[Message],
    prefix: &str,
    continuations: &[String],
) -> Vec<ChatMessage> {
    let mut messages: Vec<ChatMessage> = messages.iter().map(ChatMessage::from).collect();
    let said = prefix.trim().trim_end_matches('[').trim_end();
    if !said.is_empty() {
        messages.push(ChatMessage::new("assistant", said));
    }
    let asked = format!(
        "Give your verdict alone, without brackets or any other text. Answer with exactly one of \
         these: {}.",
        continuations.join(", ")
    );
    match messages.last_mut() {
        Some(last) if last.role == "user" => last.append(&asked),
        _ => messages.push(ChatMessage::new("user", asked)),
    }
    messages
}

/// The logarithm of the probability that a reply begins with each of the alternatives, as far as the
/// likeliest tokens of its first place tell; infinitely low for those that they do not. `None` if
/// they tell of none.
///
/// A token stands for the alternative that it spells, else for the only one that begins with it.
/// Where it spells one and begins another (1 of 10), and the reply took it, the next token shares
/// its probability out.
pub fn alternatives_of(tokens: &[ChatToken], alternatives: &[String]) -> Option<Vec<f64>> {
    let first = tokens.iter().position(|token| !bare(&token.token).is_empty())?;
    let mut masses = vec![0.0f64; alternatives.len()];
    for TopToken { token, logprob, .. } in &tokens[first].top_logprobs {
        let (text, mass) = (bare(token), f64::from(*logprob).exp());
        if let Some(own) = alternative(text, alternatives) {
            masses[own] += mass;
            if text == bare(&tokens[first].token) {
                share(&mut masses, own, mass, text, tokens.get(first + 1), alternatives);
            }
        }
    }
    let told = masses.iter().any(|&mass| mass > 0.0);
    told.then(|| masses.into_iter().map(f64::ln).collect())
}

/// Without what stands around a verdict.
fn bare(token: &str) -> &str {
    token.trim_matches(|c: char| c.is_whitespace() || "[]*\"'`".contains(c))
}

fn alternative(text: &str, alternatives: &[String]) -> Option<usize> {
    if text.is_empty() {
        return None;
    }
    let exact = alternatives.iter().position(|alternative| alternative == text);
    exact.or_else(|| {
        let mut begun = (0..alternatives.len()).filter(|&k| alternatives[k].starts_with(text));
        begun.next().filter(|_| begun.next().is_none())
    })
}

/// Gives those alternatives their part of `mass` that go on from `text` with the next token.
fn share(
    masses: &mut [f64],
    own: usize,
    mass: f64,
    text: &str,
    next: Option<&ChatToken>,
    alternatives: &[String],
) {
    let Some(next) = next else { return };
    for TopToken { token, logprob, .. } in &next.top_logprobs {
        let longer = format!("{text}{}", token.trim_end());
        let other = alternatives.iter().position(|alternative| *alternative == longer);
        if let Some(other) = other.filter(|&other| other != own) {
            // Rounded sums may be a little more than there is.
            let part = (mass * f64::from(*logprob).exp()).min(masses[own]);
            masses[own] -= part;
            masses[other] += part;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn token(token: &str, top: &[(&str, f32)]) -> ChatToken {
        let top = top.iter().map(|&(token, p)| json!({"token": token, "logprob": p.ln()}));
        let value =
            json!({"token": token, "logprob": 0.0, "top_logprobs": top.collect::<Vec<_>>()});
        serde_json::from_value(value).unwrap()
    }

    fn ratings() -> Vec<String> {
        (0..=10).map(|n| n.to_string()).collect()
    }

    fn probabilities(tokens: &[ChatToken], alternatives: &[String]) -> Vec<f64> {
        let logs = alternatives_of(tokens, alternatives).unwrap();
        logs.into_iter().map(|x| (x.exp() * 1e4).round() / 1e4).collect()
    }

    #[test]
    fn the_first_token_that_says_something_is_read() {
        let tokens = [
            token(" [[", &[(" [[", 0.9)]),
            token("7", &[("7", 0.5), (" 8", 0.25), ("7", 0.1), ("ten", 0.1)]),
        ];
        let found = probabilities(&tokens, &ratings());
        assert_eq!((found[7], found[8], found.iter().sum::<f64>()), (0.6, 0.25, 0.85));
        assert_eq!(alternatives_of(&[token("Well", &[("Well", 1.0)])], &ratings()), None);
        assert_eq!(alternatives_of(&[], &ratings()), None);
    }

    #[test]
    fn one_and_ten_are_told_apart_by_the_next_token() {
        let one = [("1", 0.8), ("9", 0.2)];
        let apart = [token("1", &one), token("0", &[("0", 0.75), (".", 0.25)])];
        let found = probabilities(&apart, &ratings());
        assert_eq!((found[1], found[10], found[9]), (0.2, 0.6, 0.2));
        let whole = [token("10", &[("10", 0.8), ("1", 0.2)]), token(".", &[(".", 1.0)])];
        let found = probabilities(&whole, &ratings());
        assert_eq!((found[1], found[10]), (0.2, 0.8));
    }

    #[test]
    fn rounding_never_makes_a_probability_negative() {
        let sure = [token("1", &[("1", 1.0)]), token("0", &[("0", 1.000_001), ("0 ", 1e-6)])];
        let logs = alternatives_of(&sure, &ratings()).unwrap();
        assert!(logs.iter().all(|x| !x.is_nan()), "{logs:?}");
        assert_eq!(logs[1], f64::NEG_INFINITY);
    }

    #[test]
    fn labels_are_known_by_how_they_begin() {
        let labels = ["Fully supported", "Partially supported", "No support"].map(str::to_owned);
        let top = [("F", 0.5), ("Part", 0.25), ("No", 0.125), ("Not", 0.1)];
        assert_eq!(probabilities(&[token("F", &top)], &labels), [0.5, 0.25, 0.125]);
    }

    #[test]
    fn an_echo_counts_the_continuation_and_what_closes_it() {
        let told: CompletionLogprobs = serde_json::from_value(json!({
            "tokens": ["a", "b", "1", "0", "]]"],
            "token_logprobs": [null, -9.0, -1.0, -0.5, -0.1],
            "top_logprobs": [null, {}, {}, {}, {"]": -1.5, "]]": -0.5, "x": -3.0}],
            "text_offset": [],
        }))
        .unwrap();
        let closing = ((-1.5f64).exp() + (-0.5f64).exp()).ln();
        assert!((closed(&told, 2, 2, "]").unwrap() - (-1.5 + closing)).abs() < 1e-9);
        assert_eq!(closed(&told, 2, 2, ""), Some(-1.5));
        assert_eq!(closed(&told, 2, 2, "!"), Some(f64::NEG_INFINITY));
        // The token after the continuation is missing, or there is one too many.
        assert_eq!(closed(&told, 2, 3, "]"), None);
        assert_eq!(closed(&told, 2, 1, "]"), None);
    }

    #[test]
    fn the_verdict_is_asked_for_after_what_was_said() {
        let ask = |prefix: &str| {
            let messages = verdict_only(&[Message::user("Rate it.")], prefix, &ratings());
            messages.iter().map(|m| m.role.clone()).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(ask("It is good. [["), "user assistant user");
        assert_eq!(ask("[["), "user");
    }
}

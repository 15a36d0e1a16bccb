//! Numbers that are typed, checked before anything is done.

use crate::engine::SamplingParams;
use clap::builder::RangedU64ValueParser;
use std::str::FromStr;

/// A time limit, at most: longer ones are beyond what clocks can add.
const YEAR: u64 = 365 * 24 * 3600;

/// More than anybody has; each takes some memory.
const MOST: u64 = 1 << 20;

/// More samples of a prompt, or threads, than are of use.
const MANY: u64 = 1024;

/// Seconds of a time limit.
pub fn seconds() -> RangedU64ValueParser {
    RangedU64ValueParser::new().range(1..=YEAR)
}

/// One or more.
pub fn count() -> RangedU64ValueParser<usize> {
    RangedU64ValueParser::new().range(1..)
}

/// One or more of what is open at the same time.
pub fn at_once() -> RangedU64ValueParser<usize> {
    RangedU64ValueParser::new().range(1..=MOST)
}

/// One or more of what is of use in small numbers only.
pub fn some() -> RangedU64ValueParser<usize> {
    RangedU64ValueParser::new().range(1..=MANY)
}

/// # Errors
/// What the engine refuses.
pub fn temperature(text: &str) -> Result<f32, String> {
    sampling(text, |params, value| params.temperature = value)
}

/// # Errors
/// As [`temperature`].
pub fn top_p(text: &str) -> Result<f32, String> {
    sampling(text, |params, value| params.top_p = value)
}

/// # Errors
/// As [`temperature`].
pub fn min_p(text: &str) -> Result<f32, String> {
    sampling(text, |params, value| params.min_p = value)
}

/// # Errors
/// As [`temperature`].
pub fn repetition_penalty(text: &str) -> Result<f32, String> {
    sampling(text, |params, value| params.repetition_penalty = value)
}

/// A number that the engine takes as one of its parameters.
fn sampling(text: &str, set: impl FnOnce(&mut SamplingParams, f32)) -> Result<f32, String> {
    let value = number(text)?;
    let mut params = SamplingParams::default();
    set(&mut params, value);
    params.check().map_err(|refused| refused.to_string())?;
    Ok(value)
}

/// # Errors
/// No number, or one below 0.
pub fn not_negative(text: &str) -> Result<f64, String> {
    let value: f64 = number(text)?;
    if value >= 0.0 && value.is_finite() { Ok(value) } else { Err("must be 0 or more".to_owned()) }
}

/// # Errors
/// No number, or none above 0.
pub fn above_zero(text: &str) -> Result<f64, String> {
    let value = not_negative(text)?;
    if value > 0.0 { Ok(value) } else { Err("must be above 0".to_owned()) }
}

/// By how much a model's sizes are multiplied; its weights grow with the third power.
///
/// # Errors
/// No number, none above 0, or one above 10.
pub fn factor(text: &str) -> Result<f64, String> {
    let value = above_zero(text)?;
    if value <= 10.0 { Ok(value) } else { Err("must be at most 10".to_owned()) }
}

fn number<T: FromStr>(text: &str) -> Result<T, String> {
    text.parse().map_err(|_| format!("`{text}` is no number"))
}

#[cfg(test)]
mod tests {
    use super::super::parse_for_tests;

    #[test]
    fn values_that_can_not_be_are_refused_by_the_name_of_their_option() {
        const SAMPLE: &str = "sample --model m --data d --out o";
        const SCORE: &str = "score --model m --data d --responses r --out o";
        const THERE: &str = "score --judge-url u --judge-model m --data d --responses r --out o";
        const PAIRS: &str = "pairs --data d --scored s --out o";
        const GENERATE: &str = "generate --model m --prompt x";
        const DUMMY: &str = "dummy smollm2-135m --gguf g";
        const RANDOM: &str = "bench --dummy smollm2-135m";
        const SERVE: &str = "serve --model m";
        const VERIFY: &str = "verify s --model m --data d --responses r";
        const BENCH: &str = "bench --model m";
        const EVAL: &str = "eval longbench --data d --model m --out-dir o";
        for (command, option, bad, good) in [
            (SAMPLE, "--temperature", "nan", "0"),
            (SAMPLE, "--temperature", "-1", "2.5"),
            (SAMPLE, "--temperature", "inf", "1"),
            (SAMPLE, "--top-p", "0", "0.1"),
            (SAMPLE, "--top-p", "1.5", "1"),
            (SAMPLE, "--min-p", "2", "0.05"),
            (SAMPLE, "--repetition-penalty", "0", "1.1"),
            (SAMPLE, "--max-new-tokens", "0", "1"),
            (SAMPLE, "--samples", "0", "1"),
            (SAMPLE, "--samples", "100000000", "1024"),
            (GENERATE, "--top-p", "0", "0.5"),
            (GENERATE, "--samples", "0", "2"),
            (GENERATE, "--samples", "1000000000", "1024"),
            (DUMMY, "--factor", "1e9", "10"),
            (DUMMY, "--factor", "nan", "0.5"),
            (RANDOM, "--dummy-factor", "1e9", "2"),
            (RANDOM, "--new-tokens", "0", "1"),
            (RANDOM, "--shared --own", "513", "512"),
            (GENERATE, "--max-new-tokens", "0", "0 --prompt-logprobs --json"),
            (GENERATE, "--logprobs", "3", "3 --json"),
            (GENERATE, "--stop", "", "x"),
            (SCORE, "--max-reply-tokens", "0", "8"),
            (SCORE, "--threads", "0", "1"),
            (SCORE, "--threads", "3000", "1024"),
            (SCORE, "--batch-tokens", "0", "1"),
            (SCORE, "--max-sequences", "0", "1"),
            (THERE, "--context-tokens", "0", "1"),
            (THERE, "--request-timeout", "18446744073709551615", "600"),
            (PAIRS, "--min-margin", "nan", "0.5"),
            (PAIRS, "--min-margin", "-1", "0"),
            (PAIRS, "--max-length-ratio", "0", "1.5"),
            (SERVE, "--deadline", "18446744073709551615", "600"),
            (SERVE, "--deadline", "0", "1"),
            (SERVE, "--client-timeout", "0", "1"),
            (SERVE, "--max-open", "18446744073709551615", "1024"),
            (SERVE, "--max-connections", "0", "2048"),
            (SERVE, "--max-body", "0", "1000"),
            (EVAL, "--temperature", "nan", "0"),
            (VERIFY, "--sample", "0", "1"),
            (BENCH, "--prefill", "0", "1,2"),
            (BENCH, "--decode", "1,0", "1"),
        ] {
            let parse = |value| parse_for_tests(&format!("longreward {command} {option}={value}"));
            let told = parse(bad).map(drop).unwrap_err().to_string();
            let option = option.rsplit(' ').next().unwrap();
            assert!(told.contains(option), "{command} {option} {bad}: {told}");
            assert!(parse(good).is_ok(), "{command} {option} {good}");
        }
    }
}

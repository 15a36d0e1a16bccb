//! `longreward pull` and `longreward inspect`.

use super::args::{Common, Inspect, Pull};
use super::decoder::AnyDecoder;
use super::embedder::Bert;
use super::model::{self, Text};
use crate::tokenizer::{Tokenizer, Turn};
use anyhow::Result;
use kernels::kv::BLOCK;
use kernels::rope::RopeStyle;
use models::ModelConfig;
use models::config::{RopeConfig, RopeScaling, Yarn};
use models::source::Source;

/// Obtains a model and says where it lies.
///
/// # Errors
/// The model can't be found or fetched.
pub fn pull(args: &Pull) -> Result<()> {
    let found = models::source::resolve(&args.model)?;
    println!("{}", path(&found.source));
    Ok(())
}

fn path(source: &Source) -> std::path::Display<'_> {
    match source {
        Source::Folder(path) | Source::Gguf(path) => path.display(),
    }
}

/// Prints a model's configuration, chat template and memory plan; of an embedder its sizes.
///
/// # Errors
/// The model can't be found or read.
pub fn inspect(args: &Inspect) -> Result<()> {
    let common = &args.common;
    let found = models::source::resolve(&args.model)?;
    if models::config::read(&found.source).is_err()
        && let Ok(embedder) = Bert::open(&args.model)
    {
        println!("embedder        {}", found.name);
        println!("vectors         of {} numbers", embedder.dim());
        println!("context         {} tokens", embedder.max_tokens());
        return Ok(());
    }
    // Weights alone, as dummy writes them, have a memory plan, too.
    let text = model::open_text(&args.model).map(|(_, text)| text);
    if let Ok(text) = &text {
        model::check_tokens(text, models::config::read(&found.source)?.vocab)?;
    }
    let decoder = model::load(&found, common)?;
    println!("model           {}", text.as_ref().map_or(&found.name, |text| &text.name));
    print_config(decoder.config());
    match &text {
        Ok(text) => print_text(text),
        Err(error) => println!("tokenizer       none that can be used: {error:#}"),
    }
    print_memory(decoder, common)?;
    if let Ok(text) = text {
        let example = [Turn::user("Hello!")];
        println!("\na conversation as the model sees it:\n{}", text.template.render(&example)?);
    }
    Ok(())
}

fn print_text(text: &Text) {
    println!("vocabulary      {} tokens in the tokenizer", text.tokenizer.vocab_size());
    println!("stop tokens     {}", stop_tokens(&text.tokenizer));
    println!("template        {}", text.template.name());
}

fn print_config(config: &ModelConfig) {
    println!("architecture    {}", config.architecture.spec().name);
    println!("parameters      {:.1} M", config.parameters() as f64 / 1e6);
    println!("layers          {} of width {}", config.layers, config.hidden);
    println!(
        "heads           {} for queries, {} for keys and values, {} columns each",
        config.heads, config.kv_heads, config.head_dim
    );
    println!("feed-forward    {}", config.ffn);
    println!("logits          {}", config.vocab);
    println!("context         {} tokens", config.max_positions);
    println!("rope            {}", rope(&config.rope));
}

fn rope(rope: &RopeConfig) -> String {
    let RopeConfig { theta, rotated_dim, style, scaling } = rope;
    let pairs = match style {
        RopeStyle::HalfSplit => "halves paired",
        RopeStyle::Interleaved => "neighbours paired",
    };
    let scaling = match scaling {
        RopeScaling::None => String::new(),
        RopeScaling::Linear { factor } => format!(", all frequencies divided by {factor}"),
        RopeScaling::Llama3 { factor, original_positions, .. } => {
            format!(
                ", low frequencies divided by {factor} (trained on {original_positions} positions)"
            )
        }
        RopeScaling::Yarn(Yarn { factor, original_positions, .. }) => {
            format!(
                ", slow pairs slowed down {factor} times (trained on {original_positions} positions)"
            )
        }
    };
    format!("base {theta}, {rotated_dim} columns turned, {pairs}{scaling}")
}

/// Ids and what they are written as.
fn stop_tokens(tokenizer: &Tokenizer) -> String {
    let written = |&id: &u32| {
        format!("{id} {}", String::from_utf8_lossy(&tokenizer.token_bytes(id)).escape_debug())
    };
    let tokens: Vec<String> = tokenizer.stop_tokens().iter().map(written).collect();
    if tokens.is_empty() { "none".to_owned() } else { tokens.join(", ") }
}

fn print_memory(mut decoder: AnyDecoder, common: &Common) -> Result<()> {
    let (weights, per_token) = (decoder.bytes() as u64, decoder.bytes_per_token(common));
    let place = decoder.place()?;
    let tokens = decoder.kv_blocks(common)? * BLOCK;
    println!("\ndevice          {place}");
    println!("weights         {}", size(weights));
    println!("KV per token    {}", size(per_token as u64));
    println!("KV pool         {}", size((tokens * per_token) as u64));
    println!("tokens that fit {tokens}");
    Ok(())
}

/// Bytes with a binary unit.
pub fn size(bytes: u64) -> String {
    let units = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < units.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 { format!("{bytes} B") } else { format!("{value:.1} {}", units[unit]) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rope_is_told_in_words() {
        let scaling = RopeScaling::Llama3 {
            factor: 8.0,
            low_freq_factor: 1.0,
            high_freq_factor: 4.0,
            original_positions: 8192.0,
        };
        let style = RopeStyle::HalfSplit;
        let found = rope(&RopeConfig { theta: 500000.0, rotated_dim: 128, style, scaling });
        assert_eq!(
            found,
            "base 500000, 128 columns turned, halves paired, low frequencies divided by 8 (trained \
             on 8192 positions)"
        );
    }

    #[test]
    fn sizes_have_units() {
        assert_eq!(size(17), "17 B");
        assert_eq!(size(45 << 10), "45.0 KiB");
        assert_eq!(size(3 << 30), "3.0 GiB");
    }
}

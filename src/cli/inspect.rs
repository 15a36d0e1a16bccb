//! `longreward pull` and `longreward inspect`.

use super::args::{Common, Inspect, Pull};
use super::decoder::AnyDecoder;
use super::model;
use crate::tokenizer::Turn;
use anyhow::Result;
use kernels::kv::BLOCK;
use models::ModelConfig;
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

/// Prints a model's configuration, chat template and memory plan.
///
/// # Errors
/// The model can't be found or read.
pub fn inspect(args: &Inspect, common: &Common) -> Result<()> {
    let opened = model::open(&args.model, common)?;
    let config = opened.decoder.config();
    println!("model           {}", opened.text.name);
    print_config(config);
    println!("vocabulary      {} tokens in the tokenizer", opened.text.tokenizer.vocab_size());
    println!("stop tokens     {:?}", opened.text.tokenizer.stop_tokens());
    println!("template        {}", opened.text.template.name());
    print_memory(opened.decoder, common)?;
    let example = [Turn::user("Hello!")];
    println!("\na conversation as the model sees it:\n{}", opened.text.template.render(&example)?);
    Ok(())
}

fn print_config(config: &ModelConfig) {
    println!("architecture    {:?}", config.architecture);
    println!("parameters      {:.1} M", config.parameters() as f64 / 1e6);
    println!("layers          {} of width {}", config.layers, config.hidden);
    println!(
        "heads           {} for queries, {} for keys and values, {} columns each",
        config.heads, config.kv_heads, config.head_dim
    );
    println!("feed-forward    {}", config.ffn);
    println!("logits          {}", config.vocab);
    println!("context         {} tokens", config.max_positions);
    println!("rope            {:?}", config.rope);
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
fn size(bytes: u64) -> String {
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
    use super::size;

    #[test]
    fn sizes_have_units() {
        assert_eq!(size(17), "17 B");
        assert_eq!(size(45 << 10), "45.0 KiB");
        assert_eq!(size(3 << 30), "3.0 GiB");
    }
}

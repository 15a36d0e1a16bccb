//! Opening models as the options say.

use super::args::{Common, Dtype, KvType};
use super::decoder::AnyDecoder;
use crate::engine::{AnyRunner, Engine, Limits, Runner};
use crate::tokenizer::{ChatTemplate, Tokenizer, Turn};
use anyhow::{Result, bail, ensure};
use kernels::kv::{BLOCK, KvDtype};
use models::source::{Resolved, resolve};
use models::{DtypeChoice, KvPool, LoadOptions, ModelConfig};
use std::sync::Arc;

/// A checkpoint in memory.
pub struct Opened {
    pub decoder: AnyDecoder,
    pub text: Text,
}

/// What turns text into a checkpoint's tokens and back.
pub struct Text {
    pub tokenizer: Arc<Tokenizer>,
    pub template: Arc<ChatTemplate>,
    /// As typed, with the revision that was found.
    pub name: String,
}

/// Finds (and if need be fetches) a model and reads its tokenizer, not its weights.
///
/// # Errors
/// Names what is missing and the ways to get it.
pub fn open_text(model: &str) -> Result<(Resolved, Text)> {
    let found = resolve(model)?;
    let tokenizer = Tokenizer::load(&found.source)?;
    let template = ChatTemplate::load(&found.source, &tokenizer)?;
    let name = match &found.revision {
        Some(revision) => format!("{}@{revision}", found.name),
        None => found.name.clone(),
    };
    let (tokenizer, template) = (Arc::new(tokenizer), Arc::new(template));
    Ok((found, Text { tokenizer, template, name }))
}

/// Refuses a model whose embedding has no row for a token of a text or of the template's, before a record is found out
/// to have one. Control tokens that are never read may lie beyond: some checkpoints add one for padding.
///
/// # Errors
/// Names such a token.
pub fn check_tokens(text: &Text, vocab: usize) -> Result<()> {
    let Text { tokenizer, template, name } = text;
    // What the template complains of is told where it is used.
    let prompt = template.encode(tokenizer, &[Turn::user("")], "").unwrap_or_default();
    let largest = prompt.into_iter().max().unwrap_or_default().max(tokenizer.largest_encoded());
    let written = tokenizer.token_bytes(largest);
    ensure!(
        (largest as usize) < vocab,
        "{name}: token {largest} ({:?}) of the tokenizer has no row in the weights, which are for {vocab} tokens: they \
         don't belong together",
        String::from_utf8_lossy(&written)
    );
    let ends = tokenizer.stop_tokens().iter().map(|&id| id as usize + 1);
    let tokens = ends.fold(tokenizer.vocab_size(), usize::max);
    if tokens > vocab {
        tracing::warn!(
            "{name}: the tokenizer has {tokens} tokens, and the weights are for {vocab}: control tokens beyond can't be \
             read or written"
        );
    }
    Ok(())
}

/// Finds and loads a model.
///
/// # Errors
/// As [`open_text`], or what is wrong with the checkpoint.
pub fn open(model: &str, common: &Common) -> Result<Opened> {
    let (found, text) = open_text(model)?;
    check_tokens(&text, models::config::read(&found.source)?.vocab)?;
    let decoder = load(&found, common)?;
    Ok(Opened { decoder, text })
}

/// Loads the weights of a model that was found.
///
/// # Errors
/// What is wrong with the checkpoint.
pub fn load(found: &Resolved, common: &Common) -> Result<AnyDecoder> {
    let bar = super::progress::bytes_bar(&format!("loading {}", found.name));
    let mut show = |done, total| {
        bar.set_length(total);
        bar.set_position(done);
    };
    let decoder = AnyDecoder::load(&found.source, common, &mut show)?;
    bar.finish_and_clear();
    tracing::info!(
        "{}: {} MB of weights on {}",
        found.name,
        decoder.bytes() / 1_000_000,
        decoder.place()?
    );
    Ok(decoder)
}

/// # Errors
/// The device can't be opened.
pub fn load_options(common: &Common) -> Result<LoadOptions> {
    if common.kv_dtype == KvType::E4m3 {
        bail!("--kv-dtype e4m3 is for NVIDIA GPUs; leave it out");
    }
    if common.no_cascade {
        bail!("--no-cascade is for NVIDIA GPUs; leave it out");
    }
    let dtype = match common.dtype {
        Dtype::Auto => DtypeChoice::Auto,
        Dtype::F32 => DtypeChoice::F32,
        Dtype::F16 => DtypeChoice::F16,
        Dtype::Bf16 => DtypeChoice::Bf16,
        Dtype::Q8_0 => DtypeChoice::Q8_0,
        Dtype::E4m3 => bail!("--dtype e4m3 is for NVIDIA GPUs; leave it out, or take another type"),
    };
    Ok(LoadOptions { dtype, device: common.device.open()? })
}

/// Memory that is free for use, in bytes, within the limits of a container.
pub fn free_memory() -> u64 {
    let mut system = sysinfo::System::new();
    system.refresh_memory();
    let free = system.available_memory();
    system.cgroup_limits().map_or(free, |limits| free.min(limits.free_memory))
}

/// The type of keys and values: f32 where the weights are widened to it, else f16.
pub fn kv_dtype(common: &Common) -> KvDtype {
    match common.dtype {
        Dtype::F32 => KvDtype::F32,
        Dtype::Auto | Dtype::F16 | Dtype::Bf16 | Dtype::Q8_0 | Dtype::E4m3 => KvDtype::F16,
    }
}

/// Blocks of the KV pool: what `--kv-memory` holds, or half of what is free.
///
/// # Errors
/// Not even one block fits.
pub fn kv_blocks(config: &ModelConfig, common: &Common) -> Result<usize> {
    let memory = common.kv_memory.unwrap_or_else(|| free_memory() / 2);
    let block = (KvPool::bytes_per_token(config, kv_dtype(common)) * BLOCK) as u64;
    if memory < block {
        bail!(
            "{memory} bytes of KV memory hold no block of {BLOCK} tokens, which takes {block} \
             bytes; raise --kv-memory"
        );
    }
    Ok(usize::try_from(memory / block).unwrap_or(usize::MAX).min(u32::MAX as usize / BLOCK))
}

/// The engine over a decoder.
///
/// # Errors
/// Not enough memory for keys and values.
pub fn engine(decoder: AnyDecoder, common: &Common) -> Result<Engine<AnyRunner>> {
    let limits = decoder.limits(common);
    let runner = decoder.runner(common)?;
    let blocks = runner.blocks();
    tracing::info!("KV pool: {blocks} blocks, {} tokens", blocks * BLOCK);
    Ok(Engine::new(runner, limits))
}

/// What a step may hold where nothing else is typed: on the processor, or on a GPU.
pub fn limits(common: &Common, on_gpu: bool) -> Limits {
    // A step of a GPU with so many rows takes as long to multiply as to read the weights.
    let (tokens, sequences) = if on_gpu { (8192, 256) } else { (512, 64) };
    Limits {
        tokens_per_step: common.batch_tokens.unwrap_or(tokens).max(1),
        sequences: common.max_sequences.unwrap_or(sequences).max(1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tokenizer::testing::{load_folder, ranked_tokens, tiktoken_file};

    #[test]
    fn tokens_of_texts_and_templates_need_rows_and_other_control_tokens_do_not() {
        let file = tiktoken_file();
        let (tokenizer, template) = load_folder(&[("tokenizer.model", &file)]).unwrap();
        let (tokenizer, template) = (Arc::new(tokenizer), Arc::new(template));
        let text = Text { tokenizer, template, name: "m".to_owned() };
        // GLM-4's template ends with `<|assistant|>`, behind which are control tokens of other turns.
        let needed = ranked_tokens().len() + 9;
        assert!(needed < text.tokenizer.vocab_size());
        check_tokens(&text, needed).unwrap();
        let error = check_tokens(&text, needed - 1).unwrap_err().to_string();
        assert!(error.starts_with("m: token ") && error.contains("\"<|assistant|>\""), "{error}");
    }
}

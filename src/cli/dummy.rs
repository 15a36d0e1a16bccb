//! `longreward dummy`.

use super::args::{Dummy, GgufType};
use super::progress::bytes_bar;
use crate::pipeline::jsonl::keep_others;
use anyhow::Result;
use candle_core::quantized::GgmlDType;
use models::dummy::{GgufOptions, is_dummy_gguf, write_gguf};

/// Writes a dummy model.
///
/// # Errors
/// A shape and a type that do not fit, or a file that can't be written.
pub fn dummy(args: &Dummy) -> Result<()> {
    keep_others(&args.gguf, "random weights", |file| Ok(is_dummy_gguf(file)))?;
    let options = GgufOptions {
        shape: args.shape.clone(),
        factor: args.factor,
        seed: args.seed,
        dtype: dtype(args.matrix_type),
    };
    let bar = bytes_bar(&format!("writing {}", args.gguf.display()));
    write_gguf(&args.gguf, &options, &mut |done, total| {
        bar.set_length(total);
        bar.set_position(done);
    })?;
    bar.finish_and_clear();
    println!("{}", args.gguf.display());
    Ok(())
}

fn dtype(wanted: GgufType) -> GgmlDType {
    match wanted {
        GgufType::F32 => GgmlDType::F32,
        GgufType::F16 => GgmlDType::F16,
        GgufType::Bf16 => GgmlDType::BF16,
        GgufType::Q4_0 => GgmlDType::Q4_0,
        GgufType::Q4_1 => GgmlDType::Q4_1,
        GgufType::Q5_0 => GgmlDType::Q5_0,
        GgufType::Q5_1 => GgmlDType::Q5_1,
        GgufType::Q8_0 => GgmlDType::Q8_0,
        GgufType::Q4K => GgmlDType::Q4K,
        GgufType::Q5K => GgmlDType::Q5K,
        GgufType::Q6K => GgmlDType::Q6K,
    }
}

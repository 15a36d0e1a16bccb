//! `longreward dummy`.

use super::args::{Dummy, GgufType};
use super::inspect::size;
use super::progress::Writing;
use crate::pipeline::jsonl::keep_others;
use anyhow::{Result, ensure};
use candle_core::quantized::GgmlDType;
use models::dummy::{GgufOptions, config, is_dummy_gguf, write_gguf};
use std::path::Path;

/// Writes a dummy model.
///
/// # Errors
/// A shape and a type that do not fit, not enough room, or a file that can't be written.
pub fn dummy(args: &Dummy) -> Result<()> {
    keep_others(&args.gguf, "random weights", |file| Ok(is_dummy_gguf(file)))?;
    let options = GgufOptions {
        shape: args.shape.clone(),
        factor: args.factor,
        seed: args.seed,
        dtype: dtype(args.matrix_type),
    };
    let elements = config(&options.shape, options.factor)?.parameters();
    let bytes = (elements / options.dtype.block_size() * options.dtype.type_size()) as u64;
    check_room(bytes, free_disk(&args.gguf), &args.gguf)?;
    let mut progress = Writing::new(&args.gguf.display().to_string());
    write_gguf(&args.gguf, &options, &mut |done, total| progress.update(done, total))?;
    drop(progress);
    println!("{}: {}", args.gguf.display(), size(std::fs::metadata(&args.gguf)?.len()));
    Ok(())
}

/// Refuses a file that is larger than what is free for it, before hours are spent on it.
fn check_room(bytes: u64, free: Option<u64>, file: &Path) -> Result<()> {
    if let Some(free) = free {
        ensure!(
            bytes <= free,
            "{}: takes {}, but {} are free on the disk; take a smaller --factor or another --type",
            file.display(),
            size(bytes),
            size(free)
        );
    }
    Ok(())
}

/// Bytes that can be written beside a file; `None` where that can't be told.
#[cfg(unix)]
fn free_disk(file: &Path) -> Option<u64> {
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty());
    let disk = rustix::fs::statvfs(folder.unwrap_or(Path::new("."))).ok()?;
    Some(disk.f_bavail.saturating_mul(disk.f_frsize))
}

#[cfg(not(unix))]
fn free_disk(_: &Path) -> Option<u64> {
    None
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_the_disk_does_not_hold_is_refused() {
        let file = Path::new("d/dummy.gguf");
        check_room(5, Some(5), file).unwrap();
        check_room(5, None, file).unwrap();
        let told = check_room(5 << 30, Some(3 << 20), file).unwrap_err().to_string();
        assert!(told.starts_with("d/dummy.gguf: takes 5.0 GiB, but 3.0 MiB are free"), "{told}");
    }

    #[cfg(unix)]
    #[test]
    fn free_room_is_that_of_the_folder() {
        let folder = tempfile::tempdir().unwrap();
        assert!(free_disk(&folder.path().join("new")).is_some());
        assert_eq!(free_disk(&folder.path().join("no/new")), None);
    }
}

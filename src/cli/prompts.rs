//! `longreward prompts`.

use super::Ending;
use super::agree_args::PromptLang;
use crate::judge::Prompts;
use anyhow::{Context, Result, bail};
use clap::Args;
use std::path::{Path, PathBuf};

/// Writes the judge's built-in prompts to a folder, to be changed and used with --prompts
///
/// Example: longreward prompts --out mine; then longreward score --prompts mine …
#[derive(Debug, Args)]
pub struct PromptFiles {
    /// The folder; one that has such files already is refused
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    /// Language of the prompts; those for extracts are written in both
    #[arg(long, default_value = "en", value_name = "LANG")]
    pub lang: PromptLang,
}

/// Writes the prompts.
///
/// # Errors
/// The folder has prompts already, or can't be written.
pub fn prompts(args: &PromptFiles) -> Result<Ending> {
    let out = &args.out;
    let files = Prompts::public_files(args.lang.into());
    let there = files.iter().map(|(name, _)| out.join(name)).find(|file| file.exists());
    if let Some(file) = there {
        bail!("{}: is there already; choose another folder", file.display());
    }
    std::fs::create_dir_all(out).with_context(|| format!("{}: can't be created", out.display()))?;
    for (name, text) in files {
        write(&out.join(name), &text)?;
    }
    Ok(Ending::Done)
}

fn write(file: &Path, text: &str) -> Result<()> {
    std::fs::write(file, text).with_context(|| format!("{}: can't be written", file.display()))?;
    println!("{}", file.display());
    Ok(())
}

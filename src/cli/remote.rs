//! Models behind servers, as they are typed.

use super::model::Text;
use crate::chat::remote::{Key, Patience, Remote, Settings, Tokens};
use anyhow::{Context, Result, bail};
use clap::Args;
use clap::builder::RangedU64ValueParser;
use std::time::Duration;

/// A judge behind a server.
#[derive(Debug, Clone, Default, Args)]
pub struct JudgeServer {
    /// The judge is behind a server that speaks the OpenAI API: the base of its addresses, as in
    /// https://host/v1. The key is read from LONGREWARD_JUDGE_API_KEY, else OPENAI_API_KEY
    #[arg(long, value_name = "URL", requires = "judge_model")]
    pub judge_url: Option<String>,
    /// What the server calls it
    #[arg(long, value_name = "NAME", requires = "judge_url")]
    pub judge_model: Option<String>,
}

impl JudgeServer {
    pub fn named(&self) -> Option<Named<'_>> {
        const KEYS: &[&str] = &["LONGREWARD_JUDGE_API_KEY", "OPENAI_API_KEY"];
        let (url, model) = (self.judge_url.as_deref()?, self.judge_model.as_deref()?);
        Some(Named { url, model, keys: KEYS })
    }
}

/// A policy behind a server.
#[derive(Debug, Clone, Default, Args)]
pub struct PolicyServer {
    /// The model that writes the candidates is behind a server that speaks the OpenAI API. The key
    /// is read from LONGREWARD_POLICY_API_KEY, else OPENAI_API_KEY
    #[arg(long, value_name = "URL", requires = "policy_model")]
    pub policy_url: Option<String>,
    /// What the server calls it
    #[arg(long, value_name = "NAME", requires = "policy_url")]
    pub policy_model: Option<String>,
}

impl PolicyServer {
    pub fn named(&self) -> Option<Named<'_>> {
        const KEYS: &[&str] = &["LONGREWARD_POLICY_API_KEY", "OPENAI_API_KEY"];
        let (url, model) = (self.policy_url.as_deref()?, self.policy_model.as_deref()?);
        Some(Named { url, model, keys: KEYS })
    }
}

/// How servers are asked.
#[derive(Debug, Clone, Args)]
pub struct RemoteArgs {
    /// For a judge behind a server: whose tokens documents are cut by (a model as for --model; only
    /// its tokenizer is read). Best the judge's own; a longreward server must have the same
    #[arg(long, value_name = "M")]
    pub tokenizer: Option<String>,
    /// Tokens that a server's model reads and writes in all, where the server does not tell; needed
    /// where inputs are cut or whole documents shown
    #[arg(long, value_name = "N")]
    pub context_tokens: Option<usize>,
    /// Requests to a server that are on their way at the same time
    #[arg(long, default_value_t = 16, value_name = "N", value_parser = RangedU64ValueParser::<usize>::new().range(1..=1024))]
    pub concurrency: usize,
    /// How often a request to a server is sent until it is answered
    #[arg(long, default_value_t = 10, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub request_attempts: u32,
    /// Seconds that a request to a server may take
    #[arg(long, default_value_t = 600, value_name = "S", value_parser = clap::value_parser!(u64).range(1..))]
    pub request_timeout: u64,
}

impl Default for RemoteArgs {
    fn default() -> Self {
        Self {
            tokenizer: None,
            context_tokens: None,
            concurrency: 16,
            request_attempts: 10,
            request_timeout: 600,
        }
    }
}

/// A server's model.
#[derive(Debug, Clone, Copy)]
pub struct Named<'a> {
    pub url: &'a str,
    pub model: &'a str,
    /// Environment variables of the key, the first that is set counts.
    pub keys: &'static [&'static str],
}

impl Named<'_> {
    /// Reaches the server and finds out what it can do. `text` is what is known of its tokens.
    ///
    /// # Errors
    /// It can't be reached or used, or has other tokens.
    pub fn open(&self, args: &RemoteArgs, text: Option<&Text>) -> Result<Remote> {
        let patience = Patience { attempts: args.request_attempts, ..Patience::default() };
        let settings = Settings {
            url: self.url.to_owned(),
            model: self.model.to_owned(),
            key: Key::from_env(self.keys)?,
            key_variables: self.keys,
            concurrency: args.concurrency,
            timeout: Duration::from_secs(args.request_timeout),
            patience,
        };
        let tokens = text.map(|text| Tokens {
            tokenizer: text.tokenizer.clone(),
            template: text.template.clone(),
        });
        let remote = Remote::open(settings, tokens).context("the server can't be used")?;
        check_tokens(&remote, text)?;
        Ok(remote)
    }
}

/// Where a server tells what its tokens are, they must be those that documents are cut by.
fn check_tokens(remote: &Remote, text: Option<&Text>) -> Result<()> {
    let about = remote.about();
    match (about.get("tokenizer"), text) {
        (Some(theirs), Some(text)) if theirs != text.tokenizer.hash() => bail!(
            "--tokenizer {} is not that of the server's model (its hash is {}, theirs {theirs}); \
             give the checkpoint that is served there",
            text.name,
            text.tokenizer.hash()
        ),
        _ => Ok(()),
    }
}

//! Models behind servers, as they are typed.

use super::model::Text;
use super::values;
use crate::chat::remote::{Authorities, Key, Patience, Remote, RemoteError, Settings, Tokens};
use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use clap::builder::RangedU64ValueParser;
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
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
    #[arg(long, value_name = "N", value_parser = values::count())]
    pub context_tokens: Option<usize>,
    /// Requests to a server that are on their way at the same time
    #[arg(long, default_value_t = 16, value_name = "N", value_parser = RangedU64ValueParser::<usize>::new().range(1..=1024))]
    pub concurrency: usize,
    /// How often a request to a server is sent until it is answered
    #[arg(long, default_value_t = 10, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub request_attempts: u32,
    /// Seconds that a request to a server may take
    #[arg(long, default_value_t = 600, value_name = "S", value_parser = values::seconds())]
    pub request_timeout: u64,
    /// Certificates (PEM) of the authorities that an https server's certificate may come from, in
    /// the place of the built-in ones; else the environment variable SSL_CERT_FILE, if set
    #[arg(long, value_name = "FILE")]
    pub ca_file: Option<PathBuf>,
}

impl RemoteArgs {
    /// # Errors
    /// One of the options is given, though no model is behind a server.
    pub fn check(&self, has_server: bool) -> Result<()> {
        let usual = Self::default();
        let given = [
            ("--tokenizer", self.tokenizer.is_some()),
            ("--context-tokens", self.context_tokens.is_some()),
            ("--concurrency", self.concurrency != usual.concurrency),
            ("--request-attempts", self.request_attempts != usual.request_attempts),
            ("--request-timeout", self.request_timeout != usual.request_timeout),
            ("--ca-file", self.ca_file.is_some()),
        ];
        for (option, _) in given.iter().filter(|(_, given)| *given) {
            ensure!(
                has_server,
                "{option} is for a model behind a server, and none is named (--judge-url, --policy-url); leave it out"
            );
        }
        Ok(())
    }

    fn authorities(&self, url: &str) -> Result<Option<Authorities>> {
        if !url.trim().starts_with("https://") {
            return Ok(None);
        }
        let set = std::env::var_os("SSL_CERT_FILE").filter(|file| !file.is_empty());
        let file = self.ca_file.clone().or_else(|| set.map(PathBuf::from));
        Ok(file.map(|file| Authorities::read(&file)).transpose()?)
    }
}

impl Default for RemoteArgs {
    fn default() -> Self {
        Self {
            tokenizer: None,
            context_tokens: None,
            concurrency: 16,
            request_attempts: 10,
            request_timeout: 600,
            ca_file: None,
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
    /// It can't be reached or used, or has other tokens; or `cancel` was set meanwhile.
    pub fn open(
        &self,
        args: &RemoteArgs,
        text: Option<&Text>,
        cancel: &AtomicBool,
    ) -> Result<Remote> {
        let patience = Patience { attempts: args.request_attempts, ..Patience::default() };
        let settings = Settings {
            key: Key::from_env(self.keys)?,
            key_variables: self.keys,
            authorities: args.authorities(self.url)?,
            concurrency: args.concurrency,
            timeout: Duration::from_secs(args.request_timeout),
            patience,
            ..Settings::of(self.url, self.model)
        };
        let tokens = text.map(|text| Tokens {
            tokenizer: text.tokenizer.clone(),
            template: text.template.clone(),
        });
        let remote = Remote::open(settings, tokens, cancel).context("the server can't be used")?;
        check_tokens(&remote, text)?;
        Ok(remote)
    }
}

/// Whether a command ended because it was stopped before a server was reached.
pub fn was_stopped(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref(), Some(RemoteError::Stopped))
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

#[cfg(test)]
mod tests {
    use super::super::parse_for_tests;

    #[test]
    fn what_only_servers_need_is_refused_without_one() {
        let here = "longreward score --model m --data d --responses r --out o";
        let there = here.replace("--model m", "--judge-url u --judge-model m");
        for option in [
            "--tokenizer smollm2",
            "--context-tokens 5",
            "--concurrency 4",
            "--request-attempts 2",
            "--request-timeout 5",
            "--ca-file none",
        ] {
            let told = parse_for_tests(&format!("{here} {option}")).unwrap_err().to_string();
            assert!(told.starts_with(option.split(' ').next().unwrap()), "{told}");
            parse_for_tests(&format!("{there} {option}")).unwrap();
        }
        parse_for_tests(here).unwrap();
    }
}

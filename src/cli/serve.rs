//! `longreward serve`.

mod scoring;
mod tools;

use super::args::{Common, PromptArgs, WorkArgs};
use super::embedder::{self, Bert};
use super::method_args::{Means, MethodArgs};
use super::stages::Lazy;
use super::{Ending, decoder, model, signals, values};
use crate::chat::service::{Handle, service};
use crate::serve::{self, App, Settings};
use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use rayon::{ThreadPoolBuilder, current_num_threads};
use scoring::{Scoring, Search};
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::sync::watch;
use tools::{ServedEmbedder, ServedScorer};

/// Environment variable of the key.
const KEY: &str = "LONGREWARD_API_KEY";

/// Serves a model behind the OpenAI API
///
/// Example: longreward serve --model meta-llama/Llama-3.1-8B-Instruct --alias gpt-4 --port 8000
#[derive(Debug, Args)]
pub struct Serve {
    /// A folder, a .gguf file, a repo id or an alias
    #[arg(long, value_name = "M")]
    pub model: String,
    /// Another name that requests may use; may be given more than once
    #[arg(long, value_name = "NAME")]
    pub alias: Vec<String>,
    /// Address to listen on. Any but a loopback address needs a key or --allow-open
    #[arg(long, default_value = "127.0.0.1", value_name = "IP")]
    pub host: IpAddr,
    /// 0 takes a free one
    #[arg(long, default_value_t = 8000, value_name = "N")]
    pub port: u16,
    /// The first line of this file is the key that requests must bring; else the environment
    /// variable LONGREWARD_API_KEY, if set
    #[arg(long, value_name = "FILE")]
    pub api_key_file: Option<PathBuf>,
    /// Serve everybody on every address, without a key, and whatever page a browser shows
    #[arg(long)]
    pub allow_open: bool,
    /// Embedder for /v1/embeddings and for the evidence of /longreward/score, which otherwise
    /// searches by words (bm25), and with bm25+M by both
    #[arg(long, value_name = "M")]
    pub embedder: Option<String>,
    /// Samples that may wait and run; who comes on top is told to try again later
    #[arg(long, default_value_t = 1024, value_name = "N", value_parser = values::at_once())]
    pub max_open: usize,
    /// Largest body of a request, in bytes
    #[arg(long, default_value_t = 8 << 20, value_name = "N", value_parser = values::count())]
    pub max_body: usize,
    /// Seconds that a request may take
    #[arg(long, default_value_t = 600, value_name = "S", value_parser = values::seconds())]
    pub deadline: u64,
    /// Seconds that the head of a request may take to arrive, then its body, and that a client
    /// may leave a reply unread
    #[arg(long, default_value_t = 30, value_name = "S", value_parser = values::seconds())]
    pub client_timeout: u64,
    /// Connections that are open at once
    #[arg(long, default_value_t = 2048, value_name = "N", value_parser = values::at_once())]
    pub max_connections: usize,
    #[command(flatten)]
    pub prompts: PromptArgs,
    #[command(flatten)]
    pub method: MethodArgs,
    #[command(flatten)]
    pub common: Common,
}

/// Serves until it is interrupted; then finishes what is being worked on.
///
/// # Errors
/// A model that can't be loaded, an address that can't be used, or an engine that broke.
pub fn serve(args: &Serve) -> Result<()> {
    let common = &args.common;
    let key = key(args)?;
    ensure!(
        args.host.is_loopback() || key.is_some() || args.allow_open,
        "{} is not a loopback address: give a key (--api-key-file or {KEY}), or --allow-open to \
         serve everybody",
        args.host
    );
    let address = SocketAddr::new(args.host, args.port);
    let listener = TcpListener::bind(address).with_context(|| format!("can't use {address}"))?;
    let address = listener.local_addr()?;
    let judge = Lazy::open(&args.model, common)?;
    let text = judge.text()?;
    let (tokenizer, template) = (text.tokenizer.clone(), text.template.clone());
    let (handle, worker) = service(judge.engine()?, tokenizer, template, args.max_open);
    let handle = if judge.is_elsewhere()? {
        let threads = ThreadPoolBuilder::new().num_threads(current_num_threads()).build();
        handle.with_errands_on(threads.context("no threads for the embedder")?)
    } else {
        handle
    };
    let app = app(args, common, &judge, key, handle)?;
    let (stop, stopped) = watch::channel(false);
    let stop = Arc::new(stop);
    stop_on_interrupt(stop.clone())?;
    let server = start(app, listener, stopped)?;
    println!("serving {} on http://{address}", text.name);
    // This thread is one of the pool on which the engine computes.
    let worked = worker.run();
    stop.send_replace(true);
    match server.join() {
        Ok(served) => served?,
        Err(_) => bail!("the server's thread panicked"),
    }
    Ok(worked?)
}

/// The first line of the key's file, or what the environment says.
fn key(args: &Serve) -> Result<Option<String>> {
    let Some(file) = &args.api_key_file else {
        return Ok(std::env::var(KEY).ok().filter(|key| !key.is_empty()));
    };
    let text = std::fs::read_to_string(file)
        .with_context(|| format!("{}: the key can't be read", file.display()))?;
    let key = text.lines().next().unwrap_or_default().trim();
    ensure!(!key.is_empty(), "{}: the first line, the key, is empty", file.display());
    Ok(Some(key.to_owned()))
}

/// What is served.
fn app(
    args: &Serve,
    common: &Common,
    judge: &Lazy,
    key: Option<String>,
    handle: Handle,
) -> Result<App> {
    let settings = Settings {
        names: names(args),
        about: judge.settings()?,
        local_only: key.is_none() && !args.allow_open,
        api_key: key,
        max_body: args.max_body,
        deadline: Duration::from_secs(args.deadline),
        client_timeout: Duration::from_secs(args.client_timeout),
        max_connections: args.max_connections,
        sequences: model::limits(common, decoder::kind(common)? != "cpu").sequences,
    };
    let app = App::new(handle.clone(), settings);
    let (loaded, search) = evidence(args.embedder.as_deref());
    let scoring = scoring(args, judge, loaded, search)?;
    let bert = loaded.map(Bert::open).transpose()?.map(Arc::new);
    let app = match loaded.zip(bert.clone()) {
        Some((name, bert)) => {
            app.with_embedder(Arc::new(ServedEmbedder::new(name.to_owned(), bert)))
        }
        None => app,
    };
    Ok(app.with_scorer(Arc::new(ServedScorer::new(handle, scoring, bert))))
}

/// The embedder to load, and how evidence is found where a request does not say.
fn evidence(embedder: Option<&str>) -> (Option<&str>, Search) {
    match embedder {
        None | Some(embedder::BM25) => (None, Search::Words),
        Some(spec) => match embedder::without_words(spec) {
            Some(loaded) => (Some(loaded), Search::Both),
            None => (Some(spec), Search::Embedder),
        },
    }
}

/// What all requests for scores have in common.
fn scoring(args: &Serve, judge: &Lazy, loaded: Option<&str>, search: Search) -> Result<Scoring> {
    let (prompts, work) = (&args.prompts, WorkArgs::default());
    let Means { judging, calibration, .. } =
        Means::open(&args.method, prompts, &work, judge, String::new())?;
    Ok(Scoring {
        method: args.method.clone(),
        judging,
        calibration,
        context: judge.context()?,
        embedder: loaded.map(str::to_owned),
        search,
    })
}

/// The model as it was typed, without the folders of a path, and its aliases.
fn names(args: &Serve) -> Vec<String> {
    let path = Path::new(&args.model);
    let name = match path.file_name() {
        Some(name) if path.exists() => name.to_string_lossy().into_owned(),
        _ => args.model.clone(),
    };
    let mut names = vec![name];
    names.extend(args.alias.iter().cloned());
    names
}

/// Starts the threads of the server.
fn start(
    app: App,
    listener: TcpListener,
    stopped: watch::Receiver<bool>,
) -> Result<JoinHandle<std::io::Result<()>>> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .max_blocking_threads(8)
        .thread_name("serve")
        .enable_io()
        .enable_time()
        .build()
        .context("the server's threads did not start")?;
    let serve = move || runtime.block_on(serve::serve(app, listener, stopped));
    std::thread::Builder::new()
        .name("server".into())
        .spawn(serve)
        .context("the server's thread did not start")
}

/// Ctrl-C or a polite kill ends the server when its work is done; a second one at once.
fn stop_on_interrupt(stop: Arc<watch::Sender<bool>>) -> Result<()> {
    signals::on_interrupt(move || {
        if stop.send_replace(true) {
            std::process::exit(i32::from(Ending::Interrupted.code()));
        }
        eprintln!("\nstopping when what is being worked on is done (again to stop at once)");
    })
}

//! Conversations on a server that speaks the OpenAI API, this program's own or another.
//!
//! ```text
//! submit ─► queue ─► a few threads: a request at a time, repeated with pauses ─► wait
//! ```
//! What the OpenAI API can't do, this program's own server can: it scores continuations exactly as
//! the engine does at home, so that verdicts are the same. Of another server it is found out once,
//! at the start, how near to that one can come; replies then say so ([`Reply::Estimates`]).
//!
//! A reply that never comes is never replaced by anything: its call is [`ChatError::Lost`], or if
//! nobody is answered any more [`ChatError::Broken`].

mod call;
mod estimate;
mod failure;
mod gate;
mod http;
mod line;
mod server;
#[cfg(test)]
mod tests;
mod trust;

pub use line::Patience;
pub use trust::Authorities;

use super::{Call, CallId, Chat, ChatError, Reply, Usage};
use crate::tokenizer::{ChatTemplate, Tokenizer};
use http::{Http, base_url};
use line::Line;
use server::Server;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// A server's secret. It is shown nowhere.
#[derive(Clone, PartialEq, Eq)]
pub struct Key {
    secret: String,
    /// The environment variable that it comes from.
    variable: &'static str,
}

impl Key {
    /// The first of these environment variables that is set.
    ///
    /// # Errors
    /// A key that can't be sent.
    pub fn from_env(variables: &[&'static str]) -> Result<Option<Self>, RemoteError> {
        for &variable in variables {
            let secret = std::env::var(variable).unwrap_or_default();
            let secret = secret.trim();
            if !secret.is_empty() {
                return Self::new(secret, variable).map(Some);
            }
        }
        Ok(None)
    }

    fn new(secret: &str, variable: &'static str) -> Result<Self, RemoteError> {
        match secret.bytes().all(|byte| (0x21..0x7F).contains(&byte)) {
            true => Ok(Self { secret: secret.to_owned(), variable }),
            false => Err(RemoteError::Key { variable }),
        }
    }

    fn bearer(&self) -> String {
        format!("Bearer {}", self.secret)
    }
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        write!(f, "Key(from {})", self.variable)
    }
}

/// Where a model is asked, and how.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The base of the API's addresses, usually ending in `/v1`.
    pub url: String,
    /// As the server calls it.
    pub model: String,
    pub key: Option<Key>,
    /// Where a key would be looked for, to say so.
    pub key_variables: &'static [&'static str],
    /// Whose word counts for who the server is; the built-in ones', if not given.
    pub authorities: Option<Authorities>,
    /// Requests that are on their way at the same time, at most.
    pub concurrency: usize,
    /// For one request, from the first byte to the last.
    pub timeout: Duration,
    pub patience: Patience,
}

impl Settings {
    /// Without a key, and as patient as usual.
    pub fn of(url: impl Into<String>, model: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            model: model.into(),
            key: None,
            key_variables: &[],
            authorities: None,
            concurrency: 16,
            timeout: Duration::from_secs(600),
            patience: Patience::default(),
        }
    }
}

/// Why a server can't be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RemoteError {
    #[error("the server's address can't be used: {why}")]
    Url { why: &'static str },
    #[error("the key in {variable} holds characters that can't be sent")]
    Key { variable: &'static str },
    #[error("{}: the certificates of authorities can't be used: {why}", path.display())]
    Authorities { path: PathBuf, why: String },
    /// Before it was reached.
    #[error("it is not waited for any more")]
    Stopped,
    #[error(transparent)]
    Chat(#[from] ChatError),
    #[error("{url} has no model {model:?}; it has: {}", names.join(", "))]
    Model { url: String, model: String, names: Vec<String> },
}

/// What the tokens of a server's model are, where that is known here.
#[derive(Clone)]
pub struct Tokens {
    pub tokenizer: Arc<Tokenizer>,
    pub template: Arc<ChatTemplate>,
}

/// A model behind a server.
pub struct Remote {
    server: Arc<Server>,
    orders: Sender<(CallId, Call)>,
    replies: Receiver<(CallId, Result<Reply, ChatError>)>,
    /// Calls that were not handed out.
    open: usize,
    concurrency: usize,
    usage: Usage,
}

/// How long is waited at a time, so that one can look around.
const MOMENT: Duration = Duration::from_millis(100);

impl Remote {
    /// Finds out what the server can do, and is ready to ask it. `tokens` are those of its model; if
    /// they are not known, continuations are scored in a coarser way by servers of others.
    ///
    /// # Errors
    /// The server can't be reached, does not let us in, or has no such model; or `cancel` was set before
    /// it was reached.
    pub fn open(
        settings: Settings,
        tokens: Option<Tokens>,
        cancel: &AtomicBool,
    ) -> Result<Self, RemoteError> {
        let line = connect(&settings)?;
        let (stop, concurrency) = (line.stopper(), settings.concurrency);
        // A request may take long, so that this looks around beside it.
        let (give, take) = channel();
        std::thread::Builder::new()
            .name("remote".into())
            .spawn(move || {
                // Nobody waits if this fails.
                let _ = give.send(Server::open(line, &settings, tokens));
            })
            .map_err(|e| ChatError::Broken(format!("no thread for requests: {e}")))?;
        loop {
            match take.recv_timeout(MOMENT) {
                Ok(server) => return Self::start(server?, concurrency),
                Err(RecvTimeoutError::Disconnected) => {
                    return Err(ChatError::Broken("a request panicked".into()).into());
                }
                Err(RecvTimeoutError::Timeout) if cancel.load(Ordering::Relaxed) => {
                    stop.store(true, Ordering::Relaxed);
                    return Err(RemoteError::Stopped);
                }
                Err(RecvTimeoutError::Timeout) => {}
            }
        }
    }

    fn start(server: Server, concurrency: usize) -> Result<Self, RemoteError> {
        let (server, concurrency) = (Arc::new(server), concurrency.max(1));
        let (orders, inbox) = channel();
        let (give, replies) = channel();
        let inbox = Arc::new(Mutex::new(inbox));
        for k in 0..concurrency {
            let (server, inbox, give) = (server.clone(), inbox.clone(), give.clone());
            std::thread::Builder::new()
                .name(format!("remote {k}"))
                .spawn(move || work(&server, &inbox, &give))
                .map_err(|e| ChatError::Broken(format!("no thread for requests: {e}")))?;
        }
        Ok(Self { server, orders, replies, open: 0, concurrency, usage: Usage::default() })
    }

    /// What replies depend on besides the call, by name, as far as the server tells. Where it is
    /// counts (as `server`) only where it does not tell what checkpoint it has; else it is only noted
    /// (as `url`).
    pub fn about(&self) -> BTreeMap<String, String> {
        self.server.about()
    }

    /// Tokens that the model reads and writes in all, if the server tells.
    pub fn context(&self) -> Option<usize> {
        self.server.context()
    }

    fn take(
        &mut self,
        reply: (CallId, Result<Reply, ChatError>),
    ) -> (CallId, Result<Reply, ChatError>) {
        self.open = self.open.saturating_sub(1);
        if let (_, Ok(reply)) = &reply {
            self.usage += reply.usage();
        }
        reply
    }
}

fn connect(settings: &Settings) -> Result<Line, RemoteError> {
    let base = base_url(&settings.url)?;
    if settings.key.is_some() && base.starts_with("http://") && !http::is_loopback(&base) {
        tracing::warn!("the key goes to {base} unencrypted; better use https://");
    }
    let http = Http::new(base, settings);
    Ok(Line::new(http, settings.patience.clone(), settings.concurrency))
}

/// Answers calls until there are no more.
fn work(
    server: &Server,
    inbox: &Mutex<Receiver<(CallId, Call)>>,
    give: &Sender<(CallId, Result<Reply, ChatError>)>,
) {
    loop {
        // One waits with the lock, the others for the lock.
        let order = inbox.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok((id, call)) = order else { return };
        // A call that is never answered would be waited for for ever.
        let answer = catch_unwind(AssertUnwindSafe(|| server.answer(call)));
        let answer = answer.unwrap_or_else(|_| Err(ChatError::Broken("a request panicked".into())));
        if give.send((id, answer)).is_err() {
            return;
        }
    }
}

/// Requests that wait are not sent any more. (Those that are sent end with the program, or when they
/// are answered.)
impl Drop for Remote {
    fn drop(&mut self) {
        self.server.stop();
    }
}

impl Chat for Remote {
    fn submit(&mut self, id: CallId, call: Call) {
        // The threads that listen are there as long as this sender.
        if self.orders.send((id, call)).is_ok() {
            self.open += 1;
        }
    }

    fn wait(&mut self) -> Vec<(CallId, Result<Reply, ChatError>)> {
        let mut finished = Vec::new();
        if self.open > 0
            && let Ok(reply) = self.replies.recv_timeout(MOMENT)
        {
            finished.push(self.take(reply));
        }
        while let Ok(reply) = self.replies.try_recv() {
            finished.push(self.take(reply));
        }
        finished
    }

    fn appetite(&self) -> usize {
        2 * self.concurrency
    }

    fn usage(&self) -> Usage {
        self.usage
    }
}

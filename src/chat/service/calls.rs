//! The judge's side of the service.

use super::{Handle, Submission, Update};
use crate::chat::encode::{Encoded, Encoder};
use crate::chat::{Call, CallId, Chat, ChatError, Finish, Reply, Usage};
use std::collections::HashMap;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

/// Calls that may be in flight: they stand beside the samples that the house bounds.
const APPETITE: usize = 32;

/// [`Chat`] over a service. To be used on a thread that may block.
pub struct ServiceChat {
    handle: Handle,
    encoder: Encoder,
    sender: UnboundedSender<(u64, Update)>,
    updates: UnboundedReceiver<(u64, Update)>,
    open: HashMap<CallId, Partial>,
    finished: Vec<(CallId, Result<Reply, ChatError>)>,
    usage: Usage,
    lost: bool,
}

/// What came of a call so far.
#[derive(Default)]
struct Partial {
    text: String,
    finish: Option<Finish>,
    scores: Option<Vec<f64>>,
}

impl ServiceChat {
    pub(super) fn new(handle: Handle) -> Self {
        let encoder = Encoder::new(handle.tokenizer.clone(), handle.template.clone());
        let (sender, updates) = unbounded_channel();
        let (open, finished, usage) = (HashMap::new(), Vec::new(), Usage::default());
        Self { handle, encoder, sender, updates, open, finished, usage, lost: false }
    }

    /// Whether a call failed through no fault of its own.
    pub fn has_lost(&self) -> bool {
        self.lost
    }

    fn take(&mut self, id: CallId, update: Update) {
        let Some(open) = self.open.get_mut(&id) else { return };
        match update {
            Update::Piece { piece, .. } => open.text.push_str(&piece.text),
            Update::End { finish, .. } => open.finish = Some(finish),
            Update::Scores(scores) => open.scores = Some(scores),
            Update::Prompt(_) => {}
            Update::Failed(error) => self.close(id, Err(error)),
            Update::Done(usage) => {
                self.usage += usage;
                let Partial { text, finish, scores } = std::mem::take(open);
                let finish = finish.unwrap_or(Finish::Length);
                let reply = match scores {
                    Some(logprobs) => Reply::Scores { logprobs, usage },
                    None => Reply::Text { text, finish, usage },
                };
                self.close(id, Ok(reply));
            }
        }
    }

    fn close(&mut self, id: CallId, reply: Result<Reply, ChatError>) {
        self.open.remove(&id);
        self.lost |= matches!(reply, Err(ChatError::Lost(_)));
        self.finished.push((id, reply));
    }
}

impl Chat for ServiceChat {
    fn submit(&mut self, id: CallId, call: Call) {
        match self.encoder.encode(call) {
            Ok(Encoded { request, goes_on, stops }) => {
                let updates = self.sender.clone();
                self.open.insert(id, Partial::default());
                let (stops, ended, _permit) = (stops.into(), false, None);
                let submission = Submission { tag: id, goes_on, stops, updates, ended, _permit };
                self.handle.order(request, submission);
            }
            Err(error) => self.finished.push((id, Err(error))),
        }
    }

    fn wait(&mut self) -> Vec<(CallId, Result<Reply, ChatError>)> {
        if self.finished.is_empty()
            && !self.open.is_empty()
            && let Some((id, update)) = self.updates.blocking_recv()
        {
            self.take(id, update);
        }
        while let Ok((id, update)) = self.updates.try_recv() {
            self.take(id, update);
        }
        std::mem::take(&mut self.finished)
    }

    fn appetite(&self) -> usize {
        APPETITE
    }

    fn usage(&self) -> Usage {
        self.usage
    }
}

//! Work that was handed to the engine, up to its end or its deadline.

use super::{ApiError, App};
use crate::chat::service::{
    Busy, Continuations, Generation, Piece, PromptLogprobs, Sampled, Ticket, Update,
};
use crate::chat::{ChatError, Finish, Usage};
use tokio::time::{Instant, timeout_at};

/// The prompts of one request on their way.
pub struct Running {
    ticket: Ticket,
    deadline: Instant,
    /// The deadline, from the beginning.
    seconds: u64,
    /// Prompts that are not done.
    open: usize,
    /// Of those that are.
    usage: Usage,
}

impl Running {
    /// Hands prompts to the engine.
    ///
    /// # Errors
    /// The house is full.
    pub fn submit(app: &App, prompts: Vec<Generation>) -> Result<Self, ApiError> {
        let open = prompts.len();
        Self::of(app, open, app.handle.submit(prompts))
    }

    /// The same for continuations to be scored.
    ///
    /// # Errors
    /// The house is full.
    pub async fn submit_continuations(app: &App, asked: Continuations) -> Result<Self, ApiError> {
        let handle = app.handle.clone();
        // Encoding goes through the whole vocabulary.
        let submit = move || handle.submit_continuations(asked);
        let submitted = tokio::task::spawn_blocking(submit).await;
        let broke = |e| ApiError::internal(format!("the continuations were not encoded: {e}"));
        Self::of(app, 1, submitted.map_err(broke)?)
    }

    fn of(app: &App, open: usize, ticket: Result<Ticket, Busy>) -> Result<Self, ApiError> {
        let ticket = ticket.map_err(|busy| {
            // A guess: some seconds for each time that the batch must turn over.
            let turns = app.handle.open() / app.settings.sequences.max(1);
            ApiError::of_busy(busy, turns.clamp(1, 60) as u64)
        })?;
        let limit = app.settings.deadline;
        let (deadline, seconds) = (Instant::now() + limit, limit.as_secs());
        Ok(Self { ticket, deadline, seconds, open, usage: Usage::default() })
    }

    /// What happens next, with the place of its prompt; `None` when all are done.
    ///
    /// # Errors
    /// The deadline has passed, a prompt was refused, or the engine is gone.
    pub async fn next(&mut self) -> Result<Option<(usize, Update)>, ApiError> {
        if self.open == 0 {
            return Ok(None);
        }
        let next = timeout_at(self.deadline, self.ticket.next()).await;
        match next.map_err(|_| ApiError::timeout(self.seconds))? {
            Some((_, Update::Failed(error))) => Err(error.into()),
            Some((prompt, update)) => {
                if let Update::Done(usage) = update {
                    self.usage += usage;
                    self.open -= 1;
                }
                Ok(Some((prompt, update)))
            }
            None => Err(ChatError::Broken("the engine has stopped".into()).into()),
        }
    }

    /// What the prompts that are done have cost.
    pub fn usage(&self) -> Usage {
        self.usage
    }
}

/// A whole sample.
#[derive(Debug, Default)]
pub struct Sample {
    pub piece: Piece,
    pub finish: Option<Finish>,
    pub stop_token: Option<Sampled>,
}

/// What came of a prompt.
#[derive(Debug, Default)]
pub struct Answer {
    pub prompt: Option<PromptLogprobs>,
    pub samples: Vec<Sample>,
    /// Of continuations.
    pub scores: Option<Vec<f64>>,
}

/// Waits for everything: `n` samples of each of `prompts` prompts.
///
/// # Errors
/// As [`Running::next`].
pub async fn collect(
    mut running: Running,
    prompts: usize,
    n: usize,
) -> Result<(Vec<Answer>, Usage), ApiError> {
    let samples = || (0..n).map(|_| Sample::default()).collect();
    let answer = || Answer { samples: samples(), ..Answer::default() };
    let mut answers: Vec<Answer> = (0..prompts).map(|_| answer()).collect();
    while let Some((prompt, update)) = running.next().await? {
        let answer = &mut answers[prompt];
        match update {
            Update::Prompt(logprobs) => answer.prompt = Some(logprobs),
            Update::Piece { sample, piece } => answer.samples[sample].piece.join(piece),
            Update::End { sample, finish, stop_token } => {
                answer.samples[sample].finish = Some(finish);
                answer.samples[sample].stop_token = stop_token;
            }
            Update::Scores(scores) => answer.scores = Some(scores),
            Update::Done(_) | Update::Failed(_) => {}
        }
    }
    Ok((answers, running.usage()))
}

/// As the API spells it.
pub fn finish_reason(finish: Option<Finish>) -> String {
    match finish {
        Some(Finish::Stop) => "stop",
        Some(Finish::Length) | None => "length",
    }
    .to_owned()
}

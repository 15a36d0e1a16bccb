//! Continuous ragged batching over a paged KV cache. The engine knows token ids, never text.
//!
//! ```text
//! submit ─► jobs (what is wanted) ─► scheduler (pure plan) ─► batch (flat arrays)
//!                ▲                       │ blocks, prefix          │
//!                └── outcomes ◄─ sampler (rows in parallel) ◄─ runner (decoder, KV)
//! ```
//! [`Engine::step`] goes once round; meanwhile a runner whose device works can plan the step that most likely comes
//! next ([`runner::Step::next`]), which is made only if it comes. A result is a function of its request alone: random numbers
//! come from the request's seed and the token's index, so neither the batch, the cache, the
//! chunks of a prompt nor a preemption shows in it, as far as the runner's arithmetic does not.

mod batch;
mod blocks;
mod decoder_runner;
#[cfg(feature = "gpu")]
mod device_sampler;
#[cfg(feature = "gpu")]
mod gpu_runner;
pub mod guide;
#[cfg(all(test, feature = "gpu"))]
mod host_work;
mod jobs;
mod prefix;
pub mod request;
pub mod runner;
mod sampler;
mod scheduler;
#[cfg(test)]
mod tests;
#[cfg(test)]
pub(crate) mod toy;
#[cfg(test)]
mod workload;

pub use request::{
    BadLogits, Event, Finish, Generate, Refused, Request, RequestId, Sampled, SamplingParams, Task,
};
#[cfg(feature = "gpu")]
pub use runner::GpuRunner;
pub use runner::{AnyRunner, DecoderRunner, Runner};
pub use scheduler::Limits;

use batch::LogitRow;
use jobs::{Job, Outcome, Role, Want};
use kernels::kv::BLOCK;
use rayon::prelude::*;
use runner::{Answers, Step};
use sampler::{LogProbabilities, NotFinite};
use scheduler::{Chunk, Scheduler, SeqId};
use std::collections::{BTreeMap, HashMap};
use std::ops::Range;

/// Counts since the engine was made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stats {
    /// Tokens of all prompts that have been computed or found.
    pub prompt_tokens: u64,
    /// How many of them were found in the cache when their prompt was begun.
    pub cached_prompt_tokens: u64,
    /// Rows computed for prompt tokens, again ones after a preemption included.
    pub computed_prompt_tokens: u64,
    /// Rows computed in all.
    pub rows: u64,
    /// Tokens sampled and given out.
    pub generated_tokens: u64,
    pub steps: u64,
    /// Times that a sequence lost its blocks to an older one.
    pub preemptions: u64,
    /// Most blocks in use at the same time, of `blocks`.
    pub peak_blocks: usize,
    /// Blocks in use now.
    pub used_blocks: usize,
    pub blocks: usize,
}

/// Runs requests over one runner.
pub struct Engine<R: Runner> {
    runner: R,
    scheduler: Scheduler,
    jobs: BTreeMap<RequestId, Job>,
    owners: HashMap<SeqId, (RequestId, Role)>,
    /// Events that came up between steps.
    events: Vec<Event>,
    next: u64,
    stats: Stats,
}

impl<R: Runner> Engine<R> {
    /// An engine with nothing to do.
    pub fn new(runner: R, limits: Limits) -> Self {
        let scheduler = Scheduler::new(limits, runner.blocks());
        Self {
            runner,
            scheduler,
            jobs: BTreeMap::new(),
            owners: HashMap::new(),
            events: Vec::new(),
            next: 0,
            stats: Stats::default(),
        }
    }

    pub fn runner(&self) -> &R {
        &self.runner
    }

    /// Tokens that prompt and reply of one request may have together: the model's context, or
    /// what fits in memory.
    pub fn context(&self) -> usize {
        self.runner.context().min(self.runner.blocks() * BLOCK)
    }

    /// Whether there is nothing to compute and nothing to tell.
    pub fn is_idle(&self) -> bool {
        self.jobs.is_empty() && self.events.is_empty()
    }

    /// Counts so far.
    pub fn stats(&self) -> Stats {
        Stats {
            preemptions: self.scheduler.preemptions(),
            peak_blocks: self.scheduler.peak_blocks(),
            used_blocks: self.scheduler.cache().referenced(),
            blocks: self.scheduler.cache().total(),
            ..self.stats
        }
    }

    /// Sequences that run, and that wait.
    pub fn load(&self) -> (usize, usize) {
        (self.scheduler.running(), self.scheduler.waiting())
    }

    /// Queues a request; nothing is computed before [`Engine::step`].
    ///
    /// # Errors
    /// A request that can never be served. The others are not affected.
    pub fn submit(&mut self, request: Request) -> Result<RequestId, Refused> {
        let limit = self.admissible(&request)?;
        let id = RequestId(self.next);
        self.next += 1;
        let job = Job::new(request.task, request.prompt.len(), limit);
        let (logits_from, width) = (job.logits_from(), job.width());
        self.jobs.insert(id, job);
        match logits_from {
            Some(position) => {
                let seq = self.scheduler.add(request.prompt, position, width);
                self.owners.insert(seq, (id, Role::Prompt));
            }
            None => self.end_without_branches(id),
        }
        Ok(id)
    }

    /// Makes one step and tells what it brought, in an order that depends only on the requests.
    /// Returns at once, with what was left to tell, when nothing is to be computed.
    ///
    /// # Errors
    /// The runner's. The engine is of no use afterwards.
    pub fn step(&mut self) -> Result<Vec<Event>, R::Error> {
        let plan = self.scheduler.plan();
        if !plan.is_empty() {
            let outcomes = self.compute(&plan)?;
            self.count(&plan);
            self.scheduler.commit(&plan);
            for (row, outcome) in outcomes {
                match outcome {
                    Ok(outcome) => self.take(row, outcome)?,
                    Err(NotFinite) => self.fail(&row),
                }
            }
        }
        Ok(std::mem::take(&mut self.events))
    }

    /// Forgets a request; no event comes with its id any more. Returns whether it was there.
    pub fn cancel(&mut self, id: RequestId) -> bool {
        let sequences: Vec<SeqId> =
            self.owners.iter().filter(|(_, owner)| owner.0 == id).map(|(&seq, _)| seq).collect();
        sequences.into_iter().for_each(|seq| self.drop_sequence(seq));
        self.events.retain(|event| event.id() != id);
        self.jobs.remove(&id).is_some()
    }

    /// Ends a sample from above (a stop string was found in its text); the next step tells its
    /// end. Returns whether it was running.
    pub fn finish_sample(&mut self, id: RequestId, sample: usize) -> bool {
        let branch = self.jobs.get(&id).and_then(|job| job.branches.get(sample));
        let Some(seq) = branch.and_then(|branch| branch.seq) else { return false };
        self.end_sample(id, sample, Finish::Stop, None);
        self.drop_sequence(seq);
        self.end_if_complete(id);
        true
    }

    /// Recounts all blocks; when idle, none may be referenced.
    ///
    /// # Errors
    /// The invariant that does not hold: a defect of the engine.
    pub fn check(&self) -> Result<(), String> {
        let cache = self.scheduler.cache();
        cache.check()?;
        if self.jobs.is_empty() && cache.referenced() > 0 {
            return Err(format!("{} blocks are in use by nobody", cache.referenced()));
        }
        Ok(())
    }
}

/// Taking requests in.
impl<R: Runner> Engine<R> {
    /// The most tokens that a sample of this request may have, if it can be served at all.
    fn admissible(&self, request: &Request) -> Result<usize, Refused> {
        if request.prompt.is_empty() {
            return Err(Refused::Empty);
        }
        self.check_tokens(&request.prompt)?;
        let prompt = request.prompt.len();
        let context = self.runner.context();
        let (least, most, limit) = match &request.task {
            Task::Generate(generate) => {
                generate.params.check()?;
                let biased: Vec<u32> = generate.params.logit_bias.iter().map(|b| b.0).collect();
                self.check_tokens(&biased)?;
                let limit = generate.max_new_tokens.min(context.saturating_sub(prompt));
                let first = usize::from(generate.max_new_tokens > 0 && generate.n > 0);
                // A sample's last token is never computed itself.
                (first, limit.saturating_sub(1), limit)
            }
            Task::Score { continuations, closing } => {
                continuations.iter().try_for_each(|tokens| self.check_tokens(tokens))?;
                closing.iter().try_for_each(|tokens| self.check_tokens(tokens))?;
                let longest = continuations.iter().map(Vec::len).max().unwrap_or(0);
                (longest, longest, 0)
            }
        };
        if prompt + least > context {
            return Err(Refused::Context { prompt, reply: least, limit: context });
        }
        let room = self.runner.blocks() * BLOCK;
        if prompt + most > room {
            return Err(Refused::Memory { prompt, reply: most, limit: room });
        }
        Ok(limit)
    }

    fn check_tokens(&self, tokens: &[u32]) -> Result<(), Refused> {
        let vocab = self.runner.vocab();
        match tokens.iter().position(|&token| token as usize >= vocab) {
            Some(index) => Err(Refused::Token { token: tokens[index], index, vocab }),
            None => Ok(()),
        }
    }
}

/// A row of logits, and what was read from it.
type Read = (LogitRow, Result<Outcome, NotFinite>);

/// The way of one step.
impl<R: Runner> Engine<R> {
    /// Runs the plan, and reads the logits of each row for what they are wanted for.
    fn compute(&mut self, plan: &[Chunk]) -> Result<Vec<Read>, R::Error> {
        let Self { runner, scheduler, jobs, owners, .. } = self;
        let (batch, rows) = batch::build(plan, scheduler);
        let want = |row: &LogitRow| -> Option<Want> {
            let (id, role) = owners.get(&row.seq)?;
            Some(jobs.get(id)?.want(*role, row.position, scheduler.get(row.seq)?))
        };
        let wants: Vec<Want> = rows.iter().filter_map(want).collect();
        debug_assert_eq!(wants.len(), rows.len(), "each sequence has an owner");
        let vocab = runner.vocab();
        let mut outcomes: Vec<Result<Outcome, NotFinite>> = Vec::with_capacity(rows.len());
        let mut sink = |range: Range<usize>, answers: Answers| match answers {
            Answers::Logits(logits) => {
                let read = wants[range].par_iter().zip(logits.par_chunks(vocab));
                outcomes.par_extend(read.map(|(want, logits)| want.meet(logits)));
            }
            Answers::Outcomes(read) => outcomes.extend(read),
        };
        let next = || batch::foresee(plan, scheduler);
        let step = Step { batch: &batch, wants: &wants, next: &next };
        runner.run(step, &mut sink)?;
        debug_assert_eq!(outcomes.len(), rows.len(), "the runner hands out each row once");
        Ok(rows.into_iter().zip(outcomes).collect())
    }

    /// Ends the request that a row belongs to, and no other: rows are computed each by itself.
    fn fail(&mut self, row: &LogitRow) {
        let Some(&(id, _)) = self.owners.get(&row.seq) else { return };
        self.cancel(id);
        self.events.push(Event::Failed { id, why: BadLogits { position: row.position } });
    }

    fn count(&mut self, plan: &[Chunk]) {
        self.stats.steps += 1;
        for Chunk { seq, rows } in plan {
            let job = self.owners.get(seq).and_then(|(id, _)| self.jobs.get(id));
            let prompt = job.map_or(0, |job| job.prompt_tokens);
            self.stats.rows += rows.len() as u64;
            let of_prompt = rows.end.min(prompt).saturating_sub(rows.start);
            self.stats.computed_prompt_tokens += of_prompt as u64;
        }
    }

    /// Takes in what came of one row.
    fn take(&mut self, row: LogitRow, outcome: Outcome) -> Result<(), R::Error> {
        let Some(&(id, role)) = self.owners.get(&row.seq) else { return Ok(()) };
        match (role, outcome) {
            (Role::Prompt, Outcome::Given(read)) => self.take_prompt_row(id, row, read),
            (Role::Prompt, Outcome::Drawn(tokens)) => self.begin_samples(id, row.seq, tokens),
            (Role::Sample(k), Outcome::Drawn(tokens)) => {
                self.continue_sample(id, row.seq, k, tokens);
                Ok(())
            }
            (Role::Continuation(k), Outcome::Given(read)) => {
                let more = read.tokens.first().copied().or(read.closing).unwrap_or(0.0);
                self.continue_score(id, row, k, more);
                Ok(())
            }
            (Role::Sample(_), Outcome::Given(_)) | (Role::Continuation(_), _) => Ok(()),
        }
    }

    fn take_prompt_row(
        &mut self,
        id: RequestId,
        row: LogitRow,
        read: LogProbabilities,
    ) -> Result<(), R::Error> {
        let Some(job) = self.jobs.get_mut(&id) else { return Ok(()) };
        let next = row.position + 1;
        if next == job.prompt_tokens {
            return self.begin_scores(id, row.seq, &read.tokens, read.closing);
        }
        job.prompt_logprobs[next] = read.tokens.first().map(|&x| x as f32);
        job.prompt_top[next] = read.top;
        Ok(())
    }

    /// The prompt is computed: its logits have been read.
    fn end_prompt(&mut self, id: RequestId, seq: SeqId) {
        let Some(job) = self.jobs.get_mut(&id) else { return };
        job.cached = self.scheduler.get(seq).map_or(0, |sequence| sequence.reused());
        self.stats.prompt_tokens += job.prompt_tokens as u64;
        self.stats.cached_prompt_tokens += job.cached as u64;
    }

    /// The sequence of the prompt becomes those of its branches: forks, and itself the last one.
    fn branch(
        &mut self,
        id: RequestId,
        prompt: SeqId,
        mut branches: Vec<(Role, Vec<u32>)>,
    ) -> Result<(), R::Error> {
        let Some((last, tokens)) = branches.pop() else {
            self.drop_sequence(prompt);
            return Ok(());
        };
        for (role, tokens) in branches {
            let Some((seq, copy)) = self.scheduler.fork(prompt, &tokens) else { continue };
            self.own(id, role, seq);
            if let Some(copy) = copy {
                self.runner.copy_block(copy.from, copy.to)?;
            }
        }
        self.scheduler.extend(prompt, &tokens);
        self.own(id, last, prompt);
        Ok(())
    }

    fn own(&mut self, id: RequestId, role: Role, seq: SeqId) {
        self.owners.insert(seq, (id, role));
        let job = self.jobs.get_mut(&id);
        if let (Some(job), Role::Sample(k) | Role::Continuation(k)) = (job, role) {
            job.branches[k].seq = Some(seq);
        }
    }

    fn drop_sequence(&mut self, seq: SeqId) {
        self.scheduler.remove(seq);
        self.owners.remove(&seq);
    }
}

/// Samples.
impl<R: Runner> Engine<R> {
    fn begin_samples(
        &mut self,
        id: RequestId,
        prompt: SeqId,
        tokens: Vec<Sampled>,
    ) -> Result<(), R::Error> {
        self.end_prompt(id, prompt);
        self.tell_prompt(id);
        if tokens.is_empty() {
            self.drop_sequence(prompt);
            self.end_without_branches(id);
            return Ok(());
        }
        let mut going_on = Vec::new();
        for (k, sampled) in tokens.into_iter().enumerate() {
            let token = sampled.token;
            if self.take_token(id, k, sampled) {
                going_on.push((Role::Sample(k), vec![token]));
            }
        }
        self.branch(id, prompt, going_on)?;
        self.end_if_complete(id);
        Ok(())
    }

    fn continue_sample(&mut self, id: RequestId, seq: SeqId, k: usize, tokens: Vec<Sampled>) {
        for sampled in tokens {
            let token = sampled.token;
            if self.take_token(id, k, sampled) {
                self.scheduler.extend(seq, &[token]);
            } else {
                self.drop_sequence(seq);
                self.end_if_complete(id);
            }
        }
    }

    /// Tells a new token of a sample and returns whether the sample goes on after it.
    fn take_token(&mut self, id: RequestId, sample: usize, token: Sampled) -> bool {
        let Some(job) = self.jobs.get_mut(&id) else { return false };
        let Task::Generate(generate) = &job.task else { return false };
        if generate.stop_tokens.contains(&token.token) {
            self.end_sample(id, sample, Finish::Stop, Some(token));
            return false;
        }
        job.branches[sample].tokens += 1;
        let full = job.branches[sample].tokens >= job.limit;
        self.stats.generated_tokens += 1;
        let over = job.guides.get_mut(sample).and_then(|guided| guided.advance(token.token));
        let finish = over.or(full.then_some(Finish::Length));
        self.events.push(Event::Token { id, sample, token });
        if let Some(finish) = finish {
            self.end_sample(id, sample, finish, None);
        }
        finish.is_none()
    }

    fn end_sample(
        &mut self,
        id: RequestId,
        sample: usize,
        finish: Finish,
        stop_token: Option<Sampled>,
    ) {
        let branch = self.jobs.get_mut(&id).and_then(|job| job.branches.get_mut(sample));
        if let Some(branch) = branch {
            branch.ended = true;
            branch.seq = None;
            self.events.push(Event::Sample { id, sample, finish, stop_token });
        }
    }

    fn tell_prompt(&mut self, id: RequestId) {
        let Some(job) = self.jobs.get_mut(&id) else { return };
        if !job.prompt_logprobs.is_empty() {
            let logprobs = std::mem::take(&mut job.prompt_logprobs);
            let top = std::mem::take(&mut job.prompt_top);
            self.events.push(Event::Prompt { id, logprobs, top });
        }
    }
}

/// Scores, and the end of requests.
impl<R: Runner> Engine<R> {
    fn begin_scores(
        &mut self,
        id: RequestId,
        prompt: SeqId,
        firsts: &[f64],
        closed: Option<f64>,
    ) -> Result<(), R::Error> {
        self.end_prompt(id, prompt);
        let Some(job) = self.jobs.get_mut(&id) else { return Ok(()) };
        let rest = job.begin_scores(firsts, closed);
        let rest = rest.into_iter().map(|(k, tokens)| (Role::Continuation(k), tokens)).collect();
        self.branch(id, prompt, rest)?;
        self.end_if_complete(id);
        Ok(())
    }

    fn continue_score(&mut self, id: RequestId, row: LogitRow, k: usize, more: f64) {
        let Some(job) = self.jobs.get_mut(&id) else { return };
        job.branches[k].score += more;
        let tokens = self.scheduler.get(row.seq).map_or(0, |sequence| sequence.tokens().len());
        if row.position + 1 == tokens {
            job.branches[k].ended = true;
            self.drop_sequence(row.seq);
            self.end_if_complete(id);
        }
    }

    /// Ends a request whose branches have nothing to compute.
    fn end_without_branches(&mut self, id: RequestId) {
        self.tell_prompt(id);
        let Some(job) = self.jobs.get_mut(&id) else { return };
        if matches!(job.task, Task::Generate(_)) {
            for sample in 0..job.branches.len() {
                self.end_sample(id, sample, Finish::Length, None);
            }
        } else {
            job.begin_scores(&[], None);
        }
        self.end_if_complete(id);
    }

    fn end_if_complete(&mut self, id: RequestId) {
        let Some(job) = self.jobs.get(&id).filter(|job| job.all_ended()) else { return };
        if matches!(job.task, Task::Score { .. }) {
            let logprobs = job.branches.iter().map(|branch| branch.score).collect();
            self.events.push(Event::Scores { id, logprobs });
        }
        self.events.push(Event::Done {
            id,
            prompt_tokens: job.prompt_tokens,
            cached_prompt_tokens: job.cached,
            completion_tokens: job.completion_tokens(),
        });
        self.jobs.remove(&id);
    }
}

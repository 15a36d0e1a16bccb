//! Keeps the model busy: takes units of work from many records at once, and brings what comes
//! back to disk.
//!
//! ```text
//! Stage::open ─► jobs ─ Stage::next ─► units ─► calls ⇄ Chat
//!                  ▲                     │        ⇅
//!                  └─ Stage::take ◄─ findings   journal
//!                         └─► records ──► outputs
//! ```
//!
//! Units of the earliest open job go first, and a new job is opened only when no open one has a
//! unit that could start. So calls on one document stay together, its records are finished early,
//! and batches stay full across the border between documents.

use super::Error;
use super::ballot::{Ballot, VoteId, vote_key};
use super::journal::{Journal, json};
use super::outlook::{ByKind, Outlook, PLAIN, WEIGHED};
use super::plan::Target;
use super::progress::{Failure, Progress, Status};
use crate::chat::{Call, CallId, Chat, ChatError, Finish, Message, Reply, Sampling, Task};
use crate::hexadecimal::hexadecimal;
use crate::judge::{Ask, Ladder, Step, Verdict, Voting, unit_seed};
use serde::Serialize;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// What a stage runs with.
pub struct Session<'a> {
    pub chat: &'a mut dyn Chat,
    pub progress: &'a mut dyn Progress,
    /// Set from elsewhere (Ctrl-C) to stop cleanly after the replies that come next; calls that
    /// are in flight then stay queued in `chat`.
    pub cancel: &'a AtomicBool,
}

/// One question to the model.
pub(crate) struct Unit<P> {
    /// What the stage knows it by.
    pub part: P,
    /// Unique within the stage's output; with the global seed it gives the unit's seed.
    pub key: String,
    pub work: Work,
}

#[derive(Clone)]
pub(crate) enum Work {
    Judge(Ask),
    /// The seed in `sampling` is replaced by the unit's.
    Sample {
        message: String,
        sampling: Sampling,
    },
    /// As [`Work::Sample`], for a text that goes to the model without a chat template.
    Continue {
        text: String,
        sampling: Sampling,
    },
}

impl Work {
    fn voting(&self) -> Voting {
        match self {
            Work::Judge(ask) => ask.voting,
            Work::Sample { .. } | Work::Continue { .. } => Voting::default(),
        }
    }
}

/// The result of a unit.
pub(crate) enum Finding {
    Verdict(Verdict),
    Sample { text: String, finish: Finish },
}

impl Finding {
    /// The verdict, if it is one; the error says that it is none.
    pub fn verdict(self) -> Result<Verdict, String> {
        match self {
            Finding::Verdict(verdict) => Ok(verdict),
            Finding::Sample { .. } => Err("a sampled text stands where a verdict should".into()),
        }
    }
}

/// What becomes of a record.
pub(crate) enum Finished {
    /// To be added to the target of this number.
    Record {
        target: usize,
        id: String,
        line: String,
    },
    Failed(Failure),
}

impl Finished {
    pub(crate) fn record(
        target: usize,
        id: impl ToString,
        row: &impl Serialize,
    ) -> Result<Self, Error> {
        Ok(Self::Record { target, id: id.to_string(), line: json(row)? })
    }

    pub(crate) fn failed(id: impl ToString, reason: impl Into<String>) -> Self {
        Self::Failed(Failure { id: id.to_string(), reason: reason.into() })
    }
}

/// Turns input into units, and findings into records.
pub(crate) trait Stage {
    /// The work on one row of the input, or a few that belong together.
    type Job;
    /// Names a unit within its job.
    type Part: Copy;

    /// Opens the next job, in the order of the input; `None` when there are no more.
    fn open(&mut self) -> Option<Result<Self::Job, Error>>;

    /// A unit that can start now and was not given before. A job is over when it has none and all
    /// that it gave are taken back.
    fn next(&mut self, job: &mut Self::Job) -> Option<Unit<Self::Part>>;

    /// Takes what a unit found, or why it failed.
    fn take(
        &mut self,
        job: &mut Self::Job,
        part: Self::Part,
        found: Result<Finding, String>,
    ) -> Result<Vec<Finished>, Error>;

    /// About how many verdicts are to come that were not given as units, votes counted one by one;
    /// `open` are the jobs that are. `None` where records tell as much.
    fn ahead(&self, _open: &mut dyn Iterator<Item = &Self::Job>) -> Option<ByKind> {
        None
    }
}

/// Where a stage's results go. Target 0 is the one whose records are counted.
pub(super) struct Store {
    pub targets: Vec<Target>,
    pub journal: Journal,
}

impl Store {
    fn sync(&mut self) -> Result<(), Error> {
        self.journal.sync()?;
        // Backwards: records of the first output may rest on those of the others.
        self.targets.iter_mut().rev().try_for_each(|target| target.output.sync())
    }
}

/// How a run went.
#[derive(Debug, Default)]
pub(super) struct Tally {
    pub added: usize,
    pub failures: Vec<Failure>,
    /// Replies of the model.
    pub calls: u64,
    /// Replies from a cache of calls.
    pub kept_calls: u64,
    pub reused_calls: u64,
    pub cancelled: bool,
}

/// Works through all jobs of a stage, and says how far it got and whether something stopped it:
/// [`Error::Broken`] if the model stops working, or what the stage and the files return. All that was
/// finished before is on disk, and so is every reply that came. `status` says where it stands before.
pub(super) fn drive<S: Stage>(
    stage: S,
    seed: u64,
    status: Status,
    session: &mut Session,
    store: &mut Store,
) -> (Tally, Result<(), Error>) {
    let (open, flights, tally) = (BTreeMap::new(), HashMap::new(), Tally::default());
    let votes = Polls { ballots: HashMap::new(), waiting: VecDeque::new() };
    let mut driver = Driver {
        stage,
        seed,
        status,
        session,
        store,
        open,
        flights,
        ids: 0,
        jobs: 0,
        tally,
        votes,
        outlook: Outlook::default(),
        synced: Instant::now(),
    };
    let worked = driver.work();
    let drained = if let Err(Error::Broken(_)) = worked { driver.drain() } else { Ok(()) };
    let synced = driver.store.sync();
    (driver.tally, worked.and(drained).and(synced))
}

/// How long replies to calls in flight are waited for when the model has stopped working.
const DRAIN: Duration = Duration::from_secs(10);
/// What is written survives the program, however that ends; a machine that loses its power loses what was written
/// for so long.
const BETWEEN_SYNCS: Duration = Duration::from_secs(1);
/// A model that is gone may say at once that there is nothing.
const PAUSE: Duration = Duration::from_millis(10);

/// What [`Chat::wait`] gives.
type Replies = Vec<(CallId, Result<Reply, ChatError>)>;

/// A unit and the number of its job.
type Numbered<S> = (usize, Unit<<S as Stage>::Part>);

struct Driver<'a, 's, S: Stage> {
    stage: S,
    seed: u64,
    status: Status,
    session: &'a mut Session<'s>,
    store: &'a mut Store,
    /// By number, so in the order of the input.
    open: BTreeMap<usize, Open<S::Job>>,
    flights: HashMap<CallId, Flight<S::Part>>,
    /// Calls submitted so far.
    ids: CallId,
    /// Jobs opened so far.
    jobs: usize,
    tally: Tally,
    votes: Polls<S::Part>,
    outlook: Outlook,
    /// When everything was on disk.
    synced: Instant,
}

/// Units that want several verdicts.
struct Polls<P> {
    /// By key.
    ballots: HashMap<String, Ballot>,
    /// Votes that are not begun yet.
    waiting: VecDeque<Begun<P>>,
}

/// A unit, or one vote on it, that can be begun.
struct Begun<P> {
    job: usize,
    part: P,
    /// The vote's own, if it is one.
    key: String,
    vote: Option<VoteId>,
    work: Work,
}

struct Open<J> {
    job: J,
    /// Units that were given and not taken back.
    out: usize,
}

/// A unit whose call is in flight.
struct Flight<P> {
    job: usize,
    part: P,
    key: String,
    /// Hash of the call.
    call: String,
    /// `None` for a sample, which takes a single call.
    ladder: Option<Ladder>,
    vote: Option<VoteId>,
    /// Replies so far.
    replies: u32,
}

/// What a reply leads to.
enum Next {
    Call(Call),
    Found(Result<Finding, ChatError>),
}

impl<P> Flight<P> {
    /// See [`Outlook`].
    fn kind(&self) -> usize {
        if self.ladder.as_ref().is_some_and(Ladder::weighs) { WEIGHED } else { PLAIN }
    }

    fn step(&mut self, reply: Result<Reply, ChatError>) -> Next {
        let Some(ladder) = &mut self.ladder else {
            return Next::Found(reply.and_then(sampled));
        };
        match ladder.next(reply) {
            Step::Call(call) => Next::Call(call),
            Step::Done(verdict) => Next::Found(Ok(Finding::Verdict(verdict))),
            Step::Failed(error) => Next::Found(Err(error)),
        }
    }
}

impl<S: Stage> Driver<'_, '_, S> {
    fn work(&mut self) -> Result<(), Error> {
        loop {
            self.fill()?;
            self.sync()?;
            self.report();
            if self.cancelled() || self.flights.is_empty() {
                return Ok(());
            }
            let mut replies = self.wait()?.into_iter();
            while let Some((id, reply)) = replies.next() {
                let taken = self.reply(id, reply);
                if taken.is_err() {
                    // The others are noted, and that is all.
                    replies.for_each(|(id, _)| _ = self.flights.remove(&id));
                    return taken;
                }
            }
        }
    }

    /// The next replies. They are noted before anything is made of the first, which may end the run.
    fn wait(&mut self) -> Result<Replies, Error> {
        let before = self.session.chat.kept();
        let replies = self.session.chat.wait();
        let kept = self.session.chat.kept() - before;
        for (id, reply) in &replies {
            let Some(flight) = self.flights.get(id) else { continue };
            self.tally.calls += u64::from(!matches!(reply, Err(ChatError::Broken(_))));
            if let Ok(reply) = reply {
                self.store.journal.add(&flight.key, &flight.call, reply)?;
            }
        }
        self.tally.calls = self.tally.calls.saturating_sub(kept);
        self.tally.kept_calls += kept;
        Ok(replies)
    }

    /// Notes what is still answered, so that the next run need not ask for it.
    fn drain(&mut self) -> Result<(), Error> {
        let end = Instant::now() + DRAIN;
        while !self.flights.is_empty() && Instant::now() < end && !self.cancelled() {
            let replies = self.wait()?;
            replies.iter().for_each(|(id, _)| _ = self.flights.remove(id));
            if replies.is_empty() {
                std::thread::sleep(PAUSE);
            }
        }
        Ok(())
    }

    /// Waits for the disk, now and then: the model waits, too.
    fn sync(&mut self) -> Result<(), Error> {
        if self.synced.elapsed() >= BETWEEN_SYNCS {
            self.store.sync()?;
            self.synced = Instant::now();
        }
        Ok(())
    }

    fn cancelled(&mut self) -> bool {
        self.tally.cancelled |= self.session.cancel.load(Ordering::Relaxed);
        self.tally.cancelled
    }

    fn report(&mut self) {
        let Tally { added, failures, calls, kept_calls, .. } = &self.tally;
        let status = Status {
            done: self.status.done + added,
            failed: failures.len(),
            calls: calls + kept_calls,
            in_flight: self.flights.len(),
            calls_left: self.calls_left(),
            ..self.status
        };
        self.session.progress.update(&status);
    }

    /// About how many calls are to come.
    fn calls_left(&self) -> Option<u64> {
        let mut unfinished = self.stage.ahead(&mut self.open.values().map(|open| &open.job))?;
        self.flights.values().for_each(|flight| unfinished[flight.kind()] += 1.0);
        unfinished[WEIGHED] += self.votes.waiting.len() as f64;
        self.outlook.left(unfinished)
    }

    /// Submits calls until the model has enough.
    fn fill(&mut self) -> Result<(), Error> {
        while self.flights.len() < self.session.chat.appetite().max(1) && !self.cancelled() {
            if let Some(vote) = self.votes.waiting.pop_front() {
                self.begin(vote)?;
                continue;
            }
            let Some((job, unit)) = self.ready()? else { break };
            self.start(job, unit)?;
        }
        Ok(())
    }

    /// The next unit, and the number of its job.
    fn ready(&mut self) -> Result<Option<Numbered<S>>, Error> {
        loop {
            for (&number, open) in &mut self.open {
                if let Some(unit) = self.stage.next(&mut open.job) {
                    open.out += 1;
                    return Ok(Some((number, unit)));
                }
            }
            self.open.retain(|_, open| open.out > 0);
            let Some(job) = self.stage.open() else { return Ok(None) };
            self.open.insert(self.jobs, Open { job: job?, out: 0 });
            self.jobs += 1;
        }
    }

    fn start(&mut self, job: usize, unit: Unit<S::Part>) -> Result<(), Error> {
        let Unit { part, key, work } = unit;
        let voting = work.voting();
        if voting.count <= 1 {
            return self.begin(Begun { job, part, key, vote: None, work });
        }
        // They share their prompt: begun one after the other, it is computed once.
        let votes = (0..voting.count).map(|number| {
            let (vote, work) = ((key.clone(), number), work.clone());
            Begun { job, part, key: vote_key(&vote), vote: Some(vote), work }
        });
        self.votes.waiting.extend(votes);
        self.votes.ballots.insert(key, Ballot::new(voting));
        Ok(())
    }

    fn begin(&mut self, begun: Begun<S::Part>) -> Result<(), Error> {
        let Begun { job, part, key, vote, work } = begun;
        let (ladder, first) = begin(work, unit_seed(self.seed, &key));
        let call = String::new();
        self.advance(Flight { job, part, key, call, ladder, vote, replies: 0 }, first)
    }

    /// Submits the next call of a unit, after all that an earlier run has the reply to.
    fn advance(&mut self, mut flight: Flight<S::Part>, mut call: Call) -> Result<(), Error> {
        loop {
            flight.call = hexadecimal(&call.hash()[..16]);
            let Some(reply) = self.store.journal.get(&flight.call)? else { break };
            self.tally.reused_calls += 1;
            match self.step(&mut flight, Ok(reply)) {
                Next::Call(next) => call = next,
                Next::Found(found) => return self.found(flight, found),
            }
        }
        self.session.chat.submit(self.ids, call);
        self.flights.insert(self.ids, flight);
        self.ids += 1;
        Ok(())
    }

    fn reply(&mut self, id: CallId, reply: Result<Reply, ChatError>) -> Result<(), Error> {
        let flight = self.flights.remove(&id);
        let mut flight = flight.ok_or_else(|| {
            Error::Broken(format!("it answered call {id}, which nobody waits for"))
        })?;
        match self.step(&mut flight, reply) {
            Next::Call(call) => self.advance(flight, call),
            Next::Found(found) => self.found(flight, found),
        }
    }

    fn step(&mut self, flight: &mut Flight<S::Part>, reply: Result<Reply, ChatError>) -> Next {
        flight.replies += 1;
        self.outlook.reply();
        let next = flight.step(reply);
        if let Next::Found(_) = next {
            self.outlook.finished(flight.kind(), flight.replies);
        }
        next
    }

    /// Delivers what a unit found, if it was no vote or the last one.
    fn found(
        &mut self,
        flight: Flight<S::Part>,
        found: Result<Finding, ChatError>,
    ) -> Result<(), Error> {
        let Flight { job, part, vote, .. } = flight;
        // A broken model ends the run, whatever the other votes are.
        let (Some((unit, number)), false) = (vote, matches!(found, Err(ChatError::Broken(_))))
        else {
            return self.deliver(job, part, found);
        };
        let Some(ballot) = self.votes.ballots.get_mut(&unit) else { return Ok(()) };
        let Some(found) = ballot.put(number, found) else { return Ok(()) };
        self.votes.ballots.remove(&unit);
        self.deliver(job, part, found)
    }

    /// Gives a finding to its job, and writes the records that are finished by it.
    fn deliver(
        &mut self,
        job: usize,
        part: S::Part,
        found: Result<Finding, ChatError>,
    ) -> Result<(), Error> {
        let found = match found {
            Err(ChatError::Broken(why)) => return Err(Error::Broken(why)),
            found => found.map_err(|error| error.to_string()),
        };
        // A job stays open as long as units of it are out.
        let Some(open) = self.open.get_mut(&job) else { return Ok(()) };
        open.out -= 1;
        for finished in self.stage.take(&mut open.job, part, found)? {
            match finished {
                Finished::Record { target, id, line } => {
                    self.store.targets[target].output.append(id, &line)?;
                    self.tally.added += usize::from(target == 0);
                }
                Finished::Failed(failure) => {
                    self.session.progress.warn(&failure.to_string());
                    self.tally.failures.push(failure);
                }
            }
        }
        Ok(())
    }
}

/// The first call of a unit, and what its reply goes to.
fn begin(work: Work, seed: u64) -> (Option<Ladder>, Call) {
    match work {
        Work::Judge(ask) => {
            let mut ladder = Ladder::new(ask, seed);
            let first = ladder.first();
            (Some(ladder), first)
        }
        Work::Sample { message, sampling } => {
            let task = Task::Generate(Sampling { seed, ..sampling });
            (None, Call { messages: vec![Message::user(message)], prefix: String::new(), task })
        }
        Work::Continue { text, sampling } => {
            let task = Task::Generate(Sampling { seed, ..sampling });
            (None, Call { messages: Vec::new(), prefix: text, task })
        }
    }
}

fn sampled(reply: Reply) -> Result<Finding, ChatError> {
    match reply {
        Reply::Text { text, finish, .. } => Ok(Finding::Sample { text, finish }),
        Reply::Scores { .. } | Reply::Estimates { .. } => {
            Err(ChatError::Refused("the model answered with scores where a text was asked".into()))
        }
    }
}

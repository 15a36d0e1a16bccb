//! The stages of the pipeline as commands.
//!
//! A stage's files are opened and checked before its model is loaded: wrong input is told at once,
//! and where nothing is left to do no model is loaded at all.

use super::args::{
    ChunkInfo, Common, InputArgs, JudgeArgs, KvType, Language, PairArgs, PairFormat, Pairs,
    PromptArgs, Run, Sample, SamplingArgs, Score, WorkArgs,
};
use super::method_args::score_options;
use super::model::{self, Text};
use super::progress::Reporter;
use super::remote::{Named, RemoteArgs};
use super::{Ending, decoder, embedder};
use crate::bench::{Recorder, StandIn};
use crate::chat::cache::{Cached, CallCache};
use crate::chat::local::Local;
use crate::chat::remote::Remote;
use crate::chat::{Chat, Sampling};
use crate::engine::{AnyRunner, Engine};
use crate::judge::{Calibrations, Judge, LangChoice, Prompts, Settings as JudgeSettings};
use crate::pipeline::chunk_info::{self, ChunkInfoPlan};
use crate::pipeline::pairs;
use crate::pipeline::run::Files;
use crate::pipeline::sample::{self, SamplePlan};
use crate::pipeline::score::{self, ScorePlan, Tools};
use crate::pipeline::{self, CHUNK_TOKENS, Judging, OnMismatch, Session, Settings, Summary, URL};
use anyhow::{Context, Result};
use models::source::{Resolved, digest};
use std::cell::RefCell;
use std::fs::File;
use std::io::BufWriter;
use std::path::Path;
use std::sync::atomic::AtomicBool;

/// A model whose tokenizer is read, and whose weights are loaded when they are first needed; or one
/// behind a server.
pub struct Lazy<'a> {
    common: &'a Common,
    text: Option<Text>,
    place: Place,
    /// As typed, for a server that does not tell it.
    context_tokens: Option<usize>,
    /// Where the calls of a stage are written down, if anywhere.
    record: Option<File>,
    /// Whether the model's replies mean nothing, and are replaced ([`StandIn`]).
    stands_in: bool,
}

/// Where a model is.
enum Place {
    Here { found: Resolved, chat: Option<Box<Local<AnyRunner>>> },
    There(Remote),
}

impl<'a> Lazy<'a> {
    /// # Errors
    /// The model can't be found, or its tokenizer not be read.
    pub fn open(spec: &str, common: &'a Common) -> Result<Self> {
        let (found, text) = model::open_text(spec)?;
        let place = Place::Here { found, chat: None };
        let (text, stands_in) = (Some(text), false);
        Ok(Self { common, text, place, context_tokens: None, record: None, stands_in })
    }

    /// The model `spec`, or the one behind a server.
    ///
    /// # Errors
    /// As [`Lazy::open`]; or the server can't be used, or `cancel` was set before it was reached.
    pub fn at(
        spec: Option<&str>,
        server: Option<Named>,
        remote: &RemoteArgs,
        common: &'a Common,
        cancel: &AtomicBool,
    ) -> Result<Self> {
        let Some(server) = server else {
            return Self::open(spec.context("no model is named")?, common);
        };
        let tokenizer = remote.tokenizer.as_deref().map(model::open_text).transpose()?;
        let text = tokenizer.map(|(_, text)| text);
        let place = Place::There(server.open(remote, text.as_ref(), cancel)?);
        let context_tokens = remote.context_tokens;
        Ok(Self { common, text, place, context_tokens, record: None, stands_in: false })
    }

    /// What turns text into the model's tokens.
    ///
    /// # Errors
    /// It is not known: the model is behind a server.
    pub fn text(&self) -> Result<&Text> {
        self.text.as_ref().context(
            "documents are cut by tokens, and those of a server's model are not known here: give \
             --tokenizer M (a folder, a .gguf file, a repo id or an alias; best the model that is \
             served)",
        )
    }

    fn found(&self) -> Result<&Resolved> {
        match &self.place {
            Place::Here { found, .. } => Ok(found),
            Place::There(_) => anyhow::bail!("the model is behind a server and can't be loaded"),
        }
    }

    /// What replies depend on besides the call, by name.
    ///
    /// # Errors
    /// The checkpoint can't be read, or the device not be opened.
    pub fn settings(&self) -> Result<Settings> {
        match &self.place {
            Place::Here { found, .. } => self.settings_here(found),
            Place::There(remote) => Ok(self.settings_there(remote)),
        }
    }

    fn settings_there(&self, remote: &Remote) -> Settings {
        let mut settings = remote.about();
        settings.insert("version".into(), env!("CARGO_PKG_VERSION").into());
        if let Some(text) = &self.text {
            settings.insert("tokenizer".into(), text.tokenizer.hash().to_owned());
        }
        settings
    }

    fn settings_here(&self, found: &Resolved) -> Result<Settings> {
        let text = self.text()?;
        let mut settings: Settings = [
            ("version", env!("CARGO_PKG_VERSION").to_owned()),
            ("model", text.name.clone()),
            ("checkpoint", digest(&found.source)?),
            ("tokenizer", text.tokenizer.hash().to_owned()),
            ("template", text.template.hash()),
            ("dtype", format!("{:?}", self.common.dtype).to_lowercase()),
            ("device", decoder::kind(self.common)?.to_owned()),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .into();
        if self.common.kv_dtype != KvType::Auto {
            let kv_dtype = format!("{:?}", self.common.kv_dtype).to_lowercase();
            settings.insert("kv_dtype".to_owned(), kv_dtype);
        }
        Ok(settings)
    }

    /// Tokens that the model reads and writes in all, by its configuration or as its server tells.
    ///
    /// # Errors
    /// The configuration can't be read, or the server does not tell.
    pub fn context(&self) -> Result<usize> {
        match &self.place {
            Place::Here { found, .. } => Ok(models::config::read(&found.source)?.max_positions),
            Place::There(remote) => remote.context().or(self.context_tokens).context(
                "the server does not tell how long its model's context is: give --context-tokens N",
            ),
        }
    }

    /// Whether the model leaves this machine's processor to others.
    ///
    /// # Errors
    /// The device can't be opened.
    pub fn is_elsewhere(&self) -> Result<bool> {
        match &self.place {
            Place::Here { .. } => Ok(decoder::kind(self.common)? != "cpu"),
            Place::There(_) => Ok(true),
        }
    }

    /// The model, loaded if it is not yet.
    ///
    /// # Errors
    /// The checkpoint can't be read, there is not enough memory, or the model is behind a server.
    pub fn local(&mut self) -> Result<&mut Local<AnyRunner>> {
        if let Place::Here { chat: None, .. } = &self.place {
            let engine = self.engine()?;
            self.use_engine(engine)?;
        }
        match &mut self.place {
            Place::Here { chat: Some(chat), .. } => Ok(chat),
            _ => anyhow::bail!("the model is behind a server and can't be loaded"),
        }
    }

    fn use_engine(&mut self, engine: Engine<AnyRunner>) -> Result<()> {
        let Text { tokenizer, template, .. } = self.text()?;
        let sequences = model::limits(self.common, self.is_elsewhere()?).sequences;
        let new = Local::new(engine, tokenizer.clone(), template.clone(), sequences);
        if let Place::Here { chat, .. } = &mut self.place {
            *chat = Some(Box::new(new));
        }
        Ok(())
    }

    /// Uses an engine over random weights in place of the model, whose tokenizer and template stay, and a script in
    /// place of what they say.
    ///
    /// # Errors
    /// The device can't be opened, or the weights lack tokens of the text's.
    pub fn stand_in(&mut self, engine: Engine<AnyRunner>) -> Result<()> {
        model::check_tokens(self.text()?, engine.runner().vocab())
            .context("take another shape for the random weights, or a larger --dummy-factor")?;
        self.stands_in = true;
        self.use_engine(engine)
    }

    /// The model, loaded if it is to be and is not yet.
    fn chat(&mut self) -> Result<&mut dyn Chat> {
        if let Place::Here { .. } = &self.place {
            return Ok(self.local()?);
        }
        match &mut self.place {
            Place::There(remote) => Ok(remote),
            Place::Here { .. } => anyhow::bail!("no model"),
        }
    }

    /// From now on the calls of a stage are written to this file.
    ///
    /// # Errors
    /// The file can't be made.
    pub fn record(&mut self, file: &Path) -> Result<()> {
        let made = File::create(file).with_context(|| format!("{}", file.display()))?;
        self.record = Some(made);
        Ok(())
    }

    /// A new engine over the model.
    ///
    /// # Errors
    /// The checkpoint can't be read, or there is not enough memory.
    pub fn engine(&self) -> Result<Engine<AnyRunner>> {
        let found = self.found()?;
        model::check_tokens(self.text()?, models::config::read(&found.source)?.vocab)?;
        model::engine(model::load(found, self.common)?, self.common)
    }

    /// Runs a stage that asks the model.
    pub fn session(
        &mut self,
        work: &WorkArgs,
        cancel: &AtomicBool,
        stage: impl FnOnce(&mut Session) -> Result<Summary, pipeline::Error>,
    ) -> Result<Summary> {
        let Some(file) = &work.cache else { return self.uncached(cancel, stage) };
        let mut cache = CallCache::open(file, work.cache_size)?;
        let settings = self.settings()?;
        self.uncached(cancel, |session| {
            let model = settings.iter().filter(|(name, _)| *name != URL);
            let model = model.map(|(name, value)| (name.as_str(), value.as_str()));
            let mut chat = Cached::new(session.chat, &mut cache, model);
            let Session { progress, cancel, .. } = session;
            let summary = stage(&mut Session { chat: &mut chat, progress: *progress, cancel })?;
            match chat.finish() {
                Ok(kept) => progress.warn(&format!("{kept} replies came from {}", file.display())),
                // What the model said is in the output all the same.
                Err(error) => progress.warn(&error.to_string()),
            }
            Ok(summary)
        })
    }

    /// Runs a stage on the model itself.
    fn uncached(
        &mut self,
        cancel: &AtomicBool,
        stage: impl FnOnce(&mut Session) -> Result<Summary, pipeline::Error>,
    ) -> Result<Summary> {
        let (record, stands_in) = (self.record.take(), self.stands_in);
        let run = |chat: &mut dyn Chat| {
            let mut stand_in;
            let chat: &mut dyn Chat = if stands_in {
                stand_in = StandIn::new(chat);
                &mut stand_in
            } else {
                chat
            };
            stage(&mut Session { chat, progress: &mut Reporter::new(), cancel })
        };
        let Some(file) = record else { return Ok(run(self.chat()?)?) };
        let Text { tokenizer, template, .. } = self.text()?;
        let (tokenizer, template) = (tokenizer.clone(), template.clone());
        let chat = self.local()?;
        let mut recorder = Recorder::new(chat, &tokenizer, &template, BufWriter::new(file));
        let summary = run(&mut recorder)?;
        recorder.finish().context("the calls could not be written down")?;
        Ok(summary)
    }
}

/// `longreward sample`.
///
/// # Errors
/// Unreadable input, output that was made otherwise, or a model that fails.
pub fn sample(args: &Sample, cancel: &AtomicBool) -> Result<Ending> {
    let common = &args.common;
    let server = args.server.named();
    let mut policy = Lazy::at(args.model.as_deref(), server, &args.work.remote, common, cancel)?;
    let options = sample_options(&args.input, &args.out, &args.sampling, &args.work, &policy)?;
    let plan = SamplePlan::open(options)?;
    report(if plan.todo() == 0 {
        plan.close()?
    } else {
        run_sample(plan, &args.work, &mut policy, cancel)?
    })
}

/// `longreward chunk-info`.
///
/// # Errors
/// As [`sample`].
pub fn chunk_info(args: &ChunkInfo, cancel: &AtomicBool) -> Result<Ending> {
    let common = &args.common;
    let server = args.server.named();
    let mut judge = Lazy::at(args.model.as_deref(), server, &args.work.remote, common, cancel)?;
    judge.text()?;
    let plan = ChunkInfoPlan::open(chunk_info::Options {
        data: args.input.data.clone(),
        out: args.out.clone(),
        judging: judging(&args.prompts, &args.work, &judge)?,
        limit: args.input.limit,
        on_mismatch: on_mismatch(&args.work),
    })?;
    if plan.todo() == 0 {
        return report(plan.close()?);
    }
    let tokenizer = judge.text()?.tokenizer.clone();
    let tokens = |text: &str| tokenizer.encode_offsets(text);
    report(judge.session(&args.work, cancel, |session| plan.run(&tokens, session))?)
}

/// `longreward score`.
///
/// # Errors
/// As [`sample`], or an embedder that can't be read.
pub fn score(args: &Score, cancel: &AtomicBool) -> Result<Ending> {
    let common = &args.common;
    let server = args.server.named();
    let mut judge = Lazy::at(args.model.as_deref(), server, &args.work.remote, common, cancel)?;
    let files = ScoreFiles {
        data: &args.input.data,
        responses: &args.responses,
        out: &args.out,
        chunk_info: args.chunk_info.as_deref(),
    };
    judge.text()?;
    let options = score_options(files, &args.scoring, &args.work, &judge)?;
    let plan = ScorePlan::open(score::Options { limit: args.input.limit, ..options })?;
    if plan.todo() == 0 {
        return report(plan.close()?);
    }
    report(run_score(plan, &args.scoring.judging, &args.work, &mut judge, cancel)?)
}

/// `longreward pairs`.
///
/// # Errors
/// Unreadable input, an output that can't be written, or a tokenizer that can't be read.
pub fn pairs(args: &Pairs) -> Result<Ending> {
    let options = pair_options(&args.data, &args.scored, &args.out, &args.pairing);
    let tokenizer = args.tokenizer.as_deref().map(model::open_text).transpose()?;
    let tokenizer = tokenizer.map(|(_, text)| text.tokenizer);
    let count = tokenizer.as_ref().map(|one| |text: &str| one.encode(text).len());
    let summary =
        pairs::run(&options, count.as_ref().map(|count| count as &dyn Fn(&str) -> usize))?;
    println!("{summary}");
    Ok(if summary.is_complete() { Ending::Done } else { Ending::Incomplete })
}

/// `longreward run`.
///
/// # Errors
/// As the stages.
pub fn run(args: &Run, cancel: &AtomicBool) -> Result<Ending> {
    let common = &args.common;
    let files = Files::in_folder(&args.out_dir);
    let remote = &args.work.remote;
    let mut judge =
        Lazy::at(args.judge.as_deref(), args.judge_server.named(), remote, common, cancel)?;
    judge.text()?;
    let mut policy = match (&args.policy, args.policy_server.named()) {
        (_, Some(server)) => Some(Lazy::at(None, Some(server), remote, common, cancel)?),
        (Some(policy), None) if Some(policy) != args.judge.as_ref() => {
            Some(Lazy::open(policy, common)?)
        }
        _ => None,
    };
    let score = score_options(
        ScoreFiles {
            data: &args.input.data,
            responses: &files.responses,
            out: &files.scored,
            chunk_info: None,
        },
        &args.scoring,
        &args.work,
        &judge,
    )?;
    let options = pipeline::run::Options {
        sample: sample_options(
            &args.input,
            &files.responses,
            &args.sampling,
            &args.work,
            policy.as_ref().unwrap_or(&judge),
        )?,
        score: score::Options {
            extracts: files.chunk_info.clone(),
            limit: args.input.limit,
            ..score
        },
        pairs: pair_options(&args.input.data, &files.scored, &files.pairs, &args.pairing),
    };
    let text = policy.as_ref().and_then(|policy| policy.text.as_ref());
    let tokenizer = text.map_or_else(|| judge.text(), Ok)?.tokenizer.clone();
    let count = |text: &str| tokenizer.encode(text).len();
    // Both closures may need the judge, but never at once.
    let judge = RefCell::new(&mut judge);
    let summary = pipeline::run::run(
        options,
        |plan| match policy.take() {
            // The policy's memory is free again before the judge is loaded.
            Some(mut policy) => run_sample(plan, &args.work, &mut policy, cancel),
            None => run_sample(plan, &args.work, &mut judge.borrow_mut(), cancel),
        },
        |plan| run_score(plan, &args.scoring.judging, &args.work, &mut judge.borrow_mut(), cancel),
        Some(&count),
    )?;
    println!("{summary}");
    Ok(match &summary {
        s if s.is_complete() => Ending::Done,
        s if s.cancelled() => Ending::Interrupted,
        _ => Ending::Incomplete,
    })
}

fn run_sample(
    plan: SamplePlan,
    work: &WorkArgs,
    policy: &mut Lazy,
    cancel: &AtomicBool,
) -> Result<Summary> {
    policy.session(work, cancel, |session| plan.run(session))
}

/// Runs a scoring stage with the judge's tokenizer and the embedder asked for.
///
/// # Errors
/// As [`score`].
pub fn run_score(
    plan: ScorePlan,
    judging: &JudgeArgs,
    work: &WorkArgs,
    judge: &mut Lazy,
    cancel: &AtomicBool,
) -> Result<Summary> {
    let mut retriever = embedder::retriever(&judging.embedder, judge.is_elsewhere()?)?;
    let tokenizer = judge.text()?.tokenizer.clone();
    let tokens = |text: &str| tokenizer.encode_offsets(text);
    judge.session(work, cancel, |session| {
        plan.run(Tools { tokens: &tokens, retriever: &mut retriever }, session)
    })
}

/// Prints how a stage ended.
///
/// # Errors
/// None, so that it can end a command.
pub fn report(summary: Summary) -> Result<Ending> {
    println!("{summary}");
    Ok(ending(&summary))
}

/// How a stage ended.
pub fn ending(summary: &Summary) -> Ending {
    match summary {
        s if s.cancelled => Ending::Interrupted,
        s if s.is_complete() => Ending::Done,
        _ => Ending::Incomplete,
    }
}

pub fn on_mismatch(work: &WorkArgs) -> OnMismatch {
    if work.force { OnMismatch::StartOver } else { OnMismatch::Refuse }
}

fn sample_options(
    input: &InputArgs,
    out: &Path,
    args: &SamplingArgs,
    work: &WorkArgs,
    policy: &Lazy,
) -> Result<sample::Options> {
    Ok(sample::Options {
        data: input.data.clone(),
        out: out.to_owned(),
        model: policy.settings()?,
        n: args.n as u64,
        sampling: Sampling {
            max_new_tokens: args.max_new_tokens,
            temperature: args.filters.temperature,
            top_p: args.filters.top_p,
            top_k: args.filters.top_k,
            min_p: args.filters.min_p,
            repetition_penalty: args.filters.repetition_penalty,
            seed: work.seed,
            stop: Vec::new(),
        },
        limit: input.limit,
        on_mismatch: on_mismatch(work),
    })
}

/// How a judge works that follows the published method.
///
/// # Errors
/// Prompts that can't be read.
pub fn judging(args: &PromptArgs, work: &WorkArgs, judge: &Lazy) -> Result<Judging> {
    let prompts = match &args.prompts {
        Some(folder) => Prompts::from_dir(folder)?,
        None => Prompts::built_in()?,
    };
    let lang = match args.lang {
        Language::Auto => LangChoice::Auto,
        Language::En => LangChoice::En,
        Language::Zh => LangChoice::Zh,
    };
    let max_reply_tokens = args.max_reply_tokens;
    let settings = JudgeSettings { lang, max_reply_tokens, ..JudgeSettings::default() };
    Ok(Judging {
        judge: Judge::new(prompts, settings),
        model: judge.settings()?,
        seed: work.seed,
        chunk_tokens: CHUNK_TOKENS,
    })
}

/// Reads a calibration, and refuses one of another judge unless `any` will do.
///
/// # Errors
/// It can't be read, or was fitted to another judge.
pub fn calibration(file: &Path, any: bool, judge: &Settings) -> Result<Calibrations> {
    let found = Calibrations::read(file)?;
    match found.check_judge(file, judge) {
        Err(error) if any => eprintln!("warning: {error}"),
        checked => checked?,
    }
    let others = found.other_settings(judge);
    if !others.is_empty() {
        let (file, others) = (file.display(), others.join(", "));
        eprintln!("warning: {file} was fitted with other settings of: {others}");
    }
    Ok(found)
}

/// What a scoring stage reads and writes.
pub struct ScoreFiles<'a> {
    pub data: &'a Path,
    pub responses: &'a Path,
    pub out: &'a Path,
    pub chunk_info: Option<&'a Path>,
}

fn pair_options(data: &Path, scored: &Path, out: &Path, args: &PairArgs) -> pairs::Options {
    pairs::Options {
        data: data.to_owned(),
        scored: scored.to_owned(),
        out: out.to_owned(),
        format: match args.format {
            PairFormat::Longreward => pairs::Format::LongReward,
            PairFormat::Trl => pairs::Format::Trl,
        },
        min_scored: args.min_scored,
        min_margin: args.min_margin,
        max_length_ratio: args.max_length_ratio,
    }
}

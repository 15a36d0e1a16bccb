//! The command line: the only place that reads flags and files of options, and wires things.

mod agree;
mod agree_args;
mod args;
mod bench;
mod bench_args;
mod calibrate;
mod config_file;
mod decoder;
mod demo;
mod dummy;
mod embedder;
mod eval;
mod eval_args;
mod generate;
mod help;
mod inspect;
mod method_args;
mod model;
mod preset;
mod progress;
mod prompts;
mod remote;
mod report;
mod serve;
mod signals;
mod stages;
mod values;
mod verdict_args;
mod verify;

use anyhow::{Context, Result};
use args::{Cli, Command, Process};
use clap::FromArgMatches;
use std::ffi::OsString;
use std::io::IsTerminal;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// How a command ended, if not by an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Ending {
    Done,
    /// Some rows or records could not be used.
    Incomplete,
    Interrupted,
}

impl Ending {
    fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Incomplete => 3,
            Self::Interrupted => 130,
        }
    }
}

/// The program: reads the command line, runs the command, gives the exit code.
pub fn main() -> ExitCode {
    let args = std::env::args_os().collect();
    let cli = match parse(args) {
        Ok(cli) => cli,
        Err(error) => {
            eprintln!("error: {}", told(&error));
            return ExitCode::from(2);
        }
    };
    match start(&cli).and_then(|()| on_the_pool(&cli)) {
        Ok(ending) => ExitCode::from(ending.code()),
        Err(error) if remote::was_stopped(&error) => ExitCode::from(Ending::Interrupted.code()),
        Err(error) => {
            eprintln!("error: {}", told(&error));
            ExitCode::from(1)
        }
    }
}

/// An error with its causes. Those that a message says itself are not said again.
fn told(error: &anyhow::Error) -> String {
    let mut told = error.to_string();
    for cause in error.chain().skip(1).map(ToString::to_string) {
        if !told.ends_with(&cause) {
            told = format!("{told}: {cause}");
        }
    }
    told
}

/// Help, version and wrong usage end the program here, as clap does it.
fn parse(args: Vec<OsString>) -> Result<Cli> {
    let file = config_file::path(&args);
    let matches = help::command().try_get_matches_from(expand(args.clone())?);
    let matches = matches.unwrap_or_else(|error| {
        if let Some(file) = file.filter(|_| config_file::is_cause(&error, &args)) {
            eprintln!("{}: this file holds:", file.to_string_lossy());
        }
        error.exit()
    });
    checked(Cli::from_arg_matches(&matches)?)
}

/// With the options of a file and of a preset.
fn expand(args: Vec<OsString>) -> Result<Vec<OsString>> {
    let args = config_file::expand(args, &help::command())?;
    preset::expand(args, &help::command())
}

/// Options that contradict each other are wrong usage.
fn checked(cli: Cli) -> Result<Cli> {
    match &cli.command {
        Command::Run(args) => args.check()?,
        Command::Sample(args) => args.work.remote.check(args.server.policy_url.is_some())?,
        Command::ChunkInfo(args) => args.work.remote.check(args.server.judge_url.is_some())?,
        Command::Score(args) => {
            args.work.remote.check(args.server.judge_url.is_some())?;
            args.scoring.method.check()?;
        }
        Command::Verify(args) => {
            args.remote.check(args.server.judge_url.is_some())?;
            args.scoring.method.check()?;
        }
        Command::Eval(args) => args.check()?,
        Command::Bench(args) => args.check()?,
        Command::Agree(args) => args.check()?,
        Command::Serve(args) => args.method.check()?,
        Command::Generate(args) => args.check()?,
        _ => {}
    }
    Ok(cli)
}

/// [`parse`] that returns instead of ending the program.
#[cfg(test)]
fn parse_for_tests(typed: &str) -> Result<Cli> {
    let args = expand(typed.split_whitespace().map(OsString::from).collect())?;
    checked(Cli::from_arg_matches(&help::command().try_get_matches_from(args)?)?)
}

fn start(cli: &Cli) -> Result<()> {
    // A server outlives its log's reader.
    if !matches!(cli.command, Command::Serve(_)) {
        signals::end_with_the_reader();
    }
    start_log(&cli.process);
    start_threads(&cli.process)
}

/// Runs the command on a thread of the pool. From a thread outside, each of the hundreds of
/// parallel operations of a step would cost two switches between threads.
fn on_the_pool(cli: &Cli) -> Result<Ending> {
    rayon::scope(|_| run(cli))
}

fn run(cli: &Cli) -> Result<Ending> {
    let done = |()| Ending::Done;
    match &cli.command {
        Command::Demo(args) => demo::demo(args, interrupts()?.as_ref()),
        Command::Run(args) => stages::run(args, interrupts()?.as_ref()),
        Command::Sample(args) => stages::sample(args, interrupts()?.as_ref()),
        Command::ChunkInfo(args) => stages::chunk_info(args, interrupts()?.as_ref()),
        Command::Score(args) => stages::score(args, interrupts()?.as_ref()),
        Command::Pairs(args) => stages::pairs(args),
        Command::Verify(args) => verify::verify(args, interrupts()?.as_ref()),
        Command::Prompts(args) => prompts::prompts(args),
        Command::Report(args) => report::report(args),
        Command::Agree(args) => agree::agree(args, interrupts()?.as_ref()),
        Command::Calibrate(args) => calibrate::calibrate(args),
        Command::Eval(args) => eval::eval(args, interrupts()?.as_ref()),
        Command::Generate(args) => generate::generate(args).map(done),
        Command::Tokenize(args) => generate::tokenize(args).map(done),
        Command::Pull(args) => inspect::pull(args).map(done),
        Command::Inspect(args) => inspect::inspect(args).map(done),
        Command::Bench(args) => bench::bench(args, interrupts),
        Command::Dummy(args) => dummy::dummy(args).map(done),
        Command::Serve(args) => serve::serve(args).map(done),
    }
}

fn start_log(process: &Process) {
    let level = match process.verbose {
        0 => tracing::Level::WARN,
        1 => tracing::Level::INFO,
        _ => tracing::Level::DEBUG,
    };
    let is_terminal = std::io::stderr().is_terminal();
    tracing_subscriber::fmt()
        .with_max_level(level)
        .with_writer(std::io::stderr)
        .with_ansi(is_terminal)
        .init();
}

fn start_threads(process: &Process) -> Result<()> {
    let Some(threads) = process.threads else { return Ok(()) };
    rayon::ThreadPoolBuilder::new()
        .num_threads(threads)
        .build_global()
        .context("the thread pool did not start")
}

/// A flag that Ctrl-C (or a polite kill) sets; a second one ends the program at once.
fn interrupts() -> Result<Arc<AtomicBool>> {
    let flag = Arc::new(AtomicBool::new(false));
    let seen = flag.clone();
    signals::on_interrupt(move || {
        if seen.swap(true, Ordering::Relaxed) {
            std::process::exit(i32::from(Ending::Interrupted.code()));
        }
        eprintln!("\nstopping; what is finished is on disk (again to stop at once)");
    })?;
    Ok(flag)
}

#[cfg(test)]
mod tests {
    use super::told;
    use crate::pipeline::Error;
    use anyhow::Context;

    #[test]
    fn a_cause_is_told_once() {
        let refused = || std::io::Error::other("no room");
        let error = anyhow::Error::from(Error::Io { path: "a/b".into(), source: refused() });
        assert_eq!(told(&error), "a/b: no room");
        let error = Err::<(), _>(refused()).context("c: can't be read").unwrap_err();
        assert_eq!(told(&error.context("first")), "first: c: can't be read: no room");
    }
}

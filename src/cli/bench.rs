//! `longreward bench`.

mod quality;
mod workload;

use super::args::Common;
use super::bench_args::Bench;
use super::decoder::{AnyDecoder, Profiler};
use super::{Ending, model};
use crate::bench::{
    Asked, BenchError, DecodeSize, Limit, Measurement, Operation, decode, prefill, requests,
};
use crate::engine::{AnyRunner, Engine};
use anyhow::{Context, Result, bail};
use kernels::peak::Peak;
use models::dummy;
use models::source::resolve;
use serde_json::{Value, json};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// Measures and prints. `interrupts` is called where an interruption leaves something to tell; else it ends the
/// program at once.
///
/// # Errors
/// A model that can't be loaded, or an engine that fails.
pub fn bench(args: &Bench, interrupts: impl FnOnce() -> Result<Arc<AtomicBool>>) -> Result<Ending> {
    let common = &Common { no_cascade: args.no_cascade, ..args.common.clone() };
    if args.dummy.is_some() && args.model.is_some() && args.data.is_none() {
        bail!("--model beside --dummy gives the text's side of --data; leave one of them out");
    }
    if !args.quality.is_empty() {
        return quality::quality(args, common).map(|()| Ending::Done);
    }
    if let Some(file) = &args.requests {
        return given(file, args, common).map(|()| Ending::Done);
    }
    match (&args.data, &args.responses) {
        (Some(data), Some(responses)) => {
            workload::workload(args, data, responses, common, interrupts()?.as_ref())
        }
        _ => sizes(args, common),
    }
}

/// Random weights, or those of a model. No text is needed, so files without a vocabulary will do.
fn weights(args: &Bench, common: &Common) -> Result<AnyDecoder> {
    match (&args.dummy, &args.model) {
        (Some(shape), _) => {
            let config = dummy::config(shape, args.dummy_factor)?;
            AnyDecoder::dummy(config, args.seed, common)
        }
        (None, Some(name)) => model::load(&resolve(name)?, common),
        (None, None) => bail!("--model or --dummy is needed"),
    }
}

/// What was measured, and what could not be.
#[derive(Default)]
struct Table {
    json: bool,
    limit: Option<Limit>,
    profiler: Profiler,
    measurements: Vec<Measurement>,
    missed: Vec<Value>,
}

impl Table {
    /// Adds a measurement and shows it at once, or says why there is none.
    ///
    /// # Errors
    /// The engine is of no use any more.
    fn add(
        &mut self,
        (phase, batch, context): (&str, usize, usize),
        found: Result<Measurement, BenchError>,
        with_share: impl FnOnce(&Limit, Measurement) -> Measurement,
    ) -> Result<()> {
        match found {
            Ok(m) => {
                let m = Measurement { operations: self.profiler.take()?, ..m };
                self.measurements.push(match &self.limit {
                    Some(limit) => with_share(limit, m),
                    None => m,
                });
                self.show();
            }
            Err(broken @ BenchError::Engine(_)) => return Err(broken.into()),
            Err(problem) => {
                let problem = problem.to_string();
                eprintln!("{phase}: {problem}");
                let missed =
                    json!({"phase": phase, "batch": batch, "context": context, "problem": problem});
                self.missed.push(missed);
            }
        }
        Ok(())
    }

    /// Prints the last measurement as a row of the table, which is out of the way where JSON is wanted.
    fn show(&self) {
        let Some(m) = self.measurements.last() else { return };
        if self.measurements.len() == 1 {
            self.print(
                "phase          sequences  context   tokens    tokens/s  of limit  seconds of each run",
            );
        }
        let seconds: Vec<String> = m.seconds.iter().map(|s| format!("{s:.2}")).collect();
        let share = m.limit_share.map_or(String::new(), |share| format!("{:.0}%", 100.0 * share));
        self.print(&format!(
            "{:14} {:9} {:8} {:8} {:11.1} {share:>9}  {}",
            m.phase,
            m.batch,
            m.context,
            m.tokens,
            m.tokens_per_second,
            seconds.join(" ")
        ));
        let all: f64 = m.operations.iter().map(|operation| operation.milliseconds).sum();
        for Operation { name, calls, milliseconds } in &m.operations {
            let (each, share) = (1e3 * milliseconds / *calls as f64, 100.0 * milliseconds / all);
            self.print(&format!(
                "    {name:20} {calls:7} x {each:9.1} us = {milliseconds:9.1} ms  {share:4.1}%"
            ));
        }
    }

    fn print(&self, line: &str) {
        if self.json { eprintln!("{line}") } else { println!("{line}") }
    }
}

fn sizes(args: &Bench, common: &Common) -> Result<Ending> {
    let mut decoder = weights(args, common)?;
    let on = decoder.place()?;
    let profiler = if args.profile { decoder.profile()? } else { Profiler::default() };
    let limit = decoder.limit(common)?;
    let mut table = Table { json: args.json, limit, profiler, ..Table::default() };
    let mut engine = model::engine(decoder, common)?;
    table.profiler.take()?;
    let ended = measure(args, &mut engine, &mut table);
    // What was measured before the engine failed is told all the same.
    let peak = table.limit.as_ref().map(|limit| limit.peak);
    if args.json {
        let peak = peak.map(|Peak { f32_gflops, int8_gops, read_gb }| {
            json!({"f32_gflops": f32_gflops, "int8_gops": int8_gops, "read_gb": read_gb})
        });
        let Table { measurements, missed, .. } = &table;
        println!(
            "{}",
            json!({"device": on, "peak": peak, "measurements": measurements, "missed": missed})
        );
    } else {
        println!("on {on}");
        if let Some(peak) = peak {
            tell(peak);
        }
    }
    ended?;
    Ok(if table.missed.is_empty() { Ending::Done } else { Ending::Incomplete })
}

fn tell(Peak { f32_gflops, int8_gops, read_gb }: Peak) {
    let of = match int8_gops {
        0.0 => "bf16".to_owned(),
        _ => format!("f32 and {int8_gops:.0} Gop/s of bytes"),
    };
    println!("which does at most {f32_gflops:.0} GFLOP/s of {of}, and reads {read_gb:.1} GB/s");
}

/// Measures all sizes that fit.
fn measure(args: &Bench, engine: &mut Engine<AnyRunner>, table: &mut Table) -> Result<()> {
    for (i, &len) in args.prefill.iter().enumerate() {
        let found = prefill(engine, len, args.repeats, args.seed + 1000 * i as u64);
        table.add(("prefill", 1, len), found, Limit::of_prefill)?;
    }
    for (i, &batch) in args.decode.iter().enumerate() {
        let (own, context, new_tokens) = (args.own(), args.context, args.new_tokens);
        let size = DecodeSize { batch, context, own, new_tokens };
        let seed = args.seed + 100_000 * (i as u64 + 1);
        // Prompts are not part of it.
        let begin = || _ = table.profiler.take();
        let found = decode(engine, size, args.repeats, seed, begin);
        table.add((size.phase(), batch, context), found, |limit, m| limit.of_decode(m, size))?;
    }
    Ok(())
}

/// Runs the requests of a file.
fn given(file: &Path, args: &Bench, common: &Common) -> Result<()> {
    let text = std::fs::read_to_string(file).with_context(|| file.display().to_string())?;
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    let asked = lines.map(|(number, line)| {
        serde_json::from_str::<Asked>(line)
            .with_context(|| format!("{}:{}", file.display(), number + 1))
    });
    let mut asked = asked.collect::<Result<Vec<_>>>()?;
    asked.retain(|one| one.new_tokens > 0);
    anyhow::ensure!(!asked.is_empty(), "{}: no request has new tokens", file.display());
    let mut engine = model::engine(weights(args, common)?, common)?;
    let mut table = Table { json: args.json, ..Table::default() };
    table.measurements.push(requests(&mut engine, asked)?);
    table.show();
    if args.json {
        let stats = engine.stats();
        println!(
            "{}",
            json!({
                "measurements": table.measurements,
                "prompt_tokens": stats.prompt_tokens,
                "computed_prompt_tokens": stats.computed_prompt_tokens,
                "preemptions": stats.preemptions,
                "peak_kv_blocks": stats.peak_blocks,
                "kv_blocks": stats.blocks,
            })
        );
    }
    Ok(())
}

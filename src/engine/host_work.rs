//! What a step takes on the host beside the runner's work: a measurement.

use super::device_sampler::{outcomes, wanted};
use super::*;
use kernels::gpu::PlanSettings;
use models::batch::Batch;
use models::gpu::Found;
use std::convert::Infallible;
use std::time::Instant;

const VOCAB: usize = 128_256;

/// A GPU that is done at once and always draws the same token.
struct Idle {
    times: Times,
    /// Whether it plans the next step while it runs one.
    prepares: bool,
    prepared: Option<Batch>,
    /// Steps that were as planned.
    hits: usize,
}

/// Seconds by what they were spent on, of each step.
#[derive(Default)]
struct Times(Vec<(&'static str, Vec<f64>)>);

impl Times {
    fn of<T>(&mut self, what: &'static str, work: impl FnOnce() -> T) -> T {
        let start = Instant::now();
        let result = work();
        self.add(what, start.elapsed().as_secs_f64());
        result
    }

    fn add(&mut self, what: &'static str, seconds: f64) {
        match self.0.iter_mut().find(|(name, _)| *name == what) {
            Some((_, all)) => all.push(seconds),
            None => self.0.push((what, vec![seconds])),
        }
    }

    fn last(&self, what: &str) -> f64 {
        let all = self.0.iter().find(|(name, _)| *name == what);
        all.and_then(|(_, seconds)| seconds.last().copied()).unwrap_or(0.0)
    }

    /// Medians in microseconds.
    fn print(&mut self, case: &str) {
        print!("{case:34}");
        for (what, seconds) in &mut self.0 {
            seconds.sort_by(f64::total_cmp);
            print!(" {what} {:.1}", seconds[seconds.len() / 2] * 1e6);
        }
        println!();
    }
}

/// As of Llama-3.1-8B on an H100.
const SETTINGS: PlanSettings = PlanSettings {
    q_heads: 32,
    kv_heads: 8,
    head_dim: 128,
    kv_bytes: 2,
    multiprocessors: 132,
    max_parts: 4096,
    share: true,
    same_for_all_batches: false,
};

impl Runner for Idle {
    type Error = Infallible;

    fn vocab(&self) -> usize {
        VOCAB
    }

    fn context(&self) -> usize {
        1 << 17
    }

    fn blocks(&self) -> usize {
        1 << 16
    }

    fn run(
        &mut self,
        Step { batch, wants, next }: Step,
        sink: &mut dyn FnMut(Range<usize>, Answers),
    ) -> Result<(), Infallible> {
        let (start, blocks) = (Instant::now(), self.blocks());
        let times = &mut self.times;
        let attention = |batch: &Batch| drop(kernels::gpu::plan(&batch.layout, &SETTINGS));
        let is_ready = times.of("compare", || {
            let same = |ready: Batch| ready.layout == batch.layout;
            self.prepared.take().is_some_and(same)
        });
        self.hits += usize::from(is_ready);
        if !is_ready {
            times.of("check", || batch.layout.validate(blocks).unwrap());
            times.of("attention", || attention(batch));
        }
        let wanted = times.of("wanted", || wanted(wants, VOCAB));
        let (seen, launched) = (start.elapsed().as_secs_f64(), Instant::now());
        if self.prepares {
            self.prepared = next();
            self.prepared.iter().for_each(attention);
        }
        times.add("(at the same time)", launched.elapsed().as_secs_f64());
        let read = Instant::now();
        let found = Found {
            tokens: vec![1; wanted.uniforms.len()],
            logprobs: vec![-1.0; wanted.uniforms.len()],
            log_sums: vec![0.0; wanted.rows.len()],
            ..Found::default()
        };
        sink(0..wants.len(), Answers::Outcomes(outcomes(wants, &wanted, &found)));
        times.add("outcomes", read.elapsed().as_secs_f64());
        times.add("run", seen + read.elapsed().as_secs_f64());
        Ok(())
    }

    fn copy_block(&mut self, _: u32, _: u32) -> Result<(), Infallible> {
        Ok(())
    }
}

fn request(prompt: Vec<u32>) -> Request {
    let generate = Generate {
        n: 1,
        max_new_tokens: 10_000,
        params: SamplingParams { top_p: 0.95, ..SamplingParams::default() },
        seed: 0,
        stop_tokens: vec![5],
        logprobs: None,
        prompt_logprobs: None,
        constraint: None,
    };
    Request { prompt, task: Task::Generate(generate) }
}

/// A prompt whose last tokens are its own.
fn prompt(len: usize, own: usize, name: u32) -> Vec<u32> {
    (0..len).map(|i| if i + own < len { 7 } else { 100 + name }).collect()
}

/// Prints what 200 steps take, of which the device has to wait for all but what is done at the same time.
fn measure(batch: u32, own: usize, with_chunks: bool, prepares: bool) {
    let limits = Limits { tokens_per_step: 2048, sequences: 128 };
    let idle = Idle { times: Times::default(), prepares, prepared: None, hits: 0 };
    let mut engine = Engine::new(idle, limits);
    for name in 0..batch {
        engine.submit(request(prompt(4096 - name as usize % 16, own, name))).unwrap();
    }
    while engine.step().unwrap().len() < batch as usize {}
    (engine.runner.times, engine.runner.hits) = (Times::default(), 0);
    let mut times = Times::default();
    for round in 0..200 {
        if with_chunks && engine.load() == (batch as usize, 0) {
            engine.submit(request(prompt(100_000, 100_000, 1000 + round))).unwrap();
        }
        let start = Instant::now();
        let plan = times.of("plan", || engine.scheduler.plan());
        let outcomes = times.of("compute", || engine.compute(&plan).unwrap());
        let rest = Instant::now();
        engine.count(&plan);
        engine.scheduler.commit(&plan);
        for (row, outcome) in outcomes {
            engine.take(row, outcome.unwrap()).unwrap();
        }
        engine.events.clear();
        times.add("take", rest.elapsed().as_secs_f64());
        let hidden = engine.runner.times.last("(at the same time)");
        times.add("in all", start.elapsed().as_secs_f64() - hidden);
    }
    times.0.append(&mut engine.runner.times.0);
    let kind = if own < 4096 { " shared" } else { "" };
    let chunks = if with_chunks { " + chunks" } else { "" };
    times.print(&format!("{batch}{kind}{chunks}, {} prepared", engine.runner.hits));
}

/// `cargo test --release --lib --features emulated-gpu -- --ignored --nocapture host_microseconds`
#[test]
#[ignore = "a measurement"]
fn host_microseconds_of_a_step() {
    for prepares in [false, true] {
        for (batch, own) in [(1, 4096), (16, 4096), (64, 4096), (128, 4096), (128, 16)] {
            measure(batch, own, false, prepares);
        }
        measure(64, 4096, true, prepares);
    }
}

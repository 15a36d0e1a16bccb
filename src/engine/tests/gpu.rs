//! Over decoders on a GPU.

use super::*;

/// A small decoder on a GPU, with the same weights in every test.
fn decoder_on_gpu(blocks: usize, deterministic: bool) -> GpuRunner {
    let config = models::dummy::config("smollm2-135m", 0.1).unwrap();
    let gpu = kernels::gpu::Gpu::open(0).unwrap();
    let options = models::gpu::GpuOptions {
        rows: 256,
        deterministic,
        graphs: true,
        share: true,
        weights: models::gpu::WeightType::Bf16,
        kv_type: kernels::gpu::KvType::Bf16,
    };
    let decoder = models::gpu::dummy(config, 1, &gpu, options, &mut |_, _| {}).unwrap();
    GpuRunner::new(decoder, blocks).unwrap()
}

/// A runner that is told another next step than the engine foresees.
struct Told {
    runner: GpuRunner,
    told: fn(models::batch::Batch) -> Option<models::batch::Batch>,
}

impl Runner for Told {
    type Error = models::ModelError;

    fn vocab(&self) -> usize {
        self.runner.vocab()
    }

    fn context(&self) -> usize {
        self.runner.context()
    }

    fn blocks(&self) -> usize {
        self.runner.blocks()
    }

    fn run(
        &mut self,
        step: Step,
        sink: &mut dyn FnMut(Range<usize>, Answers),
    ) -> Result<(), Self::Error> {
        let next = || (step.next)().and_then(self.told);
        self.runner.run(Step { next: &next, ..step }, sink)
    }

    fn copy_block(&mut self, from: u32, to: u32) -> Result<(), Self::Error> {
        self.runner.copy_block(from, to)
    }
}

#[test]
fn what_a_gpu_has_prepared_changes_nothing() {
    let constraint = Some(Constraint::new(Alternating { length: 6 }));
    let stops =
        Generate { stop_tokens: (0..40).filter(|id| id % 4 == 1).collect(), ..generate(40, 8) };
    let mut requests = little();
    requests.push(request(prompt(18, 3), Generate { constraint, n: 2, ..generate(30, 6) }));
    requests.extend((0..4).map(|k| request(prompt(30, k), stops.clone())));
    let endless = |seed| Generate { stop_tokens: Vec::new(), ..generate(50, seed) };
    requests.extend([1, 2].map(|k| request(prompt(20, k), endless(u64::from(k)))));
    let run = |told| {
        let runner = Told { runner: decoder_on_gpu(9, false), told };
        let mut engine = Engine::new(runner, Limits { tokens_per_step: 50, sequences: 8 });
        let ids: Vec<_> = requests.iter().map(|r| engine.submit(r.clone()).unwrap()).collect();
        let mut trace = Vec::new();
        while !engine.is_idle() {
            trace.extend(engine.step().unwrap().iter().map(|event| format!("{event:?}")));
            if engine.stats().steps == 12 {
                engine.cancel(ids[9]);
                engine.submit(requests[0].clone()).unwrap();
            }
            engine.check().unwrap();
        }
        assert!(engine.stats().preemptions > 0, "{:?}", engine.stats());
        (trace, engine.runner().runner.prepared_steps(), engine.stats().steps)
    };
    let (plain, unprepared, steps) = run(|_| None);
    let (prepared, hits, _) = run(Some);
    let (astray, misses, _) = run(|mut next| {
        next.layout.slots.iter_mut().for_each(|slot| *slot ^= 1);
        Some(next)
    });
    assert_eq!((unprepared, misses), (0, 0));
    assert!(2 * hits > steps, "{hits} of {steps} steps were prepared");
    assert_eq!(prepared, plain);
    assert_eq!(astray, plain);
}

/// Little work: a GPU that the processor plays is slow.
fn little() -> Vec<Request> {
    let short = |n, seed| Generate { n, stop_tokens: Vec::new(), ..generate(9, seed) };
    let base = prompt(40, 1);
    vec![
        request(base.clone(), short(3, 1)),
        request([&base[..33], &[5, 6]].concat(), short(1, 2)),
        request(prompt(20, 2), Generate { prompt_logprobs: Some(2), ..short(1, 3) }),
        score(base, &[&[1], &[2, 3], &[1, 0, 4]], Some(&[7, 9])),
    ]
}

#[test]
fn a_deterministic_gpu_gives_the_same_bits_however_its_work_is_cut() {
    let requests = little();
    let run =
        |blocks, limits| run_in(&mut Engine::new(decoder_on_gpu(blocks, true), limits), &requests);
    let limits = Limits { tokens_per_step: 256, ..WIDE };
    let mut alone = Vec::new();
    for one in &requests {
        let mut engine = Engine::new(decoder_on_gpu(64, true), limits);
        alone.extend(run_in(&mut engine, std::slice::from_ref(one)));
    }
    assert_eq!(run(64, limits), alone, "together");
    assert_eq!(run(64, Limits { tokens_per_step: 23, ..limits }), alone, "in chunks");
    let mut engine = Engine::new(decoder_on_gpu(64, true), limits);
    assert_eq!(run_in(&mut engine, &requests), alone, "cold");
    assert_eq!(run_in(&mut engine, &requests), alone, "warm");
    // Two that have room one after the other only.
    let growing = |seed| Generate { n: 1, stop_tokens: Vec::new(), ..generate(60, seed) };
    let growing = [1, 2].map(|k| request(prompt(20, k), growing(u64::from(k))));
    let mut engine = Engine::new(decoder_on_gpu(8, true), limits);
    let preempted = run_in(&mut engine, &growing);
    assert!(engine.stats().preemptions > 0);
    let wide = run_in(&mut Engine::new(decoder_on_gpu(64, true), limits), &growing);
    assert_eq!(preempted, wide, "preempted");
}

/// Tokens and log-probabilities read on the GPU are those that the host reads from the same logits.
#[test]
fn a_gpu_reads_logits_as_the_host_does() {
    let mut requests = little();
    let changed = SamplingParams {
        temperature: 0.0,
        repetition_penalty: 1.3,
        frequency_penalty: 0.2,
        logit_bias: [(3, 1.5), (7, -2.0)].into(),
        ..SamplingParams::default()
    };
    requests.push(request(prompt(30, 4), Generate { params: changed, ..generate(9, 4) }));
    let limits = Limits { tokens_per_step: 256, ..WIDE };
    let run = |samples| {
        let mut runner = decoder_on_gpu(64, true);
        runner.samples = samples;
        run_in(&mut Engine::new(runner, limits), &requests)
    };
    let (on_gpu, on_host) = (run(true), run(false));
    let close = |a: f64, b: f64| assert!((a - b).abs() < 1e-4, "{a}, not {b}");
    for (a, b) in on_gpu.iter().zip(&on_host) {
        let tokens = |x: &Brought| -> Vec<u32> {
            x.samples.iter().flat_map(|s| s.0.iter().map(|t| t.token)).collect()
        };
        assert_eq!(tokens(a), tokens(b));
        a.scores.iter().zip(&b.scores).for_each(|(&a, &b)| close(a, b));
        let logprobs = |x: &Brought| -> Vec<f32> {
            let of_samples = x.samples.iter().flat_map(|s| s.0.iter().filter_map(|t| t.logprob));
            of_samples.chain(x.prompt.iter().flatten().copied()).collect()
        };
        assert_eq!(logprobs(a).len(), logprobs(b).len());
        logprobs(a).iter().zip(logprobs(b)).for_each(|(&a, b)| close(a.into(), b.into()));
    }
}

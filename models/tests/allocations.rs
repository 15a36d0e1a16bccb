//! A step on the processor takes its memory from the steps before it.

use candle_core::Device;
use candle_core::quantized::GgmlDType;
use kernels::kv::{BLOCK, KvDtype, VarLen};
use models::batch::Batch;
use models::dummy::{GgufOptions, write_gguf};
use models::source::Source;
use models::{Decoder, DtypeChoice, KvPool, LoadOptions, Workspace};
use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

/// The system's allocator, with a count of what it is asked for, by whichever thread.
struct Counting;

static COUNT: AtomicUsize = AtomicUsize::new(0);

// SAFETY: the system's allocator does all the work.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        COUNT.fetch_add(1, Ordering::Relaxed);
        // SAFETY: as asked for by the caller.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, place: *mut u8, layout: Layout) {
        // SAFETY: as promised by the caller.
        unsafe { System.dealloc(place, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const SEQUENCES: usize = 5;
const BLOCKS: usize = 80;

/// `new` tokens of each sequence, after `cached` that are there.
fn batch(cached: usize, new: usize) -> Batch {
    let mut layout = VarLen { query_starts: vec![0], ..VarLen::default() };
    for sequence in 0..SEQUENCES {
        let first = sequence * BLOCKS;
        let positions = cached..cached + new;
        layout.positions.extend(positions.clone().map(|p| p as u32));
        layout.slots.extend(positions.map(|p| (first * BLOCK + p) as u32));
        layout.query_starts.push(layout.slots.len() as u32);
        layout.kv_lens.push((cached + new) as u32);
        layout.block_tables.push((first as u32..(first + BLOCKS) as u32).collect());
    }
    let rows = SEQUENCES * new;
    Batch { tokens: vec![7; rows], layout, logit_rows: (0..rows as u32).collect() }
}

/// Allocations of each step: a prompt of each sequence, then a token at a time.
fn allocations(decoder: &Decoder, prompt: usize) -> Vec<usize> {
    let pool = KvPool::new(decoder.config(), SEQUENCES * BLOCKS, KvDtype::F16, &Device::Cpu);
    let (mut pool, mut work) = (pool.unwrap(), Workspace::default());
    let steps = [batch(0, prompt)].into_iter().chain((0..12).map(|i| batch(prompt + i, 1)));
    let batches: Vec<Batch> = steps.collect();
    let count = |batch: &Batch| {
        let before = COUNT.load(Ordering::Relaxed);
        decoder.run(batch, &mut pool, &mut work).unwrap();
        decoder.logits(0..SEQUENCES, &mut work).unwrap();
        COUNT.load(Ordering::Relaxed) - before
    };
    batches.iter().map(count).collect()
}

fn options() -> LoadOptions {
    LoadOptions { dtype: DtypeChoice::Auto, device: Device::Cpu }
}

fn quantized(dtype: GgmlDType) -> Decoder {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("model.gguf");
    let shape = "smollm2-135m".to_string();
    write_gguf(&file, &GgufOptions { shape, factor: 0.4, seed: 1, dtype }, &mut |_, _| ()).unwrap();
    models::load(&Source::Gguf(file), &options(), &mut |_, _| ()).unwrap()
}

/// With biases, and norms after each block.
fn dense() -> Decoder {
    let config = r#"{"architectures": ["Glm4ForCausalLM"], "hidden_size": 128, "intermediate_size": 512,
        "num_hidden_layers": 8, "num_attention_heads": 4, "num_key_value_heads": 1, "head_dim": 32,
        "vocab_size": 131, "max_position_embeddings": 2048, "partial_rotary_factor": 0.5,
        "attention_bias": true}"#;
    let config = models::config::from_text(config, "config.json".as_ref()).unwrap();
    models::dummy::decoder(config, 1, &options(), &mut |_, _| ()).unwrap()
}

/// What is left is the job that keeps the threads awake, which rayon allocates for each step.
#[test]
fn no_operation_of_a_decode_step_allocates() {
    for decoder in [quantized(GgmlDType::Q4_1), quantized(GgmlDType::Q8_0), dense()] {
        // Of the longer prompt, each segment of the attention is a task.
        for prompt in [40, 1200] {
            let counts = allocations(&decoder, prompt);
            // How many tasks run at once, each with memory of its own, is chance at first.
            let mut last = counts[5..].to_vec();
            last.sort_unstable();
            let (layers, median) = (decoder.config().layers, last[last.len() / 2]);
            assert!(median <= 2, "{layers} layers, {prompt} tokens: {counts:?}");
        }
    }
}

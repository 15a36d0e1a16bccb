//! Runs sequences on a decoder without an engine: each sequence owns a run of consecutive blocks.

use candle_core::Device;
use kernels::kv::KvDtype;
use kernels::kv::{BLOCK, VarLen};
use models::batch::Batch;
use models::{Decoder, DtypeChoice, KvPool, LoadOptions, Workspace};

pub const BLOCKS_PER_SEQUENCE: usize = 40;

pub fn options() -> LoadOptions {
    LoadOptions { dtype: DtypeChoice::F32, device: device() }
}

/// Metal where the tests are built for it, else the processor.
fn device() -> Device {
    if cfg!(feature = "metal") { Device::new_metal(0).unwrap() } else { Device::Cpu }
}

/// A tiny model with dummy weights.
pub fn dummy(config_json: &str) -> Decoder {
    let config = models::config::from_text(config_json, "config.json".as_ref()).unwrap();
    models::dummy::decoder(config, 1, &options(), &mut |_, _| ()).unwrap()
}

/// What computes the logits of a batch.
pub trait Runs {
    fn logits(&mut self, batch: &Batch) -> Vec<Vec<f32>>;
}

/// A decoder on the processor, with its pool.
struct OnProcessor<'a> {
    decoder: &'a Decoder,
    pool: KvPool,
    work: Workspace,
}

impl Runs for OnProcessor<'_> {
    fn logits(&mut self, batch: &Batch) -> Vec<Vec<f32>> {
        let Self { decoder, pool, work } = self;
        decoder.run(batch, pool, work).unwrap();
        let logits = decoder.logits(0..batch.logit_rows.len(), work).unwrap();
        logits.to_tensor().unwrap().to_vec2().unwrap()
    }
}

/// A decoder and sequences that grow on it.
pub struct Bench<'a> {
    runs: Box<dyn Runs + 'a>,
    /// Tokens of each sequence whose KV is in the pool.
    cached: Vec<usize>,
    /// Position that the rotary embedding gives to the first token of every sequence.
    pub first_position: usize,
}

impl<'a> Bench<'a> {
    pub fn new(decoder: &'a Decoder, sequences: usize) -> Self {
        let blocks = sequences * BLOCKS_PER_SEQUENCE;
        let pool = KvPool::new(decoder.config(), blocks, KvDtype::F32, decoder.device()).unwrap();
        Self::on(OnProcessor { decoder, pool, work: Workspace::default() }, sequences)
    }

    /// The same on anything that has blocks for as many sequences.
    pub fn on(runs: impl Runs + 'a, sequences: usize) -> Self {
        Self { runs: Box::new(runs), cached: vec![0; sequences], first_position: 0 }
    }

    /// One step that appends tokens to some sequences: logits of all new rows, in order.
    pub fn step(&mut self, work: &[(usize, &[u32])]) -> Vec<Vec<f32>> {
        let rows: usize = work.iter().map(|(_, new)| new.len()).sum();
        self.step_for(work, (0..rows as u32).collect())
    }

    /// The same, with the logits of some rows only.
    pub fn step_for(&mut self, work: &[(usize, &[u32])], logit_rows: Vec<u32>) -> Vec<Vec<f32>> {
        let batch = self.batch(work, logit_rows);
        self.runs.logits(&batch)
    }

    fn batch(&mut self, work: &[(usize, &[u32])], logit_rows: Vec<u32>) -> Batch {
        let mut tokens = vec![];
        let mut layout = VarLen { query_starts: vec![0], ..VarLen::default() };
        for &(sequence, new) in work {
            let start = self.cached[sequence];
            let first_slot = sequence * BLOCKS_PER_SEQUENCE * BLOCK;
            let end = start + new.len();
            assert!(end <= BLOCKS_PER_SEQUENCE * BLOCK, "the sequence outgrows its blocks");
            tokens.extend_from_slice(new);
            layout.positions.extend((start..end).map(|p| (self.first_position + p) as u32));
            layout.slots.extend((start..end).map(|p| (first_slot + p) as u32));
            layout.query_starts.push(tokens.len() as u32);
            layout.kv_lens.push(end as u32);
            let first_block = sequence * BLOCKS_PER_SEQUENCE;
            let blocks = first_block..first_block + end.div_ceil(BLOCK);
            layout.block_tables.push(blocks.map(|b| b as u32).collect());
            self.cached[sequence] = end;
        }
        Batch { tokens, layout, logit_rows }
    }
}

/// Log-probability of `token` under one row of logits.
pub fn log_prob(logits: &[f32], token: u32) -> f64 {
    let largest = logits.iter().copied().fold(f32::MIN, f32::max);
    let sum: f64 = logits.iter().map(|&x| f64::from(x - largest).exp()).sum();
    f64::from(logits[token as usize] - largest) - sum.ln()
}

/// The likeliest token; of equals the lowest id.
pub fn argmax(logits: &[f32]) -> u32 {
    let better = |best: usize, i: usize| if logits[i] > logits[best] { i } else { best };
    (0..logits.len()).reduce(better).unwrap() as u32
}

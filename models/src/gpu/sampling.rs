//! Reading rows of logits on the GPU, so that only tokens and a few log-probabilities come back.

use kernels::gpu::{
    Buffer, Element, Gpu, LogitChange, Pinned, Result, Sample, SampleRow, Stream, bytes_of, sample,
};
use std::ops::Range;

/// Arrays begin at multiples of this many bytes.
const ALIGNMENT: usize = 256;

/// Most of the likeliest tokens that a row can be asked for.
pub const MOST_TOP: usize = 512;

/// What is wanted of some rows; see [`SampleRow`], whose indices are into these lists.
#[derive(Debug, Clone, Default)]
pub struct Wanted {
    /// [`SampleRow::row`] counts within the slice of rows.
    pub rows: Vec<SampleRow>,
    pub uniforms: Vec<f64>,
    pub changes: Vec<LogitChange>,
    pub allowed: Vec<u32>,
    pub score_ids: Vec<u32>,
    /// Entries of [`Found::top_ids`] in all.
    pub tops: usize,
}

/// What was found, in the order of what was wanted.
#[derive(Debug, Clone, Default)]
pub struct Found {
    pub tokens: Vec<u32>,
    pub logprobs: Vec<f32>,
    pub scores: Vec<f32>,
    /// NaN for rows that are not finite.
    pub log_sums: Vec<f32>,
    pub top_ids: Vec<u32>,
    pub top_logprobs: Vec<f32>,
}

/// Memory for lists, which grows when it has to.
pub struct Sampler {
    sent: Pinned<u8>,
    wanted: Buffer<u8>,
    received: Pinned<u8>,
    found: Buffer<u8>,
    originals: Buffer<f32>,
}

/// Gives out places one after the other.
#[derive(Default)]
struct Places(usize);

impl Places {
    fn next<T>(&mut self, len: usize) -> Range<usize> {
        let first = self.0;
        self.0 += (len.max(1) * size_of::<T>()).next_multiple_of(ALIGNMENT);
        // There is a number at least, for operations that do not like empty arrays.
        first..first + len.max(1) * size_of::<T>()
    }
}

/// Where everything lies, in bytes.
struct Layout {
    rows: Range<usize>,
    uniforms: Range<usize>,
    changes: Range<usize>,
    allowed: Range<usize>,
    score_ids: Range<usize>,
    wanted: usize,
    tokens: Range<usize>,
    logprobs: Range<usize>,
    scores: Range<usize>,
    log_sums: Range<usize>,
    top_ids: Range<usize>,
    top_logprobs: Range<usize>,
    found: usize,
}

impl Layout {
    fn new(w: &Wanted) -> Self {
        let (mut to, mut from) = (Places::default(), Places::default());
        Self {
            rows: to.next::<SampleRow>(w.rows.len()),
            uniforms: to.next::<f64>(w.uniforms.len()),
            changes: to.next::<LogitChange>(w.changes.len()),
            allowed: to.next::<u32>(w.allowed.len()),
            score_ids: to.next::<u32>(w.score_ids.len()),
            wanted: to.0,
            tokens: from.next::<u32>(w.uniforms.len()),
            logprobs: from.next::<f32>(w.uniforms.len()),
            scores: from.next::<f32>(w.score_ids.len()),
            log_sums: from.next::<f32>(w.rows.len()),
            top_ids: from.next::<u32>(w.tops),
            top_logprobs: from.next::<f32>(w.tops),
            found: from.0,
        }
    }
}

impl Sampler {
    /// # Errors
    /// Not enough memory.
    pub fn new(gpu: &Gpu) -> Result<Self> {
        const BYTES: usize = 1 << 18;
        Ok(Self {
            sent: gpu.alloc_pinned(BYTES)?,
            wanted: gpu.alloc(BYTES)?,
            received: gpu.alloc_pinned(BYTES)?,
            found: gpu.alloc(BYTES)?,
            originals: gpu.alloc(BYTES / size_of::<f32>())?,
        })
    }

    /// Puts the reading of rows of `logits` `[.., vocab]`, which may be changed by it, on the stream.
    ///
    /// # Errors
    /// The GPU's.
    pub fn launch(
        &mut self,
        stream: &Stream,
        logits: &Buffer<f32>,
        vocab: usize,
        w: &Wanted,
    ) -> Result<()> {
        let at = Layout::new(w);
        self.make_room(stream.gpu(), &at, w.changes.len())?;
        self.put(&at.rows, &w.rows);
        self.put(&at.uniforms, &w.uniforms);
        self.put(&at.changes, &w.changes);
        self.put(&at.allowed, &w.allowed);
        self.put(&at.score_ids, &w.score_ids);
        stream.upload(&self.sent, &self.wanted, at.wanted)?;
        let out = &self.found;
        let args = Sample {
            logits,
            rows: &self.wanted.part(at.rows.clone()),
            uniforms: &self.wanted.part(at.uniforms.clone()),
            changes: &self.wanted.part(at.changes.clone()),
            originals: &self.originals,
            allowed: &self.wanted.part(at.allowed.clone()),
            score_ids: &self.wanted.part(at.score_ids.clone()),
            tokens: &out.part(at.tokens.clone()),
            logprobs: &out.part(at.logprobs.clone()),
            scores: &out.part(at.scores.clone()),
            log_sums: &out.part(at.log_sums.clone()),
            top_ids: &out.part(at.top_ids.clone()),
            top_logprobs: &out.part(at.top_logprobs.clone()),
            max_rows: w.rows.len(),
            vocab,
        };
        sample(stream, &args)?;
        stream.download(&self.found, &mut self.received, at.found)
    }

    /// What has come of [`Sampler::launch`], once the stream was waited for.
    pub fn found(&self, w: &Wanted) -> Found {
        let at = Layout::new(w);
        let ids = |range: &Range<usize>, len: usize| -> Vec<u32> {
            let numbers = self.received[range.clone()].as_chunks().0;
            numbers.iter().take(len).map(|&bytes| u32::from_ne_bytes(bytes)).collect()
        };
        let floats = |range: &Range<usize>, len: usize| -> Vec<f32> {
            ids(range, len).into_iter().map(f32::from_bits).collect()
        };
        Found {
            tokens: ids(&at.tokens, w.uniforms.len()),
            logprobs: floats(&at.logprobs, w.uniforms.len()),
            scores: floats(&at.scores, w.score_ids.len()),
            log_sums: floats(&at.log_sums, w.rows.len()),
            top_ids: ids(&at.top_ids, w.tops),
            top_logprobs: floats(&at.top_logprobs, w.tops),
        }
    }

    fn put<T: Element>(&mut self, range: &Range<usize>, numbers: &[T]) {
        let bytes = bytes_of(numbers);
        self.sent[range.clone()][..bytes.len()].copy_from_slice(bytes);
    }

    /// Nothing is under way when this is called: every reading ends with a wait.
    fn make_room(&mut self, gpu: &Gpu, at: &Layout, changes: usize) -> Result<()> {
        if at.wanted > self.sent.len() {
            let bytes = at.wanted.next_power_of_two();
            self.sent = gpu.alloc_pinned(bytes)?;
            self.wanted = gpu.alloc(bytes)?;
        }
        if at.found > self.received.len() {
            let bytes = at.found.next_power_of_two();
            self.received = gpu.alloc_pinned(bytes)?;
            self.found = gpu.alloc(bytes)?;
        }
        if changes > self.originals.len() {
            self.originals = gpu.alloc(changes.next_power_of_two())?;
        }
        Ok(())
    }
}

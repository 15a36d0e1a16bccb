//! The operations of a step, in reading order.

use super::block::Arrays;
use super::decoder::{Buffers, GpuDecoder};
use super::weights::{Layer, Matrix};
use half::bf16;
use kernels::gpu::{
    self, Attention, Buffer, Gather, Gemm, HeadNorms, KvLayer, Merge, NARROW_ROWS, Norm, Numbers,
    Output, Plan, Rope, Stream, Swiglu,
};
use std::ops::Range;

/// A step on the stream.
pub(super) struct Run<'a> {
    pub decoder: &'a GpuDecoder,
    pub arrays: &'a Arrays,
    pub stream: &'a Stream,
    pub b: &'a Buffers,
}

/// The residual stream and the attention heads of some rows.
struct Rows<'a> {
    residual: &'a Buffer<f32>,
    heads: &'a Buffer<bf16>,
    rows: usize,
}

/// The norm before what follows, and where its results go.
struct Following<'a> {
    norm: &'a Buffer<f32>,
    normed: &'a Output,
}

impl Run<'_> {
    /// Puts an operation on the stream; its time is taken where that is wanted.
    fn operation(
        &self,
        name: &'static str,
        work: impl FnOnce(&Stream) -> gpu::Result<()>,
    ) -> gpu::Result<()> {
        match &self.decoder.profile {
            Some(profile) => profile.time(name, self.stream, work),
            None => work(self.stream),
        }
    }

    /// All of a step whose logits fit at once.
    pub fn whole(&self) -> gpu::Result<()> {
        self.layers()?;
        self.ends(0..self.arrays.sizes.picked)
    }

    /// From tokens to the attention heads of the last layer.
    pub fn layers(&self) -> gpu::Result<()> {
        let Self { decoder, arrays, b, .. } = self;
        let (config, weights) = (&decoder.config, &decoder.weights);
        let rows = arrays.sizes.rows;
        let embedding = Gather {
            table: &Numbers::Bf16(weights.embedding.clone()),
            ids: &arrays.tokens,
            out: &Numbers::F32(b.residual.clone()),
            rows,
            width: config.hidden,
            table_rows: config.vocab,
        };
        self.operation("embedding", |stream| gpu::gather(stream, &embedding))?;
        let all = Rows { residual: &b.residual, heads: &b.heads, rows };
        let Some(first) = weights.layers.first() else { return Ok(()) };
        let first = Following { norm: &first.input_norm, normed: &b.normed };
        self.norm(&all, None, None, &first)?;
        for (number, layer) in weights.layers.iter().enumerate() {
            self.attend(layer, &decoder.kv.layer(number))?;
            if let Some(next) = weights.layers.get(number + 1) {
                let next = Following { norm: &next.input_norm, normed: &b.normed };
                self.finish(layer, &all, &next)?;
            }
        }
        Ok(())
    }

    /// From the attention heads of the last layer to the logits of some of the rows that are wanted.
    pub fn ends(&self, range: Range<usize>) -> gpu::Result<()> {
        let Self { decoder, arrays, b, .. } = self;
        let (config, weights) = (&decoder.config, &decoder.weights);
        let rows = range.len();
        let Some(last) = weights.layers.last().filter(|_| rows > 0) else { return Ok(()) };
        let ids = arrays.picked.slice(range);
        let pick = |table: Numbers, out: Numbers, width| {
            let (table, out, table_rows) = (&table, &out, arrays.sizes.rows);
            let rows = Gather { table, ids: &ids, out, rows, width, table_rows };
            self.operation("picked rows", |stream| gpu::gather(stream, &rows))
        };
        let (residual, heads) = (&b.picked_residual, &b.picked_heads);
        pick(Numbers::F32(b.residual.clone()), Numbers::F32(residual.clone()), config.hidden)?;
        let width = config.heads * weights.head_dim;
        pick(Numbers::Bf16(b.heads.clone()), Numbers::Bf16(heads.clone()), width)?;
        let head = Following { norm: &weights.final_norm, normed: &b.last_normed };
        self.finish(last, &Rows { residual, heads, rows }, &head)?;
        self.multiply("head", &b.last_normed, &weights.head, &Numbers::F32(b.logits.clone()), rows)
    }

    /// From the normed input of a layer to the results of its attention heads.
    fn attend(&self, layer: &Layer, kv: &KvLayer) -> gpu::Result<()> {
        let Self { decoder, arrays, b, .. } = self;
        let (rows, q_heads) = (arrays.sizes.rows, decoder.config.heads);
        let qkv = &layer.qkv;
        let product = Matrix { w: qkv.w.clone(), bias: None, n: qkv.n, k: qkv.k };
        self.multiply("qkv", &b.normed, &product, &Numbers::Bf16(b.qkv.clone()), rows)?;
        let rope = Rope {
            qkv: &b.qkv,
            bias: qkv.bias.as_ref(),
            head_norms: layer.head_norms.as_ref().map(|weight| HeadNorms {
                weight,
                columns: decoder.config.head_dim,
                eps: decoder.config.rms_eps as f32,
            }),
            positions: &arrays.positions,
            slots: &arrays.slots,
            tables: &decoder.weights.rope,
            kv,
            rows,
            q_heads,
        };
        self.operation("rope", |stream| gpu::rope(stream, &rope))?;
        (0..arrays.tasks.len()).try_for_each(|tile| self.attention(kv, tile))?;
        let max_merges = arrays.sizes.merges;
        if max_merges == 0 {
            return Ok(());
        }
        let merge = Merge {
            parts: &b.parts,
            part_sums: &b.part_sums,
            rows: &arrays.merge_rows,
            starts: &arrays.merge_starts,
            part_ids: &arrays.part_ids,
            out: &b.heads,
            max_merges,
            q_heads,
            head_dim: decoder.weights.head_dim,
        };
        self.operation("merge", |stream| gpu::merge(stream, &merge))
    }

    /// The tasks of one tile.
    fn attention(&self, kv: &KvLayer, tile: usize) -> gpu::Result<()> {
        let Self { decoder, arrays, b, .. } = self;
        let max_tasks = arrays.sizes.tasks[tile];
        if max_tasks == 0 {
            return Ok(());
        }
        let config = &decoder.config;
        let head_dim = decoder.weights.head_dim;
        let attention = Attention {
            q: &b.qkv,
            q_stride: (config.heads + 2 * config.kv_heads) * head_dim,
            q_heads: config.heads,
            kv,
            tasks: &arrays.tasks[tile],
            task_count: &arrays.task_counts[tile],
            max_tasks,
            queries: &arrays.queries,
            tables: &arrays.tables,
            out: &b.heads,
            parts: &b.parts,
            part_sums: &b.part_sums,
            scale: 1.0 / (config.head_dim as f32).sqrt(),
            tile: Plan::TILES[tile],
        };
        let name = ["attention, 16 rows", "attention, 64 rows", "attention, 128 rows"][tile];
        self.operation(name, |stream| gpu::attention(stream, &attention))
    }

    /// The rest of a layer after its attention heads, and the norm before what follows.
    fn finish(&self, layer: &Layer, of: &Rows, next: &Following) -> gpu::Result<()> {
        let Self { decoder, b, .. } = self;
        let rows = of.rows;
        let projected = Numbers::Bf16(b.projected.clone());
        let heads = Output::Bf16(of.heads.clone());
        self.multiply("attention output", &heads, &layer.attention_output, &projected, rows)?;
        let post = layer.attention_output_norm.as_ref();
        let ffn = Following { norm: &layer.ffn_norm, normed: &b.normed };
        self.norm(of, Some(&b.projected), post, &ffn)?;
        self.multiply(
            "gate and up",
            &b.normed,
            &layer.gate_up,
            &Numbers::Bf16(b.gate_up.clone()),
            rows,
        )?;
        let width = decoder.config.ffn;
        let swiglu = Swiglu { gate_up: &b.gate_up, out: &b.gated, rows, width };
        self.operation("swiglu", |stream| gpu::swiglu(stream, &swiglu))?;
        self.multiply("down", &b.gated, &layer.down, &projected, rows)?;
        self.norm(of, Some(&b.projected), layer.ffn_output_norm.as_ref(), next)
    }

    fn norm(
        &self,
        of: &Rows,
        x: Option<&Buffer<bf16>>,
        post_weight: Option<&Buffer<f32>>,
        following: &Following,
    ) -> gpu::Result<()> {
        let decoder = self.decoder;
        let residual = &Numbers::F32(of.residual.clone());
        let (hidden, eps) = (decoder.config.hidden, decoder.config.rms_eps as f32);
        let Following { norm: weight, normed: out } = following;
        let rows = of.rows;
        let norm = Norm { x, post_weight, residual, weight, out, rows, hidden, eps };
        self.operation("norm", |stream| gpu::norm(stream, &norm))
    }

    fn multiply(
        &self,
        name: &'static str,
        x: &Output,
        w: &Matrix,
        out: &Numbers,
        rows: usize,
    ) -> gpu::Result<()> {
        let same_for_all_m = self.decoder.options.deterministic;
        let Matrix { w, bias, n, k } = w;
        let narrow = rows <= NARROW_ROWS && !same_for_all_m && matches!(w, Output::Bf16(_));
        let (bias, m, n, k) = (bias.as_ref(), rows, *n, *k);
        let product = Gemm { x, w, bias, out, m, n, k, same_for_all_m, narrow };
        self.operation(name, |stream| gpu::gemm(stream, &product))
    }
}

//! What a measured size takes at least on this machine, so that a rate can be set beside its limit.

use super::{DecodeSize, Measurement};
use kernels::peak::Peak;
use models::config::ModelConfig;
use models::decoder::StepCost;

/// What runs of a model cost, and what the machine does at most.
#[derive(Debug, Clone)]
pub struct Limit {
    pub peak: Peak,
    pub step: StepCost,
    pub config: ModelConfig,
    /// Of keys and values.
    pub bytes_per_token: usize,
}

/// Operations and bytes that no way of computing avoids.
#[derive(Debug, Clone, Copy, Default)]
struct Cost {
    /// Of products with weights.
    products: f64,
    /// Of attention: scores and sums of values, two operations for each multiply-add.
    attention: f64,
    /// Weights, keys and values read once a step.
    bytes: f64,
}

impl Limit {
    /// The measurement of a prefill with its share of the limit.
    pub fn of_prefill(&self, m: Measurement) -> Measurement {
        let len = m.context as f64;
        let cost = Cost {
            products: len * self.step.layer_operations as f64 + self.step.head_operations as f64,
            attention: self.attention(len * (len + 1.0) / 2.0),
            bytes: self.step.bytes as f64,
        };
        self.with_share(m, cost)
    }

    /// The measurement of decoding with its share of the limit.
    pub fn of_decode(&self, m: Measurement, size: DecodeSize) -> Measurement {
        let (batch, context, steps) =
            (size.batch as f64, size.context as f64, size.new_tokens as f64);
        let row = (self.step.layer_operations + self.step.head_operations) as f64;
        let read = (size.context - size.own) as f64 + batch * size.own as f64;
        let cost = Cost {
            products: steps * batch * row,
            attention: steps * self.attention(batch * context),
            bytes: steps * (self.step.bytes as f64 + read * self.bytes_per_token as f64),
        };
        self.with_share(m, cost)
    }

    /// Operations of attention over so many pairs of a query and a key.
    fn attention(&self, pairs: f64) -> f64 {
        let ModelConfig { layers, heads, head_dim, .. } = self.config;
        4.0 * (layers * heads * head_dim) as f64 * pairs
    }

    fn with_share(&self, m: Measurement, cost: Cost) -> Measurement {
        let median = m.tokens as f64 / m.tokens_per_second;
        Measurement { limit_share: Some(self.seconds(cost) / median), ..m }
    }

    /// Arithmetic or reading, whichever takes longer.
    fn seconds(&self, cost: Cost) -> f64 {
        let Peak { f32_gflops, int8_gops, read_gb } = self.peak;
        let products = if self.step.quantized { int8_gops } else { f32_gflops };
        let arithmetic = cost.products / products + cost.attention / f32_gflops;
        arithmetic.max(cost.bytes / read_gb) / 1e9
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use models::dummy;

    fn limit() -> Limit {
        let config = dummy::config("smollm2-135m", 1.0).unwrap();
        let peak = Peak { f32_gflops: 100.0, int8_gops: 1000.0, read_gb: 10.0 };
        let step = StepCost {
            bytes: 100_000_000,
            layer_operations: 200_000_000,
            head_operations: 50_000_000,
            quantized: true,
        };
        Limit { peak, step, config, bytes_per_token: 20_000 }
    }

    fn measured(batch: usize, context: usize, tokens: usize, seconds: f64) -> Measurement {
        Measurement::new("", batch, context, tokens, vec![seconds])
    }

    #[test]
    fn prefill_is_bound_by_arithmetic() {
        let found = limit().of_prefill(measured(1, 1000, 1000, 1.0)).limit_share.unwrap();
        // 30 layers × 9 heads × 64 × 4 operations × 500,500 pairs.
        let want = (1000.0 * 0.2 + 0.05) / 1000.0 + 30.0 * 9.0 * 64.0 * 4.0 * 500_500e-9 / 100.0;
        assert!((found - want).abs() < 1e-9, "{found}, not {want}");
    }

    #[test]
    fn decoding_one_sequence_is_bound_by_reading() {
        let size = DecodeSize { batch: 1, context: 1000, own: 1000, new_tokens: 4 };
        let found = limit().of_decode(measured(1, 1000, 4, 0.2), size).limit_share.unwrap();
        assert!((found - 4.0 * (0.1 + 0.02) / 10.0 / 0.2).abs() < 1e-9, "{found}");
    }

    #[test]
    fn a_shared_context_is_read_once() {
        let of = |own| {
            let size = DecodeSize { batch: 4, context: 100_000, own, new_tokens: 1 };
            let slow = Peak { read_gb: 0.001, ..limit().peak };
            let m = measured(4, 100_000, 4, 1.0);
            Limit { peak: slow, ..limit() }.of_decode(m, size).limit_share.unwrap()
        };
        assert!((of(100_000) / of(0) - (0.1 + 8.0) / (0.1 + 2.0)).abs() < 1e-9);
        assert!((of(50_000) / of(0) - (0.1 + 5.0) / (0.1 + 2.0)).abs() < 1e-9);
    }
}

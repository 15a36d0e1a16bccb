//! Timing, limits, and how results are shown.

use half::bf16;
use kernels::gpu::{Buffer, Event, Gemm, Gpu, Numbers, Output, Result, Stream, gemm};
use std::fs::File;
use std::io::Write;

/// What work needs at least.
#[derive(Clone, Copy, Default)]
pub struct Need {
    pub operations: f64,
    pub bytes: f64,
}

pub struct Bench {
    pub stream: Stream,
    /// Operations a second of a large bf16 product, bytes a second of a large copy.
    limits: (f64, f64),
    filters: Vec<String>,
    json: Option<File>,
    /// For the emulated GPU, on which only that everything runs is of interest.
    pub tiny: bool,
}

impl Bench {
    pub fn new() -> Result<Self> {
        let gpu = Gpu::open(0)?;
        let properties = gpu.properties()?;
        println!("{properties:?}\n{:?}", gpu.memory()?);
        let filters = std::env::args().skip(1).filter(|text| !text.starts_with('-')).collect();
        let json = std::env::var_os("GPU_BENCH_JSON").and_then(|path| File::create(path).ok());
        let tiny = properties.emulated;
        let mut this = Self { stream: Stream::new(&gpu)?, limits: (1.0, 1.0), filters, json, tiny };
        this.limits = (this.product_limit()?, this.copy_limit()?);
        println!("limits: {:.1} TFLOP/s, {:.3} TB/s", this.limits.0 / 1e12, this.limits.1 / 1e12);
        println!("{:58} {:>10} {:>9} {:>9} {:>6}", "", "us", "TFLOP/s", "TB/s", "share");
        Ok(this)
    }

    fn product_limit(&self) -> Result<f64> {
        let n = if self.tiny { 64 } else { 8192 };
        let (x, w) = (self.random(n * n)?, self.random(n * n)?);
        let (x, w) = (Output::Bf16(x), Output::Bf16(w));
        let out = Numbers::Bf16(self.stream.gpu().alloc(n * n)?);
        let args = Gemm {
            x: &x,
            w: &w,
            bias: None,
            out: &out,
            m: n,
            n,
            k: n,
            same_for_all_m: false,
            narrow: false,
        };
        let seconds = self.seconds(&mut |stream, _| gemm(stream, &args))?;
        Ok(2.0 * (n as f64).powi(3) / seconds)
    }

    fn copy_limit(&self) -> Result<f64> {
        let len = if self.tiny { 1 << 16 } else { 1 << 30 };
        let (from, to): (Buffer<u8>, Buffer<u8>) =
            (self.stream.gpu().alloc(len)?, self.stream.gpu().alloc(len)?);
        self.stream.fill(&from, 0x5A)?;
        let seconds = self.seconds(&mut |stream, _| stream.copy_buffer(&from, &to))?;
        Ok(2.0 * len as f64 / seconds)
    }

    /// Numbers around zero, of which no two neighbours are alike.
    pub fn random(&self, len: usize) -> Result<Buffer<bf16>> {
        let piece: Vec<bf16> = (0..len.min(1 << 20))
            .map(|i| {
                bf16::from_f32(
                    ((i as u32).wrapping_mul(2_654_435_761) >> 16) as f32 / 32768.0 - 1.0,
                )
            })
            .collect();
        let buffer = self.stream.gpu().alloc(len)?;
        for start in (0..len).step_by(piece.len().max(1)) {
            let end = len.min(start + piece.len());
            self.stream.write(&buffer.slice(start..end), &piece[..end - start])?;
        }
        Ok(buffer)
    }

    /// Seconds of `work(stream, turn)`, recorded so often with turns 0, 1, … that a launch takes a while; `turn` may
    /// choose among inputs. The median of seven launches.
    pub fn seconds(&self, work: &mut dyn FnMut(&Stream, usize) -> Result<()>) -> Result<f64> {
        work(&self.stream, 0)?;
        self.stream.wait()?;
        let (start, end) = (Event::new(self.stream.gpu())?, Event::new(self.stream.gpu())?);
        let mut time = |turns: usize| -> Result<f64> {
            let graph =
                self.stream.capture(|stream| (0..turns).try_for_each(|turn| work(stream, turn)))?;
            let mut times = Vec::new();
            for _ in 0..if self.tiny { 1 } else { 8 } {
                self.stream.record(&start)?;
                self.stream.launch(&graph)?;
                self.stream.record(&end)?;
                end.wait()?;
                times.push(f64::from(start.milliseconds_to(&end)?) / 1e3 / turns as f64);
            }
            times.sort_by(f64::total_cmp);
            Ok(times[times.len() / 2])
        };
        let once = time(1)?;
        if self.tiny {
            return Ok(once);
        }
        time(((5e-3 / once) as usize).clamp(2, 200))
    }

    /// Measures and shows one line.
    pub fn line(
        &mut self,
        name: &str,
        need: Need,
        work: &mut dyn FnMut(&Stream, usize) -> Result<()>,
    ) -> Result<()> {
        if !self.filters.is_empty()
            && !self.filters.iter().any(|filter| name.contains(filter.as_str()))
        {
            return Ok(());
        }
        let seconds = self.seconds(work)?;
        let least = (need.operations / self.limits.0).max(need.bytes / self.limits.1);
        let (flops, bytes, share) =
            (need.operations / seconds / 1e12, need.bytes / seconds / 1e12, least / seconds);
        println!("{name:58} {:10.2} {flops:9.1} {bytes:9.3} {:5.1}%", seconds * 1e6, share * 100.0);
        if let Some(json) = &mut self.json {
            let _ = writeln!(
                json,
                "{{\"name\": \"{name}\", \"us\": {:.3}, \"tflops\": {flops:.3}, \"tbs\": {bytes:.4}, \"share\": {share:.4}, \
                 \"limit_tflops\": {:.2}, \"limit_tbs\": {:.4}}}",
                seconds * 1e6,
                self.limits.0 / 1e12,
                self.limits.1 / 1e12
            );
        }
        Ok(())
    }
}

//! Progress on standard error: a bar on a terminal, plain lines otherwise.

use crate::pipeline::{Progress, Status};
use indicatif::{ProgressBar, ProgressStyle};
use std::io::IsTerminal;
use std::time::{Duration, Instant};

/// Time between two plain lines.
const LINE_EVERY: Duration = Duration::from_secs(10);

/// A bar over bytes; shows nothing where standard error is no terminal.
pub fn bytes_bar(what: &str) -> ProgressBar {
    let bar = ProgressBar::new(0);
    let template = "{msg} [{bar:30}] {bytes}/{total_bytes} {bytes_per_sec} {eta} left";
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    bar.set_message(what.to_owned());
    bar
}

/// Shows how far a stage is, how fast it goes and how long it will take.
pub struct Reporter {
    bar: Option<ProgressBar>,
    stage: &'static str,
    started: Instant,
    /// Records and calls that were done when the stage was first heard of.
    before: (usize, u64),
    last_line: Option<Instant>,
}

impl Reporter {
    pub fn new() -> Self {
        Self {
            bar: std::io::stderr().is_terminal().then(|| ProgressBar::new(0)),
            stage: "",
            started: Instant::now(),
            before: (0, 0),
            last_line: None,
        }
    }

    fn begin(&mut self, status: &Status) {
        self.stage = status.stage;
        self.started = Instant::now();
        self.before = (status.done, status.calls);
        self.last_line = None;
        if let Some(bar) = &self.bar {
            if let Ok(style) = ProgressStyle::with_template("{prefix} [{bar:30}] {pos}/{len} {msg}")
            {
                bar.set_style(style);
            }
            bar.set_prefix(status.stage);
        }
    }

    /// Calls per second, and what is left at the pace of the records so far.
    fn pace(&self, status: &Status) -> String {
        let seconds = self.started.elapsed().as_secs_f64();
        let calls = status.calls - self.before.1;
        let fresh = (status.done + status.failed).saturating_sub(self.before.0);
        let left = status.total.saturating_sub(status.done + status.failed);
        let eta = match fresh {
            0 => "time left unknown".to_owned(),
            _ => format!("about {} left", duration(seconds * left as f64 / fresh as f64)),
        };
        let rate = calls as f64 / seconds.max(1e-3);
        format!("{calls} calls, {rate:.1} calls/s, {} in flight, {eta}", status.in_flight)
    }
}

/// Seconds in words: `45 s`, `12 min`, `3 h 5 min`.
pub fn duration(seconds: f64) -> String {
    let minutes = (seconds / 60.0).round() as u64;
    match seconds {
        s if s < 90.0 => format!("{s:.0} s"),
        s if s < 5400.0 => format!("{minutes} min"),
        _ => format!("{} h {} min", minutes / 60, minutes % 60),
    }
}

impl Progress for Reporter {
    fn update(&mut self, status: &Status) {
        if status.stage != self.stage {
            self.begin(status);
        }
        let pace = self.pace(status);
        match &self.bar {
            Some(bar) => {
                bar.set_length(status.total as u64);
                bar.set_position((status.done + status.failed) as u64);
                bar.set_message(pace);
            }
            None if self.last_line.is_none_or(|at| at.elapsed() >= LINE_EVERY) => {
                self.last_line = Some(Instant::now());
                eprintln!("{}: {}/{} records, {pace}", status.stage, status.done, status.total);
            }
            None => {}
        }
    }

    fn warn(&mut self, message: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| eprintln!("{message}")),
            None => eprintln!("{message}"),
        }
    }
}

impl Drop for Reporter {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::duration;

    #[test]
    fn durations_are_short() {
        assert_eq!(duration(12.4), "12 s");
        assert_eq!(duration(600.0), "10 min");
        assert_eq!(duration(11_100.0), "3 h 5 min");
    }
}

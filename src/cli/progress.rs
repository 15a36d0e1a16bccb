//! Progress on standard error: a bar on a terminal, plain lines otherwise.

use super::inspect::size;
use crate::pipeline::{Progress, Status};
use indicatif::{ProgressBar, ProgressStyle};
use std::io::IsTerminal;
use std::time::{Duration, Instant};

/// Time between two plain lines.
const LINE_EVERY: Duration = Duration::from_secs(10);

/// Shows how far the writing of a file is: a bar on a terminal, plain lines otherwise.
pub struct Writing {
    what: String,
    bar: ProgressBar,
    is_terminal: bool,
    started: Instant,
    last_line: Instant,
}

impl Writing {
    pub fn new(what: &str) -> Self {
        let (started, is_terminal) = (Instant::now(), std::io::stderr().is_terminal());
        let (what, bar) = (format!("writing {what}"), bytes_bar(&format!("writing {what}")));
        Self { what, bar, is_terminal, started, last_line: started }
    }

    /// So many bytes of all are written.
    pub fn update(&mut self, done: u64, total: u64) {
        self.bar.set_length(total);
        self.bar.set_position(done);
        if !self.is_terminal && self.last_line.elapsed() >= LINE_EVERY {
            self.last_line = Instant::now();
            let line = bytes_line(done, total, self.started.elapsed().as_secs_f64());
            eprintln!("{}: {line}", self.what);
        }
    }
}

impl Drop for Writing {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

/// What was written in so many seconds, how fast, and what is left.
fn bytes_line(done: u64, total: u64, seconds: f64) -> String {
    let rate = done as f64 / seconds.max(1e-3);
    let left = total.saturating_sub(done) as f64 / rate.max(1.0);
    format!(
        "{} of {}, {}/s, about {} left",
        size(done),
        size(total),
        size(rate as u64),
        duration(left)
    )
}

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
        Self::on(std::io::stderr().is_terminal().then(|| ProgressBar::new(0)))
    }

    /// Shows it on this bar, or in lines.
    fn on(bar: Option<ProgressBar>) -> Self {
        Self { bar, stage: "", started: Instant::now(), before: (0, 0), last_line: None }
    }

    fn begin(&mut self, status: &Status) {
        self.stage = status.stage;
        self.started = Instant::now();
        self.before = (status.done, status.calls);
        self.last_line = None;
        if let Some(bar) = &self.bar {
            // What does not fit into the terminal is cut off, not wrapped.
            let template = "{prefix} [{bar:10}] {pos}/{len} {wide_msg}";
            if let Ok(style) = ProgressStyle::with_template(template) {
                bar.set_style(style);
            }
            bar.set_prefix(status.stage);
        }
    }
}

/// What was done in so many seconds, at which pace, and what is left: by calls as soon as those to
/// come can be told, else by records. `before` are records and calls that were done at the start.
fn pace(status: &Status, before: (usize, u64), seconds: f64) -> String {
    let calls = status.calls - before.1;
    let rate = calls as f64 / seconds.max(1e-3);
    let fresh = (status.done + status.failed).saturating_sub(before.0);
    let records_left = status.total.saturating_sub(status.done + status.failed);
    let (to_come, left) = match status.calls_left {
        Some(left) if calls > 0 => {
            (format!(" of about {}", calls + left), Some(left as f64 / rate))
        }
        _ if fresh == 0 => (String::new(), None),
        _ => (String::new(), Some(seconds * records_left as f64 / fresh as f64)),
    };
    let left = left
        .map_or("time left unknown".to_owned(), |left| format!("about {} left", duration(left)));
    format!("{left}, {calls}{to_come} calls, {rate:.1} calls/s, {} open", status.in_flight)
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
        let pace = pace(status, self.before, self.started.elapsed().as_secs_f64());
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
    use super::*;
    use indicatif::{ProgressDrawTarget, TermLike};
    use std::io::Result;
    use std::sync::{Arc, Mutex};

    /// A terminal of 40 columns that keeps what it shows.
    #[derive(Debug, Default)]
    struct Narrow(Arc<Mutex<Vec<String>>>);

    impl TermLike for Narrow {
        fn width(&self) -> u16 {
            40
        }

        fn move_cursor_up(&self, _: usize) -> Result<()> {
            Ok(())
        }

        fn move_cursor_down(&self, _: usize) -> Result<()> {
            Ok(())
        }

        fn move_cursor_right(&self, _: usize) -> Result<()> {
            Ok(())
        }

        fn move_cursor_left(&self, _: usize) -> Result<()> {
            Ok(())
        }

        fn write_line(&self, text: &str) -> Result<()> {
            self.write_str(text)
        }

        fn write_str(&self, text: &str) -> Result<()> {
            self.0.lock().unwrap().push(text.to_owned());
            Ok(())
        }

        fn clear_line(&self) -> Result<()> {
            Ok(())
        }

        fn flush(&self) -> Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_line_is_no_wider_than_the_terminal() {
        let shown = Arc::new(Mutex::new(Vec::new()));
        let terminal = ProgressDrawTarget::term_like(Box::new(Narrow(shown.clone())));
        let mut reporter = Reporter::on(Some(ProgressBar::with_draw_target(Some(0), terminal)));
        let status = Status {
            stage: "chunk-info",
            done: 10,
            failed: 0,
            total: 30,
            calls: 1000,
            in_flight: 8,
            calls_left: Some(50),
        };
        reporter.update(&status);
        let shown = shown.lock().unwrap();
        assert!(shown.iter().any(|line| line.contains("10/30")), "{shown:?}");
        assert!(shown.iter().all(|line| line.chars().count() <= 40), "{shown:?}");
    }

    #[test]
    fn time_is_told_by_calls_before_any_record_ends() {
        let status = |done: usize, calls: u64, calls_left: Option<u64>| Status {
            stage: "score",
            done,
            failed: 0,
            total: 30,
            calls,
            in_flight: 8,
            calls_left,
        };
        // Ten records and 5 calls were there before; five calls a second.
        let at = |done, calls, left, seconds| pace(&status(done, calls, left), (10, 5), seconds);
        assert_eq!(at(10, 5, None, 0.0), "time left unknown, 0 calls, 0.0 calls/s, 8 open");
        let early = "about 3 min left, 50 of about 1050 calls, 5.0 calls/s, 8 open";
        assert_eq!(at(10, 55, Some(1000), 10.0), early);
        let late = "about 10 s left, 1000 of about 1050 calls, 5.0 calls/s, 8 open";
        assert_eq!(at(10, 1005, Some(50), 200.0), late);
        // A stage that tells no calls: five of twenty records in 50 s.
        let by_records = "about 3 min left, 250 calls, 5.0 calls/s, 8 open";
        assert_eq!(at(15, 255, None, 50.0), by_records);
    }

    #[test]
    fn a_line_on_bytes_tells_their_rate_and_the_time_left() {
        let line = bytes_line(1 << 30, 5 << 30, 128.0);
        assert_eq!(line, "1.0 GiB of 5.0 GiB, 8.0 MiB/s, about 9 min left");
    }

    #[test]
    fn durations_are_short() {
        assert_eq!(duration(12.4), "12 s");
        assert_eq!(duration(600.0), "10 min");
        assert_eq!(duration(11_100.0), "3 h 5 min");
    }
}

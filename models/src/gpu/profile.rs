//! Where the time of steps goes, by operation.

use kernels::gpu::{Event, Result, Stream};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The times of operations, taken by events around each. (Operations that would overlap then do not, so that the sum is
/// more than the time of the steps.)
#[derive(Clone, Default)]
pub struct Profile(Arc<Mutex<Vec<Mark>>>);

struct Mark {
    name: &'static str,
    begin: Event,
    end: Event,
}

/// What one kind of operation took.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Spent {
    pub name: &'static str,
    pub calls: usize,
    pub milliseconds: f64,
}

impl Profile {
    /// Puts an operation on the stream, between two events.
    pub(super) fn time(
        &self,
        name: &'static str,
        stream: &Stream,
        work: impl FnOnce(&Stream) -> Result<()>,
    ) -> Result<()> {
        let (begin, end) = (Event::new(stream.gpu())?, Event::new(stream.gpu())?);
        stream.record(&begin)?;
        work(stream)?;
        stream.record(&end)?;
        self.marks().push(Mark { name, begin, end });
        Ok(())
    }

    /// What all operations since the last call took, the longest first.
    ///
    /// # Errors
    /// Operations that failed.
    pub fn take(&self) -> Result<Vec<Spent>> {
        let mut by_name: BTreeMap<&str, Spent> = BTreeMap::new();
        for Mark { name, begin, end } in std::mem::take(&mut *self.marks()) {
            end.wait()?;
            let milliseconds = f64::from(begin.milliseconds_to(&end)?);
            let spent = by_name.entry(name).or_insert(Spent { name, calls: 0, milliseconds: 0.0 });
            spent.calls += 1;
            spent.milliseconds += milliseconds;
        }
        let mut all: Vec<Spent> = by_name.into_values().collect();
        all.sort_by(|a, b| b.milliseconds.total_cmp(&a.milliseconds));
        Ok(all)
    }

    fn marks(&self) -> MutexGuard<'_, Vec<Mark>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

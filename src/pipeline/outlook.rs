//! How many calls are still to come, told from those that finished verdicts took.
//!
//! Records of one document end together, and late; verdicts end from the first moments on. There are
//! two kinds: replies alone (lists of statements, extracts, samples), and those with a distribution,
//! which takes another call.

/// A number for each kind.
pub(crate) type ByKind = [f64; 2];

/// The places of the kinds.
pub(crate) const PLAIN: usize = 0;
pub(crate) const WEIGHED: usize = 1;

/// Adds numbers kind by kind.
pub(crate) fn add(to: &mut ByKind, more: ByKind) {
    to.iter_mut().zip(more).for_each(|(sum, more)| *sum += more);
}

/// What a verdict of a kind took so far.
#[derive(Debug, Clone, Copy, Default)]
struct Taken {
    verdicts: f64,
    calls: f64,
}

/// What verdicts took so far. Of several votes each is one.
#[derive(Debug, Default)]
pub(super) struct Outlook {
    finished: [Taken; 2],
    /// Of verdicts that are not finished, too.
    calls: f64,
}

impl Outlook {
    /// A reply came, or was found in the journal.
    pub fn reply(&mut self) {
        self.calls += 1.0;
    }

    /// A verdict is finished.
    pub fn finished(&mut self, kind: usize, calls: u32) {
        self.finished[kind].verdicts += 1.0;
        self.finished[kind].calls += f64::from(calls);
    }

    /// About how many calls are to come, if so many verdicts are not finished. `None` before the first
    /// one was.
    pub fn left(&self, unfinished: ByKind) -> Option<u64> {
        let mean = |kind: usize| {
            let Taken { verdicts, calls } = self.finished[kind];
            (verdicts > 0.0).then(|| calls / verdicts)
        };
        let (plain, weighed) = match (mean(PLAIN), mean(WEIGHED)) {
            (Some(plain), Some(weighed)) => (plain, weighed),
            (Some(plain), None) => (plain, plain + 1.0),
            (None, Some(weighed)) => (weighed, weighed),
            (None, None) => return None,
        };
        let all = unfinished[PLAIN] * plain + unfinished[WEIGHED] * weighed;
        let made = self.calls - self.finished.iter().map(|taken| taken.calls).sum::<f64>();
        Some((all - made).max(0.0).round() as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::super::score::{ScorePlan, Tools};
    use super::super::testing::{Lab, Model, tokens};
    use super::super::{Progress, Session, Status};
    use super::*;
    use crate::judge::{Settings, VoteBy, Voting};
    use crate::retrieval::Retriever;
    use std::sync::atomic::AtomicBool;

    #[derive(Default)]
    struct Watch(Vec<Status>);

    impl Progress for Watch {
        fn update(&mut self, status: &Status) {
            self.0.push(*status);
        }

        fn warn(&mut self, _: &str) {}
    }

    /// A scoring run: all that it told, and its calls.
    fn watched(settings: Settings) -> (Vec<Status>, f64) {
        let lab = Lab::new();
        let options = super::super::score::Options {
            judging: lab.judging_by(settings),
            ..lab.score_options()
        };
        let (mut model, mut watch) = (Model::with(4, 1), Watch::default());
        let cancel = AtomicBool::new(false);
        let tools = Tools { tokens: &tokens, retriever: &mut Retriever::Bm25 };
        let mut session = Session { chat: &mut model, progress: &mut watch, cancel: &cancel };
        let summary = ScorePlan::open(options).unwrap().run(tools, &mut session).unwrap();
        (watch.0, summary.calls as f64)
    }

    #[test]
    fn a_scoring_run_knows_its_calls_before_it_has_a_record() {
        let three =
            Settings { voting: Voting { count: 3, by: VoteBy::Mean }, ..Settings::default() };
        for settings in [Settings::default(), three] {
            let (told, all) = watched(settings);
            let share = |status: &Status| {
                let made = status.calls as f64;
                status.calls_left.map(|left| (made / all, (made + left as f64) / all))
            };
            let first = told.iter().find(|status| status.calls_left.is_some()).unwrap();
            assert_eq!(first.done, 0);
            for (made, guess) in told.iter().filter_map(share) {
                let within = match made {
                    made if made < 0.1 => 4.0,
                    made if made < 0.3 => 2.0,
                    made if made < 0.6 => 1.5,
                    _ => 1.25,
                };
                assert!(guess < within && guess > 1.0 / within, "{guess} of all after {made}");
            }
            assert_eq!(told.last().unwrap().calls_left, Some(0));
        }
    }

    #[test]
    fn calls_of_finished_verdicts_tell_those_of_the_others() {
        let mut outlook = Outlook::default();
        (0..3).for_each(|_| outlook.reply());
        assert_eq!(outlook.left([1.0, 1.0]), None);
        outlook.finished(PLAIN, 1);
        // Two calls were made already of what is not finished; a weighed one takes one call more.
        assert_eq!(outlook.left([2.0, 4.0]), Some(2 + 8 - 2));
        outlook.finished(WEIGHED, 2);
        assert_eq!(outlook.left([2.0, 4.0]), Some(2 + 8));
        outlook.reply();
        assert_eq!(outlook.left([0.0, 0.0]), Some(0));
    }
}

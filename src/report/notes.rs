//! What is special about the verdicts of a file, in sentences: nothing, if they are the published
//! method's.

use super::candidate::{Candidate, Statement};
use super::stats::mean;
use crate::chat::Estimate;
use crate::judge::{Dimension, Rated, Votes};

/// A sentence for each option that left its mark in the records.
pub fn notes(candidates: &[&Candidate]) -> Vec<String> {
    let verdicts: Vec<Verdict> = candidates.iter().flat_map(|c| verdicts(c)).collect();
    let statements: Vec<&Statement> =
        candidates.iter().flat_map(|candidate| &candidate.verdicts.statements).collect();
    let notes = [
        stopped(candidates),
        voted(&verdicts),
        calibrated(&verdicts),
        estimated(&verdicts, Estimate::Echo, "from echoed prompts"),
        estimated(&verdicts, Estimate::FirstToken, "from the first tokens of a reply of its own"),
        whole(&statements),
        together(&statements),
    ];
    notes.into_iter().flatten().collect()
}

/// What ratings and degrees of support have in common.
struct Verdict<'a> {
    votes: Option<&'a Votes>,
    is_calibrated: bool,
    estimate: Option<Estimate>,
}

fn verdicts(candidate: &Candidate) -> Vec<Verdict<'_>> {
    let of_rated = Dimension::ALL.iter().filter_map(|&dimension| {
        let Rated { votes, uncalibrated, estimate, .. } = candidate.verdicts.rated(dimension)?;
        let (votes, is_calibrated) = (votes.as_deref(), uncalibrated.is_some());
        Some(Verdict { votes, is_calibrated, estimate: *estimate })
    });
    let of_statement = candidate.verdicts.statements.iter().map(|statement| Verdict {
        votes: statement.votes.as_deref(),
        is_calibrated: statement.uncalibrated.is_some(),
        estimate: statement.estimate,
    });
    of_rated.chain(of_statement).collect()
}

fn stopped(candidates: &[&Candidate]) -> Option<String> {
    let count = candidates.iter().filter(|candidate| candidate.stopped.is_some()).count();
    (count > 0).then(|| {
        format!(
            "{count} of {} candidates were stopped early: whatever their missing dimensions had come \
             to, they can be neither the best nor the worst of their prompts. They have no total, and \
             count where they were judged.",
            candidates.len()
        )
    })
}

fn voted(verdicts: &[Verdict]) -> Option<String> {
    let votes: Vec<&Votes> = verdicts.iter().filter_map(|verdict| verdict.votes).collect();
    let spreads: Vec<f64> = votes.iter().map(|votes| votes.spread).collect();
    let most = votes.iter().map(|votes| votes.each.len()).max()?;
    let agreed = votes.iter().filter(|votes| votes.spread == 0.0).count();
    Some(format!(
        "{} of {} ratings and labels are made of {most} votes each; their standard deviation is {:.2} \
         in the mean, and in {agreed} all votes are the same.",
        votes.len(),
        verdicts.len(),
        mean(&spreads).unwrap_or(0.0),
    ))
}

fn calibrated(verdicts: &[Verdict]) -> Option<String> {
    let count = verdicts.iter().filter(|verdict| verdict.is_calibrated).count();
    (count > 0).then(|| {
        format!(
            "The probabilities or expected values of {count} of {} ratings and labels are corrected by a \
             calibration; the judge’s own stand beside them.",
            verdicts.len()
        )
    })
}

fn estimated(verdicts: &[Verdict], way: Estimate, how: &str) -> Option<String> {
    let count = verdicts.iter().filter(|verdict| verdict.estimate == Some(way)).count();
    (count > 0).then(|| {
        format!(
            "The probabilities of {count} of {} ratings and labels are estimates, {how}: the judge’s \
             server can’t be asked for them directly.",
            verdicts.len()
        )
    })
}

fn whole(statements: &[&Statement]) -> Option<String> {
    let of = |wanted: bool| {
        statements.iter().filter(|statement| statement.whole_document == Some(wanted)).count()
    };
    let (whole, passages) = (of(true), of(false));
    (whole + passages > 0).then(|| {
        format!(
            "{whole} of {} statements were checked against the whole document, {passages} against \
             passages because it was too long.",
            whole + passages
        )
    })
}

fn together(statements: &[&Statement]) -> Option<String> {
    let count = statements.iter().filter(|s| s.statements_in_call.is_some()).count();
    (count > 0).then(|| {
        format!("{count} of {} statements were checked several in one call.", statements.len())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::judge::{Uncalibrated, Vote};
    use crate::pipeline::records::EarlyStop;
    use crate::report::testing::candidate;

    #[test]
    fn the_published_method_needs_no_note() {
        assert_eq!(notes(&[&candidate(1, 0, 20.0)]), Vec::<String>::new());
    }

    #[test]
    fn every_option_is_told_with_its_count() {
        let mut one = candidate(1, 0, 20.0);
        let vote = Vote {
            score: 1.0,
            analysis: String::new(),
            attempts: 1,
            forced: false,
            expected: None,
        };
        let votes = Votes { mean: 1.0, median: 1.0, spread: 0.5, each: vec![vote; 3] };
        let rated = one.verdicts.helpfulness.as_mut().unwrap();
        rated.votes = Some(Box::new(votes));
        rated.uncalibrated = Some(Uncalibrated { distribution: Vec::new(), expected: None });
        one.verdicts.logicality.as_mut().unwrap().estimate = Some(Estimate::FirstToken);
        let statement = &mut one.verdicts.statements[0];
        (statement.estimate, statement.whole_document) = (Some(Estimate::Echo), Some(true));
        statement.statements_in_call = Some(2);
        one.stopped = Some(EarlyStop::new(vec![Dimension::Completeness], 10.0, 20.0));
        let notes = notes(&[&one, &candidate(1, 1, 8.0)]);
        let starts = [
            "1 of 2 candidates were stopped early",
            "1 of 8 ratings and labels are made of 3 votes each; their standard deviation is 0.50",
            "The probabilities or expected values of 1 of 8",
            "The probabilities of 1 of 8 ratings and labels are estimates, from echoed prompts",
            "The probabilities of 1 of 8 ratings and labels are estimates, from the first tokens",
            "1 of 1 statements were checked against the whole document, 0 against",
            "1 of 2 statements were checked several in one call.",
        ];
        assert_eq!(notes.len(), starts.len());
        for (note, start) in notes.iter().zip(starts) {
            assert!(note.starts_with(start), "{note}");
        }
    }
}

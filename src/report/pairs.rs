//! Pairs of best and worst: as a file says, or as the scores say.

use super::Error;
use super::load::Prompt;
use crate::pipeline::jsonl::{Row, RowError, read_rows};
use std::collections::HashMap;
use std::path::Path;

/// Two candidates of a prompt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pair {
    /// Position of the prompt among those shown.
    pub prompt: usize,
    /// Positions of the candidates in it.
    pub win: usize,
    pub lose: usize,
}

impl Pair {
    /// By how much the winner's scores are above the loser's, in the order of
    /// [`Candidate::scores`](super::candidate::Candidate::scores).
    pub fn margins(&self, prompts: &[Prompt]) -> [Option<f64>; 5] {
        let candidates = &prompts[self.prompt].candidates;
        let (win, lose) = (&candidates[self.win].scores, &candidates[self.lose].scores);
        std::array::from_fn(|i| Some(win[i]? - lose[i]?))
    }

    /// Characters of winner and loser.
    pub fn lengths(&self, prompts: &[Prompt]) -> [usize; 2] {
        [self.win, self.lose].map(|k| prompts[self.prompt].candidates[k].chars())
    }
}

/// The highest against the lowest total of each prompt; of equals, the first. Prompts whose totals
/// are all equal have none. Who was stopped early is neither.
pub fn best_and_worst(prompts: &[Prompt]) -> Vec<Pair> {
    let pair = |(prompt, shown): (usize, &Prompt)| {
        let candidates = shown.candidates.iter().enumerate();
        let totals = candidates.filter_map(|(k, candidate)| Some((k, candidate.total()?)));
        let win = totals.clone().reduce(|best, one| if one.1 > best.1 { one } else { best })?;
        let lose = totals.reduce(|worst, one| if one.1 < worst.1 { one } else { worst })?;
        (win.1 > lose.1).then_some(Pair { prompt, win: win.0, lose: lose.0 })
    };
    prompts.iter().enumerate().filter_map(pair).collect()
}

/// Reads pairs of the prompts shown. A pair without the ids of its responses, as in files of other
/// programs, is found by its texts.
///
/// # Errors
/// A file that can't be read.
pub fn read_pairs(path: &Path, prompts: &[Prompt]) -> Result<(Vec<Pair>, Vec<RowError>), Error> {
    let positions: HashMap<u64, usize> =
        prompts.iter().enumerate().map(|(position, prompt)| (prompt.idx, position)).collect();
    let mut pairs = Vec::new();
    let problems = read_rows(path, |mut row| {
        let idx = row.take_index("idx")?;
        let prompt = *positions.get(&idx).ok_or_else(|| {
            row.error(Some("idx"), format!("is prompt {idx}, which has no scored candidate"))
        })?;
        let win = response(&mut row, &prompts[prompt], "win")?;
        let lose = response(&mut row, &prompts[prompt], "lose")?;
        pairs.push(Pair { prompt, win, lose });
        Ok(())
    })?;
    Ok((pairs, problems))
}

/// The position of a pair's response among the candidates: by id where the row has one.
fn response(row: &mut Row, prompt: &Prompt, side: &str) -> Result<usize, RowError> {
    let field = format!("{side}_response");
    let text = row.take_string(&field)?;
    let id = row.take_optional_string(&format!("{side}_idx"))?;
    let found = prompt.candidates.iter().position(|candidate| {
        candidate.answer == text && id.as_ref().is_none_or(|id| *id == candidate.id.to_string())
    });
    found.ok_or_else(|| row.error(Some(&field), "is no scored answer to this prompt"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::testing::{Lab, candidate};

    fn prompt(idx: u64, totals: &[f64]) -> Prompt {
        let candidates = totals.iter().enumerate();
        let candidates = candidates.map(|(k, &total)| candidate(idx, k as u64, total));
        Prompt { idx, candidates: candidates.collect(), ..Prompt::default() }
    }

    #[test]
    fn the_first_of_equals_is_taken_and_ties_are_not() {
        let prompts = [prompt(1, &[9.0, 30.0, 30.0, 9.0]), prompt(2, &[5.0, 5.0]), prompt(3, &[])];
        let pairs = best_and_worst(&prompts);
        assert_eq!(pairs, [Pair { prompt: 0, win: 1, lose: 0 }]);
        assert_eq!(pairs[0].margins(&prompts)[4], Some(21.0));
    }

    #[test]
    fn pairs_are_found_by_id_or_by_text() {
        let lab = Lab::new();
        let prompts = [prompt(7, &[1.0, 2.0])];
        let rows = [
            r#"{"idx":7,"win_response":"answer 1","lose_response":"answer 0"}"#,
            r#"{"idx":7,"win_response":"answer 1","lose_response":"answer 0","win_idx":"7-1","lose_idx":"7-0"}"#,
            r#"{"idx":7,"win_response":"answer 1","lose_response":"answer 0","win_idx":"7-0"}"#,
            r#"{"idx":8,"win_response":"answer 1","lose_response":"answer 0"}"#,
            r#"{"prompt":[],"chosen":[],"rejected":[]}"#,
        ];
        let path = lab.write("pairs.jsonl", &rows.join("\n"));
        let (pairs, problems) = read_pairs(&path, &prompts).unwrap();
        assert_eq!(pairs, [Pair { prompt: 0, win: 1, lose: 0 }; 2]);
        let lines: Vec<_> = problems.iter().map(|p| (p.line, p.field.as_deref())).collect();
        assert_eq!(lines, [(3, Some("win_response")), (4, Some("idx")), (5, Some("idx"))]);
    }
}

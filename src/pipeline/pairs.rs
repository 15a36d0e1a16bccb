//! Stage `pairs`: preference pairs from scored answers. No model is needed.
//!
//! Of all pairs of answers to a prompt whose totals differ by at least the margin, the one that
//! differs most is taken: the highest against the lowest. Neither equal totals nor equal texts ever
//! make a pair. Of equal candidates the answers that come first in the order of ids win.
//!
//! **Length control** (`max_length_ratio`): a judge tends to favour long answers, and training on
//! pairs whose winner is the longer one teaches length. With a ratio R, a winner may have at most
//! R times as many characters as the loser, and the widest pair among those allowed is taken. A
//! bound on the pair, rather than a penalty per token, leaves the scores what the judge gave, has
//! one number with a plain meaning, and costs a pair only where no allowed one is left.
//!
//! **Early stop**: an answer that scoring passed over lies between the best and the worst for
//! certain, so it is never in the widest pair; it counts as scored, and as passed over. Where length
//! control asks for a narrower pair, such an answer might be in it: then the prompt has none.

use super::Error;
use super::data::{Prompts, Seen, check_hash, no_rows, prompt_of};
use super::journal::json;
use super::jsonl::{RowError, holds_fields, keep_inputs, keep_others, read_rows, replace};
use super::plan::after;
use super::progress::{list, passed_over};
use super::records::{EarlyStop, Pair, Prompt, Scored, ScoredHead, TrlPair, input_hash};
use std::collections::HashMap;
use std::fmt;
use std::io::Write;
use std::path::{Path, PathBuf};

/// LongReward pairs only where so many answers were scored.
pub const MIN_SCORED: usize = 5;

/// How pairs are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// `idx, context, query, win_response, lose_response`, and which answers they are.
    LongReward,
    /// `prompt, chosen, rejected` as conversations.
    Trl,
}

/// What is to be paired, and where it goes.
#[derive(Debug, Clone)]
pub struct Options {
    /// `sft.jsonl`.
    pub data: PathBuf,
    /// `scored_responses.jsonl`.
    pub scored: PathBuf,
    /// `preference_pairs.jsonl`; an older one is replaced, and nothing else.
    pub out: PathBuf,
    pub format: Format,
    /// Prompts with fewer scored answers are skipped.
    pub min_scored: usize,
    /// How far apart the totals (0 to 40) must be at least.
    pub min_margin: f64,
    /// Length control; `None` allows every pair.
    pub max_length_ratio: Option<f64>,
}

/// Why a prompt has no pair.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Skipped {
    /// Fewer scored answers than wanted.
    TooFew,
    /// All totals are equal.
    Tie,
    /// The widest difference is below the margin.
    Margin,
    /// All answers that are far enough apart have the same text.
    SameText,
    /// No pair that is far enough apart is allowed by the length control.
    Length,
    /// The widest pair has the same text twice or is not allowed by the length control, and of the
    /// narrower ones not all are known, because early stop passed answers over.
    Unknown,
}

impl Skipped {
    const ALL: [Skipped; 6] = [
        Skipped::TooFew,
        Skipped::Tie,
        Skipped::Margin,
        Skipped::SameText,
        Skipped::Length,
        Skipped::Unknown,
    ];

    fn describe(self) -> &'static str {
        match self {
            Skipped::TooFew => "too few scored answers",
            Skipped::Tie => "all totals equal",
            Skipped::Margin => "totals too close",
            Skipped::SameText => "winner and loser the same text",
            Skipped::Length => "winner too much longer than loser",
            Skipped::Unknown => {
                "winner too much longer than loser or the same text, and early stop left others \
                 without a total (score without --early-stop to pair them)"
            }
        }
    }
}

/// What was paired and what was not. [`fmt::Display`] writes it for people.
#[derive(Debug, Clone, PartialEq)]
pub struct PairsSummary {
    pub out: PathBuf,
    pub prompts: usize,
    pub scored: usize,
    /// Of the scored answers those without a total, because early stop passed them over.
    pub passed_over: usize,
    pub pairs: usize,
    /// Prompts without a pair, in the order of the data.
    pub skipped: Vec<(u64, Skipped)>,
    /// Bad rows of the input.
    pub problems: Vec<RowError>,
    /// Scored rows of prompts that the data has no good row for.
    pub foreign: usize,
    /// Mean difference of the totals; 0 without pairs, like the means below.
    pub mean_margin: f64,
    /// Mean characters of a winner and of a loser.
    pub mean_length: [f64; 2],
    /// Pairs whose winner is the longer one.
    pub longer_wins: usize,
    /// Pairs that are not of a best and a worst answer.
    pub narrower: usize,
    pub max_length: MaxLength,
}

/// The `max_length` that a trainer needs so that no row is cut. TRL's default of 1024 keeps the
/// start, so that a long prompt loses the whole answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MaxLength {
    /// Tokens of the longest prompt with its longer answer, without the chat template's own.
    Tokens(usize),
    /// No tokenizer was given. A text has at most as many tokens as bytes.
    AtMost(usize),
}

/// Pairs scored answers and writes the pairs in the order of the data. `tokens` counts the tokens
/// of a text by the tokenizer of the model to be trained.
///
/// # Errors
/// [`Error::Io`], [`Error::Moved`]; [`Error::Tools`] if the output is an input.
pub fn run(
    options: &Options,
    tokens: Option<&dyn Fn(&str) -> usize>,
) -> Result<PairsSummary, Error> {
    precheck(options)?;
    let (mut prompts, mut problems) = Prompts::open(&options.data)?;
    let AllAnswers { by_prompt: mut answers, foreign, problems: more } =
        read_scored(&options.scored, &prompts).map_err(|error| after(error, &problems))?;
    problems.extend(more);
    let mut summary = PairsSummary::new(options, &prompts, problems, tokens.is_some());
    summary.foreign = foreign;
    replace(&options.out, |file| {
        for position in 0..prompts.rows().len() {
            let idx = prompts.rows()[position].idx;
            let answers = answers.remove(&idx).unwrap_or_default();
            summary.scored += answers.count();
            summary.passed_over += answers.passed_over;
            match choose(&answers, options) {
                Err(why) => summary.skipped.push((idx, why)),
                Ok(Choice { pair, is_widest }) => {
                    let prompt = prompts.load(position)?;
                    let line = pair.line(options.format, &prompt)?;
                    writeln!(file, "{line}").map_err(Error::io(&options.out))?;
                    summary.count(&prompt, &pair, tokens);
                    summary.narrower += usize::from(!is_widest);
                }
            }
        }
        Ok(())
    })?;
    summary.average();
    Ok(summary)
}

/// Refuses an output that [`run`] would not replace: one of its inputs, or what holds anything but pairs.
///
/// # Errors
/// [`Error::Tools`]; [`Error::Io`].
pub fn precheck(options: &Options) -> Result<(), Error> {
    const OURS: [&[&str]; 2] = [&["win_response", "lose_response"], &["chosen", "rejected"]];
    let out = &options.out;
    keep_inputs(out, &[&options.data, &options.scored])?;
    keep_others(out, "pairs", |out| holds_fields(out, &OURS))
}

/// The answers to one prompt.
#[derive(Debug, Default)]
struct Answers {
    /// Those with a total, in the order of ids.
    scored: Vec<Scored>,
    /// How many early stop passed over.
    passed_over: usize,
}

impl Answers {
    fn count(&self) -> usize {
        self.scored.len() + self.passed_over
    }
}

/// What a file of scored answers holds.
struct AllAnswers {
    by_prompt: HashMap<u64, Answers>,
    /// Rows of prompts that the data has no good row for.
    foreign: usize,
    problems: Vec<RowError>,
}

fn read_scored(path: &Path, prompts: &Prompts) -> Result<AllAnswers, Error> {
    let mut answers: HashMap<u64, Answers> = HashMap::new();
    let mut foreign = 0;
    let mut seen = Seen::default();
    let problems = read_rows(path, |row| {
        let place = row.place.clone();
        let passed_over = EarlyStop::is_in(&row);
        let head = ScoredHead::from_row(row.clone())?;
        let ScoredHead { idx, query, answer, input_hash: hash } = head;
        if prompts.get(idx.prompt).is_none() {
            foreign += 1;
            return Ok(());
        }
        let scored = if passed_over { None } else { Some(Scored::from_row(row)?) };
        let prompt = prompt_of(prompts, idx.prompt, &query, &place)?;
        let wanted = input_hash(&[&prompt.hash, &answer]);
        check_hash(hash.as_deref(), &wanted, "document or answer", &place)?;
        seen.insert(idx, &place)?;
        let of_prompt = answers.entry(idx.prompt).or_default();
        of_prompt.passed_over += usize::from(passed_over);
        of_prompt.scored.extend(scored);
        Ok(())
    })?;
    for of_prompt in answers.values_mut() {
        of_prompt.scored.sort_by_key(|scored| scored.idx);
    }
    if answers.is_empty() && foreign > 0 {
        return Err(no_rows(path, &problems, foreign));
    }
    Ok(AllAnswers { by_prompt: answers, foreign, problems })
}

/// The pair that is made.
struct Choice<'a> {
    pair: Ranked<'a>,
    /// Whether it is of a best and a worst answer.
    is_widest: bool,
}

/// The pair to be made of the answers to a prompt.
fn choose<'a>(answers: &'a Answers, options: &Options) -> Result<Choice<'a>, Skipped> {
    let Answers { scored, passed_over } = answers;
    if answers.count() < options.min_scored {
        return Err(Skipped::TooFew);
    }
    let all = scored.iter().flat_map(|win| scored.iter().map(move |lose| Ranked { win, lose }));
    let pairs = some(all.filter(|pair| pair.win.total > pair.lose.total), Skipped::Tie)?;
    let wide = |pair: &Ranked| pair.margin() >= options.min_margin;
    let pairs = some(pairs.into_iter().filter(wide), Skipped::Margin)?;
    let wider = |best: Ranked<'a>, pair: Ranked<'a>| {
        if pair.margin() > best.margin() { pair } else { best }
    };
    let widest = pairs.iter().copied().reduce(wider).ok_or(Skipped::Tie)?;
    // All pairs as wide as the widest are known, but not all narrower ones.
    let known = |pair: &Ranked| *passed_over == 0 || pair.margin() == widest.margin();
    let otherwise = |why| if *passed_over == 0 { why } else { Skipped::Unknown };
    let differ = |pair: &Ranked| pair.win.answer.trim() != pair.lose.answer.trim();
    let pairs = pairs.into_iter().filter(|pair| known(pair) && differ(pair));
    let pairs = some(pairs, otherwise(Skipped::SameText))?;
    let allowed = |pair: &Ranked| pair.length_allowed(options.max_length_ratio);
    let pairs = some(pairs.into_iter().filter(allowed), otherwise(Skipped::Length))?;
    let pair = pairs.into_iter().reduce(wider).ok_or(Skipped::Tie)?;
    Ok(Choice { pair, is_widest: pair.margin() == widest.margin() })
}

fn some<'a>(
    pairs: impl Iterator<Item = Ranked<'a>>,
    otherwise: Skipped,
) -> Result<Vec<Ranked<'a>>, Skipped> {
    let pairs: Vec<Ranked> = pairs.collect();
    if pairs.is_empty() { Err(otherwise) } else { Ok(pairs) }
}

/// Two answers to one prompt, the better one first.
#[derive(Debug, Clone, Copy)]
struct Ranked<'a> {
    win: &'a Scored,
    lose: &'a Scored,
}

impl Ranked<'_> {
    /// Rounded as totals are, so that 3.3 - 2.3 is 1.
    fn margin(&self) -> f64 {
        ((self.win.total - self.lose.total) * 1e6).round() / 1e6
    }

    /// Characters of both answers.
    fn lengths(&self) -> [usize; 2] {
        [self.win, self.lose].map(|scored| scored.answer.chars().count())
    }

    fn length_allowed(&self, max_ratio: Option<f64>) -> bool {
        let [win, lose] = self.lengths();
        max_ratio.is_none_or(|ratio| win as f64 <= ratio * lose.max(1) as f64)
    }

    fn line(&self, format: Format, prompt: &Prompt) -> Result<String, Error> {
        let Self { win, lose } = self;
        match format {
            Format::Trl => json(&TrlPair::new(prompt, &win.answer, &lose.answer)),
            Format::LongReward => json(&Pair {
                idx: prompt.idx,
                context: &prompt.context,
                query: &prompt.query,
                win_response: &win.answer,
                lose_response: &lose.answer,
                win_idx: win.idx,
                lose_idx: lose.idx,
                win_total: win.total,
                lose_total: lose.total,
            }),
        }
    }
}

impl PairsSummary {
    fn new(
        options: &Options,
        prompts: &Prompts,
        problems: Vec<RowError>,
        counts_tokens: bool,
    ) -> Self {
        Self {
            out: options.out.clone(),
            prompts: prompts.rows().len(),
            scored: 0,
            passed_over: 0,
            pairs: 0,
            skipped: Vec::new(),
            problems,
            foreign: 0,
            mean_margin: 0.0,
            mean_length: [0.0; 2],
            longer_wins: 0,
            narrower: 0,
            max_length: if counts_tokens { MaxLength::Tokens(0) } else { MaxLength::AtMost(0) },
        }
    }

    /// Adds a pair; the means are sums until [`average`](Self::average).
    fn count(&mut self, prompt: &Prompt, pair: &Ranked, tokens: Option<&dyn Fn(&str) -> usize>) {
        let [win, lose] = pair.lengths();
        self.pairs += 1;
        self.mean_margin += pair.margin();
        self.mean_length[0] += win as f64;
        self.mean_length[1] += lose as f64;
        self.longer_wins += usize::from(win > lose);
        let size = |text: &str| tokens.map_or(text.len(), |tokens| tokens(text));
        let answer = size(&pair.win.answer).max(size(&pair.lose.answer));
        let row = size(&prompt.message()) + answer;
        let (MaxLength::Tokens(longest) | MaxLength::AtMost(longest)) = &mut self.max_length;
        *longest = row.max(*longest);
    }

    fn average(&mut self) {
        let pairs = self.pairs.max(1) as f64;
        self.mean_margin /= pairs;
        self.mean_length = self.mean_length.map(|length| length / pairs);
    }

    /// Whether all rows of the input were good. Skipped prompts are no fault.
    pub fn is_complete(&self) -> bool {
        self.problems.is_empty()
    }
}

impl fmt::Display for PairsSummary {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let Self { prompts, scored, pairs, .. } = self;
        let out = self.out.display();
        write!(f, "pairs: {pairs} from {prompts} prompts with {scored} scored answers, in {out}")?;
        if self.passed_over > 0 {
            let passed = self.passed_over;
            write!(
                f,
                "\n  {passed} of these answers were passed over by early stop: they are in no pair"
            )?;
        }
        if *pairs > 0 {
            let [win, lose] = self.mean_length;
            let longer = self.longer_wins;
            write!(f, "\n  mean difference of totals: {:.2} of 40", self.mean_margin)?;
            write!(f, "\n  mean length: winner {win:.0}, loser {lose:.0} characters")?;
            write!(f, "; the winner is longer in {longer} of {pairs}")?;
            if self.narrower > 0 {
                let narrower = self.narrower;
                write!(
                    f,
                    "\n  in {narrower} the best and the worst have the same text or are not allowed by the length \
                     control: the next widest pair was taken"
                )?;
            }
            write!(f, "\n  {}", self.max_length)?;
        }
        for why in Skipped::ALL {
            let skipped = self.skipped.iter().filter(|(_, reason)| *reason == why);
            let names = skipped.map(|(idx, _)| format!("prompt {idx}")).collect();
            list(f, &format!("no pair, {}", why.describe()), names)?;
        }
        let problems = self.problems.iter().map(|problem| problem.to_string());
        list(f, "bad input rows", problems.collect())?;
        match passed_over(self.foreign) {
            None => Ok(()),
            Some(told) => write!(f, "\n  {told}"),
        }
    }
}

impl fmt::Display for MaxLength {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            MaxLength::Tokens(tokens) => {
                write!(f, "train with max_length of at least {tokens} tokens")?;
            }
            MaxLength::AtMost(bytes) => {
                write!(
                    f,
                    "train with max_length of up to {bytes} tokens (the longest row's bytes; --tokenizer gives the \
                     number)"
                )?;
            }
        }
        write!(f, " and room for the chat template: what is cut off is the answer")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pipeline::testing::{Lab, Model};

    /// Scored answers to prompt 5 by total and length, each of another letter.
    fn lab(scored: &[(f64, usize)]) -> Lab {
        let lab = Lab::new();
        let row = |(k, (total, chars)): (usize, &(f64, usize))| {
            let scores = format!(r#""scores":{{"total":{total}}}"#);
            let answer = ["é", "è", "ü", "ö", "ä"][k].repeat(*chars);
            format!(
                "{{\"idx\":\"5-{k}\",\"query\":\"What of 0?\",\"answer\":\"{answer}\",{scores}}}\n"
            )
        };
        // The other way round: the order of rows must not matter.
        let rows: Vec<String> = scored.iter().enumerate().map(row).rev().collect();
        lab.write("scored_responses.jsonl", &rows.concat());
        lab
    }

    /// Winner and loser of prompt 5, or why there is none.
    fn pair(scored: &[(f64, usize)], set: impl Fn(&mut Options)) -> Result<[String; 2], Skipped> {
        let lab = lab(scored);
        let mut options = Options { min_scored: 2, ..lab.pairs_options() };
        set(&mut options);
        let summary = run(&options, None).unwrap();
        let skipped = summary.skipped.iter().find(|(idx, _)| *idx == 5);
        let rows = lab.rows("preference_pairs.jsonl");
        assert_eq!((rows.len(), rows.len()), (summary.pairs, usize::from(skipped.is_none())));
        match skipped {
            Some((_, why)) => Err(*why),
            None => {
                Ok(["win_idx", "lose_idx"].map(|key| rows[0][key].as_str().unwrap().to_owned()))
            }
        }
    }

    fn ids(win: &str, lose: &str) -> Result<[String; 2], Skipped> {
        Ok([win, lose].map(|k| format!("5-{k}")))
    }

    #[test]
    fn the_highest_stands_against_the_lowest() {
        assert_eq!(pair(&[(20.0, 1), (31.5, 1), (7.0, 1), (30.0, 1)], |_| ()), ids("1", "2"));
    }

    #[test]
    fn of_equals_the_first_ids_are_taken() {
        let scored = [(9.0, 1), (30.0, 1), (30.0, 1), (9.0, 1), (9.0, 1)];
        assert_eq!(pair(&scored, |_| ()), ids("1", "0"));
    }

    #[test]
    fn ties_are_never_paired() {
        assert_eq!(pair(&[(30.0, 1), (30.0, 1), (30.0, 1)], |_| ()), Err(Skipped::Tie));
    }

    #[test]
    fn too_few_scored_answers_are_skipped() {
        let set = |options: &mut Options| options.min_scored = 5;
        assert_eq!(pair(&[(1.0, 1), (2.0, 1), (3.0, 1), (4.0, 1)], set), Err(Skipped::TooFew));
        assert_eq!(pair(&[], |options| options.min_scored = 0), Err(Skipped::Tie));
    }

    #[test]
    fn a_margin_is_met_exactly() {
        let scored = [(23.3, 1), (22.3, 1)];
        assert_eq!(pair(&scored, |options| options.min_margin = 1.0), ids("0", "1"));
        assert_eq!(pair(&scored, |options| options.min_margin = 1.01), Err(Skipped::Margin));
    }

    #[test]
    fn length_control_takes_the_widest_pair_that_it_allows() {
        let scored = [(30.0, 300), (25.0, 150), (10.0, 100), (12.0, 400)];
        let ratio = |ratio| move |options: &mut Options| options.max_length_ratio = Some(ratio);
        assert_eq!(pair(&scored, |_| ()), ids("0", "2"));
        assert_eq!(pair(&scored, ratio(3.0)), ids("0", "2"));
        assert_eq!(pair(&scored, ratio(2.0)), ids("0", "3"));
        assert_eq!(pair(&scored[..3], ratio(1.5)), ids("1", "2"));
        assert_eq!(pair(&scored[..3], ratio(1.0)), Err(Skipped::Length));
        assert_eq!(pair(&[(2.0, 3), (1.0, 0)], ratio(2.0)), Err(Skipped::Length));
    }

    /// Answers to prompt 5 by total and text.
    #[test]
    fn pairs_of_others_than_best_and_worst_are_counted() {
        let lab = lab(&[(30.0, 300), (25.0, 150), (25.0, 100), (10.0, 100)]);
        let narrower = |ratio| {
            let max_length_ratio = Some(ratio);
            let options = Options { min_scored: 2, max_length_ratio, ..lab.pairs_options() };
            let summary = run(&options, None).unwrap();
            let told = summary.to_string().contains("in 1 the best and the worst");
            assert_eq!((summary.pairs, told), (1, summary.narrower == 1));
            summary.narrower
        };
        assert_eq!([3.0, 1.5].map(narrower), [0, 1]);
    }

    fn lab_of_texts(scored: &[(f64, &str)]) -> Lab {
        let lab = Lab::new();
        let row = |(k, (total, answer)): (usize, &(f64, &str))| {
            let scores = format!(r#""scores":{{"total":{total}}}"#);
            format!(r#"{{"idx":"5-{k}","query":"What of 0?","answer":"{answer}",{scores}}}"#) + "\n"
        };
        let rows: Vec<String> = scored.iter().enumerate().map(row).collect();
        lab.write("scored_responses.jsonl", &rows.concat());
        lab
    }

    #[test]
    fn the_same_text_is_no_pair() {
        let lab = lab_of_texts(&[(24.0, "Paris."), (22.0, "Rome."), (20.0, "Paris. ")]);
        let summary = run(&lab.pairs_options(), None).unwrap();
        assert_eq!(summary.pairs, 1);
        let row = &lab.rows("preference_pairs.jsonl")[0];
        assert_eq!((&row["win_idx"], &row["lose_idx"]), (&"5-0".into(), &"5-1".into()));
        let lab = lab_of_texts(&[(24.0, "Paris."), (22.0, "Paris."), (20.0, "Paris.")]);
        let summary = run(&lab.pairs_options(), None).unwrap();
        assert_eq!(summary.skipped[0], (5, Skipped::SameText));
        assert!(summary.to_string().contains("winner and loser the same text: 1"), "{summary}");
    }

    #[test]
    fn scores_of_another_document_are_not_paired() {
        let lab = Lab::new();
        lab.score(&mut Model::new()).unwrap();
        let pairs = run(&lab.pairs_options(), None).unwrap();
        assert!(pairs.is_complete() && pairs.scored == 9, "{pairs}");
        lab.write("sft.jsonl", &lab.read("sft.jsonl").replacen("word3", "WORD3", 1));
        let summary = run(&lab.pairs_options(), None).unwrap();
        assert_eq!((summary.scored, summary.problems.len()), (6, 3));
        let told = summary.problems[0].brief();
        assert!(
            told.ends_with("input_hash: says that it was made from another document or answer")
        );
    }

    #[test]
    fn only_pairs_are_replaced() {
        let lab = lab(&[(30.0, 2), (20.0, 1)]);
        let options = Options { min_scored: 2, ..lab.pairs_options() };
        for theirs in ["My notes\n", "{\"idx\":1,\"query\":\"q\"}\n", "\n"] {
            lab.write("preference_pairs.jsonl", theirs);
            let told = run(&options, None).unwrap_err().to_string();
            assert!(told.contains("holds something other than pairs: choose another"), "{told}");
            assert_eq!(lab.read("preference_pairs.jsonl"), theirs);
        }
        lab.write("preference_pairs.jsonl", "");
        for format in [Format::LongReward, Format::Trl, Format::LongReward] {
            assert_eq!(run(&Options { format, ..options.clone() }, None).unwrap().pairs, 1);
        }
    }

    #[test]
    fn the_summary_counts_everything() {
        let lab = lab(&[(30.0, 30), (20.0, 10)]);
        let bad = r#"{"idx":"5-0","query":"What of 0?","answer":"","scores":{"total":1}}"#;
        lab.write("scored_responses.jsonl", &(lab.read("scored_responses.jsonl") + bad));
        let options = Options { min_scored: 2, ..lab.pairs_options() };
        let summary = run(&options, Some(&|text| text.chars().count())).unwrap();
        assert_eq!((summary.prompts, summary.scored, summary.pairs), (3, 2, 1));
        assert_eq!((summary.mean_margin, summary.mean_length), (10.0, [30.0, 10.0]));
        assert_eq!(summary.skipped, [(6, Skipped::TooFew), (7, Skipped::TooFew)]);
        let context = lab.rows("sft.jsonl")[0]["context"].as_str().unwrap().len();
        assert_eq!(summary.max_length, MaxLength::Tokens(context + 2 + 10 + 30));
        let text = summary.to_string();
        for part in ["1 from 3 prompts", "longer in 1 of 1", "too few scored answers: 2", "rows: 1"]
        {
            assert!(text.contains(part), "{text}");
        }
    }

    #[test]
    fn answers_that_were_passed_over_count_and_are_in_no_pair() {
        let lab = lab(&[(30.0, 300), (25.0, 150), (10.0, 100)]);
        let stopped = r#"{"idx":"5-9","query":"What of 0?","answer":"x","scores":{"total":null},"early_stop":{}}"#;
        lab.write("scored_responses.jsonl", &(lab.read("scored_responses.jsonl") + stopped));
        let options = Options { min_scored: 4, ..lab.pairs_options() };
        let summary = run(&options, None).unwrap();
        assert_eq!((summary.scored, summary.passed_over, summary.pairs), (4, 1, 1));
        assert!(summary.is_complete());
        assert!(summary.to_string().contains("1 of these answers were passed over"), "{summary}");
        let few = Options { min_scored: 5, ..options.clone() };
        assert_eq!(run(&few, None).unwrap().skipped[0], (5, Skipped::TooFew));
        // The widest pair is too long; whether the answer without a total makes another is not known.
        let by_length = |ratio| Options { max_length_ratio: Some(ratio), ..options.clone() };
        assert_eq!(run(&by_length(3.0), None).unwrap().pairs, 1);
        assert_eq!(run(&by_length(2.0), None).unwrap().skipped[0], (5, Skipped::Unknown));
        // Nor whether it makes one where the answers of the widest pair are the same.
        let same = lab.read("scored_responses.jsonl").replace('ü', "é");
        lab.write("scored_responses.jsonl", &same.replace(&"é".repeat(300), &"é".repeat(100)));
        assert_eq!(run(&options, None).unwrap().skipped[0], (5, Skipped::Unknown));
    }

    #[test]
    fn trl_rows_are_written_on_demand() {
        let lab = lab(&[(30.0, 2), (20.0, 1)]);
        let options = Options { min_scored: 2, format: Format::Trl, ..lab.pairs_options() };
        let summary = run(&options, None).unwrap();
        let rows = lab.rows("preference_pairs.jsonl");
        assert_eq!(rows[0]["chosen"][0]["content"], "éé");
        assert_eq!(rows[0]["rejected"][0]["role"], "assistant");
        assert!(rows[0]["prompt"][0]["content"].as_str().unwrap().ends_with("\n\nWhat of 0?"));
        assert!(matches!(summary.max_length, MaxLength::AtMost(bytes) if bytes > 4));
    }
}

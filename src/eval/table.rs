//! Results, for people.

use super::summary::{Bin, Kind, Line, Summary};
use crate::agree::metrics::{Estimate, Metrics};
use crate::agree::table::Table;
use std::fmt;

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        writeln!(f, "{}, protocol {}: {}", self.suite, self.protocol, self.what())?;
        let judged = self.lines.iter().any(|line| line.judged > 0);
        let mut rows = vec![self.headings(judged)];
        rows.extend(self.lines.iter().map(|line| row(line, judged)));
        write!(f, "{}", Table(rows))?;
        writeln!(
            f,
            "  bins by {}, shown for {}",
            self.lengths,
            if judged { JUDGE } else { MEASURE }
        )?;
        self.notes(f)
    }
}

const JUDGE: &str = "the judge";
const MEASURE: &str = "the measure";

impl Summary {
    fn what(&self) -> String {
        let sets: Vec<&Line> = self.lines.iter().filter(|line| line.kind == Kind::Set).collect();
        let n: usize = sets.iter().map(|line| line.n).sum();
        let of = sets.len() + self.absent.len();
        let hash = |settings: Option<&crate::pipeline::Settings>| {
            settings.and_then(|settings| settings.get("template")).map(|hash| short(hash))
        };
        let mut what = format!("{n} predictions, {} of {of} sets", sets.len());
        if let Some(template) = hash(Some(&self.settings)) {
            what += &format!("; chat template {template}");
        }
        if let Some(template) = hash(self.judge_settings.as_ref()) {
            what += &format!(", the judge's {template}");
        }
        what
    }

    fn headings(&self, judged: bool) -> Vec<String> {
        let mut headings = vec!["set", "n", "cut", "measure", MEASURE];
        if judged {
            headings.extend([JUDGE, "forced"]);
        }
        let mut headings: Vec<String> = headings.into_iter().map(str::to_owned).collect();
        let bins = self.lines.first().map_or(&[][..], |line| &line.bins);
        headings.extend(bins.iter().map(|bin| bin.name.clone()));
        headings.push("prompt".to_owned());
        if judged {
            headings.push("judge's prompt".to_owned());
        }
        headings
    }

    fn notes(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let sets = || self.lines.iter().filter(|line| line.kind == Kind::Set);
        let missing: usize = sets().map(|line| line.rows - line.n.min(line.rows)).sum();
        if missing > 0 {
            writeln!(f, "  rows without a prediction, left out: {missing}")?;
        }
        let fails: usize = sets().map(|line| line.fails_in_python).sum();
        if fails > 0 {
            writeln!(
                f,
                "  {fails} predictions are too long for the suite's public ROUGE-L, which counts them \
                 as 0; here they have their value"
            )?;
        }
        if !self.absent.is_empty() {
            writeln!(f, "  no file for {}", self.absent.join(", "))?;
        }
        Ok(())
    }
}

fn row(line: &Line, judged: bool) -> Vec<String> {
    let name = match line.kind {
        Kind::Set => line.name.clone(),
        Kind::Class | Kind::Overall => format!("= {}", line.name),
    };
    let measure = line.measure.clone().unwrap_or_else(|| "–".to_owned());
    let mut cells = vec![name, line.n.to_string(), line.cut.to_string(), measure];
    cells.push(show(line.scores.get("metric")));
    if judged {
        cells.extend([show(line.scores.get("judge")), line.forced.to_string()]);
    }
    cells.extend(line.bins.iter().map(|bin| bin_cell(bin, judged)));
    let hash = |hash: &Option<String>| hash.as_deref().map_or("–".to_owned(), short);
    cells.push(hash(&line.prompt));
    if judged {
        cells.push(hash(&line.judge_prompt));
    }
    cells
}

/// `51.2 (40)`, the number of predictions after the score.
fn bin_cell(bin: &Bin, judged: bool) -> String {
    let (score, n) = if judged { ("judge", bin.judged) } else { ("metric", bin.n) };
    let value = |scores: &Metrics| scores.get(score).and_then(|estimate| estimate.value);
    value(&bin.scores).map_or("–".to_owned(), |value| format!("{value:.1} ({n})"))
}

/// `51.2 [46.1, 56.3]`, or a dash.
pub fn show(estimate: Option<&Estimate>) -> String {
    match estimate {
        Some(Estimate { value: Some(value), low: Some(low), high: Some(high) }) => {
            format!("{value:.1} [{low:.1}, {high:.1}]")
        }
        Some(Estimate { value: Some(value), .. }) => format!("{value:.1}"),
        _ => "–".to_owned(),
    }
}

/// The beginning of a hash.
pub fn short(hash: &str) -> String {
    hash.chars().take(8).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agree::metrics::Bootstrap;
    use crate::pipeline::Settings;

    fn line(kind: Kind, judged: usize) -> Line {
        let estimate = Estimate { value: Some(51.24), low: Some(40.0), high: Some(60.06) };
        let scores = |names: &[&str]| names.iter().map(|n| ((*n).to_owned(), estimate)).collect();
        let names: &[&str] = if judged > 0 { &["judge", "metric"] } else { &["metric"] };
        let bin = |n| Bin {
            name: "0-4k".to_owned(),
            n,
            judged,
            scores: scores(if n > 0 { names } else { &[] }),
        };
        Line {
            kind,
            name: "qasper".to_owned(),
            sets: 1,
            measure: Some("F1".to_owned()),
            rows: 3,
            n: 2,
            judged,
            cut: 1,
            unfinished: 0,
            forced: judged,
            fails_in_python: 1,
            prompt: Some("abcdef0123456789".to_owned()),
            judge_prompt: None,
            scores: scores(names),
            bins: vec![bin(2), bin(0)],
        }
    }

    fn shown(judged: usize) -> String {
        let summary = Summary {
            suite: "longbench".to_owned(),
            protocol: "longreward".to_owned(),
            lines: vec![line(Kind::Set, judged), line(Kind::Overall, judged)],
            absent: vec!["qmsum".to_owned()],
            lengths: "words".to_owned(),
            bootstrap: Bootstrap::default(),
            settings: Settings::from([("template".to_owned(), "0011223344".to_owned())]),
            judge_settings: None,
        };
        summary.to_string()
    }

    #[test]
    fn a_row_has_its_score_and_what_it_rests_on() {
        let text = shown(0);
        assert!(
            text.contains("longreward: 2 predictions, 1 of 2 sets; chat template 00112233\n"),
            "{text}"
        );
        assert!(
            text.contains(
                "qasper    2  1    F1       51.2 [40.0, 60.1]  51.2 (2)  –     abcdef01\n"
            ),
            "{text}"
        );
        assert!(text.contains("= qasper  2"), "{text}");
        assert!(
            text.contains("rows without a prediction, left out: 1")
                && text.contains("no file for qmsum"),
            "{text}"
        );
    }

    #[test]
    fn a_judge_has_columns_of_its_own() {
        let text = shown(2);
        assert!(text.contains("the judge") && text.contains("forced"), "{text}");
        assert!(text.contains("51.2 [40.0, 60.1]  51.2 [40.0, 60.1]  2       51.2 (2)"), "{text}");
    }
}

//! Small sets of verdicts whose measures are known.

use super::pairwise::probability_of_first;
use super::*;
use crate::agree::judging::Variant;
use crate::agree::labels::{Claim, Level, Pair, Preference, Rating};
use crate::agree::metrics::Metrics;
use crate::judge::{Evidence, Rated, Supported, testing};

const NO_INTERVALS: Bootstrap = Bootstrap { resamples: 0, seed: 0 };

fn rated(score: f64, expected: f64) -> Rated {
    // All on two neighbours, so that the mean is as wanted.
    let low = expected.floor() as usize;
    let mut distribution = vec![0.0; 11];
    distribution[low] = 1.0 - expected.fract();
    distribution[(low + 1).min(10)] += expected.fract();
    Rated { expected: Some(expected), ..testing::rated(score, &distribution) }
}

fn answered(score: f64, expected: f64) -> Details {
    Details { helpfulness: Some(rated(score, expected)), ..Details::default() }
}

fn judged(item: &str, run: usize, found: Found) -> Judged {
    let variant = Variant::Plain;
    let (idx, item) = (Judged::id(item, run, variant), item.to_owned());
    Judged { idx, item, run, variant, found, forced: false, input_hash: String::new() }
}

fn claim(idx: &str, label: Level, votes: &[Level]) -> Item {
    Item {
        idx: idx.to_owned(),
        kind: Kind::Support(Claim {
            query: String::new(),
            claim: "the cat sat".to_owned(),
            evidence: vec![format!("document {idx}")],
            label,
            votes: votes.to_vec(),
            supporting: Vec::new(),
        }),
    }
}

fn supported(score: f64, distribution: [f64; 3], evidence: &str) -> Found {
    let content = evidence.to_owned();
    let evidence = Evidence { c_idx: 0, content, start_idx: 0, end_idx: 1, total_token: 1 };
    Found::Support {
        details: Supported {
            evidences: vec![evidence],
            attempts: 5,
            forced: score == 0.0,
            ..testing::supported(score, &distribution)
        },
    }
}

fn pair(idx: &str, query: &str, lengths: [usize; 2], label: Preference) -> Item {
    Item {
        idx: idx.to_owned(),
        kind: Kind::Pairwise(Pair {
            query: query.to_owned(),
            context: None,
            responses: lengths.map(|length| "x".repeat(length)),
            authors: [const { None }; 2],
            label,
            votes: vec![label, Preference::A],
        }),
    }
}

fn rating(idx: &str, rating: f64) -> Item {
    let (query, answer, votes) = ("q".to_owned(), idx.to_owned(), Vec::new());
    let rating = Rating { query, context: None, answer, author: None, rating, votes };
    Item { idx: idx.to_owned(), kind: Kind::Rating(rating) }
}

fn metrics<'a>(predictors: &'a [Predictor], name: &str) -> &'a Metrics {
    let found = predictors.iter().find(|predictor| predictor.name == name);
    &found.unwrap_or_else(|| panic!("no {name}")).metrics
}

fn value(predictors: &[Predictor], name: &str, metric: &str) -> Option<f64> {
    metrics(predictors, name)[metric].value
}

#[test]
fn claims_by_verdict_by_distribution_and_by_words() {
    use Level::{Fully, Not, Partially};
    let items = [
        claim("1", Fully, &[Fully, Fully]),
        claim("2", Partially, &[Partially, Not]),
        claim("3", Not, &[]),
        claim("4", Not, &[]),
    ];
    let records = [
        judged("1", 0, supported(1.0, [0.7, 0.2, 0.1], "the cat sat here")),
        judged("2", 0, supported(1.0, [0.3, 0.6, 0.1], "a cat sat")),
        judged("3", 0, supported(0.0, [0.1, 0.1, 0.8], "the cat")),
        judged("4", 0, supported(0.5, [0.0, 0.5, 0.5], "dog")),
        judged("4", 1, supported(0.0, [0.0, 0.5, 0.5], "dog")),
    ];
    let summary = Summary::new(&items, &records, NO_INTERVALS, None).unwrap();
    let support = summary.support.as_ref().unwrap();
    assert_eq!((support.items, &support.labelled), (4, &vec![2, 1, 1]));
    assert_eq!(support.confusion.counts, [[1, 1, 0], [0, 0, 1], [0, 0, 1]]);
    let value = |name: &str, metric: &str| value(&support.predictors, name, metric);
    assert_eq!(value("judge", "accuracy"), Some(0.5));
    // Of equals the one named first: partially.
    assert_eq!(value("judge, likeliest", "accuracy"), Some(0.75));
    let error = (0.3 + 0.4 + 0.2 + 0.5) / 4.0;
    assert!((value("judge, likeliest", "calibration_error").unwrap() - error).abs() < 1e-12);
    assert_eq!(value("majority class", "accuracy"), Some(0.5));
    assert_eq!(value("majority class", "spearman"), None);
    // Three thirds, two thirds twice (both go to the higher class), none.
    assert_eq!(value("word overlap", "accuracy"), Some(0.75));
    assert_eq!(value("people", "accuracy"), Some(0.5));
    assert!(support.annotators.is_some());
    let spread = support.spread.as_ref().unwrap();
    assert_eq!((spread.runs, spread.items, spread.metrics["flips"].value), (2, 1, Some(1.0)));
    let by_run: Vec<Option<f64>> = spread.by_run.iter().map(|run| run.value).collect();
    assert_eq!(by_run, [Some(0.0), Some(1.0)]);
    let Reading { verdicts, first_reply, forced, replies } = support.reading;
    assert_eq!((verdicts, first_reply, forced, replies), (5, 0.0, 0.4, 5.0));
}

#[test]
fn pairs_by_rating_by_expected_value_and_by_length() {
    use Preference::{A, B, Tie};
    let items = [
        pair("1", "q", [9, 5], A),
        pair("2", "q", [5, 9], A),
        pair("3", "r", [5, 9], B),
        pair("4", "s", [5, 5], Tie),
    ];
    let found = |a: [f64; 2], b: [f64; 2]| Found::Pairwise {
        a: answered(a[0], a[1]).into(),
        b: answered(b[0], b[1]).into(),
    };
    let records = [
        judged("1", 0, found([8.0, 7.5], [3.0, 3.5])),
        judged("2", 0, found([5.0, 5.4], [5.0, 5.2])),
        judged("3", 0, found([6.0, 6.0], [4.0, 4.5])),
        judged("4", 0, found([6.0, 6.0], [6.0, 6.0])),
    ];
    let summary = Summary::new(&items, &records, NO_INTERVALS, None).unwrap();
    let pairwise = summary.pairwise.as_ref().unwrap();
    assert_eq!(pairwise.labelled, [2, 1, 1]);
    assert_eq!(pairwise.confusion.counts, [[1, 1, 0], [0, 1, 0], [1, 0, 0]]);
    let value = |name: &str, metric: &str| value(&pairwise.predictors, name, metric);
    assert_eq!(value("judge", "accuracy_with_ties"), Some(0.5));
    assert_eq!(value("judge", "accuracy_without_ties"), Some(0.5));
    assert_eq!(value("judge", "accuracy_ties_half"), Some(0.5));
    assert_eq!(value("judge, expected", "accuracy_with_ties"), Some(0.75));
    assert_eq!(value("helpfulness", "accuracy_with_ties"), Some(0.5));
    assert_eq!(value("longest wins", "accuracy_without_ties"), Some(2.0 / 3.0));
    assert_eq!(value("longest wins", "accuracy_with_ties"), Some(0.75));
    assert_eq!(value("majority class", "accuracy_with_ties"), Some(0.5));
    assert_eq!(value("people", "accuracy_with_ties"), Some(0.5));
    let bias = &pairwise.length_bias[0];
    assert_eq!((bias.longer_better, bias.shorter_better, bias.similar), (2, 1, 0));
    assert_eq!(pairwise.spread, None);
}

#[test]
fn ratings_within_and_across_prompts() {
    let item = |idx: &str, query: &str, rating: f64, votes: &[f64]| Item {
        idx: idx.to_owned(),
        kind: Kind::Rating(Rating {
            query: query.to_owned(),
            context: None,
            answer: "x".repeat(rating as usize),
            author: None,
            rating,
            votes: votes.to_vec(),
        }),
    };
    let items = [
        item("1", "q", 1.0, &[1.0, 1.0]),
        item("2", "q", 2.0, &[2.0, 2.0]),
        item("3", "r", 3.0, &[]),
        item("4", "r", 4.0, &[]),
        item("5", "not judged", 4.0, &[]),
    ];
    let scores = [5.0, 9.0, 2.0, 1.0];
    let record = |(i, score): (usize, &f64)| {
        judged(&(i + 1).to_string(), 0, Found::Rating { details: answered(*score, *score).into() })
    };
    let records: Vec<Judged> = scores.iter().enumerate().map(record).collect();
    let summary = Summary::new(&items, &records, NO_INTERVALS, None).unwrap();
    let rating = summary.rating.as_ref().unwrap();
    assert_eq!((rating.items, rating.prompts), (4, 2));
    let value = |name: &str, metric: &str| value(&rating.predictors, name, metric);
    assert_eq!(value("judge", "accuracy_with_ties"), Some(0.5));
    // Ranks 3 4 2 1 against 1 2 3 4: 1 - 6 × 18 / (4 × 15).
    assert!((value("judge", "spearman").unwrap() + 0.8).abs() < 1e-12);
    assert_eq!(value("length", "pearson"), Some(1.0));
    assert_eq!(value("people", "pearson"), Some(1.0));
    assert!(!metrics(&rating.predictors, "people").contains_key("accuracy_with_ties"));
    assert!(rating.predictors.iter().all(|predictor| predictor.name != "logicality"));
}

/// Records of these items, which say so.
fn of_items(items: &[Item], found: impl Fn(usize) -> Found) -> Vec<Judged> {
    let record = |(i, item): (usize, &Item)| {
        let input_hash = item.hash();
        Judged { input_hash, ..judged(&item.idx, 0, found(i)) }
    };
    items.iter().enumerate().map(record).collect()
}

#[test]
fn gains_are_differences_on_the_same_rows() {
    use Level::{Fully, Not};
    let labels = [Fully, Not, Not, Fully, Not, Fully];
    let items: Vec<Item> = (0..6).map(|i| claim(&i.to_string(), labels[i], &[])).collect();
    let says = |scores: [f64; 6]| {
        of_items(&items, |i| supported(scores[i], [scores[i], 0.0, 1.0 - scores[i]], "the cat"))
    };
    let (better, worse) = (says([1., 0., 0., 1., 1., 0.]), says([1., 0., 1., 0., 1., 0.]));
    let bootstrap = Bootstrap { resamples: 200, seed: 1 };
    let gain = |a: &[Judged], b: &[Judged]| Gain::new(&items, a, b, "b".to_owned(), &bootstrap);
    let found = gain(&better, &worse).unwrap();
    assert_eq!((found.items, found.over.as_str(), found.pairwise.len()), (6, "b", 0));
    let names: Vec<&str> = found.support.iter().map(|one| one.name.as_str()).collect();
    assert_eq!(names, ["judge", "judge, likeliest"]);
    let accuracy = found.support[0].metrics["accuracy"];
    assert!((accuracy.value.unwrap() - 2.0 / 6.0).abs() < 1e-12);
    // Where both agree nothing varies: no resample says that the better one is worse.
    assert!(accuracy.low >= Some(0.0) && accuracy.high > accuracy.value);
    let same = gain(&better, &better).unwrap().support[1].metrics["macro_f1"];
    assert_eq!((same.low, same.value, same.high), (Some(0.0), Some(0.0), Some(0.0)));
    assert_eq!(gain(&better, &worse[..4]).unwrap().items, 4);
    let mut others = worse;
    others.iter_mut().for_each(|record| record.input_hash = "of another text".to_owned());
    assert_eq!(gain(&better, &others), None);
}

#[test]
fn gains_of_pairs_and_ratings_are_by_predictor() {
    let items = [pair("1", "q", [9, 5], Preference::A), pair("2", "r", [5, 9], Preference::B)];
    let says = |a: f64, b: f64| {
        of_items(&items, |_| Found::Pairwise { a: answered(a, a).into(), b: answered(b, b).into() })
    };
    let gain = Gain::new(&items, &says(7.0, 3.0), &says(5.0, 5.0), String::new(), &NO_INTERVALS);
    let pairwise = gain.unwrap().pairwise;
    let value = |name, metric| value(&pairwise, name, metric);
    assert_eq!(value("judge", "accuracy_with_ties"), Some(0.5));
    assert_eq!(value("helpfulness", "accuracy_ties_half"), Some(0.0));
    assert_eq!(value("judge, expected", "accuracy_without_ties"), None);

    let items = [rating("1", 1.0), rating("2", 2.0), rating("3", 3.0)];
    let says = |scores: [f64; 3]| {
        of_items(&items, |i| Found::Rating { details: answered(scores[i], scores[i]).into() })
    };
    let (up, down) = (says([2.0, 4.0, 6.0]), says([6.0, 4.0, 2.0]));
    let rating = Gain::new(&items, &up, &down, String::new(), &NO_INTERVALS).unwrap().rating;
    let value = |metric: &str| rating[0].metrics[metric].value.unwrap();
    assert!((value("spearman") - 2.0).abs() < 1e-12 && value("accuracy_with_ties") == 1.0);
}

#[test]
fn a_dimension_is_measured_on_the_rows_that_were_judged_in_it() {
    let in_both =
        |score: f64| Details { logicality: Some(rated(score, score)), ..answered(5.0, 5.0) };
    let items = [1, 2, 3].map(|i| rating(&i.to_string(), f64::from(i)));
    let details = [in_both(1.0), answered(5.0, 5.0), in_both(2.0)];
    let records = of_items(&items, |i| Found::Rating { details: details[i].clone().into() });
    let summary = Summary::new(&items, &records, NO_INTERVALS, None).unwrap();
    let ratings = summary.rating.unwrap().predictors;
    assert_eq!(value(&ratings, "logicality", "pearson"), Some(1.0));
    let title = |predictors: &[Predictor], name: &str| {
        predictors.iter().find(|one| one.name == name).map(Predictor::title)
    };
    assert_eq!(title(&ratings, "logicality").unwrap(), "logicality (2 rows)");
    assert_eq!(title(&ratings, "judge").unwrap(), "judge");
    let gain = Gain::new(&items, &records, &records, String::new(), &NO_INTERVALS).unwrap();
    assert_eq!(title(&gain.rating, "logicality").unwrap(), "logicality (2 rows)");

    let items = [1, 2].map(|i| pair(&i.to_string(), "q", [1, 2], Preference::A));
    let worse = [in_both(0.0), answered(5.0, 5.0)];
    let records = of_items(&items, |i| Found::Pairwise {
        a: details[i].clone().into(),
        b: worse[i].clone().into(),
    });
    let summary = Summary::new(&items, &records, NO_INTERVALS, None).unwrap();
    let pairs = summary.pairwise.unwrap().predictors;
    assert_eq!(value(&pairs, "logicality", "accuracy_with_ties"), Some(1.0));
    assert_eq!(title(&pairs, "logicality").unwrap(), "logicality (1 rows)");
    let gain = Gain::new(&items, &records, &records, String::new(), &NO_INTERVALS).unwrap();
    assert_eq!(title(&gain.pairwise, "logicality").unwrap(), "logicality (1 rows)");
}

#[test]
fn prompts_without_pairs_are_nothing_to_draw_from() {
    let mut items: Vec<Item> = (1..=5).map(|i| rating(&i.to_string(), f64::from(i))).collect();
    for (i, item) in items.iter_mut().enumerate() {
        let Kind::Rating(rating) = &mut item.kind else { panic!() };
        rating.query = if i < 2 { "q".to_owned() } else { i.to_string() };
    }
    let scores = [2.0, 1.0, 3.0, 2.0, 4.0];
    let says = of_items(&items, |i| Found::Rating { details: answered(scores[i], 5.0).into() });
    let bootstrap = Bootstrap { resamples: 50, seed: 0 };
    let ratings = Summary::new(&items, &says, bootstrap, None).unwrap().rating.unwrap().predictors;
    let gain = Gain::new(&items, &says, &says, String::new(), &bootstrap).unwrap().rating;
    for predictors in [ratings, gain] {
        let judge = metrics(&predictors, "judge");
        assert!(judge["pearson"].low.is_some());
        assert!(judge["accuracy_with_ties"].value.is_some());
        assert_eq!(judge["accuracy_with_ties"].low, None);
    }
    let items = [
        pair("1", "q", [9, 5], Preference::A),
        pair("2", "r", [5, 9], Preference::A),
        pair("3", "s", [5, 9], Preference::A),
    ];
    let found = Found::Pairwise { a: answered(2.0, 2.0).into(), b: answered(1.0, 1.0).into() };
    let says = of_items(&items, |_| found.clone());
    let pairwise = Summary::new(&items, &says, bootstrap, None).unwrap().pairwise.unwrap();
    let bias = &pairwise.length_bias[0].metrics;
    let interval = |name: &str| (bias[name].value.is_some(), bias[name].low.is_some());
    assert_eq!(interval("accuracy_longer_better"), (true, false));
    assert_eq!(interval("accuracy_shorter_better"), (true, true));
}

#[test]
fn probabilities_are_those_of_all_pairs_of_sums() {
    let answer = |one: &[f64], two: &[f64]| {
        let rated = |d: &[f64]| Some(Rated { distribution: d.to_vec(), ..rated(0.0, 0.0) });
        Details { helpfulness: rated(one), logicality: rated(two), ..Details::default() }
    };
    let (a, b) = (answer(&[0.5, 0.2, 0.3], &[0.1, 0.9]), answer(&[0.25, 0.5, 0.25], &[0.6, 0.4]));
    let mut expected = 0.0;
    let sums = |answer: &Details| -> Vec<(usize, f64)> {
        let scores = answer.verdicts();
        let (one, two) = (scores[0].distribution, scores[1].distribution);
        let pairs = one
            .iter()
            .enumerate()
            .flat_map(|(i, p)| two.iter().enumerate().map(move |(j, q)| (i + j, p * q)));
        pairs.collect()
    };
    for (x, p) in sums(&a) {
        for (y, q) in sums(&b) {
            let wins = if x > y { 1.0 } else { f64::from(u8::from(x == y)) / 2.0 };
            expected += p * q * wins;
        }
    }
    let found = probability_of_first([&a, &b]).unwrap();
    assert!((found - expected).abs() < 1e-12, "{found} {expected}");
    let swapped = probability_of_first([&b, &a]).unwrap();
    assert!((found + swapped - 1.0).abs() < 1e-12);
    assert_eq!(probability_of_first([&a, &a]), Some(0.5));
    let without = answer(&[], &[1.0]);
    assert_eq!(probability_of_first([&a, &without]), None);
}

#[test]
fn faithfulness_is_read_statement_by_statement_and_counts_as_what_it_is() {
    let faithful = |scores: &[f64]| {
        let statement = |&score: &f64| Supported {
            attempts: 2,
            forced: score == 0.0,
            ..testing::supported(score, &[])
        };
        let listing = crate::judge::Verdict::new(crate::judge::Outcome::Statements(vec![]), "");
        let listing = crate::judge::Verdict { attempts: 5, ..listing };
        crate::judge::Faithfulness::new(&listing, scores.iter().map(statement).collect())
    };
    let judged_in_both = |score: f64, statements: &[f64]| Details {
        faithfulness: Some(faithful(statements)),
        ..answered(score, score)
    };
    let a = judged_in_both(4.0, &[1.0, 1.0, 0.0]);
    // A rating read at once, a list after five replies, three statements after two each, one forced.
    let reading = Reading::of_answers([&a].into_iter());
    assert_eq!((reading.verdicts, reading.first_reply, reading.forced), (5, 0.2, 0.2));
    assert!((reading.replies - 12.0 / 5.0).abs() < 1e-12);
    let b = judged_in_both(6.0, &[0.0, 0.0, 0.0]);
    assert_eq!(probability_of_first([&a, &b]), Some(1.0));
    assert_eq!(probability_of_first([&a, &answered(6.0, 6.0)]), None);
    let alone = |statements: &[f64]| Details {
        faithfulness: Some(faithful(statements)),
        ..Details::default()
    };
    assert_eq!(probability_of_first([&alone(&[1.0]), &alone(&[0.0])]), None);
}

#[test]
fn items_of_one_prompt_are_drawn_together_everywhere() {
    // One prompt: nothing to draw from, so no interval of anything.
    let items = [1, 2, 3].map(|i| pair(&i.to_string(), "q", [i, 1], Preference::A));
    let found = |a: f64| Found::Pairwise { a: answered(a, a).into(), b: answered(2.0, 2.0).into() };
    let records: Vec<Judged> = items
        .iter()
        .zip([1.0, 3.0, 4.0])
        .flat_map(|(item, a)| [judged(&item.idx, 0, found(a)), judged(&item.idx, 1, found(2.0))])
        .collect();
    let bootstrap = Bootstrap { resamples: 50, seed: 0 };
    let pairwise = Summary::new(&items, &records, bootstrap, None).unwrap().pairwise.unwrap();
    let spread = pairwise.spread.unwrap();
    assert_eq!((spread.items, spread.metrics["flips"].low), (3, None));
    assert!(spread.by_run.iter().all(|run| run.low.is_none()));
    let people = metrics(&pairwise.predictors, "people");
    assert!(people.values().all(|estimate| estimate.low.is_none()));
    assert!(pairwise.annotators.unwrap().values().all(|estimate| estimate.low.is_none()));
}

#[test]
fn summaries_survive_json_and_hold_no_nan() {
    let items = [pair("1", "q", [2, 1], Preference::A), claim("2", Level::Not, &[])];
    let found = Found::Pairwise { a: answered(1.0, 1.5).into(), b: answered(2.0, 2.5).into() };
    let records = [judged("1", 0, found), judged("2", 0, supported(0.5, [0.0, 1.0, 0.0], ""))];
    let summary = Summary::new(&items, &records, Bootstrap::default(), None).unwrap();
    let json = serde_json::to_string(&summary).unwrap();
    assert_eq!(serde_json::from_str::<Summary>(&json).unwrap(), summary);
    assert!(!format!("{summary:?}{summary}").contains("NaN"));
    let nothing = Summary::new(&[], &[], Bootstrap::default(), None).unwrap();
    assert_eq!((nothing.support, nothing.pairwise, nothing.rating), (None, None, None));
}

//! Corrections against scikit-learn and scipy (see `tests/goldens/calibrate`), and their losses.

use super::samples::PairSample;
use super::*;
use crate::agree::judging::{Details, Found, Judged, Variant};
use crate::agree::labels::{Claim, Item, Kind, Level, Pair, Preference, Rating};
use crate::judge::{Calibrations, testing};
use serde::Deserialize;

#[derive(Deserialize)]
struct Golden {
    isotonic: Vec<IsotonicCase>,
    temperatures: Vec<TemperatureCase>,
    pairs: Vec<PairCase>,
}

#[derive(Deserialize)]
struct IsotonicCase {
    name: String,
    x: Vec<f64>,
    y: Vec<f64>,
    from: Vec<f64>,
    to: Vec<f64>,
    grid: Vec<f64>,
    at_grid: Vec<f64>,
}

#[derive(Deserialize)]
struct TemperatureCase {
    name: String,
    distributions: Vec<Vec<f64>>,
    targets: Vec<Vec<f64>>,
    temperature: f64,
    loss: f64,
}

#[derive(Deserialize)]
struct PairCase {
    name: String,
    answers: Vec<[Vec<Vec<f64>>; 2]>,
    first: Vec<f64>,
    temperature: f64,
    loss: f64,
}

fn golden() -> Golden {
    let text = include_str!("../../../tests/goldens/calibrate/golden.json");
    serde_json::from_str(text).unwrap()
}

#[track_caller]
fn near(name: &str, ours: &[f64], theirs: &[f64], tolerance: f64) {
    assert_eq!(ours.len(), theirs.len(), "{name}: {ours:?} {theirs:?}");
    for (ours, theirs) in ours.iter().zip(theirs) {
        assert!(
            (ours - theirs).abs() <= tolerance * theirs.abs().max(1.0),
            "{name}: {ours} {theirs}"
        );
    }
}

#[test]
fn isotonic_as_scikit_learn() {
    for case in golden().isotonic {
        let points: Vec<(f64, f64)> = case.x.iter().copied().zip(case.y.iter().copied()).collect();
        let (from, to) = isotonic(&points);
        let by = Calibrator::Isotonic { from: from.clone(), to: to.clone() };
        let at_grid: Vec<f64> = case.grid.iter().map(|&x| by.expected(&[], x, &[])).collect();
        near(&case.name, &at_grid, &case.at_grid, 1e-9);
        near(&case.name, &from, &case.from, 1e-9);
        near(&case.name, &to, &case.to, 1e-9);
    }
}

#[test]
fn temperatures_as_scipy() {
    for case in golden().temperatures {
        let single = |(distribution, target): (&Vec<f64>, &Vec<f64>)| {
            Single::of(distribution.clone(), target.clone())
        };
        let singles: Vec<Single> =
            case.distributions.iter().zip(&case.targets).map(single).collect();
        let temperature = fit_singles(&singles.iter().collect::<Vec<_>>());
        near(&case.name, &[temperature], &[case.temperature], 1e-6);
        let loss: f64 = singles.iter().map(|one| one.log_loss(temperature)).sum();
        near(&case.name, &[loss], &[case.loss], 1e-9);
    }
}

#[test]
fn temperatures_of_pairs_as_scipy() {
    for case in golden().pairs {
        let pair =
            |(answers, first): (&[Vec<Vec<f64>>; 2], &f64)| PairSample::of(answers.clone(), *first);
        let pairs: Vec<PairSample> = case.answers.iter().zip(&case.first).map(pair).collect();
        let temperature = fit_pairs(&pairs.iter().collect::<Vec<_>>());
        near(&case.name, &[temperature], &[case.temperature], 1e-6);
        let loss: f64 = pairs.iter().map(|pair| pair.log_loss(temperature)).sum();
        near(&case.name, &[loss], &[case.loss], 1e-9);
    }
}

fn claim(i: usize, label: Level) -> Item {
    let (claim, evidence) = (format!("claim {i}"), vec![format!("x{i}")]);
    let (query, votes, supporting) = (String::new(), Vec::new(), Vec::new());
    let kind = Kind::Support(Claim { query, claim, evidence, label, votes, supporting });
    Item { idx: i.to_string(), kind }
}

fn judged(item: &Item, found: Found) -> Judged {
    let (variant, idx) = (Variant::Plain, Judged::id(&item.idx, 0, Variant::Plain));
    let (item, input_hash) = (item.idx.clone(), item.hash());
    Judged { idx, item, run: 0, variant, found, forced: false, input_hash }
}

fn support(distribution: [f64; 3]) -> Found {
    Found::Support { details: testing::supported(1.0, &distribution) }
}

/// A judge that is always sure, and right two times of three.
fn sure(count: usize) -> (Vec<Item>, Vec<Judged>) {
    let item = |i: usize| claim(i, if i.is_multiple_of(3) { Level::Not } else { Level::Fully });
    let items: Vec<Item> = (0..count).map(item).collect();
    let records = items.iter().map(|item| judged(item, support([0.98, 0.01, 0.01]))).collect();
    (items, records)
}

fn options(method: Method) -> Options {
    Options { method, folds: 5, seed: 1, bootstrap: Bootstrap { resamples: 20, seed: 0 } }
}

#[test]
fn a_judge_that_is_too_sure_is_cooled_and_its_losses_are_held_out() {
    let (items, records) = sure(60);
    let samples = Samples::new(&items, &records, Scale::default());
    for method in [Method::Temperature, Method::Isotonic] {
        let fitted = &fit(&samples, &options(method)).unwrap().kinds["support"];
        let value = |name: &str| fitted.losses[name].value.unwrap();
        assert_eq!((fitted.items, fitted.prompts, fitted.labels), (60, 60, "support"));
        assert!(value("squared_error_gain") > 0.05, "{fitted:?}");
        match &fitted.calibrator {
            Calibrator::Temperature { temperature } => {
                assert!(*temperature > 2.0 && value("log_loss_gain") > 0.2, "{fitted:?}");
                assert!(value("calibration_error_after") < value("calibration_error_before"));
                assert!(fitted.losses["log_loss_gain"].low > Some(0.0));
            }
            Calibrator::Isotonic { from, to } => {
                assert_eq!((from.len(), to[0]), (1, 40.0 / 60.0));
                assert!(!fitted.losses.contains_key("log_loss_gain"));
            }
        }
    }
}

#[test]
fn noise_gains_nothing_where_it_is_held_out() {
    // Expected values that say nothing: isotonic regression fits their noise.
    let level = |i: usize| Level::ALL[(i * i * 7 + i / 2) % 3];
    let items: Vec<Item> = (0..30).map(|i| claim(i, level(i))).collect();
    let found = |i: usize| {
        let p = ((i * 17 + 5) % 31) as f64 / 31.0;
        support([p, 0.0, 1.0 - p])
    };
    let records: Vec<Judged> =
        items.iter().enumerate().map(|(i, item)| judged(item, found(i))).collect();
    let samples = Samples::new(&items, &records, Scale::default());
    let fitted = &fit(&samples, &options(Method::Isotonic)).unwrap().kinds["support"];
    let Calibrator::Isotonic { from, to } = &fitted.calibrator else { panic!() };
    let by = Calibrator::Isotonic { from: from.clone(), to: to.clone() };
    let own: f64 = items
        .iter()
        .enumerate()
        .map(|(i, _)| {
            let expected = ((i * 17 + 5) % 31) as f64 / 31.0;
            (by.expected(&[], expected, &[]) - level(i) as usize as f64 / 2.0).powi(2) / 30.0
        })
        .sum();
    assert!(fitted.losses["squared_error_after"].value.unwrap() > own + 0.01, "{fitted:?} {own}");
}

fn rated(distribution: Vec<f64>) -> Box<Details> {
    let rated = testing::rated(5.0, &distribution);
    Box::new(Details { logicality: Some(rated), ..Details::default() })
}

fn peak(at: usize) -> Vec<f64> {
    (0..11).map(|i| if i == at { 0.9 } else { 0.01 }).collect()
}

#[test]
fn ratings_of_people_are_brought_to_the_judges_scale() {
    let row = |i: usize, rating: f64| {
        let (query, answer) = (format!("q{i}"), "a".to_owned());
        let row = Rating { query, context: None, answer, author: None, rating, votes: Vec::new() };
        Item { idx: i.to_string(), kind: Kind::Rating(row) }
    };
    let items: Vec<Item> =
        (0..12).map(|i| row(i, 1.0 + (i % 5) as f64)).chain([row(12, 9.0)]).collect();
    let records: Vec<Judged> = items
        .iter()
        .enumerate()
        .map(|(i, item)| judged(item, Found::Rating { details: rated(peak(i % 5 * 2)) }))
        .collect();
    let samples = Samples::new(&items, &records, Scale { low: 1.0, high: 5.0 });
    assert!(samples.problems[0].contains("row \"12\": the rating 9 is outside 1 to 5"));
    let Verdicts::Singles("rating", singles) = &samples.kinds["logicality"] else { panic!() };
    assert_eq!((singles.len(), singles[1].value), (12, 2.5));
    assert_eq!(singles[1].target[2..4], [0.5, 0.5]);
    let fitted = &fit(&samples, &options(Method::Isotonic)).unwrap().kinds["logicality"];
    assert_eq!(fitted.labels, "rating");
}

#[test]
fn pairs_give_a_temperature_and_no_isotonic_map() {
    let item = |i: usize| {
        let responses = ["x".to_owned(), "y".to_owned()];
        let label = if i.is_multiple_of(3) { Preference::B } else { Preference::A };
        let (query, votes, authors) = (format!("q{i}"), Vec::new(), [const { None }; 2]);
        let pair = Pair { query, context: None, responses, authors, label, votes };
        Item { idx: i.to_string(), kind: Kind::Pairwise(pair) }
    };
    let items: Vec<Item> = (0..30).map(item).collect();
    let found = || Found::Pairwise { a: rated(peak(6)), b: rated(peak(5)) };
    let records: Vec<Judged> = items.iter().map(|item| judged(item, found())).collect();
    let samples = Samples::new(&items, &records, Scale::default());
    let refused = fit(&samples, &options(Method::Isotonic)).unwrap_err();
    let why = "logicality: there are no ratings, and the pairs in the rows \"0\", \"1\", \"2\" and 27 more say \
               which answer is better";
    assert!(refused.to_string().contains(why), "{refused}");
    // Labels of another kind in the same file are fitted, and these are named.
    let (claims, verdicts) = sure(20);
    let renamed = |i: usize| format!("claim {i}");
    let claims = claims.into_iter().enumerate().map(|(i, item)| Item { idx: renamed(i), ..item });
    let verdicts =
        verdicts.into_iter().enumerate().map(|(i, one)| Judged { item: renamed(i), ..one });
    let mixed: Vec<Item> = items.iter().cloned().chain(claims).collect();
    let all: Vec<Judged> = records.iter().cloned().chain(verdicts).collect();
    let fits =
        fit(&Samples::new(&mixed, &all, Scale::default()), &options(Method::Isotonic)).unwrap();
    assert_eq!(fits.kinds.keys().collect::<Vec<_>>(), ["support"]);
    assert!(
        matches!(&fits.left_out[..], [LeftOut::PairsAlone { kind, .. }] if kind == "logicality")
    );
    let fitted = &fit(&samples, &options(Method::Temperature)).unwrap().kinds["logicality"];
    let Calibrator::Temperature { temperature } = fitted.calibrator else { panic!() };
    assert!(temperature > 1.1 && fitted.labels == "pairwise", "{fitted:?}");
}

#[test]
fn what_is_written_is_read_and_a_corrected_file_gives_the_same_fit() {
    let (items, mut records) = sure(20);
    let samples = Samples::new(&items, &records, Scale::default());
    let kinds = fit(&samples, &options(Method::Temperature)).unwrap().kinds;
    let judge = [("checkpoint".to_owned(), "c".to_owned())].into();
    let (labels, labels_hash) = ("dev".to_owned(), labels_hash(&items));
    let bootstrap = Bootstrap::default();
    let version = "1".to_owned();
    let fit_file = Fit { version, judge, labels, labels_hash, folds: 5, seed: 0, bootstrap, kinds };
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("c.json");
    std::fs::write(&path, serde_json::to_string(&fit_file).unwrap()).unwrap();
    let read = Calibrations::read(&path).unwrap();
    assert_eq!(read.kinds["support"], fit_file.kinds["support"].calibrator);
    assert_eq!(read.labels_hash, fit_file.labels_hash);
    records.iter_mut().for_each(|record| record.calibrate(&read));
    assert_eq!(Samples::new(&items, &records, Scale::default()), samples);
    assert!(
        format!("{fit_file}").contains("support: 20 support labels on 20 prompts, temperature")
    );
}

#[test]
fn too_little_is_refused() {
    assert_eq!(fit(&Samples::default(), &options(Method::Temperature)), Err(FitError::Nothing));
    let (items, records) = sure(1);
    let samples = Samples::new(&items, &records, Scale::default());
    let refused = fit(&samples, &options(Method::Temperature)).unwrap_err().to_string();
    assert!(refused.contains("support: labels on 1 prompt are too few"), "{refused}");
}

fn faithful(score: f64) -> crate::judge::Faithfulness {
    let found = testing::supported(score / 10.0, &[]);
    let listing = crate::judge::Verdict::new(crate::judge::Outcome::Statements(Vec::new()), "");
    crate::judge::Faithfulness::new(&listing, vec![found])
}

/// Pairs whose first answer is better, on prompts of their own.
fn pairs(count: usize) -> Vec<Item> {
    let item = |i: usize| {
        let responses = ["x".to_owned(), "y".to_owned()];
        let (query, votes, authors) = (format!("q{i}"), Vec::new(), [const { None }; 2]);
        let (context, label) = (None, Preference::A);
        let pair = Pair { query, context, responses, authors, label, votes };
        Item { idx: i.to_string(), kind: Kind::Pairwise(pair) }
    };
    (0..count).map(item).collect()
}

#[test]
fn pairs_judged_in_faithfulness_are_used_and_what_has_no_probabilities_is_named() {
    let items = pairs(4);
    let judged_in_all = |faithfulness: f64| {
        let faithfulness = Some(faithful(faithfulness));
        Box::new(Details { faithfulness, ..*rated(peak(5)) })
    };
    let mut records: Vec<Judged> = items
        .iter()
        .map(|item| judged(item, Found::Pairwise { a: judged_in_all(10.0), b: judged_in_all(5.0) }))
        .collect();
    records[3].found = Found::Pairwise { a: rated(Vec::new()), b: rated(peak(5)) };
    let samples = Samples::new(&items, &records, Scale::default());
    assert_eq!(samples.kinds.keys().collect::<Vec<_>>(), ["logicality"]);
    let Verdicts::Pairs(found) = &samples.kinds["logicality"] else { panic!() };
    assert_eq!((found.len(), found[0].lead), (3, 5.0));
    // Ratings are alike, and the first is ahead by five.
    assert!(found[0].probability(1.0) > 0.9);
    let even = PairSample::of(found[0].answers.clone(), 1.0);
    assert!((even.probability(1.0) - 0.5).abs() < 1e-12);
    assert!(
        matches!(&samples.notes[..], [note] if note.contains("the rows \"3\" have verdicts without"))
    );
}

#[test]
fn claims_on_one_document_are_held_out_together() {
    let (mut items, records) = sure(12);
    for (i, item) in items.iter_mut().enumerate() {
        let Kind::Support(claim) = &mut item.kind else { panic!() };
        claim.evidence = vec![format!("document {}", i % 3)];
    }
    let records: Vec<Judged> = records
        .into_iter()
        .zip(&items)
        .map(|(record, item)| Judged { input_hash: item.hash(), ..record })
        .collect();
    let samples = Samples::new(&items, &records, Scale::default());
    let kinds = fit(&samples, &options(Method::Temperature)).unwrap().kinds;
    assert_eq!((kinds["support"].prompts, kinds["support"].folds), (3, 3));
    let (version, labels, labels_hash) = (String::new(), String::new(), String::new());
    let (judge, bootstrap) = (Settings::new(), Bootstrap::default());
    let file = Fit { version, judge, labels, labels_hash, folds: 5, seed: 0, bootstrap, kinds };
    assert!(format!("{file}").ends_with("losses by 3-fold cross-validation"), "{file}");
}

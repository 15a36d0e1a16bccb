//! The measures against scikit-learn, scipy, statsmodels and numpy; see `tests/goldens/metrics`.

use super::*;
use serde::Deserialize;

#[derive(Deserialize)]
struct Golden {
    classes: Vec<Classes>,
    fleiss: Vec<Fleiss>,
    ranks: Vec<Ranks>,
    calibration: Vec<Calibrated>,
    bootstrap: Vec<Bootstrapped>,
}

#[derive(Deserialize)]
struct Classes {
    name: String,
    labels: Vec<usize>,
    predictions: Vec<usize>,
    confusion: Confusion,
    accuracy: Option<f64>,
    macro_f1: Option<f64>,
    kappa: Option<f64>,
    quadratic_kappa: Option<f64>,
}

#[derive(Deserialize)]
struct Fleiss {
    name: String,
    votes: Vec<Vec<usize>>,
    kappa: Option<f64>,
}

#[derive(Deserialize)]
struct Ranks {
    name: String,
    x: Vec<f64>,
    y: Vec<f64>,
    z: Vec<f64>,
    ranks: Vec<f64>,
    pearson: Option<f64>,
    spearman: Option<f64>,
    kendall: Option<f64>,
    partial: Option<f64>,
    mean_absolute_difference: Option<f64>,
    standard_deviation: Option<f64>,
    pairs: PairCounts,
}

#[derive(Deserialize)]
struct Calibrated {
    name: String,
    confidences: Vec<f64>,
    right: Vec<bool>,
    items: Vec<usize>,
    error: Option<f64>,
}

#[derive(Deserialize)]
struct Bootstrapped {
    name: String,
    x: Vec<f64>,
    y: Vec<f64>,
    keys: Vec<usize>,
    resamples: usize,
    seed: u64,
    mean: [f64; 2],
    spearman: [f64; 2],
}

fn golden() -> Golden {
    let text = include_str!("../../../tests/goldens/metrics/golden.json");
    serde_json::from_str(text).unwrap()
}

#[track_caller]
fn same(case: &str, measure: &str, ours: Option<f64>, reference: Option<f64>) {
    let close = match (ours, reference) {
        (Some(ours), Some(reference)) => (ours - reference).abs() < 1e-9,
        (ours, reference) => ours == reference,
    };
    assert!(close, "{case}: {measure} is {ours:?}, not {reference:?}");
}

#[test]
fn classes_as_scikit_learn() {
    for case in golden().classes {
        let pairs = case.labels.iter().copied().zip(case.predictions.iter().copied());
        let confusion = Confusion::new(3, pairs);
        assert_eq!(confusion, case.confusion, "{}", case.name);
        same(&case.name, "accuracy", confusion.accuracy(), case.accuracy);
        same(&case.name, "macro-F1", confusion.macro_f1(), case.macro_f1);
        same(&case.name, "kappa", confusion.kappa(), case.kappa);
        same(&case.name, "quadratic", confusion.quadratic_kappa(), case.quadratic_kappa);
    }
}

#[test]
fn annotators_as_statsmodels() {
    for case in golden().fleiss {
        same(&case.name, "kappa", fleiss_kappa(&case.votes), case.kappa);
    }
}

#[test]
fn correlations_as_scipy() {
    for case in golden().ranks {
        let Ranks { name, x, y, z, .. } = &case;
        for (ours, reference) in ranks(x).into_iter().zip(&case.ranks) {
            assert_eq!(ours, *reference, "{name}");
        }
        same(name, "Pearson", pearson(x, y), case.pearson);
        same(name, "Spearman", spearman(x, y), case.spearman);
        same(name, "Kendall", kendall(x, y), case.kendall);
        same(name, "partial", partial(x, y, z), case.partial);
        let difference = mean_absolute_difference(x, y);
        same(name, "difference", difference, case.mean_absolute_difference);
        same(name, "deviation", standard_deviation(x), case.standard_deviation);
        let all = [(0..x.len()).collect()];
        assert_eq!(PairCounts::within(&all, x, y), case.pairs, "{name}");
    }
}

#[test]
fn calibration_as_numpy() {
    for case in golden().calibration {
        let items: Vec<(f64, bool)> =
            case.confidences.iter().copied().zip(case.right.iter().copied()).collect();
        let ours = Calibration::new(&items, Calibration::BINS);
        let counts: Vec<usize> = ours.bins.iter().map(|bin| bin.items).collect();
        assert_eq!(counts, case.items, "{}", case.name);
        same(&case.name, "error", ours.error, case.error);
    }
}

#[test]
fn intervals_as_numpy() {
    for case in golden().bootstrap {
        let Bootstrapped { resamples, seed, .. } = case;
        let pick = |values: &[f64], items: &[usize]| -> Vec<f64> {
            items.iter().map(|&item| values[item]).collect()
        };
        let estimates =
            Bootstrap { resamples, seed }.estimate(&clusters(&case.keys), |items: &[usize]| {
                let (x, y) = (pick(&case.x, items), pick(&case.y, items));
                vec![("mean", mean(&x)), ("spearman", spearman(&x, &y))]
            });
        for (measure, [low, high]) in [("mean", case.mean), ("spearman", case.spearman)] {
            same(&case.name, measure, estimates[measure].low, Some(low));
            same(&case.name, measure, estimates[measure].high, Some(high));
        }
    }
}

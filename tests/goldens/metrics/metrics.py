"""Writes golden.json: measures of agreement by scipy, scikit-learn, statsmodels and numpy.

    python -m venv venv && venv/bin/pip install numpy scipy scikit-learn statsmodels
    venv/bin/python tests/goldens/metrics/metrics.py

The result is the same at every run with the same versions. A measure without a value is null.
"""

import json
import math
import warnings
from importlib.metadata import version
from pathlib import Path

import numpy as np
from scipy import stats
from sklearn import metrics
from statsmodels.stats import inter_rater

warnings.simplefilter("ignore")
MASK = (1 << 64) - 1


def number(value):
    value = float(value)
    return value if math.isfinite(value) else None


def class_case(name, labels, predictions, classes=3):
    everything = list(range(classes))
    kappa = lambda weights: metrics.cohen_kappa_score(
        labels, predictions, labels=everything, weights=weights
    )
    return {
        "name": name,
        "labels": labels,
        "predictions": predictions,
        "confusion": metrics.confusion_matrix(labels, predictions, labels=everything).tolist(),
        "accuracy": number(metrics.accuracy_score(labels, predictions)),
        "macro_f1": number(metrics.f1_score(labels, predictions, average="macro", zero_division=0)),
        "kappa": number(kappa(None)),
        "quadratic_kappa": number(kappa("quadratic")),
    }


def fleiss_case(name, votes):
    return {"name": name, "votes": votes, "kappa": number(inter_rater.fleiss_kappa(np.array(votes)))}


def partial(x, y, z):
    """None for a constant, whose residuals are rounding errors."""
    if np.ptp(x) == 0 or np.ptp(y) == 0:
        return None
    return number(stats.pearsonr(residual(x, z), residual(y, z))[0])


def residual(y, z):
    design = np.column_stack([np.ones(len(z)), z])
    return y - design @ np.linalg.lstsq(design, y, rcond=None)[0]


def rank_case(name, x, y, z):
    x, y, z = (np.array(values, dtype=float) for values in (x, y, z))
    return {
        "name": name,
        "x": x.tolist(),
        "y": y.tolist(),
        "z": z.tolist(),
        "ranks": stats.rankdata(x).tolist(),
        "pearson": number(stats.pearsonr(x, y)[0]),
        "spearman": number(stats.spearmanr(x, y)[0]),
        "kendall": number(stats.kendalltau(x, y, variant="b")[0]),
        "partial": partial(x, y, z),
        "mean_absolute_difference": number(metrics.mean_absolute_error(x, y)),
        "standard_deviation": number(np.std(x, ddof=1)),
        "pairs": pair_counts(x, y),
    }


def pair_counts(x, y):
    """Of all pairs of items, by brute force."""
    names = ["agree", "disagree", "label_tied", "prediction_tied", "both_tied"]
    counts = dict.fromkeys(names, 0)
    for i in range(len(x)):
        for j in range(i):
            dx, dy = np.sign(x[i] - x[j]), np.sign(y[i] - y[j])
            if dx == 0 or dy == 0:
                name = "both_tied" if dx == dy else "label_tied" if dx == 0 else "prediction_tied"
            else:
                name = "agree" if dx == dy else "disagree"
            counts[name] += 1
    return counts


def calibration_case(name, confidences, right, bins=10):
    edges = np.arange(1, bins + 1) / bins
    which = np.searchsorted(edges, confidences, side="left")
    error = 0.0
    for one in range(bins):
        inside = which == one
        if inside.any():
            error += inside.mean() * abs(np.mean(confidences[inside]) - np.mean(right[inside]))
    return {
        "name": name,
        "confidences": confidences.tolist(),
        "right": right.tolist(),
        "items": np.bincount(which, minlength=bins).tolist(),
        "error": number(error),
    }


class SplitMix:
    def __init__(self, seed):
        self.state = seed

    def below(self, bound):
        self.state = (self.state + 0x9E3779B97F4A7C15) & MASK
        z = self.state
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
        return ((z ^ (z >> 31)) * bound) >> 64


def bootstrap_case(name, x, y, keys, resamples, seed):
    """Spearman's correlation and the mean of x, on the same resamples of clusters."""
    clusters = {}
    for item, key in enumerate(keys):
        clusters.setdefault(key, []).append(item)
    clusters = list(clusters.values())
    random = SplitMix(seed)
    means, correlations = [], []
    for _ in range(resamples):
        drawn = sum((clusters[random.below(len(clusters))] for _ in clusters), [])
        means.append(np.mean(x[drawn]))
        correlations.append(stats.spearmanr(x[drawn], y[drawn])[0])
    interval = lambda values: np.percentile(values, [2.5, 97.5]).tolist()
    return {
        "name": name,
        "x": x.tolist(),
        "y": y.tolist(),
        "keys": keys,
        "resamples": resamples,
        "seed": seed,
        "mean": interval(means),
        "spearman": interval([value for value in correlations if math.isfinite(value)]),
    }


def main():
    random = np.random.default_rng(20)
    draw = lambda classes, n, p=None: random.choice(classes, n, p=p).tolist()
    noisy = lambda labels, share: [
        int(random.integers(3)) if random.random() < share else label for label in labels
    ]
    labels = draw(3, 120, [0.3, 0.55, 0.15])
    classes = [
        class_case("random", draw(3, 60), draw(3, 60)),
        class_case("related", labels, noisy(labels, 0.5)),
        class_case("one prediction", draw(3, 40), [1] * 40),
        class_case("one class", [2] * 10, [2] * 10),
        class_case("a class is missing", draw(2, 40), draw(2, 40)),
        class_case("a class is predicted only", draw(2, 40), draw(3, 40)),
        class_case("never right", [0, 1, 2, 0], [1, 2, 0, 2]),
        class_case("one item", [1], [1]),
    ]
    votes = lambda items, annotators, classes: random.multinomial(
        annotators, random.dirichlet(np.ones(classes)), items
    ).tolist()
    varied = [random.multinomial(4, random.dirichlet(np.full(3, 0.4))).tolist() for _ in range(25)]
    fleiss = [
        fleiss_case("chance", votes(40, 3, 3)),
        fleiss_case("agreeing", varied),
        fleiss_case("perfect", [[3, 0], [0, 3], [3, 0]]),
        fleiss_case("one class", [[3, 0], [3, 0]]),
    ]
    reals = lambda n: random.normal(size=n).round(6)
    whole = lambda n, top: random.integers(0, top, n).astype(float)
    x = reals(50)
    ranks = [
        rank_case("reals", reals(40), reals(40), reals(40)),
        rank_case("related", x, (x * 0.6 + reals(50)).round(6), (x - reals(50)).round(6)),
        rank_case("many ties", whole(80, 4), whole(80, 3), whole(80, 5)),
        rank_case("ratings", whole(60, 11), whole(60, 11), reals(60)),
        rank_case("two values", whole(30, 2), whole(30, 2), reals(30)),
        rank_case("constant", [0.1] * 12, reals(12), reals(12)),
        rank_case("opposite", [1, 2, 3, 4], [4, 3, 2, 1], [1, 5, 2, 2]),
        rank_case("far from zero", (1e6 + reals(30)).round(6), reals(30), reals(30)),
    ]
    confidences = random.beta(3, 1.5, 200).round(6)
    edges = np.array([0.0, 0.1, 0.2, 0.3, 0.6, 0.7, 0.7, 1.0])
    calibration = [
        calibration_case("beta", confidences, random.random(200) < confidences**2),
        calibration_case("edges", edges, np.array([1, 0, 0, 1, 1, 0, 1, 1]) == 1),
    ]
    x = whole(40, 8)
    y = (x + random.normal(size=40) * 3).round(6)
    bootstrap = [
        bootstrap_case("items", x, y, list(range(40)), 200, 0),
        bootstrap_case("prompts", x, y, [item // 4 for item in range(40)], 200, 9),
    ]
    reference = {name: version(name) for name in ["numpy", "scipy", "scikit-learn", "statsmodels"]}
    golden = {
        "reference": reference,
        "classes": classes,
        "fleiss": fleiss,
        "ranks": ranks,
        "calibration": calibration,
        "bootstrap": bootstrap,
    }
    lines = []
    for key, value in golden.items():
        if isinstance(value, list):
            rows = ",\n".join(json.dumps(row) for row in value)
            lines.append(f"{json.dumps(key)}: [\n{rows}\n]")
        else:
            lines.append(f"{json.dumps(key)}: {json.dumps(value)}")
    Path(__file__).with_name("golden.json").write_text("{\n" + ",\n".join(lines) + "\n}\n")


main()

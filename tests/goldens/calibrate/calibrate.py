"""Writes golden.json: isotonic regression by scikit-learn, temperatures by scipy.

    python -m venv venv && venv/bin/pip install numpy scipy scikit-learn
    venv/bin/python tests/goldens/calibrate/calibrate.py

The result is the same at every run with the same versions.
"""

import json
from importlib.metadata import version
from pathlib import Path

import numpy as np
from scipy import optimize
from sklearn.isotonic import IsotonicRegression

LEAST = 4e-7  # what a probability that was rounded to 0 counts as


def isotonic_case(name, x, y):
    model = IsotonicRegression(out_of_bounds="clip", increasing=True).fit(x, y)
    grid = np.linspace(min(x) - 0.2, max(x) + 0.2, 23).round(6)
    return {
        "name": name,
        "x": list(map(float, x)),
        "y": list(map(float, y)),
        "from": model.X_thresholds_.tolist(),
        "to": model.y_thresholds_.tolist(),
        "grid": grid.tolist(),
        "at_grid": model.predict(grid).tolist(),
    }


def tempered(p, t):
    logs = np.log(np.maximum(p, LEAST)) / t
    weights = np.exp(logs - logs.max(axis=-1, keepdims=True))
    return weights / weights.sum(axis=-1, keepdims=True)


def least(loss):
    """The minimum over the logarithm of the temperature, by a root of the derivative where it is smooth."""
    grid = np.linspace(np.log(0.05), np.log(100), 400)
    best = int(np.argmin([loss(x) for x in grid]))
    inside = (grid[max(best - 1, 0)], grid[min(best + 1, 399)])
    found = optimize.minimize_scalar(loss, bounds=inside, method="bounded", options={"xatol": 1e-11})
    return float(np.exp(found.x)), float(loss(found.x))


def temperature_case(name, distributions, targets):
    distributions, targets = np.array(distributions), np.array(targets)
    loss = lambda x: -np.sum(targets * np.log(tempered(distributions, np.exp(x))))
    temperature, value = least(loss)
    return {
        "name": name,
        "distributions": distributions.tolist(),
        "targets": targets.tolist(),
        "temperature": temperature,
        "loss": value,
    }


def pair_probability(a, b, t):
    """By every combination of ratings, drawn from their tempered distributions."""
    sums = []
    for answer in (a, b):
        total = np.array([1.0])
        for distribution in answer:
            total = np.convolve(total, tempered(np.array(distribution), t))
        sums.append(total)
    joint = np.outer(*sums)
    return float(np.tril(joint, -1).sum() + np.trace(joint) / 2)


def pair_case(name, answers, first):
    def loss(x):
        total = 0.0
        for (a, b), label in zip(answers, first):
            p = pair_probability(a, b, np.exp(x))
            total -= label * np.log(max(p, 1e-12)) if label else 0
            total -= (1 - label) * np.log(max(1 - p, 1e-12)) if label < 1 else 0
        return total

    temperature, value = least(loss)
    return {"name": name, "answers": answers, "first": first, "temperature": temperature, "loss": value}


def rounded(distribution):
    return np.round(distribution, 6).tolist()


def main():
    random = np.random.default_rng(7)
    x = random.random(60).round(6)
    steps = random.integers(0, 11, 80).astype(float)
    isotonic = [
        isotonic_case("noisy", x, (x**2 + random.normal(size=60) * 0.3).round(6)),
        isotonic_case("levels of support", x, random.binomial(2, x**2) / 2),
        isotonic_case("many ties", steps, (steps * 0.5 + random.normal(size=80) * 3).round(6)),
        isotonic_case("falling", x, (-x).round(6)),
        isotonic_case("rising", np.sort(x), np.sort(random.random(60)).round(6)),
        isotonic_case("two points", [0.25, 0.75], [1.0, 0.0]),
    ]

    def labelled(items, classes, sharpness, zeros=False):
        """Labels are drawn from distributions, which are then made surer than they should be."""
        true = random.dirichlet(np.full(classes, 0.7), items)
        labels = [int(random.choice(classes, p=p)) for p in true]
        shown = true**sharpness
        shown /= shown.sum(axis=1, keepdims=True)
        if zeros:
            shown[shown < 0.02] = 0
            shown /= shown.sum(axis=1, keepdims=True)
        return [rounded(p) for p in shown], [np.eye(classes)[label].tolist() for label in labels]

    distributions, _ = labelled(40, 11, 1.7)
    values = random.random(40) * 10
    shared = []
    for value in values:
        weights = np.zeros(11)
        weights[int(value)] = 1 - value % 1
        weights[int(value) + 1] += value % 1
        shared.append(weights.tolist())
    temperatures = [
        temperature_case("too sure", *labelled(120, 3, 2.5)),
        temperature_case("too modest", *labelled(120, 3, 0.4)),
        temperature_case("with zeros", *labelled(80, 3, 2.0, zeros=True)),
        temperature_case("ratings", *labelled(60, 11, 1.5)),
        temperature_case("ratings between", distributions, shared),
    ]

    def draw_rating(quality):
        shape = np.exp(-((np.arange(11) - 5 - 2 * quality - random.normal()) ** 2) / 2)
        return rounded(shape / shape.sum())

    def pairs(items):
        """Answers in two dimensions; the better one is preferred in 8 of 10 pairs, 1 of 10 is a tie."""
        answers, first = [], []
        for _ in range(items):
            quality = random.normal(size=2)
            answers.append([[draw_rating(q), draw_rating(q)] for q in quality])
            better = float(quality[0] > quality[1])
            first.append(float(random.choice([better, 1 - better, 0.5], p=[0.8, 0.1, 0.1])))
        return answers, first

    pairwise = [pair_case("two dimensions", *pairs(40))]
    reference = {name: version(name) for name in ["numpy", "scipy", "scikit-learn"]}
    golden = {"reference": reference, "isotonic": isotonic, "temperatures": temperatures, "pairs": pairwise}
    lines = []
    for key, value in golden.items():
        if isinstance(value, list):
            rows = ",\n".join(json.dumps(row) for row in value)
            lines.append(f"{json.dumps(key)}: [\n{rows}\n]")
        else:
            lines.append(f"{json.dumps(key)}: {json.dumps(value)}")
    Path(__file__).with_name("golden.json").write_text("{\n" + ",\n".join(lines) + "\n}\n")
    print({case["name"]: case["temperature"] for case in temperatures + pairwise})


main()

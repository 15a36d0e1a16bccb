"""Makes result files of any size for the report: sft.jsonl, scored_responses.jsonl, preference_pairs.jsonl.

    python3 tests/browser/synthetic.py DIR [--prompts 1000] [--candidates 10] [--document 30000]

The same arguments give the same files. The answers to prompt 2 have votes, calibrated and estimated probabilities; those to
prompt 3 were checked against the whole document, and some of them were stopped early. Texts are random words of a small vocabulary; sizes are those of a real
judge's work: 10 to 18 statements an answer, five chunks of evidence each, analyses of a hundred words. The first
candidate of the first prompt is hostile: markup, scripts, the end of a script element, right-to-left text, emoji.
Needs Python's standard library only.
"""

import argparse
import json
import random
from pathlib import Path

HOSTILE = (
    "</script><script>window.hacked = 1; document.title = 'hacked'</script>"
    "<img src=x onerror=\"window.hacked = 2\"><svg onload=window.hacked=3> <!-- <script> ]]> "
    "{{ 7*7 }} ${window.hacked=4} \u2028\u2029 \u202e\u0645\u0631\u062d\u0628\u0627 \u0628\u0643 \u202c \U0001f469\u200d\U0001f680\U0001f389 \\u003c &lt;b&gt; \"'` \x07"
)

SYLLABLES = "ba ce di fo gu ha je ki lo mu na pe ri so tu va we xi yo zu bra cle dri flo gru sta spe tri".split()


def vocabulary(rng, size):
    words = {"".join(rng.choice(SYLLABLES) for _ in range(rng.randint(1, 3))) for _ in range(size)}
    return sorted(words)


class Maker:
    def __init__(self, seed):
        self.rng = random.Random(seed)
        self.words = vocabulary(self.rng, 4000)

    def text(self, count):
        rng, out = self.rng, []
        while len(out) < count:
            sentence = rng.choices(self.words, k=rng.randint(6, 18))
            sentence[0] = sentence[0].capitalize()
            sentence[-1] += "."
            out += sentence
        return " ".join(out[:count])

    def peaked(self, size, at):
        weights = [0.6 ** (3 * abs(i - at)) + 0.002 * self.rng.random() for i in range(size)]
        return [weight / sum(weights) for weight in weights]

    def attempts(self):
        tries = self.rng.choices([1, 2, 3, 4, 5], [90, 6, 2, 1, 1])[0]
        return tries, tries == 5 and self.rng.random() < 0.5

    def rated(self, score):
        attempts, forced = self.attempts()
        distribution = self.peaked(11, score)
        return {
            "analysis": f"{self.text(90)}\n\n[[{score}]]",
            "score": float(score),
            "attempts": attempts,
            "forced": forced,
            "distribution": distribution,
            "expected": sum(i * p for i, p in enumerate(distribution)),
        }

    def statement(self, chunks, total, fact=None):
        score = self.rng.choices([1.0, 0.5, 0.0], [6, 2, 2])[0]
        attempts, forced = self.attempts()
        distribution = self.peaked(3, [1.0, 0.5, 0.0].index(score))
        near = self.rng.randrange(len(chunks))
        chosen = sorted({min(len(chunks) - 1, max(0, round(self.rng.gauss(near, 12)))) for _ in range(8)})[:5]
        return {
            "fact": fact or self.text(self.rng.randint(10, 22)),
            "analysis": self.text(70) + " [[Fully supported]]",
            "score": score,
            "evidences": [
                {"c_idx": i, "content": chunks[i], "start_idx": i * 128, "end_idx": i * 128 + 128, "total_token": total}
                for i in chosen
            ],
            "attempts": attempts,
            "forced": forced,
            "distribution": distribution,
            "expected": distribution[0] + distribution[1] / 2,
        }

    def row(self, idx, query, answer, chunks, extracts, quality, hostile):
        rate = lambda: max(0, min(10, round(self.rng.gauss(quality, 1.6))))
        rated = {name: self.rated(rate()) for name in ("helpfulness", "logicality", "completeness")}
        if hostile:
            for verdict in rated.values():
                verdict["analysis"] += HOSTILE
        total = len(chunks) * 128
        count = self.rng.randint(10, 18) if self.rng.random() > 0.02 else 0
        facts = [self.statement(chunks, total, HOSTILE if hostile and i == 0 else None) for i in range(count)]
        faith = 10 * sum(fact["score"] for fact in facts) / count if count else 10.0
        scores = {name: rated[name]["score"] for name in ("helpfulness", "logicality")}
        scores |= {"faithfulness": round(faith, 6), "completeness": rated["completeness"]["score"]}
        scores["total"] = round(sum(scores.values()), 6)
        scores["reward"] = round(scores["total"] / 4, 6)
        attempts, listed = self.attempts()
        faithfulness = {
            "score": faith,
            "facts": {fact["fact"]: fact["score"] for fact in facts},
            "details": facts,
            "analysis": "\n".join(f"<statement>{fact['fact']}</statement>" for fact in facts),
            "attempts": attempts,
            "forced": listed or any(fact["forced"] for fact in facts),
            "no_statements": count == 0,
            "expected": None,
        }
        completeness = {**rated["completeness"], "info_list": extracts, "forced_extracts": []}
        details = {
            "helpfulness": rated["helpfulness"],
            "logicality": rated["logicality"],
            "faithfulness": faithfulness,
            "completeness": completeness,
        }
        forced = any(part["forced"] for part in details.values())
        return {
            "idx": idx, "query": query, "answer": answer, "finish": "stop",
            "scores": scores, "details": details, "forced": forced, "input_hash": "0",
        }

    def with_votes(self, verdict, degrees):
        """Makes a verdict one of three votes, calibrated, with estimated probabilities."""
        scores = [verdict["score"]] * 2 + [self.rng.choice(degrees)]
        mean, size = sum(scores) / 3, len(verdict["distribution"])
        each = [{"score": score, "analysis": self.text(40) + HOSTILE, "attempts": 1 + i, "forced": i == 2, "expected": score}
                for i, score in enumerate(scores)]
        spread = (sum((score - mean) ** 2 for score in scores) / 2) ** 0.5
        verdict["votes"] = {"mean": mean, "median": sorted(scores)[1], "spread": spread, "each": each}
        verdict["uncalibrated"] = {"distribution": verdict["distribution"], "expected": verdict["expected"]}
        verdict["distribution"] = [(p + 1 / size) / 2 for p in verdict["distribution"]]
        verdict |= {"score": mean, "attempts": 6, "forced": True, "estimate": self.rng.choice(["echo", "first_token"])}

    def votes(self, row):
        details = row["details"]
        for name in ("helpfulness", "logicality", "completeness"):
            self.with_votes(details[name], range(11))
        for statement in details["faithfulness"]["details"]:
            self.with_votes(statement, [0.0, 0.5, 1.0])
            statement["statements_in_call"] = 3
        details["faithfulness"] |= {"expected": 6.4, "uncalibrated": 7.1}

    def whole_document(self, row):
        for i, statement in enumerate(row["details"]["faithfulness"]["details"]):
            statement["whole_document"] = i > 0
            statement["evidences"] = [] if i > 0 else statement["evidences"]

    def options(self, idx, rows):
        """What only some prompts have."""
        ranked = sorted(rows, key=lambda row: row["scores"]["total"])
        for row in rows:
            if idx == 2:
                self.votes(row)
            if idx == 3:
                self.whole_document(row)
        if idx == 3:
            self.stop_early(ranked[len(rows) // 2], ["faithfulness"])
            self.stop_early(ranked[len(rows) // 2 - 1], ["faithfulness", "completeness"])

    def stop_early(self, row, skipped):
        scores = row["scores"]
        for name in skipped:
            del row["details"][name]
            scores[name] = None
        known = sum(scores[name] or 0.0 for name in ("helpfulness", "logicality", "faithfulness", "completeness"))
        scores["total"] = scores["reward"] = None
        row["early_stop"] = {"skipped": skipped, "total_at_least": known, "total_at_most": known + 10 * len(skipped)}

    def prompt(self, idx, candidates, document_words, hostile):
        """A prompt's own row, its scored rows and its pair."""
        size = 90
        chunks = [self.text(size) for _ in range(max(6, document_words // size))]
        if hostile:
            chunks[2] = HOSTILE + " " + chunks[2]
        query = self.text(self.rng.randint(12, 30))[:-1] + "?" + (" " + HOSTILE if hostile else "")
        parts = 8
        extracts = {f"{round(100 * i / parts)}% - {round(100 * (i + 1) / parts)}%": self.text(110) for i in range(parts)}
        if hostile:
            extracts["0% - 12%"] = HOSTILE
        base = self.rng.gauss(6.2, 1.2)
        rows, shared = [], self.text(60)
        for k in range(candidates):
            answer = shared + "\n\n" + self.text(self.rng.randint(120, 420))
            bad = hostile and k == 0
            answer = HOSTILE + "\n" + answer if bad else answer
            quality = base + self.rng.gauss(0, 1.3) + len(answer) / 4000
            rows.append(self.row(f"{idx}-{k}", query, answer, chunks, extracts, quality, bad))
        self.options(idx, rows)
        prompt = {"idx": idx, "query": query, "answer": "", "context": " ".join(chunks)}
        return prompt, rows, pair(prompt, rows)


def pair(prompt, rows):
    rows = [row for row in rows if row["scores"]["total"] is not None]
    win = max(rows, key=lambda row: row["scores"]["total"])
    lose = min(rows, key=lambda row: row["scores"]["total"])
    if win["scores"]["total"] == lose["scores"]["total"]:
        return None
    return {
        "idx": prompt["idx"], "context": prompt["context"], "query": prompt["query"],
        "win_response": win["answer"], "lose_response": lose["answer"],
        "win_idx": win["idx"], "lose_idx": lose["idx"],
        "win_total": win["scores"]["total"], "lose_total": lose["scores"]["total"],
    }


def estimate(rng, value, width=0.06):
    return {"value": value, "low": value - width * rng.uniform(0.5, 1.5), "high": value + width * rng.uniform(0.5, 1.5)}


def agreement(seed=0):
    """What `agree` writes, with every section; one baseline has a hostile name."""
    rng = random.Random(seed)
    measures = lambda **values: {name: estimate(rng, value) for name, value in values.items()}
    named = lambda metric, rows: [{"name": name, "metrics": measures(**{metric: value, "kappa": value - 0.3})} for name, value in rows]
    reading = {"verdicts": 400, "first_reply": 0.82, "forced": 0.03, "replies": 1.3}

    def calibration(counts):
        bins = [{"low": i / 10, "high": (i + 1) / 10, "items": count, "confidence": (i + 0.6) / 10 if count else None,
                 "accuracy": min(1.0, (i + 0.6) / 10 * 0.85) if count else None} for i, count in enumerate(counts)]
        return {"bins": bins, "error": 0.087}

    length = ["judge_prefers_longer", "people_prefer_longer", "accuracy_longer_better", "accuracy_shorter_better",
              "accuracy_similar", "score_and_length", "score_and_label", "score_and_label_given_length"]
    spread = {"runs": 3, "items": 400, "metrics": measures(standard_deviation=0.4, flips=0.12), "measure": "accuracy",
              "by_run": [estimate(rng, 0.7) for _ in range(3)]}
    return {
        "labels": "labels.jsonl", "settings": {"model": "synthetic"}, "bootstrap": {"resamples": 1000, "seed": 0},
        "support": {
            "items": 349, "reading": reading, "classes": ["not_supported", "partially_supported", "supported"],
            "labelled": [110, 194, 45],
            "predictors": named("accuracy", [("judge", 0.61), ("judge, likeliest", 0.63), ("majority class", 0.556),
                                             ("word overlap", 0.47), ("embedding", 0.49), (HOSTILE, 0.3), ("people", 0.78)]),
            "confusion": [[70, 32, 8], [40, 120, 34], [3, 14, 28]], "calibration": calibration([0, 0, 0, 4, 21, 38, 60, 81, 90, 55]),
            "spread": spread,
        },
        "pairwise": {
            "items": 100, "reading": reading, "classes": ["a", "tie", "b"], "labelled": [52, 0, 48],
            "predictors": named("accuracy_ties_half", [("judge", 0.71), ("judge, expected", 0.74), ("majority class", 0.52),
                                                       ("longest wins", 0.58), ("word overlap", 0.49), ("embedding", 0.55)]),
            "confusion": [[35, 6, 11], [0, 0, 0], [12, 5, 31]], "calibration": calibration([0, 0, 0, 0, 0, 40, 25, 15, 12, 8]),
            "length_bias": [{"predictor": "judge", "metrics": measures(**{name: 0.5 for name in length})}],
        },
        "rating": {"items": 60, "prompts": 20, "reading": reading,
                   "predictors": named("spearman", [("judge", 0.41), ("judge, expected", 0.48), ("length", 0.2), ("word overlap", -0.1)])},
        "bias": {
            "position": "answers are judged one by one",
            "padding": {"answers": 200, "pairs": 100, "metrics": measures(shift=-0.12, raised=0.2, lowered=0.3, padded_preferred=0.47)},
            "languages": [{"kind": kind, "items": 90, "measure": "accuracy", "metrics": measures(same_verdict=0.8, kappa=0.6, shift=0.05)}
                          for kind in ["support", "pairwise"]],
            "self_preference": [{"kind": "rating", "items": 60, "own": 20, "metrics": measures(excess=0.8)}],
        },
        "recall": [{"retriever": name, "passage": "128 tokens", "k": 5, "items": 238, "metrics": measures(recall=value)}
                   for name, value in [("bm25", 0.93), ("minilm", 0.92), ("bm25+minilm", 0.95)]],
    }


def write(folder, prompts, candidates=10, document_words=6000, seed=0):
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    maker = Maker(seed)
    names = ["sft.jsonl", "scored_responses.jsonl", "preference_pairs.jsonl"]
    files = [open(folder / name, "w", encoding="utf-8") for name in names]
    for idx in range(1, prompts + 1):
        prompt, rows, chosen = maker.prompt(idx, candidates, document_words, hostile=idx == 1)
        for file, items in zip(files, ([prompt], rows, [chosen] if chosen else [])):
            for item in items:
                file.write(json.dumps(item, ensure_ascii=False) + "\n")
    for file in files:
        file.close()
    cost = {"runs": 2, "calls": 20000, "prompt_tokens": 45000000, "cached_prompt_tokens": 40000000, "completion_tokens": 3000000, "seconds": 5400.0}
    (folder / "scored_responses.jsonl.cost.json").write_text(json.dumps(cost), encoding="utf-8")
    (folder / "agree.summary.json").write_text(json.dumps(agreement(seed)), encoding="utf-8")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder")
    parser.add_argument("--prompts", type=int, default=1000)
    parser.add_argument("--candidates", type=int, default=10)
    parser.add_argument("--document", type=int, default=6000, metavar="WORDS")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    write(args.folder, args.prompts, args.candidates, args.document, args.seed)

"""What each option of verdicts gains over the published method, on labelled rows; prints the README's tables.

    cargo build --release
    python bench/options.py --labels wice/dev.jsonl --model smollm2 --limit 100 --out-dir /tmp/options \\
        --out bench/runs/DATE-MACHINE-options-wice.json

Runs `longreward agree` once for each option, each time with `--gain-over` the run without options, so that gains are
differences on the same rows, with intervals of the difference. What is there already is not judged again. Options that
touch the finding of evidence are tried on claims only.
"""

import argparse
import datetime
import json
import pathlib
import subprocess
import sys

# Name, arguments, whether it concerns evidence.
OPTIONS = [
    ("published method", [], False),
    ("--votes 5", ["--votes", "5"], False),
    ("--verdict-first", ["--verdict-first"], False),
    ("--whole-document", ["--whole-document"], True),
    ("--verdict-first --whole-document", ["--verdict-first", "--whole-document"], True),
    ("--passage-overlap 32", ["--passage-overlap", "32"], True),
    ("--passage-cut sentences", ["--passage-cut", "sentences"], True),
    ("--embedder bm25", ["--embedder", "bm25"], True),
    ("--embedder bm25+minilm", ["--embedder", "bm25+minilm"], True),
    ("--preset fast", ["--preset", "fast"], False),
    ("--preset careful", ["--preset", "careful"], False),
]

# By kind of label: the predictors that are shown, and their measures.
SHOWN = {
    "support": [("judge", ["accuracy", "quadratic_kappa"]), ("judge, likeliest", ["spearman"])],
    "pairwise": [("judge", ["accuracy_ties_half", "kappa"]), ("judge, expected", ["accuracy_ties_half"])],
    "rating": [("judge", ["spearman", "kendall"]), ("judge, expected", ["spearman"])],
}


def run(args, number, flags):
    """Judges with these flags; the summary, and what it took."""
    out = args.out_dir / f"{number}.jsonl"
    command = [args.program, "agree", "--labels", args.labels, "--model", args.model, "--out", out, *flags]
    command += ["--limit", args.limit] if args.limit else []
    command += ["--max-reply-tokens", args.max_reply_tokens] if args.max_reply_tokens else []
    command += ["--threads", args.threads] if args.threads else []
    command += ["--gain-over", args.out_dir / "0.jsonl"] if number else []
    done = subprocess.run([str(part) for part in command], stdout=subprocess.PIPE, text=True)
    # 3: some rows could not be used; the summary tells of the others.
    if done.returncode not in (0, 3):
        raise SystemExit(f"{' '.join(map(str, command))} ended with {done.returncode}\n{done.stdout}")
    summary = json.loads(out.with_suffix(".summary.json").read_text())
    cost = json.loads(pathlib.Path(f"{out}.cost.json").read_text())
    if summary.get("gain"):
        summary["gain"]["over"] = pathlib.Path(summary["gain"]["over"]).name
    kinds = {kind: summary.get(kind) for kind in SHOWN}
    for found in filter(None, kinds.values()):
        for key in set(found) - {"items", "reading", "predictors"}:
            del found[key]
    return {"settings": summary["settings"], **kinds, "gain": summary.get("gain")}, cost


def estimate(metrics, name, signed):
    """`+0.030 [-0.010, +0.070]`"""
    found = (metrics or {}).get(name) or {}
    if found.get("value") is None:
        return "–"
    number = (lambda x: f"{x:+.3f}") if signed else (lambda x: f"{x:.3f}")
    text = number(found["value"])
    if found.get("low") is not None:
        text += f" [{number(found['low'])}, {number(found['high'])}]"
    return text.replace("-", "−")


def rows(kind, done):
    """Lines of the table: the published method's own measures, then gains."""
    columns = [(who, what) for who, whats in SHOWN[kind] for what in whats]
    yield "| | " + " | ".join(f"{what.replace('_', ' ')} ({who})" for who, what in columns) + " | calls | prompt tokens computed | new tokens |"
    yield "|---" * (len(columns) + 4) + "|"
    for name, summary, cost in done:
        of = summary["gain"][kind] if summary["gain"] else summary[kind]["predictors"]
        by_name = {one["name"]: one["metrics"] for one in of}
        cells = [estimate(by_name.get(who), what, summary["gain"] is not None) for who, what in columns]
        computed = cost["prompt_tokens"] - cost["cached_prompt_tokens"]
        took = [f"{number:,}" for number in (cost["calls"], computed, cost["completion_tokens"])]
        yield f"| {name} | " + " | ".join(cells + took) + " |"


def main():
    a = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    a.add_argument("--labels", type=pathlib.Path, required=True)
    a.add_argument("--model", required=True)
    a.add_argument("--limit", type=int)
    a.add_argument("--max-reply-tokens", type=int)
    a.add_argument("--threads", type=int)
    a.add_argument("--only", nargs="+", metavar="NAME", help="these options, by the names of the table less their dashes")
    a.add_argument("--program", type=pathlib.Path, default="target/release/longreward")
    a.add_argument("--out-dir", type=pathlib.Path, required=True, help="where verdicts are kept")
    a.add_argument("--out", type=pathlib.Path, required=True)
    args = a.parse_args()
    args.out_dir.mkdir(parents=True, exist_ok=True)
    done, kind = [], None
    for number, (name, flags, of_evidence) in enumerate(OPTIONS):
        if number and args.only and name.lstrip("-") not in args.only or of_evidence and kind != "support":
            continue
        print(name, file=sys.stderr, flush=True)
        done.append((name, *run(args, number, flags)))
        kind = kind or next(one for one in SHOWN if done[0][1][one])
        report = {
            "date": datetime.date.today().isoformat(), "labels": args.labels.name, "limit": args.limit,
            "max_reply_tokens": args.max_reply_tokens,
            "runs": [{"option": name, "cost": cost, **summary} for name, summary, cost in done],
        }
        args.out.write_text(json.dumps(report, indent=1) + "\n")
    print("\n".join(rows(kind, done)))


if __name__ == "__main__":
    main()

"""lm-eval, unchanged, against `longreward serve`: log-likelihoods by local-completions, replies by both of its local models.

    python tests/peers/lm_eval_client.py --longreward target/release/longreward --gguf SmolLM2-135M-Instruct.Q4_1.gguf [--model smollm2]

Needs lm_eval[api] (0.4.13), and transformers, torch and gguf to make a tokenizer of the model's file. The questions are made up here, so
nothing is fetched but the model, and are easy enough for a small one.
"""

import argparse
import json
import os
import pathlib
import subprocess
import sys
import tempfile

import server

ROWS = [
    ("The capital of France is", [" Paris", " Rome", " Oslo"], 0),
    ("Water freezes at", [" zero degrees", " banana", " Thursday"], 0),
    ("A cat is an", [" animal", " integer", " ocean"], 0),
    ("Two plus two is", [" seventeen", " four", " a river"], 1),
    ("The sun rises in the", [" west", " south", " east"], 2),
    ("Dogs like to", [" bark", " evaporate", " legislate"], 0),
]
COMMON = """
dataset_path: json
dataset_kwargs: {{data_files: {{test: {rows}}}}}
test_split: test
doc_to_text: "{{{{q}}}}"
"""
CHOICES = """task: own_choices
output_type: multiple_choice
doc_to_choice: "{{c}}"
target_delimiter: ""
doc_to_target: "{{a}}"
metric_list: [{metric: acc}]
"""
REPLIES = """task: own_replies
output_type: generate_until
doc_to_target: "{{c[a]}}"
generation_kwargs: {until: ["\\n", "."], max_gen_toks: 16}
metric_list: [{metric: exact_match}]
"""


def prepare(folder: pathlib.Path, gguf: str) -> None:
    import transformers

    file = pathlib.Path(gguf).resolve()
    transformers.AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name).save_pretrained(folder / "tokenizer")
    (folder / "rows.jsonl").write_text("".join(json.dumps({"q": q, "c": c, "a": a}) + "\n" for q, c, a in ROWS))
    (folder / "tasks").mkdir()
    for name, task in [("choices", CHOICES), ("replies", REPLIES)]:
        (folder / "tasks" / f"{name}.yaml").write_text(task + COMMON.format(rows=folder / "rows.jsonl"))


def evaluated(folder: pathlib.Path, kind: str, arguments: str, tasks: str, *more: str) -> tuple:
    """Results and samples by task."""
    out = folder / f"{kind}-{tasks}"
    command = [sys.executable, "-m", "lm_eval", "--model", kind, "--model_args", arguments, "--tasks", tasks, "--include_path", folder / "tasks"]
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "OPENAI_API_KEY": "none", "HF_HOME": str(folder / "cache")}
    command += ["--output_path", out, "--log_samples", *more]
    ran = subprocess.run([str(part) for part in command], env=environment, capture_output=True, text=True, timeout=300)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    results = json.loads(next(out.rglob("results_*.json")).read_text())["results"]
    read = lambda task: [json.loads(line) for line in next(out.rglob(f"samples_{task}_*.jsonl")).read_text().splitlines()]
    return results, {task: read(task) for task in tasks.split(",")}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--longreward", required=True)
    parser.add_argument("--gguf", required=True)
    parser.add_argument("--model", default="smollm2")
    options = parser.parse_args()
    import importlib.metadata

    with tempfile.TemporaryDirectory() as name, server.serving(options.longreward, options.model) as (address, _):
        folder = pathlib.Path(name)
        prepare(folder, options.gguf)
        print(f"lm_eval {importlib.metadata.version('lm_eval')}, {address}")
        plain = f"model={options.model},base_url={address}/completions,tokenizer={folder}/tokenizer,num_concurrent=4,max_retries=1"
        results, samples = evaluated(folder, "local-completions", plain, "own_choices,own_replies", "--batch_size", "4")
        scored = [response for sample in samples["own_choices"] for response in sample["filtered_resps"]]
        assert len(scored) == 3 * len(ROWS) and all(float(logprob) < 0 for logprob, _ in scored), scored
        accuracy = results["own_choices"]["acc,none"]
        assert accuracy > 0.5, accuracy
        server.passed("local-completions, log-likelihoods", f"accuracy {accuracy:.2f} of {len(ROWS)}")
        server.passed("local-completions, replies", repr(samples["own_replies"][0]["filtered_resps"][0]))
        chat = f"model={options.model},base_url={address}/chat/completions,num_concurrent=4,max_retries=1"
        _, samples = evaluated(folder, "local-chat-completions", chat, "own_replies", "--apply_chat_template")
        replies = [sample["filtered_resps"][0] for sample in samples["own_replies"]]
        assert len(replies) == len(ROWS) and any(replies), replies
        server.passed("local-chat-completions, replies", repr(replies[0]))


if __name__ == "__main__":
    main()

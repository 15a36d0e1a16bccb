"""FastChat's MT-Bench programs, unchanged, against `longreward serve`: as the model that answers and as the judge that grades.

    python tests/peers/fastchat_client.py --longreward target/release/longreward [--model smollm2]

Needs fschat (0.2.36), which asks through the openai client of before 1.0 (0.28.1). Questions and the judge's prompts are made up
here, so nothing is fetched but the model. What the judge finds means nothing with a model of this size.
"""

import argparse
import json
import os
import pathlib
import subprocess
import sys
import tempfile

import fastchat
import openai
import server

QUESTIONS = [
    {"question_id": 1, "category": "writing", "turns": ["Write a sentence about a mill.", "Now one about its owner."]},
    {"question_id": 2, "category": "extraction", "turns": ["Which years are named here? 1874, 1903.", "Which is the later one?"]},
]
FORMAT = 'End with a rating from 1 to 10 in double brackets, as in "Rating: [[5]]".'
ONE = "[Question]\n{question}\n\n[Answer]\n{answer}\n"
TWO = "[Question]\n{question_1}\n\n[Answer]\n{answer_1}\n\n[Question]\n{question_2}\n\n[Answer]\n{answer_2}\n"


def lines(path: pathlib.Path) -> list:
    return [json.loads(line) for line in path.read_text().splitlines()]


def write(path: pathlib.Path, rows: list) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def judge_prompts() -> list:
    def prompt(name: str, template: str) -> dict:
        return {
            "name": name, "type": "single", "system_prompt": "You rate answers. " + FORMAT, "prompt_template": template,
            "description": "", "category": "general", "output_format": "[[rating]]",
        }  # fmt: skip

    kinds = [("single-v1", ONE), ("single-math-v1", ONE), ("single-v1-multi-turn", TWO), ("single-math-v1-multi-turn", TWO)]
    return [prompt(name, template) for name, template in kinds]


def program(folder: pathlib.Path, address: str, name: str, *options: str) -> None:
    environment = os.environ | {"OPENAI_API_KEY": "none", "OPENAI_API_BASE": address}
    command = [sys.executable, "-m", f"fastchat.llm_judge.{name}", *options]
    ran = subprocess.run(command, cwd=folder, env=environment, input="\n", capture_output=True, text=True, timeout=300)
    assert ran.returncode == 0, ran.stdout + ran.stderr


def mt_bench(folder: pathlib.Path, address: str) -> None:
    write(folder / "data/mt_bench/question.jsonl", QUESTIONS)
    write(folder / "data/judge_prompts.jsonl", judge_prompts())
    program(folder, address, "gen_api_answer", "--model", "gpt-4", "--openai-api-base", address, "--max-tokens", "24", "--parallel", "3")
    told = lines(folder / "data/mt_bench/model_answer/gpt-4.jsonl")
    turns = [row["choices"][0]["turns"] for row in told]
    assert [len(t) for t in turns] == [2, 2] and all(text and text != "$ERROR$" for t in turns for text in t), turns
    server.passed("gen_api_answer", repr(turns[0][0][:60]))
    program(folder, address, "gen_judgment", "--mode", "single", "--model-list", "gpt-4", "--judge-model", "gpt-4", "--parallel", "4")
    graded = lines(folder / "data/mt_bench/model_judgment/gpt-4_single.jsonl")
    assert len(graded) == 4 and all(row["judgment"] not in ("", "$ERROR$") for row in graded), graded
    read = [row["score"] for row in graded if row["score"] != -1]
    server.passed("gen_judgment", f"{len(read)} of {len(graded)} read, {read}; {graded[0]['judgment'][-60:]!r}")


def old_client(address: str) -> None:
    openai.api_base, openai.api_key = address, "none"
    assert [model["id"] for model in openai.Model.list()["data"]][1:] == ["gpt-4", "text-davinci-003"]
    fields = dict(model="gpt-4", messages=[{"role": "user", "content": "Name three rivers."}], max_tokens=16, seed=3)
    whole = openai.ChatCompletion.create(**fields)["choices"][0]["message"]["content"]
    parts = [chunk["choices"][0]["delta"].get("content", "") for chunk in openai.ChatCompletion.create(**fields, stream=True)]
    assert "".join(parts) == whole
    server.passed("openai.ChatCompletion, streamed", repr(whole))
    plain = openai.Completion.create(model="text-davinci-003", prompt="The capital of France is", max_tokens=3, temperature=0, logprobs=5, echo=True)
    told = plain["choices"][0]["logprobs"]
    assert "".join(told["tokens"]) == plain["choices"][0]["text"] and told["token_logprobs"][0] is None
    server.passed("openai.Completion, echo and logprobs", repr(plain["choices"][0]["text"]))
    try:
        openai.ChatCompletion.create(model="gpt-4", messages=[{"role": "user", "content": "word " * 9000}])
    except openai.error.InvalidRequestError as error:
        assert "maximum context length" in str(error)
        server.passed("openai.error.InvalidRequestError", error.code)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--longreward", required=True)
    parser.add_argument("--model", default="smollm2")
    options = parser.parse_args()
    aliases = ["--alias", "gpt-4", "--alias", "text-davinci-003"]
    with tempfile.TemporaryDirectory() as folder, server.serving(options.longreward, options.model, *aliases) as (address, _):
        print(f"fschat {fastchat.__version__}, openai {openai.version.VERSION}, {address}")
        old_client(address)
        mt_bench(pathlib.Path(folder), address)


if __name__ == "__main__":
    main()

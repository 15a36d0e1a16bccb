"""AlpacaEval, unchanged, against `longreward serve`: as the model that answers and as the judge that compares.

    python tests/peers/alpaca_eval_client.py --longreward target/release/longreward [--model smollm2]

Needs alpaca_eval (0.6.6, with openai 3.54.0). Instructions and the reference model's answers are made up here, so nothing is fetched
but the model. What the judge finds means nothing with a model of this size. That log-probabilities could be read is checked; whether
words and functions hold an answer is for the model to say.
"""

import argparse
import json
import logging
import math
import os
import pathlib
import tempfile

import server

ROWS = [
    ("Name three rivers of Europe.", "The Rhine, the Danube and the Elbe."),
    ("What is the capital of France?", "Paris."),
    ("Write a sentence about a mill.", "The mill stands by the river."),
    ("How many legs has a spider?", "Eight."),
]

# Annotators as the package brings them: log-probabilities of one token, a ranking in words, and rankings by functions.
WEIGHTED, RANKING = "weighted_alpaca_eval_gpt4_turbo", "alpaca_eval_gpt4"
FUNCTIONS = ["chatgpt_fn", "alpaca_eval_gpt4_fn", "alpaca_eval_cot_gpt4_turbo_fn"]
ALIASES = ["gpt-4", "gpt-4-1106-preview", "gpt-3.5-turbo-16k-0613", "text-davinci-003"]


def answers(evaluate_from_model, folder: pathlib.Path) -> list:
    """The package's own configuration of a chat model, with fewer tokens; and of a model for plain text."""
    from alpaca_eval.decoders.openai import openai_completions

    reference = [{"instruction": i, "output": o, "dataset": "own", "generator": "reference"} for i, o in ROWS]
    chat = {
        "prompt_template": "gpt4_1106_preview/chatml_prompt.txt",
        "fn_completions": "openai_completions",
        "completions_kwargs": {"model_name": "gpt-4-1106-preview", "max_tokens": 32},
    }
    evaluate_from_model(
        {"small": chat}, evaluation_dataset=reference, annotators_config=WEIGHTED, output_path=folder, precomputed_leaderboard=None,
        fn_metric="get_winrate", sort_by="win_rate", reference_model_configs=None, caching_path=None,
    )  # fmt: skip
    plain = openai_completions([i for i, _ in ROWS] * 5, "text-davinci-003", max_tokens=8, temperature=0)
    assert len(plain["completions"]) == 20 and all(done["total_tokens"] > 0 for done in plain["completions_all"])
    assert plain["completions"][:4] == plain["completions"][4:8]
    server.passed("/v1/completions in batches of ten", repr(plain["completions"][1]))
    return reference


def judged(outputs: list, reference: list, annotator: str) -> tuple:
    """What the judge said to each pair, and the preferences (1 to 2) that the package could read from it."""
    from alpaca_eval.annotators import PairwiseAnnotator

    judge = PairwiseAnnotator(annotators_config=annotator, caching_path=None)
    rows = judge.annotate_head2head(outputs_1=reference, outputs_2=outputs, is_ordered=True)
    # The package forgets what it can't read.
    replies = [row.get("preference_raw_completion") for row in rows]
    read = [row["preference"] for row in rows if row.get("preference") is not None and not math.isnan(row["preference"])]
    assert all(1 <= preference <= 2 for preference in read), read
    return replies, read


def called(annotator: str) -> None:
    """The reply to an annotator's own request is a call of its function, whatever the model is."""
    from alpaca_eval import constants, utils
    from alpaca_eval.decoders.openai import openai_completions

    configuration = next(iter(utils.load_configs(annotator, relative_to=constants.EVALUATORS_CONFIG_DIR).values()))
    # As the package writes conversations.
    prompt = "<|im_start|>user\nOutput (a) is Paris. Output (b) is Rome. Which is the capital of France?\n<|im_end|>"
    told = openai_completions([prompt] * 2, **configuration["completions_kwargs"])
    for reply in told["completions_all"]:
        call = reply["message"]["tool_calls"][0]["function"]
        assert call["name"] == configuration["completions_kwargs"]["tool_choice"]["function"]["name"], call
        assert call["arguments"].startswith("{") and (reply["finish_reason"] == "length" or json.loads(call["arguments"])), reply
    server.passed(f"{annotator}: called", repr(told["completions"][0][:70]))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--longreward", required=True)
    parser.add_argument("--model", default="smollm2")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, server.serving(options.longreward, options.model, *(f"--alias={a}" for a in ALIASES)) as (address, _):
        folder = pathlib.Path(name)
        clients = folder / "clients.yaml"
        clients.write_text(f'default:\n  - api_key: "none"\n    base_url: "{address}"\n')
        # The package reads this when it is imported.
        os.environ["OPENAI_CLIENT_CONFIG_PATH"] = str(clients)
        import alpaca_eval.main
        import importlib.metadata
        import pandas

        logging.getLogger().setLevel(logging.WARNING)
        print(f"alpaca_eval {importlib.metadata.version('alpaca_eval')}, openai {importlib.metadata.version('openai')}, {address}")
        reference = answers(alpaca_eval.main.evaluate_from_model, folder)
        outputs = pandas.read_json(folder / "model_outputs.json").to_dict("records")
        assert len(outputs) == len(ROWS) and all(row["output"] for row in outputs)
        server.passed("evaluate_from_model", repr(outputs[0]["output"][:50]))
        for annotator in FUNCTIONS:
            called(annotator)
        for annotator in [WEIGHTED, RANKING, *FUNCTIONS]:
            replies, read = judged(outputs, reference, annotator)
            assert len(replies) == len(ROWS) and (annotator != WEIGHTED or len(read) == len(ROWS)), read
            server.passed(annotator, f"{len(read)} of {len(replies)} read, {read}; {str(replies[0])[:70]!r}")


if __name__ == "__main__":
    main()

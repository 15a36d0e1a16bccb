"""SmolLM2 from its GGUF file, widened to float32: this program against PyTorch `transformers`.

    python tests/peers/smollm2.py MODEL.gguf --text english.txt chinese.txt [--tokens 2000]
        (--longreward target/release/longreward | --result printed.json | nothing: prepare only)

Takes the opening of each text, at least `--tokens` in all; compares token ids with `tokenizers`, log-probabilities of the
prompt, and 64 tokens of greedy continuation. What transformers says is kept in `--work` and computed once per prompt.
Ends with code 1 where a limit is passed, 2 where the program itself failed. Needs torch, transformers,
accelerate, gguf, tokenizers (see tests/peers/README.md).
"""

import argparse
import hashlib
import json
import pathlib
import subprocess
import sys

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent / "goldens" / "tokens"))
LIMIT = 1e-3
GREEDY = 64


def opening(tokenizer, text: str, tokens: int) -> str:
    """The shortest opening of whole lines that holds so many tokens."""
    taken = ""
    for line in text.splitlines(keepends=True):
        taken += line
        if len(tokenizer.encode(taken, add_special_tokens=False).ids) >= tokens:
            break
    return taken


def reference(path: pathlib.Path, ids: list) -> dict:
    """Log-probabilities and greedy tokens by transformers, float32, eager attention."""
    import torch
    import transformers

    model = transformers.AutoModelForCausalLM.from_pretrained(
        path.parent, gguf_file=path.name, dtype=torch.float32, attn_implementation="eager"
    ).eval()
    with torch.no_grad():
        out = model(torch.tensor([ids]), use_cache=True)
        table = torch.log_softmax(out.logits[0].double(), -1)
        logprobs = table[range(len(ids) - 1), ids[1:]].tolist()
        row, cache, tokens, margins = out.logits[0, -1], out.past_key_values, [], []
        for _ in range(GREEDY):
            best = torch.topk(row, 2)
            tokens.append(int(best.indices[0]))
            margins.append(float(best.values[0] - best.values[1]))
            out = model(torch.tensor([[tokens[-1]]]), past_key_values=cache, use_cache=True)
            row = out.logits[0, -1]
    return {
        "reference": f"transformers {transformers.__version__}, torch {torch.__version__}",
        "prompt_tokens": ids, "prompt_logprobs": [None] + logprobs, "greedy": tokens, "margins": margins,
    }


def kept_reference(args, ids: list) -> dict:
    key = hashlib.sha256(json.dumps([args.model.stat().st_size, ids]).encode()).hexdigest()[:16]
    file = args.work / f"transformers-{key}.json"
    if not file.exists():
        file.write_text(json.dumps(reference(args.model.resolve(), ids)))
    return json.loads(file.read_text())


def ours(args, prompt: pathlib.Path) -> dict:
    """What `longreward generate` prints for the prompt."""
    if args.result:
        return json.loads(args.result.read_text())
    command = [
        args.longreward, "generate", "--model", args.model, "--raw", "--prompt-file", prompt, "--prompt-logprobs",
        "--json", "--dtype", "f32", "--device", "cpu", "--max-new-tokens", str(GREEDY), "--temperature", "0",
    ]
    done = subprocess.run([str(c) for c in command], stdout=subprocess.PIPE)
    if done.returncode:
        print(f"longreward ended with code {done.returncode}")
        raise SystemExit(2)
    (args.work / "longreward.json").write_bytes(done.stdout)
    return json.loads(done.stdout)


def compare(want: dict, got: dict, stops: set) -> bool:
    """Prints the differences; true where all are within the limits."""
    same_ids = got["prompt_tokens"] == want["prompt_tokens"]
    print(f"prompt tokens: {len(got['prompt_tokens'])}, equal to tokenizers: {same_ids}")
    if not same_ids:
        pairs = zip(want["prompt_tokens"], got["prompt_tokens"])
        print("first difference at", next((i for i, (a, b) in enumerate(pairs) if a != b), "the end"))
        return False
    ours, theirs = got["prompt_logprobs"], want["prompt_logprobs"]
    if ours[0] is not None or len(ours) != len(theirs):
        print(f"prompt_logprobs: {len(ours)} values, the first {ours[0]}; wanted {len(theirs)}, the first null")
        return False
    gaps = [abs(a - b) for a, b in zip(ours[1:], theirs[1:])]
    worst = max(range(len(gaps)), key=gaps.__getitem__)
    print(
        f"prompt log-probabilities: largest difference {gaps[worst]:.2e} (token {worst + 1}, {theirs[worst + 1]:.4f}),"
        f" mean {sum(gaps) / len(gaps):.2e}; limit {LIMIT:.0e}"
    )
    return gaps[worst] < LIMIT and same_greedy(want, got["outputs"][0]["tokens"], stops)


def same_greedy(want: dict, tokens: list, stops: set) -> bool:
    """Equal up to an end token of the model, which the program may leave out."""
    greedy = want["greedy"]
    end = next((i for i, t in enumerate(greedy) if t in stops), len(greedy))
    differs = next((i for i in range(min(end, len(tokens))) if tokens[i] != greedy[i]), None)
    print(f"greedy: {end} tokens before the end, smallest margin {min(want['margins'][: end + 1]):.2e}; ", end="")
    if differs is not None:
        print(f"differs at {differs}, where the margin is {want['margins'][differs]:.2e}")
        return False
    print("equal" if end <= len(tokens) <= end + 1 else f"but the program gave {len(tokens)}")
    return end <= len(tokens) <= end + 1


def arguments():
    a = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    a.add_argument("model", type=pathlib.Path, help="SmolLM2-135M-Instruct.Q4_1.gguf")
    a.add_argument("--text", type=pathlib.Path, nargs="+", required=True, help="UTF-8 files")
    a.add_argument("--tokens", type=int, default=2000)
    a.add_argument("--work", type=pathlib.Path, default=pathlib.Path("target/peers"))
    group = a.add_mutually_exclusive_group()
    group.add_argument("--longreward", type=pathlib.Path, help="the program")
    group.add_argument("--result", type=pathlib.Path, help="what it printed")
    return a.parse_args()


def main():
    from tokens import smollm2

    args = arguments()
    args.work.mkdir(parents=True, exist_ok=True)
    tokenizer, _ = smollm2(str(args.model))
    tokenizer.encode_special_tokens = True
    share = args.tokens // len(args.text)
    text = "".join(opening(tokenizer, f.read_text(encoding="utf-8"), share) for f in args.text)
    prompt = args.work / "prompt.txt"
    prompt.write_text(text, encoding="utf-8")
    ids = tokenizer.encode(text, add_special_tokens=False).ids
    want = kept_reference(args, ids)
    print(f"{want['reference']}: {len(ids)} tokens in {prompt}, mean log-probability {sum(want['prompt_logprobs'][1:]) / (len(ids) - 1):.4f}")
    if args.longreward or args.result:
        stops = {tokenizer.token_to_id(s) for s in ("<|endoftext|>", "<|im_end|>")}
        raise SystemExit(0 if compare(want, ours(args, prompt), stops) else 1)


if __name__ == "__main__":
    main()

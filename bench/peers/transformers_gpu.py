"""The judge's workload on Hugging Face transformers with PyTorch's attention, on one GPU.

    longreward bench --model MODEL --data sft.jsonl --responses sampled_responses.jsonl --calls calls.jsonl --device cuda
    python bench/peers/transformers_gpu.py --shape llama-3.1-8b --calls calls.jsonl --responses 100 > transformers.json

Answers every call that scoring made: the same prompts as token ids, and exactly as many new tokens as were sampled. The
model has random weights in bf16 in the shape of a real one (speed does not depend on their values) and `sdpa` attention.
What favours it: all calls are known at once, although some follow from the replies to others; calls are sorted by length,
so that a batch is padded as little as can be, and a batch takes as many as memory holds (halved when it does not). Where
scoring asks for the probabilities of continuations, only the prompt is run, once. Prints one JSON object.

Needs torch and transformers; the shapes are those of models/src/dummy.
"""

import argparse
import json
import pathlib
import time

import torch
import transformers
from transformers import AutoConfig, AutoModelForCausalLM, GlmConfig, LlamaConfig

SHAPES = pathlib.Path(__file__).resolve().parents[2] / "models" / "src" / "dummy"


def config_of(shape):
    path = pathlib.Path(shape)
    if path.is_dir():
        return AutoConfig.from_pretrained(path)
    raw = json.loads((SHAPES / f"{shape}.json").read_text())
    if raw["architectures"][0] == "ChatGLMModel":
        return GlmConfig(
            vocab_size=raw["padded_vocab_size"], hidden_size=raw["hidden_size"],
            intermediate_size=raw["ffn_hidden_size"], num_hidden_layers=raw["num_layers"],
            num_attention_heads=raw["num_attention_heads"], num_key_value_heads=raw["multi_query_group_num"],
            head_dim=raw["kv_channels"], max_position_embeddings=raw["seq_length"],
            rms_norm_eps=raw["layernorm_epsilon"], rope_theta=10000.0 * raw.get("rope_ratio", 1),
            attention_bias=True, pad_token_id=0, eos_token_id=None)
    return LlamaConfig(**raw)


def build(shape, device):
    config = config_of(shape)
    config.pad_token_id, config.eos_token_id = 0, None
    torch.manual_seed(0)
    with torch.device(device):
        torch.set_default_dtype(torch.bfloat16)
        model = AutoModelForCausalLM.from_config(config, attn_implementation="sdpa")
    model.generation_config.eos_token_id = None
    model.generation_config.pad_token_id = 0
    return model.eval()


def batches(calls, most_tokens, most_calls):
    """Calls of one kind, longest first, so that the first batch shows whether memory is enough."""
    calls = sorted(calls, key=lambda c: (c["new_tokens"], len(c["prompt"])), reverse=True)
    batch, width = [], 0
    for call in calls:
        total = len(call["prompt"]) + call["new_tokens"]
        if batch and (max(width, total) * (len(batch) + 1) > most_tokens or len(batch) == most_calls):
            yield batch
            batch, width = [], 0
        batch.append(call)
        width = max(width, total)
    if batch:
        yield batch


def padded(batch, device):
    width = max(len(call["prompt"]) for call in batch)
    ids = torch.zeros(len(batch), width, dtype=torch.long)
    mask = torch.zeros(len(batch), width, dtype=torch.long)
    for row, call in enumerate(batch):
        length = len(call["prompt"])
        ids[row, width - length:] = torch.tensor(call["prompt"])
        mask[row, width - length:] = 1
    return ids.to(device), mask.to(device)


@torch.inference_mode()
def answer(model, batch):
    ids, mask = padded(batch, model.device)
    new = max(call["new_tokens"] for call in batch)
    if new == 0:
        model(input_ids=ids, attention_mask=mask, logits_to_keep=1, use_cache=False)
        return
    model.generate(input_ids=ids, attention_mask=mask, max_new_tokens=new, min_new_tokens=new,
                   do_sample=True, temperature=0.8, top_k=0)


def finish(model):
    if model.device.type == "cuda":
        torch.cuda.synchronize()


def run(model, calls, most_tokens, most_calls):
    """Seconds, and how often a batch was halved for want of memory."""
    waiting = [batch for kind in (True, False)
               for batch in batches([c for c in calls if (c["new_tokens"] > 0) == kind], most_tokens, most_calls)]
    halved, done = 0, 0
    finish(model)
    start = time.perf_counter()
    while waiting:
        batch = waiting.pop(0)
        try:
            answer(model, batch)
            done += len(batch)
        except torch.cuda.OutOfMemoryError:
            if len(batch) == 1:
                raise
            torch.cuda.empty_cache()
            halved += 1
            waiting[:0] = [batch[: len(batch) // 2], batch[len(batch) // 2:]]
    finish(model)
    assert done == len(calls)
    return time.perf_counter() - start, halved


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--shape", default="llama-3.1-8b", help="a shape of `longreward bench --dummy`, or a folder")
    parser.add_argument("--calls", required=True, help="what `longreward bench --calls` wrote")
    parser.add_argument("--responses", type=int, required=True, help="judged responses that the calls belong to")
    parser.add_argument("--most-tokens", type=int, nargs="+", default=[65536, 131072, 262144],
                        help="tokens of a padded batch; each is tried, the fastest counts")
    parser.add_argument("--most-calls", type=int, default=256)
    parser.add_argument("--device", default="cuda", help="cpu, to try this program")
    args = parser.parse_args()
    calls = [json.loads(line) for line in open(args.calls)]
    model = build(args.shape, args.device)
    answer(model, [min(calls, key=lambda c: len(c["prompt"]))])
    tried = []
    for most_tokens in args.most_tokens:
        seconds, halved = run(model, calls, most_tokens, args.most_calls)
        tried.append({"most_tokens": most_tokens, "seconds": seconds, "halved": halved})
    seconds = min(one["seconds"] for one in tried)
    print(json.dumps({
        "peer": f"transformers {transformers.__version__}, torch {torch.__version__}, sdpa",
        "device": torch.cuda.get_device_name() if args.device == "cuda" else args.device, "shape": args.shape, "calls": len(calls),
        "prompt_tokens": sum(len(c["prompt"]) for c in calls),
        "generated_tokens": sum(c["new_tokens"] for c in calls),
        "seconds": seconds, "responses_per_hour": args.responses / seconds * 3600, "tried": tried,
        "peak_bytes": torch.cuda.max_memory_allocated() if args.device == "cuda" else None,
    }))


if __name__ == "__main__":
    main()

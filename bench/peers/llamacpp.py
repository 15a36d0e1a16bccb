"""Speed of llama.cpp on one GGUF file, for the table that sets it beside this program.

    pip install llama-cpp-python            # CMAKE_ARGS="-DGGML_NATIVE=ON", built for this machine
    python bench/peers/llamacpp.py MODEL.gguf [--threads 2] [--only prefill|shared|own] [--quick] > llamacpp.json

Prefill: one sequence of N tokens on an empty cache, logits of the last token only.
Decode: B sequences step together; `shared`: they share their context's KV (one unified cache, as
candidates of one document would); `own`: every sequence holds its own copy (one stream each).
Random tokens, no sampling; each case is run once unmeasured and then `--repeats` times.
The C interface is used, since the Python class knows one sequence only. Prints one JSON object.
"""

import argparse
import ctypes
import hashlib
import json
import platform
import random
import statistics
import sys
import time

import llama_cpp as lc

FLASH = {"off": lc.LLAMA_FLASH_ATTN_TYPE_DISABLED, "on": lc.LLAMA_FLASH_ATTN_TYPE_ENABLED}


class Session:
    """A context on the model, with one reusable batch."""

    def __init__(self, model, threads, flash, n_ctx, sequences=1, unified=True, batch=2048, ubatch=512):
        p = lc.llama_context_default_params()
        p.n_ctx, p.n_batch, p.n_ubatch = n_ctx, batch, ubatch
        p.n_seq_max, p.kv_unified = sequences, unified
        p.n_threads = p.n_threads_batch = threads
        p.flash_attn_type = FLASH[flash]
        self.ctx = lc.llama_init_from_model(model, p)
        if not self.ctx:
            raise SystemExit(f"llama.cpp made no context of {n_ctx} tokens for {sequences} sequences")
        self.memory = lc.llama_get_memory(self.ctx)
        self.vocab = lc.llama_vocab_n_tokens(lc.llama_model_get_vocab(model))
        self.n_batch = batch
        self.batch = lc.llama_batch_init(batch, 0, 1)
        self.random = random.Random(1)

    def close(self):
        lc.llama_batch_free(self.batch)
        lc.llama_free(self.ctx)

    def decode(self, rows, logits_of):
        """rows: (sequence, position) pairs; logits_of: indices of rows that need logits."""
        b = self.batch
        b.n_tokens = len(rows)
        for i, (sequence, position) in enumerate(rows):
            b.token[i] = self.random.randrange(100, self.vocab)
            b.pos[i], b.n_seq_id[i], b.seq_id[i][0] = position, 1, sequence
            b.logits[i] = i in logits_of
        if code := lc.llama_decode(self.ctx, b):
            raise SystemExit(f"llama_decode failed with {code} on {len(rows)} rows")
        lc.llama_synchronize(self.ctx)

    def prefill(self, tokens, sequence=0):
        for start in range(0, tokens, self.n_batch):
            end = min(start + self.n_batch, tokens)
            last = {end - start - 1} if end == tokens else set()
            self.decode([(sequence, p) for p in range(start, end)], last)

    def step(self, sequences, position):
        self.decode([(s, position) for s in range(sequences)], set(range(sequences)))


def timed(work):
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def summary(seconds, tokens):
    """Tokens per second of the median run, and the runs."""
    return {
        "tokens_per_second": round(tokens / statistics.median(seconds), 2),
        "best": round(tokens / min(seconds), 2),
        "seconds": [round(s, 4) for s in seconds],
    }


def prefill_case(model, args, flash, tokens):
    s = Session(model, args.threads, flash, tokens + 256)
    seconds = []
    for i in range(args.repeats + 1):
        lc.llama_memory_clear(s.memory, True)
        seconds.append(timed(lambda: s.prefill(tokens)))
    s.close()
    return {"kind": "prefill", "tokens": tokens, "flash": flash, **summary(seconds[1:], tokens)}


def decode_case(model, args, flash, kind, context, sequences):
    """One warm step, then `--steps` steps a run; KV grows by a token a step, as it would."""
    room = args.steps * args.repeats + 1
    n_ctx = context + room * sequences if kind == "shared" else (context + room) * sequences
    s = Session(model, args.threads, flash, n_ctx + 256 * sequences, sequences, kind == "shared")
    s.prefill(context)
    for other in range(1, sequences):
        lc.llama_memory_seq_cp(s.memory, 0, other, -1, -1)
    s.step(sequences, context)
    position = context + 1
    seconds = []
    for _ in range(args.repeats):
        def run(first=position):
            for p in range(first, first + args.steps):
                s.step(sequences, p)
        seconds.append(timed(run))
        position += args.steps
    s.close()
    tokens = sequences * args.steps
    return {
        "kind": "decode", "context": context, "sequences": sequences, "kv": kind, "flash": flash,
        **summary(seconds, tokens),
    }


def cases(args):
    """(kind, function, arguments) of everything that is to be measured."""
    for flash in args.flash:
        for tokens in args.prefill:
            yield "prefill", prefill_case, (flash, tokens)
        for kind in ("shared", "own"):
            for context in args.context:
                for sequences in args.sequences:
                    if sequences > 1 or kind == "shared":
                        yield kind, decode_case, (flash, kind, context, sequences)


def arguments():
    numbers = lambda text: [int(n) for n in text.split(",")]
    a = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    a.add_argument("model")
    a.add_argument("--threads", type=int, default=2)
    a.add_argument("--repeats", type=int, default=3)
    a.add_argument("--steps", type=int, default=16, help="decode steps of a run")
    a.add_argument("--prefill", type=numbers, default=[512, 2048, 8000])
    a.add_argument("--context", type=numbers, default=[512, 4000])
    a.add_argument("--sequences", type=numbers, default=[1, 4, 16, 64])
    a.add_argument("--flash", type=lambda t: t.split(","), default=["on", "off"])
    a.add_argument("--only", choices=["prefill", "shared", "own"])
    a.add_argument("--quick", action="store_true", help="a smoke test: small sizes, one run")
    args = a.parse_args()
    if args.quick:
        args.repeats, args.steps = 1, 4
        args.prefill, args.context, args.sequences = [512], [512], [1, 4, 16]
    return args


def cpu_name():
    try:
        with open("/proc/cpuinfo") as f:
            return next(line.split(":")[1].strip() for line in f if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor()


@lc.llama_log_callback
def discard(level, text, data):
    pass


def quiet():
    """Starts llama.cpp without its messages."""
    lc.llama_log_set(discard, ctypes.c_void_p(0))
    lc.llama_backend_init()


def main():
    args = arguments()
    quiet()
    model = lc.llama_model_load_from_file(args.model.encode(), lc.llama_model_default_params())
    if not model:
        raise SystemExit(f"{args.model}: llama.cpp could not load it")
    results = []
    for kind, function, rest in cases(args):
        if args.only in (None, kind):
            results.append(function(model, args, *rest))
            print(results[-1], file=sys.stderr, flush=True)
    with open(args.model, "rb") as f:
        digest = hashlib.file_digest(f, "sha256").hexdigest()
    print(json.dumps({
        "program": "llama-cpp-python", "version": lc.__version__,
        "system": lc.llama_print_system_info().decode(), "cpu": cpu_name(),
        "model_sha256": digest, "threads": args.threads, "results": results,
    }, indent=1))


if __name__ == "__main__":
    main()

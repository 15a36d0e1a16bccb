"""The judge's workload on llama.cpp's own server, for the table that sets it beside this program.

    longreward bench --model MODEL.gguf --data sft.jsonl --responses sampled_responses.jsonl --calls calls.jsonl
    python bench/peers/llamacpp_server.py --server llama-server --model MODEL.gguf --calls calls.jsonl > server.json

Sends every call that scoring made to a `llama-server` on this machine: the same prompts as token ids, and as many new
tokens as were sampled, end tokens ignored. The server keeps its prompt cache, and has as many clients as slots. What
favours it: all calls are known at once, although some follow from the replies to others; and where scoring asks for
the probabilities of eleven continuations, the server gives one token with its likeliest alternatives.
`--order sorted` puts prompts with a common beginning next to each other. Prints one JSON object. Python's own library
is all that it needs; llama-server is built from the sources that llama-cpp-python carries (vendor/llama.cpp).
"""

import argparse
import concurrent.futures
import json
import pathlib
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def start(args, port):
    command = [args.server, "--model", args.model, "--host", "127.0.0.1", "--port", port, "--threads", args.threads,
               "--threads-batch", args.threads, "--parallel", args.parallel, "--ctx-size", args.context * args.parallel,
               "--flash-attn", args.flash, "--no-warmup"]
    return subprocess.Popen([str(part) for part in command], stdout=subprocess.DEVNULL,
                            stderr=open(args.log, "w") if args.log else subprocess.DEVNULL)


def wait_until_ready(url, process):
    for _ in range(600):
        if process.poll() is not None:
            raise SystemExit(f"the server ended with code {process.returncode}")
        try:
            with urllib.request.urlopen(url + "/health", timeout=5) as reply:
                if reply.status == 200:
                    return
        except (urllib.error.URLError, OSError):
            pass
        time.sleep(0.5)
    raise SystemExit("the server was not ready after 5 minutes")


def complete(url, call):
    body = {"prompt": call["prompt"], "n_predict": max(call["new_tokens"], 1), "ignore_eos": True,
            "temperature": 0.8, "seed": call["number"], "cache_prompt": True}
    if call["continuations"]:
        body["n_probs"] = 20
    request = urllib.request.Request(url + "/completion", json.dumps(body).encode(),
                                     {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=3600) as reply:
        return json.load(reply)["timings"]


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--server", default="llama-server")
    p.add_argument("--model", required=True, type=pathlib.Path)
    p.add_argument("--calls", required=True, type=pathlib.Path)
    p.add_argument("--threads", type=int, default=2)
    p.add_argument("--parallel", type=int, default=8, help="slots of the server, and clients")
    p.add_argument("--context", type=int, default=8192, help="tokens of a slot")
    p.add_argument("--flash", default="on", choices=["on", "off", "auto"])
    p.add_argument("--order", default="submission", choices=["submission", "sorted"])
    p.add_argument("--limit", type=int, help="only the first calls, to try it")
    p.add_argument("--log", help="what the server says")
    args = p.parse_args()

    calls = sorted((json.loads(line) for line in args.calls.open()), key=lambda call: call["number"])
    if args.order == "sorted":
        calls.sort(key=lambda call: call["prompt"])
    calls = calls[: args.limit]
    url = f"http://127.0.0.1:{free_port()}"
    process = start(args, url.rsplit(":", 1)[1])
    try:
        wait_until_ready(url, process)
        began, computed, cached, generated = time.monotonic(), 0, 0, 0
        with concurrent.futures.ThreadPoolExecutor(args.parallel) as clients:
            for done, timings in enumerate(clients.map(lambda call: complete(url, call), calls), 1):
                computed += timings["prompt_n"]
                cached += timings.get("cache_n", 0)
                generated += timings["predicted_n"]
                if done % 20 == 0:
                    print(f"{done}/{len(calls)} calls, {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)
        seconds = time.monotonic() - began
    finally:
        process.terminate()
        process.wait(30)
    print(json.dumps({
        "model": args.model.name, "threads": args.threads, "parallel": args.parallel, "flash": args.flash,
        "order": args.order, "calls": len(calls), "seconds": round(seconds, 1),
        "prompt_tokens": sum(len(call["prompt"]) for call in calls), "computed_prompt_tokens": computed,
        "cached_prompt_tokens": cached, "generated_tokens": generated,
    }))


if __name__ == "__main__":
    main()

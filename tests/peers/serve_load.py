"""Load and abuse of `longreward serve`, beside the same work offline. Standard library only; Linux.

    python tests/peers/serve_load.py --longreward target/release/longreward [--model smollm2] [--clients 256] [--prompt-tokens 64] [--tokens 32]

1. The same prompts (token ids from a text of the program's own), as many new tokens each: all at once by `longreward bench --requests`,
   by so many clients of `/v1/completions`, and by as many that read streams. Seconds, requests and tokens per second, the ratio to
   offline; that no answer is lost.
2. A thousand connections that say nothing, a thousand requests with half of the clients hanging up, a thousand malformed ones: the
   resident memory before and after, and that the server still answers. (`--skip-abuse` leaves this out.)
"""

import argparse
import http.client
import json
import os
import pathlib
import re
import socket
import subprocess
import tempfile
import threading
import time

import server

TEXT = pathlib.Path(__file__).resolve().parents[2] / "src/cli/demo/en.txt"


def prompts(options) -> list:
    """Pieces of a text as token ids; no two begin alike, so that nothing comes from the cache."""
    told = subprocess.run([options.longreward, "tokenize", "--model", options.model, "--file", TEXT, "--json"], check=True, capture_output=True)
    tokens = json.loads(told.stdout)["tokens"] * 2
    length = options.prompt_tokens
    return [[1000 + k, *tokens[11 * k % (len(tokens) // 2) :][: length - 1]] for k in range(options.clients)]


def processor_seconds(pid: int) -> float:
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def resident(pid: int) -> float:
    return int(re.search(r"VmRSS:\s+(\d+)", pathlib.Path(f"/proc/{pid}/status").read_text()).group(1)) / 1024


def say(what: str, options, seconds: float, used: float, beside: float | None = None) -> None:
    count, tokens = options.clients, options.clients * options.tokens
    ratio = "" if beside is None else f", {beside / seconds:.2f} of offline"
    print(
        f"{what:9}{count} requests of {options.prompt_tokens} + {options.tokens} tokens: {seconds:.1f} s, {used:.1f} processor seconds, "
        f"{count / seconds:.2f} requests/s, {tokens / seconds:.0f} new tokens/s{ratio}",
        flush=True,
    )


def offline(options, asked: list) -> float:
    """Seconds without loading."""
    with tempfile.NamedTemporaryFile("w", suffix=".jsonl") as file:
        file.write("".join(json.dumps({"prompt": prompt, "new_tokens": options.tokens}) + "\n" for prompt in asked))
        file.flush()
        command = [options.longreward, "bench", "--model", options.model, "--requests", file.name, "--json", "--kv-memory", "1GB"]
        before = os.times()
        told = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)["measurements"][0]
        after = os.times()
    used = after.children_user + after.children_system - before.children_user - before.children_system
    say("offline", options, told["seconds"][0], used)
    return told["seconds"][0]


def post(port: int, body, path: str = "/v1/chat/completions") -> tuple:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=600)
    connection.request("POST", path, body if isinstance(body, str) else json.dumps(body), {"Content-Type": "application/json"})
    answer = connection.getresponse()
    return answer.status, json.loads(answer.read())


def together(count: int, work) -> list:
    """Results of `work(k)`, each on a thread of its own; an exception is a result."""
    results = [None] * count

    def run(k: int) -> None:
        try:
            results[k] = work(k)
        except Exception as error:
            results[k] = error

    threads = [threading.Thread(target=run, args=(k,)) for k in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


def served(options, port: int, pid: int, asked: list, streamed: bool, beside: float | None) -> None:
    def ask(k: int) -> int:
        fields = {"prompt": asked[k], "max_tokens": options.tokens, "temperature": 0, "ignore_eos": True, "seed": 0}
        if not streamed:
            status, answer = post(port, fields, "/v1/completions")
            return answer["usage"]["completion_tokens"] if status == 200 else status
        fields |= {"stream": True, "stream_options": {"include_usage": True}}
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=600)
        connection.request("POST", "/v1/completions", json.dumps(fields), {"Content-Type": "application/json"})
        events = [line for line in connection.getresponse().read().splitlines() if line.startswith(b"data: ")]
        assert events[-1] == b"data: [DONE]", events[-1]
        return json.loads(events[-2][6:])["usage"]["completion_tokens"]

    start, used, own = time.monotonic(), processor_seconds(pid), time.process_time()
    counts = together(len(asked), ask)
    seconds, used, own = time.monotonic() - start, processor_seconds(pid) - used, time.process_time() - own
    assert set(map(str, counts)) == {str(options.tokens)}, set(map(str, counts))
    say("streamed" if streamed else "served", options, seconds, used, beside)
    print(f"         none lost; the clients took {own:.1f} processor seconds of their own", flush=True)


def abuse(port: int, pid: int) -> None:
    request = {"messages": [{"role": "user", "content": "Tell me all."}], "max_tokens": 8, "seed": 1}
    whole = post(port, request)[1]["choices"]

    def rude(k: int) -> int:
        if k % 2:
            return post(port, request)[0]
        body = json.dumps(request | {"max_tokens": 500, "stream": True})
        client = socket.create_connection(("127.0.0.1", port))
        client.sendall(f"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode())
        if k % 4:
            client.recv(100)
        client.close()
        return 0

    for round in range(3):
        idle = [socket.create_connection(("127.0.0.1", port)) for _ in range(1000)]
        statuses = together(1000, rude)
        polite = [status for status in statuses[1::2]]
        assert set(polite) <= {200, 429} and 200 in polite, set(map(str, polite))
        bad = together(1000, lambda k: post(port, ["{", "[]", '{"messages": 1}', '{"messages": [], "n": "x"}'][k % 4])[0])
        assert set(bad) == {400}, set(map(str, bad))
        assert post(port, request)[1]["choices"] == whole
        for client in idle:
            client.close()
        print(f"abuse    round {round + 1}: 1000 idle, 500 hung up, {polite.count(200)} served, {polite.count(429)} told to wait, 1000 malformed; {resident(pid):.0f} MB resident", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--longreward", required=True)
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--clients", type=int, default=256)
    parser.add_argument("--prompt-tokens", type=int, default=64)
    parser.add_argument("--tokens", type=int, default=32)
    parser.add_argument("--skip-offline", action="store_true")
    parser.add_argument("--skip-abuse", action="store_true")
    options = parser.parse_args()
    asked = prompts(options)
    beside = None if options.skip_offline else offline(options, asked)
    # A server of its own each, so that neither finds the other's prompts in the cache.
    for streamed in (False, True):
        with server.serving(options.longreward, options.model) as (address, pid):
            port = int(re.search(r":(\d+)/", address).group(1))
            served(options, port, pid, asked, streamed, beside)
            if streamed and not options.skip_abuse:
                print(f"         {resident(pid):.0f} MB resident", flush=True)
                abuse(port, pid)


if __name__ == "__main__":
    main()

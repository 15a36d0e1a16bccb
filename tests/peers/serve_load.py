"""Load and abuse of `longreward serve`, beside the same work offline. Standard library only; Linux.

    python tests/peers/serve_load.py --longreward target/release/longreward [--model smollm2] [--clients 256] [--tokens 32]

1. The same prompts, as many tokens each, by `longreward sample` and by so many clients at once: seconds, processor seconds,
   tokens per second; that no answer is lost.
2. A thousand connections that say nothing, a thousand requests with half of the clients hanging up, a thousand malformed ones:
   the resident memory before and after, and that the server still answers.
"""

import argparse
import http.client
import json
import os
import pathlib
import random
import re
import signal
import socket
import subprocess
import tempfile
import threading
import time

WORDS = "river mill stone flood bridge town crown wheel brother year water winter north letter garden".split()


def prompts(count: int) -> list:
    draw = random.Random(5)
    return [" ".join(draw.choices(WORDS, k=40)) + f". Question {k}?" for k in range(count)]


def processor_seconds(pid: int) -> float:
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def resident(pid: int) -> float:
    return int(re.search(r"VmRSS:\s+(\d+)", pathlib.Path(f"/proc/{pid}/status").read_text()).group(1)) / 1024


def offline(options, texts: list) -> None:
    """`sample` with one candidate for each prompt; the tokens are counted by the server's twin below."""
    with tempfile.TemporaryDirectory() as folder:
        rows = [{"idx": k, "query": "Go on.", "answer": "", "context": text} for k, text in enumerate(texts)]
        pathlib.Path(folder, "sft.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        command = [options.longreward, "sample", "--model", options.model, "--data", "sft.jsonl", "--out", "out.jsonl", "-n", "1"]
        command[0] = str(pathlib.Path(command[0]).resolve())
        before, start = os.times(), time.monotonic()
        subprocess.run([*command, "--max-new-tokens", str(options.tokens), "--kv-memory", "1GB"], cwd=folder, check=True, capture_output=True)
        after, seconds = os.times(), time.monotonic() - start
        used = after.children_user + after.children_system - before.children_user - before.children_system
        print(f"offline  {len(texts)} prompts: {seconds:.1f} s (loading included), {used:.1f} processor seconds", flush=True)


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


def served(options, port: int, pid: int, texts: list) -> None:
    def ask(k: int) -> tuple:
        message = {"role": "user", "content": texts[k] + "\n\nGo on."}
        return post(port, {"messages": [message], "max_tokens": options.tokens, "seed": k})

    start, used = time.monotonic(), processor_seconds(pid)
    answers = together(len(texts), ask)
    seconds, used = time.monotonic() - start, processor_seconds(pid) - used
    lost = [answer for answer in answers if not (isinstance(answer, tuple) and answer[0] == 200)]
    assert not lost, lost[:3]
    tokens = sum(answer[1]["usage"]["completion_tokens"] for answer in answers)
    print(f"served   {len(texts)} clients: {seconds:.1f} s, {used:.1f} processor seconds, {tokens} tokens, {tokens / seconds:.0f} tokens/s, none lost", flush=True)


def abuse(port: int, pid: int) -> None:
    request = {"messages": [{"role": "user", "content": "Tell me all."}], "max_tokens": 8, "seed": 1}
    whole = post(port, request)[1]["choices"]

    def rude(k: int) -> int:
        if k % 2:
            return post(port, request)[0]
        body = json.dumps(request | {"max_tokens": 500, "stream": True})
        client = socket.create_connection(("127.0.0.1", port))
        client.sendall(f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode())
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
    parser.add_argument("--tokens", type=int, default=32)
    parser.add_argument("--skip-offline", action="store_true")
    options = parser.parse_args()
    texts = prompts(options.clients)
    if not options.skip_offline:
        offline(options, texts)
    command = [options.longreward, "serve", "--model", options.model, "--port", "0", "--kv-memory", "1GB"]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        port = int(server.stdout.readline().rsplit(":", 1)[1])
        served(options, port, server.pid, texts)
        print(f"         {resident(server.pid):.0f} MB resident", flush=True)
        abuse(port, server.pid)
        server.send_signal(signal.SIGTERM)
        assert server.wait(60) == 0
    finally:
        server.kill()


if __name__ == "__main__":
    main()

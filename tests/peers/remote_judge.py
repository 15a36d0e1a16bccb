"""Judges behind servers: this program's own over https, and servers of others as they really are.

    python tests/peers/remote_judge.py --longreward target/release/longreward [--llama-server PATH --gguf FILE]
        [--llama-cpp-python PYTHON] [--vllm PYTHON --folder DIR]

1. `score` at home, over http and over https (through a proxy of this script with the certificates of `tests/goldens/tls`) ends with
   the same bytes; without the authority's certificate the server is refused at once.
2. `score`, `run` and `agree` with llama.cpp's `llama-server` as judge and as policy.
3. The same with vLLM's server (`PYTHON -m vllm.entrypoints.openai.api_server`).
4. The same `score` with the server of llama-cpp-python (`PYTHON -m llama_cpp.server`, needs fastapi, uvicorn, sse-starlette,
   starlette-context), which tells log-probabilities if it keeps all logits; if it does not, no verdict is chosen for the model.

Standard library only. The model is SmolLM2, so that verdicts mean nothing.
"""

import argparse
import collections
import contextlib
import json
import os
import pathlib
import socket
import ssl
import subprocess
import tempfile
import threading
import time
import urllib.request

import server

CONTEXT = (
    "The old mill stands on the river below the stone bridge. It was built in 1874 by two brothers, Jan and Piet, who came from "
    "the north. A flood in 1903 broke the wheel, and the town paid 400 crowns for a new one. Since 1951 the mill has been a museum; "
    "its garden is open from April to October, and children under twelve pay nothing. "
)
ANSWERS = ["It was built in 1874 by two brothers."]
CERTIFICATES = pathlib.Path(__file__).resolve().parent.parent / "goldens" / "tls"


def write(path: pathlib.Path, rows: list) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def data(folder: pathlib.Path) -> None:
    query = "When was the mill built, and by whom?"
    write(folder / "sft.jsonl", [{"idx": 1, "query": query, "answer": "", "context": CONTEXT * 2}])
    write(folder / "sampled_responses.jsonl", [{"idx": f"1-{k}", "query": query, "answer": answer} for k, answer in enumerate(ANSWERS)])
    claims = [("The mill was built in 1874.", "supported"), ("The mill burned down in 1903.", "not_supported")]
    write(folder / "labels.jsonl", [{"claim": claim, "evidence": CONTEXT.split(". "), "label": label} for claim, label in claims])


class Program:
    """The program in a folder with data."""

    def __init__(self, longreward: str, folder: pathlib.Path):
        self.longreward, self.folder = str(pathlib.Path(longreward).resolve()), folder

    def run(self, command: str, environment=None) -> subprocess.CompletedProcess:
        start = time.monotonic()
        ran = subprocess.run([self.longreward, *command.split()], cwd=self.folder, env=os.environ | (environment or {}), capture_output=True, text=True)
        ran.seconds = time.monotonic() - start
        return ran

    def does(self, command: str, environment=None) -> subprocess.CompletedProcess:
        ran = self.run(command, environment)
        assert ran.returncode == 0, f"{command}: {ran.returncode}\n{ran.stdout}{ran.stderr}"
        return ran

    def score(self, judge: str, out: str, more: str = "") -> str:
        files = f"--data sft.jsonl --responses sampled_responses.jsonl --out {out}/scored_responses.jsonl"
        return f"score {judge} {files} --embedder bm25 --max-reply-tokens 16 {more}"

    def rows(self, file: str) -> list:
        return [json.loads(line) for line in (self.folder / file).read_text().splitlines()]


@contextlib.contextmanager
def tls_proxy(port: int):
    """Passes on what comes over TLS to `port`; gives its own port."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(CERTIFICATES / "server.pem", CERTIFICATES / "server.key")
    listener = socket.create_server(("127.0.0.1", 0), backlog=256)

    def pump(source, sink) -> None:
        with contextlib.suppress(OSError):
            while piece := source.recv(65536):
                sink.sendall(piece)
        with contextlib.suppress(OSError):
            sink.shutdown(socket.SHUT_WR)

    def serve(client) -> None:
        with contextlib.suppress(OSError), context.wrap_socket(client, server_side=True) as near, socket.create_connection(("127.0.0.1", port)) as far:
            back = threading.Thread(target=pump, args=(far, near), daemon=True)
            back.start()
            pump(near, far)
            back.join()

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield listener.getsockname()[1]
    finally:
        listener.close()


def https(program: Program, model: str) -> None:
    program.does(program.score(f"--model {model}", "home"))
    with server.serving(program.longreward, model) as (address, _), tls_proxy(int(address.rsplit(":", 1)[1].split("/")[0])) as port:
        judge = f"--judge-model {model} --tokenizer {model} --judge-url"
        secure = f"https://127.0.0.1:{port}/v1"
        program.does(program.score(f"{judge} {address}", "http"))
        refused = program.run(program.score(f"{judge} {secure}", "refused"))
        assert refused.returncode == 1 and "--ca-file" in refused.stderr, refused.stderr
        server.passed("an unknown authority is refused", f"{refused.seconds:.1f} s; {refused.stderr.strip().splitlines()[-1]}")
        ca = CERTIFICATES / "ca.pem"
        program.does(program.score(f"{judge} {secure}", "https", f"--ca-file {ca}"))
        program.does(program.score(f"{judge} {secure}", "environment"), {"SSL_CERT_FILE": str(ca)})
    for out in ["http", "https", "environment"]:
        for file in ["scored_responses.jsonl", "scored_responses.chunk_info.jsonl"]:
            assert (program.folder / out / file).read_bytes() == (program.folder / "home" / file).read_bytes(), (out, file)
    server.passed("the same bytes at home, over http and over https")


def verdicts(value):
    """All verdicts within the details of a record."""
    if isinstance(value, dict):
        if "attempts" in value:
            yield value
        else:
            for inner in value.values():
                yield from verdicts(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from verdicts(inner)


@contextlib.contextmanager
def foreign(command: list, environment: dict, port: int):
    process = subprocess.Popen(command, env=os.environ | environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    address = f"http://127.0.0.1:{port}/v1"
    try:
        for _ in range(3000):
            with contextlib.suppress(OSError):
                yield address, json.load(urllib.request.urlopen(f"{address}/models", timeout=5))["data"][0]["id"]
                return
            assert process.poll() is None, f"{command[0]} ended with {process.returncode}"
            time.sleep(0.1)
        raise AssertionError(f"{command[0]} does not answer")
    finally:
        process.terminate()
        process.wait(30)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


def say_what_came(program: Program, what: str, out: str, ran) -> None:
    settings = json.loads((program.folder / out / "scored_responses.jsonl.meta.json").read_text())["settings"]
    seen = collections.Counter()
    for row in program.rows(f"{out}/scored_responses.jsonl"):
        for verdict in verdicts(row["details"]):
            seen["verdicts"] += 1
            seen["forced"] += verdict.get("forced") is True
            seen["estimated"] += verdict.get("estimate") is not None
    told = {name: settings.get(name) for name in ["scoring", "filters", "checkpoint"]}
    server.passed(f"{what}: score", f"code {ran.returncode}, {ran.seconds:.0f} s, {dict(seen)}, {told}")


def as_judge_and_as_policy(program: Program, what: str, model: str, address: str, name: str) -> None:
    judge = f"--judge-url {address} --judge-model {name} --tokenizer {model} --concurrency 4"
    ran = program.does(program.score(judge, what))
    say_what_came(program, what, what, ran)
    again = program.does(program.score(judge, what))
    assert "nothing to do" in again.stderr + again.stdout
    policy = f"--policy-url {address} --policy-model {name}"
    files = f"--data sft.jsonl --out-dir {what}-run -n 3 --max-new-tokens 24 --embedder bm25 --max-reply-tokens 24 --min-scored 2"
    ran = program.run(f"run {judge} {policy} {files}")
    assert ran.returncode in (0, 3), ran.stderr
    answers = [row["answer"] for row in program.rows(f"{what}-run/sampled_responses.jsonl")]
    assert len(answers) == 3 and len(set(answers)) > 1, answers
    server.passed(f"{what}: run, as judge and as policy", f"code {ran.returncode}, {ran.seconds:.0f} s; {answers[0][:40]!r}")
    ran = program.does(f"agree --labels labels.jsonl {judge} --out {what}-agree.jsonl --resamples 50 --max-reply-tokens 48")
    server.passed(f"{what}: agree", f"{ran.seconds:.0f} s, {len(program.rows(f'{what}-agree.jsonl'))} claims")


def llama_server(program: Program, options) -> None:
    port = free_port()
    binary = pathlib.Path(options.llama_server).resolve()
    command = [str(binary), "-m", options.gguf, "--host", "127.0.0.1", "--port", str(port), "-c", "32768", "-np", "4"]
    with foreign(command, {"LD_LIBRARY_PATH": str(binary.parent)}, port) as (address, name):
        as_judge_and_as_policy(program, "llama-server", options.model, address, name)


def vllm(program: Program, options) -> None:
    port = free_port()
    # On a processor, prompts that vLLM takes in parts end it where requests have seeds (0.32.0).
    command = [options.vllm, "-m", "vllm.entrypoints.openai.api_server", "--model", options.folder, "--served-model-name", "judge", "--host",
               "127.0.0.1", "--port", str(port), "--max-model-len", "8192", "--enforce-eager", "--no-enable-chunked-prefill"]
    with foreign(command, {"HF_HUB_OFFLINE": "1", "VLLM_CPU_KVCACHE_SPACE": "2"}, port) as (address, name):
        as_judge_and_as_policy(program, "vllm", options.model, address, name)


def llama_cpp_python(program: Program, options) -> None:
    for logits_all in ["true", "false"]:
        port, out = free_port(), f"logits_all_{logits_all}"
        command = [options.llama_cpp_python, "-m", "llama_cpp.server", "--model", options.gguf, "--port", str(port)]
        with foreign([*command, "--n_ctx", "8192", "--logits_all", logits_all], {}, port) as (address, name):
            judge = f"--judge-url {address} --judge-model {name} --tokenizer {options.model} --concurrency 2 --request-attempts 3"
            ran = program.run(program.score(judge, out))
            assert ran.returncode in (0, 3), f"{ran.returncode}\n{ran.stderr}"
            say_what_came(program, f"llama-cpp-python, --logits_all {logits_all}", out, ran)
            if logits_all == "false":
                told = [line for line in ran.stderr.splitlines() if "tells no log-probabilities" in line]
                assert ran.returncode == 3 and told, ran.stderr
                server.passed("llama-cpp-python says", told[0].strip())


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--longreward", required=True)
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--llama-server")
    parser.add_argument("--llama-cpp-python")
    parser.add_argument("--vllm")
    parser.add_argument("--gguf", help="the same model as --model, for llama.cpp")
    parser.add_argument("--folder", help="the same, for vLLM (bench/peers/gguf_folder.py)")
    parser.add_argument("--skip-https", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        data(folder)
        program = Program(options.longreward, folder)
        if not options.skip_https:
            https(program, options.model)
        if options.llama_server:
            llama_server(program, options)
        if options.vllm:
            vllm(program, options)
        if options.llama_cpp_python:
            llama_cpp_python(program, options)


if __name__ == "__main__":
    main()

"""`longreward serve` on a free port of this machine, for the scripts beside this one. Standard library only."""

import contextlib
import re
import signal
import subprocess


@contextlib.contextmanager
def serving(longreward: str, model: str, *options: str):
    """The base of the server's addresses (`http://127.0.0.1:PORT/v1`) and its process id; it must end politely when asked."""
    command = [longreward, "serve", "--model", model, "--port", "0", "--kv-memory", "1GB", *options]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        address = re.search(r"http://\S+", server.stdout.readline()).group()
        yield address + "/v1", server.pid
        server.send_signal(signal.SIGTERM)
        assert server.wait(60) == 0, "the server did not end politely"
    finally:
        server.kill()


def passed(what: str, detail: str = "") -> None:
    print(f"ok  {what}" + (f": {detail}" if detail else ""), flush=True)

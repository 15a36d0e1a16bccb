#!/usr/bin/env python3
"""The metadata of a GGUF file without its tensors: what turns text into tokens, in a few megabytes.

    scripts/gguf_text.py smollm2.gguf text.gguf

`longreward bench --dummy llama-3.1-8b --model text.gguf --data ...` needs no more of a model than that.
"""

import struct
import sys

SIZES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
STRING, ARRAY = 8, 9


def number(data, at, form):
    return struct.unpack_from(form, data, at)[0]


def string_end(data, at):
    return at + 8 + number(data, at, "<Q")


def value_end(data, at, kind):
    """Where a value of this kind, which begins at `at`, ends."""
    if kind == STRING:
        return string_end(data, at)
    if kind != ARRAY:
        return at + SIZES[kind]
    inner, count = number(data, at, "<I"), number(data, at + 4, "<Q")
    at += 12
    if inner in SIZES:
        return at + SIZES[inner] * count
    for _ in range(count):
        at = value_end(data, at, inner)
    return at


def main():
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    with open(sys.argv[1], "rb") as file:
        data = file.read()
    if data[:4] != b"GGUF" or number(data, 4, "<I") not in (2, 3):
        sys.exit(f"{sys.argv[1]} is no GGUF file of version 2 or 3")
    at = 24
    for _ in range(number(data, 16, "<Q")):
        at = string_end(data, at)
        at = value_end(data, at + 4, number(data, at, "<I"))
    with open(sys.argv[2], "wb") as file:
        file.write(data[:8] + struct.pack("<Q", 0) + data[16:at])


if __name__ == "__main__":
    main()

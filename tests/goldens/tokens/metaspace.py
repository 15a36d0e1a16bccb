"""Makes `metaspace.json`: ids of a vocabulary whose spaces are the business of the pre-tokenizer `Metaspace`.

    pip install tokenizers
    python tests/goldens/tokens/metaspace.py

The vocabulary is that of `llama2/`, without its normalizer and with the pre-tokenizer that each of `schemes` names.
"""

import json
import pathlib

import tokenizers
from tokenizers import Tokenizer

HERE = pathlib.Path(__file__).parent
TEXTS = [
    "", "the bridge", " the bridge", "  two spaces", "a  b ", "\n the", "桥建于1887年。",
    "<s>the bridge</s> was", "the<s> bridge</s>", "<s>", "</s>the",
]


def scheme(name: str) -> dict:
    pre = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": name, "split": False}
    state = json.loads((HERE / "llama2" / "tokenizer.json").read_text())
    state["normalizer"], state["pre_tokenizer"] = None, pre
    t = Tokenizer.from_str(json.dumps(state))

    def ids(text: str, as_data: bool, raw: bool) -> list:
        t.encode_special_tokens = as_data
        return t.encode(text, add_special_tokens=raw).ids

    cases = [
        {"text": s, "ids": ids(s, True, False), "ids_with_specials": ids(s, False, False), "raw": ids(s, True, True)}
        for s in TEXTS
    ]
    return {"prepend_scheme": name, "pre_tokenizer": pre, "cases": cases}


def main():
    line = lambda v: json.dumps(v, ensure_ascii=False, separators=(",", ":"))
    schemes = [scheme(name) for name in ("first", "always", "never")]
    rows = ",\n".join(
        f'{{"prepend_scheme":{line(s["prepend_scheme"])},"pre_tokenizer":{line(s["pre_tokenizer"])},"cases":[\n'
        + ",\n".join(map(line, s["cases"])) + "\n]}" for s in schemes
    )
    reference = line(f"tokenizers {tokenizers.__version__}")
    (HERE / "metaspace.json").write_text(f'{{\n"reference": {reference},\n"schemes": [\n{rows}\n]\n}}\n', encoding="utf-8")


if __name__ == "__main__":
    main()

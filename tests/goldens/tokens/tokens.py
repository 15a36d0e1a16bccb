"""Makes the tokenizer goldens of this folder.

    python tests/goldens/tokens/tokens.py [SmolLM2-135M-Instruct.Q4_1.gguf]

From `corpus.txt` it trains three small vocabularies (checkpoint folders `llama3`, `glm4`, `llama2`), and asks the
reference programs for the ids of every text of `texts.py`: `tokenizers` for the first and the third, `tiktoken` for the
second. Given the GGUF file it also writes `smollm2.json`. Format: tests/goldens/README.md.
"""

import base64
import json
import pathlib
import sys

import tiktoken
import tokenizers
import transformers
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from texts import TEXTS

HERE = pathlib.Path(__file__).parent
RANKS = 1000
# The splitting rule that cl100k, Llama-3 and GLM-4 share.
CL100K = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
LLAMA3_SPECIALS = ["<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eom_id|>", "<|eot_id|>"]
GLM4_SPECIALS = [
    "<|endoftext|>", "[MASK]", "[gMASK]", "[sMASK]", "<sop>", "<eop>", "<|system|>", "<|user|>", "<|assistant|>",
    "<|observation|>", "<|begin_of_image|>", "<|end_of_image|>", "<|begin_of_video|>", "<|end_of_video|>",
]


def byte_level_bpe() -> Tokenizer:
    """A byte-level BPE of RANKS tokens, split as Llama-3 splits."""
    t = Tokenizer(models.BPE(ignore_merges=True))
    t.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(CL100K), "isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ])
    t.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=RANKS, show_progress=False, initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
    )
    t.train([str(HERE / "corpus.txt")], trainer)
    assert t.get_vocab_size() == RANKS
    return t


def make_llama3(t: Tokenizer):
    """tokenizer.json in the manner of Llama-3: BOS by the post-processor, all specials at the end."""
    t.add_special_tokens([AddedToken(s, special=True, normalized=False) for s in LLAMA3_SPECIALS])
    bos = LLAMA3_SPECIALS[0]
    t.post_processor = processors.Sequence([
        processors.ByteLevel(trim_offsets=False),
        processors.TemplateProcessing(
            single=f"{bos} $A", pair=f"{bos} $A {bos}:1 $B:1", special_tokens=[(bos, t.token_to_id(bos))]
        ),
    ])
    write(HERE / "llama3" / "tokenizer.json", json.loads(t.to_str()), indent=None)
    template = (HERE / "templates" / "llama-3.1.jinja").read_text()
    write(HERE / "llama3" / "tokenizer_config.json", {
        "added_tokens_decoder": {
            str(t.token_to_id(s)): {"content": s, "lstrip": False, "normalized": False, "rstrip": False,
                                    "single_word": False, "special": True}
            for s in LLAMA3_SPECIALS
        },
        "bos_token": bos, "chat_template": template, "clean_up_tokenization_spaces": True, "eos_token": "<|eot_id|>",
        "model_max_length": 131072, "tokenizer_class": "PreTrainedTokenizerFast",
    })
    ends = [t.token_to_id(s) for s in ("<|end_of_text|>", "<|eom_id|>", "<|eot_id|>")]
    write(HERE / "llama3" / "generation_config.json", {"bos_token_id": t.token_to_id(bos), "eos_token_id": ends})


def glm4_encoding(t: Tokenizer) -> tiktoken.Encoding:
    """The same tokens as a tiktoken file in the manner of GLM-4 (also written here), specials after the ranks."""
    alphabet = dict(zip(byte_alphabet(), range(256)))
    ranks = {bytes(alphabet[c] for c in t.id_to_token(i)): i for i in range(RANKS)}
    lines = [f"{base64.b64encode(token).decode()} {rank}\n" for token, rank in ranks.items()]
    (HERE / "glm4").mkdir(exist_ok=True)
    (HERE / "glm4" / "tokenizer.model").write_text("".join(lines))
    specials = {s: RANKS + i for i, s in enumerate(GLM4_SPECIALS)}
    write(HERE / "glm4" / "tokenizer_config.json", {
        "added_tokens_decoder": {
            str(i): {"content": s, "lstrip": False, "normalized": False, "rstrip": False, "single_word": False, "special": True}
            for s, i in specials.items()
        },
        "chat_template": (HERE / "templates" / "glm-4.jinja").read_text(),
        "do_lower_case": False, "eos_token": "<|endoftext|>", "model_max_length": 131072, "pad_token": "<|endoftext|>",
        "tokenizer_class": "ChatGLM4Tokenizer",
    })
    ends = [specials[s] for s in ("<|endoftext|>", "<|user|>", "<|observation|>")]
    write(HERE / "glm4" / "generation_config.json", {"eos_token_id": ends, "pad_token_id": ends[0]})
    return tiktoken.Encoding("glm4-small", pat_str=CL100K, mergeable_ranks=ranks, special_tokens=specials)


def byte_alphabet() -> list:
    """The printable character that stands for each byte in GPT-2's table."""
    kept = [*range(33, 127), *range(161, 173), *range(174, 256)]
    table = {b: chr(b) for b in kept}
    table |= {b: chr(256 + i) for i, b in enumerate(b for b in range(256) if b not in table)}
    return [table[b] for b in range(256)]


def make_llama2() -> Tokenizer:
    """tokenizer.json in the manner of Llama-2: spaces as U+2581, unknown characters as byte tokens."""
    t = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    t.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    t.decoder = decoders.Sequence([
        decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0),
    ])
    specials = ["<unk>", "<s>", "</s>"]
    lines = (HERE / "corpus.txt").read_text().splitlines()
    t.train_from_iterator(
        (word for line in lines for word in line.replace(" ", " ▁").split(" ")),
        trainers.BpeTrainer(
            vocab_size=RANKS, show_progress=False, special_tokens=specials + [f"<0x{b:02X}>" for b in range(256)]
        ),
    )
    state = json.loads(t.to_str())
    # The byte tokens are vocabulary, not added tokens.
    state["added_tokens"] = [a for a in state["added_tokens"] if a["content"] in specials]
    state["post_processor"] = json.loads(llama2_post(t.token_to_id("<s>")))
    write(HERE / "llama2" / "tokenizer.json", state, indent=None)
    write(HERE / "llama2" / "tokenizer_config.json", {
        "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "tokenizer_class": "LlamaTokenizer",
    })
    write(HERE / "llama2" / "generation_config.json", {"bos_token_id": 1, "eos_token_id": 2})
    return Tokenizer.from_file(str(HERE / "llama2" / "tokenizer.json"))


def llama2_post(bos: int) -> str:
    t = Tokenizer(models.BPE())
    t.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A <s>:1 $B:1", special_tokens=[("<s>", bos)]
    )
    return json.dumps(json.loads(t.to_str())["post_processor"])


def smollm2(path: str):
    """The vocabulary inside the GGUF as `tokenizers` reads it: digits one by one, then GPT-2's own rule."""
    from gguf import GGUFReader

    fields = GGUFReader(path).fields
    get = lambda key: fields["tokenizer." + key].contents()
    assert get("ggml.model") == "gpt2" and get("ggml.pre") == "smollm"
    tokens, kinds = get("ggml.tokens"), get("ggml.token_type")
    merges = [tuple(m.split(" ")) for m in get("ggml.merges")]
    t = Tokenizer(models.BPE({token: i for i, token in enumerate(tokens)}, merges))
    t.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Digits(individual_digits=True),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
    ])
    t.decoder = decoders.ByteLevel()
    t.add_special_tokens([AddedToken(s, special=True, normalized=False) for s, k in zip(tokens, kinds) if k == 3])
    return t, get("chat_template")


def huggingface(t: Tokenizer):
    """(ids of text as data, ids with special strings read as specials, decode) of a `tokenizers` tokenizer."""
    def encode(text, specials):
        t.encode_special_tokens = not specials
        return t.encode(text, add_special_tokens=False).ids

    return encode, lambda ids: t.decode(ids, skip_special_tokens=False)


def tiktoken_pair(e: tiktoken.Encoding):
    def encode(text, specials):
        return e.encode(text, allowed_special="all") if specials else e.encode_ordinary(text)

    return encode, lambda ids: e.decode(ids, errors="replace")


def golden(name: str, reference: str, encode, decode, extra: dict | None = None):
    """Ids of every text, and texts of some cut-up id lists, whose ends are no whole characters."""
    cases, cut = [], []
    for key, text in TEXTS.items():
        ids, special = encode(text, False), encode(text, True)
        case = {"name": key, "text": text, "ids": ids}
        if special != ids:
            case["ids_with_specials"] = special
        cases.append(case)
        if key in ("chinese_rare", "emoji", "scripts", "special_inside"):
            cut += [special[1:6], special[2:-1], special[::3][:12]]
    decoded = [{"ids": ids, "text": decode(ids)} for ids in cut]
    body = {"reference": reference, **(extra or {}), "cases": cases, "decoded": decoded}
    write(HERE / f"{name}.json", body, indent="rows")
    broken = [c["name"] for c in cases if decode(c["ids"]) != c["text"]]
    print(f"{name:8} {reference:18} {len(cases)} texts, {sum(len(c['ids']) for c in cases)} ids;"
          f" specials change {sum('ids_with_specials' in c for c in cases)}; not restored by decode: {broken}")


CONVERSATIONS = {
    "user": [("user", "What is in the document?")],
    "system": [("system", "You judge answers."), ("user", "Rate this answer: 42.")],
    "turns": [("user", "你好"), ("assistant", "您好！有什么可以帮您？"), ("user", "桥建于哪一年？\n请简短回答。")],
    "system_turns": [
        ("system", "  Be brief.\n"), ("user", "One?"), ("assistant", "\n1 "), ("user", "Two?"), ("assistant", "2"),
        ("user", " And three? "),
    ],
    "specials": [("user", "a <|user|> b <|eot_id|> c <|im_end|> d [gMASK]"), ("assistant", "<|assistant|>"), ("user", "\"<&>'\\")],
    "empty": [("user", "")],
    "long": [("user", "word " * 50 + "\n\n" + "问题。" * 20)],
    "thinking": [
        ("user", "well?"), ("assistant", "<think>\nhm\n</think>\n\nyes"), ("observation", "{}"), ("assistant", "more"),
        ("user", "go on!!"), ("user", "never"),
    ],
}


def templates(gguf_template: str | None):
    """What transformers renders from each template, with and without the opening of the answer."""
    t = transformers.PreTrainedTokenizerFast(
        tokenizer_file=str(HERE / "llama3" / "tokenizer.json"), bos_token="<|begin_of_text|>", eos_token="<|eot_id|>"
    )
    sources = {p.stem: p.read_text() for p in sorted((HERE / "templates").glob("*.jinja"))}
    if gguf_template:
        sources["smollm2-gguf"] = gguf_template
    rendered = []
    for template, text in sources.items():
        for name, turns in CONVERSATIONS.items():
            messages = [{"role": role, "content": content} for role, content in turns]
            for opening in (True, False):
                rendered.append({
                    "template": template, "conversation": name, "add_generation_prompt": opening,
                    "text": t.apply_chat_template(
                        messages, chat_template=text, tokenize=False, add_generation_prompt=opening
                    ),
                })
    conversations = {
        name: [{"role": role, "content": content} for role, content in turns] for name, turns in CONVERSATIONS.items()
    }
    own = [r for r in rendered if r["template"] != "smollm2-gguf"]
    reference = f"transformers {transformers.__version__}"
    context = {"bos_token": "<|begin_of_text|>", "eos_token": "<|eot_id|>"}
    write(HERE / "templates.json", {
        "reference": reference, "context": context, "conversations": conversations, "rendered": own,
    }, indent="rows")
    return [r for r in rendered if r not in own]


def write(path: pathlib.Path, value: dict, indent=2):
    """JSON: indented, compact (None), or "rows": one line for each element of the top-level lists."""
    path.parent.mkdir(exist_ok=True)
    line = lambda v: json.dumps(v, ensure_ascii=False, separators=(",", ":"))
    if indent == "rows":
        def block(v):
            return "[\n" + ",\n".join(line(x) for x in v) + "\n]" if isinstance(v, list) else line(v)
        text = "{\n" + ",\n".join(f"{json.dumps(k)}: {block(v)}" for k, v in value.items()) + "\n}"
    elif indent is None:
        text = line(value)
    else:
        text = json.dumps(value, ensure_ascii=False, indent=indent)
    path.write_text(text + "\n", encoding="utf-8")


def main():
    version = lambda module: f"{module.__name__} {module.__version__}"
    bpe = byte_level_bpe()
    tik = glm4_encoding(bpe)
    make_llama3(bpe)
    golden("llama3", version(tokenizers), *huggingface(bpe))
    golden("glm4", version(tiktoken), *tiktoken_pair(tik))
    golden("llama2", version(tokenizers), *huggingface(make_llama2()))
    gguf_template = None
    if len(sys.argv) > 1:
        t, gguf_template = smollm2(sys.argv[1])
    rendered = templates(gguf_template)
    if gguf_template:
        golden("smollm2", version(tokenizers), *huggingface(t), {"rendered": rendered})


if __name__ == "__main__":
    main()

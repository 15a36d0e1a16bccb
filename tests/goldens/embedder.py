"""Makes tests/goldens/bert/{config.json,golden.json}: a tiny sentence embedder with dummy weights, run by
PyTorch `transformers` in float32 on the processor and again in float64.

    python tests/goldens/embedder.py

Format: tests/goldens/README.md.
"""

import json
import pathlib

import numpy as np
import torch
import transformers
from transformers import BertConfig, BertModel

import dummy
from tiny import checks, dump

FOLDER = pathlib.Path(__file__).parent / "bert"
SEED = 1
LENGTHS = [1, 7, 40]
MAX_F32_ERROR = 2e-6

# Heads of 12 are no multiple of any vector; token type 1 exists and is never used.
CONFIG = {
    "architectures": ["BertModel"],
    "attention_probs_dropout_prob": 0.1,
    "hidden_act": "gelu",
    "hidden_dropout_prob": 0.1,
    "hidden_size": 48,
    "initializer_range": 0.02,
    "intermediate_size": 112,
    "layer_norm_eps": 1e-12,
    "max_position_embeddings": 64,
    "model_type": "bert",
    "num_attention_heads": 4,
    "num_hidden_layers": 2,
    "pad_token_id": 0,
    "position_embedding_type": "absolute",
    "type_vocab_size": 2,
    "vocab_size": 120,
}


def build() -> tuple:
    """The model with dummy weights, and those weights by name."""
    config = BertConfig.from_dict(dict(CONFIG))
    config._attn_implementation = "eager"
    model = BertModel(config, add_pooling_layer=False).eval().float()
    shapes = {name: tuple(t.shape) for name, t in model.named_parameters()}
    tensors = dummy.state_dict(shapes, SEED)
    state = {name: torch.from_numpy(t.copy()) for name, t in tensors.items()}
    report = model.load_state_dict(state, strict=False)
    assert not report.unexpected_keys and not set(report.missing_keys) & set(shapes), report
    return model, tensors


def ids_of(length: int) -> list:
    r = dummy.uniform(f"text of {length}", SEED, length)
    return [int((x + 1) / 2 * CONFIG["vocab_size"]) for x in r]


@torch.no_grad()
def embeddings(model, ids: list) -> dict:
    """Both poolings of one text, each of length 1."""
    states = model(torch.tensor([ids])).last_hidden_state[0]
    pooled = {"mean": states.mean(0), "cls": states[0]}
    return {how: torch.nn.functional.normalize(v, dim=0).double().numpy() for how, v in pooled.items()}


def main():
    model, tensors = build()
    texts = [ids_of(length) for length in LENGTHS]
    runs = [{"ids": ids} | embeddings(model, ids) for ids in texts]
    model.double()
    for run in runs:
        exact = embeddings(model, run["ids"])
        error = max(np.abs(run[how] - exact[how]).max() for how in exact)
        assert error < MAX_F32_ERROR, error
        run |= {how: [float(f"{x:.8g}") for x in run[how]] for how in exact}
        run["largest_difference_f64"] = float(f"{error:.4g}")
        print(f"{len(run['ids']):3} tokens: f32-f64 {error:.1e}")
    golden = {
        "case": "bert",
        "reference": {"transformers": transformers.__version__, "torch": torch.__version__, "numpy": np.__version__},
        "seed": SEED,
        "tensors": checks(tensors),
        "runs": runs,
    }
    FOLDER.mkdir(exist_ok=True)
    (FOLDER / "config.json").write_text(json.dumps(CONFIG, indent=2) + "\n")
    (FOLDER / "golden.json").write_text(dump(golden))


if __name__ == "__main__":
    main()

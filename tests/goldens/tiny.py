"""Makes tests/goldens/<case>/{config.json,golden.json}: tiny decoders with dummy weights, run by
PyTorch `transformers` in float32 on the processor and checked in float64 (decoder64.py).

    python tests/goldens/tiny.py [case ...]

Versions that made the committed files stand in each golden under "reference".
Format: tests/goldens/README.md.
"""

import json
import pathlib
import sys

import numpy as np
import torch
import transformers
from transformers import (
    Glm4Config, Glm4ForCausalLM, GlmConfig, GlmForCausalLM, LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM, Qwen3Config,
    Qwen3ForCausalLM,
)

import decoder64
import dummy

HERE = pathlib.Path(__file__).parent
PROMPT = 300
GREEDY = 64
FAR = 64_000
MIN_MARGIN = 2e-3
MAX_F32_ERROR = 4e-5
MIN_DISTINCT = 8

LLAMA31 = {
    "architectures": ["LlamaForCausalLM"],
    "attention_bias": False,
    "bos_token_id": 300,
    "eos_token_id": [301, 308, 309],
    "hidden_act": "silu",
    "hidden_size": 64,
    "intermediate_size": 112,
    "max_position_embeddings": 131072,
    "mlp_bias": False,
    "model_type": "llama",
    "num_attention_heads": 4,
    "num_hidden_layers": 3,
    "num_key_value_heads": 2,
    "rms_norm_eps": 1e-05,
    "rope_scaling": {
        "factor": 8.0,
        "high_freq_factor": 4.0,
        "low_freq_factor": 1.0,
        "original_max_position_embeddings": 8192,
        "rope_type": "llama3",
    },
    "rope_theta": 500000.0,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
    "vocab_size": 320,
}
# As Llama-2 writes it: every head has its own keys, no scaling, no head_dim, no attention_bias.
LLAMA2 = {
    "architectures": ["LlamaForCausalLM"],
    "bos_token_id": 1,
    "eos_token_id": 2,
    "hidden_act": "silu",
    "hidden_size": 64,
    "intermediate_size": 112,
    "max_position_embeddings": 4096,
    "model_type": "llama",
    "num_attention_heads": 4,
    "num_hidden_layers": 2,
    "rms_norm_eps": 1e-05,
    "rope_scaling": None,
    "rope_theta": 10000.0,
    "tie_word_embeddings": False,
    "torch_dtype": "float16",
    "vocab_size": 320,
}
# partial_rotary_factor is left out on purpose: published files of this class leave it out, it means 0.5.
GLM = {
    "architectures": ["GlmForCausalLM"],
    "attention_bias": True,
    "eos_token_id": [300, 307, 309],
    "head_dim": 16,
    "hidden_act": "silu",
    "hidden_size": 64,
    "intermediate_size": 112,
    "max_position_embeddings": 131072,
    "model_type": "glm",
    "num_attention_heads": 4,
    "num_hidden_layers": 3,
    "num_key_value_heads": 2,
    "pad_token_id": 300,
    "rms_norm_eps": 1.5625e-07,
    "rope_theta": 5000000.0,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
    "vocab_size": 320,
}
GLM4 = GLM | {
    "architectures": ["Glm4ForCausalLM"],
    "attention_bias": False,
    "max_position_embeddings": 131072,
    "model_type": "glm4",
    "partial_rotary_factor": 0.5,
    "rms_norm_eps": 1e-05,
    "rope_theta": 10000.0,
}
CHATGLM = {
    "add_bias_linear": False,
    "add_qkv_bias": True,
    "apply_query_key_layer_scaling": True,
    "apply_residual_connection_post_layernorm": False,
    "architectures": ["ChatGLMModel"],
    "attention_softmax_in_fp32": True,
    "eos_token_id": [300, 307, 309],
    "ffn_hidden_size": 112,
    "hidden_size": 64,
    "kv_channels": 16,
    "layernorm_epsilon": 1.5625e-07,
    "model_type": "chatglm",
    "multi_query_attention": True,
    "multi_query_group_num": 2,
    "num_attention_heads": 4,
    "num_layers": 3,
    "original_rope": True,
    "pad_token_id": 300,
    "padded_vocab_size": 320,
    "post_layer_norm": True,
    "rmsnorm": True,
    "rope_ratio": 500,
    "seq_length": 131072,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
    "vocab_size": 320,
}
# As Qwen2.5 writes it, with the lines that its authors add for long texts: a window that is switched off, the bias of q, k and v
# goes without saying. Seven heads share their keys, as in the model of 7 billion parameters.
QWEN2 = {
    "architectures": ["Qwen2ForCausalLM"],
    "bos_token_id": 300,
    "eos_token_id": 309,
    "hidden_act": "silu",
    "hidden_size": 112,
    "intermediate_size": 96,
    "max_position_embeddings": 32768,
    "max_window_layers": 3,
    "model_type": "qwen2",
    "num_attention_heads": 7,
    "num_hidden_layers": 3,
    "num_key_value_heads": 1,
    "rms_norm_eps": 1e-06,
    "rope_scaling": {"factor": 4.0, "original_max_position_embeddings": 32768, "rope_type": "yarn"},
    "rope_theta": 1000000.0,
    "sliding_window": 131072,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
    "use_sliding_window": False,
    "vocab_size": 320,
}
# Heads are together wider than the residual stream.
QWEN3 = {
    "architectures": ["Qwen3ForCausalLM"],
    "attention_bias": False,
    "bos_token_id": 300,
    "eos_token_id": 309,
    "head_dim": 32,
    "hidden_act": "silu",
    "hidden_size": 64,
    "intermediate_size": 112,
    "max_position_embeddings": 262144,
    "max_window_layers": 3,
    "model_type": "qwen3",
    "num_attention_heads": 4,
    "num_hidden_layers": 3,
    "num_key_value_heads": 2,
    "rms_norm_eps": 1e-06,
    "rope_scaling": None,
    "rope_theta": 5000000.0,
    "sliding_window": None,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
    "use_sliding_window": False,
    "vocab_size": 320,
}
# name: (config, first positions of the runs)
CASES = {
    "llama31": (LLAMA31, [0, FAR]),
    "llama31_tied": (LLAMA31 | {"tie_word_embeddings": True}, [0]),
    "llama2": (LLAMA2, [0]),
    "glm": (GLM, [0, FAR]),
    "glm4": (GLM4, [0, FAR]),
    "chatglm": (CHATGLM, [0, FAR]),
    "qwen2": (QWEN2, [0, FAR]),
    "qwen3": (QWEN3, [0, FAR]),
}
CLASSES = {
    "LlamaForCausalLM": (LlamaConfig, LlamaForCausalLM),
    "GlmForCausalLM": (GlmConfig, GlmForCausalLM),
    "Glm4ForCausalLM": (Glm4Config, Glm4ForCausalLM),
    "Qwen2ForCausalLM": (Qwen2Config, Qwen2ForCausalLM),
    "Qwen3ForCausalLM": (Qwen3Config, Qwen3ForCausalLM),
}


def glm_twin(config: dict) -> dict:
    """A `ChatGLMModel` configuration in the words of `GlmForCausalLM`."""
    return GLM | {
        "attention_bias": config["add_qkv_bias"],
        "head_dim": config["kv_channels"],
        "hidden_size": config["hidden_size"],
        "intermediate_size": config["ffn_hidden_size"],
        "max_position_embeddings": config["seq_length"],
        "num_attention_heads": config["num_attention_heads"],
        "num_hidden_layers": config["num_layers"],
        "num_key_value_heads": config["multi_query_group_num"],
        "partial_rotary_factor": 0.5,
        "rms_norm_eps": config["layernorm_epsilon"],
        "rope_theta": 10000.0 * config["rope_ratio"],
        "vocab_size": config["padded_vocab_size"],
    }


def chatglm_shapes(config: dict) -> dict:
    h, ffn = config["hidden_size"], config["ffn_hidden_size"]
    q = config["num_attention_heads"] * config["kv_channels"]
    kv = config["multi_query_group_num"] * config["kv_channels"]
    shapes = {"transformer.embedding.word_embeddings.weight": (config["padded_vocab_size"], h)}
    for i in range(config["num_layers"]):
        layer = f"transformer.encoder.layers.{i}."
        shapes |= {
            layer + "input_layernorm.weight": (h,),
            layer + "self_attention.query_key_value.weight": (q + 2 * kv, h),
            layer + "self_attention.query_key_value.bias": (q + 2 * kv,),
            layer + "self_attention.dense.weight": (h, q),
            layer + "post_attention_layernorm.weight": (h,),
            layer + "mlp.dense_h_to_4h.weight": (2 * ffn, h),
            layer + "mlp.dense_4h_to_h.weight": (h, ffn),
        }
    shapes["transformer.encoder.final_layernorm.weight"] = (h,)
    shapes["transformer.output_layer.weight"] = (config["padded_vocab_size"], h)
    return shapes


def chatglm_to_glm(tensors: dict, config: dict) -> dict:
    """Renames ChatGLM tensors for `GlmForCausalLM`; only query_key_value has to be cut."""
    q = config["num_attention_heads"] * config["kv_channels"]
    kv = config["multi_query_group_num"] * config["kv_channels"]
    out = {
        "model.embed_tokens.weight": tensors["transformer.embedding.word_embeddings.weight"],
        "model.norm.weight": tensors["transformer.encoder.final_layernorm.weight"],
        "lm_head.weight": tensors["transformer.output_layer.weight"],
    }
    for i in range(config["num_layers"]):
        old, new = f"transformer.encoder.layers.{i}.", f"model.layers.{i}."
        for kind in ("weight", "bias"):
            parts = np.split(tensors[old + f"self_attention.query_key_value.{kind}"], [q, q + kv])
            for name, part in zip("qkv", parts):
                out[new + f"self_attn.{name}_proj.{kind}"] = part
        for was, now in (
            ("self_attention.dense", "self_attn.o_proj"),
            ("mlp.dense_h_to_4h", "mlp.gate_up_proj"),
            ("mlp.dense_4h_to_h", "mlp.down_proj"),
            ("input_layernorm", "input_layernorm"),
            ("post_attention_layernorm", "post_attention_layernorm"),
        ):
            out[new + now + ".weight"] = tensors[old + was + ".weight"]
    return out


def build(config: dict):
    """The transformers model (weights unset) and the shapes of the checkpoint's own tensors."""
    chatglm = config["architectures"] == ["ChatGLMModel"]
    hf = glm_twin(config) if chatglm else config
    config_class, model_class = CLASSES[hf["architectures"][0]]
    parsed = config_class.from_dict(dict(hf))
    parsed._attn_implementation = "eager"
    model = model_class(parsed).eval().float()
    if chatglm:
        return model, chatglm_shapes(config)
    shapes = {k: tuple(v.shape) for k, v in model.state_dict().items()}
    if config["tie_word_embeddings"]:
        del shapes["lm_head.weight"]
    return model, shapes


def fill(model, tensors: dict, config: dict):
    """Puts the checkpoint's tensors into the model; every parameter must be met."""
    if config["architectures"] == ["ChatGLMModel"]:
        tensors = chatglm_to_glm(tensors, config)
    state = {k: torch.from_numpy(v.copy()) for k, v in tensors.items()}
    report = model.load_state_dict(state, strict=False)
    missing = [k for k in report.missing_keys if not (config["tie_word_embeddings"] and k == "lm_head.weight")]
    assert not missing and not report.unexpected_keys, report
    model.tie_weights()


@torch.no_grad()
def torch_logits(model, ids: list, first: int) -> np.ndarray:
    positions = torch.arange(first, first + len(ids))[None]
    out = model(torch.tensor([ids]), position_ids=positions, use_cache=False)
    return out.logits[0].numpy()


def log_probs_of(logits: np.ndarray, ids: list) -> np.ndarray:
    """Log-probability of ids[1:], each from the row before it."""
    logp = decoder64.log_softmax(logits[: len(ids) - 1].astype(np.float64))
    return logp[np.arange(len(ids) - 1), ids[1:]]


def greedy(logits_of, prompt: list) -> tuple:
    """64 tokens, each the likeliest (end tokens are tokens like any other), and the smallest margin."""
    ids, margins = list(prompt), []
    for _ in range(GREEDY):
        row = logits_of(ids)[-1]
        second, first = np.argsort(row)[-2:]
        margins.append(float(row[first] - row[second]))
        ids.append(int(first))
    return ids[len(prompt) :], min(margins)


def run(model, tensors, config, prompt, first) -> dict | None:
    """One run of a case; None where the greedy path has a near-tie, or float32 is
    further from float64 than a test at 1e-4 can bear (try another seed)."""
    exact = lambda ids: decoder64.logits(tensors, config, ids, first)
    inv_freq = model.model.rotary_emb.inv_freq.numpy()

    def f32_and_error(ids):
        f32 = log_probs_of(torch_logits(model, ids, first), ids)
        same_angles = decoder64.logits(tensors, config, ids, first, inv_freq)
        return f32, np.abs(f32 - log_probs_of(same_angles, ids)).max()

    if f32_and_error(prompt)[1] > MAX_F32_ERROR:
        return None
    tokens, margin = greedy(exact, prompt)
    if margin < MIN_MARGIN or len(set(tokens)) < MIN_DISTINCT:
        return None
    assert greedy(lambda ids: torch_logits(model, ids, first), prompt)[0] == tokens
    everything = prompt + tokens
    f32, f32_error = f32_and_error(everything)
    f64 = log_probs_of(exact(everything), everything)
    digits = lambda values: [float(f"{v:.9g}") for v in values]
    cut = len(prompt) - 1
    return {
        "first_position": first,
        "prompt_logprobs": [None] + digits(f32[:cut]),
        "prompt_logprobs_f64": [None] + digits(f64[:cut]),
        "greedy": tokens,
        "greedy_logprobs": digits(f32[cut:]),
        "greedy_logprobs_f64": digits(f64[cut:]),
        "smallest_margin": float(f"{margin:.4g}"),
        "largest_difference_f64": float(f"{np.abs(f32 - f64).max():.4g}"),
        "largest_difference_f64_with_f32_angles": float(f"{f32_error:.4g}"),
    }


def checks(tensors: dict) -> dict:
    """Name -> shape, first and last value: shows a wrong dummy formula at once."""
    return {
        name: {"shape": list(t.shape), "first": float(t.flat[0]), "last": float(t.flat[-1])}
        for name, t in sorted(tensors.items())
    }


def dump(value) -> str:
    """JSON with one line for each leaf list."""
    def show(v, depth):
        if isinstance(v, dict) and depth < 3 and v:
            pad = "  " * (depth + 1)
            body = ",\n".join(f"{pad}{json.dumps(k)}: {show(x, depth + 1)}" for k, x in v.items())
            return "{\n" + body + "\n" + "  " * depth + "}"
        if isinstance(v, list) and v and isinstance(v[0], dict):
            return "[\n" + ",\n".join("    " + show(x, depth + 1) for x in v) + "\n  ]"
        return json.dumps(v, separators=(",", ":")) if isinstance(v, list) else json.dumps(v)

    return show(value, 0) + "\n"


def make(name: str, config: dict, firsts: list):
    model, shapes = build(config)
    vocab = config.get("padded_vocab_size", config["vocab_size"])
    for seed in range(1, 100):
        tensors = dummy.state_dict(shapes, seed)
        fill(model, tensors, config)
        r = dummy.uniform(f"prompt of {name}", seed, PROMPT)
        prompt = [int((x + 1) / 2 * vocab) for x in r]
        runs = []
        while len(runs) < len(firsts) and (not runs or runs[-1]):
            runs.append(run(model, tensors, config, prompt, firsts[len(runs)]))
        if all(runs) and len(runs) == len(firsts):
            break
    else:
        raise SystemExit(f"{name}: no seed below 100 meets the limits on margin, error and variety")
    golden = {
        "case": name,
        "reference": {"transformers": transformers.__version__, "torch": torch.__version__, "numpy": np.__version__},
        "seed": seed,
        "rope_inv_freq": [float(x) for x in model.model.rotary_emb.inv_freq],
        "tensors": checks(tensors),
        "prompt": prompt,
        "runs": runs,
    }
    folder = HERE / name
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    (folder / "golden.json").write_text(dump(golden))
    for r in runs:
        lp = np.array(r["prompt_logprobs"][1:])
        print(
            f"{name:13} seed {seed:3} from {r['first_position']:6}: margin {r['smallest_margin']:.2e}"
            f"  f32-f64 {r['largest_difference_f64']:.1e}"
            f" (same angles {r['largest_difference_f64_with_f32_angles']:.1e})  log-prob {lp.mean():.2f} +- {lp.std():.2f}"
            f"  distinct greedy {len(set(r['greedy']))}",
            flush=True,
        )


if __name__ == "__main__":
    for case in sys.argv[1:] or CASES:
        make(case, *CASES[case])

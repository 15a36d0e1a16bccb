"""The decoders in float64 numpy, naive and in reading order: the yardstick that says how far
`transformers` itself, in float32, is from the exact result.

It shares no code with transformers or with the Rust program: it is the third opinion.
"""

import math

import numpy as np


class Spec:
    """What the forward pass needs of a `config.json`, for all layouts."""

    def __init__(self, config: dict):
        arch = config["architectures"][0]
        chatglm = arch == "ChatGLMModel"
        self.arch = arch
        self.layers = config["num_layers" if chatglm else "num_hidden_layers"]
        self.hidden = config["hidden_size"]
        self.heads = config["num_attention_heads"]
        self.vocab = config["padded_vocab_size" if chatglm else "vocab_size"]
        self.ffn = config["ffn_hidden_size" if chatglm else "intermediate_size"]
        self.eps = config["layernorm_epsilon" if chatglm else "rms_norm_eps"]
        if chatglm:
            self.kv_heads = config["multi_query_group_num"]
            self.head_dim = config["kv_channels"]
            self.theta = 10000.0 * config.get("rope_ratio", 1)
        else:
            self.kv_heads = config.get("num_key_value_heads", self.heads)
            self.head_dim = config.get("head_dim", self.hidden // self.heads)
            self.theta = config["rope_theta"]
        self.interleaved = chatglm or arch.startswith("Glm")
        self.rotated = self.head_dim // 2 if self.interleaved else self.head_dim
        self.scaling = config.get("rope_scaling")
        self.tied = config.get("tie_word_embeddings", False)
        self.turn_factor = 1.0
        if self.scaling and self.scaling["rope_type"] == "yarn":
            self.turn_factor = 0.1 * math.log(self.scaling["factor"]) + 1.0


def inverse_frequencies(spec: Spec) -> np.ndarray:
    """RoPE inverse frequencies, with the scaling that Llama-3.1 introduced ("llama3"), or that of YaRN."""
    freq = spec.theta ** (-np.arange(0, spec.rotated, 2) / spec.rotated)
    if not spec.scaling:
        return freq
    s = spec.scaling
    if s["rope_type"] == "yarn":
        # Pairs that turn 32 times within the first length stay, those that turn once are stretched.
        turns = np.array([32.0, 1.0])
        ends = np.log(s["original_max_position_embeddings"] / (2 * math.pi * turns)) / math.log(spec.theta) * spec.rotated / 2
        first, last = max(math.floor(ends[0]), 0), min(math.ceil(ends[1]), spec.rotated - 1)
        stretched = np.clip((np.arange(spec.rotated // 2) - first) / (last - first), 0.0, 1.0)
        return freq * (1 - stretched + stretched / s["factor"])
    assert s["rope_type"] == "llama3"
    wavelength = 2 * math.pi / freq
    turns = s["original_max_position_embeddings"] / wavelength
    smooth = (turns - s["low_freq_factor"]) / (s["high_freq_factor"] - s["low_freq_factor"])
    smooth = np.clip(smooth, 0.0, 1.0)
    return freq * (smooth + (1 - smooth) / s["factor"])


def rms_norm(x, weight, eps):
    return x / np.sqrt((x * x).mean(-1, keepdims=True) + eps) * weight


def angles(spec: Spec, positions: np.ndarray, inv_freq32=None) -> np.ndarray:
    """Rotation angles [T, rotated / 2]; given transformers' own f32 frequencies, as it rounds them:
    position times frequency in f32, which at 64,000 is off by up to 2e-3 radian."""
    if inv_freq32 is None:
        return positions[:, None] * inverse_frequencies(spec)[None, :]
    return (positions.astype(np.float32)[:, None] * inv_freq32[None, :]).astype(np.float64)


def rope(x, angle, spec):
    """x [T, heads, D]: rotates the first `rotated` of D, pairs adjacent or half apart."""
    cos, sin = (spec.turn_factor * f(angle)[:, None, :] for f in (np.cos, np.sin))
    out = x.copy()
    half = spec.rotated // 2
    if spec.interleaved:
        even, odd = slice(0, spec.rotated, 2), slice(1, spec.rotated, 2)
    else:
        even, odd = slice(0, half), slice(half, spec.rotated)
    a, b = x[..., even], x[..., odd]
    out[..., even] = a * cos - b * sin
    out[..., odd] = b * cos + a * sin
    return out


def attention(q, k, v, spec):
    """Causal attention over q [T, heads, D], k and v [T, kv_heads, D] -> [T, heads * D]."""
    group = spec.heads // spec.kv_heads
    k, v = np.repeat(k, group, axis=1), np.repeat(v, group, axis=1)
    q, k, v = (x.transpose(1, 0, 2) for x in (q, k, v))
    scores = q @ k.transpose(0, 2, 1) / math.sqrt(spec.head_dim)
    t = q.shape[1]
    scores = np.where(np.tril(np.ones((t, t), bool)), scores, -np.inf)
    p = np.exp(scores - scores.max(-1, keepdims=True))
    p /= p.sum(-1, keepdims=True)
    return (p @ v).transpose(1, 0, 2).reshape(t, -1)


class Names:
    """The checkpoint's names, layer by layer, with fused tensors cut into their parts."""

    def __init__(self, tensors: dict, spec: Spec):
        self.t = {name: value.astype(np.float64) for name, value in tensors.items()}
        self.spec = spec
        self.chatglm = spec.arch == "ChatGLMModel"

    def qkv(self, i):
        """[(weight, bias)] of query, key, value."""
        spec = self.spec
        if not self.chatglm:
            base = f"model.layers.{i}.self_attn."
            return [
                (self.t[base + f"{p}_proj.weight"], self.t.get(base + f"{p}_proj.bias", 0.0))
                for p in "qkv"
            ]
        base = f"transformer.encoder.layers.{i}.self_attention.query_key_value."
        cuts = [spec.heads * spec.head_dim, (spec.heads + spec.kv_heads) * spec.head_dim]
        return list(zip(np.split(self.t[base + "weight"], cuts), np.split(self.t[base + "bias"], cuts)))

    def gate_up_down(self, i):
        if self.chatglm:
            base = f"transformer.encoder.layers.{i}.mlp."
            return *np.split(self.t[base + "dense_h_to_4h.weight"], 2), self.t[base + "dense_4h_to_h.weight"]
        base = f"model.layers.{i}.mlp."
        down = self.t[base + "down_proj.weight"]
        if base + "gate_up_proj.weight" in self.t:
            return *np.split(self.t[base + "gate_up_proj.weight"], 2), down
        return self.t[base + "gate_proj.weight"], self.t[base + "up_proj.weight"], down

    def o_proj(self, i):
        if self.chatglm:
            return self.t[f"transformer.encoder.layers.{i}.self_attention.dense.weight"]
        return self.t[f"model.layers.{i}.self_attn.o_proj.weight"]

    def norm(self, i, which):
        stem = "transformer.encoder" if self.chatglm else "model"
        return self.t.get(f"{stem}.layers.{i}.{which}.weight")

    def embedding(self):
        return self.t["transformer.embedding.word_embeddings.weight" if self.chatglm else "model.embed_tokens.weight"]

    def final_norm(self):
        return self.t["transformer.encoder.final_layernorm.weight" if self.chatglm else "model.norm.weight"]

    def head(self):
        if self.spec.tied:
            return self.embedding()
        return self.t["transformer.output_layer.weight" if self.chatglm else "lm_head.weight"]


def logits(tensors: dict, config: dict, ids: list, first_position: int, inv_freq32=None) -> np.ndarray:
    """Logits of every row, [T, vocab], for tokens at first_position, first_position + 1, ..."""
    spec = Spec(config)
    w = Names(tensors, spec)
    positions = np.arange(first_position, first_position + len(ids), dtype=np.float64)
    turn = angles(spec, positions, inv_freq32)
    x = w.embedding()[ids]
    for i in range(spec.layers):
        h = rms_norm(x, w.norm(i, "input_layernorm"), spec.eps)
        q, k, v = (
            (h @ weight.T + bias).reshape(len(ids), -1, spec.head_dim) for weight, bias in w.qkv(i)
        )
        if spec.arch == "Qwen3ForCausalLM":
            q, k = (rms_norm(x, w.norm(i, f"self_attn.{p}_norm"), spec.eps) for x, p in ((q, "q"), (k, "k")))
        h = attention(rope(q, turn, spec), rope(k, turn, spec), v, spec) @ w.o_proj(i).T
        if spec.arch == "Glm4ForCausalLM":
            h = rms_norm(h, w.norm(i, "post_self_attn_layernorm"), spec.eps)
        x = x + h
        h = rms_norm(x, w.norm(i, "post_attention_layernorm"), spec.eps)
        gate, up, down = w.gate_up_down(i)
        g = h @ gate.T
        h = (g / (1 + np.exp(-g)) * (h @ up.T)) @ down.T
        if spec.arch == "Glm4ForCausalLM":
            h = rms_norm(h, w.norm(i, "post_mlp_layernorm"), spec.eps)
        x = x + h
    return rms_norm(x, w.final_norm(), spec.eps) @ w.head().T


def log_softmax(x: np.ndarray) -> np.ndarray:
    x = x - x.max(-1, keepdims=True)
    return x - np.log(np.exp(x).sum(-1, keepdims=True))

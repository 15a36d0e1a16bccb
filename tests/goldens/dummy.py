"""Dummy weights: the same numbers here and in the Rust crate `models`, so that goldens carry no weights.

A tensor's values depend on its Hugging Face name, its shape and a seed alone.
"""

import numpy as np

MASK = (1 << 64) - 1


def fnv1a64(data: bytes) -> int:
    """64-bit FNV-1a."""
    h = 0xCBF29CE484222325
    for byte in data:
        h = ((h ^ byte) * 0x100000001B3) & MASK
    return h


def uniform(name: str, seed: int, count: int) -> np.ndarray:
    """`count` numbers in [-1, 1): SplitMix64 started at hash(name) ^ seed, top 24 bits."""
    key = np.uint64(fnv1a64(name.encode()) ^ seed)
    with np.errstate(over="ignore"):
        z = key + (np.arange(1, count + 1, dtype=np.uint64)) * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z = z ^ (z >> np.uint64(31))
    return 2.0 * ((z >> np.uint64(40)).astype(np.float64) / 2.0**24) - 1.0


def tensor(name: str, shape: tuple, seed: int) -> np.ndarray:
    """One tensor, f32, row-major."""
    r = uniform(name, seed, int(np.prod(shape)))
    if "norm" in name.lower() and len(shape) == 1 and name.endswith(".weight"):
        values = 1.0 + 0.1 * r
    elif len(shape) == 1:
        values = 0.1 * r
    elif "embed" in name:
        values = r
    else:
        sharp = any(part in name for part in ("q_proj", "k_proj", "query_key_value", "qkv"))
        values = r * np.sqrt(3.0 / shape[1]) * (2.0 if sharp else 1.0)
    return values.astype(np.float32).reshape(shape)


def state_dict(shapes: dict, seed: int) -> dict:
    """All tensors of a checkpoint: name -> f32 array."""
    return {name: tensor(name, shape, seed) for name, shape in shapes.items()}

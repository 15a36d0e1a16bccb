"""A GGUF file of a Llama as a folder that vLLM and transformers load: in bf16, or with weights in 8 bits.

    python bench/peers/gguf_folder.py --gguf SmolLM2-135M-Instruct.Q4_1.gguf --out smollm2-bf16 [--int8]

With --int8 the matrices of layers are rounded to the nearest of 255 steps of each row, and the configuration asks for
activations in 8 bits by token, in the format of compressed-tensors ("W8A8"), which vLLM multiplies as integers. Needs
torch, transformers and gguf.
"""

import argparse
import json
import pathlib

import torch
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

QUANTISED = {
    "quant_method": "compressed-tensors", "format": "int-quantized", "ignore": ["lm_head"],
    "config_groups": {"group_0": {
        "targets": ["Linear"],
        "weights": {"num_bits": 8, "type": "int", "symmetric": True, "dynamic": False, "strategy": "channel"},
        "input_activations": {"num_bits": 8, "type": "int", "symmetric": True, "dynamic": True, "strategy": "token"},
    }},
}


def in_8_bits(name, weight):
    """The matrix as integers, and the factor of each row."""
    factors = weight.float().abs().amax(dim=1, keepdim=True).clamp(min=1e-12) / 127
    integers = (weight.float() / factors).round().clamp(-127, 127).to(torch.int8)
    return {name: integers, f"{name}_scale": factors.to(torch.bfloat16)}


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--gguf", required=True, type=pathlib.Path)
    p.add_argument("--out", required=True, type=pathlib.Path)
    p.add_argument("--int8", action="store_true")
    args = p.parse_args()

    source = {"pretrained_model_name_or_path": args.gguf.parent, "gguf_file": args.gguf.name}
    model = AutoModelForCausalLM.from_pretrained(**source, dtype=torch.float32)
    args.out.mkdir(parents=True, exist_ok=True)
    AutoTokenizer.from_pretrained(**source).save_pretrained(args.out)

    tensors = {}
    for name, tensor in model.state_dict().items():
        if name == "lm_head.weight" and model.config.tie_word_embeddings:
            continue
        if args.int8 and name.endswith("_proj.weight"):
            tensors.update(in_8_bits(name, tensor))
        else:
            tensors[name] = tensor.to(torch.bfloat16).contiguous()
    save_file(tensors, args.out / "model.safetensors", metadata={"format": "pt"})

    config = model.config.to_dict() | {"dtype": "bfloat16", "architectures": ["LlamaForCausalLM"]}
    config.pop("quantization_config", None)
    if args.int8:
        config["quantization_config"] = QUANTISED
    (args.out / "config.json").write_text(json.dumps(config, indent=1))


if __name__ == "__main__":
    main()

"""This program beside llama.cpp on one machine in the same minutes; prints the README's table.

    pip install llama-cpp-python            # CMAKE_ARGS="-DGGML_NATIVE=ON", built for this machine
    cargo build --release
    python bench/peers/compare.py MODEL.Q4_1.gguf --out bench/runs/DATE-MACHINE-llamacpp.json

Makes the other types (Q4_0, Q8_0, F16) from the given file with llama.cpp's own quantiser. For each
group of sizes it runs this program, then llama.cpp, then this program again. llama.cpp counts with
its best of all types and of flash attention on and off; at long contexts, where a run takes
minutes, only with the types and switches named in `LONG`. Decoding sequences share their context,
as the candidates of one document do, unless `--own` asks for a context for each.

    longreward dummy llama-3.1-8b --type q4_k --gguf 8b.Q4_K.gguf
    python bench/peers/compare.py --large Q4_K=8b.Q4_K.gguf Q8_0=8b.Q8_0.gguf --out …

compares both programs on the same large files, llama.cpp with flash attention; a row for each file.
"""

import argparse
import datetime
import json
import pathlib
import statistics
import subprocess
import sys
import types

import llama_cpp as lc
import llamacpp as peer

TYPES = {"Q4_0": lc.LLAMA_FTYPE_MOSTLY_Q4_0, "Q8_0": lc.LLAMA_FTYPE_MOSTLY_Q8_0, "F16": lc.LLAMA_FTYPE_MOSTLY_F16}
OURS = ["Q4_1", "Q8_0"]
LONG = [("Q4_0", "on"), ("Q8_0", "on")]


def make_types(gguf, folder):
    """Paths by type; what is there already is kept."""
    files = {"Q4_1": gguf}
    for name, ftype in TYPES.items():
        to = folder / f"{gguf.stem.removesuffix('.Q4_1')}.{name}.gguf"
        if not to.exists():
            params = lc.llama_model_quantize_default_params()
            params.ftype, params.allow_requantize = ftype, True
            if code := lc.llama_model_quantize(str(gguf).encode(), str(to).encode(), params):
                raise SystemExit(f"llama.cpp could not write {to}: {code}")
        files[name] = to
    return files


def ours(args, file, group):
    """Measurements of one call of `longreward bench`."""
    command = [args.program, "bench", "--model", file, "--threads", args.threads, "--json",
               "--prefill", ",".join(map(str, group["prefill"])), "--decode", ",".join(map(str, group["sequences"])),
               "--context", group["context"], "--new-tokens", 16, "--repeats", 3, "--kv-memory", "6GiB"]
    command += [] if args.own else ["--shared"]
    result = subprocess.run([str(part) for part in command], stdout=subprocess.PIPE, check=True)
    found = json.loads(result.stdout)["measurements"]
    for m in found:
        print("longreward", file.name, m["phase"], m["batch"], m["context"], round(m["tokens_per_second"], 1),
              file=sys.stderr, flush=True)
    return found


def theirs(args, files, group, kinds):
    """Measurements of llama.cpp for types and switches."""
    found = []
    for name, flash in kinds:
        model = lc.llama_model_load_from_file(str(files[name]).encode(), lc.llama_model_default_params())
        options = types.SimpleNamespace(threads=args.threads, repeats=2, steps=16)
        long_options = types.SimpleNamespace(threads=args.threads, repeats=1, steps=16)
        kind = "own" if args.own else "shared"
        for tokens in group["prefill"]:
            chosen = long_options if tokens > 1000 else options
            found.append({"type": name, **peer.prefill_case(model, chosen, flash, tokens)})
            print("llama.cpp", found[-1], file=sys.stderr, flush=True)
        for sequences in group["sequences"]:
            chosen = long_options if sequences > 16 else options
            case = peer.decode_case(model, chosen, flash, kind, group["context"], sequences)
            found.append({"type": name, **case})
            print("llama.cpp", found[-1], file=sys.stderr, flush=True)
        lc.llama_model_free(model)
    return found


def large(args):
    """Rows for files that both programs run; few repeats, since a run takes minutes."""
    group = {"prefill": [512], "sequences": [1, 4, 16], "context": 512, "long": True}
    done = []
    for name, file in (entry.split("=", 1) for entry in args.large):
        mine = {name: ours(args, pathlib.Path(file), group)}
        other = theirs(args, {name: file}, group, [(name, "on")])
        print(f"| {name} | longreward (of limit) | llama.cpp | ratio |\n|---|---|---|---|")
        print(row(group, mine, other, "prefill", 1, 512), flush=True)
        for sequences in group["sequences"]:
            print(row(group, mine, other, "decode", sequences, 512), flush=True)
        done.append({**group, "longreward": mine, "llama.cpp": other})
    return done


def small(args):
    """Rows for all types of a small model, llama.cpp at its best."""
    files = make_types(args.gguf, args.types_in)
    done = []
    print("| | longreward Q4_1 (of limit) | longreward Q8_0 (of limit) | llama.cpp, its best | ratio |\n|---|---|---|---|---|")
    for group in groups(args):
        short = LONG if args.few else [(name, flash) for name in files for flash in ("on", "off")]
        kinds = LONG if group["long"] else short
        mine = {name: ours(args, files[name], group) for name in OURS}
        other = theirs(args, files, group, kinds)
        for name in OURS:
            mine[name] = mine[name] + ours(args, files[name], group)
        for tokens in group["prefill"]:
            print(row(group, mine, other, "prefill", 1, tokens), flush=True)
        for sequences in group["sequences"]:
            print(row(group, mine, other, "decode", sequences, group["context"]), flush=True)
        done.append({**group, "longreward": mine, "llama.cpp": other})
    return done


def groups(args):
    if args.own:
        return [{"prefill": [512], "sequences": [4, 16, 64], "context": 512, "long": False},
                {"prefill": [512], "sequences": [4, 16], "context": 4000, "long": True}]
    both = [{"prefill": [512, 2048], "sequences": [1, 4, 16, 64], "context": 512, "long": False},
            {"prefill": [8000], "sequences": [1, 4, 16, 64], "context": 4000, "long": True}]
    return [group for group in both if args.context in (None, group["context"])]


def number(rate):
    return f"{rate:,.0f}" if rate >= 100 else f"{rate:.1f}"


def row(group, mine, other, phase, sequences, tokens):
    """A line of the table: this program by type, llama.cpp's best, the best ratio."""
    def mean(name, what):
        return statistics.mean(m[what] for m in mine[name] if m["phase"].split()[0] == phase
                               and m["batch"] == sequences and m["context"] == tokens)
    best = max((c for c in other if c["kind"] == phase and (c["tokens"] if phase == "prefill" else c["sequences"])
                == (tokens if phase == "prefill" else sequences)), key=lambda c: c["tokens_per_second"])
    rates = [mean(name, "tokens_per_second") for name in mine]
    shares = [mean(name, "limit_share") for name in mine]
    what = f"prefill {tokens:,}" if phase == "prefill" else f"decode {sequences} at {tokens:,}"
    cells = [what, *(f"{number(r)} ({100 * s:.0f} %)" for r, s in zip(rates, shares)),
             f"{number(best['tokens_per_second'])} ({best['type']}, flash {best['flash']})",
             f"{max(rates) / best['tokens_per_second']:.2f}"]
    return "| " + " | ".join(cells) + " |"


def main():
    a = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    a.add_argument("gguf", type=pathlib.Path, nargs="?")
    a.add_argument("--few", action="store_true", help="llama.cpp only as in LONG, which was its best in every full run")
    a.add_argument("--large", nargs="+", metavar="TYPE=FILE")
    a.add_argument("--program", type=pathlib.Path, default="target/release/longreward")
    a.add_argument("--threads", type=int, default=2)
    a.add_argument("--own", action="store_true", help="a context of its own for every sequence")
    a.add_argument("--context", type=int, choices=[512, 4000], help="only the lines with this context")
    a.add_argument("--types-in", type=pathlib.Path, default=pathlib.Path("/tmp"), help="where the other types are kept")
    a.add_argument("--out", type=pathlib.Path, required=True)
    args = a.parse_args()
    peer.quiet()
    if not args.large and not args.gguf:
        a.error("a GGUF file, or --large, is needed")
    done = large(args) if args.large else small(args)
    report = {
        "date": datetime.date.today().isoformat(), "cpu": peer.cpu_name(), "threads": args.threads,
        "llama_cpp_python": lc.__version__, "system": lc.llama_print_system_info().decode(),
        "model": [pathlib.Path(file).name for file in args.large or [args.gguf]], "groups": done,
    }
    args.out.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()

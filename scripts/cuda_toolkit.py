#!/usr/bin/env python3
"""Puts a CUDA toolkit into the user's cache, out of packages of PyPI: enough to compile the kernels where no CUDA is installed.

    scripts/cuda_toolkit.py              fetches what is missing (about 200 MB) and prints the environment to export
    eval "$(scripts/cuda_toolkit.py)"    ... and exports it

A build with `--features cuda` looks there by itself. Nothing is done if the toolkit is there already. Needs Python 3.9
with pip; a host compiler (g++) is the machine's own. `LONGREWARD_CUDA_TOOLKIT` names another folder.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

# One version for all that compiles: nvcc, its front end, its optimiser and the headers must be of one release. Machine
# code of 13.0 runs on drivers from 580 on.
PACKAGES = [
    "nvidia-cuda-nvcc==13.0.88",
    "nvidia-cuda-crt==13.0.88",
    "nvidia-nvvm==13.0.88",
    "nvidia-cuda-runtime==13.0.96",
    "nvidia-cuda-cccl==13.0.85",
]

# For hosts that have a driver but no matrix library; nothing of it is needed to compile.
LIBRARIES = ["nvidia-cublas==13.0.2.14"]

STAMP = "packages.txt"


def root() -> Path:
    """Where the toolkit lies; `build/cuda.rs` looks in the same place."""
    if named := os.environ.get("LONGREWARD_CUDA_TOOLKIT"):
        return Path(named)
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "longreward" / "cuda-13.0"


def is_complete(toolkit: Path, packages: list[str]) -> bool:
    stamp = toolkit / STAMP
    return stamp.is_file() and set(packages) <= set(stamp.read_text().split())


def install(toolkit: Path, packages: list[str]) -> None:
    """Fetches into a folder beside the toolkit and moves it there, so that a toolkit is whole or absent."""
    toolkit.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=toolkit.parent) as folder:
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--only-binary=:all:", "--target", folder]
        subprocess.run([*pip, *packages], check=True, stdout=sys.stderr)
        files = Path(folder) / "nvidia" / "cu13"
        lay_out(files)
        (files / STAMP).write_text("\n".join(packages) + "\n")
        shutil.rmtree(toolkit, ignore_errors=True)
        files.rename(toolkit)


def lay_out(files: Path) -> None:
    """What an installed toolkit has and the packages lack: lib64, and libraries without version numbers."""
    (files / "lib64").symlink_to("lib")
    for library in (files / "lib").glob("*.so.*"):
        name = files / "lib" / (library.name.split(".so.")[0] + ".so")
        if not name.exists():
            name.symlink_to(library.name)
    for tool in (files / "bin").glob("*"):
        if tool.is_file():
            tool.chmod(0o755)
    for tool in (files / "nvvm" / "bin").glob("*"):
        tool.chmod(0o755)


def main() -> None:
    arguments = sys.argv[1:]
    if set(arguments) - {"--libraries"}:
        sys.exit(__doc__)
    packages = PACKAGES + (LIBRARIES if arguments else [])
    toolkit = root()
    if not is_complete(toolkit, packages):
        print(f"fetching {len(packages)} packages into {toolkit}", file=sys.stderr)
        install(toolkit, packages)
    print(f"export CUDA_HOME={toolkit}")
    print(f"export PATH={toolkit}/bin:$PATH")


if __name__ == "__main__":
    main()

"""
Seconds from `git clone` to the first caption, as a newcomer's machine spends them; and to the next one.

    python benchmarks/first_caption.py --output benchmarks/results/first_caption.json
    python benchmarks/first_caption.py --repository URL

Clones into an empty folder and does what the README says there. pip's own cache is not used, so what is measured of the
installation is the network and the index that pip is set up for.
"""

import argparse
import os
import shlex
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # run from a checkout, installed or not

from eval.provenance import describe_machine
from eval.result_files import write_json

ROOT = Path(__file__).resolve().parents[1]
CAPTIONED = Path("outputs", "demo", "shapes.json")
STEPS = {
    "clone": ("git", "clone", "--quiet", "{repository}", "{clone}"),
    "installation": ("make", "--silent", "--directory", "{clone}", ".venv/installed"),
    "caption": ("make", "--silent", "--directory", "{clone}", "demo"),
    "next caption": ("make", "--silent", "--directory", "{clone}", "demo"),
}


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--repository", default=str(ROOT), metavar="URL", help="what is cloned (default: the commit of this checkout)"
    )
    parser.add_argument("--output", type=Path, metavar="FILE", help="where to write the results as JSON")
    return parser.parse_args(arguments)


def measure(repository: str, folder: Path) -> dict[str, float]:
    """
    Seconds of each step.

    Args:
        repository (`str`): what `git clone` takes.
        folder (`Path`): empty.

    Raises:
        `ValueError`: if a step fails, with what it said last, or there is no caption at the end.
    """
    clone = folder / "grove"
    environment = {name: value for name, value in os.environ.items() if name not in ("VIRTUAL_ENV", "PYTHONPATH")}
    seconds = {}
    for name, step in STEPS.items():
        command = [part.format(repository=repository, clone=clone) for part in step]
        begun = time.monotonic()
        done = subprocess.run(command, env={**environment, "PIP_NO_CACHE_DIR": "1"}, capture_output=True, text=True)
        seconds[name] = time.monotonic() - begun
        if done.returncode:
            last = " / ".join(done.stderr.strip().splitlines()[-2:])
            raise ValueError(f"{name}: `{shlex.join(command)}` ended with status {done.returncode}: {last}")
        print(f"{seconds[name]:8.1f} s  {name}", flush=True)
    if not (clone / CAPTIONED).is_file():
        raise ValueError(f"no {CAPTIONED} in the clone; expected `make demo` to write it")
    return seconds


def main(arguments: list[str] | None = None) -> int:
    """Measures and prints; returns 0, or 2 when a step fails."""
    options = parse_arguments(arguments)
    try:
        with tempfile.TemporaryDirectory() as folder:
            seconds = measure(options.repository, Path(folder))
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    first = sum(seconds[name] for name in ("clone", "installation", "caption"))
    print(f"{first:8.1f} s  from git clone to the first caption")
    result: dict[str, Any] = {"seconds": seconds, "first_caption_seconds": first}
    if options.output:
        options.output.parent.mkdir(parents=True, exist_ok=True)
        write_json(options.output, {**result, **describe_machine("cpu", ("modeling_grove", "Makefile"))})
    return 0


if __name__ == "__main__":
    sys.exit(main())

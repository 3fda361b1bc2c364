"""
The whole story in one command: raw videos, annotation, shards, both stages of training, evaluation, cards, a Hub, and a stranger.

    python -m train story --output outputs/story
    python -m train story --output outputs/story-short --short

Every step is a command that a person could type; it is printed with the seconds that it took, and what it said is in `logs/`. The
videos are GroundedShapes', the Hub is one on this machine, and training goes on from a model that is there already, so that it is a
matter of minutes. The stranger is a process with an environment of its own, which has the wheel and not this checkout. The same
command goes on where it was stopped.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from dataset_builders.command_line import emit
from eval.provenance import describe_machine
from eval.result_files import write_json

logger = logging.getLogger(__name__)

ROOT = Path(__file__).resolve().parents[1]
LICENSE = "cc0-1.0"  # of what is made of GroundedShapes here
_FOLDERS = ("modeling_grove", "dataset_builders", "eval", "pipeline_annotate", "hub_cards", "train")
_LAST_LINES = 15


@dataclass(frozen=True)
class StorySizes:
    """
    How much of everything.

    Args:
        raw (`int`), clean (`int`), test (`int`): clips to annotate, with true annotations, and to score.
        steps (`int`), batch (`int`): of each stage of training.
    """

    raw: int
    clean: int
    test: int
    steps: int
    batch: int


SIZES = {False: StorySizes(240, 160, 24, 60, 8), True: StorySizes(8, 8, 4, 2, 2)}


@dataclass(frozen=True)
class Step:
    """A command, what it is for, and by which Python and where it is run if not by this one and here."""

    title: str
    command: Sequence[str]
    python: Path | None = None
    folder: Path = ROOT


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of the command."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.description = __doc__
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="folder of everything that is made")
    parser.add_argument(
        "--short",
        action="store_true",
        help="next to nothing of everything, and a stranger who shares what is installed",
    )
    parser.add_argument(
        "--model",
        type=Path,
        default=ROOT / "checkpoints" / "grove-tiny",
        metavar="DIR",
        help="to go on from (default: checkpoints/grove-tiny)",
    )
    parser.add_argument("--spacy", metavar="MODEL", help="package or folder (default: train one for GroundedShapes)")
    parser.add_argument("--json", action="store_true", help="print the seconds of each step as one JSON line")


def run(args: argparse.Namespace) -> int:
    """Tells the story."""
    if not (args.model / "config.json").is_file():
        raise ValueError(f"--model {args.model}: no config.json; expected the folder of a GROVE model")
    output, sizes = args.output.resolve(), SIZES[args.short]
    (output / "logs").mkdir(parents=True, exist_ok=True)
    seconds: dict[str, float] = {}
    with _hub(output) as environment:
        for step in _steps(output, sizes, args):
            begun = time.monotonic()
            said = _do(step, output / "logs" / f"{re.sub('[^a-z0-9]+', '-', step.title.lower())}.txt", environment)
            seconds[step.title] = time.monotonic() - begun
            logger.info("%6.1f s", seconds[step.title])
    results = json.loads((output / "results" / "results.json").read_text(encoding="utf-8"))["headline"]["corrected"]
    content = {"seconds": seconds, "results": results, "sizes": asdict(sizes), "stranger": said.strip().splitlines()}
    write_json(output / "story.json", {**content, **describe_machine("cpu", _FOLDERS)})
    lines = [f"{value:8.1f} s  {title}" for title, value in {**seconds, "in all": sum(seconds.values())}.items()]
    emit(content, "\n".join([*lines, "", "what the stranger saw:", said.strip()]), args.json)
    return 0


def _steps(output: Path, sizes: StorySizes, args: argparse.Namespace) -> Iterator[Step]:
    """The steps in their order. A file that the next one needs is looked for when that one's turn has come."""
    world, spacy = output / "world", args.spacy or str(output / "spacy")
    # What is annotated, what has true annotations to learn from, and what is scored.
    splits = (f"train={sizes.raw}", f"validation={sizes.clean}", f"test={sizes.test}")
    workers = ("--workers", 1 if args.short else 2)
    yield _module(
        "videos", "dataset_builders", "shapes", "--output", world, *workers,
        *(part for split in splits for part in ("--split", split)),
    )  # fmt: skip
    if args.spacy is None and not (output / "spacy" / "meta.json").is_file():
        yield _module("a spaCy pipeline", "tests.pipeline_annotate.spacy_pipeline", output / "spacy")
    yield _module(
        "annotation, to shards", "pipeline_annotate", "run", world / "videos", "--clips", world / "train.jsonl", "--captioner",
        f"shapes:{world / 'train.frames.jsonl'}", "--spacy", spacy, "--fill-gaps", 3, *workers, "--clips-per-part",
        max(1, sizes.raw // 4), "--output", output / "annotated",
    )  # fmt: skip
    for split, source in (("train", "validation"), ("test", "test")):
        yield _module(
            f"shards of true annotations, {split}", "dataset_builders", "shard", "--annotations", world / f"{source}.jsonl",
            "--videos", world / "videos", "--split", split, "--license", LICENSE, "--output", output / "shapes", *workers,
        )  # fmt: skip
    training = [
        "--max_steps", sizes.steps, "--per_device_train_batch_size", sizes.batch, "--learning_rate", "1e-4", "--warmup_steps",
        sizes.steps // 10, "--save_steps", sizes.steps, "--logging_steps", max(1, sizes.steps // 6), "--sample_steps",
        sizes.steps, "--eval_data", "shapes:5:4",
    ]  # fmt: skip
    stages = (("pt", "pre-training", args.model.resolve(), output / "annotated" / "shards"),
              ("ft", "fine-tuning", output / "pt", output / "shapes"))  # fmt: skip
    for stage, title, start, data in stages:
        line = [
            f"train/{stage}.py", "--config", f"train/recipes/{stage}_shapes.yaml", "--model_name_or_path", start,
            "--train_data", data, "--output_dir", output / stage, *training,
        ]  # fmt: skip
        yield Step(title, [*map(str, line)])
    yield _module(
        "evaluation", "eval", "run", "iground", "--model", output / "ft", "--data", output / "shapes", "--split", "test",
        "--text-similarity", "head-word", "--output", output / "results",
    )  # fmt: skip
    results = output / "results" / "results.json"
    publications: list[tuple[Any, ...]] = [
        ("dataset", output / "annotated" / "shards", "shapes-annotated", "--license", LICENSE, "--leave-out-videos"),
        ("dataset", output / "shapes", "shapes", "--videos-may-be-published"),
        ("model", output / "ft", "grove", "--license", "apache-2.0", "--results", results),
        ("metric", "iground", "iground_score"),
    ]
    if not args.short:
        publications.append(("space", "hub_cards/space", "grove-demo", "--model", "org/grove"))
    for kind, source, name, *more in publications:
        yield _module(f"publishing of org/{name}", "hub_cards", "publish", kind, source, "--repo", f"org/{name}", *more)
    yield from _stranger(output, args.short)


def _stranger(output: Path, short: bool) -> Iterator[Step]:
    """A process with an environment of its own, in a folder of its own, that has the wheel and not this checkout."""
    home, venv = output / "stranger", output / "stranger" / "venv"
    python = venv / "bin" / "python"
    yield Step("a wheel", ["-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(output / "wheel"), "."])
    (wheel,) = (output / "wheel").glob("*.whl")
    if not python.exists():
        shutil.rmtree(venv, ignore_errors=True)
        yield Step("an environment for a stranger", ["-m", "venv", str(venv)])
    install = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    if short:
        # What is installed here, but not what makes this checkout importable: a .pth file in another folder's is not read.
        here, theirs = (Path(root, *_site_packages().parts) for root in (sys.prefix, venv))
        (theirs / "installed.pth").write_text(f"{here}\n", encoding="utf-8")
    else:
        constraints = str(ROOT / "constraints.txt")
        yield Step("what a stranger installs", [*install, "-c", constraints, f"{wheel}[eval]"], python)
    # A wheel of the same version may be there from the last time.
    yield Step("the wheel, installed", [*install, "--no-deps", "--force-reinstall", str(wheel)], python)
    shutil.copyfile(ROOT / "examples" / "four_calls.py", home / "four_calls.py")
    yield Step("the four calls of a stranger", ["four_calls.py", "org"], python, home)


def _site_packages() -> Path:
    """Where packages lie in an environment, relative to it."""
    return Path("lib", f"python{sys.version_info.major}.{sys.version_info.minor}", "site-packages")


def _module(title: str, module: str, *arguments: Any) -> Step:
    return Step(title, ["-m", module, *map(str, arguments)])


def _do(step: Step, log: Path, environment: Mapping[str, str]) -> str:
    """
    Runs a step; what it printed.

    Raises:
        `ValueError`: if it fails, with the last of what it said.
    """
    logger.info("%s: python %s", step.title, shlex.join(step.command))
    with log.open("w+", encoding="utf-8", errors="replace") as file:
        command = [str(step.python or sys.executable), *step.command]
        done = subprocess.run(command, cwd=step.folder, env=environment, stdout=subprocess.PIPE, stderr=file, text=True)
        file.write(done.stdout)
        file.seek(0)
        said = file.read()
    if done.returncode:
        last = " / ".join(line for line in said.splitlines()[-_LAST_LINES:] if line.strip())
        raise ValueError(f"{step.title}: ended with status {done.returncode}; all that it said is in {log}: {last}")
    return done.stdout


@contextmanager
def _hub(output: Path) -> Iterator[dict[str, str]]:
    """A Hub on this machine, and the environment of processes that use it and have no other cache."""
    command = [
        sys.executable,
        "-m",
        "tests.local_hub",
        "--port",
        "0",
        "--storage",
        str(output / "hub"),
        "--stop-with-stdin",
    ]
    with (output / "logs" / "hub.txt").open("w", encoding="utf-8") as log:
        hub = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True)
        try:
            assert hub.stdout is not None
            line = hub.stdout.readline()
            if "http://" not in line:
                raise ValueError(f"the local Hub did not start; what it said is in {output / 'logs' / 'hub.txt'}")
            cache = output / "cache"
            settings = {
                "HF_ENDPOINT": "http://" + line.split("http://")[1].split(";")[0],
                "HF_TOKEN": "hf_test",
                "HF_HOME": str(cache),
                "HF_HUB_DISABLE_XET": "1",
                "HF_HUB_DISABLE_TELEMETRY": "1",
                "HF_HUB_DISABLE_UPDATE_CHECK": "1",
            }
            kept = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "PYTHONPATH"))}
            yield {**kept, **settings}
        finally:
            hub.terminate()
            hub.wait()


__all__ = ["SIZES", "Step", "StorySizes", "add_arguments", "run"]

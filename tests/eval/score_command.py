"""Runs `python -m eval score` for the tests: in this process, with the files of a golden folder or of a case written to one."""

import json
from collections.abc import Iterable
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass, replace
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from eval.__main__ import main
from modeling_grove.grounded_caption import GroundedCaption
from tests.records import make_caption

GOLDEN = Path(__file__).parents[1] / "golden" / "eval"
TINY_BERT = GOLDEN / "iground" / "tiny_bert"
LEMMAS = f"table:{GOLDEN / 'anet' / 'lemma_table.json'}"


@dataclass
class Scored:
    """What the command said: `result` is its one JSON line, `None` where there is none."""

    status: int
    result: dict[str, Any] | None
    error: str


def golden(folder: str, name: str) -> Any:
    """A file of a golden folder; NaN is read as such."""
    return json.loads((GOLDEN / folder / name).read_text(encoding="utf-8"))


def score(benchmark: str, annotations: Path, predictions: Path, *options: Any) -> Scored:
    """Runs the command with `--json --with-clips`."""
    files = "--annotations", annotations, "--predictions", predictions
    return command("score", benchmark, *files, "--json", "--with-clips", *options)


def command(*arguments: Any) -> Scored:
    """Runs a command of `eval` that prints one JSON line, or an error."""
    out, err = StringIO(), StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        status = main([str(argument) for argument in arguments])
    lines = out.getvalue().splitlines()
    assert len(lines) <= 1, "more than one line on standard output"
    return Scored(status, json.loads(lines[0], parse_constant=_refuse) if lines else None, err.getvalue())


def annotated_captions() -> list[GroundedCaption]:
    """Annotated clips of 10 frames, whose phrases come and go."""
    return [make_caption(f"video{n}", n, seed=n) for n in range(6)]


def predicted_captions(truth: list[GroundedCaption]) -> list[GroundedCaption]:
    """Predictions with objectness: boxes a little off, and not always there."""
    rng = np.random.default_rng(5)
    captions = []
    for caption in truth:
        tracks = []
        for track in caption.tracks:
            boxes = np.nan_to_num(track.boxes, nan=5.0) + rng.normal(0, 1, track.boxes.shape)
            objectness = np.clip(0.8 * track.presence + rng.uniform(0, 0.3, len(boxes)), 0, 1)
            tracks.append(replace(track, boxes=boxes, presence=objectness > 0.5, objectness=objectness))
        captions.append(replace(caption, tracks=tuple(tracks)))
    return captions


def write_captions(path: Path, captions: Iterable[GroundedCaption]) -> Path:
    """Writes captions as `predictions.jsonl` has them."""
    path.write_text("".join(f"{json.dumps(caption.to_dict())}\n" for caption in captions), encoding="utf-8")
    return path


def write_case(folder: Path, case: dict[str, Any], *names: str) -> list[Path]:
    """Writes some values of a case into files of their names, one each."""
    paths = []
    for name in names:
        paths.append(folder / f"{name}.json")
        paths[-1].write_text(json.dumps(case[name], ensure_ascii=False), encoding="utf-8")
    return paths


def refused(scored: Scored) -> str:
    """The error of a command that has to end in one line."""
    assert scored.status == 2 and scored.result is None
    errors = [line for line in scored.error.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1 and "Traceback" not in scored.error, scored.error
    return errors[0]


def same(value: float | None, expected: float, tolerance: float = 1e-9) -> bool:
    """Whether a value of the JSON line is the recorded one; NaN is null there."""
    if expected != expected:
        return value is None
    return value == pytest.approx(expected, abs=tolerance, rel=tolerance)


def cases(folder: str) -> list[Any]:
    """The edge cases of a golden folder, as parameters."""
    return [pytest.param(case, id=case["name"]) for case in golden(folder, "edge_cases.json")]


def _refuse(constant: str) -> Any:
    raise AssertionError(f"{constant} is not JSON")

"""Runs `python -m eval score` for the tests: in this process, with the files of a golden folder or of a case written to one."""

import json
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

import pytest

from eval.__main__ import main

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

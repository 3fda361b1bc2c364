"""Predictions on disk while a model runs: nothing that is finished is lost, whatever ends the run.

Every process appends to a file of its own, `.parts/00003.jsonl`, one line for each clip that is done: its `key`, the `seconds`
that it took, and `prediction` ([`GroundedCaption.to_dict`]) or `problem`. A line that a killed process left incomplete is cut
off. When all processes are done, the lines become `predictions.jsonl`, in the order of the clips.

`run.json` has the settings that the predictions were made with, others are an error; and the seconds that they took.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from dataset_builders.reading import read_json, read_records
from dataset_builders.record import Record, record_key
from modeling_grove.grounded_caption import GroundedCaption, atomic_path

PREDICTIONS, REFERENCES, SETTINGS = "predictions.jsonl", "references.jsonl", "run.json"
_PARTS, _LOCK = ".parts", ".lock"


@dataclass(frozen=True)
class Outcome:
    """
    What became of a clip.

    Attributes:
        key (`str`): of the clip.
        seconds (`float`): that the model was busy with it.
        prediction ([`GroundedCaption`] or `None`): with all boxes and the objectness of every frame.
        problem (`str` or `None`): why there is none.
    """

    key: str
    seconds: float
    prediction: GroundedCaption | None = None
    problem: str | None = None

    def line(self) -> str:
        """One JSON object."""
        prediction = None if self.prediction is None else self.prediction.to_dict()
        value = {"key": self.key, "seconds": round(self.seconds, 4), "prediction": prediction, "problem": self.problem}
        return json.dumps(value, ensure_ascii=False, allow_nan=False)


class PredictionFiles:
    """
    The folder of a run.

    Args:
        folder (`Path`):
            Where `predictions.jsonl`, `references.jsonl` and the results go; made if it is not there.
    """

    def __init__(self, folder: Path):
        self.folder = folder

    @property
    def predictions(self) -> Path:
        """`predictions.jsonl`, which is there once all clips were run."""
        return self.folder / PREDICTIONS

    @property
    def references(self) -> Path:
        """`references.jsonl`, the annotations of all clips, which is there once all of them were read."""
        return self.folder / REFERENCES

    @contextmanager
    def claimed(self, settings: Mapping[str, Any]) -> Iterator[None]:
        """
        Keeps other runs out of the folder, whose predictions are then known to be those of these settings.

        Args:
            settings (`Mapping`):
                JSON types: everything that predictions depend on.

        Raises:
            `ValueError`: if the folder has predictions of other settings, or another run is at work in it.
        """
        from filelock import FileLock, Timeout

        (self.folder / _PARTS).mkdir(parents=True, exist_ok=True)
        lock = FileLock(self.folder / _PARTS / _LOCK, timeout=0)
        try:
            lock.acquire()
        except Timeout:
            raise ValueError(
                f"{self.folder}: another run is writing there; wait for it, or choose another folder"
            ) from None
        try:
            self._check(settings)
            for leftover in self.folder.glob(".*.tmp.*"):  # of a run that was killed
                leftover.unlink()
            yield
        finally:
            lock.release()
            if not any((self.folder / _PARTS).glob("*.jsonl")):
                shutil.rmtree(self.folder / _PARTS, ignore_errors=True)

    def _check(self, settings: Mapping[str, Any]) -> None:
        path = self.folder / SETTINGS
        if not path.exists():
            if self.predictions.exists():
                raise ValueError(f"{self.folder}: has a {PREDICTIONS} of another origin; choose another folder")
            write_json(path, {"settings": settings, "seconds": 0.0})
            return
        there = self._run()["settings"]
        given = json.loads(json.dumps(settings))
        wrong = [name for name in {**given, **there} if given.get(name) != there.get(name)]
        if wrong:
            listed = "; ".join(f"{name} was {there.get(name)!r} and is {given.get(name)!r}" for name in wrong)
            raise ValueError(f"{self.folder}: has predictions of other settings: {listed}; choose another folder")

    def _run(self) -> dict[str, Any]:
        path = self.folder / SETTINGS
        run = read_json(path)
        if not isinstance(run, dict) or not isinstance(run.get("settings"), dict) or "seconds" not in run:
            raise ValueError(f"{path}: expected an object with settings and seconds; is it the folder of a run?")
        return run

    def outcomes(self) -> Iterator[Outcome]:
        """Everything that is finished, predictions first; a clip may come twice, with the same prediction."""
        for key, value in self._values():
            prediction = None if value["prediction"] is None else GroundedCaption.from_dict(value["prediction"])
            yield Outcome(key, value["seconds"], prediction, value["problem"])

    def finished(self) -> set[str]:
        """Keys of the clips that have a prediction. Clips with a problem are not among them: it may be gone next time."""
        return {key for key, value in self._values() if value["prediction"] is not None}

    def _values(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """What the lines of all files say."""
        if self.predictions.exists():
            for record in read_records(self.predictions):
                yield record_key(record), {"seconds": 0.0, "prediction": record, "problem": None}
        for part in sorted((self.folder / _PARTS).glob("*.jsonl")):
            with part.open("rb") as file:
                for line in file:
                    if line.endswith(b"\n"):  # else a process was killed there, or is writing it now
                        value = orjson.loads(line)
                        yield value["key"], value

    @contextmanager
    def part(self, process: int) -> Iterator[PartFile]:
        """The file that a process appends to; a line that is incomplete is cut off first."""
        path = self.folder / _PARTS / f"{process:05d}.jsonl"
        with path.open("ab+") as file:
            _cut_off(file.fileno(), path.stat().st_size)
            yield PartFile(file.fileno())

    def merge(self, keys: Iterable[str]) -> tuple[list[GroundedCaption], dict[str, str], float]:
        """
        What all processes wrote.

        Args:
            keys (`Iterable[str]`):
                Of all clips, in the order to write.

        Returns:
            `tuple`: the predictions in that order, the problems of the clips that have none by key, and the seconds of all
            processes and runs together.
        """
        found: dict[str, Outcome] = {}
        seconds: float = self._run()["seconds"]
        for outcome in self.outcomes():
            seconds += outcome.seconds
            if outcome.key not in found or found[outcome.key].prediction is None:
                found[outcome.key] = outcome
        order = [found[key] for key in keys if key in found]
        predictions = [outcome.prediction for outcome in order if outcome.prediction is not None]
        problems = {outcome.key: outcome.problem for outcome in order if outcome.problem is not None}
        return predictions, problems, seconds

    def write(self, predictions: Iterable[GroundedCaption], seconds: float) -> None:
        """Writes `predictions.jsonl` and the seconds; the files of the processes are not needed any more."""
        write_lines(self.predictions, (prediction.to_dict() for prediction in predictions))
        write_json(self.folder / SETTINGS, {**self._run(), "seconds": round(seconds, 3)})
        shutil.rmtree(self.folder / _PARTS, ignore_errors=True)


class PartFile:
    """A file that lines are appended to."""

    def __init__(self, descriptor: int):
        self._descriptor = descriptor

    def append(self, outcome: Outcome) -> None:
        """Appends a line in one piece, unless the process is killed just then."""
        data = memoryview(f"{outcome.line()}\n".encode())
        while data:
            data = data[os.write(self._descriptor, data) :]


def _cut_off(descriptor: int, size: int) -> None:
    """Truncates a file after its last line end."""
    end, step = size, 1 << 16
    while end > 0:
        start = max(0, end - step)
        chunk = os.pread(descriptor, end - start, start)
        if (place := chunk.rfind(b"\n")) >= 0:
            end = start + place + 1
            break
        end = start
    if end < size:
        os.ftruncate(descriptor, end)


def write_lines(path: Path, values: Iterable[Mapping[str, Any] | Record]) -> None:
    """Writes JSON Lines, atomically."""
    with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        for value in values:
            file.write(json.dumps(value, ensure_ascii=False, allow_nan=False) + "\n")


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Writes one JSON object for people too, atomically."""
    with atomic_path(path) as temporary:
        text = json.dumps(value, ensure_ascii=False, allow_nan=False, indent=2)
        temporary.write_text(text + "\n", encoding="utf-8")


__all__ = [
    "PREDICTIONS",
    "REFERENCES",
    "SETTINGS",
    "Outcome",
    "PartFile",
    "PredictionFiles",
    "write_json",
    "write_lines",
]

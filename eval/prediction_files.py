"""Predictions on disk while a model runs: nothing that is finished is lost, whatever ends the run.

Every process appends to a file of its own, `.parts/00003.jsonl`, one line for each clip that is done: its `key`, the `seconds`
that it took, and `prediction` ([`GroundedCaption.to_dict`]) or `problem`. A line that a killed process left incomplete is cut
off. When all processes are done, the lines become `predictions.jsonl`, in the order of the clips.

`run.json` has the settings that the predictions were made with, others are an error; the seconds that they took; and checksums
of the predictions and annotations, so that files which something else put there are not taken for those of the run.
"""

from __future__ import annotations

import hashlib
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

from .result_files import PREDICTIONS, REFERENCES, SETTINGS, json_line, write_json, write_lines

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

    def line(self) -> bytes:
        """One JSON object and a line end."""
        prediction = None if self.prediction is None else self.prediction.to_dict()
        value = {"key": self.key, "seconds": round(self.seconds, 4), "prediction": prediction, "problem": self.problem}
        return json_line(value)


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

        made = not self.folder.exists()
        (self.folder / _PARTS).mkdir(parents=True, exist_ok=True)
        lock = FileLock(self.folder / _PARTS / _LOCK, timeout=0)
        try:
            lock.acquire()
        except Timeout:
            raise ValueError(
                f"{self.folder}: another run is writing there; wait for it, or choose another folder"
            ) from None
        claimed = False
        try:
            self._check(settings)
            claimed = True
            for leftover in self.folder.glob(".*.tmp.*"):  # of a run that was killed
                leftover.unlink()
            yield
        finally:
            if not any(part.stat().st_size for part in self._part_files()):
                shutil.rmtree(self.folder / _PARTS, ignore_errors=True)
                if claimed and not self.predictions.exists():  # nothing was done
                    (self.folder / SETTINGS).unlink(missing_ok=True)
                if made and not any(self.folder.iterdir()):
                    self.folder.rmdir()
            lock.release()

    def _check(self, settings: Mapping[str, Any]) -> None:
        path = self.folder / SETTINGS
        if not path.exists():
            if self.predictions.exists():
                raise ValueError(f"{self.folder}: has a {PREDICTIONS} of another origin; choose another folder")
            write_json(path, {"settings": settings, "seconds": 0.0, "checksums": {}})
            return
        run = self._run()
        there, given = _flat(run["settings"]), _flat(json.loads(json.dumps(settings)))
        wrong = [name for name in {**given, **there} if given.get(name) != there.get(name)]
        if wrong:
            listed = "; ".join(f"{name} was {there.get(name)!r} and is {given.get(name)!r}" for name in wrong)
            raise ValueError(f"{self.folder}: has predictions of other settings: {listed}; choose another folder")
        self._finish_writing(run)
        if self.predictions.exists() and not self._is_of_the_run(PREDICTIONS):
            raise ValueError(
                f"{self.folder}: {PREDICTIONS} is not what the run wrote; put that back, or choose another folder"
            )

    def _finish_writing(self, run: dict[str, Any]) -> None:
        """Completes [`write`], or forgets it, if a run was killed in it."""
        if (coming := run.get("coming")) is None:
            return
        done = self.predictions.exists() and _digest_of(self.predictions) == coming["checksums"][PREDICTIONS]
        if done:  # what the processes wrote is in there, and their seconds in the sum
            self._remove_parts()
        write_json(self.folder / SETTINGS, {**run, **(coming if done else {}), "coming": None})

    def _is_of_the_run(self, name: str) -> bool:
        """Whether a file is what the run wrote."""
        checksum = self._run()["checksums"].get(name)
        return checksum is not None and (self.folder / name).exists() and _digest_of(self.folder / name) == checksum

    def _run(self) -> dict[str, Any]:
        path = self.folder / SETTINGS
        run = read_json(path)
        kinds = {"settings": dict, "checksums": dict, "seconds": float | int}
        if not isinstance(run, dict) or not all(isinstance(run.get(name), kind) for name, kind in kinds.items()):
            raise ValueError(f"{path}: expected an object with settings, seconds and checksums; is it of a run?")
        return run

    def annotations(self) -> list[Record] | None:
        """The annotations of all clips, where the run wrote them already."""
        return list(read_records(self.references)) if self._is_of_the_run(REFERENCES) else None

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
        for part in self._part_files():
            with part.open("rb") as file:
                for line in file:
                    if line.endswith(b"\n"):  # else a process was killed there, or is writing it now
                        value = orjson.loads(line)
                        yield value["key"], value

    def _part_files(self) -> list[Path]:
        return sorted((self.folder / _PARTS).glob("*.jsonl"))

    def _remove_parts(self) -> None:
        for part in self._part_files():
            part.unlink()

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

    def write(self, records: Iterable[Record], predictions: Iterable[GroundedCaption], seconds: float) -> None:
        """
        Writes `references.jsonl` and `predictions.jsonl`, and the seconds; the files of the processes are not needed any more.
        Whenever it is killed, the next run finds either what was there before or all of this.
        """
        run, path = self._run(), self.folder / SETTINGS
        with atomic_path(self.references) as references, atomic_path(self.predictions) as written:
            write_lines(references, records)
            write_lines(written, (prediction.to_dict() for prediction in predictions))
            checksums = {REFERENCES: _digest_of(references), PREDICTIONS: _digest_of(written)}
            coming = {"checksums": checksums, "seconds": round(seconds, 3)}
            write_json(path, {**run, "coming": coming})
        self._remove_parts()
        write_json(path, {**run, **coming, "coming": None})


class PartFile:
    """A file that lines are appended to."""

    def __init__(self, descriptor: int):
        self._descriptor = descriptor

    def append(self, outcome: Outcome) -> None:
        """Appends a line in one piece, unless the process is killed just then."""
        data = memoryview(outcome.line())
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


def _digest_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _flat(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings by name, inner ones as `data.limit`."""
    flat: dict[str, Any] = {}
    for name, value in settings.items():
        if isinstance(value, Mapping):
            flat |= {f"{name}.{inner}": part for inner, part in _flat(value).items()}
        else:
            flat[name] = value
    return flat


__all__ = ["Outcome", "PartFile", "PredictionFiles"]

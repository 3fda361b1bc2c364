"""What the importers share: values of a foreign JSON object by type, and what becomes of an entry that is wrong.

Released files have been written by many hands: numbers come as strings, whole numbers as floats, texts with blanks around
them. [`Fields`] takes all that and names the field of everything else; [`Source`] reports it and goes on with the next entry.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from dataset_builders.reading import OnProblem, ReadProblem, entry_unit, report
from dataset_builders.record import Record, to_record
from modeling_grove.grounded_caption import GroundedCaption, PhraseTrack
from modeling_grove.text_grove import DET_TOKEN, PHRASE_END_TOKEN, PHRASE_START_TOKEN, locate_phrases

T = TypeVar("T")

# No clip of any data set comes near these. What is beyond them is a slip, which must not fill the memory.
MAX_CLIP_FRAMES = 1_000_000
_MAX_INTEGER = 2**53
_MAX_SIZE = 2**16
_MAX_FPS = 1000.0
_MAX_COORDINATE = 1e6

_MARKERS = (PHRASE_START_TOKEN, PHRASE_END_TOKEN, DET_TOKEN)
_REQUIRED: Any = object()
_FIELD = re.compile(r"([a-z_]\w*(?:\[\d+\])*)(?: of [^:]*)?: ")
_KINDS = {dict: "an object", list: "a list", str: "a string", bool: "a boolean", type(None): "null"}


class FieldError(ValueError):
    """A field that is wrong; `reason` is the kind of problem, for counting."""

    def __init__(self, reason: str, field: str | None, message: str):
        super().__init__(message)
        self.reason, self.field = reason, field


class Fields:
    """
    A JSON object whose values are asked for by type.

    Args:
        value (`Any`):
            The object.
        path (`str`, *optional*):
            Where it is in its entry, which errors name: `used_segment` of `used_segment.begin_fid`.

    Raises:
        [`FieldError`]: if it is no object, and from every method where the value is missing without a default, or is not
            what it should be. `null` counts as missing.
    """

    def __init__(self, value: Any, path: str = ""):
        if not isinstance(value, dict):
            raise FieldError("wrong_type", path, f"expected an object, got {kind_of(value)}")
        self.value: Mapping[str, Any] = value
        self.path = path

    def where(self, name: str) -> str:
        """The path of a field of this object."""
        return f"{self.path}.{name}" if self.path else name

    def has(self, name: str) -> bool:
        """Whether there is a value."""
        return self.value.get(name) is not None

    def get(self, name: str, default: Any = _REQUIRED) -> Any:
        """A value of any type."""
        value = self.value.get(name)
        if value is not None:
            return value
        if default is _REQUIRED:
            there = ", ".join([*self.value][:20]) or "nothing"
            raise FieldError("missing_field", self.where(name), f"missing; there is {there}")
        return default

    def text(self, name: str, default: Any = _REQUIRED) -> str:
        """A string without the blanks around it. Numbers, which ids often are, count."""
        value = self.get(name, default)
        if isinstance(value, bool) or not isinstance(value, str | int):
            raise FieldError("wrong_type", self.where(name), f"expected a string, got {kind_of(value)}")
        return str(value).strip()

    def number(self, name: str, default: Any = _REQUIRED) -> float:
        """A finite number, or a string of one."""
        return as_number(self.get(name, default), self.where(name))

    def integer(self, name: str, default: Any = _REQUIRED, *, least: int = 0, most: int = _MAX_INTEGER) -> int:
        """A whole number from `least` to `most`, of any JSON type that shows it."""
        return as_integer(self.get(name, default), self.where(name), least, most)

    def items(self, name: str, default: Any = _REQUIRED) -> list[Any]:
        """A list."""
        value = self.get(name, default)
        if not isinstance(value, list):
            raise FieldError("wrong_type", self.where(name), f"expected a list, got {kind_of(value)}")
        return value

    def inside(self, name: str) -> Fields:
        """An object."""
        return Fields(self.get(name), self.where(name))

    def objects(self, name: str, default: Any = _REQUIRED) -> list[Fields]:
        """A list of objects."""
        return [Fields(item, f"{self.where(name)}[{n}]") for n, item in enumerate(self.items(name, default))]

    def fps(self, name: str = "fps", default: Any = _REQUIRED) -> float:
        """A frame rate of a video."""
        value = self.number(name, default)
        if not 0.01 <= value <= _MAX_FPS:
            raise FieldError("out_of_range", self.where(name), f"expected 0.01 to 1000 frames a second, got {value:g}")
        return value

    def size(self, width: str = "width", height: str = "height") -> tuple[int, int]:
        """Width and height of a video, in pixels."""
        return self.integer(width, least=1, most=_MAX_SIZE), self.integer(height, least=1, most=_MAX_SIZE)

    def frame_range(self, first: str, last: str) -> tuple[int, int]:
        """Two frame numbers that do not decrease."""
        start, end = self.integer(first), self.integer(last)
        if not start <= end < start + MAX_CLIP_FRAMES:
            expected = f"{first} <= {last}, and less than {MAX_CLIP_FRAMES} frames"
            raise FieldError("clip_range", self.where(last), f"expected {expected}; got {start} and {end}")
        return start, end


@dataclass(frozen=True)
class Source:
    """
    The file that is being imported.

    Args:
        path (`str`): its name.
        on_problem (`Callable`, *optional*): gets the problems; without it the first one raises a `ValueError`.
        unit (`str`): how its entries are called.
    """

    path: str
    on_problem: OnProblem | None = None
    unit: str = "entry"

    @classmethod
    def of(cls, path: str | os.PathLike[str], on_problem: OnProblem | None) -> Source:
        """A file whose entries are counted in lines if it is JSON Lines."""
        return cls(os.fspath(path), on_problem, entry_unit(path))

    def report(self, number: int, error: ValueError, within: str = "") -> None:
        """Reports that an entry, or the part of it that `within` names, is left out."""
        if isinstance(error, FieldError):
            field, reason, message = error.field, error.reason, str(error)
        else:  # from `GroundedCaption`, whose messages begin with the field
            match = _FIELD.match(str(error))
            field, reason, message = match and match[1], "not_loadable", str(error)[match.end() if match else 0 :]
        place = ".".join(part for part in (within, field) if part) or None
        report(ReadProblem(self.path, number, place, message, reason, self.unit), self.on_problem)

    def attempt(self, number: int, function: Callable[..., T], *args: Any, within: str = "") -> T | None:
        """What `function` returns, or `None` once its `ValueError` is reported."""
        try:
            return function(*args)
        except ValueError as error:
            self.report(number, error, within)
            return None


def as_number(value: Any, where: str) -> float:
    """A finite number, of any JSON type that shows it."""
    try:
        number = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not math.isfinite(number):
        got = repr(value[:40]) if isinstance(value, str) else kind_of(value)
        raise FieldError("wrong_type", where, f"expected a number, got {got}")
    return number


def as_integer(value: Any, where: str, least: int = 0, most: int = _MAX_INTEGER) -> int:
    """A whole number from `least` to `most`, of any JSON type that shows it."""
    number = as_number(value, where)
    if not number.is_integer() or not least <= number <= most:
        limits = f"from {least}" if most == _MAX_INTEGER else f"from {least} to {most}"
        raise FieldError("out_of_range", where, f"expected a whole number {limits}, got {number:.17g}")
    return int(number)


def as_box(value: Any, where: str) -> list[float]:
    """Four coordinates."""
    if not isinstance(value, list) or len(value) != 4:
        got = f"{len(value)} values" if isinstance(value, list) else kind_of(value)
        raise FieldError("bad_box", where, f"expected a box of four numbers, got {got}")
    box = [as_number(coordinate, where) for coordinate in value]
    if max(map(abs, box)) > _MAX_COORDINATE:
        raise FieldError("bad_box", where, f"expected pixels, got {box}")
    return box


def distinct_frames(frames: list[int], num_frames: int | None = None) -> list[int]:
    """
    Frames that strictly increase, each the one given or as near to it as the others leave free.

    Args:
        frames (`list[int]`):
            Frame numbers that do not decrease.
        num_frames (`int`, *optional*):
            Frames of the video, at least as many as `frames`; without it the video has no end.
    """
    result: list[int] = []
    for n, frame in enumerate(frames):
        most = frame if num_frames is None else num_frames - (len(frames) - n)
        result.append(max(min(frame, most), result[-1] + 1 if result else 0))
    return result


def kind_of(value: Any) -> str:
    """The JSON name of a value's type."""
    return _KINDS.get(type(value), "a number")


def finished(caption: GroundedCaption, metadata: Mapping[str, Any]) -> Record:
    """
    The record of an imported caption.

    Raises:
        `ValueError`: if it would not load as the same caption, or cannot be trained on, because of tags in the caption itself.
    """
    text = caption.caption
    # The tagged caption is all that a record has of the spans.
    exact = locate_phrases(text, caption.tagged_caption, caption.phrases) == caption.spans
    marker = next((marker for marker in _MARKERS if marker in text), "a text that reads otherwise once it is tagged")
    if not exact or marker in text:
        raise FieldError("marker_in_caption", "caption", f"expected a plain caption, got {marker} in {text[:200]!r}")
    return to_record(caption, metadata)


def single_phrase(
    caption: str,
    boxes: Mapping[int, list[float]],
    frame_indices: Iterable[int],
    metadata: Mapping[str, Any],
    **clip: Any,
) -> Record:
    """
    The record of a clip whose caption is one phrase, as GROVE is given those of VidSTG and the pointing benchmarks:
    `<p> caption </p> [DET]`.

    Args:
        caption (`str`):
            Plain.
        boxes (`Mapping`):
            Source frame to its box, xyxy in pixels.
        frame_indices (`Iterable`):
            The sampled source frames.
        metadata (`Mapping`), clip:
            As for `to_record`, and the further fields of [`GroundedCaption`]; `timestamps` defaults to the frames at `fps`.

    Raises:
        `ValueError`: if the parts do not make a record.
    """
    if not caption:
        raise FieldError("empty_caption", "caption", "expected words, got an empty string")
    indices = np.array([*frame_indices], dtype=np.int64)
    presence = np.array([int(frame) in boxes for frame in indices], dtype=bool)
    rows = np.array([boxes.get(int(frame), [np.nan] * 4) for frame in indices], dtype=np.float32).reshape(-1, 4)
    track = PhraseTrack(caption, (0, len(caption)), rows, presence, presence.astype(np.float32))
    clip.setdefault("timestamps", indices / clip["fps"])
    return finished(GroundedCaption(caption=caption, tracks=(track,), frame_indices=indices, **clip), metadata)


__all__ = [
    "MAX_CLIP_FRAMES",
    "FieldError",
    "Fields",
    "Source",
    "as_box",
    "as_integer",
    "as_number",
    "distinct_frames",
    "finished",
    "kind_of",
    "single_phrase",
]

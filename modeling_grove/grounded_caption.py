"""The one result type: a caption of a video clip whose noun phrases carry boxes over time.

In memory a phrase is a [`PhraseTrack`] and a clip is a [`GroundedCaption`]; on disk a clip is a JSON object with the
field names of the original release, to which ours adds `frame_indices`, `timestamps` and `tracks` to lose nothing.
"""

from __future__ import annotations

import itertools
import json
import os
import secrets
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from .text_grove import Span, locate_phrases, read_tagged_caption, tag_spans

# The clip's own fields.
_TEXTS, _INTEGERS = ("video_id", "video_fname"), ("clip_id", "width", "height", "clip_start_frame", "clip_end_frame")


@contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yields a temporary sibling of `path` (same suffix); moves it to `path` on success and removes it on any error."""
    target = Path(path)
    temporary = target.with_name(f".{target.stem}.{secrets.token_hex(6)}.tmp{target.suffix}")
    try:
        yield temporary
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)


def _array(name: str, value: Any, dtype: type, shape: tuple[int, ...]) -> np.ndarray:
    """Read-only copy of `value` as `dtype`; -1 in `shape` matches any length."""
    try:
        array: np.ndarray = np.array(value, dtype=dtype)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name}: cannot be read as an array of {np.dtype(dtype).name} ({error})") from None
    if array.ndim != len(shape) or any(n not in (-1, m) for n, m in zip(shape, array.shape, strict=True)):
        wanted = ", ".join("T" if n == -1 else str(n) for n in shape) + ("," if len(shape) == 1 else "")
        raise ValueError(f"{name}: expected shape ({wanted}), got {array.shape}")
    array.flags.writeable = False
    return array


def _equal(first: Any, second: Any) -> bool:
    for field in fields(first):
        a, b = getattr(first, field.name), getattr(second, field.name)
        if isinstance(a, np.ndarray):
            if not np.array_equal(a, b, equal_nan=a.dtype.kind == "f"):
                return False
        elif a != b:
            return False
    return True


@dataclass(frozen=True, eq=False)
class PhraseTrack:
    """One noun phrase (or one instance of it) over the sampled frames of a clip.

    Args:
        phrase (`str`):
            The noun phrase, equal to `caption[span[0]:span[1]]` up to case.
        span (`tuple[int, int]`):
            Character range `[start, end)` of the phrase in the caption.
        boxes (`np.ndarray` of shape `(T, 4)`, float32):
            `(x1, y1, x2, y2)` in pixels of the source frame. Without presence a row may still
            hold the model's box, or be unknown: one value that is not finite makes the whole row NaN.
        presence (`np.ndarray` of shape `(T,)`, bool):
            Whether the phrase is visible in the frame.
        objectness (`np.ndarray` of shape `(T,)`, float32):
            Probability in [0, 1] that it is; annotations have 1 where present and 0 elsewhere.

    Raises:
        ValueError: in one line that names the field, if any of the above does not hold.
    """

    phrase: str
    span: tuple[int, int]
    boxes: np.ndarray
    presence: np.ndarray
    objectness: np.ndarray

    def __post_init__(self) -> None:
        if not isinstance(self.phrase, str) or not self.phrase.strip():
            raise ValueError(f"phrase: expected a non-empty string, got {self.phrase!r}")
        of = f"of phrase {self.phrase!r}"
        span = tuple(int(i) for i in self.span)
        if len(span) != 2 or not 0 <= span[0] < span[1]:
            raise ValueError(f"span {of}: expected (start, end) with 0 <= start < end, got {tuple(self.span)}")
        boxes = _array(f"boxes {of}", self.boxes, np.float32, (-1, 4)).copy()
        boxes[~np.isfinite(boxes).all(axis=1)] = np.nan
        boxes.flags.writeable = False
        flags = np.asarray(self.presence)
        if flags.dtype != bool and not np.isin(flags, (0, 1)).all():
            raise ValueError(f"presence {of}: expected booleans, got values of {flags.dtype.name}")
        presence = _array(f"presence {of}", flags, bool, (len(boxes),))
        objectness = _array(f"objectness {of}", self.objectness, np.float32, (len(boxes),))
        if not ((objectness >= 0) & (objectness <= 1)).all():
            limits = f"{objectness.min()}..{objectness.max()}"
            raise ValueError(f"objectness {of}: expected probabilities in [0, 1], got {limits}")
        unknown = np.flatnonzero(presence & np.isnan(boxes[:, 0]))
        if len(unknown):
            raise ValueError(f"boxes {of}: present at sampled frame {unknown[0]} but the box there is not finite")
        for name, value in (("span", span), ("boxes", boxes), ("presence", presence), ("objectness", objectness)):
            object.__setattr__(self, name, value)

    def __eq__(self, other: object) -> bool:
        return _equal(self, other) if isinstance(other, PhraseTrack) else NotImplemented


@dataclass(frozen=True, eq=False)
class GroundedCaption:
    """A clip, its caption, and one track for every noun phrase of the caption (several where a phrase has instances).

    Tracks of one span are instances of one phrase (*raw* annotations); `merged` gives the *processed* form.
    Distinct spans never overlap, so `tagged_caption` has exactly one tag for each entry of `phrases`.

    Args:
        caption (`str`): Plain text.
        tracks (`tuple[PhraseTrack, ...]`): All of the same length T.
        video_id (`str`): With `clip_id` it forms the clip's `key`.
        clip_id (`int`): Number of the clip in its video.
        video_fname (`str`): File name of the source video.
        fps (`float`): Frames per second of the source video (not of the sampled frames).
        width (`int`): Width of the source frame, upright as displayed, in pixels.
        height (`int`): Height of the same.
        clip_start_frame (`int`): First source frame of the clip.
        clip_end_frame (`int`): Last source frame of the clip, inclusive.
        frame_indices (`np.ndarray` of shape `(T,)`, int64): Source frame of every sampled frame, increasing.
        timestamps (`np.ndarray` of shape `(T,)`, float64): Seconds from the start of the source video.

    Raises:
        ValueError: in one line that names the field, if the parts do not fit together.
    """

    caption: str
    tracks: tuple[PhraseTrack, ...]
    video_id: str
    clip_id: int
    video_fname: str
    fps: float
    width: int
    height: int
    clip_start_frame: int
    clip_end_frame: int
    frame_indices: np.ndarray
    timestamps: np.ndarray

    def __post_init__(self) -> None:
        wrong = [name for name in ("caption", *_TEXTS) if not isinstance(getattr(self, name), str)]
        if wrong:
            raise ValueError(f"{wrong[0]}: expected a string, got {getattr(self, wrong[0])!r}")
        for name, kind in [("fps", float), *((name, int) for name in _INTEGERS)]:
            value = getattr(self, name)
            try:
                number = kind(value)
                if number != float(value):
                    raise ValueError
            except (TypeError, ValueError, OverflowError):
                raise ValueError(f"{name}: expected a number of type {kind.__name__}, got {value!r}") from None
            object.__setattr__(self, name, number)
        for name in ("fps", "width", "height"):
            if not 0 < getattr(self, name) < np.inf:
                raise ValueError(f"{name}: expected a positive number, got {getattr(self, name)}")
        clip = f"{self.clip_start_frame}..{self.clip_end_frame}"
        if not 0 <= self.clip_start_frame <= self.clip_end_frame:
            raise ValueError(f"clip_end_frame: expected 0 <= clip_start_frame <= clip_end_frame, got {clip}")
        indices = _array("frame_indices", self.frame_indices, np.int64, (-1,))
        if len(indices) == 0:
            raise ValueError("frame_indices: a grounded caption needs at least one sampled frame, got none")
        if (np.diff(indices) <= 0).any():
            raise ValueError("frame_indices: expected strictly increasing source frames")
        if indices[0] < self.clip_start_frame or indices[-1] > self.clip_end_frame:
            raise ValueError(f"frame_indices: {indices[0]}..{indices[-1]} leave the clip's frames {clip}")
        timestamps = _array("timestamps", self.timestamps, np.float64, (len(indices),))
        if not np.isfinite(timestamps).all() or (np.diff(timestamps) < 0).any():
            raise ValueError("timestamps: expected finite seconds that never decrease")
        for name, array in (("frame_indices", indices), ("timestamps", timestamps), ("tracks", tuple(self.tracks))):
            object.__setattr__(self, name, array)
        for track in self.tracks:
            of, held = f"of phrase {track.phrase!r}", self.caption[slice(*track.span)]
            if track.span[1] > len(self.caption) or held.casefold() != track.phrase.casefold():
                raise ValueError(
                    f"span {of}: {track.span} holds {held!r} in the caption of {len(self.caption)} characters"
                )
            if len(track.boxes) != len(indices):
                raise ValueError(f"boxes {of}: {len(track.boxes)} frames, but frame_indices has {len(indices)}")
        for first, second in itertools.pairwise(self.spans):
            if second[0] < first[1]:
                texts = f"{self.caption[slice(*first)]!r} and {self.caption[slice(*second)]!r}"
                raise ValueError(f"span: phrases {texts} overlap at {first} and {second}")

    def __eq__(self, other: object) -> bool:
        return _equal(self, other) if isinstance(other, GroundedCaption) else NotImplemented

    @property
    def key(self) -> str:
        """Name of the clip in the original's files, `{video_id}_{clip_id}`."""
        return f"{self.video_id}_{self.clip_id}"

    @property
    def num_frames(self) -> int:
        """T, the number of sampled frames."""
        return len(self.frame_indices)

    @property
    def spans(self) -> list[tuple[int, int]]:
        """The distinct spans in caption order; several tracks may share one."""
        return sorted({track.span for track in self.tracks})

    @property
    def phrases(self) -> list[str]:
        """One phrase for every entry of `spans`, in caption order."""
        by_span = {track.span: track.phrase for track in reversed(self.tracks)}
        return [by_span[span] for span in self.spans]

    @property
    def tagged_caption(self) -> str:
        """The caption with `<p>` and `</p>` around every phrase."""
        return tag_spans(self.caption, self.spans)

    def merged(self) -> GroundedCaption:
        """The processed form: one track a phrase, in caption order.

        A frame's box is the union of the instances present in it; where none is, it is the box of the instance with the
        highest objectness. Objectness is the maximum over instances.
        """
        tracks = []
        for span, phrase in zip(self.spans, self.phrases, strict=True):
            instances = [track for track in self.tracks if track.span == span]
            boxes = np.stack([track.boxes for track in instances])
            presence = np.stack([track.presence for track in instances])
            objectness = np.stack([track.objectness for track in instances])
            low = np.where(presence[..., None], boxes[..., :2], np.inf).min(axis=0)
            high = np.where(presence[..., None], boxes[..., 2:], -np.inf).max(axis=0)
            best = boxes[objectness.argmax(axis=0), np.arange(self.num_frames)]
            visible = np.asarray(presence.any(axis=0))
            union = np.where(visible[:, None], np.concatenate([low, high], axis=1), best)
            tracks.append(PhraseTrack(phrase, span, union, visible, objectness.max(axis=0)))
        return replace(self, tracks=tuple(tracks))

    def with_threshold(self, threshold: float) -> GroundedCaption:
        """Presence anew: `objectness > threshold`, strict as in the original; an unknown box stays absent."""
        known = [~np.isnan(track.boxes[:, 0]) for track in self.tracks]
        tracks = (replace(t, presence=(t.objectness > threshold) & k) for t, k in zip(self.tracks, known, strict=True))
        return replace(self, tracks=tuple(tracks))

    def to_dict(self) -> dict[str, Any]:
        """Plain Python types under the original's field names, plus `frame_indices`, `timestamps` and `tracks`.

        `bboxes` and `labels` have one list for each sampled frame, in the order of `tracks`. Floats are the shortest
        ones that give the same float32 again; unknown boxes are `None`.
        """
        boxes = [[_floats(row) if np.isfinite(row[0]) else None for row in track.boxes] for track in self.tracks]
        frames = [[i for i, t in enumerate(self.tracks) if t.presence[n]] for n in range(self.num_frames)]
        return {
            **{name: getattr(self, name) for name in (*_TEXTS, "fps", *_INTEGERS)},
            "caption": self.caption,
            "tagged_caption": self.tagged_caption,
            "phrases": self.phrases,
            "bboxes": [[boxes[i][n] for i in present] for n, present in enumerate(frames)],
            "labels": [[self.tracks[i].phrase for i in present] for present in frames],
            "frame_indices": self.frame_indices.tolist(),
            "timestamps": self.timestamps.tolist(),
            "tracks": [
                {
                    "phrase": track.phrase,
                    "span": list(track.span),
                    "boxes": boxes[i],
                    "presence": track.presence.tolist(),
                    "objectness": _floats(track.objectness),
                }
                for i, track in enumerate(self.tracks)
            ],
        }

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> GroundedCaption:
        """Reads what `to_dict` wrote, and the original's annotations, raw or processed.

        The original's have no `tracks`: spans come from `tagged_caption`, else from a search in `caption` (see
        `text_grove.locate_phrases`), the i-th box of a label in a frame becomes the label's i-th track (the files do not
        link instances between frames), and without `frame_indices` the sampled frames are those of the original (see
        `video_grove.sampled_frame_indices`).

        Raises:
            ValueError: a field is missing, lengths disagree, a phrase is not in the caption, a label is not a phrase, or
                `tracks` holds other boxes than `bboxes`.
        """
        missing = [name for name in (*_TEXTS, "fps", *_INTEGERS, "bboxes", "labels") if record.get(name) is None]
        if record.get("caption") is None and record.get("tagged_caption") is None:
            missing.append("caption")
        if missing:
            raise ValueError(f"{', '.join(missing)}: missing from the annotation")
        tagged = record.get("tagged_caption") or ""
        caption = record["caption"] if record.get("caption") is not None else read_tagged_caption(tagged)[0]
        bboxes, labels, blocks = record["bboxes"], record["labels"], record.get("tracks")
        if len(bboxes) != len(labels):
            raise ValueError(f"labels: {len(labels)} frames, but bboxes has {len(bboxes)}")
        for n, sizes in enumerate(zip(map(len, bboxes), map(len, labels), strict=True)):
            if sizes[0] != sizes[1]:
                raise ValueError(f"labels[{n}]: {sizes[1]} labels for the {sizes[0]} boxes of bboxes[{n}]")
        if blocks is None:
            phrases = record.get("phrases")
            if phrases is None:
                phrases = [phrase.text for phrase in read_tagged_caption(tagged)[1]]
            tracks = _tracks_of_labels(caption, tagged, phrases, bboxes, labels)
        else:
            tracks = [_read_track(block) for block in blocks]
        fps, indices, timestamps = float(record["fps"]), record.get("frame_indices"), record.get("timestamps")
        if indices is None:
            from .video_grove import sampled_frame_range  # here, so that reading our own files does not need PyAV

            first, last = int(record["clip_start_frame"]), int(record["clip_end_frame"])
            indices = sampled_frame_range(fps, first, last)
            # The original's loader accepts one decoded frame more than annotated ones and drops it.
            if len(indices) not in (len(bboxes), len(bboxes) + 1):
                given = f"frames {first}..{last} at {fps:g} fps give {len(indices)} sampled ones; add frame_indices"
                raise ValueError(f"bboxes: {len(bboxes)} frames, but {given}")
            indices = indices[: len(bboxes)]
        result = cls(
            caption=caption,
            tracks=tuple(tracks),
            frame_indices=np.asarray(indices, dtype=np.int64),
            timestamps=np.asarray(indices) / fps if timestamps is None else np.asarray(timestamps),
            **{name: record[name] for name in (*_TEXTS, "fps", *_INTEGERS)},
        )
        if blocks is not None and not _agrees(result, bboxes, labels):
            raise ValueError("tracks: disagree with bboxes and labels; remove tracks to load the boxes alone")
        return result

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes `to_dict` as JSON, atomically: `path` holds the old content or all of the new one."""
        with atomic_path(path) as temporary:
            text = json.dumps(self.to_dict(), ensure_ascii=False, allow_nan=False)
            temporary.write_text(text + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> GroundedCaption:
        """Reads one JSON object, ours or the original's."""
        try:
            record = json.loads(Path(path).read_text(encoding="utf-8"))
        except ValueError as error:
            raise ValueError(f"{os.fspath(path)}: not a JSON file ({error})") from None
        if type(record) is not dict:
            raise ValueError(f"{os.fspath(path)}: expected one JSON object, got {type(record).__name__}")
        return cls.from_dict(record)

    def render(self, video_source: Any, path: str | os.PathLike[str], **options: Any) -> Path:
        """Writes an annotated mp4; see `rendering_grove.render_video` for the options."""
        from .rendering_grove import render_video

        return render_video(self, video_source, path, **options)

    def contact_sheet(self, video_source: Any, path: str | os.PathLike[str], **options: Any) -> Path:
        """Writes one picture of several frames; see `rendering_grove.contact_sheet` for the options."""
        from .rendering_grove import contact_sheet

        return contact_sheet(self, video_source, path, **options)


def _floats(values: np.ndarray) -> list[float]:
    """The shortest floats that give the same float32 again."""
    return [float(str(value)) for value in values]


def _read_track(block: Mapping[str, Any]) -> PhraseTrack:
    missing = [field.name for field in fields(PhraseTrack) if block.get(field.name) is None]
    if missing:
        raise ValueError(f"tracks: {', '.join(missing)} missing from the one of phrase {block.get('phrase')!r}")
    rows = [[np.nan] * 4 if row is None else row for row in block["boxes"]]
    boxes = _array(f"boxes of phrase {block['phrase']!r}", rows, np.float32, (-1, 4))
    return PhraseTrack(block["phrase"], block["span"], boxes, block["presence"], block["objectness"])


def _agrees(result: GroundedCaption, bboxes: Sequence[Any], labels: Sequence[Sequence[str]]) -> bool:
    ours = result.to_dict()
    if [list(frame) for frame in labels] != ours["labels"]:
        return False
    flat, theirs = ([box for frame in frames for box in frame] for frames in (ours["bboxes"], bboxes))
    return np.array_equal(np.asarray(flat, np.float32), np.asarray(theirs, np.float32))


def _tracks_of_labels(
    caption: str, tagged: str, phrases: Sequence[str], bboxes: Sequence[Any], labels: Sequence[Sequence[str]]
) -> list[PhraseTrack]:
    """Tracks in caption order from the original's per-frame lists."""
    phrases = [phrase.strip() for phrase in phrases]
    located = sorted(zip(locate_phrases(caption, tagged, phrases), phrases, strict=True))
    occurrences: dict[str, list[tuple[Span, str]]] = defaultdict(list)
    for span, phrase in located:
        occurrences[phrase.casefold()].append((span, phrase))
    unknown = np.full((len(bboxes), 4), np.nan, np.float32)
    boxes = {(label, i): unknown.copy() for label, spans in occurrences.items() for i in range(len(spans))}
    for n, (frame_boxes, frame_labels) in enumerate(zip(bboxes, labels, strict=True)):
        seen: dict[str, int] = defaultdict(int)
        for box, label in zip(frame_boxes, frame_labels, strict=True):
            name = label.strip().casefold()
            if name not in occurrences:
                raise ValueError(f"labels[{n}]: {label!r} is none of the phrases {phrases}")
            rows = boxes.setdefault((name, seen[name]), unknown.copy())
            rows[n] = _array(f"bboxes[{n}] of {label!r}", box, np.float32, (4,))
            if not np.isfinite(rows[n]).all():
                raise ValueError(f"bboxes[{n}]: the box of {label!r} is not finite: {list(box)}")
            seen[name] += 1
    tracks = []
    for (name, i), rows in boxes.items():
        span, phrase = occurrences[name][i % len(occurrences[name])]
        present = np.isfinite(rows[:, 0])
        tracks.append(PhraseTrack(phrase, span, rows, present, present.astype(np.float32)))
    return sorted(tracks, key=lambda track: track.span)

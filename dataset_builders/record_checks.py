"""What is wrong with one record; [`validation`] counts it over a data set, and the command is there.

A record without errors always loads, and keeps every box and label.
"""

from __future__ import annotations

import json
import reprlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping
from itertools import pairwise, zip_longest
from pathlib import PurePosixPath
from typing import Any

import numpy as np

from modeling_grove.text_grove import format_training_answer, read_tagged_caption

from .problems import Problem, is_valid, make_problem
from .record import RECORD_FIELDS, from_record, record_key

MAX_KEY_BYTES = 90  # a ustar header has 100 bytes for the name, with the extension
MAX_SIDE = 65_536  # pixels, the limit of VP9 and AV1; a wrong size would fill the memory of whoever draws
BORDER = 1.0  # pixels that annotation tools let boxes leave the frame by
ROUNDING = 1e-3  # pixels that float32 may add at a border

_LINE_BREAKS = frozenset("\n\v\f\r\x1c\x1d\x1e\x85\u2028\u2029")
_FLOAT32_MAX = float(np.finfo(np.float32).max)
_INT32, _INT64 = 2**31, 2**63


def check_record(record: Any, *, require_processed: bool = False) -> list[Problem]:
    """
    Everything that is wrong with a record. Never raises, whatever JSON value it is given.

    Args:
        record (`Mapping` or any JSON value):
            The record, ours or the original's.
        require_processed (`bool`, *optional*, defaults to `False`):
            Whether several boxes of a phrase in a frame are an error (`not_processed`).
    """
    if not isinstance(record, Mapping):
        return [make_problem("not_an_object", f"expected a JSON object, got {type(record).__name__}")]
    problems: list[Problem] = []
    fields = _read_fields(record, problems)
    for check in (_check_names, _check_clip, _check_caption, _check_frames, _check_boxes, _check_labels, _check_tracks):
        problems += check(fields)
    if require_processed:
        problems += _check_processed(fields)
    problems += _check_metadata(fields)
    if is_valid(problems):
        try:
            from_record(record)
        except ValueError as error:
            problems.append(make_problem("not_loadable", str(error)))
    return problems


def key_of(record: Any) -> str | None:
    """The record's key, `None` where it has none."""
    if not isinstance(record, Mapping):
        return None
    clip_id: Any = record.get("clip_id")
    known = isinstance(record.get("video_id"), str) and _is_integer(clip_id) and -_INT64 <= clip_id < _INT64
    return record_key(record) if known else None


def _short(value: Any) -> str:
    """A value for a message; a few of its parts if it is large."""
    try:
        return reprlib.repr(value)
    except ValueError:  # an integer of more digits than Python prints
        return "an integer of thousands of digits"


def _is_integer(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_finite(value: float) -> bool:
    return -_FLOAT32_MAX <= value <= _FLOAT32_MAX  # also of integers too large for a float; False of NaN


def _leaves(value: Any, depth: int) -> Iterator[Any]:
    """
    The values `depth` lists down.

    Raises:
        `TypeError`: if there is something else than a list on the way.
    """
    if depth == 0:
        yield value
        return
    if not isinstance(value, list | tuple):
        raise TypeError
    for item in value:
        yield from _leaves(item, depth - 1)


# Field: how many lists deep its values are, what they are, and the limit of an integer's column.
_TYPES: dict[str, tuple[int, str, int]] = {
    "video_id": (0, "string", 0),
    "clip_id": (0, "integer", _INT64),
    "video_fname": (0, "string", 0),
    "fps": (0, "number", 0),
    "width": (0, "integer", _INT32),
    "height": (0, "integer", _INT32),
    "clip_start_frame": (0, "integer", _INT64),
    "clip_end_frame": (0, "integer", _INT64),
    "caption": (0, "string", 0),
    "tagged_caption": (0, "string", 0),
    "phrases": (1, "string", 0),
    "bboxes": (2, "box", 0),
    "labels": (2, "string", 0),
    "frame_indices": (1, "integer", _INT64),
    "timestamps": (1, "number", 0),
    "track_phrases": (1, "integer", _INT32),
    "track_ids": (2, "integer", _INT32),
    "scores": (2, "number", 0),
    "metadata": (0, "string", 0),
}
_OPTIONAL = ("frame_indices", "timestamps", "track_phrases", "track_ids", "scores", "metadata")
_KINDS: dict[str, Callable[[Any], bool]] = {
    "string": lambda value: isinstance(value, str),
    "integer": _is_integer,
    "number": _is_number,
    "box": lambda value: isinstance(value, list | tuple) and len(value) == 4 and all(map(_is_number, value)),
}


def _read_fields(record: Mapping[str, Any], problems: list[Problem]) -> dict[str, Any]:
    """The fields that are what they should be; `None` for optional ones that are absent. The rest become problems."""
    fields: dict[str, Any] = {}
    for name, (depth, kind, limit) in _TYPES.items():
        value = record.get(name)
        if value is None:
            if name in _OPTIONAL:
                fields[name] = None
            else:
                problems.append(make_problem("missing_field", f"{name}: missing"))
            continue
        reason = _wrong_with(value, depth, kind, limit)
        if reason is None:
            fields[name] = value
        else:
            expected = "lists of " * depth + {"box": "[x1, y1, x2, y2]"}.get(kind, kind)
            problems.append(make_problem(reason, f"{name}: expected {expected}, got {_short(value)}"))
    unknown = [name for name in record if name not in RECORD_FIELDS]
    problems += [make_problem("unknown_field", f"{_short(name)}: no column of this name") for name in unknown]
    return fields


def _wrong_with(value: Any, depth: int, kind: str, limit: int) -> str | None:
    """The reason why a value does not fit its column. Boxes that are not finite are left for [`_check_boxes`]."""
    try:
        leaves = list(_leaves(value, depth))
    except TypeError:
        return "wrong_type"
    if not all(map(_KINDS[kind], leaves)):
        return "wrong_type"
    if kind == "string" and not all(map(_is_unicode, leaves)):
        return "bad_text"
    if kind == "number" and not all(map(_is_finite, leaves)):
        return "not_finite"
    if kind == "integer" and not all(-limit <= leaf < limit for leaf in leaves):
        return "out_of_range"
    return None


def _is_unicode(text: str) -> bool:
    return text.isascii() or not any("\ud800" <= c <= "\udfff" for c in text)


def _check_names(fields: dict[str, Any]) -> Iterator[Problem]:
    if (key := key_of(fields)) is not None:
        wrong = [c for c in key if c in "./\\" or c.isspace() or not c.isprintable()]
        if wrong:
            yield make_problem("bad_key", f"key {_short(key)}: holds {wrong[0]!r}; replace it in video_id")
        if not fields["video_id"]:
            yield make_problem("bad_key", "video_id: empty")
        if len(key.encode()) > MAX_KEY_BYTES:
            yield make_problem("bad_key", f"key {_short(key)}: {len(key.encode())} bytes, at most {MAX_KEY_BYTES} fit")
    if (name := fields.get("video_fname")) is not None:
        parts = PurePosixPath(name.replace("\\", "/"))
        if not name.strip() or "\0" in name or parts.is_absolute() or ".." in parts.parts:
            yield make_problem("bad_video_fname", f"video_fname: expected a name inside the folder, got {_short(name)}")


def _check_clip(fields: dict[str, Any]) -> Iterator[Problem]:
    for name in ("fps", "width", "height"):
        if name in fields and not fields[name] > 0:
            yield make_problem("out_of_range", f"{name}: expected a positive number, got {fields[name]}")
        elif name in fields and name != "fps" and fields[name] > MAX_SIDE:
            yield make_problem("out_of_range", f"{name}: expected at most {MAX_SIDE} pixels, got {fields[name]}")
    first, last = fields.get("clip_start_frame"), fields.get("clip_end_frame")
    if first is not None and last is not None and not 0 <= first <= last:
        yield make_problem("clip_range", f"clip_end_frame: expected 0 <= clip_start_frame <= it, got {first}..{last}")


def _check_caption(fields: dict[str, Any]) -> Iterator[Problem]:
    caption, tagged, phrases = (fields.get(name) for name in ("caption", "tagged_caption", "phrases"))
    if caption is not None:
        yield from _check_plain(caption)
    for index, phrase in enumerate(phrases or ()):
        if not phrase.strip():
            yield make_problem("empty_phrase", f"phrases[{index}]: empty")
        elif caption is not None and phrase.strip().casefold() not in caption.casefold():
            yield make_problem("phrase_not_in_caption", f"phrases[{index}]: {phrase!r} is not in {caption!r}")
    if tagged is None:
        return
    try:
        plain, mentions = read_tagged_caption(tagged)
    except ValueError as error:
        yield make_problem("overlapping_phrases" if "inside another" in str(error) else "bad_tags", str(error))
        return
    if caption is not None and plain != caption:
        same = _bare(plain) == _bare(caption)
        reason = "tagged_caption_inexact" if same else "tagged_caption_differs"
        yield make_problem(reason, f"tagged_caption: without its tags it is {plain!r}, but caption is {caption!r}")
    if phrases is None:
        return
    listed, tags = (
        Counter(text.strip().casefold() for text in texts) for texts in (phrases, [m.text for m in mentions])
    )
    for text, count in listed.items():
        if text and count > tags[text]:
            yield make_problem(
                "phrase_not_tagged", f"phrases: {text!r} is listed {count} and tagged {tags[text]} time(s)"
            )
    for text, count in (tags - listed).items():
        yield make_problem("tag_without_phrase", f"tagged_caption: {text!r} is tagged {count} time(s) more than listed")


def _check_plain(caption: str) -> Iterator[Problem]:
    if not caption.strip():
        yield make_problem("empty_caption", "caption: empty")
    elif not any(c.isalnum() for c in caption):
        yield make_problem("caption_without_words", f"caption: no word in {caption!r}")
    try:
        format_training_answer(caption, ())
    except ValueError as error:
        yield make_problem("marker_in_caption", f"caption: {error}")
    if breaks := sorted(_LINE_BREAKS.intersection(caption)):
        yield make_problem("line_break", f"caption: holds U+{ord(breaks[0]):04X}, which ends a line")


def _bare(text: str) -> str:
    """A caption without what two copies of it may differ by."""
    return "".join(text.split()).strip("'\"").casefold()


def _check_frames(fields: dict[str, Any]) -> Iterator[Problem]:
    boxes, indices, timestamps = (fields.get(name) for name in ("bboxes", "frame_indices", "timestamps"))
    first, last, fps = (fields.get(name) for name in ("clip_start_frame", "clip_end_frame", "fps"))
    if boxes is not None:
        if not boxes:
            yield make_problem("no_frames", "bboxes: no frame; a clip needs at least one, which may be empty")
        for name in ("labels", "frame_indices", "timestamps", "track_ids", "scores"):
            if (frames := fields.get(name)) is not None and len(frames) != len(boxes):
                yield make_problem("length_mismatch", f"{name}: {len(frames)} frames, but bboxes has {len(boxes)}")
        for name in ("labels", "track_ids", "scores"):
            for n, (held, given) in enumerate(zip(boxes, fields.get(name) or (), strict=False)):
                if len(given) != len(held):
                    yield make_problem("length_mismatch", f"{name}[{n}]: {len(given)} for the {len(held)} boxes there")
    if timestamps is not None and any(b < a for a, b in pairwise(timestamps)):
        yield make_problem("frame_order", "timestamps: they decrease")
    if indices is not None:
        if any(b <= a for a, b in pairwise(indices)):
            yield make_problem("frame_order", "frame_indices: expected strictly increasing source frames")
        if first is not None and last is not None and (outside := [i for i in indices if not first <= i <= last]):
            message = f"frame_indices: {len(outside)} outside the clip {first}..{last}, {outside[0]} for one"
            yield make_problem("frame_outside_clip", message)
    elif "frame_indices" in fields and boxes and first is not None and last is not None and fps is not None and fps > 0:
        # `sampled_frame_indices` without listing them: a wrong clip_end_frame would fill the memory.
        expected = (last - first) // max(1, int(fps / 5)) + 1
        if len(boxes) != expected:
            reason = "one_frame_less" if len(boxes) == expected - 1 else "frame_count"
            message = f"bboxes: {len(boxes)} frames, but frames {first}..{last} at {fps:g} fps give {expected}"
            yield make_problem(reason, message if reason == "one_frame_less" else f"{message}; add frame_indices")


def _check_boxes(fields: dict[str, Any]) -> Iterator[Problem]:
    if (frames := fields.get("bboxes")) is None:
        return
    names = [f"bboxes[{n}][{i}]" for n, boxes in enumerate(frames) for i in range(len(boxes))]
    boxes = [box for boxes in frames for box in boxes]
    if not boxes:
        if frames:
            yield make_problem("no_boxes", f"bboxes: no box in {len(frames)} frames")
        return
    for name, box in zip(names, boxes, strict=True):
        if not all(map(_is_finite, box)):
            yield make_problem("box_not_finite", f"{name}: {_short(box)} is not finite")
    finite = [(name, box) for name, box in zip(names, boxes, strict=True) if all(map(_is_finite, box))]
    if not finite:
        return
    x1, y1, x2, y2 = np.array([box for _, box in finite], dtype=np.float32).T
    area = (x2 > x1) & (y2 > y1)
    size = fields.get("width"), fields.get("height")
    for name, box in (finite[i] for i in np.flatnonzero(~area)):
        yield make_problem("box_without_area", f"{name}: {_short(box)} has no area; expected x1 < x2 and y1 < y2")
    if size[0] is None or size[1] is None or not (size[0] > 0 and size[1] > 0):
        return
    excess = np.stack([-x1, -y1, x2 - size[0], y2 - size[1]]).max(axis=0)
    inside = (x2 > 0) & (y2 > 0) & (x1 < size[0]) & (y1 < size[1])
    for i in np.flatnonzero(area & (~inside | (excess > ROUNDING))):
        name, box = finite[i]
        reason = "box_over_border" if inside[i] and excess[i] <= BORDER else "box_outside"
        yield make_problem(
            reason, f"{name}: {_short(box)} leaves the frame of {size[0]} x {size[1]} by {excess[i]:g} px"
        )


def _check_labels(fields: dict[str, Any]) -> Iterator[Problem]:
    frames, phrases, boxes = (fields.get(name) for name in ("labels", "phrases", "bboxes"))
    if frames is None or phrases is None:
        return
    known = {phrase.strip().casefold() for phrase in phrases}
    for n, labels in enumerate(frames):
        for i, label in enumerate(labels):
            if label.strip().casefold() not in known:
                yield make_problem("label_not_a_phrase", f"labels[{n}][{i}]: {label!r} is none of {_short(phrases)}")
        if boxes is not None and n < len(boxes):
            counts = Counter((label, tuple(box)) for label, box in zip(labels, boxes[n], strict=False))
            for (label, box), count in counts.items():
                if count > 1:
                    yield make_problem("duplicate_box", f"bboxes[{n}]: {label!r} has {_short(box)} {count} times")
    owners = _owners(fields)
    with_box = {owner for frame in owners for owner in frame} if owners else set()
    for index in sorted(set(range(len(phrases))) - with_box) if with_box else ():
        yield make_problem("phrase_without_box", f"phrases[{index}]: {phrases[index]!r} has no box in any frame")


def _owners(fields: dict[str, Any]) -> list[list[int]] | None:
    """For every box of every frame the index of its phrase, by its track or else by its label; `None` if one has none."""
    phrases, labels, tracks, frames = (fields.get(n) for n in ("phrases", "labels", "track_phrases", "track_ids"))
    if tracks is not None and frames is not None:
        known = all(0 <= track < len(tracks) for ids in frames for track in ids)
        return [[tracks[track] for track in ids] for ids in frames] if known else None
    if phrases is None or labels is None:
        return None
    mentions = defaultdict(list)
    for index, phrase in enumerate(phrases):
        mentions[phrase.strip().casefold()].append(index)
    owners: list[list[int]] = []
    for frame in labels:
        seen: Counter[str] = Counter()
        owners.append([])
        for name in (label.strip().casefold() for label in frame):
            if name not in mentions:
                return None
            # The i-th box of a label belongs to its i-th mention, as on loading.
            owners[-1].append(mentions[name][seen[name] % len(mentions[name])])
            seen[name] += 1
    return owners


def _check_processed(fields: dict[str, Any]) -> Iterator[Problem]:
    for n, owners in enumerate(_owners(fields) or ()):
        for index, count in Counter(owners).items():
            if count > 1:
                yield make_problem(
                    "not_processed", f"bboxes[{n}]: {count} boxes of phrases[{index}]; merge its instances"
                )


def _check_tracks(fields: dict[str, Any]) -> Iterator[Problem]:
    for n, scores in enumerate(fields.get("scores") or ()):
        if wrong := [score for score in scores if not 0 <= score <= 1]:
            yield make_problem("out_of_range", f"scores[{n}]: expected probabilities in [0, 1], got {wrong[0]}")
    if not {"track_phrases", "track_ids"} <= fields.keys():
        return
    tracks, frames = fields["track_phrases"], fields["track_ids"]
    if tracks is None or frames is None:
        if tracks is not frames:
            name, other = ("track_phrases", "track_ids") if frames is None else ("track_ids", "track_phrases")
            yield make_problem("track_mismatch", f"{name}: given without {other}; give both or neither")
        elif fields.get("scores") is not None:
            yield make_problem("scores_without_tracks", "scores: given without track_ids")
        return
    phrases, labels = fields.get("phrases"), fields.get("labels")
    if phrases is not None:
        if wrong := [index for index in tracks if not 0 <= index < len(phrases)]:
            yield make_problem(
                "track_mismatch", f"track_phrases: {wrong[0]} is no index into the {len(phrases)} phrases"
            )
        for index in sorted(set(range(len(phrases))) - set(tracks)):
            yield make_problem("track_mismatch", f"track_phrases: phrases[{index}] ({phrases[index]!r}) has no track")
    for n, ids in enumerate(frames):
        if len(set(ids)) < len(ids):
            yield make_problem(
                "track_mismatch", f"track_ids[{n}]: a track has several boxes in one frame: {_short(ids)}"
            )
        for track, label in zip_longest(ids, labels[n] if labels is not None and n < len(labels) else ()):
            if track is None:
                continue  # lengths that disagree are reported as that
            if not 0 <= track < len(tracks):
                yield make_problem("track_mismatch", f"track_ids[{n}]: {track} is none of the {len(tracks)} tracks")
            elif label is not None and phrases is not None and 0 <= tracks[track] < len(phrases):
                phrase = phrases[tracks[track]]
                if phrase.casefold() != label.casefold():
                    message = f"track_ids[{n}]: a box of {label!r} is in track {track}, which is of {phrase!r}"
                    yield make_problem("track_mismatch", message)


def _check_metadata(fields: dict[str, Any]) -> Iterator[Problem]:
    if not (text := fields.get("metadata")):
        return
    try:
        value = json.loads(text)
        # It is written again with every record: no infinity (1e999 is one), and no half of a surrogate pair.
        json.dumps(value, ensure_ascii=False, allow_nan=False).encode()
    except (ValueError, RecursionError) as error:
        yield make_problem("bad_metadata", f"metadata: not JSON ({error})")
        return
    if not isinstance(value, dict):
        yield make_problem("bad_metadata", f"metadata: expected a JSON object, got {type(value).__name__}")


__all__ = ["check_record", "key_of"]

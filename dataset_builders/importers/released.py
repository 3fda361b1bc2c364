"""The JSON Lines of the original release: HowToGround1M (both label sets) and iGround (raw and processed).

    ekazakos/HowToGround1M   HowToGround1M_automatic_annotation_method.jsonl, HowToGround1M_model_preds.jsonl
    ekazakos/iGround         iGround_{train,val,test}_set_{raw,processed}.jsonl

The fields are those that the original's loaders read from their pickles. Accepted besides: a record under its key, as in the
pickles (`{"video_0": {...}}`, one a line or all in one `.json`), the names that the original's inference writes (`pred_bboxes`,
`pred_labels`, `pred_phrases`, `pred_text`), numbers as strings, quotes around the caption, labels that differ from their phrase
in case or outer blanks, phrases that the caption does not tag or that are listed more often than it has them, no boxes (`null`)
in a frame, and, as in the original's loader, one frame less than the clip has at 5 frames a second. What only our records have
(which frames, their times, the tracks, the metadata) is taken over where an entry has it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import Any

from dataset_builders.reading import Entry, OnProblem, read_entries
from dataset_builders.record import RECORD_FIELDS, Record, from_record, record_metadata
from modeling_grove.text_grove import locate_phrases, read_tagged_caption
from modeling_grove.video_grove import sampled_frame_indices

from .entries import FieldError, Fields, Source, as_box, as_integer, as_number, finished, kind_of

# Field: what else it may be called.
_NAMES: dict[str, tuple[str, ...]] = {
    "video_id": (),
    "clip_id": (),
    "video_fname": (),
    "fps": (),
    "width": (),
    "height": (),
    "clip_start_frame": (),
    "clip_end_frame": (),
    "caption": ("pred_caption", "pred_text"),
    "tagged_caption": ("pred_tagged_caption",),
    "phrases": ("pred_phrases",),
    "bboxes": ("pred_bboxes",),
    "labels": ("pred_labels",),
}
# Fields that only our records have. Tracks are read together: one of these alone says nothing of whose the boxes are.
_OWN_FIELDS = RECORD_FIELDS[len(_NAMES) :]
_TRACK_FIELDS = ("track_phrases", "track_ids", "scores")
_QUOTES = ('"', "'")


def import_released(path: str | os.PathLike[str], on_problem: OnProblem | None = None) -> Iterator[Record]:
    """
    Yields the records of a file of `ekazakos/HowToGround1M` or `ekazakos/iGround`. Fields beyond those of a record are kept
    in the metadata, beside what the entry's own `metadata` has.

    Args:
        path (path or URL):
            `.jsonl` or `.json`, also `.gz`; local or anything that fsspec opens (`hf://datasets/ekazakos/iGround/...`).
        on_problem (`Callable[[ReadProblem], None]`, *optional*):
            Gets every entry that is left out, with its line, field and reason. By default the first one raises.

    Raises:
        `ValueError`: in one line, if the file cannot be read, or for the first problem without `on_problem`.
    """
    source = Source.of(path, on_problem)
    for entry in read_entries(path, on_problem):
        record = source.attempt(entry.number, read_released, entry, within=entry.key or "")
        if record is not None:
            yield record


def is_ours(value: Mapping[str, Any]) -> bool:
    """Whether an object has a field that only our records have."""
    return any(value.get(name) is not None for name in _OWN_FIELDS)


def read_released(entry: Entry) -> Record:
    """
    The record of one entry.

    Raises:
        `ValueError`: a [`FieldError`] where one field is to blame.
    """
    value = dict(entry.value)
    for name, others in _NAMES.items():
        found = [other for other in others if value.get(other) is not None]
        if found and value.get(name) is None:
            value[name] = value.pop(found[0])
    if entry.key and "_" in entry.key:
        video_id, _, clip_id = entry.key.rpartition("_")
        value.setdefault("video_id", video_id)
        value.setdefault("clip_id", clip_id)
    fields = Fields(value)
    fps, (width, height) = fields.fps(), fields.size()
    first, last = fields.frame_range("clip_start_frame", "clip_end_frame")
    bboxes, labels = _boxes_and_labels(fields)
    indices = _frame_indices(fields, len(bboxes), (fps, first, last))
    caption, tagged, phrases = _text(fields, labels)
    exact = {name: value[name] for name in _TRACK_FIELDS if fields.has(name)}
    if not {"track_phrases", "track_ids"} <= exact.keys():
        exact = {}
    if fields.has("timestamps"):
        exact["timestamps"] = [as_number(item, f"timestamps[{n}]") for n, item in enumerate(fields.items("timestamps"))]
    grounded = from_record(
        {
            "video_id": fields.text("video_id"),
            "clip_id": fields.integer("clip_id"),
            "video_fname": fields.text("video_fname"),
            "fps": fps,
            "width": width,
            "height": height,
            "clip_start_frame": first,
            "clip_end_frame": last,
            "caption": caption,
            "tagged_caption": tagged,
            "phrases": phrases,
            "bboxes": bboxes,
            "labels": labels,
            "frame_indices": indices,
            **exact,
        }
    )
    read = {*_NAMES, *exact, "frame_indices", "metadata"}
    return finished(grounded, {name: item for name, item in value.items() if name not in read} | _metadata(fields))


def _frame_indices(fields: Fields, count: int, clip: tuple[float, int, int]) -> list[int]:
    """The source frames that are annotated: those that the entry names, or else the first of the sampled ones."""
    if fields.has("frame_indices"):
        given = fields.items("frame_indices")
        if len(given) != count:
            raise FieldError("length_mismatch", "frame_indices", f"{len(given)} frames, but bboxes has {count}")
        return [as_integer(item, f"frame_indices[{n}]") for n, item in enumerate(given)]
    sampled = sampled_frame_indices(*clip)
    if not count or count not in (len(sampled) - 1, len(sampled)):
        expected = f"frames {clip[1]}..{clip[2]} at {clip[0]:g} fps are {len(sampled)} at 5 fps"
        raise FieldError("frame_count", fields.where("bboxes"), f"{count} frames, but {expected}")
    return sampled[:count]


def _metadata(fields: Fields) -> dict[str, Any]:
    """What the entry's own metadata has."""
    try:
        return record_metadata(fields.value)
    except RecursionError:
        raise FieldError("too_deep", "metadata", "lists or objects are nested too deep") from None


def _boxes_and_labels(fields: Fields) -> tuple[list[list[list[float]]], list[list[str]]]:
    """Boxes and labels of every frame."""
    frames, names = fields.items("bboxes"), fields.items("labels")
    if len(frames) != len(names):
        raise FieldError("length_mismatch", "labels", f"{len(names)} frames, but bboxes has {len(frames)}")
    bboxes: list[list[list[float]]] = []
    labels: list[list[str]] = []
    for n, (frame, frame_names) in enumerate(zip(frames, names, strict=True)):
        boxes, texts = ([] if item is None else item for item in (frame, frame_names))
        if not isinstance(boxes, list) or not isinstance(texts, list):
            kinds = f"{kind_of(boxes)} and {kind_of(texts)}"
            raise FieldError("wrong_type", f"bboxes[{n}]", f"expected lists of boxes and of labels, got {kinds}")
        if len(boxes) != len(texts):
            raise FieldError("length_mismatch", f"labels[{n}]", f"{len(texts)} labels for {len(boxes)} boxes")
        if any(not isinstance(text, str) for text in texts):
            raise FieldError("wrong_type", f"labels[{n}]", "expected strings")
        # A label without a box says that the phrase is not visible.
        there = [i for i, box in enumerate(boxes) if box is not None]
        bboxes.append([as_box(boxes[i], f"bboxes[{n}][{i}]") for i in there])
        labels.append([texts[i].strip() for i in there])
    return bboxes, labels


def _text(fields: Fields, labels: list[list[str]]) -> tuple[str, str, list[str]]:
    """Plain caption, tagged caption (empty if there is none) and phrases, which have all labels of the boxes."""
    tagged = _unquoted(fields.text("tagged_caption", ""))
    caption = _unquoted(fields.text("caption", "")) or _plain(tagged)
    if not caption:
        fields.get("caption")  # says what is there instead
        raise FieldError("empty_caption", "caption", "expected words, got an empty string")
    if "<p>" in caption:
        tagged, caption = tagged or caption, _plain(caption)
    items: list[Any] = fields.items("phrases") if fields.has("phrases") else _tagged_phrases(tagged)
    if any(not isinstance(item, str) for item in items):
        raise FieldError("wrong_type", "phrases", "expected strings")
    phrases = [item.strip() for item in items]
    names = {_name(phrase) for phrase in phrases}
    unknown = [label for frame in labels for label in frame if _name(label) not in names]
    if unknown:
        message = f"{unknown[0]!r} is none of the phrases {phrases}"
        raise FieldError("label_not_a_phrase", "labels", message[:300])
    try:
        locate_phrases(caption, tagged, phrases)
    except ValueError as error:
        # Boxes belong to a label, so a phrase that is listed again adds nothing unless the caption has it again.
        phrases = [*{_name(phrase): phrase for phrase in reversed(phrases)}.values()][::-1]
        try:
            locate_phrases(caption, tagged, phrases)
        except ValueError:
            raise FieldError("phrase_not_in_caption", "phrases", str(error)) from None
    return caption, tagged, phrases


def _plain(tagged: str) -> str:
    """The caption of a tagged one."""
    try:
        return read_tagged_caption(tagged)[0].strip()
    except ValueError as error:
        raise FieldError("bad_tags", "tagged_caption", str(error)) from None


def _tagged_phrases(tagged: str) -> list[str]:
    """The phrases of a tagged caption."""
    if not tagged:
        raise FieldError("missing_field", "phrases", "missing, and there is no tagged_caption to take them from")
    try:
        return [phrase.text for phrase in read_tagged_caption(tagged)[1]]
    except ValueError as error:
        raise FieldError("bad_tags", "tagged_caption", str(error)) from None


def _name(phrase: str) -> str:
    """What makes a label and a phrase the same."""
    return phrase.strip().casefold()


def _unquoted(text: str) -> str:
    """A text without a pair of quotes around all of it, which captions of language models come with."""
    inner = text[1:-1]
    return inner.strip() if text[:1] in _QUOTES and text[-1:] == text[:1] and text[0] not in inner and inner else text


__all__ = ["import_released", "is_ours", "read_released"]

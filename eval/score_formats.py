"""Reads what `score` scores, from the files of this project or the original's: `FORMATS` says which there are."""

from __future__ import annotations

import gc
import os
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from dataset_builders.importers.activitynet_entities import import_activitynet_entities
from dataset_builders.importers.pointing import import_pointing
from dataset_builders.importers.released import is_ours
from dataset_builders.importers.vidstg import import_vidstg
from dataset_builders.reading import Entry, entry_unit, objects_of, read_entries, read_json
from dataset_builders.record import Record
from dataset_builders.sources import RECORD_SUFFIXES, iter_source
from modeling_grove.grounded_caption import GroundedCaption

from .iground_files import read_caption, read_prediction, read_reference

# What `python -m eval score --help` ends with.
FORMATS = """formats:
  what                  annotations                                        predictions
  ours                  records (JSONL, JSON, a folder of shards, hf://)   records, or lines of `GroundedCaption.to_dict`
  the original's        its JSON                                           its JSON
  iGround               {clip: {bboxes, labels, caption, width, height}}   {clip: {pred_bboxes, pred_labels, pred_text}}
  VidSTG                {videos, trajectories}                             {video: {frame_ids, boxes, qtype}}
  ActivityNet-Entities  {annotations}, and a split file                    {results: {video: {segment: {clss, ...}}}}
  YouCook-Interactions  [{video_id, segment_bboxes, ...}]                  {video_segment: {final_boxes}}
  GroundingYouTube      [{video_id, segment_bboxes, ...}]                  {video_segment: {final_boxes}}

Annotations of the original's with predictions of ours are fine: they are imported. Records with the original's predictions are
fine for iGround alone, as the other benchmarks name their frames differently.

The original writes some of its files as pickles, which are not read: a pickle can run any code. These lines, run where
the original runs, write the same as JSON:

    import json, pickle
    with open("predictions.pkl", "rb") as file:
        clips = pickle.load(file)
    with open("predictions.json", "w") as file:
        json.dump(clips, file, default=lambda array: array.tolist())
"""

PICKLE_SUFFIXES = (".pkl", ".pickle", ".pkl.gz", ".pickle.gz")
# The original's annotations have one of these, by benchmark: at the top, or in every segment of a list.
_MARKS = {
    "vidstg": "videos",
    "activitynet_entities": "annotations",
    "youcook_interactions": "segment_bboxes",
    "grounding_youtube": "segment_bboxes",
}


@dataclass(frozen=True)
class OriginalFiles:
    """What is in the original's files of a benchmark; `split_file` is that of ActivityNet-Entities."""

    annotations: Any
    predictions: Any
    split_file: Any = None


@dataclass(frozen=True)
class ScoreFiles:
    """
    What is to be scored, read.

    Attributes:
        references (sequence of [`GroundedCaption`], [`ReferenceClip`] or records):
            For iGround captions or clips, for the other benchmarks records. Empty where `original` is there.
        predictions (sequence of [`GroundedCaption`] or [`PredictedClip`]):
            The second for iGround alone.
        original ([`OriginalFiles`] or `None`):
            The original's files, where both are (not for iGround).
    """

    references: Sequence[Any] = ()
    predictions: Sequence[Any] = ()
    original: OriginalFiles | None = None


def read_files(
    benchmark: str,
    annotations: str,
    predictions: str,
    *,
    split_file: str | os.PathLike[str] | None = None,
    split: str | None = None,
    videos: str | os.PathLike[str] | None = None,
    with_source: bool = False,
) -> ScoreFiles:
    """
    Reads annotations and predictions of a benchmark.

    Args:
        benchmark (`str`):
            Name of the benchmark.
        annotations (`str`), predictions (`str`):
            Paths, or anything that fsspec opens.
        split_file (path, *optional*), split (`str`, *optional*):
            ActivityNet-Entities: JSON with a list of video ids for every split, and the one to take. Elsewhere `split` is that
            of a folder of shards.
        videos (path, *optional*):
            ActivityNet-Entities: folder of videos, whose sizes and rates the original's annotations lack.
        with_source (`bool`):
            iGround: whether annotations of the original's get their grounded captions even if no prediction needs them.

    Raises:
        `ValueError`: in one line, naming file, clip and field.
    """
    for path in (annotations, predictions):
        if path.lower().endswith(PICKLE_SUFFIXES):
            raise ValueError(
                f"{path}: a pickle, which is not read because it can run any code; convert it to JSON where the original "
                "runs, with the lines at the end of `python -m eval score --help`"
            )
    # Reading makes millions of objects and no garbage: with the collector on it takes four times as long.
    collecting = gc.isenabled()
    gc.disable()
    try:
        return _read(benchmark, annotations, predictions, split_file, split, videos, with_source)
    finally:
        if collecting:
            gc.enable()


def _read(
    benchmark: str,
    annotations: str,
    predictions: str,
    split_file: str | os.PathLike[str] | None,
    split: str | None,
    videos: str | os.PathLike[str] | None,
    with_source: bool,
) -> ScoreFiles:
    if benchmark == "iground":
        return _read_iground(annotations, predictions, split, with_source)
    document = _original_document(benchmark, annotations)
    answers = read_json(predictions) if entry_unit(predictions) == "entry" else None
    if answers in ({}, []):
        raise ValueError(f"{predictions}: no clip in it; expected the predictions")
    if document is None:
        if answers is not None and not _are_ours(answers):
            raise ValueError(
                f"{predictions}: in the format of the original, but {annotations} has records; give the original's "
                "annotations, or predictions as JSONL"
            )
        if split_file is not None:
            raise ValueError(f"--split-file: {annotations} has records, which are of one split; leave it out")
        records = list(_records(annotations, split))
    elif answers is not None and not _are_ours(answers):
        if not isinstance(answers, dict):
            raise ValueError(f"{predictions}: expected an object keyed by video, got a list")
        splits = None if split_file is None else read_json(split_file)
        return ScoreFiles(original=OriginalFiles(document, answers, splits))
    else:
        records = list(_imported(benchmark, annotations, split_file, split, videos))
    if not records:
        raise ValueError(f"{annotations}: no record in it; expected one for every clip")
    return ScoreFiles(records, list(_captions(predictions)))


def _read_iground(annotations: str, predictions: str, split: str | None, with_source: bool) -> ScoreFiles:
    answers = [read_prediction(entry, place) for entry, place in _entries(predictions)]
    if not answers:
        raise ValueError(f"{predictions}: no clip in it; expected the predictions")
    # Captions of ours have to be put on the frames of the annotation, which only its grounded caption knows.
    with_source = with_source or any(isinstance(answer, GroundedCaption) for answer in answers)
    if annotations.endswith(RECORD_SUFFIXES):
        entries: Iterable[tuple[Entry, str]] = _entries(annotations)
    else:
        entries = (
            (Entry(n, None, record), annotations) for n, record in enumerate(_records(annotations, split), start=1)
        )
    truth = [read_reference(entry, place, with_source=with_source) for entry, place in entries]
    if not truth:
        raise ValueError(f"{annotations}: no clip in it; expected the annotations")
    return ScoreFiles(truth, answers)


def _original_document(benchmark: str, annotations: str) -> Any:
    """The original's annotations, `None` if they are records."""
    if not annotations.endswith(RECORD_SUFFIXES) or entry_unit(annotations) == "line":
        return None
    document, mark = read_json(annotations), _MARKS[benchmark]
    first = document[0] if isinstance(document, list) and document else document
    return document if isinstance(first, dict) and mark in first else None


def _are_ours(answers: Any) -> bool:
    """Whether predictions in a `.json` are records or captions; the original's have other fields in all benchmarks."""
    values = answers if isinstance(answers, list) else [answers, *answers.values()] if isinstance(answers, dict) else []
    return any(isinstance(value, dict) and (is_ours(value) or "bboxes" in value) for value in values[:2])


def _records(annotations: str, split: str | None) -> Iterator[Record]:
    return (record for record, _ in iter_source(annotations, split=split))


def _imported(
    benchmark: str,
    annotations: str,
    split_file: str | os.PathLike[str] | None,
    split: str | None,
    videos: str | os.PathLike[str] | None,
) -> Iterator[Record]:
    """The original's annotations as records."""
    if benchmark == "vidstg":
        return import_vidstg(annotations)
    if benchmark != "activitynet_entities":
        return import_pointing(annotations)
    ids = None if split_file is None else split_ids(read_json(split_file), split, str(split_file))
    return import_activitynet_entities([annotations], videos=videos, ids=ids)


def split_ids(document: Any, split: str | None, place: str) -> Collection[str]:
    """
    The video ids of a split.

    Raises:
        `ValueError`: if there is no such split, or it is no list of ids.
    """
    ids = document.get(split) if isinstance(document, dict) else document
    if not isinstance(ids, list) or any(not isinstance(item, str) for item in ids):
        there = ", ".join(document) if isinstance(document, dict) else "no splits"
        raise ValueError(f"{place}: expected a list of video ids as split {split!r}; there is {there}")
    return ids


def _captions(predictions: str) -> Iterator[GroundedCaption]:
    found = False
    for entry, place in _entries(predictions):
        found = True
        yield read_caption(entry, place)
    if not found:
        raise ValueError(f"{predictions}: no clip in it; expected the predictions")


def _entries(path: str) -> Iterator[tuple[Entry, str]]:
    """The objects of a file, each with what errors about it begin with."""
    unit = entry_unit(path)
    if unit == "line":
        for entry in read_entries(path):
            yield entry, f"{path}: line {entry.number}"
        return
    document = read_json(path)
    if document in ({}, []):
        return
    # NaN is let in, so that it is found with its clip and field.
    for entry in objects_of(document, path):
        yield entry, path

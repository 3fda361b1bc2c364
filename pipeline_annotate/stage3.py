"""`python -m pipeline_annotate stage3`: boxes of frames get the labels of their clip's caption, and clips become records."""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from dataset_builders.command_line import emit, progress
from dataset_builders.reading import read_entries, read_records
from dataset_builders.record import Record, record_metadata, to_record
from eval.provenance import files_fingerprint

from .back_ends import load_classifier, load_tracker
from .frame_captions import CaptionedClip
from .phrase_labels import PhraseClassifier, Question
from .phrase_tracks import AS_IN_THE_PAPER, TrackOptions, distinct_phrases, make_tracks
from .stage2 import read_clips
from .stage_files import Dropped, StageWriter, check_output, in_batches, summary
from .stage_settings import StageSettings, add_language_model_argument, add_stage3_arguments, settings_of
from .video_captions import CaptionedVideo
from .visual_trackers import BoxTracker, LostClip

_AT_ONCE = 32  # clips


@dataclass(frozen=True)
class Annotated:
    """
    A clip that is done.

    Args:
        record (`dict`): as [`~dataset_builders.record`] has it; its metadata say how it was made, and what became of the boxes of
            its frames (see [`~pipeline_annotate.phrase_tracks.make_tracks`]).
    """

    record: Record

    def to_dict(self) -> Record:
        """The record."""
        return self.record


def label_clips(
    pairs: Iterable[tuple[CaptionedClip, CaptionedVideo]],
    classifier: PhraseClassifier,
    options: TrackOptions = AS_IN_THE_PAPER,
    tracker: BoxTracker | None = None,
    at_once: int = _AT_ONCE,
) -> Iterator[Annotated | Dropped]:
    """
    Records of clips, in their order, or why there is none.

    Args:
        pairs (`Iterable[tuple[CaptionedClip, CaptionedVideo]]`): of each clip its frames and its caption.
        classifier ([`PhraseClassifier`]): the back end.
        options ([`TrackOptions`], *optional*): what is done to tracks; by default as in the paper.
        tracker ([`BoxTracker`], *optional*): follows boxes in place of labels from frame to frame.
        at_once (`int`, *optional*, defaults to 32): clips whose phrases the back end is asked about together.
    """
    mine = {"stage3": _described(classifier, options, tracker)}
    for some in in_batches(pairs, at_once):
        yield from _labelled(some, classifier, options, tracker, mine)


def _described(classifier: PhraseClassifier, options: TrackOptions, tracker: BoxTracker | None) -> dict[str, Any]:
    followed = {} if tracker is None else {"tracker": dict(tracker.describe())}
    return {**classifier.describe(), "tracks": asdict(options), **followed}


def _labelled(
    pairs: list[tuple[CaptionedClip, CaptionedVideo]],
    classifier: PhraseClassifier,
    options: TrackOptions,
    tracker: BoxTracker | None,
    provenance: dict[str, Any],
) -> Iterator[Annotated | Dropped]:
    questions = [Question(distinct_phrases(clip), tuple(video.caption.phrases)) for clip, video in pairs]
    answers = classifier.classify(questions)
    for (clip, video), question, answer in zip(pairs, questions, answers, strict=True):
        labels = dict(zip(question.phrases, answer, strict=True))
        try:
            caption, boxes = make_tracks(clip, video.caption, labels, options, tracker)
        except LostClip as error:
            yield error.dropped
            continue
        if not any(track.presence.any() for track in caption.tracks):
            yield Dropped(clip.key, "no_boxes", f"no phrase of {video.caption.caption!r} has a box")
            continue
        counts = {name: count for name, count in sorted(boxes.items()) if count}
        yield Annotated(to_record(caption, {"annotation": {**video.provenance, **provenance, "boxes": counts}}))


def read_pairs(
    frames: Path, captions: Path, clips: Iterable[CaptionedClip] | None = None
) -> Iterator[tuple[CaptionedClip, CaptionedVideo]]:
    """
    The clips of both files, in the order of the second, which is that of the first but for clips that stage 2 could not do.

    Args:
        frames (`Path`), captions (`Path`): files of stages 1 and 2.
        clips (`Iterable[CaptionedClip]`, *optional*): what is in the file of stage 1, if it was read before.

    Raises:
        `ValueError`: naming the line, if one is none, or if the second file has a clip that the first has not.
    """
    clips = iter(clips or read_clips(frames))
    for entry in read_entries(str(captions)):
        try:
            video = CaptionedVideo.from_dict(entry.value)
        except ValueError as error:
            raise ValueError(f"{captions}: line {entry.number}: {error}") from None
        clip = next((clip for clip in clips if clip.key == video.key), None)
        if clip is None:
            raise ValueError(f"{captions}: line {entry.number}: {video.key!r} is not in {frames}, or not in this order")
        yield clip, video


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("frames", type=Path, metavar="FRAMES", help="what stage1 wrote")
    parser.add_argument("captions", type=Path, metavar="CAPTIONS", help="what stage2 made of it")
    parser.add_argument("--output", type=Path, required=True, metavar="FILE", help="JSONL of records to write")
    parser.add_argument("--videos", type=Path, metavar="DIR", help="folder of the videos, for --tracker sam2:MODEL")
    add_language_model_argument(parser)
    add_stage3_arguments(parser)
    parser.add_argument("--json", action="store_true", help="print the result as one JSON line")


def write_records(
    output: Path,
    frames: Path,
    captions: Path,
    settings: StageSettings,
    videos: Path | None = None,
    clips: Iterable[CaptionedClip] | None = None,
) -> dict[str, int]:
    """
    Stage 3 of files of stages 1 and 2, into a file; what is there of it already stays.

    Args:
        output (`Path`), frames (`Path`), captions (`Path`): file to write, and those of stages 1 and 2.
        settings ([`StageSettings`]): how.
        videos (`Path`, *optional*): their folder, for trackers that look at pictures.
        clips (`Iterable[CaptionedClip]`, *optional*): what is in the file of stage 1, if it was read before.

    Returns:
        `dict[str, int]`: clips `written`, and those dropped by reason.
    """
    check_output(output)
    classifier, tracker = load_classifier(settings), load_tracker(settings.tracker, videos)
    made: dict[str, Any] = {"stage3": _described(classifier, settings.tracks, tracker)}
    if videos is not None and tracker is not None:
        made["videos"] = str(videos.resolve())
    made["inputs"] = {"frames": files_fingerprint([frames]), "captions": files_fingerprint([captions])}
    with StageWriter(output, made) as writer:
        left = (pair for pair in read_pairs(frames, captions, clips) if pair[0].key not in writer.done)
        for result in progress(label_clips(left, classifier, settings.tracks, tracker), "labelling boxes"):
            writer.add([result])
    return dict(writer.counts)


def box_counts(records: Path) -> Counter[str]:
    """What became of the boxes of frames, over all records of a file."""
    counts = Counter[str]()
    for record in read_records(str(records)):
        counts.update(record_metadata(record)["annotation"]["boxes"])
    return counts


def run(args: argparse.Namespace) -> int:
    """Writes the records."""
    counts = write_records(args.output, args.frames, args.captions, settings_of(args), args.videos)
    dropped = dict(sorted(box_counts(args.output).items()))
    said = "; ".join(f"{count:,} boxes {name}" for name, count in dropped.items())
    text = f"{args.output}: {summary(counts)}{f' ({said})' if said else ''}"
    emit({"output": str(args.output), **counts, "boxes": dropped}, text, args.json)
    return 0


__all__ = ["Annotated", "box_counts", "label_clips", "read_pairs", "write_records"]

"""`python -m eval baseline`: predictions without a video model, to score like those of one (the paper's Table 2).

    python -m eval baseline center-frame val.frames.jsonl --annotations val.jsonl --output center.jsonl
    python -m eval baseline annotation automatic.jsonl --annotations val.jsonl --output automatic.jsonl
    python -m eval score iground --annotations val.jsonl --predictions center.jsonl --output results/center

`center-frame` takes what a captioner of single frames (the paper: GLaMM) says of the centre frame of every clip: its caption
stands for the clip, its boxes are predictions of that frame and of no other. The centre is the frame T // 2 of T annotated ones,
as the original's sampling of one frame has it. `annotation` takes automatic annotation as it is for predictions. Both have at
most one box of a phrase in a frame, as a model's predictions have: instances become their union.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from dataset_builders.command_line import emit, progress
from dataset_builders.reading import read_entries
from dataset_builders.record import from_record, record_key
from modeling_grove.grounded_caption import GroundedCaption, atomic_path

from .iground_files import read_caption

# What a line of `{split}.frames.jsonl` has for every frame, under `frames`.
_FRAME_FIELDS = ("frame_index", "caption", "phrases", "bboxes", "labels")

Baseline = Callable[[GroundedCaption, Mapping[str, Any]], GroundedCaption]


def center_frame_prediction(reference: GroundedCaption, captions: Mapping[str, Any]) -> GroundedCaption:
    """
    What captions of single frames say of a clip by its centre frame.

    Args:
        reference ([`GroundedCaption`]):
            The annotation: which frames there are, and the size of them.
        captions (`Mapping[str, Any]`):
            A line of `{split}.frames.jsonl`: `frames`, each with `frame_index` (of the source), `caption`, `tagged_caption`
            (optional), `phrases`, and a box xyxy in pixels and label each in `bboxes` and `labels`.

    Returns:
        [`GroundedCaption`]: of one frame.

    Raises:
        `ValueError`: if there is no caption of the centre frame, or it is not one.
    """
    place = reference.num_frames // 2
    index = int(reference.frame_indices[place])
    frames = captions.get("frames")
    if not isinstance(frames, list) or not all(isinstance(frame, dict) for frame in frames):
        raise ValueError("frames: expected a list of captions of single frames")
    frame = next((frame for frame in frames if frame.get("frame_index") == index), None)
    if frame is None:
        known = sorted(frame["frame_index"] for frame in frames if isinstance(frame.get("frame_index"), int))
        there = f"{len(known)} others, {known[0]}..{known[-1]}" if known else "none"
        raise ValueError(f"frames: no caption of source frame {index}, the centre of the clip; got {there}")
    if missing := [name for name in _FRAME_FIELDS if frame.get(name) is None]:
        raise ValueError(f"frames: {', '.join(missing)} missing from the caption of source frame {index}")
    values = {
        **reference.to_dict(),
        "caption": frame["caption"],
        "tagged_caption": frame.get("tagged_caption"),
        "phrases": frame["phrases"],
        "bboxes": [frame["bboxes"]],
        "labels": [frame["labels"]],
        "tracks": None,
        "frame_indices": [index],
        "timestamps": [float(reference.timestamps[place])],
    }
    return GroundedCaption.from_dict(values).merged()


def annotation_prediction(reference: GroundedCaption, record: Mapping[str, Any]) -> GroundedCaption:
    """
    An automatic annotation as a prediction.

    Args:
        reference ([`GroundedCaption`]):
            The annotation by people.
        record (`Mapping[str, Any]`):
            The automatic one of the same clip.

    Raises:
        `ValueError`: if it is no record, or of frames of another size, as its boxes are in their pixels.
    """
    clip = from_record(record)
    size, expected = (clip.width, clip.height), (reference.width, reference.height)
    if size != expected:
        raise ValueError(
            f"width, height: got {size[0]} x {size[1]}, but the clip is annotated at {expected[0]} x {expected[1]}"
        )
    return clip.merged()


KINDS: dict[str, tuple[Baseline, str]] = {
    "center-frame": (center_frame_prediction, "captions of single frames ({split}.frames.jsonl)"),
    "annotation": (annotation_prediction, "automatically annotated records"),
}


def baseline_predictions(
    kind: str, references: Iterable[GroundedCaption], source: Iterable[Mapping[str, Any]]
) -> Iterator[GroundedCaption]:
    """
    The predictions of a baseline, in the order of the references; clips that the source does not have are left out.

    Args:
        kind (`str`): "center-frame" or "annotation".
        references (`Iterable[GroundedCaption]`): The annotation to score against.
        source (`Iterable[Mapping[str, Any]]`): What the predictions are made of, an object a clip, in any order.

    Raises:
        `ValueError`: naming the clip, if its object is not what it should be or is there twice; if one of both has no clips, or
            none is in both.
    """
    make, what = KINDS[kind]
    by_key: dict[str, Mapping[str, Any]] = {}
    for value in source:
        if value.get("video_id") is None or value.get("clip_id") is None:
            raise ValueError(f"video_id, clip_id: missing from entry {len(by_key) + 1} of the {what}")
        key = record_key(value)
        if key in by_key:
            raise ValueError(f"clip {key!r}: is twice among the {what}; keep one of them")
        by_key[key] = value
    if not by_key:
        raise ValueError(f"no clip among the {what}: is the file empty?")
    found, reference = False, None
    for reference in references:
        if reference.key in by_key:
            found = True
            try:
                prediction = make(reference, by_key[reference.key])
            except ValueError as error:
                raise ValueError(f"clip {reference.key!r}: {error}") from None
            yield prediction
    if reference is None:
        raise ValueError("no clip among the annotations: is the file empty?")
    if not found:
        examples = ", ".join(map(repr, [*by_key][:3]))
        raise ValueError(f"none of the annotated clips is among the {what} (such as {examples}); is it another split?")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of the command."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = "what SOURCE is:\n" + "\n".join(f"  {kind:13} {what}" for kind, (_, what) in KINDS.items())
    parser.add_argument("kind", choices=KINDS, metavar="KIND", help=", ".join(KINDS))
    parser.add_argument("source", type=Path, metavar="SOURCE", help="JSONL that predictions are made of")
    parser.add_argument("--annotations", type=Path, required=True, metavar="FILE", help="records to be scored against")
    parser.add_argument("--output", type=Path, required=True, metavar="FILE", help="JSONL to write the predictions to")
    parser.add_argument("--json", action="store_true", help="print the counts as one JSON line")


def run(args: argparse.Namespace) -> int:
    """Writes the predictions, and says how many there are."""
    counts = {"clips": 0, "predicted": 0, "boxes": 0}

    def references() -> Iterator[GroundedCaption]:
        for entry in progress(read_entries(args.annotations), "making predictions"):
            counts["clips"] += 1
            yield read_caption(entry, f"{args.annotations}: entry {entry.number}")

    source = (entry.value for entry in read_entries(args.source))
    args.output.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(args.output) as temporary, temporary.open("w", encoding="utf-8") as file:
        for prediction in baseline_predictions(args.kind, references(), source):
            file.write(json.dumps(prediction.to_dict(), ensure_ascii=False, allow_nan=False) + "\n")
            counts["predicted"] += 1
            counts["boxes"] += sum(int(track.presence.sum()) for track in prediction.tracks)
    text = f"{args.output}: {counts['predicted']} of {counts['clips']} clips, {counts['boxes']} boxes"
    emit(counts, text, as_json=args.json)
    return 0


__all__ = ["KINDS", "add_arguments", "annotation_prediction", "baseline_predictions", "center_frame_prediction", "run"]

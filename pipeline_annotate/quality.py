"""
How good the stages are where the truth is known: GroundedShapes, captioned frame by frame with errors.

    python -m pipeline_annotate quality --spacy en_core_web_sm --output outputs/quality

The rows are ways to make annotations of the same frame captions; the columns what they are worth against the truth: AP50, Recall
and CIDEr of the corrected iGround protocol, and how consistent labels are: the share of an object's boxes that have its most
frequent label.
"""

from __future__ import annotations

import argparse
import json
import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from dataset_builders.__main__ import main as dataset_command
from dataset_builders.command_line import emit
from dataset_builders.reading import read_records
from dataset_builders.record import Record, from_record, record_key
from eval.__main__ import main as eval_command
from eval.ablation_tables import document, markdown_table
from eval.boxes import iou
from eval.provenance import describe_machine
from eval.result_files import json_ready, write_json
from modeling_grove.grounded_caption import atomic_path

from .back_ends import load_classifier, load_tracker, load_video_captioner
from .captioners import caption_clips
from .clip_lists import read_table
from .facts import DEFAULT_SPACY_MODEL, load_spacy
from .frame_captions import CaptionedClip
from .frame_wise import MiddleFrameCaptioner, SameWordsClassifier
from .phrase_labels import PhraseClassifier, RulesClassifier
from .phrase_tracks import AS_IN_THE_PAPER, TrackOptions
from .rules_captioner import RulesCaptioner
from .shapes_captioner import FrameNoise, ShapesCaptioner
from .stage2 import caption_videos
from .stage3 import Annotated, label_clips
from .stage_files import Dropped
from .stage_settings import (
    NO_CAPTIONER,
    StageSettings,
    add_language_model_argument,
    add_similarity_argument,
    add_tracker_argument,
    add_video_captioner_argument,
)
from .video_captions import CaptionChecks, VideoCaptioner
from .visual_trackers import BoxTracker, ByteTracker

METRICS = ("AP50", "Recall", "CIDEr")
CONSISTENCY = "label consistency"
logger = logging.getLogger(__name__)

_FOLDERS = ("modeling_grove", "dataset_builders", "eval", "pipeline_annotate")


@dataclass(frozen=True)
class Way:
    """
    A way to make annotations of frame captions.

    Args:
        captioner ([`VideoCaptioner`]), classifier ([`PhraseClassifier`]): of stages 2 and 3.
        tracks ([`TrackOptions`]): what is done to tracks.
        tracker ([`BoxTracker`]): in place of labels from frame to frame.
    """

    captioner: VideoCaptioner = field(default_factory=RulesCaptioner)
    classifier: PhraseClassifier = field(default_factory=RulesClassifier)
    tracks: TrackOptions = AS_IN_THE_PAPER
    tracker: BoxTracker | None = None


def ways(more: Mapping[str, Way] | None = None) -> dict[str, Way]:
    """
    The rows of the table.

    Args:
        more (`Mapping[str, Way]`, *optional*): rows of models (see [`ways_of_models`]).
    """
    return {
        "frame by frame": Way(MiddleFrameCaptioner(), SameWordsClassifier()),
        "one caption, labels of the same words": Way(classifier=SameWordsClassifier()),
        "middle frame's caption, labels by rules": Way(MiddleFrameCaptioner()),
        "all three stages": Way(),
        "... scores from 0.6 on": Way(tracks=TrackOptions(min_score=0.6)),
        "... without outliers": Way(tracks=TrackOptions(reject_outliers=0.3)),
        "... gaps of 3 frames filled": Way(tracks=TrackOptions(fill_gaps=3)),
        "... phrases of 3 frames on": Way(tracks=TrackOptions(min_frames=3)),
        "... the last three together": Way(tracks=TrackOptions(reject_outliers=0.3, fill_gaps=3, min_frames=3)),
        **(more or {}),
    }


def ways_of_models(args: argparse.Namespace, videos: Path) -> dict[str, Way]:
    """
    The rows of the paper's alternatives: a tracker, and the models that a command line names.

    Raises:
        `ValueError`: if one cannot be loaded.
    """
    rows = {}
    if find_spec("trackers") is None:
        logger.warning("`trackers` is not installed, so ByteTrack has no row; `pip install trackers`")
    else:
        rows["a tracker (ByteTrack) in place of stage 3"] = Way(tracker=ByteTracker())
    if args.tracker is not None:
        settings = StageSettings(NO_CAPTIONER, tracker=args.tracker)
        rows[f"a tracker ({_public(args.tracker)}) in place of stage 3"] = Way(
            tracker=load_tracker(settings.tracker, videos)
        )
    if args.similarity is not None:
        settings = StageSettings(NO_CAPTIONER, similarity=args.similarity)
        rows[f"labels by rules and an encoder ({_public(args.similarity)})"] = Way(classifier=load_classifier(settings))
    written = StageSettings(NO_CAPTIONER, args.language_model, args.quantize)
    if args.language_model != "rules":
        name, labels = f"a language model ({_public(args.language_model)})", load_classifier(written)
        rows[name] = Way(load_video_captioner(written), labels)
        rows["... that reads whole captions"] = Way(load_video_captioner(replace(written, whole_captions=True)), labels)
        rows["... for labels alone"] = Way(classifier=labels)
        if args.language_model.startswith("transformers"):
            likely = load_classifier(replace(written, by_likelihood=True))
            rows["... for labels alone, by likelihood"] = Way(classifier=likely)
    if args.video_captioner is not None:
        settings = StageSettings(NO_CAPTIONER, video_captioner=args.video_captioner, spacy=args.spacy)
        name = f"a video captioner ({_public(args.video_captioner)}) in place of stage 2"
        rows[name] = Way(load_video_captioner(settings, videos))
    return rows


def _public(name: str) -> str:
    """A back end's name without the folders of this machine, or a server's address."""
    if Path(name).is_dir():
        return Path(name).resolve().name
    kind, colon, model = name.partition(":")
    model = model.rpartition("@")[0] if kind == "http" else model
    return f"{kind}{colon}{Path(model).name if Path(model).is_dir() else model}"


def label_consistency(truth: Sequence[Record], found: Mapping[str, Record]) -> float:
    """
    Over all objects of all clips: the share of their boxes, those that a found box meets by half, that have the object's most
    frequent label.

    Args:
        truth (`Sequence[Record]`): raw or processed.
        found (`Mapping[str, Record]`): by key; boxes may have any labels.
    """
    same = total = 0
    for record in truth:
        other = found.get(record_key(record))
        if other is None:
            continue
        of_frame = {
            index: (np.array(boxes, np.float64).reshape(-1, 4), labels)
            for index, boxes, labels in zip(other["frame_indices"], other["bboxes"], other["labels"], strict=True)
        }
        clip = from_record(record)
        for track in clip.tracks:
            labels = []
            for index, box, seen in zip(clip.frame_indices.tolist(), track.boxes, track.presence, strict=True):
                boxes, names = of_frame.get(index, (np.empty((0, 4)), []))
                if seen and len(boxes) and (near := iou(boxes, box[None].astype(np.float64))).max() >= 0.5:
                    labels.append(names[int(near.argmax())].lower())
            same += max(Counter(labels).values(), default=0)
            total += len(labels)
    return same / total if total else float("nan")


def frame_labels(clips: Sequence[CaptionedClip]) -> dict[str, Record]:
    """The boxes of frame captions with their own labels, as records have them."""
    return {
        clip.key: {
            "frame_indices": [frame.frame_index for frame in clip.frames],
            "bboxes": [frame.to_dict()["bboxes"] for frame in clip.frames],
            "labels": [frame.to_dict()["labels"] for frame in clip.frames],
        }
        for clip in clips
    }


def measure(
    way: Way, clips: Sequence[CaptionedClip], pipeline: Any, truth: Path, folder: Path, own_labels: bool = False
) -> dict[str, float]:
    """
    What a way is worth.

    Args:
        way ([`Way`]): to be measured.
        clips (`Sequence[CaptionedClip]`): from stage 1.
        pipeline (`spacy.Language`): of stage 2.
        truth (`Path`): true records.
        folder (`Path`): for records and scores.
        own_labels (`bool`, *optional*, defaults to `False`): whether consistency is that of the frames' own labels.
    """
    videos = {
        video.key: video
        for video in caption_videos(clips, pipeline, way.captioner, CaptionChecks())
        if not isinstance(video, Dropped)
    }
    pairs = [(clip, videos[clip.key]) for clip in clips if clip.key in videos]
    made = [
        result
        for result in label_clips(pairs, way.classifier, way.tracks, way.tracker)
        if isinstance(result, Annotated)
    ]
    folder.mkdir(parents=True, exist_ok=True)
    with atomic_path(folder / "records.jsonl") as temporary:
        temporary.write_text(
            "".join(json.dumps(one.record, ensure_ascii=False) + "\n" for one in made), encoding="utf-8"
        )
    if not made:  # a model may give nothing that can be used
        return {**dict.fromkeys(METRICS, 0.0), CONSISTENCY: float("nan"), "clips": 0}
    line = ["score", "iground", "--annotations", str(truth), "--predictions", str(folder / "records.jsonl"),
            "--text-similarity", "head-word", "--output", str(folder / "scores")]  # fmt: skip
    if eval_command(line):
        raise ValueError(f"{folder}: the records could not be scored; what was said stands above")
    headline = json.loads((folder / "scores" / "results.json").read_text(encoding="utf-8"))["headline"]["corrected"]
    found = frame_labels(clips) if own_labels else {record_key(one.record): one.record for one in made}
    consistency = 100 * label_consistency([*read_records(str(truth))], found)
    return {**{name: headline[name] for name in METRICS}, CONSISTENCY: consistency, "clips": len(made)}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.description = __doc__
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="folder of data and results")
    parser.add_argument("--clips", type=int, default=100, metavar="N", help="of GroundedShapes (default: %(default)s)")
    parser.add_argument(
        "--seeds", type=int, nargs="+", default=[0, 1, 2], metavar="N", help="of errors (default: 0 1 2)"
    )
    parser.add_argument(
        "--spacy", default=DEFAULT_SPACY_MODEL, metavar="MODEL", help="package or folder (default: %(default)s)"
    )
    add_language_model_argument(parser)
    add_video_captioner_argument(parser)
    add_tracker_argument(parser)
    add_similarity_argument(parser)
    parser.add_argument("--workers", type=int, default=2, help="processes that make clips (default: %(default)s)")
    parser.add_argument("--json", action="store_true", help="print the numbers as one JSON line")


def run(args: argparse.Namespace) -> int:
    """Measures all ways, and writes the table."""
    if args.clips < 1 or len({*args.seeds}) != len(args.seeds) or min(args.seeds) < 0:
        raise ValueError(
            f"--clips {args.clips}, --seeds {args.seeds}; expected at least 1 clip and different seeds from 0 on"
        )
    pipeline, world = load_spacy(args.spacy), args.output / "shapes"
    line = [
        "shapes",
        "--output",
        str(world),
        "--split",
        f"test={args.clips}",
        "--seed",
        "9",
        "--workers",
        str(args.workers),
    ]
    if dataset_command(line):
        raise ValueError(f"{world}: the clips could not be made; what was said stands above")
    truth = world / "test.jsonl"
    all_ways = ways(ways_of_models(args, world / "videos"))
    rows: dict[str, list[dict[str, float]]] = {name: [] for name in all_ways}
    for seed in args.seeds:
        captioner = ShapesCaptioner(world / "test.frames.jsonl", FrameNoise(), seed)
        clips = [
            clip
            for clip in caption_clips(read_table(truth), world / "videos", captioner)
            if isinstance(clip, CaptionedClip)
        ]
        for number, (name, way) in enumerate(all_ways.items()):
            folder = args.output / f"seed-{seed}" / str(number)
            rows[name].append(measure(way, clips, pipeline, truth, folder, own_labels=number == 0))
    content = {
        "rows": rows,
        "seeds": args.seeds,
        "clips": args.clips,
        "noise": captioner.describe()["noise"],
        "spacy": f"{pipeline.meta['lang']}_{pipeline.meta['name']} {pipeline.meta['version']}",
        **describe_machine("cpu", _FOLDERS),
    }
    write_json(args.output / "quality.json", content)
    table = quality_table(rows)
    notes = [
        f"{args.clips} clips, errors of the seeds {args.seeds}: mean and half of the range",
        f"spaCy: {content['spacy']}",
    ]
    with atomic_path(args.output / "quality.md") as temporary:
        temporary.write_text(document("Ways to annotate", table, notes), encoding="utf-8")
    emit(json_ready(content), table, args.json)
    return 0


def quality_table(rows: Mapping[str, Sequence[Mapping[str, float]]]) -> str:
    """The table, with half of the seeds' range beside the mean, and of how many clips there were annotations."""
    cells = [["way", *METRICS, CONSISTENCY, "clips"]]
    for name, results in rows.items():
        numbers = [np.array([result[metric] for result in results]) for metric in (*METRICS, CONSISTENCY)]
        written = [f"{one.mean():.1f} ± {np.ptp(one) / 2:.1f}" for one in numbers]
        cells.append([name, *written, f"{np.mean([result['clips'] for result in results]):.0f}"])
    return markdown_table(cells)


__all__ = ["METRICS", "Way", "frame_labels", "label_consistency", "measure", "quality_table", "ways", "ways_of_models"]

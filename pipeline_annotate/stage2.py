"""`python -m pipeline_annotate stage2`: one caption for each clip, from those of its frames."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from dataset_builders.command_line import emit, progress
from dataset_builders.reading import read_entries

from .facts import DEFAULT_SPACY_MODEL, facts_of, load_spacy
from .frame_captions import CaptionedClip
from .rules_captioner import RulesCaptioner
from .stage_files import Dropped, StageWriter, summary
from .video_captions import CaptionChecks, CaptionedVideo, ClipFacts, VideoCaption, VideoCaptioner

_AT_ONCE = 32  # clips


def caption_videos(
    clips: Iterable[CaptionedClip], pipeline: Any, captioner: VideoCaptioner, checks: CaptionChecks
) -> Iterator[CaptionedVideo | Dropped]:
    """
    A caption for each clip, in their order, or why there is none.

    Args:
        clips (`Iterable[CaptionedClip]`): from stage 1.
        pipeline (`spacy.Language`): takes the frames' captions apart.
        captioner ([`VideoCaptioner`]): the back end.
        checks ([`CaptionChecks`]): what a caption has to be.
    """
    meta = pipeline.meta
    mine = {"stage2": {**captioner.describe(), "spacy": f"{meta['lang']}_{meta['name']} {meta['version']}"}}
    for some in _in_batches(clips):
        captions = [frame.caption for clip in some for frame in clip.frames]
        found = facts_of(captions, pipeline)
        facts = [ClipFacts(clip, tuple(tuple(next(found)) for _ in clip.frames)) for clip in some]
        for of_clip, caption in zip(facts, captioner.write(facts), strict=True):
            clip = of_clip.clip
            bad = caption if isinstance(caption, Dropped) else checks.check(caption, clip)
            if bad is not None:
                yield bad
            elif isinstance(caption, VideoCaption):
                yield CaptionedVideo(clip.clip_fields(), caption, of_clip.facts, {**clip.provenance, **mine})


def _in_batches(clips: Iterable[CaptionedClip]) -> Iterator[list[CaptionedClip]]:
    some: list[CaptionedClip] = []
    for clip in clips:
        some.append(clip)
        if len(some) == _AT_ONCE:
            yield some
            some = []
    if some:
        yield some


def read_clips(path: Path) -> Iterator[CaptionedClip]:
    """
    The clips of a file of stage 1.

    Raises:
        `ValueError`: naming the line, if one is none.
    """
    for entry in read_entries(str(path)):
        try:
            yield CaptionedClip.from_dict(entry.value)
        except ValueError as error:
            raise ValueError(f"{path}: line {entry.number}: {error}") from None


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("frames", type=Path, metavar="FILE", help="what stage1 wrote")
    parser.add_argument("--output", type=Path, required=True, metavar="FILE", help="JSONL to write, a clip a line")
    parser.add_argument(
        "--spacy", default=DEFAULT_SPACY_MODEL, metavar="MODEL", help="package or folder (default: %(default)s)"
    )
    parser.add_argument(
        "--max-words",
        type=int,
        default=CaptionChecks.max_words,
        metavar="N",
        help="of a caption (default: %(default)s)",
    )
    parser.add_argument("--allow-unknown-things", action="store_true", help="let a caption name what no frame mentions")
    parser.add_argument("--json", action="store_true", help="print the result as one JSON line")


def run(args: argparse.Namespace) -> int:
    """Writes the captions of clips."""
    checks = CaptionChecks(max_words=args.max_words, known_things=not args.allow_unknown_things)
    pipeline, captioner = load_spacy(args.spacy), RulesCaptioner()
    settings = {"stage2": captioner.describe(), "spacy": args.spacy, "checks": vars(checks), "frames": str(args.frames)}
    with StageWriter(args.output, settings) as writer:
        left = (clip for clip in read_clips(args.frames) if clip.key not in writer.done)
        for video in progress(caption_videos(left, pipeline, captioner, checks), "captioning clips"):
            writer.add([video])
    counts = dict(writer.counts)
    emit({"output": str(args.output), **counts}, f"{args.output}: {summary(counts)}", args.json)
    return 0


__all__ = ["caption_videos", "read_clips"]

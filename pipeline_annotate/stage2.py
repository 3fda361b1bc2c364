"""`python -m pipeline_annotate stage2`: one caption for each clip, from those of its frames."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from dataset_builders.command_line import emit, progress
from dataset_builders.reading import read_entries
from eval.provenance import files_fingerprint

from .back_ends import load_pipeline, load_video_captioner
from .facts import facts_of
from .frame_captions import CaptionedClip
from .stage_files import Dropped, StageWriter, check_output, in_batches, summary
from .stage_settings import StageSettings, add_language_model_argument, add_stage2_arguments, settings_of
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
    for some in in_batches(clips, _AT_ONCE):
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


def write_captions(
    output: Path,
    frames: Path,
    settings: StageSettings,
    videos: Path | None = None,
    clips: Iterable[CaptionedClip] | None = None,
) -> dict[str, int]:
    """
    Stage 2 of a file of stage 1, into a file; what is there of it already stays.

    Args:
        output (`Path`), frames (`Path`): file to write, and that of stage 1.
        settings ([`StageSettings`]): how.
        videos (`Path`, *optional*): their folder, for captioners of videos.
        clips (`Iterable[CaptionedClip]`, *optional*): what is in the file of stage 1, if it was read before.

    Returns:
        `dict[str, int]`: clips `written`, and those dropped by reason.
    """
    check_output(output)
    pipeline, captioner = load_pipeline(settings.spacy), load_video_captioner(settings, videos)
    made = {"stage2": dict(captioner.describe()), "spacy": settings.spacy, "checks": asdict(settings.checks)}
    made["frames"] = files_fingerprint([frames])
    if videos is not None and settings.video_captioner is not None:
        made["videos"] = str(videos.resolve())
    with StageWriter(output, made) as writer:
        left = (clip for clip in clips or read_clips(frames) if clip.key not in writer.done)
        for video in progress(caption_videos(left, pipeline, captioner, settings.checks), "captioning clips"):
            writer.add([video])
    return dict(writer.counts)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("frames", type=Path, metavar="FILE", help="what stage1 wrote")
    parser.add_argument("--output", type=Path, required=True, metavar="FILE", help="JSONL to write, a clip a line")
    parser.add_argument("--videos", type=Path, metavar="DIR", help="folder of the videos, for --video-captioner")
    add_language_model_argument(parser)
    add_stage2_arguments(parser)
    parser.add_argument("--json", action="store_true", help="print the result as one JSON line")


def run(args: argparse.Namespace) -> int:
    """Writes the captions of clips."""
    counts = write_captions(args.output, args.frames, settings_of(args), args.videos)
    emit({"output": str(args.output), **counts}, f"{args.output}: {summary(counts)}", args.json)
    return 0


__all__ = ["caption_videos", "read_clips", "write_captions"]

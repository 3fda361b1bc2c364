"""
`python -m pipeline_annotate check`: whether a run could start, and what it will cost.

    python -m pipeline_annotate check videos --captioner glamm:checkpoints/glamm --project 1000000

Every back end that the run would use is loaded, and a sample of the clips goes through all three stages with a clock.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from dataset_builders.command_line import emit

from .clip_lists import ClipRequest
from .stage_files import summary
from .stage_settings import (
    StageSettings,
    add_language_model_argument,
    add_stage1_arguments,
    add_stage2_arguments,
    add_stage3_arguments,
    settings_of,
)

_PACKAGES = ("torch", "transformers", "datatrove", "spacy", "av")


@dataclass(frozen=True)
class Finding:
    """
    Whether something is there.

    Args:
        name (`str`): what it is.
        ok (`bool`): whether it is.
        said (`str`): which, or what is wrong.
    """

    name: str
    ok: bool
    said: str


def packages() -> Iterator[Finding]:
    """What is installed, and what it would run on."""
    for name in _PACKAGES:
        try:
            yield Finding(name, True, version(name))
        except PackageNotFoundError:
            yield Finding(name, False, 'not installed; `pip install "grove-video[annotate]"`')
    gpus = [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())]
    yield Finding("device", True, ", ".join(gpus) or f"no GPU; {os.cpu_count()} cores")


def back_ends(settings: StageSettings, videos: Path) -> Iterator[Finding]:
    """Loads every back end that a run would use."""
    from .back_ends import load_captioner, load_classifier, load_pipeline, load_tracker, load_video_captioner

    loads: list[tuple[str, str, Callable[[], Any]]] = [
        ("spaCy model", settings.spacy, lambda: load_pipeline(settings.spacy)),
        ("captioner", settings.captioner, lambda: load_captioner(settings.captioner, settings.seed)),
        ("language model", settings.language_model, lambda: _answering(settings)),
    ]
    if settings.video_captioner is not None:
        loads.append(("video captioner", settings.video_captioner, lambda: load_video_captioner(settings, videos)))
    if settings.similarity is not None:
        loads.append(("similarity", settings.similarity, lambda: load_classifier(settings)))
    if settings.tracker is not None:
        loads.append(("tracker", settings.tracker, lambda: load_tracker(settings.tracker, videos)))
    for name, which, load in loads:
        start = time.perf_counter()
        try:
            load()
        except (ValueError, OSError) as error:
            yield Finding(name, False, " ".join(str(error).split()))
        else:
            yield Finding(name, True, f"{which}, ready in {time.perf_counter() - start:.1f} s")


def _answering(settings: StageSettings) -> None:
    """Loads the language model; a server's has to answer too."""
    from .back_ends import load_language_model

    model = load_language_model(settings.language_model, settings.quantization)
    if model is not None:
        model.answer([[{"role": "user", "content": "Say yes."}]])


def time_sample(requests: Sequence[ClipRequest], videos: Path, settings: StageSettings) -> dict[str, Any]:
    """
    Takes clips through the stages; what is loaded already is not counted.

    Args:
        requests (`Sequence[ClipRequest]`): the sample.
        videos (`Path`): folder of the videos.
        settings ([`StageSettings`]): how.

    Returns:
        `dict`: `clips` by what became of them, and `seconds` of every stage.
    """
    from .engine import STAGES, part_counts
    from .stage1 import write_frames
    from .stage2 import write_captions
    from .stage3 import write_records

    seconds = {}
    with tempfile.TemporaryDirectory() as temporary:
        frames, captions, records = (Path(temporary) / f"{stage}.jsonl" for stage in STAGES)
        for stage, work in (
            ("frames", lambda: write_frames(frames, requests, videos, settings)),
            ("captions", lambda: write_captions(captions, frames, settings, videos)),
            ("records", lambda: write_records(records, frames, captions, settings, videos)),
        ):
            start = time.perf_counter()
            work()
            seconds[stage] = time.perf_counter() - start
        return {"clips": part_counts(Path(temporary)), "seconds": seconds}


def spread(requests: Sequence[ClipRequest], count: int) -> list[ClipRequest]:
    """A sample of clips, evenly over the list."""
    count = min(count, len(requests))
    return [requests[(2 * place + 1) * len(requests) // (2 * count)] for place in range(count)]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.description = __doc__
    parser.add_argument("videos", type=Path, metavar="DIR", help="folder of the videos")
    parser.add_argument("--clips", type=Path, metavar="FILE", help="table of clips (default: all videos)")
    parser.add_argument("--window", type=float, metavar="SECONDS", help="cut clips into windows of this length")
    add_stage1_arguments(parser)
    add_language_model_argument(parser)
    add_stage2_arguments(parser)
    add_stage3_arguments(parser)
    parser.add_argument(
        "--sample", type=int, default=8, metavar="N", help="clips to time; 0 for none (default: %(default)s)"
    )
    parser.add_argument(
        "--project", type=int, metavar="N", help="say what so many clips will cost (default: as many as were asked for)"
    )
    parser.add_argument("--json", action="store_true", help="print what was found as one JSON line")


def run(args: argparse.Namespace) -> int:
    """Checks; the status is 2 if something is missing."""
    if args.sample < 0 or (args.project is not None and args.project < 1):
        raise ValueError(f"--sample {args.sample}, --project {args.project}; expected at least 0 and at least 1")
    if not args.videos.is_dir():
        raise ValueError(f"{args.videos}: no such folder of videos")
    settings, requests, found = settings_of(args), [], [*packages()]
    if all(one.ok for one in found):  # without these nothing else could be imported
        from .stage1 import requested

        requests = requested(args.videos, args.clips, None, args.window)
        found += [*back_ends(settings, args.videos), Finding("clips", True, f"{len(requests):,}")]
    content: dict[str, Any] = {"checks": [vars(one) for one in found], "sample": None}
    text = [f"{'ok     ' if one.ok else 'MISSING'} {one.name}: {one.said}" for one in found]
    if missing := [one.name for one in found if not one.ok]:
        text.append(f"Missing: {', '.join(missing)}; nothing was timed.")
    elif args.sample:
        sample = time_sample(spread(requests, args.sample), args.videos, settings)
        sample |= {
            "device": "GPU" if torch.cuda.is_available() else "CPU",
            "projected_clips": args.project or len(requests),
        }
        sample["projected_hours"] = sum(sample["seconds"].values()) / _tried(sample) * sample["projected_clips"] / 3600
        content["sample"] = sample
        text += _costs(sample)
    emit(content, "\n".join(text), args.json)
    return 2 if missing else 0


def _tried(sample: Mapping[str, Any]) -> int:
    return sum(sample["clips"].values())


def _costs(sample: Mapping[str, Any]) -> list[str]:
    """The lines about the sample."""
    count, seconds = _tried(sample), sample["seconds"]
    clips = dict(sample["clips"])
    parts = ", ".join(f"{stage} {value / count:.2f} s" for stage, value in seconds.items())
    what = f"{sample['device']} hours"
    return [
        f"Sample: {summary({'written': clips.pop('annotated'), **clips})}",
        f"A clip takes {sum(seconds.values()) / count:.2f} s in one process ({parts}).",
        f"{sample['projected_clips']:,} clips: {sample['projected_hours']:,.2f} {what}, divided by the number of processes.",
    ]


__all__ = ["Finding", "back_ends", "packages", "spread", "time_sample"]

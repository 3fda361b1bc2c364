"""
What the engine of `pipeline_annotate` costs over its bare stages, what a second process brings, and clips a second of each stage.

    python benchmarks/annotate.py --output benchmarks/results/annotate.json
    python benchmarks/annotate.py --glamm full --device cuda --dtype bfloat16 --output benchmarks/results/annotate_cuda.json

With `--glamm` a GLaMM of random weights captions frames in batches and one at a time, which is the paper's way. See
`benchmarks/README.md`.
"""

import argparse
import functools
import json
import math
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoTokenizer

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # run from a checkout, installed or not

from benchmarks.random_models import ForcedCaption, build_caption_ids, build_glamm, build_prompt_ids
from dataset_builders.__main__ import main as dataset_command
from eval.provenance import describe_machine
from eval.result_files import write_json
from pipeline_annotate.back_ends import load_captioner, load_classifier, load_pipeline, load_video_captioner
from pipeline_annotate.captioners import caption_clips
from pipeline_annotate.clip_lists import ClipRequest, read_table
from pipeline_annotate.engine import AnnotateParts, ResilientExecutor, write_requests
from pipeline_annotate.frame_captions import CaptionedClip
from pipeline_annotate.glamm_captioner import GlammCaptioner
from pipeline_annotate.mask_boxes import MaskBoxes
from pipeline_annotate.stage2 import caption_videos
from pipeline_annotate.stage3 import label_clips
from pipeline_annotate.stage_settings import StageSettings
from pipeline_annotate.video_captions import CaptionedVideo
from tests.pipeline_annotate.spacy_pipeline import train as train_spacy

FRAMES_PER_CLIP = 44.6  # of HowToGround1M (paper, Table 1)
TOKENIZER = Path(__file__).parents[1] / "tests" / "golden" / "glamm" / "gcg_a" / "tokenizer"
_FOLDERS = ("modeling_grove", "dataset_builders", "eval", "pipeline_annotate", "benchmarks")


def bare_stages(requests: Sequence[ClipRequest], videos: Path, settings: StageSettings) -> dict[str, float]:
    """Seconds of each stage over clips in memory: no files, no tasks."""
    captioner, pipeline = load_captioner(settings.captioner, settings.seed), load_pipeline(settings.spacy)
    seconds, start = {}, time.perf_counter()

    def turn(stage: str) -> None:
        nonlocal start
        seconds[stage], start = time.perf_counter() - start, time.perf_counter()

    clips = [clip for clip in caption_clips(requests, videos, captioner) if isinstance(clip, CaptionedClip)]
    turn("frames")
    written = caption_videos(clips, pipeline, load_video_captioner(settings), settings.checks)
    captioned = {video.key: video for video in written if isinstance(video, CaptionedVideo)}
    turn("captions")
    pairs = [(clip, captioned[clip.key]) for clip in clips if clip.key in captioned]
    made = len([*label_clips(pairs, load_classifier(settings))])
    turn("records")
    if made != len(requests):
        raise ValueError(f"{made} of {len(requests)} clips were annotated; expected all")
    return seconds


def engine(output: Path, requests: Sequence[ClipRequest], videos: Path, settings: StageSettings, tasks: int,
           workers: int) -> ResilientExecutor:  # fmt: skip
    """An engine over clips, in a folder that is made new."""
    shutil.rmtree(output, ignore_errors=True)
    output.mkdir(parents=True)
    write_requests(output, requests)
    block = AnnotateParts(str(output), str(videos), settings, math.ceil(len(requests) / tasks))
    return ResilientExecutor([block], tasks=tasks, workers=workers, logging_dir=str(output / "logs"))


def _run_here(executor: ResilientExecutor, tasks: int) -> None:
    for rank in range(tasks):
        executor._run_for_rank(rank, 1)


def timed(work: Callable[[], Any]) -> float:
    """Seconds of a call."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def measure_engine(args: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """The engine's cost in this process, task by task, in turn with the bare stages; then in one process and in two."""
    line = ["shapes", "--output", str(folder / "world"), "--split", f"train={args.clips}", "--workers", "2"]
    if dataset_command(line):
        raise ValueError(f"{folder}: the clips could not be made; what was said stands above")
    spacy = train_spacy(folder / "spacy") if args.spacy is None else args.spacy
    requests, videos = read_table(folder / "world" / "train.jsonl"), folder / "world" / "videos"
    settings = StageSettings(f"shapes:{folder / 'world' / 'train.frames.jsonl'}", spacy=str(spacy))
    bare: list[dict[str, float]] = []
    whole: list[float] = []
    for turn in range(args.repeat + 1):  # the first is not counted
        stages = bare_stages(requests, videos, settings)
        executor = engine(folder / "run", requests, videos, settings, args.tasks, 1)
        seconds = timed(functools.partial(_run_here, executor, args.tasks))
        if turn:
            bare.append(stages)
            whole.append(seconds)
    overhead = [seconds - sum(stages.values()) for seconds, stages in zip(whole, bare, strict=True)]
    pools = {
        workers: [
            timed(engine(folder / "run", requests, videos, settings, args.tasks, workers).run)
            for _ in range(args.repeat)
        ]
        for workers in (1, 2)
    }
    empty = [timed(engine(folder / "run", requests[:1], videos, settings, 1, 1).run) for _ in range(args.repeat)]
    bare_seconds = statistics.median(sum(stages.values()) for stages in bare)
    one, two = (statistics.median(pools[workers]) for workers in (1, 2))
    start_up = statistics.median(empty)
    return {
        "clips": args.clips,
        "tasks": args.tasks,
        "bare_seconds": bare,
        "engine_seconds": whole,
        "overhead_share": statistics.median(overhead) / bare_seconds,
        "overhead_ms_per_task": 1000 * statistics.median(overhead) / args.tasks,
        "allowed_ms_per_task": 1000 * 0.05 * bare_seconds / args.tasks + 20,
        "pool_seconds": {str(workers): seconds for workers, seconds in pools.items()},
        "start_up_seconds": empty,
        "speed_up": one / two,
        "speed_up_without_start": (one - start_up) / (two - start_up),
        "clips_per_second": {
            stage: args.clips / statistics.median(stages[stage] for stages in bare) for stage in bare[0]
        },
    }


def measure_glamm(args: argparse.Namespace) -> dict[str, Any]:
    """Frames a second of a random GLaMM, in batches and one at a time, in turn."""
    model = build_glamm(args.glamm, device=args.device, dtype=getattr(torch, args.dtype), seed=args.seed)
    captioner = object.__new__(GlammCaptioner)
    tokenizer = AutoTokenizer.from_pretrained(TOKENIZER)
    captioner.setup(model, tokenizer, boxes=MaskBoxes(), max_new_tokens=args.new_tokens)
    generator = torch.Generator().manual_seed(args.seed)
    captioner._prompt = build_prompt_ids(model.config, 1, generator)[
        0
    ].tolist()  # the tokenizer is that of a tiny model
    caption = build_caption_ids(model.config, args.new_tokens, args.phrases, generator)
    forced = ForcedCaption(len(captioner._prompt), caption)
    model.generate = functools.partial(model.generate, logits_processor=[forced])
    pictures = [*np.random.default_rng(args.seed).integers(0, 256, (args.frames, 360, 640, 3), np.uint8)]

    def run(batch_size: int) -> float:
        start = time.perf_counter()
        for first in range(0, len(pictures), batch_size):
            captioner.answer(pictures[first : first + batch_size])
        if args.device.startswith("cuda"):
            torch.cuda.synchronize()
        return len(pictures) / (time.perf_counter() - start)

    run(args.batch_size)  # not counted
    rates = [(run(args.batch_size), run(1)) for _ in range(args.repeat)]
    batched, single = (statistics.median(rate[place] for rate in rates) for place in (0, 1))
    return {
        "model": args.glamm,
        "dtype": args.dtype,
        "batch_size": args.batch_size,
        "new_tokens": args.new_tokens,
        "frames_per_second": {"in batches": batched, "one at a time": single},
        "ratio": statistics.median(fast / slow for fast, slow in rates),
        "hours_for_a_million_clips": 1e6 * FRAMES_PER_CLIP / batched / 3600,
    }


def main(arguments: list[str] | None = None) -> int:
    """Measures, prints and writes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=200, help="of GroundedShapes (default: %(default)s)")
    parser.add_argument("--tasks", type=int, default=10, help="that they are cut into (default: %(default)s)")
    parser.add_argument("--repeat", type=int, default=3, help="measured turns (default: %(default)s)")
    parser.add_argument("--spacy", type=Path, metavar="DIR", help="pipeline of stage 2 (default: one is trained)")
    parser.add_argument("--glamm", choices=("tiny", "mid", "full"), help="measure a GLaMM of this size instead")
    parser.add_argument("--device", default="cpu", help="of GLaMM (default: %(default)s)")
    parser.add_argument("--dtype", default="float32", help="of GLaMM (default: %(default)s)")
    parser.add_argument("--frames", type=int, default=32, help="that GLaMM captions (default: %(default)s)")
    parser.add_argument("--batch-size", type=int, default=16, help="of GLaMM (default: %(default)s)")
    parser.add_argument("--new-tokens", type=int, default=60, help="of a caption (default: %(default)s)")
    parser.add_argument("--phrases", type=int, default=4, help="of a caption (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of random weights (default: %(default)s)")
    parser.add_argument("--output", type=Path, help="JSON file for everything that was measured")
    args = parser.parse_args(arguments)
    if min(args.clips, args.tasks, args.repeat, args.frames, args.batch_size) < 1 or args.clips < args.tasks:
        parser.error("expected at least 1 of everything, and at least as many clips as tasks")
    with tempfile.TemporaryDirectory() as temporary, redirect_stdout(sys.stderr):
        found = measure_glamm(args) if args.glamm else measure_engine(args, Path(temporary))
    content = {"seed": args.seed, **found, **describe_machine(args.device, _FOLDERS)}
    if args.output is not None:
        write_json(args.output, content)
    print(json.dumps(content, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())

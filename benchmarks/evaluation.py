"""
Seconds of a full iGround score, by part and by size, and its memory; beside a plain rendition of the original in the same run.

    python benchmarks/evaluation.py --output benchmarks/results/evaluation.json

See `benchmarks/README.md` for what is compared and how to read the numbers.
"""

import argparse
import json
import multiprocessing
import os
import statistics
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # run from a checkout, installed or not
if __name__ == "__main__":
    os.environ.setdefault("HF_HUB_OFFLINE", "1")  # the text model is local; read on import

import eval.iground
import eval.iground_official
from benchmarks.naive_evaluation import PairwiseSimilarity, naive_scores
from benchmarks.part_timer import peak_memory, reset_peak_memory
from benchmarks.stopwatch import Stopwatch
from eval.boxes import iou
from eval.caption_jars import Meteor, close_meteor
from eval.clip_frames import PhraseSimilarities
from eval.clips import PredictedClip, ReferenceClip
from eval.iground import score_iground
from eval.provenance import describe_machine
from eval.score_formats import ScoreFiles
from eval.scoring import ScoreOptions, score_files
from eval.text_similarity import text_similarity
from modeling_grove.grounded_caption import GroundedCaption, PhraseTrack, atomic_path

# BERT with 2 layers and a hidden size of 32, which the original was timed with too.
TEXT_MODEL = Path(__file__).parents[1] / "tests" / "golden" / "eval" / "iground" / "tiny_bert"
SIZES = ((200, 20), (400, 40), (1000, 40))
WIDTH, HEIGHT, FPS = 640, 360, 25
NOUNS = (
    *("man", "woman", "boy", "person", "hands", "dog", "knife", "board", "onions", "pan"),
    *("bowl", "bottle", "cup", "garlic", "tomato", "dough", "table", "chair", "plank", "cloth"),
)
ADJECTIVES = ("the", "a red", "a small", "the white wooden", "an electric", "her", "his left", "two", "a young")
JOINTS = (" holds ", " next to ", " with ", " and ", " on ")

# What the original took, measured once on another machine (2 cores, torch with 1 thread, the same text model) for 200 clips of 20
# frames with 14,289 annotated and 12,715 predicted boxes. Of the captions, about 8 seconds are the start of METEOR's Java.
RECORDED = {
    "clips": 200,
    "frames": 20,
    "boxes": [14_289, 12_715],
    "seconds": {"convert": 0.75, "AP50": 4.3, "mIoU": 6.7, "Recall": 271.0, "captions": 9.4},
}
# Parts of ours; "Recall" is also the embedding of the phrases, "convert" begins at grounded captions in memory.
GROUNDING = ("convert", "AP50", "mIoU", "Recall", "rest")


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    sizes = " ".join(f"{clips}x{frames}" for clips, frames in SIZES)
    parser.add_argument(
        "--sizes", nargs="+", default=[*SIZES], type=_size, metavar="CxF", help=f"clips x frames (default: {sizes})"
    )
    parser.add_argument("--naive-clips", type=int, default=20, help="clips of the plain rendition (default: 20)")
    parser.add_argument("--naive-frames", type=int, default=20, help="their frames (default: 20)")
    parser.add_argument("--repeat", type=int, default=3, help="runs of everything, in turn (default: 3)")
    parser.add_argument("--no-captions", action="store_true", help="only what is computed of boxes")
    parser.add_argument("--text-model", default=str(TEXT_MODEL), help="folder of a text encoder (default: a tiny BERT)")
    parser.add_argument("--output", type=Path, help="where to write the results as JSON")
    options = parser.parse_args(arguments)
    for name in ("naive_clips", "naive_frames", "repeat"):
        if getattr(options, name) < 1:
            parser.error(f"--{name.replace('_', '-')} is {getattr(options, name)}; it must be at least 1")
    return options


def _size(text: str) -> tuple[int, int]:
    clips, _, frames = text.partition("x")
    if not (clips.isdecimal() and frames.isdecimal() and int(clips) and int(frames)):
        raise argparse.ArgumentTypeError(f"{text!r} is not clips x frames, as in 200x20")
    return int(clips), int(frames)


def progress(message: str) -> None:
    print(f"[{time.strftime('%H:%M:%S')}] {message}", file=sys.stderr, flush=True)


# ------------------------------------------------------------------------------------------------ the data


def make_clips(clips: int, frames: int, seed: int = 0) -> tuple[list[GroundedCaption], list[GroundedCaption]]:
    """Annotations and predictions with about as many boxes a frame as the original was timed with: 3.6 and 3.2."""
    rng = np.random.default_rng([seed, clips, frames])
    truth = [_annotation(rng, number, frames) for number in range(clips)]
    return truth, [_prediction(rng, clip) for clip in truth]


def _annotation(rng: np.random.Generator, number: int, frames: int) -> GroundedCaption:
    phrases = [f"{rng.choice(ADJECTIVES)} {rng.choice(NOUNS)}" for _ in range(rng.integers(3, 6))]
    tracks = []
    for n, _ in enumerate(phrases):
        for _ in range(1 + (rng.random() < 0.1)):  # now and then two instances, as in raw annotations
            size = rng.uniform(0.15, 0.6, 2) * [WIDTH, HEIGHT]
            # More of them at the upper left, as the official Recall sees no others.
            start = rng.uniform(0, 1, 2) ** 2 * ([WIDTH, HEIGHT] - size)
            corner = (start + rng.normal(0, 4, (frames, 2)).cumsum(axis=0)).clip(0, [WIDTH, HEIGHT] - size)
            tracks.append((n, np.concatenate([corner, corner + size], axis=1).round(), rng.random(frames) < 0.82))
    return _clip(number, phrases, [(n, boxes, presence, presence * 1.0) for n, boxes, presence in tracks], frames)


def _prediction(rng: np.random.Generator, clip: GroundedCaption) -> GroundedCaption:
    """One box a phrase: near, far, or of another phrase; sometimes in frames where nothing is."""
    phrases, tracks = [], []
    for n, span in enumerate(clip.spans):
        of_span = next(track for track in clip.tracks if track.span == span)
        phrases.append(of_span.phrase if rng.random() < 0.8 else f"{rng.choice(ADJECTIVES)} {rng.choice(NOUNS)}")
        sides = np.tile(of_span.boxes[:, 2:] - of_span.boxes[:, :2], 2)
        boxes = of_span.boxes + rng.normal(0, rng.uniform(0.02, 0.2), of_span.boxes.shape) * sides
        presence = of_span.presence ^ (rng.random(len(boxes)) < 0.06)
        objectness = np.where(presence, rng.uniform(0.5, 1, len(boxes)), rng.uniform(0, 0.5, len(boxes)))
        tracks.append((n, boxes, presence, objectness))
    return _clip(clip.clip_id, phrases, tracks, clip.num_frames)


def _clip(
    number: int, phrases: list[str], tracks: list[tuple[int, np.ndarray, np.ndarray, np.ndarray]], frames: int
) -> GroundedCaption:
    caption, spans = "", []
    for n, phrase in enumerate(phrases):
        caption += JOINTS[n % len(JOINTS)] if caption else ""
        spans.append((len(caption), len(caption) + len(phrase)))
        caption += phrase
    indices = np.arange(frames) * (FPS // 5)
    return GroundedCaption(
        caption=f"{caption}.",
        tracks=tuple(PhraseTrack(phrases[n], spans[n], *arrays) for n, *arrays in tracks),
        video_id=f"video{number}",
        clip_id=number,
        video_fname=f"video{number}.mp4",
        fps=FPS,
        width=WIDTH,
        height=HEIGHT,
        clip_start_frame=0,
        clip_end_frame=int(indices[-1]),
        frame_indices=indices,
        timestamps=indices / FPS,
    )


# ---------------------------------------------------------------------------------------------- measuring


def measure(clips: int, frames: int, text_model: str, captions: bool) -> dict[str, Any]:
    """
    One score as the original computes it (official protocol, all frames), by part, and then everything that `python -m eval
    score` computes. Runs in a new process, so that the start of METEOR's Java is in the first, and the memory is its own.
    """
    _prepare_process()
    truth, predictions = make_clips(clips, frames)
    similarity = text_similarity("bert", text_model, "cpu")
    similarity("a", "b")  # the first pass of a model is slower than the others
    stopwatch = Stopwatch()
    before = peak_memory("cpu")
    reset_peak_memory("cpu")
    with stopwatch.part("rest"), stopwatch.watching(_parts()):
        result = score_iground(
            truth, predictions, protocols=("official",), similarity=similarity, frames=("all",), captions=captions
        )
    peak = peak_memory("cpu")
    begin = time.perf_counter()
    options = ScoreOptions(text_model=text_model, device="cpu", captions=captions)
    score_files("iground", ScoreFiles(truth, predictions), options)
    everything = time.perf_counter() - begin
    close_meteor()
    metrics = result.metrics["official"]["all"]["per_video"]
    return {
        "clips": clips,
        "frames": frames,
        "boxes": [sum(track.presence.sum() for clip in side for track in clip.tracks) for side in (truth, predictions)],
        "seconds": dict(stopwatch.seconds),
        "everything_seconds": everything,
        "memory_bytes": {"before": before, "peak": peak, "peak_of_everything": peak_memory("cpu")},
        "scores": {name: metrics[name] for name in ("AP50", "mIoU", "Recall")},
    }


def _prepare_process() -> None:
    torch.set_num_threads(1)  # as the original was timed
    transformers.utils.logging.disable_progress_bar()


def _parts() -> list[tuple[Any, str, Any]]:
    """The functions of each part."""
    official = eval.iground_official
    convert = ("reference_clips", "predicted_clips", "pair_clips", "gather_frames")
    return [
        *((eval.iground, name, "convert") for name in convert),
        (PhraseSimilarities, "__init__", "Recall"),
        (official, "coco_average_precision", "AP50"),
        (official, "overlaps_and_matches", "Recall"),
        (official, "overlapping_pairs", lambda truth, predicted, overlap: "AP50" if overlap is iou else "mIoU"),
        (eval.iground, "score_captions", "captions"),
        (Meteor, "score", "METEOR"),
    ]


def measure_naive(clips: int, frames: int, text_model: str) -> dict[str, Any]:
    """The plain rendition and ours on the same clips, without captions, and how far apart their scores are."""
    _prepare_process()
    captions = make_clips(clips, frames)
    truth = [ReferenceClip.from_caption(clip) for clip in captions[0]]
    predictions = [PredictedClip.from_caption(clip) for clip in captions[1]]
    pairwise, similarity = PairwiseSimilarity(text_model), text_similarity("bert", text_model, "cpu")
    pairwise("a", "b")
    similarity("a", "b")
    pairwise.forwards = 0
    stopwatch = Stopwatch()
    begin = time.perf_counter()
    naive = naive_scores(truth, predictions, pairwise, stopwatch)
    naive_seconds = time.perf_counter() - begin
    begin = time.perf_counter()
    result = score_iground(
        *captions, protocols=("official",), similarity=similarity, frames=("all",), captions=False
    )  # from grounded captions, although the other one begins with the lists of boxes
    ours_seconds = time.perf_counter() - begin
    ours = result.metrics["official"]["all"]["per_video"]
    return {
        "clips": clips,
        "frames": frames,
        "naive_seconds": {**stopwatch.seconds, "total": naive_seconds},
        "ours_seconds": ours_seconds,
        "ratio": naive_seconds / ours_seconds,
        "forward_passes": pairwise.forwards,
        "largest_difference": max(abs(naive[name] - ours[name]) for name in naive),
    }


def in_new_process(function: Callable[..., dict[str, Any]], *arguments: Any) -> dict[str, Any]:
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


def median_run(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Medians over the runs of one size."""
    middle: dict[str, Any] = {**runs[0]}
    for name in ("seconds", "memory_bytes"):
        middle[name] = {key: statistics.median(run[name][key] for run in runs) for key in runs[0][name]}
    middle["everything_seconds"] = statistics.median(run["everything_seconds"] for run in runs)
    middle["grounding_seconds"] = sum(middle["seconds"].get(part, 0.0) for part in GROUNDING)
    middle["total_seconds"] = [sum(run["seconds"].values()) for run in runs]
    middle["boxes"] = [int(number) for number in middle["boxes"]]
    return middle


def ratio_to_recorded(sizes: list[dict[str, Any]]) -> float | None:
    """The recorded seconds of the original by ours, without captions; `None` where that size was not measured."""
    same = [size for size in sizes if (size["clips"], size["frames"]) == (RECORDED["clips"], RECORDED["frames"])]
    seconds: Any = RECORDED["seconds"]
    without = sum(value for part, value in seconds.items() if part != "captions")
    return without / same[0]["grounding_seconds"] if same else None


def run_benchmark(options: argparse.Namespace) -> dict[str, Any]:
    """All measurements, as they are written to the file."""
    model, captions = options.text_model, not options.no_captions
    runs: list[list[dict[str, Any]]] = [[] for _ in options.sizes]
    naive: list[dict[str, Any]] = []
    for turn in range(options.repeat):
        for place, (clips, frames) in enumerate(options.sizes):
            runs[place].append(in_new_process(measure, clips, frames, model, captions))
            seconds = sum(runs[place][-1]["seconds"].values())
            progress(f"run {turn + 1} of {options.repeat}: {clips} clips x {frames} frames in {seconds:.1f} s")
        naive.append(in_new_process(measure_naive, options.naive_clips, options.naive_frames, model))
        progress(
            f"plain rendition: {naive[-1]['naive_seconds']['total']:.1f} s, ours {naive[-1]['ours_seconds']:.2f} s"
        )
    sizes = [median_run(of_size) for of_size in runs]
    middle = sorted(naive, key=lambda run: run["ratio"])[len(naive) // 2]
    return {
        "options": {
            "sizes": [list(size) for size in options.sizes],
            "repeat": options.repeat,
            "captions": captions,
            "text_model": Path(model).name,
        },
        "sizes": sizes,
        "naive": {**middle, "ratios": [run["ratio"] for run in naive]},
        "recorded": RECORDED,
        "ratio_to_recorded": ratio_to_recorded(sizes),
        **describe_machine("cpu"),
    }


def table(results: dict[str, Any]) -> str:
    """The results for a reader."""
    sizes, naive = results["sizes"], results["naive"]
    parts = [*GROUNDING, "captions", "METEOR"]
    lines = [
        f"seconds, medians of {results['options']['repeat']} runs, each in a new process; official protocol, all frames",
        "",
        f"{'clips x frames':<16}{'boxes':>18}" + "".join(f"{part:>10}" for part in parts) + f"{'all parts':>11}",
    ]
    for size in sizes:
        boxes = " + ".join(f"{number:,}" for number in size["boxes"])
        seconds = "".join(f"{size['seconds'].get(part, 0.0):>10.3f}" for part in parts)
        total = sum(size["seconds"].values())
        lines.append(f"{size['clips']} x {size['frames']:<9}{boxes:>18}{seconds}{total:>11.2f}")
    recorded: Any = results["recorded"]
    seconds = "".join(
        f"{recorded['seconds'].get(part, 0.0):>10.2f}" if part != "rest" else f"{'':>10}" for part in parts[:-1]
    )
    boxes = " + ".join(f"{number:,}" for number in recorded["boxes"])
    lines.append(f"{'original*':<16}{boxes:>18}{seconds}{'':>10}{sum(recorded['seconds'].values()):>11.1f}")
    lines.append("* 200 x 20, recorded on another machine of 2 cores, METEOR within captions")
    lines.append("")
    for size in sizes:
        each = 1e6 * size["grounding_seconds"] / sum(size["boxes"])
        memory = size["memory_bytes"]
        lines.append(
            f"{size['clips']} x {size['frames']}: without captions {size['grounding_seconds']:.3f} s, {each:.1f} us a box; both "
            f"protocols, all sets of frames and statistics {size['everything_seconds']:.1f} s; memory "
            f"{memory['before'] / 2**20:.0f} MiB before, peak {memory['peak'] / 2**20:.0f}, of everything "
            f"{memory['peak_of_everything'] / 2**20:.0f}"
        )
    lines += [
        "",
        f"plain rendition, {naive['clips']} x {naive['frames']}, same run, without captions: "
        f"{naive['naive_seconds']['total']:.1f} s ({naive['forward_passes']:,} forward passes), ours "
        f"{naive['ours_seconds']:.3f} s: {naive['ratio']:.0f} times faster; scores differ by at most "
        f"{naive['largest_difference']:.1e}",
    ]
    if results["ratio_to_recorded"] is not None:
        lines.append(f"recorded seconds of the original by ours, without captions: {results['ratio_to_recorded']:.0f}")
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> None:
    options = parse_arguments(arguments)
    results = run_benchmark(options)
    print(table(results))
    if options.output is not None:
        options.output.parent.mkdir(parents=True, exist_ok=True)
        with atomic_path(options.output) as temporary:
            temporary.write_text(json.dumps(results, indent=2) + "\n")
        progress(f"wrote {options.output}")


if __name__ == "__main__":
    main()

"""The end of a run: the predictions of all processes become one file, are scored, and the results are written."""

from __future__ import annotations

import argparse
import logging
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from dataset_builders.command_line import emit
from dataset_builders.record import Record, record_key
from modeling_grove.grounded_caption import GroundedCaption
from modeling_grove.video_grove import VideoClip

from .benchmark_data import BenchmarkData
from .inference import InferenceOptions, all_present
from .model_index import write_model_index
from .per_clip import write_per_clip
from .prediction_files import PredictionFiles
from .processes import Processes
from .provenance import describe_machine
from .report_tables import result_table
from .result_files import (
    CLIPS,
    HUB_RESULTS,
    MODEL_INDEX,
    PREDICTIONS,
    RESULTS,
    WORST,
    json_ready,
    remove_scores,
    write_json,
)
from .results import BenchmarkResult
from .score_arguments import options_of, run_settings
from .scoring import score_records

logger = logging.getLogger(__name__)

_NAMED_PROBLEMS = 5


def finish_run(
    args: argparse.Namespace,
    options: InferenceOptions,
    data: BenchmarkData,
    files: PredictionFiles,
    records: list[Record],
    about: dict[str, Any],
    processes: Processes,
    started: float,
) -> int:
    """
    Puts the predictions of all processes together, scores them and writes the results.

    Args:
        args (`argparse.Namespace`):
            Of the command `run`.
        options ([`InferenceOptions`]), data ([`BenchmarkData`]), files ([`PredictionFiles`]), processes ([`Processes`]):
            Of the run.
        records (`list[Record]`):
            The annotations of all clips.
        about (`dict`):
            Which `model` and `data` these are.
        started (`float`):
            When, by `time.monotonic`.

    Returns:
        `int`: exit status.

    Raises:
        `ValueError`: if no clip has a prediction; and as [`score_records`].
    """
    predictions, problems, seconds = files.merge(map(record_key, records))
    if not predictions:
        key, problem = next(iter(problems.items()))
        raise ValueError(f"none of {len(records)} clips could be predicted, such as {key!r}: {problem}")
    threshold = _threshold(args)
    predictions = [all_present(p) if threshold is None else p.with_threshold(threshold) for p in predictions]
    _remove_results(args.output, args.benchmark)  # those of other predictions, should these not be scored
    files.write(records, predictions, seconds)
    if args.no_score:
        path = args.output / PREDICTIONS
        emit({"predictions": str(path)}, f"{path}: {len(predictions)} clips", args.json)
        return 0
    score_options = replace(options_of(args), seed=args.seed)
    scoring = time.monotonic()
    result = score_records(args.benchmark, records, predictions, score_options)
    finished = time.monotonic()
    device = processes.device or _default_device()
    settings = {name: value for name, value in asdict(options).items() if name != "mode"}
    results = json_ready(
        {
            **result.to_dict(),
            "protocols": [*score_options.protocols],
            **about,
            "problems": {"clips": len(problems), "examples": dict([*problems.items()][:_NAMED_PROBLEMS])},
            "settings": {
                **settings,
                "objectness_threshold": threshold,
                "dtype": args.dtype,
                **run_settings(args.benchmark, score_options),
            },
            "seed": args.seed,
            "processes": processes.count,
            "device": device,
            "seconds": {
                "model": round(seconds, 2),
                "scoring": round(finished - scoring, 2),
                "this_run": round(finished - started, 2),
            },
            **describe_machine(device, ("modeling_grove", "dataset_builders", "eval")),
        }
    )
    if args.data_name is not None:
        results["data"]["name"] = args.data_name
    write_per_clip(result.per_clip, args.output / CLIPS)
    write_model_index(results, args.output)
    if args.worst:
        _draw_worst(args, data, records, predictions, result, score_options.protocols[-1])
    write_json(args.output / RESULTS, results)
    emit(results, _text(result, problems, args.output), as_json=args.json)
    return 0


def _remove_results(output: Path, benchmark: str) -> None:
    """Removes what an earlier end of this run wrote."""
    remove_scores(output)
    for path in (output / MODEL_INDEX, output / HUB_RESULTS / f"{benchmark}.yaml"):
        path.unlink(missing_ok=True)


def _threshold(args: argparse.Namespace) -> float | None:
    """The objectness threshold of iGround; the other benchmarks take the box of every frame."""
    if args.benchmark != "iground" or args.objectness_threshold is not None:
        return args.objectness_threshold
    from modeling_grove import GroveConfig

    return float(GroveConfig.from_pretrained(args.model, revision=args.revision).objectness_threshold)


def _default_device() -> str:
    import torch

    accelerator = torch.accelerator.current_accelerator(check_available=True)
    return "cpu" if accelerator is None else accelerator.type


def _text(result: BenchmarkResult, problems: dict[str, str], output: Path) -> str:
    """What a person sees."""
    lines = [result_table(result), f"{output / RESULTS}"]
    if problems:
        shown = "; ".join(f"{key}: {text}" for key, text in [*problems.items()][:_NAMED_PROBLEMS])
        lines.insert(1, f"{len(problems)} clips could not be read and count as missing: {shown}")
    return "\n".join(lines)


def _draw_worst(
    args: argparse.Namespace,
    data: BenchmarkData,
    records: list[Record],
    predictions: list[GroundedCaption],
    result: BenchmarkResult,
    protocol: str,
) -> None:
    """Pictures of the clips with the lowest scores."""
    from .worst_clips import draw_worst, worst_keys

    wanted = {key for key, _ in worst_keys(args.benchmark, result.per_clip, args.worst, protocol)}
    videos: dict[str, VideoClip] = {}
    for clip in data:
        if clip.key in wanted:
            wanted.remove(clip.key)
            try:
                videos[clip.key] = clip.read()
            except (ValueError, OSError) as error:  # the picture then has an empty canvas
                logger.warning("%s: %s", clip.key, error)
        if not wanted:
            break
    output = args.output / WORST
    draw_worst(args.benchmark, records, predictions, result.per_clip, args.worst, output, videos.get, protocol)


__all__ = ["finish_run"]

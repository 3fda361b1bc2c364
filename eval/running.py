"""Runs a model over a benchmark, then scores it.

    python -m eval run iground --model checkpoints/grove-demo --data shapes:7:20 --split test --output results/demo
    python -m eval run iground --model org/grove --data iGround_val_set_raw.jsonl --videos videos --output results/val
    torchrun --nproc-per-node 8 -m eval run vidstg --model DIR --data vidstg_test.jsonl --videos videos --output results/vidstg

Every clip that is finished is on disk at once: the same command goes on where a run was stopped, with any number of processes
(`accelerate launch -m eval run ...` works too). A clip whose video is missing or broken is counted and named, and scored as
missing. The folder gets:

    results.json      the scores, and what they came from: model, data, settings, versions, hardware
    predictions.jsonl the predictions, with the boxes and the objectness of all frames
    references.jsonl  the annotations that they were scored against
    clips.jsonl       the scores of every clip
    model_index.yml   entries for the model's card; with data of the Hub also .eval_results/BENCHMARK.yaml
    worst/            with --worst N: pictures of the N clips with the lowest scores (iground)

The objectness threshold is applied when predictions are scored: the same command with another one scores again and runs nothing.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import timedelta
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from dataset_builders.command_line import emit, progress
from dataset_builders.reading import read_records
from dataset_builders.record import Record, from_record, record_key
from modeling_grove.grounded_caption import GroundedCaption
from modeling_grove.text_grove import QUESTION_TEMPLATES

from .benchmark_data import BenchmarkClip, BenchmarkData
from .clips import predicted_clips, reference_clips
from .inference import InferenceOptions, all_present, load_model, run_clips
from .model_index import write_model_index
from .per_clip import worst, write_per_clip
from .prediction_files import Outcome, PredictionFiles, write_json, write_lines
from .provenance import describe_machine, describe_model, model_revision
from .report_tables import result_table
from .result_files import CLIPS, RESULTS, json_ready
from .results import BenchmarkResult
from .scoring import BENCHMARKS, ScoreOptions, add_score_arguments, options_of, score_records

logger = logging.getLogger(__name__)

_NAMED_PROBLEMS = 5
# Processes wait for the slowest one, whose share of the clips may take much longer than the others'.
_PATIENCE = timedelta(days=7)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of the command."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.description = __doc__
    parser.add_argument("benchmark", choices=BENCHMARKS, metavar="BENCHMARK", help=f"one of {', '.join(BENCHMARKS)}")
    parser.add_argument("--model", required=True, metavar="DIR|ID", help="model folder or Hub id")
    parser.add_argument("--revision", help="branch, tag or commit of a Hub model")
    parser.add_argument("--output", required=True, type=Path, metavar="DIR", help="folder for predictions and results")

    data = parser.add_argument_group("data")
    data.add_argument(
        "--data", required=True, metavar="DATA",
        help="JSONL of records, shard, folder or Hub repository of shards, or shapes:SEED[:COUNT]",
    )  # fmt: skip
    data.add_argument("--split", help="split of the data, where it has several")
    data.add_argument("--config", help="configuration of the data, where it has several")
    data.add_argument("--videos", type=Path, metavar="DIR", help="folder of the source videos, for data without clips")
    data.add_argument("--data-name", metavar="NAME", help="how results call the data (default: its own name)")
    data.add_argument("--limit", type=int, metavar="N", help="the first N clips only")

    model = parser.add_argument_group("model")
    model.add_argument(
        "--windows", choices=("covering", "sliding"), default="covering",
        help="fewest windows, or the original's set for its exact numbers (default: %(default)s)",
    )  # fmt: skip
    model.add_argument(
        "--objectness-threshold", type=float, metavar="P",
        help="iground: a phrase is present above this probability (default: the model's)",
    )  # fmt: skip
    model.add_argument("--batch-size", type=int, default=1, help="clips at once (default: %(default)s)")
    model.add_argument(
        "--window-batch-size", type=int, default=4,
        help="windows at once; lower it when memory runs out (default: %(default)s)",
    )  # fmt: skip
    model.add_argument(
        "--max-new-tokens", type=int, default=64, help="longest caption in tokens (default: %(default)s)"
    )
    model.add_argument("--num-beams", type=int, default=1, help="beam search width; 1 is greedy (default: %(default)s)")
    model.add_argument(
        "--question", default=QUESTION_TEMPLATES[0], help="instruction of the prompt (default: the original's)"
    )
    model.add_argument("--dtype", choices=("auto", "float32", "bfloat16", "float16"), default="auto", help="precision")
    model.add_argument("--workers", type=int, default=2, help="threads that decode videos (default: %(default)s)")
    model.add_argument("--seed", type=int, default=0, help="of everything that is random (default: %(default)s)")

    scores = parser.add_argument_group("scores")
    scores.add_argument("--protocol", choices=("official", "corrected", "both"), default="both", help="default: both")
    add_score_arguments(parser)
    scores.add_argument("--worst", type=int, default=0, metavar="N", help="iground: draw the N worst clips")
    parser.add_argument(
        "--no-score", action="store_true", help="predictions only; score them later, on another machine"
    )
    parser.add_argument("--json", action="store_true", help="print the result as one JSON line")


def run(args: argparse.Namespace) -> int:
    """Runs the model on what is not finished yet, then scores."""
    started = time.monotonic()
    _check(args)
    options = InferenceOptions(
        args.windows,
        args.batch_size,
        args.window_batch_size,
        args.max_new_tokens,
        args.num_beams,
        args.question,
        args.mode if args.benchmark == "activitynet_entities" else InferenceOptions.mode,
    )
    files = PredictionFiles(args.output)
    with _processes(args.device) as processes, ExitStack() as claims:
        data = BenchmarkData(args.benchmark, args.data, args.split, args.config, args.videos, args.limit)
        args.revision = model_revision(args.model, args.revision)  # so that all of the run is of one commit
        about: dict[str, Any] = {}
        if processes.is_first:
            about = {"model": describe_model(args.model, args.revision), "data": data.describe()}
            _check_scoring(args)
            claims.enter_context(files.claimed(_settings(args, options, about)))
        processes.wait()
        records = _predict(args, options, data, files, processes)
        processes.wait()
        if not processes.is_first:
            return 0
        return _finish(args, options, data, files, records, about, processes, started)


@dataclass(frozen=True)
class _Processes:
    """Who else is at work: `index` of `count`, on `device` (`None` for the model's choice)."""

    index: int
    count: int
    device: str | None
    state: Any = None

    @property
    def is_first(self) -> bool:
        return self.index == 0

    def wait(self) -> None:
        """Until all processes are here."""
        if self.state is not None:
            self.state.wait_for_everyone()


@contextmanager
def _processes(device: str | None) -> Iterator[_Processes]:
    """The processes that `torchrun` or `accelerate launch` started, each with a device of its own; or just this one."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield _Processes(0, 1, device)
        return
    import torch
    from accelerate import PartialState

    if device not in (None, "cpu", "cuda"):
        raise ValueError(f"--device: got {device!r} for several processes; each takes its own, leave it out or say cpu")
    state = PartialState(cpu=device == "cpu" or not torch.cuda.is_available(), timeout=_PATIENCE)
    try:
        yield _Processes(state.process_index, state.num_processes, str(state.device), state)
    finally:
        state.destroy_process_group()


def _check(args: argparse.Namespace) -> None:
    """What the parser cannot know."""
    threshold = args.objectness_threshold
    if threshold is not None:
        if args.benchmark != "iground":
            raise ValueError(f"--objectness-threshold: {args.benchmark} takes the box of every frame; leave it out")
        if not 0 <= threshold <= 1:
            raise ValueError(f"--objectness-threshold: expected a probability in [0, 1], got {threshold}")
    if args.worst and args.benchmark != "iground":
        raise ValueError(f"--worst: draws clips of iground, not of {args.benchmark}; leave it out")
    for name, least in (("limit", 1), ("workers", 1), ("worst", 0)):
        value = getattr(args, name)
        if value is not None and value < least:
            raise ValueError(f"--{name}: expected at least {least}, got {value}")


def _check_scoring(args: argparse.Namespace) -> None:
    """Finds out before hours of inference, and not after them, that the result could not be scored."""
    if args.no_score:
        return
    if args.benchmark == "iground":
        from .text_similarity import text_similarity

        text_similarity(args.text_similarity, args.text_model, args.device)
    elif args.benchmark == "activitynet_entities" and args.mode == "generated":
        from .lemmas import lemmatizer

        lemmatizer(args.lemmas)


def _settings(args: argparse.Namespace, options: InferenceOptions, about: dict[str, Any]) -> dict[str, Any]:
    """All that predictions depend on, but for rounding: with the same settings a run goes on."""
    chosen = asdict(options)
    del chosen["batch_size"], chosen["window_batch_size"]
    return {"benchmark": args.benchmark, **about, **chosen, "dtype": args.dtype, "seed": args.seed}


def _predict(
    args: argparse.Namespace,
    options: InferenceOptions,
    data: BenchmarkData,
    files: PredictionFiles,
    processes: _Processes,
) -> list[Record]:
    """Runs the model on this process's clips that are not finished; returns the annotations of all clips."""
    finished = files.finished()
    if files.references.exists():
        records = list(read_records(files.references))
        if finished.issuperset(map(record_key, records)):
            return records
    records = []

    def left() -> Iterator[tuple[int, BenchmarkClip]]:
        # Clips share a batch, and a batch has a process, by their place in the data and whatever is finished: so a run that
        # goes on with other processes has the same batches, and nobody has to tell anybody what is left.
        for index, clip in enumerate(data):
            records.append(clip.record)
            batch = index // options.batch_size
            if batch % processes.count == processes.index and clip.key not in finished:
                yield batch, clip

    total = None
    if data.total is not None:
        total = -(-max(0, data.total - len(finished)) // processes.count)
    if finished:
        logger.info("%d clips are finished already", len(finished))
    ran = 0
    with files.part(processes.index) as part:
        for outcome in _outcomes(args, options, left(), total, processes):
            part.append(outcome)
            ran += 1
            if outcome.problem is not None:
                logger.warning("%s: %s", outcome.key, outcome.problem)
    logger.info("process %d of %d: ran %d clips", processes.index + 1, processes.count, ran)
    return records


def _outcomes(
    args: argparse.Namespace,
    options: InferenceOptions,
    clips: Iterator[tuple[int, BenchmarkClip]],
    total: int | None,
    processes: _Processes,
) -> Iterable[Outcome]:
    """What becomes of the clips; the model is loaded if there are any."""
    first = next(clips, None)
    if first is None:
        return ()
    from transformers import set_seed
    from transformers.utils import logging as transformers_logging

    if not sys.stderr.isatty():
        transformers_logging.disable_progress_bar()
    captioner = load_model(args.model, args.revision, processes.device, args.dtype)
    set_seed(args.seed)
    outcomes = run_clips(captioner, args.benchmark, chain([first], clips), options, args.workers)
    if not processes.is_first:
        return outcomes
    # One process of several tells how far they are: they have equal shares.
    name = "clips" if processes.count == 1 else f"clips of the first of {processes.count} processes"
    return progress(outcomes, name, total=total)


def _finish(
    args: argparse.Namespace,
    options: InferenceOptions,
    data: BenchmarkData,
    files: PredictionFiles,
    records: list[Record],
    about: dict[str, Any],
    processes: _Processes,
    started: float,
) -> int:
    """Puts the predictions of all processes together, scores them and writes the results."""
    predictions, problems, seconds = files.merge(map(record_key, records))
    if not predictions:
        key, problem = next(iter(problems.items()), ("", "no clips"))
        raise ValueError(f"none of {len(records)} clips could be predicted, such as {key!r}: {problem}")
    threshold = _threshold(args)
    predictions = [all_present(p) if threshold is None else p.with_threshold(threshold) for p in predictions]
    (args.output / RESULTS).unlink(missing_ok=True)  # that of other predictions, should these not be scored
    write_lines(files.references, records)
    files.write(predictions, seconds)
    if args.no_score:
        emit({"predictions": str(files.predictions)}, f"{files.predictions}: {len(predictions)} clips", args.json)
        return 0
    score_options = replace(options_of(args), seed=args.seed)
    scoring = time.monotonic()
    result = score_records(args.benchmark, records, predictions, score_options)
    finished = time.monotonic()
    device = processes.device or _default_device()
    results = json_ready(
        {
            **result.to_dict(),
            "protocols": [*score_options.protocols],
            **about,
            "problems": {"clips": len(problems), "examples": dict([*problems.items()][:_NAMED_PROBLEMS])},
            "settings": {
                **asdict(options),
                "objectness_threshold": threshold,
                "dtype": args.dtype,
                **_named(score_options),
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
        _draw_worst(args, data, records, predictions, result)
    write_json(args.output / RESULTS, results)
    emit(results, _text(result, problems, files), as_json=args.json)
    return 0


def _threshold(args: argparse.Namespace) -> float | None:
    """The objectness threshold of iGround; the other benchmarks take the box of every frame."""
    if args.benchmark != "iground" or args.objectness_threshold is not None:
        return args.objectness_threshold
    from modeling_grove import GroveConfig

    return float(GroveConfig.from_pretrained(args.model, revision=args.revision).objectness_threshold)


def _named(options: ScoreOptions) -> dict[str, Any]:
    """The options of scoring without the folders of this machine."""
    chosen = asdict(options)
    for name in ("protocols", "device", "seed", "split"):
        del chosen[name]
    if options.text_model is not None and Path(options.text_model).exists():
        chosen["text_model"] = Path(options.text_model).name
    kind, _, file = options.lemmas.partition(":")
    chosen["lemmas"] = f"{kind}:{Path(file).name}" if file else kind
    return chosen


def _default_device() -> str:
    import torch

    accelerator = torch.accelerator.current_accelerator(check_available=True)
    return "cpu" if accelerator is None else accelerator.type


def _text(result: BenchmarkResult, problems: dict[str, str], files: PredictionFiles) -> str:
    """What a person sees."""
    lines = [result_table(result), f"{files.folder / RESULTS}"]
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
) -> None:
    """Pictures of the clips with the lowest scores."""
    from .worst_clips import write_worst

    path = (options_of(args).protocols[-1], "AP50")
    wanted = {key for key, _ in worst(result.per_clip, path, args.worst)}
    frames: dict[str, np.ndarray] = {}
    for clip in data:
        if clip.key in wanted:
            wanted.remove(clip.key)
            try:
                frames[clip.key] = clip.read().frames
            except (ValueError, OSError) as error:  # the picture then has an empty canvas
                logger.warning("%s: %s", clip.key, error)
        if not wanted:
            break
    truth = reference_clips(map(from_record, records))
    answers = predicted_clips(predictions, truth)
    write_worst(truth, answers, result.per_clip, path, args.worst, args.output / "worst", frames.get)


__all__ = ["add_arguments", "run"]

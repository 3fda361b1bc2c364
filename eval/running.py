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
    worst/            with --worst N: pictures of the N clips with the lowest scores

The objectness threshold is applied when predictions are scored: the same command with another one scores again and runs nothing.

Two things differ from the original by default, also in the column `official`. Clips are cut into the fewest windows that cover
them; for the original's exact numbers say `--windows sliding`. And all benchmarks get one question, the original's for captions;
the original asks VidSTG and the pointing benchmarks another one, whose wording we do not have: `--question` sets it.
"""

from __future__ import annotations

import argparse
import logging
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import asdict
from itertools import chain
from pathlib import Path
from typing import Any

from dataset_builders.command_line import progress
from dataset_builders.record import Record, record_key
from modeling_grove.text_grove import QUESTION_TEMPLATES

from .benchmark_data import BenchmarkClip, BenchmarkData
from .inference import InferenceOptions, load_model, run_clips
from .prediction_files import Outcome, PredictionFiles
from .processes import FailedElsewhere, Processes, started_processes
from .provenance import describe_model
from .results import BENCHMARKS
from .run_results import finish_run
from .score_arguments import add_score_arguments, check_score_arguments
from .scoring import ScoreOptions
from .text_similarity import HEAD_WORD

logger = logging.getLogger(__name__)


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
        "--windows", "--window", choices=("covering", "sliding"), default="covering",
        help="how clips are cut into windows: covering, the fewest; sliding, the original's, for its exact numbers (vidstg: "
        "without the last frame of a tube then, as the original, which corrected scores as missing) (default: %(default)s)",
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
        "--question", default=QUESTION_TEMPLATES[0],
        help="instruction of the prompt (default: the original's for captions, see above)",
    )  # fmt: skip
    model.add_argument("--dtype", choices=("auto", "float32", "bfloat16", "float16"), default="auto", help="precision")
    model.add_argument(
        "--device", help="where models run, that of the text similarity too (default: a GPU if there is one)"
    )
    model.add_argument("--workers", type=int, default=2, help="threads that decode videos (default: %(default)s)")
    model.add_argument("--seed", type=int, default=0, help="of everything that is random (default: %(default)s)")

    scores = parser.add_argument_group("scores")
    add_score_arguments(scores)
    # The words of GroundedShapes are few and known: no text encoder has to be downloaded to compare them.
    parser.set_defaults(text_similarity=None)

    output = parser.add_argument_group("output")
    output.add_argument("--worst", type=int, default=0, metavar="N", help="draw the N worst clips")
    output.add_argument(
        "--no-score", action="store_true", help="predictions only; score them later, on another machine"
    )
    output.add_argument("--json", action="store_true", help="print the result as one JSON line")


def run(args: argparse.Namespace) -> int:
    """Runs the model on what is not finished yet, then scores."""
    started = time.monotonic()
    if args.text_similarity is None:
        without_encoder = args.data.startswith("shapes:") and args.text_model is None and args.benchmark == "iground"
        args.text_similarity = HEAD_WORD if without_encoder else ScoreOptions.text_similarity
    try:
        with started_processes(args.device) as processes, ExitStack() as claims:
            files = PredictionFiles(args.output)
            # Only the first process looks for the model and the data, so that all of the run is of one commit of each.
            args.revision, args.data, about = processes.share(lambda: _prepare(args, files, claims))
            data, options = _data(args), _options(args)
            records = _predict(args, options, data, files, processes)
            processes.wait()
            if not processes.is_first:
                return 0
            return finish_run(args, options, data, files, records, about, processes, started)
    except FailedElsewhere:
        return 2


def _prepare(
    args: argparse.Namespace, files: PredictionFiles, claims: ExitStack
) -> tuple[str | None, str, dict[str, Any]]:
    """
    Checks all that can be checked before anything is run, and claims the folder.

    Returns:
        `tuple`: the commit of a Hub model, where the data is (on the Hub at a commit), and which model and data these are.
    """
    _check(args)
    options, data = _options(args), _data(args)
    model = describe_model(args.model, args.revision)
    about = {"model": model, "data": data.describe()}
    _check_scoring(args)
    data.check()
    claims.enter_context(files.claimed(_settings(args, options, about)))
    return model["revision"], data.source, about


def _options(args: argparse.Namespace) -> InferenceOptions:
    return InferenceOptions(
        args.windows,
        args.batch_size,
        args.window_batch_size,
        args.max_new_tokens,
        args.num_beams,
        args.question,
        args.mode,
    )


def _data(args: argparse.Namespace) -> BenchmarkData:
    return BenchmarkData(
        args.benchmark,
        args.data,
        args.split,
        args.config,
        args.videos,
        args.limit,
        args.windows,
        scored=not args.no_score,
    )


def _check(args: argparse.Namespace) -> None:
    """What the parser cannot know."""
    check_score_arguments(args)
    if args.output.exists() and not args.output.is_dir():
        raise ValueError(f"--output: {args.output} is a file; expected a folder")
    threshold = args.objectness_threshold
    if threshold is not None:
        if args.benchmark != "iground":
            raise ValueError(f"--objectness-threshold: {args.benchmark} takes the box of every frame; leave it out")
        if not 0 <= threshold <= 1:
            raise ValueError(f"--objectness-threshold: expected a probability in [0, 1], got {threshold}")
    if args.worst and args.no_score:
        raise ValueError(
            "--worst: draws the clips with the lowest scores, and --no-score leaves them out; drop one of both"
        )
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
    processes: Processes,
) -> list[Record]:
    """Runs the model on this process's clips that are not finished; returns the annotations of all clips."""
    finished = files.finished()
    records = files.annotations()
    if records and finished.issuperset(map(record_key, records)):
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
    processes: Processes,
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


__all__ = ["add_arguments", "run"]

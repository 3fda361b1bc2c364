"""The options of scoring on a command line, for `score` and `run`, and what results say about them."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path
from typing import Any

from .activitynet_entities import MODES
from .results import PROTOCOLS
from .scoring import ScoreOptions
from .text_similarity import ENCODERS, HEAD_WORD, TEXT_SIMILARITIES

# The benchmark that an option is for; the other options are for all.
_OF_BENCHMARK = {
    "text_similarity": "iground",
    "text_model": "iground",
    "no_captions": "iground",
    "coco_stats": "iground",
    "merge_instances": "iground",
    "lemmas": "activitynet_entities",
    "mode": "activitynet_entities",
    "split_file": "activitynet_entities",
}
# As above, for the fields of `ScoreOptions`.
_SETTINGS = {
    "iground": ("text_similarity", "text_model", "captions", "coco_stats", "merge_instances"),
    "activitynet_entities": ("lemmas", "mode"),
}


def add_score_arguments(parser: argparse.ArgumentParser | argparse._ArgumentGroup) -> None:
    """Adds the arguments that [`options_of`] reads, but for `--device`, which commands use for more than scoring, and split."""
    parser.add_argument("--protocol", choices=(*PROTOCOLS, "both"), default="both", help="default: both")
    parser.add_argument(
        "--text-similarity",
        choices=TEXT_SIMILARITIES,
        default=ScoreOptions.text_similarity,
        help="iground: when phrases mean the same in Recall: bert as the original (default), sentence (another encoder), "
        "head-word (the last words are equal; needs no model)",
    )
    parser.add_argument(
        "--text-model", metavar="DIR|ID", help="iground: folder or Hub name of the model of the text similarity"
    )
    parser.add_argument("--no-captions", action="store_true", help="iground: leave METEOR, CIDEr, BLEU and ROUGE-L out")
    parser.add_argument("--coco-stats", action="store_true", help="iground: the twelve numbers of COCO too")
    parser.add_argument(
        "--merge-instances",
        action="store_true",
        help="iground: score against the union of a phrase's instances in a frame (processed form)",
    )
    parser.add_argument(
        "--lemmas",
        default=ScoreOptions.lemmas,
        metavar="NAME",
        help="activitynet_entities: spacy (default) or table:FILE",
    )
    parser.add_argument(
        "--mode",
        choices=MODES,
        default=ScoreOptions.mode,
        help="activitynet_entities: whose sentences; default: generated",
    )
    parser.add_argument(
        "--no-statistics",
        action="store_true",
        help="only the paper's metrics: no intervals, presence, tracks, calibration",
    )


def check_score_arguments(args: argparse.Namespace) -> None:
    """
    Refuses, before anything costs time, options that the benchmark does not have, and a device that is not there.

    Args:
        args (`argparse.Namespace`): Has `benchmark`, `device`, and what [`add_score_arguments`] adds.

    Raises:
        `ValueError`: naming the option.
    """
    defaults = {
        "text_similarity": ScoreOptions.text_similarity,
        "lemmas": ScoreOptions.lemmas,
        "mode": ScoreOptions.mode,
    }
    for name, benchmark in _OF_BENCHMARK.items():
        given = getattr(args, name, None) not in (defaults.get(name), None, False)
        if given and args.benchmark != benchmark:
            option = name.replace("_", "-")
            raise ValueError(f"--{option}: is for {benchmark} alone, got {args.benchmark}; leave it out")
    if args.text_similarity == HEAD_WORD and args.text_model is not None:
        raise ValueError(f"--text-model: {HEAD_WORD} has no model; leave one of both out")
    if args.device is not None:
        check_device(args.device)


def check_device(device: str) -> None:
    """
    Raises:
        `ValueError`: if torch knows no such device, or this machine does not have it.
    """
    import torch

    try:
        torch.zeros(1, device=device).item()
    except (RuntimeError, AssertionError, NotImplementedError):
        accelerator = torch.accelerator.current_accelerator(check_available=True)
        numbered = (
            [] if accelerator is None else [f"{accelerator.type}:{n}" for n in range(torch.accelerator.device_count())]
        )
        raise ValueError(
            f"--device: got {device!r}; expected one that this machine has: {', '.join(['cpu', *numbered])}"
        ) from None


def options_of(args: argparse.Namespace) -> ScoreOptions:
    """The options of a parsed command line that has `device`, `split` and what [`add_score_arguments`] adds."""
    return ScoreOptions(
        protocols=PROTOCOLS if args.protocol == "both" else (args.protocol,),
        text_similarity=args.text_similarity,
        text_model=args.text_model,
        device=args.device,
        captions=not args.no_captions,
        coco_stats=args.coco_stats,
        merge_instances=args.merge_instances,
        lemmas=args.lemmas,
        mode=args.mode,
        split=args.split or ScoreOptions.split,
        statistics=not args.no_statistics,
    )


def run_settings(benchmark: str, options: ScoreOptions) -> dict[str, Any]:
    """
    The settings of scoring for `results.json`: those that the benchmark has, files without their folders, names of the Hub as
    they are. Protocols, device, seed and split stand elsewhere in the results.
    """
    values = asdict(options)
    settings = {name: values[name] for name in _SETTINGS.get(benchmark, ())}
    if settings.get("text_similarity") in ENCODERS:
        settings["text_model"] = _public(options.text_model or ENCODERS[options.text_similarity])
    if "lemmas" in settings:
        kind, _, file = options.lemmas.partition(":")
        settings["lemmas"] = f"{kind}:{Path(file).name}" if file else kind
        if options.mode == "gt":
            del settings["lemmas"]  # the sentences are given, and no word is looked up
    settings["statistics"] = options.statistics
    if options.statistics:
        settings["resamples"] = options.resamples
    return settings


def _public(model: str) -> str:
    """A model without the folders of this machine that it is in."""
    return Path(model).resolve().name if Path(model).exists() else model


__all__ = ["add_score_arguments", "check_device", "check_score_arguments", "options_of", "run_settings"]

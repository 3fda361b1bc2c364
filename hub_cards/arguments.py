"""The options that the commands share, and what they choose."""

from __future__ import annotations

import argparse
from pathlib import Path

from .preparing import Choices

KINDS = ("model", "dataset", "metric", "space")


def add_source_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds what is published, and what its card says."""
    parser.add_argument("kind", choices=KINDS, metavar="KIND", help=f"one of {', '.join(KINDS)}")
    parser.add_argument(
        "source",
        metavar="SOURCE",
        help="folder of a model, of shards or of a Space; of a metric its benchmark, such as iground",
    )
    card = parser.add_argument_group("card")
    card.add_argument(
        "--license",
        metavar="ID",
        help="of weights or annotations, such as apache-2.0 (default: what the sources require)",
    )
    card.add_argument(
        "--base-model",
        action="append",
        default=[],
        metavar="ORG/NAME",
        help="model: a model of the Hub that it was made from",
    )
    card.add_argument(
        "--dataset", action="append", default=[], metavar="ORG/NAME",
        help="data set of the Hub that a model was trained on, or that a data set is derived from",
    )  # fmt: skip
    card.add_argument(
        "--license-of", action="append", default=[], type=_pair, metavar="ORG/NAME=ID",
        help="licence of one of these, where no card says it",
    )  # fmt: skip
    card.add_argument(
        "--results",
        action="append",
        default=[],
        type=Path,
        metavar="FILE",
        help="model: results.json of `python -m eval run` on it",
    )
    card.add_argument("--summary", metavar="TEXT", help="model: what it is, in a sentence or two")
    card.add_argument("--contact", metavar="TEXT", help="whom to ask (default: the repository's discussions)")
    card.add_argument("--model", metavar="ORG/NAME", help="space: the model that it shows")
    card.add_argument("--new-card", action="store_true", help="replace a card that was changed by hand")


def choices_of(args: argparse.Namespace) -> Choices:
    """What the arguments choose."""
    return Choices(
        license=args.license,
        base_models=args.base_model,
        datasets=args.dataset,
        license_of=dict(args.license_of),
        results=args.results,
        summary=args.summary,
        contact=args.contact,
        new_card=args.new_card,
        forward=not getattr(args, "without_forward", False),
        leave_out_videos=getattr(args, "leave_out_videos", False),
        videos_may_be_published=getattr(args, "videos_may_be_published", False),
    )


def folder_of(source: str) -> Path:
    """
    Raises:
        `ValueError`: if the source is no folder.
    """
    if not Path(source).is_dir():
        raise ValueError(f"{source}: no such folder")
    return Path(source)


def model_of(args: argparse.Namespace) -> str:
    """
    Raises:
        `ValueError`: if a Space was given no model.
    """
    if args.model is None:
        raise ValueError("--model: a Space needs the model that it shows, such as --model org/grove")
    return str(args.model)


def _pair(text: str) -> tuple[str, str]:
    name, _, value = text.partition("=")
    if not name or not value:
        raise argparse.ArgumentTypeError(f"expected ORG/NAME=ID, got {text!r}")
    return name, value


__all__ = ["KINDS", "add_source_arguments", "choices_of", "folder_of", "model_of"]

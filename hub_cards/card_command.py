"""
Prints or writes a card alone.

    python -m hub_cards card model checkpoints/grove-tiny --license apache-2.0
    python -m hub_cards card dataset shards --repo org/shapes --output README.md

Without --repo, the examples in the card load SOURCE as it is given here.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from dataset_builders.command_line import emit
from modeling_grove.grounded_caption import atomic_path

from .arguments import add_source_arguments, choices_of, folder_of, model_of
from .dataset_card import dataset_card, derived_from, named_like
from .dataset_checks import peek, read_manifest
from .preparing import model_card_text, own_dataset_card, read_results, read_training
from .publication import check_repo_id
from .software import metric_card_of, own_card, space_card
from .terms import check_license, terms_of


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of the command."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.description = __doc__
    add_source_arguments(parser)
    parser.add_argument("--repo", metavar="ORG/NAME", help="repository that the examples load from")
    parser.add_argument("--output", type=Path, metavar="FILE", help="file to write (default: standard output)")
    parser.add_argument(
        "--json", action="store_true", help="print one JSON line, with the card's text without --output"
    )


def run(args: argparse.Namespace) -> int:
    """Makes the card."""
    text = card_text(args)
    if args.output is None:
        emit({"card": text}, text.rstrip("\n"), args.json)
        return 0
    args.output.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(args.output) as temporary:
        temporary.write_text(text, encoding="utf-8")
    emit({"output": str(args.output)}, str(args.output), args.json)
    return 0


def card_text(args: argparse.Namespace) -> str:
    """
    The card that the arguments ask for.

    Raises:
        `ValueError`: if a licence is missing or not allowed, or the source is no such thing.
    """
    choices = choices_of(args)
    name = args.source if args.repo is None else check_repo_id(args.repo)
    if args.kind == "metric":
        return metric_card_of(args.source, args.repo or f"org/{args.source}_score", choices)
    source = folder_of(args.source)
    if args.kind == "model":
        return model_card_text(source, name, choices, read_results(source, choices), read_training(source))
    if args.kind == "space":
        own = None if choices.new_card else own_card(source)
        return own or space_card(source, name, model_of(args), choices.contact)
    manifest = read_manifest(source)
    facts = peek(source, manifest)
    sources = derived_from(manifest, args.repo, facts, choices.datasets)
    terms = terms_of([], sources, choices.license_of)
    license_id = check_license(choices.license or manifest["license"], terms)
    manifest = {**named_like(manifest, source, args.repo), "license": license_id}
    own = own_dataset_card(source, manifest, choices)
    return own or dataset_card(manifest, name, license_id, facts, sources, terms, choices.contact)


__all__ = ["add_arguments", "card_text", "run"]

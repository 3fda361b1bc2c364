"""
Checks a model, a data set, a metric or a Space, and puts it on the Hub with its card.

    python -m hub_cards publish model outputs/ft --repo org/grove --license apache-2.0 --dry-run
    python -m hub_cards publish model outputs/ft --repo org/grove --results results/test/results.json --tag v1.0
    python -m hub_cards publish dataset shards --repo org/howtoground1m --leave-out-videos
    python -m hub_cards publish metric iground --repo org/iground_score
    python -m hub_cards publish space hub_cards/space --repo org/demo --model org/grove

Nothing is sent before every check has passed. An upload that was interrupted goes on when the command is given again. The licence
has to be one that the base models and the data allow; --license may be left out where they leave no choice.
"""

from __future__ import annotations

import argparse
from typing import Any

from transformers.utils.logging import disable_progress_bar

from dataset_builders.command_line import emit

from .arguments import add_source_arguments, choices_of, folder_of, model_of
from .preparing import prepare_dataset, prepare_model
from .publication import Publication
from .results_command import with_published_results
from .software import prepare_metric, prepare_space
from .uploading import Settings, check_access, upload


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of the command."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.description = __doc__
    add_source_arguments(parser)
    where = parser.add_argument_group("where")
    where.add_argument("--repo", required=True, metavar="ORG/NAME", help="repository; made if there is none")
    where.add_argument("--private", action="store_true", help="make the repository private, if it is made now")
    where.add_argument("--revision", metavar="BRANCH", help="branch to commit to (default: main)")
    where.add_argument("--tag", metavar="VERSION", help="tag for the commit, such as v1.0")
    where.add_argument("--message", default="Publish", metavar="TEXT", help="of the commit (default: %(default)s)")
    where.add_argument(
        "--delete", action="store_true", help="dataset: remove shards from the repository that SOURCE lacks"
    )

    checks = parser.add_argument_group("checks")
    checks.add_argument("--leave-out-videos", action="store_true", help="dataset: publish the annotations alone")
    checks.add_argument(
        "--videos-may-be-published",
        action="store_true",
        help="dataset: say that you have the right to publish its clips",
    )
    checks.add_argument(
        "--without-forward", action="store_true", help="model: do not load and run it, where memory is short"
    )

    parser.add_argument(
        "--dry-run", action="store_true", help="check all, list the files and their sizes, send nothing"
    )
    parser.add_argument("--json", action="store_true", help="print the result as one JSON line")


def run(args: argparse.Namespace) -> int:
    """Checks, then lists or sends."""
    if not args.dry_run:
        check_access()
    disable_progress_bar()  # of loading the weights
    publication = prepare(args)
    result: dict[str, Any] = {
        "repo": args.repo,
        "type": publication.repo_type,
        "files": publication.sizes(),
        "bytes": sum(publication.sizes().values()),
        "left_out": publication.left_out,
        "checks": publication.checks,
    }
    if args.dry_run:
        emit(result, _listing(publication), args.json)
        return 0
    settings = Settings(
        private=args.private,
        revision=args.revision,
        tag=args.tag,
        message=args.message,
        edited_card="replace" if args.new_card else "refuse",
        delete=args.delete,
    )
    if publication.kind == "model":
        with_published_results(publication, args.revision)
    result |= upload(publication, settings)
    text = (
        f"{result['url']}: {result['sent']} files sent, {result['unchanged']} were there, {result['removed']} removed; "
        f"commit {result['commit'][:12]}{f', tag {args.tag}' if args.tag else ''}"
    )
    emit(result, text, args.json)
    return 0


def prepare(args: argparse.Namespace) -> Publication:
    """
    What the arguments ask to publish.

    Raises:
        `ValueError`: with the reason, if it must not be published.
    """
    choices = choices_of(args)
    match args.kind:
        case "model":
            return prepare_model(folder_of(args.source), args.repo, choices)
        case "dataset":
            return prepare_dataset(folder_of(args.source), args.repo, choices)
        case "metric":
            return prepare_metric(args.source, args.repo, choices)
        case _:
            return prepare_space(folder_of(args.source), args.repo, model_of(args), choices)


def _listing(publication: Publication) -> str:
    sizes = publication.sizes()
    lines = [f"{size:15,}  {name}" for name, size in sizes.items()]
    lines.append(f"{sum(sizes.values()):15,}  bytes in {len(sizes)} files for {publication.repo_id}; nothing was sent")
    lines += [f"left out: {name} ({reason})" for name, reason in publication.left_out.items()]
    return "\n".join([*lines, *(f"checked: {check}" for check in publication.checks)])


__all__ = ["add_arguments", "prepare", "run"]

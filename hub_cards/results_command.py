"""
Adds results of an evaluation to a published model: to the table of its card, to its `model-index`, and as files.

    python -m eval run iground --model org/grove --data org/iground --split test --output results/test
    python -m hub_cards results results/test/results.json --repo org/grove

Results of another model are refused: those of a folder have to have the fingerprint of the folder that was published, those of a
Hub model have to be of a commit of the repository with the same weights.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi
from huggingface_hub.errors import EntryNotFoundError, RepositoryNotFoundError, RevisionNotFoundError
from huggingface_hub.hf_api import RepoFile

from dataset_builders.command_line import emit

from .model_card import RESULTS_FOLDER, read_json, results_name
from .preparing import check_results_of, results_files, with_results
from .publication import CARD, Publication, check_files, check_repo_id
from .rendering import check_card, is_signed, sign
from .uploading import Settings, hub_errors, remote_files, same_content, upload

_FINGERPRINT = re.compile(r"<!-- model ([0-9a-f]{32}) -->")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of the command."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.description = __doc__
    parser.add_argument("results", nargs="+", type=Path, metavar="FILE", help="results.json of `python -m eval run`")
    parser.add_argument("--repo", required=True, metavar="ORG/NAME", help="the published model")
    parser.add_argument("--revision", metavar="BRANCH", help="branch to commit to (default: main)")
    parser.add_argument("--tag", metavar="VERSION", help="tag for the commit")
    parser.add_argument("--dry-run", action="store_true", help="print the card as it would become, and send nothing")
    parser.add_argument("--json", action="store_true", help="print the result as one JSON line")


def run(args: argparse.Namespace) -> int:
    """Adds the results."""
    publication = add_results(args.results, check_repo_id(args.repo), args.revision)
    if args.dry_run:
        card = publication.files[CARD]
        assert isinstance(card, bytes)
        emit(
            {"repo": args.repo, "files": publication.sizes(), "card": card.decode()}, card.decode().rstrip(), args.json
        )
        return 0
    settings = Settings(revision=args.revision, tag=args.tag, message="Add results", edited_card="replace")
    result = upload(publication, settings)
    emit(result, f"{result['url']}: {result['sent']} files sent; commit {result['commit'][:12]}", args.json)
    return 0


def add_results(paths: list[Path], repo_id: str, revision: str | None = None) -> Publication:
    """
    The change that adds results to a published model.

    Raises:
        `ValueError`: if there is no such model, or the results are of another one.
    """
    given = {path: _results_of_run(path) for path in paths}
    new = {results_name(result): result for result in given.values()}
    api = HfApi()
    with hub_errors(f"{repo_id}: its results cannot be read"):
        try:
            there = remote_files(api, repo_id, "model", revision)
            text = Path(api.hf_hub_download(repo_id, CARD, revision=revision)).read_text(encoding="utf-8")
        except (RepositoryNotFoundError, RevisionNotFoundError, EntryNotFoundError) as error:
            reason = " ".join(str(error).split())[:200]
            raise ValueError(f"--repo: no published model with a card at {repo_id!r} ({reason})") from None
        for path, result in given.items():
            _check_model(api, result, repo_id, there, text, str(path))
        every = {**_published(api, repo_id, there, revision), **new}
    ours = is_signed(text)
    text = with_results(text, repo_id, list(every.values()))
    check_card(text)
    files = results_files(list(every.values()))
    files[CARD] = (sign(text) if ours else text).encode()
    publication = Publication("model", repo_id, files)
    check_files(publication)
    return publication


def with_published_results(publication: Publication, revision: str | None = None) -> None:
    """
    Keeps the results that a repository has, when the model is published again with the same weights; those of other weights go.

    Args:
        publication ([`Publication`]): of the model; its files and card are changed.
        revision (`str`, *optional*): branch that it goes to.
    """
    api = HfApi()
    with hub_errors(f"{publication.repo_id}: its results cannot be read"):
        try:
            there = remote_files(api, publication.repo_id, "model", revision)
        except (RepositoryNotFoundError, RevisionNotFoundError):
            return
        weights = {name: content for name, content in publication.files.items() if name.endswith(".safetensors")}
        if not all(same_content(content, there.get(name)) for name, content in weights.items()):
            return
        published = _published(api, publication.repo_id, there, revision)
    if not published:
        return
    given = {
        name.partition("/")[2]: c for name, c in publication.files.items() if name.startswith(f"{RESULTS_FOLDER}/")
    }
    every = {
        **published,
        **{name: json.loads(content) for name, content in given.items() if isinstance(content, bytes)},
    }
    card = publication.files[CARD]
    assert isinstance(card, bytes)
    text = with_results(card.decode(), publication.repo_id, list(every.values()))
    publication.files |= results_files(list(every.values()))
    publication.files[CARD] = (sign(text) if is_signed(card.decode()) else text).encode()


def _published(api: HfApi, repo_id: str, there: Mapping[str, RepoFile], revision: str | None) -> dict[str, Any]:
    """The results files that a repository has."""
    names = [name for name in there if re.fullmatch(rf"{RESULTS_FOLDER}/[^/]+\.json", name)]
    return {
        name.partition("/")[2]: read_json(Path(api.hf_hub_download(repo_id, name, revision=revision))) for name in names
    }


def _results_of_run(path: Path) -> dict[str, Any]:
    results = read_json(path)
    if not all(isinstance(results.get(part), Mapping) for part in ("headline", "data", "model")):
        raise ValueError(
            f"{path}: expected the results.json of `python -m eval run`, with `headline`, `data` and `model`"
        )
    return results


def _check_model(
    api: HfApi, results: Mapping[str, Any], repo_id: str, there: Mapping[str, RepoFile], card: str, place: str
) -> None:
    """
    Raises:
        `ValueError`: if results are not of the weights that a repository has.
    """
    model = results["model"]
    if model.get("revision") is None:
        found = _FINGERPRINT.search(card)
        if found is None:
            raise ValueError(
                f"{place}: results of a folder, and the card of {repo_id} does not say of which folder it is; evaluate it "
                "by its name"
            )
        check_results_of(results, found[1], place)
        return
    if model.get("name") != repo_id:
        raise ValueError(f"{place}: results of {model.get('name')!r}; expected those of {repo_id!r}")
    then = remote_files(api, repo_id, "model", model["revision"])
    names = {name for name in {*there, *then} if name.endswith(".safetensors")}
    for name in sorted(names):
        before, now = then.get(name), there.get(name)
        if before is None or now is None or before.blob_id != now.blob_id:
            raise ValueError(
                f"{place}: results of commit {model['revision'][:12]}, whose {name} is not that of {repo_id} now; evaluate it again"
            )


__all__ = ["add_arguments", "add_results", "run", "with_published_results"]

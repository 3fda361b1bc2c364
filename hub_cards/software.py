"""Publications of programs: a metric that `evaluate.load` reads by name, and the demo Space. Both are Spaces on the Hub."""

from __future__ import annotations

import ast
import importlib.metadata
import re
import tempfile
from pathlib import Path

from huggingface_hub import RepoCard, SpaceCardData

from eval.publishing import write_metric
from eval.results import BENCHMARKS

from .model_card import BY_DISCUSSION, PIPELINE_TAG
from .preparing import Choices
from .publication import CARD, Publication, check_files, check_repo_id, files_of
from .rendering import check_card, is_signed, make_card, render, split_sections
from .space import bundle

APP, REQUIREMENTS = "app.py", "requirements.txt"
_LICENSE = "apache-2.0"
_SHORT = "Captions a video; every noun phrase is tied to boxes"  # at most 60 characters


def prepare_metric(benchmark: str, repo_id: str, choices: Choices) -> Publication:
    """
    The publication of a metric.

    Args:
        benchmark (`str`): one of `BENCHMARKS`.
        repo_id (`str`): `org/name`; the script is called like it.
        choices ([`Choices`]): of a person.

    Raises:
        `ValueError`: if there is no such benchmark, the name is none for a script, or the licence is another one than the code's.
    """
    check_repo_id(repo_id)
    _check_license(choices)
    publication = Publication("metric", repo_id, {}, replaces=("*.py",))
    with tempfile.TemporaryDirectory() as place:
        for path in write_metric(benchmark, Path(place) / "metric", repo_id):
            content = path.read_bytes()
            if path.suffix == ".py":
                _check_syntax(content, path.name)
            publication.files[path.name] = content
    publication.checks.append("every module parses, and none needs a checkout")
    basic = publication.files[CARD]
    assert isinstance(basic, bytes)
    publication.files[CARD] = metric_card(basic.decode(), choices.contact).encode()
    check_files(publication)
    return publication


def metric_card(basic: str, contact: str | None = None) -> str:
    """The card of a metric: what `python -m eval metric` wrote, completed with limits, terms and whom to ask."""
    card = RepoCard(basic)
    opening, sections = split_sections(card.text)
    body = render("metric", opening=opening, sections=sections, contact=contact_line(contact))
    return make_card(card.data, body)


def metric_card_of(benchmark: str, name: str, choices: Choices) -> str:
    """
    The card of a metric alone.

    Raises:
        `ValueError`: as [`prepare_metric`].
    """
    if benchmark not in BENCHMARKS:
        raise ValueError(f"metric: got {benchmark!r}; expected one of {', '.join(BENCHMARKS)}")
    content = prepare_metric(benchmark, name, choices).files[CARD]
    assert isinstance(content, bytes)
    return content.decode()


def prepare_space(source: Path, repo_id: str, model: str, choices: Choices) -> Publication:
    """
    The publication of a Gradio Space.

    Args:
        source (`Path`): folder with `app.py` and `requirements.txt`.
        repo_id (`str`): `org/name`.
        model (`str`): the model that it shows, as a name on the Hub.
        choices ([`Choices`]): of a person.

    Raises:
        `ValueError`: if a file is missing or no Python, or the name is wrong.
    """
    check_repo_id(repo_id)
    _check_license(choices)
    publication = Publication("space", repo_id, {})
    publication.files |= files_of_space(source, model)
    text = own_card(source) if not choices.new_card else None
    publication.files[CARD] = (text or space_card(source, repo_id, model, choices.contact)).encode()
    check_files(publication)
    publication.checks.append("every module parses")
    return publication


def files_of_space(source: Path, model: str) -> dict[str, Path | bytes]:
    """The files of a Space. The demo of this package comes with the packages that it imports, and is told the model."""
    for name in (APP, REQUIREMENTS):
        if not (source / name).is_file():
            raise ValueError(f"{source}: no {name}; expected the folder of a Gradio Space")
    files: dict[str, Path | bytes]
    if source.resolve() == Path(bundle.__file__).resolve().parent:
        files = {**bundle.space_files(model)}
    else:
        files = {name: path for name, path in files_of(source) if name != CARD}
    for name, content in files.items():
        if name.endswith(".py"):
            _check_syntax(content.read_bytes() if isinstance(content, Path) else content, name)
    return files


def _check_syntax(content: bytes, name: str) -> None:
    try:
        ast.parse(content, name)
    except SyntaxError as error:
        raise ValueError(f"{name}, line {error.lineno}: {error.msg}") from None


def space_card(source: Path, repo: str, model: str, contact: str | None = None) -> str:
    """The card of a Space, with the settings that the Hub runs it by."""
    title = " ".join(word.capitalize() for word in re.split(r"[-_.]+", repo.rpartition("/")[2]))
    data = SpaceCardData(
        title=title,
        emoji="\U0001f3af",
        colorFrom="blue",
        colorTo="gray",
        sdk="gradio",
        sdk_version=gradio_version(source),
        python_version="3.11",
        app_file=APP,
        pinned=False,
        license=_LICENSE,
        models=[model],
        tags=["grounded-video-captioning", "video-captioning", PIPELINE_TAG],
        short_description=_SHORT,
    )
    body = render("space", title=title, repo=repo, model=model, contact=contact_line(contact))
    return make_card(data, body)


def own_card(source: Path) -> str | None:
    """The card in a folder that somebody wrote by hand, if there is one."""
    if not (source / CARD).is_file():
        return None
    text = (source / CARD).read_text(encoding="utf-8")
    if is_signed(text):
        return None
    check_card(text)
    return text


def gradio_version(source: Path) -> str:
    """
    The version of Gradio that a Space runs: the one that its requirements name, or that is installed here.

    Raises:
        `ValueError`: if neither says one.
    """
    path = source / REQUIREMENTS
    text = path.read_text(encoding="utf-8") if path.is_file() else ""
    named = re.search(r"^gradio(?:\[[\w,]+\])?\s*==\s*([\w.]+)", text, re.MULTILINE)
    if named is not None:
        return named[1]
    try:
        return importlib.metadata.version("gradio")
    except importlib.metadata.PackageNotFoundError:
        raise ValueError(
            f'{path}: names no gradio==VERSION, and gradio is not installed; pip install "grove-video[demo]"'
        ) from None


def contact_line(contact: str | None) -> str:
    """Whom to ask."""
    return f"{contact}. {BY_DISCUSSION}" if contact else BY_DISCUSSION


def _check_license(choices: Choices) -> None:
    if choices.license not in (None, _LICENSE):
        raise ValueError(f"--license: got {choices.license}; the code is under {_LICENSE}")


__all__ = ["metric_card_of", "prepare_metric", "prepare_space", "space_card"]

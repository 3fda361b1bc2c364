"""The card of a data set of shards: what `dataset_builders` writes for `load_dataset`, completed for people.

Its `configs` and `dataset_info`, its tables and its examples are those of [`dataset_builders.card.dataset_card`], which takes
all of them from the manifest; here come where the data is from, how to get the videos, limits, terms and whom to ask.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from huggingface_hub import DatasetCard

from dataset_builders.card import dataset_card as basic_card

from .dataset_checks import DatasetFacts
from .model_card import BY_DISCUSSION
from .rendering import make_card, parse_card, render, split_sections
from .terms import HOWTOGROUND, IGROUND, Terms

# Names in which a data set's own name is looked for, where it does not say what it is derived from.
_KNOWN_NAMES = {"howtoground": HOWTOGROUND, "iground": IGROUND}
_TEMPLATES = {HOWTOGROUND: "howtoground1m", IGROUND: "iground"}
# Of the files themselves, which a reader cannot change.
_FROM_MANIFEST = ("configs", "dataset_info")


def derived_from(
    manifest: Mapping[str, Any], repo: str | None, facts: DatasetFacts, given: Sequence[str] = ()
) -> list[str]:
    """
    The data sets that one is derived from: those given, and, unless it is synthetic, the released one that its own name or that of
    its repository has in it.

    Args:
        manifest (`Mapping`):
            Of the shards.
        repo (`str`, *optional*):
            Name of the repository.
        facts ([`DatasetFacts`]):
            What the records are.
        given (`Sequence[str]`, *optional*):
            Names on the Hub.
    """
    names = f"{manifest['name']} {repo or ''}".casefold().replace("-", "").replace("_", "")
    found = [source for part, source in _KNOWN_NAMES.items() if part in names and not facts.synthetic]
    return list(dict.fromkeys([*given, *found]))


def named_like(manifest: Mapping[str, Any], folder: Path, repo: str | None) -> dict[str, Any]:
    """The manifest, in which a data set that has the name of its folder alone is called like its repository."""
    named = repo and manifest["name"] == folder.resolve().name
    return {**manifest, "name": repo.rpartition("/")[2] if repo and named else manifest["name"]}


def dataset_card(
    manifest: Mapping[str, Any],
    name: str,
    license_id: str,
    facts: DatasetFacts,
    sources: Sequence[str] = (),
    terms: Sequence[Terms] = (),
    contact: str | None = None,
) -> str:
    """
    The README.md of a data set.

    Args:
        manifest (`Mapping`):
            Of the shards that are published.
        name (`str`):
            By which the examples load it: the repository, or the folder.
        license_id (`str`):
            Of the annotations.
        facts ([`DatasetFacts`]):
            What the records are.
        sources (`Sequence[str]`), terms (`Sequence[Terms]`):
            What it is derived from, and the terms of that.
        contact (`str`, *optional*):
            Whom to ask; by default through the repository's discussions.
    """
    basic = DatasetCard(basic_card({**manifest, "license": license_id}, name))
    opening, sections = split_sections(basic.text)
    sections.pop("Licence", None)
    template = next((_TEMPLATES[source] for source in sources if source in _TEMPLATES), "dataset")
    body = render(
        template,
        opening=opening,
        sections=sections,
        synthetic=facts.synthetic,
        noisy=facts.noisy,
        with_video=any(entry["with_video"] for entry in manifest["configs"].values()),
        license_id=license_id,
        terms=terms,
        contact=f"{contact}. {BY_DISCUSSION}" if contact else BY_DISCUSSION,
    )
    made_by_machine = facts.synthetic or HOWTOGROUND in sources
    basic.data["annotations_creators"] = ["machine-generated" if made_by_machine else "other"]
    basic.data["source_datasets"] = list(sources) or ["original"]
    if facts.synthetic:
        basic.data["tags"] = [*basic.data["tags"], "synthetic"]
    return make_card(basic.data, body)


def check_own_card(text: str, manifest: Mapping[str, Any]) -> None:
    """
    Whether a card that somebody wrote says of the files what the manifest says.

    Raises:
        `ValueError`: if its `configs` or `dataset_info` differ from it.
    """
    ours, theirs = DatasetCard(basic_card(manifest, "a/b")).data.to_dict(), parse_card(text).data.to_dict()
    for part in _FROM_MANIFEST:
        if ours.get(part) != theirs.get(part):
            raise ValueError(
                f"README.md: its `{part}` are not those of the shards, which load_dataset reads; take them from "
                "`python -m hub_cards card dataset`, or publish with --new-card"
            )


__all__ = ["check_own_card", "dataset_card", "derived_from", "named_like"]

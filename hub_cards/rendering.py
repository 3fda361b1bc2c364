"""Cards from their templates: YAML and Markdown, without anything left to be filled in, and signed.

A card ends with a checksum of itself, in a comment. One that somebody has changed by hand no longer fits it, and is left alone.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Any

from huggingface_hub import RepoCard
from huggingface_hub.repocard_data import CardData
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from yaml import YAMLError

_TEMPLATES = Path(__file__).parent / "templates"
_SIGNATURE = re.compile(r"\n<!-- hub_cards ([0-9a-f]{16}) -->\n\Z")
_PLACEHOLDER = re.compile(
    r"(?i:\[[^\]]*(?:more information needed|your |fill in)[^\]]*\]|<your|lorem ipsum)|\bORG/|\b(?:TODO|FIXME|TBD|XXX)\b|\{\{|\{%"
)
_HEADING = re.compile(r"^## (.+)$", re.MULTILINE)


def render(template: str, **values: Any) -> str:
    """
    A template's text.

    Args:
        template (`str`):
            Name of a file in `templates/`, without `.md.jinja`.
        values:
            Everything that it asks for: what is missing is an error, not an empty place.
    """
    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        autoescape=False,
    )
    text = environment.get_template(f"{template}.md.jinja").render(values)
    return re.sub(r"\n{3,}", "\n\n", text).strip() + "\n"


def make_card(data: CardData, body: str) -> str:
    """
    A card, signed.

    Args:
        data (`CardData`): its metadata.
        body (`str`): Markdown.

    Raises:
        `ValueError`: as [`check_card`].
    """
    # No line is folded, whatever the length of a name.
    text = f"---\n{data.to_yaml(line_break=chr(10))}\n---\n\n{body.strip()}\n"
    check_card(text)
    return sign(text)


def parse_card(text: str, place: str = "README.md") -> RepoCard:
    """
    A card's metadata and text.

    Raises:
        `ValueError`: if the metadata is no YAML, or no mapping.
    """
    try:
        return RepoCard(text)
    except (ValueError, YAMLError) as error:
        raise ValueError(f"{place}: its metadata cannot be read: {' '.join(str(error).split())}") from None


def check_card(text: str) -> RepoCard:
    """
    Looks whether a card can be published.

    Raises:
        `ValueError`: if it has no metadata, no licence, or a place that was left to be filled in.
    """
    found = _PLACEHOLDER.search(text)
    if found is not None:
        line = text.count("\n", 0, found.start()) + 1
        raise ValueError(f"README.md, line {line}: {found[0]!r} was left to be filled in; write what belongs there")
    card = parse_card(text)
    if not card.data.get("license"):
        raise ValueError("README.md: no `license` in its metadata; give --license, or write it there")
    return card


def sign(text: str) -> str:
    """The text with its checksum at the end, in place of one that is there."""
    text = _SIGNATURE.sub("", text).rstrip() + "\n"
    return f"{text}\n<!-- hub_cards {_checksum(text)} -->\n"


def is_signed(text: str) -> bool:
    """Whether a card is as it was made, and nobody has changed it since."""
    found = _SIGNATURE.search(text)
    return found is not None and _checksum(text[: found.start()]) == found[1]


def _checksum(text: str) -> str:
    return hashlib.sha256(text.rstrip().encode()).hexdigest()[:16]


def split_sections(markdown: str) -> tuple[str, dict[str, str]]:
    """What stands before the first heading of the second level, and the text under each of them, in order."""
    first, *rest = _HEADING.split(markdown)
    return first.strip(), {name: text.strip() for name, text in zip(rest[::2], rest[1::2], strict=True)}


__all__ = ["check_card", "is_signed", "make_card", "parse_card", "render", "sign", "split_sections"]

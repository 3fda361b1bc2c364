"""Under which terms something may be published, from the terms of what it was made of.

A model is made of its base models and its data, a data set of other data sets, and each of them of others in turn. The terms of
those that are known here stand in a table with their source; of others the card on the Hub says them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase

from huggingface_hub import DatasetCard, ModelCard
from huggingface_hub.errors import (
    EntryNotFoundError,
    HFValidationError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
)
from yaml import YAMLError

from .publication import HUB_ERRORS

NON_COMMERCIAL_SHARE_ALIKE = "cc-by-nc-sa-4.0"
PERMISSIVE = frozenset(
    {"apache-2.0", "mit", "bsd-2-clause", "bsd-3-clause", "cc0-1.0", "cc-by-4.0", "cc-by-3.0", "unlicense", "isc"}
)
RESEARCH_WEIGHTS = "ekazakos/grove"
GLAMM = "MBZUAI/GLaMM-GranD-Pretrained"
HOWTOGROUND = "ekazakos/HowToGround1M"
IGROUND = "ekazakos/iGround"
_DEPTH = 6  # of base models of base models


@dataclass(frozen=True)
class Terms:
    """
    Terms of one thing that others are made of.

    Attributes:
        name (`str`): its name on the Hub.
        license (`str`): the Hub's identifier of its licence.
        source (`str`): where that is known from.
    """

    name: str
    license: str
    source: str

    @property
    def share_alike(self) -> bool:
        """Whether what is made of it has to be under the same licence."""
        return "-sa-" in self.license

    @property
    def non_commercial(self) -> bool:
        """Whether what is made of it may not be used commercially."""
        return "-nc-" in self.license


# Pattern of names in lower case: licence, and where that is known from.
KNOWN: Mapping[str, tuple[str, str]] = {
    "ekazakos/grove*": (
        NON_COMMERCIAL_SHARE_ALIKE,
        "the licence of the original repository, which its weights are taken to be under",
    ),
    "ekazakos/howtoground1m": (NON_COMMERCIAL_SHARE_ALIKE, "its card on the Hub"),
    "ekazakos/iground": (NON_COMMERCIAL_SHARE_ALIKE, "its card on the Hub"),
    "mbzuai/glamm-*": ("llama2", "weights of Vicuna, made from Llama 2; its code is Apache-2.0"),
    "lmsys/vicuna-*-v1.5*": ("llama2", "its card on the Hub"),
    "meta-llama/llama-2-*": ("llama2", "its card on the Hub"),
    "openai/clip-vit-*": ("mit", "the licence of its repository"),
    "facebook/sam-vit-*": ("apache-2.0", "its card on the Hub"),
}


def known_terms(name: str) -> Terms | None:
    """The terms of something in the table, or `None`."""
    for pattern, (license_id, source) in KNOWN.items():
        if fnmatchcase(name.casefold(), pattern):
            return Terms(name, license_id, source)
    return None


def terms_of(base_models: Iterable[str], datasets: Iterable[str], said: Mapping[str, str] | None = None) -> list[Terms]:
    """
    The terms of everything that something is made of.

    Args:
        base_models (`Iterable[str]`), datasets (`Iterable[str]`):
            Names on the Hub.
        said (`Mapping[str, str]`, *optional*):
            Licences by name that were given by hand, for what neither the table nor the Hub knows.

    Returns:
        `list[Terms]`: in the order in which they were found, each once.

    Raises:
        `ValueError`: if the terms of one of them cannot be found out.
    """
    found: dict[str, Terms] = {}
    ahead = [(name, "model", 0) for name in base_models] + [(name, "dataset", 0) for name in datasets]
    for name, kind, depth in ahead:  # grows meanwhile
        if name.casefold() in found:
            continue
        terms, made_of = _find(name, kind, said or {})
        found[name.casefold()] = terms
        if depth < _DEPTH:
            ahead += [(other, other_kind, depth + 1) for other, other_kind in made_of]
    return list(found.values())


def _find(name: str, kind: str, said: Mapping[str, str]) -> tuple[Terms, list[tuple[str, str]]]:
    """The terms of one thing, and what its card says that it is made of."""
    known = known_terms(name)
    if known is not None:
        return known, []
    if name in said:
        return Terms(name, said[name], "given by hand"), []
    try:
        card = ModelCard.load(name) if kind == "model" else DatasetCard.load(name)
    except (LocalEntryNotFoundError, OfflineModeIsEnabled) as error:
        raise ValueError(f"the licence of {name!r} cannot be looked up: {' '.join(str(error).split())}") from None
    except (RepositoryNotFoundError, EntryNotFoundError, HFValidationError):
        card = None
    except HUB_ERRORS as error:
        raise ValueError(f"the licence of {name!r} cannot be looked up: {' '.join(str(error).split())}") from None
    except (ValueError, YAMLError) as error:
        raise ValueError(f"{name}: the metadata of its card cannot be read: {' '.join(str(error).split())}") from None
    license_id = None if card is None else card.data.get("license")
    if not isinstance(license_id, str) or license_id == "unknown":
        what = "base_model" if kind == "model" else "datasets"
        raise ValueError(
            f"{what}: no card on the Hub says the licence of {name!r}; give it as --license-of {name}=LICENCE"
        )
    made_of = [] if kind == "dataset" else [(other, "model") for other in as_list(card.data.get("base_model"))]
    data = as_list(card.data.get("datasets" if kind == "model" else "source_datasets"))
    made_of += [(other, "dataset") for other in data if "/" in other]
    return Terms(name, license_id, "its card on the Hub"), made_of


def required_license(terms: Iterable[Terms]) -> str | None:
    """The licence that something has to be under for what it is made of, if there is no choice."""
    terms = list(terms)
    for found in terms:
        if found.share_alike:
            return found.license
    if any(found.non_commercial for found in terms):
        return "cc-by-nc-4.0"
    return next((found.license for found in terms if found.license == "llama2"), None)


def check_license(license_id: str | None, terms: Iterable[Terms]) -> str:
    """
    The licence to publish under: the one that was chosen, if the terms of what it is made of allow it.

    Args:
        license_id (`str`, *optional*):
            The licence that was chosen; by default the one that the terms require.
        terms (`Iterable[Terms]`):
            Of everything that it is made of.

    Raises:
        `ValueError`: if none was chosen and none is required, or the terms forbid the one that was chosen.
    """
    terms = list(terms)
    license_id = license_id or required_license(terms)
    if license_id is None:
        raise ValueError("no licence: give --license, such as apache-2.0")
    for found in terms:
        place = f"it is made of {found.name!r}, which is under {found.license} ({found.source})"
        if found.share_alike and license_id != found.license:
            raise ValueError(f"--license: got {license_id}, but {place}; expected {found.license}")
        if found.non_commercial and "-nc" not in license_id:
            raise ValueError(f"--license: got {license_id}, but {place}; expected a non-commercial one")
        if found.license not in PERMISSIVE and license_id in PERMISSIVE:
            raise ValueError(f"--license: got {license_id}, but {place}; expected {found.license} or stricter")
    return license_id


def as_list(value: object) -> list[str]:
    """What a card has as nothing, one name or a list of names."""
    return [] if value is None else [value] if isinstance(value, str) else [str(item) for item in value]  # type: ignore[attr-defined]


__all__ = [
    "GLAMM",
    "HOWTOGROUND",
    "IGROUND",
    "NON_COMMERCIAL_SHARE_ALIKE",
    "RESEARCH_WEIGHTS",
    "Terms",
    "as_list",
    "check_license",
    "known_terms",
    "required_license",
    "terms_of",
]

"""From a folder to a publication: what is checked, which files go, and with which card."""

from __future__ import annotations

import hashlib
import logging
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCard, eval_result_entries_to_yaml
from huggingface_hub.repocard_data import model_index_to_eval_results
from huggingface_hub.utils import yaml_dump

from dataset_builders.card import dataset_card as basic_dataset_card
from dataset_builders.sources import MANIFEST_NAME
from eval.model_index import eval_result_entries
from eval.provenance import describe_model
from eval.result_files import HUB_RESULTS
from modeling_grove.remote_code_grove import add_remote_code

from .dataset_card import check_own_card, dataset_card, derived_from, named_like
from .dataset_checks import check_shards, read_manifest, shards_of, without_videos
from .model_card import (
    RESULTS_FOLDER,
    lineage,
    model_card,
    read_json,
    replace_results_section,
    results_metadata,
    results_name,
    results_section,
)
from .model_checks import check_model, check_weights
from .publication import CARD, Publication, check_files, check_repo_id
from .rendering import check_card, is_signed, parse_card, sign
from .terms import as_list, check_license, terms_of
from .uploading import as_bytes

logger = logging.getLogger(__name__)

# Not the Trainer's state, events and pictures, which have paths and the name of this machine in them.
_MODEL_FILES = (
    "config.json",
    "generation_config.json",
    "*.safetensors",
    "*.safetensors.index.json",
    "adapter_config.json",
    "processor_config.json",
    "chat_template.jinja",
    "tokenizer*",
    "special_tokens_map.json",
)
_REPLACED_FILES = ("*.safetensors", "*.safetensors.index.json", f"{RESULTS_FOLDER}/*.json", f"{HUB_RESULTS}/*.yaml")
TRAINING_RESULTS = "results.json"


@dataclass(frozen=True)
class Choices:
    """
    What a person decides.

    Attributes:
        license (`str` or `None`): of the weights or annotations.
        base_models (`list[str]`), datasets (`list[str]`): what it is made of, as names on the Hub.
        license_of (`dict[str, str]`): licences of these, where nobody else says them.
        results (`list[Path]`): files of `python -m eval run`.
        summary (`str` or `None`), contact (`str` or `None`): for the card.
        new_card (`bool`): whether to replace a card that somebody has changed by hand.
        forward (`bool`): whether a model is loaded and run.
        leave_out_videos (`bool`), videos_may_be_published (`bool`): of a data set.
    """

    license: str | None = None
    base_models: list[str] = field(default_factory=list)
    datasets: list[str] = field(default_factory=list)
    license_of: dict[str, str] = field(default_factory=dict)
    results: list[Path] = field(default_factory=list)
    summary: str | None = None
    contact: str | None = None
    new_card: bool = False
    forward: bool = True
    leave_out_videos: bool = False
    videos_may_be_published: bool = False


def prepare_model(source: Path, repo_id: str, choices: Choices, card: str | None = None) -> Publication:
    """
    A model's publication.

    Args:
        source (`Path`):
            Folder of a model with its processor, such as that of a training run.
        repo_id (`str`):
            `org/name`.
        choices ([`Choices`]):
            Of a person.
        card (`str`, *optional*):
            A card that was made before; by default it is made here.

    Raises:
        `ValueError`: with the reason, if it must not be published.
    """
    check_repo_id(repo_id)
    if not (source / "config.json").is_file():
        raise ValueError(f"{source}: no config.json; expected the folder of a model")
    adapter = (source / "adapter_config.json").is_file()
    publication = Publication("model", repo_id, {}, replaces=_REPLACED_FILES)
    for path in sorted(source.iterdir()):
        if not path.is_file() or path.name == CARD:
            continue
        if any(path.match(pattern) for pattern in _MODEL_FILES):
            publication.files[path.name] = path
        elif path.suffix != ".py":  # the code is added anew
            publication.left_out[path.name] = "not part of a model"
    training = read_training(source)
    if training is not None:
        publication.files[TRAINING_RESULTS] = source / TRAINING_RESULTS
        publication.left_out.pop(TRAINING_RESULTS, None)
    if adapter:
        publication.checks += ["safetensors alone"] if check_weights(source) else []
    else:
        publication.checks += check_model(source, forward=choices.forward)
        publication.files |= remote_code_files(source)
    results = read_results(source, choices)
    publication.files |= results_files(results)
    text = model_card_text(source, repo_id, choices, results, training) if card is None else card
    publication.files[CARD] = text.encode()
    check_files(publication)
    return publication


def model_card_text(
    source: Path,
    name: str,
    choices: Choices,
    results: Sequence[Mapping[str, Any]] = (),
    training: Mapping[str, Any] | None = None,
) -> str:
    """
    The card of a model's folder. One that somebody wrote there stays, and only gets results; its licence has to fit all the same.

    Raises:
        `ValueError`: if the licence is not given or not allowed, or something was left to be filled in.
    """
    there = None if not (source / CARD).is_file() else (source / CARD).read_text(encoding="utf-8")
    metadata: Mapping[str, Any] = {} if there is None else parse_card(there, str(source / CARD)).data.to_dict()
    start = ((training or {}).get("settings") or {}).get("start") or {}
    trained_from = [start["name"]] if start.get("revision") else []
    made_of = lineage(
        read_json(source / "config.json"),
        [*choices.base_models, *as_list(metadata.get("base_model")), *trained_from],
        [*choices.datasets, *as_list(metadata.get("datasets"))],
        choices.license_of,
    )
    if (source / "adapter_config.json").is_file() and not made_of.base_models:
        raise ValueError(f"{source}: low-rank weights belong to a model; give it as --base-model ORG/NAME")
    said = metadata.get("license")
    license_id = check_license(choices.license or (None if said == "unknown" else said), made_of.terms)
    if there is not None and not is_signed(there) and not choices.new_card:
        check_card(there)
        if said != license_id:
            raise ValueError(f"{source / CARD}: license: {said}, but --license says {license_id}; make them the same")
        logger.info("%s was written by hand and stays; --new-card replaces it", source / CARD)
        return with_results(there, name, results) if results else there
    fingerprint = describe_model(str(source))["fingerprint"]
    text = model_card(
        source,
        name,
        license_id,
        made_of,
        results=results,
        training=training,
        summary=choices.summary,
        contact=choices.contact,
    )
    return with_fingerprint(text, fingerprint)


def prepare_dataset(source: Path, repo_id: str, choices: Choices) -> Publication:
    """
    The publication of a folder of shards, as `python -m dataset_builders shard` writes it.

    Raises:
        `ValueError`: with the reason, if it must not be published.
    """
    check_repo_id(repo_id)
    manifest = read_manifest(source)
    facts = check_shards(source, manifest)
    sources = derived_from(manifest, repo_id, facts, choices.datasets)
    terms = terms_of([], sources, choices.license_of)
    license_id = check_license(choices.license or manifest["license"], terms)
    with_video = {name: entry for name, entry in manifest["configs"].items() if entry["with_video"]}
    publication = Publication("dataset", repo_id, {}, replaces=("*/*.tar",), base_card=manifest.get("card_sha256"))
    publication.checks += ["every shard has the checksum of the manifest", f"{facts.records:,} records are valid"]
    if with_video and choices.leave_out_videos:
        publication.left_out |= dict.fromkeys(with_video, "clips of videos")
        manifest = without_videos(manifest)
    elif with_video and not facts.synthetic and not choices.videos_may_be_published:
        raise ValueError(
            f"{source}: {', '.join(with_video)} has clips of videos that are not GroundedShapes: --leave-out-videos publishes the "
            "annotations alone, --videos-may-be-published says that you have the right to publish them"
        )
    manifest = {**named_like(manifest, source, repo_id), "license": license_id}
    publication.files |= {shard["name"]: source / shard["name"] for _, _, shard in shards_of(manifest)}
    there = own_dataset_card(source, manifest, choices)
    text = there or dataset_card(manifest, repo_id, license_id, facts, sources, terms, choices.contact)
    manifest["card_sha256"] = hashlib.sha256(text.encode()).hexdigest()
    publication.files |= {CARD: text.encode(), MANIFEST_NAME: as_bytes(manifest)}
    check_files(publication)
    return publication


def own_dataset_card(source: Path, manifest: Mapping[str, Any], choices: Choices) -> str | None:
    """
    The card in a folder of shards that somebody wrote, if there is one: neither as `shard` nor as this package makes it.

    Raises:
        `ValueError`: if it says other things of the files than the manifest.
    """
    path = source / CARD
    if choices.new_card or not path.is_file():
        return None
    text = path.read_text(encoding="utf-8")
    basic = hashlib.sha256(text.encode()).hexdigest() == read_manifest(source).get("card_sha256")
    if basic or is_signed(text) or text == basic_dataset_card(read_manifest(source)):
        return None
    check_card(text)
    check_own_card(text, manifest)
    logger.info("%s was written by hand and stays; --new-card replaces it", path)
    return text


def read_training(source: Path) -> dict[str, Any] | None:
    """The results of the training run whose folder this is, if it is one."""
    if not (source / TRAINING_RESULTS).is_file():
        return None
    results = read_json(source / TRAINING_RESULTS)
    return results if "stage" in results and "settings" in results else None


def read_results(source: Path, choices: Choices) -> list[dict[str, Any]]:
    """
    The results that were chosen.

    Raises:
        `ValueError`: if one of them is of another model than that in the folder.
    """
    results = [read_json(path) for path in choices.results]
    if results:
        fingerprint = describe_model(str(source))["fingerprint"]
        for path, result in zip(choices.results, results, strict=True):
            check_results_of(result, fingerprint, str(path))
    return results


def remote_code_files(source: Path) -> dict[str, Path | bytes]:
    """What `trust_remote_code=True` needs: the modules, and the two files that name them."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        for name in ("config.json", "processor_config.json"):
            if (source / name).is_file():
                (folder / name).write_bytes((source / name).read_bytes())
        add_remote_code(folder)
        return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def results_files(results: Sequence[Mapping[str, Any]]) -> dict[str, Path | bytes]:
    """The results files themselves, and the entries for the leaderboards of the data sets that are on the Hub."""
    files: dict[str, Path | bytes] = {f"{RESULTS_FOLDER}/{results_name(r)}": as_bytes(r) for r in results}
    entries: dict[str, list[Any]] = {}
    for result in results:
        entries.setdefault(result["benchmark"], []).extend(eval_result_entries(result))
    for benchmark, found in entries.items():
        if found:
            text = yaml_dump(eval_result_entries_to_yaml(found))
            files[f"{HUB_RESULTS}/{benchmark}.yaml"] = text.encode()
    return files


def check_results_of(results: Mapping[str, Any], fingerprint: str | None, place: str) -> None:
    """
    Whether results are those of a model.

    Raises:
        `ValueError`: if they are of another one, or no results of a run.
    """
    model = results.get("model")
    if not isinstance(model, Mapping) or "headline" not in results:
        raise ValueError(
            f"{place}: expected the results.json of `python -m eval run`, with `headline`, `data` and `model`"
        )
    if model.get("fingerprint") != fingerprint:
        raise ValueError(
            f"{place}: results of {model.get('name')!r} with fingerprint {model.get('fingerprint')}; this model has "
            f"{fingerprint}; run `python -m eval run` on it"
        )


def with_results(text: str, name: str, results: Sequence[Mapping[str, Any]]) -> str:
    """A card with these results in its metadata, beside others that are there, and in its section of results."""
    card = ModelCard(text)
    data: Any = card.data
    title = name.rpartition("/")[2]
    added = results_metadata(title, results)
    if added:
        new = {entry.unique_identifier for entry in added["eval_results"]}
        index = data.to_dict().get("model-index")
        old = [] if not index else model_index_to_eval_results(index)[1]
        data.eval_results = [e for e in old if e.unique_identifier not in new] + added["eval_results"]
        data.model_name = title
        data.metrics = sorted({*as_list(data.get("metrics")), *added["metrics"]})
    body = replace_results_section(card.text, results_section(results))
    return f"---\n{data.to_yaml(line_break=chr(10))}\n---\n{body}"


def with_fingerprint(text: str, fingerprint: str | None) -> str:
    """A signed card that also says of which files it is."""
    body = text.rpartition("\n<!-- hub_cards ")[0].rstrip()
    return sign(f"{body}\n\n<!-- model {fingerprint} -->\n")


__all__ = [
    "Choices",
    "check_results_of",
    "model_card_text",
    "prepare_dataset",
    "prepare_model",
    "read_results",
    "read_training",
    "results_files",
    "with_results",
]

"""The card of a model: from its folder, the record of its training, and results files; no number comes from anywhere else."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCardData
from safetensors import safe_open

from eval.model_index import eval_results

from .rendering import make_card, render
from .terms import GLAMM, HOWTOGROUND, IGROUND, RESEARCH_WEIGHTS, Terms, known_terms, terms_of

PIPELINE_TAG = "video-text-to-text"
TAGS = ["grounded-video-captioning", "video-captioning", "video-grounding", "custom_code"]
RESULTS_FOLDER = "results"
BY_DISCUSSION = (
    "Open a discussion in the Community tab of this repository, also to have something taken down: name what it is and why, and it "
    "is removed from the next version, and from this one where it has to be."
)
_RESULTS_SECTION = re.compile(r"<!-- results -->.*?<!-- /results -->", re.DOTALL)


@dataclass(frozen=True)
class Lineage:
    """
    What a model is made of, and the terms of that.

    Attributes:
        base_models (`list[str]`), datasets (`list[str]`): names on the Hub.
        terms (`list[Terms]`): of these, and of what they are made of in turn.
    """

    base_models: list[str]
    datasets: list[str]
    terms: list[Terms]


def lineage(
    config: Mapping[str, Any],
    base_models: Sequence[str] = (),
    datasets: Sequence[str] = (),
    said: Mapping[str, str] | None = None,
    *,
    look_up: bool = True,
) -> Lineage:
    """
    What a model is made of: what is given, and what its configuration gives away.

    Args:
        config (`Mapping`):
            Its `config.json`.
        base_models (`Sequence[str]`), datasets (`Sequence[str]`):
            Names on the Hub.
        said (`Mapping[str, str]`, *optional*):
            Licences given by hand; see [`terms_of`].
        look_up (`bool`, *optional*, defaults to `True`):
            Whether terms that are not known here are looked up on the Hub; else they are left out.

    Raises:
        `ValueError`: as [`terms_of`].
    """
    bases = list(dict.fromkeys(base_models))
    if look_up:
        found = terms_of(bases, datasets, said)
    else:
        found = [terms for terms in map(known_terms, [*bases, *datasets]) if terms is not None]
    names = {item.name.casefold() for item in found}
    text = config.get("text_config") or {}
    # Only the converter of the research weights sets these two (modeling_grove/checkpoint_map_grove.py).
    original = config.get("vision_adapter_grid") is not None or bool(config.get("freeze_vision_adapters"))
    # And a Llama of this size is nobody's own.
    large = text.get("hidden_size", 0) >= 4096 and text.get("num_hidden_layers", 0) >= 32
    from_llama = any(t.license == "llama2" or t.name.casefold().startswith(RESEARCH_WEIGHTS) for t in found)
    hidden = RESEARCH_WEIGHTS if original else GLAMM if large and not from_llama else None
    if hidden is not None and not any(name.startswith(hidden.casefold()) for name in names):
        bases.append(hidden)
        found += terms_of([hidden], [])
    return Lineage(bases, list(dict.fromkeys(datasets)), found)


def model_card(
    folder: Path,
    name: str,
    license_id: str,
    made_of: Lineage,
    *,
    results: Iterable[Mapping[str, Any]] = (),
    training: Mapping[str, Any] | None = None,
    summary: str | None = None,
    contact: str | None = None,
    metadata: Mapping[str, Any] | None = None,
) -> str:
    """
    The README.md of a model.

    Args:
        folder (`Path`):
            With its `config.json` and weights.
        name (`str`):
            By which the examples load it: the repository, or the folder.
        license_id (`str`):
            Of the weights.
        made_of ([`Lineage`]):
            Base models, data and terms.
        results (`Iterable[Mapping]`, *optional*):
            Contents of `results.json` files of `python -m eval run`.
        training (`Mapping`, *optional*):
            The `results.json` of `train/pt.py` or `ft.py`.
        summary (`str`, *optional*):
            What it is, in a sentence or two.
        contact (`str`, *optional*):
            Whom to ask; by default through the repository's discussions.
        metadata (`Mapping`, *optional*):
            More of the card's metadata; it goes over ours.

    Raises:
        `ValueError`: if the folder has no configuration, a results file is none, or something was left to be filled in.
    """
    results = list(results)
    config = read_json(folder / "config.json")
    adapter = (folder / "adapter_config.json").is_file()
    title = name.rstrip("/").rpartition("/")[2]
    instructional = any(HOWTOGROUND in t.name or IGROUND in t.name or RESEARCH_WEIGHTS in t.name for t in made_of.terms)
    facts = None if training is None else training_facts(training)
    body = render(
        "model",
        title=title,
        name=name,
        summary=summary or _summary(made_of),
        size=_size(folder, config),
        adapter=adapter,
        with_code=not adapter,
        base_models=made_of.base_models,
        datasets=made_of.datasets,
        training=facts,
        results_section=results_section(results),
        num_frames=config.get("num_frames", 8),
        instructional=instructional,
        license_line="no licence has been chosen yet; ask before you use them"
        if license_id == "unknown"
        else license_id,
        terms=made_of.terms,
        contact=f"{contact}. {BY_DISCUSSION}" if contact else BY_DISCUSSION,
    )
    card: dict[str, Any] = {
        "library_name": "peft" if adapter else "transformers",
        "pipeline_tag": PIPELINE_TAG,
        "license": license_id,
        "language": "en",
        "tags": TAGS[:-1] if adapter else TAGS,
        "base_model": made_of.base_models or None,
        "datasets": made_of.datasets or None,
        **results_metadata(title, results),
    }
    return make_card(ModelCardData(**{**card, **(metadata or {})}), body)


def results_metadata(model_name: str, results: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """`metrics`, and `eval_results` with `model_name`, as [`ModelCardData`] takes them; nothing without results."""
    entries: list[EvalResult] = [entry for result in results for entry in eval_results(result)]
    if not entries:
        return {}
    metrics = sorted({entry.metric_type for entry in entries})
    return {"metrics": metrics, "eval_results": entries, "model_name": model_name}


def results_section(results: Iterable[Mapping[str, Any]]) -> str:
    """The section of a card with the tables of results, between the marks by which it is found again."""
    return render("_results", results=[_result(result) for result in results])


def replace_results_section(text: str, section: str) -> str:
    """A card's text with another section of results; a card that has none gets it at its end."""
    if _RESULTS_SECTION.search(text):
        return _RESULTS_SECTION.sub(lambda _: section.strip(), text, count=1)
    return f"{text.rstrip()}\n\n{section.strip()}\n"


def results_name(results: Mapping[str, Any]) -> str:
    """The name of a results file in a repository: one for each benchmark, data and split."""
    data = results["data"]
    parts = (results["benchmark"], data["name"], data.get("split"))
    return re.sub(r"[^a-z0-9._]+", "-", "_".join(str(p) for p in parts if p).lower()).strip("-") + ".json"


def read_json(path: Path) -> dict[str, Any]:
    """
    Reads a JSON object.

    Raises:
        `ValueError`: if the file is not there, or holds something else.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ValueError(f"{path}: no such file") from None
    except ValueError as error:
        raise ValueError(f"{path}: not JSON ({error})") from None
    if not isinstance(value, dict):
        raise ValueError(f"{path}: expected an object, got {type(value).__name__}")
    return value


def training_facts(training: Mapping[str, Any]) -> dict[str, Any]:
    """
    What the card says of a training run.

    Args:
        training (`Mapping`): the `results.json` of a run, or the parts `settings`, `groups`, `metrics` and `steps` of one.
    """
    settings, metrics = training["settings"], training.get("metrics", {})
    batch = settings["per_device_train_batch_size"] * settings["gradient_accumulation_steps"] * settings["processes"]
    groups = training.get("groups", [])
    start = (settings.get("start") or {}).get("name")
    kind = str(settings["lr_scheduler_type"]).rpartition(".")[2].lower()  # of transformers' enumeration
    schedule = f"{settings['learning_rate']:g}, {kind}, {settings['warmup_steps']:g} warm-up"
    trained = sum(group["trained"] for group in groups)
    rows = {
        "started from": f"`{start}`" if start else None,
        "steps": f"{training['steps']:,} of {batch} clips",
        "data": ", ".join(training.get("data_names", [])) or None,
        "learning rate": schedule,
        "parameters": f"{sum(g['parameters'] for g in groups):,}, {trained:,} trained" if groups else None,
        "precision": "bfloat16" if settings["bf16"] else "float16" if settings["fp16"] else "float32",
        "seed": settings["seed"],
    }
    scores = {
        name.removeprefix("eval_"): f"{value:.3f}"
        for name, value in metrics.items()
        if name.startswith("eval_")
        and not name.endswith(("_runtime", "_per_second"))
        and isinstance(value, int | float)
    }
    known = {name: value for name, value in rows.items() if value is not None}
    return {"settings": known, "validation": scores, "validation_step": metrics.get("step")}


def _summary(made_of: Lineage) -> str:
    if made_of.base_models:
        return f"A model for grounded video captioning, made from {', '.join(made_of.base_models)}."
    return "A model for grounded video captioning."


def _size(folder: Path, config: Mapping[str, Any]) -> str:
    """Parameters, bytes and what a window is, from the files."""
    count = total = 0
    for path in sorted(folder.glob("*.safetensors")):
        total += path.stat().st_size
        with safe_open(path, framework="np") as file:
            for key in file.keys():  # noqa: SIM118 - not a dict
                size = 1
                for length in file.get_slice(key).get_shape():
                    size *= length
                count += size
    if not count:
        return ""
    unit = f"{count / 1e9:.1f} billion" if count >= 1e9 else f"{count / 1e6:.1f} million"
    return f"{unit} parameters, {total / 1e6:,.1f} MB, windows of {config.get('num_frames', 8)} frames"


def _result(results: Mapping[str, Any]) -> dict[str, str]:
    """Title, table and origin of a results file."""
    if not isinstance(results.get("headline"), Mapping) or not isinstance(results.get("data"), Mapping):
        raise ValueError(
            "results: expected the results.json of `python -m eval run`, with `headline`, `data` and `model`"
        )
    headline, data = results["headline"], results["data"]
    metrics = list(dict.fromkeys(metric for row in headline.values() for metric in row))
    lines = ["| protocol | " + " | ".join(metrics) + " |", "|---" * (len(metrics) + 1) + "|"]
    for protocol, row in headline.items():
        cells = ("-" if row.get(metric) is None else f"{row[metric]:.1f}" for metric in metrics)
        lines.append(f"| {protocol} | " + " | ".join(cells) + " |")
    clips = results.get("coverage", {}).get("clips")
    commit, when = results.get("commit"), str(results.get("time") or "")[:10]
    changed = " with changes" if results.get("uncommitted_changes") else ""
    about = [
        f"{clips:,} clips" if clips else "",
        f"{results.get('coverage', {}).get('predicted', clips):,} of them predicted" if clips else "",
        f"`python -m eval run` at commit `{commit[:12]}`{changed}" if commit else "",
        when,
    ]
    split = f", split {data['split']}" if data.get("split") else ""
    return {
        "title": f"Benchmark `{results['benchmark']}` on {data['name']}{split}",
        "table": "\n".join(lines),
        "about": ", ".join(part for part in about if part) + ".",
    }


__all__ = [
    "BY_DISCUSSION",
    "RESULTS_FOLDER",
    "Lineage",
    "lineage",
    "model_card",
    "read_json",
    "replace_results_section",
    "results_metadata",
    "results_name",
    "results_section",
    "training_facts",
]

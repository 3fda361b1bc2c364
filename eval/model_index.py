"""Results as the Hub reads them: entries of a model card's `model-index`, and `.eval_results/{benchmark}.yaml`.

Both are made from a `results.json` as `run` writes it. Values are in the paper's units, those of `headline`; every metric says
under which protocol it was computed.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, EvalResultEntry, eval_result_entries_to_yaml
from huggingface_hub.repocard_data import eval_results_to_model_index
from huggingface_hub.utils import yaml_dump

from modeling_grove.grounded_caption import atomic_path

from .result_files import HUB_RESULTS, MODEL_INDEX

# What a model does in a benchmark, as a task of the Hub and in words.
TASKS = {
    "iground": ("video-text-to-text", "Grounded video captioning"),
    "activitynet_entities": ("video-text-to-text", "Grounded video description"),
    "vidstg": ("video-text-to-text", "Spatio-temporal video grounding"),
    "youcook_interactions": ("video-text-to-text", "Spatial grounding of interactions"),
    "grounding_youtube": ("video-text-to-text", "Spatial grounding of actions"),
}


def model_index(results: Mapping[str, Any]) -> list[dict[str, Any]]:
    """
    The `model-index` of a model card's metadata, with one result.

    Args:
        results (`Mapping`):
            A `results.json`: `benchmark`, `headline`, `model`, `data`.

    Raises:
        `ValueError`: if it is not the result of a run.
    """
    return eval_results_to_model_index(_part(results, "model")["name"], eval_results(results))


def eval_results(results: Mapping[str, Any]) -> list[EvalResult]:
    """The same as a list of [`huggingface_hub.EvalResult`], for `ModelCardData(eval_results=...)`."""
    data, (task, task_name) = _part(results, "data"), _task(results)
    return [
        EvalResult(
            task_type=task,
            task_name=task_name,
            dataset_type=data["hub_id"] or _slug(data["name"]),
            dataset_name=data["name"],
            dataset_config=data["config"],
            dataset_split=data["split"],
            dataset_revision=data["revision"],
            metric_type=_slug(metric),
            metric_name=f"{metric} ({protocol} protocol)",
            metric_value=value,
            metric_config=protocol,
        )
        for protocol, metric, value in _headline(results)
    ]


def eval_result_entries(results: Mapping[str, Any]) -> list[EvalResultEntry]:
    """Entries of `.eval_results/{benchmark}.yaml`, which feed the leaderboard of a Hub data set; none for data from elsewhere."""
    data = _part(results, "data")
    if data["hub_id"] is None:
        return []
    _task(results)
    return [
        EvalResultEntry(
            dataset_id=data["hub_id"],
            task_id=f"{results['benchmark']}_{_slug(metric)}_{protocol}".replace("-", "_"),
            value=value,
            dataset_revision=data["revision"],
            date=results.get("time"),
            notes=f"{metric} of {results['benchmark']}, split {data['split']}, {protocol} protocol",
        )
        for protocol, metric, value in _headline(results)
    ]


def write_model_index(results: Mapping[str, Any], output: Path) -> list[Path]:
    """
    Writes `model_index.yml` and, for data of the Hub, `.eval_results/{benchmark}.yaml`.

    Returns:
        `list[Path]`: what was written.
    """
    written = [output / MODEL_INDEX]
    _write(written[0], {"model-index": model_index(results)})
    if entries := eval_result_entries(results):
        written.append(output / HUB_RESULTS / f"{results['benchmark']}.yaml")
        written[1].parent.mkdir(exist_ok=True)
        _write(written[1], eval_result_entries_to_yaml(entries))
    return written


def _write(path: Path, value: Any) -> None:
    with atomic_path(path) as temporary:
        temporary.write_text(yaml_dump(value), encoding="utf-8")


def _headline(results: Mapping[str, Any]) -> Iterator[tuple[str, str, float]]:
    """Protocol, metric and value, where there is one: a metric that could not be computed is null in the file."""
    for protocol, row in _part(results, "headline").items():
        for metric, value in row.items():
            if value is not None and math.isfinite(value):
                yield protocol, metric, round(value, 4)


def _part(results: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    part = results.get(name)
    if not isinstance(part, Mapping):
        raise ValueError(f"{name}: expected an object, got {part!r}; `python -m eval run` writes it into results.json")
    return part


def _task(results: Mapping[str, Any]) -> tuple[str, str]:
    benchmark = results.get("benchmark")
    if benchmark not in TASKS:
        raise ValueError(f"benchmark: expected one of {', '.join(TASKS)}, got {benchmark!r}")
    return TASKS[benchmark]


def _slug(name: str) -> str:
    """A name in lower case, with hyphens in place of everything but letters, digits, dots and underscores."""
    return re.sub(r"[^a-z0-9._]+", "-", name.lower()).strip("-")


__all__ = ["eval_result_entries", "eval_results", "model_index", "write_model_index"]

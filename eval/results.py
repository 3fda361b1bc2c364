"""What scoring a benchmark gives, the same for all of them: what tables, cards, plots and the training loop read."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

BENCHMARKS = ("iground", "vidstg", "activitynet_entities", "youcook_interactions", "grounding_youtube")

# "official" is what the original code computes, to the last digit; "corrected" is what the paper's text says.
PROTOCOLS = ("official", "corrected")


@dataclass
class BenchmarkResult:
    """
    The scores of a benchmark.

    Attributes:
        benchmark (`str`): name of the benchmark.
        metrics (`dict`): by protocol, nested JSON types; what is in it is said by the benchmark's function.
        headline (`dict[str, dict[str, float]]`):
            By protocol, the row that the paper's table would have, in the paper's units (percent, 0 to 100).
        coverage (`dict[str, Any]`):
            `clips` and `predicted` clips, their share as `coverage`, and `missing`: the first keys without a prediction.
        per_clip (`list[dict]`): one JSON object a clip: its `key`, and by protocol its own scores.
        statistics (`dict`): what the paper does not report: confidence intervals, presence, tracks, calibration.
        warnings (`Counter[str]`): what the original tolerates without a word, and how often it occurred.
    """

    benchmark: str
    metrics: dict[str, Any]
    headline: dict[str, dict[str, float]]
    coverage: dict[str, Any]
    per_clip: list[dict[str, Any]] = field(default_factory=list)
    statistics: dict[str, Any] = field(default_factory=dict)
    warnings: Counter[str] = field(default_factory=Counter)

    def to_dict(self) -> dict[str, Any]:
        """JSON types, without the clips."""
        return {
            "benchmark": self.benchmark,
            "headline": self.headline,
            "metrics": self.metrics,
            "coverage": self.coverage,
            "statistics": self.statistics,
            "warnings": dict(self.warnings),
        }


def coverage_of(reference_keys: list[str], predicted_keys: set[str], num_examples: int = 5) -> dict[str, Any]:
    """How many of the clips have a prediction, and the first that have none."""
    missing = [key for key in reference_keys if key not in predicted_keys]
    predicted = len(reference_keys) - len(missing)
    return {
        "clips": len(reference_keys),
        "predicted": predicted,
        "coverage": predicted / len(reference_keys) if reference_keys else 0.0,
        "missing": missing[:num_examples],
    }


def check_protocols(protocols: tuple[str, ...]) -> None:
    """
    Raises:
        `ValueError`: if one of them is no protocol, or there is none.
    """
    wrong = [protocol for protocol in protocols if protocol not in PROTOCOLS]
    if wrong or not protocols:
        raise ValueError(f"protocols: got {wrong[0] if wrong else 'none'!r}; expected some of {', '.join(PROTOCOLS)}")


__all__ = ["BENCHMARKS", "PROTOCOLS", "BenchmarkResult", "check_protocols", "coverage_of"]

"""What the parity runner compares with and how it says so: tolerances, the recorded case, and the lines of its report."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoTokenizer, PreTrainedTokenizerBase

CLONE_GOLDEN = Path(__file__).resolve().parent / "golden" / "grove"


@dataclass(frozen=True)
class Tolerance:
    """A value passes where `|ours - recorded| <= atol + rtol * |recorded|`."""

    atol: float = 0.0
    rtol: float = 0.0

    def __str__(self) -> str:
        parts = [f"{self.atol:g}"] if self.atol else []
        parts += [f"{self.rtol:g}*|x|"] if self.rtol else []
        return "+".join(parts) or "exact"


# As stated in the README of the recorded cases (float32 on CPU).
FEATURES = Tolerance(5e-5, 1e-4)
BOXES = Tolerance(5e-5)
PIXELS = Tolerance(0.05)
OBJECTNESS = Tolerance(3e-4)
LOSSES = Tolerance(rtol=1e-5)
# Of a gradient and of its norm. The absolute part, needed where a gradient is 0 but for rounding, is these times the largest
# element of the tensor and times the norm of all gradients together.
GRADIENTS = Tolerance(rtol=1e-3)
GRADIENT_ELEMENT, GRADIENT_NORM = 1e-4, 1e-6
EXACT = Tolerance()


@dataclass(frozen=True)
class Line:
    """One comparison. `ratio` is the worst |error| / allowed error, above 1 where the tolerance is exceeded."""

    case: str
    name: str
    error: float
    tolerance: str
    ratio: float
    failure: str = ""

    def __str__(self) -> str:
        verdict = f"FAIL {self.failure}".rstrip() if self.failed else "ok"
        return f"{self.case:<24} {self.name:<56} {self.error:>10.3g} {self.tolerance:<16} {self.ratio:>8.3g} {verdict}"

    @property
    def failed(self) -> bool:
        return bool(self.failure) or not self.ratio <= 1


@dataclass
class RecordedCase:
    """
    A recorded case: a directory with `meta.json` and safetensors files, or one JSON file.

    Args:
        path (`Path`): the directory or file.
        name (`str`): how the report calls it.
    """

    path: Path
    name: str

    @cached_property
    def meta(self) -> dict[str, Any]:
        meta = json.loads((self.path if self.path.is_file() else self.path / "meta.json").read_text(encoding="utf-8"))
        return meta if isinstance(meta, dict) else {}

    @cached_property
    def config(self) -> dict[str, Any]:
        return json.loads((self.path / "original_config.json").read_text(encoding="utf-8"))

    @cached_property
    def state_dict(self) -> dict[str, Tensor]:
        return load_file(self.path / "state_dict.safetensors")

    @cached_property
    def inputs(self) -> dict[str, Tensor]:
        return load_file(self.path / "inputs.safetensors")

    @cached_property
    def outputs(self) -> dict[str, Tensor]:
        file = self.path / "outputs.safetensors"
        return load_file(file) if file.is_file() else {}

    @cached_property
    def listed_outputs(self) -> set[str]:
        """Names of the output tensors that `meta.json` describes or the file holds."""
        names = {name.removeprefix("outputs/") for name in self.meta.get("tensors", {}) if name.startswith("outputs/")}
        return names | set(self.outputs)

    def meaning(self, name: str) -> str:
        """The description of a tensor; `name` is as in `meta.json`, with "inputs/" or "outputs/"."""
        return self.meta.get("tensors", {}).get(name, {}).get("meaning", "")

    def described(self, name: str, pattern: str, default: list[int]) -> list[int]:
        """Integers that the description of an output gives where `pattern` has its group, else `default`."""
        match = re.search(pattern, self.meaning(f"outputs/{name}"))
        return [int(number) for number in re.findall(r"\d+", match[1])] if match else default

    @cached_property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """
        The tokenizer that `original_config.json` points to, or the one that lies with the case. A case without one is read with
        the tokenizer of `tests/golden/grove`, if its special tokens have the same ids.

        Raises:
            ValueError: if that tokenizer has other ids.
        """
        folder = self.path if self.path.is_dir() else self.path.parent
        original = self.config if self.path.is_dir() else {}
        nearby = [original["tokenizer"]] if "tokenizer" in original else []
        for candidate in [*nearby, "final", "tokenizer", "tokenizer/final", "../tokenizer/final"]:
            if (folder / candidate / "tokenizer_config.json").is_file():
                return AutoTokenizer.from_pretrained(folder / candidate)
        tokenizer = AutoTokenizer.from_pretrained(CLONE_GOLDEN / "tokenizer" / "final")
        expected = original.get("special_token_ids", {})
        found = {token: tokenizer.convert_tokens_to_ids(token) for token in expected}
        if found != expected:
            raise ValueError(
                f"{folder} has no tokenizer, and that of the clone has the ids {found}, expected {expected}."
            )
        return tokenizer

    def pixels(self, name: str, report: "Report", **sizes: int) -> Tensor:
        """
        Pixel inputs from their recorded formula, checked against the recorded samples.

        Args:
            name (`str`): entry of `meta.json` with `call`, `k` and `check`.
            sizes: values for names that `call` may use.

        Returns:
            `torch.Tensor` as the formula gives it, `(batch, channels, frames, height, width)`.
        """
        entry = self.meta[name]
        scope: dict[str, Any] = {}
        exec(self.meta["pixel_formula"], scope)  # the recorded source of `wave`
        pixels = np.asarray(eval(entry["call"], scope, {"k": entry["k"], **sizes}))
        check_array(report, f"inputs: {name}", pixels, entry.get("check"))
        return torch.from_numpy(np.ascontiguousarray(pixels))


@dataclass
class Report:
    """Collects the lines of one case. Names of recorded outputs that were used are remembered, to find the others."""

    case: RecordedCase
    lines: list[Line] = field(default_factory=list)
    used: set[str] = field(default_factory=set)

    def add(self, name: str, error: float, tolerance: Tolerance, ratio: float, failure: str = "") -> None:
        self.lines.append(Line(self.case.name, name, error, str(tolerance), ratio, failure))

    def fail(self, name: str, failure: str) -> None:
        self.add(name, float("nan"), EXACT, float("inf"), failure)

    def compare(self, name: str, value: Tensor | None, tolerance: Tolerance, where: Tensor | None = None) -> None:
        """
        Compares with the recorded output `name`. `where` is a mask over the leading axes; the rest is not looked at.
        """
        self.used.add(name)
        if name not in self.case.outputs:
            self.fail(name, "missing: outputs.safetensors has no such tensor")
        elif value is None:
            self.fail(name, "missing: our model has no such output")
        else:
            self.close(name, value, self.case.outputs[name], tolerance, where)

    def close(self, name: str, value: Any, expected: Any, tolerance: Tolerance, where: Tensor | None = None) -> None:
        """Compares two tensors, arrays or numbers."""
        ours, recorded = (torch.as_tensor(item).detach().double() for item in (value, expected))
        if ours.ndim == 0:
            ours = ours.reshape(recorded.shape) if recorded.numel() == 1 else ours
        if ours.shape != recorded.shape:
            self.add(
                name,
                float("nan"),
                tolerance,
                float("inf"),
                f"shape {tuple(ours.shape)}, recorded {tuple(recorded.shape)}",
            )
            return
        if where is not None:
            ours, recorded = ours[where], recorded[where]
        difference = (ours - recorded).abs()
        allowed = tolerance.atol + tolerance.rtol * recorded.abs()
        ratio = torch.where(difference == 0, 0.0, difference / allowed).nan_to_num(
            nan=float("inf"), posinf=float("inf")
        )
        if ours.numel() == 0:
            self.add(name, 0.0, tolerance, 0.0)
        else:
            self.add(name, float(difference.max()), tolerance, float(ratio.max()))

    def same(self, name: str, value: Any, expected: Any) -> None:
        """Compares ids, strings, or lists of them exactly."""
        ours, recorded = (
            item.tolist() if isinstance(item, Tensor | np.ndarray) else list(item) if isinstance(item, tuple) else item
            for item in (value, expected)
        )
        if ours == recorded:
            self.add(name, 0.0, EXACT, 0.0)
        else:
            self.add(name, 1.0, EXACT, float("inf"), f"got {_short(ours)}, recorded {_short(recorded)}")

    def all_same(self, name: str, pairs: Mapping[str, tuple[Any, Any]]) -> None:
        """Compares many small things exactly in one line: key -> (ours, recorded). The error is the number that differ."""
        wrong = {key: pair for key, pair in pairs.items() if pair[0] != pair[1]}
        label = f"{name} (x{len(pairs)})"
        if not wrong:
            self.add(label, 0.0, EXACT, 0.0)
        else:
            key, (ours, recorded) = next(iter(wrong.items()))
            failure = f"e.g. {key}: got {_short(ours)}, recorded {_short(recorded)}"
            self.add(label, float(len(wrong)), EXACT, float("inf"), failure)

    def recorded_text(self, name: str, value: Any) -> None:
        """Compares with an entry of `meta.json`, if the case has it."""
        if name in self.case.meta:
            self.same(f"meta: {name}", value, self.case.meta[name])

    def recorded_number(self, name: str, value: Any, tolerance: Tolerance) -> None:
        """Compares with a number of `meta.json`, if the case has it."""
        if self.case.meta.get(name) is not None:
            self.close(f"meta: {name}", value, self.case.meta[name], tolerance)

    def finish(self) -> None:
        """Recorded outputs that nothing was compared with are failures."""
        for name in sorted(self.case.listed_outputs - self.used):
            missing = name not in self.case.outputs
            self.fail(
                name, "missing: outputs.safetensors has no such tensor" if missing else "not compared: unknown tensor"
            )


def check_array(report: Report, name: str, array: np.ndarray, check: Mapping[str, Any] | None) -> None:
    """Checks a generated input against its recorded shape, mean, standard deviation and samples."""
    if check is None:
        return
    report.same(f"{name} shape", list(array.shape), check["shape"])
    if list(array.shape) == check["shape"]:
        numbers = [array.mean(dtype=np.float64), array.std(dtype=np.float64), *array.reshape(-1)[check["flat_index"]]]
        recorded = [check["mean"], check["std"], *check["values"]]
        report.close(
            name, np.array(numbers, dtype=np.float64), np.array(recorded, dtype=np.float64), Tolerance(1e-5, 1e-5)
        )


def _short(value: Any, length: int = 120) -> str:
    text = repr(value)
    return text if len(text) <= length else text[: length - 3] + "..."

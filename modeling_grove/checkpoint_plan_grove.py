"""
The plan of a conversion: where every tensor of the new model comes from and what becomes of every tensor of the sources. It is
made from names and shapes alone, before anything is read or written.
"""

import re
import zlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import initialization as init

from .adapter_grove import SpatioTemporalAdapter
from .checkpoint_io_grove import CheckpointError, TensorInfo
from .checkpoint_map_grove import FRESH, PlannedTensor, name_in_grove, plan_tensor
from .configuration_grove import GroveConfig
from .modeling_grove import GroveForConditionalGeneration


@dataclass(frozen=True)
class SourceTensor:
    """A tensor of one of the checkpoints that a conversion reads: its own name, and the one that GROVE gives it."""

    checkpoint: str
    name: str
    name_in_grove: str
    info: TensorInfo


@dataclass(frozen=True)
class TargetTensor:
    """A tensor of the new model: read from `source` and put through `transform`, or freshly drawn where there is no source."""

    name: str
    shape: tuple[int, ...]
    source: SourceTensor | None = None
    transform: Callable[[Tensor], Tensor] | None = None

    @property
    def numel(self) -> int:
        return torch.Size(self.shape).numel()


@dataclass(frozen=True)
class DroppedTensor:
    """A tensor that does not go into the new model."""

    source: SourceTensor
    reason: str


@dataclass
class ConversionPlan:
    """
    What a conversion does with every tensor.

    targets (`list[TargetTensor]`): all tensors of the model, in its order.
    dropped (`list[DroppedTensor]`): the tensors of the checkpoints that are not used.
    """

    targets: list[TargetTensor]
    dropped: list[DroppedTensor]


@dataclass(frozen=True)
class ReportRow:
    """
    One line of the account of a conversion.

    status (`str`): `converted`, `fresh`, `dropped` or `superseded`.
    module (`str`): a part of the new model, or of the original where it is not used.
    checkpoint (`str`): where the tensors come from; empty for fresh ones.
    tensors, parameters (`int`): how many; of resized tensors, the new number of parameters.
    note (`str`): what was done, or why they are not used.
    """

    status: str
    module: str
    checkpoint: str
    tensors: int
    parameters: int
    note: str


def merge_checkpoints(checkpoints: Mapping[str, tuple[str, Mapping[str, TensorInfo]]]) -> list[SourceTensor]:
    """
    Args:
        checkpoints (`Mapping`): label -> origin of its names (see [`name_in_grove`]) and its tensors.

    Returns:
        `list[SourceTensor]`: all tensors, under the names that GROVE gives them.
    """
    return [
        SourceTensor(label, name, name_in_grove(name, origin), info)
        for label, (origin, tensors) in checkpoints.items()
        for name, info in tensors.items()
    ]


def expected_tensors(config: GroveConfig) -> dict[str, tuple[int, ...]]:
    """Names and shapes of a [`GroveForConditionalGeneration`]; nothing is allocated."""
    with torch.device("meta"):
        model = GroveForConditionalGeneration(config)
    return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}


def make_plan(sources: Iterable[SourceTensor], config: GroveConfig, *, fresh: bool = False) -> ConversionPlan:
    """
    Args:
        sources (`Iterable[SourceTensor]`): what there is; of tensors with one name in GROVE the first is used.
        config ([`GroveConfig`]): the new model.
        fresh (`bool`): whether adapters, heads and the rows of new tokens are drawn instead of read.

    Raises:
        CheckpointError: if a tensor is not explained, has the wrong shape, or nobody supplies it.
    """
    expected = expected_tensors(config)
    used: dict[str, SourceTensor] = {}
    planned: dict[str, tuple[SourceTensor, PlannedTensor]] = {}
    dropped: list[DroppedTensor] = []
    unexplained: list[str] = []
    for source in sources:
        winner = used.setdefault(source.name_in_grove, source)
        if winner is not source:
            if winner.checkpoint == source.checkpoint:
                raise CheckpointError(
                    f"{source.checkpoint} has both {winner.name!r} and {source.name!r}, which mean the same; expected one of them."
                )
            dropped.append(DroppedTensor(source, f"superseded by the one of {winner.checkpoint}"))
            continue
        try:
            plan = plan_tensor(source.name_in_grove, source.info.shape, config, new_tokens=fresh)
        except ValueError as error:
            unexplained.append(f"{source.checkpoint}: {error}")
            continue
        if plan.target is None:
            dropped.append(DroppedTensor(source, plan.reason))
        else:
            planned[plan.target] = (source, plan)
    if unexplained:
        raise CheckpointError(unexplained[0] + _and_more(len(unexplained) - 1))

    targets: list[TargetTensor] = []
    missing = []
    for name, shape in expected.items():
        if name in planned:
            source, plan = planned.pop(name)
            _check_tensor(source, plan, name, shape)
            targets.append(TargetTensor(name, shape, source, plan.transform))
        elif fresh and FRESH.fullmatch(name):
            targets.append(TargetTensor(name, shape))
        else:
            missing.append(name)
    if missing:
        raise CheckpointError(
            f"No checkpoint supplies {missing[0]!r} of shape {expected[missing[0]]}{_and_more(len(missing) - 1)}; "
            f"{_advice(missing)}"
        )
    if planned:
        raise CheckpointError(
            f"The checkpoint's {next(iter(planned.values()))[0].name!r} would become {next(iter(planned))!r}, which the model does "
            f"not have{_and_more(len(planned) - 1)}; its configuration does not belong to these weights."
        )
    return ConversionPlan(targets, dropped)


def _and_more(count: int) -> str:
    return f" (and {count} more)" if count else ""


def _advice(missing: list[str]) -> str:
    if all(FRESH.fullmatch(name) for name in missing):
        return "to start GROVE from a GLaMM checkpoint, add --init-from-glamm."
    if all(name.startswith("model.vision_tower.") for name in missing):
        return "GLaMM leaves CLIP out: give openai/clip-vit-large-patch14-336 with --clip."
    return "give the checkpoint that the weights were trained from with --base."


def _check_tensor(source: SourceTensor, plan: PlannedTensor, name: str, expected: tuple[int, ...]) -> None:
    if not source.info.dtype.is_floating_point:
        raise CheckpointError(
            f"{source.checkpoint}: {source.name!r} has {source.info.dtype}; expected floating point for {name!r}."
        )
    shape = source.info.shape
    if plan.transform is not None:
        shape = tuple(plan.transform(torch.empty(shape, dtype=source.info.dtype, device="meta")).shape)
    if shape != expected:
        resized = "" if shape == source.info.shape else f" ({shape} after resizing)"
        raise CheckpointError(
            f"{source.checkpoint}: {source.name!r} has shape {source.info.shape}{resized}; expected {expected} for {name!r}."
        )


def fresh_tensor(name: str, config: GroveConfig, seed: int) -> Tensor:
    """
    A tensor that GROVE adds to GLaMM, float32, initialised as a new model's: the same for the same seed, whatever is drawn before.

    Args:
        name (`str`): in our names.
        config ([`GroveConfig`]): the model.
        seed (`int`): of all fresh tensors.
    """
    text: Any = config.text_config
    vision: Any = config.vision_config
    grounding: Any = config.grounding_config
    path, _, parameter = name.rpartition(".")
    module: nn.Module
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed((seed + zlib.crc32(path.encode())) % 2**63)
        if adapter := re.fullmatch(r"(model\.(\w+)\.adapters\.\d+)\.(.+)", name):
            branch = vision if adapter[2] == "vision_tower" else grounding
            parameter = adapter[3]
            if parameter == "alpha":  # spares the convolution
                return torch.zeros(1)
            with torch.device("meta"):
                module = SpatioTemporalAdapter(branch.hidden_size)
            module.to_empty(device="cpu").init_weights()
        else:
            width = grounding.output_channels
            out = {"box_head.0": width, "box_head.2": 4, "objectness_head": 1}[path.removeprefix("model.box_decoder.")]
            module = nn.Linear(width, out)
            init.normal_(module.weight, std=text.initializer_range)
            init.zeros_(module.bias)
    return module.get_parameter(parameter).detach()


def _module_of(name: str) -> str:
    """The part of our model that a tensor belongs to."""
    parts = name.removeprefix("model.").split(".")
    if parts[0] == "lm_head":
        return "lm_head"
    if parts[1] in ("adapters", "embed_tokens", "box_head", "objectness_head"):
        return f"{parts[0]}.{parts[1]}"
    return parts[0]


def _original_module_of(name: str) -> str:
    """The part of the original model that a tensor belongs to, without numbers."""
    name = name.removeprefix("model.").replace("vision_tower.vision_tower.vision_model", "vision_tower")
    return ".".join(name.split(".")[: 3 if name.startswith("grounding_encoder.") else 2])


def _rows(entries: Iterable[tuple[tuple[str, str, str, str], int]]) -> list[ReportRow]:
    """Sums entries of one kind; rows stand in the order of their first entry."""
    sums: dict[tuple[str, str, str, str], list[int]] = {}
    for key, numel in entries:
        total = sums.setdefault(key, [0, 0])
        total[0] += 1
        total[1] += numel
    return [
        ReportRow(status, module, checkpoint, tensors, parameters, note)
        for (status, module, checkpoint, note), (tensors, parameters) in sums.items()
    ]


def report_rows(plan: ConversionPlan) -> list[ReportRow]:
    """The account by module: together the rows hold every tensor of the sources and of the model once."""
    entries = []
    for target in plan.targets:
        if target.source is None:
            entries.append((("fresh", _module_of(target.name), "", "drawn"), target.numel))
            continue
        resized = target.shape != target.source.info.shape
        note = f"resized from {'x'.join(map(str, target.source.info.shape))}" if resized else ""
        entries.append((("converted", _module_of(target.name), target.source.checkpoint, note), target.numel))
    for tensor in plan.dropped:
        status = "superseded" if tensor.reason.startswith("superseded") else "dropped"
        module = _original_module_of(tensor.source.name_in_grove)
        entries.append(((status, module, tensor.source.checkpoint, tensor.reason), tensor.source.info.numel))
    return sorted(_rows(entries), key=lambda row: ("converted", "fresh", "dropped", "superseded").index(row.status))


def tensor_rows(plan: ConversionPlan) -> list[dict]:
    """The account by tensor, for `--verbose`."""
    rows = []
    for target in plan.targets:
        source = target.source
        rows.append(
            {
                "status": "converted" if source else "fresh",
                "source": source.name if source else None,
                "source_shape": list(source.info.shape) if source else None,
                "checkpoint": source.checkpoint if source else None,
                "target": target.name,
                "target_shape": list(target.shape),
            }
        )
    for tensor in plan.dropped:
        rows.append(
            {
                "status": "superseded" if tensor.reason.startswith("superseded") else "dropped",
                "source": tensor.source.name,
                "source_shape": list(tensor.source.info.shape),
                "checkpoint": tensor.source.checkpoint,
                "note": tensor.reason,
            }
        )
    return rows


def totals(plan: ConversionPlan) -> dict[str, int]:
    """Tensors and parameters of the sources and of the model; `source_tensors` = converted + dropped + superseded."""
    rows = [asdict(row) for row in report_rows(plan)]
    sums = {
        f"{status}_{unit}": sum(row[unit] for row in rows if row["status"] == status)
        for status in ("converted", "fresh", "dropped", "superseded")
        for unit in ("tensors", "parameters")
    }
    read = [target.source for target in plan.targets if target.source] + [tensor.source for tensor in plan.dropped]
    return {
        "source_tensors": len(read),
        "source_parameters": sum(source.info.numel for source in read),
        "target_tensors": len(plan.targets),
        "target_parameters": sum(target.numel for target in plan.targets),
        **sums,
    }


__all__ = [
    "ConversionPlan",
    "DroppedTensor",
    "ReportRow",
    "SourceTensor",
    "TargetTensor",
    "expected_tensors",
    "fresh_tensor",
    "make_plan",
    "merge_checkpoints",
    "report_rows",
    "tensor_rows",
    "totals",
]

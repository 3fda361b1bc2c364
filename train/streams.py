"""The training and validation streams of a run, from its arguments."""

from __future__ import annotations

import math
from pathlib import Path

from dataset_builders.sources import locate
from dataset_builders.stream import GroundedCaptionStream, StreamSource

from .training_arguments import DataArguments, GroveTrainingArguments


def located(data: DataArguments) -> DataArguments:
    """
    The arguments with data of the Hub at the commit that its branch is at now; for one process, which tells the others.

    Raises:
        `ValueError`: if no training data is given, or a Hub repository does not exist.
    """
    if not data.train_data:
        raise ValueError(
            "train_data: not given; expected folders, patterns or Hub ids of shards (see docs/datasets.md)"
        )
    if data.videos is not None and not Path(data.videos).is_dir():
        raise ValueError(f"videos: no folder {data.videos!r}")
    data.train_data = [_located("train_data", source) for source in data.train_data]
    if data.eval_data is not None and not data.eval_data.startswith("shapes:"):
        data.eval_data = _located("eval_data", data.eval_data)
    return data


def training_stream(data: DataArguments, args: GroveTrainingArguments, num_frames: int) -> GroundedCaptionStream:
    """
    The endless stream of this process.

    Raises:
        `ValueError`: naming the argument, if there are no shards, or fewer than processes.
    """
    weights: list[float | None] = [*(data.train_weights or [])] or [None] * len(data.train_data)
    if len(weights) != len(data.train_data):
        raise ValueError(
            f"train_weights: got {len(weights)} for {len(data.train_data)} train_data; expected one for each, or none"
        )
    sources = [
        StreamSource(source, data.data_config, data.train_split, weight, data.videos)
        for source, weight in zip(data.train_data, weights, strict=True)
    ]
    stream = _stream("train_data", sources, data, args, num_frames=num_frames, frames="random", repeat=True)
    for source, shards in zip(data.train_data, stream.shards, strict=True):
        if len(shards) < args.world_size:
            raise ValueError(
                f"train_data: {source!r} has {len(shards)} shards for {args.world_size} processes, which would share and mix them "
                "badly; write more (`python -m dataset_builders shard --samples-per-shard N`), or start fewer processes"
            )
    return stream


def validation_stream(
    data: DataArguments, args: GroveTrainingArguments, num_frames: int
) -> GroundedCaptionStream | None:
    """
    The finite stream of this process, on the midpoints of the segments as in the original; `None` without validation shards.

    Raises:
        `ValueError`: naming the argument, if there are no shards.
    """
    if data.eval_data is None or data.eval_data.startswith("shapes:"):
        return None
    source = StreamSource(data.eval_data, data.data_config, data.eval_split, None, data.videos)
    # Clips in which nothing is visible are annotated too.
    stream = _stream(
        "eval_data", [source], data, args, num_frames=num_frames, frames="midpoints", repeat=False, keep_empty=True,
        shuffle_buffer=0,
    )  # fmt: skip
    if num_samples(stream) < args.world_size:
        raise ValueError(
            f"eval_data: {num_samples(stream)} clips for {args.world_size} processes; give more, or start fewer processes"
        )
    return stream


def num_samples(stream: GroundedCaptionStream) -> int:
    """Clips of one pass over all sources, of all processes."""
    return sum(shard.num_samples or 0 for shards in stream.shards for shard in shards)


def steps_of_epochs(epochs: float, stream: GroundedCaptionStream, args: GroveTrainingArguments) -> int:
    """Optimizer steps that make as many passes over the data."""
    batch = args.per_device_train_batch_size * args.gradient_accumulation_steps * args.world_size
    return max(1, math.ceil(epochs * num_samples(stream) / batch))


def _stream(
    name: str, sources: list[StreamSource], data: DataArguments, args: GroveTrainingArguments, **options: object
):
    options = {"shuffle_buffer": data.shuffle_buffer, **options}
    try:
        return GroundedCaptionStream(
            sources,
            seed=args.seed if args.data_seed is None else args.data_seed,
            rank=args.process_index,
            world_size=args.world_size,
            max_skipped=float(data.max_skipped),
            **options,  # type: ignore[arg-type]
        )
    except (ValueError, OSError) as error:
        raise ValueError(f"{name}: {' '.join(str(error).split())}") from None


def _located(name: str, source: str) -> str:
    try:
        return locate(source)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None


__all__ = ["located", "num_samples", "steps_of_epochs", "training_stream", "validation_stream"]

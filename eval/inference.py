"""Running a model over the clips of a benchmark.

iGround is captioned, and so is ActivityNet-Entities, unless its mode is "gt": then the annotated sentence is given, with its
words as phrases. VidSTG and the pointing benchmarks always give their sentence, which is grounded as one phrase,
`<p> sentence </p> [DET]`: their records have it as one phrase. What is given is not generated. Predictions keep the box and the
objectness of every phrase in every frame, so that another threshold needs no other run.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

import numpy as np

from modeling_grove.grounded_caption import GroundedCaption, PhraseTrack
from modeling_grove.text_grove import QUESTION_TEMPLATES, read_caption
from modeling_grove.video_grove import VideoClip

from .benchmark_data import BenchmarkClip
from .prediction_files import Outcome

# A sentence is given and there is nothing to caption.
GIVEN_SENTENCE = ("vidstg", "youcook_interactions", "grounding_youtube")


@dataclass(frozen=True)
class InferenceOptions:
    """
    How to run a model; predictions depend on all of it (on `batch_size` and `window_batch_size` by rounding).

    Args:
        windows (`str`): "covering", the fewest windows, or "sliding", the original's.
        batch_size (`int`): clips that are processed at once.
        window_batch_size (`int`): windows of them that are; bounds the memory.
        max_new_tokens (`int`): of a generated caption; the original's is 64.
        num_beams (`int`): width of the beam search; 1 is greedy, as the original.
        question (`str`): the instruction of the prompt. The original has others where it gives a sentence, see `running`.
        mode (`str`): ActivityNet-Entities: "generated" captions, or "gt", the annotated sentence with its words as phrases.
    """

    windows: str = "covering"
    batch_size: int = 1
    window_batch_size: int = 4
    max_new_tokens: int = 64
    num_beams: int = 1
    question: str = QUESTION_TEMPLATES[0]
    mode: str = "generated"

    def __post_init__(self) -> None:
        for name in ("batch_size", "window_batch_size", "max_new_tokens", "num_beams"):
            if getattr(self, name) < 1:
                raise ValueError(f"--{name.replace('_', '-')}: expected at least 1, got {getattr(self, name)}")


def load_model(model: str, revision: str | None = None, device: str | None = None, dtype: str = "auto") -> Any:
    """
    The pipeline of a model.

    Args:
        model (`str`), revision (`str`, *optional*): folder, or Hub id with a branch, tag or commit.
        device (`str`, *optional*): "cpu", "cuda:1"; the first accelerator, if there is one, by default.
        dtype (`str`): "auto" (as saved), "float32", "bfloat16" or "float16".

    Raises:
        `ValueError`: in one line, if the model cannot be loaded.
    """
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError
    from safetensors import SafetensorError
    from transformers import pipeline

    from modeling_grove import GroundedVideoCaptioningPipeline  # importing it registers GROVE

    options = {} if device is None else {"device": device}
    known = OSError, HfHubHTTPError, HFValidationError, SafetensorError, ValueError, RuntimeError
    try:
        captioner = pipeline("grounded-video-captioning", model=model, revision=revision, dtype=dtype, **options)
    except known as error:
        # The pipeline tries several classes, and the tracebacks of all of them make one message; the last line is the reason.
        lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
        raise ValueError(f"--model: cannot load a GROVE model from {model!r}: {lines[-1].rstrip('.')}") from error
    assert isinstance(captioner, GroundedVideoCaptioningPipeline)
    return captioner


def run_clips(
    captioner: Any,
    benchmark: str,
    clips: Iterable[tuple[int, BenchmarkClip]],
    options: InferenceOptions,
    workers: int = 2,
) -> Iterator[Outcome]:
    """
    Runs a model over clips, batch by batch, while threads decode what comes next; yields an outcome for every clip, in order,
    with a problem where the clip has no video, or one that does not decode.

    Args:
        captioner ([`GroundedVideoCaptioningPipeline`]):
            The model.
        benchmark (`str`):
            Its name.
        clips (`Iterable[tuple[int, BenchmarkClip]]`):
            Each with the number of its batch, which does not decrease: clips of one number are processed at once.
        options ([`InferenceOptions`]):
            How.
        workers (`int`, *optional*, defaults to 2):
            Threads that decode.

    Raises:
        `ValueError`: if memory runs out.
    """
    ahead = max(workers, options.batch_size) + options.batch_size
    batch: list[tuple[BenchmarkClip, VideoClip | str]] = []
    number: int | None = None
    given = benchmark in GIVEN_SENTENCE or (benchmark == "activitynet_entities" and options.mode == "gt")
    for (of, clip), read in _read_ahead(clips, given, workers, ahead):
        if batch and of != number:
            yield from _run_batch(captioner, given, batch, options)
            batch = []
        number = of
        batch.append((clip, read))
    if batch:
        yield from _run_batch(captioner, given, batch, options)


def _read_ahead(
    clips: Iterable[tuple[int, BenchmarkClip]], given: bool, workers: int, ahead: int
) -> Iterator[tuple[tuple[int, BenchmarkClip], VideoClip | str]]:
    """The clips in order with their frames, or why they have none; `ahead` of them are decoded or waiting."""
    source = iter(clips)
    with ThreadPoolExecutor(workers, thread_name_prefix="decode") as executor:
        waiting: deque[tuple[tuple[int, BenchmarkClip], Future[VideoClip | str]]] = deque()
        try:
            while True:
                for item in islice(source, ahead - len(waiting)):
                    waiting.append((item, executor.submit(_read, item[1], given)))
                if not waiting:
                    return
                item, future = waiting.popleft()
                yield item, future.result()
        finally:
            executor.shutdown(wait=True, cancel_futures=True)


def _read(clip: BenchmarkClip, given: bool) -> VideoClip | str:
    """The frames of a clip, or why there are none."""
    try:
        if given:
            read_caption(clip.caption.tagged_caption)
        return clip.read()
    except (ValueError, OSError) as error:  # of this clip alone; a broken video says so with a ValueError
        return " ".join(str(error).split())


def _run_batch(
    captioner: Any, given: bool, batch: Sequence[tuple[BenchmarkClip, VideoClip | str]], options: InferenceOptions
) -> list[Outcome]:
    """The outcomes of clips that are processed at once."""
    import torch

    readable = [(clip, read) for clip, read in batch if isinstance(read, VideoClip)]
    arguments: dict[str, Any] = {
        "windows": options.windows,
        "window_batch_size": options.window_batch_size,
        "question": options.question,
    }
    if given:
        arguments["caption"] = [clip.caption.tagged_caption for clip, _ in readable]
    else:
        arguments |= {"max_new_tokens": options.max_new_tokens, "num_beams": options.num_beams}
    started = time.monotonic()
    try:
        videos = [video for _, video in readable]
        results = captioner(videos, batch_size=len(videos), **arguments) if videos else []
    except torch.OutOfMemoryError as error:
        keys = ", ".join(clip.key for clip, _ in readable)
        raise ValueError(
            f"out of memory at {keys}; lower --window-batch-size or --batch-size, and run it again"
        ) from error
    seconds = (time.monotonic() - started) / max(1, len(readable))
    found = {clip.key: _renamed(result, clip) for (clip, _), result in zip(readable, results, strict=True)}
    return [
        Outcome(clip.key, 0.0, problem=read) if isinstance(read, str) else Outcome(clip.key, seconds, found[clip.key])
        for clip, read in batch
    ]


def _renamed(result: GroundedCaption, clip: BenchmarkClip) -> GroundedCaption:
    """A prediction under the names of the clip; present wherever there is a box."""
    return replace(
        all_present(result),
        video_id=clip.caption.video_id,
        clip_id=clip.caption.clip_id,
        video_fname=clip.caption.video_fname,
    )


def all_present(caption: GroundedCaption) -> GroundedCaption:
    """Presence wherever there is a box, whatever the objectness is."""
    tracks: list[PhraseTrack] = [replace(track, presence=np.isfinite(track.boxes[:, 0])) for track in caption.tracks]
    return replace(caption, tracks=tuple(tracks))


__all__ = ["GIVEN_SENTENCE", "InferenceOptions", "all_present", "load_model", "run_clips"]

"""
Stage 1: what a captioner of pictures says of the frames of clips.

A back end is a [`FrameCaptioner`]: it gets frames, of whatever clips, and gives a grounded caption for each. Clips are decoded in a
thread beside the model, and frames of several clips go through it in one batch.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np

from modeling_grove.video_grove import VideoClip, VideoDecodeError, read_video

from .clip_lists import ClipRequest
from .frame_captions import CaptionedClip, FrameCaption
from .model_identity import versions
from .stage_files import Dropped


class Frame(NamedTuple):
    """
    What a captioner sees.

    Args:
        key (`str`): of its clip.
        frame_index (`int`), timestamp (`float`): source frame, and seconds from the start of the video.
        pixels (`np.ndarray`): uint8 `(H, W, 3)`, RGB.
    """

    key: str
    frame_index: int
    timestamp: float
    pixels: np.ndarray


class FrameCaptioner(Protocol):
    """A back end of stage 1."""

    def describe(self) -> Mapping[str, Any]:
        """What stands in each record's provenance: names, revisions, settings."""
        ...

    def caption(self, frames: Sequence[Frame]) -> Sequence[FrameCaption]:
        """A caption for each frame; boxes in pixels of the frames as they are."""
        ...


def caption_clips(
    requests: Iterable[ClipRequest],
    videos: Path,
    captioner: FrameCaptioner,
    *,
    target_fps: float = 5.0,
    batch_size: int = 16,
    ahead: int = 4,
) -> Iterator[CaptionedClip | Dropped]:
    """
    Captions clips, in their order.

    Args:
        requests (`Iterable[ClipRequest]`): which clips.
        videos (`Path`): folder of their videos.
        captioner ([`FrameCaptioner`]): the back end.
        target_fps (`float`, *optional*, defaults to 5.0): frames a second to aim for, as
            [`~modeling_grove.video_grove.read_video`] says.
        batch_size (`int`, *optional*, defaults to 16): frames of a batch, whatever clips they are of.
        ahead (`int`, *optional*, defaults to 4): clips that are decoded before they are needed.

    Yields:
        For each request the captioned clip, or why it could not be read.
    """
    provenance = {"stage1": dict(captioner.describe()), "target_fps": target_fps, "versions": versions()}
    waiting: list[tuple[ClipRequest, VideoClip | Dropped, list[FrameCaption]]] = []
    frames: list[tuple[Frame, list[FrameCaption]]] = []
    for request, clip in _decoded(requests, videos, target_fps, ahead):
        said: list[FrameCaption] = []
        waiting.append((request, clip, said))
        if isinstance(clip, VideoClip):
            frames += [(frame, said) for frame in _frames(request, clip)]
        while len(frames) >= batch_size:
            _caption(captioner, frames[:batch_size])
            frames = frames[batch_size:]
        while waiting and _is_done(waiting[0]):
            yield _result(*waiting.pop(0), provenance)
    if frames:
        _caption(captioner, frames)
    yield from (_result(*entry, provenance) for entry in waiting)


def _is_done(entry: tuple[ClipRequest, VideoClip | Dropped, list[FrameCaption]]) -> bool:
    _, clip, said = entry
    return isinstance(clip, Dropped) or len(said) == len(clip.frames)


def _caption(captioner: FrameCaptioner, frames: Sequence[tuple[Frame, list[FrameCaption]]]) -> None:
    found = captioner.caption([frame for frame, _ in frames])
    for (_, said), caption in zip(frames, found, strict=True):
        said.append(caption)


def _result(
    request: ClipRequest, clip: VideoClip | Dropped, said: list[FrameCaption], provenance: Mapping[str, Any]
) -> CaptionedClip | Dropped:
    if isinstance(clip, Dropped):
        return clip
    return CaptionedClip(
        request.video_id, request.clip_id, request.video_fname, clip.fps, clip.width, clip.height, clip.start_frame,
        clip.end_frame, tuple(said), provenance,
    )  # fmt: skip


def _frames(request: ClipRequest, clip: VideoClip) -> Iterator[Frame]:
    for index, time, pixels in zip(clip.frame_indices.tolist(), clip.timestamps.tolist(), clip.frames, strict=True):
        yield Frame(request.key, index, time, pixels)


def _decode(request: ClipRequest, videos: Path, target_fps: float) -> VideoClip | Dropped:
    path = videos / request.video_fname
    if not path.is_file():
        return Dropped(request.key, "missing_video", f"{path}: no such file")
    try:
        return read_video(
            path, target_fps=target_fps, start_time=request.start, end_time=request.end, start_frame=request.start_frame,
            end_frame=request.end_frame,
        )  # fmt: skip
    except (VideoDecodeError, OSError) as error:
        return Dropped(request.key, "undecodable_video", " ".join(str(error).split()))


def _decoded(
    requests: Iterable[ClipRequest], videos: Path, target_fps: float, ahead: int
) -> Iterator[tuple[ClipRequest, VideoClip | Dropped]]:
    """Clips, decoded by a thread that is up to `ahead` of them in front."""
    ready: queue.Queue[tuple[ClipRequest, VideoClip | Dropped] | BaseException | None] = queue.Queue(max(1, ahead))
    stopped = threading.Event()

    def put(item: tuple[ClipRequest, VideoClip | Dropped] | BaseException | None) -> None:
        while not stopped.is_set():
            try:
                return ready.put(item, timeout=0.2)
            except queue.Full:
                continue

    def work() -> None:
        try:
            for request in requests:
                if stopped.is_set():
                    return
                put((request, _decode(request, videos, target_fps)))
            put(None)
        except BaseException as error:  # raised where the clips are wanted
            put(error)

    thread = threading.Thread(target=work, name="decoder", daemon=True)
    thread.start()
    try:
        while (item := ready.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            yield item
    finally:
        stopped.set()
        thread.join()


__all__ = ["Frame", "FrameCaptioner", "caption_clips"]

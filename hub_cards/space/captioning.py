"""What the demo does, without its page: checks a clip, captions it, makes presence anew, and writes what can be downloaded."""

from __future__ import annotations

import json
import re
import secrets
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from dataset_builders.exporters import write_coco
from dataset_builders.record import to_record
from modeling_grove import GroundedCaption
from modeling_grove.report_grove import (
    caption_pieces,
    encode_clip,
    implied_threshold,
    phrase_colors,
    report_page,
    view_data,
)
from modeling_grove.video_grove import VideoDecodeError, iter_video_clips

MAX_CAPTION = 300  # characters; the longest captions of the paper's data sets are shorter
_BRACKETS = re.compile(r"\[([^\[\]]+)\]")


@dataclass(frozen=True)
class Limits:
    """
    What the demo takes; the defaults suit two CPU cores and a model of full size.

    Attributes:
        seconds (`float`): Longest clip.
        megabytes (`float`): Largest file.
        side (`int`): Longest side of the picture in pixels.
    """

    seconds: float = 30.0
    megabytes: float = 100.0
    side: int = 4096


@dataclass(frozen=True)
class Grounding:
    """
    A captioned clip, kept between two clicks.

    Attributes:
        caption (`GroundedCaption`): The model's result.
        video (`Path`): Where the clip came from.
        folder (`Path`): Where its files are, with a name that nobody can guess.
        threshold (`float`): The one that its presence has.
    """

    caption: GroundedCaption
    video: Path
    folder: Path
    threshold: float

    @property
    def name(self) -> str:
        """The video's name as part of the name of a file, on every system."""
        return re.sub(r"[^A-Za-z0-9_.-]+", "_", self.caption.video_id).strip("._")[:60] or "clip"

    def remove(self) -> None:
        """Deletes the files."""
        shutil.rmtree(self.folder, ignore_errors=True)


def check_clip(video: Path, start: float | None, end: float | None, limits: Limits) -> None:
    """
    Looks at a file before the model does.

    Args:
        video (`Path`): The file.
        start (`float`, *optional*), end (`float`, *optional*): The part to caption, in seconds.
        limits (`Limits`): What is accepted.

    Raises:
        ValueError: with one line for the user: no video, too large, too long, or a part that is not in it.
    """
    size = video.stat().st_size / 1e6
    if size > limits.megabytes:
        raise ValueError(
            f"The file has {size:.0f} MB; the demo takes up to {limits.megabytes:g} MB. Cut it, or make its picture smaller."
        )
    if start is not None and end is not None and end <= start:
        raise ValueError(f"The part ends at {end:g} s and starts at {start:g} s; it has to end after its start.")
    try:
        # The first clip of "everything" tells where the part begins and ends, and decodes a few frames at most.
        first = next(
            iter_video_clips(video, clip_seconds=0.2, target_fps=5.0, start_time=start, end_time=end, num_threads=1),
            None,
        )
    except VideoDecodeError as error:
        raise ValueError(f"{error}.") from error
    if first is None:
        raise ValueError("None of the frames of this video can be decoded; try another file.")
    if max(first.width, first.height) > limits.side:
        raise ValueError(
            f"The picture is {first.width} x {first.height}; the demo takes sides of up to {limits.side} pixels. Make it smaller."
        )
    seconds = first.total_num_frames / first.fps
    begin, stop = start or 0.0, seconds if end is None else min(end, seconds)
    # A frame more or less is no reason to refuse a clip of thirty seconds.
    if stop - begin > limits.seconds + 0.5:
        raise ValueError(
            f"The clip has {stop - begin:.0f} s; the demo takes up to {limits.seconds:g} s. Give a start and an end under "
            "'Part of the video', or cut it."
        )


def read_own_caption(text: str) -> str | None:
    """
    The caption that a user typed, with its phrases tagged; None for an empty one.

    Args:
        text (`str`): Phrases in square brackets, `[A dog] runs.`, or in the model's own tags, `<p>A dog</p> runs.`

    Raises:
        ValueError: no phrase is marked, a bracket has no partner, or the caption is too long.
    """
    text = " ".join(text.split())
    if not text:
        return None
    if len(text) > MAX_CAPTION:
        raise ValueError(f"Your caption has {len(text)} characters; the demo takes up to {MAX_CAPTION}. Shorten it.")
    tagged = _BRACKETS.sub(r"<p>\1</p>", text)
    if "[" in tagged or "]" in tagged:
        raise ValueError("Your caption has a square bracket without its partner; mark phrases as in: [A dog] runs.")
    if "<p>" not in tagged:
        raise ValueError(
            "Your caption has no phrase to ground; mark phrases with square brackets, as in: [A dog] runs."
        )
    return tagged


class Captioner:
    """
    The pipeline, with the checks and files around it.

    Args:
        pipeline (`GroundedVideoCaptioningPipeline`): The model.
        folder (`Path`): Where results go, each in a folder of its own.
        limits (`Limits`, *optional*): What clips are accepted.
    """

    def __init__(self, pipeline: Any, folder: Path, limits: Limits | None = None):
        self.pipeline, self.folder, self.limits = pipeline, folder, limits or Limits()

    def run(
        self,
        video: str | Path | None,
        own_caption: str = "",
        start: float | None = None,
        end: float | None = None,
        on_progress: Callable[[str, int, int], None] | None = None,
    ) -> Grounding:
        """
        Captions a clip, or grounds a caption that is given.

        Args:
            video (`str` or `Path`): The file.
            own_caption (`str`, defaults to `""`): See [`read_own_caption`]; empty to have the model write one.
            start (`float`, *optional*), end (`float`, *optional*): The part of the video, in seconds.
            on_progress (`Callable[[str, int, int], None]`, *optional*): Called with a stage, what of it is done, and how much
                there is.

        Raises:
            ValueError: with one line for the user.
        """
        if not video:
            raise ValueError("There is no clip yet: upload a video, or choose the example.")
        video = Path(video)
        caption = read_own_caption(own_caption or "")
        check_clip(video, start, end, self.limits)
        options: dict[str, Any] = {"start_time": start, "end_time": end}
        options = {name: value for name, value in options.items() if value is not None}
        if caption is not None:
            options["caption"] = caption
        if on_progress is not None:
            options["on_progress"] = on_progress
        try:
            result = self.pipeline(str(video), **options)
        except torch.OutOfMemoryError as error:
            raise ValueError(
                "The clip does not fit into the memory of this machine; try a shorter part of it."
            ) from error
        folder = self.folder / secrets.token_urlsafe(16)
        folder.mkdir(parents=True)
        (folder / "clip.mp4").write_bytes(encode_clip(result, video))
        return Grounding(result, video, folder, implied_threshold(result))


def with_threshold(grounding: Grounding, threshold: float) -> GroundedCaption:
    """The caption with presence at another threshold; the model does not run, as the objectness is in its result."""
    if threshold == grounding.threshold:
        return grounding.caption
    return grounding.caption.with_threshold(threshold)


def highlighted(caption: GroundedCaption) -> list[tuple[str, str | None]]:
    """The caption for `gr.HighlightedText`: pieces of text, with a label that `color_map` knows for every phrase."""
    seen = {track.span for track in caption.tracks if track.presence.any()}
    colors = phrase_colors(caption)
    return [
        (text, None if phrase is None else colors[phrase][0] if caption.spans[phrase] in seen else "absent")
        for text, phrase in caption_pieces(caption)
    ]


def view_json(grounding: Grounding, address: str) -> str:
    """What the view of the clip is given, as JSON; `address` is where a browser finds the folder of the result."""
    data = view_data(grounding.caption, grounding.threshold, with_caption=False)
    return json.dumps(data | {"video": f"{address}/clip.mp4"})


def write_record(grounding: Grounding, threshold: float) -> tuple[str, str]:
    """Writes the record and its COCO form; returns both paths."""
    caption = with_threshold(grounding, threshold)
    record, coco = (grounding.folder / f"{grounding.name}{ending}.json" for ending in ("", "_coco"))
    caption.save(record)
    # The key of a record in COCO is the beginning of file names.
    write_coco([to_record(replace(caption, video_id=grounding.name))], coco)
    return str(record), str(coco)


def write_page(grounding: Grounding) -> str:
    """Writes the self-contained report; returns its path."""
    path = grounding.folder / f"{grounding.name}.html"
    page = report_page(grounding.caption, (grounding.folder / "clip.mp4").read_bytes(), grounding.threshold)
    path.write_text(page, encoding="utf-8", errors="xmlcharrefreplace")
    return str(path)


def write_video(grounding: Grounding, threshold: float) -> str:
    """Draws caption, boxes and presence into the clip; returns the path of the mp4."""
    path = grounding.folder / f"{grounding.name}_{threshold:.2f}.mp4"
    with_threshold(grounding, threshold).render(grounding.video, path, max_side=960)
    return str(path)


__all__ = [
    "MAX_CAPTION",
    "Captioner",
    "Grounding",
    "Limits",
    "check_clip",
    "highlighted",
    "read_own_caption",
    "view_json",
    "with_threshold",
    "write_page",
    "write_record",
    "write_video",
]

"""Grounded captions as pictures: an annotated mp4 of every source frame, and a contact sheet of a few of them.

Both show the same three things: boxes in the colour of their phrase, the caption with its phrases in those colours, and
one line of presence over time for every phrase. `drawing_grove` draws them.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from PIL import Image

from .drawing_grove import DARK, LIGHT, MIN_WIDTH, Presence, Strip, draw_marks, draw_tag
from .grounded_caption import GroundedCaption, atomic_path
from .video_grove import VideoSource, iter_video_clips


def _frames(caption: GroundedCaption, source: VideoSource) -> Iterator[tuple[float, int, np.ndarray]]:
    """Frame rate, source-frame index and upright RGB pixels of every frame of the clip, few of them in memory."""
    first, last, count = caption.clip_start_frame, caption.clip_end_frame, caption.num_frames
    if not isinstance(source, np.ndarray):
        for clip in iter_video_clips(source, clip_seconds=0.25, target_fps=None, start_frame=first, end_frame=last):
            yield from zip(itertools.repeat(clip.fps), clip.frame_indices.tolist(), clip.frames)
        return
    if source.dtype != np.uint8 or source.ndim != 4 or source.shape[3] != 3 or len(source) != count:
        wanted = f"the sampled frames as uint8 ({count}, height, width, 3)"
        raise ValueError(f"source: expected {wanted}, got {source.dtype} {source.shape}")
    seconds = float(caption.timestamps[-1] - caption.timestamps[0])
    rate = (count - 1) / seconds if seconds > 0 else 5.0
    yield from zip(itertools.repeat(rate), caption.frame_indices.tolist(), source)


def _resize(frame: np.ndarray, width: int, height: int) -> np.ndarray:
    if frame.shape[:2] == (height, width):
        return frame
    source = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")
    return source.reformat(width, height, interpolation="AREA").to_ndarray()


def render_video(
    caption: GroundedCaption,
    source: VideoSource,
    path: str | os.PathLike[str],
    *,
    fps: float | None = None,
    max_side: int | None = None,
    show_objectness: bool = True,
) -> Path:
    """Writes an mp4 (H.264, yuv420p, no sound) of the clip with boxes, caption and presence lines.

    Every source frame of the clip is shown, although boxes are known at the sampled ones only: a box is interpolated
    linearly between two consecutive sampled frames that both have it, elsewhere the nearest sampled frame decides.
    Works frame by frame in constant memory and replaces `path` only when the file is complete.

    Args:
        caption (`GroundedCaption`):
            What to draw. Boxes are scaled if the source has another size than `caption.width` x `caption.height`.
        source (path, URL, `bytes`, binary file object, or uint8 `np.ndarray` of shape `(T, H, W, 3)`):
            The source video, as for `read_video`, or the sampled frames themselves.
        path (`str` or `os.PathLike`): Where to write, with the suffix `.mp4`.
        fps (`float`, *optional*, defaults to the rate of the source): Rate of the result; the speed stays the same.
        max_side (`int`, *optional*):
            Longest side of the picture above the caption; larger ones are reduced. Without it, pictures narrower than
            320 pixels are enlarged, as a caption needs that width.
        show_objectness (`bool`, defaults to `True`): Whether labels show the objectness beside the phrase.

    Returns:
        `Path`: `path`.

    Raises:
        ValueError: the source is no video or has no frame in the clip, `path` is the source, or an option is out of range.
    """
    path, presence = Path(path), Presence(caption)
    if path.suffix.lower() != ".mp4":
        raise ValueError(f"path: expected a name that ends in .mp4, got {path.name!r}")
    if isinstance(source, str | os.PathLike) and path.exists() and os.path.exists(source) and path.samefile(source):
        raise ValueError(f"path: {os.fspath(path)!r} is the source video, which would be lost; expected another name")
    if fps is not None and not 0 < fps <= 1000:
        raise ValueError(f"fps: expected a rate in (0, 1000], got {fps}")
    if max_side is not None and max_side < 16:
        raise ValueError(f"max_side: expected at least 16 pixels, got {max_side}")
    frames = _frames(caption, source)
    first = next(frames, None)
    if first is None:
        raise ValueError(f"source: no frame of the clip {caption.clip_start_frame}..{caption.clip_end_frame} decodes")
    height, width = first[2].shape[:2]
    scale = max(1.0, min(MIN_WIDTH / width, 2 * MIN_WIDTH / height))
    if max_side is not None:
        scale = min(1.0, max_side / max(width, height))
    height, width = max(1, round(height * scale)), max(1, round(width * scale))
    canvas_width = max(width + width % 2, MIN_WIDTH)
    text_size = min(max(round(7 + 0.0145 * canvas_width), 12), 40)
    strip = Strip(caption, presence, canvas_width, text_size, height // 2, DARK)
    total = height + strip.height
    canvas = np.full((total + total % 2, canvas_width, 3), DARK.background, np.uint8)
    picture = canvas[:height, (canvas_width - width) // 2 :][:, :width]
    rate = Fraction(first[0]).limit_denominator(1001)
    out_rate = rate if fps is None else Fraction(fps).limit_denominator(1001)
    target, options = atomic_path(path), {"crf": "16", "preset": "veryfast"}
    with target as temporary, av.open(temporary, "w", format="mp4", options={"movflags": "faststart"}) as container:
        stream = container.add_stream("libx264", rate=out_rate, options=options)
        stream.width, stream.height, stream.pix_fmt = canvas_width, len(canvas), "yuv420p"
        codec = stream.codec_context
        codec.colorspace = codec.color_primaries = codec.color_trc = 1  # BT.709; without a word players guess by size
        written = 0
        for count, (_, index, frame) in enumerate(itertools.chain([first], frames), start=1):
            repeats = -int(-(count * out_rate) // rate) - written  # 0 where a lower output rate leaves it out
            if repeats <= 0:
                continue
            marks = presence.marks(index)
            picture[:] = _resize(frame, width, height)
            draw_marks(picture, marks, caption, max(strip.size - 2, 10), show_objectness)
            shown = {mark.phrase for mark in marks}
            lit = [phrase in shown for phrase in range(len(presence.present))]
            strip.draw(canvas[height:], lit, [index], DARK.text)
            for _ in range(repeats):
                image = av.VideoFrame.from_ndarray(canvas, format="rgb24")
                container.mux(stream.encode(image.reformat(format="yuv420p", dst_colorspace="ITU709")))
            written += repeats
        container.mux(stream.encode())
    return path


def contact_sheet(
    caption: GroundedCaption,
    source: VideoSource,
    path: str | os.PathLike[str],
    *,
    num_frames: int = 8,
    columns: int = 4,
    show_objectness: bool = True,
) -> Path:
    """Writes one picture: evenly chosen sampled frames with boxes and time stamps, the caption, and the presence lines.

    Args:
        caption, source, show_objectness: As for `render_video`.
        path (`str` or `os.PathLike`): Where to write; the suffix decides the format, usually `.png`.
        num_frames (`int`, defaults to 8): Sampled frames to show; all of them if there are fewer.
        columns (`int`, defaults to 4): Pictures in a row.

    Returns:
        `Path`: `path`.

    Raises:
        ValueError: the source is no video or lacks a chosen frame, or an option is out of range.
    """
    if num_frames < 1 or columns < 1:
        raise ValueError(f"num_frames, columns: expected at least 1, got {num_frames} and {columns}")
    presence, gap, size = Presence(caption), 8, 14
    chosen = np.linspace(0, caption.num_frames - 1, min(num_frames, caption.num_frames)).round().astype(int)
    seconds = dict(zip(caption.frame_indices[chosen].tolist(), caption.timestamps[chosen].tolist(), strict=True))
    tiles: list[np.ndarray] = []
    for _, index, frame in itertools.takewhile(lambda _: len(tiles) < len(seconds), _frames(caption, source)):
        if index in seconds:
            height, width = (max(1, round(side * 400 / max(frame.shape[:2]))) for side in frame.shape[:2])
            tile = _resize(frame, width, height).copy()
            stamp = draw_tag(f"{seconds[index]:.1f} s", size, (0, 0, 0))[:height, :width]
            corner = (0, height - len(stamp), stamp.shape[1], height)
            draw_marks(tile, presence.marks(index), caption, size, show_objectness, corner)
            tile[corner[1] :, : corner[2]] = stamp
            tiles.append(tile)
    if len(tiles) < len(seconds):
        raise ValueError(f"source: {len(tiles)} of the {len(seconds)} frames to show; is it {caption.video_fname}?")
    columns = min(columns, len(tiles))
    grid = columns * (width + gap) - gap
    sheet_width = max(grid, 640) + 2 * gap
    strip = Strip(caption, presence, sheet_width, min(12 + sheet_width // 128, 24), 10**6, LIGHT)
    top = -(-len(tiles) // columns) * (height + gap) + gap
    canvas = np.full((top + strip.height, sheet_width, 3), LIGHT.background, np.uint8)
    for n, tile in enumerate(tiles):
        y, x = gap + n // columns * (height + gap), (sheet_width - grid) // 2 + n % columns * (width + gap)
        canvas[y : y + height, x : x + width] = tile
    strip.draw(canvas[top:], [bool(row.any()) for row in presence.present], list(seconds), LIGHT.muted)
    with atomic_path(path) as temporary:
        Image.fromarray(canvas).save(temporary)
    return Path(path)


__all__ = ["contact_sheet", "render_video"]

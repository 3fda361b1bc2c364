"""Grounded captions as a web page: the clip with its boxes, the caption, and presence over time, to look through by hand.

The page is one file that loads nothing: the clip is in it, as a small H.264 video. The parts are for the demo Space too,
which shows the same view: `view_data` is all that the view needs to know, and `encode_clip` makes a video that browsers play.
"""

from __future__ import annotations

import base64
import html
import io
import itertools
import json
import os
import re
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

from .drawing_grove import PALETTE
from .grounded_caption import GroundedCaption, atomic_path
from .report_page_grove import PAGE, PAGE_CSS, PAGE_JS, VIEW_CSS, VIEW_JS
from .video_grove import VideoSource, iter_video_clips


def caption_pieces(caption: GroundedCaption) -> list[tuple[str, int | None]]:
    """The caption cut into its phrases, each with its index in `caption.phrases`, and the text between them, with None."""
    text, pieces, end = caption.caption, [], 0
    for phrase, (start, stop) in enumerate(caption.spans):
        pieces += [(text[end:start], None), (text[start:stop], phrase)]
        end = stop
    pieces.append((text[end:], None))
    return [piece for piece in pieces if piece[0]]


def phrase_colors(caption: GroundedCaption) -> list[tuple[str, str]]:
    """For every phrase the colour that the annotated video gives it, and the ink to write on it, as `#rrggbb`."""
    colors = [PALETTE[phrase % len(PALETTE)] for phrase in range(len(caption.phrases))]
    inks = ["#000000" if 0.299 * r + 0.587 * g + 0.114 * b > 120 else "#ffffff" for r, g, b in colors]
    return [(f"#{r:02x}{g:02x}{b:02x}", ink) for (r, g, b), ink in zip(colors, inks, strict=True)]


def implied_threshold(caption: GroundedCaption) -> float:
    """
    A threshold that gives the caption's presence: of the hundredths that do, the one nearest to 0.5, or 0.5 where none does.
    """
    known = [~np.isnan(track.boxes[:, 0]) for track in caption.tracks]
    for threshold in sorted(np.arange(101) / 100, key=lambda value: abs(value - 0.5)):
        pairs = zip(caption.tracks, known, strict=True)
        if all(np.array_equal((track.objectness > float(threshold)) & k, track.presence) for track, k in pairs):
            return float(threshold)
    return 0.5


def view_data(caption: GroundedCaption, threshold: float | None = None, *, with_caption: bool = True) -> dict[str, Any]:
    """
    What the view of `report_page_grove` is given, but for `video`, an address of what `encode_clip` makes.

    Args:
        caption (`GroundedCaption`): What to show.
        threshold (`float`, *optional*): Where the slider stands; by default [`implied_threshold`].
        with_caption (`bool`, defaults to `True`): Whether the view shows the caption above the clip.

    Returns:
        `dict`: of types that JSON has.
    """
    colors = phrase_colors(caption)
    offset = (caption.clip_start_frame - int(caption.frame_indices[0])) / caption.fps
    return {
        "record": caption.to_dict(),
        "caption": with_caption,
        "pieces": [list(piece) for piece in caption_pieces(caption)],
        "colors": [color for color, _ in colors],
        "inks": [ink for _, ink in colors],
        "track_phrases": [caption.spans.index(track.span) for track in caption.tracks],
        "threshold": implied_threshold(caption) if threshold is None else threshold,
        "rate": float(Fraction(caption.fps).limit_denominator(1001)),
        "start": max(float(caption.timestamps[0]) + offset, 0.0),
        "file_name": f"{caption.video_id}.json",
    }


def encode_clip(caption: GroundedCaption, source: VideoSource, *, max_side: int = 720) -> bytes:
    """
    The clip as a small mp4 (H.264, yuv420p, no sound) that browsers play, whatever the source is. Its n-th frame is source
    frame `clip_start_frame + n`, at the caption's rate; one that does not decode leaves the one before it standing.

    Args:
        caption (`GroundedCaption`): Says which part of the source.
        source (path, URL, `bytes` or binary file object): The source video, as for `read_video`.
        max_side (`int`, defaults to 720): Longest side of the picture in pixels; larger ones are reduced.

    Raises:
        ValueError: the source is no video, or has no frame in the clip.
    """
    first, last = caption.clip_start_frame, caption.clip_end_frame
    clips = iter_video_clips(source, clip_seconds=0.25, target_fps=None, start_frame=first, end_frame=last)
    frames = (pair for clip in clips for pair in zip(clip.frame_indices.tolist(), clip.frames, strict=True))
    start = next(frames, None)
    if start is None:
        raise ValueError(f"source: no frame of the clip {first}..{last} decodes")
    scale = min(1.0, max_side / max(start[1].shape[:2]))
    # 4:2:0 has colours for pairs of pixels, so the sides are even.
    height, width = (max(2, round(side * scale / 2) * 2) for side in start[1].shape[:2])
    rate = Fraction(caption.fps).limit_denominator(1001)
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as container:
        # Frequent key frames, as the view is there to jump about in the clip.
        options = {"crf": "21", "preset": "veryfast", "g": "24"}
        stream = container.add_stream("libx264", rate=rate, options=options)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        codec = stream.codec_context
        codec.time_base = 1 / rate
        codec.colorspace = codec.color_primaries = codec.color_trc = 1  # BT.709; without a word players guess by size
        for index, frame in itertools.chain([start], frames):
            image = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")
            image = image.reformat(width, height, "yuv420p", dst_colorspace="ITU709", interpolation="AREA")
            image.pts, image.time_base = index - first, 1 / rate
            container.mux(stream.encode(image))
        container.mux(stream.encode())
    return file.getvalue()


def report_page(caption: GroundedCaption, clip: bytes, threshold: float | None = None) -> str:
    """
    The page as text.

    Args:
        caption (`GroundedCaption`): What to show.
        clip (`bytes`): What `encode_clip` made of its video.
        threshold (`float`, *optional*): Where the slider stands; by default [`implied_threshold`].
    """
    data = view_data(caption, threshold)
    length = (caption.clip_end_frame - caption.clip_start_frame + 1) / caption.fps
    facts = (
        f"{data['start']:.1f} to {data['start'] + length:.1f} s &middot; {caption.num_frames} sampled frames &middot; "
        f"{caption.width} x {caption.height}"
    )
    name = html.escape(caption.video_fname or caption.video_id)
    parts = {
        "title": f"{name}: {html.escape(caption.caption)}",
        "name": name,
        "facts": facts,
        "css": VIEW_CSS + PAGE_CSS,
        # JSON may spell any character by its number; without "<" nothing in it can end the element that it stands in.
        "data": json.dumps(data).replace("<", "\\u003c"),
        "clip": base64.b64encode(clip).decode("ascii"),
        "script": VIEW_JS + PAGE_JS,
    }
    return re.sub(r"@([a-z]+)@", lambda match: parts[match[1]], PAGE)


def write_report(
    caption: GroundedCaption,
    source: VideoSource,
    path: str | os.PathLike[str],
    *,
    threshold: float | None = None,
    max_side: int = 720,
) -> Path:
    """
    Writes one HTML file that shows the clip with its boxes, its caption and presence over time, and loads nothing.

    Hovering a phrase shows its boxes alone, a slider makes presence anew from the objectness, and the record can be saved as
    JSON. The clip is in the file, so a long one makes a large file.

    Args:
        caption (`GroundedCaption`): What to show.
        source (path, URL, `bytes` or binary file object): Its video, as for `read_video`.
        path (`str` or `os.PathLike`): Where to write, with the suffix `.html`; replaced when the page is complete.
        threshold (`float`, *optional*): Where the slider stands; by default one that gives the caption's presence.
        max_side (`int`, defaults to 720): Longest side of the picture in pixels; larger ones are reduced.

    Returns:
        `Path`: `path`.

    Raises:
        ValueError: the source is no video or has no frame in the clip, or an option is out of range.
    """
    path = Path(path)
    if path.suffix.lower() != ".html":
        raise ValueError(f"path: expected a name that ends in .html, got {path.name!r}")
    if threshold is not None and not 0 <= threshold <= 1:
        raise ValueError(f"threshold: expected a probability in [0, 1], got {threshold}")
    if max_side < 16:
        raise ValueError(f"max_side: expected at least 16 pixels, got {max_side}")
    page = report_page(caption, encode_clip(caption, source, max_side=max_side), threshold)
    with atomic_path(path) as temporary:
        # Names of files may hold bytes that are no text; they become character references.
        temporary.write_bytes(page.encode("utf-8", "xmlcharrefreplace"))
    return path


__all__ = [
    "caption_pieces",
    "encode_clip",
    "implied_threshold",
    "phrase_colors",
    "report_page",
    "view_data",
    "write_report",
]

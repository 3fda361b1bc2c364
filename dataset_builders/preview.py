"""`python -m dataset_builders preview`: some clips of a data set to look at, as contact sheets, annotated videos and a page."""

from __future__ import annotations

import argparse
import itertools
import random
import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from html import escape
from pathlib import Path, PurePath
from typing import Any

import numpy as np

from modeling_grove.drawing_grove import PALETTE
from modeling_grove.grounded_caption import GroundedCaption, atomic_path
from modeling_grove.video_grove import VideoSource

from .command_line import complain, emit, progress
from .exporters.clips_to_export import first_frame
from .record import Record, from_record
from .record_checks import key_of
from .sources import iter_source

_LONGEST_SIDE = 960  # of the annotated videos; larger ones take long to write and do not fit a page
_NO_KEY = "(no key)"
_CANVAS = (232, 234, 238)  # where there is no picture

_PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
:root {{ color-scheme: light dark; font: 17px/1.6 system-ui, sans-serif }}
body {{ margin: 0 auto; max-width: 72rem; padding: 1rem }}
section {{ border-top: 1px solid #8886; padding: 1rem 0 2rem }}
nav, .facts {{ color: #888; font-size: .85rem }}
h2 {{ font-size: 1rem; margin: 0; overflow-wrap: anywhere }}
.caption {{ font-size: 1.3rem; margin: .5rem 0 }}
.phrase {{ border-bottom: 3px solid; border-radius: .2em; padding: 0 .15em }}
.problem {{ color: #d33 }}
img, video {{ display: block; margin: .8rem 0; max-width: 100% }}
</style>
<h1>{title}</h1>
<nav>{contents}</nav>
{sections}
</html>
"""


@dataclass
class Preview:
    """
    What was written for a clip.

    Attributes:
        key (`str`): of the clip.
        sheet (`str` or `None`): file name of the contact sheet.
        pictures (`bool`): whether the sheet shows the video, not an empty canvas.
        video (`str` or `None`): file name of the annotated video.
        problem (`str` or `None`): what could not be read.
    """

    key: str
    sheet: str | None = None
    pictures: bool = False
    video: str | None = None
    problem: str | None = None


def choose(
    items: Iterable[tuple[Record, bytes | None]], count: int, keys: list[str] | None, seed: int | None
) -> list[tuple[Record, bytes | None]]:
    """
    The records to preview, in the order of the data set: those with the given keys; else, with a seed, a random sample of the
    whole set, of which no more than `count` are kept in memory; else the first ones.
    """
    chosen: list[tuple[Record, bytes | None]] = []
    if keys is not None:
        wanted = set(keys)
        for item in items:
            if (key := key_of(item[0])) in wanted:
                wanted.remove(key)
                chosen.append(item)
            if not wanted:
                break
        return chosen
    if seed is None:
        return list(itertools.islice(items, count))
    generator, kept = random.Random(seed), list[tuple[int, tuple[Record, bytes | None]]]()
    for position, item in enumerate(items):
        if len(kept) < count:
            kept.append((position, item))
        elif (place := generator.randrange(position + 1)) < count:
            kept[place] = (position, item)
    return [item for _, item in sorted(kept, key=lambda entry: entry[0])]


def write_preview(
    record: Record, mp4: bytes | None, folder: Path, name: str, *, videos: Path | None = None, render: bool = True
) -> tuple[Preview, GroundedCaption | None]:
    """
    Writes `{name}.png`, and `{name}.mp4` where there is a video. Without one, or if it does not decode, the sheet shows the
    boxes on an empty canvas.

    Args:
        record (`Record`): The clip.
        mp4 (`bytes`, *optional*): The clip's own video, from a shard.
        folder (`Path`): Where to write.
        name (`str`): Of the files, without suffix.
        videos (`Path`, *optional*): Folder with the source videos, for records without `mp4`.
        render (`bool`, defaults to `True`): Whether to write the annotated video.
    """
    preview = Preview(key_of(record) or _NO_KEY)
    try:
        caption = from_record(record)
    except ValueError as error:
        preview.problem = str(error)
        return preview, None
    # Annotations are certain, so a number beside each box would say nothing.
    scores = any(bool((track.objectness[track.presence] != 1).any()) for track in caption.tracks)
    try:
        if mp4 is not None or videos is not None:
            source, shown = _video(record, caption, mp4, videos)
            shown.contact_sheet(source, folder / f"{name}.png", show_objectness=scores)
            preview.sheet, preview.pictures = f"{name}.png", True
            if render:
                side = _LONGEST_SIDE if max(caption.width, caption.height) > _LONGEST_SIDE else None
                shown.render(source, folder / f"{name}.mp4", show_objectness=scores, max_side=side)
                preview.video = f"{name}.mp4"
    except (ValueError, OSError) as error:
        preview.problem = str(error)
    if preview.sheet is None:
        shown = _scaled(caption)
        shape = (shown.num_frames, shown.height, shown.width, 3)
        empty = np.broadcast_to(np.array(_CANVAS, dtype=np.uint8), shape)  # one pixel in memory
        shown.contact_sheet(empty, folder / f"{name}.png", show_objectness=scores)
        preview.sheet = f"{name}.png"
    return preview, caption


def _video(
    record: Record, caption: GroundedCaption, mp4: bytes | None, videos: Path | None
) -> tuple[VideoSource, GroundedCaption]:
    """The video of a record, and the caption in that video's frame numbers."""
    if mp4 is not None:
        first = first_frame(record)
        start, end = caption.clip_start_frame - first, caption.clip_end_frame - first
        # The times stay those of the source video, as everywhere.
        indices = caption.frame_indices - first
        return mp4, replace(caption, clip_start_frame=start, clip_end_frame=end, frame_indices=indices)
    name = PurePath(caption.video_fname)
    if videos is None or name.is_absolute() or ".." in name.parts:
        raise ValueError(f"video_fname: {caption.video_fname!r} leads out of the folder of videos")
    return videos / name, caption


def _scaled(caption: GroundedCaption) -> GroundedCaption:
    """The caption of a frame no larger than is shown: a record may state any size, and drawing needs a whole frame."""
    scale = min(1.0, _LONGEST_SIDE / max(caption.width, caption.height))
    width, height = (max(1, round(side * scale)) for side in (caption.width, caption.height))
    factors = np.array([width / caption.width, height / caption.height] * 2)
    tracks = tuple(replace(track, boxes=track.boxes * factors) for track in caption.tracks)
    return replace(caption, width=width, height=height, tracks=tracks)


def _page(title: str, previews: list[tuple[Preview, GroundedCaption | None]]) -> str:
    """The page; everything that comes from records is escaped."""
    links = [f'<a href="#clip-{n}">{escape(preview.key)}</a>' for n, (preview, _) in enumerate(previews)]
    sections = []
    for n, (preview, caption) in enumerate(previews):
        places = {"previous": n - 1, "next": n + 1}
        steps = [f'<a href="#clip-{m}">{text}</a>' for text, m in places.items() if 0 <= m < len(previews)]
        lines = [
            f'<section id="clip-{n}">',
            f"<h2>{escape(preview.key)}</h2>",
            f"<nav>{' '.join(steps)}</nav>",
        ]
        if caption is not None:
            lines += [f'<p class="caption">{_caption_html(caption)}</p>', f'<p class="facts">{_facts(caption)}</p>']
        if preview.problem is not None:
            lines.append(f'<p class="problem">{escape(preview.problem)}</p>')
        if preview.sheet is not None:
            if not preview.pictures:
                lines.append('<p class="facts">No video: the boxes are drawn on an empty canvas.</p>')
            sheet = escape(preview.sheet)
            lines.append(f'<a href="{sheet}"><img src="{sheet}" alt="contact sheet" loading="lazy"></a>')
        if preview.video is not None:
            video = escape(preview.video)
            lines.append(
                f'<video src="{video}" controls loop muted preload="none"></video><a href="{video}">{video}</a>'
            )
        sections.append("\n".join([*lines, "</section>"]))
    return _PAGE.format(title=escape(title), contents=" &middot; ".join(links), sections="\n".join(sections))


def _caption_html(caption: GroundedCaption) -> str:
    """The caption with its phrases in the colours of their boxes."""
    pieces, position = [], 0
    for number, (start, end) in enumerate(caption.spans):
        color = "#{:02x}{:02x}{:02x}".format(*PALETTE[number % len(PALETTE)])
        style = f"border-color: {color}; background: {color}33"
        pieces.append(escape(caption.caption[position:start]))
        pieces.append(f'<span class="phrase" style="{style}">{escape(caption.caption[start:end])}</span>')
        position = end
    return "".join(pieces) + escape(caption.caption[position:])


def _facts(caption: GroundedCaption) -> str:
    boxes = sum(int(track.presence.sum()) for track in caption.tracks)
    frames = f"frames {caption.clip_start_frame} to {caption.clip_end_frame}, {caption.num_frames} of them annotated"
    size = f"{caption.width} x {caption.height}, {caption.fps:g} fps"
    return escape(f"{caption.video_fname}: {frames}; {len(caption.tracks)} objects, {boxes} boxes; {size}")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the options of the command."""
    parser.add_argument(
        "source", help="JSONL file, shard, folder or hf:// repository of shards, or a pattern of shards"
    )
    parser.add_argument("--output", required=True, type=Path, metavar="DIR", help="folder for the files and index.html")
    parser.add_argument("--videos", type=Path, metavar="DIR", help="folder of the videos, for data without them")
    parser.add_argument("-n", "--count", type=int, default=8, metavar="N", help="number of clips (default 8)")
    parser.add_argument("--keys", nargs="+", metavar="KEY", help="these clips ({video_id}_{clip_id}), not the first N")
    parser.add_argument("--seed", type=int, help="a random sample of the whole data set, not the first N")
    parser.add_argument(
        "--config",
        help="configuration of a repository of shards (default: the first one, with its clips if it has them)",
    )
    parser.add_argument("--split", help="split of a repository of shards")
    parser.add_argument("--no-video", action="store_true", help="contact sheets only")
    parser.add_argument("--json", action="store_true", help="print what was written as JSON")


def run(args: argparse.Namespace) -> int:
    """Runs the command."""
    if args.count < 1:
        raise ValueError(f"-n: expected at least 1, got {args.count}")
    if args.videos is not None and not args.videos.is_dir():
        raise ValueError(f"--videos: no folder {str(args.videos)!r}")
    # Records and clips are in configurations of their own, and nobody looks at an empty canvas by choice.
    items = iter_source(args.source, args.config, args.split, prefer_video=args.videos is None)
    if args.seed is not None or args.keys:
        items = progress(items, "choosing clips")
    chosen = choose(items, args.count, args.keys, args.seed)
    if not chosen:
        raise ValueError(f"no clip of {args.source!r} to show: " + ("no such keys" if args.keys else "it is empty"))
    args.output.mkdir(parents=True, exist_ok=True)
    previews = []
    for number, (record, mp4) in enumerate(progress(chosen, "drawing")):
        name = f"{number:03d}_{re.sub(r'[^A-Za-z0-9_-]', '_', key_of(record) or 'no_key')[:80]}"
        drawn = write_preview(record, mp4, args.output, name, videos=args.videos, render=not args.no_video)
        if drawn[0].problem is not None:
            complain(f"{drawn[0].key}: {drawn[0].problem}")
        previews.append(drawn)
    index = args.output / "index.html"
    with atomic_path(index) as temporary:
        temporary.write_text(_page(PurePath(args.source).name, previews), encoding="utf-8")
    unknown = sorted(set(args.keys or ()) - {preview.key for preview, _ in previews})
    for key in unknown:
        complain(f"no clip {key!r} in {args.source!r}")
    problems = sum(preview.problem is not None for preview, _ in previews)
    result: dict[str, Any] = {"index": str(index), "clips": [asdict(preview) for preview, _ in previews]}
    text = f"{index}: {len(previews)} clips" + (f", {problems} of them with problems" if problems else "")
    emit(result, text, as_json=args.json)
    return 2 if problems or unknown else 0


__all__ = ["Preview", "add_arguments", "choose", "run", "write_preview"]

"""CVAT for video 1.1: an XML file for every clip, to upload as the annotations of its task."""

from __future__ import annotations

import json
import os
import xml.etree.ElementTree as ET
from collections.abc import Iterable, Mapping
from typing import Any

from .categories import Categories, CategoryKind, xml_text
from .clips_to_export import (
    Clip,
    Clips,
    ExportCounts,
    Track,
    VideoKind,
    atomic_folder,
    checked_video,
    pixels,
    runs,
)

_PHRASE = {"name": "phrase", "mutable": False, "input_type": "text", "default_value": "", "values": []}


def write_cvat(
    records: Iterable[Mapping[str, Any]],
    path: str | os.PathLike[str],
    *,
    categories: CategoryKind = "phrase",
    video: VideoKind = "source",
) -> ExportCounts:
    """
    Writes a folder with `{key}.xml` for every clip, and `labels.json`, the labels of all of them, for the "Raw" tab of CVAT's
    label constructor (`cvat-cli task create --labels`). CVAT takes only labels that the task has; every label has the
    text attribute `phrase`, which holds the phrase as written.

    An object is a `<track>` with one `<box>` for every sampled frame that has it, all of them keyframes, in pixels with
    fractions. In the first sampled frame without it the last box is repeated with `outside="1"`. Frames before the
    first box need nothing; an object in the last sampled frame stays to the end of the task. `occluded` is 0: records do
    not say. Frames count from 0.

    Args:
        records (iterable of records): Read once.
        path (`str` or `os.PathLike`): The folder; new or empty.
        categories (`"phrase"`, `"head"` or `"single"`): What a label is, see [`Categories`].
        video (`"source"` or `"clip"`):
            The video of the task. Of the source video, with the `start_frame` and `stop_frame` that `<meta>` has, frames
            keep their numbers (a longer task shows the last boxes beyond the clip's end). Of the clip itself, cut out as in
            a shard, frame 0 is the first one of that file.

    Raises:
        `ValueError`: if a record is not valid, two have the same key, or the folder is not empty.
    """
    video, clips = checked_video(video), Clips(records, categories)
    with atomic_folder(path) as folder:
        for number, clip in enumerate(clips, start=1):
            tree = ET.ElementTree(_document(clip, number, clips.categories, video))
            ET.indent(tree)
            tree.write(folder / f"{clip.key}.xml", encoding="utf-8", xml_declaration=True)
        labels = [{"name": name, "attributes": [_PHRASE]} for name in clips.categories.names]
        (folder / "labels.json").write_text(json.dumps(labels, indent=2) + "\n", encoding="utf-8")
    return clips.counts()


def _document(clip: Clip, number: int, categories: Categories, video: VideoKind) -> ET.Element:
    caption, names = clip.caption, categories.names
    source, offset = clip.video(video)
    start, stop = caption.clip_start_frame - offset, caption.clip_end_frame - offset
    root = ET.Element("annotations")
    _texts(root, {"version": "1.1"})
    meta = ET.SubElement(root, "meta")
    task = ET.SubElement(meta, "task")
    fields = {"id": number, "name": clip.key, "size": stop - start + 1, "mode": "interpolation", "overlap": 0}
    _texts(task, {**fields, "bugtracker": "", "start_frame": start, "stop_frame": stop, "frame_filter": ""})
    labels = ET.SubElement(task, "labels")
    for category in sorted({track.category for track in clip.tracks}):
        label = ET.SubElement(labels, "label")
        _texts(label, {"name": names[category]})
        attribute = ET.SubElement(ET.SubElement(label, "attributes"), "attribute")
        _texts(attribute, {**_PHRASE, "values": ""})
    _texts(ET.SubElement(task, "original_size"), {"width": caption.width, "height": caption.height})
    _texts(meta, {"source": source})
    frames = [frame - offset for frame in caption.frame_indices.tolist()]
    for index, track in enumerate(clip.tracks):
        _add_track(root, index, names[track.category], track, frames)
    return root


def _add_track(root: ET.Element, index: int, label: str, track: Track, frames: list[int]) -> None:
    element = ET.SubElement(root, "track", {"id": str(index), "label": label, "source": "file"})
    for start, end in runs(track.presence):
        shown = [(n, n, "0") for n in range(start, end)]
        gone = [(end, end - 1, "1")] if end < len(frames) else []
        for n, box, outside in shown + gone:
            place = zip(("xtl", "ytl", "xbr", "ybr"), map(repr, pixels(track.boxes[box])), strict=True)
            flags = {"frame": str(frames[n]), "keyframe": "1", "outside": outside, "occluded": "0"}
            shape = ET.SubElement(element, "box", {**flags, **dict(place), "z_order": "0"})
            ET.SubElement(shape, "attribute", {"name": "phrase"}).text = xml_text(track.phrase)


def _texts(parent: ET.Element, fields: Mapping[str, object]) -> None:
    for name, value in fields.items():
        ET.SubElement(parent, name).text = xml_text(str(value))


__all__ = ["write_cvat"]

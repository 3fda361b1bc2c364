"""Label Studio: tasks of video object tracking with the boxes and the caption as pre-annotations."""

from __future__ import annotations

import json
import os
import xml.etree.ElementTree as ET
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import quote

from modeling_grove.drawing_grove import PALETTE

from .categories import CategoryKind
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


def write_label_studio(
    records: Iterable[Mapping[str, Any]],
    path: str | os.PathLike[str],
    *,
    categories: CategoryKind = "phrase",
    video: VideoKind = "source",
    video_root: str = "",
) -> ExportCounts:
    """
    Writes a folder with `tasks.json`, to import into a project, and `labeling_config.xml`, to paste into the project's
    labeling interface first.

    A task has one prediction: a `videorectangle` for every object, and the caption in a `textarea`. Places are percent of
    the frame; frames count from 1, so source frame 0 is frame 1, and `time` is `frame / fps`, as Label Studio writes it.
    Keyframes are the sampled frames. A keyframe with `"enabled": false` is the last frame of a lifespan: it is still
    shown, and what follows is not. An object that is missing in the next sampled frame gets such a keyframe right before
    that one, so that it does not vanish for the frames between.

    `fps` goes to the player through the task's data (`frameRate="$fps"`). Label Studio assumes a constant rate.
    `framesCount` and `duration` are those up to the clip's end; Label Studio measures the video itself.

    Args:
        records (iterable of records): Read once.
        path (`str` or `os.PathLike`): The folder; new or empty.
        categories (`"phrase"`, `"head"` or `"single"`): What a label is, see [`Categories`].
        video (`"source"` or `"clip"`): The video of the task: the source video, or the clip itself, cut out as in a shard.
        video_root (`str`, *optional*):
            What to write before the video's name: a URL with a slash at its end, or `/data/local-files/?d=videos/`. The
            name is quoted as URLs need it; without a root it is written as it is.

    Raises:
        `ValueError`: if a record is not valid, two have the same key, or the folder is not empty.
    """
    video, clips = checked_video(video), Clips(records, categories)
    with atomic_folder(path) as folder:
        with (folder / "tasks.json").open("w", encoding="utf-8") as file:
            for number, clip in enumerate(clips):
                file.write("[\n" if number == 0 else ",\n")
                file.write(json.dumps(_task(clip, clips.categories.names, video, video_root)))
            file.write("\n]\n" if clips.keys else "[]\n")
        config = ET.ElementTree(_labeling_config(clips.categories.names))
        ET.indent(config)
        config.write(folder / "labeling_config.xml", encoding="utf-8")
    return clips.counts()


def _task(clip: Clip, names: list[str], video: VideoKind, video_root: str) -> dict[str, Any]:
    caption = clip.caption
    name, offset = clip.video(video)
    last = caption.clip_end_frame - offset + 1
    target = {"to_name": "video", "original_width": caption.width, "original_height": caption.height}
    regions: list[dict[str, Any]] = []
    for index, track in enumerate(clip.tracks):
        value = {
            "framesCount": last,
            "duration": last / caption.fps,
            "sequence": _keyframes(clip, track, offset),
            "labels": [names[track.category]],
        }
        score = float(str(track.objectness[track.presence].max()))
        region = {"id": f"track-{index}", "type": "videorectangle", "from_name": "box", **target, "value": value}
        regions.append({**region, "score": score, "meta": {"text": [track.phrase]}})
    text = {"id": "caption", "type": "textarea", "from_name": "caption", "to_name": "video"}
    regions.append({**text, "value": {"text": [caption.caption]}})
    place = f"{video_root}{quote(name)}" if video_root else name
    data = {"video": place, "fps": caption.fps, "key": clip.key, "caption": caption.caption}
    return {"data": data, "predictions": [{"model_version": "grove", "result": regions}]}


def _keyframes(clip: Clip, track: Track, offset: int) -> list[dict[str, Any]]:
    caption = clip.caption
    frames = [frame - offset + 1 for frame in caption.frame_indices.tolist()]
    ends = [*frames[1:], caption.clip_end_frame - offset + 2]  # the frame after the one up to which a box is held
    sequence: list[dict[str, Any]] = []
    for start, end in runs(track.presence):
        for n in range(start, end):
            sequence.append(_keyframe(clip, track, n, frames[n]))
        if ends[end - 1] - 1 > frames[end - 1]:
            sequence.append(_keyframe(clip, track, end - 1, ends[end - 1] - 1))
        sequence[-1]["enabled"] = False
    return sequence


def _keyframe(clip: Clip, track: Track, n: int, frame: int) -> dict[str, Any]:
    caption = clip.caption
    x1, y1, x2, y2 = pixels(track.boxes[n])
    return {
        "frame": frame,
        "time": frame / caption.fps,
        "enabled": True,
        "rotation": 0,
        "x": 100 * x1 / caption.width,
        "y": 100 * y1 / caption.height,
        "width": 100 * (x2 - x1) / caption.width,
        "height": 100 * (y2 - y1) / caption.height,
    }


def _labeling_config(names: list[str]) -> ET.Element:
    view = ET.Element("View")
    ET.SubElement(view, "Labels", {"name": "videoLabels", "toName": "video", "allowEmpty": "true"})
    for number, name in enumerate(names):
        color = "#{:02x}{:02x}{:02x}".format(*PALETTE[number % len(PALETTE)])
        ET.SubElement(view[0], "Label", {"value": name, "background": color})
    ET.SubElement(view, "Video", {"name": "video", "value": "$video", "frameRate": "$fps"})
    ET.SubElement(view, "VideoRectangle", {"name": "box", "toName": "video"})
    ET.SubElement(view, "Header", {"value": "Caption"})
    area = {"name": "caption", "toName": "video", "editable": "true", "maxSubmissions": "1", "rows": "3"}
    ET.SubElement(view, "TextArea", area)
    return view


__all__ = ["write_label_studio"]

"""COCO for videos: one JSON file that `pycocotools` loads and evaluates, with the keys that video tools add to it."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Any

from modeling_grove.grounded_caption import atomic_path

from .categories import CategoryKind
from .clips_to_export import Clip, Clips, ExportCounts, pixels


def write_coco(
    records: Iterable[Mapping[str, Any]], path: str | os.PathLike[str], *, categories: CategoryKind = "phrase"
) -> ExportCounts:
    """
    Writes a COCO file: `videos`, `tracks`, `images`, `annotations`, `categories`. Memory stays small; the lists are
    gathered in temporary files beside `path`.

    - An image is a sampled frame, also one without a box. `file_name` is `{key}/{source frame}.jpg`, six digits, source
      frames from 0; `frame_id` counts the images of the clip from 0 (CocoVID), `frame_index` is the source frame
      (TAO). The pictures themselves are not written.
    - A box is `[x, y, width, height]` in pixels with fractions; `area` is width times height, `iscrowd` 0, `score` the
      objectness, so that the annotations of a model's output are also a list of results for `COCO.loadRes`.
    - `track_id` (TAO) and `instance_id` (CocoVID) are the same number, unique in the whole file; a track has the
      phrase as written, a video the caption. Ids start at 1: COCOeval takes a match with id 0 for none.

    Args:
        records (iterable of records): Read once.
        path (`str` or `os.PathLike`): The file, usually `.json`; replaced if it exists.
        categories (`"phrase"`, `"head"` or `"single"`): What a category is, see [`Categories`].

    Raises:
        `ValueError`: if a record is not valid, or two have the same key.
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    clips = Clips(records, categories)
    with ExitStack() as stack, atomic_path(target) as temporary:
        lists = {
            name: _List(stack.enter_context(tempfile.TemporaryFile("w+", encoding="utf-8", dir=target.parent)))
            for name in ("videos", "tracks", "images", "annotations")
        }
        for clip in clips:
            _add(clip, lists)
        with temporary.open("w", encoding="utf-8") as file:
            file.write('{"info": {"description": "Grounded video captions", "version": "1.0"}, "licenses": []')
            for name, items in lists.items():
                file.write(f', "{name}": [')
                items.copy_to(file)
                file.write("]")
            names = [{"id": n, "name": name} for n, name in enumerate(clips.categories.names, start=1)]
            file.write(f', "categories": {json.dumps(names)}}}\n')
    return clips.counts()


class _List:
    """A JSON list that grows in a file."""

    def __init__(self, file: IO[str]):
        self.file, self.length = file, 0

    def add(self, **item: Any) -> int:
        """Adds an object with the next id, from 1; returns the id."""
        self.length += 1
        # ASCII: pycocotools opens its file in the encoding of the system.
        self.file.write(("" if self.length == 1 else ",\n") + json.dumps({"id": self.length, **item}))
        return self.length

    def copy_to(self, file: IO[str]) -> None:
        self.file.seek(0)
        shutil.copyfileobj(self.file, file)


def _add(clip: Clip, lists: dict[str, _List]) -> None:
    caption = clip.caption
    size = {"width": caption.width, "height": caption.height}
    video_id = lists["videos"].add(
        name=clip.key,
        file_name=caption.video_fname,
        **size,
        fps=caption.fps,
        start_frame=caption.clip_start_frame,
        end_frame=caption.clip_end_frame,
        caption=caption.caption,
        tagged_caption=caption.tagged_caption,
    )
    track_ids = [
        lists["tracks"].add(video_id=video_id, category_id=track.category + 1, phrase=track.phrase)
        for track in clip.tracks
    ]
    for n, frame in enumerate(caption.frame_indices.tolist()):
        image_id = lists["images"].add(
            file_name=f"{clip.key}/{frame:06d}.jpg", **size, video_id=video_id, frame_id=n, frame_index=frame
        )
        for track_id, track in zip(track_ids, clip.tracks, strict=True):
            if not track.presence[n]:
                continue
            x1, y1, x2, y2 = pixels(track.boxes[n])
            width, height = round(x2 - x1, 6), round(y2 - y1, 6)
            lists["annotations"].add(
                image_id=image_id,
                video_id=video_id,
                category_id=track.category + 1,
                track_id=track_id,
                instance_id=track_id,
                bbox=[x1, y1, width, height],
                area=round(width * height, 6),
                iscrowd=0,
                score=float(str(track.objectness[n])),
            )


__all__ = ["write_coco"]

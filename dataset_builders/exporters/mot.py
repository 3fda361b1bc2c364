"""MOTChallenge: a folder for every sequence with `gt/gt.txt`, `det/det.txt` and `seqinfo.ini`."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from .categories import CategoryKind
from .clips_to_export import Clip, Clips, ExportCounts, atomic_folder, pixels


def write_mot(
    records: Iterable[Mapping[str, Any]], path: str | os.PathLike[str], *, categories: CategoryKind = "phrase"
) -> ExportCounts:
    """
    Writes a folder in the layout of MOT16, MOT17 and MOT20.

    A sequence is the sampled frames of a clip, numbered from 1 without gaps, because evaluation takes a frame without lines
    for one without objects; `frames.csv` has the source frame (from 0) and the second of each, `frameRate` in
    `seqinfo.ini` is that of the sampled frames. The pictures, `img1/000001.jpg` and so on, are not written.

    Lines of `gt/gt.txt` are `frame, id, left, top, width, height, 1, class, visibility`, of `det/det.txt` `frame, -1,
    left, top, width, height, confidence, -1, -1, -1`. Ids count from 1 in a sequence. As MOTChallenge asks, pixels count
    from 1: `left` is `x1 + 1`, `width` is `x2 - x1` (motmetrics and the devkit take the 1 off again; TrackEval needs no
    absolute place). Classes count from 1: the n-th line of `labels.txt` at the top, for all sequences; with `"single"`
    the class is always 1, which is the pedestrian that evaluation tools look for. Visibility is not known and always 1.
    `seqmap.txt` lists the sequences for TrackEval.

    Args:
        records (iterable of records): Read once.
        path (`str` or `os.PathLike`): The folder; new or empty.
        categories (`"phrase"`, `"head"` or `"single"`): What a class is, see [`Categories`].

    Raises:
        `ValueError`: if a record is not valid, two have the same key, or the folder is not empty.
    """
    clips = Clips(records, categories)
    with atomic_folder(path) as folder:
        with (folder / "seqmap.txt").open("w", encoding="utf-8") as seqmap:
            seqmap.write("name\n")
            for clip in clips:
                _write_sequence(clip, folder / clip.key)
                seqmap.write(f"{clip.key}\n")
        _write(folder / "labels.txt", clips.categories.names)
    return clips.counts()


def _write_sequence(clip: Clip, folder: Path) -> None:
    caption = clip.caption
    truth, detections = [], []
    for n in range(caption.num_frames):
        for number, track in enumerate(clip.tracks, start=1):
            if not track.presence[n]:
                continue
            x1, y1, x2, y2 = pixels(track.boxes[n])
            place = ",".join(map(_number, (x1 + 1, y1 + 1, x2 - x1, y2 - y1)))
            truth.append(f"{n + 1},{number},{place},1,{track.category + 1},1")
            detections.append(f"{n + 1},-1,{place},{track.objectness[n]},-1,-1,-1")
    seconds = float(caption.timestamps[-1] - caption.timestamps[0])
    rate = (caption.num_frames - 1) / seconds if seconds > 0 else caption.fps
    for name in ("gt", "det"):
        (folder / name).mkdir(parents=True)
    _write(folder / "gt" / "gt.txt", truth)
    _write(folder / "det" / "det.txt", detections)
    times = zip(caption.frame_indices.tolist(), caption.timestamps.tolist(), strict=True)
    rows = [f"{n},{frame},{time!r}" for n, (frame, time) in enumerate(times, start=1)]
    _write(folder / "frames.csv", ["frame,source_frame,seconds", *rows])
    info = {
        "name": clip.key,
        "imDir": "img1",
        "frameRate": max(round(rate), 1),  # tools read an integer
        "seqLength": caption.num_frames,
        "imWidth": caption.width,
        "imHeight": caption.height,
        "imExt": ".jpg",
    }
    _write(folder / "seqinfo.ini", ["[Sequence]", *(f"{name}={value}" for name, value in info.items())])


def _number(value: float) -> str:
    """Without the digits that only come from subtracting."""
    return f"{value:.6f}".rstrip("0").rstrip(".")


def _write(path: Path, lines: list[str]) -> None:
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


__all__ = ["write_mot"]

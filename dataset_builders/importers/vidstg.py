"""VidSTG: sentences about one object of a video, and the boxes of that object while the sentence holds.

Two forms are read. The released annotation file is a list; each entry has a segment of a VidOR video, one relation in it, and
declarative (`captions`) and interrogative (`questions`) sentences. Its boxes are in VidOR: a folder of one JSON a video. The
prepared form, which GROVE and its evaluation read, is `{"videos": [...], "trajectories": {...}}` with one sentence an entry
and the boxes (xywh) beside them.

A sentence becomes a record whose caption is the sentence and whose only phrase is all of it, as GROVE is fed it:
`<p> sentence </p> [DET]`. The clip is the segment; the phrase has boxes in the *tube* alone, the frames in which the sentence
holds. The tube excludes its last frame number (in 744 of the 3,996 validation entries it is one past the segment), the segment
includes it.

Frames are sampled at 5 frames a second in both directions from the first frame of the tube. So the frames of the official
evaluation, `range(tube_start, tube_end - 1, int(fps / 5))`, are exactly the record's frames from `begin_fid` on and before
`end_fid - 1` of `temporal_gt` in the metadata.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

from dataset_builders.reading import OnProblem, objects_of, read_json
from dataset_builders.record import Record
from modeling_grove.video_grove import sampled_frame_indices

from .entries import FieldError, Fields, Source, as_box, kind_of, single_phrase

_KINDS = {"captions": "declarative", "questions": "interrogative"}
_CACHED_VIDEOS = 8  # the entries of a video mostly follow one another


class _Trajectories(Protocol):
    def boxes(self, video_id: str, target: int, frames: Iterable[int], size: tuple[int, int]) -> dict[int, list[float]]:
        """The target's boxes (xyxy in pixels) in those of the frames that have one."""


def import_vidstg(
    path: str | os.PathLike[str],
    on_problem: OnProblem | None = None,
    *,
    trajectories: str | os.PathLike[str] | None = None,
) -> Iterator[Record]:
    """
    Yields one record for every sentence, with the running number of the sentence in its video as `clip_id`.

    The metadata has `qtype` ("declarative" or "interrogative"), `target_id`, `temporal_gt` (`begin_fid`, and `end_fid` that is
    not part of it) and `entry` (number of the entry in the file, from 1); of the released form also `target_category`,
    `target_type` and `relation`, of the prepared form its own `video_id`.

    Args:
        path (path or URL):
            The released `{train,val,test}_annotations.json`, or the prepared form.
        on_problem (`Callable[[ReadProblem], None]`, *optional*):
            Gets every entry and sentence that is left out. By default the first one raises.
        trajectories (path, *optional*):
            Folder of VidOR's annotation files, `<group>/<video>.json` or `<video>.json`. Without it records of the released
            form have no boxes; with it a video or target that it does not have is a problem.

    Raises:
        `ValueError`: in one line, if the file cannot be read, or for the first problem without `on_problem`.
    """
    source = Source(os.fspath(path), on_problem)
    document = read_json(path)
    counts: Counter[str] = Counter()
    if isinstance(document, dict) and "videos" in document:
        yield from _prepared(document, source, counts)
        return
    vidor = None if trajectories is None else _VidOR(Path(trajectories))
    for entry in objects_of(document, source.path, on_problem):
        segment = source.attempt(entry.number, _Segment, Fields(entry.value), entry.number)
        sentences = [(name, n) for name in _KINDS for n in range(_count(entry.value.get(name)))]
        # Those of a broken entry count too, so that mending it leaves the keys of the others as they are.
        first = counts[str(entry.value.get("vid"))]
        counts[str(entry.value.get("vid"))] += len(sentences)
        if segment is None:
            continue
        for clip_id, (name, n) in enumerate(sentences, start=first):
            arguments = (entry.value[name][n], _KINDS[name], clip_id, vidor)
            record = source.attempt(entry.number, segment.record, *arguments, within=f"{name}[{n}]")
            if record is not None:
                yield record


def _count(sentences: Any) -> int:
    """How many sentences of a kind an entry has."""
    return len(sentences) if isinstance(sentences, list) else 0


class _Segment:
    """An entry of the released file."""

    def __init__(self, fields: Fields, number: int):
        self.fields, self.number = fields, number
        self.video_id = fields.text("vid")
        self.fps, self.size = fields.fps(), fields.size()
        self.first, self.last = fields.inside("used_segment").frame_range("begin_fid", "end_fid")
        self.tube = fields.inside("temporal_gt").frame_range("begin_fid", "end_fid")
        _check_tube(self.tube, self.first, self.last, "temporal_gt")
        for name in _KINDS:
            fields.items(name, [])  # there may be none, but nothing else than a list
        self.categories = {item.integer("tid"): item.text("category") for item in fields.objects("subject/objects")}
        relation = fields.inside("used_relation")
        self.relation = {
            "subject_tid": relation.integer("subject_tid"),
            "predicate": relation.text("predicate"),
            "object_tid": relation.integer("object_tid"),
        }

    def record(self, sentence: Any, kind: str, clip_id: int, vidor: _Trajectories | None) -> Record:
        """The record of one sentence."""
        fields = Fields(sentence)
        target = fields.integer("target_id")
        if target not in self.categories:
            raise FieldError("target_missing", "target_id", f"{target} is none of the objects {[*self.categories]}")
        metadata = {
            "qtype": kind,
            "target_id": target,
            "target_category": self.categories[target],
            "target_type": fields.text("type", ""),
            "relation": self.relation,
            "entry": self.number,
        }
        return _record(
            fields.text("description"),
            metadata,
            (self.first, self.last),
            self.tube,
            vidor,
            target,
            video_id=self.video_id,
            clip_id=clip_id,
            video_fname=f"{self.video_id}.mp4",
            fps=self.fps,
            width=self.size[0],
            height=self.size[1],
        )


def _prepared(document: Mapping[str, Any], source: Source, counts: Counter[str]) -> Iterator[Record]:
    """The records of the prepared form."""
    trajectories = document.get("trajectories")
    if not isinstance(trajectories, dict):
        raise ValueError(f"{source.path}: trajectories: expected an object, got {kind_of(trajectories)}")
    boxes = _PreparedBoxes(Fields(trajectories, "trajectories"))
    for entry in objects_of(document["videos"], f"{source.path}: videos", source.on_problem):
        fields = Fields(entry.value)
        video_id = source.attempt(entry.number, fields.text, "original_video_id")
        if video_id is None:
            continue
        clip_id = counts[video_id]
        counts[video_id] += 1
        record = source.attempt(entry.number, _prepared_record, fields, entry.number, video_id, clip_id, boxes)
        if record is not None:
            yield record


def _prepared_record(fields: Fields, number: int, video_id: str, clip_id: int, boxes: _Trajectories) -> Record:
    tube = fields.frame_range("tube_start_frame", "tube_end_frame")
    # The form of TubeDETR, which the prepared one is made from, also has the segment; GROVE only reads the tube.
    segment = (tube[0], max(tube[1] - 1, 0))
    if fields.has("start_frame") and fields.has("end_frame"):
        segment = fields.frame_range("start_frame", "end_frame")
    _check_tube(tube, *segment, "tube_end_frame")
    kind, target = fields.text("qtype"), fields.integer("target_id")
    if kind not in _KINDS.values():
        raise FieldError("out_of_range", "qtype", f"expected declarative or interrogative, got {kind[:40]!r}")
    width, height = fields.size()
    metadata = {"qtype": kind, "target_id": target, "video_id": fields.text("video_id"), "entry": number}
    return _record(
        fields.text("caption"),
        metadata,
        segment,
        tube,
        boxes,
        target,
        video_id=video_id,
        clip_id=clip_id,
        video_fname=fields.text("video_path", f"{video_id}.mp4"),
        fps=fields.fps(),
        width=width,
        height=height,
    )


def _record(
    sentence: str,
    metadata: Mapping[str, Any],
    segment: tuple[int, int],
    tube: tuple[int, int],
    trajectories: _Trajectories | None,
    target: int,
    **clip: Any,
) -> Record:
    first, last = segment
    before = [tube[0] - offset for offset in sampled_frame_indices(clip["fps"], 0, tube[0] - first)]
    frames = before[:0:-1] + sampled_frame_indices(clip["fps"], tube[0], last)
    boxes = {}
    if trajectories is not None:
        inside = [frame for frame in frames if tube[0] <= frame < tube[1]]
        boxes = trajectories.boxes(clip["video_id"], target, inside, (clip["width"], clip["height"]))
        if not boxes:
            message = f"object {target} has no box in any sampled frame from {tube[0]} to {tube[1]}"
            raise FieldError("target_without_box", "target_id", message)
    metadata = {**metadata, "temporal_gt": {"begin_fid": tube[0], "end_fid": tube[1]}}
    return single_phrase(sentence, boxes, frames, metadata, clip_start_frame=first, clip_end_frame=last, **clip)


def _check_tube(tube: tuple[int, int], first: int, last: int, field: str) -> None:
    if not first <= tube[0] < tube[1] <= last + 1:
        message = f"the tube {tube[0]}..{tube[1]} (end excluded) is empty or not inside the segment {first}..{last}"
        raise FieldError("frame_outside_clip", field, message)


class _PreparedBoxes:
    """`trajectories[video][target][frame]["bbox"]`, xywh in pixels."""

    def __init__(self, fields: Fields):
        self.fields = fields

    def boxes(self, video_id: str, target: int, frames: Iterable[int], size: tuple[int, int]) -> dict[int, list[float]]:
        """See `_Trajectories`."""
        found = self.fields.inside(video_id).inside(str(target))
        boxes = {}
        for frame in frames:
            if found.has(str(frame)):
                entry = found.inside(str(frame))
                x, y, width, height = as_box(entry.get("bbox"), entry.where("bbox"))
                boxes[frame] = [x, y, x + width, y + height]
        return boxes


class _VidOR:
    """A folder of VidOR's annotation files; boxes are `{"xmin", "ymin", "xmax", "ymax"}` in pixels, one list a frame."""

    def __init__(self, folder: Path):
        if not folder.is_dir():
            raise ValueError(f"{folder}: no folder; expected VidOR's annotations, one JSON a video")
        # Video ids are looked up here and never become part of a path.
        self.files = {path.stem: path for path in sorted(folder.rglob("*.json"))}
        if not self.files:
            raise ValueError(f"{folder}: no .json below it; expected VidOR's annotations, one JSON a video")
        self.video = lru_cache(maxsize=_CACHED_VIDEOS)(self._video)

    def _video(self, video_id: str) -> Fields:
        if video_id not in self.files:
            raise FieldError("trajectory_missing", "vid", f"no file of video {video_id!r} among the trajectories")
        try:
            return Fields(read_json(self.files[video_id]))
        except ValueError as error:
            raise FieldError("trajectory_unreadable", None, str(error)) from None

    def boxes(self, video_id: str, target: int, frames: Iterable[int], size: tuple[int, int]) -> dict[int, list[float]]:
        """See `_Trajectories`."""
        try:
            return self._boxes(self.video(video_id), target, frames, size)
        except FieldError as error:
            if error.reason.startswith("trajectory"):
                raise
            message = f"{self.files[video_id]}: {error.field}: {error}"
            raise FieldError("trajectory_unreadable", None, message) from None

    def _boxes(
        self, video: Fields, target: int, frames: Iterable[int], size: tuple[int, int]
    ) -> dict[int, list[float]]:
        if video.size() != size:
            message = f"the video is {video.size()} there and {size} in the annotations"
            raise FieldError("trajectory_of_other_size", "width", message)
        trajectories = video.items("trajectories")
        boxes = {}
        for frame in frames:
            if frame >= len(trajectories):
                break
            for n, item in enumerate(trajectories[frame] if isinstance(trajectories[frame], list) else ()):
                entry = Fields(item, f"trajectories[{frame}][{n}]")
                if entry.integer("tid") == target:
                    box = entry.inside("bbox")
                    corners = [box.get(name) for name in ("xmin", "ymin", "xmax", "ymax")]
                    boxes[frame] = as_box(corners, box.path)
        return boxes


__all__ = ["import_vidstg"]

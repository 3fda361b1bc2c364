"""ActivityNet-Entities: segments of a video with a tokenised sentence, whose object words have boxes in ten frames.

The reference file is `anet_entities_cleaned_class_thresh50_*.json`. A segment becomes a record with ten frames, the middles of
ten equal parts, so that `frame_ind` 0..9 of the annotation is the position in the record. The caption is the tokens with blanks
between them; every annotated word is a phrase, and a box of several words is a box of each of them. The file's own
spelling of it all stays in the metadata, from which the evaluation can rebuild its reference.

Boxes are given in a video scaled to a width of 720; they are scaled back to the source. Its size and frame rate come from the
video, where there is a folder of videos, else from `width`, `height`, `fps` and `num_frames` of the video's entry, which the file
that GROVE uses has. `anet_entities_trainval.json`, read beside the reference, gives the exact size of the scaled video.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from dataset_builders.reading import OnProblem, read_json
from dataset_builders.record import Record
from modeling_grove.grounded_caption import GroundedCaption, PhraseTrack
from modeling_grove.video_file_grove import VideoFile

from .entries import (
    MAX_CLIP_FRAMES,
    FieldError,
    Fields,
    Source,
    as_box,
    as_integer,
    as_number,
    distinct_frames,
    finished,
    kind_of,
)

NUM_FRAMES = 10
ANNOTATED_WIDTH = 720
_KEPT = ("tokens", "process_idx", "process_clss", "process_bnd_box", "frame_ind", "timestamps", "crowds")
_VIDEO_SUFFIXES = {".mp4", ".mkv", ".webm", ".mov", ".avi"}


@dataclass(frozen=True)
class _Video:
    """What has to be known of a video."""

    name: str
    fps: float
    width: int
    height: int
    times: np.ndarray | None  # seconds of every frame; without a file, frames are `1 / fps` apart
    num_frames: int | None


def import_activitynet_entities(
    paths: Sequence[str | os.PathLike[str]],
    on_problem: OnProblem | None = None,
    *,
    videos: str | os.PathLike[str] | None = None,
    ids: Collection[str] | None = None,
) -> Iterator[Record]:
    """
    Yields one record for every segment, with the segment's number as `clip_id`. The metadata has the segment's `tokens`,
    `process_idx`, `process_clss`, `process_bnd_box`, `frame_ind` and `timestamps` as they are.

    Args:
        paths (sequence of paths or URLs):
            Reference files, and optionally `anet_entities_trainval.json`.
        on_problem (`Callable[[ReadProblem], None]`, *optional*):
            Gets every segment that is left out. By default the first one raises.
        videos (path, *optional*):
            Folder of videos, `v_....mp4` and the like, in it or below it.
        ids (collection of `str`, *optional*):
            What to import: videos by their id, segments by their key (`v_x_3`); by default all.

    Raises:
        `ValueError`: in one line, if a file cannot be read, or for the first problem without `on_problem`.
    """
    documents = [(os.fspath(path), read_json(path)) for path in paths]
    scaled: dict[str, Any] = {}
    references = []
    for name, document in documents:
        if isinstance(document, dict) and isinstance(document.get("database"), dict):
            scaled.update(document["database"])
        elif isinstance(document, dict) and isinstance(document.get("annotations"), dict):
            references.append((name, document["annotations"]))
        else:
            raise ValueError(f"{name}: expected an object with `annotations` (or `database`, beside a reference)")
    if not references:
        raise ValueError(f"{documents[0][0] if documents else 'no file'}: expected a reference file with `annotations`")
    folder = None if videos is None else _Folder(Path(videos))
    asked_videos = None if ids is None else {*ids, *(key.rpartition("_")[0] for key in ids)}
    for name, reference in references:
        source = Source(name, on_problem)
        for number, (video_id, value) in enumerate(reference.items(), start=1):
            if asked_videos is not None and video_id not in asked_videos:
                continue
            maker = source.attempt(number, _Maker, video_id, value, folder, scaled.get(video_id), within=video_id)
            if maker is None:
                continue
            for segment_id in maker.segments.value:
                if ids is not None and video_id not in ids and _key(video_id, segment_id) not in ids:
                    continue
                within = f"{video_id}.segments.{segment_id}"
                record = source.attempt(number, maker.record, segment_id, within=within)
                if record is not None:
                    yield record


class _Folder:
    """A folder of videos, found by their ids."""

    def __init__(self, folder: Path):
        if not folder.is_dir():
            raise ValueError(f"{folder}: no folder of videos")
        self.files = {path.stem: path for path in sorted(folder.rglob("*")) if path.suffix.lower() in _VIDEO_SUFFIXES}

    def probe(self, video_id: str) -> _Video:
        """Size and times of a video."""
        path = self.files[video_id]
        file = VideoFile(str(path.resolve()), path.name, None)
        _, frame = next(file.decode(np.array([0]), num_threads=1))
        height, width = frame.shape[:2]
        times = file.timeline.times
        return _Video(path.name, file.timeline.fps, width, height, times, len(times))


class _Maker:
    """Makes the records of one video."""

    def __init__(self, video_id: str, value: Any, folder: _Folder | None, scaled: Any):
        self.video_id, self.fields, self.folder, self.scaled = video_id, Fields(value), folder, Fields(scaled or {})
        self.segments = self.fields.inside("segments")

    @cached_property
    def _probed(self) -> _Video | FieldError:
        """The video, or why there is none: looked at once for all its segments."""
        try:
            if self.folder is not None and self.video_id in self.folder.files:
                return self.folder.probe(self.video_id)
            return self._described()
        except FieldError as error:
            return error
        except ValueError as error:
            return FieldError("broken_video", None, str(error))

    def _described(self) -> _Video:
        """The video by its entries in the files."""
        fields, where = self.fields, "width" if self.fields.has("width") else "rwidth"
        size = fields if fields.has("width") else self.scaled
        if not fields.has("fps") or not size.has(where):
            missing = "fps" if size.has(where) else "width"
            hint = "is not among the videos" if self.folder else "is needed: name the folder of videos"
            raise FieldError("video_missing", missing, f"the file does not say, and the video {hint}")
        width, height = size.size(where, where.replace("width", "height"))
        num_frames = fields.integer("num_frames", least=NUM_FRAMES) if fields.has("num_frames") else None
        return _Video(f"{self.video_id}.mp4", fields.fps(), width, height, None, num_frames)

    def record(self, segment_id: str) -> Record:
        """The record of a segment."""
        fields, video = Fields(self.segments.get(segment_id)), self._probed
        if isinstance(video, FieldError):
            raise video
        clip_id = _clip_id(segment_id)
        tokens = fields.items("tokens")
        if not tokens or any(not isinstance(token, str) for token in tokens):
            raise FieldError("wrong_type", "tokens", "expected strings")
        frames, (first, last) = _frames(fields, video)
        times = [frame / video.fps for frame in frames] if video.times is None else video.times[frames]
        caption = GroundedCaption(
            caption=" ".join(tokens),
            tracks=tuple(_tracks(fields, tokens, self._scale(video))),
            video_id=self.video_id,
            clip_id=clip_id,
            video_fname=video.name,
            fps=video.fps,
            width=video.width,
            height=video.height,
            clip_start_frame=first,
            clip_end_frame=last,
            frame_indices=np.array(frames),
            timestamps=np.array(times),
        )
        return finished(caption, {name: fields.value[name] for name in _KEPT if fields.has(name)})

    def _scale(self, video: _Video) -> np.ndarray:
        """What the annotated coordinates are multiplied with, `(4,)`."""
        width, height = float(ANNOTATED_WIDTH), ANNOTATED_WIDTH * video.height / video.width
        if self.scaled.has("rwidth") and self.scaled.has("rheight"):
            width, height = self.scaled.size("rwidth", "rheight")
        return np.array([video.width / width, video.height / height] * 2)


def _clip_id(segment_id: str) -> int:
    return Fields({"segment": segment_id}).integer("segment")


def _key(video_id: str, segment_id: str) -> str | None:
    """The key of a segment's record; `None` if it cannot have one."""
    try:
        return f"{video_id}_{_clip_id(segment_id)}"
    except FieldError:
        return None


def _frames(fields: Fields, video: _Video) -> tuple[list[int], tuple[int, int]]:
    """The frames nearest to the middles of ten equal parts of a segment, and those nearest to its start and end."""
    limits = fields.items("timestamps")
    if len(limits) != 2:
        raise FieldError("wrong_type", "timestamps", f"expected start and end in seconds, got {len(limits)} values")
    start, end = (as_number(limit, "timestamps") for limit in limits)
    if video.num_frames is not None:
        if video.num_frames < NUM_FRAMES:
            raise FieldError(
                "no_frames", None, f"the video has {video.num_frames} frames, a segment needs {NUM_FRAMES}"
            )
        # As GROVE: annotated segments often end after their video.
        end = min(end, (video.num_frames - 2) / video.fps if video.times is None else float(video.times[-2]))
    if not 0 <= start < end or not end * video.fps < MAX_CLIP_FRAMES:
        raise FieldError("clip_range", "timestamps", f"no segment of the video: {start:g} to {end:g} s")
    parts = np.linspace(start, end, NUM_FRAMES + 1)
    wanted = np.array([start, *(parts[:-1] + parts[1:]) / 2, end])
    if video.times is None:
        nearest = np.ceil(wanted * video.fps - 0.5).astype(np.int64)  # the earlier one of two, as below
    else:
        after = np.searchsorted(video.times, wanted).clip(1, len(video.times) - 1)
        closer = wanted - video.times[after - 1] <= video.times[after] - wanted
        nearest = after - closer
    first, *middles, last = nearest.tolist()
    frames = distinct_frames(middles, video.num_frames)
    return frames, (min(first, frames[0]), max(last, frames[-1]))


def _tracks(fields: Fields, tokens: list[str], scale: np.ndarray) -> Iterator[PhraseTrack]:
    """A track for every annotated word, and another for every further box of it in a frame."""
    boxes, frames, words = (fields.items(name) for name in ("process_bnd_box", "frame_ind", "process_idx"))
    if not len(boxes) == len(frames) == len(words):
        sizes = f"{len(boxes)} boxes, {len(frames)} frames, {len(words)} lists of words"
        raise FieldError("length_mismatch", "process_bnd_box", sizes)
    ends = np.cumsum([len(token) + 1 for token in tokens])
    rows: dict[tuple[int, int], np.ndarray] = {}
    seen: Counter[tuple[int, int]] = Counter()
    for n, (item, indices) in enumerate(zip(boxes, words, strict=True)):
        box = as_box(item, f"process_bnd_box[{n}]") * scale
        frame = as_integer(frames[n], f"frame_ind[{n}]", most=NUM_FRAMES - 1)
        if not isinstance(indices, list):
            raise FieldError("wrong_type", f"process_idx[{n}]", f"expected a list, got {kind_of(indices)}")
        for word in sorted({as_integer(index, f"process_idx[{n}]", most=len(tokens) - 1) for index in indices}):
            track = (word, seen[word, frame])
            seen[word, frame] += 1
            rows.setdefault(track, np.full((NUM_FRAMES, 4), np.nan, np.float32))[frame] = box
    for (word, _), track_boxes in sorted(rows.items(), key=lambda item: item[0]):
        presence = np.isfinite(track_boxes[:, 0])
        span = (int(ends[word]) - len(tokens[word]) - 1, int(ends[word]) - 1)
        yield PhraseTrack(tokens[word], span, track_boxes, presence, presence.astype(np.float32))


__all__ = ["ANNOTATED_WIDTH", "NUM_FRAMES", "import_activitynet_entities"]

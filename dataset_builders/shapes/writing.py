"""GroundedShapes as files: videos, records and captions of single frames, in several processes and resumable.

Clips are made in parts of a few. A part's lines are written at once when all its videos are, so that a run that was
killed goes on with the parts that are missing; the lines of all parts then become
the two files of the split.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from dataset_builders.command_line import progress
from dataset_builders.worker_pool import worker_pool
from modeling_grove.grounded_caption import atomic_path

from .world import VERSION, ShapesConfig, clip_name, clip_seed, make_clip

_CLIPS_PER_PART = 16


@dataclass(frozen=True)
class _Part:
    """Consecutive clips of a split; `lines` is the file that says that they are done, or `None` if only videos are needed."""

    split: str
    numbers: tuple[int, ...]
    lines: Path | None


def records_path(output: Path, split: str) -> Path:
    """The records of a split, one a line."""
    return output / f"{split}.jsonl"


def frames_path(output: Path, split: str) -> Path:
    """The captions of single frames, one clip a line, in the order of the records."""
    return output / f"{split}.frames.jsonl"


def write_shapes(
    output: str | os.PathLike[str],
    splits: Mapping[str, int],
    config: ShapesConfig | None = None,
    seed: int = 0,
    workers: int = 1,
) -> dict[str, int]:
    """
    Writes clips: `videos/{video_id}.mp4`, `{split}.jsonl` with the raw records and `{split}.frames.jsonl` with the captions of
    single frames. What an earlier run of the same settings has written is kept, also if that run was killed; a larger count
    adds clips.

    Args:
        output (`str` or `os.PathLike`):
            The folder; `shapes.json` in it says which settings its clips have.
        splits (`Mapping[str, int]`):
            Number of clips for "train", "validation" or "test".
        config ([`ShapesConfig`], *optional*):
            What clips are like.
        seed (`int`, *optional*, defaults to 0):
            Of the world, see [`clip_seed`].
        workers (`int`, *optional*, defaults to 1):
            Processes; the files do not depend on it.

    Returns:
        `dict[str, int]`: clips that were made now, by split; the others were there.

    Raises:
        `ValueError`: if an argument is out of range, or the folder has clips of other settings or more of them.
        `OSError`: if files cannot be written or a process was killed; running it again goes on.
    """
    config, output = config or ShapesConfig(), Path(output)
    if workers < 1:
        raise ValueError(f"workers: expected at least 1 process, got {workers}")
    for split, count in splits.items():
        clip_seed(split, max(count - 1, 0), seed)
        if count < 1:
            raise ValueError(f"splits: expected at least 1 clip of {split}, got {count}")
    _claim(output, {"version": VERSION, "seed": seed, "config": asdict(config)})
    parts = [part for split, count in splits.items() for part in _missing(output, split, count, seed)]
    made = {split: sum(len(part.numbers) for part in parts if part.split == split) for split in splits}
    for _ in progress(_made(parts, partial(_make, output, config, seed), workers), "clips", total=sum(made.values())):
        pass
    for split, count in splits.items():
        _collect(output, split, count)
    shutil.rmtree(output / ".parts", ignore_errors=True)
    return made


def _claim(output: Path, settings: dict[str, Any]) -> None:
    """Makes the folder, or checks that its clips have these settings; removes what a killed run left half-written."""
    path = output / "shapes.json"
    (output / "videos").mkdir(parents=True, exist_ok=True)
    (output / ".parts").mkdir(exist_ok=True)
    if path.exists():
        try:
            there = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise ValueError(f"{path}: not a JSON file ({error}); is {output} a folder of shapes?") from None
        if there != settings:
            ours, theirs = ({**entry, **entry.get("config", {})} for entry in (settings, there))
            names = [name for name in ours if name != "config" and theirs.get(name) != ours[name]]
            differences = ", ".join(f"{name} {theirs.get(name)}, not {ours[name]}" for name in names)
            raise ValueError(f"{output}: has clips with {differences}; choose another folder, or the same settings")
    else:
        with atomic_path(path) as temporary:
            temporary.write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
    for folder in (output, output / "videos", output / ".parts"):
        for leftover in folder.glob(".*.tmp.*"):
            leftover.unlink()


def _lines(path: Path) -> int:
    if not path.exists():
        return 0
    with path.open("rb") as file:
        return sum(1 for _ in file)


def _missing(output: Path, split: str, count: int, seed: int) -> list[_Part]:
    """The parts of a split that are still to be made."""
    done = min(_lines(records_path(output, split)), _lines(frames_path(output, split)))
    if done > count:
        path = records_path(output, split)
        raise ValueError(f"{path}: has {done} clips already, more than {count}; ask for {done} or more, or remove it")
    parts = []
    lost = [n for n in range(done) if not (output / "videos" / f"{clip_name(split, n, seed)}.mp4").exists()]
    if lost:
        parts.append(_Part(split, tuple(lost), None))
    for first, end in _spans(done, count):
        lines = _part_path(output, split, first, end)
        if not lines.exists():
            parts.append(_Part(split, tuple(range(first, end)), lines))
    return parts


def _spans(done: int, count: int) -> Iterator[tuple[int, int]]:
    """For every part its first clip, and the one after its last."""
    while done < count:
        end = min((done // _CLIPS_PER_PART + 1) * _CLIPS_PER_PART, count)
        yield done, end
        done = end


def _part_path(output: Path, split: str, first: int, end: int) -> Path:
    return output / ".parts" / f"{split}-{first:06d}-{end:06d}.jsonl"


def _make(output: Path, config: ShapesConfig, seed: int, part: _Part) -> int:
    """Makes the clips of a part; returns how many."""
    lines = []
    for number in part.numbers:
        clip = make_clip(clip_seed(part.split, number, seed), config, clip_name(part.split, number, seed))
        video = output / "videos" / clip.caption.video_fname
        if not video.exists():
            clip.write_video(video)
        for line in (clip.to_record(), clip.frames_record()):
            lines.append(json.dumps(line, ensure_ascii=False, allow_nan=False) + "\n")
    if part.lines is not None:
        with atomic_path(part.lines) as temporary:
            temporary.write_text("".join(lines), encoding="utf-8")
    return len(part.numbers)


def _made(parts: list[_Part], make: partial[int], workers: int) -> Iterator[int]:
    """Makes the parts; yields once for every clip."""
    if workers == 1:
        for part in parts:
            yield from range(make(part))
        return
    try:
        with worker_pool(min(workers, len(parts) or 1), __name__) as pool:
            for count in pool.map(make, parts):
                yield from range(count)
    except BrokenProcessPool:
        raise OSError("a process that made clips was killed; running the command again goes on from there") from None


def _collect(output: Path, split: str, count: int) -> None:
    """Joins the lines of all parts to the files of the split."""
    records, frames = records_path(output, split), frames_path(output, split)
    done = min(_lines(records), _lines(frames))
    if done == count:
        return
    with (
        atomic_path(records) as new_records,
        atomic_path(frames) as new_frames,
        new_records.open("w", encoding="utf-8") as record_file,
        new_frames.open("w", encoding="utf-8") as frame_file,
    ):
        for old, file in ((records, record_file), (frames, frame_file)):
            if done:
                with old.open(encoding="utf-8") as lines:
                    file.writelines(islice(lines, done))
        for first, end in _spans(done, count):
            with _part_path(output, split, first, end).open(encoding="utf-8") as lines:
                for number, line in enumerate(lines):
                    (frame_file if number % 2 else record_file).write(line)


__all__ = ["frames_path", "records_path", "write_shapes"]

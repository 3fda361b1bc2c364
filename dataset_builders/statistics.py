"""The statistics that the paper gives of data sets (Tables 1 and 10), of any data set.

The published numbers decide what two of the columns mean. *Tube length*: HowToGround1M has 80.1 boxes a clip, 3.2 phrases
a clip and tubes of 6.4 frames, so 12.5 tubes a clip and 3.9 a phrase: a tube is one unbroken run of frames in which an
object has a box, not all frames in which it has one (those would be 25 a phrase). iGround's 118.1 boxes a clip in tubes
of 29.0 frames are then 4.1 tubes a clip, about one an object. *Annotated frames*: 43.6M in 1M clips of 44.6 frames, so
those with at least one box.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from .command_line import emit, progress
from .record import from_record
from .sources import iter_source

# Word: letters and digits, also with an apostrophe or hyphen inside.
_WORD = re.compile(r"\w+(?:['\u2019-]\w+)*")

# Name of a statistic: its line in the table, and how to write it.
_LINES = {
    "videos": ("videos", ",d"),
    "clips": ("clips", ",d"),
    "captions": ("captions", ",d"),
    "noun_phrases": ("noun phrases", ",d"),
    "unique_noun_phrases": ("unique noun phrases", ",d"),
    "unique_terms": ("unique terms", ",d"),
    "frames": ("frames", ",d"),
    "annotated_frames": ("annotated frames", ",d"),
    "box_instances": ("box instances", ",d"),
    "frames_per_clip": ("avg frames per clip", ".1f"),
    "duration": ("avg duration (s)", ".1f"),
    "instances_per_clip": ("avg instances per clip", ".1f"),
    "box_width": ("avg box width (px)", ".1f"),
    "box_height": ("avg box height (px)", ".1f"),
    "tube_length": ("avg tube length (frames)", ".1f"),
    "caption_length": ("avg caption length (words)", ".1f"),
    "phrases_per_clip": ("avg phrases per clip", ".1f"),
    "presence_rate": ("presence rate", ".2f"),
}

# What the paper says (Tables 1 and 10; the phrases per clip and the presence follow from them).
PAPER: dict[str, Mapping[str, float | None]] = {
    "HowToGround1M (paper)": {
        "clips": 1_000_000,
        "captions": 1_000_000,
        "noun_phrases": 3_200_000,
        "unique_noun_phrases": 142_000,
        "unique_terms": 18_600,
        "annotated_frames": 43_600_000,
        "box_instances": 80_092_775,
        "frames_per_clip": 44.6,
        "duration": 7.9,
        "instances_per_clip": 80.1,
        "box_width": 243.7,
        "box_height": 172.6,
        "tube_length": 6.4,
        "caption_length": 12.1,
        "phrases_per_clip": 3.2,
        "presence_rate": 80.1 / (3.2 * 44.6),  # derived from the numbers above, not in the paper
    },
    "iGround (paper)": {
        "clips": 3513,
        "captions": 3513,
        "box_instances": 421_588,
        "frames_per_clip": 40.1,
        "duration": 8.0,
        "instances_per_clip": 118.1,
        "box_width": 174.9,
        "box_height": 135.5,
        "tube_length": 29.0,
        "caption_length": 15.4,
    },
}


class Statistics:
    """
    Statistics of a data set, clip by clip, in memory that grows only with its videos, phrases and words.

    Example:

    ```python
    >>> statistics = Statistics()
    >>> for record in read_records("train.jsonl"):
    ...     statistics.add(record)
    >>> statistics.as_dict()["tube_length"]
    ```
    """

    def __init__(self) -> None:
        self._videos: set[str] = set()
        self._phrases: set[str] = set()
        self._words: set[str] = set()
        self._sums = dict.fromkeys(
            (
                "clips",
                "captions",
                "phrases",
                "frames",
                "annotated_frames",
                "boxes",
                "tubes",
                "words",
                "slots",
                "present",
            ),
            0,
        )
        self._seconds = 0.0
        self._box_sides = np.zeros(2)

    def add(self, record: Mapping[str, Any]) -> None:
        """
        Adds a clip.

        Raises:
            `ValueError`: if it is no record (see [`from_record`]); nothing is added then.
        """
        clip = from_record(record)
        words = [word.casefold() for word in _WORD.findall(clip.caption)]
        presence = (
            np.stack([track.presence for track in clip.tracks]) if clip.tracks else np.zeros((0, clip.num_frames), bool)
        )
        spans = np.array([clip.spans.index(track.span) for track in clip.tracks], dtype=int)
        by_phrase = [presence[spans == index].any(axis=0).sum() for index in range(len(clip.spans))]
        begins = presence & ~np.pad(presence, ((0, 0), (1, 0)))[:, :-1]
        boxes = [track.boxes[track.presence].astype(np.float64) for track in clip.tracks]
        self._videos.add(clip.video_id)
        self._phrases.update(phrase.casefold() for phrase in clip.phrases)
        self._words.update(words)
        for name, number in (
            ("clips", 1),
            ("captions", bool(words)),
            ("phrases", len(clip.spans)),
            ("frames", clip.num_frames),
            ("annotated_frames", presence.any(axis=0).sum()),
            ("boxes", presence.sum()),
            ("tubes", begins.sum()),
            ("words", len(words)),
            ("slots", len(clip.spans) * clip.num_frames),
            ("present", sum(by_phrase)),
        ):
            self._sums[name] += int(number)
        self._seconds += (clip.clip_end_frame - clip.clip_start_frame + 1) / clip.fps
        for track in boxes:
            self._box_sides += (track[:, 2:] - track[:, :2]).sum(axis=0)

    def merge(self, other: Statistics) -> None:
        """Adds the clips of other statistics, of another split or process."""
        for mine, theirs in (
            (self._videos, other._videos),
            (self._phrases, other._phrases),
            (self._words, other._words),
        ):
            mine |= theirs
        for name, number in other._sums.items():
            self._sums[name] += number
        self._seconds += other._seconds
        self._box_sides += other._box_sides

    def state(self) -> dict[str, Any]:
        """Everything that is in memory, as JSON types, for [`Statistics.from_state`] of another process."""
        return {
            "videos": sorted(self._videos),
            "phrases": sorted(self._phrases),
            "words": sorted(self._words),
            "sums": self._sums,
            "seconds": self._seconds,
            "box_sides": self._box_sides.tolist(),
        }

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Statistics:
        """The statistics of which `state` is the [`Statistics.state`]."""
        statistics = cls()
        statistics._videos, statistics._phrases, statistics._words = (
            set(state[name]) for name in ("videos", "phrases", "words")
        )
        statistics._sums = {name: state["sums"][name] for name in statistics._sums}
        statistics._seconds = state["seconds"]
        statistics._box_sides = np.array(state["box_sides"])
        return statistics

    def as_dict(self) -> dict[str, float | None]:
        """
        The statistics, as JSON types; averages of nothing are `None`.

        - `videos`, `clips`, `captions` (clips whose caption has words), `noun_phrases`, `unique_noun_phrases` and
          `unique_terms` (words of the captions), these two without regard to case.
        - `frames`: sampled ones. `annotated_frames`: those with a box. `box_instances`: boxes.
        - `frames_per_clip`, `duration` (seconds), `instances_per_clip`, `phrases_per_clip`, `caption_length` (words).
        - `box_width`, `box_height`: means over boxes, in pixels.
        - `tube_length`: mean number of successive frames in which a phrase, or in raw records one of its instances, has a
          box (see the head of this module).
        - `presence_rate`: share of the frames of a phrase in which it has a box.
        """
        sums = self._sums

        def ratio(value: float, number: int) -> float | None:
            return float(value) / number if number else None

        return {
            "videos": len(self._videos),
            "clips": sums["clips"],
            "captions": sums["captions"],
            "noun_phrases": sums["phrases"],
            "unique_noun_phrases": len(self._phrases),
            "unique_terms": len(self._words),
            "frames": sums["frames"],
            "annotated_frames": sums["annotated_frames"],
            "box_instances": sums["boxes"],
            "frames_per_clip": ratio(sums["frames"], sums["clips"]),
            "duration": ratio(self._seconds, sums["clips"]),
            "instances_per_clip": ratio(sums["boxes"], sums["clips"]),
            "box_width": ratio(self._box_sides[0], sums["boxes"]),
            "box_height": ratio(self._box_sides[1], sums["boxes"]),
            "tube_length": ratio(sums["boxes"], sums["tubes"]),
            "caption_length": ratio(sums["words"], sums["captions"]),
            "phrases_per_clip": ratio(sums["phrases"], sums["clips"]),
            "presence_rate": ratio(sums["present"], sums["slots"]),
        }


def statistics_table(columns: Mapping[str, Mapping[str, float | None]]) -> str:
    """
    A table with one line a statistic and one column a data set.

    Args:
        columns (`Mapping[str, Mapping]`):
            Heading and statistics of each data set; what one does not have stays empty.
    """
    cells = _cells(columns)
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    rows = [
        "  ".join(
            [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        )
        for row in cells
    ]
    return "\n".join(row.rstrip() for row in rows)


def statistics_markdown(columns: Mapping[str, Mapping[str, float | None]]) -> str:
    """The same as a table of Markdown."""
    head, *rows = _cells(columns)
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cells(columns: Mapping[str, Mapping[str, float | None]]) -> list[list[str]]:
    """The lines of a table, the first of which has the headings."""
    cells = [["", *columns]]
    for name, (title, style) in _LINES.items():
        values = [column.get(name) for column in columns.values()]
        cells.append([title, *("-" if value is None else format(_rounded(value, style), style) for value in values)])
    return cells


def _rounded(value: float, style: str) -> float:
    return int(value) if style.endswith("d") else value


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "sources",
        nargs="+",
        metavar="SOURCE",
        help="JSONL or JSON file of records, shard, pattern of shards, or folder or hf:// repository of shards; each is a column",
    )
    parser.add_argument("--config", help="configuration, where a source has several")
    parser.add_argument("--split", help="split, where a source has several")
    parser.add_argument("--compare", action="store_true", help="show HowToGround1M and iGround as the paper gives them")
    parser.add_argument("--json", action="store_true", help="print one line of JSON")


def run(args: argparse.Namespace) -> int:
    total = Statistics()
    columns: dict[str, Mapping[str, float | None]] = {}
    for source in dict.fromkeys(args.sources):
        statistics = Statistics()
        records = (record for record, _ in iter_source(source, args.config, args.split))
        for number, record in enumerate(progress(records, f"counting {source}"), start=1):
            try:
                statistics.add(record)
            except ValueError as error:
                raise ValueError(f"{source}: record {number}: {error}; see `validate`") from None
        columns[source] = statistics.as_dict()
        total.merge(statistics)
    if len(columns) > 1:
        columns["together"] = total.as_dict()
    if args.compare:
        columns |= PAPER
    emit(columns, statistics_table(dict(zip(_headings(columns), columns.values(), strict=True))), as_json=args.json)
    return 0


def _headings(sources: Iterable[str]) -> list[str]:
    """The ends of paths and URLs, or all of them where the ends do not tell them apart."""
    names = [source.rstrip("/").rpartition("/")[2] for source in sources]
    return names if len(set(names)) == len(names) else list(sources)


__all__ = ["PAPER", "Statistics", "statistics_markdown", "statistics_table"]

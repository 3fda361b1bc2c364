"""The clips that a model is worst at, to look at: for each a picture with the annotation above the prediction, and a page of them.

Clips go by the score that is the mean over clips of their benchmark. Where that looks at boxes alone (all but iGround), a picture
shows the frames that are scored, and every box of the prediction, whatever its objectness says.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from dataset_builders.record import Record, from_record, record_key
from modeling_grove.grounded_caption import GroundedCaption, atomic_path
from modeling_grove.video_grove import VideoClip, VideoSource

from .clip_pictures import at_frames, write_picture
from .clips import PredictedClip, ReferenceClip, predicted_clips
from .per_clip import value_at
from .results import BENCHMARKS, PROTOCOLS
from .text_similarity import text_similarity
from .track_pairing import PairedPhrases, pair_phrases

# The score of a clip, by benchmark; the second is that of given sentences.
SCORES = {
    "iground": ("AP50",),
    "vidstg": ("msIoU",),
    "activitynet_entities": ("F1_all_per_sent", "grounding_accuracy"),
    "youcook_interactions": ("accuracy",),
    "grounding_youtube": ("accuracy",),
}
_ONE_PHRASE = ("vidstg", "youcook_interactions", "grounding_youtube")  # the sentence
# How columns are ordered; others follow, counts last.
_COLUMNS = ("AP50", "Recall", "mIoU", "METEOR", "CIDEr", "ROUGE_L", "Bleu_1", "Bleu_2", "Bleu_3", "Bleu_4")

_PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
:root {{ color-scheme: light dark; font: 16px/1.5 system-ui, sans-serif }}
body {{ margin: 0 auto; max-width: 90rem; padding: 1rem }}
section {{ border-top: 1px solid #8886; padding: 1rem 0 2rem }}
h2 {{ font-size: 1.1rem; margin: 0; overflow-wrap: anywhere }}
nav, .note {{ color: #888; font-size: .9rem }}
table {{ border-collapse: collapse; font-size: .9rem; margin: .6rem 0 }}
td, th {{ border-bottom: 1px solid #8884; padding: .15rem .8rem .15rem 0; text-align: left }}
td.number, th.number {{ font-variant-numeric: tabular-nums; text-align: right }}
img {{ background: #fff; display: block; margin: .8rem 0; max-width: 100% }}
</style>
<h1>{title}</h1>
<p class="note">{note}</p>
<nav>{contents}</nav>
{sections}
</html>
"""


@dataclass(frozen=True)
class _Entry:
    """A clip of the page."""

    rank: int
    key: str
    value: float
    picture: str
    row: Mapping[str, Any]
    paired: PairedPhrases
    predicted: bool
    note: str | None


def worst_keys(
    benchmark: str, per_clip: Sequence[Mapping[str, Any]], count: int, protocol: str
) -> list[tuple[str, float]]:
    """
    The clips with the lowest scores, the lowest first, equal ones in the order of their keys, those without a score last.

    Args:
        benchmark (`str`):
            One of `BENCHMARKS`.
        per_clip (`Sequence[Mapping]`):
            Rows of its [`BenchmarkResult`].
        count (`int`):
            How many, at most.
        protocol (`str`):
            "official" or "corrected", whichever the rows have.

    Returns:
        `list[tuple[str, float]]`: key and score, a fraction, NaN where there is none.

    Raises:
        `ValueError`: if the benchmark is none, the rows are not of this protocol, or `count` is negative.
    """
    if benchmark not in BENCHMARKS:
        raise ValueError(f"benchmark: got {benchmark!r}; expected one of {', '.join(BENCHMARKS)}")
    if not any(protocol in row for row in per_clip):
        raise ValueError(f"protocol: got {protocol!r}, which no clip was scored under; expected another of {PROTOCOLS}")
    if count < 0:
        raise ValueError(f"count: expected at least 0 clips, got {count}")
    name = _score_name(benchmark, per_clip, protocol)
    scores = {str(row["key"]): value_at(row, (protocol, name)) for row in per_clip}
    if benchmark == "iground":  # officially -1 says that nothing is annotated
        scores = {key: math.nan if value < 0 else value for key, value in scores.items()}
    known = sorted((value, key) for key, value in scores.items() if not math.isnan(value))
    unknown = sorted(key for key, value in scores.items() if math.isnan(value))
    return [*((key, value) for value, key in known), *((key, math.nan) for key in unknown)][:count]


def draw_worst(
    benchmark: str,
    references: Sequence[Record | GroundedCaption | ReferenceClip],
    predictions: Sequence[GroundedCaption | PredictedClip],
    per_clip: Sequence[Mapping[str, Any]],
    count: int,
    output: Path,
    videos: Callable[[str], VideoSource | VideoClip | None] | None = None,
    protocol: str = PROTOCOLS[-1],
) -> list[Path]:
    """
    Writes the worst clips as `01_{key}.png`, ..., and `index.html` with their scores. Pictures that were there before go.

    Args:
        benchmark (`str`):
            One of `BENCHMARKS`; it decides the score to go by, see [`worst_keys`].
        references (sequence of records, [`GroundedCaption`] or [`ReferenceClip`]):
            The annotations.
        predictions (sequence of [`GroundedCaption`] or [`PredictedClip`]):
            Of the same keys. A clip without a prediction is shown as such.
        per_clip (`Sequence[Mapping]`):
            Rows of the benchmark's result.
        count (`int`):
            How many clips, at most.
        output (`Path`):
            Folder, made if it does not exist.
        videos (`Callable[[str], VideoSource | VideoClip | None]`, *optional*):
            For a key, the source video, decoded frames of it, all annotated frames as `(T, H, W, 3)` uint8, or `None`. Without
            it, and where it does not decode, boxes are drawn on an empty canvas.
        protocol (`str`, *optional*, defaults to `"corrected"`):
            Whose scores to go by.

    Returns:
        `list[Path]`: the pictures, the worst clip first, then the page.

    Raises:
        `ValueError`: as [`worst_keys`], or if a chosen clip is not among the references.
    """
    chosen = worst_keys(benchmark, per_clip, count, protocol)
    rows = {str(row["key"]): row for row in per_clip}
    annotations = {_key(reference): reference for reference in references}
    if unknown := [key for key, _ in chosen if key not in annotations]:
        raise ValueError(f"clip {unknown[0]!r}: has scores but no annotation; expected those of these references")
    truth = {key: _annotated(benchmark, annotations[key], rows[key].get(protocol, {})) for key, _ in chosen}
    answers = _predicted(benchmark, predictions, truth)
    paired = pair_phrases(truth, answers, _same if benchmark in _ONE_PHRASE else text_similarity("head-word"))
    output.mkdir(parents=True, exist_ok=True)
    name = f"{protocol} {_score_name(benchmark, per_clip, protocol)}"
    entries = []
    for rank, ((key, value), pairs) in enumerate(zip(chosen, paired, strict=True), start=1):
        picture = output / f"{rank:02d}_{re.sub(r'[^A-Za-z0-9_-]', '_', key)[:80]}.png"
        prediction = answers.get(key)
        shown = key.encode("ascii", "replace").decode()  # the built-in font has little more
        source = None if videos is None else videos(key)
        note = write_picture(
            truth[key], prediction, pairs, (f"{rank}. {shown}", f"{name} {_score(value)}"), source, picture
        )
        entries.append(_Entry(rank, key, value, picture.name, rows[key], pairs, prediction is not None, note))
    page = output / "index.html"
    with atomic_path(page) as temporary:
        temporary.write_text(_page(name, entries, len(rows), benchmark), encoding="utf-8")
    written = [*(output / entry.picture for entry in entries), page]
    for path in output.iterdir():
        if re.fullmatch(r"\d{2,}_[A-Za-z0-9_-]*\.png", path.name) and path not in written:
            path.unlink()
    return written


def _score_name(benchmark: str, per_clip: Sequence[Mapping[str, Any]], protocol: str) -> str:
    """The score to go by: the first that a clip has."""
    names = SCORES[benchmark]
    return next((name for name in names if any(name in row.get(protocol, {}) for row in per_clip)), names[0])


def _key(reference: Record | GroundedCaption | ReferenceClip) -> str:
    return reference.key if isinstance(reference, GroundedCaption | ReferenceClip) else record_key(reference)


def _annotated(
    benchmark: str, reference: Record | GroundedCaption | ReferenceClip, row: Mapping[str, Any]
) -> ReferenceClip:
    """The annotation as it is drawn: for all but iGround, in the frames that are scored, if there are any."""
    if isinstance(reference, ReferenceClip):
        return reference
    caption = reference if isinstance(reference, GroundedCaption) else from_record(reference)
    if benchmark != "iground":
        scored = np.any([track.presence for track in caption.tracks], axis=0)
        scored = np.broadcast_to(scored, caption.num_frames)
        if "frame_indices" in row:
            scored = scored & np.isin(caption.frame_indices, row["frame_indices"])
        if scored.any():
            caption = at_frames(caption, scored)
    return ReferenceClip.from_caption(caption)


def _predicted(
    benchmark: str, predictions: Sequence[GroundedCaption | PredictedClip], truth: Mapping[str, ReferenceClip]
) -> dict[str, PredictedClip]:
    """The predictions of the clips that are drawn, on their frames; one without a common frame is none."""
    answers = []
    for answer in predictions:
        if answer.key not in truth:
            continue
        if isinstance(answer, GroundedCaption):
            annotated = truth[answer.key].source
            if annotated is not None and not np.isin(answer.frame_indices, annotated.frame_indices).any():
                continue
            if benchmark != "iground":
                present = (replace(t, presence=np.isfinite(t.boxes).all(axis=1)) for t in answer.tracks)
                answer = replace(answer, tracks=tuple(present))
        answers.append(answer)
    return predicted_clips(answers, dict(truth)) if answers else {}


def _same(first: Sequence[str], second: Sequence[str]) -> np.ndarray:
    """Two phrases of clips that have one, the sentence: partners, however they are written."""
    return np.ones((len(first), len(second)))


def _page(name: str, entries: Sequence[_Entry], total: int, benchmark: str) -> str:
    """The page; everything that comes from data is escaped."""
    links = " &middot; ".join(
        f'<a href="#clip-{e.rank}">{e.rank}. {escape(e.key)} {_score(e.value)}</a>' for e in entries
    )
    sections = []
    for entry in entries:
        lines = [f'<section id="clip-{entry.rank}">', f"<h2>{entry.rank}. {escape(entry.key)}</h2>", _scores(entry.row)]
        if not entry.predicted:
            lines.append('<p class="note">This clip has no prediction.</p>')
        if entry.note is not None:
            lines.append(f'<p class="note">{escape(entry.note)}</p>')
        picture = escape(entry.picture)
        lines += [f'<a href="{picture}"><img src="{picture}" alt="annotation and prediction" loading="lazy"></a>']
        lines += ["</section>"] if benchmark in _ONE_PHRASE else [_pairs(entry.paired), "</section>"]
        sections.append("\n".join(lines))
    colors = "a phrase and its predicted partner have one colour, and an annotated phrase without one is in parentheses"
    if benchmark in _ONE_PHRASE:
        colors = "the sentence and its answer have one colour"
    else:
        colors += ". Partners have the same last word; where several have, those that overlap best"
    shown = "" if benchmark == "iground" else " The frames are those that are scored."
    note = (
        f"{len(entries)} of {total} clips, those with the lowest {name} first. Annotation above, prediction below; {colors}."
        f"{shown} Scores are times 100, as in the table of results; numbers without a point are counts."
    )
    return _PAGE.format(
        title=escape(f"Worst clips by {name}"), note=escape(note), contents=links, sections="\n".join(sections)
    )


def _scores(row: Mapping[str, Any]) -> str:
    """The scores of a clip by protocol, and then its counts."""
    groups = {
        protocol: {
            name: value
            for name, value in {**row.get(protocol, {}), **row.get("captions", {}).get(protocol, {})}.items()
            if isinstance(value, int | float) and not isinstance(value, bool) and not math.isnan(value)
        }
        for protocol in PROTOCOLS
    }
    found = dict.fromkeys(name for scores in groups.values() for name in scores)
    counts = [name for name in found if all(isinstance(scores.get(name, 0), int) for scores in groups.values())]
    first = [name for name in _COLUMNS if name in found]
    names = [*first, *(name for name in found if name not in (*first, *counts)), *counts]
    head = "".join(f'<th class="number">{escape(name)}</th>' for name in names)
    body = ""
    for protocol, scores in groups.items():
        if scores:
            cells = "".join(f'<td class="number">{_number(scores.get(name))}</td>' for name in names)
            body += f"<tr><td>{protocol}</td>{cells}</tr>"
    return f"<table><tr><th></th>{head}</tr>{body}</table>"


def _number(value: float | None) -> str:
    return "" if value is None else _score(value) if isinstance(value, float) else str(value)


def _score(value: float) -> str:
    """A score times 100, as the table has it."""
    return "-" if math.isnan(value) else f"{100 * value:.2f}"


def _pairs(clip: PairedPhrases) -> str:
    """Which predicted phrase stands for which annotated one."""
    rows = []
    for p, q in clip.pairs.tolist():
        numbers = (
            f'<td class="number">{clip.tube_ious[p, q]:.2f}</td><td class="number">{clip.similarities[p, q]:.2f}</td>'
        )
        rows.append(
            f"<tr><td>{escape(clip.truth.phrases[p])}</td><td>{escape(clip.predicted.phrases[q])}</td>{numbers}</tr>"
        )
    paired = clip.pairs.T.tolist()
    empty = '<td class="number"></td><td class="number"></td>'
    rows += [
        f"<tr><td>{escape(text)}</td><td>-</td>{empty}</tr>"
        for n, text in enumerate(clip.truth.phrases)
        if n not in paired[0]
    ]
    rows += [
        f"<tr><td>-</td><td>{escape(text)}</td>{empty}</tr>"
        for n, text in enumerate(clip.predicted.phrases)
        if n not in paired[1]
    ]
    numbers = '<th class="number">tube IoU</th><th class="number">similarity</th>'
    return f"<table><tr><th>annotated</th><th>predicted</th>{numbers}</tr>{''.join(rows)}</table>"


__all__ = ["SCORES", "draw_worst", "worst_keys"]

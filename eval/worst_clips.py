"""The clips that a model is worst at, to look at: for each a picture with the annotation above the prediction, and a page of them.

A phrase and its predicted partner (see `track_pairing`) have one colour and one row of presence in both halves.
"""

from __future__ import annotations

import logging
import math
import re
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from modeling_grove.grounded_caption import GroundedCaption, PhraseTrack, atomic_path
from modeling_grove.text_grove import Span, locate_phrases
from modeling_grove.video_grove import VideoSource

from .clips import PredictedClip, ReferenceClip
from .per_clip import worst
from .results import PROTOCOLS
from .text_similarity import text_similarity
from .track_pairing import PairedClip, Similarity, pair_phrases, phrase_name

logger = logging.getLogger(__name__)

NUM_FRAMES = 5  # shown of a clip
_CANVAS = (232, 234, 238)  # where there is no picture
_LONGEST_SIDE = 960  # of the frame that is drawn on where there is none
_MARGIN, _LETTERS, _SMALLEST = 10, 22, 9
_INK, _MUTED, _RULE = (24, 26, 30), (120, 126, 136), (205, 209, 216)

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
    paired: PairedClip
    predicted: bool
    note: str | None


class _Numbered(GroundedCaption):
    """
    A predicted caption whose phrases have the numbers of the annotated ones that they are paired with: numbers give the colours
    and rows of pictures. An annotated phrase without a partner has an empty span at the end of the caption, and its name in
    parentheses.
    """

    numbered: Sequence[tuple[Span, str]] | None = None

    @property
    def spans(self) -> list[Span]:
        """The spans by number, once they are numbered."""
        return super().spans if self.numbered is None else [span for span, _ in self.numbered]

    @property
    def phrases(self) -> list[str]:
        """The phrases by number, once they are numbered."""
        return super().phrases if self.numbered is None else [phrase for _, phrase in self.numbered]


def write_worst(
    references: Mapping[str, ReferenceClip],
    predictions: Mapping[str, PredictedClip],
    per_clip: Sequence[Mapping[str, Any]],
    path: Sequence[str],
    count: int,
    output: Path,
    videos: Callable[[str], VideoSource | None] | None = None,
    similarity: Similarity | None = None,
) -> list[Path]:
    """
    Writes the worst clips as `01_{key}.png`, ..., and `index.html` with their scores.

    Args:
        references (`Mapping[str, ReferenceClip]`), predictions (`Mapping[str, PredictedClip]`):
            By key. A clip without a prediction is shown as such.
        per_clip (`Sequence[Mapping]`):
            Rows of the benchmark's result.
        path (`Sequence[str]`):
            The score to go by, `("corrected", "AP50")`; lower is worse.
        count (`int`):
            How many clips, at most.
        output (`Path`):
            Folder, made if it does not exist.
        videos (`Callable[[str], VideoSource | None]`, *optional*):
            For a key, the source video, or the annotated frames as `(T, H, W, 3)` uint8, or `None`. Without it, and where it does
            not decode, boxes are drawn on an empty canvas.
        similarity ([`TextSimilarity`], *optional*):
            Pairs the phrases of a clip for their colours; by default the head-word rule.

    Returns:
        `list[Path]`: the pictures, the worst clip first, then the page.

    Raises:
        `ValueError`: if no clip has such a score, or one of `per_clip` is not among the references.
    """
    chosen = worst(per_clip, path, count)
    rows = {str(row["key"]): row for row in per_clip}
    if unknown := [key for key, _ in chosen if key not in references]:
        raise ValueError(f"clip {unknown[0]!r}: has scores but no annotation; expected those of these references")
    paired = pair_phrases(
        {key: references[key] for key, _ in chosen}, predictions, similarity or text_similarity("head-word")
    )
    output.mkdir(parents=True, exist_ok=True)
    name = " ".join(path)
    entries = []
    for rank, ((key, value), pairs) in enumerate(zip(chosen, paired, strict=True), start=1):
        picture = output / f"{rank:02d}_{re.sub(r'[^A-Za-z0-9_-]', '_', key)[:80]}.png"
        prediction = predictions.get(key)
        shown = key.encode("ascii", "replace").decode()  # the built-in font has little more
        heading = f"{rank}. {shown}", f"{name} {value:.3f}"
        source = None if videos is None else videos(key)
        note = _write_picture(references[key], prediction, pairs, heading, source, picture)
        entries.append(_Entry(rank, key, value, picture.name, rows[key], pairs, prediction is not None, note))
    page = output / "index.html"
    with atomic_path(page) as temporary:
        temporary.write_text(_page(name, entries, len(rows)), encoding="utf-8")
    return [*(output / entry.picture for entry in entries), page]


def _write_picture(
    reference: ReferenceClip,
    prediction: PredictedClip | None,
    paired: PairedClip,
    heading: tuple[str, str],
    source: VideoSource | None,
    path: Path,
) -> str | None:
    """Writes the picture of a clip; returns what a reader has to know of it, if anything."""
    truth = _caption(reference, reference)
    halves = [("annotation", truth)]
    if prediction is not None:
        halves.append(("prediction", _numbered(_caption(prediction, reference), truth, paired)))
    sheets, note = None, None
    if reference.source is None and source is not None and not isinstance(source, np.ndarray):
        source, note = None, "No video: the annotation does not say which frames of it were annotated."
    if source is not None:
        try:
            sheets = [_sheet(caption, source) for _, caption in halves]
        except (ValueError, OSError) as error:
            note = " ".join(f"No video: {error}".split())
            logger.warning("clip %r: %s", reference.key, note)
    if sheets is None:
        note = note or "No video: the boxes are drawn on an empty canvas."
        sheets = [_sheet(*_on_canvas(caption)) for _, caption in halves]
    parts = [_line(heading, sheets[0].width, _LETTERS + 4)]
    for (title, caption), sheet in zip(halves, sheets, strict=True):
        empty = not any(track.presence.any() for track in caption.tracks)
        parts += [_line((title, "no box in any frame" if empty else ""), sheet.width, _LETTERS), sheet]
    if prediction is None:
        parts.append(_line(("no prediction", ""), sheets[0].width, _LETTERS))
    picture = Image.new("RGB", (max(part.width for part in parts), sum(part.height for part in parts)), "white")
    top = 0
    for part in parts:
        picture.paste(part, (0, top))
        top += part.height
    with atomic_path(path) as temporary:
        picture.save(temporary)
    return note


def _sheet(caption: GroundedCaption, source: VideoSource) -> Image.Image:
    """A contact sheet in one row; probabilities are shown where there are some."""
    scores = any(bool((track.objectness[track.presence] != 1).any()) for track in caption.tracks)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "sheet.png"
        caption.contact_sheet(source, path, num_frames=NUM_FRAMES, columns=NUM_FRAMES, show_objectness=scores)
        with Image.open(path) as image:
            return image.convert("RGB")


def _line(texts: tuple[str, str], width: int, size: int) -> Image.Image:
    """A line with text at its left and right ends, below a rule; letters get smaller for what is too long."""
    image = Image.new("RGB", (width, round(1.7 * size)), "white")
    draw, font = ImageDraw.Draw(image), ImageFont.load_default(size=size)
    while size > _SMALLEST and sum(draw.textlength(text, font=font) for text in texts) > width - 4 * _MARGIN:
        size -= 1
        font = ImageFont.load_default(size=size)
    draw.line((0, 0, width, 0), fill=_RULE, width=2)
    for text, x, anchor, ink in zip(texts, (_MARGIN, width - _MARGIN), ("lm", "rm"), (_INK, _MUTED), strict=True):
        draw.text((x, image.height // 2), text, font=font, fill=ink, anchor=anchor)
    return image


def _on_canvas(caption: GroundedCaption) -> tuple[GroundedCaption, np.ndarray]:
    """The caption, its frame no larger than is shown, and empty pictures for it."""
    scale = min(1.0, _LONGEST_SIDE / max(caption.width, caption.height))
    width, height = (max(1, round(side * scale)) for side in (caption.width, caption.height))
    factors = np.array([width / caption.width, height / caption.height] * 2)
    tracks = tuple(replace(track, boxes=track.boxes * factors) for track in caption.tracks)
    scaled = replace(caption, width=width, height=height, tracks=tracks)
    if isinstance(caption, _Numbered):
        object.__setattr__(scaled, "numbered", caption.numbered)
    shape = (caption.num_frames, height, width, 3)
    return scaled, np.broadcast_to(np.array(_CANVAS, dtype=np.uint8), shape)  # one pixel in memory


def _numbered(caption: GroundedCaption, truth: GroundedCaption, paired: PairedClip) -> GroundedCaption:
    """The prediction with the numbers of the annotation's phrases; those without a partner come after them."""
    partner = {
        phrase_name(paired.truth.phrases[row]): phrase_name(paired.predicted.phrases[column])
        for row, column in paired.pairs.tolist()
    }
    waiting: dict[str, list[tuple[Span, str]]] = {}
    for span, phrase in zip(caption.spans, caption.phrases, strict=True):
        waiting.setdefault(phrase_name(phrase), []).append((span, phrase))
    nowhere = (len(caption.caption), len(caption.caption))
    numbered = []
    for phrase in truth.phrases:
        mentions = waiting.get(partner.get(phrase_name(phrase), ""), [])
        numbered.append(mentions.pop(0) if mentions else (nowhere, f"({phrase})"))
    numbered += sorted(mention for mentions in waiting.values() for mention in mentions)
    copy = _Numbered(**{name: getattr(caption, name) for name in caption.__dataclass_fields__})
    object.__setattr__(copy, "numbered", numbered)
    return copy


def _caption(clip: ReferenceClip | PredictedClip, reference: ReferenceClip) -> GroundedCaption:
    """The clip on the annotated frames, as something that can be drawn."""
    if clip.source is None:
        return _from_boxes(clip, reference)
    annotated = _frames_of(reference)
    count = annotated.num_frames
    if reference.source is None:
        at = frames = np.arange(min(count, clip.source.num_frames))
    else:
        _, at, frames = np.intersect1d(annotated.frame_indices, clip.source.frame_indices, return_indices=True)
    tracks = []
    for track in clip.source.tracks:
        boxes = np.full((count, 4), np.nan, dtype=np.float32)
        presence, objectness = np.zeros(count, dtype=bool), np.zeros(count, dtype=np.float32)
        boxes[at], presence[at], objectness[at] = track.boxes[frames], track.presence[frames], track.objectness[frames]
        tracks.append(replace(track, boxes=boxes, presence=presence, objectness=objectness))
    return replace(annotated, caption=clip.source.caption, tracks=tuple(tracks))


def _frames_of(reference: ReferenceClip) -> GroundedCaption:
    """The annotated frames without a caption; those of the original's files, at about the five a second that they have."""
    if reference.source is not None:
        return replace(reference.source, caption="", tracks=())
    count, width, height = reference.num_frames, reference.width, reference.height
    indices = np.arange(count)
    return GroundedCaption(
        "", (), reference.key, 0, reference.key, 5.0, width, height, 0, count - 1, indices, indices / 5
    )


def _from_boxes(clip: ReferenceClip | PredictedClip, reference: ReferenceClip) -> GroundedCaption:
    """
    A clip of the original's files, which link no boxes between frames: the i-th box of a label is its i-th track. A label that
    the caption does not have is added at the end of it, in brackets.
    """
    text, labels, count = clip.caption, dict[str, str](), reference.num_frames
    tracks: dict[tuple[str, int], tuple[np.ndarray, np.ndarray]] = {}
    for n, (boxes, names) in enumerate(zip(clip.boxes[:count], clip.labels[:count], strict=False)):
        seen: dict[str, int] = {}
        scores = clip.scores if isinstance(clip, PredictedClip) else None
        for i, (box, label) in enumerate(zip(() if boxes is None else boxes, names, strict=False)):
            if not isinstance(label, str) or not label.strip() or not np.isfinite(box).all():
                continue
            name = phrase_name(label)
            labels.setdefault(name, label.strip())
            number = seen[name] = seen.get(name, -1) + 1
            rows, objectness = tracks.setdefault((name, number), (np.full((count, 4), np.nan), np.zeros(count)))
            rows[n], objectness[n] = box, 1.0 if scores is None else scores[n][i]
    found: dict[str, Span] = {}
    missing = []
    for name in sorted(labels, key=len, reverse=True):
        try:
            spans = locate_phrases(text, "", [*(labels[other] for other in found), labels[name]])
        except ValueError:
            missing.append(name)
        else:
            found = dict(zip([*found, name], spans, strict=True))
    for name in missing:
        start = len(text) + len(" [")
        text += f" [{labels[name]}]"
        found[name] = (start, start + len(labels[name]))
    made = tuple(
        PhraseTrack(labels[name], found[name], rows, np.isfinite(rows[:, 0]), objectness)
        for (name, _), (rows, objectness) in tracks.items()
    )
    return replace(_frames_of(reference), caption=text, tracks=made)


def _page(name: str, entries: Sequence[_Entry], total: int) -> str:
    """The page; everything that comes from data is escaped."""
    links = " &middot; ".join(f'<a href="#clip-{e.rank}">{e.rank}. {escape(e.key)} {e.value:.3f}</a>' for e in entries)
    sections = []
    for entry in entries:
        lines = [f'<section id="clip-{entry.rank}">', f"<h2>{entry.rank}. {escape(entry.key)}</h2>", _scores(entry.row)]
        if not entry.predicted:
            lines.append('<p class="note">This clip has no prediction.</p>')
        if entry.note is not None:
            lines.append(f'<p class="note">{escape(entry.note)}</p>')
        picture = escape(entry.picture)
        lines += [f'<a href="{picture}"><img src="{picture}" alt="annotation and prediction" loading="lazy"></a>']
        lines += [_pairs(entry.paired), "</section>"]
        sections.append("\n".join(lines))
    note = (
        f"{len(entries)} of {total} clips with the lowest {name}. Annotation above, prediction below; a phrase and its predicted "
        "partner have one colour, and an annotated phrase without one is in parentheses."
    )
    return _PAGE.format(
        title=escape(f"Worst clips by {name}"), note=escape(note), contents=links, sections="\n".join(sections)
    )


def _scores(row: Mapping[str, Any]) -> str:
    """The scores of a clip by protocol."""
    groups = {
        protocol: {
            name: text
            for name, value in {**row.get(protocol, {}), **row.get("captions", {}).get(protocol, {})}.items()
            if (text := _number(value))
        }
        for protocol in PROTOCOLS
    }
    names = dict.fromkeys(name for scores in groups.values() for name in scores)
    head = "".join(f'<th class="number">{escape(name)}</th>' for name in names)
    body = ""
    for protocol, scores in groups.items():
        if scores:
            cells = "".join(f'<td class="number">{scores.get(name, "")}</td>' for name in names)
            body += f"<tr><td>{protocol}</td>{cells}</tr>"
    return f"<table><tr><th></th>{head}</tr>{body}</table>"


def _number(value: Any) -> str:
    """A score with three decimals, a count without; nothing for anything else."""
    if isinstance(value, float):
        return "" if math.isnan(value) else f"{value:.3f}"
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else ""


def _pairs(clip: PairedClip) -> str:
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


__all__ = ["NUM_FRAMES", "write_worst"]

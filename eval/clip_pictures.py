"""The picture of a clip: its annotation above a prediction of it, in the same colours.

A phrase and its predicted partner (see `track_pairing`) have one colour and one row of presence in both halves.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from modeling_grove.grounded_caption import GroundedCaption, PhraseTrack, atomic_path
from modeling_grove.text_grove import Span, locate_phrases
from modeling_grove.video_grove import VideoClip, VideoSource

from .clips import PredictedClip, ReferenceClip
from .track_pairing import PairedPhrases, phrase_name

logger = logging.getLogger(__name__)

NUM_FRAMES = 5  # shown of a clip
_CANVAS = (232, 234, 238)  # where there is no picture
_LONGEST_SIDE = 960  # of the frame that is drawn on where there is none
_MARGIN, _LETTERS, _SMALLEST = 10, 22, 9
_INK, _MUTED, _RULE = (24, 26, 30), (120, 126, 136), (205, 209, 216)


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


def write_picture(
    reference: ReferenceClip,
    prediction: PredictedClip | None,
    paired: PairedPhrases,
    heading: tuple[str, str],
    source: VideoSource | VideoClip | None,
    path: Path,
) -> str | None:
    """
    Writes the picture of a clip.

    Args:
        reference ([`ReferenceClip`]), prediction ([`PredictedClip`], *optional*):
            The clip. A prediction on other frames is shown on the annotated ones.
        paired ([`PairedPhrases`]):
            Which of their phrases are partners.
        heading (`tuple[str, str]`):
            What stands at the left and right ends of the first line.
        source (`VideoSource` or [`VideoClip`], *optional*):
            The source video; or decoded frames of it, which are then those that are shown; or all annotated frames as
            `(T, H, W, 3)` uint8. Without it, and where it does not decode, boxes are drawn on an empty canvas.
        path (`Path`):
            The PNG to write.

    Returns:
        `str` or `None`: what a reader has to know of the picture, if anything.
    """
    note = None
    if isinstance(source, VideoClip):
        reference, source = _on_decoded(reference, source)
    elif reference.source is None and source is not None and not isinstance(source, np.ndarray):
        source, note = None, "No video: the annotation does not say which frames of it were annotated."
    truth = _caption(reference, reference)
    halves = [("annotation", truth)]
    if prediction is not None:
        halves.append(("prediction", _numbered(_caption(prediction, reference), truth, paired)))
    sheets = None
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


def at_frames(caption: GroundedCaption, kept: np.ndarray) -> GroundedCaption:
    """The caption on some of its frames, and in no more time than they take: `kept` is `(T,)` bool, one at least true."""
    indices = caption.frame_indices[kept]
    tracks = tuple(
        replace(t, boxes=t.boxes[kept], presence=t.presence[kept], objectness=t.objectness[kept])
        for t in caption.tracks
    )
    return replace(
        caption,
        clip_start_frame=int(indices[0]),
        clip_end_frame=int(indices[-1]),
        frame_indices=indices,
        timestamps=caption.timestamps[kept],
        tracks=tracks,
    )


def _on_decoded(reference: ReferenceClip, clip: VideoClip) -> tuple[ReferenceClip, np.ndarray | None]:
    """The annotation of the decoded frames, and these; as it was and `None` if no frame is both annotated and decoded."""
    annotated = reference.source
    if annotated is None:
        return reference, None
    frames, _, places = np.intersect1d(annotated.frame_indices, clip.frame_indices, return_indices=True)
    if not len(frames):
        return reference, None
    kept = at_frames(annotated, np.isin(annotated.frame_indices, frames))
    return ReferenceClip.from_caption(kept), clip.frames[places]


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


def _numbered(caption: GroundedCaption, truth: GroundedCaption, paired: PairedPhrases) -> GroundedCaption:
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


__all__ = ["NUM_FRAMES", "at_frames", "write_picture"]

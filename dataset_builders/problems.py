"""The names of what can be wrong with a record, and what each of them means.

Errors are what would stop, mislead or silently change something later: loading, training, a shard, a score. Warnings are
what a data set may well contain and its makers should know of.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

# Reason: what it means. The names are stable; reports are counted by them.
ERRORS = {
    "unreadable": "a line of a file is no JSON, or a sample of a shard is damaged",
    "not_an_object": "the record is not a JSON object",
    "missing_field": "a field of the original release is missing",
    "wrong_type": "a field is of another type than its column",
    "not_finite": "a number is NaN or infinite",
    "out_of_range": "a number is outside what it can mean or what its column holds",
    "bad_text": "a text has half a character (a lone surrogate), which UTF-8 cannot hold",
    "bad_key": "the key cannot name files of a shard",
    "duplicate_key": "an earlier record has the same key",
    "bad_video_fname": "the video's name is empty or leaves the folder of videos",
    "clip_range": "the clip ends before it starts, or starts before the video",
    "empty_caption": "the caption is empty",
    "marker_in_caption": "the plain caption holds a token of the model",
    "bad_tags": "a tag of the tagged caption is unclosed, unopened or empty",
    "overlapping_phrases": "a phrase is tagged inside another",
    "tagged_caption_differs": "the tagged caption without its tags is another text than the caption",
    "empty_phrase": "a phrase is empty",
    "phrase_not_in_caption": "a phrase is not in the caption",
    "phrase_not_tagged": "a phrase is listed more often than it is tagged",
    "label_not_a_phrase": "the label of a box is none of the phrases",
    "length_mismatch": "fields that go together have different lengths",
    "no_frames": "the clip has no annotated frame",
    "frame_count": "without frame_indices, the frames are not those of the clip's range",
    "frame_order": "frame indices or timestamps do not increase",
    "frame_outside_clip": "a frame index is outside the clip",
    "box_not_finite": "a box is NaN, infinite or beyond float32",
    "box_without_area": "a box has no positive width and height",
    "box_outside": "a box is more than a pixel outside the frame",
    "track_mismatch": "track fields do not fit one another, the phrases or the labels",
    "not_processed": "a phrase has several boxes in a frame, where the processed form is asked for",
    "bad_metadata": "metadata is not a JSON object in a string",
    "not_loadable": "the record cannot be read as a grounded caption",
}
WARNINGS = {
    "unknown_field": "a field that no column holds; what a data set has beyond the columns goes into metadata",
    "no_boxes": "the clip has no box at all",
    "phrase_without_box": "a phrase has no box in any frame",
    "tag_without_phrase": "a phrase is tagged but not listed",
    "tagged_caption_inexact": "the captions differ by case, white space or the quotes around them",
    "caption_without_words": "the caption is punctuation only, which caption metrics read as empty",
    "line_break": "the caption holds a line separator, after which caption metrics score captions against other clips",
    "one_frame_less": "one frame less is annotated than the clip's range gives; the original's loader drops it as well",
    "box_over_border": "a box is up to a pixel outside the frame",
    "duplicate_box": "a label has the same box twice in a frame",
    "scores_without_tracks": "scores are lost on reading, since no track_ids say whose they are",
}


@dataclass(frozen=True)
class Problem:
    """
    One thing that is wrong with a record.

    Attributes:
        reason (`str`): one of `ERRORS` or `WARNINGS`.
        message (`str`): one line that names the field.
        is_error (`bool`): whether the record should not be used.
    """

    reason: str
    message: str
    is_error: bool


def is_valid(problems: Iterable[Problem]) -> bool:
    """Whether none of the problems is an error."""
    return not any(problem.is_error for problem in problems)


def make_problem(reason: str, message: str) -> Problem:
    """A problem of a known reason, which says whether it is an error."""
    return Problem(reason, " ".join(message.split()), reason in ERRORS)


__all__ = ["ERRORS", "WARNINGS", "Problem", "is_valid", "make_problem"]

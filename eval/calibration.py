"""Whether objectness is a probability: of the frames in which the model gives a phrase 0.8, it should be there in four of five.

Expected calibration error (ECE, Naeini et al. 2015) and Brier score, over every frame of every predicted phrase.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from modeling_grove.grounded_caption import GroundedCaption

from .clips import PredictedClip, ReferenceClip
from .track_pairing import phrase_name

NUM_BINS = 10


def calibration(confidence: np.ndarray, event: np.ndarray, num_bins: int = NUM_BINS) -> dict[str, Any]:
    """
    How well probabilities agree with what happens.

    Args:
        confidence (`np.ndarray`): `(N,)` probabilities in [0, 1].
        event (`np.ndarray`): `(N,)` bool, whether it happened.
        num_bins (`int`, *optional*, defaults to 10): Bins of equal width; the last one includes 1.

    Returns:
        `dict`: `ECE`, the mean over N of the distance of mean confidence and frequency in a bin; `Brier`, the mean square of
        confidence minus event; `count`, N; `bins`, those with something in them, each with its borders `low` and `high`, mean
        `confidence`, `frequency` of the event and `count`. NaN for both scores if N is 0.

    Raises:
        `ValueError`: if lengths differ, or a confidence is not in [0, 1].
    """
    confidence, event = np.asarray(confidence, dtype=np.float64), np.asarray(event, dtype=bool)
    if confidence.shape != event.shape or confidence.ndim != 1:
        raise ValueError(f"confidence: expected one for each of {event.shape} events, got {confidence.shape}")
    if not ((confidence >= 0) & (confidence <= 1)).all():
        raise ValueError(f"confidence: expected values in [0, 1], got {confidence.min()}..{confidence.max()}")
    places = np.minimum((confidence * num_bins).astype(np.int64), num_bins - 1)
    counts = np.bincount(places, minlength=num_bins)
    confidences = np.bincount(places, weights=confidence, minlength=num_bins)
    events = np.bincount(places, weights=event.astype(np.float64), minlength=num_bins)
    total = len(confidence)
    bins = [
        {
            "low": n / num_bins,
            "high": (n + 1) / num_bins,
            "confidence": float(confidences[n] / counts[n]),
            "frequency": float(events[n] / counts[n]),
            "count": int(counts[n]),
        }
        for n in np.flatnonzero(counts).tolist()
    ]
    return {
        "ECE": float(np.abs(confidences - events).sum() / total) if total else float("nan"),
        "Brier": float(((confidence - event) ** 2).mean()) if total else float("nan"),
        "count": total,
        "bins": bins,
    }


def phrase_objectness(
    reference: ReferenceClip, prediction: PredictedClip, phrases: tuple[str, ...]
) -> np.ndarray | None:
    """
    The objectness of predicted phrases on the annotated frames, that of frames without presence too.

    Args:
        reference ([`ReferenceClip`]): Says which frames are annotated.
        prediction ([`PredictedClip`]): What the model said.
        phrases (`tuple[str, ...]`): Q names; tracks of one name give the highest of theirs.

    Returns:
        `np.ndarray` or `None`: `(Q, T)` float64, NaN in frames that the prediction does not have. `None` if it has no
        probabilities of all frames: a file of the original, an annotation, or a record, which keeps those of present frames only.
    """
    source = prediction.source
    if source is None or not has_probabilities(source):
        return None
    places = {phrase_name(phrase): n for n, phrase in enumerate(phrases)}
    objectness = np.full((len(phrases), reference.num_frames), np.nan)
    annotated = reference.source
    if annotated is None:
        frames = np.arange(min(reference.num_frames, source.num_frames))
        at = frames
    else:
        _, frames, at = np.intersect1d(
            annotated.frame_indices, source.frame_indices, assume_unique=True, return_indices=True
        )
    for track in source.tracks:
        row = objectness[places[phrase_name(track.phrase)]]
        row[frames] = np.fmax(row[frames], track.objectness[at])
    return objectness


def has_probabilities(caption: GroundedCaption) -> bool:
    """Whether a prediction has the objectness of every frame, and it is not just 0 and 1 as an annotation has it."""
    certain = True
    for track in caption.tracks:
        # A record keeps neither box nor probability of an absent frame; a model's probabilities are never exactly 0.
        if (np.isnan(track.boxes[:, 0]) & (track.objectness == 0)).any():
            return False
        certain = certain and bool(np.isin(track.objectness, (0, 1)).all())
    return not certain


__all__ = ["NUM_BINS", "calibration", "has_probabilities", "phrase_objectness"]

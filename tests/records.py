"""Records and videos for tests: small, true, and different from one another."""

from pathlib import Path
from typing import Any

import numpy as np

from dataset_builders.record import to_record
from modeling_grove.grounded_caption import GroundedCaption, PhraseTrack
from modeling_grove.text_grove import read_tagged_caption
from modeling_grove.video_grove import sampled_frame_indices
from tests.synthetic_clips import encode

WIDTH, HEIGHT, FPS = 64, 48, 25.0


def make_caption(
    video_id: str = "video",
    clip_id: int = 0,
    *,
    seed: int = 0,
    start_frame: int = 0,
    end_frame: int = 49,
    tagged_caption: str = "<p>A man</p> cuts <p>two onions</p> with <p>a knife</p>.",
    instances: int = 1,
) -> GroundedCaption:
    """
    A caption whose phrases have random boxes and presence; with `instances` > 1 the second phrase has as many tracks (the
    raw form). The first frame always has every phrase.
    """
    rng = np.random.default_rng([seed, clip_id])
    caption, phrases = read_tagged_caption(tagged_caption)
    indices = np.array(sampled_frame_indices(FPS, start_frame, end_frame))
    tracks = []
    for order, phrase in enumerate(phrases):
        for _ in range(instances if order == 1 else 1):
            low = rng.uniform(0, [WIDTH / 2, HEIGHT / 2], (len(indices), 2))
            high = low + rng.uniform(4, [WIDTH / 2, HEIGHT / 2], (len(indices), 2))
            presence = rng.random(len(indices)) < 0.6
            presence[0] = True
            boxes = np.where(presence[:, None], np.concatenate([low, high], axis=1), np.nan).astype(np.float32)
            tracks.append(PhraseTrack(phrase.text, phrase.span, boxes, presence, presence.astype(np.float32)))
    return GroundedCaption(
        caption=caption,
        tracks=tuple(tracks),
        video_id=video_id,
        clip_id=clip_id,
        video_fname=f"{video_id}.mp4",
        fps=FPS,
        width=WIDTH,
        height=HEIGHT,
        clip_start_frame=start_frame,
        clip_end_frame=end_frame,
        frame_indices=indices,
        timestamps=indices / FPS,
    )


def make_record(*args: Any, metadata: dict[str, Any] | None = None, **kwargs: Any) -> dict[str, Any]:
    """The record of [`make_caption`]."""
    return to_record(make_caption(*args, **kwargs), metadata)


def make_videos(folder: Path, video_ids: list[str], num_frames: int = 50, **options: Any) -> Path:
    """Numbered clips (see `synthetic_clips`) of 64 x 48 at 25 frames a second, named as the records name them."""
    folder.mkdir(parents=True, exist_ok=True)
    for video_id in video_ids:
        encode(folder / f"{video_id}.mp4", num_frames=num_frames, width=WIDTH, height=HEIGHT, fps=25, **options)
    return folder

"""GroundedShapes: clips of a world whose truth is known, one from every seed.

A clip is decided by its seed and its settings alone. Splits are ranges of seeds that never meet (see [`clip_seed`]), so what
a model sees in training it never meets in a test. `VERSION` is a part of every seed; it changes whenever pictures or captions do.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import av
import numpy as np

from dataset_builders.record import Record, to_record
from modeling_grove.grounded_caption import GroundedCaption, PhraseTrack, atomic_path
from modeling_grove.video_grove import sampled_frame_indices

from .captions import Narrator
from .frame_captions import FrameCaption, Observer
from .rendering import Rendering, View, render
from .stage import Event, Stage, moving_camera, still_camera
from .stories import LEVELS, tell
from .things import Thing
from .vocabulary import PLACES
from .wording import Text

VERSION = 1
SPLITS = ("train", "validation", "test")
_CLIPS_PER_SPLIT = 2**32
_LARGEST_SEED = 2**19  # so that seeds of clips stay below 2**53, which JSON readers of other languages keep exactly
_ATTEMPTS = 8
# Everything that a caption names must be seen in this share of the sampled frames; else the scene is made anew.
_LEAST_SEEN = 0.1


@dataclass(frozen=True)
class ShapesConfig:
    """
    What clips are like.

    Args:
        width (`int`, *optional*, defaults to 128), height (`int`, *optional*, defaults to 128):
            Size of the picture in pixels, even numbers (H.264 stores colour for pairs of pixels).
        fps (`float`, *optional*, defaults to 10.0):
            Frames a second of the video. Captions and boxes of records are those of about 5 frames a second.
        seconds (`float`, *optional*, defaults to 4.0):
            Length of a clip.
        difficulty (`str`, *optional*, defaults to `"medium"`):
            "easy": one or two things, nothing covered or out of sight, a camera that stands still. "medium": furniture to pass
            and hide behind, people and things that leave and come, now and then something that the caption does not mention,
            at times a camera that moves a little. "hard": look-alikes, several things without a part, things in the way,
            another story at the same time, a camera that pans, zooms and shakes.
        varied (`bool`, *optional*, defaults to `True`):
            Whether captions choose among several ways to say a thing; else each is said in the usual one.

    Raises:
        `ValueError`: in one line, if a number is out of range.
    """

    width: int = 128
    height: int = 128
    fps: float = 10.0
    seconds: float = 4.0
    difficulty: str = "medium"
    varied: bool = True

    def __post_init__(self) -> None:
        for name in ("width", "height"):
            side = getattr(self, name)
            if side != int(side) or not 32 <= side <= 4096 or side % 2:
                raise ValueError(f"{name}: expected an even number of pixels from 32 to 4096, got {side}")
        if not 0 < self.fps <= 240:
            raise ValueError(f"fps: expected frames a second in (0, 240], got {self.fps}")
        if not 1 <= self.seconds <= 600:
            raise ValueError(f"seconds: expected a length from 1 to 600, got {self.seconds}")
        if self.num_frames < 2:
            raise ValueError(f"fps, seconds: {self.fps} fps for {self.seconds} s make no 2 frames; raise one of them")
        if self.difficulty not in LEVELS:
            raise ValueError(f"difficulty: expected one of {', '.join(LEVELS)}, got {self.difficulty!r}")
        for name, kind in (("width", int), ("height", int), ("fps", float), ("seconds", float)):
            object.__setattr__(self, name, kind(getattr(self, name)))

    @property
    def num_frames(self) -> int:
        """Frames of a clip."""
        return round(self.fps * self.seconds)


@dataclass(frozen=True)
class ShapesClip:
    """
    A clip and all that is true of it.

    Attributes:
        seed (`int`): Of the clip.
        config ([`ShapesConfig`]): Its settings.
        frames (`np.ndarray`): uint8 `(T, H, W, 3)` RGB, every frame of the video.
        caption ([`GroundedCaption`]): At about 5 frames a second, in the raw form: two balls of one phrase are two tracks.
        frame_captions (`tuple[FrameCaption, ...]`): One for each of those frames.
        events (`tuple[tuple[Event, ...], ...]`): What happens, by story; the first is what the caption is mainly about.
        things (`tuple[Thing, ...]`): Everything in the scene, also what the caption does not mention.
        track_things (`tuple[int, ...]`): For every track of the caption, the index of its thing.
        boxes (`np.ndarray`): float32 `(N, T, 4)` xyxy in pixels, of every thing in every frame; NaN where it is not present.
        presence (`np.ndarray`): bool `(N, T)`, whether at least a fifth of its outline is visible.
        visible_shares (`np.ndarray`): float32 `(N, T)`, that share.
        place (`str`): Where it plays.
        form (`str`): The form of the caption's sentence: its words without nouns, sides and places.
        owners (`np.ndarray`): uint8 `(T, H, W)`, 1 + the index of the thing that is seen in a pixel, 0 for the background.
    """

    seed: int
    config: ShapesConfig
    frames: np.ndarray
    caption: GroundedCaption
    frame_captions: tuple[FrameCaption, ...]
    events: tuple[tuple[Event, ...], ...]
    things: tuple[Thing, ...]
    track_things: tuple[int, ...]
    boxes: np.ndarray
    presence: np.ndarray
    visible_shares: np.ndarray
    place: str
    form: str
    owners: np.ndarray

    def to_record(self) -> Record:
        """The raw record, with the events, the things and the seed in its metadata."""
        events = [
            {
                "verb": event.verb,
                "agents": list(event.agents),
                "objects": list(event.objects),
                "furniture": event.furniture,
                "partner": event.partner,
                "side": event.side,
                "start": round(event.start, 3),
                "end": round(event.end, 3),
                "story": number,
            }
            for number, story in enumerate(self.events)
            for event in story
        ]
        shapes = {
            "version": VERSION,
            "seed": self.seed,
            "difficulty": self.config.difficulty,
            "place": self.place,
            "form": self.form,
            "things": [thing.phrase for thing in self.things],
            "track_things": list(self.track_things),
            "events": events,
        }
        return to_record(self.caption, {"shapes": shapes})

    def frames_record(self) -> dict[str, Any]:
        """The captions of the single frames as one JSON object, under the names of the clip."""
        frames = [caption.to_dict() for caption in self.frame_captions]
        return {"video_id": self.caption.video_id, "clip_id": self.caption.clip_id, "frames": frames}

    def write_video(self, path: str | os.PathLike[str]) -> None:
        """Writes the frames as an H.264 mp4, atomically; the same bytes every time."""
        # One thread and no names of programs in the file. x264's macroblock tree is off because with it the same frames
        # become other bytes in another process (seen at every size tried, in up to a quarter of the clips).
        options = {"crf": "20", "preset": "veryfast", "threads": "1", "x264-params": "mbtree=0"}
        flags = {"movflags": "faststart", "fflags": "+bitexact"}
        with atomic_path(path) as temporary, av.open(temporary, "w", format="mp4", options=flags) as container:
            stream = container.add_stream(
                "libx264", rate=Fraction(self.config.fps).limit_denominator(1001), options=options
            )
            stream.width, stream.height, stream.pix_fmt = self.config.width, self.config.height, "yuv420p"
            codec = stream.codec_context
            codec.colorspace = codec.color_primaries = codec.color_trc = (
                1  # BT.709; without a word players guess by size
            )
            for frame in self.frames:
                image = av.VideoFrame.from_ndarray(frame, format="rgb24")
                container.mux(stream.encode(image.reformat(format="yuv420p", dst_colorspace="ITU709")))
            container.mux(stream.encode())


def clip_seed(split: str, number: int, seed: int = 0) -> int:
    """
    The seed of a clip: `(3 * seed + k) * 2**32 + number`, where k is 0 for train, 1 for validation and 2 for test.

    No two splits of one world, and no two worlds of different seeds, share a clip.

    Args:
        split (`str`): "train", "validation" or "test".
        number (`int`): Of the clip in the split, below 2**32.
        seed (`int`, *optional*, defaults to 0): Of the world, below 2**19.
    """
    if split not in SPLITS:
        raise ValueError(f"split: expected one of {', '.join(SPLITS)}, got {split!r}")
    if not 0 <= number < _CLIPS_PER_SPLIT:
        raise ValueError(f"number: expected a clip from 0 to 2**32 - 1, got {number}")
    if not 0 <= seed < _LARGEST_SEED:
        raise ValueError(f"seed: expected a number from 0 to {_LARGEST_SEED - 1}, got {seed}")
    return (len(SPLITS) * seed + SPLITS.index(split)) * _CLIPS_PER_SPLIT + number


def clip_name(split: str, number: int, seed: int = 0) -> str:
    """Name of a clip's video: "shapes-test-000012", and "shapes-7-test-000012" in the world of seed 7."""
    return f"shapes-{split}-{number:06d}" if seed == 0 else f"shapes-{seed}-{split}-{number:06d}"


def make_clip(seed: int, config: ShapesConfig | None = None, video_id: str | None = None) -> ShapesClip:
    """
    The clip of a seed.

    Args:
        seed (`int`): Any number from 0; see [`clip_seed`] for those of the splits.
        config ([`ShapesConfig`], *optional*): The defaults, if not given.
        video_id (`str`, *optional*, defaults to `"shapes-{seed}"`): Name of the video; its file is `{video_id}.mp4`.

    Returns:
        [`ShapesClip`]

    Raises:
        `ValueError`: if the seed is negative.
    """
    if seed < 0:
        raise ValueError(f"seed: expected a number from 0, got {seed}")
    config = config or ShapesConfig()
    name = video_id or f"shapes-{seed}"
    sampled = np.array(sampled_frame_indices(config.fps, 0, config.num_frames - 1))
    for attempt in range(_ATTEMPTS):
        rng = np.random.default_rng([VERSION, seed, attempt, sorted(LEVELS).index(config.difficulty)])
        stage, rendering = _play(rng, config)
        text = Narrator(rng, stage.things, stage.place, config.varied).tell(stage.told)
        boxes, presence, shares = rendering.visibility()
        named = [presence[list(members)][:, sampled].any(axis=0) for members in text.spans]
        if min(seen.mean() for seen in named) >= _LEAST_SEEN:
            break
    order = sorted(text.spans.items(), key=lambda item: item[1])
    track_things = tuple(index for members, _ in order for index in members)
    return ShapesClip(
        seed=seed,
        config=config,
        frames=rendering.frames,
        caption=_grounded(name, config, text, boxes[:, sampled], presence[:, sampled], sampled),
        frame_captions=tuple(
            Observer(stage, index / config.fps, boxes[:, index], presence[:, index], rng).describe(index)
            for index in sampled.tolist()
        ),
        events=tuple(tuple(story) for story in stage.told),
        things=tuple(stage.things),
        track_things=track_things,
        boxes=boxes,
        presence=presence,
        visible_shares=shares,
        place=stage.place,
        form=text.form,
        owners=rendering.owners,
    )


def iter_clips(
    split: str, count: int, seed: int = 0, config: ShapesConfig | None = None, start: int = 0
) -> Iterator[ShapesClip]:
    """
    Clips of a split, made one by one without any file: the same as [`write_shapes`] writes.

    Args:
        split (`str`): "train", "validation" or "test".
        count (`int`): How many.
        seed (`int`, *optional*, defaults to 0): Of the world.
        config ([`ShapesConfig`], *optional*): What clips are like.
        start (`int`, *optional*, defaults to 0): Number of the first one.
    """
    for number in range(start, start + count):
        yield make_clip(clip_seed(split, number, seed), config, clip_name(split, number, seed))


def _play(rng: np.random.Generator, config: ShapesConfig) -> tuple[Stage, Rendering]:
    """Plays a random story and renders it."""
    view = View(config.width, config.height)
    times = np.arange(config.num_frames) / config.fps
    stage = Stage(rng, view, times, config.seconds, str(rng.choice(list(PLACES))))
    level = LEVELS[config.difficulty]
    tell(stage, level)
    if stage.chance(level.moving):
        camera = moving_camera(rng, view, times, level.shake, level.pan, level.zoom)
    else:
        camera = still_camera(view, config.num_frames)
    return stage, render(stage.scene(camera, int(rng.integers(2**31))), view)


def _grounded(
    name: str, config: ShapesConfig, text: Text, boxes: np.ndarray, presence: np.ndarray, sampled: np.ndarray
) -> GroundedCaption:
    """The caption with one track for every thing that it names."""
    tracks = [
        PhraseTrack(text.text[slice(*span)], span, boxes[index], presence[index], presence[index].astype(np.float32))
        for members, span in sorted(text.spans.items(), key=lambda item: item[1])
        for index in members
    ]
    return GroundedCaption(
        caption=text.text,
        tracks=tuple(tracks),
        video_id=name,
        clip_id=0,
        video_fname=f"{name}.mp4",
        fps=config.fps,
        width=config.width,
        height=config.height,
        clip_start_frame=0,
        clip_end_frame=config.num_frames - 1,
        frame_indices=sampled,
        timestamps=sampled / config.fps,
    )

"""
Makes `clip.mp4`, seven seconds of moving shapes, and `clip.json`, its true grounded caption.

    python examples/make_clip.py [DIRECTORY]

A ball bounces along and rolls behind a crate that slides the other way, and a star flies out of the frame and comes back: motion,
occlusion and absence, which boxes and presence per frame are about. A box is the extent of what can be seen of a shape.
"""

import argparse
import math
from pathlib import Path

import av
import numpy as np
from PIL import Image, ImageDraw

from modeling_grove.grounded_caption import GroundedCaption, PhraseTrack, atomic_path
from modeling_grove.text_grove import read_tagged_caption
from modeling_grove.video_grove import sampled_frame_indices

WIDTH, HEIGHT, FPS, NUM_FRAMES = 320, 240, 25, 175
GROUND = 196  # y of the line on which things stand
SCALE, MARGIN = 3, 64  # shapes are drawn larger and then reduced, on a canvas with room for what leaves the frame
MIN_VISIBLE = 0.15  # share of a shape that must be seen for it to count as present
CAPTION = (
    "<p>A blue ball</p> bounces along and rolls behind <p>a wooden crate</p> while <p>a white star</p> flies out on the right "
    "and comes back."
)


def background() -> np.ndarray:
    """uint8 `(HEIGHT, WIDTH, 3)`: an evening sky over hills, and boards in front."""
    rng = np.random.default_rng(7)
    y, x = np.mgrid[:HEIGHT, :WIDTH].astype(np.float64)
    down = (y / GROUND)[..., None]
    picture = (1 - down) * np.array([58, 76, 120]) + down * np.array([236, 178, 150])
    for base, size, color in ((132, 16, (112, 104, 140)), (158, 12, (84, 92, 116)), (178, 9, (60, 84, 92))):
        phases = rng.uniform(0, 2 * math.pi, 3)
        ridge = base + sum(size / n * np.sin(n * x / 46 + phase) for n, phase in enumerate(phases, start=1))
        picture[y > ridge] = color
    grain = 10 * np.sin(x / 9 + 5 * np.sin(y / 3.1)) + rng.normal(0, 3, (HEIGHT, WIDTH))
    boards = np.array([150, 108, 76]) + grain[..., None] * np.array([1.0, 0.8, 0.6])
    picture = np.where((y >= GROUND)[..., None], boards, picture)
    picture[(y >= GROUND) & ((y - GROUND) % 22 < 2)] = (96, 66, 46)
    return picture.clip(0, 255).astype(np.uint8)


def _scaled(*values: float) -> list[float]:
    """Coordinates x, y, x, y, ... of the frame on the canvas that shapes are drawn on."""
    return [SCALE * (value + (MARGIN if n % 2 == 0 else 0)) for n, value in enumerate(values)]


def _ball(draw: ImageDraw.ImageDraw, time: float) -> None:
    x, radius = 40 + 33 * time, 26
    # Five bounces that die down; then it rolls.
    height = 76 * math.exp(-0.5 * time) * abs(math.cos(2.4 * time)) if time < 4.58 else 0.0
    y = GROUND + 4 - radius - height
    draw.ellipse(_scaled(x - radius, y - radius, x + radius, y + radius), fill=(44, 98, 196))
    draw.ellipse(_scaled(x - 15, y - 16, x - 4, y - 6), fill=(168, 204, 248))


def _crate(draw: ImageDraw.ImageDraw, time: float) -> None:
    left, top, side = 196 - 9 * time, GROUND - 58, 66
    right, bottom = left + side, top + side
    draw.rectangle(_scaled(left, top, right, bottom), fill=(176, 124, 66))
    draw.line(_scaled(left + 4, top + 4, right - 4, bottom - 4), fill=(132, 88, 46), width=8 * SCALE)
    for step in (22, 44):
        draw.line(_scaled(left, top + step, right, top + step), fill=(98, 64, 34), width=SCALE)
    draw.rectangle(_scaled(left, top, right, bottom), outline=(98, 64, 34), width=5 * SCALE)


def _star(draw: ImageDraw.ImageDraw, time: float) -> None:
    x, y = 214 + 196 * math.sin(2 * math.pi * (time - 0.6) / 7.6), 56 + 12 * math.sin(1.7 * time)
    corners: list[float] = []
    for corner in range(10):
        radius, angle = (32, 14)[corner % 2], math.pi * corner / 5 + 0.9 * time
        corners += _scaled(x + radius * math.sin(angle), y - radius * math.cos(angle))
    draw.polygon(corners, fill=(252, 248, 232), outline=(168, 150, 130))


# In the order of the caption's phrases, which is that of painting: the crate hides the ball.
SHAPES = (_ball, _crate, _star)


def draw_frame(behind: np.ndarray, time: float) -> tuple[np.ndarray, list[np.ndarray | None]]:
    """
    The frame at `time` seconds, uint8 `(HEIGHT, WIDTH, 3)`, and for each shape the box of what is seen of it, xyxy in pixels, or
    `None` where less than `MIN_VISIBLE` is seen.
    """
    picture = behind.astype(np.float64)
    seen: list[np.ndarray] = []
    areas = []
    for shape in SHAPES:
        layer = Image.new("RGBA", (SCALE * (WIDTH + 2 * MARGIN), SCALE * HEIGHT))
        shape(ImageDraw.Draw(layer), time)
        pixels = np.asarray(layer.reduce(SCALE), np.float64)
        areas.append((pixels[..., 3] > 127).sum())
        pixels = pixels[:, MARGIN : MARGIN + WIDTH]
        alpha = pixels[..., 3:] / 255
        picture = (1 - alpha) * picture + alpha * pixels[..., :3]
        covered = pixels[..., 3] > 127
        seen = [mask & ~covered for mask in seen] + [covered]
    boxes: list[np.ndarray | None] = []
    for mask, area in zip(seen, areas, strict=True):
        y, x = np.nonzero(mask)
        visible = len(x) >= MIN_VISIBLE * area
        boxes.append(np.array([x.min(), y.min(), x.max() + 1, y.max() + 1], np.float32) if visible else None)
    return picture.round().astype(np.uint8), boxes


def write_clip(path: Path) -> list[list[np.ndarray | None]]:
    """Writes the H.264 video, the same bytes every time, and returns the boxes of each shape in each frame."""
    behind, boxes = background(), []
    # One thread, and no version string of the encoder.
    options = {"crf": "21", "preset": "slow", "g": "50", "threads": "1"}
    with (
        atomic_path(path) as temporary,
        av.open(temporary, "w", format="mp4", options={"movflags": "faststart"}) as container,
    ):
        stream = container.add_stream("libx264", rate=FPS, options=options)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        for index in range(NUM_FRAMES):
            picture, found = draw_frame(behind, index / FPS)
            boxes.append(found)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    return boxes


def true_caption(boxes: list[list[np.ndarray | None]]) -> GroundedCaption:
    """The grounded caption of the clip, from the boxes of every source frame."""
    caption, phrases = read_tagged_caption(CAPTION)
    indices = sampled_frame_indices(FPS, 0, NUM_FRAMES - 1)
    tracks = []
    for shape, phrase in enumerate(phrases):
        found = [boxes[index][shape] for index in indices]
        presence = np.array([box is not None for box in found])
        rows = np.stack([np.full(4, np.nan, np.float32) if box is None else box for box in found])
        tracks.append(PhraseTrack(phrase.text, phrase.span, rows, presence, presence.astype(np.float32)))
    return GroundedCaption(
        caption=caption,
        tracks=tuple(tracks),
        video_id="clip",
        clip_id=0,
        video_fname="clip.mp4",
        fps=FPS,
        width=WIDTH,
        height=HEIGHT,
        clip_start_frame=0,
        clip_end_frame=NUM_FRAMES - 1,
        frame_indices=np.array(indices),
        timestamps=np.array(indices) / FPS,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description="Make the example clip and its true grounded caption.")
    parser.add_argument("directory", nargs="?", type=Path, default=Path(__file__).parent, help="default: %(default)s")
    directory = parser.parse_args().directory
    directory.mkdir(parents=True, exist_ok=True)
    true_caption(write_clip(directory / "clip.mp4")).save(directory / "clip.json")


if __name__ == "__main__":
    main()

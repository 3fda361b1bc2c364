"""
Makes the moving picture of the README: what `checkpoints/grove-tiny` says of `shapes.mp4`, drawn by `GroundedCaption.render`.

    python examples/make_picture.py [PICTURE.gif]
"""

import argparse
import itertools
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image
from transformers import pipeline

import modeling_grove  # noqa: F401 (registers the pipeline)
from modeling_grove.video_grove import read_video

ROOT = Path(__file__).parents[1]
CLIP, MODEL = ROOT / "examples" / "shapes.mp4", ROOT / "checkpoints" / "grove-tiny"
PICTURE = ROOT / "docs" / "images" / "captioned.gif"
FPS = 12.5
SAME = 7  # a pixel whose channels all changed by less keeps its value: noise of the video coding, costly in a GIF


def steady(frames: np.ndarray) -> np.ndarray:
    """uint8 `(T, H, W, 3)` without the flicker of still areas."""
    frames = frames.copy()
    for before, now in itertools.pairwise(frames):
        still = (np.abs(now.astype(np.int16) - before) < SAME).all(axis=-1)
        now[still] = before[still]
    return frames


def write_gif(frames: np.ndarray, path: Path, fps: float) -> None:
    """One palette for all frames, without dithering, so that what stands still is stored once."""
    palette = Image.fromarray(np.concatenate(list(frames[:: len(frames) // 4]))).quantize(255, dither=Image.Dither.NONE)
    pictures = [Image.fromarray(frame).quantize(palette=palette, dither=Image.Dither.NONE) for frame in frames]
    path.parent.mkdir(parents=True, exist_ok=True)
    pictures[0].save(path, save_all=True, append_images=pictures[1:], duration=round(1000 / fps), loop=0)


def main() -> None:
    parser = argparse.ArgumentParser(description="Make the moving picture of the README.")
    parser.add_argument("picture", nargs="?", type=Path, default=PICTURE, help="default: %(default)s")
    path = parser.parse_args().picture
    caption = pipeline("grounded-video-captioning", model=str(MODEL))(str(CLIP))
    with tempfile.TemporaryDirectory() as directory:
        video = caption.render(CLIP, Path(directory) / "clip.mp4", show_objectness=False)
        frames = read_video(video, target_fps=FPS).frames
    write_gif(steady(frames), path, FPS)


if __name__ == "__main__":
    main()

"""
Makes the README's picture of GroundedShapes: some clips, their true captions, and when each thing is in sight.

    python examples/make_shapes_picture.py [PICTURE.png]
"""

import argparse
import tempfile
from pathlib import Path

from PIL import Image

from dataset_builders.shapes import ShapesConfig, clip_seed, make_clip
from modeling_grove.grounded_caption import atomic_path

PICTURE = Path(__file__).parents[1] / "docs" / "images" / "grounded_shapes.png"
CLIPS = (0, 2, 4, 6, 8, 10)  # of the test split
SIZE = (208, 160)
COLUMNS, GAP = 2, 18


def sheet(number: int) -> Image.Image:
    """The contact sheet of a clip."""
    config = ShapesConfig(width=SIZE[0], height=SIZE[1], difficulty="hard" if number % 4 else "medium")
    clip = make_clip(clip_seed("test", number), config)
    with tempfile.TemporaryDirectory() as folder:
        frames = clip.frames[clip.caption.frame_indices]
        path = clip.caption.contact_sheet(frames, Path(folder) / "sheet.png", num_frames=4, show_objectness=False)
        return Image.open(path).convert("RGB")


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0].strip())
    parser.add_argument("picture", nargs="?", type=Path, default=PICTURE)
    path = parser.parse_args(arguments).picture
    sheets = [sheet(number) for number in CLIPS]
    rows = [sheets[start : start + COLUMNS] for start in range(0, len(sheets), COLUMNS)]
    width = sum(max(row[column].width for row in rows) for column in range(COLUMNS)) + GAP * (COLUMNS - 1)
    height = sum(max(picture.height for picture in row) for row in rows) + GAP * (len(rows) - 1)
    page, top = Image.new("RGB", (width, height), "white"), 0
    for row in rows:
        left = 0
        for picture in row:
            page.paste(picture, (left, top))
            left += picture.width + GAP
        top += max(picture.height for picture in row) + GAP
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as temporary:
        page.reduce(2).quantize(256, dither=Image.Dither.NONE).save(temporary, optimize=True)
    print(f"wrote {path}, {path.stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    main()

"""
Makes `shapes.mp4`, a clip of GroundedShapes that no training has seen, and `shapes.json`, its true grounded caption.

    python examples/make_shapes_clip.py [DIRECTORY]
"""

import argparse
import shutil
import tempfile
from pathlib import Path

from dataset_builders.reading import read_records
from dataset_builders.record import from_record
from dataset_builders.shapes import ShapesConfig
from dataset_builders.shapes.writing import write_shapes
from modeling_grove.grounded_caption import atomic_path

WORLD, NUMBER = 20, 23  # seed of the world, and the clip in its test split
SIZE = 256


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0].strip())
    parser.add_argument("directory", nargs="?", type=Path, default=Path(__file__).parent)
    directory = parser.parse_args(arguments).directory
    directory.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        write_shapes(Path(folder), {"test": NUMBER + 1}, ShapesConfig(width=SIZE, height=SIZE), seed=WORLD)
        caption = from_record([*read_records(str(Path(folder) / "test.jsonl"))][NUMBER])
        with atomic_path(directory / "shapes.mp4") as temporary:
            shutil.copyfile(Path(folder) / "videos" / str(caption.video_fname), temporary)
    caption.save(directory / "shapes.json")
    print(f"wrote {directory / 'shapes.mp4'}: {caption.caption}")


if __name__ == "__main__":
    main()

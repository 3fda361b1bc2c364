"""
What a stranger does with a published GROVE: the model, the pipeline, the streamed data and the metric, each by name.

    python examples/four_calls.py org

Needs `pip install "grove-video[eval]"`, and the repositories org/grove, org/shapes-annotated, org/shapes (with its videos) and
org/iground_score, as `python -m train story` publishes them to a Hub on this machine.
"""

import sys
import tempfile
from itertools import islice
from pathlib import Path

import evaluate
from datasets import Video, load_dataset
from transformers import AutoModel, pipeline

import modeling_grove  # registers GROVE

CLIPS = 4  # that are captioned and scored


def main(org: str) -> None:
    """Makes the calls, and prints what they give."""
    print(f"modeling_grove: from {Path(modeling_grove.__file__).parent.parent.name}")
    model = AutoModel.from_pretrained(f"{org}/grove")
    print(f"AutoModel: {type(model).__name__} of {sum(p.numel() for p in model.parameters()):,} parameters")

    annotations = load_dataset(f"{org}/shapes-annotated", streaming=True, split="train")
    record = next(iter(annotations))["json"]
    print(f"load_dataset: {record['tagged_caption']} in {len(record['bboxes'])} frames")

    captioner = pipeline("grounded-video-captioning", model=f"{org}/grove")
    clips = load_dataset(f"{org}/shapes", "default_video", streaming=True, split="test")
    captions, records = [], []
    with tempfile.TemporaryDirectory() as folder:
        for sample in islice(clips.cast_column("mp4", Video(decode=False)), CLIPS):
            record = sample["json"]
            path = Path(folder, record["video_fname"])
            path.write_bytes(sample["mp4"]["bytes"])
            captions.append(captioner(str(path)))
            records.append(record)
    boxes = sum(int(track.presence.sum()) for track in captions[0].tracks)
    print(f"pipeline: {captions[0].tagged_caption} with {boxes} boxes in {captions[0].num_frames} frames")

    metric = evaluate.load(f"{org}/iground_score")
    metric.add_batch(predictions=captions, references=records)
    scores = metric.compute(similarity="head-word")["headline"]["corrected"]
    print("evaluate: " + ", ".join(f"{name} {value:.1f}" for name, value in scores.items() if value is not None))


if __name__ == "__main__":
    main(sys.argv[1])

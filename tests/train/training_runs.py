"""What tests of training share: a small world in shards, a starting model, and ways to run the scripts."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from dataset_builders.__main__ import main as dataset_command
from dataset_builders.reading import read_records
from dataset_builders.shapes.world import ShapesConfig
from dataset_builders.shapes.writing import write_shapes
from train.new_models import new_model, train_tokenizer

ROOT = Path(__file__).parents[2]

# Windows of 4 frames, 64 x 64 pixels, 16 video tokens, 0.2 M parameters.
SIZES: dict[str, Any] = {
    "text_config": {
        "hidden_size": 48,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "max_position_embeddings": 256,
        "initializer_range": 0.05,
    },
    "vision_config": {
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 3,
        "num_attention_heads": 2,
        "image_size": 64,
        "patch_size": 16,
    },
    "grounding_config": {
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "global_attn_indexes": (1,),
        "output_channels": 32,
        "num_pos_feats": 16,
        "image_size": 64,
        "patch_size": 16,
        "window_size": 3,
        "decoder_num_attention_heads": 2,
        "decoder_mlp_dim": 48,
    },
    "num_frames": 4,
    "video_pool_size": (4, 2, 2),
}


@dataclass(frozen=True)
class World:
    """
    Attributes:
        folder (`Path`): of everything; new runs may go there.
        shards (`Path`): 24 training clips in 6 shards and 6 validation clips in 2.
        videos (`Path`): of the same clips.
        start (`Path`): a model that nobody has trained.
    """

    folder: Path
    shards: Path
    videos: Path
    start: Path

    def arguments(self, output: Path | str, **changes: Any) -> list[str]:
        """A command line for four steps on this world."""
        settings = {
            "model_name_or_path": self.start,
            "train_data": self.shards,
            "trainable": "full",
            "output_dir": output,
            "max_steps": 4,
            "per_device_train_batch_size": 2,
            "learning_rate": 1e-3,
            "warmup_steps": 2,
            "logging_steps": 1,
            "save_steps": 2,
            "shuffle_buffer": 4,
            "dataloader_num_workers": 0,
            "use_cpu": True,
            **changes,
        }
        line: list[str] = []
        for name, value in settings.items():
            if value is not None:
                values = value if isinstance(value, list) else [value]
                line += [f"--{name}", *(json.dumps(item) if isinstance(item, dict) else str(item) for item in values)]
        return line


def make_world(folder: Path) -> World:
    """Makes the world of the tests; some ten seconds."""
    torch.manual_seed(0)
    config = ShapesConfig(width=64, height=64, seconds=2.0)
    write_shapes(folder / "shapes", {"train": 24, "validation": 6}, config, seed=11)
    for split, size in (("train", 4), ("validation", 3)):
        records = folder / "shapes" / f"{split}.jsonl"
        options = ["--output", str(folder / "shards"), "--split", split, "--samples-per-shard", str(size)]
        status = dataset_command(
            ["shard", "--annotations", str(records), "--videos", str(folder / "shapes" / "videos"), *options]
        )
        assert status == 0
    captions = [record["caption"] for record in read_records(str(folder / "shapes" / "train.jsonl"))]
    model, processor = new_model("tiny", train_tokenizer(captions, 400), **SIZES)
    model.save_pretrained(folder / "start")
    processor.save_pretrained(folder / "start")
    return World(folder, folder / "shards", folder / "shapes" / "videos", folder / "start")


def run_script(
    python: Path,
    script: str,
    arguments: Sequence[str],
    processes: int = 1,
    env: dict[str, str] | None = None,
    timeout: int = 300,
) -> subprocess.CompletedProcess[str]:
    """Runs `train/pt.py` or `train/ft.py` in a process of its own with this `python`, or with torchrun in several."""
    launcher = [str(python)]
    if processes > 1:
        options = ["--standalone", "--nproc-per-node", str(processes), "--no-python", str(python)]
        launcher += ["-m", "torch.distributed.run", *options]
    threads = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    return subprocess.run(
        [*launcher, str(ROOT / "train" / script), *arguments],
        capture_output=True,
        text=True,
        timeout=timeout,
        cwd=ROOT,
        env={**os.environ, **threads, **(env or {})},
    )


def losses_of(output: Path) -> dict[int, dict[str, float]]:
    """The logged losses of a run by step, all but what depends on time."""
    checkpoints = sorted(output.glob("checkpoint-*"), key=lambda path: int(path.name.rpartition("-")[2]))
    state = output / "trainer_state.json"
    state = state if state.exists() else checkpoints[-1] / "trainer_state.json"
    history = json.loads(state.read_text(encoding="utf-8"))["log_history"]
    timed = ("clips_per_second", "data_share", "memory_gib", "eval_runtime", "eval_samples_per_second")
    return {
        logs["step"]: {name: value for name, value in logs.items() if name not in timed}
        for logs in history
        if "loss" in logs
    }

"""
Clips a second, peak memory and waiting for data of a training step, with each lever on and off.

    python benchmarks/train_step.py
    python benchmarks/train_step.py --model full --device cuda --dtype bfloat16 --steps 10 --batch-size 1

Everything is compared with the original's settings: eager attention, all of both encoders in the graph, activation checkpointing in
the language model alone, an optimizer that goes from tensor to tensor. Each setting runs in a process of its own, so that
its memory is its own. See `benchmarks/README.md`.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # run from a checkout, installed or not

from benchmarks.flops import measure_rates
from benchmarks.part_timer import reset_peak_memory
from benchmarks.random_models import (
    build_caption_ids,
    build_model,
    build_prompt_ids,
    build_video_processor,
    write_video,
)
from dataset_builders.__main__ import main as dataset_command
from dataset_builders.record import to_record
from dataset_builders.stream import GroundedCaptionStream, StreamSource
from dataset_builders.stream_samples import StreamSample
from eval.provenance import describe_machine
from modeling_grove import GroundedCaption, GroveForConditionalGeneration, PhraseTrack
from train.progress import peak_memory_gib
from train.starting_model import prepare_model
from train.training_arguments import ModelArguments

FRAMES, PHRASES, NEW_TOKENS = 40, 3, 40  # a clip of 8 s at 5 frames a second, and a caption as iGround has them


@dataclass(frozen=True)
class Setting:
    """
    Args:
        attention (`str`): "eager" or "sdpa".
        whole_graph (`bool`): record the graph of both encoders from the pixels on.
        checkpointing (`str`): activations that are computed again: "none", "language model" or "all".
        fused (`bool`): one kernel for the optimizer.
        compiled (`bool`): both encoders through torch.compile.
    """

    attention: str = "sdpa"
    whole_graph: bool = False
    checkpointing: str = "all"
    fused: bool = True
    compiled: bool = False


ORIGINAL = Setting("eager", whole_graph=True, checkpointing="language model", fused=False)
SETTINGS = {
    "original's settings": ORIGINAL,
    "ours": Setting(),
    "eager attention": Setting("eager"),
    "graph from the pixels on": Setting(whole_graph=True),
    "checkpointing in the language model alone": Setting(checkpointing="language model"),
    "no activation checkpointing": Setting(checkpointing="none"),
    "optimizer tensor by tensor": Setting(fused=False),
    "compiled encoders": Setting(compiled=True),
}


class Collator:
    """Batches of a random model: the clip's pixels, and text and labels that are always the same."""

    def __init__(self, model: GroveForConditionalGeneration, seed: int):
        config = model.config
        generator = torch.Generator().manual_seed(seed)
        prompt = build_prompt_ids(config, 1, generator)
        caption = torch.tensor([build_caption_ids(config, NEW_TOKENS, PHRASES, generator)])
        self._ids = torch.cat([prompt, caption], dim=1)
        self._labels = torch.cat([torch.full_like(prompt, -100), caption], dim=1)
        self._boxes = torch.rand(1, config.num_frames, PHRASES, 4, generator=generator) * 0.4 + 0.3
        self._processor = build_video_processor(config)

    def __call__(self, samples: list[StreamSample]) -> dict[str, Tensor]:
        pixels = self._processor([sample.frames for sample in samples], num_frames=None, do_sample_frames=False)
        count = len(samples)
        return {
            "input_ids": self._ids.repeat(count, 1),
            "labels": self._labels.repeat(count, 1),
            "pixel_values_videos": pixels["pixel_values_videos"],
            "grounding_pixel_values_videos": pixels["grounding_pixel_values_videos"],
            "box_labels": self._boxes.repeat(count, 1, 1, 1),
            "objectness_labels": torch.ones(count, *self._boxes.shape[1:3]),
        }


def write_clips(folder: Path, count: int) -> Path:
    """A folder of shards with `count` clips of eight seconds, 640 x 360."""
    video = folder / "videos" / "clip.mp4"
    video.parent.mkdir(parents=True)
    write_video(video, 5 * FRAMES)
    indices = torch.arange(FRAMES) * 5
    with (folder / "records.jsonl").open("w", encoding="utf-8") as file:
        for number in range(count):
            boxes = torch.tensor([100.0, 80.0, 300.0, 220.0]).repeat(FRAMES, 1).numpy()
            seen = torch.ones(FRAMES)
            track = PhraseTrack("a man", (0, 5), boxes, seen.bool().numpy(), seen.numpy())
            caption = GroundedCaption(
                "a man walks", (track,), f"clip{number}", 0, video.name, 25.0, 640, 360, 0, 5 * FRAMES - 1,
                indices.numpy(), (indices / 25).numpy(),
            )  # fmt: skip
            file.write(json.dumps(to_record(caption)) + "\n")
    shards = folder / "shards"
    options = ["--output", str(shards), "--videos", str(video.parent), "--samples-per-shard", str(max(1, count // 4))]
    status = dataset_command(["shard", "--annotations", str(folder / "records.jsonl"), *options])
    if status:
        raise SystemExit(status)
    return shards


def prepare(options: argparse.Namespace, setting: Setting) -> GroveForConditionalGeneration:
    """The model under a setting, the paper's parameters learning in float32."""
    model = build_model(
        options.model,
        device=options.device,
        dtype=getattr(torch, options.dtype),
        attention=setting.attention,
        alpha_zero=False,
        seed=options.seed,
    )
    prepare_model(model, ModelArguments(trainable="paper"))
    model.train()
    if setting.checkpointing == "all":
        model.activation_checkpointing_enable({"use_reentrant": False})
    elif setting.checkpointing == "language model":
        model.model.language_model.activation_checkpointing_enable({"use_reentrant": False})
    if setting.compiled:
        model.model.vision_tower.compile()
        model.model.grounding_encoder.compile()
    return model


class TrainingStep:
    """One optimizer step after another under a setting."""

    def __init__(self, options: argparse.Namespace, setting: Setting):
        self.options, self.setting = options, setting
        self.model = prepare(options, setting)
        learned = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        how = {"fused": True} if setting.fused else {"foreach": False}
        self.optimizer = torch.optim.AdamW(learned, lr=1e-5, betas=(0.9, 0.95), weight_decay=0.0, **how)
        self.learned = learned

    def __call__(self, batch: dict[str, Tensor]) -> None:
        """Forward, backward, clipping, update."""
        batch = {name: value.to(self.options.device) for name, value in batch.items()}
        if self.setting.whole_graph:
            for name in ("pixel_values_videos", "grounding_pixel_values_videos"):
                batch[name].requires_grad_()
        kind = torch.device(self.options.device).type
        with torch.autocast(kind, torch.bfloat16, enabled=self.options.dtype == "bfloat16"):
            loss = self.model(**batch).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.learned, 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()
        if kind == "cuda":
            torch.cuda.synchronize()


def count_operations(step: TrainingStep, batch: dict[str, Tensor]) -> int:
    """Does a step, and counts its operations, also those of PyTorch's attention on CPU, which its counter leaves out."""
    cpu_attention = {
        torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention_operations,
        torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: _attention_backward_operations,
    }
    with FlopCounterMode(display=False, custom_mapping=cpu_attention) as counter:
        step(batch)
    return counter.get_total_flops()


def _attention_operations(query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
    return sdpa_flop_count(query, key, value)


def _attention_backward_operations(gradient: Any, query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
    return sdpa_backward_flop_count(gradient, query, key, value)


def measure(options: argparse.Namespace, setting: Setting) -> dict[str, Any]:
    """What a setting costs, in this process."""
    step = TrainingStep(options, setting)
    stream = GroundedCaptionStream(StreamSource(options.data), num_frames=8, shuffle_buffer=1, seed=options.seed)
    loader = stream.loader(options.batch_size, options.workers, Collator(step.model, options.seed))
    batches = iter(loader)
    # The first step allocates; one that compiles is not counted, as a counter gets in the way of compiling.
    first, flops = next(batches), None
    if setting.compiled:
        step(first)
    else:
        flops = count_operations(step, first)
    reset_peak_memory(options.device)
    seconds, waited = [], 0.0
    for _ in range(options.steps):
        started = time.perf_counter()
        batch = next(batches)
        waited += time.perf_counter() - started
        step(batch)
        seconds.append(time.perf_counter() - started)
    return {
        "seconds": seconds,
        "clips_per_second": options.batch_size / statistics.median(seconds),
        "data_share": waited / sum(seconds),
        "peak_memory_gib": peak_memory_gib(torch.device(options.device)),
        "flops_per_clip": flops and flops / options.batch_size,
    }


def needed_flops(options: argparse.Namespace) -> int:
    """Operations of a step that no setting can do without: no activation is computed twice, no gradient that nobody needs."""
    setting = Setting("eager", checkpointing="none")  # kernels of attention compute its scores twice
    step = TrainingStep(options, setting)
    stream = GroundedCaptionStream(StreamSource(options.data), num_frames=8, shuffle_buffer=1, seed=options.seed)
    batch = next(iter(stream.loader(options.batch_size, 0, Collator(step.model, options.seed))))
    return count_operations(step, batch)


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=("tiny", "mid", "full"), default="mid", help="size (default: mid)")
    parser.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1 (default: cpu)")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32", help="of what does not learn")
    parser.add_argument("--batch-size", type=int, default=1, help="clips of a step (default: 1)")
    parser.add_argument("--steps", type=int, default=3, help="timed steps (default: 3)")
    parser.add_argument("--workers", type=int, default=1, help="processes that decode (default: 1)")
    parser.add_argument("--settings", nargs="+", choices=SETTINGS, metavar="NAME", help="some of them only")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, help="JSON file for the results")
    parser.add_argument("--data", help=argparse.SUPPRESS)
    parser.add_argument("--only", help=argparse.SUPPRESS)  # what runs in a process of its own
    options = parser.parse_args(arguments)
    for name in ("batch_size", "steps"):
        if getattr(options, name) < 1:
            parser.error(f"--{name.replace('_', '-')}: expected at least 1, got {getattr(options, name)}")
    return options


def run_apart(options: argparse.Namespace, what: str, data: Path) -> Any:
    """Measures in a process of its own."""
    line = [sys.executable, __file__, "--only", what, "--data", str(data)]
    for name in ("model", "device", "dtype", "batch_size", "steps", "workers", "seed"):
        line += [f"--{name.replace('_', '-')}", str(getattr(options, name))]
    result = subprocess.run(line, stdout=subprocess.PIPE, text=True)
    if result.returncode:
        raise SystemExit(f"{what}: the measurement ended with status {result.returncode}")
    return json.loads(result.stdout.splitlines()[-1])


def table(results: dict[str, Any]) -> str:
    """The settings, each against the original's."""
    lines = [
        "| setting | clips/s | against the original's | peak memory | against the original's | TFLOP a clip | waiting for data |",
        "|---|---|---|---|---|---|---|",
    ]
    base = results["settings"].get("original's settings")
    for name, found in results["settings"].items():
        speed = memory = "-"
        if base:
            speed = f"**{found['clips_per_second'] / base['clips_per_second']:.2f}**"
            memory = f"**{found['peak_memory_gib'] / base['peak_memory_gib']:.2f}**"
        flops = found.get("flops_per_clip")  # older results have none
        operations = "not counted" if flops is None else f"{flops / 1e12:.1f}"
        lines.append(
            f"| {name} | {found['clips_per_second']:.3f} | {speed} | {found['peak_memory_gib']:.1f} GiB | {memory} "
            f"| {operations} | {found['data_share']:.1%} |"
        )
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> None:
    options = parse_arguments(arguments)
    if options.only:
        found = needed_flops(options) if options.only == "flops" else measure(options, SETTINGS[options.only])
        print(json.dumps(found))
        return
    names = options.settings or list(SETTINGS)
    with tempfile.TemporaryDirectory() as folder:
        data = write_clips(Path(folder) / "data", 8)
        settings = {}
        for name in names:
            print(f"measuring {name} ...", file=sys.stderr, flush=True)
            settings[name] = {**asdict(SETTINGS[name]), **run_apart(options, name, data)}
        flops = run_apart(options, "flops", data)
    rate = measure_rates(options.device, getattr(torch, options.dtype))["matrix product"].wall
    fastest = max(found["clips_per_second"] for found in settings.values())
    results = {
        "options": {name: value for name, value in vars(options).items() if name not in ("output", "data", "only")},
        "settings": settings,
        "needed_flops_per_clip": flops / options.batch_size,
        "matrix_product_flops_per_second": rate,
        "utilisation_of_the_fastest": fastest * flops / options.batch_size / rate,
        **describe_machine(options.device, ("modeling_grove", "train", "benchmarks")),
    }
    print(table(results))
    share = f"{results['utilisation_of_the_fastest']:.0%}"
    print(
        f"\n{flops / options.batch_size / 1e12:.2f} TFLOP a clip; the fastest reaches {share} of a large matrix product"
    )
    if options.output:
        options.output.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

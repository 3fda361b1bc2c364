"""
Seconds of each part of GROVE's inference, against the original's schedule and against the machine's rate.

    python benchmarks/inference.py --frames 40
    python benchmarks/inference.py --model full --device cuda --compare none --batch-size 8

See `benchmarks/README.md` for what is compared and how to read the numbers.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import LogitsProcessorList

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # run from a checkout, installed or not

from benchmarks.flops import least_flops, measure_rates
from benchmarks.original_schedule import OriginalSchedule, as_original, decode_frames, has_ffmpeg
from benchmarks.part_timer import PartTimer, Seconds, clock, peak_memory, reset_peak_memory
from benchmarks.random_models import (
    ForcedCaption,
    build_caption_ids,
    build_model,
    build_prompt_ids,
    build_video_processor,
    write_video,
)
from eval.provenance import describe_machine
from modeling_grove import GroveForConditionalGeneration, GroveVideoProcessor, read_video
from modeling_grove.windows_grove import covering_windows, first_occurrence, sliding_windows

FPS, WIDTH, HEIGHT, STEP = 25, 640, 360, 5  # one sampled frame in five, at 5 a second
PARTS = [
    "decode",
    "preprocess",
    "vision encoder",
    "projector",
    "grounding encoder",
    "prefill",
    "decode steps",
    "language model over captions",
    "box decoder",
]
ENCODERS = ("vision encoder", "grounding encoder")


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=40, help="sampled frames of the video (default: 40)")
    parser.add_argument("--phrases", type=int, default=6, help="[DET] tokens of the caption (default: 6)")
    parser.add_argument("--new-tokens", type=int, default=64, help="tokens of the caption (default: 64)")
    parser.add_argument("--model", choices=["tiny", "mid", "full"], default="mid", help="size of the random model")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], help="default: float32 on cpu, bfloat16 on cuda")
    parser.add_argument("--attention", default="sdpa", help="eager, sdpa or flash_attention_2 (default: sdpa)")
    parser.add_argument("--compile", action="store_true", help="torch.compile both encoders and the box decoder")
    parser.add_argument(
        "--alpha-zero", action="store_true", help="close the vision tower's adapters, as released ones are"
    )
    parser.add_argument("--batch-size", type=int, default=1, help="videos at once; the original takes them in turn")
    parser.add_argument("--window-batch-size", type=int, help="windows at once (default: the model's)")
    parser.add_argument("--compare", choices=["original", "none"], default="original")
    parser.add_argument("--repeat", type=int, default=1, help="measured runs of each schedule, taken in turn")
    parser.add_argument("--threads", type=int, help="torch threads (default: torch's)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, help="where to write the results as JSON")
    options = parser.parse_args(arguments)
    if options.device == "cuda" and not torch.cuda.is_available():
        parser.error("--device cuda needs a CUDA GPU, and torch sees none; use --device cpu")
    for name in ("phrases", "new_tokens", "frames", "batch_size", "repeat"):
        if getattr(options, name) < 1:
            parser.error(f"--{name.replace('_', '-')} is {getattr(options, name)}; it must be at least 1")
    if options.new_tokens < 5 * options.phrases:
        parser.error(f"--phrases {options.phrases} needs at least --new-tokens {5 * options.phrases}")
    return options


def progress(message: str) -> None:
    print(f"[{time.strftime('%H:%M:%S')}] {message}", file=sys.stderr, flush=True)


class Benchmark:
    """Both schedules on one video, with one model."""

    def __init__(self, options: argparse.Namespace, video: Path):
        self.options, self.video = options, video
        self.device = options.device
        dtype = getattr(torch, options.dtype or ("bfloat16" if options.device == "cuda" else "float32"))
        self.model = build_model(
            options.model,
            device=options.device,
            dtype=dtype,
            attention=options.attention,
            alpha_zero=options.alpha_zero,
            seed=options.seed,
        )
        # Before compiling: the original runs as it is.
        self.original = as_original(self.model) if options.compare == "original" else None
        if options.compile:
            for module in self._watched(self.model):
                if module is not self.model.lm_head and module is not self.model.model.language_model:
                    module.forward = torch.compile(module.forward)
        self.processor: GroveVideoProcessor = build_video_processor(self.model.config)
        generator = torch.Generator().manual_seed(options.seed)
        self.input_ids = build_prompt_ids(self.model.config, options.batch_size, generator).to(self.device)
        self.caption_ids = build_caption_ids(self.model.config, options.new_tokens, options.phrases, generator)

    def _watched(self, model: GroveForConditionalGeneration) -> list[torch.nn.Module]:
        inner = model.model
        return [
            inner.vision_tower,
            inner.multi_modal_projector,
            inner.grounding_encoder,
            inner.language_model,
            model.lm_head,
            inner.box_decoder,
        ]

    def _parts(self, model: GroveForConditionalGeneration, timer: PartTimer) -> dict[torch.nn.Module, Any]:
        """Which module counts as which part. The head belongs to whatever ran the language model before it."""

        def phase(inputs: dict[str, Any]) -> str:
            if not inputs["use_cache"]:
                timer.phase = "language model over captions"
            else:
                timer.phase = "prefill" if inputs["inputs_embeds"].shape[1] > 1 else "decode steps"
            return timer.phase

        names = ["vision encoder", "projector", "grounding encoder", phase, lambda _: timer.phase, "box decoder"]
        return dict(zip(self._watched(model), names, strict=True))

    @torch.no_grad()
    def run_ours(self, timer: PartTimer) -> Tensor:
        batch = self.options.batch_size
        with timer.part("decode"):
            clips = [read_video(self.video) for _ in range(batch)]
        with timer.part("preprocess"):
            inputs = self.processor(clips, return_tensors="pt")
        optional = {}
        if self.options.window_batch_size is not None:
            optional["window_batch_size"] = self.options.window_batch_size
        if self.options.compile and self.device == "cuda":
            optional["cache_implementation"] = "static"
        with timer.watching(self._parts(self.model, timer)):
            outputs = self.model.generate_grounded(
                self.input_ids,
                inputs["pixel_values_videos"],
                inputs["grounding_pixel_values_videos"],
                logits_processor=LogitsProcessorList([ForcedCaption(self.input_ids.shape[1], self.caption_ids)]),
                max_new_tokens=len(self.caption_ids),
                do_sample=False,
                **optional,
            )
        assert outputs.pred_boxes is not None
        return outputs.pred_boxes

    @torch.no_grad()
    def run_original(self, timer: PartTimer) -> Tensor:
        assert self.original is not None
        schedule = OriginalSchedule(self.original, timer, self.caption_ids)
        boxes = []
        for row in range(self.options.batch_size):
            with timer.part("decode"):
                frames = decode_frames(self.video, FPS, STEP * self.options.frames, WIDTH, HEIGHT)
            with timer.part("preprocess"):
                inputs = self.processor([frames], do_sample_frames=False, return_tensors="pt")
            with timer.watching(self._parts(self.original, timer)):
                pixels, grounding_pixels = inputs["pixel_values_videos"][0], inputs["grounding_pixel_values_videos"][0]
                boxes.append(schedule(self.input_ids[row : row + 1], pixels, grounding_pixels))
        return torch.stack(boxes)

    def measure(self, name: str) -> tuple[dict[str, Any], Tensor]:
        """Total and parts of one run, and its boxes."""
        timer = PartTimer(self.device)
        reset_peak_memory(self.device)
        begin = clock(self.device)
        boxes = self.run_ours(timer) if name == "ours" else self.run_original(timer)
        end = clock(self.device)
        total = Seconds(end.wall - begin.wall, end.cpu - begin.cpu)
        parts = timer.parts()
        measured = [sum(getattr(part, kind) for part in parts.values()) for kind in ("wall", "cpu")]
        parts["rest"] = Seconds(total.wall - measured[0], total.cpu - measured[1])
        progress(f"{name}: {total.wall:.1f} s, {total.cpu:.1f} s of processor time")
        return {"total": total, "parts": parts, "peak_memory_bytes": peak_memory(self.device)}, boxes

    def windows_agree(self) -> Tensor:
        """`(T,)`: frames whose result comes from the same window in both schedules."""
        size, total = self.model.config.num_frames, self.options.frames
        covering, sliding = covering_windows(total, size), sliding_windows(total, size)[0]
        pairs = zip(first_occurrence(covering)[:, 0], first_occurrence(sliding)[:, 0], strict=True)
        return torch.tensor([bool((covering[a] == sliding[b]).all()) for a, b in pairs])


def median_run(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """The run with the median wall time, whole, so that its parts add up."""
    return sorted(runs, key=lambda run: run["total"].wall)[(len(runs) - 1) // 2]


def run_benchmark(options: argparse.Namespace) -> dict[str, Any]:
    """All measurements, as they are written to the file."""
    torch.manual_seed(options.seed)
    if options.threads:
        torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory() as folder:
        video = Path(folder) / "video.mp4"
        progress(f"building the {options.model} model and a video of {options.frames} sampled frames")
        write_video(video, STEP * options.frames, fps=FPS, width=WIDTH, height=HEIGHT)
        benchmark = Benchmark(options, video)
        names = ["ours"] + (["original"] if benchmark.original is not None else [])
        runs: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
        boxes: dict[str, Tensor] = {}
        warm_up(benchmark, names)
        dtype = benchmark.model.dtype
        size = {"tiny": 512, "mid": 3072, "full": 4096}[options.model]
        rates = [measure_rates(options.device, dtype, size)]
        for _ in range(options.repeat):
            for name in names:
                result, boxes[name] = benchmark.measure(name)
                runs[name].append(result)
            rates.append(measure_rates(options.device, dtype, size))
    best = {
        name: Seconds(max(rate[name].wall for rate in rates), max(rate[name].cpu for rate in rates))
        for name in rates[0]
    }
    config = benchmark.model.config
    num_windows = -(-options.frames // config.num_frames)
    flops = least_flops(
        benchmark.model, options.frames, num_windows, benchmark.input_ids.shape[1], benchmark.caption_ids
    )
    results: dict[str, Any] = {
        "options": {name: str(value) if isinstance(value, Path) else value for name, value in vars(options).items()},
        "dtype": str(dtype).removeprefix("torch."),
        "parameters": sum(parameter.numel() for parameter in benchmark.model.parameters()),
        "original_decodes_with": "ffmpeg, one process a frame" if has_ffmpeg() else "our decoder (no ffmpeg here)",
        "windows": {"ours": num_windows},
        "rates": {name: asdict(rate) for name, rate in best.items()},
        "least_flops": {name: options.batch_size * count for name, count in flops.items()},
        "runs": {name: [_plain(run) for run in runs[name]] for name in names},
        "median": {name: _plain(median_run(runs[name])) for name in names},
        **describe_machine(options.device),
    }
    results["floor"] = floor(results)
    if benchmark.original is not None:
        pairs = list(zip(runs["original"], runs["ours"], strict=True))
        results["windows"]["original"] = len(sliding_windows(options.frames, config.num_frames)[0])
        results["ratio"] = {
            kind: statistics.median(getattr(a["total"], kind) / max(getattr(b["total"], kind), 1e-9) for a, b in pairs)
            for kind in ("wall", "cpu")
        }
        agree = benchmark.windows_agree()
        difference = (boxes["ours"] - boxes["original"]).abs().cpu()[:, agree]
        results["parity"] = {
            "frames_compared": int(agree.sum()),
            "largest_box_difference": float(difference.max()) if difference.numel() else None,
        }
    return results


def warm_up(benchmark: Benchmark, names: list[str]) -> None:
    """One run of what is measured, where the first is much slower: on a GPU and when compiling."""
    if benchmark.device == "cuda" or benchmark.options.compile:
        for name in names:
            progress(f"warming up: {name}")
            benchmark.measure(name)


def floor(results: dict[str, Any]) -> dict[str, Any]:
    """
    Seconds that the least operations take at the rate of each large product, and how near we are, by wall and processor time. A
    share above 1 means that we multiply faster than that product does.
    """
    flops, parts = results["least_flops"], results["median"]["ours"]["parts"]
    total = results["median"]["ours"]["total"]
    needed, encoders = sum(flops.values()), sum(flops[name] for name in ENCODERS)
    return {
        product: {
            kind: {
                "seconds": needed / rate[kind],
                "share": needed / rate[kind] / max(total[kind], 1e-9),
                "encoders_share": encoders / rate[kind] / max(sum(parts[name][kind] for name in ENCODERS), 1e-9),
            }
            for kind in ("wall", "cpu")
        }
        for product, rate in results["rates"].items()
    }


def _plain(run: dict[str, Any]) -> dict[str, Any]:
    return {
        "total": asdict(run["total"]),
        "parts": {name: asdict(seconds) for name, seconds in run["parts"].items()},
        "peak_memory_bytes": run["peak_memory_bytes"],
    }


def table(results: dict[str, Any]) -> str:
    """The results for a reader."""
    options, median, flops = results["options"], results["median"], results["least_flops"]
    best_rate = max(rate["wall"] for rate in results["rates"].values())
    lines = [
        f"GROVE {options['model']} ({results['parameters'] / 1e6:.0f} M parameters), {options['frames']} frames, "
        f"{options['phrases']} phrases, {options['new_tokens']} tokens, batch of {options['batch_size']}; "
        f"{options['device']}, {results['dtype']}, {options['attention']}"
        + (", compiled" if options["compile"] else "")
        + (", vision adapters closed" if options["alpha_zero"] else ""),
        "",
        f"{'part':<30}"
        + "".join(f"{name + ' wall s':>16}{'share':>7}{'cpu s':>9}" for name in median)
        + f"{'floor s':>10}",
    ]
    for part in [*PARTS, "rest", "total"]:
        line = f"{part:<30}"
        for run in median.values():
            seconds = run["total"] if part == "total" else run["parts"].get(part, {"wall": 0.0, "cpu": 0.0})
            line += f"{seconds['wall']:>16.2f}{seconds['wall'] / run['total']['wall']:>7.1%}{seconds['cpu']:>9.2f}"
        count = sum(flops.values()) if part == "total" else flops.get(part)
        lines.append(line + (f"{count / best_rate:>10.3f}" if count else f"{'':>10}"))
    lines.append("")
    for name, run in median.items():
        memory = run["peak_memory_bytes"] / 2**30
        lines.append(f"{name}: {results['windows'][name]} windows a video, peak memory {memory:.2f} GiB")
    for name, rate in results["rates"].items():
        lines.append(f"{name}: {rate['wall'] / 1e9:.0f} GFLOP/s, {rate['cpu'] / 1e9:.0f} a second of processor time")
    for product, kinds in results["floor"].items():
        for kind, label in (("wall", "wall time"), ("cpu", "processor time")):
            if kind == "cpu" and options["device"] == "cuda":
                continue
            share = kinds[kind]
            lines.append(
                f"floor at the rate of the {product}, {label}: {share['seconds']:.2f} s; ours runs at {share['share']:.0%} of it, "
                f"the encoders at {share['encoders_share']:.0%}"
            )
    if "ratio" in results:
        parity = results["parity"]
        lines += [
            f"original decodes with {results['original_decodes_with']}",
            f"largest difference of boxes: {parity['largest_box_difference']} over {parity['frames_compared']} frames",
            f"ratio original / ours: {results['ratio']['wall']:.2f} by wall time, {results['ratio']['cpu']:.2f} by processor time",
        ]
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> None:
    options = parse_arguments(arguments)
    results = run_benchmark(options)
    print(table(results))
    if options.output is not None:
        options.output.parent.mkdir(parents=True, exist_ok=True)
        options.output.write_text(json.dumps(results, indent=2) + "\n")
        progress(f"wrote {options.output}")


if __name__ == "__main__":
    main()

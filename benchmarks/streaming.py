"""
Samples a second of the training stream, against other readers of the same shards and against bare decoding; and its memory.

    python benchmarks/streaming.py --output benchmarks/results/streaming.json

See `benchmarks/README.md` for what is compared and how to read the numbers.
"""

import argparse
import gc
import io
import json
import multiprocessing
import os
import shutil
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import av
import numpy as np
import psutil  # type: ignore[import-untyped]
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # run from a checkout, installed or not
if __name__ == "__main__":
    os.environ.setdefault("HF_HUB_OFFLINE", "1")  # all shards are local; read on import

import datasets
import webdataset

from dataset_builders.features import sample_features
from dataset_builders.record import to_record
from dataset_builders.stream import GroundedCaptionStream, StreamSource
from dataset_builders.stream_samples import EncodedSample
from dataset_builders.tar_shards import write_shard
from eval.provenance import describe_machine
from modeling_grove.grounded_caption import GroundedCaption, PhraseTrack, atomic_path
from modeling_grove.text_grove import read_tagged_caption
from modeling_grove.video_grove import sampled_frame_indices
from modeling_grove.windows_grove import segment_midpoints

FPS, WIDTH, HEIGHT, STEP = 25, 320, 240, 5  # one frame in five is annotated, at 5 a second
BYTES_A_CLIP = 88_000
WINDOW, BATCH = 8, 4  # frames of a sample, samples of a batch
DISTINCT_CLIPS = 16  # encoding is slow, and readers do not look at the pixels
TAGGED = "<p>A woman</p> in <p>a red apron</p> puts <p>two onions</p> on <p>a wooden board</p> and cuts them."


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=2000, help="clips with video (default: 2000)")
    parser.add_argument("--shards", type=int, default=8, help="shards that they are in (default: 8)")
    parser.add_argument("--frames", type=int, default=125, help="frames of a clip (default: 125)")
    parser.add_argument("--clips", type=int, default=400, help="clips that are decoded in a run (default: 400)")
    parser.add_argument("--ffmpeg-clips", type=int, default=8, help="of them with one ffmpeg a frame; 0 leaves it out")
    parser.add_argument("--processes", type=int, default=2, help="processes that decode (default: 2)")
    parser.add_argument("--memory-samples", type=int, default=100_000, help="json-only samples read for memory")
    parser.add_argument("--repeat", type=int, default=5, help="runs of everything, in turn (default: 5)")
    parser.add_argument("--folder", type=Path, help="where the shards are kept for another run (default: nowhere)")
    parser.add_argument("--output", type=Path, help="where to write the results as JSON")
    options = parser.parse_args(arguments)
    for name in ("samples", "shards", "frames", "clips", "processes", "memory_samples", "repeat"):
        if getattr(options, name) < 1:
            parser.error(f"--{name.replace('_', '-')} is {getattr(options, name)}; it must be at least 1")
    if max(options.clips, options.ffmpeg_clips, options.shards) > options.samples:
        parser.error(f"--clips, --ffmpeg-clips and --shards must be at most --samples {options.samples}")
    return options


def progress(message: str) -> None:
    print(f"[{time.strftime('%H:%M:%S')}] {message}", file=sys.stderr, flush=True)


# ------------------------------------------------------------------------------------------------ the data


def make_clip(seed: int, num_frames: int) -> bytes:
    """An H.264 clip of `BYTES_A_CLIP` at 125 frames: a grainy picture that moves."""
    rng = np.random.default_rng(seed)
    rows, cols = np.mgrid[: HEIGHT + 64, : WIDTH + 64]
    scene = np.stack([128 + 80 * np.sin(rows / (11 + c) + cols / (23 + 5 * c) + seed) for c in range(3)], axis=-1)
    scene += rng.normal(0, 12, scene.shape)
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=FPS)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        stream.bit_rate = BYTES_A_CLIP * 8 * FPS // 125
        for index in range(num_frames):
            top, left = (int(32 + 31 * np.sin(index / period + seed)) for period in (17, 23))
            image = scene[top : top + HEIGHT, left : left + WIDTH] + rng.normal(0, 3, (HEIGHT, WIDTH, 3))
            frame = av.VideoFrame.from_ndarray(image.clip(0, 255).astype(np.uint8), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return buffer.getvalue()


def make_record(video_id: str, clip_id: int, num_frames: int) -> dict[str, Any]:
    """A record of four phrases, which are in half of the frames."""
    rng = np.random.default_rng([clip_id, num_frames])
    caption, phrases = read_tagged_caption(TAGGED)
    indices = np.array(sampled_frame_indices(FPS, 0, num_frames - 1))
    tracks = []
    for phrase in phrases:
        low = rng.uniform(0, [WIDTH / 2, HEIGHT / 2], (len(indices), 2))
        presence = rng.random(len(indices)) < 0.5
        presence[len(indices) // 2] = True
        boxes = np.concatenate([low, low + rng.uniform(8, HEIGHT / 2, low.shape)], axis=1).astype(np.float32)
        tracks.append(PhraseTrack(phrase.text, phrase.span, boxes, presence, presence.astype(np.float32)))
    whole = GroundedCaption(
        caption=caption,
        tracks=tuple(tracks),
        video_id=video_id,
        clip_id=clip_id,
        video_fname=f"{video_id}.mp4",
        fps=FPS,
        width=WIDTH,
        height=HEIGHT,
        clip_start_frame=0,
        clip_end_frame=num_frames - 1,
        frame_indices=indices,
        timestamps=indices / FPS,
    )
    return to_record(whole, {"clip": {"first_frame": 0, "num_frames": num_frames, "cut": "encode"}})


def make_shards(folder: Path, samples: int, shards: int, num_frames: int, with_video: bool) -> list[Path]:
    """Shards of equal size with a manifest, as a repository has; those of an earlier run are taken as they are."""
    folder = folder / f"{'video' if with_video else 'json'}-{samples}-{shards}-{num_frames}"
    folder.mkdir(parents=True, exist_ok=True)
    clips: list[bytes] = []
    paths = []
    for shard in range(shards):
        path = folder / f"train-{shard:05d}-of-{shards:05d}.tar"
        paths.append(path)
        if path.exists():
            continue
        if with_video and not clips:
            progress(f"encoding {DISTINCT_CLIPS} clips of {num_frames} frames")
            clips = [make_clip(seed, num_frames) for seed in range(DISTINCT_CLIPS)]
            progress(f"they have {sum(map(len, clips)) / len(clips) / 1000:.0f} kB each")
        template = [make_record("video", seed, num_frames) for seed in range(DISTINCT_CLIPS)]
        numbers = range(shard * samples // shards, (shard + 1) * samples // shards)
        write_shard(path, (_sample(number, template, clips) for number in numbers))
    sizes = [(shard + 1) * samples // shards - shard * samples // shards for shard in range(shards)]
    entries = [{"name": path.name, "num_samples": size} for path, size in zip(paths, sizes, strict=True)]
    manifest = {"configs": {"default": {"with_video": False, "splits": {"train": {"shards": entries}}}}}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return paths


def _sample(number: int, records: list[dict[str, Any]], clips: list[bytes]) -> tuple[str, dict[str, bytes]]:
    record = {**records[number % DISTINCT_CLIPS], "clip_id": number}
    content = {"json": json.dumps(record).encode()}
    return f"video_{number}", {**content, "mp4": clips[number % DISTINCT_CLIPS]} if clips else content


# ------------------------------------------------------------------------------- reading, in one process


def read_ours(shards: list[Path]) -> int:
    stream = GroundedCaptionStream(shards[0].parent, decode=False, repeat=False)
    return sum(1 for sample in stream if isinstance(sample, EncodedSample) and sample.record and sample.mp4)


def read_tarfile(shards: list[Path]) -> int:
    """Every member's bytes, and nothing else: no samples, no JSON, no order."""
    count = 0
    for path in shards:
        with tarfile.open(path, "r:") as tar:
            for member in tar:
                file = tar.extractfile(member)
                assert file is not None
                count += bool(file.read()) and member.name.endswith(".mp4")
    return count


def read_webdataset(shards: list[Path]) -> int:
    samples = webdataset.WebDataset([str(path) for path in shards], shardshuffle=False, empty_check=False)
    return sum(1 for sample in samples if json.loads(sample["json"]) and sample["mp4"])


def read_datasets(shards: list[Path]) -> int:
    files = {"train": [str(path) for path in shards]}
    samples = datasets.load_dataset(
        "webdataset", data_files=files, split="train", streaming=True, features=sample_features(with_video=True)
    )
    return sum(1 for sample in samples.decode(False) if sample["json"] and sample["mp4"]["bytes"])


# --------------------------------------------------------------------------------- decoding, in processes


def stack(samples: list[Any]) -> torch.Tensor:
    return torch.from_numpy(np.stack([sample.frames for sample in samples]))


def decode_ours(shards: list[Path], clips: int, processes: int) -> int:
    """Through the loader, as training does: shuffled, checked, with the captions, and brought to this process."""
    stream = GroundedCaptionStream(shards[0].parent, repeat=False, frames="midpoints", num_frames=WINDOW)
    loader = stream.loader(BATCH, processes, stack)
    return sum(len(batch) for batch in islice(loader, -(-clips // BATCH)))


def decode_pyav(data: bytes, wanted: list[int]) -> np.ndarray:
    """The least that gives these frames: one pass, one thread, no checks."""
    frames = {}
    with av.open(io.BytesIO(data)) as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_count = 1
        for index, frame in enumerate(container.decode(stream)):
            if index in wanted:
                frames[index] = frame.to_ndarray(format="rgb24")
            if index >= wanted[-1]:
                break
    return np.stack([frames[index] for index in wanted])


def decode_ffmpeg(data: bytes, wanted: list[int]) -> np.ndarray:
    """A process for every frame, as in the original."""
    frames = []
    with tempfile.NamedTemporaryFile(suffix=".mp4") as file:
        file.write(data)
        file.flush()
        for index in wanted:
            command = ["ffmpeg", "-loglevel", "error", "-ss", str(index / FPS), "-i", file.name, "-frames:v", "1"]
            command += ["-f", "rawvideo", "-pix_fmt", "rgb24", "pipe:"]
            raw = subprocess.run(command, capture_output=True, check=True).stdout
            frames.append(np.frombuffer(raw, np.uint8).reshape(HEIGHT, WIDTH, 3))
    return np.stack(frames)


def decode_all(decode: Callable[[bytes, list[int]], np.ndarray], shards: list[Path], clips: int) -> int:
    """Decodes the first clips of the shards one after another; runs in a process."""
    wanted: list[int] = []
    for data in islice(_mp4s(shards), clips):
        if not wanted:
            with av.open(io.BytesIO(data)) as container:
                annotated = sampled_frame_indices(FPS, 0, container.streams.video[0].frames - 1)
            wanted = [annotated[position] for position in segment_midpoints(len(annotated), WINDOW)]
        assert decode(data, wanted).shape == (WINDOW, HEIGHT, WIDTH, 3)
    return clips


def _mp4s(shards: list[Path]) -> Iterator[bytes]:
    for path in shards:
        with tarfile.open(path, "r:") as tar:
            for member in tar:
                if member.name.endswith(".mp4"):
                    file = tar.extractfile(member)
                    assert file is not None
                    yield file.read()


def decode_bare(
    decode: Callable[[bytes, list[int]], np.ndarray], shards: list[Path], clips: int, processes: int
) -> int:
    """The clips, dealt to processes that decode them and keep nothing."""
    counts = [clips * (i + 1) // processes - clips * i // processes for i in range(processes)]
    workers = [
        multiprocessing.get_context("fork").Process(target=decode_all, args=(decode, shards, count)) for count in counts
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert all(worker.exitcode == 0 for worker in workers)
    return clips


# ---------------------------------------------------------------------------------------------- measuring


def rates(runs: dict[str, Callable[[], int]], repeat: int) -> dict[str, dict[str, list[float]]]:
    """
    Samples of each a second of wall time, and a second of processor time of this process and its workers. Measured in turn,
    after one run of each that fills the caches.
    """
    found: dict[str, dict[str, list[float]]] = {name: {"wall": [], "cpu": []} for name in runs}
    for turn in range(repeat + 1):
        for name, run in runs.items():
            gc.collect()  # not in the time of the next one; and see `StreamLoader.__iter__`
            wall, cpu = time.perf_counter(), sum(os.times()[:4])
            count = run()
            wall, cpu = time.perf_counter() - wall, sum(os.times()[:4]) - cpu
            if turn:
                found[name]["wall"].append(count / wall)
                found[name]["cpu"].append(count / max(cpu, 1e-3))
        if turn:
            progress(", ".join(f"{name} {values['wall'][-1]:.0f}/s" for name, values in found.items()))
    return found


def ratios(found: dict[str, dict[str, list[float]]]) -> dict[str, dict[str, float]]:
    """Median over the turns of our rate by each other one's."""
    return {
        name: {
            kind: statistics.median(a / b for a, b in zip(found["ours"][kind], values[kind], strict=True))
            for kind in ("wall", "cpu")
        }
        for name, values in found.items()
        if name != "ours"
    }


def measure_memory(shards: list[Path], samples: int) -> dict[str, Any]:
    """Resident bytes of a process at every tenth of a pass, and how long it takes to begin in the middle of it."""
    process = psutil.Process()
    consumer = GroundedCaptionStream(shards[0].parent, decode=False, repeat=False).consumer()
    resident, begin = [], time.perf_counter()
    for number, _ in enumerate(consumer, start=1):
        if number % max(samples // 10, 1) == 0:
            resident.append(process.memory_info().rss)
    seconds = time.perf_counter() - begin
    begin = time.perf_counter()
    stream = GroundedCaptionStream(StreamSource(shards), decode=False, repeat=False)  # without the manifest
    opened = time.perf_counter()
    next(iter(stream.consumer(start=samples // 2)))
    return {
        "samples": samples,
        "samples_per_second": samples / seconds,
        "resident_bytes": resident,
        "growth": resident[-1] / resident[0] - 1,
        "seconds_to_count_shards": opened - begin,
        "seconds_to_resume": time.perf_counter() - opened,
    }


@contextmanager
def working_folder(folder: Path | None) -> Iterator[Path]:
    if folder is not None:
        yield folder
        return
    with tempfile.TemporaryDirectory() as temporary:
        yield Path(temporary)


def run_benchmark(options: argparse.Namespace) -> dict[str, Any]:
    """All measurements, as they are written to the file."""
    torch.set_num_threads(1)
    datasets.disable_progress_bars()
    with working_folder(options.folder) as folder:
        progress("making the shards")
        shards = make_shards(folder, options.samples, options.shards, options.frames, with_video=True)
        num_small = max(options.memory_samples // 1000, 1)
        small = make_shards(folder, options.memory_samples, num_small, options.frames, with_video=False)
        progress("reading, in one process")
        readers = {"ours": read_ours, "tarfile": read_tarfile, "webdataset": read_webdataset, "datasets": read_datasets}
        reading = rates({name: partial(read, shards) for name, read in readers.items()}, options.repeat)
        progress(f"decoding {WINDOW} of {options.frames} frames, in {options.processes} processes")
        arguments = (shards, options.clips, options.processes)
        decoders: dict[str, Callable[[], int]] = {
            "ours": partial(decode_ours, *arguments),
            "pyav": partial(decode_bare, decode_pyav, *arguments),
        }
        ffmpeg = shutil.which("ffmpeg") is not None and options.ffmpeg_clips > 0
        if ffmpeg:
            decoders["ffmpeg"] = partial(decode_bare, decode_ffmpeg, shards, options.ffmpeg_clips, options.processes)
        decoding = rates(decoders, options.repeat)
        progress("reading json-only samples, for the memory")
        with multiprocessing.get_context("spawn").Pool(
            1
        ) as pool:  # a new process, so that what came before is not in it
            memory = pool.apply(measure_memory, (small, options.memory_samples))
        clip = next(_mp4s(shards))
    return {
        "options": {name: value for name, value in vars(options).items() if not isinstance(value, Path)},
        "bytes_per_clip": len(clip),
        "reading": {"samples_per_second": reading, "ratio_of_ours": ratios(reading)},
        "decoding": {"clips_per_second": decoding, "ratio_of_ours": ratios(decoding), "ffmpeg": ffmpeg},
        "memory": memory,
        **describe_machine("cpu"),
    }


def table(results: dict[str, Any]) -> str:
    """The results for a reader."""
    options, memory = results["options"], results["memory"]
    lines = [
        f"{options['samples']} clips of {options['frames']} frames, {WIDTH} x {HEIGHT}, "
        f"{results['bytes_per_clip'] / 1000:.0f} kB; medians of {options['repeat']} runs in turn",
        "",
        f"{'reading, 1 process':<36}{'samples/s':>10}{'ours by it':>12}{'by cpu time':>12}",
    ]
    named = {
        "ours": "this stream, without decoding",
        "tarfile": "tarfile, bytes alone",
        "webdataset": "webdataset + json",
        "datasets": "datasets, streaming, not decoded",
    }
    lines += _rows(results["reading"]["samples_per_second"], results["reading"]["ratio_of_ours"], named)
    heading = f"decoding {WINDOW} frames, {options['processes']} processes"
    lines += ["", f"{heading:<36}{'clips/s':>10}{'ours by it':>12}{'by cpu time':>12}"]
    named = {"ours": "this stream, through its loader", "pyav": "bare PyAV", "ffmpeg": "one ffmpeg a frame"}
    lines += _rows(results["decoding"]["clips_per_second"], results["decoding"]["ratio_of_ours"], named)
    if not results["decoding"]["ffmpeg"]:
        lines.append("one ffmpeg a frame: not measured (no ffmpeg here, or left out)")
    resident = " ".join(f"{value / 2**20:.0f}" for value in memory["resident_bytes"])
    lines += [
        "",
        f"memory over {memory['samples']} json-only samples, MiB at each tenth: {resident} ({memory['growth']:+.1%})",
        f"resuming in the middle of them: {memory['seconds_to_resume']:.2f} s; "
        f"counting them, where there is no manifest: {memory['seconds_to_count_shards']:.2f} s",
    ]
    return "\n".join(lines)


def _rows(
    found: dict[str, dict[str, list[float]]], ratio: dict[str, dict[str, float]], named: dict[str, str]
) -> list[str]:
    lines = []
    for name, values in found.items():
        lines.append(f"{named[name]:<36}{statistics.median(values['wall']):>10.1f}")
        if name in ratio:
            lines[-1] += f"{ratio[name]['wall']:>12.2f}{ratio[name]['cpu']:>12.2f}"
    return lines


def main(arguments: list[str] | None = None) -> None:
    options = parse_arguments(arguments)
    results = run_benchmark(options)
    print(table(results))
    if options.output is not None:
        options.output.parent.mkdir(parents=True, exist_ok=True)
        with atomic_path(options.output) as temporary:
            temporary.write_text(json.dumps(results, indent=2) + "\n")
        progress(f"wrote {options.output}")


if __name__ == "__main__":
    main()

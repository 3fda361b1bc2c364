"""
Captions videos and ties every noun phrase to boxes, from the command line.

    python -m modeling_grove clip.mp4 --model DIR_OR_ID --output results --open
    python -m modeling_grove clip.mp4 --model DIR_OR_ID --caption "A <p>dog</p> runs." --json
"""

import argparse
import json
import logging
import os
import sys
import webbrowser
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

import torch
from huggingface_hub.errors import HfHubHTTPError, HFValidationError
from huggingface_hub.utils import disable_progress_bars
from huggingface_hub.utils import logging as hub_logging
from tqdm import tqdm
from transformers.utils import logging as transformers_logging

from .grounded_caption import GroundedCaption
from .report_grove import write_report

logger = logging.getLogger("modeling_grove")


class _Parser(argparse.ArgumentParser):
    """A parser whose errors are one line."""

    def error(self, message: str) -> NoReturn:
        raise SystemExit(_complain(f"{message} (see --help)"))


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="python -m modeling_grove",
        description="Caption videos and ground every noun phrase in every sampled frame.",
        epilog="example: python -m modeling_grove clip.mp4 --model checkpoints/grove-demo --output results",
    )
    parser.add_argument("videos", nargs="+", metavar="VIDEO", help="path or URL of a video")
    parser.add_argument(
        "--model", default="org/grove", metavar="DIR|ID", help="model directory or Hub id (default: %(default)s)"
    )
    parser.add_argument("--revision", help="branch, tag or commit of a Hub model")
    parser.add_argument(
        "--output",
        type=Path,
        default=Path("grove_output"),
        metavar="DIR",
        help="where results go (default: %(default)s)",
    )
    parser.add_argument("--json", action="store_true", help="print each result as one JSON line on standard output")
    parser.add_argument(
        "--no-render", action="store_true", help="write the JSON only, no annotated video, contact sheet and report"
    )
    parser.add_argument(
        "--open",
        action="store_true",
        help="show the report, a page that needs neither network nor server, in the browser (of several the first)",
    )

    text = parser.add_argument_group("caption")
    text.add_argument(
        "--caption",
        help="ground this caption instead of generating one; mark phrases as <p>...</p> or name them with --phrase",
    )
    text.add_argument(
        "--phrase",
        action="append",
        dest="phrases",
        metavar="TEXT",
        help="a phrase of --caption to ground; repeat for more",
    )
    text.add_argument(
        "--max-new-tokens", type=int, default=64, help="longest generated caption in tokens (default: %(default)s)"
    )
    text.add_argument("--num-beams", type=int, default=1, help="beam search width; 1 is greedy (default: %(default)s)")

    part = parser.add_argument_group("part of the video")
    part.add_argument("--start-time", type=float, metavar="SECONDS", help="where to start (default: the beginning)")
    part.add_argument("--end-time", type=float, metavar="SECONDS", help="where to end (default: the end)")
    part.add_argument(
        "--fps", type=float, default=5.0, help="frames sampled a second (default: %(default)s, as in training)"
    )
    part.add_argument(
        "--clip-seconds",
        type=float,
        metavar="SECONDS",
        help="cut the video into clips of this length, each with a caption of its own; for long videos",
    )

    how = parser.add_argument_group("inference")
    how.add_argument(
        "--objectness-threshold",
        type=float,
        metavar="P",
        help="a phrase is present above this probability (default: the model's)",
    )
    how.add_argument(
        "--windows",
        choices=("covering", "sliding"),
        default="covering",
        help="fewest windows, or the original's set for its exact numbers (default: %(default)s)",
    )
    how.add_argument(
        "--window-batch-size",
        type=int,
        default=4,
        help="windows processed at once; lower it when memory runs out (default: %(default)s)",
    )
    how.add_argument("--device", help="cpu, cuda, cuda:1, ... (default: the first accelerator, else cpu)")
    how.add_argument(
        "--dtype",
        choices=("auto", "float32", "bfloat16", "float16"),
        default="auto",
        help="precision (default: that of the checkpoint)",
    )
    return parser


def _check(args: argparse.Namespace) -> None:
    """What the parser cannot know; raises ValueError."""
    if args.phrases and args.caption is None:
        raise ValueError("--phrase needs --caption, the text that the phrases are in.")
    if args.caption is not None and args.clip_seconds is not None:
        raise ValueError("--caption grounds one clip; it cannot be combined with --clip-seconds.")
    if args.open and args.no_render:
        raise ValueError("--open shows the report, which --no-render leaves out; give one of them.")
    if args.objectness_threshold is not None and not 0 <= args.objectness_threshold <= 1:
        raise ValueError(f"--objectness-threshold is {args.objectness_threshold}; expected a probability in [0, 1].")
    for name in ("max_new_tokens", "num_beams", "window_batch_size", "fps", "clip_seconds"):
        value = getattr(args, name)
        if value is not None and value <= 0:
            raise ValueError(f"--{name.replace('_', '-')} is {value}; expected a positive number.")
    if args.device is not None:
        try:
            kind = torch.device(args.device).type
        except RuntimeError as error:
            raise ValueError(f"--device is {args.device!r}; expected cpu, cuda, cuda:1, mps, ...") from error
        if kind == "cuda" and not torch.cuda.is_available():
            raise ValueError(f"--device is {args.device!r}, but torch sees no CUDA GPU; leave it out or give cpu.")
    for video in args.videos:
        rendered = args.output / f"{Path(video).stem}.mp4"
        if not args.no_render and os.path.exists(video) and rendered.exists() and rendered.samefile(video):
            raise ValueError(f"The annotated video would overwrite {video!r}; give another --output, or --no-render.")
    names = [Path(video).stem for video in args.videos]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(
                f"Two videos are named {name!r} and their results would overwrite each other; run them with different --output."
            )


def _load(args: argparse.Namespace) -> Any:
    """The pipeline; raises ValueError with one line when the model cannot be had."""
    from transformers import pipeline

    options = {"device": args.device} if args.device else {}
    try:
        return pipeline(
            "grounded-video-captioning", model=args.model, revision=args.revision, dtype=args.dtype, **options
        )
    # AssertionError: what PyTorch raises for a device that it was not built for.
    except (OSError, HfHubHTTPError, HFValidationError, ValueError, RuntimeError, AssertionError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ValueError(
            f"Cannot load a GROVE model from {args.model!r}: {reason.rstrip('.')}. Expected a directory or Hub id of a "
            "converted checkpoint (see `python -m modeling_grove.convert_grove --help`)."
        ) from error


class _Progress:
    """One bar on standard error for the stages of a video; none where that is not a terminal."""

    def __init__(self) -> None:
        self.bar = tqdm(disable=None, leave=False, bar_format="{desc}: {n_fmt}/{total_fmt} [{elapsed}<{remaining}]")
        self.stage = ""

    def __call__(self, stage: str, done: int, total: int) -> None:
        if self.stage != stage:
            self.stage = stage
            self.bar.reset(total)
            self.bar.set_description(stage)
        self.bar.n = done
        self.bar.refresh()

    def close(self) -> None:
        self.bar.close()


def _run(captioner: Any, video: str, args: argparse.Namespace, progress: _Progress) -> Iterator[GroundedCaption]:
    """The grounded captions of one video: one, or one for each clip."""
    options: dict[str, Any] = {"on_progress": progress}
    options |= {
        name: getattr(args, name)
        for name in ("start_time", "end_time", "fps", "objectness_threshold", "windows", "window_batch_size")
        if getattr(args, name) is not None
    }
    if args.caption is None:
        options |= {"max_new_tokens": args.max_new_tokens, "num_beams": args.num_beams}
    if args.clip_seconds is not None:
        yield from captioner.stream(video, clip_seconds=args.clip_seconds, **options)
        return
    if args.caption is not None:
        options |= {"caption": args.caption} | ({"phrases": args.phrases} if args.phrases else {})
    yield captioner(video, **options)


def _write(result: GroundedCaption, video: str, args: argparse.Namespace) -> list[Path]:
    """Writes one result, in files named after the video and, for clips, their first frame."""
    args.output.mkdir(parents=True, exist_ok=True)
    stem = result.key if args.clip_seconds is not None else result.video_id
    paths = [args.output / f"{stem}.json"]
    result.save(paths[0])
    if not args.no_render:
        paths += [args.output / f"{stem}{suffix}" for suffix in (".mp4", ".png", ".html")]
        result.render(video, paths[1])
        result.contact_sheet(video, paths[2])
        write_report(result, video, paths[3], threshold=args.objectness_threshold)
    return paths


def _open(report: Path) -> None:
    if not webbrowser.open(report.resolve().as_uri()):
        logger.info("no browser here; open %s yourself", report)


def _describe(result: GroundedCaption) -> str:
    """A few lines for a person."""
    lines = [f"{result.video_id}, frames {result.clip_start_frame}-{result.clip_end_frame}: {result.caption}"]
    for track in result.tracks:
        lines.append(f"  {track.phrase}: visible in {int(track.presence.sum())} of {result.num_frames} sampled frames")
    return "\n".join(lines)


def _complain(message: str) -> int:
    print(f"error: {' '.join(message.split())}", file=sys.stderr)
    return 2


def _configure_logging() -> None:
    """Our progress to standard error; from the libraries errors only, and progress bars only to a terminal."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(message)s"))
    logger.handlers[:] = [handler]
    logger.setLevel(logging.INFO)
    logger.propagate = False
    transformers_logging.set_verbosity_error()
    hub_logging.set_verbosity_error()
    if not sys.stderr.isatty():
        disable_progress_bars()
        transformers_logging.disable_progress_bar()


def main(arguments: list[str] | None = None) -> int:
    """Runs the command; returns its exit status: 0, 2 when something asked for could not be done, 130 when interrupted."""
    args = _parser().parse_args(arguments)
    _configure_logging()
    try:
        _check(args)
        captioner = _load(args)
    except ValueError as error:
        return _complain(str(error))
    status, opened = 0, False
    for index, video in enumerate(args.videos, start=1):
        logger.info("[%d/%d] %s", index, len(args.videos), video)
        progress = _Progress()
        try:
            for result in _run(captioner, video, args, progress):
                progress("writing", 0, 1)
                paths = _write(result, video, args)
                print(json.dumps(result.to_dict()) if args.json else _describe(result), flush=True)
                logger.info("wrote %s", ", ".join(map(str, paths)))
                if args.open and not opened:
                    _open(paths[-1])
                    opened = True
        except (ValueError, OSError) as error:
            # The other videos still get their results.
            status = _complain(f"{video}: {error}")
        except torch.OutOfMemoryError:
            status = _complain(f"{video}: out of memory; lower --window-batch-size, or give a part or --clip-seconds.")
        except KeyboardInterrupt:
            _complain("interrupted; what is written stays.")
            return 130
        finally:
            progress.close()
    return status


if __name__ == "__main__":
    sys.exit(main())

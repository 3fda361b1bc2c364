"""
How clips are annotated: the settings of the three stages, their checks, and the arguments that the commands share.

Back ends have names; a model is a folder or a Hub id, which may have a revision behind an `@`:

| name | what it is |
|---|---|
| `shapes:FILE` | captioner: the truth of GroundedShapes with errors |
| `colours` | captioner: large regions of one colour; needs no model, and knows no things |
| `glamm:MODEL` | captioner: a converted GLaMM |
| `kosmos2:MODEL`, `florence2:MODEL`, `qwen:MODEL` | captioners that transformers has itself |
| `rules` | stages 2 and 3 without a language model |
| `transformers:MODEL` | stages 2 and 3 by a language model that runs here; `transformers` alone is Llama-2, as in the paper |
| `http:MODEL@URL` | the same by a server of OpenAI's chat protocol |
| `grove:MODEL`, `git:MODEL` | stage 2 by a captioner of videos |
| `bytetrack`, `sam2:MODEL` | stage 3 by a tracker |
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from .facts import DEFAULT_SPACY_MODEL
from .phrase_tracks import AS_IN_THE_PAPER, TrackOptions
from .video_captions import CaptionChecks

NO_CAPTIONER = "(none)"  # of commands without stage 1
FRAME_CAPTIONERS = ("glamm", "kosmos2", "florence2", "qwen", "shapes")
COLOURS, BYTETRACK = "colours", "bytetrack"
VIDEO_CAPTIONERS = ("grove", "git")
QUANTIZATIONS = ("4bit", "8bit")


@dataclass(frozen=True)
class StageSettings:
    """
    How clips are annotated.

    Args:
        captioner (`str`): of stage 1, by name.
        language_model (`str`, *optional*, defaults to `"rules"`): of stages 2 and 3, by name.
        quantization (`str`, *optional*): "4bit" or "8bit", of a language model that runs here.
        video_captioner (`str`, *optional*): in place of stage 2's language model, by name.
        tracker (`str`, *optional*): in place of labels from frame to frame in stage 3, by name.
        similarity (`str`, *optional*): encoder of sentences that helps the rules of stage 3, folder or Hub id.
        spacy (`str`, *optional*, defaults to `"en_core_web_sm"`): pipeline of stage 2.
        whole_captions (`bool`, *optional*, defaults to `False`): give the language model whole captions.
        by_likelihood (`bool`, *optional*, defaults to `False`): take the most likely label.
        fps (`float`, *optional*, defaults to 5.0): frames a second.
        batch_size (`int`, *optional*, defaults to 16): frames at a time.
        seed (`int`, *optional*, defaults to 0): of what is drawn.
        checks ([`CaptionChecks`], *optional*), tracks ([`TrackOptions`], *optional*): of stages 2 and 3.

    Raises:
        `ValueError`: if a number is outside its range, a name is none of the module's table, or two settings do not go together.
    """

    captioner: str
    language_model: str = "rules"
    quantization: str | None = None
    video_captioner: str | None = None
    tracker: str | None = None
    similarity: str | None = None
    spacy: str = DEFAULT_SPACY_MODEL
    whole_captions: bool = False
    by_likelihood: bool = False
    fps: float = 5.0
    batch_size: int = 16
    seed: int = 0
    checks: CaptionChecks = CaptionChecks()  # noqa: RUF009 (frozen)
    tracks: TrackOptions = AS_IN_THE_PAPER

    def __post_init__(self) -> None:
        if not 0 < self.fps < float("inf") or self.batch_size < 1 or self.seed < 0:
            got = f"--fps {self.fps}, --batch-size {self.batch_size}, --seed {self.seed}"
            raise ValueError(f"{got}; expected more than 0, at least 1 and at least 0")
        if self.captioner != NO_CAPTIONER:
            _check_name("captioner", self.captioner, FRAME_CAPTIONERS, COLOURS)
        if not re.fullmatch(r"rules|transformers(:.+)?|http:.+@.+", self.language_model):
            raise ValueError(
                f"--language-model: got {self.language_model!r}; expected rules, transformers[:MODEL] or http:MODEL@URL"
            )
        if self.video_captioner is not None:
            _check_name("video-captioner", self.video_captioner, VIDEO_CAPTIONERS)
        if self.tracker is not None:
            _check_name("tracker", self.tracker, ("sam2",), BYTETRACK)
        here = self.language_model.startswith("transformers")
        if self.by_likelihood and not here:
            raise ValueError(f"--by-likelihood: only transformers:MODEL gives likelihoods, got {self.language_model!r}")
        if self.quantization not in (None, *QUANTIZATIONS) or (self.quantization and not here):
            got = f"{self.quantization!r} of {self.language_model!r}"
            raise ValueError(f"--quantize: got {got}; expected {' or '.join(QUANTIZATIONS)} of transformers:MODEL")
        if self.whole_captions and (self.language_model == "rules" or self.video_captioner is not None):
            raise ValueError(
                "--whole-captions: the rules read facts alone, a captioner of videos none; give a --language-model"
            )
        if self.similarity is not None and self.language_model != "rules":
            raise ValueError(
                f"--similarity: helps the rules, and the labels are by {self.language_model!r}; leave one out"
            )

    def to_dict(self) -> dict[str, Any]:
        """JSON types."""
        return asdict(self)


def _check_name(option: str, name: str, kinds: Sequence[str], alone: str | None = None) -> None:
    if name == alone or re.fullmatch(rf"({'|'.join(kinds)}):.+", name):
        return
    expected = [f"{kind}:{'FILE' if kind == 'shapes' else 'MODEL'}" for kind in kinds]
    if alone is not None:
        expected.append(alone)
    raise ValueError(f"--{option}: got {name!r}; expected {' or '.join(expected)}")


def split_revision(model: str) -> tuple[str, str | None]:
    """A model and its revision: of "org/name@main" both, of a folder, which may have an `@` in its name, no revision."""
    name, _, revision = model.rpartition("@")
    return (model, None) if not name or Path(model).exists() else (name, revision)


def add_stage1_arguments(parser: argparse.ArgumentParser) -> None:
    """What stage 1 needs to know."""
    parser.add_argument(
        "--captioner", required=True, metavar="NAME",
        help=f"{', '.join(FRAME_CAPTIONERS[:-1])}, with `:MODEL[@REVISION]`; shapes:FILE; {COLOURS}",
    )  # fmt: skip
    parser.add_argument("--fps", type=float, default=5.0, help="frames a second to caption (default: %(default)s)")
    parser.add_argument(
        "--batch-size", type=int, default=16, metavar="N", help="frames at a time (default: %(default)s)"
    )
    parser.add_argument("--seed", type=int, default=0, help="of what is drawn (default: %(default)s)")


def add_language_model_argument(parser: argparse.ArgumentParser) -> None:
    """What stages 2 and 3 have in common."""
    parser.add_argument(
        "--language-model", default="rules", metavar="NAME",
        help="rules, transformers[:MODEL[@REVISION]] (by default Llama-2) or http:MODEL@URL (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--quantize",
        choices=QUANTIZATIONS,
        help="weights of transformers:MODEL; needs a GPU and `pip install bitsandbytes`",
    )


def add_video_captioner_argument(parser: argparse.ArgumentParser) -> None:
    """A captioner of videos."""
    parser.add_argument(
        "--video-captioner", metavar="NAME",
        help=f"in place of the language model: {', '.join(VIDEO_CAPTIONERS)}, with `:MODEL[@REVISION]`",
    )  # fmt: skip


def add_stage2_arguments(parser: argparse.ArgumentParser) -> None:
    """What stage 2 needs to know beside the language model."""
    add_video_captioner_argument(parser)
    parser.add_argument(
        "--spacy", default=DEFAULT_SPACY_MODEL, metavar="MODEL", help="package or folder (default: %(default)s)"
    )
    parser.add_argument("--whole-captions", action="store_true", help="give the language model captions, not facts")
    parser.add_argument(
        "--max-words",
        type=int,
        default=CaptionChecks.max_words,
        metavar="N",
        help="of a caption (default: %(default)s)",
    )
    parser.add_argument("--allow-unknown-things", action="store_true", help="let a caption name what no frame mentions")


def add_tracker_argument(parser: argparse.ArgumentParser) -> None:
    """A tracker of boxes."""
    parser.add_argument(
        "--tracker", metavar="NAME", help=f"follow boxes from few frames: {BYTETRACK}, or sam2:MODEL[@REVISION]"
    )


def add_similarity_argument(parser: argparse.ArgumentParser) -> None:
    """An encoder of sentences."""
    parser.add_argument(
        "--similarity", metavar="MODEL", help="encoder of sentences for phrases that the rules cannot place"
    )


def add_stage3_arguments(parser: argparse.ArgumentParser) -> None:
    """What stage 3 needs to know beside the language model."""
    add_tracker_argument(parser)
    add_similarity_argument(parser)
    parser.add_argument(
        "--by-likelihood", action="store_true", help="take the label that `transformers` finds most likely"
    )
    parser.add_argument(
        "--min-score", type=float, default=0.0, metavar="X", help="of a box, in [0, 1] (default: %(default)s)"
    )
    parser.add_argument(
        "--reject-outliers", type=float, metavar="IOU",
        help="drop boxes with less than this IoU with those before and behind, which have it with each other",
    )  # fmt: skip
    parser.add_argument(
        "--fill-gaps", type=int, default=0, metavar="N", help="gaps of up to N frames (default: %(default)s)"
    )
    parser.add_argument(
        "--min-frames", type=int, default=1, metavar="N", help="of a phrase's boxes (default: %(default)s)"
    )


def settings_of(args: argparse.Namespace) -> StageSettings:
    """The settings of a command line; what it does not ask about is as by default."""
    given = vars(args)
    names = [field.name for field in fields(StageSettings) if field.name not in ("quantization", "checks", "tracks")]
    checks = CaptionChecks(
        max_words=given.get("max_words", CaptionChecks.max_words),
        known_things=not given.get("allow_unknown_things", False),
    )
    options = ("min_score", "reject_outliers", "fill_gaps", "min_frames")
    tracks = TrackOptions(**{name: given[name] for name in options if name in given})
    return StageSettings(
        **{"captioner": NO_CAPTIONER, **{name: given[name] for name in names if name in given}},
        quantization=given.get("quantize"),
        checks=checks,
        tracks=tracks,
    )


__all__ = [
    "BYTETRACK",
    "COLOURS",
    "FRAME_CAPTIONERS",
    "NO_CAPTIONER",
    "VIDEO_CAPTIONERS",
    "StageSettings",
    "add_language_model_argument",
    "add_similarity_argument",
    "add_stage1_arguments",
    "add_stage2_arguments",
    "add_stage3_arguments",
    "add_tracker_argument",
    "add_video_captioner_argument",
    "settings_of",
    "split_revision",
]

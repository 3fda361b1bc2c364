"""
Back ends by name, for the command lines and for the engine's processes, which load each once.

| name | what it is |
|---|---|
| `shapes:FILE` | captioner: the truth of GroundedShapes with errors |
| `glamm:MODEL` | captioner: a converted GLaMM, folder or Hub id |
| `kosmos2:MODEL`, `florence2:MODEL`, `qwen:MODEL` | captioners that transformers has itself |
| `rules` | stages 2 and 3 without a language model |
| `transformers:MODEL` | stages 2 and 3 by a language model that runs here |
| `http:MODEL@URL` | the same by a server of OpenAI's chat protocol |
"""

from __future__ import annotations

import argparse
import re
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from .captioners import FrameCaptioner
from .facts import DEFAULT_SPACY_MODEL, load_spacy
from .phrase_labels import PhraseClassifier, RulesClassifier
from .phrase_tracks import AS_IN_THE_PAPER, TrackOptions
from .rules_captioner import RulesCaptioner
from .shapes_captioner import ShapesCaptioner
from .video_captions import CaptionChecks, VideoCaptioner

NO_CAPTIONER = "(none)"  # of commands without stage 1
_CAPTIONERS = ("glamm", "kosmos2", "florence2", "qwen", "shapes")


@dataclass(frozen=True)
class StageSettings:
    """
    How clips are annotated.

    Args:
        captioner (`str`): of stage 1, by name.
        language_model (`str`, *optional*, defaults to `"rules"`): of stages 2 and 3, by name.
        spacy (`str`, *optional*, defaults to `"en_core_web_sm"`): pipeline of stage 2.
        whole_captions (`bool`, *optional*, defaults to `False`): give the language model whole captions.
        by_likelihood (`bool`, *optional*, defaults to `False`): take the most likely label.
        fps (`float`, *optional*, defaults to 5.0): frames a second.
        batch_size (`int`, *optional*, defaults to 16): frames at a time.
        seed (`int`, *optional*, defaults to 0): of what is drawn.
        checks ([`CaptionChecks`], *optional*), tracks ([`TrackOptions`], *optional*): of stages 2 and 3.

    Raises:
        `ValueError`: if a number is outside its range, or a name is none of the module's table.
    """

    captioner: str
    language_model: str = "rules"
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
        if not re.fullmatch(r"rules|transformers:.+|http:.+@.+", self.language_model):
            raise ValueError(
                f"--language-model: got {self.language_model!r}; expected rules, transformers:MODEL or http:MODEL@URL"
            )
        if self.by_likelihood and not self.language_model.startswith("transformers:"):
            raise ValueError(f"--by-likelihood: only transformers:MODEL gives likelihoods, got {self.language_model!r}")
        if self.whole_captions and self.language_model == "rules":
            raise ValueError("--whole-captions: the rules read facts alone; give a --language-model")
        if self.captioner != NO_CAPTIONER and not re.fullmatch(rf"({'|'.join(_CAPTIONERS)}):.+", self.captioner):
            raise ValueError(
                f"--captioner: got {self.captioner!r}; expected {', '.join(_CAPTIONERS[:-1])} with `:MODEL`, or shapes with the "
                "`*.frames.jsonl` of a folder of GroundedShapes"
            )

    def to_dict(self) -> dict[str, Any]:
        """JSON types."""
        return asdict(self)


@lru_cache(maxsize=1)
def load_captioner(name: str, seed: int = 0) -> FrameCaptioner:
    """
    A captioner of frames.

    Args:
        name (`str`): as [`StageSettings`] has it.
        seed (`int`, *optional*, defaults to 0): of what is drawn.

    Raises:
        `ValueError`: if it cannot be loaded.
    """
    kind, _, rest = name.partition(":")
    if kind == "shapes":
        return ShapesCaptioner(Path(rest), seed=seed)
    if kind == "glamm":
        from .glamm_captioner import GlammCaptioner

        return GlammCaptioner(rest)
    from .open_captioners import OPEN_CAPTIONERS

    return OPEN_CAPTIONERS[kind](rest)


@lru_cache(maxsize=1)
def load_language_model(name: str) -> Any:
    """
    A language model, or `None` for `rules`.

    Args:
        name (`str`): as [`StageSettings`] has it.

    Raises:
        `ValueError`: if it cannot be loaded.
    """
    if name == "rules":
        return None
    from .chat_models import HttpChat, TransformersChat

    kind, _, rest = name.partition(":")
    if kind == "transformers":
        return TransformersChat(rest)
    model, _, url = rest.rpartition("@")
    return HttpChat(url, model)


def load_video_captioner(settings: StageSettings) -> VideoCaptioner:
    """The back end of stage 2."""
    model = load_language_model(settings.language_model)
    if model is None:
        return RulesCaptioner()
    from .language_model import LanguageModelCaptioner

    return LanguageModelCaptioner(model, settings.whole_captions)


def load_classifier(settings: StageSettings) -> PhraseClassifier:
    """The back end of stage 3."""
    model = load_language_model(settings.language_model)
    if model is None:
        return RulesClassifier()
    from .language_model import LanguageModelClassifier

    return LanguageModelClassifier(model, settings.by_likelihood)


@lru_cache(maxsize=1)
def load_pipeline(spacy: str) -> Any:
    """The spaCy pipeline of stage 2 (see [`~pipeline_annotate.facts.load_spacy`])."""
    return load_spacy(spacy)


def add_stage1_arguments(parser: argparse.ArgumentParser) -> None:
    """What stage 1 needs to know."""
    parser.add_argument("--captioner", required=True, metavar="NAME", help=f"{', '.join(_CAPTIONERS)}, with `:MODEL`")
    parser.add_argument("--fps", type=float, default=5.0, help="frames a second to caption (default: %(default)s)")
    parser.add_argument(
        "--batch-size", type=int, default=16, metavar="N", help="frames at a time (default: %(default)s)"
    )
    parser.add_argument("--seed", type=int, default=0, help="of what is drawn (default: %(default)s)")


def add_language_model_argument(parser: argparse.ArgumentParser) -> None:
    """What stages 2 and 3 have in common."""
    parser.add_argument(
        "--language-model", default="rules", metavar="NAME",
        help="rules, transformers:MODEL or http:MODEL@URL (default: %(default)s)",
    )  # fmt: skip


def add_stage2_arguments(parser: argparse.ArgumentParser) -> None:
    """What stage 2 needs to know beside the language model."""
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


def add_stage3_arguments(parser: argparse.ArgumentParser) -> None:
    """What stage 3 needs to know beside the language model."""
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
    names = ("captioner", "language_model", "spacy", "whole_captions", "by_likelihood", "fps", "batch_size", "seed")
    checks = CaptionChecks(
        max_words=given.get("max_words", CaptionChecks.max_words),
        known_things=not given.get("allow_unknown_things", False),
    )
    options = ("min_score", "reject_outliers", "fill_gaps", "min_frames")
    tracks = TrackOptions(**{name: given[name] for name in options if name in given})
    return StageSettings(
        **{"captioner": NO_CAPTIONER, **{name: given[name] for name in names if name in given}},
        checks=checks,
        tracks=tracks,
    )


__all__ = [
    "NO_CAPTIONER",
    "StageSettings",
    "add_language_model_argument",
    "add_stage1_arguments",
    "add_stage2_arguments",
    "add_stage3_arguments",
    "load_captioner",
    "load_classifier",
    "load_language_model",
    "load_pipeline",
    "load_video_captioner",
    "settings_of",
]

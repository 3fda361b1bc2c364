"""
Back ends by the names of [`~pipeline_annotate.stage_settings`], for the command lines and for the engine's processes, each of which
loads a model once.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

from huggingface_hub import snapshot_download

from eval.text_similarity import TextSimilarity, text_similarity

from .captioners import FrameCaptioner
from .facts import load_spacy
from .model_identity import model_identity, pinned_revision
from .phrase_labels import PhraseClassifier, RulesClassifier
from .rules_captioner import RulesCaptioner
from .shapes_captioner import ShapesCaptioner
from .stage_settings import BYTETRACK, COLOURS, StageSettings, split_revision
from .video_captions import VideoCaptioner
from .visual_trackers import BoxTracker


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
    if name == COLOURS:
        from .colour_captioner import ColourCaptioner

        return ColourCaptioner()
    kind, _, rest = name.partition(":")
    if kind == "shapes":
        return ShapesCaptioner(Path(rest), seed=seed)
    model, revision = split_revision(rest)
    if kind == "glamm":
        from .glamm_captioner import GlammCaptioner

        return GlammCaptioner(model, revision=revision)
    from .open_captioners import OPEN_CAPTIONERS

    return OPEN_CAPTIONERS[kind](model, revision=revision)


@lru_cache(maxsize=1)
def load_language_model(name: str, quantization: str | None = None) -> Any:
    """
    A language model, or `None` for `rules`.

    Args:
        name (`str`): as [`StageSettings`] has it.
        quantization (`str`, *optional*): "4bit" or "8bit".

    Raises:
        `ValueError`: if it cannot be loaded.
    """
    if name == "rules":
        return None
    from .chat_models import DEFAULT_MODEL, HttpChat, TransformersChat

    kind, _, rest = name.partition(":")
    if kind == "transformers":
        model, revision = split_revision(rest or DEFAULT_MODEL)
        return TransformersChat(model, revision=revision, quantization=quantization)
    model, _, url = rest.rpartition("@")
    return HttpChat(url, model)


def load_video_captioner(settings: StageSettings, videos: Path | None = None) -> VideoCaptioner:
    """
    The back end of stage 2.

    Args:
        settings ([`StageSettings`]): which one.
        videos (`Path`, *optional*): folder of the videos, for captioners of videos.

    Raises:
        `ValueError`: if it cannot be loaded, or needs videos and has none.
    """
    if settings.video_captioner is not None:
        if videos is None:
            raise ValueError(
                f"--video-captioner {settings.video_captioner}: give the folder of the videos with --videos"
            )
        return _load_clip_captioner(settings.video_captioner, settings.spacy, videos)
    model = load_language_model(settings.language_model, settings.quantization)
    if model is None:
        return RulesCaptioner()
    from .language_model import LanguageModelCaptioner

    return LanguageModelCaptioner(model, settings.whole_captions)


@lru_cache(maxsize=1)
def _load_clip_captioner(name: str, spacy: str, videos: Path) -> VideoCaptioner:
    from .clip_captioners import GitClipCaptioner, GroveClipCaptioner

    kind, _, rest = name.partition(":")
    model, revision = split_revision(rest)
    if kind == "grove":
        return GroveClipCaptioner(model, videos, revision=revision)
    return GitClipCaptioner(model, videos, load_pipeline(spacy), revision=revision)


@lru_cache(maxsize=1)
def load_similarity(name: str) -> tuple[TextSimilarity, dict[str, Any]]:
    """
    The encoder of sentences that helps the rules (see [`~eval.text_similarity.text_similarity`]), and which one it is.

    Args:
        name (`str`): as [`StageSettings`] has it.

    Raises:
        `ValueError`: if it cannot be loaded.
    """
    model, wanted = split_revision(name)
    revision = pinned_revision(model, wanted)
    folder = model
    if not Path(model).is_dir():
        try:
            folder = snapshot_download(
                model, revision=revision, allow_patterns=["*.json", "*.safetensors", "*.txt", "*.model"]
            )
        except (OSError, ValueError) as error:
            raise ValueError(f"--similarity {name}: cannot be loaded ({' '.join(str(error).split())[:300]})") from error
    return text_similarity("sentence", folder), model_identity(model, revision)


def load_classifier(settings: StageSettings) -> PhraseClassifier:
    """
    The back end of stage 3.

    Raises:
        `ValueError`: if it cannot be loaded.
    """
    model = load_language_model(settings.language_model, settings.quantization)
    if model is None:
        if settings.similarity is None:
            return RulesClassifier()
        similarity, identity = load_similarity(settings.similarity)
        return RulesClassifier(similarity, identity=identity)
    from .language_model import LanguageModelClassifier

    return LanguageModelClassifier(model, settings.by_likelihood)


@lru_cache(maxsize=1)
def load_tracker(name: str | None, videos: Path | None = None) -> BoxTracker | None:
    """
    The tracker of stage 3, if there is to be one.

    Args:
        name (`str`, *optional*): as [`StageSettings`] has it.
        videos (`Path`, *optional*): folder of the videos, for trackers that look at pictures.

    Raises:
        `ValueError`: if it cannot be loaded, or needs videos and has none.
    """
    if name is None:
        return None
    if name == BYTETRACK:
        from .visual_trackers import ByteTracker

        return ByteTracker()
    if videos is None:
        raise ValueError(f"--tracker {name}: give the folder of the videos with --videos")
    from .sam2_tracker import Sam2Tracker

    model, revision = split_revision(name.partition(":")[2])
    return Sam2Tracker(model, videos, revision=revision)


@lru_cache(maxsize=1)
def load_pipeline(spacy: str) -> Any:
    """The spaCy pipeline of stage 2 (see [`~pipeline_annotate.facts.load_spacy`])."""
    return load_spacy(spacy)


__all__ = [
    "load_captioner",
    "load_classifier",
    "load_language_model",
    "load_pipeline",
    "load_similarity",
    "load_tracker",
    "load_video_captioner",
]

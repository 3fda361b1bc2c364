"""
Captioners of whole videos in place of stage 2, a row of the paper's ablation (Table 7, "Alt-1"): they look at the clip, and not at
what was said of its frames, whose boxes then get the labels of their caption.

| name | what it is |
|---|---|
| `grove:MODEL` | GROVE: its captions have phrases |
| `git:MODEL` | GIT of videos (Wang et al., 2022), such as `microsoft/git-base-vatex`; spaCy finds the phrases |
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from modeling_grove.video_grove import VideoClip, VideoDecodeError, read_video
from modeling_grove.windows_grove import segment_midpoints

from .frame_captions import CaptionedClip
from .model_identity import model_identity, pinned_revision
from .stage_files import Dropped
from .video_captions import ClipFacts, VideoCaption


def read_clip(clip: CaptionedClip, videos: Path, **options: Any) -> VideoClip | Dropped:
    """
    The pictures of a clip that stage 1 has captioned.

    Args:
        clip ([`CaptionedClip`]): which frames of which video.
        videos (`Path`): folder of the videos.
        options: of [`~modeling_grove.video_grove.read_video`].
    """
    path = videos / clip.video_fname
    if not path.is_file():
        return Dropped(clip.key, "missing_video", f"{path}: no such file")
    try:
        return read_video(path, start_frame=clip.clip_start_frame, end_frame=clip.clip_end_frame, **options)
    except (VideoDecodeError, OSError) as error:
        return Dropped(clip.key, "undecodable_video", " ".join(str(error).split()))


def noun_phrases(caption: str, pipeline: Any) -> VideoCaption:
    """A plain caption with spaCy's noun phrases, pronouns not among them."""
    document = pipeline(caption)
    chunks = [chunk for chunk in document.noun_chunks if chunk.root.pos_ != "PRON"]
    return VideoCaption(caption, tuple((chunk.start_char, chunk.end_char) for chunk in chunks))


class GroveClipCaptioner:
    """
    The back end `grove` of stage 2.

    Args:
        model (`str`): folder or Hub id.
        videos (`Path`): folder of the videos.
        revision (`str`, *optional*): of a Hub id.
        device (`str`, *optional*): by default CUDA where there is one.

    Raises:
        `ValueError`: if the model cannot be loaded.
    """

    def __init__(self, model: str, videos: Path, *, revision: str | None = None, device: str | None = None):
        from transformers import pipeline

        import modeling_grove  # noqa: F401 (registers the pipeline)

        device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        revision = pinned_revision(model, revision)
        try:
            self._captioner: Any = pipeline("grounded-video-captioning", model=model, revision=revision, device=device)
        except (OSError, ValueError) as error:
            raise ValueError(f"grove {model!r}: cannot be loaded ({' '.join(str(error).split())[:300]})") from error
        self.videos = videos
        self._identity = model_identity(model, revision)

    def describe(self) -> dict[str, Any]:
        """Its settings, for provenance."""
        return {"back_end": "grove", **self._identity}

    def write(self, clips: Sequence[ClipFacts]) -> list[VideoCaption | Dropped]:
        """A caption for each clip."""
        return [self._write(facts.clip) for facts in clips]

    def _write(self, clip: CaptionedClip) -> VideoCaption | Dropped:
        path = self.videos / clip.video_fname
        if not path.is_file():
            return Dropped(clip.key, "missing_video", f"{path}: no such file")
        try:
            found = self._captioner(str(path), start_frame=clip.clip_start_frame, end_frame=clip.clip_end_frame)
        except VideoDecodeError as error:
            return Dropped(clip.key, "undecodable_video", " ".join(str(error).split()))
        return VideoCaption(found.caption, tuple(track.span for track in found.tracks))


class GitClipCaptioner:
    """
    The back end `git` of stage 2.

    Args:
        model (`str`): folder or Hub id.
        videos (`Path`): folder of the videos.
        pipeline (`spacy.Language`): finds the phrases of captions.
        revision (`str`, *optional*): of a Hub id.
        device (`str`, *optional*): by default CUDA where there is one.
        max_new_tokens (`int`, *optional*, defaults to 50): of a caption.

    Raises:
        `ValueError`: if the model cannot be loaded, or is one of pictures.
    """

    def __init__(
        self,
        model: str,
        videos: Path,
        pipeline: Any,
        *,
        revision: str | None = None,
        device: str | None = None,
        max_new_tokens: int = 50,
    ):
        from transformers import AutoModelForCausalLM, AutoProcessor

        device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        revision = pinned_revision(model, revision)
        try:
            loaded = AutoModelForCausalLM.from_pretrained(
                model, revision=revision, dtype="auto", use_safetensors=True, device_map=device
            )
            self.processor: Any = AutoProcessor.from_pretrained(model, revision=revision)
        except (OSError, ValueError, ImportError) as error:
            raise ValueError(f"git {model!r}: cannot be loaded ({' '.join(str(error).split())[:300]})") from error
        self.num_frames: int = getattr(loaded.config, "num_image_with_embedding", None) or 0
        if not self.num_frames:
            kind = f"{loaded.config.model_type} without num_image_with_embedding"
            raise ValueError(f"git {model!r}: is {kind}; expected GIT of videos, such as microsoft/git-base-vatex")
        self.model, self.videos, self.pipeline, self.max_new_tokens = loaded.eval(), videos, pipeline, max_new_tokens
        self._identity = model_identity(model, revision)

    def describe(self) -> dict[str, Any]:
        """Its settings, for provenance."""
        settings = {"frames": self.num_frames, "max_new_tokens": self.max_new_tokens}
        return {"back_end": "git", **self._identity, **settings}

    def write(self, clips: Sequence[ClipFacts]) -> list[VideoCaption | Dropped]:
        """A caption for each clip."""
        middles = lambda count: segment_midpoints(count, self.num_frames)  # noqa: E731
        read = [read_clip(facts.clip, self.videos, select=middles) for facts in clips]
        captions = iter(self._captions([clip.frames for clip in read if isinstance(clip, VideoClip)]))
        return [clip if isinstance(clip, Dropped) else noun_phrases(next(captions), self.pipeline) for clip in read]

    @torch.inference_mode()
    def _captions(self, clips: Sequence[np.ndarray]) -> list[str]:
        if not clips:
            return []
        whole = [[*clip, *[clip[-1]] * (self.num_frames - len(clip))] for clip in clips]  # some frames may not decode
        pictures = [Image.fromarray(frame) for clip in whole for frame in clip]
        pixels = self.processor.image_processor(pictures, return_tensors="pt")["pixel_values"]
        pixels = pixels.unflatten(0, (len(clips), -1)).to(self.model.device, self.model.dtype)
        ids = self.model.generate(pixel_values=pixels, max_new_tokens=self.max_new_tokens, do_sample=False, num_beams=1)
        return [" ".join(text.split()) for text in self.processor.batch_decode(ids, skip_special_tokens=True)]


__all__ = ["GitClipCaptioner", "GroveClipCaptioner", "noun_phrases", "read_clip"]

"""
Captioners of frames that transformers has itself: Kosmos-2, Florence-2 and Qwen-VL, each with its own way to say where things are.

| name | what it is asked | where things are |
|---|---|---|
| `kosmos2:MODEL` | a grounded caption | pairs of 1,024 places in the text, between tags |
| `florence2:MODEL` | a caption, then the places of its phrases | 1,000 steps in each direction |
| `qwen:MODEL` | JSON of a caption and boxes | Qwen2-VL and Qwen3-VL: 1,000 steps; Qwen2.5-VL: pixels of the resized picture |

None of them says how sure it is of a box, so all scores are 1.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from .captioners import Frame
from .frame_captions import FrameCaption, FramePhrase
from .model_identity import model_identity, pinned_revision

_PROMPTS = Path(__file__).parent / "prompts"
_FLORENCE_CAPTION, _FLORENCE_PLACES = "<DETAILED_CAPTION>", "<CAPTION_TO_PHRASE_GROUNDING>"


def grounded_caption(frame: Frame, caption: str, found: Iterable[tuple[str, Any]]) -> FrameCaption:
    """
    The caption of a frame whose things are named by their words.

    Args:
        frame ([`Frame`]): that was captioned.
        caption (`str`): plain text.
        found (`Iterable[tuple[str, Sequence[float]]]`): words, and a box xyxy in pixels of the frame. Words that the caption lacks,
            and boxes without area, are left out; words that come up again have several boxes.
    """
    height, width = frame.pixels.shape[:2]
    boxes: dict[tuple[int, int], list[np.ndarray]] = {}
    for words, box in found:
        corners = np.clip(np.array(box, np.float32), 0, [width, height, width, height])
        if not words.strip() or not (corners[2:] > corners[:2]).all():  # NaN too
            continue
        same = [span for span in boxes if caption[slice(*span)].casefold() == words.strip().casefold()]
        span = same[0] if same else _place(caption, words.strip(), boxes)
        if span is not None:
            boxes.setdefault(span, []).append(corners)
    phrases = [
        FramePhrase(caption[slice(*span)], span, np.stack(corners), np.ones(len(corners)))
        for span, corners in sorted(boxes.items())
    ]
    return FrameCaption(frame.frame_index, frame.timestamp, caption, tuple(phrases))


def _place(caption: str, words: str, taken: Iterable[tuple[int, int]]) -> tuple[int, int] | None:
    """Where words stand in a caption, whatever their case, outside of what is taken."""
    for match in re.finditer(rf"(?<!\w){re.escape(words)}(?!\w)", caption, re.IGNORECASE):
        if all(match.end() <= start or end <= match.start() for start, end in taken):
            return match.span()
    return None


def read_qwen(text: str, width: float, height: float) -> tuple[str, list[tuple[str, list[float]]]]:
    """
    The caption and the boxes of an answer of Qwen-VL, in shares of the picture; empty if it is no such JSON.

    Args:
        text (`str`): the answer, with or without a fence.
        width (`float`), height (`float`): what the coordinates count up to.
    """
    match = re.search(r"\{.*\}", text, re.DOTALL)
    try:
        answer = json.loads(match[0]) if match else {}
        caption = " ".join(str(answer.get("caption", "")).split())
        caption.encode("utf-8")  # half of a character cannot be written
        found = []
        for thing in answer.get("objects", []):
            left, top, right, bottom = (float(value) for value in thing["bbox_2d"])
            found.append((str(thing["label"]), [left / width, top / height, right / width, bottom / height]))
    except (ValueError, TypeError, KeyError, AttributeError):
        return "", []
    return caption, found


class _OpenCaptioner:
    """
    What the three have in common.

    Args:
        model (`str`): folder or Hub id.
        revision (`str`, *optional*): of a Hub id.
        device (`str`, *optional*): by default CUDA where there is one.
        max_new_tokens (`int`, *optional*, defaults to 256): of an answer.

    Raises:
        `ValueError`: if the model cannot be loaded.
    """

    kind = ""

    def __init__(
        self, model: str, *, revision: str | None = None, device: str | None = None, max_new_tokens: int = 256
    ):
        from transformers import AutoModelForImageTextToText, AutoProcessor

        device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        revision = pinned_revision(model, revision)
        try:
            loaded = AutoModelForImageTextToText.from_pretrained(
                model, revision=revision, dtype="auto", use_safetensors=True, device_map=device
            )
            processor = AutoProcessor.from_pretrained(model, revision=revision)
        except (OSError, ValueError, ImportError) as error:
            raise ValueError(
                f"{self.kind} {model!r}: cannot be loaded ({' '.join(str(error).split())[:300]})"
            ) from error
        self.setup(loaded.eval(), processor, max_new_tokens, model_identity(model, revision))

    def setup(self, model: Any, processor: Any, max_new_tokens: int, identity: Mapping[str, Any] | None = None) -> None:
        """Takes a model and a processor that are loaded already."""
        self.model, self.processor, self.max_new_tokens = model, processor, max_new_tokens
        self._identity = dict(identity or {})
        # Positions of an encoder count from the left, padding or not.
        processor.tokenizer.padding_side = "right" if model.config.is_encoder_decoder else "left"

    def describe(self) -> dict[str, Any]:
        """Its settings, for provenance."""
        return {"captioner": self.kind, **self._identity, "max_new_tokens": self.max_new_tokens}

    @torch.inference_mode()
    def _answers(self, inputs: Any, **options: Any) -> list[str]:
        """The decoded answers, without the prompt where the model repeats it."""
        inputs = inputs.to(self.model.device)
        found = self.model.generate(**inputs, max_new_tokens=self.max_new_tokens, do_sample=False, num_beams=1)
        if not self.model.config.is_encoder_decoder:
            found = found[:, inputs["input_ids"].shape[1] :]
        return self.processor.batch_decode(found, **options)

    @staticmethod
    def _pictures(frames: Sequence[Frame]) -> list[Image.Image]:
        return [Image.fromarray(frame.pixels) for frame in frames]


class Kosmos2Captioner(_OpenCaptioner):
    """The back end `kosmos2` of stage 1 (Peng et al., 2023)."""

    kind, prompt = "kosmos2", "<grounding>An image of"

    def caption(self, frames: Sequence[Frame]) -> list[FrameCaption]:
        """A caption for each frame."""
        inputs = self.processor(images=self._pictures(frames), text=[self.prompt] * len(frames), return_tensors="pt")
        texts = self._answers(inputs, skip_special_tokens=False)
        return [self._read(frame, f"{self.prompt}{text}") for frame, text in zip(frames, texts, strict=True)]

    def _read(self, frame: Frame, text: str) -> FrameCaption:
        height, width = frame.pixels.shape[:2]
        text = re.sub(r"</?(?:s|pad|unk)>", "", text)
        caption, entities = self.processor.post_process_generation(text)
        found = [
            (words, np.array(box) * [width, height, width, height]) for words, _, boxes in entities for box in boxes
        ]
        return grounded_caption(frame, caption, found)


class Florence2Captioner(_OpenCaptioner):
    """The back end `florence2` of stage 1 (Xiao et al., 2023): two passes, a caption and the places of its phrases."""

    kind = "florence2"

    def caption(self, frames: Sequence[Frame]) -> list[FrameCaption]:
        """A caption for each frame."""
        pictures = self._pictures(frames)
        captions = [
            self.processor.post_process_generation(text=_unpadded(text), task=_FLORENCE_CAPTION)[_FLORENCE_CAPTION]
            for text in self._task(pictures, [_FLORENCE_CAPTION] * len(frames))
        ]
        places = self._task(pictures, [f"{_FLORENCE_PLACES}{caption}" for caption in captions])
        return [self._read(*one) for one in zip(frames, captions, places, strict=True)]

    def _task(self, pictures: Sequence[Image.Image], texts: Sequence[str]) -> list[str]:
        inputs = self.processor(images=list(pictures), text=list(texts), return_tensors="pt", padding=True)
        return self._answers(inputs, skip_special_tokens=False)

    def _read(self, frame: Frame, caption: str, places: str) -> FrameCaption:
        height, width = frame.pixels.shape[:2]
        answer = self.processor.post_process_generation(
            text=_unpadded(places), task=_FLORENCE_PLACES, image_size=(width, height)
        )
        found = answer[_FLORENCE_PLACES]
        return grounded_caption(frame, caption, zip(found["labels"], found["bboxes"], strict=True))


def _unpadded(text: str) -> str:
    return text.replace("<pad>", "")


class QwenCaptioner(_OpenCaptioner):
    """The back end `qwen` of stage 1: Qwen2-VL, Qwen2.5-VL or Qwen3-VL, asked for JSON."""

    kind = "qwen"

    def caption(self, frames: Sequence[Frame]) -> list[FrameCaption]:
        """A caption for each frame."""
        question = (_PROMPTS / "qwen_frame.txt").read_text(encoding="utf-8").strip()
        content = [{"type": "image"}, {"type": "text", "text": question}]
        prompt = self.processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
        inputs = self.processor(
            images=self._pictures(frames), text=[prompt] * len(frames), return_tensors="pt", padding=True
        )
        grids = inputs["image_grid_thw"].tolist()
        texts = self._answers(inputs, skip_special_tokens=True)
        return [self._read(*one) for one in zip(frames, texts, grids, strict=True)]

    def _read(self, frame: Frame, text: str, grid: Sequence[int]) -> FrameCaption:
        height, width = frame.pixels.shape[:2]
        seen = (1000.0, 1000.0)
        if self.model.config.model_type == "qwen2_5_vl":
            patch = self.model.config.vision_config.patch_size
            seen = (float(grid[2] * patch), float(grid[1] * patch))
        caption, found = read_qwen(text, *seen)
        scaled = [(words, np.array(box) * [width, height, width, height]) for words, box in found]
        return grounded_caption(frame, caption, scaled)


OPEN_CAPTIONERS = {one.kind: one for one in (Kosmos2Captioner, Florence2Captioner, QwenCaptioner)}

__all__ = [
    "OPEN_CAPTIONERS",
    "Florence2Captioner",
    "Kosmos2Captioner",
    "QwenCaptioner",
    "grounded_caption",
    "read_qwen",
]

"""GLaMM as a captioner of frames: its prompt, its answers, and boxes from its masks."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from huggingface_hub import snapshot_download
from PIL import Image
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from modeling_grove.checkpoint_config_grove import GLAMM_TOKENS
from modeling_grove.original_text_grove import decode
from modeling_grove.text_grove import SYSTEM_PROMPT, parse_grounded_text
from modeling_grove.video_processing_grove import GroveVideoProcessor, longest_edge_size, shortest_edge_size

from .captioners import Frame
from .frame_captions import FrameCaption, FramePhrase
from .glamm_checkpoints import load_glamm_tokenizer
from .glamm_model import GlammForConditionalGeneration, full_size_masks
from .mask_boxes import MaskBoxes
from .model_identity import model_identity, pinned_revision

# The wording of the official inference, its five blanks included (a line of its source goes on behind a backslash).
INSTRUCTION = (
    "Could you please give me a detailed description of the image? Please respond with interleaved"
    "     segmentation masks for the corresponding parts of the answer."
)
_SEG, _IMAGE, _WORD_START = "[SEG]", "<image>", "\u2581"
_NAMES = "|".join(re.escape(token) for token in ("<s>", "</s>", "<unk>", _IMAGE, *GLAMM_TOKENS))


def glamm_prompt(instruction: str = INSTRUCTION) -> str:
    """The conversation that GLaMM reads; `<image>` stands for the picture's tokens."""
    picture = "The <im_start><image><im_end> provides an overview of the picture."
    return f"{SYSTEM_PROMPT} USER: {picture}\n{instruction} ASSISTANT:"


def encode_glamm(tokenizer: PreTrainedTokenizerBase, text: str, image_ids: Sequence[int] = ()) -> list[int]:
    """
    Ids as transformers 4.28 gave them, with which GLaMM was trained: what stands between two added tokens loses the blanks beside
    them and is a text of its own. `<s>` comes first.

    Args:
        tokenizer (`PreTrainedTokenizerBase`): GLaMM's.
        text (`str`): to encode.
        image_ids (`Sequence[int]`, *optional*): what `<image>` becomes.
    """
    ids = [tokenizer.bos_token_id]
    pieces = re.split(f"({_NAMES})", text)
    for number, piece in enumerate(pieces):
        if number % 2:
            ids += list(image_ids) if piece == _IMAGE else [tokenizer.convert_tokens_to_ids(piece)]
            continue
        piece = piece.lstrip() if number else piece
        piece = piece.rstrip() if number + 1 < len(pieces) else piece
        if piece:
            ids += tokenizer.encode(_WORD_START + piece.replace(_WORD_START, " "), add_special_tokens=False)
    return ids


class GlammCaptioner:
    """
    The back end `glamm` of stage 1.

    Args:
        model (`str` or `Path`): folder or Hub id of a converted checkpoint (see [`~pipeline_annotate.glamm_checkpoints`]).
        revision (`str`, *optional*): of a Hub id.
        device (`str`, *optional*): by default CUDA where there is one.
        dtype (`str`, *optional*, defaults to `"auto"`): of the weights.
        boxes ([`MaskBoxes`], *optional*): how masks become boxes.
        max_new_tokens (`int`, *optional*, defaults to 512): of a caption, as in the official inference.
    """

    def __init__(
        self,
        model: str | Path,
        *,
        revision: str | None = None,
        device: str | None = None,
        dtype: str = "auto",
        boxes: MaskBoxes = MaskBoxes(),  # noqa: B008 (frozen)
        max_new_tokens: int = 512,
    ):
        device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        revision = pinned_revision(model, revision)
        try:
            loaded = GlammForConditionalGeneration.from_pretrained(
                model, revision=revision, dtype=dtype, use_safetensors=True, device_map=device
            ).eval()
        except (OSError, ValueError) as error:
            raise ValueError(
                f"GLaMM {str(model)!r}: cannot be loaded ({' '.join(str(error).split())[:300]})"
            ) from error
        tokenizer = load_glamm_tokenizer(Path(cached_folder(model, revision)), loaded.config)
        self.setup(
            loaded,
            tokenizer,
            boxes=boxes,
            max_new_tokens=max_new_tokens,
            identity=model_identity(model, revision),
        )

    def setup(
        self,
        model: GlammForConditionalGeneration,
        tokenizer: PreTrainedTokenizerBase,
        *,
        boxes: MaskBoxes,
        max_new_tokens: int,
        identity: Mapping[str, Any] | None = None,
    ) -> None:
        """Takes a model that is loaded already."""
        self.model, self.tokenizer, self.boxes, self.max_new_tokens = model, tokenizer, boxes, max_new_tokens
        self._identity = dict(identity or {})
        config: Any = model.config
        self.picture_sizes = config.vision_config.image_size, config.grounding_config.image_size
        self._prompt = encode_glamm(tokenizer, glamm_prompt(), [config.video_token_id] * config.num_video_tokens)

    def describe(self) -> dict[str, Any]:
        """Its settings, for provenance."""
        settings = {"dtype": str(self.model.dtype).removeprefix("torch."), "boxes": asdict(self.boxes)}
        return {"captioner": "glamm", **self._identity, **settings, "max_new_tokens": self.max_new_tokens}

    def caption(self, frames: Sequence[Frame]) -> list[FrameCaption]:
        """A caption for each frame; a phrase's boxes are those of its masks."""
        answers, masks = self.answer([frame.pixels for frame in frames])
        return [self._read(*found) for found in zip(frames, answers, masks, strict=True)]

    @torch.inference_mode()
    def answer(self, pictures: Sequence[np.ndarray]) -> tuple[list[list[int]], list[Tensor]]:
        """
        What GLaMM answers.

        Args:
            pictures (`Sequence[np.ndarray]`): uint8 `(H, W, 3)` RGB each, of any sizes.

        Returns:
            For each picture the ids of the answer, up to `</s>`, and mask logits `(N, H, W)` of its `[SEG]` tokens.
        """
        vision, grounding = (
            stream.to(self.model.device, self.model.dtype) for stream in prepare_pictures(pictures, *self.picture_sizes)
        )
        ids = torch.tensor([self._prompt] * len(pictures), device=self.model.device)
        embeds = self.model.get_video_features(vision)
        ids = self.model.generate(
            input_ids=ids, attention_mask=torch.ones_like(ids), video_embeds=embeds, max_new_tokens=self.max_new_tokens,
            do_sample=False, num_beams=1,
        )  # fmt: skip
        text: Any = self.model.config.text_config
        padding = (ids == text.pad_token_id).flip(1).cumprod(1).flip(1)
        # One pass over the whole texts gives the states that the cached steps had, and all of them at once.
        states = self.model.model(input_ids=ids, attention_mask=1 - padding, video_embeds=embeds).last_hidden_state
        logits, _ = self.model.masks(ids, states, self.model.get_grounding_features(grounding))
        answers = [
            [token for token, pad in zip(row, pads, strict=True) if not pad]
            for row, pads in zip(
                ids[:, len(self._prompt) :].tolist(), padding[:, len(self._prompt) :].tolist(), strict=True
            )
        ]
        return answers, [self._full_size(one, picture) for one, picture in zip(logits, pictures, strict=True)]

    def _full_size(self, logits: Tensor, picture: np.ndarray) -> Tensor:
        height, width = picture.shape[:2]
        side = self.picture_sizes[1]
        return full_size_masks(logits, longest_edge_size(height, width, side), (height, width), side)

    def _read(self, frame: Frame, ids: Sequence[int], logits: Tensor) -> FrameCaption:
        parsed = parse_grounded_text(decode(self.tokenizer, ids).removesuffix("</s>").replace(_SEG, "[DET]"))
        boxes, scores = self.boxes(logits)
        phrases = []
        for number, phrase in enumerate(parsed.phrases):
            mine = [
                place
                for place, owner in enumerate(parsed.det_phrase)
                if owner == number and place < len(boxes) and np.isfinite(boxes[place]).all()
            ]
            phrases.append(FramePhrase(phrase.text, phrase.span, boxes[mine], scores[mine]))
        return FrameCaption(frame.frame_index, frame.timestamp, parsed.caption, tuple(phrases))


def cached_folder(model: str | Path, revision: str | None = None) -> Path:
    """The folder of a model, which of a Hub id is its place in the cache."""
    return (
        Path(model)
        if Path(model).is_dir()
        else Path(snapshot_download(str(model), revision=revision, allow_patterns=["*token*"]))
    )


def prepare_pictures(pictures: Sequence[np.ndarray], vision_size: int, grounding_size: int) -> tuple[Tensor, Tensor]:
    """
    Both streams of pictures, resized by Pillow, to the level what the official code makes of them ([`GroveVideoProcessor`], which
    is faster, differs by up to one level of 255).

    Args:
        pictures (`Sequence[np.ndarray]`): uint8 `(H, W, 3)` RGB each.
        vision_size (`int`): side of CLIP's square, to which the shortest side is resized (bicubic), and which is cut from the
            middle.
        grounding_size (`int`): side of SAM's, to which the longest side is resized (bilinear); zeros on the right and below.

    Returns:
        `(B, 1, 3, vision_size, vision_size)` and `(B, 1, 3, grounding_size, grounding_size)`, float32, normalised.
    """
    vision = torch.empty(len(pictures), 1, 3, vision_size, vision_size)
    grounding = torch.zeros(len(pictures), 1, 3, grounding_size, grounding_size)
    for row, picture in enumerate(pictures):
        image, (height, width) = Image.fromarray(picture), picture.shape[:2]
        rows, columns = shortest_edge_size(height, width, vision_size)
        top, left = (rows - vision_size) // 2, (columns - vision_size) // 2
        small = np.asarray(image.resize((columns, rows), Image.Resampling.BICUBIC))
        small = small[top : top + vision_size, left : left + vision_size] / 255
        vision[row, 0] = _normalised(small, GroveVideoProcessor.image_mean, GroveVideoProcessor.image_std)
        rows, columns = longest_edge_size(height, width, grounding_size)
        large = np.asarray(image.resize((columns, rows), Image.Resampling.BILINEAR))
        mean, std = GroveVideoProcessor.grounding_image_mean, GroveVideoProcessor.grounding_image_std
        grounding[row, 0, :, :rows, :columns] = _normalised(large, mean, std)
    return vision, grounding


def _normalised(picture: np.ndarray, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """`(H, W, 3)` -> `(3, H, W)`."""
    return torch.from_numpy(((picture - np.array(mean)) / np.array(std)).astype(np.float32)).permute(2, 0, 1)


__all__ = ["INSTRUCTION", "GlammCaptioner", "encode_glamm", "glamm_prompt", "prepare_pictures"]

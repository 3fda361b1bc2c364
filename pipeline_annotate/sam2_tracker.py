"""SAM 2 as a tracker (Ravi et al., 2024), through transformers' own class: boxes of a few frames in, boxes of all frames out."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from modeling_grove.video_grove import VideoClip

from .clip_captioners import read_clip
from .frame_captions import CaptionedClip
from .mask_boxes import MaskBoxes
from .model_identity import model_identity, pinned_revision
from .stage_files import Dropped
from .visual_trackers import LABELLED_FRAMES, LabelledBox, LostClip, boxes_by_language, labelled_frames

_MEAN, _STD = (
    (0.485, 0.456, 0.406),
    (0.229, 0.224, 0.225),
)  # ImageNet's, as in its own processor, which needs torchvision
_CACHED_FRAMES = 48  # 5 GB of the large model's at 1024 pixels; the frames of a longer clip are encoded for each phrase
_MOST_FRAMES = 400  # 5 GB of pictures
_TOP_LEFT, _BOTTOM_RIGHT = 2, 3  # what its prompt encoder calls the corners of a box


class Sam2Tracker:
    """
    The back end `sam2` of stage 3: a phrase is an object whose boxes in a few frames are prompts; its masks, forwards and backwards
    in time, become boxes.

    Args:
        model (`str`): folder or Hub id, such as `facebook/sam2.1-hiera-large`.
        videos (`Path`): folder of the videos.
        revision (`str`, *optional*): of a Hub id.
        device (`str`, *optional*): by default CUDA where there is one.
        frames (`int`, *optional*, defaults to 5): whose boxes are prompts.
        boxes ([`MaskBoxes`], *optional*): how masks become boxes.

    Raises:
        `ValueError`: if the model cannot be loaded.
    """

    def __init__(
        self,
        model: str,
        videos: Path,
        *,
        revision: str | None = None,
        device: str | None = None,
        frames: int = LABELLED_FRAMES,
        boxes: MaskBoxes = MaskBoxes(),  # noqa: B008 (frozen)
    ):
        from transformers import Sam2VideoModel

        device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        revision = pinned_revision(model, revision)
        try:
            loaded = Sam2VideoModel.from_pretrained(model, revision=revision, use_safetensors=True, device_map=device)
        except (OSError, ValueError) as error:
            raise ValueError(f"sam2 {model!r}: cannot be loaded ({' '.join(str(error).split())[:300]})") from error
        self.model, self.videos, self.frames, self.boxes = loaded.eval(), videos, frames, boxes
        self._identity = model_identity(model, revision)

    def describe(self) -> dict[str, Any]:
        """Its settings, for provenance."""
        return {"tracker": "sam2", **self._identity, "labelled_frames": self.frames}

    def track(self, clip: CaptionedClip, labels: Mapping[str, int | None]) -> list[LabelledBox]:
        """
        The boxes of a clip, given what each of its phrases in lower case is.

        Raises:
            [`LostClip`]: if the clip cannot be read any more, has other frames than stage 1 saw, or more than fit into memory.
        """
        if len(clip.frames) > _MOST_FRAMES:
            many = f"{len(clip.frames)} frames; a tracker takes {_MOST_FRAMES} at most, so cut clips with --window"
            raise LostClip(Dropped(clip.key, "too_many_frames", many))
        prompts: dict[int, dict[int, np.ndarray]] = defaultdict(dict)
        chosen = labelled_frames(clip, self.frames)
        for frame, label, box, _ in boxes_by_language(clip, labels):
            if label is not None and frame in chosen:
                both = np.stack([prompts[label].get(frame, box), box])
                prompts[label][frame] = np.concatenate([both[:, :2].min(0), both[:, 2:].max(0)])
        return self._follow(self._pictures(clip), prompts) if prompts else []

    def _pictures(self, clip: CaptionedClip) -> np.ndarray:
        # Every frame of the clip is decoded once more; those that stage 1 sampled are known by their numbers.
        wanted = {frame.frame_index - clip.clip_start_frame for frame in clip.frames}
        read = read_clip(
            clip, self.videos, target_fps=None, select=lambda count: sorted(n for n in wanted if n < count)
        )
        if not isinstance(read, VideoClip):
            raise LostClip(read)
        if len(read.frames) != len(clip.frames):
            counts = f"{len(clip.frames)} frames were captioned, {len(read.frames)} of them can be read"
            raise LostClip(Dropped(clip.key, "other_frames", counts))
        return read.frames

    @torch.inference_mode()
    def _follow(self, pictures: np.ndarray, prompts: Mapping[int, Mapping[int, np.ndarray]]) -> list[LabelledBox]:
        """The boxes of phrases, given some of each, in pictures uint8 `(T, H, W, 3)`."""
        from transformers.models.sam2_video.modeling_sam2_video import Sam2VideoInferenceSession

        config: Any = self.model.config
        height, width, side = *pictures.shape[1:3], config.prompt_encoder_config.image_size
        frames, scale = _prepared(pictures, side), np.array([side / width, side / height] * 2)
        found: list[LabelledBox] = []
        seen = None
        for label, boxes in prompts.items():  # the model wants all objects of a session prompted in the same frames
            session = Sam2VideoInferenceSession(
                frames, height, width, inference_device=self.model.device, dtype=self.model.dtype,
                max_vision_features_cache_size=_CACHED_FRAMES,
            )  # fmt: skip
            session.cache = seen = seen or session.cache  # pictures are encoded once for all of them
            number = session.obj_id_to_idx(label)
            for frame, box in sorted(boxes.items()):
                corners = torch.tensor(box * scale, dtype=torch.float32).view(1, 1, 2, 2)
                kinds = torch.tensor([[[_TOP_LEFT, _BOTTOM_RIGHT]]], dtype=torch.int32)
                session.add_point_inputs(number, frame, {"point_coords": corners, "point_labels": kinds})
                session.obj_with_new_inputs = [label]
                self.model(session, frame_idx=frame)
            masks: dict[int, Tensor] = {}
            for backwards in (False, True):
                for output in self.model.propagate_in_video_iterator(session, min(boxes), reverse=backwards):
                    masks.setdefault(output.frame_idx, output.pred_masks.view(1, 1, *output.pred_masks.shape[-2:]))
            found += [box for frame in sorted(masks) for box in self._boxes(frame, masks[frame], label, height, width)]
        return found

    def _boxes(self, frame: int, mask: Tensor, label: int, height: int, width: int) -> Iterator[LabelledBox]:
        """The box of a mask `(1, 1, h, w)`, if it has one."""
        logits = interpolate(mask.float(), (height, width), mode="bilinear", align_corners=False)[0]
        boxes, scores = self.boxes(logits)
        if np.isfinite(boxes).all():
            yield LabelledBox(frame, label, boxes[0], float(scores[0]))


def _prepared(pictures: np.ndarray, side: int) -> Tensor:
    """uint8 `(T, H, W, 3)` -> normalised float32 `(T, 3, side, side)`, a frame at a time."""
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (_MEAN, _STD))
    prepared = torch.empty(len(pictures), 3, side, side)
    for row, picture in zip(prepared, pictures, strict=True):
        small = interpolate(
            torch.from_numpy(picture).permute(2, 0, 1)[None].float() / 255,
            (side, side),
            mode="bilinear",
            antialias=True,
        )
        row.copy_((small[0] - mean) / std)
    return prepared


__all__ = ["Sam2Tracker"]

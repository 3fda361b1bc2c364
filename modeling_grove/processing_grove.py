"""
Processor of GROVE: prompts and videos to model inputs, model outputs to grounded captions.

Shape legend: B videos, T frames, N phrases (padded), L text length with the video tokens.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import BatchFeature, PreTrainedTokenizerBase, ProcessorMixin
from transformers.video_processing_utils import VideoProcessorMixin

from .boxes_grove import boxes_from_pixels, boxes_to_pixels
from .grounded_caption import GroundedCaption, PhraseTrack
from .loss_grove import IGNORE_INDEX
from .original_text_grove import encode_for_other_windows, expand_video_tokens, text_for_other_windows
from .outputs_grove import GroveGroundedOutput
from .text_grove import (
    DET_TOKEN,
    EOS_TOKEN,
    PHRASE_END_TOKEN,
    PHRASE_START_TOKEN,
    QUESTION_TEMPLATES,
    SYSTEM_PROMPT,
    VIDEO_END_TOKEN,
    VIDEO_START_TOKEN,
    VIDEO_TOKEN,
    ParsedCaption,
    build_prompt,
    format_training_answer,
    parse_grounded_text,
    read_caption,
    tag_caption,
)
from .video_processing_grove import GroveVideoMetadata

_TOKENS = (VIDEO_TOKEN, VIDEO_START_TOKEN, VIDEO_END_TOKEN, PHRASE_START_TOKEN, PHRASE_END_TOKEN, DET_TOKEN)

# The LLaVA v1 conversation that the released checkpoints were trained on, with one video before the question.
CHAT_TEMPLATE = (
    "{{ '" + SYSTEM_PROMPT.replace("'", "\\'") + "' }}"
    "{% for message in messages %}"
    "{% set parts = [{'type': 'text', 'text': message.content}] if message.content is string else message.content %}"
    "{% if message.role == 'system' %}{{ raise_exception('GROVE has a fixed system prompt; leave the system message out.') }}"
    "{% elif message.role == 'user' %}{{ ' USER: ' }}"
    "{% for part in parts if part.type == 'video' %}"
    "{{ 'The " + VIDEO_START_TOKEN + VIDEO_TOKEN + VIDEO_END_TOKEN + " provides an overview of the video.\n' }}"
    "{% endfor %}"
    "{% for part in parts if part.type == 'text' %}{{ part.text }}{% endfor %}"
    "{% else %}{{ ' ASSISTANT: ' }}"
    "{% for part in parts if part.type == 'text' %}{{ part.text }}{% endfor %}{{ '" + EOS_TOKEN + "' }}"
    "{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ ' ASSISTANT:' }}{% endif %}"
)


class GroveProcessor(ProcessorMixin):
    r"""
    Wraps a [`GroveVideoProcessor`] and a Llama tokenizer that knows GROVE's tokens.

    Three ways in: `processor(text=..., videos=...)` and `apply_chat_template` give one window per video, for `forward` and plain
    `generate`; [`~GroveProcessor.prepare_videos`] gives every sampled frame, for `generate_grounded` and `ground`;
    [`~GroveProcessor.prepare_training`] gives a window with all labels.

    Args:
        video_processor ([`GroveVideoProcessor`]):
            Decodes, samples and resizes.
        tokenizer (`PreTrainedTokenizerBase`):
            Must have the tokens `<video>`, `<vid_start>`, `<vid_end>`, `<p>`, `</p>` and `[DET]`.
        num_video_tokens (`int`, *optional*, defaults to 576):
            Tokens to which a `<video>` is expanded (`GroveConfig.num_video_tokens`).
        chat_template (`str`, *optional*):
            Jinja template; by default the conversation of the released checkpoints.

    Raises:
        ValueError: if the tokenizer lacks one of the tokens.
    """

    def __init__(
        self,
        video_processor: VideoProcessorMixin | None = None,
        tokenizer: PreTrainedTokenizerBase | None = None,
        num_video_tokens: int = 576,
        chat_template: str | None = None,
    ):
        self.num_video_tokens = num_video_tokens
        self.video_token = VIDEO_TOKEN
        vocabulary = tokenizer.get_vocab()
        missing = [token for token in _TOKENS if token not in vocabulary]
        if missing:
            raise ValueError(
                f"The tokenizer lacks {', '.join(missing)}; expected the tokenizer of a converted GROVE checkpoint "
                "(`python -m modeling_grove.convert_grove` adds the tokens)."
            )
        self.video_token_id = vocabulary[VIDEO_TOKEN]
        super().__init__(video_processor, tokenizer, chat_template=chat_template or CHAT_TEMPLATE)
        self.videos_kwargs = {
            "return_tensors": "pt",
            "return_metadata": True,
            "num_frames": video_processor.window_size,
        }

    def check_argument_for_proper_class(self, argument_name: str, argument: Any) -> type:
        # transformers exports the mixin only where torchvision is installed, and cannot look it up by name elsewhere.
        if argument_name == "video_processor" and isinstance(argument, VideoProcessorMixin):
            return VideoProcessorMixin
        return super().check_argument_for_proper_class(argument_name, argument)

    @property
    def blank_token_id(self) -> int | None:
        """The piece that the tokenizer writes between `</p>` and `[DET]`, for constrained decoding; `None` if it has none."""
        return self.tokenizer.get_vocab().get("\u2581")

    @property
    def unused_input_names(self) -> list[str]:
        # A window has no padding frames; `prepare_videos` keeps the mask.
        return ["frame_mask"]

    @property
    def model_input_names(self) -> list[str]:
        return [*self.tokenizer.model_input_names, *self.video_processor.model_input_names]

    def _process_videos(self, videos: Any, **kwargs) -> tuple[BatchFeature, list[str]]:
        # Upstream counts videos in a way that knows arrays and paths only; ours may also be bytes, files or clips.
        processed = self.video_processor(videos, **kwargs)
        count = len(processed["pixel_values_videos"])
        return processed, [self.replace_video_token(processed, index) for index in range(count)]

    def replace_video_token(self, video_inputs: dict, video_idx: int, **kwargs) -> str:
        """The text that one `<video>` becomes."""
        return self.video_token * self.num_video_tokens

    def validate_inputs(
        self, images: Any = None, text: Any = None, videos: Any = None, audio: Any = None, **kwargs
    ) -> None:
        """One `<video>` in each text, one text a video; images and audio are refused."""
        if images is not None or audio is not None:
            raise ValueError("GROVE reads videos and text; got images or audio.")
        if text is None and videos is None:
            raise ValueError("Got neither text nor videos; give at least one.")
        for index, sample in enumerate([text] if isinstance(text, str) else text or []):
            if not isinstance(sample, str):
                raise ValueError(f"text[{index}] is a {type(sample).__name__}; expected a string.")
            if videos is not None and sample.count(self.video_token) != 1:
                raise ValueError(
                    f"text[{index}] has {sample.count(self.video_token)} {self.video_token}; expected exactly one. "
                    "`apply_chat_template` and `prepare_videos` write it."
                )

    def encode_text(
        self, texts: Sequence[str], padding_side: str | None = None, max_length: int | None = None
    ) -> BatchFeature:
        """Token ids and attention mask `(B, L)` of texts whose `<video>` is expanded here; padded together."""
        expanded = [text.replace(self.video_token, self.replace_video_token({}, 0)) for text in texts]
        return self.tokenizer(
            expanded,
            padding=True,
            padding_side=padding_side or self.tokenizer.padding_side,
            truncation=max_length is not None,
            max_length=max_length,
            return_tensors="pt",
        )

    def prepare_videos(
        self,
        videos: Any,
        captions: str | Sequence[str] | None = None,
        phrases: Sequence[Sequence[str]] | None = None,
        question: str = QUESTION_TEMPLATES[0],
        **videos_kwargs,
    ) -> BatchFeature:
        r"""
        Inputs of `generate_grounded`, or of `ground` when captions are given.

        Args:
            videos:
                One video or a list: path, URL, bytes, file, frames or [`VideoClip`].
            captions (`str` or `list[str]`, *optional*):
                A caption per video to ground instead of generating one, with `<p>phrase</p>` tags or with `phrases`.
            phrases (`list[list[str]]`, *optional*):
                Phrases to locate in each untagged caption.
            question (`str`, *optional*):
                Instruction of the prompt; by default the one that the original uses at inference.
            videos_kwargs:
                Options of the video processor: `start_time`, `end_time`, `start_frame`, `end_frame`, `fps`, `device`.

        Returns:
            `BatchFeature` with `input_ids` and `attention_mask` `(B, L)`, padded on the left; `pixel_values_videos`
            `(B, T, 3, H, W)`, `grounding_pixel_values_videos` `(B, T, 3, S, S)`, `frame_mask` `(B, T)`; and `video_metadata`,
            a list that belongs to [`~GroveProcessor.post_process_grounded_captions`] and must be popped before the model is
            called.

        Raises:
            ValueError: if a video cannot be read, a phrase is not in its caption, or the counts disagree.
        """
        processed = self.video_processor(
            videos, num_frames=None, return_metadata=True, return_tensors="pt", **videos_kwargs
        )
        count = len(processed["pixel_values_videos"])
        prompts = [build_prompt(question)] * count
        if captions is None and phrases is not None:
            raise ValueError("Got phrases without captions; pass the captions that they are in.")
        if captions is not None:
            captions = [captions] if isinstance(captions, str) else list(captions)
            if len(captions) != count or (phrases is not None and len(phrases) != count):
                raise ValueError(
                    f"Got {count} videos, {len(captions)} captions and {len(phrases) if phrases is not None else 'no'} lists of "
                    "phrases; expected as many of each."
                )
            listed = phrases if phrases is not None else [None] * count
            prompts = [build_prompt(question, tag_caption(c, p)) for c, p in zip(captions, listed, strict=True)]
        return BatchFeature({**self.encode_text(prompts, padding_side="left"), **processed})

    def prepare_training(
        self,
        captions: Sequence[GroundedCaption],
        videos: Sequence[Any],
        frame_positions: Sequence[Sequence[int]] | None = None,
        questions: Sequence[str] | None = None,
        max_length: int | None = None,
        **videos_kwargs,
    ) -> BatchFeature:
        r"""
        One training batch: a window of each video, its text and all labels.

        Args:
            captions (`list[GroundedCaption]`):
                Annotations in the processed form (at most one box a phrase a frame; see [`GroundedCaption.merged`]).
            videos (`list`):
                The frames of each window, `(num_frames, H, W, 3)` uint8 RGB.
            frame_positions (`list[list[int]]`, *optional*):
                For each window the positions of its frames among the annotated frames of its caption; by default all of them.
            questions (`list[str]`, *optional*):
                Instruction of each prompt; by default the first template.
            max_length (`int`, *optional*):
                Longest text with the video tokens (the original's is 1536); the rest is cut off at the end.
            videos_kwargs:
                Options of the video processor.

        Returns:
            `BatchFeature` with `input_ids`, `attention_mask`, `labels` `(B, L)`, padded on the right; both pixel streams;
            `box_labels` `(B, T, N, 4)` cxcywh in [0, 1] of the frame and `objectness_labels` `(B, T, N)`, 1 visible, 0 absent,
            -100 at padding. Phrases are in caption order, as their [DET] tokens are.

        Raises:
            ValueError: if counts disagree, phrases overlap or a window has the wrong number of frames.
        """
        questions = list(questions) if questions is not None else [QUESTION_TEMPLATES[0]] * len(captions)
        positions = frame_positions if frame_positions is not None else [range(c.num_frames) for c in captions]
        if not len(captions) == len(videos) == len(questions) == len(positions):
            raise ValueError(
                f"Got {len(captions)} captions, {len(videos)} videos, {len(positions)} frame_positions and {len(questions)} "
                "questions; expected as many of each."
            )
        processed = self.video_processor(
            list(videos), num_frames=None, do_sample_frames=False, return_tensors="pt", **videos_kwargs
        )
        del processed["frame_mask"]
        prompts, texts = [], []
        for caption, question in zip(captions, questions, strict=True):
            ordered = sorted(caption.tracks, key=lambda track: track.span)
            prompts.append(build_prompt(question))
            texts.append(build_prompt(question, format_training_answer(caption.caption, [t.span for t in ordered])))
        encoded = self.encode_text(texts, padding_side="right", max_length=max_length)
        labels = encoded["input_ids"].masked_fill(encoded["attention_mask"] == 0, IGNORE_INDEX)
        for row, prompt in zip(labels, prompts, strict=True):
            # Nothing of the answer merges with the prompt's last token, a colon.
            row[: len(self.encode_text([prompt])["input_ids"][0])] = IGNORE_INDEX
        box_labels, objectness_labels = _box_labels(captions, positions)
        return BatchFeature(
            {**encoded, "labels": labels, **processed, "box_labels": box_labels, "objectness_labels": objectness_labels}
        )

    def retokenize(self, sequences: Tensor, question: str = QUESTION_TEMPLATES[0]) -> tuple[Tensor, Tensor]:
        """
        Ids and mask `(B, L')` under which the original grounds all windows but the centre one: it decodes what it generated and
        tokenises the text again, with an extra `</s>` (see `original_text_grove`).

        Args:
            sequences (`torch.LongTensor` of shape `(B, L)`): prompts and generated captions.
            question (`str`): the instruction of the prompts.
        """
        rows = []
        for sequence in sequences.tolist():
            text = text_for_other_windows(self.tokenizer, [token for token in sequence if token != self.video_token_id])
            ids = encode_for_other_windows(self.tokenizer, text, question)
            rows.append(expand_video_tokens(ids, self.video_token_id, self.num_video_tokens))
        length = max(map(len, rows))
        padded = torch.tensor([[self.tokenizer.pad_token_id] * (length - len(row)) + row for row in rows])
        mask = torch.tensor([[0] * (length - len(row)) + [1] * len(row) for row in rows])
        return padded.to(sequences.device), mask.to(sequences.device)

    def post_process_grounded_captions(
        self,
        outputs: GroveGroundedOutput,
        video_metadata: Sequence[GroveVideoMetadata],
        captions: str | Sequence[str] | None = None,
        phrases: Sequence[Sequence[str]] | None = None,
        objectness_threshold: float = 0.5,
        clip_boxes: bool = True,
    ) -> list[GroundedCaption]:
        r"""
        Grounded captions, in pixels and seconds of the source videos, from what the model gave.

        Args:
            outputs ([`GroveGroundedOutput`]):
                Of `generate_grounded` or `ground`.
            video_metadata (`list`):
                From [`~GroveProcessor.prepare_videos`].
            captions, phrases (*optional*):
                As they were given to `prepare_videos`, when the captions were not generated.
            objectness_threshold (`float`, *optional*, defaults to 0.5):
                A phrase is present where its probability is strictly above this.
            clip_boxes (`bool`, *optional*, defaults to `True`):
                Cut boxes at the frame's border; the original leaves them as they are.

        Returns:
            `list[GroundedCaption]`: boxes in pixels of the source frames. A generated phrase without a [DET] of its own has no
            boxes (NaN) and is never present; a [DET] without a phrase is dropped.
        """
        results = []
        given = [captions] if isinstance(captions, str) else captions
        for index, metadata in enumerate(video_metadata):
            if given is not None:
                text, located = read_caption(given[index], phrases[index] if phrases is not None else None)
                parsed = ParsedCaption(text, located, list(range(len(located))))
            else:
                ids = outputs.sequences[index, outputs.prompt_length :]
                parsed = parse_grounded_text(self.tokenizer.decode(ids, skip_special_tokens=False))
            results.append(self._grounded_caption(parsed, outputs, index, metadata, objectness_threshold, clip_boxes))
        return results

    @staticmethod
    def _grounded_caption(
        parsed: ParsedCaption,
        outputs: GroveGroundedOutput,
        index: int,
        metadata: GroveVideoMetadata,
        threshold: float,
        clip_boxes: bool,
    ) -> GroundedCaption:
        num_frames = len(metadata.frames_indices)
        boxes = outputs.pred_boxes[index, :num_frames].float().cpu()
        pixels = boxes_to_pixels(boxes, metadata.width, metadata.height, clip=clip_boxes).numpy()
        if outputs.objectness_logits is None:
            objectness = np.ones(pixels.shape[:2], dtype=np.float32)
        else:
            objectness = outputs.objectness_logits[index, :num_frames].float().sigmoid().cpu().numpy()
        tracks = []
        for phrase, det in zip(parsed.phrases, parsed.phrase_det, strict=True):
            if det is None or det >= pixels.shape[1]:
                track_boxes = np.full((num_frames, 4), np.nan, dtype=np.float32)
                probability = np.zeros(num_frames, dtype=np.float32)
            else:
                track_boxes, probability = pixels[:, det], objectness[:, det]
            tracks.append(PhraseTrack(phrase.text, phrase.span, track_boxes, probability > threshold, probability))
        return GroundedCaption(
            caption=parsed.caption,
            tracks=tuple(tracks),
            video_id=Path(metadata.name).stem,
            clip_id=metadata.start_frame,
            video_fname=metadata.name,
            fps=metadata.fps,
            width=metadata.width,
            height=metadata.height,
            clip_start_frame=metadata.start_frame,
            clip_end_frame=metadata.end_frame,
            frame_indices=np.asarray(metadata.frames_indices, dtype=np.int64),
            timestamps=np.asarray(metadata.timestamps, dtype=np.float64),
        )


def _box_labels(captions: Sequence[GroundedCaption], positions: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
    """`box_labels` and `objectness_labels` of [`GroveProcessor.prepare_training`]."""
    num_phrases = max((len(caption.tracks) for caption in captions), default=0)
    num_frames = max((len(slots) for slots in positions), default=0)
    boxes = torch.zeros(len(captions), num_frames, num_phrases, 4)
    objectness = torch.full(boxes.shape[:3], float(IGNORE_INDEX))
    for row, (caption, slots) in enumerate(zip(captions, positions, strict=True)):
        slots = np.asarray(slots, dtype=np.int64)
        for column, track in enumerate(sorted(caption.tracks, key=lambda track: track.span)):
            presence = track.presence[slots]
            visible = np.where(presence[:, None], track.boxes[slots], 0.0)
            boxes[row, : len(slots), column] = torch.from_numpy(
                boxes_from_pixels(visible.astype(np.float32), caption.width, caption.height)
            )
            objectness[row, : len(slots), column] = torch.from_numpy(presence.astype(np.float32))
    return boxes, objectness


__all__ = ["CHAT_TEMPLATE", "GroveProcessor"]

"""`pipeline("grounded-video-captioning")`: videos in, grounded captions out."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Any

import torch
from torch.utils.data import Dataset
from transformers import GenerationConfig, Pipeline

from .grounded_caption import GroundedCaption
from .text_grove import QUESTION_TEMPLATES
from .video_grove import iter_video_clips
from .video_processing_grove import is_frame

_READ = ("start_time", "end_time", "start_frame", "end_frame", "fps", "num_threads")
_TEXT = ("preprocess_device", "question", "caption", "phrases")
_GROUND = ("windows", "window_batch_size", "constrained", "on_progress")
_FINISH = ("objectness_threshold", "clip_boxes")


class GroundedVideoCaptioningPipeline(Pipeline):
    r"""
    Captions videos and ties every noun phrase to boxes, or grounds captions that are given.

    Example:

    ```python
    >>> import modeling_grove  # registers GROVE
    >>> from transformers import pipeline

    >>> captioner = pipeline("grounded-video-captioning", model="org/grove")
    >>> result = captioner("clip.mp4")
    >>> result.caption, result.tracks[0].boxes[0]
    >>> captioner("clip.mp4", caption="A <p>dog</p> runs.")  # grounds this caption instead
    ```

    Arguments of a call, also accepted by `pipeline(...)` as defaults:

    - `caption` (`str` or `list[str]`): grounded instead of generating one; `<p>phrase</p>` tags, or with `phrases`
      (`list[str]`, or one list per video).
    - `objectness_threshold` (`float`, defaults to the model's): presence is a probability strictly above it.
    - `clip_boxes` (`bool`, defaults to `True`): cut boxes at the border of the frame.
    - `start_time`, `end_time` (seconds) or `start_frame`, `end_frame` (inclusive): the part of each video; `fps` (defaults to 5).
    - `windows` (`"covering"` or `"sliding"`): fewest windows, or the original's, with its way of conditioning them.
    - `window_batch_size` (`int`, defaults to 4): windows processed at once, bounds the memory: only their pixels are on the device.
    - `preprocess_device` (`str`, defaults to `"cpu"`): where frames are resized and kept; a GPU is faster, if it has the room.
    - `constrained` (`bool`, defaults to `True`): keep the generated tags well-formed.
    - `question` (`str`): the instruction.
    - `on_progress` (`Callable[[str, int, int], None]`): called with a stage, what of it is done and how much there is.
    - `batch_size` (`int`, defaults to 1): videos processed at once.
    - everything that `generate` takes: `max_new_tokens` (defaults to 64), `num_beams`, `do_sample`, ...

    Returns one [`GroundedCaption`] for one video, a list for a list or stack, an iterator for an iterator. Raises `ValueError`
    (for a broken video [`VideoDecodeError`], which is one) with one line that says what to do.
    """

    _load_processor = True
    _load_image_processor = False
    _load_video_processor = False
    _load_feature_extractor = False
    _load_tokenizer = False
    _pipeline_calls_generate = True
    # The original decodes greedily, at most 64 tokens.
    _default_generation_config = GenerationConfig(max_new_tokens=64)

    def _sanitize_parameters(self, **kwargs: Any) -> tuple[dict, dict, dict]:
        prepare, ground, finish = (
            {name: kwargs.pop(name) for name in names if name in kwargs} for names in (_READ + _TEXT, _GROUND, _FINISH)
        )
        return prepare, {**ground, "generate_kwargs": kwargs} if kwargs else ground, finish

    def _parameters(self, kwargs: dict[str, Any]) -> tuple[dict, dict, dict]:
        """The arguments of a call on top of those of `pipeline(...)`, for each of the three steps."""
        prepare, forward, finish = self._sanitize_parameters(**kwargs)
        return (
            {**self._preprocess_params, **prepare},
            {**self._forward_params, **forward},
            {**self._postprocess_params, **finish},
        )

    def __call__(self, videos: Any, batch_size: int | None = None, **kwargs: Any) -> Any:
        parameters = self._parameters(kwargs)
        if _is_one_video(videos):
            return next(self._run([videos], 1, *parameters))
        if getattr(videos, "ndim", None) == 5:
            videos = list(videos)
        results = self._run(videos, batch_size or self._batch_size or 1, *parameters)
        return list(results) if isinstance(videos, list | tuple) else results

    def stream(self, video: Any, clip_seconds: float, **kwargs: Any) -> Iterator[GroundedCaption]:
        """
        Cuts a long video into clips of `clip_seconds` and yields their grounded captions one after the other, in constant memory
        and one decoding pass. Takes the arguments of a call but `caption` and `phrases`.
        """
        for name in ("caption", "phrases"):
            if name in kwargs:
                raise ValueError(
                    f"stream() got {name}; it writes a caption of its own for every clip, remove the argument."
                )
        prepare, forward, finish = self._parameters(kwargs)
        reading = {name: prepare.pop(name) for name in _READ if name in prepare}
        if "fps" in reading:
            reading["target_fps"] = reading.pop("fps")
        clips = iter_video_clips(video, clip_seconds=clip_seconds, **reading)
        yield from self._run(clips, 1, prepare, forward, finish)

    def _run(
        self, videos: Iterable[Any], batch_size: int, prepare: dict, forward: dict, finish: dict
    ) -> Iterator[GroundedCaption]:
        """Runs the three steps on `batch_size` videos at a time."""
        total = len(videos) if isinstance(videos, Sequence) else None
        captions = _one_per_video("caption", prepare.pop("caption", None), total)
        phrases = _one_per_video("phrases", prepare.pop("phrases", None), total)
        done, videos = 0, iter(videos)
        while batch := list(islice(videos, batch_size)):
            part = slice(done, done + len(batch))
            done += len(batch)
            given = {
                "captions": captions if captions is None else captions[part],
                "phrases": phrases if phrases is None else phrases[part],
            }
            model_inputs = self.preprocess(batch, **given, **prepare)
            yield from self.postprocess(self.forward(model_inputs, **forward), **finish)

    def preprocess(
        self,
        videos: list[Any],
        captions: list[str] | None = None,
        phrases: list[list[str]] | None = None,
        question: str = QUESTION_TEMPLATES[0],
        preprocess_device: str = "cpu",
        **videos_kwargs: Any,
    ) -> dict[str, Any]:
        inputs = self.processor.prepare_videos(
            videos, captions, phrases, question, device=preprocess_device, **videos_kwargs
        )
        return {"inputs": dict(inputs), "captions": captions, "phrases": phrases, "question": question}

    def _ensure_tensor_on_device(self, inputs: Any, device: torch.device) -> Any:
        # The model takes pixels to their encoders a batch of windows at a time, so that a long video need not fit there.
        if type(inputs) is not dict:  # a model's output is one too
            return super()._ensure_tensor_on_device(inputs, device)
        pixels = self.processor.video_processor.model_input_names
        return {
            name: value if name in pixels else self._ensure_tensor_on_device(value, device)
            for name, value in inputs.items()
        }

    def _forward(
        self, model_inputs: dict[str, Any], generate_kwargs: dict[str, Any] | None = None, **ground: Any
    ) -> dict[str, Any]:
        inputs = model_inputs.pop("inputs")
        metadata = inputs.pop("video_metadata")
        if model_inputs["captions"] is not None:
            ground.pop("constrained", None)
            outputs = self.model.ground(**inputs, **ground)
        else:
            if ground.get("windows") == "sliding":
                ground["rewrite_caption"] = lambda sequences: self.processor.retokenize(
                    sequences, model_inputs["question"]
                )
            outputs = self.model.generate_grounded(
                **inputs,
                **ground,
                blank_token_id=self.processor.blank_token_id,
                **self._prepare_generate_kwargs(generate_kwargs or {}),
            )
        return {"outputs": outputs, "video_metadata": metadata, **model_inputs}

    def postprocess(
        self, model_outputs: dict[str, Any], objectness_threshold: float | None = None, clip_boxes: bool = True
    ) -> list[GroundedCaption]:
        if objectness_threshold is None:
            objectness_threshold = self.model.config.objectness_threshold
        return self.processor.post_process_grounded_captions(
            model_outputs["outputs"],
            model_outputs["video_metadata"],
            model_outputs["captions"],
            model_outputs["phrases"],
            objectness_threshold,
            clip_boxes,
        )


def _is_one_video(videos: Any) -> bool:
    """Whether this is a video rather than a list, an iterator, a dataset or a stack of videos."""
    if isinstance(videos, list | tuple):
        return bool(videos) and is_frame(videos[0])
    if isinstance(videos, Dataset) or getattr(videos, "ndim", None) == 5:
        return False
    return not isinstance(videos, Iterator) or hasattr(videos, "read")


def _one_per_video(name: str, value: Any, total: int | None) -> list | None:
    """A caption (or its phrases) for each video: one value serves a single video."""
    if value is None:
        return None
    single = isinstance(value, str) or (name == "phrases" and all(isinstance(item, str) for item in value))
    values = [value] if single else list(value)
    if total is None or len(values) != total:
        raise ValueError(
            f"Got {len(values)} {name} values for {'an iterator of' if total is None else total} videos; expected one for each "
            "video of a list."
        )
    return values


__all__ = ["GroundedVideoCaptioningPipeline"]

"""`GroveVideoProcessor`: from videos to the two pixel streams of the model, without torchvision.

Both streams are resized from the same decoded uint8 frames. On CPU `torch` resizes uint8 as PIL does, whose results the
released weights were trained on; resizing in float differs by up to 10 of 255 where bicubic overshoots. A device that
has no uint8 kernel (CUDA) gets the same two passes in float, rounded to whole levels after each.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from huggingface_hub.dataclasses import validate_typed_dict
from PIL import Image
from transformers.image_processing_utils import BatchFeature
from transformers.image_utils import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD, PILImageResampling, SizeDict
from transformers.processing_utils import Unpack, VideosKwargs
from transformers.video_processing_utils import VideoProcessorMixin
from transformers.video_utils import VideoMetadata

from .video_grove import VideoClip, read_video
from .windows_grove import segment_midpoints

# Frames resized and normalised at a time: enough to keep the kernels busy, and the only float copy beyond the result.
_CHUNK_FRAMES = 8
_CHUNK_PIXELS = 2**24  # of resized frames: fewer frames at a time where a long thin one becomes very long
_PART_NAMES = ("start_frame", "end_frame", "start_time", "end_time")


class GroveVideosKwargs(VideosKwargs, total=False):
    """
    Keyword arguments of [`GroveVideoProcessor`] beyond those of every video processor.

    Attributes:
        grounding_size (`int`):
            Side of the grounding stream's square, to which the frame's longest side is resized.
        grounding_image_mean (`list[float]`), grounding_image_std (`list[float]`):
            Normalisation of the grounding stream, on the 0-255 scale.
        window_size (`int`):
            Frames that the model sees at a time.
        start_frame (`int`), end_frame (`int`), start_time (`float`), end_time (`float`):
            The part of a video to use, as in [`read_video`]: one value for all videos or a list with one for each.
        num_threads (`int`):
            Decoding threads; 0 lets FFmpeg choose.
    """

    grounding_size: int | None
    grounding_image_mean: list[float] | tuple[float, ...] | None
    grounding_image_std: list[float] | tuple[float, ...] | None
    window_size: int | None
    start_frame: int | list[int | None] | None
    end_frame: int | list[int | None] | None
    start_time: int | float | list[int | float | None] | None
    end_time: int | float | list[int | float | None] | None
    num_threads: int | None


@dataclass
class GroveVideoMetadata(VideoMetadata):
    """
    Where the frames of one video come from, for turning results into pixels and seconds.

    Attributes:
        fps (`float`), width (`int`), height (`int`), total_num_frames (`int`):
            Of the source video; the size is that of the upright frames, in pixels.
        frames_indices (`list[int]`), timestamps (`list[float]`):
            Source-frame number and seconds of each frame given to the model.
        start_frame (`int`), end_frame (`int`):
            Source frames that the clip covers, inclusive.
        name (`str`):
            The file's name, or "video" for what has none.
    """

    # A field over the base class's property, which assumes a constant rate.
    timestamps: list[float] | None = None
    start_frame: int | None = None
    end_frame: int | None = None
    name: str = "video"


class GroveVideoProcessor(VideoProcessorMixin):
    r"""
    Prepares videos for GROVE: decodes each once and makes two normalised streams of its sampled frames.

    - `pixel_values_videos` for the global video encoder (CLIP): shortest side resized to `size["shortest_edge"]`
      (bicubic, the other side truncated), centre crop to `crop_size`, mean and standard deviation of CLIP.
    - `grounding_pixel_values_videos` for the grounding encoder (SAM): longest side resized to `grounding_size`
      (bilinear, the other side rounded half up), normalised on the 0-255 scale, then padded with zeros right and below.

    Args:
        size (`dict`, *optional*, defaults to `{"shortest_edge": 336}`):
            Size of the shortest side of the global stream.
        crop_size (`dict`, *optional*, defaults to `{"height": 336, "width": 336}`):
            Centre crop of the global stream, at most the shortest side.
        image_mean (`list[float]`, *optional*), image_std (`list[float]`, *optional*):
            Normalisation of the global stream, on the 0-1 scale. Defaults to CLIP's.
        grounding_size (`int`, *optional*, defaults to 512):
            Side of the grounding stream.
        grounding_image_mean (`list[float]`, *optional*), grounding_image_std (`list[float]`, *optional*):
            Normalisation of the grounding stream, on the 0-255 scale. Defaults to SAM's.
        fps (`float`, *optional*, defaults to 5.0):
            Frames a second to sample, see [`sampled_frame_indices`].
        num_frames (`int`, *optional*):
            Keep this many of the sampled frames, the midpoints of as many segments (repeated where a clip is
            shorter). Without it all are kept.
        window_size (`int`, *optional*, defaults to 8):
            Frames that the model sees at a time; not used here, kept for those who cut the frames into windows.
    """

    valid_kwargs = GroveVideosKwargs
    model_input_names: ClassVar[list[str]] = ["pixel_values_videos", "grounding_pixel_values_videos", "frame_mask"]

    do_convert_rgb = True
    do_resize = True
    do_center_crop = True
    do_rescale = True
    do_normalize = True
    do_sample_frames = True
    default_to_square = False
    resample = PILImageResampling.BICUBIC
    size = SizeDict(shortest_edge=336)
    crop_size = SizeDict(height=336, width=336)
    image_mean = OPENAI_CLIP_MEAN
    image_std = OPENAI_CLIP_STD
    grounding_size = 512
    grounding_image_mean = (123.675, 116.28, 103.53)
    grounding_image_std = (58.395, 57.12, 57.375)
    fps = 5.0
    num_frames = None
    window_size = 8

    def __init__(self, **kwargs: Unpack[GroveVideosKwargs]) -> None:
        super().__init__(**kwargs)
        self._set_attributes(**kwargs)  # writes the class defaults into the saved JSON
        self._check_fixed(kwargs)

    def preprocess(self, videos: Any, **kwargs: Unpack[GroveVideosKwargs]) -> BatchFeature:
        """
        Decode and prepare one video or several.

        Args:
            videos (one video or a list of videos):
                A video is anything that [`read_video`] takes (path, bytes, binary file object, URL, uint8 frames, PIL
                images) or a [`VideoClip`], whose frames are used as they are.
            kwargs:
                Any setting of this class for this call, and `start_frame`, `end_frame`, `start_time`, `end_time`
                (for all videos or a list with one value a video), `do_sample_frames=False` (take every frame),
                `video_metadata` (its `fps` is the rate of frames in memory), `device` (where to resize and where the
                result is), `num_threads`, `return_metadata`, `return_tensors` (`"pt"`, the default, or `"np"`).

        Returns:
            [`BatchFeature`]:
                - `pixel_values_videos`: float32 `(B, T, 3, 336, 336)`
                - `grounding_pixel_values_videos`: float32 `(B, T, 3, 512, 512)`
                - `frame_mask`: bool `(B, T)`, `False` for the frames (zeros) that pad shorter videos
                - `video_metadata`: list of [`GroveVideoMetadata`], if `return_metadata`

        Raises:
            [`VideoDecodeError`]: if a video cannot be read.
            `ValueError`: for settings that do not fit together or to the number of videos.
        """
        unknown = sorted(set(kwargs) - set(self.valid_kwargs.__annotations__))
        if unknown:
            raise ValueError(f"GroveVideoProcessor got unknown arguments {unknown}")
        validate_typed_dict(self.valid_kwargs, dict(kwargs))  # type: ignore[type-var]
        self._check_fixed(kwargs)
        settings: dict[str, Any] = {name: getattr(self, name, None) for name in self.valid_kwargs.__annotations__}
        # None asks for the setting itself, except that num_frames=None asks for all frames.
        settings.update({name: value for name, value in kwargs.items() if value is not None or name == "num_frames"})
        settings = self._standardize_kwargs(**settings)
        if settings["num_frames"] is not None and settings["num_frames"] < 1:
            raise ValueError(f"num_frames must be at least 1, or None for all frames, got {settings['num_frames']}")
        videos = _batched(videos)
        parts = [_per_video(name, settings[name], len(videos)) for name in _PART_NAMES]
        rates = _source_rates(settings["video_metadata"], len(videos))
        clips = [
            self._read(video, settings, rate, dict(zip(_PART_NAMES, part, strict=True)))
            for video, rate, *part in zip(videos, rates, *parts, strict=True)
        ]
        features = self._features(clips, settings)
        if settings["return_metadata"]:
            features["video_metadata"] = [_metadata(clip) for clip in clips]
        return features

    def _check_fixed(self, kwargs: Any) -> None:
        """Refuse settings that this processor does not have rather than ignore them."""
        for name in ("do_resize", "do_center_crop", "do_rescale", "do_normalize", "do_convert_rgb"):
            if kwargs.get(name) is False:
                raise ValueError(f"GroveVideoProcessor always does this step, got {name}=False; remove the argument")

    def _read(self, video: Any, settings: dict[str, Any], source_fps: float | None, part: dict[str, Any]) -> VideoClip:
        num_frames = settings["num_frames"]

        def select(total: int) -> Iterable[int]:
            return range(total) if num_frames is None else segment_midpoints(total, num_frames)

        if isinstance(video, VideoClip):
            if any(value is not None for value in part.values()):
                raise ValueError(f"a VideoClip is already cut, got {part}; cut it when reading it")
            if num_frames is None:
                return video
            kept = segment_midpoints(len(video.frames), num_frames)
            return replace(
                video,
                frames=video.frames[kept],
                frame_indices=video.frame_indices[kept],
                timestamps=video.timestamps[kept],
            )
        target_fps = settings["fps"] if settings["do_sample_frames"] else None
        threads = settings["num_threads"] or 0
        return read_video(
            video, target_fps=target_fps, source_fps=source_fps, select=select, num_threads=threads, **part
        )

    def _features(self, clips: list[VideoClip], settings: dict[str, Any]) -> BatchFeature:
        """Resize, crop, normalise and pad the clips, a chunk of frames at a time."""
        shortest, crop, side = settings["size"].shortest_edge, settings["crop_size"], settings["grounding_size"]
        if not shortest or not crop.height or not crop.width or max(crop.height, crop.width) > shortest:
            raise ValueError(
                "the global stream needs size={'shortest_edge': n} and a crop_size of height and width up to n, "
                f"got size={dict(settings['size'])}, crop_size={dict(crop)}"
            )
        device = torch.device(settings["device"] or "cpu")
        batch, length = len(clips), max(len(clip.frames) for clip in clips)
        pixels = torch.zeros(batch, length, 3, crop.height, crop.width, device=device)
        grounding_pixels = torch.zeros(batch, length, 3, side, side, device=device)
        frame_mask = torch.zeros(batch, length, dtype=torch.bool, device=device)
        mean, std = np.array(settings["image_mean"]), np.array(settings["image_std"])
        scale, shift = _affine(settings["rescale_factor"] / std, -mean / std, device)
        mean, std = np.array(settings["grounding_image_mean"]), np.array(settings["grounding_image_std"])
        grounding_scale, grounding_shift = _affine(1 / std, -mean / std, device)
        for row, clip in enumerate(clips):
            frame_mask[row, : len(clip.frames)] = True
            resized = shortest_edge_size(clip.height, clip.width, shortest)
            grounding_height, grounding_width = longest_edge_size(clip.height, clip.width, side)
            top, left = (resized[0] - crop.height) // 2, (resized[1] - crop.width) // 2
            step = max(1, min(_CHUNK_FRAMES, _CHUNK_PIXELS // (resized[0] * resized[1])))
            for start in range(0, len(clip.frames), step):
                chunk = slice(start, min(start + step, len(clip.frames)))
                # (N, H, W, 3) seen as (N, 3, H, W): the channels-last layout has the fastest kernel.
                frames = torch.from_numpy(clip.frames[chunk]).to(device).permute(0, 3, 1, 2)
                cropped = _resize(frames, resized, "bicubic")
                cropped = cropped[:, :, top : top + crop.height, left : left + crop.width]
                torch.mul(cropped, scale, out=pixels[row, chunk]).add_(shift)
                framed = _resize(frames, (grounding_height, grounding_width), "bilinear")
                content = grounding_pixels[row, chunk, :, :grounding_height, :grounding_width]
                torch.mul(framed, grounding_scale, out=content).add_(grounding_shift)
        data = {
            "pixel_values_videos": pixels,
            "grounding_pixel_values_videos": grounding_pixels,
            "frame_mask": frame_mask,
        }
        return BatchFeature(data, tensor_type=settings["return_tensors"])


def _affine(scale: np.ndarray, shift: np.ndarray, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Per-channel `x * scale + shift`, the fused rescaling and normalisation, shaped for (N, 3, H, W)."""
    scale_tensor, shift_tensor = (
        torch.tensor(values, dtype=torch.float32, device=device).reshape(-1, 1, 1) for values in (scale, shift)
    )
    return scale_tensor, shift_tensor


def shortest_edge_size(height: int, width: int, shortest: int) -> tuple[int, int]:
    """(height, width) with the shortest side as asked and the other truncated, as CLIP's image processor."""
    short, long = min(height, width), max(height, width)
    other = int(shortest * long / short)
    return (shortest, other) if height <= width else (other, shortest)


def longest_edge_size(height: int, width: int, longest: int) -> tuple[int, int]:
    """(height, width) with the longest side as asked and the other rounded half up, as SAM's `ResizeLongestSide`."""
    scale = longest / max(height, width)
    return max(1, int(height * scale + 0.5)), max(1, int(width * scale + 0.5))


def _resize(frames: torch.Tensor, size: tuple[int, int], mode: str) -> torch.Tensor:
    """Resize uint8 `(N, 3, H, W)` with antialiasing as PIL does; whole levels in uint8, or in float off the CPU."""
    if frames.device.type != "cpu":
        return _resize_in_float(frames, size, mode)
    return F.interpolate(frames, size=size, mode=mode, antialias=True, align_corners=False)


def _resize_in_float(frames: torch.Tensor, size: tuple[int, int], mode: str) -> torch.Tensor:
    """PIL resizes rows, rounds and clips to uint8, then resizes columns; so does this, without a uint8 kernel."""
    resized = frames.float()
    for step in ((frames.shape[-2], size[1]), size):
        resized = F.interpolate(resized, size=step, mode=mode, antialias=True, align_corners=False)
        resized = resized.round_().clamp_(0, 255)
    return resized


def is_frame(item: Any) -> bool:
    """Whether this is one picture, so that a list of such is one video."""
    return isinstance(item, Image.Image) or getattr(item, "ndim", None) == 3


def _batched(videos: Any) -> list[Any]:
    """One video or several, possibly nested (a chat template gives a list a conversation), as a list of videos."""
    if getattr(videos, "ndim", None) == 5:
        return list(videos)
    if not isinstance(videos, list | tuple) or (len(videos) and is_frame(videos[0])):
        return [videos]
    nested = [_batched(video) for video in videos]
    if not nested:
        raise ValueError("expected at least one video, got an empty list")
    return [video for inner in nested for video in inner]


def _per_video(name: str, value: Any, num_videos: int) -> list[Any]:
    if not isinstance(value, list | tuple):
        return [value] * num_videos
    if len(value) != num_videos:
        raise ValueError(
            f"{name} must be one value or one for each of the {num_videos} videos, got {len(value)} values"
        )
    return list(value)


def _source_rates(video_metadata: Any, num_videos: int) -> list[float | None]:
    """The frame rate in each video's metadata: the rate of frames in memory."""
    if isinstance(video_metadata, Sequence) and video_metadata and isinstance(video_metadata[0], Sequence):
        video_metadata = [item for inner in video_metadata for item in inner]
    return [item and item.get("fps") for item in _per_video("video_metadata", video_metadata, num_videos)]


def _metadata(clip: VideoClip) -> GroveVideoMetadata:
    return GroveVideoMetadata(
        total_num_frames=clip.total_num_frames,
        fps=clip.fps,
        width=clip.width,
        height=clip.height,
        duration=clip.total_num_frames / clip.fps,
        video_backend="pyav",
        frames_indices=clip.frame_indices.tolist(),
        timestamps=clip.timestamps.tolist(),
        start_frame=clip.start_frame,
        end_frame=clip.end_frame,
        name=clip.name,
    )

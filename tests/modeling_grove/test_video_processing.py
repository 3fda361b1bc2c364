"""The video processor: exactness against the original's numbers and PIL, batches, padding, sampling, saving."""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from huggingface_hub.errors import StrictDataclassError
from PIL import Image
from safetensors.numpy import load_file

from modeling_grove import video_processing_grove
from modeling_grove.video_grove import VideoDecodeError, iter_video_clips, read_video
from modeling_grove.video_processing_grove import GroveVideoProcessor
from tests.synthetic_clips import GREY_LEVELS, encode, numbered_frame, to_bytes

GOLDEN = Path(__file__).parents[1] / "golden" / "grove" / "preprocess"
META = json.loads((GOLDEN / "meta.json").read_text())
OUTPUTS = load_file(GOLDEN / "outputs.safetensors")


def golden_frames(name: str) -> np.ndarray:
    clip, scope = META["clips"][name], {}  # type: tuple[dict[str, Any], dict[str, Any]]
    exec(META["frames_formula"], scope)
    frames = scope["frames"](clip["T"], clip["H"], clip["W"], clip["k"])
    assert hashlib.sha256(frames.tobytes()).hexdigest() == clip["sha256_uint8_TxHxWx3"]
    return frames


@pytest.fixture(params=["uint8", "float"])
def kernel(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "float":
        monkeypatch.setattr(video_processing_grove, "_resize", video_processing_grove._resize_in_float)
    return request.param


@pytest.mark.parametrize("name", META["clips"])
def test_matches_the_original(name: str, kernel: str) -> None:
    processor, clip = GroveVideoProcessor(), META["clips"][name]
    features = processor(golden_frames(name))
    pixels = features["pixel_values_videos"][0].transpose(0, 1).numpy()
    grounding = features["grounding_pixel_values_videos"][0].transpose(0, 1).numpy()
    assert list(pixels.shape) == clip["clip_pixel_values_shape"]
    assert list(grounding.shape) == clip["sam_pixel_values_shape"]
    # Levels of 255 in normalised units. Measured: global stream 1 level; grounding stream exact in uint8, 2 in float.
    level = 1 / (255 * np.array(processor.image_std)).reshape(3, 1, 1)
    grounding_level = 1 / np.array(processor.grounding_image_std).reshape(3, 1, 1)
    grounding_levels = 0.001 if kernel == "uint8" else 2.001

    def levels_off(actual: np.ndarray, key: str, unit: np.ndarray) -> float:
        return float((np.abs(actual - OUTPUTS[f"{name}.{key}"]) / unit).max())

    stored, grid, sam_grid = clip["frames_stored"], clip["clip_grid_index"], clip["sam_grid_index"]
    assert levels_off(pixels[:, stored][:, :, grid][..., grid], "clip_grid", level[..., None]) < 1.001
    assert levels_off(pixels[:, 1, 100:124, 200:224], "clip_patch", level) < 1.001
    corners = np.stack([pixels[:, 1, :12, :12], pixels[:, 1, -12:, -12:]])
    assert levels_off(corners, "clip_corner", level) < 1.001
    sampled = grounding[:, stored][:, :, sam_grid][..., sam_grid]
    assert levels_off(sampled, "sam_grid", grounding_level[..., None]) < grounding_levels
    assert levels_off(grounding[:, 1, 60:84, 90:114], "sam_patch", grounding_level) < grounding_levels
    y, x = clip["sam_edge_origin_yx"]
    assert levels_off(grounding[:, 1, y : y + 16, x : x + 16], "sam_edge", grounding_level) < grounding_levels
    for actual, key in ((pixels, "clip_stats"), (grounding, "sam_stats")):
        stats = np.stack([actual.mean((2, 3)).T, actual.std((2, 3), ddof=1).T])
        np.testing.assert_allclose(stats, OUTPUTS[f"{name}.{key}"], atol=1e-3)
    height, width = clip["sam_resized_hw"]
    assert not grounding[:, :, height:].any()
    assert not grounding[:, :, :, width:].any()


@pytest.mark.parametrize("size", [(640, 360), (333, 500), (33, 17), (2, 2), (1, 64), (500, 4), (336, 336), (512, 511)])
def test_matches_pil(size: tuple[int, int], kernel: str) -> None:
    processor = GroveVideoProcessor(
        size={"shortest_edge": 56}, crop_size={"height": 56, "width": 56}, grounding_size=64
    )
    frame = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    features = processor(frame[None])
    short, long = min(size), max(size)
    resized = (56, int(56 * long / short)) if size[0] <= size[1] else (int(56 * long / short), 56)
    left, top = (resized[0] - 56) // 2, (resized[1] - 56) // 2
    expected = np.asarray(Image.fromarray(frame).resize(resized, Image.Resampling.BICUBIC))
    expected = expected[top : top + 56, left : left + 56].transpose(2, 0, 1)
    std, mean = np.array(processor.image_std).reshape(3, 1, 1), np.array(processor.image_mean).reshape(3, 1, 1)
    actual = (features["pixel_values_videos"][0, 0].numpy() * std + mean) * 255
    assert np.abs(actual - expected).max() < 2.01
    resized = (max(1, int(size[0] * 64 / long + 0.5)), max(1, int(size[1] * 64 / long + 0.5)))
    expected = np.asarray(Image.fromarray(frame).resize(resized, Image.Resampling.BILINEAR)).transpose(2, 0, 1)
    std, mean = (
        np.array(values).reshape(3, 1, 1) for values in (processor.grounding_image_std, processor.grounding_image_mean)
    )
    grounding = features["grounding_pixel_values_videos"][0, 0].numpy()
    actual = grounding[:, : resized[1], : resized[0]] * std + mean
    assert np.abs(actual - expected).max() < 2.01
    assert not grounding[:, resized[1] :].any()
    assert not grounding[:, :, resized[0] :].any()


@pytest.fixture(scope="module")
def processor() -> GroveVideoProcessor:
    return GroveVideoProcessor(size={"shortest_edge": 28}, crop_size={"height": 28, "width": 28}, grounding_size=32)


def numbers(features: Any, processor: GroveVideoProcessor, row: int = 0) -> list[int]:
    """The numbers of a video's unpadded frames, read off the global stream."""
    pixels = features["pixel_values_videos"][row][features["frame_mask"][row]]
    levels = (pixels[:, 0] * processor.image_std[0] + processor.image_mean[0]).mean((1, 2)) * 255
    return ((levels - 28) / 8).round().int().tolist()


def test_batch_of_unequal_videos(processor: GroveVideoProcessor, tmp_path: Path) -> None:
    path = tmp_path / "long.mp4"
    encode(path, num_frames=60)
    frames = np.stack([numbered_frame(number, 20, 40) for number in range(3)])
    features = processor([path, frames], return_metadata=True)
    assert features["pixel_values_videos"].shape == (2, 12, 3, 28, 28)
    assert features["grounding_pixel_values_videos"].shape == (2, 12, 3, 32, 32)
    assert features["pixel_values_videos"].dtype == features["grounding_pixel_values_videos"].dtype == torch.float32
    assert features["frame_mask"].tolist() == [[True] * 12, [True] * 3 + [False] * 9]
    assert not features["pixel_values_videos"][1, 3:].any()
    assert not features["grounding_pixel_values_videos"][1, 3:].any()
    assert numbers(features, processor) == [index % GREY_LEVELS for index in range(0, 60, 5)]
    assert numbers(features, processor, row=1) == [0, 1, 2]
    metadata = features["video_metadata"]
    assert (metadata[0].fps, metadata[0].width, metadata[0].height, metadata[0].total_num_frames) == (25.0, 64, 48, 60)
    assert metadata[0].frames_indices == list(range(0, 60, 5))
    assert metadata[0].name == "long.mp4"
    assert metadata[0].timestamps == pytest.approx([index / 5 for index in range(12)])
    assert (metadata[1].width, metadata[1].height, metadata[1].start_frame, metadata[1].end_frame) == (20, 40, 0, 2)
    assert dict(metadata[0])["end_frame"] == 59


def test_parts_for_all_or_for_each(processor: GroveVideoProcessor) -> None:
    video = to_bytes(num_frames=40)
    features = processor([video, video], start_frame=[0, 20], end_frame=29)
    assert numbers(features, processor, 0) == [0, 5, 10, 15, 20, 25]
    assert numbers(features, processor, 1) == [20, 25]
    features = processor([video, video], start_time=[None, 0.8], end_time=1, return_metadata=True)
    assert [metadata.frames_indices for metadata in features["video_metadata"]] == [[0, 5, 10, 15, 20], [20]]
    with pytest.raises(ValueError, match="one for each of the 2 videos"):
        processor([video, video], start_frame=[0])


def test_number_of_frames_and_rate(processor: GroveVideoProcessor) -> None:
    video = to_bytes(num_frames=80)
    indices = [
        metadata.frames_indices for metadata in processor(video, num_frames=8, return_metadata=True)["video_metadata"]
    ]
    assert indices == [[5, 15, 25, 35, 45, 55, 65, 75]]
    assert processor(video, fps=25)["frame_mask"].shape == (1, 80)
    assert processor(video, do_sample_frames=False)["frame_mask"].shape == (1, 80)
    eight = GroveVideoProcessor(**{**processor.to_dict(), "num_frames": 8})
    assert eight(video)["frame_mask"].shape == (1, 8)
    assert eight(video, num_frames=None)["frame_mask"].shape == (1, 16)
    short = eight(to_bytes(num_frames=10), return_metadata=True)
    assert short["video_metadata"][0].frames_indices == [0] * 4 + [5] * 4


def test_forms_of_input(processor: GroveVideoProcessor, tmp_path: Path) -> None:
    path = tmp_path / "numbers.mp4"
    encode(path, num_frames=50)
    frames = np.stack([numbered_frame(number, 64, 48) for number in range(0, 50, 5)])
    images = [Image.fromarray(frame) for frame in frames]
    one = [str(path), path, path.read_bytes(), frames, torch.from_numpy(frames), images, list(frames), read_video(path)]
    for video in one:
        for videos in (video, [video], [[video]]):
            features = processor(videos)
            assert features["frame_mask"].shape == (1, 10)
            assert numbers(features, processor) == [number % GREY_LEVELS for number in range(0, 50, 5)]
    assert processor([[str(path)], [str(path)]])["frame_mask"].shape == (2, 10)
    assert processor(np.stack([frames, frames]))["frame_mask"].shape == (2, 10)
    assert processor(frames, video_metadata={"fps": 10.0, "total_num_frames": 10})["frame_mask"].shape == (1, 5)
    assert [processor(clip)["frame_mask"].shape[1] for clip in iter_video_clips(path, clip_seconds=1)] == [5, 5]


def test_numpy_output(processor: GroveVideoProcessor) -> None:
    features = processor(to_bytes(num_frames=10), return_tensors="np")
    assert all(isinstance(features[name], np.ndarray) for name in processor.model_input_names)


def test_chunks_do_not_show(processor: GroveVideoProcessor, monkeypatch: pytest.MonkeyPatch) -> None:
    frames = np.random.default_rng(0).integers(0, 256, (11, 30, 50, 3), dtype=np.uint8)
    expected = processor(frames)
    monkeypatch.setattr(video_processing_grove, "_CHUNK_FRAMES", 3)
    for name, value in processor(frames).items():
        assert torch.equal(value, expected[name])


def test_save_and_load(processor: GroveVideoProcessor, tmp_path: Path) -> None:
    custom = GroveVideoProcessor(fps=2.0, num_frames=4, window_size=16, grounding_image_mean=[1.0, 2.0, 3.0])
    custom.save_pretrained(tmp_path)
    saved = json.loads((tmp_path / "video_preprocessor_config.json").read_text())
    assert saved["size"] == {"shortest_edge": 336}
    assert saved["crop_size"] == {"height": 336, "width": 336}
    assert saved["grounding_size"] == 512
    assert saved["fps"] == 2.0
    assert saved["window_size"] == 16
    assert saved["grounding_image_std"] == [58.395, 57.12, 57.375]
    assert len(saved["image_mean"]) == 3
    loaded = GroveVideoProcessor.from_pretrained(tmp_path)
    assert loaded.to_json_string() == custom.to_json_string()
    assert GroveVideoProcessor.from_pretrained(tmp_path, grounding_size=64).grounding_size == 64
    processor.save_pretrained(tmp_path)
    video = to_bytes(num_frames=10)
    expected, actual = processor(video), GroveVideoProcessor.from_pretrained(tmp_path)(video)
    assert all(torch.equal(expected[name], actual[name]) for name in processor.model_input_names)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"do_resize": False}, "do_resize=False"),
        ({"do_normalize": False}, "do_normalize=False"),
        ({"colour": "red"}, "unknown arguments"),
        ({"size": {"height": 28, "width": 28}}, "shortest_edge"),
        ({"crop_size": {"height": 29, "width": 28}}, "crop_size"),
        ({"start_frame": 100}, "past the end"),
        ({"start_frame": "first"}, "start_frame"),
        ({"num_frames": 0}, "num_frames"),
    ],
)
def test_wrong_arguments(processor: GroveVideoProcessor, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises((ValueError, StrictDataclassError), match=message):
        processor(to_bytes(num_frames=10), **arguments)


def test_wrong_videos(processor: GroveVideoProcessor) -> None:
    with pytest.raises(ValueError, match="at least one video"):
        processor([])
    with pytest.raises(VideoDecodeError, match="no such video file"):
        processor("missing.mp4")
    with pytest.raises(ValueError, match="already cut"):
        processor(read_video(to_bytes(num_frames=10)), start_frame=2)
    with pytest.raises(ValueError, match="always does this step"):
        GroveVideoProcessor(do_center_crop=False)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda(processor: GroveVideoProcessor) -> None:
    frames = np.random.default_rng(0).integers(0, 256, (9, 90, 160, 3), dtype=np.uint8)
    expected, actual = processor(frames), processor(frames, device="cuda")
    assert actual["pixel_values_videos"].device.type == "cuda"
    levels = 2.01 / min(processor.grounding_image_std)
    for name in ("pixel_values_videos", "grounding_pixel_values_videos"):
        assert (actual[name].cpu() - expected[name]).abs().max() < levels

"""Odd and damaged videos: each gives the right frames, or one line that says what is wrong."""

import os
import struct
import time
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from av.video.frame import VideoFrame
from PIL import Image

from modeling_grove.video_grove import VideoClip, VideoDecodeError, read_video
from tests.synthetic_clips import (
    CORNERS,
    GREY_LEVELS,
    corrupt,
    encode,
    encode_audio,
    frame_numbers,
    numbered_frame,
    truncate,
)

GOOD = {"b": "4000000"}
VP9 = {"codec": "libvpx-vp9", "options": {"deadline": "realtime", "cpu-used": "8"}}

# name: (file extension, arguments of `encode`)
PLAYABLE: dict[str, tuple[str, dict[str, Any]]] = {
    "h264-mp4": ("mp4", {}),
    "h264-mkv": ("mkv", {}),
    "h264-avi": ("avi", {}),
    "h264-ts": ("ts", {}),
    "h264-flv": ("flv", {}),
    "h264-fragmented": ("mp4", {"container_options": {"movflags": "frag_keyframe+empty_moov"}}),
    "h264-raw": ("h264", {}),
    "h264-interlaced": ("mp4", {"options": {"x264-params": "interlaced=1"}}),
    "h264-10-bit": ("mp4", {"pix_fmt": "yuv420p10le"}),
    "h264-444-odd": ("mp4", {"pix_fmt": "yuv444p", "width": 33, "height": 17}),
    "h264-2x2": ("mp4", {"width": 2, "height": 2}),
    "h264-wide": ("mp4", {"width": 512, "height": 4}),
    "hevc-mp4": ("mp4", {"codec": "libx265", "options": {"x265-params": "log-level=none"}}),
    "vp8-webm": ("webm", {"codec": "libvpx", "options": {"deadline": "realtime", "cpu-used": "8", "b": "1000000"}}),
    "vp9-webm": ("webm", VP9),
    "vp9-odd": ("webm", {**VP9, "width": 33, "height": 17}),
    "av1-mp4": (
        "mp4",
        {"codec": "libsvtav1", "options": {"preset": "12"}, "width": 128, "height": 96, "num_frames": 20},
    ),
    "mpeg4-avi": ("avi", {"codec": "mpeg4", "options": GOOD}),
    "mpeg4-b-frames-avi": ("avi", {"codec": "mpeg4", "options": {**GOOD, "bf": "2"}}),
    "mpeg2-ts": ("ts", {"codec": "mpeg2video", "options": GOOD}),
    "mjpeg-mov": ("mov", {"codec": "mjpeg", "pix_fmt": "yuvj420p", "options": GOOD}),
    "mjpeg-1x64": ("mkv", {"codec": "mjpeg", "pix_fmt": "yuvj444p", "width": 1, "height": 64, "options": GOOD}),
    "ffv1-odd": ("mkv", {"codec": "ffv1", "pix_fmt": "bgr0", "width": 33, "height": 17}),
    "png-grey": ("mov", {"codec": "png", "pix_fmt": "gray"}),
    "png-alpha": ("mov", {"codec": "png", "pix_fmt": "rgba"}),
    "prores-alpha": (
        "mov",
        {"codec": "prores_ks", "pix_fmt": "yuva444p10le", "width": 64, "height": 48, "num_frames": 12},
    ),
    "gif": ("gif", {"codec": "gif", "pix_fmt": "rgb8"}),
    "1-frame": ("mp4", {"num_frames": 1}),
    "2-frames": ("mp4", {"num_frames": 2}),
    "7-frames": ("mkv", {"num_frames": 7}),
    "1-fps": ("mp4", {"fps": 1, "num_frames": 6}),
    "120-fps": ("mp4", {"fps": 120}),
    "two-videos": ("mkv", {"second_stream": True}),
    "anamorphic": ("mp4", {"sample_aspect_ratio": Fraction(4, 3)}),
}


def assert_numbers(clip: VideoClip, tolerance: int = 0) -> None:
    expected = [index % GREY_LEVELS for index in clip.frame_indices.tolist()]
    off = np.abs(np.array(frame_numbers(clip.frames)) - expected)
    assert off.max() <= tolerance, (frame_numbers(clip.frames), expected)


def heavy_frames(num_frames: int) -> list[np.ndarray]:
    """Numbered frames with 8 rows of noise at the top, so that most of a file is frames and not its index."""
    frames = [numbered_frame(number, 64, 48) for number in range(num_frames)]
    for number, frame in enumerate(frames):
        frame[:8] = np.random.default_rng(number).integers(0, 256, (8, 64, 3))
    return frames


@pytest.mark.parametrize("name", PLAYABLE)
def test_playable(name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    suffix, arguments = PLAYABLE[name]
    path = tmp_path / f"{name}.{suffix}"
    encode(path, **arguments)
    num_frames, fps = arguments.get("num_frames", 50), arguments.get("fps", 25)
    clip = read_video(path)
    assert clip.frame_indices.tolist() == list(range(0, num_frames, max(1, fps // 5)))
    # rgb8 has a quarter of the grey levels.
    assert_numbers(clip, tolerance=1 if name == "gif" else 0)
    assert (clip.width, clip.height) == (arguments.get("width", 64), arguments.get("height", 48))
    assert clip.frames.shape == (len(clip.frame_indices), clip.height, clip.width, 3)
    assert (clip.fps, clip.total_num_frames, clip.end_frame) == (fps, num_frames, num_frames - 1)
    np.testing.assert_allclose(clip.timestamps, clip.frame_indices / fps, atol=1e-3)
    tail = read_video(path, start_frame=num_frames - 1)
    assert tail.frame_indices.tolist() == [num_frames - 1]
    assert_numbers(tail, tolerance=1 if name == "gif" else 0)
    assert not caplog.records


@pytest.mark.parametrize(
    ("rotation", "upright"),
    [
        (0, ["top_left", "top_right", "bottom_left", "bottom_right"]),
        (90, ["top_right", "bottom_right", "top_left", "bottom_left"]),
        (180, ["bottom_right", "bottom_left", "top_right", "top_left"]),
        (270, ["bottom_left", "top_left", "bottom_right", "top_right"]),
    ],
)
def test_rotated(rotation: int, upright: list[str], tmp_path: Path) -> None:
    path = tmp_path / "rotated.mp4"
    encode(path, corners=True, rotation=rotation, num_frames=6)
    clip = read_video(path)
    assert (clip.width, clip.height) == ((64, 48) if rotation % 180 == 0 else (48, 64))
    frame = clip.frames[0].astype(int)
    for corner, name in zip((frame[3, 3], frame[3, -4], frame[-4, 3], frame[-4, -4]), upright, strict=True):
        assert np.abs(corner - CORNERS[name]).max() < 12


def test_mirrored(tmp_path: Path) -> None:
    path = tmp_path / "mirrored.mp4"
    encode(path, corners=True, rotation=0, num_frames=2)
    # The 3x3 matrix of the track header follows 36 bytes of other fields; make a = -1: left and right change places.
    data = bytearray(path.read_bytes())
    matrix = data.index(b"tkhd") + 4 + 40
    assert struct.unpack(">i", data[matrix : matrix + 4]) == (65536,)
    data[matrix : matrix + 4] = struct.pack(">i", -65536)
    frame = read_video(bytes(data)).frames[0].astype(int)
    assert np.abs(frame[3, 3] - CORNERS["top_right"]).max() < 12
    assert np.abs(frame[-4, -4] - CORNERS["bottom_left"]).max() < 12


def test_image_is_a_video_of_one_frame(tmp_path: Path) -> None:
    path = tmp_path / "frame.png"
    Image.fromarray(numbered_frame(5, 20, 10)).save(path)
    clip = read_video(path)
    assert clip.total_num_frames == 1
    assert frame_numbers(clip.frames) == [5]


def test_the_frame_size_changes(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    parts = []
    for number, size in enumerate((64, 96)):
        encode(part := tmp_path / f"{number}.h264", width=size, height=48, num_frames=20)
        parts.append(part.read_bytes())
    path = tmp_path / "grows.h264"
    path.write_bytes(b"".join(parts))
    clip = read_video(path)
    assert clip.frames.shape == (8, 48, 64, 3)
    assert "size changes" in caplog.text
    assert frame_numbers(clip.frames) == [0, 5, 10, 15, 0, 5, 10, 15]


def test_timestamps_that_start_over(tmp_path: Path) -> None:
    encode(tmp_path / "part.ts", num_frames=50)
    path = tmp_path / "twice.ts"
    path.write_bytes((tmp_path / "part.ts").read_bytes() * 2)
    clip = read_video(path)
    assert clip.total_num_frames == 100
    assert clip.fps == 25
    assert frame_numbers(clip.frames) == [index % 50 % GREY_LEVELS for index in clip.frame_indices.tolist()]


@pytest.mark.parametrize("fraction", [0.3, 0.5, 0.8, 0.97])
@pytest.mark.parametrize("suffix", ["mkv", "ts", "avi", "webm", "mp4", "gif"])
def test_cut_off(suffix: str, fraction: float, tmp_path: Path) -> None:
    whole, path = tmp_path / f"whole.{suffix}", tmp_path / f"cut.{suffix}"
    codec: dict[str, Any] = {
        "webm": VP9,
        "gif": {"codec": "gif", "pix_fmt": "rgb8"},
        "avi": {"codec": "mpeg4", "options": GOOD},
    }
    # "faststart" puts the index first, so that a cut file still claims all its frames.
    options = {"container_options": {"movflags": "faststart"}} if suffix == "mp4" else codec.get(suffix, {})
    encode(whole, frames=heavy_frames(100), **options)
    truncate(whole, path, fraction)
    clip = read_video(path)
    assert 0 < len(clip.frames) < 20 or fraction > 0.9
    assert clip.end_frame == clip.total_num_frames - 1 <= 99
    # A damaged tail loses reference frames, so count by the time shown and leave out the last frame.
    numbers = frame_numbers(clip.frames[:-1, 16:])
    shown = [round(seconds * 25) % GREY_LEVELS for seconds in clip.timestamps[:-1].tolist()]
    assert np.abs(np.array(numbers) - shown).max(initial=0) <= (1 if suffix == "gif" else 0)


def test_claims_more_frames_than_it_holds(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    encode(tmp_path / "whole.mp4", num_frames=200, container_options={"movflags": "faststart"}, options={"g": "20"})
    path = truncate(tmp_path / "whole.mp4", tmp_path / "cut.mp4", 0.8)
    clip = read_video(path)
    assert_numbers(clip)
    assert 0 < clip.total_num_frames < 200
    assert clip.end_frame == clip.total_num_frames - 1
    assert len(caplog.records) == 1
    assert "of 40 frames do not decode" in caplog.text
    with pytest.raises(VideoDecodeError, match="damaged or cut off"):
        read_video(path, start_frame=190)


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "ts", "avi"])
def test_corrupt_in_the_middle(suffix: str, tmp_path: Path) -> None:
    options: dict[str, Any] = {"container_options": {"movflags": "faststart"}} if suffix == "mp4" else {}
    whole = tmp_path / f"whole.{suffix}"
    encode(whole, frames=heavy_frames(200), options={"g": "20"}, **options)
    clip = read_video(corrupt(whole, tmp_path / f"damaged.{suffix}", 0.55, 0.65))
    assert 20 <= len(clip.frames) <= 40
    assert (np.diff(clip.frame_indices) > 0).all()
    before = clip.timestamps < 2
    shown = [round(seconds * 25) % GREY_LEVELS for seconds in clip.timestamps[before].tolist()]
    assert len(shown) == 10
    assert frame_numbers(clip.frames[before, 16:]) == shown


def _empty(path: Path) -> Path:
    path.write_bytes(b"")
    return path


def _text(path: Path) -> Path:
    path = path.with_suffix(".txt")
    path.write_text("a dog runs\n" * 100)
    return path


def _subtitles(path: Path) -> Path:
    path = path.with_suffix(".vtt")
    path.write_text("WEBVTT\n\n00:00.000 --> 00:01.000\na dog\n")
    return path


def _directory(path: Path) -> Path:
    path.mkdir()
    return path


def _fifo(path: Path) -> Path:
    os.mkfifo(path)
    return path


def _noise(path: Path) -> Path:
    path.write_bytes(np.random.default_rng(0).integers(0, 256, 100_000, dtype=np.uint8).tobytes())
    return path


def _no_frames(path: Path) -> Path:
    with av.open(str(path), "w", options={"movflags": "empty_moov"}) as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        container.start_encoding()
    return path


def _without_index(path: Path) -> Path:
    encode(whole := path.with_name("whole.mp4"))
    return truncate(whole, path, 0.9)


def _header_only(path: Path) -> Path:
    encode(whole := path.with_name("whole.mp4"), container_options={"movflags": "faststart"})
    data = whole.read_bytes()
    path.write_bytes(data[: data.index(b"mdat") + 4])
    return path


def _audio(path: Path) -> Path:
    encode_audio(path)
    return path


def _cover_art(path: Path) -> Path:
    encode_audio(path, cover=True)
    return path


def _playlist(path: Path) -> Path:
    encode(path.with_name("part.ts"), num_frames=10)
    path = path.with_suffix(".m3u8")
    path.write_text("#EXTM3U\n#EXT-X-TARGETDURATION:4\n#EXTINF:4,\npart.ts\n")
    return path


def _list_of_files(path: Path) -> Path:
    encode(path.with_name("part.mp4"), num_frames=10)
    path.write_text("ffconcat version 1.0\nfile part.mp4\n")
    return path


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (_empty, "not a video that FFmpeg can open"),
        (_text, "not a video that FFmpeg can open"),
        (_noise, "not a video that FFmpeg can open"),
        (_without_index, "not a video that FFmpeg can open"),
        (_playlist, "not a video that FFmpeg can open"),
        (_list_of_files, "not a video that FFmpeg can open"),
        (_subtitles, "found streams: subtitle"),
        (_audio, "found streams: audio"),
        (_cover_art, "expected a video stream"),
        (_no_frames, "no frames|FFmpeg can open"),
        (_header_only, "decode|no frames|FFmpeg can open"),
        (_directory, "is a directory"),
        (_fifo, "neither a regular file"),
        (lambda path: path, "no such video file"),
    ],
)
def test_not_a_video(make: Callable[[Path], Path], message: str, tmp_path: Path) -> None:
    source = make(tmp_path / "broken.mp4")
    started = time.monotonic()
    with pytest.raises(VideoDecodeError, match=message) as error:
        read_video(source)
    assert "\n" not in str(error.value)
    assert time.monotonic() - started < 5
    if source.is_file():
        with pytest.raises(VideoDecodeError):
            read_video(source.read_bytes())


@pytest.mark.parametrize("declared", [0, 1_000_000])
def test_absurd_declared_rate(declared: int, tmp_path: Path) -> None:
    # AVI says its rate in the header: scale and rate follow 20 and 24 bytes after the stream's "strh" fields begin.
    path = tmp_path / "rate.avi"
    encode(path, codec="mpeg4", options=GOOD)
    data = bytearray(path.read_bytes())
    rate = data.index(b"strh") + 8 + 24
    data[rate : rate + 4] = struct.pack("<I", declared)
    clip = read_video(bytes(data))
    assert clip.fps > 0
    assert np.isfinite(clip.timestamps).all()
    assert clip.total_num_frames == 50
    assert_numbers(clip)


def test_matroska_without_a_declared_rate(tmp_path: Path) -> None:
    path = tmp_path / "undeclared.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=1000)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for number in range(50):
            frame = VideoFrame.from_ndarray(numbered_frame(number, 64, 48), format="rgb24")
            frame.pts, frame.time_base = number * 40, Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    clip = read_video(path)
    assert clip.fps == 25.0
    assert clip.frame_indices.tolist() == list(range(0, 50, 5))
    assert_numbers(clip)

"""Test clips made with PyAV whose content says which frame it is.

Every frame carries its number as a grey level over the whole picture (`GREY_LEVELS` of them, far enough apart to
survive lossy codecs and 2x2 frames), or, with `corners=True`, a colour in each corner to tell which way is up.
"""

import io
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any, cast

import av
import numpy as np
from av.audio.stream import AudioStream
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

GREY_LEVELS = 26
CORNERS = {
    "top_left": (255, 0, 0),
    "top_right": (0, 255, 0),
    "bottom_left": (0, 0, 255),
    "bottom_right": (255, 255, 255),
}


def numbered_frame(number: int, width: int, height: int) -> np.ndarray:
    """uint8 `(height, width, 3)`: one grey level that encodes `number` modulo `GREY_LEVELS`."""
    return np.full((height, width, 3), 28 + 8 * (number % GREY_LEVELS), dtype=np.uint8)


def corner_frame(width: int, height: int) -> np.ndarray:
    """uint8 `(height, width, 3)`: four quadrants in the colours of `CORNERS`."""
    frame = np.zeros((height, width, 3), dtype=np.uint8)
    top, left = slice(0, height // 2), slice(0, width // 2)
    bottom, right = slice(height // 2, None), slice(width // 2, None)
    for name, (rows, columns) in {
        "top_left": (top, left),
        "top_right": (top, right),
        "bottom_left": (bottom, left),
        "bottom_right": (bottom, right),
    }.items():
        frame[rows, columns] = CORNERS[name]
    return frame


def frame_numbers(frames: np.ndarray) -> list[int]:
    """The numbers, modulo `GREY_LEVELS`, of decoded frames `(T, H, W, 3)`."""
    means = frames.reshape(len(frames), -1).mean(axis=1)
    return np.round((means - 28) / 8).astype(int).tolist()


def encode(
    path: str | Path | io.BytesIO,
    *,
    codec: str = "libx264",
    num_frames: int = 50,
    width: int = 64,
    height: int = 48,
    fps: float | Fraction = 25,
    container_format: str | None = None,
    pix_fmt: str = "yuv420p",
    options: dict[str, str] | None = None,
    container_options: dict[str, str] | None = None,
    milliseconds: Sequence[int] | None = None,
    rotation: int | None = None,
    sample_aspect_ratio: Fraction | None = None,
    corners: bool = False,
    frames: Sequence[np.ndarray] | None = None,
    second_stream: bool = False,
) -> None:
    """
    Write a clip of numbered frames.

    Args:
        path: where to; a `BytesIO` needs `container_format`.
        milliseconds: when each frame is shown, for a variable rate; replaces `num_frames`.
        rotation: counter-clockwise degrees of the display matrix.
        corners: draw `corner_frame` instead of numbers.
        frames: pictures to encode instead.
        second_stream: add a second video stream, white and twice as large.
    """
    times = None if milliseconds is None else list(milliseconds)
    count = len(frames) if frames is not None else len(times) if times is not None else num_frames
    target = str(path) if isinstance(path, Path) else path
    with av.open(target, "w", format=container_format, options=container_options or {}) as container:
        rate = Fraction(fps).limit_denominator(100000)
        stream = cast(VideoStream, container.add_stream(codec, rate=rate, options=options or {}))
        stream.width, stream.height, stream.pix_fmt = width, height, pix_fmt
        if times is not None:
            stream.codec_context.time_base = Fraction(1, 1000)
        if rotation is not None:
            stream.set_display_rotation(rotation)
        if sample_aspect_ratio is not None:
            stream.codec_context.sample_aspect_ratio = sample_aspect_ratio
        other = None
        if second_stream:
            other = container.add_stream("mpeg4", rate=25)
            other.width, other.height, other.pix_fmt = 2 * width, 2 * height, "yuv420p"
        for number in range(count):
            picture = frames[number] if frames is not None else None
            if picture is None:
                picture = corner_frame(width, height) if corners else numbered_frame(number, width, height)
            frame = VideoFrame.from_ndarray(picture, format="rgb24")
            if times is not None:
                frame.pts, frame.time_base = times[number], Fraction(1, 1000)
            container.mux(stream.encode(frame))
            if other is not None:
                white = np.full((2 * height, 2 * width, 3), 255, dtype=np.uint8)
                container.mux(other.encode(VideoFrame.from_ndarray(white, format="rgb24")))
        container.mux(stream.encode())
        if other is not None:
            container.mux(other.encode())


def encode_audio(path: Path, *, codec: str = "aac", cover: bool = False) -> None:
    """Write a second of silence, with an attached cover picture if `cover`."""
    with av.open(str(path), "w") as container:
        stream = cast(AudioStream, container.add_stream(codec, rate=16000, layout="mono"))
        picture = None
        if cover:
            picture = container.add_stream("mjpeg", rate=25)
            picture.width, picture.height, picture.pix_fmt = 64, 48, "yuvj420p"
            picture.disposition = av.stream.Disposition.attached_pic
            image = VideoFrame.from_ndarray(numbered_frame(0, 64, 48), format="rgb24").reformat(format="yuvj420p")
            packets = picture.encode(image) + picture.encode()
        for _ in range(16):
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 1000), dtype=np.float32), format="fltp", layout="mono")
            frame.sample_rate = 16000
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
        if cover:
            container.mux(packets)


def to_bytes(**kwargs: Any) -> bytes:
    """An MP4 of `encode` as bytes."""
    buffer = io.BytesIO()
    encode(buffer, container_format="mp4", **kwargs)
    return buffer.getvalue()


def truncate(source: Path, target: Path, fraction: float) -> Path:
    """Copy the first `fraction` of a file's bytes."""
    data = source.read_bytes()
    target.write_bytes(data[: int(len(data) * fraction)])
    return target


def corrupt(source: Path, target: Path, start: float, stop: float) -> Path:
    """Copy a file with the bytes between two fractions of its length overwritten with noise."""
    data = bytearray(source.read_bytes())
    first, last = int(len(data) * start), int(len(data) * stop)
    data[first:last] = np.random.default_rng(0).integers(0, 256, last - first, dtype=np.uint8).tobytes()
    target.write_bytes(bytes(data))
    return target

"""Cutting the clip of a record out of its video, frame by frame exact.

The packets of the source are copied where that gives exactly the frames that were asked for, and the frames are encoded
again where it does not. Clips have no audio: captions are about pictures. Equal sources give equal bytes (no times, no
threads; another build of FFmpeg or x264 may give others).
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Literal, cast

import av
import numpy as np
from av.container import InputContainer
from av.packet import Packet
from av.stream import Disposition
from av.video.frame import VideoFrame
from av.video.reformatter import ColorRange, Colorspace
from av.video.stream import VideoStream

from modeling_grove.video_file_grove import CLOCK_TOLERANCE, VideoDecodeError, VideoFile

from .record import from_record, record_metadata

# On two real clips of 1280 x 720 the worst frame has 38 dB, where the conversion of colours alone leaves 44, for 1.5 and 1.6
# times the source's bytes. Equal bytes need one thread and no macroblock tree: with it, x264 (core 165) gave 13 different
# files in 30 runs on the same frames.
ENCODER_OPTIONS = {"crf": "20", "preset": "veryfast", "threads": "1", "x264-params": "mbtree=0"}
_COPIED_CODECS = {"av1", "h264", "hevc", "vp9"}
_BITEXACT = {"fflags": "+bitexact"}


@dataclass(frozen=True)
class Clip:
    """
    A clip cut out of a video.

    Attributes:
        data (`bytes`): an mp4 of one video stream. Its frame 0 is the source's frame `first_frame`.
        first_frame (`int`): in the source, in display order from 0.
        num_frames (`int`): frames of the clip; fewer than asked for if the video ends before.
        cut (`str`): "copy" if the packets are those of the source, "encode" if the frames were encoded again.
        width (`int`), height (`int`): in stored pixels, upright.
        fps (`float` or `None`): rate of the source; `None` if it varies.
    """

    data: bytes
    first_frame: int
    num_frames: int
    cut: Literal["copy", "encode"]
    width: int
    height: int
    fps: float | None

    def metadata(self) -> dict[str, Any]:
        """What a record of a `_video` configuration has as `clip` in its metadata."""
        return {"first_frame": self.first_frame, "num_frames": self.num_frames, "cut": self.cut}


def cut_clip(source: str | os.PathLike[str] | bytes, first_frame: int, last_frame: int) -> Clip:
    """
    Cut a clip out of a video.

    Packets are copied if the clip begins with a keyframe that no frame before it is decoded after, every packet that is
    needed to decode it shows a frame of it, and what then decodes equals the source's frames and times. Otherwise the frames
    are encoded as H.264 at constant quality (`ENCODER_OPTIONS`), upright, at the times that they have in the source. The
    pixel format is yuv420p; frames of odd width or height, which it does not have, are kept whole in yuv444p.

    Args:
        source (`str`, `os.PathLike` or `bytes`):
            The video: a file, or its content.
        first_frame (`int`), last_frame (`int`):
            The clip in frames of the source, in display order from 0, both inclusive.

    Raises:
        [`VideoDecodeError`]: a `ValueError` of one line, if the source is not a video, does not have the first frame, or
            frames between others do not decode.
    """
    file: str | io.BytesIO
    if isinstance(source, bytes):
        file, name = io.BytesIO(source), "video"
    else:
        file, name = os.path.abspath(source), os.path.basename(source)  # a colon in it must not look like a protocol
        if not os.path.isfile(file):
            raise VideoDecodeError(f"no such video file: {os.fspath(source)!r}")
    video = VideoFile(file, name, None)
    if not 0 <= first_frame <= last_frame or first_frame >= video.num_frames:
        raise VideoDecodeError(f"{name}: no frames {first_frame} to {last_frame}; the video has {video.num_frames}")
    wanted = np.arange(first_frame, min(last_frame + 1, video.num_frames))
    cut: Literal["copy", "encode"] = "copy"
    num_frames = len(wanted)
    with _video_stream(file) as (container, stream):
        data = _copied(container, stream, video, wanted)
        if data is None or not _same(data, video, wanted):
            cut = "encode"
            data, num_frames = _encoded(stream, video, wanted)
    width, height = _checked_size(data, num_frames, name)
    fps = None if video.timeline.variable else video.timeline.fps
    return Clip(data, first_frame, num_frames, cut, width, height, fps)


def clip_frames(record: Mapping[str, Any]) -> np.ndarray:
    """
    Where the annotated frames of a record are in the clip that lies beside it in a `_video` shard.

    Returns:
        `(T,)` int64, the frame of the mp4, in display order from 0, for each entry of `frame_indices`.

    Raises:
        `ValueError`: if the record does not say how its clip was cut, or annotates frames that the clip does not have.
    """
    clip = record_metadata(record).get("clip")
    if not isinstance(clip, dict) or not all(isinstance(clip.get(name), int) for name in ("first_frame", "num_frames")):
        raise ValueError(
            f"metadata: expected `clip` with first_frame and num_frames, as `shard --videos` writes it, got {clip!r}"
        )
    indices = record.get("frame_indices")
    if indices is None:
        indices = from_record(record).frame_indices
    frames: np.ndarray = np.array(indices, dtype=np.int64) - clip["first_frame"]
    outside = frames[(frames < 0) | (frames >= clip["num_frames"])]
    if len(outside):
        first = clip["first_frame"]
        raise ValueError(
            f"frame_indices: frame {outside[0] + first} is not in the clip, which has the frames {first} to "
            f"{first + clip['num_frames'] - 1} of its video"
        )
    return frames


@contextmanager
def _video_stream(file: str | io.BytesIO) -> Iterator[tuple[InputContainer, VideoStream]]:
    """The stream that [`VideoFile`] reads, of a file that it has accepted."""
    if not isinstance(file, str):
        file.seek(0)
    with av.open(file, mode="r", metadata_errors="replace") as container:
        cover = Disposition.attached_pic
        videos = (s for s in container.streams.video if not s.disposition & cover and s.codec_context is not None)
        yield container, next(videos)


def _copied(container: InputContainer, stream: VideoStream, video: VideoFile, wanted: np.ndarray) -> bytes | None:
    """An mp4 of the source's packets that show the frames `wanted`; `None` if they are not for copying."""
    pts, keyframes = video.timeline.pts, video.timeline.keyframes
    if pts is None or keyframes is None or stream.codec_context.name not in _COPIED_CODECS:
        return None
    start = int(pts[wanted[0]])
    seeks = keyframes[keyframes[:, 0] <= start]
    if not len(seeks):
        return None
    try:
        container.seek(int(seeks[-1, 1]), stream=stream)
        packets = list(_packets_from(container.demux(stream), start, set(pts[wanted].tolist())))
        if len(packets) != len(wanted):
            return None
        buffer = io.BytesIO()
        with av.open(buffer, "w", format="mp4", options=_BITEXACT) as output:
            target = output.add_stream_from_template(stream)
            for packet in packets:
                packet.pts, packet.dts = cast(int, packet.pts) - start, cast(int, packet.dts) - start
                packet.stream = target
                output.mux(packet)
    except (av.FFmpegError, ValueError):  # what cannot be copied is encoded, and that names what is wrong
        return None
    return buffer.getvalue()


def _packets_from(packets: Iterable[Packet], start: int, missing: set[int]) -> Iterator[Packet]:
    """Packets from the keyframe shown at `start` on, until all that are `missing` are there or another one comes between."""
    found = False
    for packet in packets:
        if not found and packet.pts != start:
            if packet.dts is None or packet.dts > start:
                return
            continue
        if packet.pts not in missing or packet.dts is None or packet.is_discard or not (found or packet.is_keyframe):
            return
        found = True
        missing.remove(packet.pts)
        yield packet
        if not missing:
            return


def _same(data: bytes, video: VideoFile, wanted: np.ndarray) -> bool:
    """Whether a copy decodes to exactly the frames `wanted` of the source, at their times."""
    times = video.timeline.times[wanted] - video.timeline.times[wanted[0]]
    try:
        copy = VideoFile(io.BytesIO(data), video.name, None)
        if copy.num_frames != len(wanted) or np.abs(copy.timeline.times - times).max() > CLOCK_TOLERANCE:
            return False
        pairs = zip(copy.decode(np.arange(len(wanted)), 1), video.decode(wanted, 1), strict=True)
        return all(i + wanted[0] == j and np.array_equal(ours, theirs) for (i, ours), (j, theirs) in pairs)
    except ValueError:  # one of them does not decode, or gives fewer frames
        return False


def _encoded(source: VideoStream, video: VideoFile, wanted: np.ndarray) -> tuple[bytes, int]:
    """An mp4 of the frames `wanted`, except those at the end that the video turns out not to have; and how many they are."""
    rate = Fraction(video.timeline.fps).limit_denominator(100_000)
    pts = wanted if video.timeline.pts is None else video.timeline.pts[wanted]
    clock = 1 / rate if video.timeline.pts is None else cast(Fraction, source.time_base)
    buffer, count = io.BytesIO(), 0
    try:
        with av.open(buffer, "w", format="mp4", options=_BITEXACT) as output:
            stream = output.add_stream("libx264", rate=rate, options=ENCODER_OPTIONS)
            for index, picture in video.decode(wanted, 1):
                if index != wanted[count]:
                    raise VideoDecodeError(
                        f"{video.name}: frame {wanted[count]} of the clip does not decode; the file is damaged"
                    )
                if count == 0:
                    stream.height, stream.width = picture.shape[:2]
                    stream.pix_fmt = "yuv444p" if stream.height % 2 or stream.width % 2 else "yuv420p"
                    stream.codec_context.time_base = clock
                    stream.codec_context.colorspace = Colorspace.ITU601
                    stream.codec_context.color_range = ColorRange.MPEG
                    if aspect := source.sample_aspect_ratio:
                        upright = stream.width == source.width
                        stream.codec_context.sample_aspect_ratio = aspect if upright else 1 / aspect
                frame = VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
                frame.pts, frame.time_base = int(pts[count] - pts[0]), clock
                output.mux(stream.encode(frame))
                count += 1
            output.mux(stream.encode())
    except av.FFmpegError as error:
        raise VideoDecodeError(f"{video.name}: the clip cannot be encoded as H.264 ({error.strerror})") from error
    return buffer.getvalue(), count


def _checked_size(data: bytes, num_frames: int, name: str) -> tuple[int, int]:
    """Width and height of a clip that was cut, once it is known to have all its frames."""
    clip = VideoFile(io.BytesIO(data), name, None)
    ends = np.unique([0, num_frames - 1])
    pictures = [picture for _, picture in clip.decode(ends, 1)] if clip.num_frames == num_frames else []
    if len(pictures) < len(ends):
        raise VideoDecodeError(
            f"{name}: expected {num_frames} frames of the clip that was cut, and not all can be read back"
        )
    return pictures[0].shape[1], pictures[0].shape[0]


__all__ = ["ENCODER_OPTIONS", "Clip", "clip_frames", "cut_clip"]

"""One video file, read with PyAV: when each of its frames is shown, and the frames that are asked for.

A file is first demuxed without decoding to learn its timeline (for MP4 of constant rate its index says so already); then
one sequential pass decodes it, from the last keyframe before the first wanted frame to the last one, and converts only the
wanted frames to RGB.
"""

import logging
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain, islice
from typing import IO, cast

import av
import numpy as np
from av.container import InputContainer
from av.packet import Packet
from av.sidedata.sidedata import SideData
from av.stream import Discard, Disposition
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

logger = logging.getLogger(__name__)

# Demuxers that are not one video in one file: they draw text as pictures, open other files and streams that a list
# names (an untrusted upload could name any, and a live one never ends), or are devices.
_TEXT_ART = {"adf", "bin", "idf", "tty", "xbin"}
_LISTS = {"concat", "dash", "hls", "image2", "imf", "rtp", "rtsp", "sap", "sdp"}
_DEVICES = {"alsa", "fbdev", "kmsgrab", "lavfi", "oss", "video4linux2", "v4l2", "x11grab"}
_FORMAT_WHITELIST = ",".join(sorted(av.formats_available - _TEXT_ART - _LISTS - _DEVICES))
_IO_TIMEOUT_SECONDS = 60.0
_PEEKED_PACKETS = 32  # more than the 16 frames that H.264 and HEVC may reorder
CLOCK_TOLERANCE = 1e-3  # seconds; Matroska rounds timestamps to milliseconds
UNKNOWN_RATE = 25.0  # what FFmpeg assumes of a stream that does not say


class VideoDecodeError(ValueError):
    """A video that cannot be read, or a part asked of it that it does not have."""


@dataclass(frozen=True)
class Timeline:
    """When each frame of a video is shown, in display order."""

    fps: float
    times: np.ndarray  # (N,) seconds from the first frame
    variable: bool = False
    indexed: bool = False  # from an index with one entry a frame, so that a packet is a frame
    pts: np.ndarray | None = None  # (N,) in the stream's time base; None: frames can only be counted
    keyframes: np.ndarray | None = None  # (K, 2): timestamp not after the keyframe's own, and where to seek for it


class VideoFile:
    """
    The first video stream of a file.

    Args:
        file (`str` or binary file object):
            Absolute path, or a seekable file object, which is read from its beginning and left open.
        name (`str`):
            How errors and warnings call it.
        source_fps (`float`, *optional*):
            Rate to use in place of the file's own.

    Attributes:
        timeline ([`Timeline`]): when each frame is shown.
        num_frames (`int`): by the timeline at first; corrected when decoding meets the end of the stream earlier.

    Raises:
        [`VideoDecodeError`]: if FFmpeg cannot open the file, or it has no video stream with frames.
    """

    sampled = True  # to `target_fps`, unlike frames in memory of unknown rate

    def __init__(self, file: str | IO[bytes], name: str, source_fps: float | None):
        self.file, self.name = file, name
        self.errors: list[str] = []
        self._spared = -1  # last frame that was there but not decoded
        with self._container() as (container, stream):
            timeline = self._indexed_timeline(container, stream, source_fps)
        if timeline is None:
            with self._container() as (container, stream):
                timeline = self._scanned_timeline(container, stream, source_fps)
        self.timeline = timeline
        self.num_frames = len(timeline.times)

    def decode(self, wanted: np.ndarray, num_threads: int) -> Iterator[tuple[int, np.ndarray]]:
        """
        Yield index and upright `(H, W, 3)` uint8 RGB of the frames `wanted`, which strictly increase, in order. Frames
        that do not decode are left out with a logged warning.

        Raises:
            [`VideoDecodeError`]: if none of them decodes, or their pixel format has no conversion to RGB.
        """
        remaining, last_wanted = set(wanted.tolist()), int(wanted[-1])
        size, previous = None, -1
        for index, frame in self._frames(wanted, num_threads):
            if index <= previous:
                continue
            previous = index
            if index in remaining:
                if size not in (None, (frame.width, frame.height)):
                    logger.warning("%s: the frame size changes; later frames are resized to the first", self.name)
                size = size or (frame.width, frame.height)
                remaining.remove(index)
                yield index, self._rgb(frame, size)
            if index >= last_wanted:
                break
        else:
            # The stream ended early: the container promised more frames than it holds.
            self.num_frames = max(previous, self._spared) + 1
        reason = f" ({len(self.errors)} errors, the first: {self.errors[0]})" if self.errors else ""
        if len(remaining) == len(wanted):
            raise VideoDecodeError(
                f"{self.name}: none of the {len(wanted)} frames asked for decodes{reason}; "
                "the file is damaged or cut off"
            )
        if remaining:
            logger.warning("%s: %d of %d frames do not decode%s", self.name, len(remaining), len(wanted), reason)

    @contextmanager
    def _container(self) -> Iterator[tuple[InputContainer, VideoStream]]:
        if not isinstance(self.file, str):
            self.file.seek(0)
        try:
            container = av.open(
                self.file,
                mode="r",
                options={"format_whitelist": _FORMAT_WHITELIST},
                timeout=_IO_TIMEOUT_SECONDS,
                metadata_errors="replace",
            )
        except Exception as error:  # a file object may raise anything
            raise VideoDecodeError(
                f"{self.name}: not a video that FFmpeg can open ({_reason(error)}); "
                "expected a whole file such as mp4, mkv, webm, avi or gif"
            ) from error
        with container:
            cover = Disposition.attached_pic
            videos = [s for s in container.streams.video if not s.disposition & cover and s.codec_context is not None]
            if not videos:
                kinds = ", ".join(sorted({s.type for s in container.streams})) or "none"
                raise VideoDecodeError(
                    f"{self.name}: expected a video stream that can be decoded, found streams: {kinds}"
                )
            for stream in container.streams:
                if stream is not videos[0]:
                    stream.discard = Discard.all
            yield container, videos[0]

    def _packets(self, container: InputContainer, stream: VideoStream) -> Iterator[Packet]:
        """The stream's packets up to its end or to the first thing that cannot be read."""
        try:
            yield from container.demux(stream)
        except Exception as error:  # a file object may raise anything
            self.errors.append(_reason(error))

    def _indexed_timeline(
        self, container: InputContainer, stream: VideoStream, source_fps: float | None
    ) -> Timeline | None:
        """The timeline of an MP4 of constant rate from its index, which spares reading the file; else `None`."""
        entries = list(stream.index_entries) if "mp4" in container.format.name else []
        if len(entries) < 2 or len(entries) != stream.frames or any(entry.is_discard for entry in entries):
            return None
        dts = np.array([entry.timestamp for entry in entries], dtype=np.int64)
        step = dts[1] - dts[0]
        head = [packet.pts for packet in islice(self._packets(container, stream), _PEEKED_PACKETS) if packet.size]
        if step <= 0 or (np.diff(dts) != step).any() or not head or None in head:
            return None
        first = min(cast(list[int], head))
        if any((pts - first) % step for pts in cast(list[int], head)):
            return None
        pts = first + step * np.arange(len(dts))
        # A keyframe is never decoded later than its place in display order.
        keyframes = np.array([(pts[i], dts[i]) for i, entry in enumerate(entries) if entry.is_keyframe])
        times = (pts - first) * float(stream.time_base or 0)
        return Timeline(source_fps or _rate(stream, times), times, False, True, pts, keyframes)

    def _scanned_timeline(self, container: InputContainer, stream: VideoStream, source_fps: float | None) -> Timeline:
        """The timeline from the timestamps of all packets, read without decoding them."""
        packets = [
            (packet.pts, packet.dts, packet.is_keyframe)
            for packet in self._packets(container, stream)
            if packet.size and not packet.is_discard
        ]
        if not packets:
            reason = f" ({self.errors[0]})" if self.errors else ""
            raise VideoDecodeError(f"{self.name}: the video stream has no frames{reason}; the file is empty or cut off")
        if self.errors:
            logger.warning("%s: reading stops early, after %d frames (%s)", self.name, len(packets), self.errors[0])
        decoded_at = [dts for _, dts, _ in packets if dts is not None]
        # AVI has no display times: with B-frames its packets carry decoding times in their place.
        reordered_avi = container.format.name == "avi" and stream.codec_context.has_b_frames
        if reordered_avi or any(pts is None for pts, _, _ in packets) or decoded_at != sorted(decoded_at):
            fps = source_fps or _rate(stream, None)
            return Timeline(fps, np.arange(len(packets)) / fps)
        pts = np.unique(np.array([pts for pts, _, _ in packets], dtype=np.int64))
        keyframes = np.array([(pts, pts if dts is None else dts) for pts, dts, key in packets if key], dtype=np.int64)
        times = (pts - pts[0]) * float(stream.time_base or 0)
        mean = times[-1] / max(len(times) - 1, 1)
        drift = np.abs(times - np.arange(len(times)) * mean).max()
        variable = bool(drift > max(0.5 * mean, CLOCK_TOLERANCE))
        return Timeline(source_fps or _rate(stream, times), times, variable, False, pts, keyframes.reshape(-1, 2))

    def _frames(self, wanted: np.ndarray, num_threads: int) -> Iterator[tuple[int, VideoFrame]]:
        """(index, decoded frame) in display order, from the last keyframe before the first wanted one or from the start."""
        pts, keyframes, first = self.timeline.pts, self.timeline.keyframes, int(wanted[0])
        before: list[tuple[int, int]] = []
        if pts is not None and keyframes is not None:
            # The nearest keyframe and the one before it, as a container may seek too far; the first is the start.
            before = keyframes[1:][keyframes[1:, 0] <= pts[first]].tolist()[-2:]
        for seek_to in [*(position for _, position in reversed(before)), None]:
            with self._container() as (container, stream):
                stream.thread_type = "AUTO"
                stream.codec_context.thread_count = num_threads
                packets = self._packets(container, stream)
                if seek_to is not None and pts is not None:
                    try:
                        container.seek(seek_to, stream=stream)
                    except av.FFmpegError:
                        continue
                    head = next(packets, None)
                    if head is None or not head.is_keyframe or head.pts is None or head.pts > pts[first]:
                        continue
                    packets = chain([head], packets)
                if self.timeline.indexed and pts is not None:
                    packets = self._sparing(packets, stream, pts, set(pts[wanted].tolist()))
                yield from self._decoded(packets)
                return

    def _sparing(
        self, packets: Iterable[Packet], stream: VideoStream, pts: np.ndarray, wanted: set[int]
    ) -> Iterator[Packet]:
        """The packets; those of frames that are neither wanted nor referred to by others are not decoded."""
        for packet in packets:
            stream.codec_context.skip_frame = "DEFAULT"
            if packet.pts is not None and packet.pts not in wanted:
                stream.codec_context.skip_frame = "NONREF"
                self._spared = max(self._spared, int(np.searchsorted(pts, packet.pts)) if packet.size else -1)
            yield packet

    def _decoded(self, packets: Iterable[Packet]) -> Iterator[tuple[int, VideoFrame]]:
        pts, count = self.timeline.pts, 0
        for packet in packets:
            try:
                frames = packet.decode()
            except av.FFmpegError as error:
                self.errors.append(_reason(error))
                continue
            for frame in frames:
                if pts is None:
                    yield count, frame
                elif frame.pts is not None:
                    index = int(np.searchsorted(pts, frame.pts))
                    if index < len(pts) and pts[index] == frame.pts:
                        yield index, frame
                count += 1

    def _rgb(self, frame: VideoFrame, size: tuple[int, int]) -> np.ndarray:
        """The frame upright, `(H, W, 3)` uint8."""
        try:
            # By default every frame starts as many threads as there are processors, which takes longer than converting it.
            array = frame.to_ndarray(format="rgb24", width=size[0], height=size[1], threads=1)
        except (av.FFmpegError, ValueError) as error:
            raise VideoDecodeError(
                f"{self.name}: cannot convert {frame.format.name} frames to RGB ({_reason(error)}); re-encode the video"
            ) from error
        matrix = frame.side_data.get("DISPLAYMATRIX")
        if matrix is None:
            return array
        # 3x3 fixed point, row vectors: (x, y) is shown at (a x + c y, b x + d y), y pointing down.
        a, b, _, c, d = np.frombuffer(bytes(cast(SideData, matrix)), dtype=np.int32)[:5].tolist()
        if abs(b) > abs(a):
            array, a, d = array.transpose(1, 0, 2), c, b
        return array[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1]


def _rate(stream: VideoStream, times: np.ndarray | None) -> float:
    """The average frame rate: as declared if the timestamps bear it out, else as measured."""
    declared = [float(rate) for rate in (stream.average_rate, stream.guessed_rate, stream.base_rate) if rate]
    if times is None or not times[-1] > 0:
        return next((rate for rate in declared if 0 < rate <= 1000), UNKNOWN_RATE)
    measured = (len(times) - 1) / float(times[-1])
    for rate in declared:
        if abs(rate / measured - 1) < 0.01:
            return rate
    # Rounded timestamps must not turn 25 into 24.9999, which would be sampled with another step.
    standard = min((round(measured), round(measured * 1.001) / 1.001), key=lambda rate: abs(rate - measured))
    return standard if abs(standard / measured - 1) < 3e-4 else measured


def _reason(error: BaseException) -> str:
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


__all__ = ["CLOCK_TOLERANCE", "UNKNOWN_RATE", "Timeline", "VideoDecodeError", "VideoFile"]

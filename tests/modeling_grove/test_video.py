"""Decoding: sampling, trimming, seeking, sources, variable rates and memory, on clips whose frames say their number."""

import http.server
import io
import threading
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
import torch
from PIL import Image

from modeling_grove.video_grove import VideoClip, VideoDecodeError, iter_video_clips, read_video
from modeling_grove.windows_grove import segment_midpoints
from tests.synthetic_clips import GREY_LEVELS, encode, frame_numbers, numbered_frame, to_bytes

OPEN_GOP = {"x264-params": "open-gop=1:keyint=20:scenecut=0:bframes=4"}


def assert_numbered(clip: VideoClip, indices: list[int]) -> None:
    assert clip.frame_indices.tolist() == indices
    assert frame_numbers(clip.frames) == [index % GREY_LEVELS for index in indices]


@pytest.fixture(scope="module")
def clip_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("video") / "numbers.mp4"
    encode(path, num_frames=60)
    return path


def test_whole_clip(clip_path: Path) -> None:
    clip = read_video(clip_path)
    assert_numbered(clip, list(range(0, 60, 5)))
    assert clip.frames.dtype == np.uint8
    assert clip.frames.shape == (12, 48, 64, 3)
    np.testing.assert_allclose(clip.timestamps, np.arange(12) / 5)
    assert (clip.fps, clip.width, clip.height, clip.name) == (25.0, 64, 48, "numbers.mp4")
    assert (clip.start_frame, clip.end_frame, clip.total_num_frames) == (0, 59, 60)


@pytest.mark.parametrize(
    ("arguments", "indices"),
    [
        ({"start_frame": 7, "end_frame": 27}, [7, 12, 17, 22, 27]),
        ({"start_frame": 59}, [59]),
        ({"end_frame": 0}, [0]),
        ({"start_time": 0.4, "end_time": 0.8}, [10, 15]),
        ({"start_time": 0.41, "end_time": 10.0, "target_fps": 1}, [11, 36]),
        ({"start_frame": 50, "target_fps": None}, list(range(50, 60))),
        ({"target_fps": 100, "end_frame": 3}, [0, 1, 2, 3]),
        ({"source_fps": 10.0, "end_frame": 5}, [0, 2, 4]),
        ({"select": lambda count: segment_midpoints(count, 4)}, [5, 20, 35, 50]),
        ({"select": lambda count: segment_midpoints(count, 4), "end_frame": 5}, [0, 0, 5, 5]),
        ({"num_threads": 1, "start_frame": 58}, [58]),
    ],
)
def test_parts(clip_path: Path, arguments: dict[str, Any], indices: list[int]) -> None:
    clip = read_video(clip_path, **arguments)
    assert_numbered(clip, indices)
    np.testing.assert_allclose(clip.timestamps, np.array(indices) / 25)


def test_end_past_the_last_frame_is_the_last_frame(clip_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    clip = read_video(clip_path, start_frame=50, end_frame=1000)
    assert_numbered(clip, [50, 55])
    assert clip.end_frame == 59
    assert "past the last frame" in caplog.text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"start_frame": 10, "end_frame": 9}, "end must not be before the start"),
        ({"start_time": 1.0, "end_time": 0.5}, "end must not be before the start"),
        ({"start_time": 1.0, "end_time": 1.0}, "has no frame"),
        ({"start_frame": 60}, "has 60 frames"),
        ({"start_time": 99.0}, "past the end"),
        ({"start_frame": -1}, "negative"),
        ({"start_time": -0.5}, "negative"),
        ({"end_time": float("nan")}, "numbers of seconds"),
        ({"start_frame": 0, "end_time": 1.0}, "only one kind"),
        ({"target_fps": 0}, "target_fps"),
        ({"target_fps": float("nan")}, "target_fps"),
        ({"source_fps": -1}, "source_fps"),
        ({"select": lambda count: [count]}, "select must"),
        ({"select": lambda count: []}, "select must"),
    ],
)
def test_impossible_parts(clip_path: Path, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(VideoDecodeError, match=message) as error:
        read_video(clip_path, **arguments)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("suffix", "arguments"),
    [
        ("mp4", {"options": OPEN_GOP}),
        ("mkv", {"options": OPEN_GOP}),
        ("ts", {"options": OPEN_GOP}),
        ("avi", {"options": OPEN_GOP}),
        ("mp4", {"options": {"x264-params": "intra-refresh=1:keyint=30"}}),
        ("mp4", {"options": {"g": "20"}, "container_options": {"movflags": "frag_keyframe+empty_moov"}}),
        ("mp4", {"milliseconds": [i * 40 + i % 3 * 15 for i in range(150)], "options": {"g": "20", "bf": "3"}}),
        ("mkv", {"codec": "libx265", "options": {"x265-params": "keyint=20:bframes=4:log-level=none"}}),
        ("ts", {"codec": "mpeg2video", "options": {"g": "12", "bf": "2", "b": "4000000"}}),
        ("avi", {"codec": "mpeg4", "options": {"g": "12", "bf": "2", "b": "4000000"}}),
    ],
)
def test_a_trim_gives_the_frames_of_the_whole_decode(tmp_path: Path, suffix: str, arguments: dict[str, Any]) -> None:
    path = tmp_path / f"gops.{suffix}"
    encode(path, **{"num_frames": 150, **arguments})
    whole = read_video(path, target_fps=None)
    assert_numbered(whole, list(range(150)))
    for start in (*range(1, 150, 13), 19, 20, 21, 149):
        part = read_video(path, start_frame=start, end_frame=start + 2, target_fps=None, num_threads=1)
        assert part.frame_indices[0] == start
        assert np.array_equal(part.frames, whole.frames[start : start + 3])
        assert np.array_equal(part.timestamps, whole.timestamps[start : start + 3])


def test_a_deep_trim_reads_little_of_a_long_file(tmp_path: Path) -> None:
    path = tmp_path / "long.mp4"
    rng = np.random.default_rng(0)
    noise = [rng.integers(0, 256, (48, 64, 3), dtype=np.uint8) for _ in range(50)]
    encode(path, frames=noise * 10, options={"g": "25", "preset": "ultrafast"})

    class Counting(io.BytesIO):
        count = 0

        def read(self, size: int | None = -1) -> bytes:
            data = super().read(size)
            self.count += len(data)
            return data

    file = Counting(path.read_bytes())
    clip = read_video(file, start_frame=450, end_frame=460)
    assert clip.frame_indices.tolist() == [450, 455, 460]
    assert file.count < 0.4 * path.stat().st_size
    assert not file.closed
    assert np.array_equal(clip.frames, read_video(path).frames[90:93])


def test_variable_rate(tmp_path: Path) -> None:
    # 20 frames at 25 fps, 10 at 2.5 fps, 40 at 50 fps.
    times = np.cumsum([0] + [40] * 20 + [400] * 10 + [20] * 40)
    path = tmp_path / "variable.mp4"
    encode(path, milliseconds=times.tolist())
    clip = read_video(path)
    shown = sorted({int(np.searchsorted(times, tick, side="right")) - 1 for tick in range(0, int(times[-1]) + 1, 200)})
    assert_numbered(clip, shown)
    np.testing.assert_allclose(clip.timestamps, times[shown] / 1000, atol=1e-3)
    part = read_video(path, start_time=0.8, end_time=2.8)
    assert_numbered(part, [20, 21, 22, 23, 24])


@pytest.mark.parametrize("fps", [3, 8, 12, 24000 / 1001, 29.97, 60, 120])
@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_rates(tmp_path: Path, fps: float, suffix: str) -> None:
    path = tmp_path / f"rate.{suffix}"
    encode(path, fps=fps, num_frames=50)
    clip = read_video(path)
    assert clip.fps == pytest.approx(fps, rel=1e-4)
    assert_numbered(clip, list(range(0, 50, max(1, int(fps / 5)))))
    np.testing.assert_allclose(clip.timestamps, clip.frame_indices / fps, atol=1e-3)


class _RangeHandler(http.server.BaseHTTPRequestHandler):
    """Serves `body` at every path, with byte ranges if `ranges`; /missing is not there."""

    body: bytes
    ranges: bool

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        if self.path.startswith("/missing"):
            self.send_error(404)
            return
        body, status = self.body, 200
        if self.ranges and (wanted := self.headers.get("Range")):
            first, last = wanted.removeprefix("bytes=").split("-")
            body, status = body[int(first) : int(last) + 1], 206
        self.send_response(status)
        if self.ranges:
            self.send_header("Accept-Ranges", "bytes")
        if status == 206:
            self.send_header("Content-Range", f"bytes {first}-{int(first) + len(body) - 1}/{len(self.body)}")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def log_message(self, *arguments: Any) -> None:
        pass


@pytest.fixture(params=[True, False], ids=["ranges", "no-ranges"])
def server_url(request: pytest.FixtureRequest) -> Iterator[str]:
    handler = type("Handler", (_RangeHandler,), {"body": to_bytes(num_frames=60), "ranges": request.param})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


def test_http(server_url: str) -> None:
    clip = read_video(f"{server_url}/numbers.mp4?token=1", start_frame=30)
    assert_numbered(clip, [30, 35, 40, 45, 50, 55])
    assert clip.name == "numbers.mp4"
    with pytest.raises(VideoDecodeError, match="cannot open the video"):
        read_video(f"{server_url}/missing.mp4")


def test_other_sources(clip_path: Path) -> None:
    data = clip_path.read_bytes()
    with fsspec.open("memory://folder/numbers.mp4", "wb") as file:
        file.write(data)

    class Pipe(io.BytesIO):
        def seekable(self) -> bool:
            return False

    with clip_path.open("rb") as file:
        file.read(10)
        sources: list[Any] = [
            str(clip_path),
            data,
            bytearray(data),
            io.BytesIO(data),
            Pipe(data),
            file,
            "memory://folder/numbers.mp4",
        ]
        for source in sources:
            assert_numbered(read_video(source, start_frame=20), list(range(20, 60, 5)))
        assert not file.closed
    assert read_video(data).name == "video"
    assert read_video("memory://folder/numbers.mp4").name == "numbers.mp4"


def test_path_with_a_colon(tmp_path: Path) -> None:
    path = tmp_path / "http:clip.mp4"
    path.write_bytes(to_bytes())
    assert read_video(path).total_num_frames == 50


def test_frames_in_memory() -> None:
    frames = np.stack([numbered_frame(number, 20, 10) for number in range(30)])
    images = [Image.fromarray(frame) for frame in frames]
    channels_first = torch.from_numpy(frames).permute(0, 3, 1, 2)
    sources: list[Any] = [frames, images, list(frames), torch.from_numpy(frames), channels_first]
    for source in sources:
        clip = read_video(source)
        assert_numbered(clip, list(range(30)))
        assert clip.fps == 5.0
        assert clip.timestamps[5] == 1.0
        assert_numbered(read_video(source, source_fps=25.0, start_frame=5), [5, 10, 15, 20, 25])
        clips = list(iter_video_clips(source, source_fps=10.0, clip_seconds=1.0))
        assert [clip.frame_indices.tolist() for clip in clips] == [[s, s + 2, s + 4, s + 6, s + 8] for s in (0, 10, 20)]
    assert read_video([image.convert("L") for image in images]).frames.shape == (30, 10, 20, 3)


@pytest.mark.parametrize(
    "source",
    [
        np.zeros((3, 4, 4), np.uint8),
        np.zeros((0, 4, 4, 3), np.uint8),
        np.zeros((2, 4, 4, 3), np.float32),
        [],
        ["a.mp4", "b.mp4"],
        [Image.new("RGB", (4, 4)), Image.new("RGB", (5, 4))],
        [np.zeros((4, 4), np.uint8)],
        None,
        7,
    ],
)
def test_not_frames(source: Any) -> None:
    with pytest.raises(VideoDecodeError, match="expected uint8 frames") as error:
        read_video(source)
    assert "\n" not in str(error.value)


def test_text_file_object(clip_path: Path) -> None:
    with clip_path.open(encoding="latin-1") as file, pytest.raises(VideoDecodeError, match="binary mode"):
        read_video(file)  # type: ignore[arg-type]


def test_clips_follow_one_another(clip_path: Path) -> None:
    clips = list(iter_video_clips(clip_path, clip_seconds=1.0))
    assert [(clip.start_frame, clip.end_frame) for clip in clips] == [(0, 24), (25, 49), (50, 59)]
    assert_numbered(clips[1], [25, 30, 35, 40, 45])
    assert_numbered(clips[2], [50, 55])
    part = list(iter_video_clips(clip_path, clip_seconds=0.4, start_frame=13, end_frame=30, target_fps=None))
    assert [clip.frame_indices.tolist() for clip in part] == [list(range(13, 23)), list(range(23, 31))]
    with pytest.raises(VideoDecodeError, match="clip_seconds"):
        next(iter_video_clips(clip_path, clip_seconds=0))


def test_clips_are_made_one_at_a_time(tmp_path: Path) -> None:
    path = tmp_path / "long.mp4"
    encode(path, num_frames=500, width=128, height=96, options={"preset": "ultrafast"})
    clip_bytes = 25 * 128 * 96 * 3
    tracemalloc.start()
    try:
        for number, clip in enumerate(iter_video_clips(path, clip_seconds=1.0, target_fps=None)):
            assert clip.frames.nbytes == clip_bytes
            assert_numbered(clip, list(range(25 * number, 25 * number + 25)))
            del clip
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    # One clip, the float copy that assert_numbered makes of it, and small change; all 20 would be 20.
    assert number == 19
    assert peak < 2.5 * clip_bytes


def test_only_sampled_frames_are_held(tmp_path: Path) -> None:
    path = tmp_path / "long.mp4"
    encode(path, num_frames=250, width=128, height=96, options={"preset": "ultrafast"})
    tracemalloc.start()
    try:
        clip = read_video(path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert len(clip.frames) == 50
    assert peak < 1.3 * clip.frames.nbytes


@pytest.mark.parametrize("name", ["01_dog.mp4", "02_cups.mp4"])
def test_real_videos(name: str) -> None:
    path = Path(__file__).parents[2] / ".." / "shared" / "data" / "videos" / name
    if not path.exists():
        pytest.skip(f"{name} is not here")
    clip = read_video(path, end_frame=30)
    assert clip.frames.shape == (7, 720, 1280, 3)
    assert clip.frames.std() > 20
    assert clip.frame_indices.tolist() == list(range(0, 31, 5))
    assert clip.fps == pytest.approx(30000 / 1001)

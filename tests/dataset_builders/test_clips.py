"""Clips: exactly the frames that were asked for, at their times, whatever the video."""

import contextlib
import io
import logging
import random
import shutil
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from dataset_builders.clips import Clip, clip_frames, cut_clip
from modeling_grove.video_grove import VideoClip, VideoDecodeError, read_video
from tests.records import make_record
from tests.synthetic_clips import corrupt, encode, encode_audio, frame_numbers, truncate

CLOSED = {"g": "10", "keyint_min": "10", "sc_threshold": "0", "flags": "+cgop"}
NO_B_FRAMES = {**CLOSED, "bf": "0"}


def textured(count: int, width: int = 64, height: int = 48) -> list[np.ndarray]:
    """Pictures with detail and colour that moves, so that a frame cannot be taken for its neighbour."""
    y, x = np.mgrid[:height, :width]
    waves = [np.sin((x + 3 * n) / 7) + np.cos((y - 2 * n) / 5) for n in range(count)]
    return [np.stack([128 + 40 * w, 128 + 30 * np.roll(w, 9, 1), 128 - 40 * w], -1).astype(np.uint8) for w in waves]


def psnr(ours: np.ndarray, theirs: np.ndarray) -> float:
    """Of the worst frame, in dB."""
    error = np.mean((ours.astype(float) - theirs) ** 2, axis=(1, 2, 3)).max()
    return float(10 * np.log10(255**2 / max(error, 1e-9)))


def check(path: Path, first: int, last: int, least_psnr: float = 35) -> Clip:
    """Cuts a clip and compares it with the source."""
    source = read_video(path, target_fps=None)
    clip = cut_clip(path, first, last)
    cut = read_video(clip.data, target_fps=None)
    wanted = slice(first, last + 1)
    assert (clip.first_frame, clip.num_frames) == (first, last + 1 - first)
    assert cut.total_num_frames == len(cut.frames) == clip.num_frames
    assert (clip.width, clip.height) == (cut.width, cut.height) == (source.width, source.height)
    assert np.allclose(cut.timestamps, source.timestamps[wanted] - source.timestamps[first], atol=1e-3)
    if clip.cut == "copy":
        assert np.array_equal(cut.frames, source.frames[wanted])
    else:
        assert psnr(cut.frames, source.frames[wanted]) > least_psnr
    check_form(clip)
    return clip


def check_form(clip: Clip) -> None:
    """One video stream in an mp4, without anything that says when or by what it was made."""
    with av.open(io.BytesIO(clip.data)) as container:
        assert "mp4" in container.format.name
        assert [stream.type for stream in container.streams] == ["video"]
        assert not {"creation_time", "encoder"} & (container.metadata.keys() | container.streams[0].metadata.keys())


VIDEOS: dict[str, dict[str, Any]] = {
    "long GOP.mp4": {"num_frames": 60, "options": {"g": "250", "bf": "3"}},
    "closed GOPs with B-frames.mp4": {"num_frames": 45, "options": {**CLOSED, "bf": "3"}},
    "closed GOPs.mkv": {"num_frames": 45, "options": NO_B_FRAMES, "fps": Fraction(30000, 1001)},
    "open GOPs.mkv": {"num_frames": 45, "options": {"g": "10", "bf": "3", "x264-params": "open-gop=1:scenecut=0"}},
    "open GOPs.ts": {"num_frames": 45, "options": {"g": "10", "bf": "2", "x264-params": "open-gop=1"}},
    "hevc.mp4": {"num_frames": 30, "codec": "libx265", "options": {"x265-params": "keyint=8:log-level=none"}},
    "old.avi": {"num_frames": 30, "codec": "mpeg4", "options": {"bf": "2", "g": "10", "q": "2"}},
    "vp9.webm": {"num_frames": 20, "codec": "libvpx-vp9", "options": {"g": "10", "crf": "10", "cpu-used": "8"}},
    "variable rate.mp4": {
        "milliseconds": [0, 40, 80, 200, 240, 1000, 1033, 1100, 1500, 1520, 1800],
        "options": NO_B_FRAMES,
    },
    "variable rate.mkv": {"milliseconds": [0, 33, 66, 300, 333, 900, 933, 1300, 2500], "options": {"g": "4"}},
    "odd.mkv": {"num_frames": 20, "width": 63, "height": 47, "codec": "ffv1", "pix_fmt": "bgr0"},
    "full range.mp4": {"num_frames": 20, "pix_fmt": "yuvj420p"},
    "short.mp4": {"num_frames": 1},
    "two.mp4": {"num_frames": 2},
    "rotated.mp4": {"num_frames": 30, "rotation": 90, "options": NO_B_FRAMES},
    "anamorphic.mp4": {"num_frames": 20, "sample_aspect_ratio": Fraction(4, 3), "options": NO_B_FRAMES},
    "second stream.mkv": {"num_frames": 20, "second_stream": True, "options": NO_B_FRAMES},
}


@pytest.mark.parametrize("name", VIDEOS)
def test_random_ranges(tmp_path: Path, name: str) -> None:
    options = dict(VIDEOS[name])
    count = len(options.pop("milliseconds", ())) or options.pop("num_frames")
    size = options.get("width", 64), options.get("height", 48)
    if "milliseconds" in VIDEOS[name]:
        options["milliseconds"] = VIDEOS[name]["milliseconds"]
    encode(tmp_path / name, frames=textured(count, *size), **options)
    rng = random.Random(name)
    ranges = [(0, count - 1), *(tuple(sorted(rng.choices(range(count), k=2))) for _ in range(3))]
    for first, last in ranges:
        check(tmp_path / name, first, last)


@pytest.mark.parametrize(
    ("options", "first", "last", "cut"),
    [
        (CLOSED, 0, 44, "copy"),  # the whole file
        (CLOSED, 10, 29, "copy"),  # whole groups
        (NO_B_FRAMES, 20, 26, "copy"),  # each frame follows from those before it
        (NO_B_FRAMES, 21, 26, "encode"),  # no keyframe at the start
        ({**CLOSED, "bf": "3", "b_strategy": "0"}, 10, 12, "encode"),  # a B-frame needs what comes after it
    ],
)
def test_copied_where_that_is_exact(tmp_path: Path, options: dict[str, str], first: int, last: int, cut: str) -> None:
    encode(tmp_path / "video.mp4", frames=textured(45), options=options)
    assert check(tmp_path / "video.mp4", first, last).cut == cut


def test_open_groups_are_not_copied(tmp_path: Path) -> None:
    options = {"x264-params": "open-gop=1:keyint=10:min-keyint=10:scenecut=0:bframes=3:b-adapt=0"}
    encode(tmp_path / "video.mkv", frames=textured(45), options=options)
    with av.open(str(tmp_path / "video.mkv")) as container:
        stream = container.streams.video[0]
        packets = [(packet.pts, packet.is_keyframe) for packet in container.demux(stream) if packet.size]
    keyframes = [pts for pts, is_key in packets if is_key]
    assert packets[packets.index((keyframes[1], True)) + 1][0] < keyframes[1], "expected frames that lead the keyframe"
    second = sorted(pts for pts, _ in packets).index(keyframes[1])
    assert check(tmp_path / "video.mkv", second, second + 15).cut == "encode"


def test_what_a_copy_keeps(tmp_path: Path) -> None:
    encode(tmp_path / "rotated.mp4", num_frames=30, corners=True, rotation=90, options=NO_B_FRAMES)
    for first, cut in ((10, "copy"), (11, "encode")):
        clip = check(tmp_path / "rotated.mp4", first, 19, least_psnr=30)  # few pixels, of saturated colours
        assert (clip.cut, clip.width, clip.height) == (cut, 48, 64)
    encode(tmp_path / "wide.mp4", num_frames=30, sample_aspect_ratio=Fraction(4, 3), options=NO_B_FRAMES)
    for first in (10, 11):
        with av.open(io.BytesIO(check(tmp_path / "wide.mp4", first, 19).data)) as container:
            assert container.streams.video[0].sample_aspect_ratio == Fraction(4, 3)


def test_audio_is_left_out(tmp_path: Path) -> None:
    encode(tmp_path / "video.mp4", num_frames=20)
    encode_audio(tmp_path / "audio.mp4")
    with (
        av.open(str(tmp_path / "video.mp4")) as video,
        av.open(str(tmp_path / "audio.mp4")) as audio,
        av.open(str(tmp_path / "both.mp4"), "w") as output,
    ):
        sources = [audio.streams.audio[0], video.streams.video[0]]
        targets = [output.add_stream_from_template(source) for source in sources]
        for source, target in zip(sources, targets, strict=True):
            for packet in source.container.demux(source):
                if packet.dts is not None:
                    packet.stream = target
                    output.mux(packet)
    assert check(tmp_path / "both.mp4", 0, 19).cut == "copy"
    assert check(tmp_path / "both.mp4", 3, 9).cut == "encode"


def test_equal_bytes(tmp_path: Path) -> None:
    encode(tmp_path / "video.mp4", num_frames=45, options=CLOSED)
    shutil.copy(tmp_path / "video.mp4", tmp_path / "other name: 2.mp4")
    for first, last in ((10, 19), (3, 30)):
        clip = cut_clip(tmp_path / "video.mp4", first, last)
        assert all(cut_clip(tmp_path / "video.mp4", first, last) == clip for _ in range(12))
        assert cut_clip(tmp_path / "other name: 2.mp4", first, last) == clip
        assert cut_clip((tmp_path / "video.mp4").read_bytes(), first, last) == clip


def test_a_clip_of_a_clip_is_a_copy(tmp_path: Path) -> None:
    encode(tmp_path / "video.mp4", num_frames=45)
    clip = cut_clip(tmp_path / "video.mp4", 3, 30)
    again = cut_clip(clip.data, 0, 27)
    assert (clip.cut, again.cut) == ("encode", "copy")
    assert np.array_equal(read_video(clip.data, target_fps=None).frames, read_video(again.data, target_fps=None).frames)


def test_frames_are_numbered_as_the_reader_numbers_them(tmp_path: Path) -> None:
    encode(tmp_path / "video.mp4", num_frames=26, options={"bf": "3"})
    clip = cut_clip(tmp_path / "video.mp4", 7, 18)
    assert frame_numbers(read_video(clip.data, target_fps=None).frames) == [*range(7, 19)]


def test_the_end_of_a_shorter_video(tmp_path: Path) -> None:
    encode(tmp_path / "video.mp4", num_frames=20)
    clip = cut_clip(tmp_path / "video.mp4", 5, 99)
    assert (clip.first_frame, clip.num_frames) == (5, 15)
    assert clip.metadata() == {"first_frame": 5, "num_frames": 15, "cut": "encode"}


def test_what_cannot_be_cut(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL)
    video = tmp_path / "video.mp4"
    encode(video, num_frames=40, frames=textured(40), options={"g": "40"})
    (tmp_path / "text.mp4").write_text("not a video")
    encode_audio(tmp_path / "audio.mp4")
    truncate(video, tmp_path / "cut.mp4", 0.5)
    corrupt(video, tmp_path / "damaged.mp4", 0.3, 0.9)
    cases = [
        (tmp_path / "absent.mp4", 0, 9, "no such video file"),
        (tmp_path, 0, 9, "no such video file"),
        (tmp_path / "text.mp4", 0, 9, "not a video"),
        (tmp_path / "audio.mp4", 0, 9, "expected a video stream"),
        (tmp_path / "cut.mp4", 0, 9, "not a video"),
        (video, 40, 49, "the video has 40"),
        (video, -1, 9, "no frames -1 to 9"),
        (video, 9, 8, "no frames 9 to 8"),
    ]
    for path, first, last, message in cases:
        with pytest.raises(VideoDecodeError, match=message) as error:
            cut_clip(path, first, last)
        assert "\n" not in str(error.value)
    # Damage either stops the clip or shortens it; it never moves a frame to another place.
    with contextlib.suppress(VideoDecodeError):
        clip = cut_clip(tmp_path / "damaged.mp4", 0, 39)
        assert clip.num_frames == read_video(clip.data, target_fps=None).total_num_frames


def test_a_damaged_frame_between_others_is_an_error(tmp_path: Path) -> None:
    encode(tmp_path / "video.mkv", frames=textured(30), codec="mjpeg", pix_fmt="yuvj420p")
    data = bytearray((tmp_path / "video.mkv").read_bytes())
    starts = [i for i in range(len(data)) if data.startswith(b"\xff\xd8\xff", i)]
    data[starts[10] : starts[11] - 40] = bytes(starts[11] - 40 - starts[10])
    (tmp_path / "video.mkv").write_bytes(data)
    with pytest.raises(VideoDecodeError, match=r"video.mkv: frame 10 of the clip does not decode"):
        cut_clip(tmp_path / "video.mkv", 5, 20)
    assert cut_clip(tmp_path / "video.mkv", 11, 20).num_frames == 10


class TestClipFrames:
    def record(self, **clip: Any) -> dict[str, Any]:
        return make_record(start_frame=20, end_frame=49, metadata={"clip": clip} if clip else None)

    def test_positions_in_the_clip(self, tmp_path: Path) -> None:
        encode(tmp_path / "video.mp4", num_frames=60)
        clip = cut_clip(tmp_path / "video.mp4", 20, 49)
        record = self.record(**clip.metadata())
        frames = clip_frames(record)
        assert frames.dtype == np.int64
        assert frames.tolist() == [0, 5, 10, 15, 20, 25]
        source: VideoClip = read_video(tmp_path / "video.mp4", target_fps=None)
        shown = read_video(clip.data, target_fps=None).frames[frames]
        assert frame_numbers(shown) == frame_numbers(source.frames[record["frame_indices"]])

    def test_released_records_have_no_frame_indices(self) -> None:
        record = self.record(first_frame=18, num_frames=40, cut="copy")
        for name in ("frame_indices", "timestamps", "track_phrases", "track_ids", "scores"):
            del record[name]
        assert clip_frames(record).tolist() == [2, 7, 12, 17, 22, 27]

    def test_what_does_not_fit(self) -> None:
        with pytest.raises(ValueError, match="metadata: expected `clip`"):
            clip_frames(self.record())
        with pytest.raises(ValueError, match="metadata: expected `clip`"):
            clip_frames(self.record(first_frame=20))
        with pytest.raises(ValueError, match="frame 45 is not in the clip, which has the frames 20 to 44 of its video"):
            clip_frames(self.record(first_frame=20, num_frames=25))
        with pytest.raises(ValueError, match="frame 20 is not in the clip"):
            clip_frames(self.record(first_frame=21, num_frames=99))


def test_real_clips(real_videos: list[Path]) -> None:
    cuts = set()
    for path in real_videos:
        source = read_video(path, target_fps=None, end_frame=30)
        for first, last in ((0, 0), (11, 30)):
            clip = cut_clip(path, first, last)
            cut = read_video(clip.data, target_fps=None)
            assert cut.total_num_frames == clip.num_frames == last + 1 - first
            limit = 100 if clip.cut == "copy" else 35
            assert psnr(cut.frames, source.frames[first : last + 1]) > limit
            cuts.add(clip.cut)
    assert cuts == {"copy", "encode"}

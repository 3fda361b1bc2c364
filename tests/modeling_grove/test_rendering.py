"""Annotated videos and contact sheets, read back: what is where in which frame, sources, sizes and errors."""

import io
from dataclasses import replace

import av
import numpy as np
import pytest
from PIL import Image

from modeling_grove.drawing_grove import PALETTE
from modeling_grove.grounded_caption import GroundedCaption, PhraseTrack
from modeling_grove.rendering_grove import contact_sheet, render_video

WIDTH, HEIGHT, NUM_FRAMES = 320, 180, 50
TEXT = "A cup stands by a lamp, then a hand takes it away."
BOX = np.array([100, 60, 200, 140])


def make_track(phrase, boxes, presence, text=TEXT):
    start = text.index(phrase)
    return PhraseTrack(phrase, (start, start + len(phrase)), boxes, presence, np.where(presence, 0.9, 0.1))


def make_caption(*tracks, text=TEXT, width=WIDTH, height=HEIGHT, start=0, end=NUM_FRAMES - 1):
    indices = np.arange(start, end + 1, 5)
    return GroundedCaption(text, tracks, "clip", 0, "clip.mp4", 25.0, width, height, start, end, indices, indices / 25)


@pytest.fixture(scope="module")
def moving():
    """One phrase: its box moves 10 pixels a sampled frame, is gone in sampled frames 4 to 6, and comes back."""
    boxes = BOX + np.arange(10)[:, None] * [10, 0, 10, 0]
    return make_caption(make_track("A cup", boxes, ~np.isin(np.arange(10), (4, 5, 6))))


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    """Grey frames; the level tells the number of the frame."""
    path = tmp_path_factory.mktemp("video") / "clip.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"crf": "10"})
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        for n in range(NUM_FRAMES):
            grey = np.full((HEIGHT, WIDTH, 3), 60 + 2 * n, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(grey, format="rgb24")))
        container.mux(stream.encode())
    return path


def decode(path):
    with av.open(str(path)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


def like(pixels, color, tolerance=70):
    """Where pixels have the colour, up to what compression does to a line of two pixels."""
    return np.abs(pixels.astype(int) - color).sum(axis=-1) < tolerance


def grey(pixels, frame):
    return (np.abs(pixels.astype(int) - (60 + 2 * frame)).max(axis=-1) < 14).all()


@pytest.fixture(scope="module")
def rendered(moving, video, tmp_path_factory):
    path = tmp_path_factory.mktemp("out") / "out.mp4"
    assert render_video(moving, video, path) == path
    return path, decode(path)


def test_video_properties(rendered):
    path, frames = rendered
    assert len(frames) == NUM_FRAMES
    with av.open(str(path)) as container:
        assert [stream.type for stream in container.streams] == ["video"]
        stream = container.streams.video[0]
        assert (stream.average_rate, stream.codec_context.name, stream.pix_fmt) == (25, "h264", "yuv420p")
        assert stream.width == WIDTH
        assert stream.height > HEIGHT
        assert stream.height % 2 == 0


@pytest.mark.parametrize(("frame", "left"), [(0, 100), (5, 110), (7, 114), (17, 130), (33, 170), (45, 190)])
def test_box_has_its_colour_where_it_belongs(rendered, frame, left):
    picture = rendered[1][frame][:HEIGHT]
    columns = np.flatnonzero(like(picture[80:130], PALETTE[0]).mean(axis=0) > 0.9)
    assert set(columns) <= {left - 1, left, left + 1, left + 2, left + 97, left + 98, left + 99, left + 100}
    assert {left, left + 99} & set(columns)
    assert grey(picture[75:130, left + 6 : left + 94], frame)
    assert grey(picture[150:], frame)


@pytest.mark.parametrize("frame", [18, 20, 25, 30, 32])
def test_nothing_is_drawn_while_absent(rendered, frame):
    assert grey(rendered[1][frame][:HEIGHT], frame)


def test_label_stands_on_the_box(rendered):
    picture = rendered[1][0][:HEIGHT]
    assert like(picture[48:58, 100:150], PALETTE[0]).mean() > 0.3


def test_strip_shows_presence(rendered):
    frames = rendered[1]
    present, absent = (like(frames[n][HEIGHT : HEIGHT + 30], PALETTE[0]).sum() for n in (0, 25))
    assert present > 200
    assert absent == 0
    lanes = frames[:, HEIGHT + 34 :]
    colored = like(lanes[0], PALETTE[0]).sum(axis=0) >= 3
    assert 0.5 < colored.mean() < 0.75  # 7 of 10 samples, less the name at the left
    cursors = [np.flatnonzero(like(lane[:8], (236, 238, 242), 150).mean(axis=0) > 0.7).mean() for lane in lanes[::7]]
    assert (np.diff(cursors) > 20).all()


@pytest.mark.parametrize(("fps", "expected"), [(10, 20), (50, 100), (12.5, 25)])
def test_output_rate(moving, video, tmp_path, fps, expected):
    frames = decode(render_video(moving, video, tmp_path / "out.mp4", fps=fps))
    assert len(frames) == expected
    with av.open(str(tmp_path / "out.mp4")) as container:
        assert container.streams.video[0].average_rate == fps
    middle = frames[expected // 2, 5, 5].mean()
    assert middle == pytest.approx(60 + 2 * 25, abs=6)


def test_part_of_a_video(video, tmp_path):
    caption = make_caption(make_track("A cup", np.tile(BOX, (4, 1)), np.ones(4, bool)), start=10, end=29)
    frames = decode(caption.render(video, tmp_path / "out.mp4"))
    assert len(frames) == 20
    assert grey(frames[0][:40, :90], 10)
    assert grey(frames[19][:40, :90], 29)


def test_sources(moving, video, tmp_path):
    small = replace(moving, clip_end_frame=45)
    from_path = decode(render_video(small, str(video), tmp_path / "path.mp4")).astype(int)
    assert len(from_path) == 46
    for name, source in (("bytes", video.read_bytes()), ("file", io.BytesIO(video.read_bytes()))):
        frames = decode(render_video(small, source, tmp_path / f"{name}.mp4"))
        # The same pictures; x264 itself does not always write the same bytes for them.
        assert np.abs(frames - from_path).mean() < 1
    sampled = decode(render_video(moving, decode(video)[::5], tmp_path / "array.mp4"))
    assert len(sampled) == 10
    assert like(sampled[1][80:130, 110:112], PALETTE[0]).mean() > 0.4
    assert grey(sampled[4][:HEIGHT], 20)
    with av.open(str(tmp_path / "array.mp4")) as container:
        assert container.streams.video[0].average_rate == 5


def test_rotated_source(tmp_path):
    data = io.BytesIO()
    with av.open(data, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=25, options={"crf": "10"})
        stream.width, stream.height, stream.pix_fmt = 320, 180, "yuv420p"
        frame = np.full((180, 320, 3), 128, np.uint8)
        frame[:, :160] = 20
        for _ in range(5):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    content = bytearray(data.getvalue())
    matrix = content.index(b"tkhd") + 44
    turned = np.array([0, 1 << 16, 0, -(1 << 16), 0, 0, 180 << 16, 0, 1 << 30], ">i4")  # a quarter turn clockwise
    content[matrix : matrix + 36] = turned.tobytes()
    box = np.array([[0, 0, 180, 160]])
    caption = make_caption(make_track("A cup", box, np.ones(1, bool)), width=180, height=320, end=4)
    picture = decode(render_video(caption, bytes(content), tmp_path / "out.mp4"))[0]
    height = round(320 * 320 / 180)
    assert picture.shape[1] == 320
    assert picture[60:250, 20:300].mean() < 40  # the dark left half is on top
    assert picture[320:height, 20:300].mean() > 110
    rows = np.flatnonzero(like(picture[150:height, 100:200], PALETTE[0]).mean(axis=1) > 0.8) + 150
    assert abs(rows - height / 2).max() <= 4


@pytest.mark.parametrize(
    ("size", "max_side", "canvas"),
    [
        ((64, 48), None, (320, 240)),
        ((333, 241), None, (334, 241)),
        ((90, 160), None, (320, 569)),
        ((320, 180), 100, (320, 56)),
    ],
)
def test_small_odd_and_reduced_pictures(tmp_path, size, max_side, canvas):
    width, height = size
    boxes = np.tile([width / 4, height / 4, width * 3 / 4, height * 3 / 4], (10, 1))
    caption = make_caption(make_track("A cup", boxes, np.ones(10, bool)), width=width, height=height)
    source = np.full((10, height, width, 3), 90, np.uint8)
    frames = decode(render_video(caption, source, tmp_path / "out.mp4", max_side=max_side))
    assert frames.shape[2] == canvas[0]
    assert frames.shape[1] % 2 == 0
    assert frames.shape[1] > canvas[1]
    assert like(frames[3][: canvas[1]], PALETTE[0]).sum() > 60
    assert like(frames[3][canvas[1] + 1 : canvas[1] + 4], (18, 20, 24), 20).all()


def test_boxes_that_cannot_be_drawn(tmp_path):
    known = np.ones(10, bool)
    caption = make_caption(
        make_track("A cup", np.tile([200, 140, 100, 60], (10, 1)), known),  # inverted
        make_track("a lamp", np.tile([400, 10, 500, 90], (10, 1)), known),  # outside
        make_track("a hand", np.full((10, 4), np.nan), ~known),  # unknown
    )
    path = render_video(caption, np.full((10, HEIGHT, WIDTH, 3), 60, np.uint8), tmp_path / "out.mp4")
    frames = decode(path)
    assert grey(frames[:, :HEIGHT], 0)
    strip = frames[4][HEIGHT : HEIGHT + 30]
    assert [like(strip, PALETTE[n]).sum() > 100 for n in range(3)] == [True, True, False]


def test_box_partly_outside_ends_at_the_border(tmp_path):
    caption = make_caption(make_track("A cup", np.tile([-50.0, -1e9, 100, 90], (10, 1)), np.ones(10, bool)))
    contact_sheet(caption, np.full((10, HEIGHT, WIDTH, 3), 60, np.uint8), tmp_path / "sheet.png", num_frames=1)
    tile = np.asarray(Image.open(tmp_path / "sheet.png"))[8 : 8 + 225, (656 - 400) // 2 :][:, :400]
    assert (tile[50:110, 0] == PALETTE[0]).all()
    assert (tile[50:110, 124] == PALETTE[0]).all()
    assert (tile[140:190] == 60).all()


def test_contact_sheet(moving, video, tmp_path):
    path = moving.contact_sheet(video, tmp_path / "sheet.png", num_frames=4, columns=2)
    sheet = np.asarray(Image.open(path))
    assert sheet.shape[1] == 2 * 400 + 3 * 8
    tiles = [sheet[8 + y * 233 :][:225, 8 + x * 408 :][:, :400] for y in range(2) for x in range(2)]
    for tile, sample in zip(tiles, (0, 3, 6, 9), strict=True):
        colored = (tile == PALETTE[0]).all(axis=-1)
        assert colored.any() == (sample != 6)
        if sample != 6:
            left = round((100 + 10 * sample) * 1.25)
            assert colored[100:160, left].all()
        assert (tile[-1, :5] == 0).all()  # the plate of the time stamp
        assert abs(tile[20, 20].astype(int) - (60 + 2 * 5 * sample)).max() < 6
    strip = sheet[2 * 233 + 8 :]
    assert (strip == PALETTE[0]).all(axis=-1).sum() > 2000
    assert (strip[:, -1] == 255).all()


def test_contact_sheet_of_few_frames(moving, tmp_path):
    frames = np.full((10, HEIGHT, WIDTH, 3), 60, np.uint8)
    contact_sheet(moving, frames, tmp_path / "all.png", num_frames=50, columns=4)
    assert Image.open(tmp_path / "all.png").height > 3 * 233
    single = make_caption(end=0)
    contact_sheet(single, frames[:1], tmp_path / "one.png")
    assert Image.open(tmp_path / "one.png").width == 656


@pytest.mark.parametrize(
    ("text", "phrases"),
    [
        ("", []),
        ("Nothing is tagged.", []),
        ("word " * 400 + "a dog", ["a dog"]),
        ("a " + "x" * 500 + " dog", ["dog"]),
        ("a " + "y" * 300, ["a " + "y" * 300]),
        (
            "\u67f4\u72ac jumps \U0001f436 over the jalape\u00f1o \u2014 twice\nor more",
            ["\u67f4\u72ac", "the jalape\u00f1o"],
        ),
    ],
    ids=["empty", "no-phrase", "long", "long-word", "long-phrase", "unicode"],
)
def test_awkward_captions(tmp_path, text, phrases):
    tracks = [make_track(phrase, np.tile(BOX, (10, 1)), np.ones(10, bool), text) for phrase in phrases]
    caption = make_caption(*tracks, text=text)
    frames = decode(render_video(caption, np.full((10, HEIGHT, WIDTH, 3), 60, np.uint8), tmp_path / "out.mp4"))
    assert HEIGHT < frames.shape[1] < 2 * HEIGHT + 40
    for n in range(len(phrases)):
        assert like(frames[5][:HEIGHT], PALETTE[n]).any()
    contact_sheet(caption, np.full((10, HEIGHT, WIDTH, 3), 60, np.uint8), tmp_path / "out.png")


def test_twelve_phrases_have_their_own_colours(tmp_path):
    text = " and ".join(f"thing {chr(97 + n)}" for n in range(12))
    tracks = [
        make_track(
            f"thing {chr(97 + n)}", np.tile([10 + 25 * n, 20, 30 + 25 * n, 160], (10, 1)), np.ones(10, bool), text
        )
        for n in range(12)
    ]
    caption = make_caption(*tracks[::-1], text=text)
    contact_sheet(caption, np.full((10, HEIGHT, WIDTH, 3), 60, np.uint8), tmp_path / "out.png", num_frames=1)
    sheet = np.asarray(Image.open(tmp_path / "out.png"))
    tile = sheet[8:233, 128:528]
    for n, color in enumerate(PALETTE):
        columns = (tile == color).all(axis=-1).sum(axis=0)
        assert columns[round((10 + 25 * n) * 1.25)] > 100
        assert (sheet[233:] == color).all(axis=-1).sum() > 300


def test_instances_share_a_colour(tmp_path):
    tracks = [
        make_track("A cup", np.tile(BOX + np.array([dx, 0, dx, 0]), (10, 1)), np.ones(10, bool)) for dx in (-40, 40)
    ]
    contact_sheet(
        make_caption(*tracks), np.full((10, HEIGHT, WIDTH, 3), 60, np.uint8), tmp_path / "o.png", num_frames=1
    )
    tile = np.asarray(Image.open(tmp_path / "o.png"))[8:233, 128:528]
    for left in (75, 175):
        assert (tile[110:130, left] == PALETTE[0]).all()


@pytest.mark.parametrize(
    ("source", "options", "message"),
    [
        (np.zeros((3, 8, 8, 3), np.uint8), {}, r"expected the sampled frames as uint8 \(10, height, width, 3\)"),
        (np.zeros((10, 8, 8, 3)), {}, "got float64"),
        (np.zeros((10, 8, 8, 3), np.uint8), {"fps": 0}, r"fps: expected a rate in \(0, 1000\], got 0"),
        (np.zeros((10, 8, 8, 3), np.uint8), {"max_side": 3}, "max_side: expected at least 16 pixels, got 3"),
        (b"not a video", {}, "video"),
    ],
)
def test_errors_leave_the_old_file(moving, tmp_path, source, options, message):
    path = tmp_path / "out.mp4"
    path.write_bytes(b"old")
    with pytest.raises(ValueError, match=message):
        render_video(moving, source, path, **options)
    assert path.read_bytes() == b"old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["out.mp4"]


def test_the_source_is_not_overwritten(moving, video, tmp_path):
    path = tmp_path / "clip.mp4"
    path.write_bytes(video.read_bytes())
    for source in (path, str(path), f"{tmp_path}/../{tmp_path.name}/clip.mp4"):
        with pytest.raises(ValueError, match="is the source video"):
            render_video(moving, source, path)
    assert path.read_bytes() == video.read_bytes()


def test_more_errors(moving, video, tmp_path):
    with pytest.raises(ValueError, match=r"path: expected a name that ends in .mp4, got 'out.gif'"):
        render_video(moving, video, tmp_path / "out.gif")
    with pytest.raises(ValueError, match="num_frames, columns: expected at least 1, got 0 and 4"):
        contact_sheet(moving, video, tmp_path / "out.png", num_frames=0)
    longer = make_caption(end=200)
    with pytest.raises(ValueError, match=r"source: 2 of the 8 frames to show; is it clip.mp4\?"):
        contact_sheet(longer, video, tmp_path / "out.png")
    with pytest.raises(ValueError, match="300"):
        render_video(make_caption(start=300, end=310), video, tmp_path / "out.mp4")
    with pytest.raises(ValueError, match="extension"):
        contact_sheet(moving, video, tmp_path / "out.xyz")
    (tmp_path / "taken.mp4").mkdir()
    with pytest.raises(OSError, match="taken.mp4"):
        render_video(moving, video, tmp_path / "taken.mp4")
    assert [entry.name for entry in tmp_path.iterdir()] == ["taken.mp4"]

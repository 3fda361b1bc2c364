"""The `preview` command: the pictures show the right frames of videos in folders and in shards, and the page is safe to open."""

import itertools
import json
import re
from html.parser import HTMLParser

import av
import numpy as np
import pytest
from PIL import Image

from dataset_builders.__main__ import main
from dataset_builders.clips import cut_clip
from dataset_builders.preview import choose
from dataset_builders.record import record_key, to_record
from dataset_builders.tar_shards import write_shard
from modeling_grove.drawing_grove import PALETTE
from modeling_grove.grounded_caption import GroundedCaption, PhraseTrack
from tests.records import make_record, make_videos


class Page(HTMLParser):
    """Tags with their attributes, and the text, of a page."""

    def __init__(self, path):
        super().__init__()
        self.tags, self.text = [], ""
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text += data

    def files(self):
        links = [attrs.get("src") or attrs.get("href") for tag, attrs in self.tags if tag in ("img", "video", "a")]
        return {link for link in links if not link.startswith("#")}


def write_jsonl(path, records):
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return str(path)


def picture(path):
    return np.asarray(Image.open(path).convert("RGB")).astype(int)


def has_color(pixels, color):
    return (np.abs(pixels - color).sum(axis=-1) < 30).any()


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    folder = make_videos(tmp_path_factory.mktemp("videos"), ["one", "two"])
    (folder / "broken.mp4").write_bytes(b"no video")
    return folder


@pytest.fixture(scope="module")
def records():
    return [make_record("one", 0, start_frame=13, end_frame=40), make_record("two", 0, instances=2)]


def test_videos_of_a_folder(records, videos, tmp_path, capsys):
    source = write_jsonl(tmp_path / "set.jsonl", records)
    output = tmp_path / "out"
    assert main(["preview", source, "--videos", str(videos), "--output", str(output)]) == 0
    assert capsys.readouterr().out == f"{output / 'index.html'}: 2 clips\n"
    names = {f"{name}.{suffix}" for name in ("000_one_0", "001_two_0") for suffix in ("png", "mp4")}
    assert {path.name for path in output.iterdir()} == {*names, "index.html"}
    page = Page(output / "index.html")
    assert page.files() == names
    assert "A man cuts two onions with a knife." in page.text
    assert "one.mp4: frames 13 to 40, 6 of them annotated" in page.text
    sheet = picture(output / "000_one_0.png")
    assert all(has_color(sheet, color) for color in PALETTE[:3])
    with av.open(str(output / "000_one_0.mp4")) as container:
        assert sum(1 for _ in container.decode(video=0)) == 28


def test_clips_of_a_shard_show_the_same(records, videos, tmp_path, capsys):
    """Frame 0 of a clip is not frame 0 of its source: the pictures must be those of the source video all the same."""
    samples = []
    for record in records:
        clip = cut_clip(videos / record["video_fname"], record["clip_start_frame"], record["clip_end_frame"])
        record = {**record, "metadata": json.dumps({"clip": clip.metadata()})}
        samples.append((record_key(record), {"json": json.dumps(record).encode(), "mp4": clip.data}))
    write_shard(tmp_path / "set.tar", samples)
    assert main(["preview", str(tmp_path / "set.tar"), "--output", str(tmp_path / "shard")]) == 0
    source = write_jsonl(tmp_path / "set.jsonl", records)
    assert main(["preview", source, "--videos", str(videos), "--output", str(tmp_path / "folder")]) == 0
    for name in ("000_one_0", "001_two_0"):
        ours, theirs = (picture(tmp_path / way / f"{name}.png") for way in ("shard", "folder"))
        assert np.abs(ours - theirs).mean() < 0.5  # one frame on, the grey level is 8 higher everywhere
    with av.open(str(tmp_path / "shard" / "000_one_0.mp4")) as container:
        assert sum(1 for _ in container.decode(video=0)) == 28


def test_without_videos(records, tmp_path, capsys):
    source = write_jsonl(tmp_path / "set.jsonl", records)
    assert main(["preview", source, "--output", str(tmp_path / "out"), "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["clips"][1] == {
        "key": "two_0", "sheet": "001_two_0.png", "pictures": False, "video": None, "problem": None,
    }  # fmt: skip
    page = Page(tmp_path / "out" / "index.html")
    assert page.text.count("No video: the boxes are drawn on an empty canvas.") == 2
    assert page.files() == {"000_one_0.png", "001_two_0.png"}
    assert all(has_color(picture(tmp_path / "out" / "000_one_0.png"), color) for color in PALETTE[:3])


def test_problems_are_one_line_each_and_the_rest_goes_on(records, videos, tmp_path, capsys):
    wrong = make_record("wrong", 0) | {"caption": "Nothing of that.", "tagged_caption": ""}
    outside = make_record("outside", 0) | {"video_fname": "../one.mp4"}
    late = make_record("one", 7, start_frame=60, end_frame=80)
    items = [make_record("broken", 0), make_record("gone", 0), wrong, outside, late, records[1]]
    source = write_jsonl(tmp_path / "set.jsonl", items)
    assert main(["preview", source, "--videos", str(videos), "--output", str(tmp_path / "out")]) == 2
    printed = capsys.readouterr()
    assert printed.out.endswith("index.html: 6 clips, 5 of them with problems\n")
    lines = printed.err.splitlines()
    assert [line.split(":")[1].strip() for line in lines] == ["broken_0", "gone_0", "wrong_0", "outside_0", "one_7"]
    assert [re.search(pattern, line) is not None for pattern, line in zip(
        ["not a video", "no such video file", "phrase", "leads out of the folder", "past the end"], lines, strict=True
    )] == [True] * 5  # fmt: skip
    page = Page(tmp_path / "out" / "index.html")
    assert page.text.count("No video: the boxes are drawn") == 4
    assert page.files() == {
        "000_broken_0.png", "001_gone_0.png", "003_outside_0.png", "004_one_7.png", "005_two_0.png", "005_two_0.mp4",
    }  # fmt: skip
    for line in lines:
        assert line.split(": ", 2)[2] in " ".join(page.text.split())


def test_text_is_escaped_and_no_network_is_needed(tmp_path):
    caption = '<script>alert("1")</script> & a <b>cat</b>'
    evil = '"><img src=x onerror=alert(1)>/../../x'
    span = (caption.index("a <b>cat"), caption.index("a <b>cat") + 8)
    presence = np.array([True, True])
    boxes = np.array([[1, 1, 20, 20]] * 2)
    track = PhraseTrack("a <b>cat", span, boxes, presence, presence * 0.5)
    frames = np.array([0, 5])
    record = to_record(GroundedCaption(caption, (track,), evil, 0, "<i>.mp4", 25.0, 64, 48, 0, 9, frames, frames / 25))
    source = write_jsonl(tmp_path / "set.jsonl", [record])
    assert main(["preview", source, "--output", str(tmp_path / "out")]) == 0
    page = Page(tmp_path / "out" / "index.html")
    assert caption in page.text and evil in page.text and "<i>.mp4" in page.text
    assert {"script", "b", "i"}.isdisjoint(tag for tag, _ in page.tags)
    assert [attrs["src"] for tag, attrs in page.tags if tag == "img"] == list(page.files())
    assert not any(name.startswith("on") for _, attrs in page.tags for name in attrs)
    assert all(re.fullmatch(r"[A-Za-z0-9_.-]+", name) for name in page.files())
    assert {path.name for path in (tmp_path / "out").iterdir()} == {*page.files(), "index.html"}
    assert "://" not in (tmp_path / "out" / "index.html").read_text()


def test_choices(tmp_path, capsys):
    records = [make_record("film", n, start_frame=0, end_frame=4) for n in range(30)]
    source = write_jsonl(tmp_path / "set.jsonl", records)

    def keys(*options):
        status = main(["preview", source, "--output", str(tmp_path / "out"), "--json", *options])
        printed = capsys.readouterr()
        return status, [clip["key"] for clip in json.loads(printed.out)["clips"]], printed.err

    assert keys("-n", "2") == (0, ["film_0", "film_1"], "")
    first = keys("-n", "3", "--seed", "1")
    assert first == keys("-n", "3", "--seed", "1") != keys("-n", "3", "--seed", "2")
    assert keys("--keys", "film_7", "film_3") == (0, ["film_3", "film_7"], "")
    status, found, message = keys("--keys", "film_5", "flim_5")
    assert (status, found) == (2, ["film_5"])
    assert message == f"error: no clip 'flim_5' in {source!r}\n"


def test_the_clips_of_a_sharded_set_are_found(records, videos, tmp_path, capsys):
    """Without --config; with it, or with videos of one's own, the records alone are what is shown."""
    source = write_jsonl(tmp_path / "set.jsonl", records)
    shards = tmp_path / "shards"
    arguments = ["--annotations", source, "--videos", str(videos), "--output", str(shards), "--split", "test"]
    assert main(["shard", *arguments, "--workers", "1", "--license", "other", "--name", "Set"]) == 0

    def clips(*options):
        capsys.readouterr()
        command = ["preview", str(shards), "--split", "test", "--output", str(tmp_path / "out"), "--json", "--no-video"]
        assert main([*command, *options]) == 0
        return [clip["pictures"] for clip in json.loads(capsys.readouterr().out)["clips"]]

    assert clips() == [True, True]
    assert clips("--config", "default") == [False, False]
    assert clips("--videos", str(videos)) == [True, True]


def test_a_wrong_size_does_not_fill_the_memory(records, tmp_path):
    """The sheet is that of a frame of the same shape, which is all that can be shown."""
    for name, factor in (("small", 1), ("large", 4096)):
        record = records[0] | {side: records[0][side] * factor for side in ("width", "height")}
        record["bboxes"] = [[[value * factor for value in box] for box in boxes] for boxes in record["bboxes"]]
        source = write_jsonl(tmp_path / f"{name}.jsonl", [record])
        assert main(["preview", source, "--output", str(tmp_path / name)]) == 0
    small, large = (picture(tmp_path / name / "000_one_0.png") for name in ("small", "large"))
    assert small.shape == large.shape
    assert np.abs(small - large).mean() < 3


def test_what_is_no_record_is_one_line(tmp_path, capsys):
    source = tmp_path / "set.tar"
    write_shard(source, [("a_0", {"json": b"[1]"})])
    assert main(["preview", str(source), "--output", str(tmp_path / "out")]) == 2
    assert capsys.readouterr().err == f"error: {source}: sample 0 ('a_0'): json: expected an object, got list\n"
    write_shard(source, [("a_0", {"json": b"{}"})])
    assert main(["preview", str(source), "--output", str(tmp_path / "out")]) == 2
    assert capsys.readouterr().err.startswith("error: (no key): ")
    assert "(no key)" in Page(tmp_path / "out" / "index.html").text


def test_random_choice_is_even():
    items = [({"video_id": "v", "clip_id": n}, None) for n in range(10)]
    picked = [item[0]["clip_id"] for seed in range(400) for item in choose(items, 3, None, seed)]
    assert np.bincount(picked).min() > 80  # 120 expected
    assert all(a < b for a, b in itertools.pairwise([item[0]["clip_id"] for item in choose(items, 3, None, 5)]))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["-n", "0"], "-n: expected at least 1, got 0"),
        (["--videos", "nowhere"], "--videos: no folder 'nowhere'"),
        (["--keys", "film_9"], "no such keys"),
    ],
)
def test_errors(options, message, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_jsonl(tmp_path / "set.jsonl", [make_record("film", 0)])
    assert main(["preview", "set.jsonl", "--output", "out", *options]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_no_video_writes_sheets_only(records, videos, tmp_path):
    source = write_jsonl(tmp_path / "set.jsonl", records)
    arguments = ["--videos", str(videos), "--output", str(tmp_path / "out"), "--no-video", "-n", "1"]
    assert main(["preview", source, *arguments]) == 0
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"000_one_0.png", "index.html"}
    assert "No video" not in (tmp_path / "out" / "index.html").read_text()


def test_real_clip(real_videos, tmp_path):
    video = real_videos[0]
    with av.open(str(video)) as container:
        stream = container.streams.video[0]
        width, height, fps = stream.width, stream.height, float(stream.average_rate)
    record = make_record(video.stem, 0, end_frame=19) | {"width": width, "height": height, "fps": fps}
    source = write_jsonl(tmp_path / "set.jsonl", [record | {"video_fname": video.name}])
    assert main(["preview", source, "--videos", str(video.parent), "--output", str(tmp_path / "out")]) == 0
    with av.open(str(next((tmp_path / "out").glob("*.mp4")))) as container:
        assert max(container.streams.video[0].width, container.streams.video[0].height) <= 960
        assert sum(1 for _ in container.decode(video=0)) == 20

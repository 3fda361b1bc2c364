"""The report: what is in the page, the clip inside it, hostile text, errors, and the command that writes and opens it."""

import io
import json
import re
import sys
import webbrowser
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest

from modeling_grove import GroundedCaption, PhraseTrack, read_video
from modeling_grove.__main__ import main
from modeling_grove.drawing_grove import PALETTE
from modeling_grove.report_grove import (
    caption_pieces,
    encode_clip,
    implied_threshold,
    phrase_colors,
    report_page,
    view_data,
    write_report,
)
from tests.records import make_caption
from tests.synthetic_clips import corrupt, encode, frame_numbers

HOSTILE = '</script><script>alert(1)</script> & "A man" <!-- @css@'


def scored(caption: GroundedCaption, scores: list[list[float]], threshold: float = 0.5) -> GroundedCaption:
    """The caption with boxes everywhere and these scores."""
    boxes = np.tile(np.array([4, 4, 20, 20], np.float32), (caption.num_frames, 1))
    tracks = [
        PhraseTrack(track.phrase, track.span, boxes, np.zeros(len(boxes), bool), np.resize(row, len(boxes)))
        for track, row in zip(caption.tracks, scores, strict=True)
    ]
    return replace(caption, tracks=tuple(tracks)).with_threshold(threshold)


class Elements(HTMLParser):
    """The text of every script and of the heading, and how often each element begins."""

    def __init__(self, page: str):
        super().__init__()
        self.counts: dict[str, int] = {}
        self.scripts: dict[str, str] = {}
        self.heading = self.title = ""
        self.open: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.counts[tag] = self.counts.get(tag, 0) + 1
        self.open.append(dict(attrs).get("id") or tag)

    def handle_endtag(self, tag):
        self.open.pop()

    def handle_data(self, data):
        if self.open and self.open[-1] == "h1":
            self.heading += data
        elif self.open and self.open[-1] == "title":
            self.title += data
        elif self.open:
            self.scripts[self.open[-1]] = self.scripts.get(self.open[-1], "") + data


def test_the_pieces_are_the_caption_and_its_phrases():
    caption = make_caption(instances=2)
    pieces = caption_pieces(caption)
    assert "".join(text for text, _ in pieces) == caption.caption
    assert [text for text, phrase in pieces if phrase is not None] == caption.phrases
    assert view_data(caption)["track_phrases"] == [0, 1, 1, 2]


def test_phrases_have_the_colours_of_the_annotated_video():
    colors = phrase_colors(make_caption())
    assert [color for color, _ in colors] == ["#" + bytes(color).hex() for color in PALETTE[:3]]
    assert {ink for _, ink in colors} <= {"#000000", "#ffffff"}


def test_the_slider_starts_where_the_presence_comes_from():
    caption = scored(make_caption(), [[0.1, 0.9], [0.35, 0.36], [0.2]], 0.35)
    assert implied_threshold(caption) == 0.35
    assert implied_threshold(caption.with_threshold(0.5)) == 0.5
    assert implied_threshold(make_caption()) == 0.5
    assert view_data(caption, 0.9)["threshold"] == 0.9


def test_the_clip_in_the_page_has_the_frames_of_the_source(tmp_path):
    """Number by number, of a part of a video whose picture has odd sides."""
    encode(tmp_path / "video.mkv", width=81, height=45, pix_fmt="yuv444p", num_frames=20)
    caption = replace(make_caption(start_frame=5, end_frame=16), width=81, height=45)
    clip = encode_clip(caption, tmp_path / "video.mkv")
    frames = read_video(clip, target_fps=None)
    assert frame_numbers(frames.frames) == list(range(5, 17))
    assert frames.fps == caption.fps and (frames.width, frames.height) == (80, 44)
    small = read_video(encode_clip(caption, tmp_path / "video.mkv", max_side=40), target_fps=None)
    assert (small.width, small.height) == (40, 22)


def test_frames_that_do_not_decode_move_no_others(tmp_path):
    """Each frame is shown when the boxes of its number are, so one that is missing leaves a gap."""
    encode(tmp_path / "whole.mkv", num_frames=50)
    damaged = corrupt(tmp_path / "whole.mkv", tmp_path / "video.mkv", 0.5, 0.6)
    source = read_video(damaged, target_fps=None)
    assert len(source.frames) < 50
    clip = read_video(encode_clip(make_caption(), damaged), target_fps=None)
    assert np.round(clip.timestamps * 25).astype(int).tolist() == source.frame_indices.tolist()


def test_text_from_outside_stays_text():
    """In the caption, in phrases and in the file's name: nothing of it becomes an element or a placeholder."""
    caption = make_caption(tagged_caption=f"<p>{HOSTILE}</p> and <p>a dog</p>.")
    caption = replace(caption, video_fname=HOSTILE, video_id=HOSTILE)
    plain, page = (Elements(report_page(c, b"clip")) for c in (make_caption(), caption))
    assert page.counts == plain.counts and page.counts["script"] == 3
    assert page.heading == HOSTILE and page.title.startswith(HOSTILE)
    data = json.loads(page.scripts["data"])
    assert GroundedCaption.from_dict(data["record"]) == caption
    assert page.scripts["clip"] == "Y2xpcA=="


def test_the_page_names_no_address():
    text = report_page(make_caption(), b"clip")
    assert set(re.findall(r"\w+://[^\"'\s]+", text)) == {"http://www.w3.org/2000/svg"}
    assert not re.search(r"(?:src|href)=\"(?!data:)", text) and "default-src 'none'" in text


def test_names_that_are_no_text_can_be_written(tmp_path, example_clip):
    caption = GroundedCaption.load(example_clip.with_suffix(".json"))
    path = write_report(replace(caption, video_fname="\udce9t\xe9.mp4"), example_clip, tmp_path / "report.html")
    assert "&#56553;t\xe9.mp4" in path.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("report.mp4", {}, "path: expected a name that ends in .html"),
        ("report.html", {"threshold": 1.5}, "threshold: expected a probability"),
        ("report.html", {"max_side": 0}, "max_side: expected at least 16"),
    ],
)
def test_options_out_of_range(tmp_path, example_clip, name, options, message):
    with pytest.raises(ValueError, match=message):
        write_report(make_caption(), example_clip, tmp_path / name, **options)
    assert not list(tmp_path.iterdir())


def test_a_source_that_is_no_video_leaves_nothing(tmp_path):
    with pytest.raises(ValueError, match="not a video"):
        write_report(make_caption(), io.BytesIO(b"text"), tmp_path / "report.html")
    assert not list(tmp_path.iterdir())


@pytest.fixture
def opened(tmp_path, monkeypatch):
    """A browser that notes what it is told to show."""
    noted = tmp_path / "opened.txt"
    note = f"import sys; open({str(noted)!r}, 'a').write(sys.argv[1] + '\\n')"
    webbrowser.get(sys.executable + " %s")  # which looks for the browsers that there are
    monkeypatch.setitem(
        webbrowser._browsers, "noting", [None, webbrowser.GenericBrowser([sys.executable, "-c", note, "%s"])]
    )
    monkeypatch.setattr(webbrowser, "_tryorder", ["noting"])
    return lambda: noted.read_text().split()


def test_the_command_writes_and_opens_a_report(demo_checkpoint, example_clip, tmp_path, opened, capsys):
    """One for every clip, of which the first is opened."""
    arguments = ["--model", str(demo_checkpoint), "--output", str(tmp_path / "out"), "--clip-seconds", "4"]
    status = main([*arguments, "--open", "--max-new-tokens", "4", "--objectness-threshold", "0.3", str(example_clip)])
    assert status == 0, capsys.readouterr().err
    reports = sorted((tmp_path / "out").glob("*.html"))
    assert [report.stem for report in reports] == ["clip_0", "clip_100"]
    assert opened() == [reports[0].as_uri()]
    for report in reports:
        data = json.loads(Elements(report.read_text(encoding="utf-8")).scripts["data"])
        assert data["threshold"] == 0.3
        assert data["record"] == json.loads(report.with_suffix(".json").read_text(encoding="utf-8"))


def test_a_report_that_is_not_written_cannot_be_opened(example_clip, capsys):
    assert main([str(example_clip), "--open", "--no-render"]) == 2
    assert "--open shows the report" in capsys.readouterr().err

"""Pictures of the worst clips: what is on them, and that any clip can be drawn."""

import json
import logging
import math
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dataset_builders.shapes import ShapesConfig, make_clip
from eval.benchmark_data import BenchmarkData
from eval.clips import PredictedClip, ReferenceClip, predicted_clips, reference_clips
from eval.results import BENCHMARKS
from eval.scoring import ScoreOptions, score_records
from eval.worst_clips import draw_worst, worst_keys
from modeling_grove.drawing_grove import PALETTE
from modeling_grove.grounded_caption import GroundedCaption
from modeling_grove.text_grove import read_tagged_caption
from tests.eval.phrase_clips import WIDTH, frames_of, prediction, reference, shapes_noisy, shapes_truth
from tests.eval.tiny_benchmarks import write_benchmark
from tests.records import make_caption, make_videos


def draw(truth, said, rows, count, output, videos=None):
    return draw_worst("iground", [*truth.values()], [*said.values()], rows, count, output, videos)


def rows_of(keys, values=None):
    values = values or [n / 10 for n in range(len(keys))]
    return [{"key": key, "corrected": {"AP50": value, "n": 2}} for key, value in zip(keys, values, strict=True)]


def captioned(tagged: str, present: str) -> GroundedCaption:
    """A clip of one phrase that is present, and others that are not."""
    text, phrases = read_tagged_caption(tagged)
    made = make_caption()
    tracks = []
    for phrase in phrases:
        there = np.full(10, phrase.text.endswith(present))
        boxes = np.where(there[:, None], np.array([10, 10, 40, 40]), np.nan)
        tracks.append(
            replace(made.tracks[0], phrase=phrase.text, span=phrase.span, boxes=boxes, presence=there, objectness=there)
        )
    return replace(made, caption=text, tracks=tuple(tracks))


def colors(picture: Image.Image) -> set[tuple[int, int, int]]:
    return {PALETTE[n] for n in range(4) if (np.asarray(picture) == PALETTE[n]).all(axis=-1).sum() > 50}


def moved(caption: GroundedCaption, present: bool) -> GroundedCaption:
    """Boxes a little to the right; without `present` the objectness says that none of them is there."""
    tracks = (replace(t, boxes=t.boxes + 5, presence=t.presence & present) for t in caption.tracks)
    return replace(caption, tracks=tuple(tracks))


def _lemmas(folder: Path) -> str:
    path = folder / "lemmas.json"
    path.write_text(json.dumps({word: word for word in ("A", "a", "man", "cuts", "an", "onion", ".")}))
    return f"table:{path}"


class Page(HTMLParser):
    """The pictures, headings and words of a page; unclosed tags are found out."""

    def __init__(self, text):
        super().__init__()
        self.pictures, self.words, self.open = [], "", []
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag, attrs):
        if tag == "img":
            self.pictures.append(dict(attrs)["src"])
        elif tag != "meta":
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words += data


def test_worst_first_and_a_page_of_them(tmp_path):
    truth = reference_clips(shapes_truth(6))
    keys = [*truth]
    said = predicted_clips(shapes_noisy(6)[:5], truth)
    rows = rows_of(keys, [0.5, 0.25, 0.75, 0.125, 1.0, 0.0])
    written = draw(truth, said, rows, 3, tmp_path / "worst")
    names = [f"01_{keys[5]}.png", f"02_{keys[3]}.png", f"03_{keys[1]}.png"]
    assert [path.name for path in written] == [*names, "index.html"]
    assert sorted(path.name for path in (tmp_path / "worst").iterdir()) == [*names, "index.html"]
    heights = [Image.open(path).height for path in written[:3]]
    assert heights[0] < 0.7 * heights[1]  # it has no prediction
    page = Page(written[3].read_text())
    assert page.pictures == names
    for words in (
        "3 of 6 clips",
        "corrected AP50",
        "12.50",
        "This clip has no prediction.",
        "tube IoU",
        "an empty canvas",
    ):
        assert words in page.words


def test_partners_have_one_color(tmp_path):
    truth = captioned("<p>A man</p> lifts <p>a cup</p>.", "man")
    said = captioned("<p>A cup</p> and <p>a dog</p> and <p>the man</p>.", "man")
    clips = {truth.key: ReferenceClip.from_caption(truth)}, {said.key: PredictedClip.from_caption(said)}
    picture = Image.open(draw(*clips, rows_of([truth.key]), 1, tmp_path)[0])
    assert colors(picture.crop((0, 0, picture.width, picture.height // 2))) == {PALETTE[0]}
    # The man is the third phrase there, and would have the third color.
    assert colors(picture.crop((0, picture.height // 2, picture.width, picture.height))) == {PALETTE[0]}
    other = captioned("<p>A cup</p> and <p>a dog</p> and <p>the man</p>.", "dog")
    clips = clips[0], {said.key: PredictedClip.from_caption(other)}
    picture = Image.open(draw(*clips, rows_of([truth.key]), 1, tmp_path)[0])
    # A phrase without a partner has a color that the annotation does not have.
    assert colors(picture.crop((0, picture.height // 2, picture.width, picture.height))) == {PALETTE[2]}


def test_the_video_is_shown(tmp_path):
    clip = make_clip(5, ShapesConfig(width=64, height=48))
    truth = {clip.caption.key: ReferenceClip.from_caption(clip.caption)}
    said = {clip.caption.key: PredictedClip.from_caption(clip.caption)}
    rows = rows_of([*truth])
    clip.write_video(tmp_path / "clip.mp4")
    sources = {
        "frames": lambda key: clip.frames[clip.caption.frame_indices],
        "file": lambda key: tmp_path / "clip.mp4",
        "none": lambda key: None,
    }
    pictures = {}
    for name, source in sources.items():
        written = draw(truth, said, rows, 1, tmp_path / name, source)
        pictures[name] = np.asarray(Image.open(written[0]), dtype=int)
        assert ("No video" in written[1].read_text()) == (name == "none")
    assert np.abs(pictures["frames"] - pictures["file"]).mean() < 3  # but for what H.264 loses
    assert np.abs(pictures["frames"] - pictures["none"]).mean() > 10


def test_a_video_that_does_not_decode_is_said_and_not_fatal(tmp_path, caplog):
    truth = reference_clips(shapes_truth(2))
    said = predicted_clips(shapes_noisy(2), truth)
    (tmp_path / "broken.mp4").write_bytes(b"no video")
    with caplog.at_level(logging.WARNING):
        written = draw(truth, said, rows_of([*truth]), 1, tmp_path, lambda key: tmp_path / "broken.mp4")
    assert "No video: " in Page(written[1].read_text()).words
    assert len(caplog.records) == 1 and repr(next(iter(truth))) in caplog.text


def test_clips_of_the_original_files_are_drawn(tmp_path):
    box = (10.0, 10.0, 40.0, 40.0)
    truth = replace(reference({"a man": [box, None], "a cup": [box, box]}), caption="a man & his cup: A MAN, a cup")
    boxes, labels = frames_of({"a man": [box, box], "a <b>dog</b>": [box, None]})
    # Two of one label, a label more than boxes, and one that the caption does not have.
    said = PredictedClip(
        "clip_0",
        "a man walks",
        (np.concatenate([boxes[0], [[50, 20, 70, 60]]]), boxes[1]),
        ((*labels[0], "a man"), (*labels[1], "surplus")),
    )
    clips = {"clip_0": truth}, {"clip_0": said}
    written = draw(*clips, rows_of(["clip_0"]), 1, tmp_path)
    page = Page(written[1].read_text())
    assert "a <b>dog</b>" in page.words and Image.open(written[0]).width > WIDTH
    nothing = {"clip_0": replace(said, boxes=(np.zeros((0, 4)), None), labels=((), ()), caption="")}
    draw(clips[0], nothing, rows_of(["clip_0"]), 1, tmp_path)
    # Which frames of a video they are is not known, nor with a prediction of ours.
    (tmp_path / "any.mp4").write_bytes(b"")
    ours = {"clip_0": PredictedClip.from_caption(make_caption())}
    written = draw(clips[0], ours, rows_of(["clip_0"]), 1, tmp_path, lambda key: tmp_path / "any.mp4")
    assert "the annotation does not say which frames" in Page(written[1].read_text()).words
    pictures = np.zeros((2, 80, 100, 3), dtype=np.uint8)
    written = draw(clips[0], ours, rows_of(["clip_0"]), 1, tmp_path, lambda key: pictures)
    assert "No video" not in Page(written[1].read_text()).words


def test_scores_of_the_page_are_those_of_the_table(tmp_path):
    """In percent, the paper's in its order, counts last."""
    row = {
        "key": "clip_0",
        "official": {"matches": 7, "AP50": 1 / 3, "frame_mIoU": [0.5], "center_frame": {"AP50": 0.1}, "mIoU": math.nan},
        "corrected": {"AP50": 0.25, "qtype": "declarative"},
        "captions": {"official": {"ROUGE_L": 0.5, "CIDEr": 10.0}},
    }
    clips = {"clip_0": reference({"a": [(0, 0, 9, 9)]})}, {}
    text = draw(*clips, [row], 1, tmp_path)[1].read_text()
    table = [re.findall(r"<t[hd][^>]*>([^<]*)", line) for line in re.findall(r"<tr>.*?</tr>", text)][:3]
    assert table == [
        ["", "AP50", "CIDEr", "ROUGE_L", "matches"],
        ["official", "33.33", "1000.00", "50.00", "7"],
        ["corrected", "25.00", "", "", ""],
    ]
    assert "times 100" in text and "the same last word" in text


def test_a_prediction_on_other_frames_is_shown_on_the_annotated_ones(tmp_path):
    truth = make_caption()
    later = replace(truth, frame_indices=truth.frame_indices + 1)
    more = make_caption(end_frame=99, seed=1)
    videos = make_videos(tmp_path / "videos", ["video"])
    for said in (later, more):
        clips = {truth.key: ReferenceClip.from_caption(truth)}, {truth.key: PredictedClip.from_caption(said)}
        written = draw(*clips, rows_of([truth.key]), 1, tmp_path / "out", lambda key: videos / "video.mp4")
        assert "No video" not in written[1].read_text()


def test_clips_without_a_score_come_last():
    rows = [*rows_of(["c", "b", "a", "d"], [0.5, math.nan, 0.5, 0.25]), {"key": "e"}]
    assert [key for key, _ in worst_keys("iground", rows, 9, "corrected")] == ["d", "a", "c", "b", "e"]
    assert worst_keys("iground", rows, 2, "corrected") == [("d", 0.25), ("a", 0.5)]
    rows = [{"key": "x", "official": {"AP50": -1.0}}, {"key": "y", "official": {"AP50": 0.5}}]
    assert [key for key, _ in worst_keys("iground", rows, 2, "official")] == ["y", "x"]  # of x nothing is annotated
    rows = [{"key": "x", "official": {"msIoU": -0.5}}, {"key": "y", "official": {"msIoU": 0.5}}]
    assert [key for key, _ in worst_keys("vidstg", rows, 2, "official")] == ["x", "y"]


def test_pictures_of_another_time_go(tmp_path):
    truth = reference_clips(shapes_truth(3))
    said = predicted_clips(shapes_noisy(3), truth)
    (tmp_path / "mine.png").write_bytes(b"not one of ours")
    draw(truth, said, rows_of([*truth]), 3, tmp_path)
    draw(truth, said, rows_of([*truth], [1.0, 0.5, 1.0]), 1, tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {f"01_{[*truth][1]}.png", "index.html", "mine.png"}


@pytest.mark.parametrize("benchmark", BENCHMARKS)
def test_every_benchmark_is_drawn(tmp_path, benchmark):
    """Scored as `run` does, with the frames that it decodes."""
    path, videos = write_benchmark(tmp_path, benchmark)
    clips = [*BenchmarkData(benchmark, str(path), videos=videos)]
    said = moved(clips[0].caption, present=benchmark == "iground")
    options = ScoreOptions(("corrected",), "head-word", captions=False, lemmas=_lemmas(tmp_path), statistics=False)
    records = [clip.record for clip in clips]
    rows = score_records(benchmark, records, [said], options).per_clip
    frames = {clip.key: clip.read() for clip in clips}
    written = draw_worst(benchmark, records, [said], rows, 2, tmp_path / "worst", frames.get)
    page = Page(written[-1].read_text())
    assert len(written) == 3 and "No video" not in page.words and "This clip has no prediction." in page.words
    assert ("that are scored" in page.words) == (benchmark != "iground")
    predicted = next(path for path in written if f"_{clips[0].key}." in path.name)
    picture = Image.open(predicted)
    # Boxes of the annotation and of its answer: present or not, as only iGround looks at objectness.
    for half in ((0, picture.height // 2), (picture.height // 2, picture.height)):
        assert PALETTE[0] in colors(picture.crop((0, half[0], picture.width, half[1])))


def test_only_scored_frames_are_drawn(tmp_path):
    """The segment of a sentence has frames outside of the tube, which nobody predicts."""
    path, videos = write_benchmark(tmp_path, "vidstg")
    caption = next(iter(BenchmarkData("vidstg", str(path), videos=videos))).caption
    assert caption.num_frames > 5
    rows = [{"key": caption.key, "official": {"msIoU": 0.5, "frame_indices": [10, 15, 20]}}]
    video = videos / caption.video_fname
    written = draw_worst("vidstg", [caption], [caption], rows, 1, tmp_path, lambda key: video, "official")
    assert "No video" not in written[1].read_text()
    assert Image.open(written[0]).width == 3 * 400 + 2 * 8 + 16  # pictures beside each other


def test_wrong_input_is_named(tmp_path):
    truth, said = {"clip_0": reference({"a": [(0, 0, 9, 9)]})}, {"clip_0": prediction({"a": [(0, 0, 9, 9)]})}
    with pytest.raises(ValueError, match="clip 'other_0': has scores but no annotation"):
        draw(truth, said, rows_of(["other_0"]), 1, tmp_path)
    for arguments, message in (
        (("iground", rows_of(["clip_0"]), 1, "official"), "protocol: got 'official', which no clip was scored under"),
        (("iground", rows_of(["clip_0"]), -1, "corrected"), "count: expected at least 0 clips, got -1"),
        (("coco", rows_of(["clip_0"]), 1, "corrected"), "benchmark: got 'coco'; expected one of iground, vidstg"),
    ):
        with pytest.raises(ValueError, match=message):
            worst_keys(*arguments)

"""The report in a real browser: boxes where they belong, hovering, the threshold, the download, narrow windows, hostile text."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from modeling_grove import GroundedCaption, PhraseTrack
from modeling_grove.drawing_grove import PALETTE, Presence
from modeling_grove.report_grove import write_report
from tests.chromium import DESKTOP, PHONE, chromium, runs_over, watched_page
from tests.conftest import ROOT

pytestmark = pytest.mark.slow
SCORES = np.linspace(0.05, 0.95, 20).astype(np.float32)


@pytest.fixture(scope="module")
def browser():
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def caption() -> GroundedCaption:
    """The man's score rises from frame to frame, the wall has two instances, the second of which has no box at first."""
    truth = GroundedCaption.load(ROOT / "examples" / "shapes.json")
    man, wall = truth.tracks
    boxes = np.where(np.isfinite(man.boxes), man.boxes, np.array([10, 20, 60, 200], np.float32))
    brick = wall.boxes + np.array([20, 30, -60, -90], np.float32)
    brick[:5] = np.nan
    tracks = (
        PhraseTrack(man.phrase, man.span, boxes, SCORES > 0.5, SCORES),
        wall,
        PhraseTrack(wall.phrase, wall.span, brick, np.arange(20) >= 5, np.where(np.arange(20) < 15, 0.75, 0.25)),
    )
    return replace(truth, tracks=tracks).with_threshold(0.5)


@pytest.fixture(scope="module")
def report(caption, tmp_path_factory) -> Path:
    return write_report(caption, ROOT / "examples" / "shapes.mp4", tmp_path_factory.mktemp("report") / "report.html")


@pytest.fixture
def opened(browser, report):
    """The report in a window, its clip paused; whatever the page asks for or complains of fails the test."""
    complaints: list[str] = []
    page = watched_page(browser, complaints, viewport=DESKTOP)
    asked = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(report.as_uri())
    page.wait_for_function("view.video.readyState >= 2")
    page.evaluate("view.video.pause()")
    yield page
    assert not complaints
    assert {url.partition(":")[0] for url in asked} <= {"file", "blob", "data"}
    page.context.close()


def shown_boxes(page) -> list[tuple[int, list[float]]]:
    """Phrase and xyxy of every box, as fractions of the picture, as drawn."""
    return page.evaluate(
        """() => {
            const frame = document.querySelector(".grove-boxes").getBoundingClientRect();
            return [...document.querySelectorAll(".grove-box")].map(box => {
                const { left, top, right, bottom } = box.getBoundingClientRect();
                return [Number(box.dataset.phrase), [(left - frame.left) / frame.width, (top - frame.top) / frame.height,
                    (right - frame.left) / frame.width, (bottom - frame.top) / frame.height]];
            });
        }"""
    )


def move_slider(page, threshold: float) -> None:
    page.locator("#threshold").fill(str(threshold))


def test_boxes_are_where_the_annotated_video_has_them(opened, caption):
    """At sampled frames and between them, in the colours of the video."""
    presence, size = Presence(caption), np.array([caption.width, caption.height] * 2)
    for frame in (0, 1, 9, 21, 22, 39):
        opened.evaluate(f"view.seek({frame})")
        wanted = sorted((mark.phrase, (mark.box / size).clip(0, 1).tolist()) for mark in presence.marks(frame))
        found = sorted(shown_boxes(opened))
        assert [phrase for phrase, _ in found] == [phrase for phrase, _ in wanted], frame
        for (_, ours), (_, theirs) in zip(found, wanted, strict=True):
            assert np.abs(np.subtract(ours, theirs)).max() < 0.005, frame
    color = opened.evaluate(
        """getComputedStyle(document.querySelector(".grove-box[data-phrase='0']")).borderTopColor"""
    )
    assert color == "rgb({}, {}, {})".format(*PALETTE[0])


def test_the_picture_is_that_of_the_frame(opened):
    """The clip is decoded: the two ends of it look different, and neither is blank."""
    pixels = """frame => new Promise(resolve => {
        view.video.addEventListener("seeked", () => {
            const canvas = Object.assign(document.createElement("canvas"), { width: 32, height: 32 });
            canvas.getContext("2d").drawImage(view.video, 0, 0, 32, 32);
            resolve([...canvas.getContext("2d").getImageData(0, 0, 32, 32).data]);
        }, { once: true });
        view.seek(frame);
    })"""
    first, last = (np.array(opened.evaluate(pixels, frame)).reshape(-1, 4)[:, :3] for frame in (0, 39))
    assert first.std() > 10 and np.abs(first - last).mean() > 3


def test_hovering_a_phrase_leaves_its_boxes_alone(opened):
    opened.evaluate("view.seek(25)")
    opened.hover(".grove-phrase >> nth=0")
    opened.wait_for_function("!view.video.seeking")
    lit = """() => [...document.querySelectorAll(".grove-box")].map(box => [box.dataset.phrase, box.className.slice(10)])"""
    assert sorted(opened.evaluate(lit)) == [["0", "on"], ["1", "dim"], ["1", "dim"]]
    opened.hover(".grove-row >> nth=1")
    assert sorted(opened.evaluate(lit)) == [["0", "dim"], ["1", "on"], ["1", "on"]]
    opened.mouse.move(5, 5)
    assert sorted(opened.evaluate(lit)) == [["0", ""], ["1", ""], ["1", ""]]


def test_a_click_goes_to_where_a_phrase_is_first_seen(opened, caption):
    opened.evaluate("view.seek(0)")
    opened.click(".grove-phrase >> nth=0")
    first = int(caption.frame_indices[caption.tracks[0].presence.argmax()])
    assert opened.locator(".grove-controls input").input_value() == str(first)
    lane = opened.locator(".grove-lane >> nth=1").bounding_box()
    opened.mouse.click(lane["x"] + lane["width"] * 0.26, lane["y"] + 5)
    assert opened.locator(".grove-controls input").input_value() == str(int(0.26 * 40))


@pytest.mark.parametrize("threshold", [0.0, 0.3, 0.6, 0.75, 1.0])
def test_the_slider_filters_as_python_does(opened, caption, threshold, tmp_path):
    """What is downloaded is `with_threshold`, and the rows and boxes say the same."""
    move_slider(opened, threshold)
    wanted = caption.with_threshold(threshold)
    with opened.expect_download() as download:
        opened.click("#json")
    download.value.save_as(tmp_path / "download.json")
    assert download.value.suggested_filename == f"{caption.video_id}.json"
    assert json.loads((tmp_path / "download.json").read_text()) == wanted.to_dict()
    assert GroundedCaption.load(tmp_path / "download.json") == wanted
    counts = [int(row.sum()) for row in Presence(wanted).present]
    rows = opened.locator(".grove-name span").all_inner_texts()
    assert rows == [f"in {count} of 20 frames" if count else "never present" for count in counts]
    opened.evaluate("view.seek(20)")
    assert len(shown_boxes(opened)) == len(Presence(wanted).marks(20))


def test_untouched_it_downloads_the_record_itself(opened, caption, tmp_path):
    with opened.expect_download() as download:
        opened.click("#json")
    download.value.save_as(tmp_path / "download.json")
    assert json.loads((tmp_path / "download.json").read_text()) == caption.to_dict()


@pytest.mark.parametrize("window", [DESKTOP, PHONE, {"width": 320, "height": 640}])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_is_cut_off(browser, report, window, scheme):
    complaints: list[str] = []
    page = watched_page(browser, complaints, viewport=window, color_scheme=scheme)
    page.goto(report.as_uri())
    page.wait_for_function("view.video.readyState >= 2")
    page.evaluate("view.video.pause(); view.seek(39)")
    assert not runs_over(page) and not complaints
    rectangles = """selector => [...document.querySelectorAll(selector)].map(element => {
        const { left, top, right, bottom } = element.getBoundingClientRect();
        return [left, top, right, bottom];
    })"""
    ((left, top, right, bottom),) = page.evaluate(rectangles, ".grove-boxes")
    tags = page.evaluate(rectangles, ".grove-tag")
    assert len(tags) == 2
    for x1, y1, x2, y2 in tags:
        assert left - 1 <= x1 < x2 <= right + 1 and top - 1 <= y1 < y2 <= bottom + 1
    page.context.close()


def test_hostile_text_is_shown_as_it_is(browser, caption, tmp_path):
    """A caption, a phrase and a file name that are HTML, in an alphabet of two code units too."""
    start = "\U0001d54f <img src=x onerror=alert(1)> "
    phrase = "<b>a man</b> </script>"
    tracks = (replace(caption.tracks[0], phrase=phrase, span=(len(start), len(start + phrase))),)
    hostile = replace(caption, caption=start + phrase + " waves.", tracks=tracks, video_fname="<i>name</i>.mp4")
    path = write_report(hostile, ROOT / "examples" / "shapes.mp4", tmp_path / "report.html")
    complaints: list[str] = []
    page = watched_page(browser, complaints, viewport=PHONE)
    page.on("dialog", lambda dialog: complaints.append(dialog.message))
    page.goto(path.as_uri())
    page.wait_for_function("view.video.readyState >= 2")
    assert page.locator(".grove-caption").inner_text() == hostile.caption
    assert page.locator(".grove-phrase").inner_text() == phrase
    assert page.locator("h1").inner_text() == "<i>name</i>.mp4" and page.locator("main img, main b img").count() == 0
    assert not complaints and not runs_over(page)
    page.context.close()

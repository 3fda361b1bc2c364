"""The Space's folder in a process that knows nothing of this checkout, used in a real browser as people would."""

import json
import os
import re
import socket
import subprocess
import sys
import time
import urllib.request

import pytest

from hub_cards.space.bundle import write_space
from modeling_grove import GroundedCaption, read_video
from tests.chromium import DESKTOP, PHONE, chromium, runs_over, watched_page
from tests.conftest import ROOT

pytest.importorskip("gradio", reason="needs gradio")
pytestmark = pytest.mark.slow
SHAPES = ROOT / "examples" / "shapes.mp4"
OWN = "[A man] comes out from behind [a brick wall] and waves to [a dog]."


@pytest.fixture(scope="module")
def browser():
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def address(tmp_path_factory, browser):
    """Of the Space's folder as it would be published, run as a Space is, with the packages that are in it."""
    folder = write_space(tmp_path_factory.mktemp("space"), "org/some-model")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    script = f"""
import sys
sys.path = [""] + [entry for entry in sys.path if entry not in ("", {str(ROOT)!r})]
import app
from pathlib import Path
assert Path(app.modeling_grove.__file__).is_relative_to({str(folder)!r})
sys.exit(app.main(["--port", "{port}"]))
"""
    env = {**os.environ, "MODEL_ID": str(ROOT / "checkpoints" / "grove-tiny")}
    log = (folder / "log.txt").open("w")
    server = subprocess.Popen([sys.executable, "-c", script], cwd=folder, env=env, stdout=log, stderr=log)
    try:
        for _ in range(360):
            assert server.poll() is None, (folder / "log.txt").read_text()
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=5)
                break
            except OSError:
                time.sleep(0.5)
        yield f"http://127.0.0.1:{port}/"
    finally:
        server.terminate()
        server.wait()
        log.close()


@pytest.fixture
def visit(browser, address):
    """Opens the app for a new user; errors of the page's scripts fail the test."""
    complaints: list[str] = []
    pages = []

    def visit(**options):
        page = watched_page(browser, complaints, **options)
        page.set_default_timeout(60_000)
        page.goto(address)
        page.wait_for_selector("#run")
        pages.append(page)
        return page

    yield visit
    for page in pages:
        page.context.close()
    assert not [line for line in complaints if "ERR_" not in line]  # requests that a closing page leaves


def upload(page, path=SHAPES) -> None:
    page.set_input_files("#clip input[type=file]", path)
    page.wait_for_selector("#clip video")


def caption(page) -> None:
    page.click("#run")
    page.wait_for_selector("#view .grove-box")
    page.wait_for_function("grove.video.readyState >= 2")
    page.evaluate("grove.video.pause()")


def downloaded(page, button: str, folder) -> str:
    with page.expect_download() as download:
        page.click(button)
    path = folder / download.value.suggested_filename
    download.value.save_as(path)
    return path


def wait_for_record(page, folder, wanted: GroundedCaption) -> None:
    """Until the file behind the button is that of the threshold."""
    for _ in range(40):
        if GroundedCaption.load(downloaded(page, "#json", folder)) == wanted:
            return
        page.wait_for_timeout(250)
    pytest.fail("the JSON file is not that of the threshold")


def test_an_upload_is_captioned_filtered_and_downloaded(visit, tmp_path):
    """Caption, hovering it, the threshold, all four files."""
    page = visit(viewport=DESKTOP)
    upload(page)
    caption(page)
    assert page.locator("#caption .token.highlighted").all_inner_texts() == ["a man", "a brick wall"]
    result = GroundedCaption.load(downloaded(page, "#json", tmp_path))
    # Gradio has blanks between its spans, which are too small to be seen.
    assert " ".join(page.inner_text("#caption .textfield").split()) == result.caption

    page.evaluate("grove.seek(30)")
    page.wait_for_function("!grove.video.seeking")
    page.hover("#caption .token.highlighted >> nth=1")
    names = """() => [...document.querySelectorAll(".grove-box")]
        .map(box => [box.dataset.phrase, box.className.slice(10)]).sort()"""
    assert page.evaluate(names) == [["0", "dim"], ["1", "on"]]
    page.mouse.move(5, 5)
    assert page.evaluate(names) == [["0", ""], ["1", ""]]

    slider = page.locator("#threshold input[type=range]")
    place = slider.bounding_box()
    middle = place["y"] + place["height"] / 2
    page.mouse.move(place["x"] + place["width"] / 2, middle)
    page.mouse.down()
    page.mouse.move(place["x"] + place["width"] - 1, middle, steps=4)
    page.mouse.up()
    threshold = float(slider.input_value())
    assert threshold > 0.98
    filtered = result.with_threshold(threshold)
    counts = [int(track.presence.sum()) for track in filtered.tracks]
    rows = page.locator(".grove-name span").all_inner_texts()
    assert rows == [f"in {count} of 20 frames" if count else "never present" for count in counts]
    wait_for_record(page, tmp_path, filtered)

    slider.press("Home")
    wait_for_record(page, tmp_path, result.with_threshold(0))
    slider.press("End")
    wait_for_record(page, tmp_path, result.with_threshold(1))
    slider.press("ArrowLeft")
    filtered = result.with_threshold(0.99)
    wait_for_record(page, tmp_path, filtered)
    boxes = json.loads(downloaded(page, "#coco", tmp_path).read_text())["annotations"]
    assert len(boxes) == sum(int(track.presence.sum()) for track in filtered.tracks)
    assert "a brick wall" in downloaded(page, "#report", tmp_path).read_text(encoding="utf-8")
    page.click("#draw")
    page.wait_for_selector("#annotated video")
    source = page.locator("#annotated video").get_attribute("src")
    with urllib.request.urlopen(source) as video:
        assert len(read_video(video.read(), target_fps=None).frames) == 40


def test_a_caption_of_ones_own_on_a_phone(visit):
    """From the examples; what is not in the clip is grey, and nothing runs out of the window."""
    page = visit(viewport=PHONE, color_scheme="dark")
    page.click("text=The same clip, with a caption of my own")
    page.wait_for_selector("#clip video")
    assert page.locator("#own textarea").input_value() == OWN
    caption(page)
    assert page.locator("#caption .token.highlighted").all_inner_texts() == ["A man", "a brick wall", "a dog"]
    assert page.locator(".grove-name span").all_inner_texts()[2] == "never present"
    assert not runs_over(page)


def test_bad_files_are_explained_and_do_no_harm(visit, tmp_path):
    """The message stays, and the next clip works."""
    page = visit(viewport=DESKTOP)
    page.click("#run")
    page.wait_for_selector("#message [role=alert]")
    assert "There is no clip yet" in page.inner_text("#message")
    (tmp_path / "notes.mp4").write_text("not a video\n" * 50)
    upload(page, tmp_path / "notes.mp4")
    page.click("#run")
    page.wait_for_selector("#message >> text=notes.mp4: not a video")
    assert not page.locator("#result").is_visible() and not runs_over(page)
    page.click("text=A man and a wall")
    page.wait_for_function("document.querySelector('#clip video')?.currentSrc.includes('shapes')")
    caption(page)
    assert not page.locator("#message").is_visible()


def test_two_users_at_once_see_their_own(visit):
    """Both click before either has a result."""
    captions = ["[A man] waves.", "[A brick wall] stands here."]
    users = [visit(viewport=DESKTOP) for _ in captions]
    for page, own in zip(users, captions, strict=True):
        upload(page)
        page.fill("#own textarea", own)
    for page in users:
        page.click("#run")
    for page, own in zip(users, captions, strict=True):
        page.wait_for_selector("#view .grove-row")
        phrase = re.search(r"\[(.*)\]", own)[1]
        assert page.locator(".grove-name b").all_inner_texts() == [phrase]
        assert page.locator("#caption .token.highlighted").all_inner_texts() == [phrase]

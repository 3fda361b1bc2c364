"""The app as a server, through Gradio's own client: results, messages, two users at once, and what it does not give away."""

import json
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.conftest import ROOT

gr = pytest.importorskip("gradio", reason="needs gradio")
client = pytest.importorskip("gradio_client", reason="needs gradio")

from hub_cards.space import app  # noqa: E402  (needs gradio)
from hub_cards.space.captioning import Limits  # noqa: E402

SHAPES = ROOT / "examples" / "shapes.mp4"


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """The app in this process; its address, and the folder of its results."""
    captioner = app.load("checkpoints/grove-tiny", tmp_path_factory.mktemp("results"), Limits(seconds=5, megabytes=1))
    page = app.build(captioner)
    _, address, _ = page.launch(prevent_thread_lock=True, quiet=True, **app.launch_options(captioner))
    yield address, captioner.folder
    page.close()


def ask(
    user: str | client.Client, video: Path | None, own: str = "", start: float | None = None, end: float | None = None
) -> dict:
    """What a user, a new one at an address, gets who clicks the button, by name."""
    user = client.Client(user, verbose=False) if isinstance(user, str) else user
    clip = None if video is None else client.handle_file(video)
    names = ("message", "caption", "view", "threshold", "record", "coco", "report", "annotated")
    return dict(zip(names, user.predict(clip, own, start, end, api_name="/caption"), strict=True))


def test_a_clip_comes_back_captioned(server):
    given = ask(server[0], SHAPES)
    pieces = given["caption"]
    assert [piece["token"] for piece in pieces if piece["class_or_confidence"]] == ["a man", "a brick wall"]
    assert given["message"]["visible"] is False and given["threshold"] == 0.5
    record = json.loads(Path(given["record"]).read_text(encoding="utf-8"))
    assert record["caption"] == "".join(piece["token"] for piece in pieces)
    assert json.loads(Path(given["coco"]).read_text(encoding="utf-8"))["annotations"]
    assert Path(given["report"]).read_text(encoding="utf-8").startswith("<!doctype html>")
    view = json.loads(given["view"])
    with urllib.request.urlopen(server[0] + view["video"]) as clip:
        assert clip.headers["Content-Type"] == "video/mp4" and len(clip.read()) > 10_000


def test_mistakes_get_a_message_and_no_result(server, tmp_path):
    """The text of a message is no HTML, whatever the file is called."""
    text = tmp_path / "b&d.mp4"
    text.write_text("not a video\n" * 50)
    for arguments, message in (
        ((None,), "There is no clip yet"),
        ((text,), "b&amp;d.mp4: not a video that FFmpeg can open"),
        ((SHAPES, "a man waves"), "no phrase to ground"),
        ((SHAPES, "", 3, 1), "has to end after its start"),
        ((ROOT / "examples" / "clip.mp4",), "The clip has 7 s; the demo takes up to 5 s"),
    ):
        given = ask(server[0], *arguments)
        assert message in given["message"]["value"] and 'role="alert"' in given["message"]["value"]
        assert given["message"]["visible"] is True


def test_a_file_that_is_too_large_is_not_even_received(server, tmp_path):
    (tmp_path / "large.mp4").write_bytes(bytes(2_000_000))
    with pytest.raises(Exception, match="413|[Ss]ize"):
        ask(server[0], tmp_path / "large.mp4")


def test_two_users_at_once_get_their_own(server):
    captions = ["[A man] waves.", "[A brick wall] stands here."]
    with ThreadPoolExecutor(2) as users:
        both = list(users.map(lambda own: ask(server[0], SHAPES, own), captions))
    for own, given in zip(captions, both, strict=True):
        record = json.loads(Path(given["record"]).read_text(encoding="utf-8"))
        assert json.loads(given["view"])["record"] == record
        assert record["caption"] == own.replace("[", "").replace("]", "")
    assert json.loads(both[0]["view"])["video"] != json.loads(both[1]["view"])["video"]


def test_it_serves_nothing_but_its_results(server):
    address, folder = server
    (folder.parent / "secret.txt").write_text("secret")
    for path in (ROOT / "pyproject.toml", folder.parent / "secret.txt", f"{folder}/../secret.txt", "/etc/passwd"):
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(f"{address}gradio_api/file={path}")
        assert refused.value.code in (403, 404)


def test_a_model_that_cannot_be_loaded_is_one_line(tmp_path, capsys):
    assert app.main(["--model", str(tmp_path)]) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith(f"error: cannot load '{tmp_path}'") and error.endswith("(see --model)")


def test_a_result_goes_when_the_next_one_comes_or_the_session_ends(server):
    """So that a long visit fills no disk."""
    user = client.Client(server[0], verbose=False)
    folders = [json.loads(ask(user, SHAPES, "[A man] waves.", 0, 0.5)["view"])["video"] for _ in range(2)]
    first, second = (server[1] / Path(folder).parent.name for folder in folders)
    assert not first.exists() and second.exists()
    assert "no clip yet" in ask(user, None)["message"]["value"]
    assert not second.exists()
    captioner = app.load("checkpoints/grove-tiny", server[1])
    grounding = captioner.run(SHAPES, "[A man] waves.", 0, 0.5)
    app._forget(grounding)  # what Gradio calls for a state that ends
    assert not grounding.folder.exists()

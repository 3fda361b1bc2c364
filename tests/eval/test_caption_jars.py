"""METEOR's process: one for all calls, started again when it was ended, gone when Python ends."""

import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest

from eval import caption_jars
from eval.caption_jars import Meteor, close_meteor, jar_tokens, meteor_process
from eval.captions import score_captions

pytestmark = pytest.mark.java
ROOT = Path(__file__).parents[2]


def test_one_process_serves_all_calls_until_it_is_closed():
    first = meteor_process()
    assert meteor_process() is first and first.alive
    assert first.score(["a man holds a cup"], ["a man holds a cup"]) == (1.0, [1.0])
    # More lines than are written at once.
    references = [f"a man holds cup number {n}" for n in range(100)]
    corpus, scores = first.score(references, references)
    assert corpus == 1.0 and scores == [1.0] * 100
    close_meteor()
    assert not first.alive
    close_meteor()
    assert meteor_process() is not first


def test_a_killed_process_is_an_error_and_then_replaced():
    meteor = meteor_process()
    meteor._process.send_signal(signal.SIGKILL)
    meteor._process.wait()
    with pytest.raises(ValueError, match="METEOR ended"):
        meteor.score(["a cup"] * 100, ["a cup"] * 100)
    assert meteor_process() is not meteor and meteor_process().alive


def test_an_interrupted_call_leaves_no_answers_for_the_next(monkeypatch):
    meteor = meteor_process()

    def interrupted():
        raise KeyboardInterrupt

    monkeypatch.setattr(meteor, "_read", interrupted)
    with pytest.raises(KeyboardInterrupt):
        meteor.score(["a cup"], ["a cup"])
    assert not meteor.alive
    corpus, scores = meteor_process().score(["a cup", "a cup"], ["a cup", "a pan"])
    assert scores[0] == 1.0 and scores[1] < corpus < 1.0


def test_python_ends_the_process():
    code = "from eval.caption_jars import meteor_process as m; print(m()._process.pid)"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert not psutil.pid_exists(int(ended.stdout)) and not ended.stderr


def test_a_failing_program_says_why(monkeypatch, tmp_path):
    monkeypatch.setattr(caption_jars, "package_folder", lambda: tmp_path)
    with pytest.raises(ValueError, match="tokenizer of pycocoevalcap failed: .*PTBTokenizer"):
        jar_tokens(["a cup"])
    meteor = Meteor()
    with pytest.raises(ValueError, match="METEOR ended: .*jar"):
        meteor.score(["a cup"], ["a cup"])
    meteor.close()


def test_nothing_is_written_into_the_package():
    folder = caption_jars.package_folder() / "tokenizer"
    before = sorted(folder.iterdir())
    assert jar_tokens(["A man's cup.", "", "(left)"]) == ["a man 's cup .", "", "-lrb- left -rrb-"]
    assert sorted(folder.iterdir()) == before


def test_threads_share_one_process():
    close_meteor()
    ready = threading.Barrier(6)

    def process() -> Meteor:
        ready.wait()
        return meteor_process()

    with ThreadPoolExecutor(6) as pool:
        assert len({*pool.map(lambda _: process(), range(6))}) == 1
    close_meteor()


@pytest.mark.slow  # Java takes its time to run out of memory
def test_the_caption_at_which_it_ends_is_named():
    """A process without the memory for a caption that repeats itself, as some thousand words are to one of 2 GB."""
    close_meteor()
    looping = " ".join(["cup"] * 2000)
    captions = {"a_0": "a cup", "b_0": looping, "c_0": "a dog"}
    try:
        with pytest.raises(
            ValueError, match="^clip 'b_0': caption: of 2000 words; METEOR ended: .*OutOfMemory"
        ) as error:
            score_captions(captions, captions)
        assert "\n" not in str(error.value)
    finally:
        close_meteor()

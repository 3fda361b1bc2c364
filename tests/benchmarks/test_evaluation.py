"""The benchmark of the evaluation measures what it says, and the plain rendition that it compares with computes the same."""

import json
import time

import pytest

from benchmarks import evaluation, report
from benchmarks.evaluation import (
    GROUNDING,
    RECORDED,
    TEXT_MODEL,
    main,
    make_clips,
    measure,
    measure_naive,
    median_run,
    ratio_to_recorded,
    table,
)
from benchmarks.stopwatch import Stopwatch
from eval import iground


@pytest.fixture
def in_this_process(monkeypatch):
    """Measuring processes set the number of threads, which would stay for the other tests."""
    monkeypatch.setattr(evaluation, "_prepare_process", lambda: None)


def test_the_plain_rendition_scores_the_same(in_this_process):
    result = measure_naive(3, 6, str(TEXT_MODEL))
    assert result["largest_difference"] < 1e-9
    assert result["forward_passes"] > 100 and result["ratio"] > 0
    assert {"convert", "AP50", "mIoU", "Recall", "total"} == set(result["naive_seconds"])


def test_parts_are_measured(in_this_process):
    run = measure(4, 6, str(TEXT_MODEL), captions=False)
    assert {part for part, seconds in run["seconds"].items() if seconds > 0} == set(GROUNDING)
    assert all(0 < score < 1 for score in run["scores"].values()), run["scores"]
    assert run["memory_bytes"]["peak"] <= run["memory_bytes"]["peak_of_everything"]
    middle = median_run([run, run])
    assert middle["grounding_seconds"] == pytest.approx(sum(run["seconds"].values()))
    assert ratio_to_recorded([middle]) is None
    size = {**middle, "clips": 200, "frames": 20, "grounding_seconds": 2.0}
    assert ratio_to_recorded([size]) == pytest.approx((0.75 + 4.3 + 6.7 + 271) / 2)


def test_the_clips_have_as_many_boxes_as_the_recorded_ones():
    truth, predictions = make_clips(100, 20)
    for side, recorded in zip((truth, predictions), RECORDED["boxes"], strict=True):
        count = sum(track.presence.sum() for clip in side for track in clip.tracks)
        assert count / (100 * 20) == pytest.approx(recorded / (200 * 20), rel=0.1)
    again, _ = make_clips(100, 20)
    assert again == truth


@pytest.mark.slow  # starts processes
@pytest.mark.java
def test_from_the_command_line(tmp_path, capsys, monkeypatch):
    output = tmp_path / "evaluation.json"
    sizes = ["--sizes", "3x6", "6x6", "--naive-clips", "2", "--naive-frames", "6", "--repeat", "1"]
    main([*sizes, "--output", str(output)])
    printed = capsys.readouterr().out
    results = json.loads(output.read_text())
    assert [size["seconds"]["METEOR"] > 0 for size in results["sizes"]] == [True, True]
    assert printed.strip() == table(results).strip() and "plain rendition, 2 x 6" in printed
    assert results["hardware"]["processor"] and str(tmp_path) not in output.read_text()
    monkeypatch.setattr(report, "RESULTS", tmp_path)
    lines = report.evaluation_table().splitlines()
    assert len({line.count("|") for line in lines[:5]}) == 1 and "original, 200 x 20" in lines[4]


@pytest.mark.parametrize(
    ("options", "message"),
    [(["--repeat", "0"], "at least 1"), (["--sizes", "20"], "not clips x frames"), (["--sizes", "0x3"], "not clips x")],
)
def test_bad_options(options, message, capsys):
    with pytest.raises(SystemExit) as error:
        main(options)
    assert error.value.code == 2
    assert message in capsys.readouterr().err


def test_inner_parts_are_taken_out_of_outer_ones():
    stopwatch = Stopwatch()
    with stopwatch.part("outer"):
        time.sleep(0.02)
        with stopwatch.part("inner"):
            time.sleep(0.05)
    assert stopwatch.seconds["inner"] >= 0.05 and stopwatch.seconds["outer"] >= 0.02
    assert list(stopwatch.seconds) == ["outer", "inner"]


def test_watched_functions_are_put_back():
    before, stopwatch = iground.pair_clips, Stopwatch()
    with stopwatch.watching([(iground, "pair_clips", "convert")]):
        assert iground.pair_clips is not before
        with pytest.raises(TypeError):
            iground.pair_clips()
    assert iground.pair_clips is before and stopwatch.seconds["convert"] > 0

"""The inference benchmark runs from the command line and agrees with the original's schedule."""

import json

import pytest

from benchmarks.inference import main


@pytest.mark.parametrize("options", [[], ["--alpha-zero", "--batch-size", "2"]])
def test_tiny_model(options, tmp_path, capsys):
    output = tmp_path / "result.json"
    main(["--model", "tiny", "--frames", "16", "--output", str(output), *options])
    results = json.loads(output.read_text())
    assert "ratio original / ours" in capsys.readouterr().out
    assert results["windows"] == {"ours": 2, "original": 2}
    assert results["parity"]["frames_compared"] == 16
    assert results["parity"]["largest_box_difference"] < 1e-5
    assert results["ratio"]["wall"] > 0
    for run in results["median"].values():
        parts = sum(part["wall"] for part in run["parts"].values())
        assert parts == pytest.approx(run["total"]["wall"])
    assert {"processor", "torch_threads"} <= set(results["hardware"])


def test_more_windows_than_needed(tmp_path):
    output = tmp_path / "result.json"
    main(["--model", "tiny", "--frames", "15", "--phrases", "2", "--new-tokens", "12", "--output", str(output)])
    assert json.loads(output.read_text())["windows"] == {"ours": 2, "original": 8}


@pytest.mark.parametrize(
    ("options", "message"), [(["--frames", "0"], "at least 1"), (["--phrases", "20"], "needs at least")]
)
def test_bad_options(options, message, capsys):
    with pytest.raises(SystemExit) as error:
        main(["--model", "tiny", *options])
    assert error.value.code == 2
    assert message in capsys.readouterr().err

"""The benchmark of annotation runs from the command line."""

import json

import pytest

from benchmarks.annotate import main


@pytest.mark.slow  # starts the engine's processes five times
def test_the_engine(spacy_folder, tmp_path):
    output = tmp_path / "result.json"
    line = ["--clips", "4", "--tasks", "2", "--repeat", "1", "--spacy", str(spacy_folder), "--output", str(output)]
    assert main(line) == 0
    found = json.loads(output.read_text())
    assert {*found["clips_per_second"]} == {"frames", "captions", "records"} and found["tasks"] == 2
    assert found["overhead_ms_per_task"] * 2 == pytest.approx(
        1000 * (found["engine_seconds"][0] - sum(found["bare_seconds"][0].values()))
    )
    assert found["speed_up"] > 0 and found["hardware"]["processor"]


def test_a_tiny_glamm(tmp_path, capsys):
    line = [
        "--glamm",
        "tiny",
        "--frames",
        "4",
        "--batch-size",
        "2",
        "--new-tokens",
        "16",
        "--phrases",
        "2",
        "--repeat",
        "1",
    ]
    assert main(line) == 0
    found = json.loads(capsys.readouterr().out)
    batched, single = found["frames_per_second"].values()
    assert found["ratio"] == pytest.approx(batched / single)
    assert found["hours_for_a_million_clips"] == pytest.approx(1e6 * 44.6 / batched / 3600)


def test_bad_options(capsys):
    with pytest.raises(SystemExit) as error:
        main(["--clips", "2", "--tasks", "3"])
    assert error.value.code == 2 and "at least as many clips as tasks" in capsys.readouterr().err

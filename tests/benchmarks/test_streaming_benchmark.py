"""The streaming benchmark runs from the command line, and its readers read the same."""

import json

import pytest

from benchmarks.streaming import main, make_shards, read_datasets, read_ours, read_tarfile, read_webdataset


@pytest.mark.slow  # measures the memory of a new interpreter
def test_small_shards(tmp_path, capsys):
    output = tmp_path / "result.json"
    sizes = ["--samples", "20", "--shards", "2", "--frames", "25", "--clips", "6", "--memory-samples", "200"]
    main([*sizes, "--ffmpeg-clips", "2", "--repeat", "1", "--output", str(output), "--folder", str(tmp_path / "kept")])
    results = json.loads(output.read_text())
    printed = capsys.readouterr().out
    assert "bare PyAV" in printed and "json-only samples" in printed
    assert set(results["reading"]["ratio_of_ours"]) == {"tarfile", "webdataset", "datasets"}
    assert {"pyav"} <= set(results["decoding"]["ratio_of_ours"]) <= {"pyav", "ffmpeg"}
    assert all(value > 0 for ratio in results["reading"]["ratio_of_ours"].values() for value in ratio.values())
    assert len(results["memory"]["resident_bytes"]) == 10
    assert results["hardware"]["processor"]


def test_all_readers_read_everything(tmp_path):
    shards = make_shards(tmp_path, 7, 2, 10, with_video=True)
    assert [read(shards) for read in (read_ours, read_tarfile, read_webdataset, read_datasets)] == [7, 7, 7, 7]


@pytest.mark.parametrize(
    ("options", "message"),
    [(["--samples", "0"], "at least 1"), (["--clips", "30", "--samples", "20"], "at most --samples")],
)
def test_bad_options(options, message, capsys):
    with pytest.raises(SystemExit) as error:
        main(options)
    assert error.value.code == 2
    assert message in capsys.readouterr().err

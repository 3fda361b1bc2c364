"""`python -m eval run`: any benchmark on any number of processes, going on where it was stopped."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from eval.__main__ import main
from modeling_grove.grounded_caption import GroundedCaption
from tests.conftest import ROOT
from tests.eval.tiny_benchmarks import BENCHMARKS, write_benchmark

MODEL = ROOT / "checkpoints" / "grove-demo"
CLIPS = 6
SHAPES = ["--data", f"shapes:3:{CLIPS}", "--split", "test"]
QUICK = ["--text-similarity", "head-word", "--no-captions"]
LEMMAS = {"man": "man", "onion": "onion"}


def arguments(benchmark: str, output: Path, *more: str) -> list[str]:
    return ["run", benchmark, "--model", str(MODEL), "--output", str(output), "--device", "cpu", *more]


def read_lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n")[:-1]]


def read_predictions(folder: Path) -> list[GroundedCaption]:
    return [GroundedCaption.from_dict(line) for line in read_lines(folder / "predictions.jsonl")]


@pytest.fixture(scope="module")
def whole_run(tmp_path_factory) -> Path:
    """A run that nothing disturbed, scored."""
    output = tmp_path_factory.mktemp("run") / "iground"
    assert main(arguments("iground", output, *SHAPES, *QUICK, "--worst", "1")) == 0
    return output


def test_a_killed_run_goes_on_with_other_processes(whole_run, tmp_path):
    """What was finished stays and is not run again; the result is that of a run that nothing disturbed."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = arguments("iground", tmp_path, *SHAPES, "--no-score")
    part = tmp_path / ".parts" / "00000.jsonl"
    options: dict[str, Any] = {"cwd": ROOT, "env": environment, "stderr": subprocess.PIPE, "text": True}
    first = subprocess.Popen([sys.executable, "-m", "eval", *command], **options)
    try:
        deadline = time.monotonic() + 120
        while not part.exists() or part.read_bytes().count(b"\n") < 2:
            assert first.poll() is None and time.monotonic() < deadline, first.communicate()[1]
            time.sleep(0.02)
        first.send_signal(signal.SIGKILL)
    finally:
        first.kill()
        first.communicate()
    finished = part.read_bytes().count(b"\n")
    assert 2 <= finished < CLIPS and not (tmp_path / "predictions.jsonl").exists()

    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "eval"]
    second = subprocess.run([*torchrun, *command], timeout=240, **options)
    assert second.returncode == 0, second.stderr
    ran = {int(n): int(count) for n, count in re.findall(r"process (\d) of 2: ran (\d+) clips", second.stderr)}
    assert {*ran} == {1, 2} and sum(ran.values()) == CLIPS - finished, second.stderr
    assert not part.exists()

    ours, theirs = read_predictions(tmp_path), read_predictions(whole_run)
    assert [caption.key for caption in ours] == [caption.key for caption in theirs] and len(ours) == CLIPS
    for one, other in zip(ours, theirs, strict=True):
        assert one.caption == other.caption and len(one.tracks) == len(other.tracks)
        for track, same in zip(one.tracks, other.tracks, strict=True):
            assert np.allclose(track.boxes, same.boxes, atol=0.05, equal_nan=True)
            assert np.allclose(track.objectness, same.objectness, atol=1e-3)


def test_the_folder_says_what_was_found_and_how(whole_run):
    results = json.loads((whole_run / "results.json").read_text(encoding="utf-8"))
    assert results["benchmark"] == "iground" and {*results["headline"]} == {"official", "corrected"}
    assert results["coverage"]["coverage"] == 1 and results["problems"] == {"clips": 0, "examples": {}}
    assert results["model"]["name"] == "grove-demo" and len(results["model"]["fingerprint"]) == 32
    assert results["data"]["name"] == f"GroundedShapes (seed 3, {CLIPS} clips)" and results["data"]["split"] == "test"
    assert results["settings"]["objectness_threshold"] == 0.5 and results["seed"] == 0
    assert results["seconds"]["model"] > 0 and results["versions"]["torch"] and results["hardware"]["cores"]
    assert results["settings"]["windows"] == "covering" and not {"lemmas", "mode"} & {*results["settings"]}
    assert str(ROOT) not in json.dumps(results)
    records, predictions = read_lines(whole_run / "references.jsonl"), read_predictions(whole_run)
    keys = [f"shapes-3-test-{n:06d}_0" for n in range(CLIPS)]
    assert [f"{record['video_id']}_{record['clip_id']}" for record in records] == keys
    assert [caption.key for caption in predictions] == keys
    assert [row["key"] for row in read_lines(whole_run / "clips.jsonl")] == keys
    assert [c.frame_indices.tolist() for c in predictions] == [record["frame_indices"] for record in records]
    index = yaml.safe_load((whole_run / "model_index.yml").read_text())["model-index"]
    assert index[0]["name"] == "grove-demo"
    assert {metric["name"] for metric in index[0]["results"][0]["metrics"]} >= {"AP50 (official protocol)"}
    assert (whole_run / "worst" / "index.html").exists() and len([*(whole_run / "worst").glob("*.png")]) == 1
    assert not [path for path in whole_run.rglob(".*") if path.name != ".parts"]


def test_another_threshold_scores_again_and_runs_nothing(whole_run, capfd, caplog):
    caplog.set_level("INFO")
    before = json.loads((whole_run / "results.json").read_text())
    assert main(arguments("iground", whole_run, *SHAPES, *QUICK, "--objectness-threshold", "0.3", "--json")) == 0
    assert "process 1" not in caplog.text
    results = json.loads(capfd.readouterr().out)
    assert results["settings"]["objectness_threshold"] == 0.3
    assert results["seconds"]["model"] == before["seconds"]["model"]
    presence = [track.presence for caption in read_predictions(whole_run) for track in caption.tracks]
    objectness = [track.objectness for caption in read_predictions(whole_run) for track in caption.tracks]
    assert all(np.array_equal(p, o > 0.3) for p, o in zip(presence, objectness, strict=True)) and presence
    # What the original cannot score leaves no result behind that is of other predictions.
    nothing = ["--objectness-threshold", "1", "--protocol", "official"]
    assert main(arguments("iground", whole_run, *SHAPES, *QUICK, *nothing)) == 2
    assert "lower the objectness threshold" in capfd.readouterr().err
    assert {path.name for path in whole_run.rglob("*") if path.is_file()} == {
        "predictions.jsonl", "references.jsonl", "run.json",
    }  # fmt: skip
    assert main(arguments("iground", whole_run, *SHAPES, *QUICK)) == 0


def test_scores_of_other_predictions_do_not_get_into_the_folder(whole_run, tmp_path, capfd):
    """Neither through `score --output`, nor by a file that was put there."""
    kept = {path: path.read_bytes() for path in whole_run.glob("*.json*")}
    references = str(whole_run / "references.jsonl")
    scored = ["score", "iground", "--annotations", references, "--predictions", references, *QUICK]
    assert main([*scored, "--output", str(whole_run)]) == 2
    assert "has the predictions of a run (run.json); choose another folder" in capfd.readouterr().err
    assert {path: path.read_bytes() for path in whole_run.glob("*.json*")} == kept
    copied = tmp_path / "run"
    shutil.copytree(whole_run, copied)
    shutil.copy(references, copied / "predictions.jsonl")
    assert main(arguments("iground", copied, *SHAPES, *QUICK)) == 2
    assert "predictions.jsonl is not what the run wrote" in capfd.readouterr().err


def test_other_settings_need_another_folder(whole_run, capfd):
    kept = (whole_run / "predictions.jsonl").read_bytes()
    assert main(arguments("iground", whole_run, *SHAPES, *QUICK, "--windows", "sliding")) == 2
    assert "windows was 'covering' and is 'sliding'; choose another folder" in capfd.readouterr().err
    assert (whole_run / "predictions.jsonl").read_bytes() == kept


@pytest.mark.parametrize(
    ("benchmark", "more"), [*((name, []) for name in BENCHMARKS[1:]), ("activitynet_entities", ["--mode", "gt"])]
)
def test_every_benchmark_from_the_original_files_to_the_papers_numbers(benchmark, more, tmp_path):
    records, videos = write_benchmark(tmp_path / "data", benchmark)
    lemmas = tmp_path / "lemmas.json"
    lemmas.write_text(json.dumps(LEMMAS))
    output = tmp_path / "results"
    data = ["--data", str(records), "--videos", str(videos), "--data-name", benchmark.upper()]
    generated = benchmark == "activitynet_entities" and not more
    options = [*more, *(["--lemmas", f"table:{lemmas}"] if generated else [])]
    assert main(arguments(benchmark, output, *data, "--batch-size", "2", "--worst", "1", *options)) == 0
    assert len([*(output / "worst").glob("01_*.png")]) == 1
    results = json.loads((output / "results.json").read_text())
    assert results["benchmark"] == benchmark and results["coverage"]["coverage"] == 1
    assert results["data"]["name"] == benchmark.upper() and all(results["headline"].values())
    for record, caption in zip(read_lines(output / "references.jsonl"), read_predictions(output), strict=True):
        if benchmark == "vidstg":
            assert caption.frame_indices.tolist() == [10, 15, 20, 25, 30]
        else:
            assert caption.frame_indices.tolist() == record["frame_indices"]
        if benchmark != "activitynet_entities":
            assert (caption.caption, caption.phrases) == (record["caption"], [record["caption"]])
        elif more:
            assert (caption.caption, caption.phrases) == ("A man cuts an onion .", ["man", "onion"])
        assert all(np.array_equal(track.presence, np.isfinite(track.boxes[:, 0])) for track in caption.tracks)


def test_broken_clips_are_counted_named_and_tried_again(tmp_path, capfd, caplog):
    caplog.set_level("INFO")
    records, videos = write_benchmark(tmp_path / "data", "iground")
    (videos / "second.mp4").rename(tmp_path / "second.mp4")
    output = tmp_path / "results"
    command = arguments("iground", output, "--data", str(records), "--videos", str(videos), *QUICK)
    assert main([*command, "--json"]) == 0
    results = json.loads(capfd.readouterr().out)
    problem = "no video 'second.mp4' in the folder of videos"
    assert results["problems"] == {"clips": 1, "examples": {"second_0": problem}} and problem in caplog.text
    assert results["coverage"] == {"clips": 2, "predicted": 1, "coverage": 0.5, "missing": ["second_0"]}
    (tmp_path / "second.mp4").rename(videos / "second.mp4")
    caplog.clear()
    assert main(command) == 0
    assert "ran 1 clips" in caplog.text
    assert json.loads((output / "results.json").read_text())["coverage"]["coverage"] == 1


def test_no_clip_that_can_be_read_is_an_error(tmp_path, capfd):
    records, _ = write_benchmark(tmp_path / "data", "iground")
    assert main(arguments("iground", tmp_path / "results", "--data", str(records), *QUICK)) == 2
    error = capfd.readouterr().err.splitlines()[-1]
    assert error.startswith("error: none of 2 clips could be predicted, such as 'first_0': the data has no clips")


@pytest.mark.parametrize(
    ("benchmark", "more", "message"),
    [
        (
            "iground",
            ["--objectness-threshold", "2"],
            "--objectness-threshold: expected a probability in [0, 1], got 2.0",
        ),
        ("vidstg", ["--objectness-threshold", "0.5"], "vidstg takes the box of every frame"),
        ("iground", ["--worst", "3", "--no-score"], "--worst: draws the clips with the lowest scores"),
        ("iground", ["--worst", "-1"], "--worst: expected at least 0, got -1"),
        ("iground", ["--mode", "gt"], "--mode: is for activitynet_entities"),
        ("iground", ["--device", "foo"], "--device: got 'foo'"),
        ("iground", ["--output", str(ROOT / "README.md")], "--output: "),
        ("vidstg", [], "--data: clip 'shapes-3-test-000000_0': metadata: expected `temporal_gt`"),
        ("youcook_interactions", [], "--data: clip 'shapes-3-test-000000_0': tracks: got"),
        ("iground", ["--model", "checkpoints/grove-dmeo"], "--model: neither a folder nor a model of the Hub"),
        ("iground", ["--batch-size", "0"], "--batch-size: expected at least 1, got 0"),
        ("iground", ["--limit", "0"], "--limit: expected at least 1, got 0"),
        ("iground", ["--text-model", "nowhere/there-is-none"], "there-is-none"),
        ("activitynet_entities", ["--lemmas", "table:none.json"], "none.json"),
        ("iground", ["--model", "there/is/none"], "--model: neither a folder nor a model of the Hub: 'there/is/none'"),
        ("iground", ["--videos", "none"], "--videos: no folder 'none'"),
        ("other", [], "argument BENCHMARK: invalid choice"),
    ],
)
def test_what_cannot_be_done_is_said_before_anything_is_run(benchmark, more, message, tmp_path, capfd):
    try:
        status: Any = main(arguments(benchmark, tmp_path / "run", *SHAPES, *more))
    except SystemExit as error:
        status = error.code
    assert status == 2 and message in (error := capfd.readouterr().err) and error.count("\n") == 1
    assert not any(tmp_path.iterdir())


def test_a_wrong_annotation_is_found_before_the_first_clip_is_run(tmp_path, capfd, caplog):
    records, videos = write_benchmark(tmp_path / "data", "grounding_youtube")
    lines = records.read_text(encoding="utf-8").splitlines(keepends=True)
    records.write_text(lines[0] + json.dumps({**json.loads(lines[1]), "fps": 0}), encoding="utf-8")
    data = ["--data", str(records), "--videos", str(videos)]
    assert main(arguments("grounding_youtube", tmp_path / "run", *data)) == 2
    assert "error: --data: clip 'second_1': fps: expected a positive number" in capfd.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_model_that_does_not_load_leaves_nothing_in_the_folder(tmp_path, capfd):
    model = tmp_path / "model"
    shutil.copytree(MODEL, model)
    weights = model / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    assert main(["run", "iground", "--model", str(model), "--output", str(tmp_path / "run"), *SHAPES, *QUICK]) == 2
    assert capfd.readouterr().err.splitlines()[-1].startswith("error: --model: cannot load a GROVE model from")
    assert not (tmp_path / "run").exists()


def test_one_process_says_what_is_wrong_and_the_others_end_in_silence(tmp_path):
    """As torchrun starts them, which would add messages of its own."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    command = ["run", "iground", "--model", "there/is/none", "--output", str(tmp_path / "run"), *SHAPES, *QUICK]
    shared = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "OMP_NUM_THREADS": "1"}
    started = [
        subprocess.Popen(
            [sys.executable, "-m", "eval", *command],
            cwd=ROOT,
            env={**os.environ, **shared, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    try:
        errors = [process.communicate(timeout=120)[1] for process in started]
    finally:
        for process in started:
            process.kill()
    assert [process.returncode for process in started] == [2, 2], errors
    assert "error: --model: neither a folder nor a model of the Hub: 'there/is/none'" in errors[0]
    assert "Traceback" not in "".join(errors) and "error" not in errors[1].lower(), errors

"""The model against the original's recorded numbers, through the runner that checks any recorded case, and the runner itself."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

sys.path.append(str(Path(__file__).resolve().parents[1]))

import parity
from parity_cases import load_model
from parity_report import EXACT, FEATURES, RecordedCase, Report

TESTS = Path(__file__).resolve().parents[1]
GOLDEN = TESTS / "golden" / "grove"
CASES = sorted(parity.find_cases(GOLDEN))


def case_name(path: Path) -> str:
    return str(path.relative_to(GOLDEN))


@pytest.mark.parametrize("path", CASES, ids=case_name)
def test_case(path):
    report = parity.run_case(path)
    assert report.lines
    assert not [str(line) for line in report.lines if line.failed]


def test_every_recorded_case_is_found():
    assert {case_name(path) for path in CASES} == {
        "components",
        "dense_a",
        "full_a",
        "full_b",
        "full_size_manifest.json",
        "generate_a",
        "generate_b",
        "preprocess",
        "prompts.json",
        "sampling.json",
        "tokenizer/ids.json",
    }


@torch.no_grad()
def test_covering_windows_are_the_originals_where_a_clip_divides(monkeypatch):
    case = RecordedCase(GOLDEN / "dense_a", "dense_a")
    model = load_model(case, Report(case))
    monkeypatch.setitem(case.meta, "clip_pixel_values", _shortened(case.meta["clip_pixel_values"]))
    monkeypatch.setitem(case.meta, "sam_pixel_values", _shortened(case.meta["sam_pixel_values"]))
    clip, sam = (case.pixels(f"{stream}_pixel_values", Report(case)).transpose(1, 2) for stream in ("clip", "sam"))
    ids = parity.parity_cases.expand_ids(model, case.outputs["answer_ids"])
    covering, sliding = (model.ground(ids, clip, sam, windows=windows) for windows in ("covering", "sliding"))
    assert covering.pred_boxes.shape == (1, 16, 2, 4)
    torch.testing.assert_close(covering.pred_boxes, sliding.pred_boxes)
    torch.testing.assert_close(covering.objectness_logits, sliding.objectness_logits)


def _shortened(entry: dict) -> dict:
    """Two windows of the recorded clip."""
    return {"call": entry["call"].replace(", 26,", ", 16,"), "k": entry["k"]}


# The runner


@pytest.fixture
def components(tmp_path):
    """A copy of the components with only what does not take long."""
    folder = tmp_path / "any name"
    shutil.copytree(GOLDEN / "components", folder)
    meta = json.loads((folder / "meta.json").read_text())
    kept = ("pool.y", "giou.loss", "pos_embed_32")
    meta["tensors"] = {name: entry for name, entry in meta["tensors"].items() if name.removeprefix("outputs/") in kept}
    (folder / "meta.json").write_text(json.dumps(meta))
    outputs = load_file(folder / "outputs.safetensors")
    save_file({name: outputs[name] for name in kept}, folder / "outputs.safetensors")
    return folder


def change_outputs(folder, change):
    outputs = load_file(folder / "outputs.safetensors")
    change(outputs)
    save_file(outputs, folder / "outputs.safetensors")


def failures(capsys):
    lines = capsys.readouterr().out.splitlines()
    return [line for line in lines if "FAIL" in line]


def test_a_line_for_each_tensor(components, capsys):
    assert parity.main([str(components)]) == 0
    *lines, _, summary = capsys.readouterr().out.splitlines()
    words = [line.removeprefix("any name").split() for line in lines]
    assert [(line[0], line[2], line[-1]) for line in words] == [
        ("giou.loss", "5e-05+0.0001*|x|", "ok"),
        ("pool.y", "5e-05+0.0001*|x|", "ok"),
        ("pos_embed_32", "5e-05+0.0001*|x|", "ok"),
    ]
    assert summary == "1 cases, 3 comparisons, 0 failed"


@pytest.mark.parametrize("factor", [0.5, 10])
def test_an_error_above_the_tolerance_fails(components, capsys, factor):
    def change(outputs):
        value = outputs["pool.y"].flatten()[7]
        value += factor * (FEATURES.atol + FEATURES.rtol * value.abs())

    change_outputs(components, change)
    assert parity.main([str(components)]) == (factor > 1)
    assert [line.removeprefix("any name").split()[0] for line in failures(capsys)] == ["pool.y"] * (factor > 1)


def test_not_a_number_fails(components, capsys):
    change_outputs(components, lambda outputs: outputs["pool.y"].flatten()[7].fill_(float("nan")))
    assert parity.main([str(components)]) == 1
    assert len(failures(capsys)) == 1


def test_another_shape_fails(components, capsys):
    change_outputs(components, lambda outputs: outputs.update({"pool.y": outputs["pool.y"][:, 1:].contiguous()}))
    assert parity.main([str(components)]) == 1
    assert "shape (2, 576, 3), recorded (2, 575, 3)" in failures(capsys)[0]


def test_a_missing_tensor_fails(components, capsys):
    change_outputs(components, lambda outputs: outputs.pop("pool.y"))
    assert parity.main([str(components)]) == 1
    assert "missing: outputs.safetensors has no such tensor" in failures(capsys)[0]


def test_a_tensor_that_is_not_compared_fails(components, capsys):
    change_outputs(components, lambda outputs: outputs.update({"new.y": torch.zeros(1)}))
    assert parity.main([str(components)]) == 1
    [line] = failures(capsys)
    assert "new.y" in line and "not compared" in line


def test_an_unknown_case_fails(components, capsys):
    change_outputs(components, lambda outputs: (outputs.clear(), outputs.update({"mask": torch.zeros(1)})))
    meta = components / "meta.json"
    meta.write_text(json.dumps({"case": "components", "tensors": {}}))
    assert parity.main([str(components)]) == 1
    assert "not recognised" in failures(capsys)[0]


@pytest.mark.parametrize("content", [None, {"frames": 3}, [1, 2]])
def test_a_folder_without_known_cases_fails(tmp_path, capsys, content):
    if content is not None:
        (tmp_path / "table.json").write_text(json.dumps(content))
    assert parity.main([str(tmp_path)]) == 1
    assert "not recognised" in failures(capsys)[0]


def test_a_case_that_cannot_be_run_fails_and_the_others_are_run(components, capsys):
    broken = components.parent / "a broken one"
    shutil.copytree(components, broken)
    (broken / "inputs.safetensors").unlink()
    assert parity.main([str(components.parent)]) == 1
    output = capsys.readouterr().out
    assert "error: FileNotFoundError" in output
    assert "any name: 3 compared" in output
    assert "2 cases" in output


def test_exact_comparisons():
    report = Report(RecordedCase(GOLDEN / "components", "components"))
    report.close("ids", torch.tensor([1, 2]), torch.tensor([1, 2]), EXACT)
    report.close("ids", torch.tensor([1, 2]), torch.tensor([1, 3]), EXACT)
    report.close("none", torch.zeros(0, 4), torch.zeros(0, 4), EXACT)
    report.same("text", "a man", "a man ")
    assert [line.failed for line in report.lines] == [False, True, False, True]


def test_command(tmp_path):
    """From any folder, by its path, with a folder of cases."""
    shutil.copy(GOLDEN / "sampling.json", tmp_path / "numbers.json")
    shutil.copytree(GOLDEN / "tokenizer", tmp_path / "tokenizer")
    command = [sys.executable, str(TESTS / "parity.py"), str(tmp_path)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "tokenizer/ids.json" in done.stdout
    assert done.stdout.splitlines()[-1].startswith("2 cases, ")

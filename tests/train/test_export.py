"""Models to give away: half the size on disk, the same model in memory."""

import json
import shutil

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from modeling_grove import GroveForConditionalGeneration, GroveProcessor
from train.__main__ import main as train_command

EXACT = "model.box_decoder.positional_embedding"


def test_half_the_size_and_loaded_in_the_precision_of_before(world, tmp_path, capsys):
    output = tmp_path / "exported"
    assert train_command(["export", str(world.start), "--dtype", "float16", "--output", str(output), "--json"]) == 0

    size = json.loads(capsys.readouterr().out)["weights_bytes"]
    assert size < 0.6 * (world.start / "model.safetensors").stat().st_size
    with safe_open(output / "model.safetensors", "pt") as file:
        kinds = {file.get_tensor(name).dtype for name in file.keys() if name != EXACT}  # noqa: SIM118 - no dict
    assert kinds == {torch.float16}
    before, after = (GroveForConditionalGeneration.from_pretrained(folder) for folder in (world.start, output))
    assert after.dtype == torch.float32
    for name, value in before.state_dict().items():
        expected = value if name == EXACT else value.half().float()
        assert torch.equal(after.state_dict()[name], expected), name
    GroveProcessor.from_pretrained(output)
    assert not (output / "modeling_grove.py").exists()
    assert all(path.stat().st_mode & 0o777 == 0o644 for path in output.iterdir())


def test_code_comes_along_if_asked_for(world, tmp_path):
    assert train_command(["export", str(world.start), "--with-code", "--output", str(tmp_path / "exported")]) == 0

    assert (tmp_path / "exported" / "modeling_grove.py").exists()


def test_weights_that_half_precision_cannot_hold(world, tmp_path, capsys):
    folder = tmp_path / "large"
    shutil.copytree(world.start, folder)
    weights = load_file(folder / "model.safetensors")
    weights["model.phrase_projector.linear_1.weight"][0, 0] = 1e6
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})

    assert train_command(["export", str(folder), "--dtype", "float16", "--output", str(tmp_path / "exported")]) == 2

    assert "--dtype: float16 cannot hold model.phrase_projector.linear_1.weight" in capsys.readouterr().err
    assert not (tmp_path / "exported").exists()


@pytest.mark.parametrize(
    ("name", "message"), [("nothing.txt", "no config.json"), ("adapter_config.json", "train merge")]
)
def test_folders_that_are_no_models(world, tmp_path, capsys, name, message):
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / name).write_text("{}")
    if name == "adapter_config.json":
        shutil.copy(world.start / "config.json", folder)

    assert train_command(["export", str(folder), "--output", str(tmp_path / "exported")]) == 2
    assert message in capsys.readouterr().err

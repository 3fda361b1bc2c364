"""What the conversion refuses: each time one line on standard error, status 2, and nothing written."""

import json
import os
import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from modeling_grove.checkpoint_io_grove import CheckpointError, parse_size
from modeling_grove.convert_grove import convert, main
from tests.original_checkpoints import (
    add_safetensors,
    add_tokenizer,
    clip_checkpoint,
    glamm_checkpoint,
    load_case,
    published_checkpoint,
)


@pytest.fixture(scope="module")
def state() -> dict[str, Tensor]:
    return load_case("full_a")[0]


@pytest.fixture
def published(tmp_path: Path) -> Path:
    return published_checkpoint(tmp_path / "published")


def refused(capsys, output: Path, *arguments: str | Path) -> str:
    status = main(["--output", str(output), *map(str, arguments)])
    captured = capsys.readouterr()
    assert (status, captured.out, captured.err.count("\n")) == (2, "", 1)
    assert not output.exists() and not list(output.parent.glob(".*partial"))
    return captured.err.removeprefix("error: ")


def replace_weights(directory: Path, tensors: dict[str, Tensor]) -> None:
    for file in [*directory.glob("model*"), *directory.glob("pytorch_model*")]:
        file.unlink()
    add_safetensors(directory, tensors)


def test_sources_that_are_not_there(published, tmp_path, capsys):
    output = tmp_path / "out"
    assert "does not exist; expected a directory" in refused(capsys, output, "--source", tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    assert "has no weights; expected *.safetensors" in refused(capsys, output, "--source", tmp_path / "empty")
    next(published.glob("model-00002*")).unlink()
    assert "lacks model-00002-of-00003.safetensors" in refused(capsys, output, "--source", published)
    (published / "model.safetensors.index.json").unlink()
    assert "has 2 of 3 shards" in refused(capsys, output, "--source", published)
    (published / "other.safetensors").write_bytes(b"")
    assert "several weight files and no index" in refused(capsys, output, "--source", published)
    (published / "model.safetensors.index.json").write_text("[]")
    assert "holds a JSON list; expected an object" in refused(capsys, output, "--source", published)
    (published / "model.safetensors.index.json").write_text("{}")
    assert "has no weight_map" in refused(capsys, output, "--source", published)


def test_an_existing_output_is_not_touched(published, tmp_path, capsys):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_text("kept")
    assert main(["--source", str(published), "--output", str(tmp_path / "out")]) == 2
    assert "exists and is not an empty directory" in capsys.readouterr().err
    assert [file.name for file in (tmp_path / "out").iterdir()] == ["mine"]


class Harmful:
    """What an attacker puts into a pickle: unpickled, it makes a directory."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_damaged_and_harmful_files(state, tmp_path, capsys):
    output, file = tmp_path / "out", tmp_path / "weights.bin"
    torch.save({"a": Harmful(tmp_path / "harm")}, file)
    assert "holds more than tensors, and such a pickle can run code: it is refused" in refused(
        capsys, output, "--source", file
    )
    assert not (tmp_path / "harm").exists()
    torch.save({"model": {"a": torch.ones(1)}}, file)
    assert "has 'model' of type dict; expected a plain state dict" in refused(capsys, output, "--source", file)
    torch.save([torch.ones(1)], file)
    assert "holds a list; expected a state dict" in refused(capsys, output, "--source", file)
    torch.save({}, file)
    assert "holds no tensors" in refused(capsys, output, "--source", file)
    file.write_bytes(pickle.dumps({"a": 1}))
    assert "damaged or not a torch.save archive" in refused(capsys, output, "--source", file)
    torch.save(state, file)
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    assert "damaged or not a torch.save archive" in refused(capsys, output, "--source", file)
    file = tmp_path / "weights.safetensors"
    save_file(state, file)
    file.write_bytes(file.read_bytes()[:-100])
    assert "damaged or not a safetensors file" in refused(capsys, output, "--source", file)
    save_file({"a": torch.ones(4).to(torch.float8_e4m3fn)}, file)
    assert "has 'a' in F8_E4M3; expected one of" in refused(capsys, output, "--source", file)


def test_tensors_that_do_not_add_up(state, published, tmp_path, capsys):
    glamm, clip = glamm_checkpoint(tmp_path / "glamm"), clip_checkpoint(tmp_path / "clip")
    output = tmp_path / "out"
    replace_weights(published, state | {"model.mystery.weight": torch.ones(2)})
    assert "'model.mystery.weight' of shape (2,) that is neither" in refused(capsys, output, "--source", published)
    replace_weights(published, {name: tensor for name, tensor in state.items() if "neck" not in name})
    assert "has no 'model.grounding_encoder.image_encoder.neck.0.weight'" in refused(
        capsys, output, "--source", published
    )
    replace_weights(published, {name: tensor for name, tensor in state.items() if not name.endswith("norm2.weight")})
    assert "No checkpoint supplies 'model." in refused(capsys, output, "--source", published)
    replace_weights(published, state | {"model.mm_projector.2.bias": torch.ones(63)})
    assert "has shape (63,); expected (64,)" in refused(capsys, output, "--source", published)
    # GLaMM taken for GROVE, and the other way round.
    assert "--init-from-glamm" in refused(capsys, output, "--source", glamm, "--clip", clip)
    replace_weights(published, state)
    assert "which is GROVE's; leave the option out" in refused(
        capsys, output, "--source", published, "--init-from-glamm"
    )
    assert "CLIP with --clip" in refused(capsys, output, "--source", glamm, "--init-from-glamm")
    assert "The maximum shard size is '5 boxes'" in refused(
        capsys, output, "--source", published, "--max-shard-size", "5 boxes"
    )


def test_a_converted_checkpoint_is_recognised(published, tmp_path, capsys):
    convert(published, tmp_path / "first")
    assert "in this package's format already" in refused(capsys, tmp_path / "out", "--source", tmp_path / "first")


def test_tokenizers_that_do_not_belong(published, tmp_path, capsys):
    output = tmp_path / "out"
    tokens = published / "added_tokens.json"
    for file in [tokens, published / "tokenizer_config.json", published / "special_tokens_map.json"]:
        file.unlink()
    add_tokenizer(published, "base")
    message = refused(capsys, output, "--source", published)
    assert "does not belong to the 458 rows of the weights: it gives {'<im_start>': None" in message
    # GLaMM's tokens in another order.
    add_tokenizer(published, "glamm")
    ids = json.loads(tokens.read_text(encoding="utf-8"))
    ids["<p>"], ids["</p>"] = ids["</p>"], ids["<p>"]
    tokens.write_text(json.dumps(ids), encoding="utf-8")
    message = refused(capsys, output, "--source", published)
    assert "it gives {'<p>': 454, '</p>': 453}; expected {'<p>': 453, '</p>': 454}" in message
    (published / "tokenizer.model").write_bytes(b"not a model")
    assert "cannot be loaded" in refused(capsys, output, "--source", published)
    (published / "tokenizer.model").unlink()
    assert "No tokenizer.model or tokenizer.json in" in refused(capsys, output, "--source", published)


def test_sizes():
    assert [parse_size(text) for text in ("5GB", "1.5 mb", "64KB", 10)] == [5_000_000_000, 1_500_000, 64_000, 10]
    for text in ("0", "-1GB", "GB", "5TB"):
        with pytest.raises(CheckpointError, match="maximum shard size"):
            parse_size(text)

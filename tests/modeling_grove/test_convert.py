"""The conversion command: every layout of the originals, and what it writes and prints."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoProcessor, AutoTokenizer

from modeling_grove import GroveForConditionalGeneration
from modeling_grove.checkpoint_map_grove import GROVE_ONLY, convert_state_dict
from modeling_grove.convert_grove import convert, main
from modeling_grove.original_text_grove import encode, expand_video_tokens
from tests.original_checkpoints import (
    GOLDEN,
    add_config,
    add_pickle,
    add_safetensors,
    add_tokenizer,
    clip_checkpoint,
    clip_of,
    glamm_checkpoint,
    glamm_of,
    load_case,
    published_checkpoint,
)

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def case() -> tuple[dict[str, Tensor], dict]:
    return load_case("full_a")


@pytest.fixture(scope="module")
def converted(case) -> dict[str, Tensor]:
    """What the map alone makes of the case, without files."""
    return convert_state_dict(*case)[1]


@pytest.fixture
def published(tmp_path: Path) -> Path:
    return published_checkpoint(tmp_path / "published")


@pytest.fixture
def glamm(tmp_path: Path) -> Path:
    return glamm_checkpoint(tmp_path / "glamm")


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    return clip_checkpoint(tmp_path / "clip")


def written(directory: Path) -> dict[str, Tensor]:
    tensors: dict[str, Tensor] = {}
    for file in sorted(directory.glob("*.safetensors")):
        tensors |= load_file(file)
    return tensors


def assert_identical(ours: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert ours.keys() == expected.keys()
    for name, tensor in expected.items():
        assert torch.equal(ours[name], tensor), name


def golden_outputs(model: GroveForConditionalGeneration) -> dict[str, Tensor]:
    """Boxes and objectness logits of the recorded inputs."""
    folder = GOLDEN / "full_a"
    meta = json.loads((folder / "meta.json").read_text(encoding="utf-8"))
    scope: dict = {}
    exec(meta["pixel_formula"], scope)  # the recorded source of `wave`
    sizes = {"clip_pixel_values": 336, "sam_pixel_values": 512}
    clip, sam = (
        torch.from_numpy(scope["wave"](1, 3, 8, size, size, meta[name]["k"])).transpose(1, 2)
        for name, size in sizes.items()
    )
    ids = load_file(folder / "inputs.safetensors")["input_ids"][0].tolist()
    ids = expand_video_tokens(ids, model.config.video_token_id, model.config.num_video_tokens)
    with torch.no_grad():
        outputs = model(torch.tensor([ids]), pixel_values_videos=clip, grounding_pixel_values_videos=sam)
    return {"pred_boxes": outputs.pred_boxes[0], "objectness_logits": outputs.objectness_logits[0]}


# The layouts


def test_published_safetensors_give_the_recorded_outputs(published, converted, tmp_path):
    report = convert(published, tmp_path / "out")
    assert report.sources == {"source": f"{published} (safetensors, 3 files)"}
    assert report.files == ["model.safetensors"]
    assert_identical(written(tmp_path / "out"), converted)
    model, info = GroveForConditionalGeneration.from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not any(info[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    recorded = load_file(GOLDEN / "full_a" / "outputs.safetensors")
    outputs = golden_outputs(model)
    torch.testing.assert_close(outputs["pred_boxes"], recorded["pred_boxes.b0"], rtol=0, atol=5e-5)
    torch.testing.assert_close(outputs["objectness_logits"], recorded["objectness_logits.b0"], rtol=0, atol=3e-4)
    assert model.generation_config.max_new_tokens == 64 and model.generation_config.do_sample is False
    # The original's behaviour, which its weights were trained with.
    assert tuple(model.config.vision_adapter_grid) == (16, 36) and model.config.freeze_vision_adapters
    # Saved again, nothing changes.
    model.save_pretrained(tmp_path / "again")
    assert_identical(written(tmp_path / "again"), converted)
    assert (tmp_path / "again" / "config.json").read_bytes() == (tmp_path / "out" / "config.json").read_bytes()


@pytest.mark.parametrize("shards", [1, 3])
def test_a_bin_alone(case, converted, tmp_path, shards):
    state, config = case
    add_pickle(tmp_path / "bin", state, shards)
    add_config(tmp_path / "bin", config)
    add_tokenizer(tmp_path / "bin", "final")
    convert(tmp_path / "bin", tmp_path / "out")
    assert_identical(written(tmp_path / "out"), converted)


def test_a_bin_over_its_glamm_and_clip(case, converted, glamm, clip, tmp_path):
    """What the original trains is in the .bin; GLaMM and CLIP have the rest and, in other values, some of the same."""
    state, config = case
    manifest = json.loads((GOLDEN / "full_size_manifest.json").read_text(encoding="utf-8"))["tensors"]
    trained = {name: tensor for name, tensor in state.items() if manifest[name]["trainable"] or "pos" in name}
    assert 0 < len(trained) < len(state)
    weights = tmp_path / "release" / "grove_ft.bin"
    weights.parent.mkdir()
    torch.save(trained, weights)
    add_config(glamm, config)
    report = convert(weights, tmp_path / "out", base=glamm, clip=clip)
    assert_identical(written(tmp_path / "out"), converted)
    sums = report.totals
    assert sums["superseded_tensors"] > 0 and sums["fresh_tensors"] == 0
    assert sums["source_tensors"] == len(trained) + len(glamm_of(state)) + len(clip_of(state))
    assert sums["source_tensors"] == sums["converted_tensors"] + sums["dropped_tensors"] + sums["superseded_tensors"]
    assert {row.checkpoint for row in report.rows if row.status == "converted"} == {"source", "base", "clip"}
    # The tokenizer is GLaMM's, with GROVE's tokens.
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    assert tokenizer.convert_tokens_to_ids(["[DET]", "<video>"]) == [457, 458]


def test_a_model_to_train_from_glamm_clip_and_sam(case, converted, glamm, clip, tmp_path):
    state, _ = case
    # SAM apart from GLaMM, in its own names.
    prefix = "model.grounding_encoder."
    tensors = glamm_of(state)
    sam = {name.removeprefix(prefix): tensors[name] for name in tensors if name.startswith(prefix + "image_encoder.")}
    torch.save(sam, tmp_path / "sam_vit.pth")
    shutil.rmtree(glamm)
    add_safetensors(glamm, {name: tensor for name, tensor in tensors.items() if "image_encoder" not in name})
    add_config(glamm, {"hidden_size": 64, "num_attention_heads": 4}, "config.json")
    add_tokenizer(glamm, "glamm")
    options = {"clip": clip, "sam": tmp_path / "sam_vit.pth", "init_from_glamm": True}
    report = convert(glamm, tmp_path / "out", seed=1, **options)

    ours = written(tmp_path / "out")
    fresh = {target.name for target in report.plan.targets if target.source is None}
    assert fresh == {name for name in ours if "adapters" in name or "_head." in name} - {"lm_head.weight"}
    assert report.alphas == {"vision": [0.0, 0.0], "grounding": [0.0, 0.0]}
    for name in ("model.language_model.embed_tokens.weight", "lm_head.weight"):
        assert torch.equal(ours[name][:-3], converted[name][:-3])
        torch.testing.assert_close(ours[name][-3:], converted[name][:-3].mean(0).expand(3, -1))
    assert ours["model.grounding_encoder.pos_embed"].shape == (1, 32, 32, 32)
    resized = {"model.grounding_encoder.pos_embed"} | {name for name in ours if "rel_pos" in name}
    for name in ours.keys() - fresh - resized - {"lm_head.weight", "model.language_model.embed_tokens.weight"}:
        assert torch.equal(ours[name], converted[name]), name

    # A new model has the correct behaviour, and runs.
    model = GroveForConditionalGeneration.from_pretrained(tmp_path / "out")
    assert (model.config.vision_adapter_grid, model.config.freeze_vision_adapters) == (None, False)
    assert all(value.isfinite().all() for value in golden_outputs(model).values())
    # The same seed gives the same bytes, another one other adapters.
    convert(glamm, tmp_path / "same", seed=1, **options)
    assert_identical(written(tmp_path / "same"), ours)
    convert(glamm, tmp_path / "other", seed=2, **options)
    other = written(tmp_path / "other")
    assert not any(torch.equal(other[name], ours[name]) for name in ours if name.endswith("conv3d.weight"))


def test_flat_clip_names_of_transformers_5(case, glamm, clip, tmp_path):
    state, _ = case
    convert(glamm, tmp_path / "out", clip=clip, init_from_glamm=True)
    flat = {name.removeprefix("vision_model."): tensor for name, tensor in clip_of(state).items()}
    add_safetensors(
        tmp_path / "flat", {name: tensor for name, tensor in flat.items() if not name.startswith(("text", "visual"))}
    )
    add_config(tmp_path / "flat", {"num_attention_heads": 4}, "config.json")
    report = convert(glamm, tmp_path / "flat-out", clip=tmp_path / "flat", init_from_glamm=True)
    assert_identical(written(tmp_path / "flat-out"), written(tmp_path / "out"))
    assert not any("clip.num_attention_heads" in note for note in report.notes)


def test_the_hub_cache_is_read_by_id(published, converted, tmp_path):
    """`org/name` through the Hub's client, offline: the cache is laid out as a download leaves it."""
    cache = tmp_path / "hub" / "models--org--tiny"
    shutil.copytree(published, cache / "snapshots" / "abc")
    (cache / "refs").mkdir()
    (cache / "refs" / "main").write_text("abc")
    environment = os.environ | {"HF_HUB_CACHE": str(tmp_path / "hub"), "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "modeling_grove.convert_grove"]
    arguments = ["--source", "org/tiny", "--output", str(tmp_path / "out")]
    result = subprocess.run([*command, *arguments], env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""
    assert_identical(written(tmp_path / "out"), converted)
    arguments = ["--source", "org/none", "--output", str(tmp_path / "none")]
    result = subprocess.run([*command, *arguments], env=environment, capture_output=True, text=True)
    assert result.returncode == 2
    assert re.fullmatch("error: org/none is no local path, and the Hub did not give it: .+\n", result.stderr)


# Output


def test_shards_precision_and_processor(published, converted, tmp_path):
    report = convert(published, tmp_path / "out", dtype="bfloat16", max_shard_size="200KB")
    assert len(report.files) > 3
    sizes = [(tmp_path / "out" / name).stat().st_size for name in report.files]
    assert max(sizes) < 240_000  # and the headers
    index = json.loads((tmp_path / "out" / "model.safetensors.index.json").read_text(encoding="utf-8"))
    assert index["weight_map"].keys() == converted.keys() and set(index["weight_map"].values()) == set(report.files)
    assert index["metadata"]["total_size"] == 2 * sum(tensor.numel() for tensor in converted.values())
    assert_identical(written(tmp_path / "out"), {name: tensor.bfloat16() for name, tensor in converted.items()})
    # The original computes the positional encoding in the precision of the model.
    model = GroveForConditionalGeneration.from_pretrained(tmp_path / "out", dtype="auto")
    assert model.dtype == torch.bfloat16
    assert model.config.grounding_config.positional_encoding_dtype == "bfloat16"

    processor = AutoProcessor.from_pretrained(tmp_path / "out")
    assert processor.video_token_id == model.config.video_token_id == 458
    assert (processor.num_video_tokens, processor.video_processor.grounding_size) == (576, 512)
    assert (processor.tokenizer.padding_side, processor.tokenizer.pad_token) == ("left", "<unk>")


@pytest.mark.parametrize("layout", ["published", "glamm"])
def test_the_tokenizer_gives_the_recorded_ids(request, layout, clip, tmp_path):
    options = {"clip": clip, "init_from_glamm": True} if layout == "glamm" else {}
    convert(request.getfixturevalue(layout), tmp_path / "out", **options)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    recorded = json.loads((GOLDEN / "tokenizer" / "ids.json").read_text(encoding="utf-8"))
    for token, index in recorded["pretrained_true"]["ids"].items():
        assert tokenizer.convert_tokens_to_ids(token) == index
    assert set(tokenizer.all_special_tokens) == {*recorded["pretrained_true"]["all_special_tokens"], "<video>"}
    for example in recorded["examples"]:
        assert encode(tokenizer, example["text"]) == example["ids_with_bos"]


def test_closed_gates_are_reported(case, published, tmp_path, capsys):
    state, _ = case
    shutil.rmtree(published)
    closed = {
        name: tensor * 0 if "vision" in name and name.endswith("alpha") else tensor for name, tensor in state.items()
    }
    add_safetensors(published, closed)
    add_tokenizer(published, "final")
    assert main(["--source", str(published), "--output", str(tmp_path / "out")]) == 0
    out = capsys.readouterr().out
    assert "vision adapters: alpha all exactly 0: skipped at inference (0, 0)" in out
    assert "grounding adapters: alpha 0 of 2 exactly 0 (0.3366, 0.7352)" in out
    assert "note: clip.num_attention_heads is taken as 16, as released" in out


def test_the_table_accounts_for_everything(published, tmp_path, capsys):
    assert main(["--source", str(published), "--output", str(tmp_path / "text"), "--verbose"]) == 0
    text = capsys.readouterr().out
    assert re.search(
        "dropped +grounding_encoder.mask_decoder.output_upscaling +source +6 +1,180 +unused: SAM's mask heads", text
    )
    assert "source  352 tensors, 517,173 parameters: 283 converted, 69 dropped, 0 superseded; 0 unexplained" in text
    assert "model   283 tensors, 495,129 parameters: 283 converted, 0 fresh; 0 missing" in text
    assert text.count(" -> ") == 352
    assert main(["--source", str(published), "--output", str(tmp_path / "json"), "--json"]) == 0
    *rows, closing = map(json.loads, capsys.readouterr().out.splitlines())
    assert sum(row["tensors"] for row in rows) == closing["totals"]["source_tensors"] == 352
    assert sum(row["parameters"] for row in rows if row["status"] == "converted") == 495_129
    assert closing["files"] == ["model.safetensors"] and closing["dtype"] == "float32"


def test_help_can_be_followed(capsys):
    with pytest.raises(SystemExit) as caught:
        main(["--help"])
    assert caught.value.code == 0
    text = capsys.readouterr().out
    assert "--init-from-glamm" in text and "python -m modeling_grove.convert_grove --source ekazakos/grove" in text


def test_what_grove_adds_is_told_from_glamm(case):
    state, _ = case
    own = {name for name in state if GROVE_ONLY.fullmatch(name)}
    assert len(own) == 4 * 3 + 4 + 2
    assert not any(GROVE_ONLY.fullmatch(name) for name in glamm_of(state) | clip_of(state))

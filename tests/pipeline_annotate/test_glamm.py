"""GLaMM: the recorded cases, conversion of a checkpoint in its official layout, and captions of frames in batches."""

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from pipeline_annotate.__main__ import main
from pipeline_annotate.captioners import Frame
from pipeline_annotate.glamm_captioner import GlammCaptioner, encode_glamm
from pipeline_annotate.mask_boxes import MaskBoxes

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests"))

import parity  # noqa: E402
from parity_glamm import picture  # noqa: E402
from parity_report import RecordedCase  # noqa: E402

GOLDEN = ROOT / "tests" / "golden" / "glamm"


@pytest.mark.parametrize("name", ["gcg_a", "gcg_b_no_seg", "tokenization.json"])
def test_what_the_official_code_does(name):
    report = parity.run_case(GOLDEN / name)
    assert [str(line) for line in report.lines if line.failed] == []
    assert len(report.lines) > (20 if name.startswith("gcg") else 2)


def test_a_case_with_other_numbers_fails(tmp_path):
    """The comparison can fail: a mask decoder of which one number is another."""
    shutil.copytree(GOLDEN / "gcg_a", tmp_path / "case")
    state = load_file(tmp_path / "case" / "state_dict.safetensors")
    state["model.grounding_encoder.mask_decoder.output_upscaling.0.bias"][0] += 0.5
    save_file(state, tmp_path / "case" / "state_dict.safetensors")
    failed = {line.name for line in parity.run_case(tmp_path / "case").lines if line.failed}
    assert {"tf_low_res_mask_logits", "mask_logits_ds8"} <= failed and "tf_seg_embeddings" not in failed


@pytest.fixture(scope="module")
def official(tmp_path_factory):
    """A checkpoint as GLaMM's repositories have it, and CLIP beside it."""
    folder = tmp_path_factory.mktemp("official")
    case = RecordedCase(GOLDEN / "gcg_a", "gcg_a")
    clip = {name: value for name, value in case.state_dict.items() if ".vision_tower." in name}
    rest = {name: value.clone() for name, value in case.state_dict.items() if name not in clip}
    for part, tensors in (
        ("glamm", rest),
        ("clip", {n.split("vision_tower.vision_tower.")[1]: v.clone() for n, v in clip.items()}),
    ):
        (folder / part).mkdir()
        save_file(tensors, folder / part / "model.safetensors", metadata={"format": "pt"})
    shutil.copytree(GOLDEN / "gcg_a" / "tokenizer", folder / "glamm", dirs_exist_ok=True)
    hub = {"model_type": "llava", **case.config["llama"], **case.config["glamm"]}
    (folder / "glamm" / "config.json").write_text(json.dumps(hub), encoding="utf-8")
    given = {"sam": {"decoder_num_heads": case.config["sam"]["decoder_num_heads"]}}
    (folder / "glamm" / "original_config.json").write_text(json.dumps(given), encoding="utf-8")
    (folder / "clip" / "config.json").write_text(json.dumps({"vision_config": case.config["clip"]}), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def converted(official):
    arguments = [
        "--source",
        str(official / "glamm"),
        "--clip",
        str(official / "clip"),
        "--output",
        str(official / "ours"),
    ]
    assert main(["glamm", *arguments]) == 0
    return official / "ours"


def test_a_converted_checkpoint_captions_frames_of_any_size_in_one_batch(converted):
    case = RecordedCase(GOLDEN / "gcg_a", "gcg_a")
    image = picture(case)
    captioner = GlammCaptioner(converted, max_new_tokens=64, boxes=MaskBoxes(inclusive=True))
    other = np.ascontiguousarray(image[:200, ::-1])
    both = captioner.caption([Frame("a", 3, 0.6, image), Frame("b", 7, 1.4, other)])
    alone = [captioner.caption([frame])[0] for frame in (Frame("a", 3, 0.6, image), Frame("b", 7, 1.4, other))]

    assert both[0].caption == case.meta["caption"].replace(" .", ".") and (both[0].frame_index, both[0].timestamp) == (
        3,
        0.6,
    )
    assert [phrase.boxes[0].tolist() for phrase in both[0].phrases] == case.meta["bbox_xyxy_inclusive_pixels"]
    for one, same in zip(both, alone, strict=True):
        assert one.to_dict() | {"scores": 0} == same.to_dict() | {"scores": 0}
        assert all(((phrase.boxes >= 0) & (phrase.boxes <= 480)).all() for phrase in one.phrases)
    made = captioner.describe()
    assert made["captioner"] == "glamm" and made["boxes"]["inclusive"] and made["dtype"] == "float32"


def test_an_answer_that_is_cut_off_keeps_what_it_has(converted):
    case = RecordedCase(GOLDEN / "gcg_a", "gcg_a")
    captioner = GlammCaptioner(converted, max_new_tokens=9)
    (found,) = captioner.caption([Frame("a", 0, 0.0, picture(case))])
    assert found.caption.startswith("A man is holding") and len(found.phrases[0].boxes) == 1
    assert all(len(phrase.boxes) == 0 for phrase in found.phrases[1:])


def test_prompts_lose_the_blanks_beside_added_tokens(converted):
    tokenizer = GlammCaptioner(converted).tokenizer
    with_blanks, without = (
        encode_glamm(tokenizer, text) for text in ("a <p> man </p> [SEG] runs", "a<p>man</p>[SEG]runs")
    )
    assert with_blanks == without and with_blanks.count(tokenizer.convert_tokens_to_ids("[SEG]")) == 1
    assert encode_glamm(tokenizer, "<image>", [7, 7]) == [tokenizer.bos_token_id, 7, 7]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda folder: ["--source", str(folder / "glamm")], "no 'model.vision_tower"),
        (lambda folder: ["--source", str(folder / "nowhere")], "does not exist"),
        (lambda folder: ["--source", str(folder / "clip")], "so the size of the model is unknown"),
    ],
)
def test_what_cannot_be_converted_is_one_line(official, tmp_path, change, message, capsys):
    assert main(["glamm", *change(official), "--output", str(tmp_path / "ours")]) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("error: ") and message in error and not (tmp_path / "ours").exists()


def test_a_grove_checkpoint_and_unknown_tensors_are_refused(official, tmp_path, capsys):
    for name, message in (
        ("model.grounding_encoder.mask_decoder.bbox_prediction_head.0.weight", "it is a GROVE checkpoint"),
        ("model.something.weight", "'model.something.weight'"),
    ):
        folder = tmp_path / name
        shutil.copytree(official / "glamm", folder)
        tensors = load_file(folder / "model.safetensors") | {name: torch.zeros(1)}
        save_file(tensors, folder / "model.safetensors")
        arguments = ["--source", str(folder), "--clip", str(official / "clip"), "--output", str(tmp_path / "ours")]
        assert main(["glamm", *arguments]) == 2
        assert message in capsys.readouterr().err


def test_boxes_of_masks():
    logits = torch.full((3, 6, 8), -1.0)
    logits[0, 1:3, 2:5] = 2.0
    logits[1, 5, 7] = 0.5
    boxes, scores = MaskBoxes()(logits)
    assert boxes[:2].tolist() == [[2, 1, 5, 3], [7, 5, 8, 6]] and np.isnan(boxes[2]).all()
    np.testing.assert_allclose(scores, [1 / (1 + np.exp(-2)), 1 / (1 + np.exp(-0.5)), 0], rtol=1e-6)
    assert MaskBoxes(inclusive=True)(logits)[0][:2].tolist() == [[2, 1, 4, 2], [7, 5, 7, 5]]
    assert np.isnan(MaskBoxes(threshold=1.0)(logits)[0][1]).all()
    assert np.isfinite(MaskBoxes(min_area=6 / 48)(logits)[0]).all(axis=1).tolist() == [True, False, False]
    boxes, scores = MaskBoxes()(torch.zeros(0, 6, 8))
    assert boxes.shape == (0, 4) and scores.shape == (0,)
    with pytest.raises(ValueError, match="min_area"):
        MaskBoxes(min_area=2)

"""Vision pre-training: labels lie where the boxes are, the tower learns them, and a stopped run goes on as if it had not been."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from dataset_builders.reading import read_records
from dataset_builders.shapes.stills import stills
from modeling_grove import GroveForConditionalGeneration
from train.__main__ import main as train_command
from train.patch_labels import PatchClassifier, PatchStills, label_accuracy, label_weights, nouns_of, read_stills


@pytest.fixture(scope="module")
def still_file(world, tmp_path_factory):
    """Three frames of each clip of the training world."""
    shapes = world.folder / "shapes"
    clips = zip(
        read_records(str(shapes / "train.jsonl")),
        map(json.loads, (shapes / "train.frames.jsonl").read_text(encoding="utf-8").splitlines()),
        strict=True,
    )
    path = tmp_path_factory.mktemp("stills") / "stills.jsonl"
    with path.open("w", encoding="utf-8") as file:
        for clip, frames in clips:
            file.writelines(json.dumps(still) + "\n" for still in stills(clip, frames, 3))
    return path


def test_a_label_is_where_its_box_is_and_the_smaller_box_wins(still_file, world):
    records = list(read_records(str(still_file)))
    nouns = nouns_of(records)
    frames, maps = read_stills(records, world.videos, 64, nouns)

    assert {"man", "woman", "child"} & set(nouns) and "a" not in nouns
    assert frames.shape == (len(records), 64, 64, 3) and frames.std() > 10
    for record, labels in zip(records, maps, strict=True):
        boxes = np.array(record["bboxes"][0])
        smallest = np.argmin((boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1]))
        left, top, right, bottom = boxes[smallest].round().astype(int)
        assert nouns[labels[top:bottom, left:right].flat[0] - 1] in record["labels"][0][smallest].lower()
        inside = np.zeros((64, 64), bool)
        for left, top, right, bottom in boxes.round().astype(int):
            inside[top:bottom, left:right] = True
        assert not labels[~inside].any()


def test_labels_move_with_the_picture():
    """A picture whose red channel is its label: in every variant the two agree."""
    maps = np.zeros((1, 64, 64), np.uint8)
    maps[0, 16:48, 32:64] = 5
    frames = np.repeat(maps[..., None] * 51, 3, axis=3)
    varied = PatchStills(frames, maps, 8, (0.0,) * 3, (1.0,) * 3, draws=20)

    seen = [varied[draw] for draw in range(20)]
    for item in seen:
        torch.testing.assert_close(item["pixel_values"][:, 4::8, 4::8] * 5, item["labels"].float().expand(3, -1, -1))
    assert len({tuple(item["labels"].flatten().tolist()) for item in seen}) > 5
    plain = PatchStills(frames, maps, 8, (0.0,) * 3, (1.0,) * 3)[0]["labels"]
    assert plain.shape == (8, 8) and plain[2:6, 4:].eq(5).all() and plain.sum() == 5 * 16


def test_every_quarter_of_a_patch_has_its_own_label():
    """Logits of quarter (i, j) of patch (r, c) are those of place (2 r + i, 2 c + j)."""
    rows = torch.arange(9.0).view(1, 1, 9, 1)  # the feature of a patch is its number
    tower = SimpleTower(lambda pixels: (rows.expand(len(pixels), -1, -1, -1), []))
    classifier = PatchClassifier(tower, 1, torch.ones(4))
    with torch.no_grad():
        # The label that wins is the quarter's number, and its logit has the patch's number in it.
        classifier.head.weight.copy_(torch.eye(4).flatten()[:, None])
        classifier.head.bias.copy_(torch.eye(4).flatten())
    found = classifier(torch.zeros(2, 3, 8, 8), torch.zeros(2, 6, 6, dtype=torch.long))["logits"]

    patches = torch.arange(9).view(3, 3).repeat_interleave(2, 0).repeat_interleave(2, 1)
    quarters = torch.tensor([[0, 1], [2, 3]]).repeat(3, 3)
    assert torch.equal(found[1].argmax(-1), quarters)
    assert torch.equal(found[1].amax(-1), patches + 1.0)


class SimpleTower(torch.nn.Module):
    def __init__(self, function):
        super().__init__()
        self.adapters, self.function = torch.nn.ModuleDict(), function

    def forward(self, pixels):
        return self.function(pixels)


def test_rare_labels_weigh_more_and_nouns_count_the_same():
    maps = np.zeros((1, 64, 64), np.uint8)
    maps[0, :32, :32] = 1  # a quarter of the pixels
    weights = label_weights(maps, 3)
    assert weights[1] / weights[0] == pytest.approx(3**0.5) and weights[2] > weights[1]

    truth, found = np.array([0, 0, 1, 1, 1, 1, 2]), np.array([0, 1, 1, 1, 1, 0, 2])
    scores = label_accuracy(SimpleNamespace(predictions=found, label_ids=truth))
    assert scores == {"noun_accuracy": pytest.approx((0.75 + 1) / 2), "background_accuracy": 0.5}


def test_a_tower_learns_where_what_is(world):
    """Squares with upright or with lying stripes, on noise; what it says of pictures that it has not seen is right."""
    rng = np.random.default_rng(0)
    frames, maps = rng.integers(0, 90, (320, 64, 64, 3)).astype(np.uint8), np.zeros((320, 64, 64), np.uint8)
    stripes = 140 * (np.arange(32) // 4 % 2).astype(np.uint8)[:, None] * np.ones((1, 32), np.uint8)
    for frame, labels in zip(frames, maps, strict=True):
        label = rng.integers(1, 3)
        top, left = 16 * rng.integers(0, 3, 2)
        frame[top : top + 32, left : left + 32] += (stripes if label == 1 else stripes.T)[..., None]
        labels[top : top + 32, left : left + 32] = label
    data, new = (PatchStills(part, labels, 8, (0.5,) * 3, (0.3,) * 3) for part, labels in
                 ((frames[:256], maps[:256]), (frames[256:], maps[256:])))  # fmt: skip
    torch.manual_seed(0)
    tower = GroveForConditionalGeneration.from_pretrained(world.start).model.vision_tower
    classifier = PatchClassifier(tower, 32, label_weights(maps, 3))
    optimizer = torch.optim.AdamW([value for value in classifier.parameters() if value.requires_grad], lr=3e-3)
    for _ in range(80):
        batch = torch.utils.data.default_collate([data[index] for index in rng.integers(0, 256, 32).tolist()])
        optimizer.zero_grad()
        classifier(**batch)["loss"].backward()
        optimizer.step()
    batch = torch.utils.data.default_collate(list(new))
    with torch.no_grad():
        found = classifier(**batch)["logits"].argmax(-1)
    scores = label_accuracy(SimpleNamespace(predictions=found.numpy(), label_ids=batch["labels"].numpy()))
    assert min(scores.values()) > 0.9


def vision(world, still_file, output, *options):
    return [
        "vision", str(world.start), "--stills", str(still_file), "--videos", str(world.videos), "--output", str(output),
        "--batch-size", "8", *options,
    ]  # fmt: skip


@pytest.mark.slow
def test_the_tower_changes_and_nothing_else(still_file, world, tmp_path, capsys):
    assert train_command(vision(world, still_file, tmp_path / "seeing", "--steps", "6", "--json")) == 0
    result = json.loads(capsys.readouterr().out)
    before, after = (
        GroveForConditionalGeneration.from_pretrained(folder) for folder in (world.start, tmp_path / "seeing")
    )
    changed = {name for name, value in before.named_parameters() if not torch.equal(value, after.get_parameter(name))}
    assert changed and all("vision_tower" in name and "adapters" not in name for name in changed)
    assert {path.name for path in tmp_path.iterdir()} == {"seeing"}
    record = json.loads((tmp_path / "seeing" / "vision.json").read_text(encoding="utf-8"))
    assert record["metrics"]["noun_accuracy"] == result["noun_accuracy"] and record["held_out_stills"] == 3
    assert train_command(vision(world, still_file, tmp_path / "seeing", "--steps", "6")) == 0, "it is there"


@pytest.mark.slow
def test_a_stopped_run_goes_on_as_if_it_had_not_been(still_file, world, tmp_path, monkeypatch):
    monkeypatch.setattr("train.patch_labels.SAVE_STEPS", 4)
    outputs = tmp_path / "whole", tmp_path / "stopped"
    assert train_command(vision(world, still_file, outputs[0], "--steps", "10")) == 0

    def stop(self, args, state, control, **kwargs):
        if state.global_step == 6:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("transformers.TrainerCallback.on_step_end", stop)
        assert train_command(vision(world, still_file, outputs[1], "--steps", "10")) == 130
    assert not outputs[1].exists()
    assert train_command(vision(world, still_file, outputs[1], "--steps", "10")) == 0
    whole, stopped = (GroveForConditionalGeneration.from_pretrained(folder).state_dict() for folder in outputs)
    assert all(torch.equal(value, stopped[name]) for name, value in whole.items())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda record: record | {"frame_indices": [0, 2]}, "expected records of one frame"),
        (lambda record: record | {"frame_indices": [999]}, "and frame 999 is wanted"),
        (lambda record: record | {"phrases": [""]}, "0 nouns"),
    ],
)
def test_bad_stills_are_one_line(still_file, world, tmp_path, change, message, capsys):
    records = [json.dumps(change(record)) for record in read_records(str(still_file))]
    (tmp_path / "bad.jsonl").write_text("\n".join(records), encoding="utf-8")
    assert train_command(vision(world, tmp_path / "bad.jsonl", tmp_path / "seeing", "--steps", "2")) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("error: ") and message in error
    assert not (tmp_path / "seeing").exists()

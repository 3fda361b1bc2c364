"""Vision pre-training: labels lie where the boxes are, the encoders learn them, and a stopped run goes on as if it had not been."""

import json
import os
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from dataset_builders.reading import read_records
from dataset_builders.shapes.stills import stills
from eval.provenance import describe_model
from modeling_grove import GroveForConditionalGeneration, GroveProcessor
from modeling_grove.video_grove import read_video
from tests.train.training_runs import ROOT
from train.__main__ import main as train_command
from train.checkpoints import last_checkpoint
from train.patch_stills import PatchStills, Still, held_out, label_weights, list_stills, nouns_of, read_stills
from train.vision_pretraining import PatchClassifier, label_accuracy


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


def new_classifier(world, weights):
    model, processor = (
        GroveForConditionalGeneration.from_pretrained(world.start),
        GroveProcessor.from_pretrained(world.start),
    )
    return PatchClassifier(model, processor, weights)


@pytest.mark.parametrize("size", [64, 32])
def test_pictures_are_those_of_their_records_and_labels_lie_in_their_boxes(still_file, world, size):
    listed, records = list_stills(still_file), list(read_records(str(still_file)))
    nouns = nouns_of(listed)
    frames, maps = read_stills(listed, world.videos, size, nouns)

    assert {"man", "woman", "child"} & {*nouns} and "a" not in nouns and len(listed) == len(frames) == len(records)
    for still, record, frame, labels in zip(listed, records, frames, maps, strict=True):
        clip = read_video(world.videos / record["video_fname"], target_fps=None)
        picture = clip.frames[record["clip_id"]].astype(float)
        picture = picture.reshape(size, 64 // size, size, 64 // size, 3).mean((1, 3))
        assert still.frame == record["clip_id"] and np.abs(frame - picture).mean() < 6
        boxes = np.round(np.array(record["bboxes"][0]) * size / 64).astype(int)
        left, top, right, bottom = boxes[np.argmin((boxes[:, 2:] - boxes[:, :2]).prod(1))]
        smallest = record["labels"][0][int(np.argmin((boxes[:, 2:] - boxes[:, :2]).prod(1)))].lower()
        assert nouns[labels[top:bottom, left:right].flat[0] - 1] in smallest
        inside = np.zeros((size, size), bool)
        for left, top, right, bottom in boxes:
            inside[top:bottom, left:right] = True
        assert not labels[~inside].any()


def test_whole_videos_are_held_out_wherever_their_pictures_stand():
    pictures = [Still(video, 0, ()) for video in "aaabbacb"]
    assert held_out(pictures).tolist() == [video == "c" for video in "aaabbacb"]
    assert held_out([Still(str(number // 2), 0, ()) for number in range(200)]).sum() == 6


def test_labels_move_with_the_picture():
    """A picture whose first channel is its label: in every draw one channel is, and the others keep apart."""
    maps = np.zeros((1, 64, 64), np.uint8)
    maps[0, 16:48, 32:64] = 5
    frames = np.stack([maps * 51, maps * 0 + 10, maps * 0 + 20], axis=-1)
    data = PatchStills(frames, maps, np.array([0]), draws=100)

    seen, orders = set(), set()
    for draw in range(100):
        item = data[draw]
        order = item["pictures"].mean((1, 2)).argsort(descending=True).tolist()
        torch.testing.assert_close(item["pictures"][order[0]] * 5, item["labels"].float())
        seen.add(tuple(item["labels"].flatten().tolist()))
        orders.add(tuple(order))
        assert data[draw]["pictures"].equal(item["pictures"])
    assert len(seen) > 10 and len(orders) == 6
    plain = PatchStills(frames, maps, np.array([0]))
    labels = plain[0]["labels"]
    assert len(plain) == 1 and labels.equal(torch.from_numpy(maps[0]))


def test_small_things_are_pasted_with_their_labels():
    """Pictures whose first channel is their label, with one small thing each; a rare noun is pasted as often as a frequent one."""
    maps = np.zeros((40, 64, 64), np.uint8)
    for number, labels in enumerate(maps):
        labels[24:40, 24:40] = 5 if number == 0 else 3
        labels[:, 60:] = 4  # too high to be pasted
    frames = np.stack([maps * 51, maps * 0 + 10, maps * 0 + 20], axis=-1)
    data = PatchStills(frames, maps, np.arange(1, 40), draws=200)
    assert not any(data[draw]["labels"].eq(5).any() for draw in range(200))  # only of pictures that are its own

    data = PatchStills(frames, maps, np.arange(40), draws=200)
    covered = {3: 0, 4: 0, 5: 0}
    for draw in range(200):
        item = data[draw]
        labels = item["labels"]
        red = item["pictures"].max(0).values  # whatever the order of channels
        torch.testing.assert_close(red[labels > 0] * 5, labels[labels > 0].float())
        assert red[labels == 0].lt(0.1).all()
        for label in covered:
            covered[label] += int(labels.eq(label).sum())
        again = data[draw]
        assert labels.equal(again["labels"]) and item["pictures"].equal(again["pictures"])
    # about three of each, of 256 pixels, cover each other; nearly each picture has a 3 of its own, and a 4 is never pasted
    assert 320 < covered[5] / 200 < 768 and covered[5] < covered[3] < 1.5 * covered[5] and covered[4] / 200 <= 256


@pytest.mark.parametrize(("encoder", "parts"), [("vision", 2), ("grounding", 4)])
def test_every_part_of_a_patch_has_its_own_label(world, encoder, parts):
    """What part (i, j) of patch (r, c) says stands at (parts r + i, parts c + j)."""
    classifier = new_classifier(world, torch.ones(5)).eval()
    pictures, reader = torch.rand(2, 3, 64, 64), getattr(classifier, encoder)
    with torch.no_grad():
        found = classifier(pictures, torch.zeros(2, 64, 64, dtype=torch.uint8))[encoder]
        features = reader.encoder(((pictures - reader.mean) / reader.std)[:, None])[0][:, 0]
        if encoder == "grounding":
            features = features.flatten(2).mT
        assert found.shape == (2, 4 * parts, 4 * parts, 5)
        for row, column, i, j in ((0, 0, 0, 1), (2, 1, 1, 0), (3, 3, 1, 1)):
            expected = reader.head(features[1, 4 * row + column]).view(parts * parts, 5)[parts * i + j]
            torch.testing.assert_close(found[1, parts * row + i, parts * column + j], expected)


def test_encoders_see_pictures_as_the_processor_gives_them(world):
    """The same picture through the processor and through the classifier."""
    classifier, processor = new_classifier(world, torch.ones(5)), GroveProcessor.from_pretrained(world.start)
    frames = np.random.default_rng(0).integers(0, 256, (1, 64, 64, 3)).astype(np.uint8)
    inputs = processor.video_processor(videos=[frames], return_tensors="pt")
    pictures = torch.from_numpy(frames).permute(0, 3, 1, 2) / 255
    for reader, name in (
        (classifier.vision, "pixel_values_videos"),
        (classifier.grounding, "grounding_pixel_values_videos"),
    ):
        torch.testing.assert_close((pictures - reader.mean) / reader.std, inputs[name][0, :1], rtol=0, atol=1e-4)


def test_rare_labels_weigh_more_and_nouns_count_the_same():
    maps = np.zeros((1, 64, 64), np.uint8)
    maps[0, :32, :32] = 1  # a quarter of the pixels
    weights = label_weights(maps, 3)
    assert weights[1] / weights[0] == pytest.approx(3**0.5) and weights[2] > weights[1]

    truth, found = np.array([[[0, 0], [1, 1]]] * 2), np.array([[[0, 1], [1, 1]], [[0, 0], [1, 2]]])
    truth[1, 1, 1] = 2
    scores = label_accuracy(SimpleNamespace(predictions=(found[:, 1:, 1:], found), label_ids=truth))
    assert scores == {
        "vision_noun_accuracy": 1, "vision_background_accuracy": 0.0,
        "grounding_noun_accuracy": 1, "grounding_background_accuracy": 0.75,
    }  # fmt: skip
    found[0, 1, 0] = 2
    scores = label_accuracy(SimpleNamespace(predictions=(found[:, 1:, 1:], found), label_ids=truth))
    assert scores["grounding_noun_accuracy"] == pytest.approx((2 / 3 + 1) / 2)


def test_encoders_learn_where_what_is(world):
    """Squares with upright or with lying stripes, on noise; what it says of pictures that it has not seen is right."""
    rng = np.random.default_rng(0)
    frames, maps = rng.integers(0, 90, (320, 64, 64, 3)).astype(np.uint8), np.zeros((320, 64, 64), np.uint8)
    stripes = 140 * (np.arange(32) // 4 % 2).astype(np.uint8)[:, None] * np.ones((1, 32), np.uint8)
    for frame, labels in zip(frames, maps, strict=True):
        label = rng.integers(1, 3)
        top, left = 16 * rng.integers(0, 3, 2)
        frame[top : top + 32, left : left + 32] += (stripes if label == 1 else stripes.T)[..., None]
        labels[top : top + 32, left : left + 32] = label
    data, new = (PatchStills(frames, maps, part) for part in np.split(np.arange(320), [256]))
    torch.manual_seed(0)
    classifier = new_classifier(world, label_weights(maps, 3))
    optimizer = torch.optim.AdamW([value for value in classifier.parameters() if value.requires_grad], lr=3e-3)
    for _ in range(80):
        batch = torch.utils.data.default_collate([data[index] for index in rng.integers(0, 256, 32).tolist()])
        optimizer.zero_grad()
        classifier(**batch)["loss"].backward()
        optimizer.step()
    batch = torch.utils.data.default_collate(list(new))
    with torch.no_grad():
        found = classifier(**batch)
    found = tuple(found[encoder].argmax(-1).numpy() for encoder in ("vision", "grounding"))
    scores = label_accuracy(SimpleNamespace(predictions=found, label_ids=batch["labels"].numpy()))
    assert min(scores.values()) > 0.9


def command(world, still_file, output, steps, *options):
    return [
        "vision", str(world.start), "--stills", str(still_file), "--videos", str(world.videos), "--output", str(output),
        "--batch-size", "8", "--steps", str(steps), *options,
    ]  # fmt: skip


@pytest.mark.slow
def test_the_encoders_change_and_nothing_else(still_file, world, tmp_path, capsys):
    output = tmp_path / "vision"
    assert train_command(command(world, still_file, output, 6, "--json")) == 0
    result = json.loads(capsys.readouterr().out)
    before, after = (GroveForConditionalGeneration.from_pretrained(folder) for folder in (world.start, output))
    changed = {name for name, value in before.named_parameters() if not torch.equal(value, after.get_parameter(name))}
    assert {name.split(".")[1] for name in changed} == {"vision_tower", "grounding_encoder"}
    assert not any("adapters" in name for name in changed)
    assert not list(output.glob("checkpoint-*"))
    record = json.loads((output / "results.json").read_text(encoding="utf-8"))
    assert record["held_out_stills"] == 3 and record["metrics"].items() <= result.items()

    time_of_weights = (output / "model.safetensors").stat().st_mtime_ns
    assert train_command(command(world, still_file, output, 6, "--json")) == 0
    assert json.loads(capsys.readouterr().out) == result
    assert (output / "model.safetensors").stat().st_mtime_ns == time_of_weights, "the run is finished"
    assert train_command(command(world, still_file, output, 7)) == 2
    assert "steps was 6 and is 7; give another --output" in capsys.readouterr().err


@pytest.mark.slow
def test_a_killed_run_goes_on_as_if_it_had_not_been(still_file, world, tmp_path, caplog):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    options = 60, "--save-steps", "10"
    assert train_command(command(world, still_file, whole, *options, "--workers", "0")) == 0, (
        "who draws changes nothing"
    )

    line = [sys.executable, "-m", "train", *command(world, still_file, killed, *options)]
    process = subprocess.Popen(line, cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"}, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while last_checkpoint(killed) is None:
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (killed / "results.json").exists()
    caplog.set_level("INFO", "train")
    assert train_command(command(world, still_file, killed, *options)) == 0
    assert "goes on from checkpoint-" in caplog.text
    first, second = (GroveForConditionalGeneration.from_pretrained(folder).state_dict() for folder in (whole, killed))
    assert all(torch.equal(value, second[name]) for name, value in first.items())
    names = {describe_model(str(folder))["fingerprint"] for folder in (whole, killed)}
    assert len(names) == 1, "what starts from it does not see that it was killed"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda record: record | {"frame_indices": [0, 2], "timestamps": [0.0, 0.2], "bboxes": record["bboxes"] * 2,
                                  "labels": record["labels"] * 2, "clip_end_frame": 2, "clip_start_frame": 0,
                                  "track_ids": record["track_ids"] * 2, "scores": record["scores"] * 2},
         "expected records of one frame"),
        (lambda record: record | {"frame_indices": [999], "clip_start_frame": 999, "clip_end_frame": 999},
         "999"),
        (lambda record: record | {"video_fname": "/etc/passwd"}, "expected a file below --videos"),
        (lambda record: record | {"video_fname": "one.mp4"}, "72 pictures of 1 videos"),
        (lambda record: {"video_id": "a"}, "caption"),
    ],
)  # fmt: skip
def test_bad_stills_are_one_line(still_file, world, tmp_path, change, message, capsys):
    records = [json.dumps(change(record)) for record in read_records(str(still_file))]
    (tmp_path / "bad.jsonl").write_text("\n".join(records), encoding="utf-8")
    assert train_command(command(world, tmp_path / "bad.jsonl", tmp_path / "vision", 2)) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("error: ") and message in error
    if "999" not in message:  # what only reading the videos shows
        assert not (tmp_path / "vision").exists(), "mended stills can have the same folder"
    assert not (tmp_path / "vision" / "config.json").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda line, world: [*line, "--steps", "0"], "--steps: expected more than 0, got 0"),
        (lambda line, world: [*line, "--output", str(world.start)], "has a model that this command did not make"),
        (lambda line, world: [line[0], str(world.videos), *line[2:]], "no config.json"),
        (lambda line, world: [*line, "--stills", "nowhere.jsonl"], "nowhere.jsonl"),
    ],
)
def test_bad_arguments_are_one_line(still_file, world, tmp_path, change, message, capsys):
    assert train_command(change(command(world, still_file, tmp_path / "vision", 2), world)) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("error: ") and message in error
    assert not (tmp_path / "vision").exists()


@pytest.mark.slow
def test_a_loss_that_is_no_number_ends_the_run(still_file, world, tmp_path, capsys):
    assert train_command(command(world, still_file, tmp_path / "vision", 50, "--learning-rate", "1e30")) == 2
    assert "lower --learning-rate" in capsys.readouterr().err
    assert not (tmp_path / "vision" / "config.json").exists()

"""The noise model: each kind alone, all together as noisy as HowToGround1M, and the same whatever the order."""

import dataclasses
import json
from functools import cache

import numpy as np
import pytest

from dataset_builders.__main__ import main
from dataset_builders.noise import LEVELS, SYNONYMS, NoiseModel, noise_generator, with_synonym
from dataset_builders.reading import read_records
from dataset_builders.record import from_record, record_key, record_metadata, to_record
from dataset_builders.record_checks import check_record
from dataset_builders.statistics import PAPER, Statistics
from dataset_builders.tar_shards import write_shard
from modeling_grove.grounded_caption import GroundedCaption, PhraseTrack
from modeling_grove.text_grove import read_tagged_caption
from tests.records import make_caption, make_record

WIDTH, HEIGHT, NUM_FRAMES = 456, 256, 45
TAGGED = (
    "<p>A man</p> puts <p>a cup</p> on <p>the table</p>.",
    "<p>A woman</p> gives <p>the child</p> <p>a red ball</p> from <p>a box</p>.",
)
NONE = LEVELS["none"]


def true_clip(clip_id: int) -> GroundedCaption:
    """A clip like iGround's: 45 frames, objects that wander, half of them out of sight once for some frames."""
    rng = np.random.default_rng([9, clip_id])
    caption, phrases = read_tagged_caption(TAGGED[clip_id % 5 == 0])
    tracks = []
    for phrase in phrases:
        centres = rng.uniform([100, 60], [WIDTH - 100, HEIGHT - 60]) + rng.normal(0, 4, (NUM_FRAMES, 2)).cumsum(axis=0)
        centres = centres.clip([25, 25], [WIDTH - 25, HEIGHT - 25])
        halves = rng.uniform([20, 20], [120, 90])
        corners = np.concatenate([centres - halves, centres + halves], axis=1)
        presence = np.ones(NUM_FRAMES, dtype=bool)
        if rng.random() < 0.5:
            start = rng.integers(NUM_FRAMES - 10)
            presence[start : start + rng.integers(3, 16)] = False
        boxes = corners.clip(0, [WIDTH, HEIGHT, WIDTH, HEIGHT]).astype(np.float32)
        boxes[~presence] = np.nan
        tracks.append(PhraseTrack(phrase.text, phrase.span, boxes, presence, presence.astype(np.float32)))
    indices = 5 * np.arange(NUM_FRAMES)
    return GroundedCaption(
        caption, tuple(tracks), "true", clip_id, "v.mp4", 25.0, WIDTH, HEIGHT, 0, 224, indices, indices / 25
    )


@cache
def true_clips() -> list[GroundedCaption]:
    return [true_clip(clip_id) for clip_id in range(300)]


def noisy(model: NoiseModel, clips: list[GroundedCaption], seed: int = 0) -> list[GroundedCaption]:
    return [model.apply(clip, noise_generator(seed, clip.key)) for clip in clips]


def statistics_of(clips: list[GroundedCaption]) -> dict[str, float]:
    statistics = Statistics()
    for clip in clips:
        statistics.add(to_record(clip))
    return statistics.as_dict()


def pairs(model: NoiseModel, clips: list[GroundedCaption]) -> list[tuple[PhraseTrack, PhraseTrack]]:
    """The tracks of noisy clips, each with the true one."""
    return [
        pair
        for made, clip in zip(noisy(model, clips), clips, strict=True)
        for pair in zip(made.tracks, clip.tracks, strict=True)
    ]


def overlap(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    low, high = np.maximum(first[:, :2], second[:, :2]), np.minimum(first[:, 2:], second[:, 2:])
    shared = np.prod(np.clip(high - low, 0, None), axis=1)
    return shared / (
        np.prod(first[:, 2:] - first[:, :2], axis=1) + np.prod(second[:, 2:] - second[:, :2], axis=1) - shared
    )


def test_the_truth_is_like_a_manual_data_set():
    truth = statistics_of(true_clips())
    assert truth["tube_length"] == pytest.approx(PAPER["iGround (paper)"]["tube_length"], abs=3)
    assert truth["presence_rate"] > 0.85


def test_the_default_is_as_noisy_as_howtoground1m():
    paper = PAPER["HowToGround1M (paper)"]
    found = statistics_of(noisy(NoiseModel(), true_clips()))
    assert found["tube_length"] == pytest.approx(paper["tube_length"], abs=0.4)
    assert found["presence_rate"] == pytest.approx(paper["presence_rate"], abs=0.03)
    assert found["instances_per_clip"] == pytest.approx(paper["instances_per_clip"], abs=8)
    truth = statistics_of(true_clips())
    assert found["box_width"] == pytest.approx(truth["box_width"], rel=0.05)
    assert found["box_height"] == pytest.approx(truth["box_height"], rel=0.05)


def test_two_thirds_of_its_boxes_are_right():
    """What an AP50 of 27.1 with 0.61 boxes for a true one comes to."""
    model = dataclasses.replace(NoiseModel(), missing_phrase=0.0)
    right = boxes = 0
    for made, true in pairs(model, true_clips()[:150]):
        both = made.presence & true.presence
        right += int((overlap(made.boxes[both], true.boxes[both]) >= 0.5).sum())
        boxes += int(made.presence.sum())
    assert right / boxes == pytest.approx(2 / 3, abs=0.04)


def test_levels_are_ordered():
    clips = true_clips()[:100]
    none, mild, most = (statistics_of(noisy(LEVELS[name], clips)) for name in ("none", "mild", "howtoground1m"))
    assert LEVELS["howtoground1m"] == NoiseModel()
    for name in ("tube_length", "presence_rate", "phrases_per_clip"):
        assert none[name] >= mild[name] > most[name]


@pytest.mark.parametrize("instances", [1, 3])
def test_no_noise_changes_nothing(instances):
    caption = make_caption(instances=instances, end_frame=149)
    assert noisy(NONE, [caption]) == [caption]
    bare = dataclasses.replace(caption, tracks=())
    assert noisy(NoiseModel(), [bare]) == [bare]


@pytest.mark.parametrize("level", LEVELS)
def test_the_result_is_valid(level):
    clips = [*true_clips()[:60], *(make_caption(clip_id=n, seed=n, instances=2) for n in range(60))]
    for made in noisy(LEVELS[level], clips, seed=3):
        assert [problem for problem in check_record(to_record(made)) if problem.is_error] == []


def test_the_same_for_a_seed_and_a_key_in_any_order():
    clips = true_clips()[:20]
    made = noisy(NoiseModel(), clips)
    assert noisy(NoiseModel(), clips[::-1])[::-1] == made
    assert noisy(NoiseModel(), clips, seed=1) != made
    assert noisy(NoiseModel(), [dataclasses.replace(clips[0], clip_id=99)])[0].tracks != made[0].tracks


def test_gaps_alone():
    model = dataclasses.replace(NONE, visible=0.5, tube_length=6.0)
    clips = true_clips()[:100]
    kept = frames = 0
    for made, true in pairs(model, clips):
        assert not (made.presence & ~true.presence).any()
        assert np.array_equal(made.boxes[made.presence], true.boxes[made.presence])
        kept, frames = kept + made.presence.sum(), frames + true.presence.sum()
    assert kept / frames == pytest.approx(0.5, abs=0.04)
    # A tube goes on with probability 5 / 6, up to the end of the clip or of the true presence.
    assert 4.0 < statistics_of(noisy(model, clips))["tube_length"] < 6.0


def test_jitter_alone():
    model = dataclasses.replace(NONE, centre_jitter=0.1, size_jitter=0.2)
    shifts, scales = [], []
    for made, true in pairs(model, true_clips()[:100]):
        assert np.array_equal(made.presence, true.presence)
        before, after = (track.boxes[track.presence] for track in (true, made))
        assert (after >= 0).all() and (after <= [WIDTH, HEIGHT, WIDTH, HEIGHT]).all()
        inside = (after > 0).all(axis=1) & (after < [WIDTH, HEIGHT, WIDTH, HEIGHT]).all(axis=1)
        inside &= (before > 60).all(axis=1) & (before < [WIDTH - 60, HEIGHT - 60, WIDTH - 60, HEIGHT - 60]).all(axis=1)
        before, after = before[inside], after[inside]
        sides = before[:, 2:] - before[:, :2]
        shifts.append((after[:, :2] + after[:, 2:] - before[:, :2] - before[:, 2:]) / 2 / sides)
        scales.append(np.log((after[:, 2:] - after[:, :2]) / sides))
    assert np.concatenate(shifts).std() == pytest.approx(0.1, rel=0.1)
    assert np.concatenate(scales).std() == pytest.approx(0.2, rel=0.1)
    assert abs(np.concatenate(shifts).mean()) < 0.01 and abs(np.concatenate(scales).mean()) < 0.02


def test_spurious_boxes_alone():
    model = dataclasses.replace(NONE, spurious=2.0, spurious_length=4.0)
    added = absent = 0
    for made, true in pairs(model, true_clips()[:100]):
        assert np.array_equal(made.boxes[true.presence], true.boxes[true.presence])
        added += (made.presence & ~true.presence).sum()
        absent += (~true.presence).sum()
    assert 0.08 < added / absent < 0.2  # 2 x 4 of 45 frames, less where they overlap or the clip ends


def test_missing_objects_alone():
    clips = true_clips()
    made = noisy(dataclasses.replace(NONE, missing_object=0.2), clips)
    assert [clip.tagged_caption for clip in made] == [clip.tagged_caption for clip in clips]
    lost = [not track.presence.any() for clip in made for track in clip.tracks]
    assert np.mean(lost) == pytest.approx(0.2, abs=0.04)


def test_missing_objects_lose_all_their_instances():
    model = dataclasses.replace(NONE, missing_object=0.5)
    clips = [make_caption(clip_id=n, instances=3) for n in range(40)]
    found = [[track.presence.any() for track in clip.tracks[1:4]] for clip in noisy(model, clips)]
    assert all(len(set(flags)) == 1 for flags in found) and len({flags[0] for flags in found}) == 2


def test_missing_phrases_alone():
    clips = true_clips()
    made = noisy(dataclasses.replace(NONE, missing_phrase=0.3), clips)
    assert [clip.caption for clip in made] == [clip.caption for clip in clips]
    kept = sum(len(clip.phrases) for clip in made) / sum(len(clip.phrases) for clip in clips)
    assert kept == pytest.approx(0.7, abs=0.04)
    assert all(len(clip.phrases) == 1 for clip in noisy(dataclasses.replace(NONE, missing_phrase=1.0), clips[:20]))


def test_synonyms_alone():
    clips = true_clips()[:50]
    made = noisy(dataclasses.replace(NONE, synonym=1.0), clips)
    texts = {clip.caption for clip in made}
    assert {"A guy puts a mug on the desk.", "A lady gives the kid a red sphere from a crate."} <= texts
    for before, after in zip(clips, made, strict=True):
        assert len(after.phrases) == len(before.phrases)
        assert all(a != b for a, b in zip(after.phrases, before.phrases, strict=True))
        assert [track.phrase for track in after.tracks] == [after.caption[slice(*track.span)] for track in after.tracks]
        for a, b in zip(after.tracks, before.tracks, strict=True):
            assert np.array_equal(a.boxes, b.boxes, equal_nan=True)
    some = noisy(dataclasses.replace(NONE, synonym=0.3), true_clips())
    renamed = [
        a != b for x, y in zip(some, true_clips(), strict=True) for a, b in zip(x.phrases, y.phrases, strict=True)
    ]
    assert np.mean(renamed) == pytest.approx(0.3, abs=0.05)


def test_synonyms_also_reach_words_without_a_tag():
    model = dataclasses.replace(NONE, synonym=1.0, synonyms=TABLE)
    for tagged, expected in (
        ("<p>A cup</p> falls, then the cup breaks.", "<p>A glass</p> falls, then the glass breaks."),
        ("An apple? <p>An apple</p>!", "A pear? <p>A pear</p>!"),
        ("<p>A cup</p> by <p>a red cup</p>: which cup?", "<p>A glass</p> by <p>a red glass</p>: which cup?"),
        ("<p>A cup</p>, <p>a pear</p>: a cup, a pear.", "<p>A glass</p>, <p>an apple</p>: a glass, an apple."),
        ("<p>A cup</p> and a cupboard.", "<p>A glass</p> and a cupboard."),
    ):
        assert noisy(model, [make_caption(tagged_caption=tagged)])[0].tagged_caption == expected


def test_merging_alone():
    caption = make_caption(instances=3)
    assert noisy(dataclasses.replace(NONE, merge_instances=True), [caption]) == [caption.merged()]


TABLE = (("cup", "glass"), ("apple", "pear"), ("mat", "oven cloth"), ("board", "plank"), ("chess board", "grid"))


@pytest.mark.parametrize(
    ("phrase", "expected"),
    [
        ("a cup", "a glass"),
        ("A Cup", "A Glass"),
        ("an apple", "a pear"),
        ("A pear", "An apple"),
        ("a green pear", "a green apple"),
        ("a mat", "an oven cloth"),
        ("the apple in a cup", "the pear in a cup"),
        ("a cup of apple juice", "a glass of apple juice"),
        ("a chess board", "a grid"),
        ("two slices of apple", "two slices of pear"),
        ("the next cup", "the next glass"),
        ("a cup beside a mat", "a glass beside a mat"),
        ("a cupboard", "a cupboard"),
        ("cup", "glass"),
        ("two onions", "two onions"),
    ],
)
def test_synonyms_fit_into_the_phrase(phrase, expected):
    assert with_synonym(phrase, np.random.default_rng(0), TABLE) == expected


def test_synonyms_without_a_table():
    assert with_synonym("a cup", np.random.default_rng(0), ()) == "a cup"
    assert with_synonym("a cup", np.random.default_rng(0), (("cup",),)) == "a cup"
    own = dataclasses.replace(NONE, synonym=1.0, synonyms=(("knife", "dagger"),))
    assert noisy(own, [make_caption()])[0].caption == "A man cuts two onions with a dagger."


def test_the_table_has_each_word_once():
    words = [word for row in SYNONYMS for word in row]
    assert len(words) == len(set(words)) and all(len(row) > 1 for row in SYNONYMS)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"visible": 1.5}, "visible: expected a probability"),
        ({"synonym": float("nan")}, "synonym: expected a probability"),
        ({"centre_jitter": -1}, "centre_jitter: expected a number of at least 0"),
        ({"tube_length": 0.5}, "tube_length: expected at least 1 frame"),
        ({"visible": 0.9, "tube_length": 8.0}, "tube_length: 0.9 visible needs tubes of 9.00 frames, got 8"),
        ({"synonyms": (("a", "b"), ("B",))}, "synonyms: 'b' stands in several places"),
    ],
)
def test_impossible_models_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        NoiseModel(**fields)


def test_command(tmp_path, capsys):
    source, output = tmp_path / "true.jsonl", tmp_path / "noisy.jsonl"
    records = [to_record(clip, {"split": "train"}) for clip in true_clips()[:10]]
    source.write_text("".join(json.dumps(record) + "\n" for record in records))
    assert main(["noise", str(source), "--output", str(output), "--seed", "5", "--json"]) == 0
    columns = json.loads(capsys.readouterr().out)
    assert columns["before"]["clips"] == columns["after"]["clips"] == 10
    assert columns["after"]["tube_length"] < columns["before"]["tube_length"] / 2
    made = list(read_records(output))
    assert [from_record(record) for record in made] == noisy(NoiseModel(), true_clips()[:10], seed=5)
    assert record_metadata(made[0]) == {"split": "train", "noise": {"level": "howtoground1m", "seed": 5}}
    content = output.read_bytes()
    assert main(["noise", str(source), "--output", str(output), "--seed", "5"]) == 0
    assert output.read_bytes() == content
    assert "HowToGround1M (paper)" in capsys.readouterr().out


def test_command_takes_shards_and_makes_the_folder(tmp_path):
    records = [to_record(clip, {"question": clip.clip_id}) for clip in true_clips()[:3]]
    (tmp_path / "raw").mkdir()
    for split, part in (("train", records[:2]), ("test", records[2:])):
        samples = [(record_key(record), {"json": json.dumps(record).encode()}) for record in part]
        write_shard(tmp_path / "raw" / f"{split}-00000-of-00001.tar", samples)
    output = tmp_path / "new" / "folder" / "noisy.jsonl"
    command = [
        "noise",
        str(tmp_path),
        "--config",
        "raw",
        "--split",
        "train",
        "--output",
        str(output),
        "--level",
        "mild",
    ]
    assert main(command) == 0
    made = list(read_records(output))
    assert [from_record(record) for record in made] == noisy(LEVELS["mild"], true_clips()[:2])
    assert [record_metadata(record)["question"] for record in made] == [clip.clip_id for clip in true_clips()[:2]]


def test_command_writes_nothing_when_a_record_is_bad(tmp_path, capsys):
    source, output = tmp_path / "true.jsonl", tmp_path / "noisy.jsonl"
    source.write_text(json.dumps(make_record()) + "\n" + json.dumps({**make_record(), "fps": 0}) + "\n")
    assert main(["noise", str(source), "--output", str(output)]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "record 2: fps: expected a positive number" in error
    assert [path.name for path in tmp_path.iterdir()] == ["true.jsonl"]

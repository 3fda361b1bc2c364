"""Clips of the world: the same from the same seed, true to their pixels, and never shared by splits."""

from dataclasses import replace

import numpy as np
import pytest

from dataset_builders.shapes import ShapesConfig, clip_name, clip_seed, iter_clips, make_clip
from dataset_builders.shapes.motion import Prop
from dataset_builders.shapes.rendering import MIN_VISIBLE_SHARE, View, render
from dataset_builders.shapes.stage import Stage, still_camera
from dataset_builders.shapes.things import make_object
from dataset_builders.shapes.world import SPLITS
from dataset_builders.validation import check_record
from modeling_grove.video_grove import read_video

SMALL = ShapesConfig(64, 48, fps=5, seconds=4)
VIEW = View(96, 96)


def stage_of(count: int = 12, place: str = "beach", view: View = VIEW) -> Stage:
    return Stage(np.random.default_rng(0), view, np.arange(count) / 10, count / 10, place)


def rendered(stage: Stage, count: int = 12):
    return render(stage.scene(still_camera(stage.view, count), 3), stage.view)


def test_the_same_seed_makes_the_same_clip_to_the_byte(tmp_path):
    first, again, other = make_clip(7, SMALL), make_clip(7, SMALL), make_clip(8, SMALL)
    assert np.array_equal(first.frames, again.frames) and first.caption == again.caption
    assert first.to_record() == again.to_record() and first.frames_record() == again.frames_record()
    first.write_video(tmp_path / "first.mp4")
    again.write_video(tmp_path / "again.mp4")
    assert (tmp_path / "first.mp4").read_bytes() == (tmp_path / "again.mp4").read_bytes()
    assert not np.array_equal(first.frames, other.frames)


def test_the_video_shows_the_frames(tmp_path):
    config = ShapesConfig(128, 96, fps=10, seconds=2)
    clip = make_clip(3, config)
    clip.write_video(tmp_path / "clip.mp4")
    video = read_video(tmp_path / "clip.mp4", target_fps=None)
    assert video.frames.shape == clip.frames.shape == (20, 96, 128, 3) and video.fps == 10
    assert np.abs(video.frames.astype(int) - clip.frames).mean() < 6
    sampled = read_video(tmp_path / "clip.mp4")
    assert sampled.frame_indices.tolist() == clip.caption.frame_indices.tolist() == list(range(0, 20, 2))


@pytest.mark.parametrize("difficulty", ["easy", "medium", "hard"])
def test_boxes_are_the_extent_of_the_visible_pixels(difficulty):
    for clip in iter_clips("train", 3, seed=1, config=replace(SMALL, difficulty=difficulty)):
        for index in range(len(clip.things)):
            for frame in range(len(clip.frames)):
                y, x = np.nonzero(clip.owners[frame] == index + 1)
                if clip.presence[index, frame]:
                    expected = [x.min(), y.min(), x.max() + 1, y.max() + 1]
                    assert clip.boxes[index, frame].tolist() == expected
                else:
                    assert np.isnan(clip.boxes[index, frame]).all()
                    assert clip.visible_shares[index, frame] < MIN_VISIBLE_SHARE or len(x) < 6
        for track, thing in zip(clip.caption.tracks, clip.track_things, strict=True):
            assert np.array_equal(track.presence, clip.presence[thing][clip.caption.frame_indices])
            rows = clip.boxes[thing][clip.caption.frame_indices]
            assert np.array_equal(track.boxes, rows, equal_nan=True)


def test_owners_are_those_of_things_rendered_alone_and_laid_over_each_other():
    stage = stage_of(3)
    for number, category in enumerate(("box", "teddy bear", "ball", "bucket")):
        stage.prop(make_object(category, "red", "big"), 0.3 + 0.1 * number, 0.2 + 0.07 * number)
    scene = stage.scene(still_camera(VIEW, 3), 3)
    together = render(scene, VIEW)
    expected = np.zeros_like(together.owners)
    for index in range(4):  # from far to near
        alone = replace(scene, things=(scene.things[index],), tracks=(scene.tracks[index],), poses=(None,))
        mask = render(alone, VIEW).owners == 1
        assert np.array_equal(mask.sum(axis=(1, 2)), together.outline_pixels[index])
        expected[mask] = index + 1
    assert np.array_equal(together.owners, expected)
    shares = together.visibility()[2]
    assert 0 < shares[0, 0] < 1 and shares[3, 0] == 1


def test_a_ball_behind_a_box_is_absent_until_it_comes_out():
    stage = stage_of(21)
    ball = stage.prop(make_object("ball", "blue", "small"), 0.1, 0.3)
    stage.prop(make_object("box", "red", "big"), 0.5, 0.5)
    ball.roll(0.0, 2.0, 0.9, smooth=0.0)
    boxes, presence, shares = rendered(stage, 21).visibility()
    assert presence[0, 0] and presence[0, -1] and shares[0, 0] == shares[0, -1] == 1
    assert shares[0, 10] < MIN_VISIBLE_SHARE and not presence[0, 10] and np.isnan(boxes[0, 10]).all()
    assert presence[1].all()
    hidden = np.flatnonzero(~presence[0])
    assert np.array_equal(hidden, np.arange(hidden[0], hidden[-1] + 1))


def test_what_is_outside_of_the_frame_counts_as_not_visible():
    stage = stage_of(3)
    stage.prop(make_object("ball", "red", "big"), 0.0, 0.5)
    stage.prop(make_object("ball", "blue", "big"), 2.0, 0.5)
    boxes, presence, shares = rendered(stage, 3).visibility()
    assert shares[0] == pytest.approx([0.5] * 3, abs=0.08) and presence[0].all()
    assert not presence[1].any() and (shares[1] == 0).all()
    assert boxes[0, 0, 0] == 0


def test_boxes_follow_the_camera():
    stage = stage_of(2)
    stage.prop(make_object("box", "red"), 0.5, 0.5)
    still = still_camera(VIEW, 2)
    moved = replace(still, x=still.x + np.array([0, 0.1]), zoom=np.array([1.0, 1.25]))
    boxes, _, _ = render(stage.scene(moved, 3), VIEW).visibility()
    widths = boxes[0, :, 2] - boxes[0, :, 0]
    centres = (boxes[0, :, 2] + boxes[0, :, 0]) / 2
    assert widths[1] / widths[0] == pytest.approx(1.25, abs=0.12)
    assert centres == pytest.approx([48, 48 - 0.1 * 96 * 1.25], abs=1.5)


def test_splits_and_worlds_share_no_seed():
    seeds = [clip_seed(split, number, seed) for split in SPLITS for number in (0, 1, 2**32 - 1) for seed in range(4)]
    assert len(set(seeds)) == len(seeds) and max(seeds) < 2**53
    assert clip_name("test", 12) == "shapes-test-000012" and clip_name("test", 12, 7) == "shapes-7-test-000012"
    captions = [clip.caption for split in SPLITS for clip in iter_clips(split, 4, config=SMALL)]
    boxes = {np.concatenate([track.boxes for track in caption.tracks]).tobytes() for caption in captions}
    assert len(boxes) == len(captions) == len({caption.key for caption in captions})
    for wrong in (("dev", 0, 0), ("test", 2**32, 0), ("test", 0, -1)):
        with pytest.raises(ValueError, match="expected"):
            clip_seed(*wrong)


def test_a_stream_can_start_anywhere():
    assert (
        next(iter_clips("test", 1, config=SMALL, start=3)).caption
        == list(iter_clips("test", 4, config=SMALL))[3].caption
    )


def test_a_fifth_of_the_phrases_of_the_medium_test_split_is_absent():
    tracks = [
        track
        for clip in iter_clips("test", 150, config=ShapesConfig(48, 48, fps=5))
        for track in clip.caption.merged().tracks
    ]
    absent = np.concatenate([~track.presence for track in tracks])
    assert 0.2 < absent.mean() < 0.4
    assert all(track.presence.mean() >= 0.1 for track in tracks)


def test_difficulty_decides_what_is_there():
    clips = {name: list(iter_clips("train", 12, config=replace(SMALL, difficulty=name))) for name in ("easy", "hard")}
    for clip in clips["easy"]:
        assert len(clip.things) <= 4 and clip.presence.mean() > 0.98
        assert all(thing.kind != "furniture" for thing in clip.things)
    hard = clips["hard"]
    categories = [[thing.category for thing in clip.things] for clip in hard]
    assert sum(len(set(names)) < len(names) for names in categories) >= 4  # look-alikes
    assert np.mean([len(names) for names in categories]) > 3
    assert any(len(clip.events) == 2 for clip in hard)


@pytest.mark.parametrize(("width", "height"), [(32, 32), (64, 128), (200, 64)])
def test_any_size_fps_and_length(width, height):
    clip = make_clip(5, ShapesConfig(width, height, fps=7.5, seconds=2.4))
    assert clip.frames.shape == (18, height, width, 3)
    assert clip.boxes.shape == (len(clip.things), 18, 4)
    assert not [problem for problem in check_record(clip.to_record()) if problem.is_error]


def test_records_are_valid_and_say_what_happened():
    for clip in iter_clips("validation", 6, config=replace(SMALL, difficulty="hard")):
        record = clip.to_record()
        assert not [problem for problem in check_record(record) if problem.is_error]
        assert record["video_fname"] == f"{record['video_id']}.mp4" and "." not in record["video_id"]
        assert '"seed"' in record["metadata"] and '"events"' in record["metadata"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"width": 95}, "width: expected an even number"),
        ({"height": 16}, "height"),
        ({"fps": 0}, "fps"),
        ({"seconds": 0.5}, "seconds"),
        ({"fps": 0.5, "seconds": 2}, "fps, seconds"),
        ({"difficulty": "silly"}, "difficulty: expected one of easy, medium, hard"),
    ],
)
def test_wrong_settings_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        ShapesConfig(**options)
    with pytest.raises(ValueError, match="seed"):
        make_clip(-1, SMALL)


def test_a_thing_that_is_dropped_falls_faster_and_faster_and_comes_to_rest():
    prop = Prop(make_object("ball", "red"), 0.5, 0.5, lift=0.4)
    rest = prop.fall(0.0, bounce=0.4)
    lift = prop.track(np.linspace(0, rest + 0.5, 200)).lift
    assert lift[0] == pytest.approx(0.4) and lift.min() >= 0 and lift[-1] == 0
    assert lift.argmin() > 20 and (np.diff(lift[:20], 2) < 0).all()

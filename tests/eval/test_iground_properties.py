"""What must hold for any boxes: perfection, order, monotony, ranges, copies; and the optimum where one is promised."""

from dataclasses import replace
from itertools import permutations

import numpy as np
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from eval import iground_corrected
from eval.boxes import iou
from eval.clips import PredictedClip
from eval.frame_matching import greedy_matching
from eval.iground import score_iground
from tests.eval.iground_cases import HEAD_WORD, prediction, reference

LABELS = ("a red cup", "the cup", "a man", "the old man", "dog")
METRICS = ("AP50", "Recall", "mIoU")
SIZE = 100
FLAT = ([10.0, 10.0, 10.0, 50.0], [10.0, 10.0, 30.0, 10.0], [120.0, 0.0, 140.0, 20.0], [-20.0, 5.0, -1.0, 9.0])
# One-to-one pairs of overlap 0.5 or more: two, but one if the best pair (the first of each) is taken first.
CHAIN = [
    ([[([0.0, 0.0, 40.0, y], "cup") for y in (40.0, 16.0)]], [[([0.0, 0.0, 40.0, y], "cup") for y in (30.0, 60.0)]])
]
# Whole numbers and few of them, so that equal overlaps and equal scores are common.
coordinates = st.tuples(*[st.integers(0, 13)] * 2, *[st.integers(1, 12)] * 2)
boxes = coordinates.map(lambda b: [4.0 * b[0], 4.0 * b[1], 4.0 * (b[0] + b[2]), 4.0 * (b[1] + b[3])])
labelled = st.tuples(boxes, st.sampled_from(LABELS))
scored = st.tuples(boxes, st.sampled_from(LABELS), st.sampled_from([0.2, 0.5, 0.5, 0.9]))
any_boxes = st.lists(st.sampled_from([-30.0, 0.0, 7.5, 10.0, 60.0, 99.5, 130.0]), min_size=4, max_size=4)


@st.composite
def clips(draw, max_clips=3, max_frames=3, max_boxes=4):
    """Lists of (annotated frames, predicted frames), each of (box, label[, score])."""
    made = []
    for _ in range(draw(st.integers(1, max_clips))):
        number = draw(st.integers(1, max_frames))
        sides = [
            draw(st.lists(st.lists(side, max_size=max_boxes), min_size=number, max_size=number))
            for side in (labelled, scored)
        ]
        made.append(tuple(sides))
    return made


def clip(frames, n=0):
    return reference(*zip(*map(unzip, frames), strict=True), key=f"v{n}_0")


def answer(frames, n=0):
    if any(len(item) == 3 for frame in frames for item in frame):
        scores = [[item[2] for item in frame] for frame in frames]
    else:
        scores = None
    return prediction(*zip(*map(unzip, frames), strict=True), key=f"v{n}_0", scores=scores)


def unzip(frame):
    return [item[0] for item in frame], [item[1] for item in frame]


def evaluate(truth, answers, **options):
    return score_iground(truth, answers, similarity=HEAD_WORD, captions=False, **options)


def corrected(made, frames=("all",)):
    truth, answers = ([make(pair[n], i) for i, pair in enumerate(made)] for n, make in ((0, clip), (1, answer)))
    return evaluate(truth, answers, protocols=("corrected",), frames=frames).metrics["corrected"]


def means(made):
    return corrected(made)["all"]["per_video"]


def same(first, second):
    return first == pytest.approx(second, abs=1e-12, nan_ok=True)


@given(clips(), st.data())
def test_perfect_predictions_score_the_maximum(made, data):
    assume(any(frame for truth, _ in made for frame in truth))
    # Also where some boxes have no area inside the frame, which nothing can find.
    flat = st.lists(st.tuples(st.sampled_from(FLAT), st.sampled_from(LABELS)), max_size=2)
    made = [[[*frame, *data.draw(flat)] for frame in truth] for truth, _ in made]
    made = [(truth, truth) for truth in made]
    metrics = corrected(made, frames=("all", "center_8"))
    for block in (*metrics["all"].values(), metrics["center_8"]["flattening"]):
        found = [value for value in block.values() if not np.isnan(value)]
        assert found == pytest.approx([1.0] * len(found), abs=1e-12)
    assert not np.isnan(list(metrics["all"]["per_video"].values())).any()


@given(clips(), st.randoms(use_true_random=False))
def test_the_order_of_clips_frames_and_boxes_does_not_matter(made, random):
    shuffled = []
    for truth, answers in made:
        order = random.sample(range(len(truth)), len(truth))
        shuffled.append(tuple([random.sample(side[n], len(side[n])) for n in order] for side in (truth, answers)))
    random.shuffle(shuffled)
    first, second = corrected(made)["all"], corrected(shuffled)["all"]
    assert same(first["per_video"], second["per_video"])
    assert same(first["flattening"], second["flattening"])


@given(st.lists(st.integers(0, 5), min_size=1, max_size=6, unique=True), st.data())
def test_shrinking_a_perfect_box_never_raises_its_scores(cells, data):
    # Objects side by side: where boxes overlap, a smaller box may well find another object.
    truth = [[[30.0 * (c % 3), 40.0 * (c // 3), 30.0 * (c % 3) + 24, 40.0 * (c // 3) + 32], "cup"] for c in cells]
    shrunk = data.draw(st.integers(0, len(cells) - 1))
    sides = st.lists(st.floats(0, 0.49), min_size=4, max_size=4)
    more, less = data.draw(sides), data.draw(sides)
    low = [min(pair) for pair in zip(more, less, strict=True)]
    high = [max(pair) for pair in zip(more, less, strict=True)]
    scores = []
    for share in ([0] * 4, low, high):
        x1, y1, x2, y2 = truth[shrunk][0]
        box = [x1 + 24 * share[0], y1 + 32 * share[1], x2 - 24 * share[2], y2 - 32 * share[3]]
        scores.append(means([([truth], [[*truth[:shrunk], [box, "cup"], *truth[shrunk + 1 :]]])]))
    for name in METRICS:
        assert scores[0][name] == pytest.approx(1.0)
        assert scores[0][name] + 1e-9 >= scores[1][name]
        assert scores[1][name] + 1e-9 >= scores[2][name]


@given(clips(max_clips=1), st.data())
def test_adding_a_wrong_box_never_raises_precision(made, data):
    truth, answers = made[0]
    assume(any(truth))
    frame = data.draw(st.integers(0, len(truth) - 1))
    wrong = data.draw(scored)
    annotated = np.array([box for box, _ in truth[frame]]).reshape(-1, 4)
    overlaps = iou(annotated, np.array(wrong[0]))
    assume((overlaps < 0.5).all())
    more = [*answers]
    more[frame] = [*answers[frame], wrong]
    before, after = means([(truth, answers)]), means([(truth, more)])
    assert after["AP50"] <= before["AP50"] + 1e-12
    assert after["Recall"] == before["Recall"]
    if not overlaps.any():
        assert after["mIoU"] <= before["mIoU"] + 1e-12


@given(st.data())
def test_scores_are_in_range_for_any_boxes(data):
    sides = []
    for _ in range(2):
        items = st.lists(st.tuples(any_boxes, st.sampled_from(LABELS)), max_size=4)
        sides.append(data.draw(st.lists(items, min_size=2, max_size=2)))
    sides[1][0] = [*sides[1][0], ([0.0, 0.0, 9.0, 9.0], "cup")]  # the original needs a box
    result = evaluate([clip(sides[0])], [answer(sides[1])])
    for protocol, least in (("official", -1.0), ("corrected", 0.0)):
        for block in result.metrics[protocol]["all"].values():
            found = [value for value in block.values() if not np.isnan(value)]
            assert all(least <= value <= 1 for value in found)
            assert 0 <= block["mIoU"] <= 1 or np.isnan(block["mIoU"])


@given(clips())
def test_copies_of_clips_leave_the_means_unchanged(made):
    assume(any(frame for _, answers in made for frame in answers))
    results = [
        evaluate(*([make(pair[n], i) for i, pair in enumerate(part)] for n, make in ((0, clip), (1, answer))))
        for part in (made, [*made, *made])
    ]
    for protocol in ("official", "corrected"):
        first, second = (result.metrics[protocol] for result in results)
        assert [*first] == [*second]  # officially a set of frames without predicted boxes is left out
        for frames in {"all", "center_frame", "center_8"} & {*first}:
            assert same(first[frames]["per_video"], second[frames]["per_video"])
        assert second["clips"] == 2 * first["clips"]
    first, second = (result.metrics["corrected"]["all"]["flattening"] for result in results)
    assert same(first, second)


def test_recall_is_more_than_a_greedy_matching_finds(monkeypatch):
    assert means(CHAIN)["Recall"] == 1.0
    monkeypatch.setattr(iground_corrected, "maximum_matching", greedy_matching)
    assert means(CHAIN)["Recall"] == 0.5


# Boxes of one label that differ in one side or two, so that one overlaps several.
jittered = st.tuples(st.integers(4, 20), st.sampled_from([40.0, 40.0, 48.0])).map(
    lambda sides: ([0.0, 0.0, sides[1], 4.0 * sides[0]], "cup")
)
crowds = st.lists(jittered, min_size=2, max_size=5)


@example(CHAIN)
@given(clips(max_clips=1, max_frames=1) | st.tuples(crowds, crowds).map(lambda pair: [([pair[0]], [pair[1]])]))
def test_recall_and_miou_are_the_optimum(made):
    (truth,), (answers,) = made[0]
    assume(truth and answers)
    boxes = [np.array([item[0] for item in side]) for side in (truth, answers)]
    overlaps = iou(boxes[0][:, None], boxes[1][None])
    meaning = HEAD_WORD([item[1] for item in truth], [item[1] for item in answers])
    hits = ((overlaps >= 0.5) & (meaning >= 0.5)).astype(float)
    expected = {
        "Recall": brute_force(hits) / len(truth),
        "mIoU": brute_force(overlaps) / max(overlaps.shape),
    }
    found = means(made)
    assert {name: found[name] for name in expected} == pytest.approx(expected, abs=1e-12)


def brute_force(table):
    """The largest sum of entries of which no two share a row or a column."""
    table = table if table.shape[0] <= table.shape[1] else table.T
    rows = range(len(table))
    return max(
        sum(table[row, column] for row, column in zip(rows, columns, strict=True))
        for columns in permutations(range(table.shape[1]), len(table))
    )


@settings(max_examples=50)
@given(clips(max_clips=1))
def test_the_official_recall_is_that_of_one_frame_after_another(made):
    truth, answers = made[0]
    assume(any(answers))
    result = evaluate([clip(truth)], [answer(answers)], protocols=("official",), frames=("all",))
    expected = {
        n: pairs for n, frame in enumerate(zip(truth, answers, strict=True)) if (pairs := plain_matches(*frame))
    }
    found = result.per_clip[0]["official"]["matched_pairs"]
    assert {int(n): pairs for n, pairs in found.items()} == expected


def plain_matches(truth, answers):
    """The original's rule in plain Python: the best pair, as long as it is good enough."""
    table = {}
    for i, (first, one) in enumerate(truth):
        for j, (second, other, _) in enumerate(answers):
            x, y, w, h = zip(
                *(
                    (b[0], b[1], b[2] - b[0], b[3] - b[1])
                    for b in ([*map(int, first)], [*map(int, np.clip(second, 0, SIZE))])
                ),
                strict=True,
            )
            common = max(0, min(w) - max(x) + 1) * max(0, min(h) - max(y) + 1)
            union = sum((c - a + 1) * (d - b + 1) for a, b, c, d in zip(x, y, w, h, strict=True)) - common
            table[i, j] = common / union if common else 0, one.split()[-1] == other.split()[-1]
    found = []
    while table:
        best = max(table, key=lambda pair: (table[pair][0], -pair[0], -pair[1]))
        if table[best][0] < 0.5 or not table[best][1]:
            break
        found.append([*best])
        table = {pair: value for pair, value in table.items() if pair[0] != best[0] and pair[1] != best[1]}
    return found


@given(clips(max_clips=1))
def test_frames_that_were_not_asked_about_leave_the_others_alone(made):
    truth, answers = made[0]
    assume(any(answers))
    centre = len(truth) // 2
    asked = answer(answers)
    only = replace(
        asked,
        boxes=tuple(boxes if n == centre else None for n, boxes in enumerate(asked.boxes)),
        scores=tuple(s if n == centre else np.zeros(0) for n, s in enumerate(asked.scores)),
        labels=tuple(labels if n == centre else () for n, labels in enumerate(asked.labels)),
    )
    assert isinstance(only, PredictedClip)
    first, second = (evaluate([clip(truth)], [each]) for each in (asked, only))
    for protocol in ("official", "corrected"):
        one, other = (result.metrics[protocol].get("center_frame", {"per_video": {}}) for result in (first, second))
        assert same(one["per_video"], other["per_video"])
        assert (protocol == "corrected" or any(answers[centre : centre + 1])) == bool(one["per_video"])
        assert ("all" in second.metrics[protocol]) == (len(truth) == 1 and bool(one["per_video"]))
    assert second.warnings["frames_not_predicted"] == len(truth) - 1

"""ActivityNet-Entities: every value that was recorded from the original, and what `corrected` changes."""

import json
from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dataset_builders.importers.activitynet_entities import import_activitynet_entities
from dataset_builders.record import from_record
from eval.activitynet_entities import (
    AnnotatedSegment,
    PredictedSegment,
    annotated_segment,
    predicted_segment,
    read_original_activitynet_entities,
    score_activitynet_entities,
)
from eval.lemmas import Lemmatizer, table_lemmatizer
from eval.results import BenchmarkResult

GOLDEN = Path(__file__).parents[1] / "golden" / "eval" / "anet"
CASES = json.loads((GOLDEN / "edge_cases.json").read_text())


def golden(name: str) -> Any:
    return json.loads((GOLDEN / f"{name}.json").read_text())


@pytest.fixture(scope="module")
def lemma() -> Lemmatizer:
    return table_lemmatizer(GOLDEN / "lemma_table.json")


@pytest.fixture(scope="module")
def generated(lemma: Lemmatizer) -> BenchmarkResult:
    files = (golden("ground_truth"), golden("split"), golden("predictions"))
    return score_activitynet_entities(*read_original_activitynet_entities(*files), lemma=lemma)


def shown(result: BenchmarkResult, loc_mode: str, kind: str) -> dict[str, list[list[Any]]]:
    """The decisions `[class, right]` of the official protocol for every sentence; the names are those of the recording."""
    return {"".join(row["key"].rsplit("_", 1)): row["official"][loc_mode][kind] for row in result.per_clip}


@pytest.mark.parametrize("loc_mode", ["all", "loc"])
def test_scores_of_generated_sentences(generated: BenchmarkResult, loc_mode: str):
    expected, metrics = golden("expected")[f"gen_{loc_mode}"], generated.metrics["official"]["generated"]
    assert {name: metrics[name] for name in expected["scores"]} == pytest.approx(expected["scores"], abs=1e-12)
    assert metrics["vocab_in_split"] == expected["vocab_in_split"]
    paper = golden("expected")["paper_metrics"]
    assert generated.headline["official"] == pytest.approx(
        {name: 100 * value for name, value in paper.items()}, abs=1e-10
    )


@pytest.mark.parametrize("loc_mode", ["all", "loc"])
@pytest.mark.parametrize("kind", ["precision", "recall"])
def test_every_decision(generated: BenchmarkResult, loc_mode: str, kind: str):
    """The original goes through the words of a sentence as a set gives them, so the order of the lists is not compared."""
    expected, own = golden("expected")[f"gen_{loc_mode}"], shown(generated, loc_mode, kind)
    sentences = {name: sorted(right for _, right in found) for name, found in own.items()}
    recorded = {name: sorted(hits) for name, hits in expected[f"{kind}_hits_per_sentence"].items()}
    assert {name: sentences[name] for name in recorded} == recorded
    assert not any(hits for name, hits in sentences.items() if name not in recorded)
    classes: dict[str, list[int]] = defaultdict(list)
    for found in own.values():
        for name, right in found:
            classes[name].append(right)
    recorded = {name: sorted(hits) for name, hits in expected[f"{kind}_hits_per_class"].items()}
    assert {name: sorted(hits) for name, hits in classes.items()} == recorded
    counts = {name: [sum(hits), len(hits)] for name, hits in recorded.items()}
    reported = generated.metrics["official"]["generated"]["classes"]
    assert {name: c[loc_mode][kind] for name, c in reported.items() if kind in c.get(loc_mode, {})} == counts


def test_words_of_given_sentences():
    expected = golden("expected")["gt_mode"]
    files = (golden("ground_truth"), golden("split"), golden("predictions_gt_sentences"))
    result = score_activitynet_entities(*read_original_activitynet_entities(*files), mode="gt")
    metrics = result.metrics["official"]["gt"]
    assert metrics["grounding_accuracy"] == pytest.approx(expected["grounding_accuracy"], abs=1e-12)
    classes = {name: [number, round(right / number, 4)] for name, (right, number) in metrics["classes"].items()}
    assert classes == expected["per_class_count_and_accuracy_4dp"]
    assert result.headline["official"]["grounding accuracy"] == pytest.approx(100 * expected["grounding_accuracy"])
    assert 0 < result.metrics["corrected"]["gt"]["grounding_accuracy"] < 1


@pytest.mark.parametrize("case", CASES, ids=[case["name"] for case in CASES])
def test_edge_case(case: dict[str, Any], lemma: Lemmatizer):
    segments = read_original_activitynet_entities(case["ground_truth"], case["split"], case["predictions"])
    if "error" in case["expected"]["all"]:
        problem = {"nine_frames": "10 frames, got 9", "empty_class_string": r"clss\[1\]: expected a class"}
        with pytest.raises(ValueError, match=f"clip 'v_a_0': .*{problem[case['name']]}"):
            score_activitynet_entities(*segments, lemma=lemma, protocols=("official",))
        return
    metrics = score_activitynet_entities(*segments, lemma=lemma).metrics["official"]["generated"]
    expected = case["expected"]["all"] | case["expected"]["loc"]
    assert {name: metrics[name] for name in expected} == pytest.approx(expected, abs=1e-12, nan_ok=True)


def annotated(
    *words: tuple[int, str, list[float]], sentence: str = "A man hits a ball .", key: str = "v_0"
) -> AnnotatedSegment:
    """A segment whose words, given with class and box, are all annotated in frame 3."""
    return AnnotatedSegment(
        *key.split("_"),
        tuple(sentence.split()),
        np.array([box for _, _, box in words], dtype=np.float64),
        np.full(len(words), 3),
        tuple((word,) for word, _, _ in words),
        tuple((name,) for _, name, _ in words),
    )


def predicted(*objects: tuple[str, list[float]], key: str = "v_0", frames: int = 10) -> PredictedSegment:
    """A prediction of objects that do not move."""
    tubes = tuple(np.tile(np.array(box, dtype=np.float64), (frames, 1)) for _, box in objects)
    return PredictedSegment(*key.split("_"), tuple(name for name, _ in objects), tuple(range(len(objects))), tubes)


LEFT, RIGHT, FAR = [0.0, 0.0, 100.0, 100.0], [200.0, 0.0, 300.0, 100.0], [500.0, 300.0, 600.0, 400.0]
MAN_AND_BALL = annotated((1, "man", LEFT), (4, "ball", RIGHT))


def corrected(
    references: list[AnnotatedSegment], predictions: list[PredictedSegment], lemma: Lemmatizer
) -> dict[str, float]:
    result = score_activitynet_entities(references, predictions, lemma=lemma, protocols=("corrected",))
    assert set(result.metrics) == set(result.headline) == {"corrected"}
    return {name: value / 100 for name, value in result.headline["corrected"].items()}


@pytest.mark.parametrize("phrase", ["man", "the young men", "A man in a red shirt", "Men"])
def test_a_phrase_has_the_class_of_its_head_noun(phrase: str, lemma: Lemmatizer):
    prediction = predicted((phrase, LEFT), ("a green ball", RIGHT))
    both = score_activitynet_entities([MAN_AND_BALL], [prediction], lemma=lemma).headline
    assert set(both["corrected"].values()) == {100.0}
    assert both["official"]["F1_all"] != 100.0  # "a green ball" is never a ball


def test_words_that_are_no_object_are_passed_over(lemma: Lemmatizer):
    reference = annotated((1, "man", LEFT), sentence="A man walks near the trees")
    for phrase in ("two trees", "the tree", "a tree of a man"):
        assert corrected([reference], [predicted(("man", LEFT), (phrase, FAR))], lemma)["F1_all_per_sent"] == 1
    scores = corrected([reference], [predicted(("man", LEFT), ("a horse", FAR))], lemma)
    assert scores["F1_all_per_sent"] == pytest.approx(2 / 3)


def test_any_mention_counts(lemma: Lemmatizer):
    """Two men, in the other order: officially the first prediction and the first word decide."""
    reference = annotated((1, "man", LEFT), (3, "man", RIGHT), sentence="A man and man")
    result = score_activitynet_entities([reference], [predicted(("man", RIGHT), ("man", LEFT))], lemma=lemma)
    assert set(result.headline["corrected"].values()) == {100.0}
    assert result.headline["official"]["F1_all"] == 50.0


def test_what_is_not_predicted_is_missed(lemma: Lemmatizer):
    other = annotated((1, "man", LEFT), key="w_0")
    scores = corrected([MAN_AND_BALL, other], [predicted(("man", LEFT), ("ball", RIGHT))], lemma)
    assert scores["F1_all_per_sent"] == scores["F1_loc_per_sent"] == 0.5
    # Predictions of other videos change nothing, and officially they do.
    more = [predicted(("man", LEFT), ("ball", RIGHT)), predicted(("man", FAR), key="z_0")]
    result = score_activitynet_entities([MAN_AND_BALL, other], more, lemma=lemma)
    assert result.headline["corrected"]["F1_all_per_sent"] == result.headline["official"]["F1_all_per_sent"] == 50.0
    assert result.warnings == {"segments_not_predicted": 1, "predicted_segments_without_annotation": 1}
    assert (result.coverage["clips"], result.coverage["predicted"], result.coverage["missing"]) == (2, 1, ["w_0"])
    only = score_activitynet_entities([MAN_AND_BALL], more, lemma=lemma).headline
    assert (only["corrected"]["F1_all_per_sent"], only["official"]["F1_all_per_sent"]) == (100.0, 50.0)


def test_nothing_right_is_zero(lemma: Lemmatizer):
    result = score_activitynet_entities([MAN_AND_BALL], [predicted(("man", FAR))], lemma=lemma)
    assert set(result.headline["corrected"].values()) == {0.0}
    assert np.isnan(result.headline["official"]["F1_all"])


def test_a_class_of_other_sentences_is_wrong_for_that_class(lemma: Lemmatizer):
    other = annotated((1, "dog", LEFT), sentence="A dog", key="w_0")
    predictions = [predicted(("man", LEFT), ("ball", RIGHT), ("two dogs", FAR)), predicted(("dog", LEFT), key="w_0")]
    result = score_activitynet_entities([MAN_AND_BALL, other], predictions, lemma=lemma, protocols=("corrected",))
    classes = result.metrics["corrected"]["generated"]["classes"]
    assert classes["dog"] == {
        "all": {"precision": [1, 2], "recall": [1, 1]},
        "loc": {"precision": [1, 1], "recall": [1, 1]},
    }
    assert result.headline["corrected"]["F1_loc"] == 100.0


def test_the_size_of_the_video_does_not_matter(lemma: Lemmatizer):
    """The pixel that is added to each side makes 0.5 of a small box, which is not above 0.5, more."""
    small, half = [0.0, 0.0, 4.0, 4.0], [0.0, 0.0, 4.0, 2.0]
    result = score_activitynet_entities([annotated((1, "man", small))], [predicted(("man", half))], lemma=lemma)
    assert (result.headline["official"]["F1_loc"], result.headline["corrected"]["F1_loc"]) == (100.0, 0.0)


def test_boxes_that_are_not_finite_never_hit(lemma: Lemmatizer):
    prediction = predicted(("man", LEFT), ("ball", RIGHT))
    prediction.boxes[0][7] = np.nan  # officially it spoils the other frames of the object too
    result = score_activitynet_entities([MAN_AND_BALL], [prediction], lemma=lemma)
    assert result.metrics["official"]["generated"]["classes"]["man"]["all"]["recall"] == [0, 1]
    assert result.metrics["corrected"]["generated"]["classes"]["man"]["all"]["recall"] == [1, 1]
    assert result.warnings == {"tubes_with_boxes_that_are_not_finite": 1}


def test_records_are_the_original_files(lemma: Lemmatizer):
    """The annotation of a record is that of the file, and its own boxes score the maximum."""
    segments, _ = read_original_activitynet_entities(golden("ground_truth"), golden("split"), golden("predictions"))
    records = list(import_activitynet_entities([GOLDEN / "ground_truth.json"], lambda problem: None))
    by_key = {segment.key: segment for segment in segments}
    made = [s for s in map(annotated_segment, records) if s.key in by_key]
    assert len(made) > 40
    for segment in made:
        np.testing.assert_array_equal(segment.boxes, by_key[segment.key].boxes)
        assert (segment.words, segment.tokens) == (by_key[segment.key].words, by_key[segment.key].tokens)
    truth = [predicted_segment(from_record(record)) for record in records]
    assert all(tube.shape == (10, 4) for segment in truth for tube in segment.boxes)
    scores = score_activitynet_entities(made, truth, lemma=lemma).headline["corrected"]
    assert set(scores.values()) == {100.0}
    given = score_activitynet_entities(made, truth, mode="gt").metrics
    assert given["official"]["gt"]["grounding_accuracy"] > 0.9
    assert given["corrected"]["gt"]["grounding_accuracy"] == 1.0


def test_records_and_captions_can_be_given_as_they_are(lemma: Lemmatizer):
    records = list(import_activitynet_entities([GOLDEN / "ground_truth.json"], lambda problem: None))
    captions = [from_record(record) for record in records[1:]]
    made = [annotated_segment(record) for record in records], [predicted_segment(caption) for caption in captions]
    expected = score_activitynet_entities(*made, lemma=lemma)
    result = score_activitynet_entities(records, captions, lemma=lemma)
    assert (result.metrics, result.per_clip) == (expected.metrics, expected.per_clip)
    assert 0 < result.headline["corrected"]["F1_all"] < 100
    key = f"{records[0]['video_id']}_{records[0]['clip_id']}"
    with pytest.raises(ValueError, match=f"^clip '{key}': metadata: tokens: expected a list"):
        score_activitynet_entities([records[0] | {"metadata": None}], captions, lemma=lemma)


def test_a_sentence_without_recall_is_in_no_official_sum_of_the_mode_loc(lemma: Lemmatizer):
    # The word is a man in its first box, a person in the second; only "person" is predicted, which so is no recall in loc.
    twice = replace(annotated((1, "man", LEFT), (1, "person", LEFT)), frames=np.array([0, 3]))
    answers = [predicted(("person", LEFT)), predicted(("person", LEFT), key="v_1")]
    metrics = score_activitynet_entities([twice], answers, lemma=lemma, protocols=("official",)).metrics["official"]
    assert metrics["generated"]["prec_loc_per_sent"] == metrics["generated"]["f1_loc_per_sent"] == 0.0
    assert metrics["generated"]["prec_all_per_sent"] == 0.5


def test_a_word_of_two_classes_has_the_first_in_corrected(lemma: Lemmatizer):
    twice = annotated((1, "man", LEFT), (1, "person", LEFT))
    assert {*corrected([twice], [predicted(("man", LEFT))], lemma).values()} == {1.0}


def test_a_group_of_people_is_a_group_where_people_are_no_class(lemma: Lemmatizer):
    group = annotated((1, "group", LEFT), sentence="A group of people runs")
    assert {*corrected([group], [predicted(("a group of people", LEFT))], lemma).values()} == {1.0}
    people = annotated((1, "group", RIGHT), (3, "people", LEFT), sentence="A group of people runs")
    result = score_activitynet_entities(
        [people], [predicted(("a group of people", LEFT))], lemma=lemma, protocols=("corrected",)
    )
    assert result.metrics["corrected"]["generated"]["classes"]["people"]["all"]["recall"] == [1, 1]


def test_a_blank_token_is_named(lemma: Lemmatizer):
    blank = replace(MAN_AND_BALL, tokens=("A", "man", " ", "a", "ball"))
    with pytest.raises(ValueError, match=r"^clip 'v_0': tokens\[2\]: expected a word, got ' '"):
        score_activitynet_entities([blank], [predicted(("man", LEFT))], lemma=lemma)


def test_boxes_are_scaled_to_the_width_of_the_annotation():
    record = next(import_activitynet_entities([GOLDEN / "ground_truth.json"], lambda problem: None))
    caption = from_record(record | {"width": 1440, "height": 810})
    np.testing.assert_allclose(predicted_segment(caption).boxes[0] * 2, predicted_segment(from_record(record)).boxes[0])


def test_bad_input_is_named(lemma: Lemmatizer):
    truth, split, submission = golden("ground_truth"), golden("split"), golden("predictions")
    with pytest.raises(ValueError, match="split: the split file has no 'dev'; expected one of training, validation"):
        read_original_activitynet_entities(truth, split, submission, "dev")
    segment = truth["annotations"]["v_vis0000"]["segments"]["0"]
    for field, value, problem in (
        ("frame_ind", [1], "frame_ind: 1 entries for the 4 of process_bnd_box"),
        ("process_bnd_box", [[1, 2, 3]], "process_bnd_box: expected boxes"),
        ("tokens", None, "tokens: expected a list, got NoneType"),
        (
            "process_clss",
            [["man", "man"], *segment["process_clss"][1:]],
            r"process_clss\[0\]: 2 classes for the 1 words",
        ),
    ):
        broken = {"annotations": {"v_vis0000": {"segments": {"0": segment | {field: value}}}}}
        with pytest.raises(ValueError, match=f"clip 'v_vis0000_0': {problem}"):
            read_original_activitynet_entities(broken, split, submission)
    with pytest.raises(ValueError, match="clip 'v_0': there are two predicted segments"):
        score_activitynet_entities([MAN_AND_BALL], [predicted(("man", LEFT))] * 2, lemma=lemma)
    with pytest.raises(ValueError, match="no annotated segment has a prediction.*'v_0' and 'w_0'.*another split"):
        score_activitynet_entities([MAN_AND_BALL], [predicted(("man", LEFT), key="w_0")], lemma=lemma)
    nameless = replace(MAN_AND_BALL, words=((), ()), classes=((), ()))
    with pytest.raises(ValueError, match="process_clss: no annotated segment with a prediction has a class"):
        score_activitynet_entities([nameless], [predicted(("man", LEFT))], lemma=lemma)
    with pytest.raises(ValueError, match="no predicted segments; expected at least one"):
        score_activitynet_entities([MAN_AND_BALL], [], lemma=lemma)
    with pytest.raises(ValueError, match="mode: got 'genrated'"):
        score_activitynet_entities([MAN_AND_BALL], [predicted(("man", LEFT))], lemma=lemma, mode="genrated")
    with pytest.raises(ValueError, match="lemma: generated sentences"):
        score_activitynet_entities([MAN_AND_BALL], [predicted(("man", LEFT))])

"""Batches from the stream: questions, labels, and what the losses are divided by."""

import pytest
import torch

from dataset_builders.stream import GroundedCaptionStream, StreamSource
from modeling_grove import GroveForConditionalGeneration, GroveProcessor
from modeling_grove.text_grove import QUESTION_TEMPLATES
from train.collator import GroveCollator, label_counts


@pytest.fixture(scope="module")
def samples(world):
    stream = GroundedCaptionStream(StreamSource(world.shards, split="train"), num_frames=4, shuffle_buffer=1)
    return [sample for sample, _ in zip(stream, range(6), strict=False)]


@pytest.fixture(scope="module")
def processor(world):
    return GroveProcessor.from_pretrained(world.start)


def questions_in(processor, batch):
    texts = processor.tokenizer.batch_decode(batch["input_ids"])
    return [next(question for question in QUESTION_TEMPLATES if question in text) for text in texts]


def test_a_batch_has_the_models_inputs_and_the_keys(samples, processor):
    batch = GroveCollator(processor)(samples[:3])

    assert batch["keys"] == [sample.key for sample in samples[:3]]
    assert batch["pixel_values_videos"].shape == (3, 4, 3, 64, 64)
    assert batch["box_labels"].shape[:2] == (3, 4) and batch["objectness_labels"].shape == batch["box_labels"].shape[:3]


def test_questions_are_drawn_from_the_templates_the_same_for_the_same_sample(samples, processor):
    drawn = questions_in(processor, GroveCollator(processor, seed=1)(samples))

    assert drawn == questions_in(processor, GroveCollator(processor, seed=1)(samples))
    assert len(set(drawn)) > 1
    assert drawn != questions_in(processor, GroveCollator(processor, seed=2)(samples))


def test_one_question_for_all(samples, processor):
    batch = GroveCollator(processor, question=QUESTION_TEMPLATES[2])(samples)

    assert set(questions_in(processor, batch)) == {QUESTION_TEMPLATES[2]}


def test_counts_are_those_that_the_model_divides_by(samples, processor, world):
    """Sums of a batch are those of its rows, if means are multiplied by the counts."""
    model = GroveForConditionalGeneration.from_pretrained(world.start).eval()
    collate = GroveCollator(processor)
    rows = [collate([sample]) for sample in samples[:3]]
    together = collate(samples[:3])

    def sums(batch):
        counts = label_counts(batch, model.config.det_token_id)
        batch = {name: value for name, value in batch.items() if name != "keys"}
        with torch.no_grad():
            outputs = model(**batch)
        means = [outputs.caption_loss, outputs.giou_loss, outputs.l1_loss, outputs.objectness_loss]
        return torch.stack(means).double() * counts[[0, 1, 1, 2]]

    torch.testing.assert_close(sum(sums(row) for row in rows), sums(together), rtol=1e-5, atol=1e-5)


def test_phrases_that_were_cut_off_do_not_count(samples, processor, world):
    model = GroveForConditionalGeneration.from_pretrained(world.start).eval()
    sample = max(samples, key=lambda sample: len(sample.caption.tracks))
    whole = GroveCollator(processor)([sample])
    position = int((whole["input_ids"][0] == model.config.det_token_id).nonzero()[-1])
    cut = GroveCollator(processor, max_length=position)([sample])

    tokens, boxes, pairs = label_counts(cut, model.config.det_token_id).tolist()

    all_tokens, all_boxes, all_pairs = label_counts(whole, model.config.det_token_id).tolist()
    assert pairs == all_pairs - model.config.num_frames and tokens < all_tokens and boxes <= all_boxes
    cut.pop("keys")
    assert torch.isfinite(model(**cut).loss)

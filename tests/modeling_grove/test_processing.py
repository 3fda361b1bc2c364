"""The processor: prompts and ids as the original makes them, training labels, and the way back to grounded captions."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoTokenizer

from modeling_grove import GroundedCaption, GroveProcessor, GroveVideoProcessor, PhraseTrack
from modeling_grove.generation_grove import GroveGroundedOutput
from modeling_grove.original_text_grove import collate, conversation, expand_video_tokens
from modeling_grove.text_grove import QUESTION_TEMPLATES
from modeling_grove.video_processing_grove import GroveVideoMetadata

GOLDEN = Path(__file__).parents[1] / "golden" / "grove"
PROMPTS = json.loads((GOLDEN / "prompts.json").read_text())
NUM_VIDEO_TOKENS = 576


@pytest.fixture(scope="module")
def tokenizer():
    tokenizer = AutoTokenizer.from_pretrained(GOLDEN / "tokenizer" / "final", padding_side="left")
    tokenizer.add_tokens("<video>", special_tokens=True)
    return tokenizer


@pytest.fixture(scope="module")
def processor(tokenizer) -> GroveProcessor:
    return GroveProcessor(GroveVideoProcessor(), tokenizer, num_video_tokens=NUM_VIDEO_TOKENS)


def expanded(processor: GroveProcessor, ids: list[int]) -> list[int]:
    return expand_video_tokens(ids, processor.video_token_id, NUM_VIDEO_TOKENS)


def caption_of(text: str, tracks: dict[str | tuple[int, int], tuple[list, list]], num_frames: int) -> GroundedCaption:
    """A grounded caption from `{phrase (its first occurrence) or span: (boxes in pixels, presence)}`."""
    built = []
    for key, (boxes, presence) in tracks.items():
        span = (text.index(key), text.index(key) + len(key)) if isinstance(key, str) else key
        arrays = (np.array(boxes, np.float32), np.array(presence, bool), np.array(presence, np.float32))
        built.append(PhraseTrack(text[slice(*span)], span, *arrays))
    return GroundedCaption(
        caption=text,
        tracks=tuple(built),
        video_id="clip",
        clip_id=0,
        video_fname="clip",
        fps=5.0,
        width=64,
        height=32,
        clip_start_frame=0,
        clip_end_frame=num_frames - 1,
        frame_indices=np.arange(num_frames),
        timestamps=np.arange(num_frames) / 5,
    )


def frames(count: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 255, (count, 32, 64, 3), dtype=np.uint8)


class TestPrompts:
    def test_prompt_ids_are_the_originals(self, processor):
        inputs = processor.prepare_videos(frames(3))
        assert inputs["input_ids"][0].tolist() == expanded(processor, PROMPTS["inference_prompt"]["prompt_ids"])
        assert inputs["attention_mask"].all()

    def test_chat_template_gives_the_same_ids(self, processor):
        messages = [
            {"role": "user", "content": [{"type": "video"}, {"type": "text", "text": QUESTION_TEMPLATES[0]}]},
        ]
        text = processor.apply_chat_template(messages, add_generation_prompt=True)
        assert text == conversation()
        inputs = processor(text=text, videos=[frames(9)], return_tensors="pt")
        assert inputs["input_ids"][0].tolist() == expanded(processor, PROMPTS["inference_prompt"]["prompt_ids"])
        assert inputs["pixel_values_videos"].shape == (1, 8, 3, 336, 336)
        assert inputs["grounding_pixel_values_videos"].shape == (1, 8, 3, 512, 512)
        assert "frame_mask" not in inputs and "video_metadata" not in inputs

    def test_chat_template_with_an_answer(self, processor):
        messages = [
            {"role": "user", "content": [{"type": "video"}, {"type": "text", "text": QUESTION_TEMPLATES[1]}]},
            {"role": "assistant", "content": "a <p> man </p> [DET] is here."},
        ]
        assert processor.apply_chat_template(messages) == conversation(
            "a <p> man </p> [DET] is here.", QUESTION_TEMPLATES[1]
        )

    def test_system_message_is_refused(self, processor):
        with pytest.raises(Exception, match="fixed system prompt"):
            processor.apply_chat_template([{"role": "system", "content": "be brief"}])

    def test_given_caption(self, processor):
        inputs = processor.prepare_videos(frames(3), captions="<p>A man</p> is here.")
        # The recorded text already ends in "</s>", to which the original adds another.
        assert PROMPTS["inference_prompt"]["answer_example"].endswith("</s>")
        recorded = PROMPTS["inference_prompt"]["prompt_with_answer_ids"][:-1]
        assert inputs["input_ids"][0].tolist() == expanded(processor, recorded)

    def test_batch_is_padded_on_the_left(self, processor):
        inputs = processor.prepare_videos(
            [frames(3), frames(5)], ["<p>A man</p> runs.", "A <p>red big dog</p> sleeps."]
        )
        mask = inputs["attention_mask"]
        assert mask[:, -1].all() and not mask.all()
        assert inputs["frame_mask"].tolist() == [[True] * 3 + [False] * 2, [True] * 5]
        assert [len(metadata.frames_indices) for metadata in inputs["video_metadata"]] == [3, 5]

    def test_save_and_load(self, processor, tmp_path):
        processor.save_pretrained(tmp_path)
        again = GroveProcessor.from_pretrained(tmp_path)
        assert again.num_video_tokens == NUM_VIDEO_TOKENS
        assert again.tokenizer.padding_side == "left"
        assert again.chat_template == processor.chat_template
        first, second = (p.prepare_videos(frames(3), "a <p>dog</p>") for p in (processor, again))
        assert torch.equal(first["input_ids"], second["input_ids"])
        assert torch.equal(first["grounding_pixel_values_videos"], second["grounding_pixel_values_videos"])


class TestErrors:
    def test_tokenizer_without_the_tokens(self):
        plain = AutoTokenizer.from_pretrained(GOLDEN / "tokenizer" / "base")
        with pytest.raises(ValueError, match=r"lacks <video>, <vid_start>.*\[DET\]"):
            GroveProcessor(GroveVideoProcessor(), plain)

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"text": "no placeholder", "videos": [frames(8)]}, "has 0 <video>; expected exactly one"),
            ({"text": ["<video>", 3], "videos": [frames(8)]}, r"text\[1\] is a int"),
            ({"images": [frames(1)[0]], "text": "<video>"}, "got images or audio"),
            ({}, "neither text nor videos"),
        ],
    )
    def test_calls(self, processor, arguments, message):
        with pytest.raises(ValueError, match=message):
            processor(**arguments)

    def test_counts(self, processor):
        with pytest.raises(ValueError, match="Got 1 videos, 2 captions"):
            processor.prepare_videos(frames(3), ["<p>a</p>", "<p>b</p>"])
        with pytest.raises(ValueError, match="Got 1 captions, 2 videos"):
            processor.prepare_training([caption_of("a dog", {}, 8)], [frames(8)] * 2)

    def test_phrase_that_is_not_there(self, processor):
        with pytest.raises(ValueError, match="cat"):
            processor.prepare_videos(frames(3), ["a dog runs"], phrases=[["cat"]])

    def test_phrases_without_a_caption(self, processor):
        with pytest.raises(ValueError, match="phrases without captions"):
            processor.prepare_videos(frames(3), phrases=[["cat"]])


class TestTraining:
    WINDOW = 8

    def batch(self, processor, **options):
        box = [[8.0, 4.0, 24.0, 20.0]] * 8
        first = caption_of("A dog chases a ball.", {"dog": (box, [1] * 8), "ball": (box, [0, 1] * 4)}, 8)
        second = caption_of("A man runs", {"man": (box, [1] * 8)}, 8)
        return processor.prepare_training([first, second], [frames(8), frames(8)], **options)

    # The original mangles annotations with equal or untagged phrases (quirk 17).
    @pytest.mark.parametrize(
        "entry",
        [e for e in PROMPTS["parse"] if len(set(map(tuple, e.get("tokens_positive", [])))) == e.get("num_det", -1)],
        ids=lambda entry: entry["caption"][:20],
    )
    def test_ids_and_labels_are_the_originals(self, processor, entry):
        nobody = ([[0.0] * 4] * 8, [0] * 8)
        caption = caption_of(entry["caption"], {tuple(span): nobody for span in entry["tokens_positive"]}, 8)
        batch = processor.prepare_training([caption], [frames(8)], questions=[entry["question"]])
        assert batch["input_ids"][0].tolist() == expanded(processor, entry["input_ids"])
        position = entry["input_ids"].index(-200)
        labels = entry["label_ids"]
        assert batch["labels"][0].tolist() == labels[:position] + [-100] * NUM_VIDEO_TOKENS + labels[position + 1 :]

    def test_padding_as_the_original_pads(self, processor, tokenizer):
        batch = self.batch(processor)
        texts = [
            conversation("a <p> dog </p> [DET] chases a <p> ball </p> [DET]."),
            conversation("a <p> man </p> [DET] runs"),
        ]
        original = collate(tokenizer, texts)
        for row, ids in zip(batch["input_ids"], original["input_ids"], strict=True):
            assert row.tolist() == expanded(processor, ids.tolist())
        assert (batch["labels"][batch["attention_mask"] == 0] == -100).all()

    def test_box_labels(self, processor):
        batch = self.batch(processor)
        assert batch["box_labels"].shape == (2, 8, 2, 4)
        assert batch["objectness_labels"][0, :, 1].tolist() == [0, 1] * 4
        assert (batch["objectness_labels"][1, :, 1] == -100).all()
        torch.testing.assert_close(batch["box_labels"][0, 0, 0], torch.tensor([0.25, 0.375, 0.25, 0.5]))
        assert batch["pixel_values_videos"].shape == (2, 8, 3, 336, 336)
        assert "frame_mask" not in batch

    def test_positions_choose_the_labels(self, processor):
        presence = [0] * 12
        presence[5] = 1
        caption = caption_of("a dog", {"dog": ([[0.0, 0.0, 8.0, 8.0]] * 12, presence)}, 12)
        slots = [0, 2, 4, 5, 6, 8, 10, 11]
        batch = processor.prepare_training([caption], [frames(8)], frame_positions=[slots])
        assert batch["objectness_labels"][0, :, 0].tolist() == [0, 0, 0, 1, 0, 0, 0, 0]

    def test_truncation(self, processor):
        whole = self.batch(processor)
        cut = self.batch(processor, max_length=whole["input_ids"].shape[1] - 8)
        assert cut["input_ids"].shape[1] == whole["input_ids"].shape[1] - 8
        assert torch.equal(cut["input_ids"], whole["input_ids"][:, :-8])


class TestPostProcessing:
    def outputs(self, processor, answers: list[str], num_frames: int = 2) -> GroveGroundedOutput:
        ids = [processor.tokenizer(answer, add_special_tokens=False)["input_ids"] for answer in answers]
        length = max(map(len, ids))
        num_phrases = max(answer.count("[DET]") for answer in answers)
        boxes = torch.tensor([0.5, 0.5, 0.5, 0.5]).expand(len(answers), num_frames, num_phrases, 4).clone()
        for phrase in range(num_phrases):
            boxes[:, :, phrase, 0] += 0.25 * phrase
        logits = torch.full((len(answers), num_frames, num_phrases), 3.0)
        logits[:, 1::2] = -3.0
        return GroveGroundedOutput(
            sequences=torch.tensor([row + [2] * (length - len(row)) for row in ids]),
            prompt_length=0,
            pred_boxes=boxes,
            objectness_logits=logits,
        )

    def metadata(self, num_frames: int = 2) -> GroveVideoMetadata:
        return GroveVideoMetadata(
            total_num_frames=20,
            fps=10.0,
            width=64,
            height=32,
            frames_indices=list(range(4, 4 + 2 * num_frames, 2)),
            timestamps=[0.4 + 0.2 * i for i in range(num_frames)],
            start_frame=4,
            end_frame=7,
            name="clip",
        )

    def test_boxes_presence_and_frames(self, processor):
        outputs = self.outputs(processor, ["a <p> man </p> [DET] cuts a <p> carrot </p> [DET]."])
        (result,) = processor.post_process_grounded_captions(outputs, [self.metadata()])
        assert result.caption == "a man cuts a carrot."
        assert result.tagged_caption == "a <p>man</p> cuts a <p>carrot</p>."
        assert [track.presence.tolist() for track in result.tracks] == [[True, False]] * 2
        np.testing.assert_allclose(result.tracks[0].boxes[0], [16, 8, 48, 24])
        np.testing.assert_allclose(result.tracks[1].boxes[0], [32, 8, 64, 24])
        assert result.frame_indices.tolist() == [4, 6] and result.key == "clip_4"

    def test_clipping_is_optional(self, processor):
        outputs = self.outputs(processor, ["<p> a </p> [DET]"])
        outputs.pred_boxes[..., 0] = 1.0
        raw = processor.post_process_grounded_captions(outputs, [self.metadata()], clip_boxes=False)[0]
        cut = processor.post_process_grounded_captions(outputs, [self.metadata()])[0]
        assert raw.tracks[0].boxes[0, 2] == 80 and cut.tracks[0].boxes[0, 2] == 64

    def test_phrase_without_det_never_takes_anothers_boxes(self, processor):
        outputs = self.outputs(processor, ["a <p> man </p> cuts a <p> carrot </p> [DET]"])
        (result,) = processor.post_process_grounded_captions(outputs, [self.metadata()])
        man, carrot = result.tracks
        assert not man.presence.any() and np.isnan(man.boxes).all()
        assert carrot.presence.tolist() == [True, False]

    def test_threshold_is_strict(self, processor):
        outputs = self.outputs(processor, ["<p> a </p> [DET]"])
        outputs.objectness_logits[:] = 0.0
        (result,) = processor.post_process_grounded_captions(outputs, [self.metadata()])
        assert not result.tracks[0].presence.any()

    def test_without_objectness_head_phrases_are_always_present(self, processor):
        outputs = self.outputs(processor, ["<p> a </p> [DET]"])
        outputs.objectness_logits = None
        (result,) = processor.post_process_grounded_captions(outputs, [self.metadata()])
        assert result.tracks[0].presence.all()

    def test_given_caption_keeps_its_case(self, processor):
        outputs = self.outputs(processor, ["<p> a dog </p> [DET]"])
        (result,) = processor.post_process_grounded_captions(outputs, [self.metadata()], "<p>A Dog</p> runs.")
        assert result.caption == "A Dog runs." and result.phrases == ["A Dog"]

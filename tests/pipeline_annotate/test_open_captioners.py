"""Captioners of transformers: their answers as recorded, and tiny random models through the real classes."""

import numpy as np
import pytest
import torch

from pipeline_annotate.captioners import Frame
from pipeline_annotate.open_captioners import (
    Florence2Captioner,
    Kosmos2Captioner,
    QwenCaptioner,
    grounded_caption,
    read_qwen,
)
from train.new_models import train_tokenizer

from . import tiny_models

FRAMES = [Frame("a", 3, 0.6, np.random.default_rng(0).integers(0, 256, (40, 60, 3)).astype(np.uint8)),
          Frame("b", 5, 1.0, np.random.default_rng(1).integers(0, 256, (60, 30, 3)).astype(np.uint8))]  # fmt: skip


def test_things_are_found_by_their_words():
    things = [
        ("dog", (float("nan"), 1, 2, 3)),
        ("a man", (1, 2, 3, 4)),
        ("dog", (5, 5, 100, 30)),
        ("cat", (0, 0, 9, 9)),
        ("man", (7, 7, 8, 8)),
        ("DOG", (9, 9, 12, 12)),
        ("another", (3, 3, 3, 9)),
    ]
    found = grounded_caption(FRAMES[0], "A man and a dog, another man.", things)
    assert [(phrase.text, phrase.span) for phrase in found.phrases] == [
        ("A man", (0, 5)),
        ("dog", (12, 15)),
        ("man", (25, 28)),
    ]
    assert found.phrases[1].boxes.tolist() == [[5, 5, 60, 30], [9, 9, 12, 12]] and found.frame_index == 3


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(
        ["an image of a snowman warming himself by a fire", '{"caption": "a man", "objects": []}'], 400
    )


@pytest.fixture(scope="module")
def kosmos2(tmp_path_factory):
    return Kosmos2Captioner(str(tiny_models.kosmos2(tmp_path_factory.mktemp("models") / "kosmos2")), max_new_tokens=6)


def _copy(tokenizer):
    import copy

    return copy.deepcopy(tokenizer)


def test_kosmos2_says_where_things_are_in_pairs_of_places(kosmos2):
    """The answer of the model card."""
    text = (
        "<grounding> An image of<phrase> a snowman</phrase><object><patch_index_0044><patch_index_0863></object> warming himself by"
        "<phrase> a fire</phrase><object><patch_index_0005><patch_index_0911></object>.</s>"
    )
    frame = Frame("a", 0, 0.0, np.zeros((64, 128, 3), np.uint8))
    found = kosmos2._read(frame, text)
    assert found.caption == "An image of a snowman warming himself by a fire."
    snowman, fire = found.phrases
    assert (snowman.text, fire.text) == ("a snowman", "a fire")
    np.testing.assert_allclose(snowman.boxes, [[50, 3, 126, 53]], atol=0.01)
    np.testing.assert_allclose(fire.boxes, [[22, 1, 62, 57]], atol=0.01)


def test_kosmos2_captions_frames_in_a_batch_as_one_by_one(kosmos2):
    assert_captions(kosmos2)


@pytest.fixture(scope="module")
def florence2(tokenizer):
    from transformers import (
        CLIPImageProcessorPil,
        Florence2Config,
        Florence2ForConditionalGeneration,
        Florence2Processor,
    )

    words = _copy(tokenizer)
    words.add_tokens([f"<loc_{number}>" for number in range(1000)])
    words.add_special_tokens({"extra_special_tokens": ["<image>"]})
    words.image_token, words.image_token_id = "<image>", words.convert_tokens_to_ids("<image>")
    pictures = CLIPImageProcessorPil(size={"height": 32, "width": 32}, do_center_crop=False)
    pictures.image_seq_length = 2
    torch.manual_seed(0)
    text = {"model_type": "bart", "vocab_size": len(words), "d_model": 16, "encoder_layers": 1, "decoder_layers": 1,
            "encoder_attention_heads": 2, "decoder_attention_heads": 2, "encoder_ffn_dim": 32, "decoder_ffn_dim": 32,
            "max_position_embeddings": 128, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
            "decoder_start_token_id": 2, "forced_eos_token_id": None}  # fmt: skip
    vision = {"embed_dim": [16], "num_heads": [2], "num_groups": [2], "depths": [1], "patch_size": [7], "patch_stride": [32],
              "patch_padding": [3], "patch_prenorm": [False], "window_size": 4, "projection_dim": 16,
              "max_temporal_embeddings": 2, "max_position_embeddings": 4}  # fmt: skip
    config = Florence2Config(
        text_config=text, vision_config=vision, image_token_id=words.convert_tokens_to_ids("<image>")
    )
    captioner = Florence2Captioner.__new__(Florence2Captioner)
    tasks = {"pure_text": {}, "phrase_grounding": {"banned_grounding_tokens": ["it"]}}
    processor = Florence2Processor(pictures, words, post_processor_config=tasks)
    captioner.setup(Florence2ForConditionalGeneration(config).eval(), processor, 6)
    return captioner


def test_florence2_says_where_the_phrases_of_its_caption_are(florence2):
    """As the model card's example of its grounding task has it, for a picture of 1000 x 500 pixels."""
    frame = Frame("a", 0, 0.0, np.zeros((500, 1000, 3), np.uint8))
    places = "</s><s>A green car<loc_53><loc_334><loc_933><loc_775>a yellow building<loc_0><loc_10><loc_997><loc_600></s><pad>"
    found = florence2._read(frame, "A green car parked in front of a yellow building.", places)
    assert [phrase.text for phrase in found.phrases] == ["A green car", "a yellow building"]
    np.testing.assert_allclose(found.phrases[0].boxes, [[53, 167, 933, 387]], atol=1.0)


def test_florence2s_padding_is_not_part_of_its_captions(florence2, monkeypatch):
    """Two captions of different length, and what they are asked about then."""
    asked = []
    answers = [["</s><s>A car.</s><pad><pad>", "</s><s>A green car on a street.</s>"], ["</s><s></s>"] * 2]
    monkeypatch.setattr(florence2, "_task", lambda pictures, texts: asked.append(texts) or answers[len(asked) - 1])
    assert [caption.caption for caption in florence2.caption(FRAMES)] == ["A car.", "A green car on a street."]
    assert asked[1] == [f"<CAPTION_TO_PHRASE_GROUNDING>{text}" for text in ("A car.", "A green car on a street.")]
    assert florence2.processor.tokenizer.padding_side == "right"


def test_florence2_captions_frames_in_a_batch_as_one_by_one(florence2):
    assert_captions(florence2)


ANSWER = '```json\n{"caption": "A man throws a ball.", "objects": [{"label": "A man", "bbox_2d": [100, 200, 300, 900]}]}\n```'


def test_qwens_json_is_read_with_or_without_a_fence():
    assert read_qwen(ANSWER, 1000, 1000) == ("A man throws a ball.", [("A man", [0.1, 0.2, 0.3, 0.9])])
    for wrong in (
        "I see a man.",
        '{"caption": 3',
        '{"objects": [{"label": "a"}]}',
        '{"objects": [{"bbox_2d": [1, 2, 3]}]}',
        "[]",
    ):
        assert read_qwen(wrong, 1000, 1000) == ("", [])


@pytest.fixture(scope="module")
def qwen(tokenizer):
    from transformers import Qwen2VLConfig, Qwen2VLForConditionalGeneration, Qwen2VLProcessor
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

    words = _copy(tokenizer)
    tokens = ["<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>"]
    words.add_special_tokens({"extra_special_tokens": tokens})
    words.chat_template = (
        "{% for m in messages %}{% for c in m['content'] %}{% if c['type'] == 'image' %}<|vision_start|><|image_pad|><|vision_end|>"
        "{% else %}{{ c['text'] }}{% endif %}{% endfor %}{% endfor %}assistant: "
    )
    start, end, image, video = words.convert_tokens_to_ids(tokens)
    torch.manual_seed(0)
    config = Qwen2VLConfig(
        text_config={"vocab_size": len(words), "hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1,
                     "num_attention_heads": 2, "num_key_value_heads": 2, "max_position_embeddings": 1024,
                     "rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 3, 3]},
                     "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0},
        vision_config={"depth": 1, "embed_dim": 32, "hidden_size": 32, "num_heads": 2, "patch_size": 14, "mlp_ratio": 1},
        image_token_id=image, video_token_id=video, vision_start_token_id=start, vision_end_token_id=end,
    )  # fmt: skip

    class PictureProcessor(Qwen2VLProcessor):
        """Without one for videos, which needs torchvision."""

        def check_argument_for_proper_class(self, name, value):
            return type(value)

    pictures = Qwen2VLImageProcessorPil(min_pixels=784, max_pixels=3136)
    processor = PictureProcessor(pictures, words, chat_template=words.chat_template)
    captioner = QwenCaptioner.__new__(QwenCaptioner)
    captioner.setup(Qwen2VLForConditionalGeneration(config).eval(), processor, 6)
    return captioner


def test_qwen_captions_frames_in_a_batch_as_one_by_one(qwen):
    assert_captions(qwen)
    found = qwen._read(FRAMES[0], ANSWER, [1, 4, 6])
    np.testing.assert_allclose(found.phrases[0].boxes, [[6, 8, 18, 36]], atol=1e-4)
    qwen.model.config.model_type = "qwen2_5_vl"  # pixels of the resized picture
    np.testing.assert_allclose(
        qwen._read(FRAMES[0], ANSWER.replace("[100, 200, 300, 900]", "[0, 14, 42, 56]"), [1, 4, 6]).phrases[0].boxes,
        [[0, 10, 30, 40]], atol=1e-4,
    )  # fmt: skip
    qwen.model.config.model_type = "qwen2_vl"


def assert_captions(captioner):
    """What random weights say is nothing to be read; but it is said, and said the same in a batch."""
    together = [caption.to_dict() for caption in captioner.caption(FRAMES)]
    assert together == [captioner.caption([frame])[0].to_dict() for frame in FRAMES]
    assert [(caption["frame_index"], caption["timestamp"]) for caption in together] == [(3, 0.6), (5, 1.0)]
    assert captioner.describe()["captioner"] == captioner.kind


def test_models_that_cannot_be_loaded_are_one_line(tmp_path):
    for kind in (Kosmos2Captioner, Florence2Captioner, QwenCaptioner):
        with pytest.raises(ValueError, match=f"{kind.kind} '.*nothing': cannot be loaded"):
            kind(str(tmp_path / "nothing"))

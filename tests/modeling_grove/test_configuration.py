"""GroveConfig: defaults, round trips, derived sizes, and messages that name the field, what it got and what it needs."""

import json

import pytest
from huggingface_hub.errors import StrictDataclassError
from transformers import AutoConfig, CLIPVisionConfig, LlamaConfig

from modeling_grove import GroveConfig, GroveGroundingConfig
from tests.tiny import tiny_config


def test_the_defaults_are_the_released_checkpoint():
    config = GroveConfig()
    assert isinstance(config.text_config, LlamaConfig)
    assert isinstance(config.vision_config, CLIPVisionConfig)
    assert isinstance(config.grounding_config, GroveGroundingConfig)
    assert config.num_video_tokens == 576
    assert config.vision_grid_size == 24
    assert config.grounding_config.grid_size == 32
    assert config.num_vision_layers == 23
    assert config.vision_adapter_layers == (0, 3, 6, 9, 12, 15, 18, 21)
    assert tuple(config.grounding_config.global_attn_indexes) == (7, 15, 23, 31)
    # Corrected behaviour; the converter sets the original's.
    assert config.vision_adapter_grid is None
    assert config.freeze_vision_adapters is False
    assert config.grounding_config.positional_encoding_dtype == "float32"


def test_two_configs_do_not_share_their_parts():
    first, second = GroveConfig(), GroveConfig()
    first.text_config.hidden_size = 48
    assert second.text_config.hidden_size == 4096


@pytest.mark.parametrize(
    ("overrides", "layers", "adapters"),
    [
        ({"vision_feature_layer": -1}, 5, (0, 3)),
        ({"vision_feature_layer": -2}, 4, (0, 3)),
        ({"vision_feature_layer": 3}, 3, (0,)),
        ({"vision_feature_layer": -5, "vision_adapter_interval": 1}, 1, (0,)),
        ({"vision_adapter_interval": 2}, 4, (0, 2)),
        ({"vision_adapter_interval": 0}, 4, ()),
    ],
)
def test_vision_layers_and_adapters_follow_the_feature_layer(overrides, layers, adapters):
    config = tiny_config(**overrides)
    assert config.num_vision_layers == layers
    assert config.vision_adapter_layers == adapters


def test_round_trip_keeps_every_field(tmp_path):
    config = tiny_config(
        vision_adapter_grid=(2, 8),
        freeze_vision_adapters=True,
        use_temporal_objectness=False,
        giou_loss_weight=0.5,
        grounding_config={"positional_encoding_dtype": "bfloat16", "window_size": 3},
    )
    config.save_pretrained(tmp_path)
    loaded = GroveConfig.from_pretrained(tmp_path)
    assert loaded.to_dict() == config.to_dict()
    assert isinstance(loaded.grounding_config, GroveGroundingConfig)
    assert tuple(loaded.vision_adapter_grid) == (2, 8)
    assert loaded.grounding_config.window_size == 3


def test_auto_config_loads_it_and_merges_changes_into_a_part(tmp_path):
    tiny_config().save_pretrained(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["model_type"] == "grove"
    config = AutoConfig.from_pretrained(tmp_path, num_frames=6, text_config={"num_hidden_layers": 7})
    assert type(config) is GroveConfig
    assert config.num_frames == 6
    assert config.text_config.num_hidden_layers == 7
    assert config.text_config.hidden_size == 64


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"num_frames": 0}, "num_frames is 0; .*at least 1"),
        ({"video_pool_size": [2, 2]}, r"video_pool_size is \[2, 2\]; .*three positive"),
        ({"video_pool_size": (2, 0, 2)}, r"video_pool_size is \(2, 0, 2\); .*three positive"),
        ({"video_pool_size": (5, 2, 2)}, r"video_pool_size\[0\] is 5; .*at most num_frames 4"),
        ({"vision_config": {"image_size": 60}}, r"vision_config.image_size is 60; .*multiple of patch_size 14"),
        ({"vision_feature_layer": 0}, r"vision_feature_layer is 0; .*\[1, 5\] or \[-5, -1\]"),
        ({"vision_feature_layer": 6}, r"vision_feature_layer is 6; .*\[1, 5\]"),
        ({"vision_feature_layer": -6}, r"vision_feature_layer is -6; .*\[-5, -1\]"),
        ({"vision_adapter_interval": -1}, "vision_adapter_interval is -1; .*positive"),
        ({"vision_adapter_grid": (3, 5)}, r"vision_adapter_grid is \(3, 5\); .*16 patches of a 4 x 4 frame"),
        ({"vision_adapter_grid": [16]}, r"vision_adapter_grid is \(16,\); .*rows and columns"),
        ({"det_token_id": 128}, r"det_token_id is 128; .*\[0, 127\]"),
        ({"phrase_start_token_id": -1}, r"phrase_start_token_id is -1; .*\[0, 127\]"),
        ({"phrase_end_token_id": 125}, "must be distinct, got .*'phrase_end_token_id': 125"),
        ({"video_token_id": 127}, "must be distinct, got .*'video_token_id': 127"),
        ({"objectness_threshold": 1.5}, r"objectness_threshold is 1.5; .*\[0, 1\]"),
        ({"grounding_config": {"image_size": 100}}, "grounding_config.image_size is 100; .*multiple of patch_size 16"),
        ({"grounding_config": {"hidden_size": 42}}, "grounding_config.hidden_size is 42; .*num_attention_heads 4"),
        ({"grounding_config": {"output_channels": 40, "num_pos_feats": 20}}, "output_channels is 40; .*= 16"),
        ({"grounding_config": {"num_pos_feats": 8}}, "num_pos_feats is 8; .*half of output_channels 32"),
        ({"grounding_config": {"global_attn_indexes": (1, 3)}}, r"global_attn_indexes has \[3\]; .*\[0, 2\]"),
    ],
)
def test_contradictions_are_refused(overrides, message):
    with pytest.raises((ValueError, StrictDataclassError), match=message):
        tiny_config(**overrides)


@pytest.mark.parametrize(
    ("overrides", "field"),
    [
        ({"num_frames": "8"}, "num_frames"),
        ({"video_pool_size": (2, 2)}, "video_pool_size"),
        ({"use_temporal_objectness": "yes"}, "use_temporal_objectness"),
        ({"grounding_config": {"decoder_mlp_dim": 1.5}}, "decoder_mlp_dim"),
        ({"grounding_config": {"positional_encoding_dtype": "float16"}}, "positional_encoding_dtype"),
    ],
)
def test_wrong_types_name_the_field(overrides, field):
    with pytest.raises(StrictDataclassError, match=field):
        tiny_config(**overrides)


def test_assignment_is_checked_too():
    config = tiny_config()
    with pytest.raises(StrictDataclassError, match="num_frames"):
        config.num_frames = "8"
    assert config.num_frames == 4


def test_a_config_that_became_invalid_is_not_saved(tmp_path):
    config = tiny_config()
    config.det_token_id = 9999
    with pytest.raises((ValueError, StrictDataclassError), match="det_token_id is 9999"):
        config.save_pretrained(tmp_path)

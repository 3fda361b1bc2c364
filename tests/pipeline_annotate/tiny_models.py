"""Tiny random models of transformers' own classes, written to folders as `from_pretrained` reads them."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import (
    CLIPImageProcessorPil,
    GitConfig,
    GitForCausalLM,
    GitProcessor,
    Kosmos2Config,
    Kosmos2ForConditionalGeneration,
    Kosmos2Processor,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    Sam2VideoConfig,
    Sam2VideoModel,
)

from train.new_models import train_tokenizer


def sam2(folder: Path, seed: int = 0) -> Path:
    """SAM 2 of videos, at 64 pixels. What it remembers has 64 channels in its code, and its parts must have a multiple of that."""
    torch.manual_seed(seed)
    backbone = {
        "model_type": "sam2_hiera_det_model", "hidden_size": 8, "num_attention_heads": 1, "image_size": [64, 64],
        "window_positional_embedding_background_size": [2, 2], "blocks_per_stage": [1, 1, 2, 1],
        "embed_dim_per_stage": [8, 16, 32, 64], "num_attention_heads_per_stage": [1, 1, 2, 2],
        "window_size_per_stage": [8, 4, 4, 4], "global_attention_blocks": [3],
    }  # fmt: skip
    config = Sam2VideoConfig(
        vision_config={
            "model_type": "sam2_vision_model", "backbone_config": backbone, "backbone_channel_list": [64, 32, 16, 8],
            "backbone_feature_sizes": [[16, 16], [8, 8], [4, 4]], "fpn_hidden_size": 128,
        },
        prompt_encoder_config={"hidden_size": 128, "image_size": 64, "patch_size": 16, "mask_input_channels": 4},
        mask_decoder_config={"hidden_size": 128, "mlp_dim": 32, "num_attention_heads": 2, "iou_head_hidden_dim": 32},
        image_size=64, num_maskmem=3, memory_attention_hidden_size=128, memory_attention_num_layers=1,
        memory_attention_num_attention_heads=1, memory_attention_feed_forward_hidden_size=32,
        memory_attention_rope_feat_sizes=[4, 4], memory_encoder_hidden_size=128, memory_encoder_output_channels=64,
        mask_downsampler_embed_dim=128, memory_fuser_embed_dim=128, memory_fuser_intermediate_dim=32, memory_fuser_num_layers=1,
    )  # fmt: skip
    model = Sam2VideoModel(config)
    torch.nn.init.constant_(
        model.mask_decoder.pred_obj_score_head.proj_out.bias, 10.0
    )  # it sees its object in every frame
    model.save_pretrained(folder)
    return folder


def git(folder: Path, words: list[str], frames: int | None = 6, seed: int = 0) -> Path:
    """GIT of videos, or with `frames=None` of pictures, whose tokens are words."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    torch.manual_seed(seed)
    vocabulary = {word: number for number, word in enumerate(("[PAD]", "[UNK]", "[CLS]", "[SEP]", *words))}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    special = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special)
    config = GitConfig(
        vision_config={
            "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 16,
            "patch_size": 8,
        },
        vocab_size=len(vocabulary), hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
        max_position_embeddings=64, num_image_with_embedding=frames, bos_token_id=2, eos_token_id=3, pad_token_id=0,
    )  # fmt: skip
    model = GitForCausalLM(config)
    model.generation_config.eos_token_id = None  # it writes as many words as it may
    model.save_pretrained(folder)
    size = {"size": {"shortest_edge": 16}, "crop_size": {"height": 16, "width": 16}}
    GitProcessor(CLIPImageProcessorPil(**size), fast).save_pretrained(folder)
    return folder


def llama(folder: Path, seed: int = 0) -> Path:
    """A Llama of random weights with a chat template."""
    texts = ['{"name": "a man", "categories": ["a cup"]}', "hello you there", '{"CATEGORY": "None"}']
    tokenizer = train_tokenizer(texts, 400)
    tokenizer.chat_template = (
        "{% for m in messages %}<s> {{ m['role'] }}: {{ m['content'] }}\n{% endfor %}"
        "{% if add_generation_prompt %}assistant: {% endif %}"
    )
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=2, bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id, pad_token_id=0,
        initializer_range=0.3,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def kosmos2(folder: Path, seed: int = 0) -> Path:
    """Kosmos-2 at 32 pixels."""
    tokenizer = train_tokenizer(["an image of a snowman warming himself by a fire"], 400)
    processor = Kosmos2Processor(
        CLIPImageProcessorPil(size={"height": 32, "width": 32}, do_center_crop=False), tokenizer
    )
    torch.manual_seed(seed)
    config = Kosmos2Config(
        text_config={"vocab_size": len(processor.tokenizer), "embed_dim": 16, "layers": 1, "ffn_dim": 32, "attention_heads": 2,
                     "max_position_embeddings": 256},
        vision_config={"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2,
                       "image_size": 32, "patch_size": 16},
        latent_query_num=64,
    )  # fmt: skip
    Kosmos2ForConditionalGeneration(config).save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder

"""
New models from nothing: a preset of sizes, a tokenizer trained on captions, random weights, laid out as published checkpoints are.

    python -m train new --preset tiny --captions shapes/train.jsonl --output checkpoints/start

Who has GLaMM's weights starts from these instead, as the paper does: `python -m modeling_grove.convert_grove --init-from-glamm`.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers, trainers
from transformers import GenerationConfig, LlamaTokenizer

from dataset_builders.command_line import emit
from dataset_builders.sources import iter_source
from modeling_grove import GroveConfig, GroveForConditionalGeneration, GroveProcessor
from modeling_grove.checkpoint_config_grove import GROVE_TOKENS
from modeling_grove.checkpoint_io_grove import atomic_directory
from modeling_grove.convert_grove import make_processor
from modeling_grove.text_grove import (
    DET_TOKEN,
    PHRASE_END_TOKEN,
    PHRASE_START_TOKEN,
    QUESTION_TEMPLATES,
    VIDEO_END_TOKEN,
    VIDEO_START_TOKEN,
    VIDEO_TOKEN,
    build_prompt,
)

from .training_arguments import json_object

_SPECIAL = ("<unk>", "<s>", "</s>")
_BYTES = tuple(f"<0x{value:02X}>" for value in range(256))  # what no piece covers is spelled in these

# Sizes of new models, as arguments of `GroveConfig`; ids and the size of the vocabulary are those of the tokenizer.
PRESETS: dict[str, dict[str, Any]] = {
    # For GroundedShapes on a processor: all of a 128 x 128 picture in both streams, 4.4 M parameters.
    "tiny": {
        "text_config": {
            "hidden_size": 160,
            "intermediate_size": 416,
            "num_hidden_layers": 4,
            "num_attention_heads": 5,
            "num_key_value_heads": 5,
            "max_position_embeddings": 512,
            "initializer_range": 0.06,
            "tie_word_embeddings": True,
        },
        "vision_config": {
            "hidden_size": 96,
            "intermediate_size": 384,
            "num_hidden_layers": 5,
            "num_attention_heads": 4,
            "image_size": 128,
            "patch_size": 16,
            "projection_dim": 96,
        },
        "grounding_config": {
            "hidden_size": 128,
            "num_hidden_layers": 4,
            "num_attention_heads": 4,
            "global_attn_indexes": (1, 3),
            "output_channels": 64,
            "num_pos_feats": 32,
            "image_size": 128,
            "patch_size": 16,
            "window_size": 8,
            "initializer_range": 0.06,
            "decoder_num_attention_heads": 4,
            "decoder_mlp_dim": 256,
        },
        "video_pool_size": (8, 4, 4),
        "vision_adapter_interval": 2,
        "tie_word_embeddings": True,
    },
}


def train_tokenizer(texts: Iterable[str], vocab_size: int = 1024) -> LlamaTokenizer:
    """
    A tokenizer that treats text as Llama's does (pieces begin words, bytes spell what is unknown) with GROVE's tokens.

    Args:
        texts (`Iterable[str]`):
            Captions. They are lower-cased, as training answers are.
        vocab_size (`int`, *optional*, defaults to 1024):
            Pieces at most, the bytes among them.
    """
    pieces = Tokenizer(models.BPE(unk_token=_SPECIAL[0], fuse_unk=True, byte_fallback=True))
    # Pieces end where words and punctuation do.
    pieces.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Metaspace(replacement="\u2581", prepend_scheme="first"),
            pre_tokenizers.Punctuation(behavior="isolated"),
            pre_tokenizers.Split("\n", behavior="isolated"),
        ]
    )
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size, special_tokens=[*_SPECIAL, *_BYTES], show_progress=False, min_frequency=2
    )
    pieces.train_from_iterator((text.lower() for text in texts), trainer)
    model = json.loads(pieces.to_str())["model"]
    tokenizer = LlamaTokenizer(vocab=model["vocab"], merges=[tuple(pair) for pair in model["merges"]])
    # As in released checkpoints: the tags of phrases are ordinary added tokens, GROVE's own are special, and `<video>` comes
    # last, because it has no row in the embeddings.
    tokenizer.add_tokens([AddedToken(sentence, normalized=False) for sentence in prompt_sentences()])
    tokenizer.add_tokens([PHRASE_START_TOKEN, PHRASE_END_TOKEN])
    tokenizer.add_special_tokens({"extra_special_tokens": [*GROVE_TOKENS, VIDEO_TOKEN]})
    tokenizer.pad_token = tokenizer.unk_token
    tokenizer.padding_side = "left"
    return tokenizer


def prompt_sentences() -> list[str]:
    """
    What stands around the video in every prompt, and the questions. Each becomes one token: a prompt of 85 tokens would be most
    of a small model's work. Another question is spelled in pieces.
    """
    prompts = [build_prompt(question) for question in QUESTION_TEMPLATES]
    before, _, behind = prompts[0].partition(f"{VIDEO_START_TOKEN}{VIDEO_TOKEN}{VIDEO_END_TOKEN}")
    introduction, _, answer = behind.partition(QUESTION_TEMPLATES[0])
    return [before, introduction, *QUESTION_TEMPLATES, answer]


def new_config(preset: str, tokenizer: LlamaTokenizer, **changes: Any) -> GroveConfig:
    """
    The config of a preset with the ids of a tokenizer.

    Args:
        preset (`str`): one of [`PRESETS`].
        tokenizer (`LlamaTokenizer`): as [`train_tokenizer`] makes it.
        changes (*optional*): fields of [`GroveConfig`] that differ; of the sub-configs, those that are named.

    Raises:
        `ValueError`: if there is no such preset, or the fields do not fit together.
    """
    if preset not in PRESETS:
        raise ValueError(f"--preset: expected one of {', '.join(PRESETS)}, got {preset!r}")
    sizes = {
        name: {**PRESETS[preset][name], **value} if name.endswith("_config") else value
        for name, value in {**PRESETS[preset], **changes}.items()
    }
    ids = tokenizer.get_vocab()
    text = {
        "vocab_size": ids[VIDEO_TOKEN],
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
        "rms_norm_eps": 1e-5,
    }
    try:
        return GroveConfig(
            **{**sizes, "text_config": {**text, **sizes["text_config"]}},
            video_token_id=ids[VIDEO_TOKEN],
            video_start_token_id=ids[VIDEO_START_TOKEN],
            video_end_token_id=ids[VIDEO_END_TOKEN],
            phrase_start_token_id=ids[PHRASE_START_TOKEN],
            phrase_end_token_id=ids[PHRASE_END_TOKEN],
            det_token_id=ids[DET_TOKEN],
        )
    except StrictDataclassError as error:
        raise ValueError(f"--config-overrides: {str(error).strip().splitlines()[-1].strip()}") from None


def new_model(
    preset: str, tokenizer: LlamaTokenizer, seed: int = 0, **changes: Any
) -> tuple[GroveForConditionalGeneration, GroveProcessor]:
    """
    A model with random weights and its processor; see [`new_config`] for the arguments. The same seed gives the same weights.
    """
    config = new_config(preset, tokenizer, **changes)
    torch.manual_seed(seed)
    model = GroveForConditionalGeneration(config)
    _widen(model)
    model.generation_config = GenerationConfig(
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        max_new_tokens=64,
        do_sample=False,
    )
    return model, make_processor(config, tokenizer)


@torch.no_grad()
def _widen(model: GroveForConditionalGeneration) -> None:
    """
    Gives the dense layers between the parts that are usually pre-trained weights that keep the scale of their input. With the small
    ones of language models, attention in the box decoder begins as a mean over all places and takes long to become anything else.
    """
    parts = (model.model.box_decoder, model.model.phrase_projector, model.model.multi_modal_projector)
    for part in parts:
        for module in part.modules():
            if isinstance(module, torch.nn.Linear):
                module.weight.normal_(std=module.in_features**-0.5)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of the command."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = __doc__
    parser.add_argument("--preset", choices=PRESETS, default="tiny", help="sizes (default: %(default)s)")
    parser.add_argument(
        "--captions", required=True, action="append", metavar="DATA",
        help="records whose captions the tokenizer is trained on: JSONL, shard, folder or Hub repository; may be given again",
    )  # fmt: skip
    parser.add_argument("--split", help="split of the captions, where the data has several")
    parser.add_argument("--vocab-size", type=int, default=1024, help="pieces at most (default: %(default)s)")
    parser.add_argument("--config-overrides", default="{}", metavar="JSON", help="fields of GroveConfig that differ")
    parser.add_argument("--seed", type=int, default=0, help="of the weights (default: %(default)s)")
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="new folder for the model")
    parser.add_argument("--json", action="store_true", help="print the result as one JSON line")


def run(args: argparse.Namespace) -> int:
    """Makes the model."""
    changes = json_object("--config-overrides", args.config_overrides)
    least = len(_SPECIAL) + len(_BYTES) + 1
    if args.vocab_size < least:
        raise ValueError(f"--vocab-size: expected at least {least}, as bytes are pieces too, got {args.vocab_size}")

    def captions() -> Iterator[str]:
        for source in args.captions:
            for record, _ in iter_source(source, split=args.split):
                yield str(record.get("caption", ""))

    tokenizer = train_tokenizer(captions(), args.vocab_size)
    model, processor = new_model(args.preset, tokenizer, args.seed, **changes)
    with atomic_directory(args.output) as folder:
        model.save_pretrained(folder)
        processor.save_pretrained(folder)
    count = sum(parameter.numel() for parameter in model.parameters())
    result = {"model": str(args.output), "parameters": count, "tokens": len(tokenizer)}
    emit(result, f"{args.output}: {count:,} parameters, {len(tokenizer)} tokens", args.json)
    return 0


__all__ = ["PRESETS", "new_config", "new_model", "train_tokenizer"]

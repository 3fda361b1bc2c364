"""
Makes the demo model: an untrained GROVE of toy width with the inputs of the released one, in the layout of a published checkpoint.

    python tests/demo_checkpoint.py [DIRECTORY]

What users meet has its real size (8 frames, 336 and 512 px, 576 video tokens, the prompt), so the real processors, windows and
pipeline run; the widths are tiny, and nobody has trained it.
"""

import argparse
import shutil
from pathlib import Path

import torch
from transformers import CLIPVisionConfig, GenerationConfig, LlamaConfig, PreTrainedTokenizerBase

from modeling_grove import GroveConfig, GroveForConditionalGeneration, GroveGroundingConfig
from modeling_grove.convert_grove import load_tokenizer, make_processor

ROOT = Path(__file__).parents[1]
TOKENIZER = ROOT / "tests" / "golden" / "grove" / "tokenizer" / "final"
CHECKPOINT = ROOT / "checkpoints" / "grove-demo"
SEED = 10  # says something short, with phrases


def demo_config() -> GroveConfig:
    """Real input sizes, toy widths and depths, and the ids of the toy SentencePiece vocabulary of the golden data."""
    return GroveConfig(
        text_config=LlamaConfig(
            initializer_range=0.2,
            vocab_size=458,
            hidden_size=64,
            intermediate_size=128,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=4,
            max_position_embeddings=2048,
            rms_norm_eps=1e-5,
            pad_token_id=0,
        ),
        vision_config=CLIPVisionConfig(
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=3,
            num_attention_heads=2,
            image_size=336,
            patch_size=14,
            projection_dim=32,
        ),
        grounding_config=GroveGroundingConfig(
            hidden_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            mlp_dim=64,
            global_attn_indexes=(1,),
            output_channels=32,
            num_pos_feats=16,
            decoder_num_attention_heads=2,
            decoder_mlp_dim=64,
        ),
        phrase_start_token_id=453,
        phrase_end_token_id=454,
        video_start_token_id=455,
        video_end_token_id=456,
        det_token_id=457,
        video_token_id=458,
    )


@torch.no_grad()
def liven_up(model: GroveForConditionalGeneration, tokenizer: PreTrainedTokenizerBase) -> None:
    """
    Makes the random answers worth drawing: words instead of bytes, and a phrase now and then. It teaches the model nothing.
    """
    config, rows = model.config, model.lm_head.weight
    for index, piece in enumerate(tokenizer.convert_ids_to_tokens(range(len(rows)))):
        if not (piece.startswith("\u2581") and len(piece) > 3 and piece[1:].isalpha()):
            rows[index] = 0  # a score of 0 is never the highest
    for index, length in (
        (config.phrase_start_token_id, 1.6),
        (config.phrase_end_token_id, 3.0),
        (tokenizer.eos_token_id, 1.2),
    ):
        rows[index] = length * config.text_config.initializer_range * torch.randn_like(rows[index])


def save_demo_checkpoint(directory: Path) -> None:
    """Writes the model, its tokenizer and its processor; replaces what is there. The same versions write the same bytes."""
    config = demo_config()
    tokenizer = load_tokenizer(TOKENIZER, config)
    torch.manual_seed(SEED)
    model = GroveForConditionalGeneration(config).eval()
    liven_up(model, tokenizer)
    model.generation_config = GenerationConfig(
        bos_token_id=1, eos_token_id=2, pad_token_id=0, max_new_tokens=64, do_sample=False
    )
    shutil.rmtree(directory, ignore_errors=True)
    model.save_pretrained(directory)
    make_processor(config, tokenizer).save_pretrained(directory)
    for path in directory.iterdir():
        path.chmod(0o644)


def main() -> None:
    parser = argparse.ArgumentParser(description="Make the untrained demo model.")
    parser.add_argument("directory", nargs="?", type=Path, default=CHECKPOINT, help="default: %(default)s")
    save_demo_checkpoint(parser.parse_args().directory)


if __name__ == "__main__":
    main()

"""
A trained model as a folder to give away: weights alone, in half the size if asked for, loaded in the precision of before.

    python -m train export outputs/tiny/ft --dtype float16 --output checkpoints/grove-tiny
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch

from dataset_builders.command_line import emit
from modeling_grove import GroveForConditionalGeneration, GroveProcessor
from modeling_grove.checkpoint_io_grove import atomic_directory
from modeling_grove.remote_code_grove import add_remote_code

from .lora import is_peft_folder

_DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


def export(source: Path, output: Path, dtype: str | None = None, with_code: bool = False) -> int:
    """
    Writes a model with its processor.

    Args:
        source (`Path`):
            Folder of a run, or a checkpoint of it.
        output (`Path`):
            New folder. It appears complete or not at all.
        dtype (`str`, *optional*):
            Of the weights on disk; by default that in which the source loads. `config.json` keeps the precision of the
            source, in which `from_pretrained` then loads them.
        with_code (`bool`, *optional*, defaults to `False`):
            Add the code for `trust_remote_code=True`.

    Returns:
        `int`: bytes of the weights.

    Raises:
        `ValueError`: if the source is no GROVE model, or has weights that the precision cannot hold.
    """
    if not (source / "config.json").is_file():
        raise ValueError(f"{source}: no config.json; expected the folder of a run or a checkpoint")
    if is_peft_folder(source):
        raise ValueError(
            f"{source}: has low-rank weights; run `python -m train merge` first, and export what that writes"
        )
    model = GroveForConditionalGeneration.from_pretrained(source)
    processor = GroveProcessor.from_pretrained(source)
    loaded = str(model.dtype).removeprefix("torch.")
    if dtype is not None:
        kept = model.model.box_decoder.positional_embedding.clone()
        model = model.to(_DTYPES[dtype])
        # The frequencies of the box decoder's positions stay exact, as they do when a model is loaded in less.
        model.model.box_decoder.positional_embedding = kept
        lost = [name for name, value in model.named_parameters() if not bool(torch.isfinite(value).all())]
        if lost:
            raise ValueError(f"--dtype: {dtype} cannot hold {lost[0]}; take bfloat16, or leave it out")
    with atomic_directory(output) as folder:
        model.save_pretrained(folder)
        processor.save_pretrained(folder)
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        config["dtype"] = loaded
        (folder / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")
        if with_code:
            add_remote_code(folder)
        for path in folder.iterdir():
            path.chmod(0o644)
    return sum(path.stat().st_size for path in output.glob("*.safetensors"))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", type=Path, metavar="DIR", help="folder of a run, or a checkpoint of it")
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="new folder for the model")
    parser.add_argument("--dtype", choices=_DTYPES, help="of the weights on disk (default: that in which they load)")
    parser.add_argument("--with-code", action="store_true", help="add the code for trust_remote_code=True")
    parser.add_argument("--json", action="store_true", help="print the result as one JSON line")


def run(args: argparse.Namespace) -> int:
    """Writes the folder."""
    size = export(args.source, args.output, args.dtype, args.with_code)
    result = {"model": str(args.output), "weights_bytes": size}
    emit(result, f"{args.output}: {size / 1e6:.1f} MB of weights", args.json)
    return 0


__all__ = ["export"]

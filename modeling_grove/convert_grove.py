"""
Converts original GROVE checkpoints, and starts new ones from GLaMM: `python -m modeling_grove.convert_grove --help`.

Every tensor of the sources and of the model is accounted for, or nothing is written. Tensors are moved one at a time: the
memory needed is one output shard and one tensor, whatever the size of the model.
"""

import argparse
import json
import os
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor
from tqdm import tqdm
from transformers import GenerationConfig, LlamaTokenizer, PreTrainedTokenizerBase

from .checkpoint_config_grove import GLAMM_TOKENS, GROVE_TOKENS, describe_original, first_stated
from .checkpoint_io_grove import (
    CheckpointError,
    OriginalCheckpoint,
    ShardWriter,
    atomic_directory,
    locate_checkpoint,
    one_line,
    parse_size,
)
from .checkpoint_map_grove import GROVE_ONLY, config_from_original
from .checkpoint_plan_grove import (
    ConversionPlan,
    ReportRow,
    TargetTensor,
    fresh_tensor,
    make_plan,
    merge_checkpoints,
    report_rows,
    tensor_rows,
    totals,
)
from .configuration_grove import GroveConfig
from .processing_grove import GroveProcessor
from .text_grove import VIDEO_TOKEN
from .video_processing_grove import GroveVideoProcessor

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}

_EPILOG = """\
examples:
  # the published safetensors, by Hub id or from a directory
  python -m modeling_grove.convert_grove --source ekazakos/grove --output checkpoints/grove

  # a released .bin over the GLaMM checkpoint that it was trained from
  python -m modeling_grove.convert_grove --source grove_ft_iground.bin --base MBZUAI/GLaMM-GranD-Pretrained \\
      --clip openai/clip-vit-large-patch14-336 --output checkpoints/grove-iground

  # a new model to pre-train: GLaMM's weights, closed adapters, fresh heads
  python -m modeling_grove.convert_grove --init-from-glamm --source MBZUAI/GLaMM-GranD-Pretrained \\
      --clip openai/clip-vit-large-patch14-336 --output checkpoints/grove-init

Of a tensor that several sources have, that of --source is used, then --base's, --clip's, --sam's. Pickles (.bin, .pth) are read
without running code. Errors are one line on standard error, with exit status 2.
"""


@dataclass
class ConversionReport:
    """
    What a conversion did.

    output (`Path`): the directory of the new checkpoint.
    config ([`GroveConfig`]): of the new model.
    plan ([`ConversionPlan`]): what became of every tensor.
    sources (`dict[str, str]`): the checkpoints that were read, and their layout.
    files (`list[str]`): the weight files written.
    alphas (`dict[str, list[float]]`): gates of the adapters of each video encoder.
    notes (`list[str]`): values that no file states, and what is worth knowing.
    """

    output: Path
    config: GroveConfig
    plan: ConversionPlan
    sources: dict[str, str]
    files: list[str] = field(default_factory=list)
    alphas: dict[str, list[float]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @property
    def rows(self) -> list[ReportRow]:
        """The account by module."""
        return report_rows(self.plan)

    @property
    def totals(self) -> dict[str, int]:
        """Tensors and parameters of the sources and of the model."""
        return totals(self.plan)


def convert(
    source: str | os.PathLike,
    output: str | os.PathLike,
    *,
    base: str | os.PathLike | None = None,
    clip: str | os.PathLike | None = None,
    sam: str | os.PathLike | None = None,
    init_from_glamm: bool = False,
    dtype: Literal["float32", "bfloat16", "float16"] | None = None,
    max_shard_size: str | int = "5GB",
    seed: int = 0,
    show_progress: bool = False,
) -> ConversionReport:
    """
    Args:
        source (`str` or `os.PathLike`):
            Directory, weight file or Hub id of an original GROVE checkpoint; of a GLaMM one with `init_from_glamm`.
        output (`str` or `os.PathLike`):
            New directory. It appears complete or not at all.
        base, clip, sam (`str` or `os.PathLike`, *optional*):
            Checkpoints in GLaMM's, CLIP's and SAM's naming that supply what `source` leaves out, in this order.
        init_from_glamm (`bool`, *optional*, defaults to `False`):
            Make a new model with fresh adapters (gates closed) and heads, rows for GROVE's tokens, and the corrected behaviour.
        dtype (`str`, *optional*):
            Precision of the new checkpoint; by default the one that most parameters of `source` have.
        max_shard_size (`str` or `int`, *optional*, defaults to `"5GB"`):
            Size of a weight file, and the memory that is needed.
        seed (`int`, *optional*, defaults to 0):
            Of what is drawn with `init_from_glamm`.

    Raises:
        CheckpointError: if a source cannot be read, a tensor is unexplained or missing, the tokenizer does not fit, or `output`
            exists.
    """
    output = Path(output)
    shard_bytes = parse_size(max_shard_size)
    # The sibling that is written into comes first: an output that cannot be written is found out before the downloads.
    with atomic_directory(output) as partial:
        given = {"source": source, "base": base, "clip": clip, "sam": sam}
        checkpoints = {
            label: OriginalCheckpoint(label, locate_checkpoint(path))
            for label, path in given.items()
            if path is not None
        }
        report = _plan(checkpoints, output, init_from_glamm, dtype)
        tokenizer = load_tokenizer(_tokenizer_directory(checkpoints), report.config)
        _write_weights(report, checkpoints, partial, shard_bytes, seed, show_progress)
        report.config.save_pretrained(partial)
        _generation_config(report.config).save_pretrained(partial)
        make_processor(report.config, tokenizer).save_pretrained(partial)
    return report


def _plan(
    checkpoints: dict[str, OriginalCheckpoint], output: Path, init_from_glamm: bool, dtype: str | None
) -> ConversionReport:
    """Everything that can be known before a tensor is read."""
    original_files = [checkpoints[label] for label in ("source", "base") if label in checkpoints]
    hub = first_stated(checkpoint.read_json("config.json") for checkpoint in original_files)
    if "grounding_config" in hub:
        raise CheckpointError(
            f"{checkpoints['source'].path} is in this package's format already; there is nothing to convert."
        )
    origins = {"source": "grove", "base": "grove", "clip": "clip", "sam": "sam"}
    sources = merge_checkpoints({label: (origins[label], each.tensors) for label, each in checkpoints.items()})
    if init_from_glamm:
        for each in sources:
            if GROVE_ONLY.fullmatch(each.name_in_grove):
                raise CheckpointError(
                    f"--init-from-glamm starts from GLaMM, but {each.checkpoint} has {each.name!r}, which is GROVE's; "
                    "leave the option out to convert a GROVE checkpoint."
                )
    shapes: dict[str, tuple[int, ...]] = {}
    for each in sources:
        shapes.setdefault(each.name_in_grove, each.info.shape)
    clip_config = checkpoints["clip"].read_json("config.json") if "clip" in checkpoints else None
    stated = first_stated(checkpoint.read_json("original_config.json") for checkpoint in original_files)
    original, notes = describe_original(shapes, hub, clip_config or {}, stated, new_tokens=init_from_glamm)
    torch_dtype = DTYPES[dtype] if dtype else _majority_dtype(checkpoints["source"])
    try:
        config = config_from_original(original, torch_dtype, original_behaviour=not init_from_glamm)
    except CheckpointError:
        raise
    except (ValueError, KeyError) as error:  # the config's own checks
        raise CheckpointError(f"The checkpoint's sizes do not make a GROVE model: {one_line(error)}") from error
    for part in (config, *(getattr(config, name) for name in config.sub_configs)):
        part.dtype = torch_dtype
    config.architectures = ["GroveForConditionalGeneration"]
    return ConversionReport(
        output=output,
        config=config,
        plan=make_plan(sources, config, fresh=init_from_glamm),
        sources={label: f"{each.path} ({each.layout})" for label, each in checkpoints.items()},
        notes=notes,
    )


def _majority_dtype(checkpoint: OriginalCheckpoint) -> torch.dtype:
    sizes: Counter[torch.dtype] = Counter()
    for info in checkpoint.tensors.values():
        sizes[info.dtype] += info.numel
    dtype = sizes.most_common(1)[0][0]
    if dtype not in DTYPES.values():
        raise CheckpointError(f"{checkpoint.path} is mostly {dtype}; expected {', '.join(DTYPES)}, or state --dtype.")
    return dtype


def _write_weights(
    report: ConversionReport,
    checkpoints: dict[str, OriginalCheckpoint],
    directory: Path,
    shard_bytes: int,
    seed: int,
    show_progress: bool,
) -> None:
    """Moves the tensors of the plan one by one and notes the gates of the adapters on the way."""
    config = report.config
    writer = ShardWriter(directory, shard_bytes)
    for target in tqdm(report.plan.targets, desc="converting", unit="tensor", disable=not show_progress):
        tensor = _materialise(target, checkpoints, config, seed)
        if target.name.endswith(".alpha"):
            branch = "vision" if ".vision_tower." in target.name else "grounding"
            report.alphas.setdefault(branch, []).append(float(tensor))
        writer.add(target.name, tensor)
    report.files = [file.name for file in writer.close()]


@torch.no_grad()
def _materialise(
    target: TargetTensor, checkpoints: dict[str, OriginalCheckpoint], config: GroveConfig, seed: int
) -> Tensor:
    """A tensor of the new model, in memory of its own."""
    if target.source is None:
        return fresh_tensor(target.name, config, seed).to(config.dtype)
    tensor = checkpoints[target.source.checkpoint].read(target.source.name)
    if target.transform is not None:
        tensor = target.transform(tensor)
    return tensor.to(config.dtype, copy=True, memory_format=torch.contiguous_format)


def _tokenizer_directory(checkpoints: dict[str, OriginalCheckpoint]) -> Path:
    for label in ("source", "base"):
        if label in checkpoints:
            directory = checkpoints[label].directory
            if (directory / "tokenizer.model").exists() or (directory / "tokenizer.json").exists():
                return directory
    looked = " or ".join(str(checkpoints[label].directory) for label in ("source", "base") if label in checkpoints)
    raise CheckpointError(
        f"No tokenizer.model or tokenizer.json in {looked}; put the checkpoint's tokenizer files there, "
        "or give the GLaMM that it was trained from with --base."
    )


def load_tokenizer(directory: Path, config: GroveConfig) -> PreTrainedTokenizerBase:
    """
    The Llama tokenizer of a GROVE or GLaMM checkpoint with all of GROVE's tokens.

    GLaMM's tokens stay ordinary added tokens and GROVE's are special, as in training: the pieces around them depend on it.
    `<video>` comes last and has no row in the embeddings. Padding is on the left, with `<unk>`.

    Args:
        directory (`Path`): with `tokenizer.model` or `tokenizer.json` and what belongs to them.
        config ([`GroveConfig`]): the model whose ids it must give.

    Raises:
        CheckpointError: if it cannot be loaded or gives a token another id than the model's.
    """
    try:
        # Not the Auto class: config.json may name the original's classes, which do not exist here.
        tokenizer = LlamaTokenizer.from_pretrained(directory)
    except (OSError, ValueError, ImportError) as error:
        raise CheckpointError(f"The tokenizer in {directory} cannot be loaded: {one_line(error)}") from error
    # Those that it lacks are added, in this order.
    tokenizer.add_special_tokens({"extra_special_tokens": [*GROVE_TOKENS, VIDEO_TOKEN]})
    tokenizer.pad_token = tokenizer.unk_token
    tokenizer.padding_side = "left"

    text: Any = config.text_config
    first = text.vocab_size - len(GLAMM_TOKENS) - len(GROVE_TOKENS)
    expected = {token: first + index for index, token in enumerate(GLAMM_TOKENS + GROVE_TOKENS)}
    expected[VIDEO_TOKEN] = config.video_token_id
    expected |= {"<s>": text.bos_token_id, "</s>": text.eos_token_id, "<unk>": text.pad_token_id}
    vocabulary = tokenizer.get_vocab()
    if wrong := {token: vocabulary.get(token) for token, value in expected.items() if vocabulary.get(token) != value}:
        raise CheckpointError(
            f"The tokenizer in {directory} does not belong to the {text.vocab_size} rows of the weights: it gives {wrong}; "
            f"expected { ({token: expected[token] for token in wrong}) }."
        )
    return tokenizer


def make_processor(config: GroveConfig, tokenizer: PreTrainedTokenizerBase) -> GroveProcessor:
    """The processor that gives a model of this config what it takes."""
    vision: Any = config.vision_config
    grounding: Any = config.grounding_config
    video_processor = GroveVideoProcessor(
        size={"shortest_edge": vision.image_size},
        crop_size={"height": vision.image_size, "width": vision.image_size},
        grounding_size=grounding.image_size,
        window_size=config.num_frames,
    )
    return GroveProcessor(
        video_processor=video_processor, tokenizer=tokenizer, num_video_tokens=config.num_video_tokens
    )


def _generation_config(config: GroveConfig) -> GenerationConfig:
    """Greedy, and as long as the original lets a caption be."""
    text: Any = config.text_config
    return GenerationConfig(
        bos_token_id=text.bos_token_id,
        eos_token_id=text.eos_token_id,
        pad_token_id=text.pad_token_id,
        max_new_tokens=64,
        do_sample=False,
    )


def _gate_lines(alphas: dict[str, list[float]]) -> list[str]:
    """What the gates say; adapters with a closed gate are skipped at inference."""
    lines = []
    for branch, values in alphas.items():
        closed = sum(value == 0 for value in values)
        state = (
            "all exactly 0: skipped at inference" if closed == len(values) else f"{closed} of {len(values)} exactly 0"
        )
        lines.append(f"{branch} adapters: alpha {state} ({', '.join(f'{value:.4g}' for value in values)})")
    return lines


def _table(rows: Sequence[ReportRow], sums: dict[str, int]) -> list[str]:
    """The account as text: a line for each module, then the sums."""
    cells = [("status", "module", "from", "tensors", "parameters", "note")]
    cells += [(r.status, r.module, r.checkpoint, f"{r.tensors:,}", f"{r.parameters:,}", r.note) for r in rows]
    widths = [max(len(row[column]) for row in cells) for column in range(5)]
    align: list[Callable[[str, int], str]] = [str.ljust, str.ljust, str.ljust, str.rjust, str.rjust]
    lines = []
    for row in cells:
        columns = [pad(cell, width) for pad, cell, width in zip(align, row[:5], widths, strict=True)]
        lines.append("  ".join([*columns, row[5]]).rstrip())
    parts = [f"{sums[f'{status}_tensors']:,} {status}" for status in ("converted", "dropped", "superseded")]
    lines.append("")
    lines.append(
        f"source  {sums['source_tensors']:,} tensors, {sums['source_parameters']:,} parameters: {', '.join(parts)}; 0 unexplained"
    )
    lines.append(
        f"model   {sums['target_tensors']:,} tensors, {sums['target_parameters']:,} parameters: "
        f"{sums['converted_tensors']:,} converted, {sums['fresh_tensors']:,} fresh; 0 missing"
    )
    return lines


def print_report(report: ConversionReport, *, as_json: bool, verbose: bool) -> None:
    """The account of a conversion on standard output: a table, or JSON lines with the totals in the last."""
    if as_json:
        records: list[dict[str, Any]] = [asdict(row) for row in report.rows]
        records += [{"tensor": row} for row in tensor_rows(report.plan)] if verbose else []
        closing = {
            "output": str(report.output),
            "files": report.files,
            "dtype": str(report.config.dtype).removeprefix("torch."),
            "sources": report.sources,
            "totals": report.totals,
            "alphas": report.alphas,
            "notes": report.notes,
        }
        lines = [json.dumps(record) for record in [*records, closing]]
    else:
        lines = [f"{label}: {text}" for label, text in report.sources.items()] + [""]
        if verbose:
            lines += [
                f"{row['status']}  {row['source'] or '(drawn)'} -> {row.get('target') or row['note']}  {row['source_shape'] or ''}"
                for row in tensor_rows(report.plan)
            ] + [""]
        lines += _table(report.rows, report.totals)
        lines += _gate_lines(report.alphas)
        lines += [f"note: {note}" for note in report.notes]
        dtype = str(report.config.dtype).removeprefix("torch.")
        lines.append(f"wrote {len(report.files)} weight file(s) in {dtype} to {report.output}")
    print("\n".join(lines))  # noqa: T201


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m modeling_grove.convert_grove",
        description="Convert an original GROVE checkpoint to this package's format, or start a new model from GLaMM.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--source", required=True, metavar="PATH|ID", help="checkpoint directory, weight file or Hub id"
    )
    parser.add_argument("--output", required=True, metavar="DIR", help="new directory; appears complete or not at all")
    parser.add_argument("--base", metavar="PATH|ID", help="GLaMM checkpoint that supplies what --source leaves out")
    parser.add_argument("--clip", metavar="PATH|ID", help="OpenAI CLIP ViT-L/14-336, which GLaMM leaves out")
    parser.add_argument("--sam", metavar="PATH|ID", help="SAM in its own naming, for a GLaMM without it")
    parser.add_argument(
        "--init-from-glamm",
        action="store_true",
        help="--source is GLaMM: make a new GROVE with fresh adapters and heads, at the corrected behaviour",
    )
    parser.add_argument("--dtype", choices=list(DTYPES), help="precision of the output (default: as in --source)")
    parser.add_argument("--max-shard-size", default="5GB", metavar="SIZE", help="size of a weight file (default: 5GB)")
    parser.add_argument("--seed", type=int, default=0, help="of the fresh weights of --init-from-glamm (default: 0)")
    parser.add_argument("--verbose", action="store_true", help="list every tensor")
    parser.add_argument("--json", action="store_true", help="print the account as JSON lines")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit status."""
    options = vars(_parser().parse_args(arguments))
    as_json, verbose = options.pop("json"), options.pop("verbose")
    try:
        report = convert(**options, show_progress=sys.stderr.isatty())
    except (CheckpointError, OSError) as error:
        print(f"error: {one_line(error)}", file=sys.stderr)  # noqa: T201
        return 2
    except KeyboardInterrupt:
        print("error: interrupted; nothing was written", file=sys.stderr)  # noqa: T201
        return 2
    print_report(report, as_json=as_json, verbose=verbose)
    return 0


if __name__ == "__main__":
    sys.exit(main())


__all__ = ["ConversionReport", "convert", "load_tokenizer", "main", "make_processor", "print_report"]

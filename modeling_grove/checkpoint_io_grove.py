"""
Reading original checkpoints tensor by tensor, whatever files they are in, and writing safetensors shards: what
`convert_grove` needs to move a model that does not fit into memory.
"""

import json
import os
import pickle
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HFValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

_PICKLE_SUFFIXES = (".bin", ".pth", ".pt")
_INDEX_NAMES = ("model.safetensors.index.json", "pytorch_model.bin.index.json")
_TEXT_PATTERNS = ["*.json", "tokenizer.model"]
# Files beside the weights that a trainer or an optimizer leaves.
_NOT_WEIGHTS = re.compile(r"(training_args|optimizer|scheduler|scaler|rng_state).*")
# Mapped pages count as memory of the process until the mapping goes, so a pickle is mapped anew after this many bytes.
_REMAP_BYTES = 64 * 2**20
_SAFETENSORS_DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}


class CheckpointError(ValueError):
    """A checkpoint cannot be read, converted or written; the message is one line that says what to do."""


@dataclass(frozen=True)
class TensorInfo:
    """Shape and precision of a tensor that is still on disk."""

    shape: tuple[int, ...]
    dtype: torch.dtype

    @property
    def numel(self) -> int:
        return torch.Size(self.shape).numel()


def locate_checkpoint(source: str | os.PathLike) -> Path:
    """
    Args:
        source (`str` or `os.PathLike`): a directory, a weight file, or a Hub id, which is downloaded to the cache: configuration,
            tokenizer and safetensors, or the `.bin` files of a repository that has no safetensors.

    Raises:
        CheckpointError: if it is neither, or the Hub does not give it.
    """
    path = Path(source)
    if path.exists():
        return path
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", str(source)):
        raise CheckpointError(
            f"{source} does not exist; expected a directory, a weight file or a Hub id such as org/name."
        )
    try:
        local = Path(snapshot_download(str(source), allow_patterns=[*_TEXT_PATTERNS, "*.safetensors"]))
        if not any(local.glob("*.safetensors")):
            local = Path(snapshot_download(str(source), allow_patterns=[*_TEXT_PATTERNS, "*.bin"]))
    except (OSError, HFValidationError) as error:  # the Hub's own errors are OSErrors
        raise CheckpointError(f"{source} is no local path, and the Hub did not give it: {one_line(error)}") from error
    return local


def one_line(error: BaseException) -> str:
    """The first line of an error's message."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def read_json(path: Path) -> dict:
    """A JSON object from a file; raises CheckpointError when it is not one."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be read as JSON: {one_line(error)}") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path} holds a JSON {type(content).__name__}; expected an object.")
    return content


def _weight_files(path: Path) -> list[Path]:
    """The files that together hold the checkpoint at `path`: a file, or a directory with one file or one set of shards."""
    if path.is_file():
        return [path]
    for name in _INDEX_NAMES:
        if (path / name).exists():
            weight_map = read_json(path / name).get("weight_map")
            if not isinstance(weight_map, dict) or not weight_map:
                raise CheckpointError(f"{path / name} has no weight_map; expected the file of every tensor.")
            files = [path / file for file in sorted(set(weight_map.values()))]
            if missing := [file.name for file in files if not file.exists()]:
                raise CheckpointError(
                    f"{path} lacks {', '.join(missing)}, which {name} names; download the missing shards."
                )
            return files
    for suffixes in ((".safetensors",), _PICKLE_SUFFIXES):
        files = sorted(
            file for file in path.iterdir() if file.suffix in suffixes and not _NOT_WEIGHTS.fullmatch(file.stem)
        )
        if not files:
            continue
        shards = [re.fullmatch(r"(.+)-(\d+)-of-(\d+)", file.stem) for file in files]
        totals = {(match[1], int(match[3])) for match in shards if match}
        if len(files) == 1 and not totals:
            return files
        if all(shards) and len(totals) == 1:
            (_, total), *_ = totals
            if len(files) != total:
                raise CheckpointError(f"{path} has {len(files)} of {total} shards; download the missing ones.")
            return files
        raise CheckpointError(
            f"{path} has several weight files and no index: {', '.join(file.name for file in files)}; give one of them as the path."
        )
    raise CheckpointError(
        f"{path} has no weights; expected *.safetensors, *.bin or *.pth, or the index of their shards."
    )


def _load_pickle(file: Path) -> Mapping[str, Tensor]:
    """The tensors of a `torch.save` file, mapped from disk. Code in the pickle is never run."""
    try:
        content = torch.load(file, map_location="cpu", weights_only=True, mmap=True)
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{file} holds more than tensors, and such a pickle can run code: it is refused. "
            "Expected a state dict saved with torch.save."
        ) from error
    except (RuntimeError, OSError, EOFError, ValueError) as error:
        raise CheckpointError(f"{file} is damaged or not a torch.save archive: {one_line(error)}") from error
    if not isinstance(content, Mapping):
        raise CheckpointError(f"{file} holds a {type(content).__name__}; expected a state dict, names to tensors.")
    for name, value in content.items():
        if not isinstance(value, Tensor):
            raise CheckpointError(
                f"{file} has {name!r} of type {type(value).__name__}; expected a plain state dict, names to tensors."
            )
    return content


class OriginalCheckpoint:
    """
    The tensors of a checkpoint on disk, read one at a time.

    Args:
        label (`str`): what messages and reports call it.
        path (`Path`): a directory or a weight file.

    Raises:
        CheckpointError: if the weights are missing, damaged, ambiguous, or a pickle that is more than tensors.
    """

    def __init__(self, label: str, path: Path):
        self.label = label
        self.path = path
        self.directory = path if path.is_dir() else path.parent
        self.files = _weight_files(path)
        self.tensors: dict[str, TensorInfo] = {}
        self._file_of: dict[str, Path] = {}
        self._mapped: tuple[Path, Mapping[str, Tensor]] | None = None
        self._mapped_bytes = 0
        for file in self.files:
            for name, info in self._scan(file).items():
                if name in self.tensors:
                    raise CheckpointError(
                        f"{file} and {self._file_of[name]} both have {name!r}; expected each tensor in one file."
                    )
                self.tensors[name] = info
                self._file_of[name] = file
        if not self.tensors:
            raise CheckpointError(f"{path} holds no tensors; expected a checkpoint.")

    @property
    def layout(self) -> str:
        """`safetensors` or `bin`, with the number of files."""
        kind = "safetensors" if self.files[0].suffix == ".safetensors" else "bin"
        return f"{kind}, {len(self.files)} file{'s' if len(self.files) > 1 else ''}"

    def _scan(self, file: Path) -> dict[str, TensorInfo]:
        if file.suffix != ".safetensors":
            return {name: TensorInfo(tuple(value.shape), value.dtype) for name, value in _load_pickle(file).items()}
        infos = {}
        try:
            with safe_open(file, framework="pt") as handle:
                for name in handle.keys():  # noqa: SIM118 (not a mapping)
                    view = handle.get_slice(name)
                    if (dtype := _SAFETENSORS_DTYPES.get(view.get_dtype())) is None:
                        raise CheckpointError(
                            f"{file} has {name!r} in {view.get_dtype()}; expected one of {', '.join(_SAFETENSORS_DTYPES)}."
                        )
                    infos[name] = TensorInfo(tuple(view.get_shape()), dtype)
        except (SafetensorError, OSError) as error:
            raise CheckpointError(f"{file} is damaged or not a safetensors file: {one_line(error)}") from error
        return infos

    def read(self, name: str) -> Tensor:
        """The tensor `name`, mapped from disk: copy it and let go of it before the next one is read."""
        file = self._file_of[name]
        if file.suffix == ".safetensors":
            with safe_open(file, framework="pt") as handle:
                return handle.get_tensor(name)
        if self._mapped is None or self._mapped[0] != file or self._mapped_bytes > _REMAP_BYTES:
            self._mapped, self._mapped_bytes = None, 0
            self._mapped = (file, _load_pickle(file))
        tensor = self._mapped[1][name]
        self._mapped_bytes += tensor.nbytes
        return tensor

    def read_json(self, name: str) -> dict | None:
        """A JSON file beside the weights, `None` where there is none."""
        path = self.directory / name
        return read_json(path) if path.exists() else None


def parse_size(size: str | int) -> int:
    """`"5GB"`, `"500MB"`, `"64KB"` (powers of 1000) or a number of bytes -> bytes."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(KB|MB|GB|)", str(size).strip().upper())
    if match is None or not (result := int(float(match[1]) * {"": 1, "KB": 1e3, "MB": 1e6, "GB": 1e9}[match[2]])):
        raise CheckpointError(f"The maximum shard size is {size!r}; expected a positive size such as 5GB or 500MB.")
    return result


class ShardWriter:
    """
    Writes tensors into safetensors shards as they come; one shard is in memory at a time.

    Args:
        directory (`Path`): where `model.safetensors`, or `model-*.safetensors` with their index, go.
        max_shard_size (`int`): bytes of a shard; a larger tensor gets one of its own.
    """

    def __init__(self, directory: Path, max_shard_size: int):
        self.directory = directory
        self.max_shard_size = max_shard_size
        self._shard: dict[str, Tensor] = {}
        self._shard_bytes = 0
        self._written: list[tuple[Path, list[str]]] = []
        self._total_bytes = 0

    def add(self, name: str, tensor: Tensor) -> None:
        """Takes a tensor; the caller must not write to it afterwards."""
        if self._shard and self._shard_bytes + tensor.nbytes > self.max_shard_size:
            self._flush()
        self._shard[name] = tensor
        self._shard_bytes += tensor.nbytes

    def _flush(self) -> None:
        file = self.directory / f"shard-{len(self._written):05d}.safetensors"
        try:
            save_file(self._shard, file, metadata={"format": "pt"})
        except SafetensorError as error:
            raise CheckpointError(f"{file} cannot be written: {one_line(error)}") from error
        self._written.append((file, list(self._shard)))
        self._total_bytes += self._shard_bytes
        self._shard, self._shard_bytes = {}, 0

    def close(self) -> list[Path]:
        """Writes what is left and the index, gives the shards their final names and returns them."""
        if self._shard:
            self._flush()
        count = len(self._written)
        if count == 1:
            return [self._written[0][0].rename(self.directory / "model.safetensors")]
        files, weight_map = [], {}
        for number, (file, names) in enumerate(self._written, 1):
            final = self.directory / f"model-{number:05d}-of-{count:05d}.safetensors"
            files.append(file.rename(final))
            weight_map.update(dict.fromkeys(names, final.name))
        index = {"metadata": {"total_size": self._total_bytes}, "weight_map": dict(sorted(weight_map.items()))}
        (self.directory / _INDEX_NAMES[0]).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")
        return files


@contextmanager
def atomic_directory(output: Path) -> Iterator[Path]:
    """
    A hidden sibling of `output` to write into, which takes its name when the block ends well. Whatever happens before, a kill
    included, there is no `output`; what a killed run leaves in the sibling is removed by the next.

    Raises:
        CheckpointError: if `output` exists and is not an empty directory.
    """
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise CheckpointError(f"{output} exists and is not an empty directory; give another output or remove it.")
    partial = output.absolute().parent / f".{output.absolute().name}.partial"
    if partial.exists():
        shutil.rmtree(partial)
    partial.mkdir(parents=True)
    try:
        yield partial
        partial.rename(output)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


__all__ = [
    "CheckpointError",
    "OriginalCheckpoint",
    "ShardWriter",
    "TensorInfo",
    "atomic_directory",
    "locate_checkpoint",
    "one_line",
    "parse_size",
    "read_json",
]

"""
Compares our GROVE with numbers recorded from the original code.

    python tests/parity.py DIR...

DIR is a recorded case (laid out as in tests/golden/grove), a folder of cases, or one of the JSON tables beside them.
Every recorded tensor gives one line: case, name, largest error, tolerance, worst error / allowed error, verdict. Exits 1
when a tolerance is exceeded, when a recorded tensor is missing or is not compared with anything, when a case cannot be
run, and when one is not recognised.
"""

import argparse
import os
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

# As a script and as a module of a test: the other parity modules, and before them the package.
sys.path.insert(0, str(Path(__file__).resolve().parent))
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import parity_cases
import parity_glamm
import parity_parts
import parity_tables
from parity_report import RecordedCase, Report


class Kind(NamedTuple):
    """A kind of case: it has all outputs named in `markers`, or for a table any of the entries; `check` runs it."""

    name: str
    markers: tuple[str, ...]
    check: Callable[[RecordedCase, Report], None]


# A case is recognised by what it holds, not by its name.
DIRECTORIES = (
    Kind("training step", ("pred_boxes.b0", "loss", "last_hidden_state"), parity_cases.check_full),
    Kind("generation", ("new_ids", "hidden_concat"), parity_cases.check_generate),
    Kind("dense inference", ("windows", "answer_ids"), parity_cases.check_dense),
    Kind("GLaMM", ("sam_embeddings", "tf_seg_embeddings"), parity_glamm.check_glamm),
)
TABLES = (
    Kind(
        "prompts",
        ("parse", "padded_batch", "truncated_batch", "inference_prompt", "postprocess"),
        parity_tables.check_prompts,
    ),
    Kind("tokenizer", ("examples", "pretrained_true"), parity_tables.check_tokenizer),
    Kind("sampling", ("by_T", "frame_ids"), parity_tables.check_sampling),
    Kind("GLaMM's tokenizer", ("by_transformers_version",), parity_glamm.check_tokenization),
    Kind("full-size names", ("total_parameters", "never_used_in_forward"), parity_parts.check_manifest),
)
COMPONENTS = {
    "clip_adapter.y",
    "sam_adapter.y",
    "sam_block_window.y",
    "sam_block_global.y",
    "pool.y",
    "decoder.boxes",
    "giou.loss",
}
TOKENIZER_FILES = ("tokenizer_config.json", "tokenizer.model", "tokenizer.json", "added_tokens.json")


def recognise(case: RecordedCase) -> Kind | None:
    """The kind of a case, or `None`."""
    if case.path.is_file():
        return next((kind for kind in TABLES if set(kind.markers) & set(case.meta)), None)
    if not (case.path / "meta.json").is_file():
        return None
    outputs = case.listed_outputs
    if (case.path / "original_config.json").is_file():
        return next((kind for kind in DIRECTORIES if set(kind.markers) <= outputs), None)
    if {"frames_formula", "clips"} <= set(case.meta):
        return Kind("preprocessing", (), parity_parts.check_preprocess)
    if outputs & COMPONENTS:
        return Kind("components", (), parity_parts.check_components)
    return None


def find_cases(path: Path) -> Iterator[Path]:
    """Case directories and tables at or below `path`; a directory in which nothing is found is yielded itself, to be refused."""
    if path.is_file() or (path / "meta.json").is_file() or any(path.glob("*.safetensors")):
        yield path
        return
    found = False
    for child in sorted(path.iterdir()):
        if child.is_dir():
            if any((child / name).is_file() for name in TOKENIZER_FILES):
                found = True  # belongs to the cases beside it
                continue
        elif child.suffix != ".json":
            continue
        found = True
        yield from find_cases(child)
    if not found:
        yield path


def run_case(path: Path, name: str | None = None) -> Report:
    """
    Runs one case.

    Args:
        path (`Path`): its directory or JSON file.
        name (`str`, *optional*): for the report; by default that of the path.

    Returns:
        [`Report`] whose `lines` hold the comparisons. Anything that goes wrong is a failed line, and its traceback goes to stderr.
    """
    case = RecordedCase(path, name or path.name)
    report = Report(case)
    try:
        kind = recognise(case)
        if kind is None:
            report.fail("-", "not recognised: no known kind of case has these files and tensors")
            return report
        kind.check(case, report)
        report.finish()
    except Exception as error:  # the other cases are still run
        traceback.print_exc()
        report.fail("-", f"error: {type(error).__name__}: {error}".splitlines()[0])
    return report


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "directories", metavar="DIR", nargs="+", type=Path, help="a case, a folder of cases, or a JSON table"
    )
    parser.add_argument("--failures-only", action="store_true", help="print only the lines that fail, and the summary")
    options = parser.parse_args(arguments)
    failed = compared = cases = 0
    for directory in options.directories:
        if not directory.exists():
            parser.error(f"{directory} does not exist; give a directory of recorded cases")
        for path in find_cases(directory):
            name = (
                os.path.relpath(path.resolve(), directory.resolve()) if path != directory else directory.resolve().name
            )
            report = run_case(path, name)
            cases += 1
            compared += len(report.lines)
            failed += sum(line.failed for line in report.lines)
            for line in report.lines:
                if line.failed or not options.failures_only:
                    print(line)
            worst = max((line.ratio for line in report.lines), default=0.0)
            print(f"{name}: {len(report.lines)} compared, worst error / tolerance {worst:.3g}", flush=True)
    print(f"{cases} cases, {compared} comparisons, {failed} failed")
    return 1 if failed or not compared else 0


if __name__ == "__main__":
    sys.exit(main())

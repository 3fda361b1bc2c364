"""`python -m eval ablate`: the paper's ablation tables and figures with its numbers beside those of result folders."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from dataset_builders.command_line import emit
from eval.ablation_tables import comparison_table, document
from eval.paper import ADAPTERS, ANNOTATION, IGROUND, PaperTable
from eval.text_similarity import TEXT_SIMILARITIES
from modeling_grove.grounded_caption import atomic_path

from .data_scale import COLUMNS, scale_lines, scale_notes, scale_points
from .paper_comparison import comparison, comparison_notes
from .result_folder import ResultFolder, named_folders

# Study: the paper's table that it fills.
COMPARISONS = {"adapters": ADAPTERS, "annotation": ANNOTATION, "baselines": IGROUND}

_EXAMPLES = """examples:
  python -m eval ablate threshold results/demo --text-similarity head-word --output results/threshold
  python -m eval ablate scale pt:1k=results/a pt:10k=results/b pt+ft:1k=results/c pt+ft:10k=results/d --output results/scale
  python -m eval ablate adapters both=results/a unfreeze=results/b adapters=results/c --output results/adapters
  python -m eval ablate baselines glamm=results/center automatic=results/automatic pt+ft=results/demo --output results/table2

A result folder is what `python -m eval run` or `python -m eval score --output` writes. Every study prints its table and writes
STUDY.md, STUDY.json and STUDY.png (scale: also scale_corrected.png) to --output. A NAME that the paper does not have becomes a
row of its own.
"""


class Study(NamedTuple):
    """What a study found: its title, table, notes, what goes into the JSON file, and how to draw it."""

    title: str
    table: str
    notes: list[str]
    content: dict[str, Any]
    draw: Callable[[Path], Sequence[Path]]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of the command."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = _EXAMPLES
    studies = parser.add_subparsers(dest="study", required=True, metavar="STUDY")
    sweep = studies.add_parser("threshold", help="objectness thresholds 0.0 to 0.95, from one run (Figure 6)")
    sweep.add_argument("result", type=Path, metavar="DIR", help="result folder with predictions.jsonl")
    sweep.add_argument(
        "--annotations", type=Path, metavar="FILE", help="records predicted (default: DIR/references.jsonl)"
    )
    sweep.add_argument(
        "--text-similarity",
        choices=TEXT_SIMILARITIES,
        default="bert",
        help="of phrases, for Recall (default: %(default)s)",
    )
    sweep.add_argument("--text-model", metavar="DIR", help="local folder or Hub name of the text encoder")
    sweep.add_argument("--device", help="where the text encoder runs")
    scale = studies.add_parser("scale", help="number of clips for pre-training (Figure 5)")
    scale.add_argument(
        "results",
        nargs="+",
        metavar="CURVE:CLIPS=DIR",
        help="such as pt:10k=DIR or pt+ft:1M=DIR; 0 clips is no pre-training",
    )
    for name, table in COMPARISONS.items():
        study = studies.add_parser(name, help=f"{table.title[0].lower()}{table.title[1:]} ({table.name})")
        keys = ", ".join(table.keys)
        study.add_argument("results", nargs="+", metavar="NAME=DIR", help=f"NAME is one of {keys}, or another")
    for study in studies.choices.values():
        study.add_argument("--output", type=Path, required=True, metavar="DIR", help="folder for the files")
        study.add_argument("--json", action="store_true", help="print the numbers as one JSON line")


def run(args: argparse.Namespace) -> int:
    """Makes the study, writes its files, and prints its table."""
    study = _threshold(args) if args.study == "threshold" else _of_folders(args.study, args.results)
    args.output.mkdir(parents=True, exist_ok=True)
    pictures = study.draw(args.output / f"{args.study}.png")
    content = {"study": args.study, **study.content, "notes": study.notes}
    _write(
        args.output / f"{args.study}.json", json.dumps(content, ensure_ascii=False, indent=2, allow_nan=False) + "\n"
    )
    page = document(study.title, study.table, study.notes, [picture.name for picture in pictures])
    _write(args.output / f"{args.study}.md", page)
    notes = "\n".join(f"- {note}" for note in study.notes)
    emit(content, f"{study.title}\n\n{study.table}\n\n{notes}", as_json=args.json)
    return 0


def _of_folders(name: str, values: Sequence[str]) -> Study:
    folders = {key: ResultFolder.load(path) for key, path in named_folders(values).items()}
    study = _scale(folders) if name == "scale" else _comparison(COMPARISONS[name], folders)
    return study._replace(content={**study.content, "runs": {key: of.provenance for key, of in folders.items()}})


def _comparison(table: PaperTable, folders: dict[str, ResultFolder]) -> Study:
    from .pictures import comparison_plot

    lines = comparison(table, folders)
    return Study(
        f"{table.title} ({table.name})",
        comparison_table(lines, table.columns),
        comparison_notes(table, folders),
        {"table": table.name, "columns": [*table.columns], "lines": [line.to_dict() for line in lines]},
        lambda path: [comparison_plot(table, lines, path)],
    )


def _scale(folders: dict[str, ResultFolder]) -> Study:
    from .pictures import scale_plot

    points = scale_points(folders)
    lines = scale_lines(points)
    protocols = list(dict.fromkeys(protocol for point in points for protocol in point.result.protocols))

    def draw(path: Path) -> list[Path]:
        # The protocols measure different things: each has its own picture.
        others = {protocol: path.with_stem(f"{path.stem}_{protocol}") for protocol in protocols[1:]}
        return [scale_plot(points, protocol, others.get(protocol, path)) for protocol in protocols]

    return Study(
        "Size of the pre-training data (Figure 5)",
        comparison_table(lines, COLUMNS, heading="clips"),
        scale_notes(points),
        {"columns": [*COLUMNS], "lines": [line.to_dict() for line in lines]},
        draw,
    )


def _threshold(args: argparse.Namespace) -> Study:
    # Here, as the other studies need neither the metrics nor a text encoder.
    from eval.text_similarity import text_similarity

    from .pictures import sweep_plot
    from .threshold_sweep import sweep_notes, sweep_table, threshold_sweep

    folder = ResultFolder.load(args.result)
    references, predictions = folder.references(args.annotations), folder.predictions()
    similarity = text_similarity(args.text_similarity, args.text_model, args.device)
    rows = threshold_sweep(references, predictions, similarity)
    return Study(
        "Objectness threshold (Figure 6)",
        sweep_table(rows),
        sweep_notes(rows, folder.measured_on),
        {"text_similarity": similarity.name, "rows": rows, "run": folder.provenance},
        lambda path: [sweep_plot(rows, path)],
    )


def _write(path: Path, text: str) -> None:
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")

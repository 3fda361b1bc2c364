"""
The paper's findings as experiments on GroundedShapes, one command each:

    python -m train study stages --output outputs/studies
    python -m train study scale --output outputs/studies --seeds 0 1 2
    python -m train study adapters --output outputs/studies
    python -m train study noise --output outputs/studies
    python -m train study threshold --output outputs/studies

Studies share their runs and data in the output folder, and a study that was stopped goes on where it was. Each writes
NAME.md, NAME.json and NAME.png; a difference counts as found if it is larger than the spread of the seeds.
"""

from __future__ import annotations

import argparse
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from dataset_builders.command_line import emit
from eval.__main__ import main as eval_command
from eval.ablation_tables import document, markdown_table
from eval.plots import Point, RowNames, RowPanel, plot_rows
from eval.provenance import describe_machine
from eval.result_files import write_json
from modeling_grove.grounded_caption import atomic_path

from .study_runs import SIZES, Run, Study, StudySizes, all_runs, needed_runs, studies
from .study_world import make_world, run_command

logger = logging.getLogger(__name__)

RECIPES = Path(__file__).parent / "recipes"
TEST_SEED = 7  # of a world that no training has seen
METRICS = ("CIDEr", "AP50", "Recall")
# Of all annotated phrases, and of those that the caption has too.
PRESENCE, PAIRED_PRESENCE = "presence F1", "presence F1, paired"
_FOLDERS = ("modeling_grove", "dataset_builders", "eval", "train")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of the command."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.description = __doc__
    parser.add_argument(
        "study",
        choices=(*studies(SIZES["small"]), "threshold"),
        metavar="STUDY",
        help="stages, scale, adapters, noise, threshold",
    )
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="folder of data, runs and results")
    parser.add_argument(
        "--seeds", type=int, nargs="+", default=[0], metavar="N", help="of the runs; several give a spread (default: 0)"
    )
    parser.add_argument("--size", choices=SIZES, default="small", help="how large (default: %(default)s)")
    parser.add_argument("--workers", type=int, default=2, help="processes that make data (default: %(default)s)")
    parser.add_argument("--json", action="store_true", help="print the numbers as one JSON line")


def run(args: argparse.Namespace) -> int:
    """Runs what is missing, and writes the study."""
    sizes = SIZES[args.size]
    if len(set(args.seeds)) != len(args.seeds):
        raise ValueError(f"--seeds: a seed is given twice in {args.seeds}")
    name = "stages" if args.study == "threshold" else args.study
    study = studies(sizes)[name]
    work = _Work(args.output.resolve() / args.size, sizes, args.workers)
    if args.study == "threshold":
        name, seed = study.runs["PT + FT"], args.seeds[0]
        work.scores(name, seed)
        predicted = work.output / "results" / f"{name}-s{seed}"
        line = ["ablate", "threshold", str(predicted), "--text-similarity", "head-word", "--output", str(args.output)]
        return eval_command([*line, "--json"] if args.json else line)
    results = {title: [work.scores(run_name, seed) for seed in args.seeds] for title, run_name in study.runs.items()}
    content = report(study, results, args.seeds)
    content |= {"study": args.study, "sizes": asdict(sizes), **describe_machine("cpu", _FOLDERS)}
    notes = notes_of(study, content, sizes)
    write_json(args.output / f"{args.study}.json", content)
    picture = draw(study, results, args.output / f"{args.study}.png")
    table = table_of(study, results)
    with atomic_path(args.output / f"{args.study}.md") as temporary:
        temporary.write_text(document(study.title, table, notes, [picture.name]), encoding="utf-8")
    emit(content, f"{study.title}\n\n{table}\n\n" + "\n".join(f"- {note}" for note in notes), args.json)
    return 0


class _Work:
    """The runs in a folder."""

    def __init__(self, output: Path, sizes: StudySizes, workers: int) -> None:
        self.output, self.sizes = output, sizes
        self.world, self.runs = output / "world", all_runs(sizes)
        self._made: set[Path] = set()
        make_world(self.world, sizes.pretraining, sizes.finetuning, sizes.stills, workers)
        self._make_start()

    def _make_start(self) -> None:
        """The model of stills: the same for all seeds, as there is one GLaMM."""
        new = self.output / "runs" / "new"
        if not new.exists():
            captions: list[str | Path] = [
                "--captions",
                self.world / "noisy.jsonl",
                "--captions",
                self.world / "stills.jsonl",
            ]
            run_command("train", "new", "--preset", "tiny", *captions, "--output", new)
        vision = self.output / "runs" / "vision"
        run_command(
            "train", "vision", new, "--stills", self.world / "stills.jsonl", "--videos", self.world / "shapes" / "videos",
            "--output", vision, "--steps", str(self.sizes.vision_steps),
        )  # fmt: skip
        self._train(
            self.output / "runs" / "stills", "pt", "stills_shapes", vision, 0,
            {"train_data": self.world / "stills", "videos": self.world / "shapes" / "videos",
             "max_steps": self.sizes.still_steps},
        )  # fmt: skip

    def train(self, run: Run, seed: int) -> Path:
        """The folder of a run, which is trained if it was not before, after what it starts from."""
        first = run.start == "stills"
        start = self.output / "runs" / "stills" if first else self.train(self.runs[run.start], seed)
        data = self.world / (f"noisy-{run.clips}" if run.clips else "clean")
        steps = self.sizes.pt_steps if run.stage == "pt" else self.sizes.ft_steps
        output = self.output / "runs" / f"{run.name}-s{seed}"
        changes = {
            "trainable": self.sizes.policy,
            "train_data": data,
            "max_steps": steps,
            "per_device_train_batch_size": self.sizes.batch,
            **run.changes,
        }
        return self._train(output, run.stage, f"{run.stage}_shapes", start, seed, changes)

    def _train(self, output: Path, stage: str, recipe: str, start: Path, seed: int, changes: Mapping[str, Any]) -> Path:
        # What is finished says so, or that it was made with other settings.
        if output not in self._made:
            settings = {
                "model_name_or_path": start,
                "output_dir": output,
                "seed": seed,
                "eval_strategy": "no",
                "benchmark_clips": 0,
                "sample_steps": 0,
                "report_to": "none",
                **changes,
            }
            options = [part for name, value in settings.items() for part in (f"--{name}", str(value))]
            run_command(stage, "--config", RECIPES / f"{recipe}.yaml", *options)
            self._made.add(output)
        return output

    def scores(self, name: str, seed: int) -> dict[str, Any]:
        """The scores of a run on the test clips."""
        if name == "pseudo-labels":
            return self._pseudo_labels(seed)
        for needed in needed_runs(Study("", "", {"": name}, ()), self.runs):
            self.train(needed, seed)
        results = self.output / "results" / f"{name}-s{seed}"
        if not (results / "results.json").exists():
            model = self.output / "runs" / f"{name}-s{seed}"
            run_command(
                "eval", "run", "iground", "--model", model, "--data", f"shapes:{TEST_SEED}:{self.sizes.test}",
                "--split", "test", "--text-similarity", "head-word", "--batch-size", "8", "--window-batch-size", "24",
                "--output", results,
            )  # fmt: skip
        return json.loads((results / "results.json").read_text(encoding="utf-8"))

    def _pseudo_labels(self, seed: int) -> dict[str, Any]:
        """The automatic annotation of the test clips: their truth, as noisy as what was pre-trained on."""
        results = self.output / "results" / f"pseudo-labels-s{seed}"
        if not (results / "results.json").exists():
            folder = self.output / "world" / "test"
            truth, noisy = folder / "test.jsonl", folder / f"noisy-{seed}.jsonl"
            run_command(
                "dataset_builders", "shapes", "--output", folder, "--split", f"test={self.sizes.test}",
                "--seed", str(TEST_SEED),
            )  # fmt: skip
            run_command("dataset_builders", "noise", truth, "--output", noisy, "--seed", str(seed))
            run_command(
                "eval", "score", "iground", "--annotations", truth, "--predictions", noisy,
                "--text-similarity", "head-word", "--output", results,
            )  # fmt: skip
        return json.loads((results / "results.json").read_text(encoding="utf-8"))


def values_of(result: Mapping[str, Any]) -> dict[str, float | None]:
    """The numbers of a result: both protocols, and presence, in percent."""
    values: dict[str, float | None] = {}
    for protocol, headline in result["headline"].items():
        values |= {f"{metric} ({protocol})": headline.get(metric) for metric in METRICS}
    presence = result["statistics"].get("presence", {})
    for name, found in ((PRESENCE, presence), (PAIRED_PRESENCE, presence.get("paired", {}))):
        values[name] = None if found.get("f1") is None else 100 * found["f1"]
    return values


def columns_of(results: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[str]:
    """The columns of a table: CIDEr is the same under both protocols, if every clip is predicted."""
    names = list(dict.fromkeys(name for rows in results.values() for row in rows for name in values_of(row)))
    return [name for name in names if name != "CIDEr (official)"]


def mean_and_spread(values: Sequence[float | None]) -> tuple[float, float, float] | None:
    """Mean, least and most over the seeds; `None` if there is none."""
    known = [value for value in values if value is not None]
    return (sum(known) / len(known), min(known), max(known)) if known else None


def table_of(study: Study, results: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    """Mean of the seeds, and half of their range."""
    columns = columns_of(results)
    cells = [["", *columns]]
    for title, rows in results.items():
        line = [title]
        for column in columns:
            found = mean_and_spread([values_of(row).get(column) for row in rows])
            line.append("-" if found is None else f"{found[0]:.1f} ± {(found[2] - found[1]) / 2:.1f}")
        cells.append(line)
    return markdown_table(cells)


def report(study: Study, results: Mapping[str, Sequence[Mapping[str, Any]]], seeds: Sequence[int]) -> dict[str, Any]:
    """What the study found, as JSON types."""
    columns = columns_of(results)
    rows = {
        title: {column: [values_of(row).get(column) for row in found] for column in columns}
        for title, found in results.items()
    }
    findings = []
    for metric, above, below in study.expected:
        column = f"{metric} (corrected)"
        first, second = mean_and_spread(rows[above][column]), mean_and_spread(rows[below][column])
        if first is None or second is None:
            continue
        spread = max(first[2] - first[1], second[2] - second[1])
        difference = first[0] - second[0]
        findings.append(
            {"metric": column, "above": above, "below": below, "difference": difference, "spread": spread,
             "verdict": _verdict(difference, spread, len(seeds))}
        )  # fmt: skip
    return {"title": study.title, "paper": study.paper, "seeds": [*seeds], "rows": rows, "findings": findings}


def _verdict(difference: float, spread: float, num_seeds: int) -> str:
    """Whether a difference is what the paper found."""
    direction = "as in the paper" if difference > 0 else "unlike the paper"
    if num_seeds == 1:
        return f"{direction}; one seed, so its spread is not known"
    if abs(difference) <= spread:
        return f"not told apart: the seeds differ by {spread:.1f}"
    return f"{direction}; the seeds differ by {spread:.1f}"


def notes_of(study: Study, content: Mapping[str, Any], sizes: StudySizes) -> list[str]:
    """What a reader has to know: what the paper says, whether it holds here, and what was done."""
    notes = [f"Paper: {study.paper}."]
    for found in content["findings"]:
        notes.append(
            f"{found['metric']}: {found['above']} against {found['below']} {found['difference']:+.1f}, {found['verdict']}."
        )
    hardware = content["hardware"]
    notes.append(
        f"GroundedShapes, {sizes.test} test clips of a world that no run has seen; seeds "
        f"{', '.join(map(str, content['seeds']))}: mean and half of the range. Steps of {sizes.batch} clips: {sizes.pt_steps} of "
        f"pre-training, {sizes.ft_steps} of fine-tuning on {sizes.finetuning} clean clips. {hardware['processor']}, "
        f"{hardware['cores']} cores."
    )
    return notes


def draw(study: Study, results: Mapping[str, Sequence[Mapping[str, Any]]], path: Path) -> Path:
    """A panel for each metric, a row for each run, with the range of the seeds."""
    panels = []
    for column in (name for name in columns_of(results) if "official" not in name):
        rows = []
        for found in results.values():
            spread = mean_and_spread([values_of(row).get(column) for row in found])
            several = len(found) > 1
            rows.append(
                [] if spread is None else [Point("mean of the seeds", spread[0], *(spread[1:] if several else ()))]
            )
        panels.append(RowPanel(column, rows))
    return plot_rows(panels, RowNames([*results], [""] * len(results)), path, x_label="percent", bounds="their range")

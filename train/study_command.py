"""
The paper's findings as experiments on GroundedShapes, one command each:

    python -m train study stages --output outputs/studies
    python -m train study scale --output outputs/studies --seeds 0 1 2
    python -m train study adapters --output outputs/studies
    python -m train study noise --output outputs/studies
    python -m train study threshold --output outputs/studies

Studies share their runs and data in the output folder, and a study that was stopped goes on where it was. Each writes
NAME.md, NAME.json and NAME.png; a difference counts as found if its 95 % interval over the seeds leaves out 0. Seeds may run on
several machines: --merge takes in the NAME.json of the others.
"""

from __future__ import annotations

import argparse
import json
import logging
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from dataset_builders.command_line import emit
from eval.__main__ import main as eval_command
from eval.ablation_tables import document
from eval.provenance import describe_machine, describe_model
from eval.result_files import write_json
from modeling_grove.grounded_caption import atomic_path

from .study_results import draw, merge, notes_of, read_other, report, rows_of, table_of
from .study_runs import SIZES, Run, Study, StudySizes, all_runs, needed_runs, studies
from .study_world import make_world, run_command

logger = logging.getLogger(__name__)

RECIPES = Path(__file__).parent / "recipes"
TEST_SEED = 7  # of a world that no training has seen
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
    parser.add_argument(
        "--start", type=Path, metavar="DIR", help="model of single pictures that all start from (default: make one)"
    )
    parser.add_argument(
        "--merge", type=Path, nargs="+", default=[], metavar="FILE", help="NAME.json of the same study with other seeds"
    )
    parser.add_argument("--size", choices=SIZES, default="small", help="how large (default: %(default)s)")
    parser.add_argument("--workers", type=int, default=2, help="processes that make data (default: %(default)s)")
    parser.add_argument("--json", action="store_true", help="print the numbers as one JSON line")


def run(args: argparse.Namespace) -> int:
    """Runs what is missing, and writes the study."""
    sizes = SIZES[args.size]
    if len(set(args.seeds)) != len(args.seeds):
        raise ValueError(f"--seeds: a seed is given twice in {args.seeds}")
    if args.merge and (args.study == "threshold" or args.start is None):
        raise ValueError(
            "--merge: joins a study of several runs, from the model that --start names; give it, or leave both out"
        )
    # What can be wrong is found before the data are made.
    made: dict[str, Any] = {"study": args.study, "sizes": asdict(sizes)}
    others: list[dict[str, Any]] = []
    if args.start is not None:
        made["start"] = _described(args.start)
    for path in args.merge:
        others.append(read_other(path, made, [*args.seeds, *(seed for other in others for seed in other["seeds"])]))
    name = "stages" if args.study == "threshold" else args.study
    study = studies(sizes)[name]
    work = _Work(args.output.resolve() / args.size, sizes, args.workers, args.start)
    made["start"] = _described(work.start)
    if args.study == "threshold":
        name, seed = study.runs["PT + FT"], args.seeds[0]
        work.scores(name, seed)
        predicted = work.output / "results" / f"{name}-s{seed}"
        line = ["ablate", "threshold", str(predicted), "--text-similarity", "head-word", "--output", str(args.output)]
        return eval_command([*line, "--json"] if args.json else line)
    results = {title: [work.scores(run_name, seed) for seed in args.seeds] for title, run_name in study.runs.items()}
    rows, seeds = merge(rows_of(results), args.seeds, others)
    here = {"seeds": args.seeds, **describe_machine("cpu", _FOLDERS)}
    machines = [here, *(machine for other in others for machine in other["machines"])]
    content = report(study, rows, seeds) | made | {"machines": machines}
    notes = notes_of(study, content, sizes)
    write_json(args.output / f"{args.study}.json", content)
    picture = draw(study, rows, args.output / f"{args.study}.png")
    table = table_of(rows)
    with atomic_path(args.output / f"{args.study}.md") as temporary:
        temporary.write_text(document(study.title, table, notes, [picture.name]), encoding="utf-8")
    emit(content, f"{study.title}\n\n{table}\n\n" + "\n".join(f"- {note}" for note in notes), args.json)
    return 0


def _described(start: Path) -> dict[str, Any]:
    if not start.is_dir():
        raise ValueError(f"--start: no folder {str(start)!r}; expected a model, such as checkpoints/grove-tiny-stills")
    return describe_model(str(start))


class _Work:
    """The runs in a folder."""

    def __init__(self, output: Path, sizes: StudySizes, workers: int, start: Path | None = None) -> None:
        self.output, self.sizes = output, sizes
        self.world, self.runs = output / "world", all_runs(sizes)
        self._made: set[Path] = set()
        make_world(self.world, sizes.pretraining, sizes.finetuning, sizes.stills if start is None else 0, workers)
        self.start = self._make_start() if start is None else start.resolve()

    def _make_start(self) -> Path:
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
        return self._train(
            self.output / "runs" / "stills", "pt", "stills_shapes", vision, 0,
            {"train_data": self.world / "stills", "videos": self.world / "shapes" / "videos",
             "max_steps": self.sizes.still_steps},
        )  # fmt: skip

    def train(self, run: Run, seed: int) -> Path:
        """The folder of a run, which is trained if it was not before, after what it starts from."""
        start = self.start if run.start == "stills" else self.train(self.runs[run.start], seed)
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

"""
Evaluation of grounded captions, from the command line.

    python -m eval score iground --annotations val.jsonl --predictions predictions.jsonl
    python -m eval run iground --model checkpoints/grove-demo --data shapes:7 --split test --output results/demo
    python -m eval COMMAND --help
"""

import sys

from dataset_builders.command_line import run_command

COMMANDS = {
    "score": ("score_command", "score saved predictions on a benchmark, as the original code does and corrected"),
    "run": ("running", "run a model over a benchmark, then score it"),
    "ablate": ("ablations.command", "print the paper's ablation tables from result folders, and plot them"),
    "baseline": ("baselines", "turn captions of single frames, or automatic annotation, into predictions to score"),
    "metric": ("publishing", "write a metric's folder for the Hub, which `evaluate.load` reads by name"),
}


def main(arguments: list[str] | None = None) -> int:
    """Runs a command; returns its exit status (see [`~dataset_builders.command_line.run_command`])."""
    return run_command("eval", COMMANDS, arguments)


if __name__ == "__main__":
    sys.exit(main())

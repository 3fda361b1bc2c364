"""
What belongs to training beside the two stages, which are `train/pt.py` and `train/ft.py`.

    python -m train new --preset tiny --captions shapes/train.jsonl --output checkpoints/start
    python -m train COMMAND --help
"""

import sys

from dataset_builders.command_line import run_command

COMMANDS = {
    "world": ("study_world", "make the data of grove-tiny and the studies: stills, noisy clips, clean clips"),
    "new": ("new_models", "make a model with random weights and a tokenizer trained on captions"),
    "vision": ("vision_pretraining", "teach the encoders of a new model what the parts of single pictures show"),
    "study": ("study_command", "run one of the paper's findings as an experiment on GroundedShapes"),
    "export": ("export", "write a trained model as a folder to give away, in half the size if asked for"),
    "story": ("story", "tell the whole story, from raw videos to a stranger who uses what was published"),
    "merge": ("lora", "merge low-rank weights into the model that they were trained on"),
}


def main(arguments: list[str] | None = None) -> int:
    """Runs a command; returns its exit status (see [`~dataset_builders.command_line.run_command`])."""
    return run_command("train", COMMANDS, arguments)


if __name__ == "__main__":
    sys.exit(main())

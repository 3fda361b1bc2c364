"""
Data sets of grounded captions, from the command line.

    python -m dataset_builders shapes --output worlds/shapes --split train=100 --split test=20
    python -m dataset_builders shard --annotations worlds/shapes/train.jsonl --videos worlds/shapes/videos --output shards
    python -m dataset_builders COMMAND --help
"""

import sys

from .command_line import run_command

COMMANDS = {
    "import": ("importing", "turn released annotations into records (JSONL)"),
    "validate": ("validation", "check records, count problems by reason, set bad records aside"),
    "shard": ("sharding", "write records, and clips cut from the videos, as WebDataset shards"),
    "stats": ("statistics", "print the columns of the paper's Tables 1 and 10 for any data set"),
    "preview": ("preview", "write contact sheets and annotated clips of some records"),
    "export": ("exporting", "write COCO, MOT, CVAT, Label Studio or supervision files"),
    "shapes": ("shapes.command", "make GroundedShapes: videos with known captions and boxes"),
    "stills": ("shapes.stills", "turn frame captions of GroundedShapes into records of single frames"),
    "noise": ("noise", "turn true annotations into pseudo-labels as noisy as HowToGround1M"),
}


def main(arguments: list[str] | None = None) -> int:
    """Runs a command; returns its exit status (see [`~dataset_builders.command_line.run_command`])."""
    return run_command("dataset_builders", COMMANDS, arguments)


if __name__ == "__main__":
    sys.exit(main())

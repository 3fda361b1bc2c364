"""
Grounded captions for videos that nobody has annotated, from the command line.

    python -m pipeline_annotate run videos --captioner glamm:checkpoints/glamm --output annotated
    python -m pipeline_annotate stage1 worlds/videos --captioner shapes:worlds/train.frames.jsonl --output frames.jsonl
    python -m pipeline_annotate stage2 frames.jsonl --output captions.jsonl
    python -m pipeline_annotate stage3 frames.jsonl captions.jsonl --output records.jsonl
    python -m pipeline_annotate COMMAND --help
"""

import sys

from dataset_builders.command_line import run_command

COMMANDS = {
    "run": ("run_command", "all of it: videos in, shards out, in several processes or on a cluster"),
    "stage1": ("stage1", "caption the frames of videos, with boxes"),
    "stage2": ("stage2", "make one caption for each clip from those of its frames"),
    "stage3": ("stage3", "give boxes of frames the labels of the clip's caption: records"),
    "scenes": ("scenes", "make a table of clips, cut where the scene changes"),
    "check": ("check", "say whether a run could start, and what it will cost"),
    "stats": ("stats", "say how far a run is, what it dropped, and what it made"),
    "quality": ("quality", "measure ways to annotate on GroundedShapes, where the truth is known"),
    "glamm": ("glamm_checkpoints", "convert an official GLaMM checkpoint, the paper's captioner of frames"),
}


def main(arguments: list[str] | None = None) -> int:
    """Runs a command; returns its exit status (see [`~dataset_builders.command_line.run_command`])."""
    return run_command("pipeline_annotate", COMMANDS, arguments)


if __name__ == "__main__":
    sys.exit(main())

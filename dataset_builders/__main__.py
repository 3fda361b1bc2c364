"""
Data sets of grounded captions, from the command line.

    python -m dataset_builders shapes --output worlds/shapes --split train=100 --split test=20
    python -m dataset_builders shard --annotations worlds/shapes/train.jsonl --videos worlds/shapes/videos --output shards
    python -m dataset_builders COMMAND --help
"""

import importlib
import logging
import os
import sys

from .command_line import Parser, complain

# Command: the module that has it, and what it does. Modules are imported when their command is asked for.
COMMANDS = {
    "import": ("importing", "turn released annotations into records (JSONL)"),
    "validate": ("validation", "check records, count problems by reason, set bad records aside"),
    "shard": ("sharding", "write records, and clips cut from the videos, as WebDataset shards"),
    "stats": ("statistics", "print the columns of the paper's Tables 1 and 10 for any data set"),
    "preview": ("preview", "write contact sheets and annotated clips of some records"),
    "export": ("exporting", "write COCO, MOT, CVAT, Label Studio or supervision files"),
    "shapes": ("shapes.command", "make GroundedShapes: videos with known captions and boxes"),
    "noise": ("noise", "turn true annotations into pseudo-labels as noisy as HowToGround1M"),
}


def _help() -> str:
    lines = [
        "usage: python -m dataset_builders COMMAND [options]",
        "",
        "commands:",
        *(f"  {name:10} {text}" for name, (_, text) in COMMANDS.items()),
        "",
        "python -m dataset_builders COMMAND --help explains a command.",
    ]
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    """Runs a command; returns its exit status: 0, 2 when something asked for could not be done, 130 when interrupted, 141
    when what reads the output wants no more of it (`| head`)."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if not arguments or arguments[0] in ("-h", "--help"):
        print(_help(), file=sys.stdout if arguments else sys.stderr)
        return 0 if arguments else 2
    name, *rest = arguments
    if name not in COMMANDS:
        return complain(f"no command {name!r}; expected one of {', '.join(COMMANDS)}")
    logging.basicConfig(format="%(message)s", level=logging.INFO, stream=sys.stderr)
    for client in ("httpx", "httpx2"):  # a line for every request; huggingface_hub has had both
        logging.getLogger(client).setLevel(logging.WARNING)
    module_name, description = COMMANDS[name]
    module = importlib.import_module(f".{module_name}", __package__)
    parser = Parser(
        prog=f"python -m dataset_builders {name}", description=f"{description[0].upper()}{description[1:]}."
    )
    module.add_arguments(parser)
    args = parser.parse_args(rest)
    try:
        return module.run(args)
    except BrokenPipeError:
        # Nothing can be said and nothing is wrong: the status is that of programs that the signal SIGPIPE ends, 128 + 13, as
        # 130 is that of an interrupted one. What is left in the buffer must not raise once more when Python exits.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except (ValueError, OSError) as error:
        return complain(str(error))
    except KeyboardInterrupt:
        complain("interrupted; what was finished before stays")
        return 130


if __name__ == "__main__":
    sys.exit(main())

"""What the command lines of this house share: choosing a command, a parser whose errors are one line, output, and progress.

A command is a module with `add_arguments(parser)` and `run(args) -> int`. Results go to standard output, as JSON lines with
`--json`; progress and warnings to standard error; an error is a `ValueError`, which ends the command with one line there and
exit status 2.
"""

from __future__ import annotations

import argparse
import importlib
import json
import logging
import os
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sized
from typing import Any, NoReturn, TypeVar

from tqdm import tqdm

logger = logging.getLogger(__name__)

T = TypeVar("T")
_LOG_SECONDS = 10.0  # between two lines of progress where there is no terminal for a bar


# Command: the module that has it, relative to its package, and what it does.
Commands = Mapping[str, tuple[str, str]]


def run_command(package: str, commands: Commands, arguments: list[str] | None = None) -> int:
    """
    Runs `python -m package COMMAND ...`. Modules are imported when their command is asked for.

    Args:
        package (`str`):
            Name of the package that has the modules.
        commands (`Mapping[str, tuple[str, str]]`):
            For every command its module, relative to the package, and what it does.
        arguments (`list[str]`, *optional*):
            Of the command line.

    Returns:
        `int`: the exit status: 0, 2 when something asked for could not be done, 130 when interrupted, 141 when what reads the
        output wants no more of it (`| head`).
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    if not arguments or arguments[0] in ("-h", "--help"):
        print(_help(package, commands), file=sys.stdout if arguments else sys.stderr)
        return 0 if arguments else 2
    name, *rest = arguments
    if name not in commands:
        return complain(f"no command {name!r}; expected one of {', '.join(commands)}")
    logging.basicConfig(format="%(message)s", level=logging.INFO, stream=sys.stderr)
    for client in ("httpx", "httpx2"):  # a line for every request; huggingface_hub has had both
        logging.getLogger(client).setLevel(logging.WARNING)
    module_name, description = commands[name]
    module = importlib.import_module(f".{module_name}", package)
    parser = Parser(prog=f"python -m {package} {name}", description=f"{description[0].upper()}{description[1:]}.")
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


def _help(package: str, commands: Commands) -> str:
    lines = [
        f"usage: python -m {package} COMMAND [options]",
        "",
        "commands:",
        *(f"  {name:10} {text}" for name, (_, text) in commands.items()),
        "",
        f"python -m {package} COMMAND --help explains a command.",
    ]
    return "\n".join(lines)


class Parser(argparse.ArgumentParser):
    """A parser whose errors are one line."""

    def error(self, message: str) -> NoReturn:
        raise SystemExit(complain(f"{message} (see --help)"))


def complain(message: str) -> int:
    """Prints an error as one line on standard error; returns the exit status for it."""
    print(f"error: {' '.join(message.split())}", file=sys.stderr)
    return 2


def emit(result: Any, text: str | None = None, as_json: bool = False) -> None:
    """Prints a result on standard output: as one JSON line, or as `text` for a person (default: indented JSON)."""
    if as_json:
        print(json.dumps(result, ensure_ascii=False), flush=True)
    else:
        print(json.dumps(result, ensure_ascii=False, indent=2) if text is None else text, flush=True)


def progress(items: Iterable[T], description: str, total: int | None = None, unit: str = "clip") -> Iterator[T]:
    """
    Passes items through, with a bar on a terminal, and elsewhere a log line with rate and remaining time every ten seconds.
    Both are measured from the first finished item on, as workers that have to start say nothing about the rest.
    """
    if total is None and isinstance(items, Sized):
        total = len(items)
    if sys.stderr.isatty():
        yield from tqdm(items, desc=description, total=total, unit=unit, leave=False)
        return
    first = logged = time.monotonic()
    for done, item in enumerate(items, start=1):
        yield item
        now = time.monotonic()
        first = now if done == 1 else first
        if now - logged >= _LOG_SECONDS:
            logged = now
            line = f"{description}: {done}" if total is None else f"{description}: {done} of {total}"
            if now > first:
                rate = (done - 1) / (now - first)
                rest = "" if total is None else f", {(total - done) / rate:.0f} s left"
                line += f"{rest} ({rate:.1f} {unit}s/s)"
            logger.info("%s", line)


__all__ = ["Commands", "Parser", "complain", "emit", "progress", "run_command"]

"""
The server of the warm Python: imports what is slow, then forks for every command that a client brings.

It has one thread and never runs a command itself, so that a fork is what a fresh interpreter would be after its imports. It ends,
and kills what it runs, when its standard input is closed; a client that goes away takes its command with it.
"""

import atexit
import contextlib
import gc
import importlib
import json
import os
import runpy
import selectors
import signal
import socket
import sys
import threading
import types
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

AT_START = frozenset(os.environ)
MODULES = (
    "accelerate",
    "av",
    "datasets",
    "peft",
    "torch",
    "transformers.models.auto.modeling_auto",
    "transformers.models.auto.processing_auto",
    "transformers.models.auto.video_processing_auto",
    "transformers.models.llama.modeling_llama",
    "transformers.pipelines",
    "transformers.trainer",
    "trl",
    "trl.scripts.utils",
)


@dataclass
class Command:
    """
    A command to run.

    Attributes:
        arguments (`list[str]`): What follows `python`.
        folder (`str`): Where it runs.
        environment (`dict[str, str]`): All of it.
        files (`list[int]`): Its standard input, output and error.
    """

    arguments: list[str]
    folder: str
    environment: dict[str, str]
    files: list[int]


def serve(address: str) -> Command:
    """Serves for ever; returns in every process that is forked, with its command."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(address)
    listener.listen()
    selector = selectors.DefaultSelector()
    selector.register(sys.stdin, selectors.EVENT_READ)
    selector.register(listener, selectors.EVENT_READ)
    running: dict[int, tuple[socket.socket, int]] = {}  # by process: its client, and the file that tells of its end
    print("ready", flush=True)  # for the process that started this one
    while True:
        for key, _ in selector.select():
            if key.fileobj is sys.stdin:
                for process in running:
                    os.kill(process, signal.SIGKILL)
                os._exit(0)
            elif key.fileobj is listener:
                client, _ = listener.accept()
                command = receive(client)
                process = os.fork()
                if process == 0:
                    selector.close()
                    for other in (listener, client, *(client for client, _ in running.values())):
                        other.close()
                    return command
                for file in command.files:
                    os.close(file)
                client.sendall(json.dumps({"process": process}).encode() + b"\n")
                running[process] = (client, os.pidfd_open(process))
                for source in running[process]:
                    selector.register(source, selectors.EVENT_READ, process)
            elif key.data in running:
                client, end = running[key.data]
                if key.fileobj is client:  # says nothing more, so it has gone
                    os.kill(key.data, signal.SIGKILL)
                    selector.unregister(client)
                    continue
                _, status = os.waitpid(key.data, 0)
                with contextlib.suppress(KeyError):
                    selector.unregister(client)
                with contextlib.suppress(BrokenPipeError):
                    client.sendall(json.dumps({"status": status}).encode() + b"\n")
                selector.unregister(end)
                os.close(end)
                client.close()
                del running[key.data]


def receive(client: socket.socket) -> Command:
    """What a client asks for."""
    head, files, _, _ = socket.recv_fds(client, 4, 3)
    with client.makefile("rb") as stream:
        request: dict[str, Any] = json.loads(stream.read(int.from_bytes(head, "big")))
    return Command(request["arguments"], request["folder"], request["environment"], files)


def run(command: Command) -> None:
    """Does what an interpreter does with these arguments; returns, or raises, as the command does."""
    for number, file in enumerate(command.files):
        os.dup2(file, number)
        os.close(file)
    os.chdir(command.folder)
    of_imports = {name: value for name, value in os.environ.items() if name not in AT_START}
    os.environ.clear()
    os.environ.update(of_imports | command.environment)
    kind, *rest = command.arguments
    code = rest.pop(0) if kind in ("-c", "-m") else None
    first = {"-c": "", "-m": command.folder}.get(kind, str(Path(kind).resolve().parent))
    sys.path[:1] = [first, *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    sys.argv = [kind, *rest]
    if kind == "-m" and code is not None:
        runpy.run_module(code, run_name="__main__", alter_sys=True)
        return
    main = sys.modules["__main__"] = types.ModuleType("__main__")
    if code is None:
        main.__file__ = os.path.abspath(kind)
    source = Path(kind).read_bytes() if code is None else code
    exec(compile(source, getattr(main, "__file__", "<string>"), "exec"), vars(main))


def end(error: BaseException | None) -> NoReturn:
    """
    Ends this process as an interpreter does, but leaves its memory to the system: to take all modules apart would copy every page
    that is still shared with the server.
    """
    status: Any = 0
    if isinstance(error, SystemExit):
        status = error.code
        if status is not None and not isinstance(status, int):
            sys.stderr.write(f"{status}\n")
            status = 1
    elif error is not None:
        sys.excepthook(type(error), error, error.__traceback__)
        status = 1
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(BrokenPipeError):
            stream.flush()
    os._exit(int(status or 0))


def main() -> None:
    """Imports, serves, and in a forked process runs."""
    for name in MODULES:
        importlib.import_module(name)
    if threading.active_count() > 1:  # those of OpenBLAS and Arrow's allocator know about forks
        raise RuntimeError("an import has started a thread, which a fork would not have")
    gc.collect()
    gc.freeze()  # the collector of a forked process leaves alone what it shares with the server
    command = serve(sys.argv[1])
    try:
        run(command)
    except BaseException as error:
        end(error)
    end(None)


if __name__ == "__main__":
    main()

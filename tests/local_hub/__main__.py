"""The command."""

import argparse
import contextlib
import os
import socket
import sys
import threading
from pathlib import Path

import uvicorn

from .access import ORGANIZATION, USERS
from .server import make_app

DESCRIPTION = """
A Hugging Face Hub on this machine, for tests and for trying things out: models, datasets and spaces can be made, pushed to, listed,
tagged and read by the programs that do so with the real one. Everything is in a folder and survives a restart.
"""
USE = f"""
To use it, in another terminal and before Python starts (the address is read when huggingface_hub is imported):

    export HF_ENDPOINT=http://127.0.0.1:PORT HF_TOKEN=hf_test HF_HUB_DISABLE_XET=1 HF_HOME=$(mktemp -d)
    hf repos create {ORGANIZATION}/example --type dataset
    hf upload {ORGANIZATION}/example data.csv --type dataset
    python -c 'from datasets import load_dataset; print(load_dataset("{ORGANIZATION}/example"))'

Tokens: {", ".join(f"{token} ({'may write' if user.may_write else 'may only read'})" for token, user in USERS.items())}.
It listens on 127.0.0.1 only; the tokens are no secret, so do not expose it. It has no Xet storage, no pull requests or
discussions, and no lists of all models, datasets or collections (`hf models ls`).
"""


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m tests.local_hub",
        description=DESCRIPTION,
        epilog=USE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--port", type=int, help="port on 127.0.0.1; 0 for any free one, which is printed")
    where.add_argument("--listening-socket", type=int, metavar="FD", help="for programs: a listening socket to inherit")
    parser.add_argument(
        "--storage", type=Path, required=True, metavar="DIR", help="folder for everything; made if missing"
    )
    parser.add_argument("--stop-with-stdin", action="store_true", help="for programs: stop when standard input ends")
    args = parser.parse_args()

    if args.listening_socket is not None:
        listening = socket.socket(fileno=args.listening_socket)
    else:
        listening = socket.create_server(("127.0.0.1", args.port))
        print(f"The local Hub is at http://127.0.0.1:{listening.getsockname()[1]}; stop it with Ctrl-C.", flush=True)
    server = uvicorn.Server(uvicorn.Config(make_app(args.storage), lifespan="off", timeout_graceful_shutdown=1))
    if args.stop_with_stdin:
        threading.Thread(target=_stop_with_stdin, args=(server,), daemon=True).start()
    with contextlib.suppress(KeyboardInterrupt):
        server.run(sockets=[listening])


def _stop_with_stdin(server: uvicorn.Server) -> None:
    """Ends the server when whoever started it is gone, however it went."""
    while os.read(sys.stdin.fileno(), 1024):
        pass
    server.should_exit = True


if __name__ == "__main__":
    main()

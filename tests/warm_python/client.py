"""What stands for `python` (see process.py): asks a server to run a command, and ends as it ends. Imports only what is quick."""

import fcntl
import hashlib
import json
import os
import signal
import socket
import subprocess
import sys

PYTHON, ROOT = "{python}", "{root}"
FOLDER = os.path.dirname(os.path.abspath(sys.argv[0]))
# What libraries read when they are imported: environments that differ in these have servers of their own.
READ_ON_IMPORT = (
    "HF_",
    "HUGGINGFACE",
    "TRANSFORMERS_",
    "TOKENIZERS_",
    "OMP_",
    "MKL_",
    "OPENBLAS_",
    "PYTORCH_",
    "CUDA_",
    "PYTHON",
)


def main():
    arguments = sys.argv[1:]
    kind = arguments[0] if arguments else ""
    if kind not in ("-c", "-m") and not os.path.isfile(kind):
        os.execv(PYTHON, [PYTHON, *arguments])  # options of Python itself, or a mistake
    server = connected()
    content = json.dumps({"arguments": arguments, "folder": os.getcwd(), "environment": dict(os.environ)}).encode()
    socket.send_fds(server, [len(content).to_bytes(4, "big")], [0, 1, 2])
    server.sendall(content)
    answers = server.makefile("rb")
    process = json.loads(answers.readline())["process"]
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda number, _: os.kill(process, number))
    status = os.waitstatus_to_exitcode(json.loads(answers.readline())["status"])
    if status < 0:  # killed, and so is this process
        if -status != signal.SIGKILL:
            signal.signal(-status, signal.SIG_DFL)
        os.kill(os.getpid(), -status)
    os._exit(status)


def connected():
    """A connection to the server of this environment, which is started if there is none."""
    read = {
        name: value for name, value in os.environ.items() if name.startswith(READ_ON_IMPORT) and name != "PYTHONPATH"
    }
    address = os.path.join(FOLDER, hashlib.sha256(json.dumps(read, sort_keys=True).encode()).hexdigest()[:16])
    server = socket.socket(socket.AF_UNIX)
    with open(f"{address}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not os.path.exists(address):
            start(address)
    server.connect(address)
    return server


def start(address):
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    # Its input ends when the tests end.
    with open(os.path.join(FOLDER, "alive"), "rb") as alive, open(f"{address}.log", "wb") as log:
        server = subprocess.Popen(
            [PYTHON, "-m", "tests.warm_python.server", address],
            cwd=ROOT, env=environment, stdin=alive, stdout=subprocess.PIPE, stderr=log, start_new_session=True,
        )  # fmt: skip
    if server.stdout.readline() != b"ready\n":
        sys.exit(f"the warm Python does not start; see {address}.log")


main()

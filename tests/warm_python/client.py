"""What stands for `python` (see process.py): asks the server to run a command, and ends as it ends. Imports only what is quick."""

import json
import os
import signal
import socket
import sys

SOCKET = os.path.join(os.path.dirname(os.path.abspath(sys.argv[0])), "socket")


def main():
    arguments = sys.argv[1:]
    server = socket.socket(socket.AF_UNIX)
    server.connect(SOCKET)
    request = {"arguments": arguments, "folder": os.getcwd(), "environment": dict(os.environ)}
    content = json.dumps(request).encode()
    socket.send_fds(server, [len(content).to_bytes(4, "big")], [0, 1, 2])
    server.sendall(content)
    answers = server.makefile("rb")
    answer = json.loads(answers.readline())
    if answer["process"] is None:
        os.execv("{python}", ["{python}", *arguments])
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda number, _: os.kill(answer["process"], number))
    status = os.waitstatus_to_exitcode(json.loads(answers.readline())["status"])
    if status < 0:  # as the shell sees it
        if -status != signal.SIGKILL:
            signal.signal(-status, signal.SIG_DFL)
        os.kill(os.getpid(), -status)
    os._exit(status)


main()

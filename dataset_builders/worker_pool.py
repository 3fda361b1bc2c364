"""Pools of processes that may be killed: they start from one that has imported what they need, and end when their parent does."""

from __future__ import annotations

import multiprocessing
import os
import threading
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import connection
from multiprocessing.context import BaseContext
from typing import Any


def worker_context(module: str) -> BaseContext:
    """
    How processes of a pool are started: forked from a server that has imported a module, and torch with it, once for all of
    them; where the system has no such server, as new interpreters.

    Args:
        module (`str`): what they run. A server that runs already imports nothing more; its processes then do.
    """
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["modeling_grove", module])
    return context


def worker_pool(workers: int, module: str, *arguments: Any, initializer: Any = None) -> ProcessPoolExecutor:
    """
    A pool whose processes do not outlive this one.

    Args:
        workers (`int`): how many.
        module (`str`): see [`worker_context`].
        arguments: of `initializer`.
        initializer (`Callable`, *optional*): called first in every process.
    """
    return ProcessPoolExecutor(workers, worker_context(module), _start, (initializer, arguments))


def _start(initializer: Any, arguments: tuple[Any, ...]) -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    # A process of a pool waits for ever for work from a parent that was killed.
    threading.Thread(target=_end_with, args=(parent.sentinel,), daemon=True).start()
    if initializer is not None:
        initializer(*arguments)


def _end_with(sentinel: int) -> None:
    connection.wait([sentinel])
    os._exit(1)


__all__ = ["worker_context", "worker_pool"]

"""The Java programs of caption scores, from the jars in pycocoevalcap: CoreNLP 3.4.1's Penn Treebank tokenizer and METEOR 1.5.

pycocoevalcap's own classes are not used: its tokenizer writes a file into site-packages, and its METEOR starts the program once
more for every score, which takes seconds.
"""

from __future__ import annotations

import atexit
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Sequence
from contextlib import suppress
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import IO

# UTF-8 whatever the locale is, as Java before 18 follows it.
_ENCODING = "-Dfile.encoding=UTF-8"
# Lines written to METEOR before its answers are read: both pipes hold them, so that neither side waits for the other.
_LINES_AT_ONCE = 32


def package_folder() -> Path:
    """
    Where pycocoevalcap is, which has the jars.

    Raises:
        `ValueError`: if it is not installed.
    """
    spec = find_spec("pycocoevalcap")
    if spec is None or not spec.submodule_search_locations:
        raise ValueError("caption scores: pycocoevalcap is not installed; run `pip install pycocoevalcap`")
    return Path(spec.submodule_search_locations[0])


def java_problem() -> str | None:
    """Why Java programs cannot run here, or `None` where they can."""
    java = shutil.which("java")
    return "there is no `java` on the path" if java is None else _problem_of(java)


@lru_cache
def _problem_of(java: str) -> str | None:
    """What is wrong with this `java`: that of macOS without a runtime is a program that only complains."""
    process = subprocess.run([java, "-version"], capture_output=True, text=True, check=False)
    return None if process.returncode == 0 else f"`{java} -version` fails: {' '.join(process.stderr.split())}"


def jar_tokens(captions: Sequence[str]) -> list[str]:
    """
    Lines that the Penn Treebank tokenizer makes of captions, one a line: lower-cased tokens with blanks between them.

    Args:
        captions (`Sequence[str]`): Without `"\\n"`. Other line separators make more lines than there are captions.

    Raises:
        `ValueError`: if the program fails.
    """
    program = ["edu.stanford.nlp.process.PTBTokenizer", "-preserveLines", "-lowerCase", "-encoding", "UTF-8"]
    jar = str(package_folder() / "tokenizer" / "stanford-corenlp-3.4.1.jar")
    command = ["java", _ENCODING, "-cp", jar, *program]
    process = subprocess.run(command, input="\n".join(captions).encode(), capture_output=True, check=False)
    if process.returncode:
        raise ValueError(f"the tokenizer of pycocoevalcap failed: {_one_line(process.stderr)}; see that `java` works")
    return process.stdout.decode().split("\n")


class MeteorError(ValueError):
    """METEOR ended; `place` is that of the captions that it did not answer for, `None` if it answered for all."""

    def __init__(self, message: str, place: int | None) -> None:
        super().__init__(message)
        self.place = place


class Meteor:
    """
    METEOR 1.5 in a process that stays alive, as it reads its tables for seconds (`-l en -norm`, as in pycocoevalcap). The
    process starts at once; the first scores wait for it.
    """

    def __init__(self) -> None:
        jar = str(package_folder() / "meteor" / "meteor-1.5.jar")
        command = ["java", _ENCODING, "-Xmx2G", "-jar", jar, "-", "-", "-stdio", "-l", "en", "-norm"]
        self._errors: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - as long as the process
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors)
        self._lock = threading.Lock()

    @property
    def alive(self) -> bool:
        """Whether the process runs."""
        return self._process.poll() is None

    def score(self, references: Sequence[str], predictions: Sequence[str]) -> tuple[float, list[float]]:
        """
        Scores tokenised captions.

        Returns:
            The score of all of them together, which is not the mean, and one for each.

        Raises:
            [`MeteorError`]: if the process ends.
        """
        # As pycocoevalcap writes it: three bars are the separator, so that they may not be in a caption.
        lines = [
            f"SCORE ||| {reference} ||| {prediction.replace('|||', '').replace('  ', ' ')}"
            for reference, prediction in zip(references, predictions, strict=True)
        ]
        with self._lock:
            try:
                statistics = self._ask(lines)
                self._write([" ||| ".join(("EVAL", *statistics))])
                *scores, corpus = (float(self._read()) for _ in range(len(lines) + 1))
            except BaseException:
                # What it would still say, to an interrupted caller, must not be taken for the next one's scores.
                self._process.kill()
                self._process.wait()
                raise
        return corpus, scores

    def close(self) -> None:
        """Ends the process."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.kill()
        self._process.wait()
        with suppress(BrokenPipeError):
            self._process.stdin.close()
        self._process.stdout.close()
        self._errors.close()

    def _ask(self, lines: list[str]) -> list[str]:
        answers = []
        for start in range(0, len(lines), _LINES_AT_ONCE):
            batch = lines[start : start + _LINES_AT_ONCE]
            try:
                self._write(batch)
                for _ in batch:
                    answers.append(self._read())
            except MeteorError as error:
                raise MeteorError(str(error), len(answers)) from None
        return answers

    def _write(self, lines: list[str]) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write("".join(f"{line}\n" for line in lines).encode())
            self._process.stdin.flush()
        except BrokenPipeError:
            raise self._ended() from None

    def _read(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise self._ended()
        return line.decode().strip()

    def _ended(self) -> MeteorError:
        self._process.wait()
        self._errors.seek(0)
        return MeteorError(f"METEOR ended: {_one_line(self._errors.read())}; it needs 2 GB of memory for Java", None)


_meteor: Meteor | None = None
_meteor_lock = threading.RLock()  # of the variable: two threads must not start two processes


def meteor_process() -> Meteor:
    """The process of METEOR, started if it does not run. It is ended with Python, or by [`close_meteor`]."""
    global _meteor
    with _meteor_lock:
        if _meteor is None or not _meteor.alive:
            close_meteor()
            _meteor = Meteor()
        return _meteor


def close_meteor() -> None:
    """Ends the process of METEOR, if it runs."""
    global _meteor
    with _meteor_lock:
        if _meteor is not None:
            _meteor.close()
            _meteor = None


atexit.register(close_meteor)


def _one_line(errors: bytes) -> str:
    # The first lines say what is wrong, the last ones are of the trace.
    return " ".join(errors.decode(errors="replace").split())[:300] or "no reason given"


__all__ = ["Meteor", "MeteorError", "close_meteor", "jar_tokens", "java_problem", "meteor_process", "package_folder"]

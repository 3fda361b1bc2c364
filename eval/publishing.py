"""Writes a metric's folder for the Hub, which `evaluate.load("org/iground_score")` reads.

    python -m hub_cards publish metric iground --repo org/iground_score    # all of it, with a longer card; or by hand:
    python -m eval metric iground --output iground_score
    hf repos create org/iground_score --type space --space-sdk static
    hf upload org/iground_score iground_score --repo-type space

`evaluate` downloads the script that is called like the repository, and the files beside it that the script itself imports: not
those that they import in turn. So every module of `eval` that a metric needs is copied beside the script, and the script
imports each of them. Everything else comes with `pip install grove-video`, which does not have `eval` in it.
"""

from __future__ import annotations

import argparse
import ast
import re
from importlib.metadata import version
from pathlib import Path

from dataset_builders.command_line import emit
from modeling_grove.grounded_caption import atomic_path

from .pointing import SEGMENT_FIELDS
from .results import BENCHMARKS

_EVAL = Path(__file__).parent
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]*")
_TITLES = {
    "iground": "iGround",
    "vidstg": "VidSTG",
    "activitynet_entities": "ActivityNet-Entities",
    "youcook_interactions": "YouCook-Interactions",
    "grounding_youtube": "GroundingYouTube",
}
# For the example: what needs no model to be downloaded.
_OPTIONS = {"iground": 'similarity="head-word"'}
_CARD = """\
---
title: {title}
emoji: "\\U0001F3AF"
colorFrom: blue
colorTo: gray
sdk: static
pinned: false
license: apache-2.0
tags:
- evaluate
- metric
- grounded-video-captioning
description: >-
  {description}
---

# {title}

{description}

```python
# pip install "grove-video[eval]"
import evaluate

from dataset_builders.reading import read_records

metric = evaluate.load("{repository}")
predictions = list(read_records("predictions.jsonl"))  # as `python -m eval run` writes them, or one's own
references = list(read_records("references.jsonl"))
metric.add_batch(predictions=predictions, references=references)
result = metric.compute({options})
result["headline"]["official"]  # the row of the paper's table, as the original code computes it
result["headline"]["corrected"]  # and as the paper's text says
```

Every entry is a clip: a `GroundedCaption`, a record of `dataset_builders`, or an object as in the original's files; `None` in place
of a prediction that there is not. `metric.inputs_description` has the options of `compute`.

## What is computed

{protocols}

The paper: [Large-scale Pre-training for Grounded Video Caption Generation](https://arxiv.org/abs/2503.10781).
"""
_PAGE = """\
<!doctype html>
<meta charset="utf-8">
<title>{title}</title>
<body style="font-family: sans-serif; max-width: 45em; margin: 3em auto">
<h1>{title}</h1>
<p>{description}</p>
<pre>import evaluate
metric = evaluate.load("{repository}")</pre>
</body>
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of the command."""
    parser.add_argument("benchmark", choices=BENCHMARKS, metavar="BENCHMARK", help=f"one of {', '.join(BENCHMARKS)}")
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="new or empty folder to write")
    parser.add_argument(
        "--repository", help="name on the Hub, default: org/BENCHMARK_score; the script is called like it"
    )
    parser.add_argument("--json", action="store_true", help="print the names of the files as one JSON line")


def run(args: argparse.Namespace) -> int:
    """Writes the folder."""
    files = write_metric(args.benchmark, args.output, args.repository)
    names = [path.name for path in files]
    result = {"output": str(args.output), "files": names}
    emit(result, f"{args.output}: {len(names)} files; upload it as a Space of sdk static", args.json)
    return 0


def write_metric(benchmark: str, output: Path, repository: str | None = None) -> list[Path]:
    """
    Writes the folder of a metric.

    Args:
        benchmark (`str`):
            One of `BENCHMARKS`.
        output (`Path`):
            A new or empty folder.
        repository (`str`, *optional*):
            Name on the Hub, `org/name`; by default `org/{benchmark}_score`.

    Returns:
        `list[Path]`: the files.

    Raises:
        `ValueError`: if the benchmark or the name is wrong, or the folder is not empty.
    """
    if benchmark not in BENCHMARKS:
        raise ValueError(f"benchmark: got {benchmark!r}; expected one of {', '.join(BENCHMARKS)}")
    repository = repository or f"org/{benchmark}_score"
    name = repository.rpartition("/")[2]
    if not _NAME.fullmatch(name) or repository.count("/") != 1:
        raise ValueError(f"repository: got {repository!r}; expected org/name, of letters, digits, _ and -")
    if output.exists() and any(output.iterdir()):
        raise ValueError(f"{output}: not empty; give a new folder")
    output.mkdir(parents=True, exist_ok=True)
    script = (_EVAL / "metrics" / f"{benchmark}_score" / f"{benchmark}_score.py").read_text(encoding="utf-8")
    modules = _needed(script)
    scorer = "pointing" if benchmark in SEGMENT_FIELDS else benchmark
    texts = {
        "title": f"{_TITLES[benchmark]} score",
        "description": _described(script),
        "repository": repository,
        "options": _OPTIONS.get(benchmark, ""),
        "protocols": ast.get_docstring(ast.parse(_source(scorer))),
    }
    contents = {
        f"{name}.py": _published(script, modules),
        **{f"{module}.py": _source(module) for module in modules},
        "README.md": _CARD.format(**texts),
        "index.html": _PAGE.format(**texts),
        "requirements.txt": f"grove-video[eval]>={version('grove-video')}\n",
    }
    for file_name, content in contents.items():
        with atomic_path(output / file_name) as path:
            path.write_text(content, encoding="utf-8")
    return [output / file_name for file_name in contents]


def _source(module: str) -> str:
    return (_EVAL / f"{module}.py").read_text(encoding="utf-8")


def _needed(script: str) -> list[str]:
    """The modules of `eval` that a script needs, and those that they need."""
    found: set[str] = set()
    ahead = {
        node.module.partition(".")[2]
        for node in ast.walk(ast.parse(script))
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("eval.")
    }
    while ahead:
        module = ahead.pop()
        found.add(module)
        relative = (n for n in ast.walk(ast.parse(_source(module))) if isinstance(n, ast.ImportFrom) and n.level == 1)
        for node in relative:
            ahead |= ({node.module} if node.module else {alias.name for alias in node.names}) - found
    return sorted(found)


def _published(script: str, modules: list[str]) -> str:
    """
    The script with the modules beside it. A module that only others import gets a line too, for `evaluate` to find it; a
    comment in such a line would be taken for an address to download from.
    """
    text = re.sub(r"^from eval\.", "from .", script, flags=re.MULTILINE)
    direct = set(re.findall(r"^from \.(\w+) import", text, flags=re.MULTILINE))
    rest = [f"from .{module} import __name__ as _{module}" for module in modules if module not in direct]
    first = text.index("from .")
    return text[:first] + "".join(f"{line}\n" for line in rest) + text[first:]


def _described(script: str) -> str:
    """What the metric's class says of itself."""
    for node in ast.walk(ast.parse(script)):
        if (
            isinstance(node, ast.Assign)
            and isinstance(node.targets[0], ast.Name)
            and node.targets[0].id == "description"
        ):
            return str(ast.literal_eval(node.value))
    raise ValueError("the script's class has no `description`")


__all__ = ["add_arguments", "run", "write_metric"]

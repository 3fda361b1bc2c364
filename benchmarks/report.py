"""
Prints the README's speed table from the files in `benchmarks/results/`.

    python benchmarks/report.py
"""

import json
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"


def row(result: dict[str, Any]) -> str:
    """One line of the table: the work, both times, the ratio, and how the encoders stand to PyTorch's matrix product."""
    options, median = result["options"], result["median"]
    floor = result["floor"]["matrix product"]["wall"]
    work = f"{options['frames']} frames" + (", vision adapters closed" if options["alpha_zero"] else "")
    windows = result["windows"]
    seconds = [f"{median[name]['total']['wall']:.0f} s ({windows[name]} windows)" for name in ("ours", "original")]
    memory = " / ".join(f"{median[name]['peak_memory_bytes'] / 2**30:.1f}" for name in ("ours", "original"))
    ratio = f"**{result['ratio']['wall']:.1f}** ({result['ratio']['cpu']:.1f})"
    return f"| {work} | {' | '.join(seconds)} | {ratio} | {memory} GiB | {floor['encoders_share']:.0%} |"


def table() -> str:
    """The whole table, with a line that says on what it was measured."""
    results = [json.loads(path.read_text()) for path in sorted(RESULTS.glob("cpu_mid_*.json"))]
    results.sort(key=lambda result: (result["options"]["frames"], result["options"]["alpha_zero"]))
    lines = [
        "| work | ours | original's schedule | ratio, wall (processor) time | peak memory | encoders' rate / matrix product's |",
        "|---|---|---|---|---|---|",
        *(row(result) for result in results),
    ]
    first = results[0]
    machine = first["hardware"]
    hardware = f"{machine['processor']}, {machine['cores']} cores, {machine['cpu_capability']}"
    lines += [
        "",
        f"Random model of {first['parameters'] / 1e6:.0f} M parameters, {first['options']['phrases']} phrases, "
        f"{first['options']['new_tokens']} tokens, {first['dtype']}; {hardware}, torch {first['versions']['torch']}.",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    print(table())

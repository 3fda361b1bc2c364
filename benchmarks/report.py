"""
Prints the speed tables of the README and of `docs/datasets.md` from the files in `benchmarks/results/`.

    python benchmarks/report.py
"""

import json
import statistics
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


def streaming_table() -> str:
    """What `streaming.py` measured, with a line that says on what."""
    result = json.loads((RESULTS / "streaming.json").read_text())
    reading, decoding, memory = (result[name] for name in ("reading", "decoding", "memory"))
    units = {"reading": "samples", "decoding": "clips"}
    others = [
        ("reading", "tarfile", "`tarfile`, bytes and nothing else"),
        ("reading", "webdataset", "`webdataset`, JSON parsed"),
        ("reading", "datasets", "`datasets` streaming, not decoded"),
        ("decoding", "pyav", "bare PyAV, in as many processes"),
        ("decoding", "ffmpeg", "one ffmpeg process a frame, as the original"),
    ]
    lines = ["| work | ours | against | ratio, wall (processor) time |", "|---|---|---|---|"]
    for name, other, text in others:
        part = {"reading": reading, "decoding": decoding}[name]
        rate = statistics.median(
            part["samples_per_second" if name == "reading" else "clips_per_second"]["ours"]["wall"]
        )
        ratio = part["ratio_of_ours"][other]
        lines.append(
            f"| {name} | {rate:,.0f} {units[name]}/s | {text} | **{ratio['wall']:.2f}** ({ratio['cpu']:.2f}) |"
        )
    options, machine = result["options"], result["hardware"]
    first, last = (f"{memory['resident_bytes'][place] / 2**20:.0f}" for place in (0, -1))
    lines += [
        "",
        f"Clips of {options['frames']} frames of 320 x 240, eight decoded in {options['processes']} processes; "
        f"{machine['processor']}, {machine['cores']} cores. Over {memory['samples']:,} json-only samples the resident memory went "
        f"from {first} to {last} MiB; resuming in their middle took {memory['seconds_to_resume']:.2f} s.",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    print(table(), streaming_table(), sep="\n\n")

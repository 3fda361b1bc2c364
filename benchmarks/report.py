"""
Prints the tables of the README and of the pages in `docs/` from the files in `benchmarks/results/` and `docs/studies/`.

    python benchmarks/report.py
"""

import json
import statistics
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # run from a checkout, installed or not

from benchmarks.train_step import table as train_step_table

RESULTS = Path(__file__).parent / "results"
STUDIES = Path(__file__).parents[1] / "docs" / "studies"
_STAGES = (("stage 1", "frames"), ("stage 2", "captions"), ("stage 3", "records"))


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


def evaluation_table() -> str:
    """What `evaluation.py` measured, with lines that say on what and against what."""
    result = json.loads((RESULTS / "evaluation.json").read_text())
    recorded, naive, machine = result["recorded"], result["naive"], result["hardware"]
    parts = ["convert", "AP50", "mIoU", "Recall", "rest", "captions", "METEOR"]
    lines = [
        f"| clips x frames | boxes | {' | '.join(parts)} | sum | everything | peak memory |",
        f"|---|---|{'---|' * len(parts)}---|---|---|",
    ]
    for size in result["sizes"]:
        seconds = [f"{size['seconds'].get(part, 0.0):.2f}" for part in parts]
        memory = f"{size['memory_bytes']['peak_of_everything'] / 2**20:.0f} MiB"
        lines.append(
            f"| {size['clips']:,} x {size['frames']} | {sum(size['boxes']):,} | {' | '.join(seconds)} "
            f"| {sum(size['seconds'].values()):.1f} | {size['everything_seconds']:.1f} | {memory} |"
        )
    seconds = [f"{recorded['seconds'][part]:g}" if part in recorded["seconds"] else "" for part in parts]
    total = sum(recorded["seconds"].values())
    lines.append(
        f"| original, {recorded['clips']} x {recorded['frames']} | {sum(recorded['boxes']):,} | {' | '.join(seconds)} "
        f"| {total:.0f} | | |"
    )
    each = [f"{1e6 * size['grounding_seconds'] / sum(size['boxes']):.1f}" for size in result["sizes"]]
    quoted = result["ratio_to_recorded"]
    lines += [
        "",
        f"Seconds of the official protocol on all frames, medians of {result['options']['repeat']} runs; {machine['processor']}, "
        f"{machine['cores']} cores, one thread of torch. METEOR is its Java process, with its start; *everything* is both "
        "protocols, the three sets of frames, captions and statistics once METEOR runs. Without captions "
        f"a box takes {', '.join(each[:-1])} and {each[-1]} microseconds in these sizes.",
        "",
        "The original's line was recorded once on another machine of 2 cores, on other clips of that size and with the same text "
        "model, its captions with METEOR: it is quoted, not measured here"
        + (f"; without captions it is **{quoted:.0f}** times ours." if quoted else ".")
        + " In the same run, a plain rendition of it, written from its description (boxes searched anew for every frame, two "
        f"forward passes for every pair of phrases), took **{naive['ratio']:.0f}** times as long as ours for {naive['clips']} "
        f"clips of {naive['frames']} frames without captions, with scores that differ by at most "
        f"{naive['largest_difference']:g}; its time grows with the square of the clips.",
    ]
    return "\n".join(lines)


def training_table() -> str:
    """What `train_step.py` measured, with a line that says on what."""
    result = json.loads((RESULTS / "train_step.json").read_text())
    options, machine = result["options"], result["hardware"]
    return "\n".join(
        [
            train_step_table(result),
            "",
            f"Steps of {options['batch_size']} clip of 8 frames, the `paper` policy, the `{options['model']}` model, medians of "
            f"{options['steps']} steps; {machine['processor']}, {machine['cores']} cores, {options['dtype']}, torch "
            f"{result['versions']['torch']}. A step needs {result['needed_flops_per_clip'] / 1e12:.1f} TFLOP at least; the fastest "
            f"does them at {result['utilisation_of_the_fastest']:.0%} of the rate of a large matrix product.",
        ]
    )


def annotation_table() -> str:
    """What `annotate.py` measured of the engine, with a line that says on what."""
    result = json.loads((RESULTS / "annotate.json").read_text())
    machine, rates = result["hardware"], result["clips_per_second"]
    added, allowed = result["overhead_ms_per_task"], result["allowed_ms_per_task"]
    sign = "more" if added >= 0 else "less"
    start = statistics.median(result["start_up_seconds"])
    return "\n".join(
        [
            "| measured | |",
            "|---|---|",
            *(f"| {title} | {rates[stage]:.0f} clips/s |" for title, stage in _STAGES),
            f"| the engine, {abs(result['overhead_share']):.1%} {sign} | {added:.0f} ms a task; {allowed:.0f} ms were aimed at |",
            f"| two processes by one, without their start | **{result['speed_up_without_start']:.2f}** |",
            f"| the same with their start, {start:.0f} s | {result['speed_up']:.2f} |",
            "",
            f"{result['clips']} clips of 4 s in {result['tasks']} tasks, the captioner of GroundedShapes, rules; medians of "
            f"{len(result['engine_seconds'])} turns; {machine['processor']}, {machine['cores']} cores.",
        ]
    )


def grove_tiny_table() -> str:
    """The scores of `checkpoints/grove-tiny`, as `python -m eval run` wrote them."""
    result = json.loads((STUDIES / "grove-tiny.json").read_text())
    columns = ("AP50", "Recall", "CIDEr", "METEOR")
    presence = result["statistics"]["presence"]
    lines = [
        f"| protocol | {' | '.join(columns)} | presence F1 | of phrases that the caption has |",
        f"|---|{'---|' * len(columns)}---|---|",
    ]
    for protocol, headline in result["headline"].items():
        values = [headline.get(column) for column in columns]
        cells = ["-" if value is None else f"{value:.1f}" for value in values]
        lines.append(
            f"| {protocol} | {' | '.join(cells)} | {100 * presence['f1']:.1f} | {100 * presence['paired']['f1']:.1f} |"
        )
    machine = result["hardware"]
    where = f"{machine['processor']}, {machine['cores']} cores; commit {result['commit'][:7]}, seed {result['seed']}."
    return "\n".join([*lines, "", f"{result['data']['name']}, split {result['data']['split']}; {where}"])


def grove_tiny_seeds_table() -> str:
    """`checkpoints/grove-tiny` beside models that other seeds made, in the corrected protocol, and how far they lie apart."""
    paths = [STUDIES / "grove-tiny.json", *sorted(STUDIES.glob("grove-tiny-seed-*.json"))]
    rows = {}
    for path in paths:
        result = json.loads(path.read_text())
        headline, statistics_of = result["headline"]["corrected"], result["statistics"]
        presence, tracks = statistics_of["presence"], statistics_of["tracks"]
        rows[result["model"]["name"]] = {
            **{column: headline[column] for column in ("AP50", "Recall", "CIDEr", "METEOR")},
            "presence F1": 100 * presence["f1"],
            "of phrases that the caption has": 100 * presence["paired"]["f1"],
            "phrases found": 100 * tracks["pairs"] / tracks["phrases"],
            "overlap of their tracks": 100 * tracks["mean_iou_paired"],
        }
    columns = [*rows["grove-tiny"]]
    rows["largest difference"] = {
        column: max(row[column] for row in rows.values()) - min(row[column] for row in rows.values())
        for column in columns
    }
    lines = [f"| model | {' | '.join(columns)} |", f"|---|{'---|' * len(columns)}"]
    lines += [f"| {name} | {' | '.join(f'{row[column]:.1f}' for column in columns)} |" for name, row in rows.items()]
    return "\n".join(lines)


def first_caption_line() -> str:
    """How long `first_caption.py` took, in a sentence."""
    result = json.loads((RESULTS / "first_caption.json").read_text())
    seconds, machine = result["seconds"], result["hardware"]
    return (
        f"From `git clone` to the first caption: {result['first_caption_seconds']:.0f} s, {seconds['installation']:.0f} of them "
        f"pip's; then {seconds['next caption']:.0f} s ({machine['processor']}, {machine['cores']} cores)."
    )


if __name__ == "__main__":
    print(
        table(),
        streaming_table(),
        evaluation_table(),
        training_table(),
        annotation_table(),
        grove_tiny_table(),
        grove_tiny_seeds_table(),
        first_caption_line(),
        sep="\n\n",
    )

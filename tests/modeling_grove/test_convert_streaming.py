"""The conversion of a checkpoint of 600 MB: how much memory it takes, and what a kill leaves behind."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from safetensors import safe_open

from tests.original_checkpoints import add_config, add_pickle, add_safetensors, add_tokenizer, large_state

ROOT = Path(__file__).parents[2]
MEGABYTE = 2**20

# The kernel's own high-water mark of resident memory, mapped files included; `ru_maxrss` would count the parent's.
_MEASURE = """
import json, re, sys
from pathlib import Path
from modeling_grove.convert_grove import convert

def resident(field):
    return int(re.search(field + r":\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]) * 1024

before = resident("VmRSS")
Path("/proc/self/clear_refs").write_text("5")
report = convert(sys.argv[1], sys.argv[2], max_shard_size="100MB")
print(json.dumps({"growth": resident("VmHWM") - before, "files": len(report.files)}))
"""


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint in six shards, as `safetensors` and as `bin`."""
    directory = tmp_path_factory.mktemp("large")
    state, config = large_state()
    for kind, add in (("safetensors", add_safetensors), ("bin", add_pickle)):
        add(directory / kind, state, shards=6)
        add_config(directory / kind, config)
        add_tokenizer(directory / kind, "final")
    assert sum(tensor.nbytes for tensor in state.values()) > 600e6
    return directory


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("kind", ["safetensors", "bin"])
def test_memory_is_one_shard_and_one_tensor(large, tmp_path, kind):
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    result = subprocess.run(
        [sys.executable, "-c", _MEASURE, large / kind, tmp_path / "out"],
        env=environment,
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    measured = json.loads(result.stdout)
    print(f"{kind}: memory grew by {measured['growth'] / 1e6:.0f} MB")
    assert measured["files"] >= 6
    # The shard, the mapped pages of a pickle, a tensor, and what Python and the tokenizer take.
    assert measured["growth"] < 100e6 + (64 + 8 + 30) * MEGABYTE


@pytest.mark.slow
def test_a_kill_leaves_no_output_and_the_next_run_succeeds(large, tmp_path):
    output = tmp_path / "out"
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [
        sys.executable,
        "-m",
        "modeling_grove.convert_grove",
        "--source",
        str(large / "safetensors"),
        "--output",
        str(output),
    ]
    command += ["--max-shard-size", "20MB"]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    partial = tmp_path / ".out.partial"
    deadline = time.monotonic() + 120
    while not list(partial.glob("*.safetensors")) and time.monotonic() < deadline:
        assert process.poll() is None, "the conversion ended before it could be killed"
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not output.exists() and partial.exists()
    subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    assert not partial.exists()
    names = set()
    for file in output.glob("*.safetensors"):
        with safe_open(file, framework="pt") as handle:
            names |= set(handle.keys())
    index = json.loads((output / "model.safetensors.index.json").read_text(encoding="utf-8"))
    assert names == index["weight_map"].keys()

"""Slurm: a stand-in for its commands runs the jobs at once, one after the other, so that datatrove's scripts are what is run."""

import json
import os
import stat

import pytest

from pipeline_annotate.__main__ import main
from pipeline_annotate.clusters import _is_queued

COMMANDS = {
    "sbatch": """
script="${@: -1}"
if grep -q merge_stats "$script"; then echo "Submitted batch job 8"; exit; fi
cp "$script" "$LAB/script"
last=$(sed -n 's/^#SBATCH --array=0-\\([0-9]*\\).*/\\1/p' "$script")
for number in $(seq 0 "$last"); do
    SLURM_ARRAY_TASK_ID=$number SLURM_JOB_ID=7 SLURM_NODELIST=node RUN_OFFSET=0 bash "$script" > "$LAB/out-$number" 2>&1 || true
done
echo "Submitted batch job 7"
""",
    "srun": 'shift 3; exec "$@"',
    "squeue": 'cat "$LAB/queue"',
    "scontrol": "echo node",
}


@pytest.fixture
def slurm(tmp_path, monkeypatch):
    """A folder with what was submitted, what it printed, and what is in the queue."""
    folder = tmp_path / "lab"
    folder.mkdir()
    (folder / "queue").write_text("")
    for name, script in COMMANDS.items():
        (folder / name).write_text(f"#!/usr/bin/env bash\n{script}\n")
        (folder / name).chmod((folder / name).stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    monkeypatch.setenv("LAB", str(folder))
    return folder


def line(shapes, spacy_folder, output, *options):
    return ["run", str(shapes / "videos"), "--clips", str(shapes / "train.jsonl"), "--captioner",
            f"shapes:{shapes / 'train.frames.jsonl'}", "--spacy", str(spacy_folder), "--clips-per-part", "3",
            "--output", str(output), *options]  # fmt: skip


@pytest.mark.slow
def test_jobs_do_their_share_and_the_same_command_collects(slurm, shapes, spacy_folder, tmp_path, capsys):
    options = ["--executor", "slurm", "--partition", "main", "--workers", "2", "--sbatch", "account=lab"]
    command = line(shapes, spacy_folder, tmp_path / "cluster", *options, "--json")
    assert main(command) == 0
    assert json.loads(capsys.readouterr().out)["finished"] is False
    script = (slurm / "script").read_text()
    assert "#SBATCH --array=0-1%2" in script and "#SBATCH --account=lab" in script and "--qos" not in script
    (slurm / "script").unlink()

    assert main(command) == 0
    found = json.loads(capsys.readouterr().out.splitlines()[-1])  # before it, what writing shards says
    assert found["clips"] == {"annotated": 12}, (slurm / "out-0").read_text()
    assert not (slurm / "script").exists()  # nothing was left to submit
    assert main(line(shapes, spacy_folder, tmp_path / "here")) == 0
    here, cluster = ((tmp_path / name / "records.jsonl").read_bytes() for name in ("here", "cluster"))
    assert here == cluster


@pytest.mark.slow
def test_a_part_that_fails_does_not_stop_those_behind_it(slurm, shapes, spacy_folder, tmp_path, capsys, caplog):
    options = ["--executor", "slurm", "--partition", "main", "--workers", "1", "--json"]
    command = line(shapes, spacy_folder, tmp_path / "cluster", *options)
    broken = tmp_path / "cluster" / "parts" / "00001"
    broken.mkdir(parents=True)
    (broken / "frames.jsonl").write_text("no JSON\n")
    assert main(command) == 0
    done = [(tmp_path / "cluster" / "parts" / f"{rank:05d}" / "records.jsonl").exists() for rank in range(4)]
    assert done == [True, False, True, True]
    (broken / "frames.jsonl").unlink()
    with caplog.at_level("WARNING"):
        assert main(command) == 0
    assert "job 7 left 1 parts" in caplog.text
    assert main(command) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["clips"] == {"annotated": 12}


def test_what_slurm_refuses_is_one_line(slurm, shapes, spacy_folder, tmp_path, capsys):
    (slurm / "sbatch").write_text("#!/usr/bin/env bash\necho 'sbatch: error: invalid partition' >&2\nexit 1\n")
    options = ["--executor", "slurm", "--partition", "nowhere", "--sbatch", "a=1", "--sbatch", "b=2"]
    assert main(line(shapes, spacy_folder, tmp_path / "cluster", *options)) == 2
    assert capsys.readouterr().err.splitlines()[-1].startswith("error: Slurm refused the jobs: `sbatch")
    script = (tmp_path / "cluster" / "logs" / "launch_script.slurm").read_text()
    assert "#SBATCH --a=1" in script and "#SBATCH --b=2" in script


def test_what_waits_in_the_queue_is_not_submitted_again(slurm, tmp_path):
    job = tmp_path / "job_id"
    assert not _is_queued(job)
    job.write_text("7")
    assert not _is_queued(job)
    (slurm / "queue").write_text("7_0 main annotate root R 0:01 1 node\n")
    assert _is_queued(job)
    (slurm / "squeue").write_text(
        "#!/usr/bin/env bash\necho 'slurm_load_jobs error: Invalid job id specified' >&2\nexit 1\n"
    )
    assert not _is_queued(job)
    (slurm / "squeue").write_text("#!/usr/bin/env bash\necho 'Unable to contact slurm controller' >&2\nexit 1\n")
    with pytest.raises(ValueError, match="Unable to contact slurm controller"):
        _is_queued(job)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--executor", "ray"], "Ray is not installed"),
        (["--executor", "slurm", "--partition", "main", "--sbatch", "exclusive"], "--sbatch: expected NAME=VALUE"),
        (["--gpus-per-worker", "-1"], "expected at least 0 GPUs"),
    ],
)
def test_clusters_that_cannot_be(options, said, slurm, shapes, spacy_folder, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("pipeline_annotate.clusters.find_spec", lambda name: None)
    assert main(line(shapes, spacy_folder, tmp_path / "run", *options)) == 2
    assert said in capsys.readouterr().err

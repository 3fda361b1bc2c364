"""Shards: equal bytes for equal samples, and reading that no file can lead astray."""

import contextlib
import copy
import hashlib
import io
import random
import tarfile
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fsspec
import pytest
import webdataset
from huggingface_hub import upload_file

from dataset_builders.tar_members import BLOCK
from dataset_builders.tar_shards import ShardError, count_samples, iter_shard, write_shard

SAMPLES = [(f"video{i}_{i % 2}", {"json": b'{"n": %d}' % i, "mp4": bytes([i]) * (300 * i + 1)}) for i in range(6)]


@pytest.fixture
def shard(tmp_path: Path) -> Path:
    write_shard(tmp_path / "shard.tar", SAMPLES)
    return tmp_path / "shard.tar"


def read(path: Path | str, **options: object) -> list[tuple[str, dict[str, bytes]]]:
    return [(sample.key, sample.members) for sample in iter_shard(path, **options)]


def read_past_problems(path: Path | str, **options: object) -> tuple[list[tuple[int, str]], list[tuple[int, str]]]:
    """Index and key of the good samples, index and reason of the bad ones."""
    problems: list[ShardError] = []
    good = [(sample.index, sample.key) for sample in iter_shard(path, on_problem=problems.append, **options)]
    return good, [(problem.index, problem.reason) for problem in problems]


def make_tar(path: Path, members: list[tarfile.TarInfo | tuple[str, bytes]], **options: object) -> Path:
    """A tar of hand-made members, as others may write it."""
    with tarfile.open(path, "w", **options) as tar:
        for member in members:
            if isinstance(member, tarfile.TarInfo):
                tar.addfile(member, io.BytesIO(bytes(member.size)) if member.isreg() else None)
            else:
                info = tarfile.TarInfo(member[0])
                info.size = len(member[1])
                tar.addfile(info, io.BytesIO(member[1]))
    return path


def member(name: str, kind: bytes, target: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


def test_what_is_written_is_read_back(shard: Path) -> None:
    assert read(shard) == SAMPLES
    assert [sample.index for sample in iter_shard(shard)] == [*range(6)]
    assert count_samples(shard) == 6


def test_summary(shard: Path, tmp_path: Path) -> None:
    summary = write_shard(tmp_path / "again.tar", iter(SAMPLES))
    content = shard.read_bytes()
    assert (tmp_path / "again.tar").read_bytes() == content
    assert summary.sha256 == hashlib.sha256(content).hexdigest()
    assert (summary.name, summary.num_samples, summary.num_bytes) == ("again.tar", 6, len(content))
    assert len(content) % tarfile.RECORDSIZE == 0


def test_headers_say_nothing_of_who_wrote_when(shard: Path, tmp_path: Path) -> None:
    with tarfile.open(shard) as tar:
        for info in tar:
            assert (info.mtime, info.uid, info.gid, info.uname, info.gname, info.mode) == (0, 0, 0, "", "", 0o644)
    write_shard(tmp_path / "other.tar", [(key, dict(reversed(list(members.items())))) for key, members in SAMPLES])
    assert (tmp_path / "other.tar").read_bytes() == shard.read_bytes()


@pytest.mark.parametrize(
    ("key", "members", "reason"),
    [
        ("a.b", {"json": b""}, "bad_key"),
        ("../a", {"json": b""}, "bad_key"),
        ("/a", {"json": b""}, "bad_key"),
        ("", {"json": b""}, "bad_key"),
        ("a/", {"json": b""}, "bad_key"),
        ("a\nb", {"json": b""}, "bad_key"),
        ("\udc80", {"json": b""}, "bad_key"),
        ("__abc_0", {"json": b""}, "bad_key"),
        ("a", {"mp4": b""}, "no_json"),
        ("a", {"json": b"", "a/b": b""}, "bad_field"),
        ("a", {"json": b"", "MP4": b""}, "bad_field"),
        ("video0_0", {"json": b""}, "duplicate_key"),
    ],
)
def test_a_sample_that_could_not_be_read_back_is_not_written(
    tmp_path: Path, key: str, members: dict[str, bytes], reason: str
) -> None:
    with pytest.raises(ShardError) as error:
        write_shard(tmp_path / "shard.tar", [*SAMPLES[:2], (key, members)])
    assert error.value.reason == reason
    assert error.value.index == 2
    assert list(tmp_path.iterdir()) == []


def test_nothing_stays_of_a_shard_whose_samples_fail(tmp_path: Path) -> None:
    def samples():
        yield SAMPLES[0]
        raise OSError("the disk is full")

    with pytest.raises(OSError, match="the disk is full"):
        write_shard(tmp_path / "shard.tar", samples())
    assert list(tmp_path.iterdir()) == []


def test_long_and_foreign_names(tmp_path: Path) -> None:
    samples = [
        ("x" * 150 + "_0", {"json": b"1"}),
        ("\u5bff\u53f8_\u00e9_1", {"json": b"2"}),
        ("a/b/c_2", {"json": b"3"}),
    ]
    first, second = (write_shard(tmp_path / name, samples) for name in ("a.tar", "b.tar"))
    assert first.sha256 == second.sha256
    assert read(tmp_path / "a.tar") == samples
    with tarfile.open(tmp_path / "a.tar") as tar:
        assert tar.getnames() == [f"{key}.json" for key, _ in samples]


def test_webdataset_reads_ours(shard: Path) -> None:
    theirs = list(webdataset.WebDataset(str(shard), shardshuffle=False))
    assert [(sample["__key__"], {"json": sample["json"], "mp4": sample["mp4"]}) for sample in theirs] == SAMPLES


@pytest.mark.parametrize("tar_format", ["USTAR_FORMAT", "GNU_FORMAT", "PAX_FORMAT"])
def test_ours_reads_webdatasets(tmp_path: Path, tar_format: str) -> None:
    long = "y" * (90 if tar_format == "USTAR_FORMAT" else 240)
    samples = [*SAMPLES, (f"{long}_0", {"json": b"{}", "mp4": b"long"})]
    with webdataset.TarWriter(str(tmp_path / "theirs.tar"), encoder=False, format=tar_format) as writer:
        for key, members in samples:
            writer.write({"__key__": key, **members})
    assert read(tmp_path / "theirs.tar") == samples


def test_grouping_follows_webdataset(tmp_path: Path) -> None:
    path = make_tar(
        tmp_path / "theirs.tar",
        [
            member("folder", tarfile.DIRTYPE),
            ("README", b"belongs to nobody"),
            ("._a.json", b"of a Mac"),
            ("folder/a.JSON", b"1"),
            ("LICENSE", b"in between"),
            ("folder/a.seg.left.png", b"2"),
            ("a.json", b"3"),
            ("./b.json", b"4"),
        ],
    )
    theirs = [
        (s["__key__"], {k: v for k, v in s.items() if k[0] != "_"})
        for s in webdataset.WebDataset(str(path), shardshuffle=False)
    ]
    assert read(path) == theirs
    assert theirs[0] == ("folder/a", {"json": b"1", "seg.left.png": b"2"})


def test_start_gives_the_rest(shard: Path) -> None:
    for start in range(8):
        assert [(sample.index, sample.key) for sample in iter_shard(shard, start=start)] == [
            (i, SAMPLES[i][0]) for i in range(start, 6)
        ]


def test_urls(shard: Path) -> None:
    with fsspec.open("memory://shards/a.tar", "wb") as file:
        file.write(shard.read_bytes())
    assert read("memory://shards/a.tar") == SAMPLES
    assert read(f"file://{shard}", start=4) == SAMPLES[4:]
    assert count_samples("memory://shards/a.tar") == 6
    with pytest.raises(FileNotFoundError):
        read(shard.with_name("absent.tar"))


HOSTILE = {
    "traversal": ([("../../evil.json", b"{}")], "unsafe_name"),
    "traversal inside": ([("a/../../evil.json", b"{}")], "unsafe_name"),
    "absolute": ([("/etc/evil.json", b"{}")], "unsafe_name"),
    "symbolic link": ([("b.json", b"{}"), member("b.mp4", tarfile.SYMTYPE, "/etc/passwd")], "not_a_file"),
    "hard link": ([("b.json", b"{}"), member("b.mp4", tarfile.LNKTYPE, "video0_0.mp4")], "not_a_file"),
    "link without a field": ([member("latest", tarfile.SYMTYPE, "../../..")], "not_a_file"),
    "device": ([member("b.json", tarfile.CHRTYPE)], "not_a_file"),
    "pipe": ([member("b.json", tarfile.FIFOTYPE)], "not_a_file"),
    "duplicate field": ([("b.json", b"{}"), ("b.json", b"[]")], "duplicate_field"),
    "duplicate field by case": ([("b.json", b"{}"), ("b.JSON", b"[]")], "duplicate_field"),
    "duplicate key": ([("first.json", b"{}")], "duplicate_key"),
    "no json": ([("b.mp4", b"clip")], "no_json"),
    "too large": ([("b.json", b"{}"), ("b.mp4", bytes(200_000))], "too_large"),
    "many small ones": ([("b.json", b"{}"), *((f"b.{i}", b"") for i in range(200))], "too_large"),
    "not UTF-8": ([("b\udcff.json", b"{}")], "unsafe_name"),
}


@pytest.mark.parametrize("case", HOSTILE)
@pytest.mark.parametrize("remote", [False, True])
def test_hostile_members(tmp_path: Path, case: str, remote: bool) -> None:
    members, reason = HOSTILE[case]
    path = make_tar(
        tmp_path / "hostile.tar",
        [("first.json", b"1"), ("middle.json", b"2"), *members, ("last.json", b"3")],
        encoding="utf-8",
        errors="surrogateescape",
        format=tarfile.GNU_FORMAT,
    )
    source = f"file://{path}" if remote else path
    good, bad = read_past_problems(source, max_member_bytes=100_000)
    assert good == [(0, "first"), (1, "middle"), (3, "last")]
    assert bad == [(2, reason)]
    assert count_samples(source) == 4
    with pytest.raises(ShardError) as error:
        read(source, max_member_bytes=100_000)
    assert (error.value.index, error.value.reason, "\n" in str(error.value)) == (2, reason, False)
    assert str(path) in str(error.value)
    assert [sample.key for sample in iter_shard(source, start=3)] == ["last"]
    assert [file.name for file in tmp_path.iterdir()] == ["hostile.tar"]  # nothing came out of it


def test_an_error_survives_the_way_from_a_worker(tmp_path: Path) -> None:
    path = make_tar(tmp_path / "bad.tar", [("b.mp4", b"clip")])
    with pytest.raises(ShardError) as error:
        read(path)
    again = copy.copy(error.value)
    assert (str(again), again.shard, again.index, again.key, again.reason) == (
        str(error.value),
        str(path),
        0,
        "b",
        "no_json",
    )


def test_a_size_that_is_not_there_takes_no_memory(tmp_path: Path) -> None:
    info = tarfile.TarInfo("a.json")
    info.size = 1 << 28
    (tmp_path / "liar.tar").write_bytes(info.tobuf() + b"{}")
    tracemalloc.start()
    good, bad = read_past_problems(tmp_path / "liar.tar")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert (good, bad) == ([], [(0, "truncated")])
    assert peak < 1 << 22


@pytest.mark.parametrize("remote", [False, True])
def test_a_file_cut_anywhere_is_noticed(shard: Path, tmp_path: Path, remote: bool) -> None:
    content = shard.read_bytes()
    end = content.rstrip(b"\0")
    archive_end = -(-len(end) // BLOCK) * BLOCK  # where the end-of-archive marker begins
    cut = tmp_path / "cut.tar"
    source = f"file://{cut}" if remote else cut
    for length in [0, 1, BLOCK, BLOCK + 9, archive_end, *range(0, archive_end, 700)]:
        cut.write_bytes(content[:length])
        good, bad = read_past_problems(source)
        assert [reason for _, reason in bad] == ["truncated"]
        assert good == [(i, SAMPLES[i][0]) for i in range(len(good))]
        assert len(good) < 6
        assert bad[0][0] == len(good)  # the sample that the cut went through
        with pytest.raises(ShardError, match="ends before its end-of-archive marker"):
            read(source)
        assert count_samples(source) == len(good) + 1


def test_damage_in_the_middle_costs_only_what_is_near(shard: Path) -> None:
    content = bytearray(shard.read_bytes())
    with tarfile.open(shard) as tar:
        at = next(info for info in tar if info.name.startswith("video3") and info.name.endswith("mp4"))
        content[at.offset : at.offset + BLOCK] = b"\xa5" * BLOCK
    shard.write_bytes(content)
    good, bad = read_past_problems(shard)
    assert good == [(i, SAMPLES[i][0]) for i in (0, 1, 2, 4, 5)]
    assert bad == [(3, "damaged")]
    assert count_samples(shard) == 6
    with pytest.raises(ShardError, match=r"sample 3 \('video3_1'\)"):
        read(shard)


@pytest.mark.parametrize("content", [b"<html>not found</html>", bytes(range(256)) * 40, b"\x1f\x8b\x08 gzip" * 99])
def test_what_is_no_tar(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "page.tar").write_bytes(content)
    good, bad = read_past_problems(tmp_path / "page.tar")
    assert good == []
    assert len(bad) == 1
    with pytest.raises(ShardError):
        read(tmp_path / "page.tar")


def test_zeros_in_the_middle_are_no_end(shard: Path) -> None:
    content = bytearray(shard.read_bytes())
    content[BLOCK * 4 : BLOCK * 8] = bytes(BLOCK * 4)  # a hole, as a crashed machine leaves it
    shard.write_bytes(content)
    good, bad = read_past_problems(shard)
    assert [reason for _, reason in bad][:1] == ["damaged"]
    assert good[-1][1] == SAMPLES[-1][0]


def test_extended_headers_that_lie(tmp_path: Path) -> None:
    record = tarfile.TarInfo("././@PaxHeader")
    record.type = tarfile.XHDTYPE
    for text in (b"99 path=../x\n", b"13 size=-512\n", b"no record at all", b"5 a=\n\n"):
        record.size = len(text)
        path = tmp_path / "pax.tar"
        rest = make_tar(tmp_path / "rest.tar", [("b.json", b"{}"), ("c.json", b"{}")]).read_bytes()
        path.write_bytes(record.tobuf() + text.ljust(BLOCK, b"\0") + rest)
        good, bad = read_past_problems(path)
        assert bad == [(0, "damaged")]
        assert [key for _, key in good] == ["b", "c"]


def test_random_damage_never_breaks_the_reader(shard: Path, tmp_path: Path) -> None:
    content, rng = shard.read_bytes(), random.Random(0)
    path = tmp_path / "fuzzed.tar"
    for _ in range(300):
        data = bytearray(content)
        for _ in range(rng.randint(1, 8)):
            start = rng.choice(
                [rng.randrange(len(data)), rng.randrange(len(data) // BLOCK) * BLOCK + rng.randrange(BLOCK)]
            )
            data[start : start + rng.randint(1, 40)] = rng.randbytes(rng.randint(0, 40))
        path.write_bytes(data)
        good, bad = read_past_problems(path)
        positions = sorted([index for index, _ in good] + [index for index, _ in bad])
        assert positions == [*range(count_samples(path))]  # every position is accounted for, once
        with contextlib.suppress(ShardError):
            read(path)


def test_memory_is_that_of_a_sample(tmp_path: Path) -> None:
    clip = bytes(200_000)
    write_shard(tmp_path / "large.tar", ((f"v{i}_0", {"json": b"{}", "mp4": clip}) for i in range(100)))
    tracemalloc.start()
    assert sum(1 for _ in iter_shard(tmp_path / "large.tar")) == 100
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1_500_000


def test_a_hub(shard: Path, local_hub: Any, hub_repo: Callable[..., str]) -> None:
    repo = hub_repo("dataset")
    upload_file(path_or_fileobj=shard, path_in_repo="default/shard.tar", repo_id=repo, repo_type="dataset")
    for url in (
        f"hf://datasets/{repo}/default/shard.tar",
        f"{local_hub.endpoint}/datasets/{repo}/resolve/main/default/shard.tar",
    ):
        assert read(url) == SAMPLES
        assert read(url, start=4) == SAMPLES[4:]
        assert count_samples(url) == 6
    with pytest.raises(OSError, match="404"):
        read(f"hf://datasets/{repo}/default/absent.tar")

"""Files are written whole or left unchanged, and only regular files are replaced."""

import os
import stat
import sys
import threading

import pytest
import torch

import topreach as tr
from topreach.data.files import atomic_path


def write(path, text, **options):
    with atomic_path(path, **options) as temporary:
        temporary.write_text(text)


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path):
    path = tmp_path / "plan.csv"
    write(path, "old")
    with pytest.raises(RuntimeError), atomic_path(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert path.read_text() == "old" and os.listdir(tmp_path) == ["plan.csv"]
    write(path, "new")
    assert path.read_text() == "new" and os.listdir(tmp_path) == ["plan.csv"]


def test_modes_are_those_of_any_new_file_and_old_ones_keep_theirs(tmp_path):
    (tmp_path / "plain").write_text("")
    write(tmp_path / "made", "")
    assert (tmp_path / "made").stat().st_mode == (tmp_path / "plain").stat().st_mode
    (tmp_path / "made").chmod(0o640)
    write(tmp_path / "made", "again")
    assert stat.S_IMODE((tmp_path / "made").stat().st_mode) == 0o640


def test_the_process_umask_is_not_touched(tmp_path, monkeypatch):
    def refused(mask):
        raise AssertionError("umask is the whole process's")

    monkeypatch.setattr(os, "umask", refused)
    write(tmp_path / "a", "b")


@pytest.mark.parametrize("there", [True, False])
def test_a_link_stays_and_its_target_is_written(tmp_path, there):
    target, link = tmp_path / "target", tmp_path / "link"
    (tmp_path / "in").mkdir()
    target = tmp_path / "in" / "target"
    if there:
        target.write_text("old")
    link.symlink_to(target)
    write(link, "new")
    assert link.is_symlink() and target.read_text() == "new"
    assert os.listdir(target.parent) == ["target"]


def test_a_pipe_is_written_to(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    got = []
    reader = threading.Thread(target=lambda: got.append(pipe.read_text()))
    reader.start()
    write(pipe, "a" * 200_000)
    reader.join()
    assert got == ["a" * 200_000] and stat.S_ISFIFO(pipe.stat().st_mode)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_a_full_device_is_an_error_and_stays_a_device(tmp_path):
    link = tmp_path / "link"
    link.symlink_to("/dev/full")
    for path in ("/dev/full", link):
        with pytest.raises(OSError, match="No space left"):
            write(path, "text")
        assert stat.S_ISCHR(os.stat("/dev/full").st_mode)
    write("/dev/null", "text")
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)


def test_a_full_disk_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "plan.csv"
    write(path, "old")

    def full(handle):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left") as error:
        write(path, "new")
    assert error.value.filename == str(path)  # not that of the file beside it
    assert path.read_text() == "old" and os.listdir(tmp_path) == ["plan.csv"]


def test_standard_output_where_it_is_allowed(tmp_path, monkeypatch, capfdbinary):
    write("-", "a plan\n", standard_output=True)
    sys.stdout.flush()
    assert capfdbinary.readouterr().out == b"a plan\n"
    monkeypatch.chdir(tmp_path)
    write("-", "text")
    assert (tmp_path / "-").read_text() == "text"


def test_folders(tmp_path):
    with pytest.raises(FileNotFoundError, match="must exist"):
        write(tmp_path / "none" / "plan.csv", "")
    with pytest.raises(IsADirectoryError, match="must be a file"):
        write(tmp_path, "")


def test_a_pipe_without_a_path_is_written_to(tmp_path):
    """As /dev/stdout in a pipeline, and what >(command) gives: a link to no file."""
    read, write = os.pipe()
    try:
        with atomic_path(f"/dev/fd/{write}") as temporary:
            temporary.write_text("plan")
        assert os.read(read, 100) == b"plan"
        panel = tr.Panel(torch.zeros(2, 3, 0), [[1, 2, 3], [3, 2, 1]], ["a", "b", "c"], [1, 2], [])
        ranker = tr.TopKRanker(1).fit(panel)
        ranker.save(f"/dev/fd/{write}")
        (tmp_path / "m.pt").write_bytes(os.read(read, 1 << 16))
    finally:
        os.close(read)
        os.close(write)
    assert tr.TopKRanker.load(tmp_path / "m.pt").rank().equals(ranker.rank())

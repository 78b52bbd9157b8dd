"""Files are replaced whole or left alone."""

from __future__ import annotations

import os
import stat

import pytest

from spineimg.errors import SpineImgError
from spineimg.export.files import replacing


def names(folder):
    return [one.name for one in folder.iterdir()]


def test_replaces_and_leaves_nothing_beside(tmp_path):
    path = tmp_path / "result.json"
    path.write_text("old and longer")
    with replacing(path) as handle:
        handle.write(b"new")
        assert path.read_text() == "old and longer"
    assert path.read_text() == "new"
    assert names(tmp_path) == ["result.json"]


def test_failure_keeps_the_old_file(tmp_path):
    """Planted: writing to the target itself."""
    path = tmp_path / "result.json"
    path.write_text("old")

    def fail():
        with replacing(path) as handle:
            handle.write(b"half")
            raise KeyError("our own bug")

    with pytest.raises(KeyError):
        fail()
    assert path.read_text() == "old"
    assert names(tmp_path) == ["result.json"]


def test_follows_the_umask_and_links(tmp_path):
    before = os.umask(0o027)
    try:
        with replacing(tmp_path / "file") as handle:
            handle.write(b"1")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o640
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "file")
    with replacing(link) as handle:
        handle.write(b"2")
    assert link.is_symlink()
    assert (tmp_path / "file").read_bytes() == b"2"


def test_a_pipe_is_written_through(tmp_path):
    """Planted: the check for regular files removed - a pipe or device would be replaced by a file."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDWR | os.O_NONBLOCK)
    try:
        with replacing(pipe) as handle:
            handle.write(b"through")
        assert stat.S_ISFIFO(pipe.stat().st_mode)
        assert os.read(reader, 100) == b"through"
    finally:
        os.close(reader)


def test_refusals_name_the_place(tmp_path):
    (tmp_path / "folder").mkdir()
    for path, message in (
        (tmp_path / "no" / "file", "folder .*no does not exist, create it first"),
        (tmp_path / "folder", "it is a folder"),
        (tmp_path / ("n" * 300), "cannot write .*choose another place"),
    ):
        with pytest.raises(SpineImgError, match=message), replacing(path):
            pytest.fail("must not come to writing")
    assert names(tmp_path) == ["folder"]

"""The path commands, with a mount beside them."""

import os
import pathlib

from tests.cluster.conftest import LocalFs3


def test_put_get_trees(running: LocalFs3, tmp_path: pathlib.Path) -> None:
    source = tmp_path / "tree"
    (source / "sub").mkdir(parents=True)
    (source / "sub" / "file").write_bytes(os.urandom(3_000_001))
    (source / "link").symlink_to("sub/file")
    os.chmod(source / "sub", 0o750)
    running.local("put", "-r", str(source), "/put")
    running.local("get", "-r", "/put", str(tmp_path / "back"))
    assert (tmp_path / "back/sub/file").read_bytes() == (source / "sub/file").read_bytes()
    assert os.readlink(tmp_path / "back/link") == "sub/file"
    assert (tmp_path / "back/sub").stat().st_mode == (source / "sub").stat().st_mode
    assert (running.mount / "put/sub/file").read_bytes() == (source / "sub/file").read_bytes()
    running.local("rm", "-r", "/put")


def test_ls_cat_cp_mv_rm_stat_info(running: LocalFs3) -> None:
    (running.mount / "dir").mkdir()
    (running.mount / "dir/one").write_bytes(b"1" * 2_500_000)
    assert running.local("ls", "/dir") == "one\n"
    assert running.local("ls", str(running.mount / "dir")) == "one\n"
    assert "2500000" in running.local("ls", "-l", "/dir")
    running.local("cp", "/dir/one", "/dir/two")
    assert running.local("cat", "/dir/two") == "1" * 2_500_000
    running.local("mv", "/dir/two", "/dir/three")
    assert sorted(os.listdir(running.mount / "dir")) == ["one", "three"]
    assert "2500000 bytes" in running.local("stat", "/dir/one")
    info = running.local("info", "/dir/one")
    assert info.count("storage-1") == 3, "three chunks, each with a replica on every node"
    for path in ("/", "/dir"):
        assert "no chunks" in running.local("info", path)
    running.local("rm", "/dir/one", "/dir/three")
    running.local("rm", "-r", "/dir")


def test_errors_name_the_path(running: LocalFs3) -> None:
    assert "/missing" in running.local("cat", "/missing", expect=4)
    assert "copy it with -r" in running.local("put", "/etc", "/", expect=2)
    assert "root directory" in running.local("rm", "-r", "/", expect=2)

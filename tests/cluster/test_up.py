"""What a stranger does: up, write, down, up again; and what goes wrong is said clearly."""

import json
import os
import pathlib
import signal
import socket

from tests.cluster.conftest import LocalFs3


def test_up_down_up_keeps_the_data(fs3: LocalFs3) -> None:
    banner = fs3.up()
    for word in ("mgmtd", "meta", "storage", "mount", "GiB free", "Try:", "Stop:"):
        assert word in banner
    (fs3.mount / "a").write_text("hello\n")
    (fs3.mount / "d").mkdir()
    (fs3.mount / "d" / "big").write_bytes(b"x" * 5_000_001)
    fs3.wait_healthy()
    fs3.down()
    assert not os.path.ismount(fs3.mount)
    fs3.up()
    assert (fs3.mount / "a").read_text() == "hello\n"
    assert (fs3.mount / "d" / "big").read_bytes() == b"x" * 5_000_001
    assert fs3.local("cat", "/a") == "hello\n"


def test_second_up_is_refused_with_the_address_of_the_first(fs3: LocalFs3) -> None:
    fs3.up("--no-mount")
    mgmtd = fs3.cluster.state()["mgmtd"]
    assert mgmtd in fs3.up("--no-mount", expect=1)


def test_erase_forgets(fs3: LocalFs3) -> None:
    fs3.up("--no-mount")
    fs3.wait_healthy()
    fs3.down("--erase", "--yes")
    assert not fs3.data.exists()


def test_shape_of_an_existing_cluster_stays(fs3: LocalFs3) -> None:
    fs3.up("--no-mount", "--nodes", "2", "--replicas", "2")
    fs3.wait_healthy()
    fs3.down()
    assert "has 2 nodes" in fs3.up("--no-mount", "--nodes", "3", expect=2)
    fs3.up("--no-mount")


def test_more_replicas_than_nodes(fs3: LocalFs3) -> None:
    assert "never share a node" in fs3.up("--nodes", "2", "--replicas", "3", expect=2)


def test_mount_point_that_is_not_empty(fs3: LocalFs3) -> None:
    fs3.mount.mkdir()
    (fs3.mount / "precious").touch()
    assert "not empty" in fs3.up(expect=1)
    assert (fs3.mount / "precious").exists()


def test_data_directory_with_something_else(fs3: LocalFs3) -> None:
    fs3.data.mkdir()
    (fs3.data / "thesis.tex").touch()
    assert "thesis.tex" in fs3.up("--no-mount", expect=1)
    assert (fs3.data / "thesis.tex").exists()


def test_node_of_another_cluster_is_refused(fs3: LocalFs3, tmp_path: pathlib.Path) -> None:
    fs3.up("--no-mount")
    fs3.wait_healthy()
    fs3.down()
    other = LocalFs3(tmp_path / "other")
    other.data.parent.mkdir()
    other.up("--no-mount")
    other.wait_healthy()
    other.down()
    original, foreign = fs3.data / "storage-1", other.data / "storage-1"
    original.rename(tmp_path / "aside")
    foreign.rename(original)
    message = fs3.up("--no-mount", expect=1)
    assert "cluster" in message
    original.rename(foreign)
    (tmp_path / "aside").rename(original)
    fs3.up("--no-mount")
    fs3.wait_healthy()
    other.down("--erase", "--yes")


def test_wrong_addresses(fs3: LocalFs3) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        nobody = f"127.0.0.1:{probe.getsockname()[1]}"
        assert nobody in fs3.fs3("status", "--mgmtd", nobody, expect=1)
    assert "no cluster is running" in fs3.fs3("ls", "/", expect=1)


def test_kill_and_ps(fs3: LocalFs3) -> None:
    fs3.up("--no-mount")
    fs3.wait_healthy()
    before = json.loads(fs3.local("ps", "-o", "json"))["storage-2"]["pid"]
    fs3.local("kill", "storage-2")

    def replaced() -> bool:
        entry = json.loads(fs3.local("ps", "-o", "json"))["storage-2"]
        return bool(entry["ready"]) and entry["pid"] not in (0, before)

    fs3.wait_for(replaced, "storage-2 started again")
    assert "there is no storage-9" in fs3.local("kill", "storage-9", expect=2)


def test_supervisor_killed_leaves_nothing_behind(fs3: LocalFs3) -> None:
    fs3.up()
    state = fs3.cluster.state()
    pids = [entry["pid"] for entry in state["processes"].values()]
    os.kill(state["supervisor"], signal.SIGKILL)
    fs3.wait_for(lambda: not any(pathlib.Path(f"/proc/{pid}").exists() for pid in pids), "all gone")
    fs3.up()

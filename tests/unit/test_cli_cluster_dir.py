"""The directory of a local cluster: one supervisor, clear errors, the right cluster found."""

import json
import os
import pathlib

import click
import pytest

from fs3.cli import cluster_dir
from fs3.cli.cluster_dir import ClusterDir, Shape

SHAPE = Shape(cluster_id="00" * 16, nodes=3, replicas=3, chains=6, lease_s=4.0)


@pytest.fixture
def cluster(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> ClusterDir:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "runtime"))
    monkeypatch.delenv("FS3_DATA", raising=False)
    monkeypatch.chdir(tmp_path)
    cluster = ClusterDir(tmp_path / "data")
    cluster.save_shape(SHAPE)
    return cluster


def test_shape_survives(cluster: ClusterDir) -> None:
    assert cluster.load_shape() == SHAPE


@pytest.mark.parametrize("text", ["", "{", "[]", '{"nodes": 3}', '{"unknown": 1}'])
def test_damaged_shape_names_the_file(cluster: ClusterDir, text: str) -> None:
    cluster.shape_file.write_text(text)
    with pytest.raises(click.ClickException, match=r"cluster\.json is damaged"):
        cluster.load_shape()


def test_newer_format_is_refused(cluster: ClusterDir) -> None:
    fields = json.loads(cluster.shape_file.read_text()) | {"format": 2}
    cluster.shape_file.write_text(json.dumps(fields))
    with pytest.raises(click.ClickException, match="format 2"):
        cluster.load_shape()


def test_second_supervisor_gets_the_address_of_the_first(cluster: ClusterDir) -> None:
    assert not cluster.running()
    with cluster.locked():
        (cluster.run / "state.json").write_text(json.dumps({"mgmtd": "127.0.0.1:7001"}))
        assert cluster.running()
        with (
            pytest.raises(click.ClickException, match=r"already running.*127\.0\.0\.1:7001"),
            ClusterDir(cluster.root).locked(),
        ):
            pass
    assert not cluster.running()


def test_find_prefers_what_was_said(cluster: ClusterDir, tmp_path: pathlib.Path) -> None:
    assert cluster_dir.find(cluster.root).root == cluster.root
    with pytest.raises(click.ClickException, match="holds no cluster"):
        cluster_dir.find(tmp_path / "elsewhere")


def test_find_running_by_registry(cluster: ClusterDir) -> None:
    with pytest.raises(click.ClickException, match="no cluster is running"):
        cluster_dir.find(None)
    cluster_dir.register(cluster)
    with cluster.locked():
        assert cluster_dir.find(None).root == cluster.root
    with pytest.raises(click.ClickException, match="no cluster is running"):
        cluster_dir.find(None)


def test_several_running_are_listed(cluster: ClusterDir, tmp_path: pathlib.Path) -> None:
    other = ClusterDir(tmp_path / "other")
    other.save_shape(SHAPE)
    for one in (cluster, other):
        cluster_dir.register(one)
    with (
        cluster.locked(),
        other.locked(),
        pytest.raises(click.ClickException, match=r"(?s)several.*data.*other"),
    ):
        cluster_dir.find(None)


def test_a_supervisor_is_known_from_the_lock_on(cluster: ClusterDir) -> None:
    assert cluster.supervisor() == 0
    with cluster.locked():
        assert cluster.supervisor() == os.getpid()
        with pytest.raises(click.ClickException, match="starting or stopping"):
            cluster.known_state()
    assert cluster.supervisor() == 0


def test_what_a_dead_supervisor_left_is_not_believed(cluster: ClusterDir) -> None:
    cluster.run.mkdir()
    (cluster.run / "state.json").write_text(json.dumps({"mgmtd": "127.0.0.1:1"}))
    with cluster.locked():
        assert cluster.state() == {}


def test_a_registry_of_somebody_else_is_refused(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "fs3-clusters").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(click.ClickException, match="not trusted"):
        cluster_dir.registry()


def test_paths_are_told_as_one_types_them(tmp_path: pathlib.Path) -> None:
    assert cluster_dir.named(ClusterDir(tmp_path / "a b")) == f"--data '{tmp_path}/a b'"

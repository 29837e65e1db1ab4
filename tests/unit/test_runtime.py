"""Clock, entropy, configuration, failpoints, telemetry, readiness and the life of a process."""

import json
import logging
import os
import pathlib
import signal
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

import pytest

from fs3.errors import BadRequest
from fs3.runtime import config, failpoint, ready
from fs3.runtime.clock import ManualClock, RealClock
from fs3.runtime.config import MetaConfig, MgmtdConfig, StorageConfig
from fs3.runtime.entropy import SeededEntropy, SystemEntropy
from fs3.runtime.telemetry import (
    Histogram,
    MetricsServer,
    StatisticsCollector,
    setup_logging,
    with_histograms,
)

# ---- clock and entropy


def test_a_manual_clock_moves_only_when_told_and_wakes_sleepers() -> None:
    clock = ManualClock()
    begin_ns = clock.monotonic_ns()
    woken = threading.Event()

    def sleep() -> None:
        clock.sleep(5.0)
        woken.set()

    thread = threading.Thread(target=sleep)
    thread.start()
    clock.advance(4.9)
    assert not woken.is_set()
    clock.advance(0.1)
    thread.join(10)
    assert woken.is_set()
    assert clock.monotonic_ns() - begin_ns == 5_000_000_000
    assert clock.boottime_ns() == clock.monotonic_ns() == clock.wall_ns()


def test_waiting_ends_with_the_event_or_the_time() -> None:
    clock = ManualClock()
    event = threading.Event()
    event.set()
    assert clock.wait(event, 100)
    assert RealClock().wait(event, 100)
    assert not RealClock().wait(threading.Event(), 0)
    assert not clock.wait(threading.Event(), 0)


def test_the_real_clocks_grow() -> None:
    clock = RealClock()
    for read in (clock.monotonic_ns, clock.boottime_ns):
        assert read() <= read()
    assert clock.wall_ns() > 1_700_000_000 * 10**9


def test_seeded_entropy_repeats_and_the_systems_does_not() -> None:
    one, other = SeededEntropy(4), SeededEntropy(4)
    assert one.token(16) == other.token(16)
    assert one.uniform(1, 2) == other.uniform(1, 2)
    system = SystemEntropy()
    assert system.token(16) != system.token(16)
    assert 1 <= system.uniform(1, 2) < 2


# ---- configuration


def test_a_file_gives_one_section_per_daemon(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "fs3.toml"
    path.write_text('[storage]\ndata = "d"\nnode_id = 3\nmgmtd = "h:1"\nlisten = ["tcp://h:0"]\n')
    loaded = config.load(StorageConfig, path, "storage")
    assert (loaded.data, loaded.node_id, loaded.listen) == ("d", 3, ("tcp://h:0",))
    assert config.load(StorageConfig, path, "storage", node_id=4).node_id == 4
    path.write_text("no toml")
    with pytest.raises(BadRequest, match=r"fs3\.toml.*not TOML"):
        config.load(StorageConfig, path, "storage")


@pytest.mark.parametrize(
    ("kind", "values", "complaint"),
    [
        (MgmtdConfig, {}, "data: a directory is needed"),
        (MgmtdConfig, {"data": "d", "kv": "postgres:///d"}, "instead --kv"),
        (StorageConfig, {"node_id": 1, "mgmtd": "h:1"}, "data: a directory is needed"),
        (MgmtdConfig, {"data": ""}, "data: a directory is needed"),
        (MgmtdConfig, {"data": "d", "colour": 1}, "unknown field `colour`"),
        (MgmtdConfig, {"data": "d", "lease_s": 1.0}, "lease_s: 2.0 to 60.0"),
        (MgmtdConfig, {"data": "d", "heartbeat_s": 1.5}, "heartbeat_s: above 0 and at most"),
        (MgmtdConfig, {"data": "d", "replicas": 0}, "replicas: 1 to 16"),
        (MgmtdConfig, {"data": "d", "cluster_id": "xyz"}, "cluster_id: 32 hex digits"),
        (MgmtdConfig, {"data": "d", "log_format": "xml"}, "log_format: text or json"),
        (MgmtdConfig, {"data": "d", "metrics_port": 70000}, "metrics_port: a port"),
        (MgmtdConfig, {"data": "d", "node_id": -1}, "node_id: an unsigned"),
        (MgmtdConfig, {"data": "d", "node_id": "one"}, r"Expected `int`, got `str`.*node_id"),
        (MetaConfig, {"data": "d"}, "mgmtd: the manager's gRPC address"),
        (MetaConfig, {"data": "d", "mgmtd": "h:1", "listen": []}, "listen: at least one"),
        (StorageConfig, {"data": "d", "mgmtd": "h:1"}, "node_id: a storage server needs"),
    ],
)
def test_bad_settings_name_source_and_field(
    kind: type[config.DaemonConfig], values: dict[str, Any], complaint: str
) -> None:
    with pytest.raises(BadRequest, match=complaint) as caught:
        config.parse(kind, values, "fs3.toml[x]")
    assert caught.value.where == "fs3.toml[x]"


# ---- failpoints


@pytest.fixture
def points() -> Iterator[None]:
    yield
    failpoint.disarm()


@pytest.mark.usefixtures("points")
def test_a_failpoint_is_inert_until_armed_and_counts() -> None:
    failpoint.failpoint("a")
    failpoint.arm("a=error*2; b=pause:0")
    assert failpoint.armed() == ["a", "b"]
    for _ in range(2):
        with pytest.raises(OSError, match="failpoint a"):
            failpoint.failpoint("a")
    failpoint.failpoint("a")
    failpoint.failpoint("b")
    failpoint.failpoint("c")
    assert (failpoint.passed("a"), failpoint.passed("b"), failpoint.passed("c")) == (2, 1, 0)


@pytest.mark.usefixtures("points")
@pytest.mark.parametrize("bad", ["a", "=kill", "a=explode", "a=pause:x"])
def test_a_bad_failpoint_is_named(bad: str) -> None:
    with pytest.raises(ValueError):
        failpoint.arm(bad)


def test_a_failpoint_from_the_environment_kills() -> None:
    script = "from fs3.runtime.failpoint import failpoint; failpoint('here'); print('alive')"
    environment = {**os.environ, "FS3_FAILPOINTS": "here=kill"}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True)
    assert done.returncode == -signal.SIGKILL
    assert done.stdout == b""


# ---- telemetry


def test_logs_are_one_line_each_also_for_exceptions(capsys: pytest.CaptureFixture[str]) -> None:
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    try:
        setup_logging("mgmtd-1")
        try:
            raise ValueError("a\nb")
        except ValueError:
            logging.getLogger("fs3.test").exception("went wrong: %d", 7)
        setup_logging("mgmtd-1", as_json=True)
        logging.getLogger("fs3.test").warning("said")
    finally:
        root.handlers[:] = before
        root.setLevel(level)
    text, as_json = capsys.readouterr().err.splitlines()
    assert 'ERROR fs3.test process=mgmtd-1 msg="went wrong: 7"' in text
    assert r'error="ValueError: a\nb"' in text
    assert "test_runtime.py" in text
    assert json.loads(as_json)["msg"] == "said"
    assert json.loads(as_json)["level"] == "WARNING"


def test_histogram_buckets_double() -> None:
    histogram = Histogram(first_s=1.0, buckets=3)
    for value in (0.5, 1.5, 3.0, 100.0):
        histogram.observe(value)
    assert histogram.statistics() == {
        "bounds_s": [1.0, 2.0, 4.0],
        "counts": [1, 1, 1, 1],
        "sum_s": 105.0,
    }


def test_native_buckets_become_histograms() -> None:
    native: dict[str, Any] = {
        "read": {"count": 3, "latency_buckets": [1, 0, 2], "latency_sum_s": 0.5},
        "x": 1,
    }
    native["targets"] = {7: {"chunks": 2}}
    assert with_histograms(native, [0.1, 0.2, 0.3]) == {
        "read": {
            "count": 3,
            "latency_seconds": {"bounds_s": [0.1, 0.2], "counts": [1, 0, 2], "sum_s": 0.5},
        },
        "x": 1,
        "targets": {7: {"chunks": 2}},
    }


def test_metrics_and_health_are_served_on_loopback() -> None:
    histogram = Histogram(first_s=0.5, buckets=2)
    histogram.observe(0.7)
    well = [True]

    def statistics() -> Mapping[str, Any]:
        return {
            "reads_total": 3,
            "name": "left out",
            "latency_s": histogram.statistics(),
            "engine": {"chunks": 5},
            "targets": [{"used_bytes": 1}, {"used_bytes": 2}],
            "replicas": {1000001: {"pending": 4}},
        }

    collector = StatisticsCollector("storage", statistics, {"process": "storage-1"})
    server = MetricsServer(0, collector, lambda: (well[0], "a sentence"))
    server.start()
    try:
        text = get(f"http://{server.address}/metrics")[1]
        for line in (
            'fs3_storage_reads_total{process="storage-1"} 3.0',
            'fs3_storage_engine_chunks{process="storage-1"} 5.0',
            'fs3_storage_targets_used_bytes{index="1",process="storage-1"} 2.0',
            'fs3_storage_replicas_pending{id="1000001",process="storage-1"} 4.0',
            'fs3_storage_latency_s_bucket{le="1.0",process="storage-1"} 1.0',
            'fs3_storage_latency_s_sum{process="storage-1"} 0.7',
        ):
            assert line in text
        assert "left out" not in text
        assert text.count("# TYPE fs3_storage_targets_used_bytes gauge") == 1
        assert get(f"http://{server.address}/healthz") == (200, "a sentence\n")
        well[0] = False
        assert get(f"http://{server.address}/healthz") == (503, "a sentence\n")
        assert get(f"http://{server.address}/else")[0] == 404
    finally:
        server.stop()


def get(url: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(url, timeout=10) as reply:
            return reply.status, reply.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


# ---- readiness and process


def test_readiness_is_one_line_and_the_descriptor_is_closed() -> None:
    reader, writer = os.pipe()
    ready.notify(writer, addresses=["tcp://h:1"], incarnation=b"\x01\x02", node_id=7)
    with os.fdopen(reader) as pipe:
        line = json.loads(pipe.read())
    assert line["ready"] is True
    assert (line["addresses"], line["incarnation"], line["node_id"]) == (["tcp://h:1"], "0102", 7)
    with pytest.raises(OSError):
        os.fstat(writer)


def test_no_supervisor_is_no_error() -> None:
    ready.notify(-1, addresses=[])
    reader, writer = os.pipe()
    os.close(reader)
    ready.notify(writer, addresses=[])


@pytest.fixture(autouse=True)
def no_daemon_is_left() -> Iterator[None]:
    """A test that fails half-way must not leave its daemons to the machine."""
    yield
    while Mgmtd.started:
        popen = Mgmtd.started.pop()
        if popen.poll() is None:
            popen.kill()
            popen.communicate()


class Mgmtd:
    """`fs3 serve mgmtd` as a process."""

    started: ClassVar[list["subprocess.Popen[str]"]] = []

    def __init__(self, data: pathlib.Path, *options: str, **environment: str) -> None:
        reader, writer = os.pipe()
        command = [sys.executable, "-m", "fs3.cli.serve", "mgmtd", "--data", str(data)]
        self.popen = subprocess.Popen(
            [*command, "--ready-fd", str(writer), *options],
            pass_fds=[writer],
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, **environment},
        )
        self.started.append(self.popen)
        os.close(writer)
        with os.fdopen(reader) as pipe:
            text = pipe.read()
        self.ready = json.loads(text) if text else {}

    def stop(self, number: int = signal.SIGTERM) -> tuple[int, str]:
        self.popen.send_signal(number)
        return self.wait()

    def wait(self) -> tuple[int, str]:
        _, errors = self.popen.communicate(timeout=60)
        return self.popen.returncode, errors


def test_a_daemon_starts_serves_dumps_and_stops(tmp_path: pathlib.Path) -> None:
    shape = ("--storage-nodes", "1,2,3", "--name", "mgmtd-1", "--metrics-port", "0")
    process = Mgmtd(tmp_path / "m", *shape)
    assert process.ready["addresses"] == [process.ready["grpc"]]
    assert "epoch" in get(f"http://{process.ready['metrics']}/metrics")[1]
    process.popen.send_signal(signal.SIGUSR1)
    status, errors = process.stop()
    assert status == 0, errors
    assert "msg=stopped" in errors
    again = Mgmtd(tmp_path / "m", "--log-format", "json")
    status, errors = again.stop(signal.SIGINT)
    assert status == 0, errors
    messages = [json.loads(line)["msg"] for line in errors.splitlines()]
    assert "primary with epoch 2" in messages


def test_a_killed_manager_keeps_its_state(tmp_path: pathlib.Path) -> None:
    first = Mgmtd(tmp_path / "m", "--storage-nodes", "1,2,3")
    assert first.stop(signal.SIGKILL)[0] == -signal.SIGKILL
    second = Mgmtd(tmp_path / "m")
    status, errors = second.stop()
    assert status == 0
    assert "new cluster" not in errors


@pytest.mark.parametrize("point", ["election.taken", "mgmtd.state_loaded"])
def test_a_death_while_starting_is_repaired_by_the_next_start(
    tmp_path: pathlib.Path, point: str
) -> None:
    shape = ("--storage-nodes", "1,2,3")
    first = Mgmtd(tmp_path / "m", *shape, FS3_FAILPOINTS=f"{point}=kill")
    assert first.ready == {}
    assert first.wait()[0] == -signal.SIGKILL
    second = Mgmtd(tmp_path / "m", *shape)
    assert second.ready
    assert second.stop()[0] == 0


def test_two_managers_on_one_directory_are_refused(tmp_path: pathlib.Path) -> None:
    first = Mgmtd(tmp_path / "m", "--storage-nodes", "1,2,3", "--name", "first")
    second = Mgmtd(tmp_path / "m", "--name", "second")
    status, errors = second.wait()
    assert status == 1
    assert "first" in errors
    assert len(errors.splitlines()) <= 3
    assert first.stop()[0] == 0


def test_a_manager_of_another_cluster_is_refused(tmp_path: pathlib.Path) -> None:
    ids = ("--cluster-id", "c" * 32), ("--cluster-id", "d" * 32)
    assert Mgmtd(tmp_path / "m", "--storage-nodes", "1,2,3", *ids[0]).stop()[0] == 0
    status, errors = Mgmtd(tmp_path / "m", *ids[1]).wait()
    assert status == 1
    assert f"cluster {'c' * 32}, not {'d' * 32}" in errors


def test_a_configuration_file_and_what_is_said_beside_it(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "fs3.toml"
    path.write_text('[mgmtd]\nstorage_nodes = [1, 2, 3]\nname = "of the file"\nlease_s = 2.0\n')
    process = Mgmtd(tmp_path / "m", "--config", str(path), "--name", "of the line")
    status, errors = process.stop()
    assert status == 0, errors
    assert "new cluster with 3 storage servers" in errors
    assert 'process="of the line"' in errors
    path.write_text("[mgmtd]\nlease_seconds = 2.0\n")
    status, errors = Mgmtd(tmp_path / "m", "--config", str(path)).wait()
    assert status == 2
    assert f"{path}[mgmtd]" in errors
    assert "lease_seconds" in errors


def test_usage_errors_name_the_option(tmp_path: pathlib.Path) -> None:
    status, errors = Mgmtd(tmp_path / "m", "--lease-s", "1").wait()
    assert status == 2
    assert "lease_s: 2.0 to 60.0" in errors

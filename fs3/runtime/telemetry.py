"""Logs, metrics and health of a daemon.

Logs go to standard error, one line per event, also for exceptions unless the level is debug:

    2026-01-31T12:00:00.123Z WARNING fs3.mgmtd.manager process=mgmtd-1 msg="no longer primary"

`/metrics` (Prometheus text) and `/healthz` (200 or 503, one sentence) are served on loopback.
"""

import bisect
import datetime
import http.server
import itertools
import json
import logging
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

__all__ = [
    "Histogram",
    "MetricsServer",
    "StatisticsCollector",
    "setup_logging",
    "with_histograms",
]

log = logging.getLogger(__name__)

Health = Callable[[], tuple[bool, str]]
Statistics = Callable[[], Mapping[str, Any]]


# ---- logs


class _Formatter(logging.Formatter):
    """One line per record; the end of an exception's chain instead of its stack."""

    def __init__(self, process: str, *, as_json: bool) -> None:
        super().__init__()
        self._process = process
        self._json = as_json

    def format(self, record: logging.LogRecord) -> str:
        fields: dict[str, str] = {"process": self._process, "msg": record.getMessage()}
        if record.exc_info and record.exc_info[1] is not None:
            error = record.exc_info[1]
            fields["error"] = f"{type(error).__name__}: {error}"
            fields["at"] = _place(error)
        time = datetime.datetime.fromtimestamp(record.created, datetime.UTC)
        stamp = time.isoformat(timespec="milliseconds").replace("+00:00", "Z")
        if self._json:
            head = {"time": stamp, "level": record.levelname, "logger": record.name}
            return json.dumps({**head, **fields})
        pairs = " ".join(f"{key}={_quoted(value)}" for key, value in fields.items())
        return f"{stamp} {record.levelname} {record.name} {pairs}"


def setup_logging(process: str, *, as_json: bool = False, level: str = "info") -> None:
    """Sends all logs of this process to standard error. `process`: its name, in every line."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Formatter(process, as_json=as_json))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())


def _quoted(value: str) -> str:
    return value if value.replace("-", "").replace("_", "").isalnum() else json.dumps(value)


def _place(error: BaseException) -> str:
    """Where it was raised: "manager.py:120 in _persist"."""
    trace = error.__traceback__
    if trace is None:
        return ""
    while trace.tb_next is not None:
        trace = trace.tb_next
    code = trace.tb_frame.f_code
    return f"{code.co_filename.rpartition('/')[2]}:{trace.tb_lineno} in {code.co_name}"


# ---- metrics


class Histogram:
    """Log-spaced buckets: bucket i counts values up to first * 2**i, the last one all above.

    Not thread-safe; values and bounds in seconds.
    """

    def __init__(self, first_s: float = 1e-6, buckets: int = 26) -> None:
        self._bounds_s = [first_s * 2**index for index in range(buckets)]
        self._counts = [0] * (buckets + 1)
        self._sum_s = 0.0

    def observe(self, value_s: float) -> None:
        self._sum_s += value_s
        self._counts[bisect.bisect_left(self._bounds_s, value_s)] += 1

    def statistics(self) -> dict[str, Any]:
        """What StatisticsCollector takes as a histogram; one count more than bounds."""
        return {"bounds_s": self._bounds_s, "counts": list(self._counts), "sum_s": self._sum_s}


def with_histograms(statistics: Mapping[Any, Any], bounds_s: Sequence[float]) -> dict[Any, Any]:
    """Statistics of the native side in the collector's form, at any depth: KEY_buckets (counts) and
    KEY_sum_s become the histogram KEY_seconds. `bounds_s`: upper bounds; the last bucket takes all
    above the one before.
    """
    result: dict[Any, Any] = {}
    for key, value in statistics.items():
        if isinstance(value, Mapping):
            result[key] = with_histograms(value, bounds_s)
            continue
        name = key.removesuffix("_buckets")
        if key.endswith("_buckets"):
            bounds = list(bounds_s)[: len(value) - 1]
            total_s = statistics.get(f"{name}_sum_s", 0.0)
            result[f"{name}_seconds"] = {"bounds_s": bounds, "counts": value, "sum_s": total_s}
        elif not (key.endswith("_sum_s") and f"{key.removesuffix('_sum_s')}_buckets" in statistics):
            result[key] = value
    return result


class StatisticsCollector:
    """Turns a nested dictionary of statistics into Prometheus metrics, at each scrape.

    Numbers become gauges named fs3_ROLE_KEY (counters when the key ends in _total); a dictionary
    with "bounds_s", "counts" and "sum_s" becomes a histogram; other dictionaries add to the name,
    with numbers as keys the label `id`; lists of dictionaries the label `index`. Text is left out.
    """

    def __init__(self, role: str, read: Statistics, labels: Mapping[str, str]) -> None:
        self._role = role
        self._read = read
        self._labels = dict(labels)

    def collect(self) -> Iterator[Any]:
        families: dict[str, Any] = {}
        self._walk(families, f"fs3_{self._role}", self._read(), self._labels)
        yield from families.values()

    def _walk(
        self, families: dict[str, Any], name: str, value: Any, labels: dict[str, str]
    ) -> None:
        if isinstance(value, Mapping) and "counts" in value and "bounds_s" in value:
            family = _family(families, "histogram", name, labels)
            buckets = _cumulative(value["bounds_s"], value["counts"])
            family.add_metric(list(labels.values()), buckets, sum_value=value["sum_s"])
        elif isinstance(value, Mapping):
            for key, inner in value.items():
                if isinstance(key, int):
                    self._walk(families, name, inner, {**labels, "id": str(key)})
                else:
                    self._walk(families, f"{name}_{key}", inner, labels)
        elif isinstance(value, list):
            for index, inner in enumerate(value):
                self._walk(families, name, inner, {**labels, "index": str(index)})
        elif isinstance(value, bool | int | float):
            kind = "counter" if name.endswith("_total") else "gauge"
            _family(families, kind, name, labels).add_metric(list(labels.values()), float(value))


def _family(families: dict[str, Any], kind: str, name: str, labels: Mapping[str, str]) -> Any:
    """One family per name: a scrape may not declare a name twice."""
    from prometheus_client import core

    if name not in families:
        kinds: dict[str, Any] = {
            "histogram": core.HistogramMetricFamily,
            "counter": core.CounterMetricFamily,
            "gauge": core.GaugeMetricFamily,
        }
        families[name] = kinds[kind](name, name, labels=list(labels))
    return families[name]


def _cumulative(bounds: Sequence[float], counts: Sequence[int]) -> list[tuple[str, float]]:
    totals = itertools.accumulate(counts)
    texts = [str(float(f"{bound:.9g}")) for bound in bounds] + ["+Inf"]
    return list(zip(texts, map(float, totals), strict=True))


class _HttpServer(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A caller that hangs up or sends garbage is no event of ours."""
        log.debug("metrics request of %s failed", client_address, exc_info=True)


class MetricsServer:
    """/metrics and /healthz on 127.0.0.1. start() binds; port 0 takes any free one."""

    def __init__(self, port: int, collector: StatisticsCollector, health: Health) -> None:
        from prometheus_client import CollectorRegistry, generate_latest
        from prometheus_client.process_collector import ProcessCollector

        registry = CollectorRegistry()
        registry.register(collector)
        ProcessCollector(registry=registry)
        self._render: Callable[[], bytes] = lambda: generate_latest(registry)
        self._health = health
        self._server = _HttpServer(("127.0.0.1", port), self._handler())
        self._thread = threading.Thread(
            target=self._server.serve_forever, name="fs3-metrics", daemon=True
        )

    @property
    def address(self) -> str:
        """ "127.0.0.1:PORT"."""
        return f"127.0.0.1:{self._server.server_address[1]}"

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _handler(self) -> type[http.server.BaseHTTPRequestHandler]:
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            timeout = 5

            def do_GET(self) -> None:
                if self.path == "/metrics":
                    self._send(200, "text/plain; version=0.0.4; charset=utf-8", outer._render())
                elif self.path == "/healthz":
                    well, sentence = outer._health()
                    self._send(200 if well else 503, "text/plain", f"{sentence}\n".encode())
                else:
                    self._send(404, "text/plain", b"try /metrics or /healthz\n")

            def log_message(self, format: str, *args: Any) -> None:
                log.debug(format, *args)

            def _send(self, status: int, kind: str, body: bytes) -> None:
                self.send_response(status)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

        return Handler

"""Direction is a test: who may import whom, in both languages, and calls that logic may not make.

When this fails, do not widen the table: pass what you need as an argument, or move it down.
"""

import ast
import pathlib
import re
from collections.abc import Iterator

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
PYTHON = ROOT / "fs3"
NATIVE = ROOT / "native"

# ---- Python: each package and the packages it may import (itself always, fs3 foundations always).

FOUNDATIONS = {"types", "errors", "limits", "layout", "trash", "_proto", "_native"}
RUNTIME = {"runtime"}
LIBRARIES = {"kv", "auth"}
SERVICES = {"mgmtd", "meta", "storage", "client"}
FRONTS = {"mount", "torch", "records", "web", "fsspec", "cli"}

MAY_IMPORT: dict[str, set[str]] = {
    **{name: set() for name in FOUNDATIONS},
    "runtime": set(),
    **dict.fromkeys(LIBRARIES, RUNTIME),
    **dict.fromkeys(SERVICES, RUNTIME | LIBRARIES),
    **dict.fromkeys(FRONTS, RUNTIME | LIBRARIES | SERVICES | FRONTS),
    "ring": set(),
    "usrbio": set(),  # 3FS's modules
    "": {"client", "ring"},  # fs3/__init__.py: the public names, nothing else
}

# ---- calls that logic may not make, and what to use instead.

LOGIC = {"kv", "auth", "mgmtd", "meta", "storage"}
BANNED = {
    "time.time": "clock.wall_ns()",
    "time.time_ns": "clock.wall_ns()",
    "time.monotonic": "clock.monotonic_ns()",
    "time.monotonic_ns": "clock.monotonic_ns()",
    "time.perf_counter": "clock.monotonic_ns()",
    "time.clock_gettime_ns": "clock.boottime_ns()",
    "time.sleep": "clock.sleep() or clock.wait(event, seconds)",
    "asyncio.sleep": "clock.sleep()",
    "datetime.datetime.now": "clock.wall_ns()",
    "datetime.datetime.utcnow": "clock.wall_ns()",
    "os.urandom": "entropy.token()",
    "uuid.uuid4": "entropy.token(16)",
    "uuid.uuid1": "entropy.token(16)",
    "secrets.token_bytes": "entropy.token()",
    "secrets.token_hex": "entropy.token().hex()",
    "threading.Timer": "a thread that waits with clock.wait()",
}
BANNED_MODULES = {"random": "entropy", "uuid": "entropy.token(16)", "secrets": "entropy.token()"}

# ---- native: each folder and the folders whose headers it may include.

BELOW: dict[str, set[str]] = {
    "base": set(),
    "disk": {"base"},
    "wire": {"base"},
    "auth": {"base"},
    "engine": {"base", "disk", "wire", "auth"},
    "craq": {"base"},
    "net": {"base", "disk", "wire", "auth"},
}
BELOW["storage"] = BELOW["client"] = set(BELOW)
BELOW["usrbio"] = {"base"}
BELOW["fuse"] = {*BELOW["storage"], "client", "usrbio"}
BELOW["python"] = set(BELOW)
WITHOUT_MESSAGES = {"base", "disk", "auth", "engine", "craq"}  # know nothing of protobuf


def packages() -> Iterator[tuple[str, pathlib.Path]]:
    for path in sorted(PYTHON.rglob("*.py")):
        parts = path.relative_to(PYTHON).parts
        if parts[0] == "_proto":
            continue
        name = parts[0] if len(parts) > 1 else path.stem
        yield ("" if name == "__init__" else name), path


def imported(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """(line, first name below fs3) of each import of this project, also inside functions."""
    for node in ast.walk(tree):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            deeper = [f"{node.module}.{alias.name}" for alias in node.names]
            names = deeper if node.module == "fs3" else [node.module]
        elif isinstance(node, ast.ImportFrom) and node.level:
            raise AssertionError(f"relative import in line {node.lineno}; write it in full")
        for name in names:
            if name.startswith("fs3."):
                yield node.lineno, name.split(".")[1]


def upward(package: str, path: pathlib.Path) -> Iterator[str]:
    tree = ast.parse(path.read_text(), str(path))
    allowed = MAY_IMPORT[package] | FOUNDATIONS | {package}
    for line, other in imported(tree):
        known = other in MAY_IMPORT
        if known and other not in allowed:
            yield f"{path.relative_to(ROOT)}:{line}: {package or 'fs3'} may not import fs3.{other}"


def test_every_package_has_a_place() -> None:
    unknown = {name for name, _ in packages()} - set(MAY_IMPORT)
    assert not unknown, f"say in MAY_IMPORT what these may import: {sorted(unknown)}"


def test_imports_go_down_only() -> None:
    found = [text for package, path in packages() for text in upward(package, path)]
    assert not found, "\n" + "\n".join(found)


def dotted(node: ast.AST) -> str:
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


def banned(path: pathlib.Path) -> Iterator[str]:
    tree = ast.parse(path.read_text(), str(path))
    where = path.relative_to(ROOT)
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute | ast.Name) and dotted(node) in BANNED:
            yield f"{where}:{node.lineno}: {dotted(node)} -> {BANNED[dotted(node)]}"
        elif isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name in BANNED_MODULES:
                    yield f"{where}:{node.lineno}: {alias.name} -> {BANNED_MODULES[alias.name]}"
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                name = f"{node.module}.{alias.name}"
                if name in BANNED or node.module in BANNED_MODULES:
                    instead = BANNED.get(name) or BANNED_MODULES[node.module]
                    yield f"{where}:{node.lineno}: {name} -> {instead}"


def test_logic_takes_time_and_randomness_as_arguments() -> None:
    found = [text for package, path in packages() if package in LOGIC for text in banned(path)]
    assert not found, "\n" + "\n".join(found)


def includes(path: pathlib.Path) -> Iterator[tuple[int, str]]:
    for number, line in enumerate(path.read_text().splitlines(), start=1):
        match = re.match(r'\s*#\s*include\s+"([^"]+)"', line)
        if match:
            yield number, match.group(1)


def native_sources() -> Iterator[tuple[str, pathlib.Path]]:
    for path in sorted(NATIVE.rglob("*")):
        if path.suffix in (".h", ".cc") and path.parent != NATIVE:
            yield path.relative_to(NATIVE).parts[0], path


def upward_includes(folder: str, path: pathlib.Path) -> Iterator[str]:
    where = path.relative_to(ROOT)
    for line, name in includes(path):
        other = name.split("/")[0]
        if name.endswith(".pb.h"):
            if folder in WITHOUT_MESSAGES:
                yield f"{where}:{line}: {folder} knows nothing of messages ({name})"
        elif "/" not in name:
            yield f'{where}:{line}: write "{folder}/{name}", relative to native/'
        elif other != folder and other not in BELOW[folder]:
            yield f"{where}:{line}: {folder} may not include {name}"


def test_every_native_folder_has_a_place() -> None:
    unknown = {folder for folder, _ in native_sources()} - set(BELOW)
    assert not unknown, f"say in BELOW what these may include: {sorted(unknown)}"


def test_no_include_goes_up() -> None:
    found = [text for folder, path in native_sources() for text in upward_includes(folder, path)]
    assert not found, "\n" + "\n".join(found)


# ---- the checks can fail


@pytest.mark.parametrize(
    ("package", "text", "message"),
    [
        ("mgmtd", "from fs3.meta.store import MetaStore", "mgmtd may not import fs3.meta"),
        ("meta", "def f():\n    import fs3.client.client", "meta may not import fs3.client"),
        ("runtime", "from fs3 import kv", "runtime may not import fs3.kv"),
        ("kv", "from fs3.auth import keyring", "kv may not import fs3.auth"),
        ("storage", "from fs3.cli import up", "storage may not import fs3.cli"),
    ],
)
def test_an_upward_import_is_found(
    tmp_path: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
    package: str,
    text: str,
    message: str,
) -> None:
    monkeypatch.setitem(globals(), "ROOT", tmp_path)
    path = tmp_path / "planted.py"
    path.write_text(text)
    assert message in "".join(upward(package, path))


@pytest.mark.parametrize(
    "text",
    [
        "import time\ntime.sleep(1)",
        "from time import monotonic",
        "import random",
        "from random import choice",
        "import datetime\nx = datetime.datetime.now()",
        "import os\nos.urandom(4)",
    ],
)
def test_a_banned_call_is_found(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    monkeypatch.setitem(globals(), "ROOT", tmp_path)
    path = tmp_path / "planted.py"
    path.write_text(text)
    assert " -> " in "".join(banned(path))


@pytest.mark.parametrize(
    ("folder", "include"),
    [("base", "net/rpc.h"), ("craq", "engine/engine.h"), ("craq", "common.pb.h"), ("net", "rpc.h")],
)
def test_an_upward_include_is_found(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, folder: str, include: str
) -> None:
    monkeypatch.setitem(globals(), "ROOT", tmp_path)
    path = tmp_path / "planted.h"
    path.write_text(f'#include <vector>\n#include "{include}"\n')
    assert len(list(upward_includes(folder, path))) == 1

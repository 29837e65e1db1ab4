"""A real cluster under a sanitizer: a copy of the tree with a module of its own, and pytest in it.

    python -m tests.sanitized build-asan copy                    before the module is built into it
    python -m tests.sanitized build-asan run tests/cluster/...   with any arguments of pytest

Every process that a test starts, services and mounts included, has the sanitizer's runtime loaded
before anything else (LD_PRELOAD), because Python itself was not built with it. Reports go to files:
one report fails the run, also when no test noticed. Leaks are not looked for: the interpreter does
not free what it holds at its end; those of the native parts are the native tests' business.
"""

import os
import pathlib
import shutil
import subprocess
import sys
from collections.abc import Sequence

ROOT = pathlib.Path(__file__).resolve().parent.parent
COPIED = ("fs3", "tests", "bench", "proto", "pyproject.toml")
# The preloaded runtime looks for the C++ library's functions at once, and Python brings none.
PRELOADED = ("libasan.so", "libubsan.so", "libstdc++.so")
REPORT_LINES_MAX = 60

# Reads freed memory through a function that the runtime watches.
PLANTED = """
import ctypes
libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
address = libc.malloc(64)
libc.free(ctypes.c_void_p(address))
ctypes.string_at(address, 32)
"""
# Says whose module it got, and whether that was built with the sanitizer.
LOADED = """
import pathlib, fs3._native
print(fs3._native.__file__, b"__asan_init" in pathlib.Path(fs3._native.__file__).read_bytes())
"""


def copy(build: pathlib.Path) -> int:
    """Everything but what a build brings; what was built before stays."""
    tree = build / "tree"
    for name in COPIED:
        source, target = ROOT / name, tree / name
        if source.is_file():
            shutil.copyfile(source, target)
            continue
        ignore = shutil.ignore_patterns("__pycache__", "_native*", "_proto")
        shutil.copytree(source, target, ignore=ignore, dirs_exist_ok=True)
        for path in target.rglob("*.py"):  # removed or renamed since the last copy
            if "_proto" not in path.parts and not (source / path.relative_to(target)).exists():
                path.unlink()
    return 0


def run(build: pathlib.Path, arguments: Sequence[str]) -> int:
    tree, reports = build / "tree", build / "reports"
    shutil.rmtree(reports, ignore_errors=True)
    reports.mkdir()
    environment = _environment(reports)
    if problem := _not_in_force(tree, reports, environment):
        print(f"FAIL {problem}")
        return 1
    pytest = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *arguments]
    status = subprocess.call(pytest, cwd=tree, env=environment)
    found = sorted(reports.iterdir())
    for report in found:
        lines = report.read_text(errors="replace").splitlines()
        print(f"---- {report}", *lines[:REPORT_LINES_MAX], sep="\n")
    print(f"{len(found)} reports of the sanitizer")
    return 1 if found or status else 0


def _environment(reports: pathlib.Path) -> dict[str, str]:
    log = f"log_path={reports / 'report'}"
    libraries = [_library(name) for name in PRELOADED]
    return {
        **os.environ,
        "LD_PRELOAD": ":".join(libraries),
        "PYTHONMALLOC": "malloc",  # else a use after free inside an arena goes unseen
        "PYTHONDONTWRITEBYTECODE": "1",
        "ASAN_OPTIONS": f"detect_leaks=0:{log}",
        "UBSAN_OPTIONS": f"print_stacktrace=1:{log}",
    }


def _library(name: str) -> str:
    done = subprocess.run(
        ["g++", f"-print-file-name={name}"], capture_output=True, text=True, check=True
    )
    return str(pathlib.Path(done.stdout.strip()).resolve())


def _not_in_force(
    tree: pathlib.Path, reports: pathlib.Path, environment: dict[str, str]
) -> str | None:
    """Why the run would prove nothing; None when all is well."""
    loaded = subprocess.run(
        [sys.executable, "-c", LOADED], cwd=tree, env=environment, capture_output=True, text=True
    )
    path, _, sanitized = loaded.stdout.strip().rpartition(" ")
    if sanitized != "True" or not pathlib.Path(path).is_relative_to(tree.resolve()):
        return f"not the module of {tree}, built with a sanitizer: {loaded.stdout}{loaded.stderr}"
    subprocess.run([sys.executable, "-c", PLANTED], env=environment, capture_output=True)
    planted = list(reports.iterdir())
    if not any("heap-use-after-free" in report.read_text(errors="replace") for report in planted):
        return "a planted use after free was not reported"
    for report in planted:
        report.unlink()
    return None


def main(arguments: Sequence[str]) -> int:
    match arguments:
        case [build, "copy"]:
            return copy((ROOT / build).resolve())
        case [build, "run", *rest]:
            return run((ROOT / build).resolve(), rest)
    print(__doc__)
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

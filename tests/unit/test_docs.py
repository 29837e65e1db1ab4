"""The pages are true where a test can tell: every file they name exists, every command too."""

import pathlib
import re
import subprocess

import pytest

from fs3.cli import _COMMANDS

ROOT = pathlib.Path(__file__).resolve().parents[2]
PAGES = sorted(
    path
    for pattern in ("README.md", "*/README.md", "*/*/README.md", "proto/*.md")
    for path in ROOT.glob(pattern)
    if not path.parts[len(ROOT.parts)].startswith((".", "build"))
)
PATH = re.compile(r"`([A-Za-z0-9_.*-]+(?:/[A-Za-z0-9_.*-]+)+/?)`")
MADE_LATER = ("./", "build/", "fs3/_proto", ".venv/")
SUFFIXES = ("", ".py", ".h", ".cc", ".proto", ".md")


def exists(name: str, page: pathlib.Path) -> bool:
    """Named from the root, from the page, or from the language's folder; with or without suffix."""
    bases = (ROOT, page.parent, ROOT / "fs3", ROOT / "native")
    return any(
        any(
            True
            for _ in base.glob(re.sub("[A-Z]{4,}(?![A-Za-z.])", "*", name.rstrip("/")) + suffix)
        )
        for base in bases
        for suffix in SUFFIXES
    )


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_named_files_exist(page: pathlib.Path) -> None:
    names = [name for name in PATH.findall(page.read_text()) if not name.startswith(MADE_LATER)]
    missing = [name for name in names if not exists(name, page)]
    assert not missing, f"{page.relative_to(ROOT)} names files that do not exist"


@pytest.mark.parametrize("folder", ["fs3", "native", "proto", "deploy", "tests", "bench"])
def test_every_top_folder_has_a_page(folder: str) -> None:
    assert (ROOT / folder / "README.md").exists()
    assert f"`{folder}/README.md`" in (ROOT / "README.md").read_text()


def test_named_commands_exist() -> None:
    text = (ROOT / "README.md").read_text() + (ROOT / "deploy" / "README.md").read_text()
    named = set(re.findall(r"`fs3 ([a-z]+)", text))
    assert named <= set(_COMMANDS)


@pytest.mark.parametrize("script", ["deploy/up", "deploy/setup", "tests/run", ".ci/run"])
def test_scripts_are_sound_and_executable(script: str) -> None:
    path = ROOT / script
    assert path.stat().st_mode & 0o111
    assert subprocess.run(["bash", "-n", path], check=False).returncode == 0

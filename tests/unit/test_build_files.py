"""The build files, for what no build in a plain path shows."""

import pathlib

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("name", ["native/CMakeLists.txt", "tests/fuzz/CMakeLists.txt"])
def test_commands_of_the_build_take_any_path(name: str) -> None:
    """Without VERBATIM a space or an apostrophe in the path of the checkout breaks a command."""
    text = (ROOT / name).read_text()
    for command in text.split("add_custom_command(")[1:]:
        body = command.split("add_custom_target(")[0]
        assert "VERBATIM)" in body, command[:200]

"""Programs in C over the library, compiled as a user would: with its header, linked by SONAME."""

import pathlib
import re
import subprocess

from tests.cluster.conftest import ROOT

USRBIO = ROOT / "fs3" / "usrbio"


def compiled(source: pathlib.Path, into: pathlib.Path) -> pathlib.Path:
    """The program of one C file."""
    program = into / source.stem
    command = ["gcc", "-std=gnu11", "-Wall", "-Wextra", "-Werror", str(source), "-o", str(program)]
    command += [f"-I{USRBIO}/include", f"-L{USRBIO}/lib", "-lhf3fs_api_shared"]
    command += [f"-Wl,-rpath,{USRBIO}/lib"]
    subprocess.run(command, check=True)
    return program


def example(language: str) -> str:
    """What the page for users shows in that language."""
    text = (USRBIO / "README.md").read_text()
    [code] = re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)
    return str(code)

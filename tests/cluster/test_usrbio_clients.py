"""Clients that were written and built for 3FS, unmodified."""

import hashlib
import json
import random
import struct
import subprocess
import sys

import pytest

from tests.cluster.conftest import ROOT, LocalFs3
from tests.cluster.usrbio.programs import USRBIO

pytest.importorskip("fastsafetensor_3fs_reader", reason="its wheel is for Python 3.11")


@pytest.mark.parametrize("backend", ["cpp", "python"])
@pytest.mark.parametrize("size", [4 << 20, 9_000_001])
def test_fastsafetensor_3fs_reader(running: LocalFs3, backend: str, size: int) -> None:
    """The one backend is a binary that links libhf3fs_api_shared.so, the other uses hf3fs_fuse."""
    body = random.Random(size).randbytes(size)
    header = json.dumps({"w": {"dtype": "U8", "shape": [size], "data_offsets": [0, size]}}).encode()
    path = running.mount / f"{backend}-{size}.safetensors"
    path.write_bytes(struct.pack("<Q", len(header)) + header + body)
    user = ROOT / "tests" / "cluster" / "usrbio" / "safetensors_user.py"
    done = subprocess.run(
        [sys.executable, user, backend, running.mount, path],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env={"HF3FS_LIB_DIR": str(USRBIO / "lib"), "PYTHONPATH": str(USRBIO / "python")},
    )
    assert done.stdout.strip() == hashlib.sha256(body).hexdigest(), done.stderr

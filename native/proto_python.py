"""Generates fs3/_proto from proto/*.proto: messages, type stubs and gRPC stubs, as one package.

protoc writes `import common_pb2`; inside a package that must be relative, so the import lines are
rewritten.
Usage: proto_python.py PROTO_DIR OUT_DIR
"""

import pathlib
import re
import sys

import grpc_tools
from grpc_tools import protoc


def main(proto_dir: pathlib.Path, out: pathlib.Path) -> int:
    out.mkdir(parents=True, exist_ok=True)
    sources = sorted(str(path) for path in proto_dir.glob("*.proto"))
    include = pathlib.Path(grpc_tools.__file__).parent / "_proto"
    arguments = ["protoc", f"--proto_path={proto_dir}", f"--proto_path={include}"]
    arguments += [f"--{kind}_out={out}" for kind in ("python", "pyi", "grpc_python")]
    status: int = protoc.main(arguments + sources)
    if status:
        return status
    for path in out.glob("*_pb2*.py*"):
        text = path.read_text()
        path.write_text(re.sub(r"^import (\w+_pb2)", r"from . import \1", text, flags=re.MULTILINE))
    for path in out.glob("*_pb2_grpc.py"):
        if "add_" not in path.read_text():
            path.unlink()  # a file without a service has no stubs
    (out / "__init__.py").write_text('"""Generated from proto/; do not edit."""\n')
    (out / ".stamp").touch()
    return 0


if __name__ == "__main__":
    sys.exit(main(pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2])))

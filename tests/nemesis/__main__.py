"""`python -m tests.nemesis`: makes the hosts, runs in one of them, keeps what a failure needs."""

import argparse
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import traceback

from tests.nemesis.cluster import CONTROL, ROOT, Cluster
from tests.nemesis.failure import Failure
from tests.nemesis.hosts import Hosts, Loopback, Namespaces, namespaces_allowed
from tests.nemesis.run import Plan, run


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.nemesis", description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=30.0, help="of faults, per seed (30)")
    parser.add_argument("--seeds", type=int, default=1, help="how many seeds, one after the other")
    parser.add_argument("--only", action="append", help="draw only this kind of fault (repeatable)")
    parser.add_argument("--loopback", action="store_true", help="no network namespaces")
    options = parser.parse_args()
    seeds = range(options.seed, options.seed + options.seeds)
    plans = [Plan.draw(seed, options.seconds, options.only) for seed in seeds]
    failed = [plan.seed for plan in plans if _one(plan, options.loopback)]
    print(f"{len(plans)} seeds: {len(plans) - len(failed)} passed", flush=True)
    if failed:
        print(f"{len(failed)} seeds failed: {failed}", flush=True)
    return 1 if failed else 0


def _one(plan: Plan, loopback: bool) -> int:
    names = Cluster.host_names(plan.storages)
    use_loopback = loopback or not namespaces_allowed()
    hosts: Hosts = Loopback() if use_loopback else Namespaces(names)
    directory = pathlib.Path(tempfile.mkdtemp(prefix=f"fs3-nemesis-{plan.seed}-"))
    try:
        hosts.start()
        status = _inside(plan, directory, hosts)
    finally:
        hosts.stop()
    if status:
        _keep(plan, directory, use_loopback)
    else:
        shutil.rmtree(directory)
    return status


def _inside(plan: Plan, directory: pathlib.Path, hosts: Hosts) -> int:
    """A child on the control host: from there it reaches every server, as they reach each other."""
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    status = 1
    try:
        _enter(hosts)
        run(plan, directory, hosts, lambda text: print(text, flush=True))
        print(f"ok: seed {plan.seed}", flush=True)
        status = 0
    except Failure as failure:
        print(f"FAIL seed={plan.seed}: {failure}", flush=True)
    except Exception:
        traceback.print_exc()
    finally:
        os._exit(status)


def _enter(hosts: Hosts) -> None:
    """Moves this process into the control host's network."""
    place = hosts.command(CONTROL, [])
    if not place:
        return
    import ctypes

    with open(place[1].partition("=")[2], "rb") as namespace:
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.setns(namespace.fileno(), 0x40000000):  # CLONE_NEWNET
            raise OSError(ctypes.get_errno(), "setns")


def _keep(plan: Plan, directory: pathlib.Path, loopback: bool) -> None:
    """repro.sh beside the logs: the commit, the seed, the command."""
    git = ["git", "-C", str(ROOT), "rev-parse", "HEAD"]
    done = subprocess.run(git, capture_output=True, text=True, check=False)
    arguments = f"--seed {plan.seed} --seconds {plan.seconds:g}{' --loopback' if loopback else ''}"
    script = directory / "repro.sh"
    script.write_text(
        f"#!/bin/sh\n# {plan}\n# commit {done.stdout.strip() or 'unknown'}\n"
        f"cd {ROOT} && exec .venv/bin/python -m tests.nemesis {arguments}\n"
    )
    script.chmod(0o755)
    print(f"logs and data are kept in {directory}; once more: {script}", flush=True)


if __name__ == "__main__":
    sys.exit(main())

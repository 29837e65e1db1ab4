"""Real processes under a nemesis: a whole cluster, each host in a network namespace of its own,
faults drawn from a seed, real programs' work on two mounts, and checks of the whole at the end.

    python -m tests.nemesis --seed 7 --seconds 60
"""

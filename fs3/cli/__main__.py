"""`python -m fs3.cli`: the same command without an installed script."""

from fs3.cli import main

main()

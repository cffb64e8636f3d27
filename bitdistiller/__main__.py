"""`python -m bitdistiller`: the same as the command `bitdistiller`."""

from bitdistiller.cli import main

main()

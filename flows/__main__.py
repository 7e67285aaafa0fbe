"""`python -m flows` is `pcd`, also where the command is not on the path."""

from flows.cli import main

main(prog_name="pcd")

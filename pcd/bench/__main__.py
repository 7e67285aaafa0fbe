"""`python -m pcd.bench [--only loss,…] [--json FILE]`: prints a table, and writes it with its environment."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from rich.console import Console

from pcd.bench.harness import Row, Skipped, describe_environment, to_json, to_table
from pcd.bench.suites import SUITES
from pcd.errors import PCDError, unknown_name

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m pcd.bench", description="Measure the fast paths on this machine.")
    parser.add_argument("--only", metavar="NAME,…", help=f"suites to run: {', '.join(SUITES)}; all by default")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures and their environment there")
    parser.add_argument("--threads", type=int, help="processor cores to compute with; all by default")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cuda" if torch.cuda.is_available() else "cpu")
    options = parser.parse_args(arguments)
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    try:
        names = _names(options.only)
    except PCDError as error:
        print(error, file=sys.stderr)
        return 2
    console = Console(width=None if Console().is_terminal else 120)  # a pipe has no width of its own
    device = torch.device(options.device)
    environment = describe_environment(device)
    console.print(", ".join(f"{name} {value}" for name, value in environment.items()))
    results: list[Row | Skipped] = []
    for name in names:
        for result in SUITES[name](device):
            results.append(result)
            console.print(f"measured {result.name}")
            if options.json:  # after every row: a bench that is stopped early leaves what it has
                options.json.write_text(to_json(environment, results) + "\n")
    console.print(to_table(results))
    return 0


def _names(only: str | None) -> list[str]:
    names = only.split(",") if only else list(SUITES)
    for name in names:
        if name not in SUITES:
            raise unknown_name("suite", name, SUITES)
    return names


if __name__ == "__main__":
    sys.exit(main())

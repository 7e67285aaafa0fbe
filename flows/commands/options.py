"""Options that several commands have, each told once."""

from pathlib import Path

import click

__all__ = ["as_json", "only", "overrides", "own", "part"]

as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON for machines.")
only = click.option("--only", multiple=True, metavar="PATTERN", help="Only these cells, such as 'pcd.*.seed0'.")
overrides = click.option(
    "--set", "overrides", multiple=True, metavar="SETTING=VALUE", help="Change a setting of the profile."
)
own = click.option(
    "--data", "own", type=click.Path(path_type=Path), metavar="FOLDER",
    help="Fine-tune on this labelled set of your own; `pcd data check FOLDER` looks at it first.",
)  # fmt: skip
part = click.option("--part", help="A rerun's part of the store, by its name.")

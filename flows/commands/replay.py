"""`pcd replay`: a captured step computed again, and where it goes wrong."""

import json
from pathlib import Path
from typing import Literal

import click

__all__ = ["show_replay"]

_SHOWN = 5


def show_replay(capture: Path, precision: Literal["as captured", "fp32", "bf16", "fp16"], as_json: bool) -> None:
    """Raises PCDError if the file is no capture."""
    from pcd.replay import replay  # late: torch

    again = replay(capture, precision)
    if as_json:
        click.echo(json.dumps(again.describe(), indent=2))
        return
    click.echo(
        f"step {again.step} again, in {again.precision}: loss {again.loss:g}, gradient norm {again.gradient_norm:g}"
    )
    click.echo(f"first module whose output is not finite: {again.first_module or 'none'}")
    for what, names in (("weights before the step", again.weights), ("gradients", again.gradients)):
        more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
        click.echo(f"{what} that are not finite: {', '.join(names[:_SHOWN]) or 'none'}{more}")
    if again.first_module is None and not again.gradients:
        click.echo(
            "this time the step is finite: try `--precision fp32` and `fp16`, or suspect the machine that captured it"
        )

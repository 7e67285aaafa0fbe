"""`pcd rerun`: run a recorded benchmark again, and say whether it came out the same."""

import contextlib
import json
import sys
import time
from typing import Any, Final

import click

from flows.commands import options
from pcd.errors import unknown_name

__all__ = ["rerun", "shared_kinds"]

_SHARED: Final = ("teacher", "data", "pretrain")
_NOT_REPRODUCED: Final = 1
_NOT_COMPARABLE: Final = 3


@click.command()
@click.argument("run", required=False)
@click.option("--share", metavar="KINDS", default="", help="Stages to reuse: teacher,data,pretrain [none].")
@click.option("--part", metavar="NAME", help="Part of the store; that of an interrupted rerun goes on with it [new].")
@options.as_json
def rerun(run: str | None, share: str, part: str | None, as_json: bool) -> None:
    """Run benchmark RUN again from its recorded settings, and judge every cell.

    RUN is the name or key of a finished benchmark, by default the one finished last. The exit code is 0 if all cells
    are identical or reproduced, 1 if one is not reproduced, has fallen by more than the tolerance, or failed, and 3 if
    nothing worse is there than cells that cannot be compared.
    """
    kinds = shared_kinds(share)
    with contextlib.redirect_stdout(sys.stderr if as_json else sys.stdout):  # progress must not stand in the JSON
        verdict = _run(run, kinds, part)
    if as_json:
        click.echo(json.dumps(verdict, indent=2))
    else:
        click.echo(f"\nverdict: {verdict['outcome'] or 'hole'}; table and figure: {verdict['folder']}")
        if verdict["mlflow_page"]:
            click.echo(f"pages: `pcd ui` (or `make ui`), then\n  MLflow   {verdict['mlflow_page']}")
    if verdict["is_failure"]:
        sys.exit(_NOT_REPRODUCED)
    if verdict["outcome"] in (None, "not comparable"):
        sys.exit(_NOT_COMPARABLE)


def shared_kinds(share: str) -> tuple[str, ...]:
    """From "teacher,data". Raises PCDError on an unknown one."""
    kinds = tuple(kind.strip() for kind in share.split(",") if kind.strip())
    for kind in kinds:
        if kind not in _SHARED:
            raise unknown_name("kind of stage to share", kind, _SHARED)
    return kinds


def _run(run: str | None, share: tuple[str, ...], part: str | None) -> dict[str, Any]:
    """What the rerun left as verdict.json, and where. Raises what the flow raised if it left none."""
    from flows.run_record import finished_record

    original = finished_record(run)  # before a server is started in vain
    part = part or f"{original.name}-{time.strftime('%Y%m%d-%H%M%S')}"
    click.echo(f"rerun of {original.name} in the part {part}; `--part {part}` goes on with it if it is interrupted")
    from flows.run import prefect_and_mlflow

    with prefect_and_mlflow():
        from flows.rerun import PAGE, verdict_folder
        from flows.rerun import rerun as flow

        path = verdict_folder(part) / "verdict.json"
        path.unlink(missing_ok=True)
        state = flow(run=run, share=share, part=part, return_state=True)
        if not path.exists():
            state.result()
    verdict: dict[str, Any] = json.loads(path.read_text())
    page = path.parent / PAGE
    return verdict | {
        "part": part,
        "folder": str(path.parent),
        "mlflow_page": page.read_text() if page.exists() else None,
    }

"""What is said of a benchmark's stages that failed: in its state, and in the holes of its table."""

from flows.planning.stages import Plan, Stage, with_all_behind
from flows.run_record import NOT_ASKED_FOR
from pcd.errors import PCDError, StageFailedError

__all__ = ["one_of", "told", "why_missing"]


def why_missing(cell: Stage, plan: Plan, failures: dict[str, Exception]) -> str:
    """Its own failure, or those of the stages that it rests on."""
    if cell.id not in {stage.id for stage in plan.stages}:
        return NOT_ASKED_FOR
    failed = [stage.id for stage in with_all_behind([cell.id], plan) if stage.id in failures]
    causes = [f"{stage}: {_first_line(failures[stage])}" for stage in failed]
    return "; ".join(causes) or "a stage that it needs failed"


def one_of(failures: dict[str, Exception]) -> Exception:
    """What the user can mend comes first; else all of them in one."""
    for error in failures.values():
        if isinstance(error, PCDError):
            return error
    if len(failures) == 1:
        return next(iter(failures.values()))
    return StageFailedError(told(failures))


def told(failures: dict[str, Exception]) -> str:
    count = len(failures)
    lines = [f"{stage}: {_first_line(error)}" for stage, error in failures.items()]
    return f"{count} stage{'s' * (count > 1)} failed:\n  " + "\n  ".join(lines)


def _first_line(error: Exception) -> str:
    """Without the log's place on this machine, which has no business in a table."""
    first = str(error).partition("\n")[0].partition("; the last lines of ")[0]
    return first or type(error).__name__

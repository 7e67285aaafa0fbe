"""Whether a stage that failed is worth another attempt: plain rules, which a Prefect task's retry condition asks."""

from dataclasses import dataclass

from pcd.errors import PCDError, StageStoppedError

__all__ = ["Attempts"]


@dataclass(slots=True)
class Attempts:
    """The failures of one stage in one run."""

    limit: int
    """How often it may be tried again."""
    retried: int = 0
    step: int | None = None
    """Of the checkpoint that the failure before this one left; None before the first failure."""

    def worth_another(self, error: BaseException, step_reached: int | None) -> bool:
        """To be asked once for each failure.

        Not when the user has to mend something or has stopped the stage, not more often than `limit`, and not when the
        stage has saved nothing new since it failed before: it would fail there again.

        Args:
            step_reached: of the last checkpoint, None without one.
        """
        reached = step_reached or 0
        is_further = self.step is None or reached > self.step
        self.step = reached
        if isinstance(error, PCDError | StageStoppedError | KeyboardInterrupt | SystemExit):
            return False
        if self.retried >= self.limit or not is_further:
            return False
        self.retried += 1
        return True

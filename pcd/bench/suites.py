"""The suites by name: to add one, write its function in a file of its own and name it here."""

from pcd.bench.harness import Suite
from pcd.bench.loss import loss_suite

__all__ = ["SUITES"]

SUITES: dict[str, Suite] = {"loss": loss_suite}

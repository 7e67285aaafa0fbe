"""BatchNorm's statistics of the weights as they ended, in place of the running mean over weights that still moved."""

from collections.abc import Iterator
from typing import Any

import torch
from detectron2.utils.events import EventStorage
from fvcore.nn.precise_bn import update_bn_stats

from eval.detectron.data import training_loader
from eval.detectron.frozen import to_training_mode
from eval.finetune_settings import FinetuneSettings
from pcd.distributed import any_rank
from pcd.stage import Spec, Stopped

__all__ = ["count_statistics_anew"]


def count_statistics_anew(
    cfg: Any, detector: Any, settings: FinetuneSettings, train_name: str, seed: int, spec: Spec
) -> None:
    """Set every BatchNorm's mean and variance to those over `settings.precise_bn_iterations` further batches.

    "Rethinking 'Batch' in BatchNorm" (arXiv 2105.07576), section 3, by fvcore's `update_bn_stats`: what Detectron2's
    TEST.PRECISE_BN does before an evaluation. The batches are those that the training would have seen next.

    Raises Stopped when asked to stop: the training's last checkpoint is there, and the count begins anew.
    """
    wanted, first = settings.precise_bn_iterations, settings.iterations
    if not wanted:
        return
    device = torch.device(cfg.MODEL.DEVICE)

    def batches() -> Iterator[Any]:
        for i, batch in enumerate(training_loader(cfg, train_name, spec.runtime["workers"], seed, first)):
            spec.activity("BatchNorm's statistics", i, wanted)
            if any(any_rank([spec.stop_requested], device)):
                raise Stopped
            torch.manual_seed((seed << 32) + first + i)  # the proposals of a step, as in training
            yield batch

    to_training_mode(detector)  # fvcore leaves alone what is not in it
    with EventStorage(first):
        update_bn_stats(detector, batches(), wanted)

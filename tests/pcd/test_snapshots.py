from collections.abc import Callable

import torch

from pcd.export import load_backbone
from pcd.snapshots import list_snapshots
from pcd.stage import Spec
from pcd.train import pretrain


def test_snapshots_change_nothing_and_the_last_one_is_the_exported_backbone(
    pretraining: Callable[..., Spec], finished: tuple[object, dict[str, object]]
) -> None:
    spec = pretraining(runtime={"snapshot_epochs": 1})
    pretrain(spec)
    snapshots = dict(list_snapshots(spec.out))
    assert list(snapshots) == [float(epoch) for epoch in range(1, len(snapshots) + 1)]
    exported = load_backbone(spec.out / "backbone.safetensors")
    last = load_backbone(snapshots[float(len(snapshots))] / "backbone.safetensors")
    assert all(torch.equal(tensor, exported[name]) for name, tensor in last.items())
    undisturbed = load_backbone(finished[0] / "backbone.safetensors")  # type: ignore[operator]
    assert all(torch.equal(tensor, undisturbed[name]) for name, tensor in exported.items())

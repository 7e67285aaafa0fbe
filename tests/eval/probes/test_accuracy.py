import pytest
import torch

from eval.probes import accuracy
from eval.probes.accuracy import accuracies


def test_it_is_the_share_of_images_whose_class_is_among_the_best(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accuracy, "_CHUNK", 7)
    scores, labels = torch.randn(50, 9), torch.randint(9, (50,))
    ranks = [
        sorted(range(9), key=lambda c: -float(row[c])).index(int(label))
        for row, label in zip(scores, labels, strict=True)
    ]
    expected = {f"top{k}": 100 * sum(rank < k for rank in ranks) / 50 for k in (1, 5)}
    assert accuracies(lambda x: x, scores, labels) == pytest.approx(expected)


def test_of_five_classes_there_is_no_top5() -> None:
    assert accuracies(lambda x: x, torch.eye(5), torch.arange(5)) == {"top1": 100, "top5": None}

import pytest
from torch import nn

from pcd.evaluation_mode import evaluation_mode


def _network() -> nn.Sequential:
    network = nn.Sequential(nn.BatchNorm2d(2), nn.Sequential(nn.Dropout(), nn.ReLU()))
    network[0].eval()  # as one that is frozen
    return network


def test_inside_everything_is_in_eval_mode() -> None:
    network = _network()
    with evaluation_mode(network):
        assert not any(module.training for module in network.modules())


def test_behind_it_every_module_is_in_the_mode_it_was_in() -> None:
    network = _network()
    before = [module.training for module in network.modules()]
    with evaluation_mode(network):
        pass
    assert [module.training for module in network.modules()] == before == [True, False, True, True, True]


def test_an_error_inside_restores_the_modes_too() -> None:
    network = _network()
    with pytest.raises(RuntimeError), evaluation_mode(network):
        raise RuntimeError
    assert network.training

import pytest
import torch
from torch import nn

from pcd.attention import PixelAttention
from pcd.optim import build_optimizer, set_learning_rate
from pcd.settings import OptimizerSettings

LARS = OptimizerSettings(name="lars", learning_rate=0.5, weight_decay=0.01, momentum=0.9)
ADAMW = OptimizerSettings(name="adamw", learning_rate=0.5, weight_decay=0.01, momentum=0.9)


def _model() -> nn.Sequential:
    model = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), PixelAttention(8, 2))
    for parameter in model.parameters():
        nn.init.normal_(parameter)
        parameter.grad = torch.randn_like(parameter)
    return model


def _step(model: nn.Module, settings: OptimizerSettings) -> None:
    build_optimizer(model, settings).step()


ONE_DIMENSIONAL = ["0.bias", "1.weight", "1.bias", "2.norm.weight", "2.norm.bias", "2.qkv.bias", "2.project.bias"]
WEIGHTS = ["0.weight", "2.qkv.weight", "2.project.weight"]


@pytest.mark.parametrize("name", ONE_DIMENSIONAL)
def test_lars_moves_biases_and_normalisation_by_plain_rate_times_gradient(name: str) -> None:
    model = _model()
    before, gradient = model.get_parameter(name).detach().clone(), model.get_parameter(name).grad
    _step(model, LARS)
    torch.testing.assert_close(model.get_parameter(name).detach(), before - 0.5 * gradient, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", WEIGHTS)
@pytest.mark.parametrize("weight_decay", [0.01, 0.0])
def test_lars_moves_weights_by_the_trust_ratio(name: str, weight_decay: float) -> None:
    model = _model()
    before, gradient = model.get_parameter(name).detach().clone(), model.get_parameter(name).grad
    assert gradient is not None
    _step(model, LARS.model_copy(update={"weight_decay": weight_decay}))
    trust = 0.001 * before.norm() / (gradient.norm() + weight_decay * before.norm())
    expected = before - 0.5 * trust * (gradient + weight_decay * before)
    torch.testing.assert_close(model.get_parameter(name).detach(), expected, rtol=1e-6, atol=1e-6)


def test_lars_adds_the_momentum_of_the_last_step() -> None:
    model = _model()
    before, gradient = model.get_parameter("0.bias").detach().clone(), model.get_parameter("0.bias").grad
    optimizer = build_optimizer(model, LARS)
    optimizer.step()
    optimizer.step()
    torch.testing.assert_close(model.get_parameter("0.bias").detach(), before - 0.5 * (1 + 1.9) * gradient)


@pytest.mark.parametrize("name", ONE_DIMENSIONAL)
@pytest.mark.parametrize("settings", [LARS, ADAMW], ids=["lars", "adamw"])
def test_biases_and_normalisation_do_not_decay(name: str, settings: OptimizerSettings) -> None:
    model = _model()
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    before = model.get_parameter(name).detach().clone()
    _step(model, settings)
    assert torch.equal(model.get_parameter(name), before)


@pytest.mark.parametrize("name", WEIGHTS)
def test_adamw_decays_weights(name: str) -> None:
    model = _model()
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    before = model.get_parameter(name).detach().clone()
    _step(model, ADAMW)
    torch.testing.assert_close(model.get_parameter(name).detach(), (1 - 0.5 * 0.01) * before)


@pytest.mark.parametrize("settings", [LARS, ADAMW], ids=["lars", "adamw"])
def test_every_trainable_parameter_is_in_one_group(settings: OptimizerSettings) -> None:
    model = _model()
    grouped = [id(p) for group in build_optimizer(model, settings).param_groups for p in group["params"]]
    assert sorted(grouped) == sorted(id(p) for p in model.parameters())


@pytest.mark.parametrize("settings", [LARS, ADAMW], ids=["lars", "adamw"])
def test_frozen_parameters_are_left_out(settings: OptimizerSettings) -> None:
    model = _model()
    model[0].requires_grad_(False)
    grouped = {id(p) for group in build_optimizer(model, settings).param_groups for p in group["params"]}
    assert not grouped & {id(p) for p in model[0].parameters()}


def test_learning_rate_is_set_for_every_group() -> None:
    optimizer = build_optimizer(_model(), LARS)
    set_learning_rate(optimizer, 0.125)
    assert [group["lr"] for group in optimizer.param_groups] == [0.125, 0.125]


def test_momentum_is_adamws_first_beta() -> None:
    settings = ADAMW.model_copy(update={"momentum": 0.7})
    assert {group["betas"] for group in build_optimizer(_model(), settings).param_groups} == {(0.7, 0.999)}

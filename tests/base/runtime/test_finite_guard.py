"""A loss that is not finite never reaches the weights, a model that is not is never saved."""

import math

import pytest
import torch
from torch import nn

from base.errors import DivergedError
from base.runtime.finite_guard import FiniteGuard, check_model_finite

CPU = torch.device("cpu")


def guard(device: torch.device = CPU, *, at_once: bool = False, fused: bool = False) -> FiniteGuard:
    parameters = [nn.Parameter(torch.ones(2))]
    optimizer = torch.optim.SGD(parameters, lr=0.1, fused=fused)
    return FiniteGuard(optimizer, device=device, at_once=at_once)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("device", [CPU, torch.device("meta")])
def test_on_the_cpu_or_as_a_plain_number_a_bad_loss_is_named_at_once(value, device):
    looked = guard(device, fused=True)
    looked.check("loss", 1e38, epoch=3, step=17)
    looked.check("loss", torch.tensor(0.0, device=device), epoch=3, step=17)
    with pytest.raises(DivergedError) as caught:
        looked.check("kl", value, epoch=3, step=17)
    assert str(caught.value).startswith(
        f"training diverged: kl is {value} in epoch 3, step 17; the"
    )
    assert caught.value.exit_code == 5


def test_the_device_remembers_the_first_bad_step_and_freezes_a_fused_optimizer(monkeypatch):
    weight = nn.Parameter(torch.ones(2))
    optimizer = torch.optim.Adam([weight], lr=0.1, fused=True)
    # as an accelerator does it, on the CPU, whose fused Adam takes `found_inf` as well
    zeros = torch.zeros
    with monkeypatch.context() as patch:
        patch.setattr(torch, "zeros", lambda size, device: zeros(size))
        looked = FiniteGuard(optimizer, device=torch.device("meta"), at_once=False)
    seen = []
    for step, loss in enumerate([1.0, 2.0, math.nan, 1.0, math.inf], start=1):
        looked.check("kl", torch.tensor(0.0), epoch=1, step=step)
        looked.check("loss", torch.tensor(loss), epoch=1, step=step)
        weight.grad = torch.full((2,), loss)
        optimizer.step()
        seen.append(weight.detach().clone())
        if step == 2:
            looked.read(epoch=1)
    assert not torch.equal(seen[0], seen[1])
    assert all(torch.equal(later, seen[1]) for later in seen[2:])
    with pytest.raises(
        DivergedError, match="the loss is not finite in epoch 1, step 3; the weights"
    ):
        looked.read(epoch=1)


@pytest.mark.parametrize(
    ("at_once", "fused", "is_deferred"),
    [(False, True, True), (False, False, False), (True, True, False)],
)
def test_looking_waits_until_later_only_where_the_optimizer_can_hold_still(
    at_once, fused, is_deferred
):
    looked = guard(torch.device("meta"), at_once=at_once, fused=fused)
    assert looked.is_deferred == is_deferred


def test_a_model_with_a_bad_weight_is_named():
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    check_model_finite(model, epoch=1, step=1)
    with torch.no_grad():
        model[1].weight[0, 1] = math.nan
        model[1].bias[0] = math.inf
    with pytest.raises(
        DivergedError, match=r"1\.weight is not finite in epoch 2, step 9; the last"
    ):
        check_model_finite(model, epoch=2, step=9)

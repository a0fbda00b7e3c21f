"""Every model, dataset, loss and metric of the project is built and used once.

A part is built with the args that a config gives it, else with its defaults.
"""

import inspect
from pathlib import Path
from typing import Any

import pytest
import torch

import train
from base.config.check import load_config
from base.errors import DataError
from base.registry import DATASETS, LOSSES, METRICS, MODELS

ROOT = Path(train.__file__).resolve().parent
CONFIGS = [path for path in (ROOT / "configs").glob("*.*") if path.is_file()]

# What losses and metrics are tried with, in turn: classes, values, switches, words and boxes as
# your own need them.
EXAMPLES = [
    (torch.randn(6, 4, requires_grad=True), torch.tensor([0, 1, 2, 3, 0, 1])),
    (torch.randn(6, 4, requires_grad=True), torch.randn(6, 4)),
    (torch.randn(6, requires_grad=True), torch.tensor([0.0, 1.0, 1.0, 0.0, 1.0, 0.0])),
    (torch.rand(6, 4, 8, 8, requires_grad=True), torch.randint(4, (6, 8, 8))),
]


def own(registry: Any) -> list[Any]:
    """Return the project's own things of a registry; what a test registers is none."""
    things = registry.own()
    files = {name: Path(inspect.getsourcefile(things[name])) for name in things}
    return [name for name in sorted(things) if "tests" not in files[name].parts]


def args_of(registry: Any, name: str) -> dict[str, Any]:
    """Return the args that a config gives to a thing of this name, or none."""
    found: list[dict[str, Any]] = []

    def search(nest: Any) -> None:
        if isinstance(nest, dict):
            if nest.get("type") == name and isinstance(nest.get("args"), dict):
                found.append(nest["args"])
            for part in nest.values():
                search(part)
        elif isinstance(nest, list):
            for part in nest:
                search(part)

    for path in CONFIGS:
        search(load_config(path).model_dump())
    return found[0] if found else {}


def build(registry: Any, name: str) -> Any:
    """Return a thing of the project with the args of a config; skip where it needs more."""
    thing, args = registry.find(name), args_of(registry, name)
    parameters = inspect.signature(thing).parameters.values()
    missing = [
        p.name
        for p in parameters
        if p.default is p.empty and p.kind is p.POSITIONAL_OR_KEYWORD and p.name not in args
    ]
    if missing:
        pytest.skip(f"{name} needs {', '.join(missing)}: no config gives them")
    return thing(**args)


@pytest.mark.parametrize("name", own(DATASETS))
def test_a_dataset_gives_its_first_and_its_last_sample(name, work_folder, monkeypatch):
    monkeypatch.chdir(work_folder)
    try:
        dataset = build(DATASETS, name)
    except DataError as error:
        pytest.skip(f"its data is not here: {error}")
    assert len(dataset) > 0
    for index in (0, len(dataset) - 1):
        assert dataset[index] is not None


@pytest.mark.parametrize("name", own(MODELS))
def test_a_model_is_built_and_its_weights_fit_another_one(name):
    model, other = build(MODELS, name), build(MODELS, name)
    other.load_state_dict(model.state_dict())
    for key, value in model.state_dict().items():
        assert torch.isfinite(value).all(), f"{key} is not finite"
        assert torch.equal(value, other.state_dict()[key])


def use(registry: Any, name: str, call: Any) -> Any:
    """Return what a loss or metric gives for the first of the examples that it takes."""
    refusals = []
    for output, target in EXAMPLES:
        try:
            return call(output, target)
        except (RuntimeError, ValueError, TypeError, IndexError, AttributeError) as error:
            refusals.append(str(error))
    pytest.skip(f"{name} takes none of EXAMPLES; add one that it takes: {refusals[0]}")


def bind(registry: Any, name: str) -> Any:
    """Return a loss or metric to call with (output, target)."""
    thing, args = registry.find(name), args_of(registry, name)
    if inspect.isclass(thing):
        return build(registry, name)
    return lambda output, target: thing(output, target, **args)


@pytest.mark.parametrize("name", own(LOSSES))
def test_a_loss_is_finite_and_has_a_gradient(name):
    loss = bind(LOSSES, name)
    value = use(LOSSES, name, loss)
    parts = value.values() if isinstance(value, dict) else [value]
    for part in parts:
        assert part.numel() == 1, "expected one value: a mean over the batch"
        assert torch.isfinite(part)
        assert part.requires_grad


@pytest.mark.parametrize("name", own(METRICS))
def test_a_metric_gives_a_number_for_the_batch_or_for_each_sample(name):
    value = torch.as_tensor(use(METRICS, name, bind(METRICS, name))).float()
    assert value.numel() in (1, 6)
    assert torch.isfinite(value).all()

"""The parts of a run as their sections of the config describe them."""

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from base.config_check import check_tree
from base.config_text import parse_text
from base.errors import CheckpointError, ConfigError
from trainer import parts

CPU = torch.device("cpu")
CONFIG = """
name: parts
dataset: Digits
model: {type: ConvNet, args: {channels: [4, 0, 8]}}
loss: cross_entropy
optimizer: {type: SGD, args: {lr: 0.1}}
"""


def config_with(more: str = ""):
    mistakes = []
    lines = CONFIG.splitlines()
    changed = {line.split(":")[0] for line in more.splitlines()}
    kept = [line for line in lines if line.split(":")[0] not in changed]
    tree = parse_text("\n".join([*kept, more]), "test.yaml", mistakes)
    assert not mistakes
    return check_tree(tree)


def build(more: str = "") -> nn.Module:
    torch.manual_seed(0)
    return parts.build_model(config_with(more), CPU)


def test_init_fills_weights_of_two_dimensions_or_more():
    model = build(
        "model: {type: ConvNet, args: {channels: [4]}, init: {type: constant_, args: {val: 0.5}}}"
    )
    assert (model.features[0].weight == 0.5).all()
    assert (model.classifier.weight == 0.5).all()
    assert not (model.classifier.bias == 0.5).any()
    assert (model.features[1].weight == 1).all()  # a norm's weight has one dimension


def test_freeze_takes_patterns_of_full_names():
    model = build(
        "model: {type: ConvNet, args: {channels: [4, 0, 8]}, freeze: ['features.0.*', '*.bias']}"
    )
    frozen = [name for name, p in model.named_parameters() if not p.requires_grad]
    assert frozen == [
        "features.0.weight", "features.1.bias", "features.5.bias", "classifier.bias",
    ]  # fmt: skip


def test_a_freeze_that_matches_nothing_is_a_mistake_at_its_place():
    with pytest.raises(ConfigError, match=r"test\.yaml:\d+:\d+: model\.freeze\.0: .*no parameter"):
        build("model: {type: ConvNet, freeze: backbone.*}")


@pytest.mark.parametrize("kind", ["pth", "safetensors"])
def test_weights_take_what_fits_and_say_what_does_not(tmp_path, caplog, kind):
    donor = build("model: {type: ConvNet, args: {channels: [4, 0, 8], num_classes: 3}}")
    path = tmp_path / f"donor.{kind}"
    if kind == "pth":
        torch.save({"model": donor.state_dict(), "ema": {}}, path)
    else:
        save_file(donor.state_dict(), path)
    parts.log.propagate = True
    with caplog.at_level("INFO", logger="train"):
        model = build(f"model: {{type: ConvNet, args: {{channels: [4, 0, 8]}}, weights: {path}}}")
    assert torch.equal(model.features[0].weight, donor.features[0].weight)
    assert model.classifier.weight.shape == (10, 8)
    said = "\n".join(caplog.messages)
    assert "12 of the model's 14 tensors" in said
    assert "weights kept as initialised: classifier.weight, classifier.bias" in said
    assert "weights not used: classifier." in said


def test_weights_prefer_the_average(tmp_path):
    donor = build()
    average = {name: torch.zeros_like(value) for name, value in donor.state_dict().items()}
    torch.save({"model": donor.state_dict(), "ema": average}, tmp_path / "donor.pth")
    model = build(
        f"model: {{type: ConvNet, args: {{channels: [4, 0, 8]}}, weights: {tmp_path}/donor.pth}}"
    )
    assert (model.classifier.weight == 0).all()


def test_weights_of_which_nothing_fits_are_refused(tmp_path):
    save_file({"other": torch.ones(2)}, tmp_path / "other.safetensors")
    with pytest.raises(CheckpointError, match="no weight of it fits the model, of 1 there"):
        build(f"model: {{type: ConvNet, weights: {tmp_path}/other.safetensors}}")


def test_a_resumed_model_does_not_read_its_first_weights_again(tmp_path):
    config = config_with(f"model: {{type: ConvNet, weights: {tmp_path}/gone.pth}}")
    assert parts.build_model(config, CPU, load_weights=False)


def test_parameter_groups_take_patterns_and_leave_the_rest_to_the_last():
    config = config_with(
        "optimizer:\n  type: SGD\n  args: {lr: 0.1}\n"
        "  param_groups:\n    - {params: 'classifier.*', lr: 0.5}\n"
        "    - {params: '*.bias', weight_decay: 0.3}"
    )
    optimizer = parts.build_optimizer(config, parts.build_model(config, CPU), None)
    first, second, rest = optimizer.param_groups
    assert (first["lr"], len(first["params"])) == (0.5, 2)
    assert (second["lr"], second["weight_decay"], len(second["params"])) == (0.1, 0.3, 2)
    assert (rest["lr"], rest["weight_decay"], len(rest["params"])) == (0.1, 0, 4)


def test_a_parameter_group_that_matches_nothing_is_a_mistake_at_its_place():
    config = config_with(
        "optimizer:\n  type: SGD\n  args: {lr: 0.1}\n  param_groups: [{params: 'fc.*', lr: 0.5}]"
    )
    with pytest.raises(ConfigError, match=r"optimizer\.param_groups\.0\.params: 'fc\.\*' matches"):
        parts.build_optimizer(config, parts.build_model(config, CPU), None)


def test_a_loss_with_parameters_joins_the_optimizer():
    config = config_with()
    loss = nn.Linear(3, 1)
    optimizer = parts.build_optimizer(config, parts.build_model(config, CPU), loss)
    assert any(p is loss.weight for p in optimizer.param_groups[0]["params"])


def test_metrics_stand_under_their_columns():
    metrics = parts.build_metrics(
        config_with("metrics: [accuracy, {type: top_k_acc, name: top2, args: {k: 2}}]")
    )
    scores = torch.tensor([[0.1, 0.9, 0.5], [0.9, 0.1, 0.5]])
    target = torch.tensor([2, 1])
    assert {name: m(scores, target).tolist() for name, m in metrics.items()} == {
        "accuracy": [False, False],
        "top2": [True, False],
    }

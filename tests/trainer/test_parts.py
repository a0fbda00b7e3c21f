"""The parts of a run as their sections of the config describe them."""

import urllib.error
from collections.abc import Sequence

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from base.config.check import check_config
from base.config.source import parse_text
from base.errors import CheckpointError, ConfigError
from base.registry import MODELS
from trainer import parts

CPU = torch.device("cpu")
CONFIG = """
name: parts
dataset: Blobs
model: {type: PartsNet, args: {channels: [4, 0, 8]}}
loss: cross_entropy
optimizer: {type: SGD, args: {lr: 0.1}}
"""


@MODELS.register()
class PartsNet(nn.Module):
    """Convolutions with norms, and a head: parts to name by patterns; a 0 is a pooling."""

    def __init__(self, channels: Sequence[int] = (4, 0, 8), num_classes: int = 10) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        width = 1
        for channel in channels:
            if channel == 0:
                layers.append(nn.MaxPool2d(2))
                continue
            layers += [nn.Conv2d(width, channel, 3, bias=False), nn.BatchNorm2d(channel), nn.ReLU()]
            width = channel
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Linear(width, num_classes)


def config_with(more: str = ""):
    lines = CONFIG.splitlines()
    changed = {line.split(":")[0] for line in more.splitlines()}
    kept = [line for line in lines if line.split(":")[0] not in changed]
    source = parse_text("\n".join([*kept, more]), "test.yaml")
    return check_config(source)


def build(more: str = "") -> nn.Module:
    torch.manual_seed(0)
    return parts.build_model(config_with(more), CPU)


def test_init_fills_weights_of_two_dimensions_or_more():
    model = build(
        "model: {type: PartsNet, args: {channels: [4]}, init: {type: constant_, args: {val: 0.5}}}"
    )
    assert (model.features[0].weight == 0.5).all()
    assert (model.classifier.weight == 0.5).all()
    assert not (model.classifier.bias == 0.5).any()
    assert (model.features[1].weight == 1).all()  # a norm's weight has one dimension


def test_freeze_takes_patterns_of_full_names():
    model = build(
        "model: {type: PartsNet, args: {channels: [4, 0, 8]}, freeze: ['features.0.*', '*.bias']}"
    )
    frozen = [name for name, p in model.named_parameters() if not p.requires_grad]
    assert frozen == [
        "features.0.weight", "features.1.bias", "features.5.bias", "classifier.bias",
    ]  # fmt: skip


def test_a_freeze_that_matches_nothing_is_a_mistake_at_its_place():
    with pytest.raises(ConfigError, match=r"test\.yaml:\d+:\d+: model\.freeze\.0: .*no parameter"):
        build("model: {type: PartsNet, freeze: backbone.*}")


@pytest.mark.parametrize("kind", ["pth", "safetensors"])
def test_weights_take_what_fits_and_say_what_does_not(tmp_path, caplog, kind):
    donor = build("model: {type: PartsNet, args: {channels: [4, 0, 8], num_classes: 3}}")
    path = tmp_path / f"donor.{kind}"
    if kind == "pth":
        torch.save({"model": donor.state_dict(), "ema": {}}, path)
    else:
        save_file(donor.state_dict(), path)
    parts.log.propagate = True
    with caplog.at_level("INFO", logger="train"):
        model = build(f"model: {{type: PartsNet, args: {{channels: [4, 0, 8]}}, weights: {path}}}")
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
        f"model: {{type: PartsNet, args: {{channels: [4, 0, 8]}}, weights: {tmp_path}/donor.pth}}"
    )
    assert (model.classifier.weight == 0).all()


def test_weights_of_which_nothing_fits_are_refused(tmp_path):
    save_file({"other": torch.ones(2)}, tmp_path / "other.safetensors")
    with pytest.raises(CheckpointError, match="no weight of it fits the model, of 1 there"):
        build(f"model: {{type: PartsNet, weights: {tmp_path}/other.safetensors}}")


def test_a_resumed_model_does_not_read_its_first_weights_again(tmp_path):
    config = config_with(f"model: {{type: PartsNet, weights: {tmp_path}/gone.pth}}")
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


# --- torchvision's models -------------------------------------------------------------------------


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """The folder where torch keeps downloaded weights; it holds some for ResNet-18."""
    from torchvision.models import ResNet18_Weights, resnet18

    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    folder = tmp_path / "checkpoints"
    folder.mkdir()
    torch.manual_seed(7)
    pretrained = resnet18().state_dict()
    torch.save(pretrained, folder / ResNet18_Weights.DEFAULT.url.rpartition("/")[2])
    return pretrained


def test_weights_by_name_get_a_new_head_for_the_classes_of_the_task(hub):
    model = build("model: {type: resnet18, args: {weights: DEFAULT, num_classes: 7}}")
    assert model.fc.out_features == 7
    state = model.state_dict()
    assert all(torch.equal(state[k], v) for k, v in hub.items() if not k.startswith("fc."))
    assert model(torch.zeros(2, 3, 32, 32)).shape == (2, 7)


def test_weights_by_name_keep_their_head_where_no_count_is_given(hub):
    model = build("model: {type: resnet18, args: {weights: IMAGENET1K_V1}}")
    assert torch.equal(model.fc.weight, hub["fc.weight"])


def test_weights_that_cannot_be_fetched_say_where_to_put_them(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr(torch.hub, "download_url_to_file", unreachable)
    with pytest.raises(CheckpointError) as caught:
        build("model: {type: resnet18, args: {weights: DEFAULT, num_classes: 7}}")
    assert str(caught.value).startswith("the weights of resnet18 could not be fetched (")
    assert f"Put their file into {tmp_path}/checkpoints/" in str(caught.value)


def unreachable(*args, **kwargs):
    raise urllib.error.URLError("no route to host")


@pytest.mark.parametrize(
    "name",
    ["vgg11", "densenet121", "mobilenet_v3_small", "squeezenet1_1", "efficientnet_b0", "vit_b_16"],
)
def test_the_head_of_every_kind_of_network_is_replaced(name):
    import torchvision

    with torch.device("meta"):
        model = torchvision.models.get_model(name)
        parts.replace_head(model, 7)
        size = 224 if name.startswith("vit") else 64
        assert model.eval()(torch.zeros(2, 3, size, size)).shape == (2, 7)


# --- parameter groups -----------------------------------------------------------------------------


def groups_of(optimizer: str, groups: str) -> list[dict]:
    config = config_with(f"optimizer:\n  type: {optimizer}\n  param_groups: {groups}")
    model = parts.build_model(config, CPU)
    return parts.build_optimizer(config, model, None).param_groups


def test_norms_and_biases_can_go_without_decay():
    small, rest = groups_of(
        "AdamW\n  args: {lr: 0.1, weight_decay: 0.5}", "[{max_ndim: 1, weight_decay: 0.0}]"
    )
    assert {p.ndim for p in small["params"]} == {1}
    assert {p.ndim for p in rest["params"]} == {2, 4}
    assert (small["weight_decay"], rest["weight_decay"]) == (0.0, 0.5)


def test_a_group_takes_several_patterns():
    first, _ = groups_of(
        "SGD\n  args: {lr: 0.1}", "[{params: ['classifier.*', 'features.0.*'], lr: 0.5}]"
    )
    assert len(first["params"]) == 3


# --- fused ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("args", "fused"),
    [("{lr: 0.1}", True), ("{lr: 0.1, fused: false}", False), ("{lr: 0.1, foreach: true}", None)],
)
def test_an_optimizer_is_fused_unless_the_config_says_otherwise(args, fused):
    config = config_with(f"optimizer: {{type: SGD, args: {args}}}")
    model = parts.build_model(config, CPU)
    assert parts.build_optimizer(config, model, None).defaults["fused"] is fused


def test_sparse_gradients_and_complex_numbers_are_not_fused():
    config = config_with()
    for model in (nn.Embedding(4, 2, sparse=True), nn.Linear(2, 2, dtype=torch.complex64)):
        assert parts.build_optimizer(config, model, None).defaults["fused"] is None


@MODELS.register()
class Weighted(nn.Module):
    """A model of the project that has both arguments by chance."""

    def __init__(self, num_classes: int, weights: float) -> None:
        super().__init__()
        self.head = nn.Linear(2, num_classes)
        self.weights = weights


def test_a_model_of_the_project_gets_its_arguments_as_they_are():
    model = build("model: {type: Weighted, args: {num_classes: 3, weights: 0.5}}")
    assert (model.head.out_features, model.weights) == (3, 0.5)


def test_a_head_of_the_right_size_is_kept(hub):
    model = build("model: {type: resnet18, args: {weights: DEFAULT, num_classes: 1000}}")
    assert torch.equal(model.fc.weight, hub["fc.weight"])

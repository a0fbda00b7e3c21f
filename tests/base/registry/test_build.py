"""Nodes and signatures: what is said of wrong args, and what right ones build."""

import enum
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal, Optional

import pytest
import torch
from pydantic import Field
from torch import Tensor, nn
from torchvision.transforms import InterpolationMode, v2

from base.errors import ConfigError, UsageError
from base.registry import (
    COLLATE_FNS,
    DATASETS,
    INITS,
    LOSSES,
    LR_SCHEDULERS,
    METRICS,
    MODELS,
    OPTIMIZERS,
    REGISTRIES,
    TRANSFORMS,
    Registry,
)
from base.registry.arguments import read
from base.registry.build import build, check


class Color(enum.Enum):
    RED = "r"
    BLUE = 2


@dataclass
class Size:
    height: int


def lines_of(node, registry, *, runtime=()):
    found = check(node, registry, path=("x",), runtime=runtime)
    return list(map(str, found))


def registry_of(*things, call_args=0):
    registry = Registry("things", (), call_args=call_args)
    for thing in things:
        registry.register()(thing)
    return registry


class TestValues:
    @pytest.mark.parametrize(
        ("annotation", "value", "read_as"),
        [
            (float, 1, 1),
            (float, 0.5, 0.5),
            (tuple[float, float], [0.9, 1], (0.9, 1)),
            (float | tuple[int, int], [1, 2], (1, 2)),
            (Sequence[int], [1], [1]),
            (Iterable[int], [1], [1]),
            (torch.dtype, "float16", torch.float16),
            (dict[type | str, torch.dtype | None], {"a": "int8"}, {"a": torch.int8}),
            (Color | None, "RED", Color.RED),
            (str | Color, 'r', Color.RED),
            (Color, 2, Color.BLUE),
            (Path | None, "data", Path("data")),
            (Size, {"height": 1}, Size(1)),
            (Tensor | float, 0.5, 0.5),
            (list[float] | Tensor, [1.5], [1.5]),
            (Any, {"a": [1]}, {"a": [1]}),
            ("NoSuchName", {"a": [1]}, {"a": [1]}),
            (torch.Generator | None, 5, 5),
        ],
    )  # fmt: skip
    def test_are_read_as_the_annotation_asks(self, annotation, value, read_as):
        found = read(value, annotation)
        assert found == read_as
        assert type(found) is type(read_as)

    def test_become_tensors_of_floats(self):
        assert read([1, 2], Tensor | None).equal(torch.tensor([1.0, 2.0]))
        assert read([[1], [2]], Tensor).shape == (2, 1)
        assert read(3, Tensor).equal(torch.tensor(3.0))

    @pytest.mark.parametrize(
        ("annotation", "value", "message"),
        [
            (float, "0.1", "expected a valid number, found '0.1'"),
            (float, True, "expected a valid number, found true"),
            (int, 1.0, "expected a valid integer, found 1.0"),
            (bool, 1, "expected true or false, found 1"),
            (str, None, "expected a valid string, found null"),
            (str | Path, 1, "expected a valid string, found 1"),
            (Optional[int], "x", "expected a valid integer, found 'x'"),  # noqa: UP045
            (Literal["mean", 1] | None, "x", "expected 'mean' or 1, found 'x'"),
            (int | list[int], "x", "expected a valid integer or a list, found 'x'"),
            (int | list[int], [1, "x"], "expected a valid integer, found 'x'"),
            (tuple[float, float], 5, "expected a list, found 5"),
            (tuple[float, float], [0.9], "expected more items, found [0.9]"),
            (tuple[int, int], [1, 2, 3], "expected at most 2 items, not 3, found [1, 2, 3]"),
            (list[int], {"a": 1}, "expected a list, found a mapping"),
            (dict[str, int], 5, "expected a mapping, found 5"),
            (Tensor, [[1], [2, 3]], "expected a number or a list of numbers, found [[1], [2, 3]]"),
            (Tensor, ["a"], "expected a number or a list of numbers, found ['a']"),
            (Tensor, True, "expected a number or a list of numbers, found true"),
            (torch.dtype, "float33", "expected a dtype such as 'float32', found 'float33'"),
            (Color | None, "green", "expected 'RED' or 'BLUE', found 'green'"),
            (nn.Module, 3, "expected {type: NAME}, found 3"),
            (list[nn.Module], ["ReLU"], "expected {type: NAME}, found 'ReLU'"),
            (Annotated[int, Field(gt=0)], 0, "expected greater than 0, found 0"),
            (Annotated[float, Field(le=1)], 2, "expected at most 1, found 2"),
            (int, "x" * 99, "expected a valid integer, found 'xxxxxxxxxxxx...xxxxxxxxxxxxx'"),
        ],
    )
    def test_of_another_type_are_refused_in_plain_words(self, annotation, value, message):
        with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
            read(value, annotation)


class TestArguments:
    def test_that_are_unknown_are_named_with_the_nearest_known(self):
        args = {"lr": 1, "beta": [0.9, 0.9], "weight_deca": 0, "wd": 0, "xyz": 1}
        assert lines_of({"type": "Adam", "args": args}, OPTIMIZERS, runtime=["params"]) == [
            "x.args.beta: Adam takes no 'beta' (did you mean 'betas'?)",
            "x.args.weight_deca: Adam takes no 'weight_deca' (did you mean 'weight_decay'?)",
            "x.args.wd: Adam takes no 'wd' (did you mean 'weight_decay'?)",
            "x.args.xyz: Adam takes no 'xyz'",
        ]

    def test_that_are_missing_are_named_unless_they_seem_misspelled(self):
        assert lines_of("Linear", MODELS) == [
            "x: Linear needs 'in_features'",
            "x: Linear needs 'out_features'",
        ]
        args = {"in_feature": 1, "out_features": 2}
        assert lines_of({"type": "Linear", "args": args}, MODELS) == [
            "x.args.in_feature: Linear takes no 'in_feature' (did you mean 'in_features'?)"
        ]

    def test_that_the_project_passes_cannot_be_set(self):
        node = {"type": "StepLR", "args": {"step_size": 1, "optimizer": 1}}
        assert lines_of(node, LR_SCHEDULERS, runtime=["optimizer"]) == [
            "x.args.optimizer: StepLR gets 'optimizer' from the project; remove it"
        ]

    def test_that_the_project_passes_where_they_are_left_open_can_be_set(self):
        runtime = ["optimizer", "T_max", "total_steps"]
        for args in ({"T_max": 5}, [5], {}):
            node = {"type": "CosineAnnealingLR", "args": args}
            assert lines_of(node, LR_SCHEDULERS, runtime=runtime) == []

    def test_that_a_function_gets_when_it_is_called_cannot_be_set(self):
        assert lines_of({"type": "mse_loss", "args": {"input": 1, "target": 1}}, LOSSES) == [
            "x.args.input: mse_loss gets 'input' from the project; remove it",
            "x.args.target: mse_loss gets 'target' from the project; remove it",
        ]

    def test_may_be_given_by_position(self):
        assert lines_of({"type": "Conv2d", "args": [1, 2, [3, 3]]}, MODELS) == []
        assert lines_of({"type": "Adam", "args": [0.1, 5]}, OPTIMIZERS, runtime=["params"]) == [
            "x.args.1: expected a list, found 5"
        ]
        assert lines_of({"type": "Dropout", "args": [0.1, True, 3]}, MODELS) == [
            "x.args: Dropout takes 2 args by position at most, found 3"
        ]

    def test_of_a_builder_are_followed_to_the_class_it_builds(self):
        args = {"num_classes": 10, "zero_init_residual": True, "weights": None}
        assert lines_of({"type": "resnet18", "args": args}, MODELS) == []
        assert (
            "takes no 'layers'" in lines_of({"type": "resnet18", "args": {"layers": []}}, MODELS)[0]
        )
        assert lines_of({"type": "resnet18", "args": {"num_class": 10}}, MODELS) == [
            "x.args.num_class: resnet18 takes no 'num_class' (did you mean 'num_classes'?)",
        ]

    def test_of_torchmetrics_are_those_that_a_metric_names(self):
        args = {"num_classes": 10, "averge": "macro"}
        assert lines_of({"type": "MulticlassF1Score", "args": args}, METRICS) == [
            "x.args.averge: MulticlassF1Score takes no 'averge' (did you mean 'average'?)"
        ]

    def test_of_a_class_with_keyword_arguments_of_any_name_stay_open(self):
        class Open(nn.Module):
            def __init__(self, width: int, **options):
                super().__init__()
                self.options = options

        registry = registry_of(Open)
        node = {"type": "Open", "args": {"width": "x", "depth": 3}}
        assert lines_of(node, registry) == ["x.args.width: expected a valid integer, found 'x'"]
        built = build(
            {"type": "Open", "args": {"width": 1, "depth": 3}},
            registry,
            path=("x",),
            runtime={"optimizer": 5, "T_max": 7},
        )
        assert built.options == {"depth": 3, "optimizer": 5}

    @pytest.mark.parametrize("returned", [None, Tensor, "Tensor", ...])
    def test_of_a_function_with_keyword_arguments_of_any_name_stay_open(self, returned):
        def loss(output, target, **options): ...

        if returned is not ...:
            loss.__annotations__["return"] = returned
        node = {"type": "loss", "args": {"alpha": 3}}
        assert lines_of(node, registry_of(loss, call_args=2)) == []

    def test_are_typed_also_where_annotations_are_kept_as_text(self):
        class Net:
            def __init__(self, size: "int", other: "NoSuchType" = None): ...  # noqa: F821

        node = {"type": "Net", "args": {"size": "x", "other": "x"}}
        assert lines_of(node, registry_of(Net)) == [
            "x.args.size: expected a valid integer, found 'x'"
        ]


class TestNestedNodes:
    def test_are_checked_at_their_own_place(self):
        layers = [
            {"type": "Flaten"},
            {"type": "Linear", "args": [64, "x"]},
            {"type": "ReLU", "args": {"inplace": 1}},
            {"type": "Linear", "arg": [1, 2]},
            {"type": ["x"]},
            {"type": "Tanh", "args": 5},
        ]
        assert lines_of({"type": "Sequential", "args": layers}, MODELS) == [
            "x.args.0.type: unknown name 'Flaten' (did you mean 'Flatten'?)",
            "x.args.1.args.1: expected a valid integer, found 'x'",
            "x.args.2.args.inplace: expected true or false, found 1",
            "x.args.3: expected {type: NAME, args: ...}, found {'arg': [1, 2], 'type': 'Linear'}",
            "x.args.4: expected {type: NAME, args: ...}, found {'type': ['x']}",
            "x.args.5: expected {type: NAME, args: ...}, found {'args': 5, 'type': 'Tanh'}",
        ]

    def test_of_transforms_and_collate_functions_have_sections_of_their_own(self):
        args = {"root": "data", "transform": {"type": "Adam"}}
        line = "x.args.transform.type: unknown name 'Adam'"
        assert lines_of({"type": "MNIST", "args": args}, DATASETS) == [line]

    @pytest.fixture
    def critic(self, monkeypatch):
        """A model of the project, which takes what the project passes to trainers too."""

        class Critic(nn.Module):
            def __init__(self, width: int = 1, device: Any = None, **options):
                super().__init__()
                self.width, self.got = width, (device, options)

        monkeypatch.setitem(MODELS.registered, "Critic", {"here": Critic})
        return Critic

    @pytest.mark.parametrize("annotation", [nn.Module, nn.Module | None, "list[nn.Module]"])
    def test_are_looked_up_in_the_section_that_an_annotation_asks_for(self, critic, annotation):
        class Gan:
            def __init__(self, device, critic: annotation):
                self.critic = critic

        trainers = registry_of(Gan)
        child = {"type": "Critic", "args": {"width": 3}}
        args = {"critic": [child] if isinstance(annotation, str) else child}
        runtime = {"device": "cpu"}
        built = build({"type": "Gan", "args": args}, trainers, path=("x",), runtime=runtime).critic
        built = built[0] if isinstance(built, list) else built
        assert (built.width, built.got) == (3, (None, {}))
        line = "x.args.critic.type: unknown name 'Critik' (did you mean 'Critic'?)"
        node = {"type": "Gan", "args": {"critic": {"type": "Critik"}}}
        assert lines_of(node, trainers, runtime=runtime) == [line]

    def test_are_else_looked_up_in_the_section_of_their_parent(self, critic):
        class Distance(nn.Module): ...

        class Perceptual:
            def __init__(self, criterion: nn.Module, network: nn.Module, other=None): ...

        losses = registry_of(Distance, Perceptual)
        args = {name: {"type": "Distance"} for name in ("criterion", "other")}
        args["network"] = {"type": "Critic", "args": {"width": "x"}}
        line = "x.args.network.args.width: expected a valid integer, found 'x'"
        assert lines_of({"type": "Perceptual", "args": args}, losses) == [line]

    def test_must_be_mappings(self):
        args = {"schedulers": ["LinearLR", "StepLR"], "milestones": [3]}
        node = {"type": "SequentialLR", "args": args}
        assert lines_of(node, LR_SCHEDULERS, runtime=["optimizer"]) == [
            "x.args.schedulers: expected {type: NAME}, found 'LinearLR'"
        ]


class TestBuild:
    def test_builds_a_sequence_of_layers(self):
        layers = [{"type": "Flatten"}, {"type": "Linear", "args": [64, 10]}]
        model = build({"type": "Sequential", "args": layers}, MODELS, path=("model",))
        assert model(torch.zeros(2, 1, 8, 8)).shape == (2, 10)

    def test_builds_a_torchvision_model(self):
        model = build(
            {"type": "squeezenet1_1", "args": {"num_classes": 3}}, MODELS, path=("model",)
        )
        assert model.classifier[1].out_channels == 3

    def test_builds_nested_schedulers_around_one_optimizer(self):
        optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
        schedulers = [
            {"type": "ConstantLR", "args": {"factor": 0.5, "total_iters": 9}},
            {"type": "CosineAnnealingLR"},
        ]
        node = {"type": "SequentialLR", "args": {"schedulers": schedulers, "milestones": [2]}}
        runtime = {"optimizer": optimizer, "T_max": 4, "total_steps": 4}
        built = build(node, LR_SCHEDULERS, path=("lr_scheduler",), runtime=runtime)
        assert optimizer.param_groups[0]["lr"] == 0.5
        assert built._schedulers[1].T_max == 4

    def test_passes_the_length_of_the_run_only_where_the_config_leaves_it_open(self):
        optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
        runtime = {"optimizer": optimizer, "T_max": 4, "total_steps": 4}
        make = partial(build, registry=LR_SCHEDULERS, path=("lr_scheduler",), runtime=runtime)
        assert make({"type": "OneCycleLR", "args": {"max_lr": 1}}).total_steps == 4
        args = {"max_lr": 1, "epochs": 3, "steps_per_epoch": 5}
        assert make({"type": "OneCycleLR", "args": args}).total_steps == 15
        assert make({"type": "CosineAnnealingLR", "args": [9]}).T_max == 9
        assert make({"type": "StepLR", "args": [9]}).step_size == 9

    def test_gives_losses_their_weights_as_tensors(self):
        output, target = torch.randn(4, 3), torch.tensor([0, 1, 2, 0])
        for name in ("CrossEntropyLoss", "cross_entropy"):
            loss = build({"type": name, "args": {"weight": [1, 2, 3]}}, LOSSES, path=("loss",))
            expected = nn.functional.cross_entropy(output, target, torch.tensor([1.0, 2.0, 3.0]))
            assert loss(output, target) == expected

    def test_binds_functions_and_leaves_those_without_args_alone(self):
        assert build("mse_loss", LOSSES, path=("loss",)) is nn.functional.mse_loss
        smooth = build({"type": "huber_loss", "args": {"delta": 2}}, LOSSES, path=("loss",))
        assert smooth(torch.tensor(0.0), torch.tensor(4.0)) == 2 * (4 - 0.5 * 2)
        init = build({"type": "constant_", "args": {"val": 3}}, INITS, path=("model", "init"))
        assert init(torch.zeros(1)) == 3
        assert build("default_collate", COLLATE_FNS, path=("x",))([1, 2]).tolist() == [1, 2]

    @pytest.mark.parametrize("name", ["bilinear", "BILINEAR"])
    def test_gives_transforms_their_dtypes_and_enum_members(self, name):
        resize = build(
            {"type": "Resize", "args": {"size": [4, 4], "interpolation": name}},
            TRANSFORMS,
            path=("x",),
        )
        assert resize.interpolation == InterpolationMode.BILINEAR
        to_dtype = {"type": "ToDtype", "args": {"dtype": "float32", "scale": True}}
        node = {"type": "Compose", "args": {"transforms": [{"type": "ToImage"}, to_dtype]}}
        image = build(node, TRANSFORMS, path=("x",))(torch.full((1, 2, 2), 255, dtype=torch.uint8))
        assert image.dtype == torch.float32
        assert image.max() == 1
        assert isinstance(build("Identity", TRANSFORMS, path=("x",)), v2.Identity)

    def test_says_where_a_library_refuses_what_its_signature_allows(self):
        layers = [{"type": "ReLU"}, {"type": "Dropout", "args": [2.5]}]
        with pytest.raises(ConfigError) as caught:
            build({"type": "Sequential", "args": layers}, MODELS, path=("model",))
        assert str(caught.value).startswith("model.args.1: Dropout refuses its args: dropout prob")

    def test_says_where_a_class_of_the_project_refuses_its_args(self):
        def shift(low, high):
            raise UsageError(f"low is {low}, expected less than {high}")

        node = {"type": "shift", "args": {"low": 2, "high": 1}}
        with pytest.raises(ConfigError, match=r"^x\.1: low is 2, expected less than 1$"):
            build(node, registry_of(shift), path=("x", 1))

    def test_leaves_a_bug_of_the_users_class_its_traceback(self):
        def net():
            raise TypeError("a bug")

        with pytest.raises(TypeError, match="a bug"):
            build("net", registry_of(net), path=("model",))

    def test_names_an_unknown_name(self):
        with pytest.raises(ConfigError, match=r"^model: unknown name 'resnet1'"):
            build("resnet1", MODELS, path=("model",))

    def test_takes_arguments_without_a_name_where_the_target_does(self):
        def total(first, *others):
            return first, others

        assert build({"type": "total", "args": [1, 2, 3]}, registry_of(total), path=("x",)) == (
            1,
            (2, 3),
        )
        assert lines_of({"type": "total", "args": [1, 2]}, registry_of(total)) == []
        assert lines_of("total", registry_of(total)) == ["x: total needs 'first'"]


def test_nothing_that_can_be_named_fails_to_be_checked():
    wrong = ({}, {"nope": 1, "dtype": "x"}, [1, "x", None, [1], {"a": 1}, {"type": 3}])
    for registry in REGISTRIES.values():
        for name in registry.names():
            for args in wrong:
                for line in lines_of({"type": name, "args": args}, registry):
                    assert not any(
                        word in line for word in ("typing.", "Union[", "<class", "Input")
                    )

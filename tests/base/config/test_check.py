"""Issues of configs: what the user sees of each, and that none hides another."""

import copy
import random
from pathlib import Path

import pytest
import yaml
from torch import nn

from base import BaseDataLoader, BaseTrainer, Callback
from base.config.check import check_config, load_config
from base.config.source import Source
from base.errors import ConfigError, ConfigIssue
from base.registry import (
    CALLBACKS,
    DATA_LOADERS,
    LOSSES,
    METRICS,
    TRAINERS,
    TRANSFORMS,
)  # fmt: skip
from base.runtime.device import available_devices

GOOD = """\
name: t
seed: 1
device: cpu
dataset:
  type: FakeData
  args: {size: 40, image_size: [3, 8, 8]}
  transform: [ToImage, {type: RandomCrop, args: {size: 8}}]
  valid_transform: [ToImage]
data_loader:
  args: {batch_size: 4, validation_split: 0.1}
model:
  type: Sequential
  args: [{type: Flatten}, {type: Linear, args: [192, 10]}]
loss: cross_entropy
metrics:
  - {type: MulticlassAccuracy, name: accuracy, args: {num_classes: 10}}
optimizer:
  type: AdamW
  args: {lr: 0.003, betas: [0.9, 0.99]}
lr_scheduler: {type: StepLR, args: {step_size: 5}}
trainer:
  epochs: 3
  monitor: max val_accuracy
  early_stop: 2
"""
DRAWS = "may draw at random; say in dataset.valid_transform what validation sees"
NO_VALID = "(there is no validation data: set data_loader.args.validation_split)"
NAME = "up to 100 letters, digits, '.', '_' and '-', not starting with '.' or '-'"

# What is changed in the good config ("old => new"), and the lines that the user sees.
ISSUES = [
    # keys
    ("seed: => sed:", "2:1: sed: unknown key (did you mean 'seed'?)"),
    ("seed: 1 => foo: 1", "2:1: foo: unknown key"),
    ("seed: 1 => epochs: 1", "2:1: epochs: unknown key (did you mean 'trainer.epochs'?)"),
    ("  epochs: =>   epocs:", "22:3: trainer.epocs: unknown key (did you mean 'epochs'?)"),
    ("  epochs: 3 =>   epocs: null", "22:3: trainer.epocs: unknown key (did you mean 'epochs'?)"),
    ("AdamW => AdamW\n  lr: 0.1", "19:3: optimizer.lr: unknown key; arguments go into 'args'"),
    ("name: accuracy => nam: accuracy", "16:32: metrics.0.nam: unknown key (did you mean 'name'?)"),
    ("name: t\n => ", "1:1: name: missing, the config needs it"),
    ("loss: cross_entropy => loss: null", "14:1: loss: missing, the config needs it"),
    ("  type: AdamW\n => ", "17:1: optimizer.type: missing, the config needs it"),
    (
        "metrics: => logger: {csw: true}\nmetrics:",
        "15:10: logger.csw: unknown name 'csw' (did you mean 'csv'?)",
    ),
    (
        "metrics: => logger: {csv: {delimiter: x}}\nmetrics:",
        "15:16: logger.csv.delimiter: csv takes no 'delimiter'",
    ),
    (
        "metrics: => logger: {csv: 3}\nmetrics:",
        "15:10: logger.csv: expected true or false or a mapping, found 3",
    ),
    (
        "metrics: => logger: {verbosty: 1}\nmetrics:",
        "15:10: logger.verbosty: expected true or false or a mapping, found 1",
    ),
    # types and ranges of values
    ("name: t => name: a/b", f"1:1: name: expected {NAME}, found 'a/b'"),
    ("name: t => name: 3", "1:1: name: expected a valid string, found 3"),
    ("seed: 1 => seed: 1.5", "2:1: seed: expected a valid integer, found 1.5"),
    ("seed: 1 => seed: true", "2:1: seed: expected a valid integer, found true"),
    ("seed: 1 => seed: -1", "2:1: seed: expected at least 0, found -1"),
    ("epochs: 3 => epochs: '3'", "22:3: trainer.epochs: expected a valid integer, found '3'"),
    (
        "epochs: 3 => epochs: 0",
        "22:3: trainer.epochs: expected at least 1, found 0",
    ),
    ("epochs: 3 => ema_decay: 1", "22:3: trainer.ema_decay: expected less than 1, found 1"),
    (
        "epochs: 3 => clip_grad_norm: .inf",
        "22:3: trainer.clip_grad_norm: expected a finite number, found inf",
    ),
    (
        "epochs: 3 => precision: fp8",
        "22:3: trainer.precision: expected 'fp32', 'bf16' or 'fp16', found 'fp8'",
    ),
    ("epochs: 3 => compile: yes", "22:3: trainer.compile: expected true or false, found 'yes'"),
    (
        "data_loader: => data_loader:\n  in_memory: maybe",
        "10:3: data_loader.in_memory: expected true or false or 'auto', found 'maybe'",
    ),
    ("loss: cross_entropy => loss: 3", "14:1: loss: expected a name or a mapping, found 3"),
    ("loss: cross_entropy => loss: [x]", "14:1: loss: expected a name or a mapping, found ['x']"),
    ("loss: => callbacks: 5\nloss:", "14:1: callbacks: expected a list, found 5"),
    ("loss: => logger: [csv]\nloss:", "14:1: logger: expected a mapping, found ['csv']"),
    (
        "args: {lr: 0.003, betas: [0.9, 0.99]} => args: 5",
        "19:3: optimizer.args: expected a mapping or a list, found 5",
    ),
    (
        "type: AdamW => type: [AdamW]",
        "18:3: optimizer.type: expected a valid string, found ['AdamW']",
    ),
    # names
    ("AdamW => Adamw", "18:3: optimizer.type: unknown name 'Adamw' (did you mean 'AdamW'?)"),
    ("AdamW => os.system", "18:3: optimizer.type: unknown name 'os.system'"),
    (
        "AdamW => torch.optim.AdamW",
        "18:3: optimizer.type: unknown name 'torch.optim.AdamW' (did you mean 'AdamW'?)",
    ),
    (
        "loss: cross_entropy => loss: crossentropy",
        "14:1: loss: unknown name 'crossentropy' (did you mean 'cross_entropy'?)",
    ),
    (
        "{type: Flatten} => {type: Flaten}",
        "13:11: model.args.0.type: unknown name 'Flaten' (did you mean 'Flatten'?)",
    ),
    (
        "valid_transform: [ToImage] => valid_transform: [ToImag]",
        "8:21: dataset.valid_transform.0: unknown name 'ToImag' (did you mean 'ToImage'?)",
    ),
    ("loss: => callbacks: [Foo]\nloss:", "14:13: callbacks.0: unknown name 'Foo'"),
    # args
    (
        "lr: 0.003 => learning_rate: 0.003",
        "19:10: optimizer.args.learning_rate: AdamW takes no 'learning_rate' (did you mean 'lr'?)",
    ),
    ("lr: 0.003 => lr: big", "19:10: optimizer.args.lr: expected a valid number, found 'big'"),
    (
        "[0.9, 0.99] => 0.9",
        "19:21: optimizer.args.betas: expected a list, found 0.9",
    ),
    (
        "lr: 0.003 => params: []",
        "19:10: optimizer.args.params: AdamW gets 'params' from the project; remove it",
    ),
    (
        "step_size: 5 => stepsize: 5",
        "20:37: lr_scheduler.args.stepsize: StepLR takes no 'stepsize' "
        "(did you mean 'step_size'?)",
    ),
    ("args: {step_size: 5} => args: {}", "20:1: lr_scheduler: StepLR needs 'step_size'"),
    ("[192, 10] => [192, x]", "13:54: model.args.1.args.1: expected a valid integer, found 'x'"),
    (
        "[192, 10] => [1, 2, true, cpu, null, 6]",
        "13:42: model.args.1.args: Linear takes 5 args by position at most, found 6",
    ),
    (
        "num_classes: 10 => num_classes: 10, average: macr",
        "16:72: metrics.0.args.average: "
        "expected 'micro', 'macro', 'weighted' or 'none', found 'macr'",
    ),
    (
        "cross_entropy => {type: cross_entropy, args: {target: 1}}",
        "14:36: loss.args.target: cross_entropy gets 'target' from the project; remove it",
    ),
    (
        "cross_entropy => {type: CrossEntropyLoss, args: {weight: [1, x]}}",
        "14:39: loss.args.weight: expected a number or a list of numbers, found [1, 'x']",
    ),
    (
        "ToImage, { => {type: ToDtype, args: {dtype: float33}}, {",
        "7:38: dataset.transform.0.args.dtype: "
        "expected a dtype such as 'float32' or a mapping, found 'float33'",
    ),
    (
        "image_size: [3, 8, 8] => transform: ToImage",
        "6:20: dataset.args.transform: expected {type: NAME}, found 'ToImage'",
    ),
    (
        "AdamW => AdamW\n  param_groups: [{params: '0.*', lrr: 1}, {params: '1.*', lr: x}]",
        "19:34: optimizer.param_groups.0.lrr: AdamW takes no 'lrr' (did you mean 'lr'?)",
        "19:59: optimizer.param_groups.1.lr: expected a valid number, found 'x'",
    ),
    (
        "AdamW => [x]\n  param_groups: [{lrr: 1}]",
        "18:3: optimizer.type: expected a valid string, found ['x']",
    ),
    (
        "AdamW => AdamW\n  param_groups: 5",
        "19:3: optimizer.param_groups: expected a list, found 5",
    ),
    (
        "batch_size: 4 => batch_size: 0",
        "10:10: data_loader.args.batch_size: expected at least 1, found 0",
    ),
    (
        "validation_split: 0.1 => validation_split: 1.5",
        "10:25: data_loader.args.validation_split: "
        "expected less than 1, found 1.5",
    ),
    # what only makes sense together
    (
        "device: cpu => device: tpu",
        "3:1: device: no device 'tpu' here, expected auto or one of "
        + ", ".join(available_devices()),
    ),
    (
        "  valid_transform: [ToImage]\n => ",
        f"7:24: dataset.transform.1: RandomCrop {DRAWS}",
    ),
    (
        "loss: => test_dataset: {type: FakeData, valid_transform: []}\nloss:",
        "14:32: test_dataset.valid_transform: unknown key (did you mean 'transform'?)",
    ),
    (
        "name: accuracy => name: val_loss",
        "16:5: metrics.0: a second column 'val_loss'; give it another 'name'",
        "23:3: trainer.monitor: nothing logs a column 'val_accuracy'",
    ),
    (
        "name: accuracy => name: top 1",
        "16:32: metrics.0.name: expected letters, digits and '_', found 'top 1'",
        "23:3: trainer.monitor: nothing logs a column 'val_accuracy'",
    ),
    (
        "max val_accuracy => max val_acuracy",
        "23:3: trainer.monitor: nothing logs a column 'val_acuracy' "
        "(did you mean 'val_accuracy'?)",
    ),
    (
        "max val_accuracy => val_accuracy",
        "23:3: trainer.monitor: expected 'min COLUMN', 'max COLUMN' or 'off', found 'val_accuracy'",
    ),
    (
        "validation_split: 0.1 => validation_split: 0",
        f"23:3: trainer.monitor: nothing logs a column 'val_accuracy' {NO_VALID}",
    ),
    (
        "  monitor: max val_accuracy\n => ",
        "23:3: trainer.early_stop: needs a trainer.monitor to judge improvement by",
    ),
    (
        "{type: StepLR, args: {step_size: 5}} => {type: ReduceLROnPlateau, interval: step}",
        "20:41: lr_scheduler.interval: ReduceLROnPlateau looks at an epoch's result; "
        "expected epoch",
    ),
    (
        "cross_entropy => TripletMarginLoss",
        "14:1: loss: TripletMarginLoss takes (anchor, positive, negative), the stock step gives "
        "(output, target); override train_step in a trainer of yours",
    ),
    (
        "epochs: 3 => args: {alpha: 1}",
        "22:3: trainer.args: the stock Trainer takes none; they go to a trainer of yours",
    ),
    # the text itself
    ("seed: 1 => name: x", "2:1: name: found this key twice, first at c.yaml:1:1"),
    (
        "seed: 1 => \tseed: 1",
        "2:1: while scanning for the next token, found character '\\t' that cannot start any token",
    ),
    ("name: t => name: t\narch: Linear", "2:1: arch: unknown key"),
]  # fmt: skip


@pytest.fixture(autouse=True)
def working_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def changed(change):
    old, new = change.split(" => ")
    assert GOOD.count(old) == 1, old
    return GOOD.replace(old, new)


def lines_of(text, *overrides):
    Path("c.yaml").write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_config(Path("c.yaml"), overrides)
    return str(caught.value).splitlines()


def load(text, *overrides, name="c.yaml"):
    Path(name).write_text(text)
    return load_config(Path(name), overrides)


def test_a_good_config_has_no_issue():
    config = load(GOOD)
    assert config.trainer.epochs == 3
    assert config.where(("trainer", "epochs")) == "c.yaml:22:3"


@pytest.mark.parametrize("row", ISSUES, ids=[row[0] for row in ISSUES])
def test_an_issue_is_one_line_with_its_place(row):
    change, *lines = row
    assert lines_of(changed(change)) == [f"c.yaml:{line}" for line in lines]


def test_issues_are_listed_in_reading_order_and_none_hides_another():
    text = GOOD.replace("epochs: 3", "epochs: 0").replace("seed: 1", "sed: 1")
    text = text.replace("lr: 0.003", "lrr: 0.003").replace("max val_accuracy", "max val_acc")
    text = text.replace("{type: Flatten}", "{type: Flaten}").replace("name: t", "name: 3")
    text = text.replace("loss: cross_entropy", "loss: CTCLoss").replace("size: 8", "sizes: 8")
    lines = lines_of(text, "device=tpu", "data_loader.args.batch_size=0", "foo=1")
    assert [line.split(": ")[0].removeprefix("c.yaml:") for line in lines] == [
        "1:1", "2:1", "7:50", "13:11", "19:10", "22:3",
        "command line", "command line", "command line",
    ]  # fmt: skip
    assert [line.split(": ")[1] for line in lines[-3:]] == [
        "foo",
        "data_loader.args.batch_size",
        "device",
    ]


def test_an_issue_of_a_file_that_is_extended_names_that_file(tmp_path):
    Path("base.yaml").write_text(GOOD.replace("lr: 0.003", "lrr: 0.003"))
    text = "extends: base.yaml\nname: child\ntrainer:\n  epohs: 1\n"
    assert lines_of(text, "optimizer.args.eps=x") == [
        "base.yaml:19:10: optimizer.args.lrr: AdamW takes no 'lrr' (did you mean 'lr'?)",
        "c.yaml:4:3: trainer.epohs: unknown key (did you mean 'epochs'?)",
        "command line: optimizer.args.eps: expected a valid number, found 'x'",
    ]


def test_control_characters_cannot_break_a_line():
    lines = lines_of(GOOD + '"a\\nb\\e": 1\n')
    assert lines == [r"c.yaml:25:1: a\nb\x1b: unknown key"]


class TestAncestorsKeys:
    """Those of victoresque/pytorch-template."""

    TEXT = (
        GOOD.replace("model:", "arch:")
        .replace("device: cpu", "n_gpu: 0")
        .replace("epochs: 3", "epochs: 3\n  verbosity: 1\n  tensorboard: false")
    )

    def test_stand_for_ours(self):
        config = load(self.TEXT)
        assert (config.device, config.model.type) == ("cpu", "Sequential")
        assert (config.logger.verbosity, config.logger.tensorboard) == (1, False)
        assert config.where(("logger", "verbosity")) == "c.yaml:23:3"
        assert load(self.TEXT.replace("n_gpu: 0", "n_gpu: 2")).device == "auto"

    def test_give_way_to_what_is_laid_over_them_under_either_name(self):
        overrides = ["device=auto", "trainer.verbosity=2", "logger.tensorboard=true"]
        config = load(self.TEXT, *overrides, "arch.args=[{type: Identity}]")
        assert (config.device, config.logger.verbosity) == ("auto", 2)
        assert config.logger.tensorboard
        assert config.model.args == [{"type": "Identity"}]
        Path("base.yaml").write_text(self.TEXT)
        config = load("extends: base.yaml\nmodel: {type: Linear, args: [2, 2]}\nn_gpu: 1\n")
        assert (config.device, config.model.type) == ("auto", "Linear")

    def test_beside_ours_in_one_place_are_an_issue(self):
        text = self.TEXT.replace("seed: 1", "device: cpu").replace("loss:", "model: Flatten\nloss:")
        text = text.replace("name: t", "name: t\nlogger: {verbosity: 0}")
        assert lines_of(text) == [
            "c.yaml:4:1: n_gpu: unknown key",
            "c.yaml:12:1: arch: unknown key",
            "c.yaml:25:3: trainer.verbosity: unknown key; arguments go into 'args'",
        ]


class TestDatasets:
    def test_are_needed_by_the_stock_loader(self):
        line = "command line: dataset: missing, BaseDataLoader needs it"
        assert lines_of(GOOD, "dataset=null") == [line]

    def test_are_refused_beside_a_loader_that_makes_its_own(self, monkeypatch):
        class OwnLoader(BaseDataLoader):
            def __init__(self, batch_size: int, validation_split: float = 0.1): ...

        class OpenLoader(BaseDataLoader):
            def __init__(self, **options): ...

        for kind in (OwnLoader, OpenLoader):
            monkeypatch.setitem(DATA_LOADERS.registered, kind.__name__, {"here": kind})
        makes = "OwnLoader makes its own; remove one of them"
        assert lines_of(GOOD, "data_loader.type=OwnLoader", "data_loader.args.batch_size=4",
                        "test_dataset=FakeData") == [
            f"c.yaml:4:1: dataset: {makes}",
            f"command line: test_dataset: {makes}",
        ]  # fmt: skip
        load(GOOD, "data_loader={type: OwnLoader, args: {batch_size: 4}}", "dataset=null")
        load(GOOD, "data_loader=OpenLoader", "dataset=null")
        load(GOOD, "data_loader=OpenLoader")


class TestValidation:
    SPLIT = "data_loader.args.validation_split="
    COMPOSE = "{type: Compose, args: {transforms: [{type: RandomCrop, args: [8]}]}}"

    @pytest.mark.parametrize("args", ["[4, true, 0.1]", "[4, true, 20]", "{validation_split: 1}"])
    def test_data_is_held_back_by_name_or_position(self, args):
        load(GOOD, f"data_loader.args={args}")

    @pytest.mark.parametrize("args", ["[4, true, 0]", "[4]", "[]"])
    def test_columns_need_validation_data(self, args):
        line = f"c.yaml:23:3: trainer.monitor: nothing logs a column 'val_accuracy' {NO_VALID}"
        assert lines_of(GOOD, f"data_loader.args={args}") == [line]
        load(GOOD, f"data_loader.args={args}", "valid_dataset=FakeData")

    def test_data_may_come_from_a_loader_in_its_own_way(self, monkeypatch):
        class Splits(BaseDataLoader):
            def split_validation(self): ...

        class Knows(BaseDataLoader):
            def __init__(self, dataset, batch_size: int = 1): ...

        for kind in (Splits, Knows):
            monkeypatch.setitem(DATA_LOADERS.registered, kind.__name__, {"here": kind})
            load(GOOD, f"data_loader={{type: {kind.__name__}, args: [4]}}")

    @pytest.mark.parametrize(
        "overrides",
        [
            ["valid_dataset={type: FakeData, transform: []}"],
            ["dataset.transform=[ToImage]"],
            [SPLIT + "0", "trainer.monitor=min loss"],
            ["dataset.transform=[{type: Compose, args: {transforms: [{type: ToImage}]}}]"],
        ],
    )
    def test_never_sees_an_augmentation_here(self, overrides):
        load(GOOD, "dataset.valid_transform=null", *overrides)

    @pytest.mark.parametrize(
        "overrides",
        [
            [],
            ["valid_dataset=FakeData"],
            [SPLIT + "0", "trainer.monitor=min loss", "test_dataset=FakeData"],
            [f"dataset.transform.1={COMPOSE}"],
        ],
    )  # fmt: skip
    def test_would_see_the_augmentation_unless_told_otherwise(self, overrides):
        lines = lines_of(GOOD, "dataset.valid_transform=null", *overrides)
        assert len(lines) == 1
        assert lines[0].endswith(f": dataset.transform.1: RandomCrop {DRAWS}")

    def test_would_see_what_the_dataset_itself_draws(self):
        node = "{type: RandomCrop, args: [8]}"
        lines = lines_of(GOOD, f"dataset.args.transform={node}")
        assert lines == [
            "command line: dataset.args.transform: RandomCrop may draw at random, for validation "
            "too; move it to dataset.transform"
        ]
        load(GOOD, f"dataset.args.transform={node}", "valid_dataset=FakeData")
        load(GOOD, "dataset.args.transform={type: ToImage}")

    def test_takes_the_word_of_a_transform_that_calls_itself_deterministic(self, monkeypatch):
        class Draws: ...

        class Same:
            deterministic = True

        for kind in (Draws, Same):
            monkeypatch.setitem(TRANSFORMS.registered, kind.__name__, {"here": kind})
        load(GOOD, "dataset.valid_transform=null", "dataset.transform=[Same]")
        lines = lines_of(GOOD, "dataset.valid_transform=null", "dataset.transform=[Same, Draws]")
        assert lines == [f"command line: dataset.transform.1: Draws {DRAWS}"]


class TestWhatIsOnlySometimesAnIssue:
    def test_are_columns_and_losses_of_a_trainer_of_ones_own(self, monkeypatch):
        class Mine(BaseTrainer):
            def __init__(self, model, *, alpha: float, **parts): ...

        monkeypatch.setitem(TRAINERS.registered, "Mine", {"here": Mine})
        text = GOOD.replace("trainer:", "trainer:\n  type: Mine").replace("val_acc", "val_x")
        load(text, "trainer.args.alpha=1", "loss=TripletMarginLoss")
        assert lines_of(text, "trainer.args.model=1", "trainer.args.alpha=x") == [
            "command line: trainer.args.model: Mine gets 'model' from the project; remove it",
            "command line: trainer.args.alpha: expected a valid number, found 'x'",
        ]

    def test_are_accumulated_batches(self):
        load(GOOD, "trainer.accumulate=2")
        lines = lines_of(GOOD, "trainer.accumulate=2", "optimizer=LBFGS")
        assert lines == [
            "command line: trainer.accumulate: LBFGS evaluates a whole step itself; remove it"
        ]

    def test_are_schedulers_that_follow_the_monitor(self):
        load(GOOD, "lr_scheduler={type: ReduceLROnPlateau, args: {patience: 3}}")
        lines = lines_of(GOOD, "lr_scheduler=ReduceLROnPlateau", "trainer.monitor=off",
                         "trainer.early_stop=0")  # fmt: skip
        assert lines == [
            "command line: lr_scheduler: ReduceLROnPlateau follows trainer.monitor, which is off"
        ]

    def test_are_names_of_metrics(self):
        load(GOOD, "metrics=[{type: MeanSquaredError, name: a}, MeanSquaredError]",
             "trainer.monitor=min val_a")  # fmt: skip
        lines = lines_of(GOOD, "metrics=[MeanSquaredError, MeanSquaredError]",
                         "trainer.monitor=off", "trainer.early_stop=0")  # fmt: skip
        assert lines == [
            "command line: metrics.1: a second column 'MeanSquaredError'; give it another 'name'"
        ]


class TestWhatClassesState:
    def test_of_their_own_is_told_with_all_other_issues(self, monkeypatch):
        class Picky(Callback):
            @staticmethod
            def check_config(config, path):
                if config.trainer.accumulate > 1:
                    yield ConfigIssue(path, "needs trainer.accumulate: 1")

        monkeypatch.setitem(CALLBACKS.registered, "Picky", {"here": Picky})
        load(GOOD, "callbacks=Picky")
        changes = ["callbacks=[Picky, Picky]", "trainer.accumulate=2", "optimizer.args.lr=x"]
        assert sorted(lines_of(GOOD, *changes)) == [
            "command line: callbacks.0: needs trainer.accumulate: 1",
            "command line: callbacks.1: needs trainer.accumulate: 1",
            "command line: optimizer.args.lr: expected a valid number, found 'x'",
        ]
        # what it asks about is wrong in itself
        lines = lines_of(GOOD, "callbacks=Picky", "trainer.accumulate=0")
        assert lines == ["command line: trainer.accumulate: expected at least 1, found 0"]

    def test_as_columns_can_be_followed(self, monkeypatch):
        class Two(nn.Module):
            @staticmethod
            def columns(args):
                return args["names"]

            def __init__(self, names: list[str]): ...

            def forward(self, output, target): ...

        monkeypatch.setitem(LOSSES.registered, "Two", {"here": Two})
        loss = "loss={type: Two, args: {names: [kl, rest]}}"
        load(GOOD, loss, "trainer.monitor=min val_kl")
        lines = lines_of(GOOD, loss, "trainer.monitor=min val_other")
        assert lines == ["command line: trainer.monitor: nothing logs a column 'val_other'"]


def test_a_module_that_cannot_be_imported_is_one_line_and_hides_no_other_section(
    tmp_path, monkeypatch
):
    package = tmp_path / "broken_package"
    package.mkdir()
    text = "def cross_entropy(): ...\nx = undefined\n"
    (package / "loss.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    for registry in (LOSSES, METRICS):
        monkeypatch.setattr(registry, "places", ("broken_package/*.py",))
    assert lines_of(GOOD, "optimizer.args.lr=x") == [
        "broken_package/loss.py:2: cannot be imported: NameError: name 'undefined' is not defined",
        "command line: optimizer.args.lr: expected a valid number, found 'x'",
    ]


KEYS = ("type", "args", "name", "dataset", "transform", "params", "param_groups", "x", "", "init")
VALUES = (
    None, True, 0, -1, 1.5, float("inf"), float("nan"), 10**30, "", "x", "a\nb", "Adam", "off",
    "os.system", "min val_loss", "__init__", [], {}, [[]], [{}], [None], {"": 1}, {"type": None},
    {"type": [1]}, {"type": {"type": "x"}}, {"type": "Adam", "args": 5}, ["ToImage", "ToImage"],
    {"type": "Compose", "args": {"transforms": ["x", {"type": "Resize"}, {"type": "X"}]}},
    "ReduceLROnPlateau", "Sequential", "resnet18", "CTCLoss", "BaseDataLoader", "Trainer", "LBFGS",
)  # fmt: skip


def containers(value):
    if isinstance(value, dict | list):
        yield value
        for child in value.values() if isinstance(value, dict) else value:
            yield from containers(child)


def mutate(tree, *, rng):
    for _ in range(rng.randint(1, 4)):
        parent = rng.choice([part for part in containers(tree) if part] or [tree])
        keys = [*parent] if isinstance(parent, dict) else range(len(parent))
        key = rng.choice([*keys, rng.choice(KEYS)] if isinstance(parent, dict) else keys)
        if rng.random() < 0.2:
            parent.pop(key, None) if isinstance(parent, dict) else parent.pop(key)
        else:
            parent[key] = copy.deepcopy(rng.choice(VALUES))
    return tree


def outcome(values):
    try:
        return type(check_config(Source(values))).__name__
    except ConfigError as error:
        return "lines" if len(str(error).splitlines()) == len(error.issues) > 0 else str(error)


def test_no_values_whatever_gives_anything_but_a_config_or_its_issues():
    rng = random.Random(0)
    outcomes = {outcome(mutate(yaml.safe_load(GOOD), rng=rng)) for _ in range(300)}
    assert outcomes == {"Config", "lines"}

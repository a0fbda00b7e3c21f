"""The schema of a config, and the text that a config is written as."""

import math
import random
from pathlib import Path

import pytest

from base.config.check import check_tree
from base.config.schema import Config, dump_yaml
from base.config.source import Node, plain, read_config
from base.config.text import parse_text
from base.errors import ConfigError

SMALL = {"name": "t", "model": "Linear", "loss": "mse_loss", "optimizer": "SGD"}
STRINGS = (
    "", " ", " x", "x ", "null", "~", "Null", "true", "off", "yes", "1", "-1", "1e-3", "1e999",
    "0o7", "010", ".inf", ".nan", "1:30", "2024-01-31", "=", "<<", "a: b", "a #b", "- a", "? a",
    "#a", "'", '"', "%a", "@a", "!a", "&a", "*a", "|", ">", "[", "{a", "---", "...", "\\", "a\nb",
    "\n", " a\n b\n", "a\tb", "\t", "\r", "\x07", "\x7f", "\x85", "\xa0", "\u2028", "\ufeff", "é",
    "\U0001f600", "9" * 1001, "word " * 60, "x" * 300,
)  # fmt: skip
NUMBERS = (0, -7, 10**40, 0.0, -0.0, 1e-05, 1e300, 0.1, 5e-324, math.inf, -math.inf)


def reread(text):
    mistakes = []
    node = parse_text(text, "x.yaml", mistakes)
    assert mistakes == []
    return plain(node)


class TestSchema:
    def test_takes_a_bare_name_for_a_node_and_one_node_for_a_list(self):
        config = Config.model_validate({**SMALL, "metrics": "accuracy", "trainer": "Mine"})
        assert config.model.node() == {"type": "Linear", "args": {}}
        assert [metric.column for metric in config.metrics] == ["accuracy"]
        assert config.trainer.type == "Mine"
        nodes = Config.model_validate({**SMALL, "callbacks": {"type": "A"}}).callbacks
        assert [node.type for node in nodes] == ["A"]

    def test_takes_null_for_a_default_of_its_keys_but_not_inside_args(self):
        raw = {
            **SMALL,
            "seed": None,
            "dataset": None,
            "trainer": {"epochs": None, "args": None},
            "optimizer": {"type": "SGD", "args": {"fused": None}},
        }
        config = Config.model_validate(raw)
        assert (config.seed, config.dataset) == (123, None)
        assert (config.trainer.epochs, config.trainer.args) == (100, {})
        assert config.optimizer.args == {"fused": None}

    def test_names_a_metrics_column_after_its_type_unless_told_otherwise(self):
        raw = {**SMALL, "metrics": ["a", {"type": "a", "name": "b"}]}
        assert [metric.column for metric in Config.model_validate(raw).metrics] == ["a", "b"]


class TestText:
    @pytest.mark.parametrize("value", STRINGS)
    def test_of_a_string_is_read_as_that_string(self, value):
        found = reread(dump_yaml({"key": value, value: [value]}))
        assert found == {"key": value, value: [value]}

    @pytest.mark.parametrize("value", [*NUMBERS, None, True, False, [], {}])
    def test_of_a_value_is_read_as_that_value(self, value):
        found = reread(dump_yaml({"key": value}))["key"]
        assert repr(found) == repr(value)

    def test_of_nan_is_read_as_nan(self):
        assert math.isnan(reread(dump_yaml({"key": math.nan}))["key"])

    def test_of_any_nest_is_read_as_that_nest(self):
        rng = random.Random(0)

        def value(depth):
            kind = rng.randrange(5 if depth < 4 else 3)
            if kind == 0:
                return rng.choice(NUMBERS)
            if kind <= 2:
                return rng.choice(STRINGS) + rng.choice(STRINGS)
            items = [value(depth + 1) for _ in range(rng.randrange(4))]
            return items if kind == 3 else {rng.choice(STRINGS): item for item in items}

        for _ in range(100):
            tree = {"a": value(0), "b": value(0)}
            found = reread(dump_yaml(tree))
            assert repr(found) == repr(tree)

    def test_leaves_plain_what_is_plain(self):
        text = dump_yaml({"name": "lenet", "lr": 1e-05, "monitor": "min val_loss", "off": "1e-3"})
        assert text == "name: lenet\nlr: 1.0e-05\nmonitor: min val_loss\noff: '1e-3'\n"

    def test_of_a_config_runs_again_as_it_is(self, tmp_path):
        raw = {**SMALL, "dataset": "FakeData", "metrics": {"type": "MeanSquaredError", "name": "a"}}
        raw["model"] = {"type": "Linear", "args": [1, 2], "weights": "1e-3"}
        raw["optimizer"] = {"type": "SGD", "param_groups": [{"params": "*.bias", "lr": 1e-5}]}
        Path(tmp_path / "c.yaml").write_text(dump_yaml(raw))
        config = check_tree(read_config(tmp_path / "c.yaml"))
        Path(tmp_path / "d.yaml").write_text(config.to_yaml())
        again = check_tree(read_config(tmp_path / "d.yaml"))
        assert again.model_dump() == config.model_dump()
        assert again.to_yaml() == config.to_yaml()
        assert again.model.weights == "1e-3"


class TestPlaces:
    def test_are_those_that_a_key_was_read_from(self):
        tree = Node({"name": Node("t", "c.yaml:1:1")}, "c.yaml:1:1")
        for key in ("model", "loss", "optimizer"):
            tree.value[key] = Node(SMALL[key], f"{key}.yaml:2:3")
        config = Config.from_tree(tree)
        assert config.where(("model", "args", "x")) == "model.yaml:2:3"
        assert config.where(("metrics", 0)) == "c.yaml:1:1"

    def test_are_named_by_an_issue_that_shows_late(self):
        config = Config.from_tree(Node({k: Node(v, "c.yaml:4:2") for k, v in SMALL.items()}, ""))
        error = config.issue(("model", "freeze", 0), "'a.*' matches no parameter")
        assert isinstance(error, ConfigError)
        assert str(error) == "c.yaml:4:2: model.freeze.0: 'a.*' matches no parameter"

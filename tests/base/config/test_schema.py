"""The schema of a config, and the text that a config is written as."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from base.config.check import check_config
from base.config.merge import read_config
from base.config.scalars import dump_yaml
from base.config.schema import Config
from base.config.source import Source
from base.errors import ConfigError

SMALL = {"name": "t", "model": "Linear", "loss": "mse_loss", "optimizer": "SGD"}


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

    def test_is_not_changed_once_it_is_checked(self):
        config = Config.model_validate(SMALL)
        with pytest.raises(ValidationError, match="frozen"):
            config.trainer.epochs = 3


class TestText:
    def test_of_a_config_runs_again_as_it_is(self, tmp_path):
        raw = {**SMALL, "dataset": "FakeData", "metrics": {"type": "MeanSquaredError", "name": "a"}}
        raw["model"] = {"type": "Linear", "args": [1, 2], "weights": "1e-3"}
        raw["optimizer"] = {"type": "SGD", "param_groups": [{"params": "*.bias", "lr": 1e-5}]}
        Path(tmp_path / "c.yaml").write_text(dump_yaml(raw))
        config = check_config(read_config(tmp_path / "c.yaml"))
        Path(tmp_path / "d.yaml").write_text(config.to_yaml())
        again = check_config(read_config(tmp_path / "d.yaml"))
        assert again.model_dump() == config.model_dump()
        assert again.to_yaml() == config.to_yaml()
        assert again.model.weights == "1e-3"


class TestPositions:
    def test_are_those_that_a_key_was_read_from(self):
        config = Config.from_source(Source(SMALL, {(): "c.yaml:1:1", ("model",): "c.yaml:2:3"}))
        assert config.where(("model", "args", "x")) == "c.yaml:2:3"
        assert config.where(("metrics", 0)) == "c.yaml:1:1"

    def test_are_named_by_an_issue_that_shows_late(self):
        config = Config.from_source(Source(SMALL, {("model",): "c.yaml:4:2"}))
        error = config.issue(("model", "freeze", 0), "'a.*' matches no parameter")
        assert isinstance(error, ConfigError)
        assert str(error) == "c.yaml:4:2: model.freeze.0: 'a.*' matches no parameter"

"""A sweep file: what a search changes in a config, each value checked before the first trial."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import AfterValidator, ConfigDict, Field, PrivateAttr, model_validator

from base.config.check import check_config, check_schema, raise_issues
from base.config.merge import merge, parse_overrides, read_config
from base.config.schema import Config, Section, check_monitor
from base.config.source import COMMAND_LINE, Source
from base.errors import ConfigError, ConfigIssue

if TYPE_CHECKING:
    from optuna.trial import BaseTrial

METRIC = "trainer.monitor"
SET_BY_SWEEP = ("name", METRIC, "trainer.save_dir")


class Parameter(Section):
    """What to try for a key: numbers from `low` to `high`, or a list of what a config may hold."""

    low: int | float | None = None
    high: int | float | None = None
    step: int | float | None = Field(None, gt=0)
    log: bool = False
    values: list[Any] | None = None

    @model_validator(mode="after")
    def _is_a_range_or_a_list(self) -> Self:
        from optuna.trial import FixedTrial

        is_list = self.values and self.model_fields_set == {"values"}
        if not is_list and (self.values or None in (self.low, self.high)):
            raise ValueError("expected either low and high or values: [...]")
        self.suggest(FixedTrial({"it": self.bounds()[0]}), "it")  # Optuna checks the rest
        return self

    def bounds(self) -> list[Any]:
        """Return what must fit a config for all to fit: listed values, each as its JSON text."""
        return [*map(json.dumps, self.values)] if self.values else [self.low, self.high]

    @property
    def is_whole(self) -> bool:
        return all(isinstance(number, int) for number in (self.low, self.high, self.step or 1))

    def suggest(self, trial: "BaseTrial", name: str) -> Any:
        """Return a value that a trial draws, or that it has been given."""
        if self.values:
            return trial.suggest_categorical(name, self.bounds())
        if self.is_whole:
            return trial.suggest_int(name, self.low, self.high, step=self.step or 1, log=self.log)
        return trial.suggest_float(name, self.low, self.high, step=self.step, log=self.log)

    def grid(self) -> list[Any]:
        """Return every value, in order; a range of real numbers needs a step."""
        if self.values:
            return self.bounds()
        step = self.step or 1
        count = int((self.high - self.low) / step + 1e-9) + 1
        return [round(self.low + index * step, 12) for index in range(count)]


class Sweep(Section):
    """A whole sweep file; `load_sweep` makes it."""

    model_config = ConfigDict(frozen=False)
    search: Literal["grid", "random", "tpe"] = "tpe"
    num_trials: int | None = Field(None, ge=1)
    metric: Annotated[str, AfterValidator(check_monitor)] = "off"  # off: the config's monitor
    pruning: Literal["off", "median", "hyperband"] = "off"
    storage: str | None = None
    seed: int = Field(0, ge=0)
    parameters: dict[str, Parameter]

    _config: Source = PrivateAttr()  # what all trials have in common

    def trial_config(self, values: Mapping[str, Any]) -> Config:
        """Return the config of a trial; a parameter that has no value takes its first.

        Raises:
            ConfigError: a value does not fit.
        """
        values = {name: p.bounds()[0] for name, p in self.parameters.items()} | values
        texts = {key: v if isinstance(v, str) else json.dumps(v) for key, v in values.items()}
        changes = [f"{key}={text}" for key, text in texts.items()]
        changes.append(f"{METRIC}={self.metric}")
        return check_config(merge(self._config, parse_overrides(changes)))


def load_sweep(path: Path, config: Path, overrides: Sequence[str]) -> Sweep:
    """Read a sweep file, and try its values, or the ends of a range, in the config.

    Raises:
        ConfigError: with one line for every issue.
    """
    source = read_config(path)
    raise_issues(source, check_schema(source.values, Sweep))
    sweep = Sweep.model_validate(source.values)
    sweep._config = merge(read_config(config), parse_overrides(overrides))
    if sweep.metric == "off":
        sweep.metric = check_config(sweep._config).trainer.monitor
    raise_issues(source, _find_issues(sweep))
    positions = {tuple(n.split(".")): source.where(("parameters", n)) for n in sweep.parameters}
    places = Source({}, positions | {("trainer", "monitor"): source.where(("metric",))})
    issues: list[ConfigIssue] = []
    for name, parameter in sweep.parameters.items():
        for value in parameter.bounds():
            try:
                sweep.trial_config({name: value})
            except ConfigError as error:
                for issue in error.issues:
                    place = issue.where == COMMAND_LINE and places.where(issue.path)
                    issues.append(replace(issue, where=place or issue.where))
    raise_issues(source, dict.fromkeys(issues))
    return sweep


def _find_issues(sweep: Sweep) -> Iterator[ConfigIssue]:
    is_grid = sweep.search == "grid"
    if sweep.metric == "off":
        message = "missing, expected 'min COLUMN' or 'max COLUMN': the config's monitor is off"
        yield ConfigIssue(("metric",), message)
    if is_grid == bool(sweep.num_trials):
        message = "a grid tries every combination once; remove it" if is_grid else "missing"
        yield ConfigIssue(("num_trials",), message)
    for name, p in sweep.parameters.items():
        if name in SET_BY_SWEEP:
            yield ConfigIssue(("parameters", name), "the same for all trials; remove it")
        if is_grid and not (p.values or p.step or p.is_whole):
            yield ConfigIssue(("parameters", name), "a grid needs a step, or values")

"""A sweep file: what a search changes in a config, each value checked before the first trial."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import product
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

        if not self.values and None in (self.low, self.high):
            raise ValueError("expected low and high, or values: [...]")
        if self.values and self.model_fields_set != {"values"}:
            raise ValueError("expected either low and high or values, found both")
        if not self.values and self.low >= self.high:
            raise ValueError(f"expected low below high, found {self.low} and {self.high}")
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
        high = self.grid()[-1] if self.step else self.high
        if self.is_whole:
            return trial.suggest_int(name, self.low, high, step=self.step or 1, log=self.log)
        return trial.suggest_float(name, self.low, high, step=self.step, log=self.log)

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

    _places: dict[str, str] = PrivateAttr()  # of the keys that a trial sets, in the sweep file
    _config: Source = PrivateAttr()  # what all trials have in common

    def combinations(self) -> list[dict[str, Any]]:
        """Return the values of each trial of a grid, the last parameter changing fastest."""
        grids = product(*(parameter.grid() for parameter in self.parameters.values()))
        return [dict(zip(self.parameters, values, strict=True)) for values in grids]

    def trial_config(self, values: Mapping[str, Any]) -> Config:
        """Return the config of a trial; a parameter that has no value takes its first.

        Raises:
            ConfigError: a value does not fit; its place is that of its parameter.
        """
        values = {name: p.bounds()[0] for name, p in self.parameters.items()} | values
        texts = {key: v if isinstance(v, str) else json.dumps(v) for key, v in values.items()}
        texts[METRIC] = json.dumps(self.metric)
        try:
            changes = parse_overrides([f"{key}={text}" for key, text in texts.items()])
            return check_config(merge(self._config, changes))
        except ConfigError as error:
            raise ConfigError(map(self._in_the_file, error.issues)) from None

    def _in_the_file(self, issue: ConfigIssue) -> ConfigIssue:
        path = "".join(f"{key}." for key in issue.path)
        for name, where in self._places.items() if issue.where == COMMAND_LINE else ():
            if path.startswith(f"{name}.") or f"{name}.".startswith(path):
                return replace(issue, where=where)
        return issue


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
    sweep._places = {name: source.where(("parameters", name)) for name in sweep.parameters}
    sweep._places |= {METRIC: source.where(("metric",)), "storage": source.where(("storage",))}
    issues = []
    for name, parameter in sweep.parameters.items():
        for value in parameter.bounds():
            try:
                sweep.trial_config({name: value})
            except ConfigError as error:
                issues += error.issues
    raise_issues(source, issues)
    return sweep


def _find_issues(sweep: Sweep) -> Iterator[ConfigIssue]:
    if sweep.metric == "off":
        message = "missing, expected 'min COLUMN' or 'max COLUMN': the config's monitor is off"
        yield ConfigIssue(("metric",), message)
    if sweep.search == "grid" and sweep.num_trials:
        yield ConfigIssue(("num_trials",), "a grid tries every combination once; remove it")
    if sweep.search != "grid" and not sweep.num_trials:
        yield ConfigIssue(("num_trials",), f"missing, search: {sweep.search} needs it")
    for name, p in sweep.parameters.items():
        if name in SET_BY_SWEEP:
            yield ConfigIssue(("parameters", name), "the same for all trials; remove it")
        if sweep.search == "grid" and not (p.values or p.step or p.is_whole):
            yield ConfigIssue(("parameters", name), "a grid needs a step, or values")

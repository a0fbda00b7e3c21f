"""A sweep file: what a search changes in a config, each value checked before the first trial."""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice, product
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

from pydantic import Field, PrivateAttr, model_validator

from base.config.check import check_config, check_schema, raise_issues
from base.config.merge import merge, parse_overrides, read_config
from base.config.schema import MONITOR, Config, Section
from base.config.source import COMMAND_LINE, Source
from base.errors import ConfigError, ConfigIssue, format_value

if TYPE_CHECKING:
    from optuna import Trial

METRIC = "trainer.monitor"
SET_BY_SWEEP = ("name", METRIC, "trainer.save_dir", "logger.csv")


class Parameter(Section):
    """What to try for a key: numbers from `low` to `high`, or a list of what a config may hold.

    A listed value goes by its JSON text, so that a list or a node can be one too.
    """

    low: int | float | None = None
    high: int | float | None = None
    step: int | float | None = Field(None, gt=0)
    log: bool = False
    values: list[Any] | None = None

    @model_validator(mode="after")
    def _is_a_range_or_a_list(self) -> Self:
        if not self.values and None in (self.low, self.high):
            raise ValueError("expected low and high, or values: [...]")
        if self.values and self.model_fields_set != {"values"}:
            raise ValueError("expected either low and high or values, found both")
        if self.values and len(set(self.grid())) < len(self.values):
            raise ValueError("expected values that differ, found one twice")
        if not self.values and not -math.inf < self.low < self.high < math.inf:
            raise ValueError(f"expected low below high, found {self.low} and {self.high}")
        if self.log and (self.low <= 0 or self.step):
            raise ValueError("log needs a low above 0, and no step")
        return self

    @property
    def is_whole(self) -> bool:
        return all(isinstance(number, int) for number in (self.low, self.high, self.step or 1))

    def grid(self) -> list[Any]:
        """Return every value, in order; of what is continuous, its ends."""
        if self.values:
            return [json.dumps(value) for value in self.values]
        step = self.step or (1 if self.is_whole else self.high - self.low)
        count = int((self.high - self.low) / step + 1e-9) + 1
        return [round(self.low + index * step, 12) for index in range(count)]

    def to_check(self) -> list[Any]:
        """Return the values that tell whether all fit a config."""
        return self.grid() if self.values else [self.low, self.high]

    def suggest(self, trial: "Trial", name: str) -> None:
        """Let a trial choose a value, unless it has."""
        if self.values:
            trial.suggest_categorical(name, self.grid())
            return
        high = self.grid()[-1] if self.step else self.high
        if self.is_whole:
            trial.suggest_int(name, self.low, high, step=self.step or 1, log=self.log)
        else:
            trial.suggest_float(name, self.low, high, step=self.step, log=self.log)

    def read(self, suggested: Any) -> Any:
        """Return a suggested value as the config has it."""
        return json.loads(suggested) if self.values else suggested


class Sweep(Section):
    """A whole sweep file; `load_sweep` makes it."""

    search: Literal["grid", "random", "tpe"] = "tpe"
    num_trials: int | None = Field(None, ge=1)
    metric: str = ""  # the config's monitor
    parallel: int = Field(1, ge=1)
    pruning: Literal["off", "median", "hyperband"] = "off"
    storage: str | None = None
    seed: int = Field(0, ge=0)
    parameters: dict[str, Parameter]

    _source: Source = PrivateAttr()  # of the file
    _config: Source = PrivateAttr()  # what all trials have in common

    @property
    def mode(self) -> str:
        return self.metric[:3]

    @property
    def total(self) -> int:
        """Return the number of trials that the whole sweep has."""
        return self.num_trials or math.prod(len(p.grid()) for p in self.parameters.values())

    def combination(self, number: int) -> dict[str, Any]:
        """Return the values of a grid's trial, the last parameter changing fastest."""
        values = product(*(parameter.grid() for parameter in self.parameters.values()))
        return dict(zip(self.parameters, next(islice(values, number, None)), strict=True))

    def trial_config(self, values: Mapping[str, Any]) -> Config:
        """Return the config of a trial; a parameter that has no value takes its first.

        Raises:
            ConfigError: a value does not fit; its place is that of its parameter.
        """
        values = {name: p.to_check()[0] for name, p in self.parameters.items()} | values
        texts = {key: v if isinstance(v, str) else json.dumps(v) for key, v in values.items()}
        try:
            changes = parse_overrides([f"{key}={text}" for key, text in texts.items()])
            return check_config(merge(self._config, changes))
        except ConfigError as error:
            raise ConfigError(map(self._in_the_file, error.issues)) from None

    def issue(self, key: str, message: str) -> ConfigError:
        """Return the error for an issue that shows only later."""
        return ConfigError([ConfigIssue((key,), message, self._source.where((key,)))])

    def _in_the_file(self, issue: ConfigIssue) -> ConfigIssue:
        path = "".join(f"{key}." for key in issue.path)
        for name in (*self.parameters, METRIC) if issue.where == COMMAND_LINE else ():
            if path.startswith(f"{name}.") or f"{name}.".startswith(path):
                if name == METRIC:
                    where = self._source.where(("metric",))
                    return ConfigIssue(("metric",), issue.message, where)
                return replace(issue, where=self._source.where(("parameters", name)))
        return issue


def load_sweep(path: Path, config: Path, overrides: Sequence[str]) -> Sweep:
    """Read a sweep file, and try its values, or the ends of a range, in the config.

    Raises:
        ConfigError: with one line for every issue.
    """
    source = read_config(path)
    raise_issues(source, check_schema(source.values, Sweep))
    sweep = Sweep.model_validate(source.values)
    sweep._source = source
    sweep._config = merge(read_config(config), parse_overrides([*overrides, "logger.csv=true"]))
    trainer = sweep._config.values.get("trainer")
    if not sweep.metric and isinstance(trainer, dict):
        sweep.metric = str(trainer.get("monitor", ""))
    raise_issues(source, _find_issues(sweep))
    monitor = parse_overrides([f"{METRIC}={json.dumps(sweep.metric)}"])
    sweep._config = merge(sweep._config, monitor)
    issues = []
    for name, parameter in sweep.parameters.items():
        for value in parameter.to_check():
            try:
                sweep.trial_config({name: value})
            except ConfigError as error:
                issues += error.issues
    raise_issues(source, issues)
    return sweep


def _find_issues(sweep: Sweep) -> Iterator[ConfigIssue]:
    if sweep.mode == "off" or not MONITOR.fullmatch(sweep.metric):
        found = format_value(sweep.metric) if sweep.metric else "none"
        found += "" if "metric" in sweep.model_fields_set else ", trainer.monitor of the config"
        yield ConfigIssue(("metric",), f"expected 'min COLUMN' or 'max COLUMN', found {found}")
    if not sweep.parameters:
        yield ConfigIssue(("parameters",), "expected at least one")
    if sweep.search == "grid" and sweep.num_trials:
        yield ConfigIssue(("num_trials",), "a grid tries every combination once; remove it")
    if sweep.search != "grid" and not sweep.num_trials:
        yield ConfigIssue(("num_trials",), f"missing, search: {sweep.search} needs it")
    for name, parameter in sweep.parameters.items():
        if name in SET_BY_SWEEP:
            yield ConfigIssue(("parameters", name), "the same for all trials; remove it")
        if sweep.search == "grid" and not (
            parameter.values or parameter.step or parameter.is_whole
        ):
            yield ConfigIssue(("parameters", name), "a grid needs a step, or values")

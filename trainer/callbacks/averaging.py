"""Stochastic weight averaging: the mean of the weights at the end of the last epochs."""

import logging
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from pydantic import NonNegativeInt, PositiveFloat, PositiveInt
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim.swa_utils import AveragedModel

from base import Callback
from base.base_model import set_training
from base.checkpoint.checkpoints import write_checkpoint
from base.config.schema import Config
from base.errors import ConfigIssue, KeyPath, UsageError
from base.runtime import distributed
from base.runtime.finite_guard import check_model_finite
from base.runtime.metric_tracker import MetricTracker
from logger.console import format_values
from trainer.batches import count_limited
from trainer.trainer import Trainer

log = logging.getLogger("train")

AVERAGED = "model_swa.pth"


class StochasticWeightAveraging(Callback):
    """Averages the weights at the end of every epoch from `start` on, counted from 1.

    From then on the config's schedule stands still: each learning rate is annealed over
    `anneal_epochs` (0: at once), along half a cosine, to `lr`, one for all parameter groups or a
    list of one for each. When training is done, the average gets batch-norm statistics of the
    training data, is evaluated, and saved as `model_swa.pth`.
    Izmailov et al., 2018, https://arxiv.org/abs/1803.05407

    Raises:
        UsageError: `lr` is not one for each parameter group, when training starts.
    """

    def __init__(
        self,
        start: PositiveInt,
        lr: PositiveFloat | list[PositiveFloat],
        anneal_epochs: NonNegativeInt = 5,
    ) -> None:
        self.start, self.lr, self.anneal_epochs = start, lr, anneal_epochs
        self.first_rates: list[float] = []  # of the groups, when averaging began
        self.average: AveragedModel | None = None
        self.restored: Mapping[str, Any] = {}

    @staticmethod
    def check_config(config: Config, path: KeyPath) -> Iterator[ConfigIssue]:
        """Yield an issue where the weights are averaged already, or too late."""
        args, epochs = config.callbacks[path[-1]].args, config.trainer.epochs
        start = args.get("start") if isinstance(args, dict) else next(iter(args), None)
        if config.trainer.ema_decay is not None:
            yield ConfigIssue(path, "trainer.ema_decay averages the weights already; remove one")
        if isinstance(start, int) and start > epochs:
            message = f"expected at most trainer.epochs, {epochs}, found {start}"
            yield ConfigIssue((*path, "args", "start"), message)

    def on_fit_start(self, trainer: Trainer) -> None:
        num_groups = len(trainer.optimizer.param_groups)
        self.rates = self.lr if isinstance(self.lr, list) else [self.lr] * num_groups
        if len(self.rates) != num_groups:
            problem = f"lr has {len(self.rates)} rates for {num_groups} parameter groups"
            raise UsageError(f"StochasticWeightAveraging: {problem}")
        if self.restored:
            self.average = AveragedModel(trainer.network)
            self.average.load_state_dict(self.restored)
            self.restored = {}
        if self.first_rates:
            trainer.schedule_interval = None

    def on_epoch_start(self, trainer: Trainer) -> None:
        """Set the rates as `torch.optim.swa_utils.SWALR` does.

        That itself adds keys to the optimizer's groups, which could not be loaded on a resume.
        """
        num_epochs = trainer.epoch + 1 - self.start
        if num_epochs < 0:
            return
        groups = trainer.optimizer.param_groups
        trainer.schedule_interval = None
        self.first_rates = self.first_rates or [group["lr"] for group in groups]
        progress = min(num_epochs / self.anneal_epochs, 1.0) if self.anneal_epochs else 1.0
        share = (1 - math.cos(math.pi * progress)) / 2
        for group, first, last in zip(groups, self.first_rates, self.rates, strict=True):
            group["lr"] = last * share + first * (1 - share)

    def on_epoch_end(self, trainer: Trainer, row: Mapping[str, float]) -> None:
        if trainer.epoch >= self.start:
            self.average = self.average or AveragedModel(trainer.network)
            self.average.update_parameters(trainer.network)

    def on_fit_end(self, trainer: Trainer) -> None:
        if self.average is None:
            log.warning("stopped before epoch %d: no weights were averaged", self.start)
            return
        with _swapped_in(trainer, self.average.module):
            _update_batch_norms(trainer)
            check_model_finite(trainer.network, epoch=trainer.epoch, step=trainer.step)
            values = trainer.evaluate() if trainer.valid_data_loader is not None else {}
            values = {f"swa_val_{name}": value for name, value in values.items()}
            state = trainer.state_dict()
            del state["optimizer"]  # so that nobody trains on from an average
        trainer.row = trainer.row | distributed.share(values)  # for the summary
        log.info("average of %d epochs: %s", self.average.n_averaged, format_values(values))
        if trainer.checkpoints is not None:
            path = trainer.checkpoints.folder / AVERAGED
            write_checkpoint(path, state)
            log.info("its test: python test.py -r %s", path)

    def state_dict(self) -> dict[str, Any]:
        average = self.average.state_dict() if self.average is not None else {}
        return {"first_rates": self.first_rates, "average": dict(average)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.first_rates, self.restored = state["first_rates"], state["average"]


@contextmanager
def _swapped_in(trainer: Trainer, model: nn.Module) -> Iterator[None]:
    """Let the trainer evaluate and save another model for a while."""
    before = trainer.network, trainer.model
    trainer.network = trainer.model = model
    try:
        yield
    finally:
        trainer.network, trainer.model = before


def _update_batch_norms(trainer: Trainer) -> None:
    """Compute batch-norm statistics over all training batches.

    Does what `torch.optim.swa_utils.update_bn` does, for any kind of batch and over all ranks;
    frozen norms stay as they are.
    """
    set_training(trainer.network)
    modules = [module for module in trainer.network.modules() if isinstance(module, _BatchNorm)]
    norms = [norm for norm in modules if norm.training and norm.track_running_stats]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # a plain mean
    num_batches = count_limited(trainer.settings, trainer.data_loader) if norms else 0
    with trainer.evaluating(MetricTracker({}, device=trainer.device)):
        set_training(trainer.network)
        for batch in trainer.data_loader.batches(0, num_batches):
            trainer.evaluate_batch(batch)
            if trainer.is_alone:
                trainer.stop_if_signalled()
    for buffer in (buffer for norm in norms for buffer in (norm.running_mean, norm.running_var)):
        buffer.copy_(distributed.mean_over_ranks(buffer))

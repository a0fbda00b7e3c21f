"""The batch loop, the assembly of a run, and ready callbacks."""

from trainer.trainer import Trainer

__all__ = ["Trainer"]

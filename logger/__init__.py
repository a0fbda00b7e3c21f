"""Everything that leaves a run for people to read: folders, console, curves, plots."""

from logger.console import ProgressBar, setup_logging
from logger.run_directory import RunDirectory
from logger.run_logger import RunLogger

__all__ = ["ProgressBar", "RunDirectory", "RunLogger", "setup_logging"]

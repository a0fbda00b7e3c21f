"""TensorBoard event files, in order. Imports tensorboard: import it only where that is on."""

import io
import os
import shutil
import socket
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.plugins.projector import ProjectorConfig
from torch.utils.tensorboard import FileWriter, RecordWriter, SummaryWriter

from logger.plots.plots import scaled_for_viewing


class EventWriter(SummaryWriter):
    """torch's SummaryWriter, with all of its `add_*`, over one `EventFile` in `folder`.

    From `purge_step` on, the events of earlier files are hidden; with None none of them are.
    """

    def __init__(self, folder: Path, *, purge_step: int | None = None) -> None:
        self._folder = Path(folder)
        super().__init__(str(folder), purge_step=purge_step)

    def _get_file_writer(self) -> FileWriter:
        if self.file_writer is None:
            self.file_writer = _DirectFileWriter(EventFile(self._folder, self.purge_step))
            self.all_writers = {str(self._folder): self.file_writer}
        return self.file_writer

    def add_picture(self, tag: str, encoded: bytes, step: int | None) -> None:
        """Show a PNG or GIF file."""
        width, height = Image.open(io.BytesIO(encoded)).size
        image = Summary.Image(width=width, height=height, encoded_image_string=encoded)
        self.file_writer.add_summary(Summary(value=[Summary.Value(tag=tag, image=image)]), step)

    def add_video(
        self, tag: str, vid_tensor: Any, global_step: int | None = None, fps: float = 4, **_: Any
    ) -> None:
        """Show videos (B, T, C, H, W), each over its own range; torch's own needs moviepy."""
        for number, frames in enumerate(vid_tensor):
            pixels = (scaled_for_viewing(frames) * 255).astype(np.uint8)
            first, *others = map(Image.fromarray, pixels)
            gif = io.BytesIO()
            duration = round(1000 / fps)  # ms
            first.save(gif, "GIF", save_all=True, append_images=others, duration=duration, loop=0)
            self.add_picture(f"{tag}/{number}", gif.getvalue(), global_step)

    def add_newest_embedding(
        self, vectors: Any, *, labels: Sequence[str] | None, images: Any, step: int
    ) -> None:
        """Show vectors (N, D) in the PROJECTOR tab in place of those of an earlier step.

        `images` (N, C, H, W), H = W, or None, stand for the points, each scaled to its own range.
        The tab reads files; torch's `add_embedding` would add some at each step, and on a resume
        lose their list.
        """
        if images is not None:
            images = torch.from_numpy(scaled_for_viewing(images)).permute(0, 3, 1, 2)
        for old in self._folder.glob("*/newest/tensors.tsv"):
            shutil.rmtree(old.parents[1])
        self._projector_config = ProjectorConfig()  # torch's list
        self.add_embedding(vectors, labels, images, step, "newest")


class _DirectFileWriter(FileWriter):
    def __init__(self, event_file: "EventFile") -> None:
        self.event_writer = event_file


class EventFile:
    """One event file, written by the thread that calls.

    tensorboard's own EventFileWriter writes from a thread, which prints a traceback of its own when
    the disk is full, and its file names do not sort by time within one second or after the clock
    was set back. TensorBoard reads the files by name: out of order, a resumed run shows twice.
    """

    def __init__(self, folder: Path, purge_step: int | None) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        seconds = (path.name.split(".")[3] for path in folder.glob("events.out.tfevents.*"))
        stamps = [int(text) for text in seconds if text.isdigit()]
        stamp = max([int(time.time()), *(stamp + 1 for stamp in stamps)])
        name = f"events.out.tfevents.{stamp:010d}.{socket.gethostname()}.{os.getpid()}"
        self._folder = folder
        self._file = open(folder / name, "xb")  # noqa: SIM115
        self._records = RecordWriter(self._file)
        self.add_event(Event(wall_time=time.time(), file_version="brain.Event:2"))
        # TensorBoard takes the first START of a folder for its beginning and hides nothing for it,
        # so the first file needs one for the second file's to count.
        if purge_step is not None or not stamps:
            start = SessionLog(status=SessionLog.START)
            self.add_event(Event(wall_time=time.time(), step=purge_step or 0, session_log=start))
        self.flush()

    def get_logdir(self) -> str:
        return str(self._folder)

    def add_event(self, event: Event) -> None:
        self._records.write(event.SerializeToString())

    def flush(self) -> None:
        self._records.flush()

    def close(self) -> None:
        self._records.close()

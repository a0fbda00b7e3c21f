"""TensorBoard event files, in order."""

import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tensorboard.compat.proto.event_pb2 import Event
    from torch.utils.tensorboard import SummaryWriter


def open_events(folder: Path, *, purge_step: int) -> "SummaryWriter":
    """Return torch's SummaryWriter, with all of its `add_*`, over a new `EventFile` in `folder`.

    From `purge_step` on, the events of earlier files are hidden.
    """
    from torch.utils.tensorboard import FileWriter, SummaryWriter

    class DirectFileWriter(FileWriter):
        def __init__(self, event_file: EventFile) -> None:
            self.event_writer = event_file

    class EventWriter(SummaryWriter):
        def _get_file_writer(self) -> FileWriter:
            if self.file_writer is None:
                self.file_writer = DirectFileWriter(EventFile(folder, self.purge_step))
                self.all_writers = {str(folder): self.file_writer}
            return self.file_writer

    return EventWriter(str(folder), purge_step=purge_step)


class EventFile:
    """One event file, written by the thread that calls.

    tensorboard's own EventFileWriter writes from a thread, which prints a traceback of its own when
    the disk is full, and names files by a clock that may be set back. TensorBoard reads them by
    name: out of order, a resumed run shows twice. So they are numbered here.
    """

    def __init__(self, folder: Path, purge_step: int) -> None:
        from tensorboard.compat.proto.event_pb2 import Event, SessionLog
        from torch.utils.tensorboard import RecordWriter

        folder.mkdir(parents=True, exist_ok=True)
        number = len(list(folder.glob("events.out.tfevents.*")))
        path = folder / f"events.out.tfevents.{number:06d}"
        self._folder = folder
        self._records = RecordWriter(open(path, "ab"))  # noqa: SIM115
        self.add_event(Event(wall_time=time.time(), file_version="brain.Event:2"))
        # in the first file too: TensorBoard hides nothing for the first START of a folder
        start = SessionLog(status=SessionLog.START)
        self.add_event(Event(wall_time=time.time(), step=purge_step, session_log=start))
        self.flush()

    def get_logdir(self) -> str:
        return str(self._folder)

    def add_event(self, event: "Event") -> None:
        self._records.write(event.SerializeToString())

    def flush(self) -> None:
        self._records.flush()

    def close(self) -> None:
        self._records.close()

"""What is seen on the console and in train.log, in a terminal and in a pipe."""

import logging
import os
import re
import subprocess
import sys

import pytest

from base.errors import WriteError
from logger import ProgressBar, setup_logging
from logger.console import format_values

EPOCH = """
from logger import ProgressBar, setup_logging
log = setup_logging(None)
with ProgressBar(200, description="epoch 1/2") as bar:
    for step in range(200):
        bar.update(1)
        if step == 100:
            bar.show(loss=0.12345)
            log.info("in the middle")
log.info("epoch 1 done")
"""


@pytest.fixture(autouse=True)
def _nothing_said_before_or_after():
    setup_logging(None)
    yield
    setup_logging(None)


def run_epoch(**streams):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.Popen([sys.executable, "-c", EPOCH], env=environment, **streams)


def test_the_console_shows_plain_messages_and_the_file_their_time(tmp_path, capsys):
    log = setup_logging(tmp_path / "train.log")
    log.info("epoch 1/2  loss 0.5")
    log.warning("no graph")
    assert capsys.readouterr().out == "epoch 1/2  loss 0.5\nwarning: no graph\n"
    first, second = (tmp_path / "train.log").read_text().splitlines()
    assert re.fullmatch(r"\d{4}-\d\d-\d\d [\d:,]+ INFO    epoch 1/2  loss 0.5", first)
    assert second.endswith("WARNING no graph")


def test_verbosity_thins_the_console_and_not_the_file(tmp_path, capsys):
    log = setup_logging(tmp_path / "train.log", verbosity=0)
    log.debug("detail")
    log.info("progress")
    log.warning("trouble")
    assert capsys.readouterr().out == "warning: trouble\n"
    assert len((tmp_path / "train.log").read_text().splitlines()) == 3
    setup_logging(None, verbosity=1).debug("detail")
    assert capsys.readouterr().out == ""


def test_other_ranks_show_warnings_and_write_no_file(tmp_path, capsys):
    log = setup_logging(tmp_path / "train.log", is_main=False)
    log.info("progress")
    log.warning("trouble")
    assert capsys.readouterr().out == "warning: trouble\n"
    assert not (tmp_path / "train.log").exists()


def test_setting_up_again_replaces_the_handlers_and_keeps_those_of_others(tmp_path, capsys):
    logger = logging.getLogger("train")
    foreign = logging.NullHandler()
    logger.addHandler(foreign)
    try:
        for name in ("a.log", "b.log"):
            setup_logging(tmp_path / name)
        logger.info("once")
        assert capsys.readouterr().out == "once\n"
        assert (tmp_path / "a.log").read_text() == ""
        assert "once" in (tmp_path / "b.log").read_text()
        assert foreign in logger.handlers
    finally:
        logger.removeHandler(foreign)


def test_a_log_file_continues_after_a_resume(tmp_path):
    for message in ("before", "after"):
        setup_logging(tmp_path / "train.log").info(message)
    assert len((tmp_path / "train.log").read_text().splitlines()) == 2


def test_a_log_file_that_cannot_be_opened_is_named(tmp_path):
    with pytest.raises(WriteError, match=r"gone/train.log: cannot be written: No such file"):
        setup_logging(tmp_path / "gone" / "train.log")


def test_a_full_disk_ends_the_log_file_and_not_the_run(tmp_path, capsys):
    (tmp_path / "train.log").symlink_to("/dev/full")
    log = setup_logging(tmp_path / "train.log")
    log.info("one")
    log.info("two")
    shown = capsys.readouterr()
    assert shown.out.count("No space left on device; it ends here") == 1
    assert shown.out.startswith("one\n")
    assert shown.out.endswith("two\n")
    assert shown.err == ""


def test_a_pipe_gets_lines_and_no_bar():
    process = run_epoch(stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    output, _ = process.communicate(timeout=120)
    assert output == b"in the middle\nepoch 1 done\n"


def test_a_pipe_gets_a_line_after_some_time(monkeypatch, capsys):
    setup_logging(None)
    monkeypatch.setattr("logger.console.SECONDS_BETWEEN_LINES", 0.0)
    bar = ProgressBar(100, description="epoch 3/9", initial=10)
    bar.update(5)
    bar.show(loss=0.5, lr=1e-3)
    line = r"epoch 3/9  15/100 samples  loss 0.5  lr 0.001  \d+ samples/s\n"
    assert re.fullmatch(line, capsys.readouterr().out)


def test_a_disabled_bar_says_nothing(monkeypatch, capsys):
    setup_logging(None)
    monkeypatch.setattr("logger.console.SECONDS_BETWEEN_LINES", 0.0)
    with ProgressBar(None, description="epoch 1/1", enabled=False) as bar:
        bar.update(1)
        bar.show(loss=0.5)
    shown = capsys.readouterr()
    assert shown.out + shown.err == ""


@pytest.mark.skipif(sys.platform == "win32", reason="has no pseudo-terminals")
def test_a_terminal_gets_a_live_bar_that_lines_do_not_break():
    import fcntl
    import struct
    import termios

    controller, terminal = os.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    process = run_epoch(stdout=terminal, stderr=terminal)
    process.wait(timeout=120)
    os.close(terminal)
    output = os.read(controller, 1 << 16).decode()
    os.close(controller)
    assert "epoch 1/2:" in output
    lines = [line.rpartition("\r")[2] for line in output.replace("\r\n", "\n").split("\n")]
    assert "in the middle" in lines
    assert "epoch 1 done" in lines


def test_values_are_shown_to_four_digits():
    assert format_values({"loss": 0.123456, "lr": 1e-5, "n": 3}) == "loss 0.1235  lr 1e-05  n 3"

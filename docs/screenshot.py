"""Look at a run in TensorBoard and picture it: `python docs/screenshot.py saved/digits/ID out.png`.

Wants a classifier of images with `callbacks: [Statistics, Predictions]`. Starts TensorBoard and
opens it in headless Chromium, which is driven through a pipe
(https://chromedevtools.github.io/devtools-protocol). Fails unless every panel shows the run.
"""

import base64
import json
import os
import re
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import yaml

PATIENCE = 120.0  # seconds for an answer on a busy machine
TEXT = """(function read(node) {
  if (node.nodeType === Node.TEXT_NODE) return node.data;
  if (['STYLE', 'SCRIPT', 'NOSCRIPT'].includes(node.tagName)) return '';
  const inside = [node.shadowRoot, node.contentDocument?.body].filter(Boolean);
  return [...inside, ...node.childNodes].map(read).join(' ');
})(document.body)"""  # shadow trees and frames hold most of what TensorBoard shows
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
WINDOW = {"width": 1480, "height": 840, "deviceScaleFactor": 1.25, "mobile": False}  # of 6 cards
SETTINGS = """localStorage.setItem('_tb_global_settings', JSON.stringify({
  ignoreOutliers: false, stepSelectorEnabled: false, timeSeriesSettingsPaneOpened: false,
  sideBarWidthInPercent: 14, timeSeriesCardMinWidth: 380}))"""
IN = "defaultExperimentId"  # the folder that TensorBoard was started on
PINS = [
    *({"plugin": "scalars", "tag": tag} for tag in ("loss", "accuracy", "lr")),
    {"plugin": "scalars", "tag": "statistics/gradient_norm"},
    {"plugin": "histograms", "tag": "activations/classifier", "runId": f"{IN}/train"},
    {"plugin": "images", "tag": "predictions/images", "runId": f"{IN}/valid", "sample": 0},
]


class Browser:
    """A page of headless Chromium, told what to do by `call`."""

    def __init__(self, process: subprocess.Popen) -> None:
        self.process, self.number, self.received, self.session = process, 0, b"", {}
        target = self.call("Target.createTarget", url="about:blank")
        self.session = self.call("Target.attachToTarget", flatten=True, **target)
        self.call("Emulation.setDeviceMetricsOverride", **WINDOW)
        self.call("Emulation.setScrollbarsHidden", hidden=True)
        self.call("Page.enable")  # else the next does nothing
        self.call("Page.addScriptToEvaluateOnNewDocument", source=SETTINGS)

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        self.number += 1
        message = {"id": self.number, "method": method, "params": params, **self.session}
        self.process.stdin.write(json.dumps(message).encode() + b"\0")
        answer: dict[str, Any] = {}
        while answer.get("id") != self.number:  # the others are events
            while b"\0" not in self.received:
                is_ready, *_ = select.select([self.process.stdout], [], [], PATIENCE)
                part = self.process.stdout.read(2**20) if is_ready else b""
                if not part:
                    raise TimeoutError("Chromium does not answer")
                self.received += part
            answered, _, self.received = self.received.partition(b"\0")
            answer = json.loads(answered)
        return answer["result"]

    def open(self, url: str, words: Sequence[str]) -> None:
        """Wait until a page shows all `words`; it is loaded again, as TensorBoard may be late."""
        for _ in range(6):
            self.call("Page.navigate", url="about:blank")  # else only the part behind # changes
            self.call("Page.navigate", url=url)
            for _ in range(20):
                time.sleep(1)
                text = self.call("Runtime.evaluate", expression=TEXT)["result"].get("value", "")
                text = "".join(text.split())  # a tag may be in several pieces
                missing = [word for word in words if "".join(word.split()) not in text]
                if not missing:
                    return
        raise RuntimeError(f"{url.partition('#')[2]} does not show {', '.join(missing)}")

    def picture(self) -> bytes:
        """Return a PNG of the page once it has stood still for 3 seconds, or after 2 minutes."""
        now = ""
        for _ in range(40):
            before, now = now, self.call("Page.captureScreenshot")["data"]
            if before == now:
                break
            time.sleep(3)
        return base64.b64decode(now)


@contextmanager
def running(command: Sequence[str], **options: Any) -> Iterator[subprocess.Popen]:
    """Start a process in a group of its own, and end all of that."""
    with subprocess.Popen(command, start_new_session=True, **options) as process:
        try:
            yield process
        finally:
            os.killpg(process.pid, signal.SIGKILL)


@contextmanager
def tensorboard(folder: Path) -> Iterator[str]:
    """Yield the address of a TensorBoard of `folder`."""
    command = [sys.executable, "-m", "tensorboard.main", "--host", "127.0.0.1", "--port", "0"]
    command += ["--logdir", str(folder)]
    with running(command, stderr=subprocess.PIPE, text=True) as process:
        for line in process.stderr:
            if match := re.search(r"at (http://\S+)", line):
                yield match[1]
                return
        raise RuntimeError("TensorBoard did not start")


@contextmanager
def chromium() -> Iterator[Browser]:
    """Yield a browser without a window, which reads commands from 3 and writes answers to 4."""
    found = [path for name in BROWSERS if (path := shutil.which(name))]
    if not found:
        raise FileNotFoundError(f"none of {', '.join(BROWSERS)} is installed")
    command = ["sh", "-c", 'exec "$0" "$@" 3<&0 4>&1 >&2', found[0], "--headless"]
    command += ["--remote-debugging-pipe", "--no-first-run", "--disable-gpu"]
    command += ["--disable-dev-shm-usage", *(["--no-sandbox"] if os.geteuid() == 0 else [])]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "bufsize": 0}
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        command += [f"--user-data-dir={profile}"]
        with running(command, stderr=subprocess.DEVNULL, **pipes) as process:
            yield Browser(process)


def expected(run: Path) -> dict[str, list[str]]:
    """Return the words that each panel has to show of a run, the panel to picture last."""
    config = yaml.safe_load((run / "config.yaml").read_text())
    summary = json.loads((run / "summary.json").read_text())
    model, steps = config["model"]["type"], summary["steps"]
    results = [name for name in summary["last"] if name.startswith("val_")]
    return {
        "scalars": ["loss", "accuracy", "lr", "statistics"],
        "images": ["inputs", "predictions/images", "predictions/confusion_matrix"],
        "graphs": [model, "output"],
        "distributions": ["activations/", "train"],
        "histograms": ["activations/", "train"],
        "text": [f"name: {config['name']}", "predictions/table/text_summary", "predicted"],
        "pr_curves": ["pr_curve/0", "valid", str(steps)],
        "projector": [f"features:{steps:05}", "Points"],
        "hparams": ["optimizer.args.lr", model, *results],
        "timeseries": ["projector", "valid", f"Step {steps}", *(pin["tag"] for pin in PINS)],
    }


def take(run: Path, path: Path) -> None:
    """Look at every panel of a run, and write a picture of the last."""
    pins = quote(json.dumps(PINS))
    with tensorboard(run / "tensorboard") as url, chromium() as browser:
        for panel, words in expected(run).items():
            browser.open(f"{url}?smoothing=0&pinnedCards={pins}#{panel}", words)
        path.write_bytes(browser.picture())


if __name__ == "__main__":
    take(Path(sys.argv[1]), Path(sys.argv[2]))

"""Look at a run in TensorBoard and picture it: `python docs/screenshot.py saved/digits/ID out.png`.

Starts TensorBoard and opens it in headless Chromium, which is driven through a pipe
(https://chromedevtools.github.io/devtools-protocol). Fails unless every panel shows the run.
"""

import base64
import fcntl
import io
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
from PIL import Image

PATIENCE = 120.0  # seconds for an answer, or a panel, on a busy machine
TEXT = """(function read(node) {
  if (node.nodeType === Node.TEXT_NODE) return node.data;
  if (['STYLE', 'SCRIPT', 'NOSCRIPT'].includes(node.tagName)) return '';
  const inside = [node.shadowRoot, node.contentDocument?.body].filter(Boolean);
  return [...inside, ...node.childNodes].map(read).join(' ');
})(document.body)"""  # shadow trees and frames hold most of what TensorBoard shows
SIZE = {"width": 1400, "height": 1100, "deviceScaleFactor": 1, "mobile": False}
# panel, what is cut out of it (left, top, right, bottom), and where that goes in the picture
TILES = {
    "timeseries": ((282, 110, 1122, 1030), (0, 0, 840, 920)),
    "histograms": ((362, 180, 1076, 638), (850, 0, 1560, 455)),
    "projector": ((314, 126, 1090, 1096), (850, 465, 1214, 920)),
    "images": ((372, 545, 728, 1027), (1224, 465, 1560, 920)),
}


class Browser:
    """A page of headless Chromium, told what to do by `call`."""

    def __init__(self, process: subprocess.Popen, to: int, back: int) -> None:
        self.process, self.to, self.back = process, to, back
        self.number, self.received, self.session = 0, b"", {}
        target = self.call("Target.createTarget", url="about:blank")
        session = self.call("Target.attachToTarget", flatten=True, **target)
        self.session = session
        self.call("Emulation.setDeviceMetricsOverride", **SIZE)

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        self.number += 1
        message = {"id": self.number, "method": method, "params": params, **self.session}
        os.write(self.to, json.dumps(message).encode() + b"\0")
        while (answer := self._receive()).get("id") != self.number:
            pass  # an event
        return answer["result"]

    def _receive(self) -> dict[str, Any]:
        while b"\0" not in self.received:
            is_ready, *_ = select.select([self.back], [], [], PATIENCE)
            part = os.read(self.back, 2**20) if is_ready else b""
            if not part:
                raise TimeoutError("Chromium does not answer")
            self.received += part
        message, _, self.received = self.received.partition(b"\0")
        return json.loads(message)

    def open(self, url: str, words: Sequence[str]) -> Image.Image:
        """Return a picture of a page once it shows all `words`; it is loaded again now and then."""
        deadline = time.monotonic() + PATIENCE
        missing = list(words)
        while missing and time.monotonic() < deadline:
            self.call("Page.navigate", url="about:blank")  # else only the part behind # changes
            self.call("Page.navigate", url=url)
            for _ in range(20):
                time.sleep(1)
                text = self.call("Runtime.evaluate", expression=TEXT)["result"].get("value", "")
                text = "".join(text.split())  # a tag may be in several pieces
                missing = [word for word in words if "".join(word.split()) not in text]
                if not missing:
                    break
        if missing:
            raise RuntimeError(f"{url} does not show {', '.join(missing)}")
        time.sleep(3)  # it moves into place
        return Image.open(io.BytesIO(base64.b64decode(self.call("Page.captureScreenshot")["data"])))


@contextmanager
def running(command: Sequence[str], **options: Any) -> Iterator[subprocess.Popen]:
    """Start a process in a group of its own, and end all of that."""
    process = subprocess.Popen(command, start_new_session=True, **options)
    try:
        yield process
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


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
    command = [shutil.which("chromium") or "chromium", "--headless", "--remote-debugging-pipe"]
    command += ["--no-first-run", "--disable-gpu", "--disable-dev-shm-usage"]
    command += ["--no-sandbox"] if os.geteuid() == 0 else []
    (theirs, to), (back, answers) = os.pipe(), os.pipe()
    # Chromium reads 3 and writes 4, whatever stands there now
    ends = [fcntl.fcntl(end, fcntl.F_DUPFD, 10) for end in (theirs, answers)]
    options = {"pass_fds": (3, 4), "stderr": subprocess.DEVNULL}
    options["preexec_fn"] = lambda: [os.dup2(end, number + 3) for number, end in enumerate(ends)]
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        with running([*command, f"--user-data-dir={profile}"], **options) as process:
            for end in (theirs, answers, *ends):
                os.close(end)
            yield Browser(process, to, back)
        os.close(to), os.close(back)


def expected(run: Path) -> dict[str, list[str]]:
    """Return the words that each panel has to show of a run."""
    config = yaml.safe_load((run / "config.yaml").read_text())
    summary = json.loads((run / "summary.json").read_text())
    model, used = config["model"]["type"], {node["type"] for node in config["callbacks"]}
    words = {
        "timeseries": ["train", "valid", "loss", "lr", str(summary["steps"])],
        "images": ["inputs"],
        "graphs": [model, "output"],
        "hparams": ["optimizer.args.lr", model, *summary["best"]],
        "text": ["config/text_summary", f"name: {config['name']}"],
    }
    if "Statistics" in used:
        words["timeseries"] += ["statistics/gradient_norm", "statistics/update_ratio"]
        words["histograms"] = ["activations/", "train"]
    if "Predictions" in used:
        words["images"] += ["predictions/images", "predictions/confusion_matrix"]
        words["text"] += ["predictions/table/text_summary", "predicted"]
        words["pr_curves"] = ["pr_curve/0", "valid", str(summary["steps"])]
        words["projector"] = [f"newest:{summary['steps']:05}", "Points"]
    return words


def take(run: Path, path: Path) -> None:
    """Look at every panel of a run, and write a picture of some of them."""
    tags = ("loss", "accuracy", "statistics/gradient_norm", "statistics/update_ratio")
    pins = quote(json.dumps([{"plugin": "scalars", "tag": tag} for tag in tags]))
    with tensorboard(run / "tensorboard") as url, chromium() as browser:
        pages = {
            panel: browser.open(f"{url}?smoothing=0&pinnedCards={pins}#{panel}", words)
            for panel, words in expected(run).items()
        }
    picture = Image.new("RGB", (1560, 920), "white")
    for panel, (box, place) in TILES.items():
        if panel in pages:
            size = (place[2] - place[0], place[3] - place[1])
            tile = pages[panel].convert("RGB").crop(box).resize(size, Image.Resampling.LANCZOS)
            picture.paste(tile, place[:2])
    picture.quantize(200).save(path, optimize=True)


if __name__ == "__main__":
    take(Path(sys.argv[1]), Path(sys.argv[2]))

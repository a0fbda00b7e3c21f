"""What a browser shows of a run in TensorBoard."""

import runpy
import shutil
import subprocess
import sys

import pytest
from PIL import Image

CONFIG = """
extends: {root}/configs/digits.yaml
name: seen
trainer: {{epochs: 2, save_dir: {saved}}}
callbacks: [Statistics, Predictions]
"""


@pytest.mark.slow
def test_every_panel_shows_the_run_in_a_browser(project_root, tmp_path):
    script = project_root / "docs/screenshot.py"
    if not any(map(shutil.which, runpy.run_path(str(script))["BROWSERS"])):
        pytest.skip("no chromium here to look at TensorBoard with (apt-get install chromium)")
    config = tmp_path / "seen.yaml"
    config.write_text(CONFIG.format(root=project_root, saved=tmp_path))
    python = {"cwd": project_root, "check": True, "timeout": 1800}
    train = [sys.executable, "train.py", "-c", str(config), "--run-id", "run"]
    subprocess.run(train, **python)
    picture = tmp_path / "picture.png"
    run = tmp_path / "seen/run"
    subprocess.run([sys.executable, str(script), str(run), str(picture)], **python)
    assert Image.open(picture).size == (1850, 1050)
    assert 80_000 < picture.stat().st_size < 350_000  # an empty page takes 10 kB
    running = subprocess.run(["ps", "-eo", "stat,args"], capture_output=True, text=True).stdout
    left = [line for line in running.splitlines() if str(tmp_path) in line and line[0] != "Z"]
    assert left == []

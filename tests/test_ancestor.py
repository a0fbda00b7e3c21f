"""Code written for victoresque/pytorch-template runs in a generated project without an edit."""

import json
import os
import subprocess
import sys

import pytest

CONFIG = {
    "name": "Mnist_LeNet",
    "n_gpu": 1,
    "arch": {"type": "MnistModel", "args": {}},
    "data_loader": {
        "type": "MnistDataLoader",
        "args": {
            "data_dir": "data/",
            "batch_size": 128,
            "shuffle": True,
            "validation_split": 0.1,
            "num_workers": 2,
        },
    },
    "optimizer": {"type": "Adam", "args": {"lr": 0.001, "weight_decay": 0, "amsgrad": True}},
    "loss": "nll_loss",
    "metrics": ["accuracy", "top_k_acc"],
    "lr_scheduler": {"type": "StepLR", "args": {"step_size": 50, "gamma": 0.1}},
    "trainer": {
        "epochs": 2,
        "save_dir": "saved/",
        "save_period": 1,
        "verbosity": 2,
        "monitor": "min val_loss",
        "early_stop": 10,
        "tensorboard": True,
    },
}
MODEL = """
import torch.nn as nn
import torch.nn.functional as F
from base import BaseModel


class MnistModel(BaseModel):
    def __init__(self, num_classes=10):
        super().__init__()
        self.conv1 = nn.Conv2d(1, 10, kernel_size=5)
        self.conv2 = nn.Conv2d(10, 20, kernel_size=5)
        self.conv2_drop = nn.Dropout2d()
        self.fc1 = nn.Linear(320, 50)
        self.fc2 = nn.Linear(50, num_classes)

    def forward(self, x):
        x = F.relu(F.max_pool2d(self.conv1(x), 2))
        x = F.relu(F.max_pool2d(self.conv2_drop(self.conv2(x)), 2))
        x = x.view(-1, 320)
        x = F.relu(self.fc1(x))
        x = F.dropout(x, training=self.training)
        x = self.fc2(x)
        return F.log_softmax(x, dim=1)
"""
LOSS = """
import torch.nn.functional as F


def nll_loss(output, target):
    return F.nll_loss(output, target)
"""
METRIC = """
import torch


def accuracy(output, target):
    with torch.no_grad():
        pred = torch.argmax(output, dim=1)
        assert pred.shape[0] == len(target)
        correct = 0
        correct += torch.sum(pred == target).item()
    return correct / len(target)


def top_k_acc(output, target, k=3):
    with torch.no_grad():
        pred = torch.topk(output, k, dim=1)[1]
        assert pred.shape[0] == len(target)
        correct = 0
        for i in range(k):
            correct += torch.sum(pred[:, i] == target).item()
    return correct / len(target)
"""
DATA_LOADERS = """
from torchvision import datasets, transforms
from base import BaseDataLoader


class MnistDataLoader(BaseDataLoader):
    def __init__(self, data_dir, batch_size, shuffle=True, validation_split=0.0, num_workers=1,
                 training=True):
        trsfm = transforms.Compose([
            transforms.ToTensor(),
            transforms.Normalize((0.1307,), (0.3081,))
        ])
        self.data_dir = data_dir
        self.dataset = datasets.MNIST(self.data_dir, train=training, download=True, transform=trsfm)
        super().__init__(self.dataset, batch_size, shuffle, validation_split, num_workers)
"""


@pytest.mark.slow
def test_the_ancestors_files_train_resume_and_test_unchanged(
    project_root, tmp_path, write_small_mnist
):
    project = tmp_path / "old_project"
    run(project_root, project_root / "new_project.py", project)
    (project / "config.json").write_text(json.dumps(CONFIG, indent="\t"))
    (project / "model" / "model.py").write_text(MODEL)
    (project / "model" / "loss.py").write_text(LOSS)
    (project / "model" / "metric.py").write_text(METRIC)
    (project / "data_loader" / "data_loaders.py").write_text(DATA_LOADERS)
    write_small_mnist(project / "data")

    output = run(project, "train.py", "-c", "config.json")
    assert "epoch 2/2" in output
    output = run(project, "train.py", "-r", "saved/Mnist_LeNet", "trainer.epochs=3")
    assert "epoch 3/3" in output
    rows = next(project.glob("saved/Mnist_LeNet/*/metrics.csv")).read_text().splitlines()
    assert rows[0].endswith("loss,accuracy,top_k_acc,val_loss,val_accuracy,val_top_k_acc")
    assert [row.split(",")[0] for row in rows[1:]] == ["1", "2", "3"]
    output = run(project, "test.py", "-r", "saved/Mnist_LeNet")
    assert "top_k_acc" in output
    assert "200" in output  # the test images


def run(folder, *command):
    environment = {k: v for k, v in os.environ.items() if not k.startswith("COVERAGE")}
    result = subprocess.run(
        [sys.executable, *map(str, command)],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-3000:]
    return result.stdout

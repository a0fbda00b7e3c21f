"""Write small example data below data/, to train on before there is data of your own.

python make_data.py
python make_data.py table
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Literal

import typer

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)

SEED = 0
CONFIGS = {"table": "csv.yaml", "text": "text.yaml", "folder": "folder.yaml"}
SUBJECTS = "story plot film cast music scene script ending camera hero dialogue picture"
FILLERS = "the a this that was and with of it in for very quite rather some every one then"
CUES = {
    "bad": "dull boring awful weak flat tedious clumsy poor lifeless messy",
    "good": "bright moving superb strong warm gripping clever rich lively tender",
}


@app.command(context_settings={"help_option_names": ["-h", "--help"]})
def command(
    kind: Annotated[
        Literal["table", "text", "folder", "all"], typer.Argument(help="What to write.")
    ] = "all",
) -> None:
    """Write example data to data/KIND; what is there already stays as it is."""
    from base.errors import exit_on_user_error

    with exit_on_user_error():
        for name in CONFIGS if kind == "all" else [kind]:
            main(name, Path("data"))


def main(kind: str, parent: Path) -> None:
    """Write one kind of data to `parent`/KIND, whole or not at all, and say what to type next.

    Raises:
        WriteError: the disk is full or the place cannot be written.
    """
    import tempfile

    from base.checkpoint.files import write_error

    folder = parent / kind
    if folder.exists():
        print(f"{folder} is there already: left as it is")
    else:
        try:
            parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=parent, prefix=f".{kind}-") as scratch:
                whole = Path(scratch, kind)
                whole.mkdir()
                {"table": write_table, "text": write_text, "folder": write_images}[kind](whole)
                whole.rename(folder)
        except OSError as error:
            raise write_error(folder, error) from error
        print(f"{folder} is written")
    print(f"next: python train.py -c {CONFIGS[kind]}")


def write_table(folder: Path) -> None:
    """Write patches of forest (1,500 and 500 rows), and points about a line (200 rows)."""
    import numpy as np

    rng = np.random.default_rng(SEED)
    count = 2000
    columns = {
        "elevation": rng.normal(2900, 300, count).round(),  # metres
        "aspect": rng.uniform(0, 360, count).round(),  # degrees
        "slope": rng.gamma(4, 4, count).round(1),  # degrees
        "water_distance": rng.exponential(300, count).round(),  # metres
        "road_distance": rng.exponential(2500, count).round(),  # metres
        "shade": rng.beta(8, 2, count).round(4),  # share of the day
        "is_rocky": rng.integers(0, 2, count),
        "is_protected": rng.integers(0, 2, count),
        "was_burnt": (rng.random(count) < 0.2).astype(int),
    }
    height = (columns["elevation"] - 2900) / 300 + 0.7 * np.cos(np.radians(columns["aspect"]))
    height += 0.8 * columns["is_rocky"] - 1.2 * columns["was_burnt"] - 0.2
    height += rng.normal(0, 0.03, count)
    names = np.array(["aspen", "pine", "spruce"])
    columns["cover"] = names[np.digitize(height, np.quantile(height, [1 / 3, 2 / 3]))]
    rows = list(zip(*(column.tolist() for column in columns.values()), strict=True))
    write_csv(folder / "train.csv", list(columns), rows[:1500])
    write_csv(folder / "test.csv", list(columns), rows[1500:])
    x = rng.uniform(-5, 5, 200).round(3)
    y = (3 * x + 2 + rng.normal(0, 0.5, 200)).round(3)
    write_csv(folder / "line.csv", ["x", "y"], zip(x.tolist(), y.tolist(), strict=True))


def write_text(folder: Path) -> None:
    """Write opinions on films of 3 to 40 words, good and bad (1,000 and 300 rows)."""
    import numpy as np

    rng = np.random.default_rng(SEED)
    subjects, fillers = SUBJECTS.split(), FILLERS.split()
    rows = []
    for number in range(1300):
        label, other = ("bad", "good")[:: 1 if number % 2 else -1]
        length = rng.integers(3, 41)
        words = [*rng.choice(CUES[label].split(), 1 + length // 6), rng.choice(subjects)]
        if length > 12:  # and one of the other kind, so that no word tells by itself
            words.append(rng.choice(CUES[other].split()))
        words += [*rng.choice(subjects + fillers, length - len(words))]
        rows.append((" ".join(rng.permutation(words)), label))
    write_csv(folder / "train.csv", ["text", "label"], rows[:1000])
    write_csv(folder / "test.csv", ["text", "label"], rows[1000:])


def write_images(folder: Path) -> None:
    """Write scikit-learn's digits as PNGs, 32 x 32 RGB, one folder for each class (1,000 and 360).

    The test images are those of `data_loader.datasets.Digits`.
    """
    import torch
    from PIL import Image
    from sklearn.datasets import load_digits

    digits = load_digits()
    generator = torch.Generator().manual_seed(0)
    order = torch.randperm(len(digits.target), generator=generator).tolist()
    for part, numbers in (("test", order[:360]), ("train", order[360:1360])):
        for number in numbers:
            place = folder / part / str(digits.target[number])
            place.mkdir(parents=True, exist_ok=True)
            pixels = (digits.images[number] * 15.9).astype("uint8")  # (8, 8) of 0 to 254
            image = Image.fromarray(pixels).resize((32, 32), Image.Resampling.BICUBIC)
            image.convert("RGB").save(place / f"{number:04}.png")


def write_csv(path: Path, header: list[str], rows: Iterable[tuple]) -> None:
    """Write a table with its header."""
    import csv

    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows([header, *rows])


if __name__ == "__main__":
    app()

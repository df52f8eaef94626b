"""What a person does from an export to answers: commands, edits of settings, a shop's pictures."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import random
import shlex
from collections.abc import Iterator
from pathlib import Path

from PIL import Image, ImageDraw
from typer.testing import CliRunner

from mufin.cli import app
from tests.support.exports import Item
from tests.support.projects import ROOT, changed, run
from tests.support.servers import Handler
from tests.support.stages import SMALL, inside

# What learns a few hundred products within seconds
LEARNS = {
    "encoder.text.max_tokens": 8,
    "encoder.lexical.ngrams": 3,
    "pretrain.epochs": 30,
    "pretrain.batch_size": 64,
    "pretrain.loss": "softmax",
    "finetune.epochs": 30,
    "finetune.batch_size": 64,
    "finetune.loss": "softmax",
    "finetune.candidates": "all",
    "evaluate.candidates": "all",
}
# In place of the pretrained encoders of a profile, its three networks and its five folds
TINY = {
    "members": 1,
    "evaluate.folds": 2,
    "encoder.image.name": "vit_tiny_patch16_224",
    "encoder.image.weights": "random",
    "encoder.text.name": "bert",
    "encoder.text.weights": "random",
    "encoder.text.trainable_layers": "all",
}
# For pictures of a server on this machine
LOCAL = {"download.private_addresses": True, "download.retries": 0}


@contextlib.contextmanager
def workplace(home: Path, **changes) -> Iterator[Path]:
    """In a folder that holds settings alone."""
    with inside(home, **LEARNS | changes):
        yield home


@contextlib.contextmanager
def empty_folder(home: Path) -> Iterator[Path]:
    """In a folder that holds nothing."""
    with inside(home):
        Path("params.yaml").unlink()
        yield home


def tiny(**changes) -> None:
    """Give params.yaml, which a profile made, encoders that need no network and learn quickly."""
    size = {name: value for name, value in SMALL.items() if name.startswith("encoder.")}
    Path("params.yaml").write_text(changed(Path("params.yaml"), size | LEARNS | TINY | changes))


def documented(page: str, heading: str) -> list[str]:
    """The lines of the first block of code under a heading."""
    under = (ROOT / page).read_text().partition(f"## {heading}\n")[2]
    return under.split("```")[1].strip().split("\n")


def typed(line: str) -> str:
    """What a command prints in the current folder, where it ends well; a # begins a comment."""
    done = run(Path.cwd(), *shlex.split(line, comments=True))
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return done.stdout


def edit(**settings) -> None:
    """Change values in params.yaml; `curate__split` is `curate.split`."""
    path = Path("params.yaml")
    dotted = {name.replace("__", "."): value for name, value in settings.items()}
    path.write_text(changed(path, dotted))


def answers(uids: list[str], k: int = 3) -> dict[str, list[str]]:
    """{uid: the ids that `mufin recommend` prints, the best first}, run in this process."""
    done = CliRunner().invoke(app, ["recommend", *uids, "--k", str(k)])
    assert done.exit_code == 0, done.output
    lines = map(json.loads, done.stdout.splitlines())
    return {line["uid"]: [answer["uid"] for answer in line["recommended"]] for line in lines}


def precision(method: str) -> float:
    """P@1 on test, in percent."""
    with open("metrics/methods.csv", newline="") as file:
        rows = {row["method"]: row for row in csv.DictReader(file) if row["split"] == "test"}
    return float(rows[method]["P@1"])


# Pictures: the colour of a set, with a shape that the kind of thing has


def picture(item: Item, number: int = 1, form: str = "JPEG") -> bytes:
    """A picture of the product; each number is another one."""
    draw = random.Random(f"{item.number} {number}")
    colour = tuple(random.Random(f"set {item.set}").choices(range(256), k=3))
    image = Image.new("RGB", (40, 40), "white")
    corner = [4 + draw.randrange(8) for _ in range(2)]
    box = (*corner, corner[0] + 20 + item.number % 8, corner[1] + 28 - item.number % 8)
    ImageDraw.Draw(image).rounded_rectangle(box, item.number % 8, fill=colour)
    file = io.BytesIO()
    image.save(file, form)
    return file.getvalue()


def shelf(items: list[Item], missing: int = -1) -> type[Handler]:
    """Answers `/<number>-<picture>.jpg` with the picture; 404 for the product `missing`."""

    class Shelf(Handler):
        def do_GET(self):
            product, _, number = self.path[1:].partition("-")
            if not product.isdigit() or int(product) == missing:
                return self.answer(404)
            body = picture(items[int(product)], int(number.partition(".")[0]))
            self.answer(body=body, Content_Type="image/jpeg")

    return Shelf

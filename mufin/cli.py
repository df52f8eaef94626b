"""Choose and check the settings of the pipeline, and ask the trained pipeline for answers."""

from __future__ import annotations

import io
import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

# The bodies of the commands are in mufin/commands/. Each is imported when its command runs, so that
# --help and completion take a tenth of a second.
from mufin.commands.console import guarded, say_all, sentences

EXITS = """\b
Exit codes:
  0    done
  1    an error that you can correct; a sentence on stderr says what and how
  2    the command line is wrong
  130  interrupted by SIGINT (Ctrl-C)
  143  ended by SIGTERM

docs/command-line.md has an example of each command."""

# readable=False: typer does not look at the files; the commands do, and say it in a sentence
SettingsFile = Annotated[
    Path, typer.Option(help="the settings file of the pipeline", readable=False)
]
Home = Annotated[
    Path, typer.Option(help="the folder that holds data/, as `dvc repro` made it", readable=False)
]
Force = Annotated[
    bool, typer.Option("--force", help="write over a file that this command did not make")
]
Json = Annotated[bool, typer.Option("--json", help="print one JSON document")]
K = Annotated[int, typer.Option(min=1, help="recommended products per product")]
app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # rich takes longer to import than all else here
    help=__doc__,
    epilog=EXITS,
)


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"mufin {version('mufin-pipeline')}")
        raise typer.Exit


@app.callback()
def _common(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="say the version")
    ] = False,
) -> None:
    pass


def _profiles(begin: str) -> list[str]:
    """Names of profiles that begin with `begin`, for the shell's completion."""
    return sorted(p.stem for p in Path("params").glob("*.yaml") if p.stem.startswith(begin))


@app.command(short_help="Write the settings of a profile to params.yaml.")
def use(
    profile: Annotated[
        str,
        typer.Argument(help="name of a file in params/, without .yaml", autocompletion=_profiles),
    ],
    params: SettingsFile = Path("params.yaml"),
    everything: Annotated[
        bool, typer.Option("--all", help="also the profile's own download section and encoders")
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", help="replace a file that does not look like settings")
    ] = False,
) -> None:
    """Write all settings of a profile to params.yaml and say which ones changed.

    What you set in the section download stays, and so do encoders that you named. Settings that
    would be lost are copied to params.yaml.bak, .bak2 and so on. In a checkout it also writes
    compare/variants.yaml, what `make compare` runs for that profile.

    \b
    mufin use small-catalog
    """
    from mufin import switching

    guarded(say_all, switching.use, profile, params, everything, force)


@app.command(short_help="Say what files hold, and write the settings that read them.")
def inspect(
    files: Annotated[
        list[str], typer.Argument(help="files, globs or a folder: products, orders, labels")
    ],
    write: Annotated[
        Path | None,
        typer.Option(help="a settings file: change its section download", readable=False),
    ] = None,
    form: Annotated[
        str | None, typer.Option(help="a value of download.source; without it, it is guessed")
    ] = None,
    encoding: Annotated[str | None, typer.Option(help="of text files, such as cp1252")] = None,
    fetch: Annotated[
        bool, typer.Option("--fetch", help="fetch the URLs of three pictures")
    ] = False,
) -> None:
    """Say what files of products and orders hold, what a run would drop, and how to read them.

    It guesses form, encoding and columns, and shows three products as they are read, the share of
    related ids that is found, possible splits, a profile, and an estimate of time and memory.

    \b
    mufin inspect products.csv orders.csv --write params.yaml
    """
    from mufin.commands import catalog

    guarded(catalog.inspect, files, write, form, encoding, fetch)


@app.command("import", short_help="Write a catalog from the export of a shop or a data set.")
def import_(
    form: Annotated[str, typer.Argument(help="a value of download.source, such as shopify")],
    files: Annotated[list[str], typer.Argument(help="the files or the folder of the products")],
    out: Annotated[Path, typer.Option("--out", "-o", help="the catalog, .parquet", readable=False)],
    interactions: Annotated[
        list[str] | None,
        typer.Option(help="a file of orders or ratings; may be given more than once"),
    ] = None,
    encoding: Annotated[str | None, typer.Option(help="of text files, such as cp1252")] = None,
    bad_rows: Annotated[float, typer.Option(help="share of rows that may be faulty")] = 0.0,
    force: Force = False,
) -> None:
    """Write a catalog from the export of a shop or a data set, and say what came in.

    Orders or ratings go to <name>.interactions.parquet beside it. The last lines are the settings
    that read the files.

    \b
    mufin import shopify products_export.csv --interactions orders_export.csv -o catalog.parquet
    """
    from mufin.commands import catalog

    guarded(catalog.import_files, form, files, interactions or [], out, encoding, bad_rows, force)


@app.command(short_help="Check params.yaml, and look at the beginning of the catalog.")
def check(params: SettingsFile = Path("params.yaml")) -> None:
    """Check that params.yaml has all settings, with names that exist and values in range.

    Then look at the first products of its catalog: are the columns there, are related ids found?

    \b
    mufin check
    """
    from mufin.commands import catalog

    guarded(catalog.check, params)


@app.command(short_help="Say what a run takes: operations, memory, disk, hours per stage.")
def plan(
    params: SettingsFile = Path("params.yaml"),
    profile: Annotated[
        str | None,
        typer.Option(help="a profile in place of the settings file", autocompletion=_profiles),
    ] = None,
    like: Annotated[
        str | None,
        typer.Option(help="the sizes of a data set: mm-amazontitles-300k or a2q-4m"),
    ] = None,
    products: Annotated[int | None, typer.Option(min=2, help="products")] = None,
    labels: Annotated[int | None, typer.Option(min=1, help="labels, the possible answers")] = None,
    train: Annotated[int | None, typer.Option(min=1, help="train datapoints")] = None,
    valid: Annotated[int | None, typer.Option(min=0, help="valid datapoints")] = None,
    test: Annotated[int | None, typer.Option(min=0, help="test datapoints")] = None,
    images: Annotated[int | None, typer.Option(min=0, help="distinct pictures")] = None,
    gpu_memory: Annotated[
        float | None, typer.Option(min=0, help="GB of the GPU; 0: without one")
    ] = None,
    memory: Annotated[float | None, typer.Option(min=0.1, help="GB of memory")] = None,
    disk: Annotated[float | None, typer.Option(min=0, help="GB that are free on the disk")] = None,
    cores: Annotated[int | None, typer.Option(min=1, help="cores of the CPU")] = None,
    gpu_tflops: Annotated[
        float | None, typer.Option(min=0.1, help="peak of the GPU in bf16; an H100 has 790")
    ] = None,
    cpu_gflops: Annotated[
        float | None, typer.Option(min=0.1, help="peak of the CPU; without it, it is measured")
    ] = None,
    machines: Annotated[
        int | None, typer.Option(min=1, help="also pictures and predictions on up to so many")
    ] = None,
    json: Json = False,
) -> None:
    """Say what a run takes before it starts: operations, bytes, memory and hours of each stage.

    Sizes that are not given come from data/, else from what is known of the source. The machine is
    this one, unless its memory is given. What does not fit is named with the settings that change
    it, and the exit code is then 1.

    \b
    mufin plan
    mufin plan --profile paper --products 2000000 --gpu-memory 24 --memory 64
    """
    from mufin.commands.plan import Asked
    from mufin.commands.plan import plan as body

    counts = {"products": products, "labels": labels, "train": train}
    counts |= {"valid": valid, "test": test, "images": images}
    asked = Asked(
        counts=counts,
        gpu_memory=gpu_memory,
        memory=memory,
        disk=disk,
        cores=cores,
        gpu_tflops=gpu_tflops,
        cpu_gflops=cpu_gflops,
    )
    guarded(body, params, profile, like, asked, machines, json)


@app.command(short_help="Check this machine: packages, GPU, memory, disk, DVC, encoders.")
def doctor(home: Home = Path("."), json: Json = False) -> None:
    """Check what a run needs of this machine, and say what to do where something is missing.

    A line per check: ok, warning or fails. The exit code is 1 if a check fails, else 0. It needs no
    network, also works where packages are broken, and ends within five minutes at worst.

    \b
    mufin doctor
    mufin doctor --json
    """
    from mufin.commands.doctor import doctor as body

    guarded(body, home, json)


@app.command(short_help="Say what a trained model is: data, networks, mix, metrics, sizes.")
def info(
    folder: Annotated[
        Path, typer.Argument(help="the folder that holds data/ and models/", readable=False)
    ] = Path("."),
    json: Json = False,
) -> None:
    """Say what the folder of a run holds: data, settings, networks, mix, metrics, sizes, ids.

    What is missing is named; something damaged is an error.

    \b
    mufin info
    mufin info ../other-run --json
    """
    from mufin.commands.info import info as body

    guarded(body, folder, json)


@app.command(short_help="Print recommendations: lines of JSON, or a table on a terminal.")
def recommend(
    uid: Annotated[list[str] | None, typer.Argument(help="ids of products of the catalog")] = None,
    every: Annotated[bool, typer.Option("--all", help="every product of the catalog")] = False,
    basket: Annotated[
        bool, typer.Option("--basket", help="all that is given is one question, a basket")
    ] = False,
    title: Annotated[str, typer.Option(help="title of a product that is not in the catalog")] = "",
    image: Annotated[
        list[Path] | None,
        typer.Option(help="its picture, a file; may be given more than once", readable=False),
    ] = None,
    category: Annotated[
        list[str] | None, typer.Option(help="its category; once per level, the widest first")
    ] = None,
    k: K = 10,
    where: Annotated[
        list[str] | None,
        typer.Option(
            metavar="CONDITION",
            help="only products with these values: 'price<=20', in_stock=true, category=Mugs,Cups; "
            "may be given more than once",
        ),
    ] = None,
    avoid: Annotated[
        list[str] | None,
        typer.Option(metavar="UID", help="a product whose like is not wanted; repeatable"),
    ] = None,
    exclude: Annotated[
        list[str] | None,
        typer.Option(metavar="UID", help="a product that is no answer; repeatable"),
    ] = None,
    candidates: Annotated[
        Path | None,
        typer.Option(help="a file with one product id per line: no others", readable=False),
    ] = None,
    fold: Annotated[
        bool, typer.Option("--fold", help="only the best of the variants of one product")
    ] = False,
    why: Annotated[
        bool, typer.Option("--why", help="parts of the scores, and the pictures and titles behind")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="lines of JSON, also on a terminal")] = False,
    out: Annotated[Path | None, typer.Option(help="file for lines of JSON", readable=False)] = None,
    home: Home = Path("."),
    force: Force = False,
) -> None:
    """Print recommendations for products, after `dvc repro`.

    On a terminal it prints a table; to a file or a pipe, one line of JSON per product, which has
    uid, title and recommended: uids with titles and scores, the best first.

    \b
    mufin recommend B000000000 --k 5
    mufin recommend B000000000 B000000004 --basket --where 'price<=20' --where in_stock=true
    mufin recommend --title "Mug, small" --image front.jpg --why
    mufin recommend --all --out related.jsonl
    """
    from mufin.commands.recommend import Request
    from mufin.commands.recommend import recommend as body

    request = Request(
        uids=uid or (),
        every=every,
        basket=basket,
        title=title,
        images=image or (),
        category=category or (),
        k=k,
        where=where or (),
        avoid=avoid or (),
        exclude=exclude or (),
        candidates=candidates,
        fold=fold,
        why=why,
        json=json,
        out=out,
        home=home,
        force=force,
    )
    guarded(body, request)


@app.command(short_help="Answer a file of products (JSON lines) into a Parquet file.")
def predict(
    source: Annotated[
        Path, typer.Argument(metavar="IN.jsonl", help="one JSON object per line", readable=False)
    ],
    out: Annotated[Path, typer.Argument(metavar="OUT.parquet", help="the answers", readable=False)],
    k: K = 10,
    batch: Annotated[int, typer.Option(min=1, max=1_000_000, help="lines at once")] = 1024,
    bad_lines: Annotated[
        Literal["fail", "skip"],
        typer.Option(help="fail: a bad line ends the command; skip: it gets a row without answers"),
    ] = "fail",
    home: Home = Path("."),
    force: Force = False,
) -> None:
    """Answer all products of a file, one row per line; after a kill, the same command continues.

    A line is {"uid": ...} for a product of the catalog, or a new product: {"id": any text, "title":
    ..., "images": [paths relative to the file], "category": [...]}. The columns of the answers are
    id, labels (uids, the best first), score and fallback.

    \b
    mufin predict products.jsonl related.parquet --k 20
    mufin predict products.jsonl related.parquet --bad-lines skip
    """
    from mufin.commands.predict import predict as body

    guarded(body, source, out, home=home, k=k, batch=batch, skip=bad_lines == "skip", force=force)


@app.command(short_help="Draw a test product and its answers (PNG).")
def showcase(
    uid: Annotated[
        str | None, typer.Option(help="id of a test product; without it one is chosen")
    ] = None,
    out: Annotated[Path, typer.Option(help="the picture file", readable=False)] = Path(
        "docs/answers.png"
    ),
    home: Home = Path("."),
    force: Force = False,
) -> None:
    """Draw a test product and its first five answers as a picture (PNG).

    \b
    mufin showcase --out answers.png
    """
    from mufin.commands import artifacts

    guarded(artifacts.showcase, uid, out, home, force)


@app.command(short_help="Look for artifacts that are damaged or of other runs.")
def verify(home: Home = Path(".")) -> None:
    """Read all artifacts of the pipeline again: is each byte as written, and all of one run?

    \b
    mufin verify
    """
    from mufin.commands import artifacts

    guarded(artifacts.verify, home)


@app.command(short_help="Accept an artifact that you changed on purpose.")
def seal(
    folder: Annotated[
        Path, typer.Argument(help="an artifact, such as models/finetune", readable=False)
    ],
) -> None:
    """Accept the files of an artifact as they are now, where you changed some on purpose.

    \b
    mufin seal models/finetune
    """
    from mufin.commands import artifacts

    guarded(artifacts.seal, folder)


@app.command(short_help="Answer over HTTP, with a page to explore the catalog.")
def serve(
    folder: Annotated[
        Path, typer.Argument(help="a folder as `dvc repro` left it", readable=False)
    ] = Path("."),
    host: Annotated[str, typer.Option(help="the address to bind")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: any free one")] = 8000,
    store: Annotated[
        Path, typer.Option(help="file for products that are added or changed", readable=False)
    ] = Path("store.sqlite"),
) -> None:
    """Answer over HTTP: recommendations, products, a page at / and the API's description at /docs.

    Another host than a loopback address needs an API key in the environment variable MUFIN_API_KEY.
    SIGTERM stops the server when all requests are answered, SIGHUP loads the folder again.

    \b
    mufin serve
    MUFIN_API_KEY=secret mufin serve /srv/model --host 0.0.0.0 --store /var/lib/mufin/store.sqlite
    """
    from mufin.commands.serve import serve

    with sentences():  # the server has signals of its own
        serve(folder, host, port, store)


@app.command(short_help="Serve the model in this folder on loopback, to look at.")
def demo(
    folder: Annotated[
        Path, typer.Argument(help="a folder as `dvc repro` left it", readable=False)
    ] = Path("."),
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: any free one")] = 8000,
) -> None:
    """Serve the model on 127.0.0.1 and print the address of its page; changes are not kept.

    \b
    mufin demo
    """
    from mufin.commands.serve import demo

    with sentences():
        demo(folder, port)


@app.command(short_help="Write vectors and networks for programs without this library.")
def export(
    folder: Annotated[
        Path, typer.Argument(help="a folder as `dvc repro` left it", readable=False)
    ] = Path("."),
    out: Annotated[Path, typer.Option("--out", "-o", help="the folder to make", readable=False)] = (
        Path("export")
    ),
    kinds: Annotated[
        Literal["all", "vectors", "faiss", "onnx"],
        typer.Option(help="Parquet files, an index of FAISS, networks in ONNX"),
    ] = "all",
    faiss: Annotated[
        Literal["flat", "hnsw"], typer.Option(help="the index: exact, or a graph")
    ] = "flat",
    force: Force = False,
) -> None:
    """Write label vectors to Parquet and FAISS, and networks to ONNX.

    docs/export.md says what each file holds, and how a vector database answers by them.

    \b
    mufin export --out export
    """
    from mufin.commands.export import export

    guarded(export, folder, out, kinds, faiss, force)


@app.command(short_help="Write a catalog to try the pipeline with.")
def example(
    folder: Annotated[Path, typer.Argument(help="the folder to make", readable=False)],
    products: Annotated[int, typer.Option(min=2, max=100_000, help="how many")] = 300,
    outfits: Annotated[
        int | None, typer.Option(min=50, max=100_000, help="outfits in place of products")
    ] = None,
) -> None:
    """Write products.jsonl and pictures: products of the built-in sample, as a shop has them.

    With --outfits it writes generated outfits in the layout of Polyvore Outfits.

    \b
    mufin example shop --products 300
    mufin example polyvore --outfits 300
    """
    from mufin.commands.example import example

    guarded(example, folder, products, outfits)


def main() -> None:
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a terminal that cannot write all characters
            stream.reconfigure(errors="backslashreplace")
    app()


if __name__ == "__main__":
    main()

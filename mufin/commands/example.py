"""`mufin example`: a catalog to try the pipeline with."""

from __future__ import annotations

from pathlib import Path

from mufin.commands.console import say_all


def example(folder: Path, products: int, outfits: int | None) -> None:
    if outfits is not None:
        from mufin.corpus.outfit_folder import write_outfits

        say_all(write_outfits, folder, outfits, 0)
        return
    from mufin.corpus.example import write_example

    say_all(write_example, folder, products)

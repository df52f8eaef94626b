"""`python -m tests.support.serve_fake FOLDER SECONDS PORT`: serves the fake recommender.

Its folders are those in which a file `name` has the name of the model. `SECONDS` is what a call of
the recommender takes.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

from mufin.errors import ArtifactError, MufinError, sentence
from mufin.serving.web.auth import key_of_environment
from mufin.serving.web.limits import Settings
from mufin.serving.web.serve import serve
from tests.support.fake_service import FakeKeeper, FakeService


def main(folder: str, slow: str, port: str, host: str = "127.0.0.1", loading: str = "0") -> int:
    def load(place: str) -> FakeService:
        time.sleep(float(loading))
        try:
            service = FakeService((Path(place) / "name").read_text())
        except OSError:
            raise ArtifactError(f"{place} has no models/index; run `dvc repro` there") from None
        service.slow = float(slow)
        return service

    try:
        settings = Settings(host=host, port=int(port), key=key_of_environment())
        serve(load, folder, settings, FakeKeeper(), lambda text: print(text, flush=True))
    except MufinError as error:
        print(f"error: {sentence(str(error))}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))

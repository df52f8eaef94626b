"""Pictures inside the page: JPEG data addresses."""

from __future__ import annotations

import base64
import io

import numpy as np
from PIL import Image


def data_uri(pixels: np.ndarray, quality: int = 72) -> str:
    """`data:image/jpeg;base64,...` of (S, S, 3) uint8 RGB."""
    with io.BytesIO() as file:
        Image.fromarray(pixels).save(file, "JPEG", quality=quality, optimize=True)
        return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode()

"""Layers that stay where the patient is: napari lets people move and scale layers, and numbers would not follow."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from spineimg.geometry import FloatArray

_EVENTS = ("scale", "translate", "rotate", "shear", "affine")


def fix(layer: Any, scale: FloatArray, translate: FloatArray, say: Callable[[str], None]) -> None:
    """Puts a layer back whenever someone moves, scales, turns or shears it, and says so."""
    busy = False

    def back(event: Any = None) -> None:
        nonlocal busy
        if busy:
            return
        busy = True
        try:
            layer.affine = np.eye(4)
            layer.rotate = np.eye(3)
            layer.shear = np.zeros(3)
            layer.scale, layer.translate = scale, translate
        finally:
            busy = False
        say(f"{layer.name} was put back: its place in the patient is fixed.")

    for name in _EVENTS:
        getattr(layer.events, name).connect(back)

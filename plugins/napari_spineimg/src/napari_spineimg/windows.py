"""CT windows: the part of the HU scale that is spread over grey."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from napari.layers import Image


@dataclass(frozen=True, slots=True)
class Window:
    """Width and level in HU, as radiologists say them."""

    name: str
    key: str
    width_hu: float
    level_hu: float

    @property
    def limits_hu(self) -> tuple[float, float]:
        return self.level_hu - self.width_hu / 2, self.level_hu + self.width_hu / 2


BONE = Window("bone", "Alt-1", 1800.0, 400.0)
SOFT_TISSUE = Window("soft tissue", "Alt-2", 400.0, 50.0)
METAL = Window("metal", "Alt-3", 6000.0, 2000.0)
FULL = Window("full", "Alt-4", 4096.0, 1024.0)
"""The 12-bit scale, -1024 to 3072 HU."""
WINDOWS = (BONE, SOFT_TISSUE, METAL, FULL)


def apply(layer: Image, window: Window) -> None:
    """Shows a layer in a window."""
    low, high = window.limits_hu
    reach = layer.contrast_limits_range
    layer.contrast_limits_range = (min(low, reach[0]), max(high, reach[1]))
    layer.contrast_limits = (low, high)


def words(limits_hu: tuple[float, float] | list[float]) -> str:
    """Width and level of contrast limits, and in a line below the window's name where it has one."""
    low, high = limits_hu
    named = [one.name for one in WINDOWS if one.limits_hu == (low, high)]
    return f"W {high - low:.0f} L {(high + low) / 2:.0f}" + (f"\n{named[0]}" if named else "")


def _on_current(window: Window) -> None:
    import napari

    from napari_spineimg.room import room_of

    viewer = napari.current_viewer()
    if viewer is not None:
        room_of(viewer).show_window(window)


def bone() -> None:
    """Menu command."""
    _on_current(BONE)


def soft_tissue() -> None:
    """Menu command."""
    _on_current(SOFT_TISSUE)


def metal() -> None:
    """Menu command."""
    _on_current(METAL)


def full() -> None:
    """Menu command."""
    _on_current(FULL)

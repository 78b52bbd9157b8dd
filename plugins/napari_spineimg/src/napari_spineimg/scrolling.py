"""Scrolling without what napari does at every slice beside showing it."""

from __future__ import annotations

from typing import Any


def spare(layer: Any) -> None:
    """Leaves a layer's thumbnail and extent alone while the viewer scrolls.

    napari makes the thumbnail anew at every slice and looks up the extent, which is the same on all of them; both
    together take a fifth of the time of a scroll. napari has no setting for this, and these two methods are its own:
    where another version has none of that name, nothing is spared.
    """
    if not (hasattr(layer, "_slice_dims") and hasattr(layer, "_refresh_sync")):
        return
    to_slice, refresh, scrolling = layer._slice_dims, layer._refresh_sync, False

    def slice_dims(dims: Any, force: bool = False) -> None:
        nonlocal scrolling
        scrolling = True
        try:
            to_slice(dims, force)
        finally:
            scrolling = False

    def refresh_sync(*, thumbnail: bool = False, extent: bool = False, **keywords: bool) -> None:
        refresh(thumbnail=thumbnail and not scrolling, extent=extent and not scrolling, **keywords)

    layer._slice_dims, layer._refresh_sync = slice_dims, refresh_sync

"""Spine CT in napari. The plugin turns layers into inputs and results into layers; spineimg measures."""

__version__ = "0.1.0"

"""What can go wrong with an input. Batch code catches `SpineImgError` and nothing wider: the rest is our bug."""

from __future__ import annotations


class SpineImgError(Exception):
    """Bad input. The message is one sentence: which file or tag, what was found, what to do."""


class GeometryError(SpineImgError):
    """Positions, orientations or spacings that do not describe a volume."""


class SeriesError(SpineImgError):
    """A folder, file or series that cannot be used."""


class PixelError(SeriesError):
    """Pixels that are missing, cut short or cannot be decoded."""


class UnreadableError(PixelError):
    """A file that was there and cannot be read now, or is being written anew: another try may succeed."""


class RoiError(SpineImgError):
    """A ROI file, an ellipse, a mask or a construct that cannot be used."""


class CutoffError(SpineImgError):
    """A file of user cutoffs that cannot be used."""

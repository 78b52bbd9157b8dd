"""JPEG-LS frames through CharLS, which pyjpegls carries.

pyjpegls holds Python's lock while it decodes, so that two threads take as long as one. Where its binary shows CharLS's
own C interface (charls_jpegls_decoder.h, the same in CharLS 2 and 3), that is called without the lock; elsewhere
pyjpegls is. benchmarks/speed.py measures it; both ways are held against each other in the tests.
"""

from __future__ import annotations

import ctypes
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt


class _FrameInfo(ctypes.Structure):
    _fields_ = (
        ("width", ctypes.c_uint32),
        ("height", ctypes.c_uint32),
        ("bits_per_sample", ctypes.c_int32),
        ("component_count", ctypes.c_int32),
    )


def decode(frame: bytes) -> tuple[npt.NDArray[Any], int]:
    """((rows, columns) unsigned values, bits a value) of a code stream of one component.

    Raises RuntimeError for a stream that CharLS refuses. The caller has checked the size that the stream declares.
    """
    library = _charls()
    return _decode_with_pyjpegls(frame) if library is None else _decode_with_charls(frame, library)


def _decode_with_pyjpegls(frame: bytes) -> tuple[npt.NDArray[Any], int]:
    import jpeg_ls

    data, info = jpeg_ls.decode_pixel_data(frame)
    precision = info["bits_per_sample"]
    return np.frombuffer(data, dtype=_unsigned(precision)).reshape(info["height"], info["width"]), precision


def _decode_with_charls(frame: bytes, library: ctypes.CDLL) -> tuple[npt.NDArray[Any], int]:
    decoder = ctypes.c_void_p(library.charls_jpegls_decoder_create())
    try:
        info = _FrameInfo()
        _check(library, library.charls_jpegls_decoder_set_source_buffer(decoder, frame, len(frame)))
        _check(library, library.charls_jpegls_decoder_read_header(decoder))
        _check(library, library.charls_jpegls_decoder_get_frame_info(decoder, ctypes.byref(info)))
        out = np.empty((info.height, info.width * info.component_count), dtype=_unsigned(info.bits_per_sample))
        target = out.ctypes.data_as(ctypes.c_void_p)
        _check(library, library.charls_jpegls_decoder_decode_to_buffer(decoder, target, out.nbytes, 0))
        return out, info.bits_per_sample
    finally:
        library.charls_jpegls_decoder_destroy(decoder)


def _check(library: ctypes.CDLL, error: int) -> None:
    if error:
        raise RuntimeError(library.charls_get_error_message(error).decode("ascii", "replace"))


def _unsigned(precision: int) -> np.dtype[Any]:
    return np.dtype(np.uint8 if precision <= 8 else np.uint16)


@lru_cache(maxsize=1)
def _charls() -> ctypes.CDLL | None:
    """CharLS inside pyjpegls's binary; None where the binary does not show it."""
    import _CharLS

    pointer, size = ctypes.c_void_p, ctypes.c_size_t
    try:
        library = ctypes.CDLL(_CharLS.__file__)
        for name, result, arguments in (
            ("charls_jpegls_decoder_create", pointer, ()),
            ("charls_jpegls_decoder_destroy", None, (pointer,)),
            ("charls_jpegls_decoder_set_source_buffer", ctypes.c_int32, (pointer, ctypes.c_char_p, size)),
            ("charls_jpegls_decoder_read_header", ctypes.c_int32, (pointer,)),
            ("charls_jpegls_decoder_get_frame_info", ctypes.c_int32, (pointer, ctypes.POINTER(_FrameInfo))),
            ("charls_jpegls_decoder_decode_to_buffer", ctypes.c_int32, (pointer, pointer, size, ctypes.c_uint32)),
            ("charls_get_error_message", ctypes.c_char_p, (ctypes.c_int32,)),
        ):
            function = getattr(library, name)
            function.restype, function.argtypes = result, arguments
    except (OSError, AttributeError):
        return None
    return library

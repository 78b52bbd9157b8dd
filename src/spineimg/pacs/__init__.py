"""CT from a PACS, results to it, over DIMSE and over DICOMweb.

jobs.py does what the command line asks for, against an `Archive` (model.py) that web.py and dimse.py each implement;
inbox.py keeps what has arrived out of sight until it is complete, needed.py finds the slices that a measurement needs.
"""

from __future__ import annotations

import logging

# Without a handler of its own Python prints this library's warnings on standard error, between our own lines.
logging.getLogger("dicomweb_client").addHandler(logging.NullHandler())

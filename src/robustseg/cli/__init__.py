"""The command line: parses, picks the device, draws progress, prints tables. The work is in the library.

Starts without torch: `--help`, `list`, `report` and `compare` never load it.

Exit codes: 0 done, 1 `compare` found worse, 2 what the user can mend (one sentence), 70 anything else (a traceback),
130 stopped by Ctrl-C.
"""

import io
import logging
import sys
import traceback

from robustseg.cli import (  # importing a module of commands adds them
    adaptive,
    audit,
    depth,
    measure,
    monitor,
    prepare,
    reproduce,
    synthesis,
)
from robustseg.cli.shared import app

__all__ = ["adaptive", "app", "audit", "depth", "main", "measure", "monitor", "prepare", "reproduce", "synthesis"]


def main() -> None:
    """The entry point of the `robustseg` command."""
    logging.captureWarnings(True)
    for stream in (sys.stdout, sys.stderr):  # a terminal that has no letter for something shows its code
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        app()
    except Exception:  # no fault of the user's that we know of; 1 is what `compare` says of worse networks
        traceback.print_exc()
        sys.exit(70)

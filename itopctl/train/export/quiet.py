"""PyTorch's exporters tell of what they do on both streams, in words for their own makers."""

from __future__ import annotations

import contextlib
import logging
import os
import warnings
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without what is logged, warned of, or printed."""
    before = logging.root.manager.disable
    with contextlib.ExitStack() as stack:
        nowhere = stack.enter_context(Path(os.devnull).open("w"))
        stack.enter_context(contextlib.redirect_stdout(nowhere))
        stack.enter_context(contextlib.redirect_stderr(nowhere))
        stack.enter_context(warnings.catch_warnings())
        stack.callback(logging.disable, before)
        warnings.simplefilter("ignore")
        logging.disable(logging.ERROR)
        yield

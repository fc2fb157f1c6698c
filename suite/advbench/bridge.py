"""The one place that knows how to import robustbench next to the AutoAttack package of today.

robustbench 1.1.1 imports `autoattack`, while the package that its authors publish, and that it depends on,
installs as `pyautoattack`. Nothing here runs at import time: a broken robustbench breaks only who asks for it.
"""

from __future__ import annotations

import importlib
import sys
import warnings
from types import ModuleType

from advbench.spec import BadInput


def robustbench() -> ModuleType:
    """The robustbench package, ready to use. Raises BadInput that says what is wrong with its installation."""
    try:
        for name in ("", ".state"):
            if f"autoattack{name}" not in sys.modules:
                sys.modules[f"autoattack{name}"] = importlib.import_module(f"pyautoattack{name}")
        with warnings.catch_warnings():
            # Parts of it are deprecated elsewhere, which is nothing that a user of ours could change.
            warnings.simplefilter("ignore")
            module = importlib.import_module("robustbench")
            importlib.import_module("robustbench.utils")
        return module
    except Exception as error:  # it imports dozens of packages, and any of them may raise anything
        raise BadInput(
            f"robustbench cannot be imported: {type(error).__name__}: {error}; "
            'try: pip install "robustbench>=1.1.1" "pyautoattack>=0.2" "setuptools<81"'
        ) from error

"""One HTML file from many: our scripts and styles, the libraries' bundles, and data that no text can break out of.

The libraries are read once a process, for `advbench run` builds the page again after every job.
"""

from __future__ import annotations

import base64
import json
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from markupsafe import Markup

from advbench.spec import BadInput

HERE = Path(__file__).parent
SCRIPTS = (
    "words",
    "data",
    "dom",
    "flags",
    "table",
    "filters",
    "figure",
    "charts",
    "loss",
    "task",
    "defense",
    "record",
    "studies",
    "examples",
    "app",
)
"""Our own, in the order in which they build on each other."""


@cache
def library(package: str, *path: str) -> str:
    """A file of an installed package, which is not imported. Raises BadInput."""
    spec = find_spec(package)
    for home in (spec.submodule_search_locations or ()) if spec else ():
        file = Path(home).joinpath(*path)
        if file.is_file():
            return file.read_text(encoding="utf-8")
    raise BadInput(f"{package} has no {'/'.join(path)}; the page needs it: pip install {package}")


@cache
def charts() -> Markup:
    """plotly.js, compressed; nothing unpacks and runs it before there is a chart."""
    return _packed(library("plotly", "package_data", "plotly.min.js"))


@cache
def tables() -> Markup:
    """DataTables, compressed: a script, made of the library's module, that leaves its one name in the window."""
    bundle = library("itables", "html", "dt_bundle.js")
    start = bundle.rindex("export{")
    names = dict(part.split(" as ")[::-1] for part in bundle[start + 7 : bundle.index("}", start)].split(","))
    rest = bundle[bundle.index("}", start) + 1 :].lstrip(";")
    return _packed(f'(()=>{{"use strict";{bundle[:start]}window.DataTable={names["default"]};{rest}\n}})()')


@cache
def styles() -> Markup:
    """The style sheets: the library's, then ours."""
    return Markup(library("itables", "html", "dt_bundle.css") + (HERE / "board.css").read_text("utf-8"))  # noqa: S704


@cache
def scripts() -> Markup:
    """Ours, one after the other."""
    return Markup("\n".join(_inert((HERE / "js" / f"{name}.js").read_text("utf-8")) for name in SCRIPTS))  # noqa: S704


def packed(value: Any) -> Markup:
    """JSON, compressed: letters and digits, so that whatever the texts in it say, they stay inside.

    Raises ValueError for a number that JSON does not have, and RecursionError where it is too deep.
    """
    return _packed(json.dumps(value, allow_nan=False, separators=(",", ":")))


def _packed(text: str) -> Markup:
    """gzip in base64, as the browser's own DecompressionStream takes it.

    Arrow's compressor and not Python's, which is the system's: equal text gives equal bytes on every machine with the
    same version of pyarrow.
    """
    # Inside, because who only reads a page's words needs no arrow.
    import pyarrow as pa

    # Level 9 saves half a percent more and takes twice as long.
    found: bytes = pa.Codec("gzip", compression_level=6).compress(text.encode(), asbytes=True)
    # The tenth byte is the system's name: unknown.
    return Markup(base64.b64encode(found[:9] + b"\xff" + found[10:]).decode())  # noqa: S704


def _inert(script: str) -> str:
    """A script that closes no element and opens no comment; in strings and expressions the backslash says nothing."""
    return script.replace("<!--", "<\\!--").replace("</script", "<\\/script")

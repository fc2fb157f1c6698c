"""Base of the sets that torchvision can download: their files must be the published ones, byte for byte."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

from advbench.data.base import Missing, Source, reading
from advbench.spec import BadInput


class Published(Source):
    """A subclass writes `published`, `get` and `load`; its `load` begins with `verify`."""

    def published(self) -> Mapping[str, str | None]:
        """Each file's path under the data root and its MD5 in hexadecimal, None where nobody published one."""
        raise NotImplementedError

    def get(self, root: str) -> None:
        """Have torchvision download the whole set to `root`. Raises whatever goes wrong."""
        raise NotImplementedError

    def files(self, root: Path) -> list[Path]:
        paths = [root / name for name in self.published()]
        for path in paths:
            if not path.is_file():
                raise Missing.at(path, "advbench run --download gets it")
        return paths

    def verify(self, root: Path) -> None:
        """Refuse a file that is not the published one, before anything reads it. Raises Missing or BadInput."""
        for path, expected in zip(self.files(root), self.published().values(), strict=True):
            if expected is None:
                continue
            with reading(path), path.open("rb") as file:
                # MD5 is what publishers give; it tells a damaged or another file, which is what is asked here.
                found = hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
            if found != expected:
                raise BadInput(
                    f"{path}: its MD5 is {found}, but the published file's is {expected}; "
                    "delete it and get it again (advbench run --download)"
                )

    def download(self, root: Path) -> None:
        """Get all files of the set, whole or not at all. Raises BadInput."""
        try:
            root.mkdir(parents=True, exist_ok=True)
            # Into a folder of its own, then moved: a download that was cut off leaves nothing that looks whole.
            with TemporaryDirectory(prefix=".download-", dir=root) as folder:
                self.get(folder)
                for name in self.published():
                    (root / name).parent.mkdir(parents=True, exist_ok=True)
                    (Path(folder) / name).replace(root / name)
        except Exception as error:  # a network, an archive and a disk fail in many ways
            reason = (str(error) or type(error).__name__).splitlines()[0]
            raise BadInput(f"{self.name}: the download to {root} failed: {reason}") from error

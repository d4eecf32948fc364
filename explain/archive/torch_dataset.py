"""TorchMaps: the maps of an archive as a torch Dataset, for whoever trains or clusters on them."""

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.utils.data import Dataset

from explain.errors import UnknownNameError

if TYPE_CHECKING:
    from explain.archive.archive import MapArchive


class TorchMaps(Dataset[dict[str, Any]]):
    """One model's maps by one method; images without maps are left out.

    An item is {"id": str, "map": float32 (h, w), "target": int, "label": int or -1}. It goes to the workers of a
    DataLoader, each of which opens the archive for itself.

    Args:
        archive: the archive.
        model: name of the model.
        method: name of the method.

    Raises:
        UnknownNameError: the archive has no such maps.
    """

    def __init__(self, archive: "MapArchive", model: str, method: str) -> None:
        if model not in archive.models or method not in archive.methods:
            known = f"the models {', '.join(archive.models)} and the methods {', '.join(archive.methods)}"
            raise UnknownNameError(f"no maps of {model!r} by {method!r} in {archive.store.url}; it has {known}")
        self.model, self.method = model, method
        self._url = archive.store.url
        self._archive: MapArchive | None = archive
        good = archive.table.filter("status = 'ok'").project('"row", label').order('"row"').fetchnumpy()
        self._rows = np.asarray(good["row"])
        self._labels = np.ma.filled(np.ma.asarray(good["label"]), -1)

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        image = self._opened().at(int(self._rows[index]))
        found = image[self.model][self.method]
        values = torch.from_numpy(np.array(found.values))
        return {"id": image.id, "map": values, "target": found.target, "label": int(self._labels[index])}

    def _opened(self) -> "MapArchive":
        if self._archive is None:
            from explain.archive.archive import MapArchive

            self._archive = MapArchive(self._url)
        return self._archive

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_archive": None}

"""Image folder: one sub-folder per class, its name is the class name."""

from pathlib import Path
from typing import ClassVar

from explain.data.base import FORMATS, Dataset, Progress
from explain.data.names import printable
from explain.data.reading import read_class_folders


@FORMATS.register("image_folder")
class ImageFolder:
    """A folder with one sub-folder per class; classes are sorted by name, images may lie at any depth.

    Example:
        >>> load_data("photos")   # photos/cats/001.jpg, photos/dogs/2024/17.png
    """

    name: ClassVar[str]
    label: ClassVar[str] = "image folder (one sub-folder per class)"
    fallback: ClassVar[bool] = True

    def matches(self, location: str) -> bool:
        """True for any folder: the formats that look into a folder are asked before this one."""
        return Path(location).is_dir()

    def read(self, location: str, progress: Progress | None = None) -> Dataset:
        """Read and check every image.

        Raises:
            DatasetError: no class folders, only one, or one without images.
        """
        folder = Path(location).resolve()
        source = f"folder {printable(folder)}"
        return read_class_folders(folder, name=printable(folder.name), source=source, progress=progress)

"""The 19 tasks of VTAB-1k: the names of their folders, their groups, and how many classes each has.

Source: Zhai et al. 2019, arXiv 1910.04867; folder names as in the copies on disk that are in use for prompt tuning.
"""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class VtabTask:
    """One task.

    Args:
        name: the usual name of its folder.
        group: what kind of images and question it is.
        classes: number of classes.
        class_names: the classes in label order, where the task's definition fixes them; else empty.
    """

    name: str
    group: Literal["Natural", "Specialized", "Structured"]
    classes: int
    class_names: tuple[str, ...] = ()


VTAB_TASKS: tuple[VtabTask, ...] = (
    VtabTask("cifar", "Natural", 100),
    VtabTask("caltech101", "Natural", 102),
    VtabTask("dtd", "Natural", 47),
    VtabTask("oxford_flowers102", "Natural", 102),
    VtabTask("oxford_iiit_pet", "Natural", 37),
    VtabTask("svhn", "Natural", 10, tuple(map(str, range(10)))),
    VtabTask("sun397", "Natural", 397),
    VtabTask("patch_camelyon", "Specialized", 2, ("no tumour", "tumour")),
    VtabTask("eurosat", "Specialized", 10, (
        "AnnualCrop", "Forest", "HerbaceousVegetation", "Highway", "Industrial", "Pasture", "PermanentCrop",
        "Residential", "River", "SeaLake")),
    VtabTask("resisc45", "Specialized", 45),
    VtabTask("diabetic_retinopathy", "Specialized", 5, ("none", "mild", "moderate", "severe", "proliferative")),
    VtabTask("clevr_count", "Structured", 8, tuple(f"{count} objects" for count in range(3, 11))),
    VtabTask("clevr_dist", "Structured", 6, (
        "below 8.0", "8.0 to 8.5", "8.5 to 9.0", "9.0 to 9.5", "9.5 to 10.0", "above 10.0")),
    VtabTask("dmlab", "Structured", 6),
    VtabTask("kitti", "Structured", 4, ("below 8 m", "8 to 20 m", "above 20 m", "no vehicle")),
    VtabTask("dsprites_loc", "Structured", 16),
    VtabTask("dsprites_ori", "Structured", 16),
    VtabTask("smallnorb_azi", "Structured", 18, tuple(f"{degrees}°" for degrees in range(0, 360, 20))),
    VtabTask("smallnorb_ele", "Structured", 9, tuple(f"{degrees}°" for degrees in range(30, 75, 5))),
)  # fmt: skip
"""In the order of the VTAB papers' tables."""

_OTHER_NAMES = {"cifar100": "cifar"}
_BY_NAME = {task.name: task for task in VTAB_TASKS}


def task_of(folder_name: str) -> VtabTask | None:
    """The task that a folder of this name holds; None when no task is called so."""
    return _BY_NAME.get(_OTHER_NAMES.get(folder_name, folder_name))

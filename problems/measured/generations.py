"""Which generation of a serving framework a measured run was made with."""

from problems import catalogue
from problems.catalogue.schema import FrameworkFile


def framework_at(name: str, release: str = "", month: str = "") -> str:
    """Return the generation of a framework that a run at some time was made with.

    Parameters
    ----------
    name
        Catalogue name of the framework.
    release
        Its release, ``0.6.3``; blank if unknown.
    month
        Of the run, ``2024-11``, or its year alone; blank if unknown. It decides, where
        it is known: releases are written in too many ways.
    """
    known = (
        (each, catalogue.framework_file(each)) for each in catalogue.names("frameworks")
    )
    earlier = [
        (file.until, each)
        for each, file in known
        if file.generation_of == name and _is_of(file, release, month)
    ]
    return min(earlier)[1] if earlier else name


def _is_of(file: FrameworkFile, release: str, month: str) -> bool:
    """Return whether a generation, or an earlier one, was what a run was made with."""
    if month:
        return file.until is not None and month < file.until
    return bool(release) and file.below is not None and _older(release, file.below)


def _older(release: str, than: str) -> bool:
    parts = [int(part) for part in release.split(".")[:2]]
    return parts < [int(part) for part in than.split(".")]

"""Where NSL-KDD comes from: a folder named by the user, the cache, the network, and else the stand-in."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import platformdirs

from circuits.errors import UsageError
from experiments.datasets.download import DownloadFailed, Patience, download
from experiments.datasets.nsl_kdd import read_bytes, read_content
from experiments.datasets.official import OFFICIAL, TEST, TRAIN_20, TRAIN_FULL, Official, matches
from experiments.datasets.parse import DataFileError, shown
from experiments.datasets.types import Dataset, Records

NAME = "nsl-kdd"
ENVIRONMENT = "QRUN_DATA"


def cache_folder() -> Path:
    """Where downloaded files are kept (pooch's convention: the user's cache directory of the application)."""
    return Path(platformdirs.user_cache_dir("qrun")) / NAME


def wanted(full: bool) -> tuple[Official, Official]:
    """The training and the test file: all of KDDTrain+ or its published fifth, and KDDTest+."""
    return (TRAIN_FULL if full else TRAIN_20), TEST


def locate(data: Path | None, full: bool) -> dict[str, Path | None]:
    """Where each of the two files would be read from, by name; None where none is there (it would be downloaded).

    Looks only, reads nothing. Raises nothing for files missing in `data`: that is for `load`.
    """
    return {official.name: _found(official, data) for official in wanted(full)}


def load(
    *, data: Path | None, full: bool, notify: Callable[[str], None], test: bool = True, offline: bool = False
) -> Dataset:
    """The training and the test file: official ones if they can be had, else the stand-in for both.

    Looked for in `data` (which has to hold them) or else in the folder that QRUN_DATA names, in the cache, on the
    network, from where they go to the cache. The network is given up after 5 seconds without a byte. Both folders may
    also hold the files in a sub-folder `nsl-kdd/`.

    Args:
        data: Folder named by the user, or None.
        full: KDDTrain+ instead of KDDTrain+_20Percent.
        notify: Told in whole sentences what is fetched, and why the stand-in is used.
        test: Without it the test file is not looked for, let alone read.
        offline: Never use the network.

    Raises:
        UsageError: `data` does not hold the files.
        DataFileError: A file is there but truncated, edited or foreign.
    """
    files = wanted(full) if test else wanted(full)[:1]
    if data is not None:
        _require(data, files)
    elif named := os.environ.get(ENVIRONMENT):
        if not Path(named).expanduser().is_dir():
            raise UsageError(f"{ENVIRONMENT}={shown(named, 200, quote=False)} is no folder.", "Mend it or unset it.")
        lacking = [file.name for file in files if not any((f / file.name).exists() for f in _folders(None))]
        if lacking:
            notify(f"{ENVIRONMENT}={shown(named, 200, quote=False)} does not hold {' and '.join(lacking)}.")
    try:
        paths = _paths(files, data, offline, notify)
    except DownloadFailed as error:
        notify(f"The run goes on with the stand-in for NSL-KDD: {error}.")
        # Heavier than the rest of this module, and needed only here.
        from experiments.datasets.standin import standin

        whole = standin(full=full)
        return whole if test else replace(whole, test=None, sha256={whole.train.file: whole.sha256[whole.train.file]})
    loaded = [_read_as(path, official) for official, path in zip(files, paths, strict=True)]
    hashes = {records.file: digest for records, digest in loaded}
    return Dataset(NAME, "official", loaded[0][0], loaded[1][0] if test else None, hashes)


def _folders(data: Path | None) -> list[Path]:
    """The folder that the user named, if any, and its sub-folder `nsl-kdd`."""
    named = data if data is not None else os.environ.get(ENVIRONMENT)
    if not named:
        return []
    folder = Path(named).expanduser()
    return [folder, folder / NAME]


def _found(official: Official, data: Path | None) -> Path | None:
    # A folder named on the command line is the only one: a run must not mix it with what lay in the cache.
    folders = _folders(data) if data is not None else [*_folders(None), cache_folder()]
    return next((folder / official.name for folder in folders if (folder / official.name).exists()), None)


def _require(data: Path, files: tuple[Official, ...]) -> None:
    missing = [file.name for file in files if _found(file, data) is None]
    if not missing:
        return
    where = shown(str(data), 200, quote=False)
    if not data.expanduser().is_dir():
        raise UsageError(f"--data {where} is no folder.", f"Name the folder that holds {' and '.join(missing)}.")
    there = [official.name for official in OFFICIAL if _found(official, data) is not None]
    raise UsageError(
        f"--data {where} does not hold {' and '.join(missing)}, nor does its sub-folder {NAME} "
        f"(official files there: {', '.join(there) or 'none'}).",
        "Put the files there, or leave --data away to have them fetched.",
    )


def _paths(
    files: tuple[Official, ...], data: Path | None, offline: bool, notify: Callable[[str], None]
) -> tuple[Path, ...]:
    """Where the files lie, after fetching those that were missing."""
    paths = {file: _found(file, data) for file in files}
    for file, path in paths.items():
        if path is not None and path.parent == cache_folder() and not _is_sound(path, file):
            notify(f"The copy of {file.name} in the cache is damaged and will be fetched again.")
            paths[file] = None
    missing = [file.name for file, path in paths.items() if path is None]
    if missing and offline:
        raise DownloadFailed(f"{' and '.join(missing)} not found, and the network is not to be used")
    # One patience for both files: the user waits once.
    patience = Patience()
    for file, path in paths.items():
        if path is None:
            try:
                paths[file] = download(file, cache_folder(), patience, notify)
            except OSError as error:
                reason = error.strerror or type(error).__name__
                raise DownloadFailed(f"{file.name} cannot be kept in the cache ({reason})") from None
            except DownloadFailed as error:
                raise DownloadFailed(f"{file.name} cannot be fetched ({error})") from None
    return tuple(path for path in paths.values() if path is not None)


def _is_sound(path: Path, official: Official) -> bool:
    try:
        return matches(read_bytes(path), official)
    except DataFileError:
        return False


def _read_as(path: Path, official: Official) -> tuple[Records, str]:
    """The records of `path` and its SHA-256, refused if it is another official file under this one's name."""
    content = read_bytes(path)
    records = read_content(content, path)
    if records.file != official.name:
        # Else the test file under the training file's name would put test records into training.
        what = f"the file holds {records.file} under the name of {official.name}"
        raise DataFileError(str(path), what, line=1, column=1)
    return records, hashlib.sha256(content).hexdigest()

"""The grid on a Dask cluster: each job is a task, and what it made comes back as files.

A worker needs qrun of the same version, and the data set's files (its own, or those of the same folder); it needs no
folder in common with whoever asks. It plays a job in a process of its own, in a folder that is gone afterwards, and
gives the run's folder back without its keys. The run then stands among this user's own.
"""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from circuits.errors import QrunError, UsageError
from runner.compare.grid import Job
from runner.compare.work import Data, Done, do, finished, known_runs
from runner.config import build_config
from runner.run_folder import read_manifest, read_result
from runner.store import RunIndex
from runner.versions import package_version

SECONDS = 20
"""In which a scheduler has to answer."""
MAX_BYTES = 512 << 20
"""Of a run's folder."""
KEPT = ("result.json", "config.json", "state.sqlite", "chain.sqlite", "convergence.png")
FOLDERS = ("blocks", "models", "jobs", "evaluations")


def _client(address: str) -> Any:
    try:
        from distributed import Client
    except ImportError:
        raise UsageError(
            "--cluster needs the package distributed.", "Install it with: pip install 'qrun[cluster]'"
        ) from None
    if "://" not in address:
        raise UsageError(f"--cluster {address}: no address of a Dask scheduler.", "For example tcp://127.0.0.1:8786")
    try:
        return Client(address, timeout=SECONDS, set_as_default=False)
    except (OSError, ValueError, TimeoutError) as error:
        raise QrunError(
            f"no Dask scheduler answers at {address}: {type(error).__name__}.", "Start one with: dask scheduler"
        ) from None


def workers_of(address: str) -> int:
    """How many tasks a cluster works on at once.

    Raises:
        QrunError: It does not answer, or has no worker.
    """
    client = _client(address)
    try:
        threads = sum(client.nthreads().values())
    finally:
        client.close()
    if not threads:
        raise QrunError(f"the Dask cluster at {address} has no worker.", "Start some with: dask worker ADDRESS")
    return int(threads)


def do_all_on(
    address: str, jobs: Sequence[Job], trained: Collection[str], folder: Path | None, data: Data
) -> Iterator[Done]:
    """All jobs, as they come: runs by the cluster, evaluations of runs that are here already by this process.

    Args:
        address: Of the scheduler.
        jobs: What to do.
        trained: Digests of the configs whose runs are here.
        folder: Of the data set's files.
        data: What they have to be.

    Raises:
        QrunError: A task failed: what is done stays done.
    """
    here = [job for job in jobs if job.config.digest.hex() in trained]
    away = [job for job in jobs if job.config.digest.hex() not in trained]
    if not away:
        for job in here:
            yield do(job, folder, data)
        return
    from distributed import as_completed

    client = _client(address)
    try:
        where = None if folder is None else str(folder.absolute())
        futures = {client.submit(task, _packed(job, where, data), pure=False, retries=1): job for job in away}
        for job in here:
            yield do(job, folder, data)
        with client.as_current():  # what waits for futures asks for the client of its thread
            for future in as_completed(list(futures)):
                try:
                    answer = future.result()
                except Exception as error:
                    raise QrunError(
                        f"a task on the cluster failed: {type(error).__name__}: {error}",
                        "Start the command again: it goes on.",
                    ) from None
                if "error" in answer:
                    raise QrunError(str(answer["error"]))
                yield _adopt(futures[future], answer, data)
    finally:
        client.close()


def _packed(job: Job, folder: str | None, data: Data) -> dict[str, Any]:
    """A job as plain values."""
    return {
        "qrun": package_version("qrun"),
        "config": job.config.model_dump(mode="json"),
        "profiles": [profile.model_dump(mode="json") for profile in job.profiles],
        "folder": folder,
        "data": dict(data),
    }


def task(packed: Mapping[str, Any]) -> dict[str, Any]:
    """On a worker: play a packed job in a process of its own.

    Returns:
        {"files": tar, "seconds"} or {"error": why not}.
    """
    if packed["qrun"] != package_version("qrun"):
        return {"error": f"a worker has qrun {package_version('qrun')}, and {packed['qrun']} asks it."}
    with tempfile.TemporaryDirectory(prefix="qrun-") as home:
        asked = subprocess.run(
            [sys.executable, "-m", "runner.compare.cluster"],
            input=json.dumps(packed),
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, "QRUN_HOME": home, "OMP_NUM_THREADS": "1"},
        )
        if asked.returncode:
            lines = asked.stderr.strip().splitlines()
            return {"error": lines[-1] if lines else f"a worker's process ended with {asked.returncode}."}
        told = json.loads(asked.stdout.splitlines()[-1])
        return {"files": _tar(Path(told["path"])), "seconds": told["seconds"]}


def _tar(path: Path) -> bytes:
    """A run's folder without its keys."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name in (*KEPT, *FOLDERS):
            if (path / name).exists():
                archive.add(path / name, arcname=name)
        for file in path.glob("calibration-*.json"):
            archive.add(file, arcname=file.name)
    return buffer.getvalue()


def _adopt(job: Job, answer: Mapping[str, Any], data: Data) -> Done:
    """Put a run that came back among this user's own.

    Raises:
        QrunError: It is not the run that was asked for.
    """
    digest = job.config.digest.hex()
    with tempfile.TemporaryDirectory(prefix="qrun-") as folder:
        unpacked = Path(folder, "run")
        unpacked.mkdir()
        with tarfile.open(fileobj=io.BytesIO(answer["files"]), mode="r:gz") as archive:
            if sum(member.size for member in archive) > MAX_BYTES:
                raise QrunError("a worker gave back more than a run's folder holds.")
            archive.extractall(unpacked, filter="data")
        config, manifest = read_manifest(unpacked)
        result = read_result(unpacked)
        told = result["dataset"]
        if config.digest.hex() != digest or result["config_digest"] != digest:
            raise QrunError("a worker gave back another run than it was asked for.")
        if (told["source"], told["sha256"]) != (data["source"], data["sha256"]):
            raise QrunError(
                f"a worker's run is on other data ({told['source']}).",
                "Put the same files on every worker (QRUN_DATA).",
            )
        index = RunIndex()
        try:
            info = index.create(f"{config.experiment}-{digest[:8]}", None, manifest)
        finally:
            index.close()
        # The result last: a run with one is finished.
        for name in sorted(os.listdir(unpacked), key=lambda name: name == "result.json"):
            _move(unpacked / name, info.path / name)
    return Done(info.run, info.path, digest, True, float(answer["seconds"]))


def _move(source: Path, target: Path) -> None:
    import shutil

    shutil.move(str(source), str(target))


def _main() -> None:
    """In the process of a worker: a packed job on stdin, where its run is on stdout."""
    packed = json.loads(sys.stdin.read())
    job = Job(build_config(packed["config"]), tuple(build_config(profile) for profile in packed["profiles"]))
    named = packed["folder"]
    folder = Path(named) if named is not None and Path(named).is_dir() else None
    try:
        done = do(job, folder, packed["data"])
    except QrunError as error:
        print(str(error), file=sys.stderr)
        raise SystemExit(1) from None
    assert finished(known_runs()[done.digest], packed["data"]) is not None
    print(json.dumps({"path": str(done.path), "seconds": done.seconds}))


if __name__ == "__main__":
    _main()

"""What a run was made with: versions of the packages that matter, and the git commit of qrun itself."""

from __future__ import annotations

import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

PACKAGES = (
    "qrun",
    "qiskit",
    "qiskit-ibm-runtime",
    "qiskit-aer",
    "qiskit-machine-learning",
    "mitiq",
    "torch",
    "numpy",
    "scipy",
    "web3",
    "py-evm",
    "ipfshttpclient",
)


def package_version(name: str) -> str | None:
    """The installed version, None where the package is missing."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def git_commit() -> str | None:
    """The commit of the checkout that qrun runs from, with "-dirty" behind it; None outside a checkout of qrun."""
    root = Path(__file__).resolve().parent.parent
    if not (root / ".git").exists():
        return None
    try:
        done = subprocess.run(
            ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"],
            capture_output=True,
            text=True,
            timeout=5,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() or None


def versions() -> dict[str, str | None]:
    """Python, the packages, the machine's instruction set, and the git commit."""
    return {
        "python": platform.python_version(),
        **{name: package_version(name) for name in PACKAGES},
        "machine": platform.machine(),
        "git_commit": git_commit(),
    }

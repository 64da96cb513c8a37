"""A file system that is soon full."""

import contextlib
import subprocess

import pytest


@contextlib.contextmanager
def small_disk(at, megabytes):
    """Mount an empty one at this directory."""
    size = f"size={megabytes}m,mode=755"
    if subprocess.run(["mount", "-t", "tmpfs", "-o", size, "tmpfs", at], check=False).returncode:
        pytest.skip("nothing can be mounted here")
    yield at
    subprocess.run(["umount", "-l", at], check=True)

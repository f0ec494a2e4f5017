"""Folders for what tests write."""
import shutil
import tempfile


def temporary_folder(**options):
    """In memory where there is room: on a busy disk a commit can take longer than a lease."""
    try:
        room = shutil.disk_usage("/dev/shm").free > 2 << 30
    except OSError:
        room = False
    return tempfile.TemporaryDirectory(dir="/dev/shm" if room else None, **options)

"""Buckets that pieces of a text are hashed into: the columns of a sparse signal."""

from warehouse.errors import InputError

MOST = (1 << 31) - 1  # columns are numbered in 32 bits


def check_dims(dims: int, usual: int, most: int = MOST) -> None:
    """Raises `InputError` unless `dims` is a number of buckets from 1 to `most`."""
    if not 1 <= dims <= most:
        raise InputError(f"dims is {dims}; give a number of buckets from 1 to {most}, such as {usual}")

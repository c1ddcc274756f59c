"""The lab's guest: a raw disk image of 1 MiB whose boot sector counts (boot.S)."""

from __future__ import annotations

import struct
import subprocess
import tempfile
from pathlib import Path
from typing import NamedTuple

SOURCE = Path(__file__).parent / "boot.S"
IMAGE_SIZE = 1 << 20
_MAGIC = b"NOVATEST"


class Counters(NamedTuple):
    """What a guest has written into sector 1 of its disk."""

    boots: int
    ticks: int
    total: int


def parse_sector(sector: bytes) -> Counters | None:
    """Return the counters in `sector` (512 bytes), or None when no guest has written it yet."""
    if sector[:8] != _MAGIC:
        return None
    ticks, boots, total = struct.unpack_from("<III", sector, 8)
    return Counters(boots, ticks, total)


def build(image: Path) -> None:
    """Assemble boot.S into the raw disk image `image`.

    Raises subprocess.CalledProcessError when binutils' `as` or `ld` fail; their message goes to stderr.
    """
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(["as", "--32", "-o", "boot.o", SOURCE], cwd=folder, check=True)
        link = ["ld", "-m", "elf_i386", "-Ttext", "0x7c00", "--oformat", "binary", "-o", "boot.bin", "boot.o"]
        subprocess.run(link, cwd=folder, check=True)
        sector = (Path(folder) / "boot.bin").read_bytes()
    image.write_bytes(sector.ljust(IMAGE_SIZE, b"\0"))

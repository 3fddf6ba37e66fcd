"""Archives that are made to harm: what a few megabytes can claim to hold."""

import struct
import zipfile
import zlib
from pathlib import Path

MB = 10**6


def crc_of_zeros(size: int) -> int:
    crc = 0
    for start in range(0, size, MB):
        crc = zlib.crc32(bytes(min(MB, size - start)), crc)
    return crc


def zeros(size: int) -> bytes:
    """Deflated zeros."""
    squeeze = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    parts = [squeeze.compress(bytes(min(MB, size - at))) for at in range(0, size, MB)]
    return b"".join([*parts, squeeze.flush()])


def add_packed(archive: zipfile.ZipFile, name: str, packed: bytes, size: int, crc: int) -> None:
    """A member whose deflated bytes are given."""
    info = zipfile.ZipInfo(name)
    info.compress_type = zipfile.ZIP_DEFLATED
    file = archive.fp
    assert file is not None
    info.header_offset = file.tell()
    info.CRC, info.compress_size, info.file_size = crc, len(packed), size
    file.write(info.FileHeader(zip64=True) + packed)
    archive.filelist.append(info)
    archive.NameToInfo[name] = info
    archive.start_dir = file.tell()
    archive._didModify = True  # type: ignore[attr-defined]


def add_zeros(path: Path, size: int = 10_000 * MB, files: int = 40) -> None:
    """Files of zeros, `size` bytes in all, at the end of a zip: a thousandth of that."""
    each = size // files
    packed, crc = zeros(each), crc_of_zeros(each)
    with zipfile.ZipFile(path, "a") as archive:
        for number in range(files):
            add_packed(archive, f"cat/zeros{number}.jpg", packed, each, crc)


def encrypt(path: Path) -> None:
    """Say of the last file of a zip that it is encrypted."""
    data = bytearray(path.read_bytes())
    data[data.rfind(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(data)


def million_empty(path: Path) -> None:
    """A zip of a million files of no bytes, in two classes."""
    count, local = 1_000_000, struct.pack("<4s5H3L2H", b"PK\3\4", 20, *[0] * 9)
    fixed = struct.pack("<4s6H3L5H2L", b"PK\1\2", 20, 20, *[0] * 7, 12, *[0] * 6)
    directory = b"".join(fixed + b"%d/%06d.jpg" % (number % 2, number) for number in range(count))
    sizes = (count, count, len(directory), len(local))
    end64 = struct.pack("<4sQ2H2L4Q", b"PK\6\6", 44, 45, 45, 0, 0, *sizes)
    locator = struct.pack("<4sLQL", b"PK\6\7", 0, len(local) + len(directory), 1)
    end = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 0xFFFF, 0xFFFF, 2**32 - 1, 2**32 - 1, 0)
    path.write_bytes(local + directory + end64 + locator + end)


def claim_size(picture: bytes, format: str, side: int = 60_000) -> bytes:
    """A small picture of 12 x 10 whose header claims `side` x `side` pixels."""
    data = bytearray(picture)
    if format == "PNG":
        data[16:24] = struct.pack(">LL", side, side)
        data[29:33] = zlib.crc32(data[12:29]).to_bytes(4, "big")
    elif format == "GIF":
        data[6:10] = struct.pack("<HH", side, side)
    elif format == "BMP":
        data[18:26] = struct.pack("<ll", side, side)
    else:
        for tag, pixels in [(256, 12), (257, 10)]:
            entry = struct.pack("<HHL", tag, 4, 1)
            assert entry in data
            data = data.replace(entry + struct.pack("<L", pixels), entry + struct.pack("<L", side))
    return bytes(data)

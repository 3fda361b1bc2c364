"""Walking over the members of a tar file of any origin: header by header, in constant memory, past damage.

`tarfile` parses each header. Its own walk from one to the next is not used, because it takes damage in the middle of a file
for the end of it, and reads extended headers of any size.
"""

from __future__ import annotations

import os
import re
import tarfile
from typing import IO

BLOCK = tarfile.BLOCKSIZE
PLAIN_FILES = {tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.CONTTYPE}
_ZEROS = bytes(BLOCK)
_CHUNK = 1 << 20
_MAX_EXTENSION = 1 << 20  # bytes of a long name or other extended header
_EXTENSIONS = {tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK, tarfile.XHDTYPE, tarfile.XGLTYPE, b"X"}
_WITHOUT_DATA = {tarfile.LNKTYPE, tarfile.SYMTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.DIRTYPE, tarfile.FIFOTYPE}
_PAX_RECORD = re.compile(rb"(\d{1,7}) ([^=]+)=")


class Damage(Exception):
    """The bytes are not those of a tar file: `args` are reason and text."""


class TarMembers:
    """The members of a tar file: one header after another, the data of each to be read or passed over."""

    def __init__(self, file: IO[bytes], size: int | None):
        self._file = file
        self._size = size  # of a file that is to be passed over by seeking; `None`: by reading
        self._position = 0
        self._data = self._padding = 0  # of the member whose header came last, what is left
        self._lost: bytes | None = None  # after damage: what was read already of where the next header may be
        self._over = False

    def next(self) -> tarfile.TarInfo | None:
        """
        The next member, with the name and size that extended headers give it; `None` after the last one.

        Raises:
            [`Damage`]: once for each damaged stretch; the call after it goes on at the next header, if there is one.
        """
        name: str | None = None
        size: int | None = None
        sparse = False
        while (info := self._header()) is not None:
            self._padding = -info.size % BLOCK
            self._data = info.size
            if info.type not in _EXTENSIONS:
                info.name = info.name if name is None else name
                if size is not None:
                    info.size = self._data = size
                    self._padding = -size % BLOCK
                if sparse:
                    info.type = tarfile.GNUTYPE_SPARSE
                if info.type in _WITHOUT_DATA:
                    self._data = self._padding = 0
                return info
            if info.size > _MAX_EXTENSION:
                raise self._damage(f"an extended header of {info.size} bytes")
            content = self.read()
            if info.type == tarfile.GNUTYPE_LONGNAME:
                name = content.split(b"\0")[0].decode("utf-8", "surrogateescape")
            elif info.type in (tarfile.XHDTYPE, b"X"):
                records = self._pax_records(content)
                name = records.get("path", name)
                sparse = any(keyword.startswith("GNU.sparse.") for keyword in records)
                if "size" in records:
                    if not re.fullmatch(r"[0-9]{1,18}", records["size"]):
                        raise self._damage(f"an extended header with the size {records['size']!r}")
                    size = int(records["size"])
        if name is not None or size is not None or sparse:
            raise self._damage("an extended header with nothing after it")
        return None

    def read(self) -> bytes:
        """The data of the member whose header came last."""
        # The size of a local file is looked at first, as reading would set the memory aside that a header asks for.
        beyond = self._size is not None and self._position + self._data > self._size
        data = b"" if beyond else self._take(self._data)
        if len(data) < self._data:
            raise self._truncated()
        self._data = 0
        return data

    def skip(self) -> None:
        """Passes over what is left of the data of the member whose header came last."""
        if not self._data:
            return
        if self._size is not None:
            self._position += self._data
            if self._position > self._size:
                raise self._truncated()
            self._file.seek(self._data, os.SEEK_CUR)
        else:
            rest = self._data
            while rest:
                taken = len(self._take(min(rest, _CHUNK)))
                if not taken:
                    raise self._truncated()
                rest -= taken
        self._data = 0

    def _take(self, count: int) -> bytes:
        """The next `count` bytes, fewer only at the end of the file."""
        data = self._file.read(count)
        if 0 < len(data) < count:  # a remote file may give less than it has
            parts = [data]
            while data and count > sum(map(len, parts)):
                data = self._file.read(count - sum(map(len, parts)))
                parts.append(data)
            data = b"".join(parts)
        self._position += len(data)
        return data

    def _header(self) -> tarfile.TarInfo | None:
        if self._lost is not None:
            return self._recovered()
        if self._over:
            return None
        padding, self._padding = self._padding, 0
        block = self._take(padding + BLOCK)[padding:]
        if len(block) < BLOCK:
            raise self._truncated()
        if block == _ZEROS:
            self._over = True
            while block := self._take(BLOCK):
                if any(block):
                    raise self._damage("data after the end-of-archive marker", block)
            return None
        if (info := _parsed(block)) is None:
            raise self._damage("no member header where one must be")
        return info

    def _pax_records(self, content: bytes) -> dict[str, str]:
        records, position = {}, 0
        while match := _PAX_RECORD.match(content, position):
            end = position + int(match[1])
            if not match.end() < end <= len(content):
                raise self._damage("an extended header whose lengths do not fit")
            keyword = match[2].decode("utf-8", "replace")
            records[keyword] = content[match.end() : end - 1].decode("utf-8", "surrogateescape")
            position = end
        if content[position:].strip(b"\0"):
            raise self._damage("an extended header that cannot be read")
        return records

    def _truncated(self) -> Damage:
        self._over = True
        return Damage("truncated", "the file ends before its end-of-archive marker; it was not written or copied whole")

    def _damage(self, text: str, block: bytes = b"") -> Damage:
        """The error for bytes that are no tar; `block` is the first one that may be the header to go on from, if it is read."""
        self._data = self._padding = 0
        self._lost = block
        return Damage("damaged", text)

    def _recovered(self) -> tarfile.TarInfo | None:
        """The first header after damage."""
        block, self._lost = self._lost or b"", None
        self._take(-self._position % BLOCK)
        while len(block := block or self._take(BLOCK)) == BLOCK:
            if (info := _parsed(block)) is not None:
                self._over = False
                return info
            block = b""
        self._over = True
        return None


def _parsed(block: bytes) -> tarfile.TarInfo | None:
    """The member of a header, if it is one."""
    try:
        info = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
    except tarfile.HeaderError:
        return None
    return info if info.size >= 0 else None


__all__ = ["BLOCK", "PLAIN_FILES", "Damage", "TarMembers"]

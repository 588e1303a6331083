"""A wire that can be cut: TCP between two programs, through here."""

from __future__ import annotations

import asyncio
import contextlib
import enum
from collections.abc import Sequence


class Wire(enum.Enum):
    """What a link does with what it is given."""

    WHOLE = "whole"
    CUT = "cut"  # connections are reset, new ones too
    STALLED = "stalled"  # connections stay, new ones are taken, no byte passes: as a firewall that drops
    DEAF = "deaf"  # requests pass, answers are thrown away: who asked never learns what came of it


class Link:
    """Listens on `port` of 127.0.0.1 and passes on to `target`, a port of 127.0.0.1."""

    def __init__(self, name: str, target: int) -> None:
        self.name = name
        self.target = target
        self.port = 0
        self.wire = Wire.WHOLE
        self._whole = asyncio.Event()
        self._whole.set()
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._local_ports: set[int] = set()
        self.rewritten: dict[bytes, bytes] = {}  # in answers; each is sent in one piece

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()
        self._reset()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def set(self, wire: Wire) -> None:
        """Break it, or mend it. Once broken in any way, no connection of before is of use again."""
        self.wire = wire
        if wire is Wire.STALLED:
            self._whole.clear()
            return
        self._whole.set()
        if wire in (Wire.CUT, Wire.WHOLE):
            self._reset()

    def is_from_here(self, port: int) -> bool:
        """Does that port belong to a connection of this link to its target?"""
        return port in self._local_ports

    def _reset(self) -> None:
        for writer in list(self._open):
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self._open.add(writer)
        far: asyncio.StreamWriter | None = None
        local_port = 0
        try:
            await self._whole.wait()
            if self.wire is Wire.CUT:
                return
            far_reader, far = await asyncio.open_connection("127.0.0.1", self.target)
            local_port = far.get_extra_info("sockname")[1]
            self._local_ports.add(local_port)
            self._open.add(far)
            await asyncio.gather(self._pass(reader, far, answers=False), self._pass(far_reader, writer, answers=True))
        except (OSError, asyncio.CancelledError):
            pass
        finally:
            self._tasks.discard(task)
            self._local_ports.discard(local_port)
            for end in (writer, far):
                if end is not None:
                    end.transport.abort()
                    self._open.discard(end)

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, answers: bool) -> None:
        while content := await reader.read(65536):
            await self._whole.wait()
            if answers and self.wire is Wire.DEAF:
                continue
            for told, instead in self.rewritten.items() if answers else ():
                content = content.replace(told, instead)
            writer.write(content)
            await writer.drain()
        await self._whole.wait()
        with contextlib.suppress(OSError):
            writer.write_eof()


class ClusterLink:
    """Links to each node of a Valkey cluster, as one. The nodes tell where they are: here they tell of the links."""

    def __init__(self, name: str, targets: Sequence[int]) -> None:
        self.name = name
        self._links = [Link(name, target) for target in targets]

    @property
    def port(self) -> int:
        return self._links[0].port

    async def start(self) -> None:
        for link in self._links:
            await link.start()
        rewritten = {_address(link.target): _address(link.port) for link in self._links}
        for link in self._links:
            link.rewritten = rewritten

    async def stop(self) -> None:
        for link in self._links:
            await link.stop()

    def set(self, wire: Wire) -> None:
        for link in self._links:
            link.set(wire)

    def is_from_here(self, port: int) -> bool:
        return any(link.is_from_here(port) for link in self._links)


def _address(port: int) -> bytes:
    """As it stands in the answer to CLUSTER SLOTS."""
    return b"127.0.0.1\r\n:%d\r\n" % port

"""The sockets to the relays: reads what they send, and acknowledges what the checkpoint holds."""

import asyncio
import contextlib
import socket
from collections.abc import Callable, Iterable

from exporter import catalog, log, records
from exporter.observer.fold import Fold, Incarnation
from exporter.observer.session import ChannelError, Session

_READ = 256 * 1024


class Channels:
    """All channels, and which of the relays that ran before us have sent everything again."""

    def __init__(self, fold: Fold, save: Callable[[], None], expected: Iterable[Incarnation] = ()) -> None:
        """``save`` makes all that is folded safe and acknowledges it; ``expected`` are the relays that run already."""
        self._fold = fold
        self._save = save
        self._open: dict[Incarnation, _Open] = {}
        self._gone: set[Incarnation] = set()
        self._awaited = set(expected)
        self._settled = asyncio.Event()
        self._settle()

    @property
    def pids(self) -> dict[int, int]:
        """The process id of each relay, by slot."""
        return {relay: self._fold.relays[relay, boot].pid for relay, boot in self._greeted()}

    async def settled(self, seconds: float) -> bool:
        """Wait until every expected relay has caught up or is gone; False if that takes longer than ``seconds``."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._settled.wait(), seconds)
        return self._settled.is_set()

    def open(self, key: Incarnation, sock: socket.socket) -> None:
        """Take over the channel to a relay; it replaces an earlier one of the same incarnation."""
        earlier = self._open.pop(key, None)
        if earlier is not None:
            earlier.task.cancel()
        sock.settimeout(0)
        session = Session(self._fold, key)
        task = asyncio.get_running_loop().create_task(self._read(session, sock))
        self._open[key] = _Open(session, sock, task)

    def gone(self, key: Incarnation) -> None:
        """The relay died; its open requests end once everything it had sent is folded."""
        if key in self._open:
            self._gone.add(key)
        else:
            self._bury(key)

    def acknowledge(self) -> None:
        """Tell every relay what the checkpoint holds; call it right after the checkpoint was written."""
        for key in self._greeted():
            self._ack(key)

    async def drain(self, seconds: float) -> None:
        """Read what the relays still send, until they are gone or ``seconds`` have passed."""
        tasks = [one.task for one in self._open.values()]
        if tasks:
            await asyncio.wait(tasks, timeout=seconds)

    async def _read(self, session: Session, sock: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        try:
            while data := await loop.sock_recv(sock, _READ):
                self._feed(session, data)
        except ChannelError as error:
            self._fold.count(catalog.CHANNEL_ERRORS, (error.reason,))
            log.error("the channel of a relay is closed", relay=session.key[0], reason=error.reason, error=str(error))
        except OSError as error:
            log.warning("the channel of a relay broke", relay=session.key[0], error=str(error))
        finally:
            sock.close()
        self._closed(session)

    def _feed(self, session: Session, data: bytes) -> None:
        new = not session.greeted
        session.feed(data)
        if new and session.greeted:
            self._save()  # what is acknowledged now is forgotten by the relay, so it has to be safe first
            self._ack(session.key)
        if session.caught_up:
            self._caught_up(session.key)

    def _ack(self, key: Incarnation) -> None:
        """An Ack that the socket does not take now is made up for by the next one."""
        with contextlib.suppress(OSError):
            self._open[key].sock.send(records.frame(records.Ack(self._fold.folded(key))))

    def _closed(self, session: Session) -> None:
        key = session.key
        self._open.pop(key, None)
        self._fold.silent(key)
        self._caught_up(key)
        if key in self._gone:
            self._bury(key)

    def _bury(self, key: Incarnation) -> None:
        self._gone.discard(key)
        self._fold.gone(key)
        self._caught_up(key)

    def _caught_up(self, key: Incarnation) -> None:
        if key in self._awaited:
            self._awaited.discard(key)
            self._settle()

    def _settle(self) -> None:
        if not self._awaited:
            self._settled.set()

    def _greeted(self) -> list[Incarnation]:
        return [key for key, one in self._open.items() if one.session.greeted]


class _Open:
    __slots__ = ("session", "sock", "task")

    def __init__(self, session: Session, sock: socket.socket, task: "asyncio.Task[None]") -> None:
        self.session = session
        self.sock = sock
        self.task = task

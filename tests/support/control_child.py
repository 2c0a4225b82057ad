"""A relay and an observer without their work: they speak the control protocol and write down what they hear."""

import argparse
import asyncio
import json
import os
import socket
import subprocess
import sys

from exporter import control
from exporter.control import Control, Message


class Journal:
    """Lines of JSON that a test reads while they are written."""

    def __init__(self, path: str, who: str) -> None:
        self._fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        self.who = who

    def write(self, event: str, **fields: object) -> None:
        line = {"who": self.who, "pid": os.getpid(), "event": event, **fields}
        os.write(self._fd, json.dumps(line).encode() + b"\n")


class Child:
    """What both kinds have in common; over a Channel they greet each other by name."""

    def __init__(self, journal: Journal, fd: int) -> None:
        self.journal = journal
        self.tasks: set[asyncio.Task[None]] = set()
        self.control = Control(control.adopt(fd), self.hear, self.orphaned)

    def orphaned(self) -> None:
        self.journal.write("orphaned")
        os._exit(7)

    def hear(self, message: Message, fds: list[int]) -> None:
        name = type(message).__name__
        shown = {key: getattr(message, key) for key in message.__struct_fields__ if key != "config"}
        self.journal.write(name, **shown, fds=len(fds))
        getattr(self, f"on_{name}", lambda *_: None)(message, fds)

    def keep(self, task: "asyncio.Task[None]") -> None:
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    def on_Channel(self, message: control.Channel, fds: list[int]) -> None:  # noqa: N802 - named as the message
        self.keep(asyncio.create_task(self.greet(message, socket.socket(fileno=fds[0]))))

    async def greet(self, message: control.Channel, sock: socket.socket) -> None:
        reader, writer = await asyncio.open_connection(sock=sock)
        writer.write(f"{self.journal.who}\n".encode())
        peer = (await reader.readline()).decode().strip()
        self.journal.write("greeted", peer=peer, relay=message.relay, boot=message.boot)
        await reader.read()
        writer.close()


class Relay(Child):
    """Every client connection is a request in flight; a line of it may be an order."""

    def on_StartRelay(self, message: control.StartRelay, fds: list[int]) -> None:  # noqa: N802
        self.journal.who = f"relay {message.index}"
        self.clients: set[asyncio.StreamWriter] = set()
        self.accepting = True
        self.keep(asyncio.create_task(self.serve(socket.socket(fileno=fds[0]))))

    async def serve(self, sock: socket.socket) -> None:
        self.server = await asyncio.start_server(self.client, sock=sock)
        self.control.send(control.Ready())

    async def client(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.clients.add(writer)
        self.tell()
        writer.write(f"{self.journal.who} {os.getpid()}\n".encode())
        while line := await reader.readline():
            self.order(line.decode().split())
        self.clients.discard(writer)
        writer.close()
        self.tell()

    def order(self, words: list[str]) -> None:
        if words[0] == "exit":
            os._exit(int(words[1]))
        if words[0] == "lose":
            self.control.send(control.ChannelLost())
        if words[0] == "orphan":  # a grandchild that outlives its parent
            done = subprocess.run([sys.executable, "-c", ORPHAN], check=True, capture_output=True)
            self.journal.write("orphan", number=int(done.stdout))

    def tell(self) -> None:
        self.control.send(control.RelayStatus(len(self.clients), self.accepting))

    def on_StopAccepting(self, *_: object) -> None:  # noqa: N802
        self.server.close()
        self.accepting = False
        self.tell()

    def on_Abort(self, *_: object) -> None:  # noqa: N802
        for client in self.clients:
            client.transport.abort()

    def on_Finish(self, *_: object) -> None:  # noqa: N802
        os._exit(0)


class Observer(Child):
    """It answers the web port with a line and counts its lives in the checkpoint."""

    def on_StartObserver(self, message: control.StartObserver, fds: list[int]) -> None:  # noqa: N802
        lives = int(os.pread(fds[1], 10, 0) or b"0") + 1
        os.pwrite(fds[1], str(lives).encode(), 0)
        self.journal.write("life", number=lives)
        self.keep(asyncio.create_task(self.serve(socket.socket(fileno=fds[0]))))

    async def serve(self, sock: socket.socket) -> None:
        self.server = await asyncio.start_server(self.client, sock=sock)
        self.control.send(control.Ready())

    async def client(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(f"observer {os.getpid()}\n".encode())
        writer.close()

    def on_Finish(self, *_: object) -> None:  # noqa: N802
        self.control.send(control.Finished())
        os._exit(0)


ORPHAN = """
import os
child = os.fork()
if child == 0:
    os._exit(0)  # nobody of its own waits for it
print(child, flush=True)
os._exit(0)
"""


async def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("kind", choices=["relay", "observer"])
    parser.add_argument("journal")
    parser.add_argument("--control-fd", type=int)
    given = parser.parse_args()
    kind = Relay if given.kind == "relay" else Observer
    child = kind(Journal(given.journal, given.kind), given.control_fd)
    child.journal.write("born")
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main())

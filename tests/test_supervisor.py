"""The supervisor as a real process over children that speak only the control protocol."""

import contextlib
import http.client
import json
import os
import signal
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.ports import free_ports
from support.processes import Process, tcp_accepts
from support.waiting import until

SUPPORT = Path(__file__).parent / "support"
ENVIRONMENT = {"PYTHONPATH": str(SUPPORT.parent), "PYTHONWARNINGS": "error"}


class Sidecar:
    """A supervisor with test children, an engine's port that nothing listens on yet, and their journal."""

    def __init__(
        self, directory: Path, *, subreaper: bool = False, relay: list[str] | None = None,
        rhythm: dict[str, float] | None = None, **flags: str,
    ) -> None:  # fmt: skip
        self.engine, self.clients, self.web, self.health = free_ports(4)
        self.journal = directory / "journal"
        child = [sys.executable, str(SUPPORT / "control_child.py")]
        given = {
            "subreaper": subreaper,
            "relay": relay or [*child, "relay", str(self.journal)],
            "observer": [*child, "observer", str(self.journal)],
            "rhythm": {"probe_every": 0.05, "engine_up_for": 0.5, "backoff_first": 0.05, **(rhythm or {})},
            "flags": {
                "upstream": f"http://127.0.0.1:{self.engine}",
                "listen": f"127.0.0.1:{self.clients}",
                "web.listen-address": f"127.0.0.1:{self.web}",
                "health.listen-address": f"127.0.0.1:{self.health}",
                **{name.replace("_", "-"): value for name, value in flags.items()},
            },
        }
        argv = [sys.executable, str(SUPPORT / "supervised.py"), json.dumps(given)]
        self.process = Process(argv, name="supervisor", env=ENVIRONMENT)

    def events(self, name: str, who: str = "") -> list[dict[str, Any]]:
        lines = self.journal.read_text().splitlines() if self.journal.exists() else []
        events = [json.loads(line) for line in lines]
        return [event for event in events if event["event"] == name and event["who"].startswith(who)]

    def wait_events(self, count: int, name: str, who: str = "") -> list[dict[str, Any]]:
        def enough() -> list[dict[str, Any]] | None:
            found = self.events(name, who)
            return found if len(found) >= count else None

        return until(enough, f"{count} x {name} of {who}\n{self.process.output}")

    def get(self, path: str, method: str = "GET") -> tuple[int, str]:
        connection = http.client.HTTPConnection("127.0.0.1", self.health, timeout=20)
        with contextlib.closing(connection):
            connection.request(method, path)
            answer = connection.getresponse()
            return answer.status, answer.read().decode().strip()

    def answers(self, path: str, status: int) -> str:
        def answered() -> str | None:
            with contextlib.suppress(OSError):
                found, text = self.get(path)
                return text if found == status else None
            return None

        return until(answered, f"{path} answering {status}\n{self.process.output}")

    def request(self) -> tuple[socket.socket, str, int]:
        """A request in flight, which relay took it, and that relay's pid."""
        sock = socket.create_connection(("127.0.0.1", self.clients), timeout=20)
        words = sock.makefile().readline().split()
        return sock, " ".join(words[:-1]), int(words[-1])


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Any]:
    with contextlib.ExitStack() as running:

        def begin(**given: Any) -> Sidecar:
            sidecar = Sidecar(tmp_path, **{"drain_delay": "0", "drain_timeout": "10s", **given})
            running.enter_context(sidecar.process)
            return sidecar

        yield begin


@contextlib.contextmanager
def listening(port: int) -> Iterator[None]:
    with socket.create_server(("127.0.0.1", port), backlog=4096):  # room for probes that nobody accepts
        yield


def exists(pid: int) -> bool:
    """Whether there is such a process, even if only as a zombie."""
    return Path(f"/proc/{pid}").exists()


def alive(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


def test_everything_is_introduced_to_everything(start: Any) -> None:
    sidecar = start(workers="2")
    greeted = sidecar.wait_events(4, "greeted")
    pairs = {(event["who"], event["peer"]) for event in greeted}
    assert pairs == {("relay 0", "observer"), ("relay 1", "observer"), ("observer", "relay 0"), ("observer", "relay 1")}
    (told,) = sidecar.events("StartObserver")
    boots = {event["index"]: event["boot"] for event in sidecar.events("StartRelay")}
    assert dict(told["relays"]) == boots
    assert len(set(boots.values())) == 2


def test_health_and_readiness_follow_relay_and_engine(start: Any) -> None:
    sidecar = start()
    assert sidecar.answers("/-/healthy", 200) == "healthy"
    assert "no engine at http://127.0.0.1:" in sidecar.answers("/-/ready", 503)
    sidecar.process.wait_output("yet; will keep trying")
    with listening(sidecar.engine):
        assert sidecar.answers("/-/ready", 200) == "ready"
        sidecar.process.wait_output("accepts connections")
        sidecar.wait_events(1, "Facts", "observer")
        until(lambda: sidecar.events("Facts")[-1]["upstream_up"] or None, "the observer told of the engine")
    assert " for " in sidecar.answers("/-/ready", 503)
    sidecar.process.wait_output("is gone; will keep trying")
    until(lambda: not sidecar.events("Facts")[-1]["ready"] or None, "the observer told")
    assert sidecar.get("/-/healthy")[0] == 200


def test_unknown_paths_and_methods_are_refused(start: Any) -> None:
    sidecar = start()
    sidecar.answers("/-/healthy", 200)
    assert sidecar.get("/metrics")[0] == 404
    assert sidecar.get("/-/healthy", "POST") == (405, "GET only")
    assert sidecar.get("/-/drain", "GET") == (405, "POST only")
    assert sidecar.get("/-/healthy?x=1", "HEAD") == (200, "")


def test_a_relay_that_dies_is_started_again_under_a_new_boot(start: Any) -> None:
    sidecar = start()
    sidecar.wait_events(2, "greeted")
    sock, _, pid = sidecar.request()
    with sock:
        sock.sendall(b"exit 3\n")
        first, second = sidecar.wait_events(2, "StartRelay")
    assert (first["index"], first["boot"]) != (second["index"], second["boot"])
    assert second["pid"] != pid
    (gone,) = sidecar.wait_events(1, "RelayGone", "observer")
    assert gone["boot"] == first["boot"]
    sidecar.wait_events(4, "greeted")
    until(lambda: sidecar.events("Facts")[-1]["restarts"] == {"relay": 1, "observer": 0} or None, "restart counted")
    with sidecar.request()[0]:
        pass


def test_the_delay_before_another_start_grows(start: Any) -> None:
    sidecar = start(rhythm={"backoff_first": 0.01})
    for count in range(1, 5):
        sidecar.wait_events(count, "StartRelay")
        sidecar.answers("/-/healthy", 200)
        with sidecar.request()[0] as sock:
            sock.sendall(b"exit 1\n")
            sock.makefile().readline()
    for delay in ("delay=0.01", "delay=0.02", "delay=0.04", "delay=0.08"):
        sidecar.process.wait_output(delay)


def test_an_observer_that_is_killed_costs_no_request_and_gets_its_checkpoint_and_channels_back(start: Any) -> None:
    sidecar = start(workers="2")
    observer = sidecar.wait_events(2, "greeted", "observer")[0]
    sock, _, _ = sidecar.request()
    os.kill(observer["pid"], signal.SIGKILL)
    assert [event["number"] for event in sidecar.wait_events(2, "life", "observer")] == [1, 2]
    again = sidecar.wait_events(4, "greeted", "observer")[2:]
    assert {event["pid"] for event in again} == {sidecar.events("life")[1]["pid"]}
    assert len(sidecar.wait_events(4, "greeted", "relay")) == 4
    boots = {(event["index"], event["boot"]) for event in sidecar.events("StartRelay")}
    assert {tuple(each) for each in sidecar.events("StartObserver")[1]["relays"]} == boots
    sidecar.process.wait_output("by=Killed")
    with sock:
        sock.sendall(b"nothing\n")
        sock.shutdown(socket.SHUT_WR)
        assert sock.recv(1) == b""
    sidecar.process.wait_tcp(sidecar.web)


def test_a_channel_that_ends_between_living_processes_is_replaced(start: Any) -> None:
    sidecar = start()
    sidecar.wait_events(2, "greeted")
    sock, _, _ = sidecar.request()
    with sock:
        sock.sendall(b"lose\n")
        assert len(sidecar.wait_events(4, "greeted")) == 4
    assert sidecar.events("RelayGone") == []


def test_a_drain_lets_the_answer_finish_and_ends_the_observer_last(start: Any) -> None:
    sidecar = start(drain_delay="300ms")
    with listening(sidecar.engine):
        sidecar.answers("/-/ready", 200)
        sock, _, _ = sidecar.request()
        sidecar.process.signal(signal.SIGTERM)
        assert sidecar.answers("/-/ready", 503) == "draining"
        with sidecar.request()[0]:  # still accepting
            pass
        sidecar.wait_events(1, "StopAccepting")
        until(lambda: not tcp_accepts(sidecar.clients) or None, "the listener closed")
        assert sidecar.get("/-/healthy")[0] == 200
        assert tcp_accepts(sidecar.web)
        assert sidecar.process.returncode is None
        sock.close()
        assert sidecar.process.wait_exit() == 0
    order = [(e["who"], e["event"]) for e in map(json.loads, sidecar.journal.read_text().splitlines())]
    wanted = [("relay 0", "Drain"), ("relay 0", "StopAccepting"), ("relay 0", "Finish"), ("observer", "RelayGone"),
              ("observer", "Finish")]  # fmt: skip
    assert [each for each in order if each in wanted] == wanted
    assert not sidecar.events("Abort")
    assert sidecar.events("Facts")[-1]["drained"]


def test_a_relay_that_starts_during_the_delay_learns_of_the_drain(start: Any) -> None:
    sidecar = start(drain_delay="1h")
    sidecar.answers("/-/healthy", 200)
    sidecar.process.signal(signal.SIGTERM)
    sidecar.wait_events(1, "Drain")
    with sidecar.request()[0] as sock:
        sock.sendall(b"exit 1\n")
    first, second = sidecar.wait_events(2, "Drain")
    assert first["pid"] != second["pid"]
    sidecar.process.signal(signal.SIGTERM)
    assert sidecar.process.wait_exit() == 0


def test_what_outlives_the_drain_timeout_is_aborted(start: Any) -> None:
    sidecar = start(drain_timeout="200ms")
    sidecar.answers("/-/healthy", 200)
    sock, _, _ = sidecar.request()
    with sock:
        sidecar.process.signal(signal.SIGTERM)
        with contextlib.suppress(ConnectionResetError):
            assert sock.recv(1) == b""
        assert sidecar.process.wait_exit() == 0
    assert sidecar.events("Abort")


def test_a_second_signal_waits_for_nothing(start: Any) -> None:
    sidecar = start(drain_delay="1h", drain_timeout="1h")
    sidecar.answers("/-/healthy", 200)
    sock, _, _ = sidecar.request()
    with sock:
        sidecar.process.signal(signal.SIGINT)
        sidecar.process.wait_output("draining")
        sidecar.process.signal(signal.SIGINT)
        assert sidecar.process.wait_exit() == 0


def test_a_drain_over_the_health_port_is_waited_for_and_the_process_stays_until_its_signal(start: Any) -> None:
    sidecar = start(drain_delay="100ms")
    sidecar.answers("/-/healthy", 200)
    assert sidecar.get("/-/drain", "POST") == (202, "draining")
    assert sidecar.get("/-/drained") == (200, "drained")
    assert sidecar.get("/-/ready") == (503, "drained")
    assert tcp_accepts(sidecar.web)
    assert sidecar.process.returncode is None
    sidecar.process.signal(signal.SIGTERM)
    assert sidecar.process.wait_exit() == 0


def test_whoever_asks_for_drained_gets_the_answer_before_the_end(start: Any) -> None:
    sidecar = start(drain_delay="300ms")
    sidecar.answers("/-/healthy", 200)
    connection = http.client.HTTPConnection("127.0.0.1", sidecar.health, timeout=20)
    with contextlib.closing(connection):
        connection.request("GET", "/-/drained")
        sidecar.process.signal(signal.SIGTERM)
        assert connection.getresponse().status == 200
    assert sidecar.process.wait_exit() == 0


def test_drained_without_a_drain_says_so_after_a_while(start: Any) -> None:
    sidecar = start(rhythm={"drain_begins_within": 0.1})
    sidecar.answers("/-/healthy", 200)
    assert sidecar.get("/-/drained") == (503, "not draining")


def test_a_child_that_never_starts_ends_everything_with_its_own_words(start: Any) -> None:
    relay = [sys.executable, "-c", "import sys; sys.exit('no such library')"]
    sidecar = start(relay=relay, rhythm={"backoff_first": 0.01})
    assert sidecar.process.wait_exit() == 1
    assert sidecar.process.output.count("no such library") == 5
    assert 'child="relay 0"' in sidecar.process.output
    assert not alive(sidecar.events("born", "observer")[0]["pid"])


def test_a_child_that_never_gets_ready_is_killed_and_counted(start: Any) -> None:
    relay = [sys.executable, "-c", "import signal; signal.pause()"]
    sidecar = start(relay=relay, rhythm={"backoff_first": 0.01, "ready_within": 0.3, "first_starts": 2})
    assert sidecar.process.wait_exit() == 1
    assert sidecar.process.output.count("did not become ready") >= 2


def test_a_command_that_does_not_exist_is_an_error_not_a_loop(start: Any) -> None:
    sidecar = start(relay=["/nowhere/at/all"], rhythm={"backoff_first": 0.01})
    assert sidecar.process.wait_exit() == 1
    assert "No such file" in sidecar.process.output


def test_children_end_at_once_when_the_supervisor_is_killed(start: Any) -> None:
    sidecar = start(workers="2")
    sidecar.wait_events(4, "greeted")
    pids = {event["pid"] for event in sidecar.events("born")}
    assert len(pids) == 3
    sidecar.process.signal(signal.SIGKILL)
    sidecar.process.wait_exit()
    until(lambda: not any(map(alive, pids)) or None, "all children gone", 5)


def test_orphans_are_reaped(start: Any) -> None:
    sidecar = start(subreaper=True)
    sidecar.answers("/-/healthy", 200)
    sock, _, _ = sidecar.request()
    with sock:
        sock.sendall(b"orphan\n")
        (orphan,) = sidecar.wait_events(1, "orphan")
        until(lambda: not exists(orphan["number"]) or None, "the orphan reaped")


def test_the_drain_command_waits_until_the_last_answer_is_finished(start: Any) -> None:
    sidecar = start(drain_delay="100ms")
    sidecar.answers("/-/healthy", 200)
    sock, _, _ = sidecar.request()
    argv = [sys.executable, "-m", "exporter", "drain", "--health.listen-address", f"127.0.0.1:{sidecar.health}"]
    with Process(argv, name="drain") as drain:
        sidecar.wait_events(1, "StopAccepting")
        assert drain.returncode is None
        sock.close()
        assert drain.wait_exit() == 0
    assert sidecar.process.returncode is None


def test_a_signal_while_children_still_start_is_an_end_like_any_other(start: Any) -> None:
    sidecar = start(relay=[sys.executable, "-c", "import signal; signal.pause()"])
    sidecar.process.wait_output("msg=started child=observer")
    sidecar.process.signal(signal.SIGTERM)
    assert sidecar.process.wait_exit() == 0


def test_a_taken_port_is_named(start: Any, tmp_path: Path) -> None:
    first = start()
    first.answers("/-/healthy", 200)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        second = start(listen=f"127.0.0.1:{taken.getsockname()[1]}")
        assert second.process.wait_exit() != 0
        assert f"--listen: cannot listen on 127.0.0.1:{taken.getsockname()[1]}" in second.process.output

"""The first process: it owns sockets and health, keeps relays and the observer alive, and ends them in order.

1. What must outlive a child is here: the listening sockets, the observer's checkpoint, the health port.
2. It never touches a request. No framework, no metrics, no spans, no YAML: it has to be the last thing that breaks.
3. Children are slots; what dies is started again with a growing delay, and both ends get a new channel.
4. An end (SIGTERM, SIGINT, POST /-/drain): not ready, delay, listeners closed, answers finish, the rest is aborted;
   relays go first, the observer last.
"""

from exporter.supervisor.rhythm import Rhythm
from exporter.supervisor.run import run
from exporter.supervisor.sockets import ListenError

__all__ = ["ListenError", "Rhythm", "run"]

"""Decides which label values that clients wrote become labels.

1. A model name is known when the operator or the engine listed it, or when a request for it was answered with a 2xx.
2. A name that is not known, or none at all, is ``unknown``: it was refused, or nobody answered yet.
3. Known names take one of ``limit`` places as they are first used; the operator's have theirs from the start, however
   many they are. A known name without a place is ``other``, and counted as folded.
4. Values of header labels take a place as they come, each label on its own; without one they are ``other``. An absent
   header is ``""`` and takes none.
5. A value is cut after 128 characters, and what cannot be printed in it is written as an escape.
"""

from collections.abc import Iterable
from dataclasses import replace

import msgspec

from exporter import catalog
from exporter.core.tally import Labels, Series, Tally
from exporter.core.timeline import Timeline

UNKNOWN = "unknown"
OTHER = "other"
LONGEST = 128
_KNOWN_LIMIT = 4096  # names that an engine may list; they cost memory, not places
_HEADERS = len(catalog.BASE_LABELS)

# Series that exist only because tokens came, so that the engine took the model's name for one of its own.
_ANSWERED = frozenset(
    (
        catalog.ITL,
        catalog.TTFT,
        catalog.TPOT,
        catalog.DECODE,
        catalog.TOKENS,
        catalog.REQUEST_TOKENS,
        catalog.PREFILL_RATE,
    )
)

State = tuple[list[str], list[str], list[list[str]]]
"""What ``dump`` gives: known models, models with a place, values with a place by header label."""


class Places:
    """The values of one label that have a place, at most ``limit`` beyond those reserved."""

    def __init__(self, label: str, limit: int, reserved: Iterable[str] = ()) -> None:
        """``reserved`` values have a place from the start and count too."""
        self.label = label
        self.taken = dict.fromkeys(reserved)
        self._limit = limit

    def take(self, value: str) -> str | None:
        """The value if it has a place or gets one now, else ``None``."""
        if value not in self.taken:
            if len(self.taken) >= self._limit:
                return None
            self.taken[value] = None
        return value


class Admission:
    """Admitted label values, remembered from the first use on; the same value is written the same way everywhere."""

    def __init__(self, models: tuple[str, ...], headers: tuple[str, ...] = (), limit: int = 64) -> None:
        """``models`` are the operator's; ``headers`` are the names of the header labels, after the base labels."""
        own = [clean(name) for name in models]
        self._known = dict.fromkeys(own)
        self._models = Places(catalog.BASE_LABELS[catalog.MODEL], limit, own)
        self._headers = [Places(label, limit) for label in headers]
        self._folded = Tally()

    def learn(self, names: Iterable[str]) -> None:
        """The engine lists these models (/v1/models)."""
        for name in names:
            if len(self._known) >= _KNOWN_LIMIT:
                return
            self._known[clean(name)] = None

    def timeline(self, timeline: Timeline) -> Timeline:
        """The same request with admitted names; an answer of 2xx makes its model known."""
        identity = timeline.identity
        if identity.model and timeline.status is not None and _is_success(timeline.status):
            self._prove(identity.model)
        model = self._model(identity.model or "")
        labels = self._header_values(identity.labels)
        return replace(timeline, identity=replace(identity, model=model, labels=labels))

    def tally(self, tally: Tally) -> Tally:
        """The same counts with admitted names; series that only an answered request has make its model known."""
        for series in (*tally.counters, *tally.histograms):
            if self._answered(series):
                self._prove(series[1][catalog.MODEL])
        admitted = Tally()
        admitted.merge(tally, self._rename)
        return admitted

    def live(self, labels: Labels) -> Labels:
        """The base labels (and header values) of live requests with admitted names; nothing is counted as folded."""
        before, self._folded = self._folded, Tally()
        try:
            return self._admitted(labels, len(labels))
        finally:
            self._folded = before

    def folded(self) -> Tally:
        """How many values were folded into other since the last call, as counters for the totals."""
        found, self._folded = self._folded, Tally()
        return found

    def dump(self) -> State:
        """What was admitted, as builtins."""
        return list(self._known), list(self._models.taken), [list(places.taken) for places in self._headers]

    def load(self, state: object) -> None:
        """Go on from a dump; ValueError where it is not one."""
        known, models, headers = msgspec.convert(state, State)
        if len(headers) != len(self._headers):
            raise ValueError(f"admission of {len(headers)} header labels, {len(self._headers)} are configured")
        self._known.update(dict.fromkeys(known))
        for places, values in zip((self._models, *self._headers), (models, *headers), strict=True):
            places.taken.update(dict.fromkeys(values))

    def _prove(self, model: str) -> None:
        """Make a name known; only one that can get a place is worth remembering."""
        name = clean(model)
        if name and len(self._known) < _KNOWN_LIMIT:
            self._known[name] = None

    def _model(self, model: str) -> str:
        name = clean(model)
        return self._placed(self._models, name) if name in self._known else UNKNOWN

    def _header_values(self, values: Labels) -> Labels:
        cleaned = [clean(value) for value in values]
        return tuple(
            self._placed(places, value) if value else "" for places, value in zip(self._headers, cleaned, strict=True)
        )

    def _placed(self, places: Places, value: str) -> str:
        taken = places.take(value)
        if taken is None:
            self._folded.inc(catalog.FOLDED, (places.label,))
            return OTHER
        return taken

    def _rename(self, series: Series) -> Series:
        name, labels = series
        if not catalog.BY_NAME[name].base:
            return series
        return name, self._admitted(labels, _HEADERS + len(self._headers))

    def _admitted(self, labels: Labels, base: int) -> Labels:
        """Labels whose first ``base`` values are the base labels and the header values."""
        model = self._model(labels[catalog.MODEL])
        before, after = labels[: catalog.MODEL], labels[catalog.MODEL + 1 : _HEADERS]
        return (*before, model, *after, *self._header_values(labels[_HEADERS:base]), *labels[base:])

    def _answered(self, series: Series) -> bool:
        name, labels = series
        if name == catalog.REQUESTS:
            status = labels[_HEADERS + len(self._headers) + _STATUS]
            return status.isdecimal() and _is_success(int(status))
        return name in _ANSWERED


_STATUS = catalog.BY_NAME[catalog.REQUESTS].labels.index("http_response_status_code")


def clean(value: str) -> str:
    """A value as it may stand in a label: printable and at most 128 characters long."""
    cut = value[: LONGEST + 1]
    if not cut.isprintable():
        cut = "".join(char if char.isprintable() else char.encode("unicode_escape").decode("ascii") for char in cut)
    return cut if len(cut) <= LONGEST else cut[: LONGEST - 1] + "…"


def _is_success(status: int) -> bool:
    return 200 <= status < 300  # noqa: PLR2004 - the successes of RFC 9110

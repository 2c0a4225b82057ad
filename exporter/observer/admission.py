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

import msgspec
from msgspec.structs import replace

from exporter import catalog
from exporter.core.tally import Labels, Series, Tally
from exporter.core.timeline import Timeline

UNKNOWN = "unknown"
OTHER = "other"
LONGEST = 128
_KNOWN_LIMIT = 4096  # names that are remembered as known; they cost memory, not places
_HEADERS = len(catalog.BASE_LABELS)
_STATUS = catalog.BY_NAME[catalog.REQUESTS].labels.index("http_response_status_code")

# Series that exist only because tokens came, so that the engine took the model's name for one of its own.
_OF_TOKENS = frozenset(
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
    """The values of one label that have a place, at most ``limit`` or as many as are reserved."""

    def __init__(self, label: str, limit: int, reserved: Iterable[str] = ()) -> None:
        """``reserved`` values have a place from the start and count too."""
        self.label = label
        self.taken = dict.fromkeys(reserved)
        self._limit = limit

    def take(self, value: str) -> str:
        """The value if it has a place or gets one now, else ``other``."""
        if value not in self.taken:
            if len(self.taken) >= self._limit:
                return OTHER
            self.taken[value] = None
        return value


class Admission:
    """Admitted label values, remembered from the first use on."""

    def __init__(self, models: tuple[str, ...], headers: tuple[str, ...] = (), limit: int = 64) -> None:
        """``models`` are the operator's; ``headers`` are the names of the header labels, after the base labels."""
        self._models = Places(catalog.BASE_LABELS[catalog.MODEL], limit, map(clean, models))
        self._known: dict[str, None] = {}
        self._headers = [Places(label, limit) for label in headers]
        self._base = _HEADERS + len(headers)  # how many values stand before a metric's own labels
        self._folded = Tally()

    def learn(self, names: Iterable[str]) -> None:
        """The engine has models of these names (/v1/models, or an answer)."""
        for name in names:
            if len(self._known) >= _KNOWN_LIMIT:
                return
            self._known[clean(name)] = None

    def timeline(self, timeline: Timeline) -> Timeline:
        """The same request with admitted names; an answer of 2xx makes its model known."""
        identity = timeline.identity
        model = self._model(identity.model or "", answered=_is_success(timeline.status))
        labels = self._header_values(identity.labels)
        self._count_folded((identity.model or "", *identity.labels), (model, *labels), 1)
        return replace(timeline, identity=replace(identity, model=model, labels=labels))

    def tally(self, tally: Tally) -> Tally:
        """The same counts with admitted names; series that only an answered request has make its model known."""
        every = (*tally.counters, *tally.histograms)
        answered = {labels[catalog.MODEL] for name, labels in every if self._answered(name, labels)}
        admitted = Tally()
        admitted.merge(tally, lambda series: self._rename(series, answered))
        for (name, labels), amount in tally.counters.items():
            if name == catalog.REQUESTS:  # of requests that ended without a timeline of their own
                after = self._rename((name, labels), answered)[1]
                self._count_folded(labels[catalog.MODEL : self._base], after[catalog.MODEL : self._base], amount)
        return admitted

    def live(self, labels: Labels) -> Labels:
        """The base labels and header values of live requests with admitted names."""
        return self._admitted(labels, answered=False)

    def folded(self) -> Tally:
        """How many values of ended requests were folded into other since the last call, as counters for the totals."""
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

    def _model(self, model: str, *, answered: bool) -> str:
        if model in self._models.taken:
            return model
        name = clean(model)
        if name and answered:
            self.learn((name,))
        return self._models.take(name) if name and (answered or name in self._known) else UNKNOWN

    def _header_values(self, values: Labels) -> Labels:
        pairs = zip(self._headers, values, strict=True)
        return tuple(places.take(clean(value)) if value else "" for places, value in pairs)

    def _rename(self, series: Series, answered: set[str]) -> Series:
        name, labels = series
        if not catalog.BY_NAME[name].base:
            return series
        return name, self._admitted(labels, answered=labels[catalog.MODEL] in answered)

    def _admitted(self, labels: Labels, *, answered: bool) -> Labels:
        operation, model, provider = labels[:_HEADERS]
        name = self._model(model, answered=answered)
        return (operation, name, provider, *self._header_values(labels[_HEADERS : self._base]), *labels[self._base :])

    def _answered(self, name: str, labels: Labels) -> bool:
        if name == catalog.REQUESTS:
            status = labels[self._base + _STATUS]
            return status.isdecimal() and _is_success(int(status))
        return name in _OF_TOKENS

    def _count_folded(self, before: Labels, after: Labels, amount: float) -> None:
        """Both from the model on; what stands between it and the header values is no client's."""
        skipped = len(after) - len(self._headers)
        clients = (0, *range(skipped, len(after)))
        for places, at in zip((self._models, *self._headers), clients, strict=True):
            if after[at] == OTHER != before[at]:
                self._folded.inc(catalog.FOLDED, (places.label,), amount)


def clean(value: str) -> str:
    """A value as it may stand in a label: printable and at most 128 characters long."""
    cut = value[: LONGEST + 1]
    if not cut.isprintable():
        cut = "".join(char if char.isprintable() else char.encode("unicode_escape").decode("ascii") for char in cut)
    return cut if len(cut) <= LONGEST else cut[: LONGEST - 1] + "…"


def _is_success(status: int | None) -> bool:
    return status is not None and 200 <= status < 300  # noqa: PLR2004 - the successes of RFC 9110

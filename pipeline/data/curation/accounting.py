"""The account of all rows: source by source, for counts.json, removed.jsonl and quarantine.jsonl."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.config.data import CurateConfig
from pipeline.data.accounts import SourceAccount, describe_bad_row
from pipeline.data.curation.filtering import filters_of
from pipeline.data.curation.placement import Fate, LeakRule, Placed
from pipeline.data.curation.plan import TABLES, Source
from pipeline.data.curation.reading import shard_records
from pipeline.data.curation.showing import lengths, licences
from pipeline.data.curation.spill import Spill
from pipeline.data.rows import BadRowError, Reason

Told = Callable[[dict[str, Any]], None]
WHY = {
    Fate.duplicate: "duplicate",
    Fate.near_duplicate: "near_duplicate",
    Fate.bridges_splits: "bridges_splits",
    Fate.leak: "leak",
    Fate.over_cap: "over_cap",
}


class Accounting:
    """Counts and tells what became of every record."""

    def __init__(
        self,
        spill: Spill,
        sources: list[Source],
        config: CurateConfig,
        bad_row: Told,
        removed: Told,
        account: Callable[[SourceAccount], None],
    ) -> None:
        """Open an account for every source."""
        self._spill, self._sources, self._config = spill, sources, config
        self._bad_row, self._removed, self._account = bad_row, removed, account
        self.accounts = [
            SourceAccount(
                source=source.name,
                path=source.config.path,
                table=source.config.table.value,
                protected=source.protected,
            )
            for source in sources
        ]
        self._filtered: Counter[tuple[int, str]] = Counter()  # by place of the filter and reason
        self._passed: Counter[int] = Counter()  # by place of the filter
        self._changed: Counter[int] = Counter()

    def refuse_early(self) -> None:
        """Stop where a source that is read to its end has too many bad rows, before any other work is done.

        Raises:
            DataError: One has.
        """
        for source, account in zip(self._sources, self.accounts, strict=True):
            if source.config.limit is None:
                tried = SourceAccount(source=account.source, path=account.path, table="", protected=False)
                events = []
                for shard in self._shards_of(source):
                    tried.read += self._spill.results[shard].num_records
                    for event in self._spill.events(shard, "bad"):
                        event.pop("ordinal")
                        tried.count_bad_row(event)
                        events.append(event)
                if tried.num_quarantined > self._config.max_quarantined_fraction * tried.read:
                    for event in events:
                        self._bad_row(event)
                tried.refuse_if_bad(self._config.max_quarantined_fraction, "curate.max_quarantined_fraction")

    def tell(self, placed: Placed) -> None:
        """Tell of every row that is set aside or removed, by source and line, and close the accounts.

        Raises:
            DataError: A source has too many bad rows, or rows were lost.
        """
        for source, account in zip(self._sources, self.accounts, strict=True):
            for shard in self._shards_of(source):
                self._tell_shard(source, account, shard, placed)
            account.close()
            self._account(account)
            account.refuse_if_bad(self._config.max_quarantined_fraction, "curate.max_quarantined_fraction")

    def _shards_of(self, source: Source) -> list[int]:
        return [shard.number for shard in self._spill.shards if shard.source.number == source.number]

    def _tell_shard(self, source: Source, account: SourceAccount, shard: int, placed: Placed) -> None:
        """Go through what did not stay of a shard, in the order of its records, and count what did."""
        num_records = self._spill.results[shard].num_records
        account.read += num_records
        cut = placed.cuts.get(source.number)
        if cut is not None and shard >= cut[0]:
            account.over_limit += num_records - (cut[1] + 1 if shard == cut[0] else 0)
        places = [place for place, _ in filters_of(source.config.table, self._config)]
        self._count_kept(shard, account, placed, places)
        raws = self._raws_of_same_ids(shard, placed)
        events = (self._bad(shard), self._dropped(shard), self._left_out(shard, placed))
        for ordinal, kind, event in heapq.merge(*events, key=lambda item: item[0]):
            if not placed.is_looked_at(source.number, shard, ordinal):
                break
            if kind == "row":
                self._tell_row(event, source, account, placed, raws)
            elif kind == "bad":
                event.pop("ordinal")
                account.count_bad_row(event)
                self._bad_row(event)
            else:
                self._tell_filtered(event, source, account, places)

    def _count_kept(self, shard: int, account: SourceAccount, placed: Placed, places: list[int]) -> None:
        """Count the rows that stay, and all that filters let through."""
        rows = self._spill.rows_of(shard)
        fates = np.frombuffer(placed.fate, np.int8)[rows.start : rows.stop]
        account.accepted += int((fates == Fate.kept).sum())
        account.guards += int((fates == Fate.guard).sum())
        changed = self._spill.numbers["changed"][rows.start : rows.stop][fates != Fate.over_limit]
        for place in places:
            self._passed[place] += len(changed)
            self._changed[place] += int((changed >> np.uint64(place) & np.uint64(1)).sum())

    def _bad(self, shard: int) -> Iterator[tuple[int, str, Any]]:
        return ((event["ordinal"], "bad", event) for event in self._spill.events(shard, "bad"))

    def _dropped(self, shard: int) -> Iterator[tuple[int, str, Any]]:
        return ((event["ordinal"], "filtered", event) for event in self._spill.events(shard, "filtered"))

    def _left_out(self, shard: int, placed: Placed) -> Iterator[tuple[int, str, Any]]:
        rows = self._spill.rows_of(shard)
        fates = np.frombuffer(placed.fate, np.int8)[rows.start : rows.stop]
        own = rows.start + np.flatnonzero((fates != Fate.kept) & (fates != Fate.guard))
        ordinals = self._spill.numbers["ordinal"][own]
        return ((ordinal, "row", row) for ordinal, row in zip(ordinals.tolist(), own.tolist(), strict=True))

    def _tell_row(
        self, row: int, source: Source, account: SourceAccount, placed: Placed, raws: dict[int, dict[str, Any]]
    ) -> None:
        fate = Fate(placed.fate[row])
        if fate is Fate.same_id:
            entry = raws[row]
            account.count_bad_row(entry)
            self._bad_row(entry)
            return
        account.duplicates += fate is Fate.duplicate
        account.near_duplicates += fate is Fate.near_duplicate
        account.bridges_splits += fate is Fate.bridges_splits
        account.leaks += fate is Fate.leak
        account.over_cap += fate is Fate.over_cap
        self._removed(self._removal(row, fate, source, placed))

    def _removal(self, row: int, fate: Fate, source: Source, placed: Placed) -> dict[str, Any]:
        entry = {
            "id": self._spill.id_of(row),
            "source": source.name,
            "path": source.config.path,
            "line": int(self._spill.numbers["line"][row]),
            "table": source.config.table.value,
            "why": WHY[fate],
        }
        if placed.of[row] >= 0:
            entry["of"] = self._spill.id_of(placed.of[row])
        if fate is Fate.leak:
            entry["rule"] = LeakRule(placed.rule[row]).name
        if fate is Fate.near_duplicate:
            entry["similarity"] = round(placed.similarity[row], 4)
        return entry

    def _tell_filtered(self, event: dict[str, Any], source: Source, account: SourceAccount, places: list[int]) -> None:
        place = event["filter"]
        name = self._config.filters[place].name
        for other in places[: places.index(place)]:
            self._passed[other] += 1
            self._changed[other] += event["changed"] >> other & 1
        self._filtered[place, event["reason"]] += 1
        account.filtered[name] = account.filtered.get(name, 0) + 1
        self._removed(
            {
                "id": event["id"],
                "source": source.name,
                "path": source.config.path,
                "line": event["line"],
                "table": source.config.table.value,
                "why": "filtered",
                "rule": name,
                "reason": event["reason"],
                "detail": event["detail"],
            }
        )

    def _raws_of_same_ids(self, shard: int, placed: Placed) -> dict[int, dict[str, Any]]:
        """Describe the rows whose id another row has. Their bytes are read again, because few sources have any."""
        rows = self._spill.rows_of(shard)
        own = rows.start + np.flatnonzero(np.frombuffer(placed.fate, np.int8)[rows.start : rows.stop] == Fate.same_id)
        found = dict(zip(self._spill.numbers["ordinal"][own].tolist(), own.tolist(), strict=True))
        if not found:
            return {}
        source = self._spill.shards[shard].source
        described = {}
        for ordinal, record in enumerate(shard_records(self._spill.shards[shard])):
            if (row := found.get(ordinal)) is not None:
                name = self._spill.id_of(row)
                problem = BadRowError(Reason.id, f"the id {name!r} belongs to an earlier row with other content")
                entry = describe_bad_row(source.name, source.config.path, record, problem)
                described[row] = {**entry, "line": int(self._spill.numbers["line"][row])}
        return described

    def counts(self, placed: Placed, times: npt.NDArray[np.int16]) -> dict[str, Any]:
        """Return what counts.json says of rows; all but the tables, which are written first."""
        fates = np.frombuffer(placed.fate, np.int8)
        rules = np.frombuffer(placed.rule, np.int8)
        kept = np.flatnonzero(fates == Fate.kept)
        folds = Counter(np.repeat(np.frombuffer(placed.folds, np.int8)[kept], times[kept]).tolist())
        folds.pop(-1, None)
        return {
            "sources": [account.as_dict() for account in self.accounts],
            "folds": {str(fold): count for fold, count in sorted(folds.items())},
            "filters": [self._filter_counts(place) for place in range(len(self._config.filters))],
            "duplicates": {
                "exact": int((fates == Fate.duplicate).sum()),
                "near": int((fates == Fate.near_duplicate).sum()),
            },
            "leaks": {rule.name: int(((fates == Fate.leak) & (rules == rule)).sum()) for rule in LeakRule},
            "lengths": lengths(self._spill, kept),
            "licences": licences(self._spill, kept, times),
        }

    def _filter_counts(self, place: int) -> dict[str, Any]:
        entry = self._config.filters[place]
        dropped = {reason: count for (other, reason), count in sorted(self._filtered.items()) if other == place}
        return {
            "name": entry.name,
            "tables": [table.value for table in entry.tables or TABLES],
            "kept": self._passed[place],
            "changed": self._changed[place],
            "dropped": dropped,
        }

"""Dagster's SQLite storage, which writes the events of many partitions in one transaction.

Dagster stores two events for each partition of a run, each in two databases that are opened for it,
one event after the other. It can hand them over in batches (`DAGSTER_EVENT_BATCH_SIZE`), but its
own storage takes a batch apart again.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import dagster as dg
from dagster._core.events import ASSET_EVENTS
from dagster._core.storage.event_log.base import EventLogStorage
from dagster._core.storage.event_log.sqlite.sqlite_event_log import SqliteEventLogStorage
from dagster._core.storage.sqlite_storage import DagsterSqliteStorage, _event_logs_directory
from dagster._serdes import ConfigurableClassData


class BatchingEventLog(SqliteEventLogStorage):
    """SQLite event log that writes a batch of a run's asset events with two transactions."""

    def store_event_batch(self, events: Sequence[dg.EventLogEntry]) -> None:
        """Write the events to the database of their run, then to that of all runs.

        The statements are those of `SqliteEventLogStorage.store_event`. If one fails, Dagster
        stores the events one by one.

        Args:
            events: a batch; those of other kinds, as planned checks, are stored one by one.
        """
        together = [event for event in events if _is_asset_event(event)]
        for run_id in {event.run_id for event in together}:
            self._store_together(run_id, [event for event in together if event.run_id == run_id])
        for event in events:
            if not _is_asset_event(event):
                self.store_event(event)

    def _store_together(self, run_id: str, events: Sequence[dg.EventLogEntry]) -> None:
        inserts = [self.prepare_insert_event(event) for event in events]
        with self.run_connection(run_id) as connection:
            for insert in inserts:
                connection.execute(insert)
        with self.index_transaction() as connection:
            ids = [connection.execute(insert).lastrowid for insert in inserts]
            self._store_asset_event_tags(connection, events, ids)
            # An asset's row holds its last event of a kind.
            last = {_kind(event): (event, row) for event, row in zip(events, ids, strict=True)}
            for event, row in last.values():
                self._store_asset_event(connection, event, row)


class BatchingSqliteStorage(DagsterSqliteStorage):
    """Dagster's SQLite storage with a `BatchingEventLog`, in the same files."""

    def __init__(self, base_dir: str, inst_data: ConfigurableClassData | None = None) -> None:
        """Open the databases.

        Args:
            base_dir: folder of the databases.
            inst_data: the configuration that Dagster keeps of this object.
        """
        super().__init__(base_dir, inst_data)
        self._batching = BatchingEventLog(_event_logs_directory(base_dir))

    @classmethod
    def from_config_value(
        cls, inst_data: ConfigurableClassData, config_value: Any
    ) -> BatchingSqliteStorage:
        """Return the storage of a configuration.

        Args:
            inst_data: the configuration that Dagster keeps of this object.
            config_value: `base_dir`.
        """
        return cls.from_local(inst_data=inst_data, **config_value)

    def register_instance(self, instance: dg.DagsterInstance) -> None:
        """Tell the parts which instance they belong to.

        Args:
            instance: Dagster's instance.
        """
        super().register_instance(instance)
        if not self._batching.has_instance:
            self._batching.register_instance(instance)

    @property
    def event_log_storage(self) -> EventLogStorage:
        """The log of events."""
        return self._batching


def _is_asset_event(event: dg.EventLogEntry) -> bool:
    return event.is_dagster_event and event.dagster_event_type in ASSET_EVENTS


def _kind(event: dg.EventLogEntry) -> tuple[dg.AssetKey | None, dg.DagsterEventType | None]:
    return event.get_dagster_event().asset_key, event.dagster_event_type

"""The countdown as a Google Cloud function. A notification is a document that counts how often it was sent, and a line
of the log."""

from __future__ import annotations

import logging
from typing import Any

from app import Notifier, app

import everstep_gcp

settings = everstep_gcp.Settings.read()
log = logging.getLogger("countdown")


class FirestoreNotifier(Notifier):
    """Counts in `notifications/<id of the step>`: 1, or more where a process died before it recorded the step."""

    def __init__(self) -> None:
        self._documents: Any = None

    def send(self, id: str, text: str) -> None:
        from google.cloud import firestore

        if self._documents is None:
            place = everstep_gcp.open_store(settings.store)
            database = place.database.rpartition("/")[2]
            self._documents = firestore.Client(project=place.project, database=database).collection("notifications")
        self._documents.document(id).set({"text": text, "times": firestore.Increment(1)}, merge=True)
        log.info("%s: %s", id, text)


app.provide(FirestoreNotifier())

main = everstep_gcp.handler(app, settings=settings)

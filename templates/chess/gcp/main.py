"""The chess series as a Google Cloud function: each move goes to a Firestore document, and `/board` shows it live."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from app import Picture, Publisher, app

import everstep_gcp

if TYPE_CHECKING:
    from flask import Request, Response

BOARD = "live"
"""The document that the page shows, in the collection `boards`. The rules let everybody read it, and nobody write."""

settings = everstep_gcp.Settings.read()
place = everstep_gcp.open_store(settings.store) if settings.store else None


class FirestorePublisher(Publisher):
    """Puts the latest picture into the document."""

    def __init__(self) -> None:
        self._document: Any = None

    def publish(self, picture: Picture) -> None:
        if self._document is None:
            from google.cloud import firestore

            assert place is not None, "set EVERSTEP_STORE"
            client = firestore.Client(project=place.project, database=place.database.rpartition("/")[2])
            self._document = client.collection("boards").document(BOARD)
        self._document.set(asdict(picture))


app.provide(FirestorePublisher())

function = everstep_gcp.handler(app, settings=settings)


def page() -> str:
    """The page, told where its document is."""
    assert place is not None, "set EVERSTEP_STORE"
    text = (Path(__file__).parent / "board" / "index.html").read_text(encoding="utf-8")
    where = f"https://firestore.googleapis.com/v1/{quote(place.database)}/documents/boards/{BOARD}"
    return text.replace('data-document=""', f"data-document={json.dumps(where)}")


def main(request: Request) -> Response:
    """The page at `/board`, which is for everybody; everything else is the function's."""
    if request.method == "GET" and request.path == "/board":
        from flask import Response

        return Response(page(), mimetype="text/html")
    return function(request)

"""What several tests of data preparation need."""

import threading
import types

import pytest

from data_prep import download
from tests.data_prep.serving import Server


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with Server() as running:
        slept = types.SimpleNamespace(sleep=running.pauses.append)  # and not really
        monkeypatch.setattr(download, "time", slept)
        thread = threading.Thread(target=running.serve_forever, args=(0.01,))
        thread.start()
        yield running
        running.released.set()
        running.shutdown()
        thread.join()

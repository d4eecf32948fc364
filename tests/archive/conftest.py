"""Stores to test with: a folder, memory, and a bucket of an S3 server on loopback."""

import logging
import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest

from explain.archive.store import Store


@pytest.fixture(scope="session")
def bucket() -> Iterator[str]:
    """URL of an empty bucket; the server ends with the tests."""
    boto3, server = pytest.importorskip("boto3"), pytest.importorskip("moto.server")
    logging.getLogger("werkzeug").setLevel("ERROR")
    running = server.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    running.start()
    host, port = running.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        patch.setenv("AWS_ACCESS_KEY_ID", "someone")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        client = boto3.client("s3")
        client.create_bucket(Bucket="maps")
        client.close()
        yield "s3://maps"
    running.stop()


@pytest.fixture(params=["folder", "memory", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    """An empty store of each kind."""
    if request.param == "folder":
        return Store.open(tmp_path / "archive")
    name = secrets.token_hex(8)
    if request.param == "memory":
        return Store.open(f"memory://{name}")
    return Store.open(f"{request.getfixturevalue('bucket')}/{name}")

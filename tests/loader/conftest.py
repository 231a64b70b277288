"""A real S3 server that checks signatures."""

import json
import os
import socket
import subprocess
import time
from collections.abc import Iterator

import pytest
from peers import BIG, HERE, NO_SIGNATURE, PEERS, SERVER, Bucket, free_port


@pytest.fixture(scope="session")
def bucket(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bucket]:
    """Some models, uploaded by AWS's client to a server that wants signatures."""
    folder = tmp_path_factory.mktemp("bucket")
    files = {
        "chat/config.json": b'{"model_type": "small"}',
        "chat/model-00001-of-00002.safetensors": os.urandom(BIG),
        "chat/model-00002-of-00002.safetensors": os.urandom(2 << 20),
        "chat/weights.bin": b"pickle",
        "chat/ü b+c%20.json": b"{}",
        "one.gguf": os.urandom(3 << 20),
    }
    for name, data in files.items():
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(data)
    port = free_port()
    endpoint = f"http://127.0.0.1:{port}"
    server = subprocess.Popen(
        [PEERS, "-c", SERVER, "-H", "127.0.0.1", "-p", str(port)],
        env={**os.environ, "INITIAL_NO_AUTH_ACTION_COUNT": str(NO_SIGNATURE)},
        stderr=subprocess.DEVNULL,
    )
    try:
        _wait(server, port)
        filled = subprocess.run(
            [PEERS, HERE / "bucket.py", endpoint, folder],
            check=True,
            capture_output=True,
            text=True,
            timeout=60,
        )
        key = json.loads(filled.stdout)
        yield Bucket(endpoint, files, key["id"], key["secret"])
    finally:
        server.kill()
        server.wait()


def _wait(server: "subprocess.Popen[bytes]", port: int) -> None:
    deadline = time.monotonic() + 60
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            assert server.poll() is None, "the S3 server ended"
            assert time.monotonic() < deadline, "the S3 server does not start"
            time.sleep(0.1)

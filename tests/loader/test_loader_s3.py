"""Loads from an S3 server that is not ours, filled by AWS's own client, with signatures checked."""

import time
from contextlib import suppress
from pathlib import Path

import pytest
from peers import Bucket, Loader

LARGE = "model-00001-of-00002.safetensors"


def allow(loader: Loader, bucket: Bucket, **other: str) -> None:
    secret = {"hosts": "127.0.0.1", "accessKeyID": bucket.key, "secretAccessKey": bucket.secret}
    for name, value in (secret | other).items():
        (loader.secret / name).write_text(value)


def test_a_prefix(bucket: Bucket, tmp_path: Path) -> None:
    loader = Loader(tmp_path, "s3://models/chat", bucket.endpoint)
    allow(loader, bucket)
    assert loader.run() == 0, loader.said()
    wanted = {n.removeprefix("chat/"): d for n, d in bucket.files.items() if n.startswith("chat/")}
    del wanted["weights.bin"]
    assert loader.loaded() == wanted


def test_one_object(bucket: Bucket, tmp_path: Path) -> None:
    loader = Loader(tmp_path, "s3://models/one.gguf", bucket.endpoint)
    allow(loader, bucket)
    assert loader.run() == 0, loader.said()
    assert loader.loaded() == {"one.gguf": bucket.files["one.gguf"]}


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"secretAccessKey": "wrong-canary-0123456789"}, "ModelForbidden"),
        ({"hosts": "s3.example.com"}, "ModelSecretRefused"),
        ({"secretAccessKey": ""}, "ModelSecretRefused"),
    ],
)
def test_the_wrong_secret(
    bucket: Bucket, tmp_path: Path, change: dict[str, str], fault: str
) -> None:
    loader = Loader(tmp_path, "s3://models/chat", bucket.endpoint)
    allow(loader, bucket, **change)
    assert loader.run() == 6
    assert f"{fault}: " in loader.said()
    secrets = [bucket.secret, bucket.key, *(v for k, v in change.items() if k != "hosts")]
    for secret in secrets:
        for at in range(len(secret) - 7):
            assert secret[at : at + 8] not in loader.said()


def test_no_such_object(bucket: Bucket, tmp_path: Path) -> None:
    loader = Loader(tmp_path, "s3://models/none.gguf", bucket.endpoint)
    allow(loader, bucket)
    assert loader.run() == 3
    assert "ModelNotFound: " in loader.said()


def test_killed_at_half(bucket: Bucket, tmp_path: Path) -> None:
    """Without grace, while the large file arrives; the next load takes the rest of it only."""
    loader = Loader(tmp_path, "s3://models/chat", bucket.endpoint)
    allow(loader, bucket)
    total = sum(len(d) for n, d in bucket.files.items() if n.startswith("chat/"))
    process = loader.start()
    parts = loader.cache / ".key.work" / "parts"
    while process.poll() is None and there(parts) < total // 2:
        time.sleep(0.001)
    process.kill()
    process.wait()
    left = there(parts)
    assert total // 2 <= left < total, loader.said()
    assert not (loader.cache / "key").exists()
    again = Loader(tmp_path, "s3://models/chat", bucket.endpoint)
    assert again.run() == 0, again.said()
    assert again.loaded()[LARGE] == bucket.files[f"chat/{LARGE}"]
    assert [p.name for p in again.cache.iterdir()] == ["key"]


def there(parts: Path) -> int:
    """Bytes of the parts on the disk."""
    total = 0
    for part in parts.glob("*"):
        with suppress(FileNotFoundError):  # a whole part has just been moved
            total += 0 if part.suffix else part.stat().st_size
    return total

"""The hub's API as its own client uses it: the stand-in that our loader is tested against serves
that client too, and both get the same files."""

import os
import subprocess
from pathlib import Path

from peers import PEERS, Loader
from tests.unit.engine.fetch.fetch_site import COMMIT, Served, serving

FILES = {
    "config.json": b'{"model_type": "small"}',
    "model.safetensors": os.urandom(2 << 20),
    "tokenizer/tokenizer.model": os.urandom(3000),
}
CLIENT = """
import sys
from huggingface_hub import HfApi
api = HfApi()
found = api.model_info(sys.argv[1], revision="main", files_metadata=True)
for file in found.siblings:
    api.hf_hub_download(sys.argv[1], file.rfilename, revision=found.sha, local_dir=sys.argv[2])
"""


def test_the_same_files_as_the_hubs_own_client(tmp_path: Path) -> None:
    with serving() as site:
        site.hub("org/repo", FILES)
        for path, file in site.answers.items():
            if isinstance(file, Served):
                file.etag = f'"{hash(path):x}"'
                file.headers = {"X-Repo-Commit": COMMIT}
        theirs = tmp_path / "theirs"
        subprocess.run(
            [PEERS, "-c", CLIENT, "org/repo", theirs],
            env={
                "PATH": os.environ["PATH"],
                "HF_ENDPOINT": site.url(),
                "HF_HOME": str(tmp_path / "home"),
                "HF_HUB_DISABLE_XET": "1",
            },
            check=True,
            timeout=60,
        )
        ours = Loader(tmp_path, "hf://org/repo", site.url())
        assert ours.run() == 0, ours.said()
    for name, data in FILES.items():
        assert (theirs / name).read_bytes() == data
    assert ours.loaded() == FILES

"""Files that break their decoder: a folder for PYTHONPATH that makes `decode_bytes` die, hang or babble on a word."""

import textwrap
from pathlib import Path

_SITE = """
    import os, signal, time
    import explain.data.decode as module

    def poisoned(data, *arguments, decode=module.decode_bytes):
        if b"KILL" in data:
            os.kill(os.getpid(), signal.SIGKILL)
        if b"EXIT" in data:
            os._exit(3)
        if b"HANG" in data:
            while True:
                time.sleep(1)
        if b"NOISE" in data:
            os.write(1, b"a library prints this\\n")
        if b"GREED" in data:
            bytearray(3 * 2**30)
        return decode(data, *arguments)

    module.decode_bytes = poisoned
"""


def poisoned_site(folder: Path) -> Path:
    """The folder, made; every Python that starts with it on PYTHONPATH is poisoned."""
    folder.mkdir(parents=True)
    (folder / "sitecustomize.py").write_text(textwrap.dedent(_SITE))
    return folder

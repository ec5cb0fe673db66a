"""Another process writes dvc.lock while this one reads it."""

import time
from threading import Thread

import pytest
from filelock import FileLock


@pytest.mark.parametrize("read", ["on_disk", "changed", "locked"])
def test_a_half_written_lock_file_is_not_read(toy, read):
    path, bridge, found = toy.root / "dvc.lock", toy.pipeline.bridge, []
    whole = path.read_text()

    def ask():
        try:
            found.append(
                bridge.locked() if read == "locked" else getattr(bridge, read)(["squares"])
            )
        except Exception as error:  # noqa: BLE001  the assertion shows whatever it is
            found.append(error)

    ask()
    with FileLock(toy.root / ".dagster" / "dvc.lock.lock"):
        path.write_text(whole[: whole.index("outs:") + 8])
        reader = Thread(target=ask)
        reader.start()
        time.sleep(0.5)
        path.write_text(whole)
    reader.join()
    assert found[1] == found[0]

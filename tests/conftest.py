"Every test runs on one thread and without a network."
import os, socket

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
os.environ["HF_HUB_OFFLINE"] = "1"

import pytest, torch

torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))


def block_sockets():
    "Connections to anything but this machine raise"
    connect = socket.socket.connect

    def local_only(self, address):
        if self.family != socket.AF_UNIX and address[0] not in ("127.0.0.1", "::1", "localhost"):
            raise OSError(f"a test tried to reach {address}: everything must work offline")
        return connect(self, address)
    socket.socket.connect = local_only


@pytest.fixture(autouse=True, scope="session")
def offline():
    block_sockets()

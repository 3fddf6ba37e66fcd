"""A real Ray cluster of two nodes on this machine, and a connection to it."""

import gc
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest

ray = pytest.importorskip("ray")

from ray.cluster_utils import Cluster  # noqa: E402

NODE = {"num_cpus": 1, "object_store_memory": 100 * 2**20, "include_dashboard": False}


@pytest.fixture(scope="module")
def cluster() -> Iterator["ray.cluster_utils.Cluster"]:
    """Two nodes of one core each; the first one is the head."""
    made = patiently(lambda: Cluster(initialize_head=True, head_node_args=NODE))
    patiently(lambda: made.add_node(**NODE))
    made.wait_for_nodes()
    yield made
    made.shutdown()
    forget()


def patiently(start: Callable[[], Any]) -> Any:
    """Ray gives a node 30 seconds to start, which a machine at its limits does not keep to."""
    for _ in range(3):
        try:
            return start()
        except Exception as err:
            if "timed out during startup" not in str(err):
                raise
        forget()
    pytest.skip("this machine is too busy: in three tries Ray could not start a node")


def forget() -> None:
    """Ray leaves processes that it has killed to be collected, with a warning."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        gc.collect()


@pytest.fixture(scope="module")
def connected(cluster: "ray.cluster_utils.Cluster") -> Iterator[str]:
    """The address of the cluster, connected to for all tests: that takes seconds."""
    from imgcls.scale import connect

    with connect(cluster.address):
        yield cluster.address

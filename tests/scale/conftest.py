"""A real Ray cluster of two nodes on this machine, and a connection to it."""

from collections.abc import Iterator

import pytest

ray = pytest.importorskip("ray")


@pytest.fixture(scope="module")
def cluster() -> Iterator["ray.cluster_utils.Cluster"]:
    """Two nodes of one core each; the first one is the head."""
    from ray.cluster_utils import Cluster

    node = {"num_cpus": 1, "object_store_memory": 100 * 2**20, "include_dashboard": False}
    made = Cluster(initialize_head=True, head_node_args=node)
    made.add_node(**node)
    made.wait_for_nodes()
    yield made
    made.shutdown()


@pytest.fixture(scope="module")
def connected(cluster: "ray.cluster_utils.Cluster") -> Iterator[str]:
    """The address of the cluster, connected to for all tests: that takes seconds."""
    from imgcls.scale import connect

    with connect(cluster.address):
        yield cluster.address

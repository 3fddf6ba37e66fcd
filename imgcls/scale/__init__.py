"""Scale: the work of the local engine on a Ray cluster, with the same results.

    cluster -> chunks -> measuring, predicting, extracting

Ray only maps over chunks: what is done with one is `data.measure`, `offline.predict` or the run of
a graph, as on one machine. Ray is imported when a cluster is asked for; nothing else needs it.
"""

from imgcls.scale.cluster import address_or_default, check_installed, connect
from imgcls.scale.extracting import extract
from imgcls.scale.measuring import RayScanner
from imgcls.scale.predicting import predict

__all__ = ["RayScanner", "address_or_default", "check_installed", "connect", "extract", "predict"]

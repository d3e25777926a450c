"""Replicas of a service behind one name: where they are, who gets the next attempt, and what a failure means."""

from seawall.cluster.balancers import PowerOfTwo, Random, RoundRobin
from seawall.cluster.broadcast import Broadcast
from seawall.cluster.cluster import Cluster
from seawall.cluster.ejection import Ejection
from seawall.cluster.endpoint import Endpoint
from seawall.cluster.failfast import Failfast
from seawall.cluster.failover import Failover
from seawall.cluster.failsafe import Failsafe
from seawall.cluster.failsilent import Failsilent
from seawall.cluster.forking import Forking
from seawall.cluster.sources import Dns, File, Lookup
from seawall.cluster.strategy import LiveStrategy, Strategy

__all__ = [
    "Broadcast",
    "Cluster",
    "Dns",
    "Ejection",
    "Endpoint",
    "Failfast",
    "Failover",
    "Failsafe",
    "Failsilent",
    "File",
    "Forking",
    "LiveStrategy",
    "Lookup",
    "PowerOfTwo",
    "Random",
    "RoundRobin",
    "Strategy",
]

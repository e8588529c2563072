"""Training: one compiled program for many steps, whoever wrote the gradient."""

from jaxbp.train._cluster import join_cluster
from jaxbp.train._fit import Result, fit

__all__ = ["Result", "fit", "join_cluster"]

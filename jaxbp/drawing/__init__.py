"""The graph with a value and a gradient on every wire, and what is read off it."""

from jaxbp.drawing._graph import Graph
from jaxbp.drawing._make import graph
from jaxbp.drawing._marks import Mark
from jaxbp.drawing._paths import Path, Paths

__all__ = ["Graph", "Mark", "Path", "Paths", "graph"]

"""Archives: what do attached archives hold? Kernels without I/O, configuration or trust: octets in, files out."""

from elemta_milter.archives.budget import Bounds, Budget
from elemta_milter.archives.walk import Entry, Walk

__all__ = ["Bounds", "Budget", "Entry", "Walk"]

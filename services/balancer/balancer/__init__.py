"""lb: an HTTP and TCP load balancer for Kubernetes that a Python programmer can read in an afternoon."""

from importlib.metadata import version

__version__ = version("lb-balancer")

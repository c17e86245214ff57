"""The digits of Pi over HTTP: the demonstration workload of lb."""

from importlib.metadata import version

__version__ = version("lb-pi")

"""The digits of Pi over HTTP: the demonstration workload of lb."""

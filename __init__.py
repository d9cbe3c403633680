"""Sitewarden (岗哨): a safety gateway for small plants and the cloud service that collects from it.

The repository root is this package; each folder is one noun of the house (docs/architecture.md).
"""

__version__ = "0.2.0"

"""From sources to tables: read, filtered, freed of duplicates and leaks, given their split, and every row counted."""

from pipeline.data.curation.engine import Curated, Reporting, curate_sources
from pipeline.data.curation.plan import SPLITS, TABLES

__all__ = ["SPLITS", "TABLES", "Curated", "Reporting", "curate_sources"]

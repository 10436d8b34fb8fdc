"""Queries over jobs: filters, pages, titles and groups of failures."""

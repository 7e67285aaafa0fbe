"""The report of a benchmark: one HTML file that needs nothing besides itself."""

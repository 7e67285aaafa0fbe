"""From a benchmark's settings to its stages: cells, keys, selection, costs."""

"""Finished stages by key: on this machine, behind a URL, and what can be asked of them."""

"""What the fast paths gain over the plain ones, on this machine: `python -m pcd.bench`."""

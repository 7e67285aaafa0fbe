"""The `pcd` command's parts: one file for each group of commands, and what a person sees."""

"""Prefect's side: its server, states, slots, deployments, notifications."""

"""What runs when: settings and profiles, plan, stage store, supervisor, tracking, Prefect flows, the `pcd` command."""

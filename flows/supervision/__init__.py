"""Stages as processes: started, followed, stopped, on devices of their own, and none left behind."""

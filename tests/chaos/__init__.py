"""``make chaos``: faults drawn from a seed hit a whole site, and what became of its servers is judged (docs/chaos.md)."""

"""``make bench``: how fast and how frugal, each figure beside its limit in the same run."""

"""The commands of `maand-catalog` besides serving: a cluster's first keys, API tokens, backup, restore and epochs."""

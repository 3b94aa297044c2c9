"""The executor: claims runs from the catalog and carries them out on workers and in hook processes.

lease, service   claim a run, keep its lease, dispatch it by kind, end it
runs/            one module per kind of run
plan, digest, waves, templates, staging, health    what a deploy decides and makes
hooks/           hook processes        ssh/   workers        rpc/   what hooks and operators may ask of this executor
catalog_client/  the only door to the catalog
"""

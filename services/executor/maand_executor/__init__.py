"""The executor: claims runs from the catalog and carries them out on workers and in hook processes.

claims  ->  deploy  ->  runs  ->  steps  ->  hooks  ->  content, output, ssh  ->  catalog_client  ->  rules
rpc: what hooks and operators may ask of this executor
"""

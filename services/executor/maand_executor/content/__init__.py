r"""What is copied, on this executor's disk: stored content by digest, rendered templates, trees for workers and for hooks.

store --content by digest--> trees (what goes to one allocation) --staging--> a directory that rsync reads
                        \--> hook_directories (what one hook process may do with as it likes)
"""

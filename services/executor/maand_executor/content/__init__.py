r"""What is copied, on this executor's disk: stored content by digest, rendered templates, trees for workers and for hooks.

templates --`renderer`: by `render_process`--> rendered files
content_store --content by digest--> allocation_trees (what goes to one allocation) --staged_trees--> a directory that rsync reads
                                                     \--hook_directories--> what one hook process may do with as it likes
"""

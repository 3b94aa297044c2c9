"""What runs, commands and hooks say: masked, put in order, sent to the catalog as events.

events            one function a kind of event
output_source     output of one process, in lines -> journal_entries -> journal (masked by masks, appended in order, once)
"""

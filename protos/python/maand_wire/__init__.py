"""Manners of speech shared by every part of maand: errors on the wire, channels and servers, credentials, logs.

It knows the contracts and gRPC, and nothing of what any service does.
"""

"""Transport code shared by every part of maand: errors on the wire, channels and servers, credentials, conversions, logs.

It knows the contracts and gRPC, and nothing of what any service does.
"""

import os

# gRPC's core writes to standard error on its own ("Got goaway …"); that is data for people only when they ask for it.
os.environ.setdefault("GRPC_VERBOSITY", "ERROR")

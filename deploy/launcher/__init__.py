"""`hermes2`: prepares the model, starts Valkey, Triton and the frontend on this machine, and keeps them alive."""

import os

# Children are started by fork and exec: gRPC's fork handlers have nothing to do there, and would say so each time. gRPC
# reads this when it is imported.
os.environ["GRPC_ENABLE_FORK_SUPPORT"] = "0"

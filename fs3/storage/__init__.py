"""The control half of the storage service, and the tools that look into it.

The data path is native (native/storage). Here: `daemon` registers the server and renews its lease,
`admin` asks a running server, `checker` compares the replicas of every chain.
"""

"""Every bound of fs3, with its unit and its reason. Native mirrors: native/wire/frame.h,
native/craq/replica.h."""

KIB = 1 << 10
MIB = 1 << 20
GIB = 1 << 30

NAME_BYTES_MAX = 255  # POSIX NAME_MAX on Linux
PATH_BYTES_MAX = 4095  # PATH_MAX without the NUL
SYMLINK_BYTES_MAX = 4095
SYMLINKS_FOLLOWED_MAX = 40  # as Linux
DIRECTORY_DEPTH_MAX = 1024  # loop checks on rename walk at most this many parents
GROUPS_MAX = 32  # supplementary groups taken from a caller
LINKS_MAX = 65000  # as ext4

XATTR_NAME_BYTES_MAX = 255  # XATTR_NAME_MAX on Linux
XATTR_VALUE_BYTES_MAX = 64 * KIB  # XATTR_SIZE_MAX on Linux
XATTR_NAMES_BYTES_MAX = 64 * KIB  # of one inode, each with its NUL: what listxattr(2) can return
XATTRS_PER_INODE_MAX = 1024  # a change reads them all in its transaction, and so does a removal
XATTRS_BYTES_MAX = MIB  # names and values of one inode: a tenth of a transaction, as they go in one
ACL_ENTRIES_MAX = 511  # the kernel takes one page of ACL from a FUSE mount: 4 + 8 bytes an entry

CHUNK_BYTES_MIN = 64 * KIB
CHUNK_BYTES_MAX = 64 * MIB
CHUNK_BYTES_DEFAULT = MIB
FILE_BYTES_MAX = 1 << 62  # keeps every offset sum inside a signed 64-bit integer

READDIR_ENTRIES_MAX = 1024  # one page, one transaction
ACCESS_TIMES_MAX = 128  # one call, one transaction, about 5 ms that other requests wait
GC_CHUNKS_PER_STEP = 1024
TREE_WALK_RECORDS_MAX = 1024  # looked at before a recursive remove; requests wait for it, 10 ms
QUOTA_ENTRIES_PER_STEP = 256  # entries that begin to count for a tree in one transaction
TRASH_KEPT_S_MAX = 3650 * 24 * 3600  # ten years: what is kept for ever is not removed
TREE_ENTRIES_PER_STEP = 256  # taken out of a tree in removal in one transaction, 10 ms
KEEPALIVE_INODES_MAX = 65_536

FRAME_BODY_BYTES_MAX = 4 * MIB
FRAME_PAYLOAD_BYTES_MAX = 4 * MIB + 64 * KIB
GRPC_MESSAGE_BYTES_MAX = 4 * MIB

LEASE_S_MIN = 2.0
LEASE_S_MAX = 60.0
LEASE_S_DEFAULT = 4.0  # T: mgmtd acts after T, a server stops serving at 0.8 T
LEASE_SERVER_SHARE = 0.8
HEARTBEAT_S_DEFAULT = 0.5

TRANSACTION_KEYS_MAX = 100_000
TRANSACTION_BYTES_MAX = 10 * MIB  # FoundationDB's bound, kept by every engine
TRANSACTION_RETRIES_MAX = 100
SESSIONS_PER_CLIENT_MAX = 65_536
CAPABILITY_LIFETIME_S = 600

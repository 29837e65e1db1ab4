"""Which layout a new file or directory gets, out of routing, its directory and the request."""

from fs3 import limits
from fs3._proto import common_pb2
from fs3.errors import RetryLater, Status
from fs3.meta.faults import bad_request
from fs3.meta.inode import Layout

# Chains of one file: enough for the bandwidth of a client, few enough to be hit by few failures.
STRIPE_DEFAULT = 16


class LayoutPolicy:
    """Holds the newest routing info. Thread-safe: `set_routing` replaces one reference."""

    def __init__(self, routing: common_pb2.RoutingInfo | None = None) -> None:
        self.routing = common_pb2.RoutingInfo()
        self._tables: dict[int, tuple[int, int]] = {}  # table id -> (newest version, chains)
        self._replication = 1.0
        if routing is not None:
            self.set_routing(routing)

    def set_routing(self, routing: common_pb2.RoutingInfo) -> None:
        if routing.version < self.routing.version:
            return
        tables: dict[int, tuple[int, int]] = {}
        for table in routing.tables:
            if table.version >= tables.get(table.id, (0, 0))[0]:
                tables[table.id] = (table.version, len(table.chains))
        replicas = [len(chain.targets) for chain in routing.chains]
        self._replication = sum(replicas) / len(replicas) if replicas else 1.0
        self._tables = tables
        self.routing = routing

    @property
    def replication(self) -> float:
        """Mean number of copies of a byte."""
        return max(self._replication, 1.0)

    def for_file(self, inherited: Layout, asked: common_pb2.Layout, inode: int) -> Layout:
        """Raises RetryLater before the first routing info came, BadRequest for an impossible
        wish."""
        table = asked.chain_table or inherited.chain_table or min(self._tables, default=0)
        if not self._tables:
            raise RetryLater(
                Status.BUSY, "meta/layout", "no chain table is known yet; the cluster is starting"
            )
        if table not in self._tables:
            raise bad_request("layout", f"layout.chain_table: {table} does not exist")
        version, chains = self._tables[table]
        chunk = self._chunk_size(asked) or inherited.chunk_size or limits.CHUNK_BYTES_DEFAULT
        stripe = min(asked.stripe or inherited.stripe or STRIPE_DEFAULT, chains)
        return Layout(table, version, chunk, stripe, inode)

    def for_directory(self, inherited: Layout, asked: common_pb2.Layout) -> Layout:
        return Layout(
            asked.chain_table or inherited.chain_table,
            0,
            self._chunk_size(asked) or inherited.chunk_size,
            asked.stripe or inherited.stripe,
            0,
        )

    @staticmethod
    def _chunk_size(asked: common_pb2.Layout) -> int:
        size = asked.chunk_size
        fits = limits.CHUNK_BYTES_MIN <= size <= limits.CHUNK_BYTES_MAX
        if size and (not fits or size & (size - 1)):
            raise bad_request(
                "layout",
                f"layout.chunk_size: {size} is no power of two from "
                f"{limits.CHUNK_BYTES_MIN} to {limits.CHUNK_BYTES_MAX}",
            )
        return size

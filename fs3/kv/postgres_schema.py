"""What lies in the database of the `postgres` engine, and how it gets there: the canonical text.

    fs3.store     one row: schema, cluster that owns the database, newest commit version, and what
                  tidying needs (below)
    fs3.pairs     the ordered table. value NULL = cleared at `version`: a tombstone, so that a
                  commit can see that the key it read was cleared after its read version
    fs3.cleared   ranges that a commit cleared or named as write conflict, for the same purpose
    fs3.turn      no rows; its lock is the turn to commit

    fs3.commit(read_version, read: keys, lows, highs, cleared: lows, highs,
               noted: lows, highs, written: keys, values) -> version
                  called while the turn is held: raises FS001 when a key or range that was read has
                  been written after `read_version`, else counts the version up, writes under it,
                  and returns it. Cleared ranges first, then points; noted are those that count as
                  written, the cleared among them

Tidying: a tombstone is needed as long as a transaction may commit that began before it. Once in
TIDY_S `horizon` becomes what the version was at the time before (`mark`), so it lies one to two
periods back; a transaction that began before the horizon is refused as too old, and the commits
that follow remove what lies below, a few rows each. The clock is the database's alone.
"""

import struct
from hashlib import blake2b

SCHEMA = 1
TIDY_S = 60
TIDY_ROWS = 500  # removed by one commit at most

CONFLICT = "FS001"  # SQLSTATE of commit(): read and written since
TOO_OLD = "FS002"  # SQLSTATE of commit(): began before the horizon

# One number for all programs that create or look at the schema at the same time.
CREATION_LOCK = struct.unpack("<q", blake2b(b"fs3 kv schema", digest_size=8).digest())[0]

CREATE = f"""
CREATE SCHEMA fs3;

CREATE TABLE fs3.store (
    one        boolean PRIMARY KEY DEFAULT true CHECK (one),
    schema     integer NOT NULL,
    cluster_id bytea,
    version    bigint NOT NULL DEFAULT 0,
    mark       bigint NOT NULL DEFAULT 0,
    marked_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
    horizon    bigint NOT NULL DEFAULT 0,
    untidy     boolean NOT NULL DEFAULT false
) WITH (fillfactor = 10);  -- changed by every commit: room for its next version on the same page
INSERT INTO fs3.store (schema) VALUES ({SCHEMA});

CREATE TABLE fs3.pairs (
    key     bytea PRIMARY KEY,
    value   bytea,
    version bigint NOT NULL
);
CREATE INDEX tombstones ON fs3.pairs (version) WHERE value IS NULL;

CREATE TABLE fs3.cleared (
    version bigint NOT NULL,
    low     bytea NOT NULL,
    high    bytea NOT NULL
);
CREATE INDEX cleared_version ON fs3.cleared (version);

CREATE TABLE fs3.turn ();

CREATE FUNCTION fs3.commit(
    read_version bigint, keys bytea[], lows bytea[], highs bytea[],
    cleared_lows bytea[], cleared_highs bytea[], noted_lows bytea[], noted_highs bytea[],
    written_keys bytea[], written_values bytea[]
) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    at fs3.store;
    removed integer;
    new_version bigint;
BEGIN
    SELECT * INTO STRICT at FROM fs3.store;
    IF read_version < at.version THEN  -- else nothing was committed since
        IF read_version < at.horizon THEN
            RAISE EXCEPTION 'the transaction is too old' USING ERRCODE = '{TOO_OLD}';
        END IF;
        IF EXISTS (
            SELECT FROM unnest(keys) AS read(key), fs3.pairs AS p
            WHERE p.key = read.key AND p.version > read_version
        ) OR EXISTS (
            SELECT FROM unnest(lows, highs) AS read(low, high), LATERAL (
                SELECT FROM fs3.pairs AS p
                WHERE p.key >= read.low AND p.key < read.high AND p.version > read_version
                LIMIT 1
            ) AS found
        ) OR EXISTS (
            SELECT FROM fs3.cleared AS c, unnest(keys) AS read(key)
            WHERE c.version > read_version AND read.key >= c.low AND read.key < c.high
        ) OR EXISTS (
            SELECT FROM fs3.cleared AS c, unnest(lows, highs) AS read(low, high)
            WHERE c.version > read_version AND c.low < read.high AND read.low < c.high
        ) THEN
            RAISE EXCEPTION 'what was read has been written' USING ERRCODE = '{CONFLICT}';
        END IF;
    END IF;
    IF clock_timestamp() > at.marked_at + interval '{TIDY_S} s' THEN
        UPDATE fs3.store SET version = at.version + 1, horizon = at.mark, mark = at.version,
            marked_at = clock_timestamp(), untidy = true;
    ELSIF at.untidy THEN
        DELETE FROM fs3.cleared WHERE version <= at.horizon;
        DELETE FROM fs3.pairs WHERE key IN (
            SELECT key FROM fs3.pairs WHERE value IS NULL AND version <= at.horizon
            ORDER BY version LIMIT {TIDY_ROWS}
        );
        GET DIAGNOSTICS removed = ROW_COUNT;
        UPDATE fs3.store SET version = at.version + 1, untidy = (removed = {TIDY_ROWS});
    ELSE
        UPDATE fs3.store SET version = at.version + 1;
    END IF;
    new_version := at.version + 1;
    UPDATE fs3.pairs AS p SET value = NULL, version = new_version
        FROM unnest(cleared_lows, cleared_highs) AS w(low, high)
        WHERE p.key >= w.low AND p.key < w.high AND p.value IS NOT NULL;
    INSERT INTO fs3.cleared SELECT new_version, w.low, w.high
        FROM unnest(noted_lows, noted_highs) AS w(low, high);
    INSERT INTO fs3.pairs SELECT w.key, w.value, new_version
        FROM unnest(written_keys, written_values) AS w(key, value)
        ON CONFLICT (key) DO UPDATE SET value = excluded.value, version = excluded.version;
    RETURN new_version;
END $$;
"""

EXISTS = "SELECT to_regclass('fs3.store') IS NOT NULL"
READ_STORE = "SELECT schema, cluster_id FROM fs3.store"
CLAIM = "UPDATE fs3.store SET cluster_id = %b WHERE cluster_id IS NULL"

# ---- one session. The tables have no statistics worth believing (a queue is empty now and a
# million rows long later), and every access has its index: plans that scan or sort are never right.
SESSION = (
    "SET enable_seqscan = off; SET enable_sort = off; SET enable_hashjoin = off;"
    "SET enable_mergejoin = off; SET plan_cache_mode = force_generic_plan; SET jit = off;"
    "SET lock_timeout = '10s'; SET statement_timeout = '30s';"
    "SET idle_in_transaction_session_timeout = '60s'; SET client_min_messages = error"
)

# ---- reading: one snapshot, and the version that names it
BEGIN_READ = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"
READ_VERSION = "SELECT version FROM fs3.store"
GET = "SELECT value FROM fs3.pairs WHERE key = %b"
SCAN = (
    "SELECT key, value FROM fs3.pairs WHERE key >= %b AND key < %b AND value IS NOT NULL"
    " ORDER BY key LIMIT %s"
)
SCAN_REVERSE = SCAN.replace("ORDER BY key", "ORDER BY key DESC")

# ---- committing. LOCK takes no snapshot: the one of the transaction begins after the wait, with
# everything that was committed before. Each of these goes out as one message, which the server
# begins to execute when it has all of it: who stops in the middle of sending holds no lock, and who
# stops afterwards, in a transaction that waits for him, is thrown out soon.
TAKE_TURN = (
    "BEGIN ISOLATION LEVEL SERIALIZABLE;"
    " SET LOCAL idle_in_transaction_session_timeout = '1s';"
    " LOCK TABLE fs3.turn IN EXCLUSIVE MODE"
)
TAKE_TURN_AND_LOOK = f"{TAKE_TURN}; {READ_VERSION}"
WRITE = "SELECT fs3.commit(%s" + ", %s::bytea[]" * 9 + "); COMMIT"
TAKE_TURN_AND_WRITE = f"{TAKE_TURN}; {WRITE}"
TURN_RESULTS = 3  # results before the one that has a row
COMMIT = "COMMIT"
ROLLBACK = "ROLLBACK"

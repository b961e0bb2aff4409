-- Every key begins with tenant and link. Times are microseconds since 1970, ids of transactions and Dataverse rows
-- are 16 bytes, systems are 'finops' or 'dataverse'.

-- The last number given out, by what it numbers: 'outbox', 'failed', 'activity'.
CREATE TABLE sequence (
    tenant TEXT NOT NULL,
    link   TEXT NOT NULL,
    name   TEXT NOT NULL,
    value  INTEGER NOT NULL,
    PRIMARY KEY (tenant, link, name)
) STRICT, WITHOUT ROWID;

-- Work that waits. The payload comes last, so that what stands before it is read without it.
CREATE TABLE outbox (
    tenant             TEXT NOT NULL,
    link               TEXT NOT NULL,
    sequence           INTEGER NOT NULL,
    transaction_id     BLOB NOT NULL,
    source             TEXT NOT NULL,
    atomic             INTEGER NOT NULL,
    rows               INTEGER NOT NULL,
    captured_at        INTEGER NOT NULL,
    retry_of           INTEGER,
    attempt            INTEGER NOT NULL DEFAULT 0,
    not_before         INTEGER NOT NULL DEFAULT 0,
    fault_code         INTEGER,
    fault_message      TEXT,
    fault_column       TEXT,
    fault_foreign_code TEXT,
    payload            BLOB NOT NULL,
    PRIMARY KEY (tenant, link, sequence)
) STRICT;
CREATE INDEX outbox_retry ON outbox (tenant, link, retry_of) WHERE retry_of IS NOT NULL;

-- What was captured, by its name at the source; outlives the delivery, so that a repeated capture is recognised.
CREATE TABLE captured (
    tenant      TEXT NOT NULL,
    link        TEXT NOT NULL,
    system      TEXT NOT NULL,
    token       TEXT NOT NULL,
    sequence    INTEGER NOT NULL,
    captured_at INTEGER NOT NULL,
    PRIMARY KEY (tenant, link, system, token)
) STRICT, WITHOUT ROWID;
CREATE INDEX captured_by_age ON captured (tenant, link, sequence, captured_at);

CREATE TABLE watermark (
    tenant   TEXT NOT NULL,
    link     TEXT NOT NULL,
    feed     TEXT NOT NULL,
    position TEXT NOT NULL,
    PRIMARY KEY (tenant, link, feed)
) STRICT, WITHOUT ROWID;

CREATE TABLE cursor (
    tenant   TEXT NOT NULL,
    link     TEXT NOT NULL,
    job      TEXT NOT NULL,
    position TEXT NOT NULL,
    PRIMARY KEY (tenant, link, job)
) STRICT, WITHOUT ROWID;

-- The pair of rows of one key, as it was left.
CREATE TABLE cross_reference (
    tenant            TEXT NOT NULL,
    link              TEXT NOT NULL,
    map               TEXT NOT NULL,
    key               TEXT NOT NULL,
    dataverse_id      BLOB,
    finops_version    TEXT NOT NULL,
    dataverse_version TEXT NOT NULL,
    finops_hash       BLOB,
    dataverse_hash    BLOB,
    deleted           INTEGER NOT NULL,
    last_transaction  BLOB,
    last_sequence     INTEGER NOT NULL,
    PRIMARY KEY (tenant, link, map, key)
) STRICT, WITHOUT ROWID;
CREATE INDEX cross_reference_by_id ON cross_reference (tenant, link, map, dataverse_id) WHERE dataverse_id IS NOT NULL;

-- The error queue: open records only. `identity` is the row's key, or the payload where no key is known.
CREATE TABLE failed (
    tenant             TEXT NOT NULL,
    link               TEXT NOT NULL,
    id                 INTEGER NOT NULL,
    map                TEXT NOT NULL,
    source             TEXT NOT NULL,
    identity           TEXT NOT NULL,
    key                TEXT NOT NULL,
    row_key            TEXT,
    transaction_id     BLOB NOT NULL,
    fault_code         INTEGER NOT NULL,
    fault_message      TEXT NOT NULL,
    fault_column       TEXT,
    fault_foreign_code TEXT,
    payload_hash       BLOB NOT NULL,
    atomic             INTEGER NOT NULL,
    attempts           INTEGER NOT NULL,
    first_at           INTEGER NOT NULL,
    last_at            INTEGER NOT NULL,
    sequence           INTEGER NOT NULL,
    waiting_for_parent INTEGER NOT NULL,
    PRIMARY KEY (tenant, link, id),
    UNIQUE (tenant, link, map, source, identity)
) STRICT;
CREATE INDEX failed_by_payload ON failed (tenant, link, payload_hash);

-- Captured changes of failed records, once per content: the records of one atomic transaction share theirs.
CREATE TABLE failed_payload (
    tenant  TEXT NOT NULL,
    link    TEXT NOT NULL,
    hash    BLOB NOT NULL,
    payload BLOB NOT NULL,
    PRIMARY KEY (tenant, link, hash)
) STRICT;

CREATE TABLE counts (
    tenant  TEXT NOT NULL,
    link    TEXT NOT NULL,
    map     TEXT NOT NULL,
    source  TEXT NOT NULL,
    rows    INTEGER NOT NULL,
    created INTEGER NOT NULL,
    updated INTEGER NOT NULL,
    deleted INTEGER NOT NULL,
    skipped INTEGER NOT NULL,
    failed  INTEGER NOT NULL,
    echoes  INTEGER NOT NULL,
    PRIMARY KEY (tenant, link, map, source)
) STRICT, WITHOUT ROWID;

CREATE TABLE activity (
    tenant TEXT NOT NULL,
    link   TEXT NOT NULL,
    id     INTEGER NOT NULL,
    at     INTEGER NOT NULL,
    map    TEXT,
    kind   TEXT NOT NULL,
    text   TEXT NOT NULL,
    PRIMARY KEY (tenant, link, id)
) STRICT, WITHOUT ROWID;

CREATE TABLE intent (
    tenant         TEXT NOT NULL,
    link           TEXT NOT NULL,
    transaction_id BLOB NOT NULL,
    side           TEXT NOT NULL,
    state          TEXT NOT NULL,
    epoch          INTEGER NOT NULL,
    request_hash   BLOB NOT NULL,
    deadline       INTEGER NOT NULL,
    PRIMARY KEY (tenant, link, transaction_id, side)
) STRICT, WITHOUT ROWID;

CREATE TABLE plugin_timings (
    tenant  TEXT NOT NULL,
    link    TEXT NOT NULL,
    place   TEXT NOT NULL,
    timings TEXT NOT NULL,
    PRIMARY KEY (tenant, link, place)
) STRICT, WITHOUT ROWID;

-- Whose volume this is, so that a volume attached to the wrong shard is refused. One row.
CREATE TABLE ringwright.shard_identity (
    only_row     boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    cluster_uid  text NOT NULL CHECK (cluster_uid <> ''),
    ordinal      integer NOT NULL CHECK (ordinal BETWEEN 0 AND 65535),
    created_at   timestamptz NOT NULL DEFAULT now()
);

-- Which ranges of the ring this shard owns, gave away or is receiving. The truth that guards the data.
CREATE TABLE ringwright.range_owners (
    range_id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    -- [lo, hi) in ring positions 0 .. 2^32.
    lo                bigint NOT NULL,
    hi                bigint NOT NULL,
    -- How often the range changed hands.
    generation        bigint NOT NULL CHECK (generation > 0),
    state             text NOT NULL CHECK (state IN ('owned', 'frozen', 'moved', 'cleaned', 'importing')),
    move_id           uuid,
    attempt           bigint NOT NULL DEFAULT 0,
    verified_attempt  bigint,
    -- The shard the range goes or went to; of an importing one, the shard it comes from.
    target            integer CHECK (target BETWEEN 0 AND 65535),
    -- That shard's members, host:port, separated by commas.
    target_hosts      text,
    deadline          timestamptz,
    -- The same range in ids, so that the fence compares keys without computing positions.
    lo_id             uuid NOT NULL GENERATED ALWAYS AS (ringwright.lowest_id(lo)) STORED,
    hi_id             uuid NOT NULL GENERATED ALWAYS AS (
        CASE WHEN hi = 4294967296 THEN 'ffffffff-ffff-ffff-ffff-ffffffffffff'::uuid ELSE ringwright.lowest_id(hi) END
    ) STORED,
    CHECK (0 <= lo AND lo < hi AND hi <= 4294967296),
    CHECK (state = 'owned' OR target IS NOT NULL),
    CONSTRAINT range_owners_disjoint EXCLUDE USING gist (int8range(lo, hi) WITH &&)
);
CREATE UNIQUE INDEX range_owners_lo_id ON ringwright.range_owners (lo_id);

-- Marks the log for moves of ranges: the row is replicated, and carries the attempt it was written for.
CREATE TABLE ringwright.moves (
    move_id    uuid PRIMARY KEY,
    source     integer NOT NULL CHECK (source BETWEEN 0 AND 65535),
    target     integer NOT NULL CHECK (target BETWEEN 0 AND 65535),
    lo         bigint NOT NULL,
    hi         bigint NOT NULL,
    attempt    bigint NOT NULL CHECK (attempt > 0),
    marked_at  timestamptz NOT NULL DEFAULT now(),
    CHECK (0 <= lo AND lo < hi AND hi <= 4294967296)
);

-- A process's proof that this master still commits: one row a process, written when it has nothing else to write.
CREATE TABLE ringwright.heartbeat (
    process_id  uuid PRIMARY KEY,
    beats       bigint NOT NULL DEFAULT 1,
    beat_at     timestamptz NOT NULL
);

-- Events not yet confirmed by the broker; a row commits with what it tells of.
CREATE TABLE ringwright.outbox (
    event_id    uuid PRIMARY KEY,
    kind        text NOT NULL CHECK (
        kind IN ('order.created', 'order.processed', 'order.cancelled', 'invoice.generated')),
    sequence    bigint NOT NULL CHECK (sequence > 0),
    user_id     uuid NOT NULL,
    order_id    uuid NOT NULL,
    invoice_id  uuid,
    occurred_at timestamptz NOT NULL,
    -- Until then somebody else publishes it: first its writer, then whoever took it.
    held_until  timestamptz NOT NULL,
    CHECK (ringwright.same_position(event_id, order_id)),
    CHECK ((invoice_id IS NOT NULL) = (kind = 'invoice.generated'))
);
-- A poller takes the longest free; an index in that order, so that a backlog is not sorted at each poll.
CREATE INDEX outbox_held_until ON ringwright.outbox (held_until);
CREATE UNIQUE INDEX outbox_order_sequence ON ringwright.outbox (order_id, sequence);

-- The first answer to a request, kept for its repeats.
CREATE TABLE ringwright.idempotency_keys (
    key_id        uuid PRIMARY KEY,
    request_hash  bytea NOT NULL CHECK (octet_length(request_hash) = 32),
    state         text NOT NULL CHECK (state IN ('running', 'done')),
    -- The id chosen for what a request of several steps creates, before anything else is done.
    resource_id   uuid,
    -- Who works on it, until when; only while it is running.
    lease_holder  uuid,
    lease_until   timestamptz,
    status        integer CHECK (status BETWEEN 100 AND 599),
    location      text,
    etag          text,
    -- Text and not jsonb: a repeat gets the same bytes.
    body          text,
    created_at    timestamptz NOT NULL DEFAULT now(),
    CHECK ((state = 'done') = (status IS NOT NULL AND body IS NOT NULL)),
    CHECK ((state = 'running') = (resource_id IS NOT NULL AND lease_holder IS NOT NULL AND lease_until IS NOT NULL))
);
CREATE INDEX idempotency_keys_created_at ON ringwright.idempotency_keys (created_at);

-- Email addresses and mobile numbers in use, over all shards: the key is the hash of (kind, normalised value), so a
-- second claim conflicts. The address itself is not stored here.
CREATE TABLE ringwright.contact_claims (
    claim_id    uuid PRIMARY KEY,
    kind        text NOT NULL CHECK (kind IN ('email', 'mobile')),
    user_id     uuid NOT NULL,
    -- `pending` until the user who claims it has been written.
    state       text NOT NULL CHECK (state IN ('pending', 'held')),
    -- Which attempt claimed it last: only that one may release it.
    holder      uuid NOT NULL,
    created_at  timestamptz NOT NULL DEFAULT now(),
    updated_at  timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX contact_claims_pending ON ringwright.contact_claims (updated_at) WHERE state = 'pending';

CREATE SEQUENCE ringwright.invoice_number_seq;

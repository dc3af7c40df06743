-- Two schemas: `shop` holds what the shop knows, `ringwright` what the shards need to work.
-- `ringwright` itself is made by the migrator, which keeps its book there.

CREATE SCHEMA shop;

COMMENT ON SCHEMA shop IS 'What the shop knows: users, orders, invoices and what was sent to customers.';
COMMENT ON SCHEMA ringwright IS 'What the shards need to work: who owns which range, outbox, keys, claims.';

-- Nobody may call a function unless it is granted; by default everybody might.
ALTER DEFAULT PRIVILEGES REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC;

GRANT USAGE ON SCHEMA shop, ringwright TO ringwright_app, ringwright_notifier, ringwright_mover, ringwright_monitor;

-- The lowest id of a ring position: `lo_id <= id AND id < hi_id` is the range [lo, hi).
CREATE FUNCTION ringwright.lowest_id(ring_position bigint) RETURNS uuid
    LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
    RETURN rpad(lpad(to_hex(ring_position), 8, '0'), 32, '0')::uuid;

-- Whether two ids begin with the same ring position.
CREATE FUNCTION ringwright.same_position(a uuid, b uuid) RETURNS boolean
    LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
    RETURN substr(uuid_send(a), 1, 4) = substr(uuid_send(b), 1, 4);

GRANT EXECUTE ON FUNCTION ringwright.same_position TO
    ringwright_app, ringwright_notifier, ringwright_mover, ringwright_monitor;

-- What each role may do. The programs reach range_owners, heartbeat and the shard's identity only through these
-- functions, which run with their owner's rights.

-- Where a statement's snapshot stands in the log: evaluated inside the statement, so after its snapshot was taken.
--
-- On the master that is the flushed position: a row is visible only after its commit was flushed. On a replica it is
-- the received position, not the replayed one: a commit becomes visible a moment before the replayed position passes
-- it. The term of a replica is known only while it streams.
CREATE FUNCTION ringwright.here(OUT in_recovery boolean, OUT term bigint, OUT lsn bigint)
    LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    flushed pg_lsn;
BEGIN
    in_recovery := pg_is_in_recovery();
    IF in_recovery THEN
        SELECT w.received_tli, greatest(w.flushed_lsn, pg_last_wal_replay_lsn())
            INTO term, flushed FROM pg_stat_wal_receiver w WHERE w.status = 'streaming';
    ELSE
        flushed := pg_current_wal_flush_lsn();
        term := ('x' || left(pg_walfile_name(flushed), 8))::bit(32)::bigint;
    END IF;
    lsn := (flushed - '0/0'::pg_lsn)::bigint;
END $$;

-- The range of a key as the calling statement's own snapshot sees it; all null when this shard has none.
CREATE FUNCTION ringwright.range_of(key uuid, OUT state text, OUT generation bigint, OUT lo bigint, OUT hi bigint,
                                    OUT target integer, OUT target_hosts text)
    LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    found_hi uuid;
BEGIN
    SELECT r.state, r.generation, r.lo, r.hi, r.target, r.target_hosts, r.hi_id
        INTO state, generation, lo, hi, target, target_hosts, found_hi
        FROM ringwright.range_owners r WHERE r.lo_id <= key ORDER BY r.lo_id DESC LIMIT 1;
    IF found_hi <= key THEN
        state := NULL; generation := NULL; lo := NULL; hi := NULL; target := NULL; target_hosts := NULL;
    END IF;
END $$;

-- What a member is now; the store's monitors sample it. `last_message_ms` is the age of the last message from the
-- master by this member's own clock; `standbys` are the names of the replicas that stream from this master.
CREATE FUNCTION ringwright.sample(OUT in_recovery boolean, OUT term bigint, OUT lsn bigint, OUT streaming boolean,
                                  OUT last_message_ms bigint, OUT standbys text[])
    LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    in_recovery := pg_is_in_recovery();
    IF in_recovery THEN
        lsn := (pg_last_wal_replay_lsn() - '0/0'::pg_lsn)::bigint;
        SELECT w.received_tli, w.status = 'streaming',
               (extract(epoch FROM clock_timestamp() - w.last_msg_receipt_time) * 1000)::bigint
            INTO term, streaming, last_message_ms FROM pg_stat_wal_receiver w;
        streaming := coalesce(streaming, false);
    ELSE
        SELECT h.term, h.lsn INTO term, lsn FROM ringwright.here() h;
        streaming := false;
        SELECT coalesce(array_agg(r.application_name), '{}') INTO standbys
            FROM pg_stat_replication r WHERE r.state = 'streaming';
    END IF;
END $$;

-- Makes the calling transaction one whose commit waits for the standby like any other write's: whoever acts on a row
-- it only read commits this first, in the session that read it.
CREATE FUNCTION ringwright.confirm() RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM pg_logical_emit_message(true, 'ringwright.confirm', '');
END $$;

-- The same for an idle process, with a row that people can look at.
CREATE FUNCTION ringwright.beat(process uuid) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    INSERT INTO ringwright.heartbeat AS h (process_id, beat_at) VALUES (process, clock_timestamp())
        ON CONFLICT (process_id) DO UPDATE SET beats = h.beats + 1, beat_at = excluded.beat_at;
    DELETE FROM ringwright.heartbeat h WHERE h.beat_at < now() - interval '1 day' AND h.process_id <> process;
END $$;

-- `<ordinal>-<count>`: unique over all shards, also after the invoice has moved.
CREATE FUNCTION ringwright.next_invoice_number() RETURNS text
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    shard integer;
BEGIN
    SELECT ordinal INTO STRICT shard FROM ringwright.shard_identity;
    RETURN format('%s-%s', shard, lpad(nextval('ringwright.invoice_number_seq')::text, 8, '0'));
END $$;

REVOKE ALL ON ALL FUNCTIONS IN SCHEMA ringwright FROM PUBLIC;
REVOKE ALL ON ALL PROCEDURES IN SCHEMA ringwright FROM PUBLIC;

GRANT EXECUTE ON FUNCTION ringwright.here, ringwright.range_of, ringwright.sample, ringwright.confirm, ringwright.beat
    TO ringwright_app, ringwright_notifier;
GRANT EXECUTE ON FUNCTION ringwright.next_invoice_number TO ringwright_app;
GRANT EXECUTE ON FUNCTION ringwright.sample, ringwright.here TO ringwright_monitor, ringwright_mover;
GRANT EXECUTE ON FUNCTION ringwright.same_position
    TO ringwright_app, ringwright_notifier, ringwright_mover, ringwright_monitor;

-- Nobody but the owner deletes what the shop knows.
GRANT SELECT, INSERT, UPDATE ON shop.users, shop.orders, shop.invoices TO ringwright_app;
GRANT SELECT ON shop.emails, shop.sms TO ringwright_app;
GRANT SELECT, INSERT, UPDATE, DELETE ON ringwright.outbox, ringwright.idempotency_keys, ringwright.contact_claims
    TO ringwright_app;

GRANT SELECT ON shop.users, shop.orders, shop.invoices TO ringwright_notifier;
GRANT SELECT, INSERT, UPDATE ON shop.emails, shop.sms TO ringwright_notifier;

-- The copy of a move reads as this role on the source. What else moves need comes with them.
GRANT SELECT ON shop.users, shop.orders, shop.invoices, shop.emails, shop.sms, ringwright.outbox,
    ringwright.idempotency_keys, ringwright.contact_claims, ringwright.moves, ringwright.range_owners TO ringwright_mover;

-- Ids and states only, nothing of customers.
GRANT SELECT ON ringwright.range_owners, ringwright.moves, ringwright.heartbeat, ringwright.shard_identity,
    ringwright.schema_migrations TO ringwright_monitor;
GRANT SELECT (event_id, kind, occurred_at, held_until) ON ringwright.outbox TO ringwright_monitor;

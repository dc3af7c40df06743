-- What moves of ranges need: who is being copied to here, what a range's rows are, and what the fence says of a move.
-- The steps themselves are in 0007.
--
-- SQLSTATEs that are new:
--   SR001, SR002  DETAIL tells the move as well: see refuse_write
--   SR007         a step of a move does not fit what the book says

SET LOCAL lock_timeout = '2s';

-- A freeze is over at its deadline, and also when the clock stands before it began: a clock that was set back must not
-- make a pause longer.
ALTER TABLE ringwright.range_owners ADD COLUMN frozen_at timestamptz;

-- A move has a mark for each batch it froze.
ALTER TABLE ringwright.moves DROP CONSTRAINT moves_pkey, ADD PRIMARY KEY (move_id, lo);
CREATE INDEX moves_lo ON ringwright.moves (lo);

-- The moves that bring ranges to this shard, all of a rebalance from its beginning: an operator that starts anew finds
-- the plan here and in the `importing` rows of range_owners.
CREATE TABLE ringwright.copies (
    move_id       uuid PRIMARY KEY,
    source        integer NOT NULL CHECK (source BETWEEN 0 AND 65535),
    -- That shard's members, host:port, separated by commas.
    source_hosts  text NOT NULL,
    -- The source's timeline when its slot was made: a slot does not survive a failover, and a slot of the same name on
    -- another timeline may have missed changes.
    source_term   bigint CHECK (source_term > 0),
    state         text NOT NULL DEFAULT 'waiting' CHECK (state IN ('waiting', 'copying', 'aborting')),
    -- Freezes that ran out, one after the other, since the last batch that was handed over.
    freezes       bigint NOT NULL DEFAULT 0 CHECK (freezes >= 0),
    last_error    text,
    created_at    timestamptz NOT NULL DEFAULT now(),
    updated_at    timestamptz NOT NULL DEFAULT now()
);
GRANT SELECT ON ringwright.copies TO ringwright_monitor;

-- The ring position an id begins with.
CREATE FUNCTION ringwright.position_of(id uuid) RETURNS bigint
    LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
    RETURN ('x' || left(id::text, 8))::bit(32)::bigint;

-- The lowest id behind a range that ends before this position; 2^32 has none, so the highest there is.
CREATE FUNCTION ringwright.end_id(ring_position bigint) RETURNS uuid
    LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
    RETURN CASE WHEN ring_position = 4294967296 THEN 'ffffffff-ffff-ffff-ffff-ffffffffffff'::uuid
                ELSE ringwright.lowest_id(ring_position) END;

-- The name of a move's publication, slot, subscription and, with another beginning, of its cleaner's origin.
CREATE FUNCTION ringwright.replication_name(move_id uuid) RETURNS text
    LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
    RETURN 'ringwright_move_' || replace(move_id::text, '-', '');

-- Whether a freeze is over. One without a deadline was not made by a move and never is.
CREATE FUNCTION ringwright.has_expired(frozen_at timestamptz, deadline timestamptz) RETURNS boolean
    LANGUAGE sql VOLATILE
    RETURN coalesce(clock_timestamp() >= deadline OR clock_timestamp() < frozen_at, false);

-- Every table whose rows move, in an order in which rows can be deleted. The one place that names them: a test compares
-- it with the tables that are guarded.
CREATE FUNCTION ringwright.moved_tables() RETURNS TABLE (relation text, id_column text)
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    AS $$
        VALUES ('shop.emails', 'email_id'), ('shop.sms', 'sms_id'), ('shop.invoices', 'invoice_id'),
               ('shop.orders', 'order_id'), ('shop.users', 'user_id'), ('ringwright.outbox', 'event_id'),
               ('ringwright.idempotency_keys', 'key_id'), ('ringwright.contact_claims', 'claim_id')
    $$;

-- Whether any moved table has a row in [lo, hi).
CREATE FUNCTION ringwright.holds_rows(range_lo bigint, range_hi bigint) RETURNS boolean
    LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    holds boolean;
BEGIN
    EXECUTE (SELECT 'SELECT ' || string_agg(
                 format('EXISTS (SELECT FROM %s WHERE %I >= $1 AND %2$I < $2)', relation, id_column), ' OR ')
             FROM ringwright.moved_tables())
        INTO holds USING ringwright.lowest_id(range_lo), ringwright.end_id(range_hi);
    RETURN holds;
END $$;

-- Rows that lie where the book says there are none; nothing when all is well.
CREATE FUNCTION ringwright.rows_outside() RETURNS TABLE (relation text, rows bigint)
    LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RETURN QUERY EXECUTE (
        SELECT 'WITH held AS (SELECT lo, hi FROM ringwright.range_owners WHERE state <> ''cleaned''
                              UNION ALL SELECT 4294967296, 4294967296),
                     gaps AS (SELECT ringwright.lowest_id(behind) AS first, ringwright.end_id(lo) AS last FROM (
                                  SELECT lo, coalesce(lag(hi) OVER (ORDER BY lo, hi), 0) AS behind FROM held) h
                              WHERE behind < lo),
                     found (relation, rows) AS ('
               || string_agg(format('SELECT %L, count(*) FROM gaps JOIN %s t ON t.%I >= gaps.first AND t.%3$I < gaps.last',
                                    m.relation, m.relation, m.id_column), ' UNION ALL ')
               || ') SELECT relation::text, rows FROM found WHERE rows > 0'
        FROM ringwright.moved_tables() m);
END $$;

-- What a range holds: of each moved table the number of its rows and the sum of their hashes. One statement, so one
-- snapshot; the same on both sides of a move when its rows are.
CREATE FUNCTION ringwright.range_digest(range_lo bigint, range_hi bigint)
    RETURNS TABLE (relation text, rows bigint, hash numeric)
    LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RETURN QUERY EXECUTE (
        SELECT string_agg(format('SELECT %L::text, count(*), coalesce(sum(hash_record_extended(t, 0)), 0)
                                  FROM %s t WHERE t.%I >= $1 AND t.%3$I < $2',
                                 m.relation, m.relation, m.id_column), ' UNION ALL ')
        FROM ringwright.moved_tables() m) USING ringwright.lowest_id(range_lo), ringwright.end_id(range_hi);
END $$;

-- The same row by row, to find out which differ.
CREATE FUNCTION ringwright.row_hashes(range_lo bigint, range_hi bigint)
    RETURNS TABLE (relation text, id uuid, hash bigint)
    LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RETURN QUERY EXECUTE (
        SELECT string_agg(format('SELECT %L::text, t.%I, hash_record_extended(t, 0)
                                  FROM %s t WHERE t.%2$I >= $1 AND t.%2$I < $2',
                                 m.relation, m.id_column, m.relation), ' UNION ALL ')
        FROM ringwright.moved_tables() m) USING ringwright.lowest_id(range_lo), ringwright.end_id(range_hi);
END $$;

-- Where to cut [lo, hi) so that its first part holds at most `max_rows` rows over all moved tables, and is as long as
-- that allows; null when it need not be cut, or cannot because it is one position.
CREATE FUNCTION ringwright.next_cut(range_lo bigint, range_hi bigint, max_rows bigint) RETURNS bigint
    LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    -- The first row that is one too many.
    behind uuid;
    cut bigint;
BEGIN
    EXECUTE (
        SELECT 'SELECT id FROM ('
               || string_agg(format('(SELECT %I AS id FROM %s WHERE %1$I >= $1 AND %1$I < $2 ORDER BY 1 LIMIT $3 + 1)',
                                    id_column, relation), ' UNION ALL ')
               || ') t ORDER BY id OFFSET $3 LIMIT 1'
        FROM ringwright.moved_tables())
        INTO behind USING ringwright.lowest_id(range_lo), ringwright.end_id(range_hi), greatest(max_rows, 1);
    IF behind IS NULL THEN
        RETURN NULL;
    END IF;
    cut := greatest(ringwright.position_of(behind), range_lo + 1);
    RETURN CASE WHEN cut < range_hi THEN cut END;
END $$;

-- A range of the book and the move it is in, for programs that met both ends of it between commit point and activation.
CREATE FUNCTION ringwright.move_of(key uuid, OUT state text, OUT move_id uuid, OUT lo bigint, OUT hi bigint,
                                   OUT attempt bigint, OUT generation bigint, OUT target integer)
    LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    SELECT r.state, r.move_id, r.lo, r.hi, r.attempt, r.generation, r.target
        INTO state, move_id, lo, hi, attempt, generation, target
        FROM ringwright.range_owners r WHERE r.lo_id <= key AND key < r.hi_id ORDER BY r.lo_id DESC LIMIT 1;
END $$;

-- The members that have flushed the log up to here, by the names they stream under.
CREATE FUNCTION ringwright.flushed_by(lsn bigint) RETURNS text[]
    LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT coalesce(array_agg(r.application_name), '{}') FROM pg_stat_replication r
        WHERE r.state = 'streaming' AND r.flush_lsn >= '0/0'::pg_lsn + lsn
$$;

-- Refuses a write by the state of its range, and lets one thing pass: the deletes of what a move left behind. They come
-- from a session with a replication origin, which only a superuser can set up, so that no subscription replicates them.
--
-- DETAIL of SR001: lo, hi, generation, target, host, state, move_id, attempt (all null when the shard has no such range).
-- DETAIL of SR002: lo, hi, move_id, attempt, expired; an expired freeze is thawed by whoever meets it.
CREATE FUNCTION ringwright.refuse_write(key uuid, operation text) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    r ringwright.range_owners;
BEGIN
    SELECT * INTO r FROM ringwright.range_owners WHERE lo_id <= key ORDER BY lo_id DESC LIMIT 1;
    IF r.hi_id <= key THEN
        r := NULL;
    END IF;
    IF r.state = 'moved' AND operation = 'DELETE' AND pg_replication_origin_session_is_setup() THEN
        RETURN;
    END IF;
    IF r.state = 'frozen' THEN
        RAISE EXCEPTION USING ERRCODE = 'SR002',
            MESSAGE = format('the range of position %s is frozen by a move', left(key::text, 8)),
            DETAIL = json_build_object('lo', r.lo, 'hi', r.hi, 'move_id', r.move_id, 'attempt', r.attempt,
                                       'expired', ringwright.has_expired(r.frozen_at, r.deadline))::text,
            HINT = 'Repeat the transaction in 2 to 10 ms.';
    END IF;
    -- moved, cleaned: towards the target; importing: towards the source; no row: towards nobody, never allowed.
    RAISE EXCEPTION USING ERRCODE = 'SR001',
        MESSAGE = format('position %s is not owned here', left(key::text, 8)),
        DETAIL = json_build_object('lo', r.lo, 'hi', r.hi, 'generation', r.generation, 'target', r.target,
                                   'host', r.target_hosts, 'state', r.state, 'move_id', r.move_id,
                                   'attempt', r.attempt)::text,
        HINT = 'Repeat the transaction on the target, or by a newer ring.';
END $$;

-- Puts all guards on one table, or renews them. Of the fence only the slow path differs from what 0004 made, which
-- tells the steps and their order: refuse_write is told the operation.
CREATE OR REPLACE PROCEDURE ringwright.guard_table(guarded regclass, id_column name)
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    table_name name := (SELECT relname FROM pg_class WHERE oid = guarded);
BEGIN
    EXECUTE format($template$
        CREATE OR REPLACE FUNCTION ringwright.fence_%1$s() RETURNS trigger
            LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $fence$
        DECLARE
            key uuid;
            found_id bigint;
            found_hi uuid;
            taken text;
            now_state text;
        BEGIN
            IF current_setting('transaction_isolation') <> 'read committed' THEN
                RAISE EXCEPTION USING ERRCODE = 'SR004',
                    MESSAGE = 'writes need isolation level READ COMMITTED',
                    HINT = 'At other levels the write fence would see the state from before it had its lock.';
            END IF;
            IF TG_OP = 'DELETE' THEN
                key := OLD.%2$I;
            ELSE
                key := NEW.%2$I;
                IF TG_OP = 'UPDATE' AND key <> OLD.%2$I THEN
                    RAISE EXCEPTION USING ERRCODE = 'SR003',
                        MESSAGE = '%2$s cannot change: it says which shard the row lives on';
                END IF;
            END IF;

            LOOP
                SELECT range_id, hi_id INTO found_id, found_hi
                    FROM ringwright.range_owners WHERE lo_id <= key ORDER BY lo_id DESC LIMIT 1;
                IF found_id IS NULL OR found_hi <= key THEN
                    PERFORM ringwright.refuse_write(key, 'none');
                END IF;
                -- An assignment, not PERFORM, which would cost ten times as much.
                taken := pg_advisory_xact_lock_shared(found_id);
                SELECT state INTO now_state
                    FROM ringwright.range_owners WHERE range_id = found_id AND lo_id <= key AND key < hi_id;
                EXIT WHEN FOUND;
            END LOOP;

            IF now_state <> 'owned' THEN
                PERFORM ringwright.refuse_write(key, TG_OP);
            END IF;
            IF TG_OP = 'DELETE' THEN
                RETURN OLD;
            END IF;
            RETURN NEW;
        END $fence$
    $template$, table_name, id_column);

    -- The apply guard: logical replication passes the fence, so a subscription that outlived its move could write into
    -- live data. Apply runs with an empty search_path.
    EXECUTE format($template$
        CREATE OR REPLACE FUNCTION ringwright.apply_guard_%1$s() RETURNS trigger
            LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $guard$
        DECLARE
            key uuid;
            found_hi uuid;
            now_state text;
        BEGIN
            IF TG_OP = 'DELETE' THEN
                key := OLD.%2$I;
            ELSE
                key := NEW.%2$I;
            END IF;
            SELECT hi_id, state INTO found_hi, now_state
                FROM ringwright.range_owners WHERE lo_id <= key ORDER BY lo_id DESC LIMIT 1;
            IF now_state = 'importing' AND key < found_hi THEN
                IF TG_OP = 'DELETE' THEN
                    RETURN OLD;
                END IF;
                RETURN NEW;
            END IF;
            RAISE EXCEPTION USING ERRCODE = 'SR006',
                MESSAGE = format('a replicated %%s of position %%s is refused: its range is not being imported here',
                                 TG_OP, left(key::text, 8)),
                HINT = 'A subscription outlived its move: drop it.';
        END $guard$
    $template$, table_name, id_column);

    EXECUTE format($t$CREATE OR REPLACE TRIGGER ringwright_fence BEFORE INSERT OR UPDATE OR DELETE ON %1$s
                      FOR EACH ROW EXECUTE FUNCTION ringwright.fence_%2$s()$t$, guarded, table_name);
    EXECUTE format($t$CREATE OR REPLACE TRIGGER ringwright_apply_guard BEFORE INSERT OR UPDATE OR DELETE ON %1$s
                      FOR EACH ROW EXECUTE FUNCTION ringwright.apply_guard_%2$s()$t$, guarded, table_name);
    EXECUTE format($t$ALTER TABLE %1$s ENABLE REPLICA TRIGGER ringwright_apply_guard$t$, guarded);
    EXECUTE format($t$CREATE OR REPLACE TRIGGER ringwright_no_truncate BEFORE TRUNCATE ON %1$s
                      FOR EACH STATEMENT EXECUTE FUNCTION ringwright.refuse_truncate()$t$, guarded);
    EXECUTE format($t$ALTER TABLE %1$s ENABLE ALWAYS TRIGGER ringwright_no_truncate$t$, guarded);
END $$;

CALL ringwright.guard_table('shop.users', 'user_id');
CALL ringwright.guard_table('shop.orders', 'order_id');
CALL ringwright.guard_table('shop.invoices', 'invoice_id');
CALL ringwright.guard_table('shop.emails', 'email_id');
CALL ringwright.guard_table('shop.sms', 'sms_id');
CALL ringwright.guard_table('ringwright.outbox', 'event_id');
CALL ringwright.guard_table('ringwright.idempotency_keys', 'key_id');
CALL ringwright.guard_table('ringwright.contact_claims', 'claim_id');

DROP FUNCTION ringwright.refuse_write(uuid);

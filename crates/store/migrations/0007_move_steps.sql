-- The steps of a move, one function each. Source and target of a move each know their own book only; what ties them
-- together is move_id and attempt, which every step carries and compares. A step does what it says or nothing, may be
-- repeated, and may be called by two operators at once.
--
-- All that decides is read under the range's exclusive lock, in a statement after the one that took it, for the reason
-- the write fence gives; so all of them need READ COMMITTED. Where a function answers true because it had been done
-- before, it writes a message to the log: its caller then has a commit of its own to wait for, and a state that was
-- only read is as durable as one that was written.

-- Refuses the isolation levels at which a state from before the lock would be read.
CREATE FUNCTION ringwright.need_read_committed() RETURNS void
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF current_setting('transaction_isolation') <> 'read committed' THEN
        RAISE EXCEPTION USING ERRCODE = 'SR004',
            MESSAGE = 'the steps of a move need isolation level READ COMMITTED',
            HINT = 'At other levels they would see the state from before they had their lock.';
    END IF;
END $$;

-- Takes the exclusive lock of the range that is exactly [lo, hi) and gives its row as it is then; nulls if there is
-- none. Waits for every transaction that wrote in the range.
CREATE FUNCTION ringwright.lock_range(range_lo bigint, range_hi bigint) RETURNS ringwright.range_owners
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    found_id bigint;
    r ringwright.range_owners;
    taken text;
BEGIN
    PERFORM ringwright.need_read_committed();
    LOOP
        SELECT o.range_id INTO found_id FROM ringwright.range_owners o
            WHERE o.lo_id = ringwright.lowest_id(range_lo) AND o.hi = range_hi;
        IF found_id IS NULL THEN
            RETURN NULL;
        END IF;
        taken := pg_advisory_xact_lock(found_id);
        SELECT * INTO r FROM ringwright.range_owners o
            WHERE o.range_id = found_id AND o.lo = range_lo AND o.hi = range_hi;
        -- Split or merged meanwhile: look again.
        EXIT WHEN FOUND;
    END LOOP;
    RETURN r;
END $$;

-- The same for every range that overlaps [lo, hi), in order.
CREATE FUNCTION ringwright.lock_overlapping(range_lo bigint, range_hi bigint) RETURNS SETOF ringwright.range_owners
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    ids bigint[];
    again bigint[];
    id bigint;
    taken text;
BEGIN
    PERFORM ringwright.need_read_committed();
    LOOP
        ids := ARRAY(SELECT o.range_id FROM ringwright.range_owners o
                     WHERE o.lo < range_hi AND o.hi > range_lo ORDER BY o.lo);
        FOREACH id IN ARRAY ids LOOP
            taken := pg_advisory_xact_lock(id);
        END LOOP;
        again := ARRAY(SELECT o.range_id FROM ringwright.range_owners o
                       WHERE o.lo < range_hi AND o.hi > range_lo ORDER BY o.lo);
        EXIT WHEN again = ids;
    END LOOP;
    RETURN QUERY SELECT * FROM ringwright.range_owners o WHERE o.range_id = ANY(ids) ORDER BY o.lo;
END $$;

-- Writes a range like `r`, with an id of its own, for other bounds; nothing where they are empty.
CREATE FUNCTION ringwright.put_range(r ringwright.range_owners, range_lo bigint, range_hi bigint) RETURNS void
    LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    INSERT INTO ringwright.range_owners
            (lo, hi, generation, state, move_id, attempt, verified_attempt, target, target_hosts, deadline, frozen_at)
        SELECT range_lo, range_hi, r.generation, r.state, r.move_id, r.attempt, r.verified_attempt, r.target,
               r.target_hosts, r.deadline, r.frozen_at
        WHERE range_lo < range_hi
$$;

-- Cuts [lo, hi) in two; true when there is a boundary at `cut` afterwards. Only what nobody is handing over is cut: source
-- and target tell each other of a batch by its bounds, so a batch with other bounds on one side could never be activated.
--
-- The parent's lock is what a writer that found the parent waits for: with the children's alone, the two would not see
-- each other. 30 ms, because every writer that comes later waits behind.
CREATE FUNCTION ringwright.split_range(range_lo bigint, range_hi bigint, cut bigint) RETURNS boolean
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '30ms' AS $$
DECLARE
    r ringwright.range_owners;
BEGIN
    r := ringwright.lock_range(range_lo, range_hi);
    IF r.range_id IS NULL THEN
        RETURN EXISTS (SELECT FROM ringwright.range_owners o WHERE o.lo = range_lo AND o.hi <= cut)
           AND EXISTS (SELECT FROM ringwright.range_owners o WHERE o.lo = cut);
    END IF;
    IF r.state NOT IN ('owned', 'cleaned') OR NOT (range_lo < cut AND cut < range_hi) THEN
        RETURN false;
    END IF;
    DELETE FROM ringwright.range_owners o WHERE o.range_id = r.range_id;
    PERFORM ringwright.put_range(r, range_lo, cut);
    PERFORM ringwright.put_range(r, cut, range_hi);
    RETURN true;
END $$;

-- Makes one row of neighbours that say the same; answers by how many rows the book became shorter, zero when there is
-- nothing to merge. One run of at most 64 neighbours a call, so that their writers wait for a moment only.
CREATE FUNCTION ringwright.merge_ranges() RETURNS integer
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '30ms' AS $$
DECLARE
    ids bigint[];
    id bigint;
    taken text;
    r ringwright.range_owners;
    merged_hi bigint;
BEGIN
    PERFORM ringwright.need_read_committed();
    LOOP
        SELECT run.ids INTO ids FROM (
            SELECT array_agg(counted.range_id ORDER BY counted.lo) AS ids FROM (
                SELECT book.range_id, book.lo, count(*) FILTER (WHERE NOT book.joins) OVER (ORDER BY book.lo) AS run
                FROM (SELECT o.range_id, o.lo,
                             coalesce(o.state IN ('owned', 'cleaned') AND o.lo = lag(o.hi) OVER w
                                      AND (o.state, o.generation) = (lag(o.state) OVER w, lag(o.generation) OVER w)
                                      AND (o.state = 'owned' OR o.target = lag(o.target) OVER w), false) AS joins
                      FROM ringwright.range_owners o WINDOW w AS (ORDER BY o.lo)) book) counted
            GROUP BY counted.run HAVING count(*) > 1 ORDER BY min(counted.lo) LIMIT 1) run;
        IF ids IS NULL THEN
            RETURN 0;
        END IF;
        ids := ids[:64];
        FOREACH id IN ARRAY ids LOOP
            taken := pg_advisory_xact_lock(id);
        END LOOP;
        -- Again, now that nobody else can change them.
        SELECT * INTO r FROM ringwright.range_owners o WHERE o.range_id = ids[1];
        SELECT max(o.hi) INTO merged_hi FROM ringwright.range_owners o
            WHERE o.range_id = ANY(ids)
            HAVING count(*) = cardinality(ids) AND sum(o.hi - o.lo) = max(o.hi) - min(o.lo)
               AND bool_and((o.state, o.generation) = (r.state, r.generation)
                            AND o.state IN ('owned', 'cleaned')
                            AND (o.state = 'owned' OR o.target = r.target));
        EXIT WHEN merged_hi IS NOT NULL;
    END LOOP;
    -- No attempt is ever used again, so the highest counts for all.
    SELECT max(o.attempt) INTO r.attempt FROM ringwright.range_owners o WHERE o.range_id = ANY(ids);
    r.move_id := NULL;
    r.verified_attempt := NULL;
    DELETE FROM ringwright.range_owners o WHERE o.range_id = ANY(ids);
    PERFORM ringwright.put_range(r, r.lo, merged_hi);
    RETURN cardinality(ids) - 1;
END $$;

-- Begins a move's copy: all its ranges become `importing`, or none. A move that is known here already stays as it is.
--
-- Only where the range is empty: a row that was there before would look like one that was copied.
CREATE FUNCTION ringwright.begin_import(import_move_id uuid, import_source integer, import_source_hosts text,
                                        los bigint[], his bigint[], generations bigint[], attempts bigint[]) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '1s' AS $$
DECLARE
    r ringwright.range_owners;
BEGIN
    PERFORM ringwright.need_read_committed();
    INSERT INTO ringwright.copies (move_id, source, source_hosts)
        VALUES (import_move_id, import_source, import_source_hosts) ON CONFLICT (move_id) DO NOTHING;
    IF NOT FOUND THEN
        RETURN;
    END IF;
    FOR i IN 1 .. cardinality(los) LOOP
        FOR r IN SELECT * FROM ringwright.lock_overlapping(los[i], his[i]) LOOP
            -- An older generation than the one that was given away is not a plan but a memory.
            IF r.state <> 'cleaned' OR r.generation > generations[i] THEN
                RAISE EXCEPTION USING ERRCODE = 'SR007',
                    MESSAGE = format('cannot import [%s, %s) of generation %s: [%s, %s) is %s here, of generation %s',
                                     los[i], his[i], generations[i], r.lo, r.hi, r.state, r.generation),
                    HINT = 'Look at the books of all shards again.';
            END IF;
            DELETE FROM ringwright.range_owners o WHERE o.range_id = r.range_id;
            PERFORM ringwright.put_range(r, r.lo, los[i]);
            PERFORM ringwright.put_range(r, his[i], r.hi);
        END LOOP;
        IF ringwright.holds_rows(los[i], his[i]) THEN
            RAISE EXCEPTION USING ERRCODE = 'SR007',
                MESSAGE = format('cannot import [%s, %s): there are rows of it here', los[i], his[i]),
                HINT = 'They are of no owner: rows_outside() counts them. Find out where they came from.';
        END IF;
        INSERT INTO ringwright.range_owners (lo, hi, generation, state, move_id, attempt, target, target_hosts)
            VALUES (los[i], his[i], generations[i], 'importing', import_move_id, attempts[i], import_source,
                    import_source_hosts);
    END LOOP;
END $$;

-- Freezes exactly [lo, hi) for `pause_ms` and marks the log. After it nothing is written there until it thaws, and who
-- reads the marker has read every write before it.
--
-- 30 ms, because every writer that comes later waits behind. Without its publication the move has been given up, and its
-- marker would reach nobody.
CREATE FUNCTION ringwright.freeze(freeze_move_id uuid, range_lo bigint, range_hi bigint, freeze_target integer,
                                  freeze_target_hosts text, pause_ms bigint,
                                  OUT attempt bigint, OUT generation bigint, OUT deadline timestamptz)
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '30ms' AS $$
DECLARE
    r ringwright.range_owners;
    began timestamptz;
    next_attempt bigint;
    until timestamptz;
BEGIN
    IF pause_ms IS NULL OR pause_ms NOT BETWEEN 1 AND 60000 THEN
        RAISE EXCEPTION USING ERRCODE = '22023', MESSAGE = format('a pause of %s ms is not between 1 and 60000', pause_ms);
    END IF;
    r := ringwright.lock_range(range_lo, range_hi);
    IF r.state IS NULL OR NOT (r.state = 'owned' OR r.state = 'frozen' AND r.move_id = freeze_move_id) THEN
        RAISE EXCEPTION USING ERRCODE = 'SR007',
            MESSAGE = format('cannot freeze [%s, %s): %s', range_lo, range_hi,
                             coalesce('it is ' || r.state || ' by move ' || coalesce(r.move_id::text, 'none'),
                                      'it is no range of the book')),
            HINT = 'Look at the book again.';
    END IF;
    IF NOT EXISTS (SELECT FROM pg_publication p WHERE p.pubname = ringwright.replication_name(freeze_move_id)) THEN
        RAISE EXCEPTION USING ERRCODE = 'SR007',
            MESSAGE = format('cannot freeze [%s, %s): move %s has no publication', range_lo, range_hi, freeze_move_id),
            HINT = 'The move was given up; look at the books of all shards again.';
    END IF;
    began := clock_timestamp();
    next_attempt := r.attempt + 1;
    until := began + pause_ms * interval '1 ms';
    UPDATE ringwright.range_owners o
        SET state = 'frozen', move_id = freeze_move_id, attempt = next_attempt, verified_attempt = NULL,
            target = freeze_target, target_hosts = freeze_target_hosts, deadline = until, frozen_at = began
        WHERE o.range_id = r.range_id;
    INSERT INTO ringwright.moves AS m (move_id, source, target, lo, hi, attempt, marked_at)
        SELECT freeze_move_id, i.ordinal, freeze_target, range_lo, range_hi, next_attempt, began
            FROM ringwright.shard_identity i
        ON CONFLICT (move_id, lo) DO UPDATE
            SET hi = excluded.hi, attempt = excluded.attempt, marked_at = excluded.marked_at;
    IF NOT FOUND THEN
        RAISE EXCEPTION USING ERRCODE = 'SR007', MESSAGE = 'this shard has no identity, so a move cannot be marked';
    END IF;
    attempt := next_attempt;
    generation := r.generation;
    deadline := until;
END $$;

-- Ends a freeze that was not committed. By move and attempt: a later freeze is somebody else's.
CREATE FUNCTION ringwright.thaw_now(range_lo bigint, range_hi bigint, thaw_move_id uuid, thaw_attempt bigint)
    RETURNS boolean
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '1s' AS $$
DECLARE
    r ringwright.range_owners;
BEGIN
    r := ringwright.lock_range(range_lo, range_hi);
    UPDATE ringwright.range_owners o
        SET state = 'owned', move_id = NULL, target = NULL, target_hosts = NULL, deadline = NULL, frozen_at = NULL
        WHERE o.range_id = r.range_id AND o.state = 'frozen' AND o.move_id = thaw_move_id AND o.attempt = thaw_attempt;
    RETURN FOUND;
END $$;

-- The same for anybody who meets a freeze that is over: an operator that died pauses a range for one deadline.
CREATE FUNCTION ringwright.thaw(range_lo bigint, range_hi bigint, thaw_move_id uuid, thaw_attempt bigint)
    RETURNS boolean
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '1s' AS $$
DECLARE
    expired CONSTANT text := 'SELECT FROM ringwright.range_owners o
        WHERE o.lo_id = ringwright.lowest_id($1) AND o.hi = $2 AND o.state = ''frozen'' AND o.move_id = $3
              AND o.attempt = $4 AND ringwright.has_expired(o.frozen_at, o.deadline)';
    over boolean;
BEGIN
    -- First without the lock: many programs meet the same freeze, and each exclusive lock makes the writers wait.
    EXECUTE 'SELECT EXISTS (' || expired || ')' INTO over USING range_lo, range_hi, thaw_move_id, thaw_attempt;
    IF NOT over THEN
        RETURN false;
    END IF;
    PERFORM ringwright.lock_range(range_lo, range_hi);
    EXECUTE 'SELECT EXISTS (' || expired || ')' INTO over USING range_lo, range_hi, thaw_move_id, thaw_attempt;
    RETURN over AND ringwright.thaw_now(range_lo, range_hi, thaw_move_id, thaw_attempt);
END $$;

-- Records at the target that [lo, hi) is equal to the source as it was frozen at `verified`. Cuts or joins what is being
-- imported there so that exactly [lo, hi) says so. Never takes back a later attempt's verification.
CREATE FUNCTION ringwright.mark_verified(verify_move_id uuid, range_lo bigint, range_hi bigint, verified bigint)
    RETURNS boolean
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '1s' AS $$
DECLARE
    r ringwright.range_owners;
    all_of_it ringwright.range_owners[] := '{}';
    reached bigint := range_lo;
BEGIN
    FOR r IN SELECT * FROM ringwright.lock_overlapping(range_lo, range_hi) LOOP
        IF r.state <> 'importing' OR r.move_id IS DISTINCT FROM verify_move_id OR r.lo > reached
           OR coalesce(r.verified_attempt, 0) > verified THEN
            RETURN false;
        END IF;
        IF cardinality(all_of_it) > 0 AND r.generation <> all_of_it[1].generation THEN
            RETURN false;
        END IF;
        reached := r.hi;
        all_of_it := all_of_it || r;
    END LOOP;
    IF reached < range_hi THEN
        RETURN false;
    END IF;
    IF cardinality(all_of_it) = 1 AND r.lo = range_lo AND r.hi = range_hi THEN
        UPDATE ringwright.range_owners o SET verified_attempt = verified WHERE o.range_id = r.range_id;
        RETURN true;
    END IF;
    DELETE FROM ringwright.range_owners o WHERE o.range_id IN (SELECT a.range_id FROM unnest(all_of_it) a);
    r := all_of_it[1];
    PERFORM ringwright.put_range(r, r.lo, range_lo);
    r := all_of_it[cardinality(all_of_it)];
    PERFORM ringwright.put_range(r, range_hi, r.hi);
    SELECT max(a.attempt) INTO r.attempt FROM unnest(all_of_it) a;
    r.verified_attempt := verified;
    PERFORM ringwright.put_range(r, range_lo, range_hi);
    RETURN true;
END $$;

-- The commit point: from here on the target owns [lo, hi). Only as the freeze of this attempt left it; another
-- operator's attempt may have been verified against other rows. No clock is asked: whoever thawed it has ended it.
CREATE FUNCTION ringwright.commit_move(commit_move_id uuid, range_lo bigint, range_hi bigint, commit_attempt bigint)
    RETURNS boolean
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '1s' AS $$
DECLARE
    r ringwright.range_owners;
BEGIN
    r := ringwright.lock_range(range_lo, range_hi);
    UPDATE ringwright.range_owners o SET state = 'moved', deadline = NULL, frozen_at = NULL
        WHERE o.range_id = r.range_id AND o.state = 'frozen' AND o.move_id = commit_move_id AND o.attempt = commit_attempt;
    IF FOUND THEN
        RETURN true;
    END IF;
    IF r.state IN ('moved', 'cleaned') AND r.move_id = commit_move_id AND r.attempt = commit_attempt THEN
        PERFORM ringwright.confirm();
        RETURN true;
    END IF;
    RETURN false;
END $$;

-- Makes the target the owner in its own book. `activate_attempt` and `source_generation` are what the source's `moved`
-- row says, never a number that somebody remembers.
CREATE FUNCTION ringwright.activate(activate_move_id uuid, range_lo bigint, range_hi bigint, activate_attempt bigint,
                                    source_generation bigint) RETURNS boolean
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '1s' AS $$
DECLARE
    r ringwright.range_owners;
    later bigint;
BEGIN
    r := ringwright.lock_range(range_lo, range_hi);
    UPDATE ringwright.range_owners o
        SET state = 'owned', generation = source_generation + 1, attempt = o.verified_attempt, verified_attempt = NULL,
            move_id = NULL, target = NULL, target_hosts = NULL
        WHERE o.range_id = r.range_id AND o.state = 'importing' AND o.move_id = activate_move_id
              AND o.verified_attempt = activate_attempt;
    IF FOUND THEN
        RETURN true;
    END IF;
    -- Done before, and perhaps split, merged or given away since: a higher generation only comes after this one.
    SELECT sum(least(o.hi, range_hi) - greatest(o.lo, range_lo)) INTO later FROM ringwright.range_owners o
        WHERE o.lo < range_hi AND o.hi > range_lo AND o.generation > source_generation;
    IF later = range_hi - range_lo THEN
        PERFORM ringwright.confirm();
        RETURN true;
    END IF;
    RETURN false;
END $$;

-- Gives up an import: [lo, hi) is the source's for good, and a verification that comes late finds nothing to verify.
-- `verified` is what the caller read here before it asked the source, whose attempt (as it owned the range) was
-- `source_attempt`: with a higher one verified, the source could still commit.
CREATE FUNCTION ringwright.leave_import(leave_move_id uuid, range_lo bigint, range_hi bigint, verified bigint,
                                        source_attempt bigint) RETURNS boolean
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '1s' AS $$
DECLARE
    r ringwright.range_owners;
BEGIN
    r := ringwright.lock_range(range_lo, range_hi);
    UPDATE ringwright.range_owners o SET state = 'moved', verified_attempt = NULL
        WHERE o.range_id = r.range_id AND o.state = 'importing' AND o.move_id = leave_move_id
              AND o.verified_attempt IS NOT DISTINCT FROM verified AND coalesce(verified, 0) <= source_attempt;
    IF FOUND THEN
        RETURN true;
    END IF;
    IF r.state IN ('moved', 'cleaned') AND r.move_id = leave_move_id THEN
        PERFORM ringwright.confirm();
        RETURN true;
    END IF;
    RETURN false;
END $$;

-- Deletes up to `max_rows` rows of a range that is `moved` by this move, and tells how many it deleted; zero when none
-- is left. At the source after a move, at the target after an abort.
--
-- The session needs a replication origin: the fence lets only such a session delete here, and no subscription of ours
-- replicates what it does. Slot and subscription must be gone as well: either alone would do.
CREATE FUNCTION ringwright.clean_rows(clean_move_id uuid, range_lo bigint, range_hi bigint, max_rows bigint)
    RETURNS bigint
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '1s' AS $$
DECLARE
    r ringwright.range_owners;
    t record;
    deleted bigint;
    total bigint := 0;
BEGIN
    IF NOT pg_replication_origin_session_is_setup() THEN
        RAISE EXCEPTION USING ERRCODE = 'SR007', MESSAGE = 'cannot clean without a replication origin',
            HINT = 'Its deletes would be replicated: set up an origin in this session first.';
    END IF;
    r := ringwright.lock_range(range_lo, range_hi);
    IF r.state IS DISTINCT FROM 'moved' OR r.move_id IS DISTINCT FROM clean_move_id THEN
        RAISE EXCEPTION USING ERRCODE = 'SR007',
            MESSAGE = format('cannot clean [%s, %s) after move %s: %s', range_lo, range_hi, clean_move_id,
                             coalesce('it is ' || r.state || ' by move ' || coalesce(r.move_id::text, 'none'),
                                      'it is no range of the book')),
            HINT = 'Look at the book again.';
    END IF;
    IF EXISTS (SELECT FROM pg_replication_slots s
               WHERE s.slot_name = ringwright.replication_name(clean_move_id) AND s.database = current_database())
       OR EXISTS (SELECT FROM pg_subscription s JOIN pg_database d ON d.oid = s.subdbid
                  WHERE s.subname = ringwright.replication_name(clean_move_id) AND d.datname = current_database()) THEN
        RAISE EXCEPTION USING ERRCODE = 'SR007',
            MESSAGE = format('cannot clean [%s, %s): move %s is still being replicated', range_lo, range_hi, clean_move_id),
            HINT = 'Drop its subscription and its slot first.';
    END IF;
    FOR t IN SELECT * FROM ringwright.moved_tables() LOOP
        EXECUTE format('DELETE FROM %s WHERE %I IN (SELECT %2$I FROM %1$s WHERE %2$I >= $1 AND %2$I < $2
                                                    ORDER BY %2$I LIMIT $3)', t.relation, t.id_column)
            USING ringwright.lowest_id(range_lo), ringwright.end_id(range_hi), max_rows - total;
        GET DIAGNOSTICS deleted = ROW_COUNT;
        total := total + deleted;
        EXIT WHEN total >= max_rows;
    END LOOP;
    RETURN total;
END $$;

-- Says that nothing of a moved range is here any more, once that is so.
CREATE FUNCTION ringwright.mark_cleaned(clean_move_id uuid, range_lo bigint, range_hi bigint) RETURNS boolean
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '1s' AS $$
DECLARE
    r ringwright.range_owners;
BEGIN
    r := ringwright.lock_range(range_lo, range_hi);
    IF r.move_id IS DISTINCT FROM clean_move_id THEN
        RETURN false;
    END IF;
    IF r.state = 'cleaned' THEN
        PERFORM ringwright.confirm();
        RETURN true;
    END IF;
    IF r.state <> 'moved' OR ringwright.holds_rows(range_lo, range_hi) THEN
        RETURN false;
    END IF;
    UPDATE ringwright.range_owners o SET state = 'cleaned' WHERE o.range_id = r.range_id;
    RETURN true;
END $$;

-- Forgets a move that brings nothing any more, with its marks; true when nothing of it is left.
CREATE FUNCTION ringwright.forget_copy(forget_move_id uuid) RETURNS boolean
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF EXISTS (SELECT FROM ringwright.range_owners o WHERE o.state = 'importing' AND o.move_id = forget_move_id) THEN
        RETURN false;
    END IF;
    DELETE FROM ringwright.moves m WHERE m.move_id = forget_move_id;
    DELETE FROM ringwright.copies c WHERE c.move_id = forget_move_id;
    RETURN true;
END $$;

-- The programs end a freeze that is over, and finish a move whose operator died behind the commit point. All else is
-- the operator's, who is a superuser here: the role that subscriptions log in as reads rows and does no step.
GRANT EXECUTE ON FUNCTION ringwright.thaw, ringwright.activate, ringwright.move_of, ringwright.flushed_by
    TO ringwright_app, ringwright_notifier;
GRANT EXECUTE ON FUNCTION ringwright.rows_outside TO ringwright_monitor;

-- What decides who may write a row: the write fence, the apply guard and the refusal of TRUNCATE.
--
-- SQLSTATEs, which the store crate knows:
--   SR001  not here; DETAIL is json: lo, hi, generation, target, host (all null when the shard has no such range)
--   SR002  frozen for the last step of a move; try again in a few milliseconds
--   SR003  a row's id cannot change
--   SR004  the transaction is not READ COMMITTED
--   SR005  TRUNCATE is refused
--   SR006  a replicated row came for a range that is not being imported

-- Refuses a write to `key` by the state its range is in; split off so that the fences hold the fast path only.
CREATE FUNCTION ringwright.refuse_write(key uuid) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    r ringwright.range_owners;
BEGIN
    SELECT * INTO r FROM ringwright.range_owners WHERE lo_id <= key ORDER BY lo_id DESC LIMIT 1;
    IF r.hi_id <= key THEN
        r := NULL;
    END IF;
    IF r.state = 'frozen' THEN
        RAISE EXCEPTION USING ERRCODE = 'SR002',
            MESSAGE = format('the range of position %s is frozen by a move', left(key::text, 8)),
            HINT = 'Repeat the transaction in 2 to 10 ms.';
    END IF;
    -- moved, cleaned: towards the target; importing: towards the source; no row: towards nobody, never allowed.
    RAISE EXCEPTION USING ERRCODE = 'SR001',
        MESSAGE = format('position %s is not owned here', left(key::text, 8)),
        DETAIL = json_build_object('lo', r.lo, 'hi', r.hi, 'generation', r.generation, 'target', r.target,
                                   'host', r.target_hosts)::text,
        HINT = 'Repeat the transaction on the target, or by a newer ring.';
END $$;

-- TRUNCATE would pass every row trigger.
CREATE FUNCTION ringwright.refuse_truncate() RETURNS trigger
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RAISE EXCEPTION USING ERRCODE = 'SR005',
        MESSAGE = format('TRUNCATE of %I.%I is refused', TG_TABLE_SCHEMA, TG_TABLE_NAME),
        HINT = 'Delete rows by their ids.';
END $$;

-- Puts all guards on one table. The functions are made per table because naming the id column at run time would cost
-- more than all the rest of the fence.
--
-- The write fence, in this order because anything else let writes slip through:
--   1. find the range of the row's position,
--   2. take the range's lock, shared, to the end of the transaction; a freezer takes it exclusively, so it waits for
--      every writer that passed and every later writer waits for it,
--   3. only then read the range again, in a statement of its own and so with a new snapshot (in one statement with the
--      lock, the state from before the wait is seen); that is why READ COMMITTED is the only level,
--   4. begin again if the position belongs to another range by now (a split or a merge).
CREATE PROCEDURE ringwright.guard_table(guarded regclass, id_column name)
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    table_name name := (SELECT relname FROM pg_class WHERE oid = guarded);
BEGIN
    EXECUTE format($template$
        CREATE FUNCTION ringwright.fence_%1$s() RETURNS trigger
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
                    PERFORM ringwright.refuse_write(key);
                END IF;
                -- An assignment, not PERFORM, which would cost ten times as much.
                taken := pg_advisory_xact_lock_shared(found_id);
                SELECT state INTO now_state
                    FROM ringwright.range_owners WHERE range_id = found_id AND lo_id <= key AND key < hi_id;
                EXIT WHEN FOUND;
            END LOOP;

            IF now_state <> 'owned' THEN
                PERFORM ringwright.refuse_write(key);
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
        CREATE FUNCTION ringwright.apply_guard_%1$s() RETURNS trigger
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

    EXECUTE format($t$CREATE TRIGGER ringwright_fence BEFORE INSERT OR UPDATE OR DELETE ON %1$s
                      FOR EACH ROW EXECUTE FUNCTION ringwright.fence_%2$s()$t$, guarded, table_name);
    EXECUTE format($t$CREATE TRIGGER ringwright_apply_guard BEFORE INSERT OR UPDATE OR DELETE ON %1$s
                      FOR EACH ROW EXECUTE FUNCTION ringwright.apply_guard_%2$s()$t$, guarded, table_name);
    EXECUTE format($t$ALTER TABLE %1$s ENABLE REPLICA TRIGGER ringwright_apply_guard$t$, guarded);
    EXECUTE format($t$CREATE TRIGGER ringwright_no_truncate BEFORE TRUNCATE ON %1$s
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
